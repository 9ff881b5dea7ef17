//! A document on one screen of text.

use std::fmt;

use crate::report::Document;
use crate::report::compare::{Trend, trend};

/// The headline figures, beside those of an earlier document if there is one.
pub(crate) struct Summary<'a> {
    pub(crate) document: &'a Document,
    pub(crate) baseline: Option<&'a Document>,
}

/// Columns that are filled before the next line.
const COLUMNS: usize = 2;

impl fmt::Display for Summary<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Document {
            title,
            environment,
            seconds,
            sections,
            ..
        } = self.document;
        writeln!(out, "{title}, {seconds:.0} s\n{}\n", environment.line())?;
        for section in sections {
            let cells: Vec<String> = section
                .figures
                .iter()
                .filter(|figure| figure.headline)
                .map(|figure| {
                    let before = self
                        .baseline
                        .and_then(|baseline| baseline.value(&section.name, &figure.name));
                    let change = before.and_then(|before| trend(figure, before));
                    let change = change.map_or_else(String::new, |(ratio, trend)| {
                        let sign = match trend {
                            Trend::Better => "+",
                            Trend::Worse => "!",
                            Trend::Same => "=",
                        };
                        format!(" {sign}{ratio:.2}")
                    });
                    format!(
                        "{:<24} {:>10}{change}",
                        // The section stands in front of the line.
                        figure
                            .name
                            .trim_start_matches(&format!("{}: ", section.name)),
                        figure.unit.show(figure.value)
                    )
                })
                .collect();
            for (number, cells) in cells.chunks(COLUMNS).enumerate() {
                let name = if number == 0 {
                    section.name.as_str()
                } else {
                    ""
                };
                let line = cells
                    .iter()
                    .map(|cell| format!("{cell:<44}"))
                    .collect::<String>();
                writeln!(out, "{name:<14} {}", line.trim_end())?;
            }
        }
        Ok(())
    }
}
