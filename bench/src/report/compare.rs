//! Two documents of one machine, figure by figure.

use crate::report::{Better, Document, Figure};

/// Closer than this is the same, on a machine that does nothing else.
const SAME: f64 = 0.05;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trend {
    Better,
    Worse,
    Same,
}

/// How a figure relates to the same one of an earlier document: the multiple, and what that means.
pub(crate) fn trend(figure: &Figure, before: f64) -> Option<(f64, Trend)> {
    if before <= 0.0 || figure.value <= 0.0 {
        return None;
    }
    let ratio = figure.value / before;
    let trend = match figure.better {
        _ if (ratio - 1.0).abs() <= SAME => Trend::Same,
        Better::Neither => Trend::Same,
        Better::Higher if ratio > 1.0 => Trend::Better,
        Better::Lower if ratio < 1.0 => Trend::Better,
        _ => Trend::Worse,
    };
    Some((ratio, trend))
}

impl Document {
    /// The value of a figure, by its names.
    pub(crate) fn value(&self, section: &str, figure: &str) -> Option<f64> {
        let section = self.sections.iter().find(|other| other.name == section)?;
        let figure = section.figures.iter().find(|other| other.name == figure)?;
        Some(figure.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::unit::Unit;

    fn figure(value: f64, better: Better) -> Figure {
        Figure {
            name: "x".to_owned(),
            value,
            unit: Unit::Count,
            better,
            headline: false,
        }
    }

    #[test]
    fn the_direction_says_which_change_is_good() {
        let of = |value, better| trend(&figure(value, better), 100.0).map(|(_, trend)| trend);
        assert_eq!(of(120.0, Better::Higher), Some(Trend::Better));
        assert_eq!(of(120.0, Better::Lower), Some(Trend::Worse));
        assert_eq!(of(80.0, Better::Higher), Some(Trend::Worse));
        assert_eq!(of(80.0, Better::Lower), Some(Trend::Better));
        assert_eq!(of(103.0, Better::Lower), Some(Trend::Same));
        assert_eq!(of(150.0, Better::Neither), Some(Trend::Same));
        assert_eq!(trend(&figure(1.0, Better::Lower), 0.0), None);
    }
}
