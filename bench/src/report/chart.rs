//! Charts as data, and drawn as SVG that takes its colours from the page.
//!
//! A drawing has its own coordinates and is scaled by the page; text in it is large enough to be read on a phone.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::report::page::escape;
use crate::report::unit::Unit;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) kind: Kind,
    pub(crate) series: Vec<Series>,
    /// Stretches of the x axis with a name, such as the time that a snapshot took.
    pub(crate) marks: Vec<Mark>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Lines,
    /// Horizontal bars; the x of a point is the number of its category.
    Bars(Vec<String>),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) unit: Unit,
    pub(crate) scale: Scale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scale {
    Linear,
    Log,
    /// Shares of all requests, stretched towards the last ones: 90 %, 99 %, 99.9 % are equally far apart.
    Quantile,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) label: String,
}

impl Chart {
    pub(crate) fn lines(title: &str, x: Axis, y: Axis) -> Self {
        Self {
            title: title.to_owned(),
            x,
            y,
            kind: Kind::Lines,
            series: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Bars, one for each category in each series.
    pub(crate) fn bars(title: &str, unit: Unit, categories: Vec<String>) -> Self {
        Self {
            kind: Kind::Bars(categories),
            ..Self::lines(
                title,
                Axis::new("", Unit::Count, Scale::Linear),
                Axis::new("", unit, Scale::Linear),
            )
        }
    }

    pub(crate) fn with(mut self, name: &str, points: Vec<(f64, f64)>) -> Self {
        self.add(name, points);
        self
    }

    pub(crate) fn add(&mut self, name: &str, points: Vec<(f64, f64)>) {
        self.series.push(Series {
            name: name.to_owned(),
            points,
        });
    }

    /// Values of a series of bars, in the order of the categories.
    pub(crate) fn add_bars(&mut self, name: &str, values: &[f64]) {
        let points = values.iter().enumerate();
        self.add(
            name,
            points.map(|(at, &value)| (at as f64, value)).collect(),
        );
    }

    pub(crate) fn mark(&mut self, from: f64, to: f64, label: &str) {
        self.marks.push(Mark {
            from,
            to,
            label: label.to_owned(),
        });
    }
}

impl Axis {
    pub(crate) fn new(label: &str, unit: Unit, scale: Scale) -> Self {
        Self {
            label: label.to_owned(),
            unit,
            scale,
        }
    }

    pub(crate) fn quantiles() -> Self {
        Self::new("share of requests", Unit::Percent, Scale::Quantile)
    }

    pub(crate) fn latency() -> Self {
        Self::new("latency", Unit::Microseconds, Scale::Log)
    }

    pub(crate) fn seconds() -> Self {
        Self::new("time", Unit::Seconds, Scale::Linear)
    }

    fn show(&self, value: f64) -> String {
        match self.scale {
            Scale::Quantile => share(value),
            _ => self.unit.show(value),
        }
    }
}

/// `99.9 %`
fn share(quantile: f64) -> String {
    let percent = format!("{:.4}", 100.0 * quantile);
    format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
}

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// What the last share of a distribution is drawn at; all of them would be endlessly far.
const QUANTILE_MAX: f64 = 0.99999;
/// Colours of the page; more series than these begin anew.
const COLOURS: usize = 8;

const BAR: f64 = 15.0;
const BAR_GAP: f64 = 3.0;
const GROUP_GAP: f64 = 12.0;
const BARS_LEFT: f64 = 128.0;
const BARS_RIGHT: f64 = 78.0;

/// One direction: from values to a stretch of the drawing.
struct Line<'a> {
    axis: &'a Axis,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl<'a> Line<'a> {
    fn new(axis: &'a Axis, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            let value = axis.scale.place(value);
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        match axis.scale {
            Scale::Linear => low = low.min(0.0),
            // Whole decades, so that the grid begins and ends with the drawing, unless that would squeeze it.
            Scale::Log => (low, high) = ((2.0 * low).floor() / 2.0, (2.0 * high).ceil() / 2.0),
            Scale::Quantile => low = 0.0,
        }
        if high - low < 1e-9 {
            high = low + 1.0;
        }
        if axis.scale == Scale::Linear && axis.unit != Unit::Seconds {
            high += 0.04 * (high - low);
        }
        Self {
            axis,
            low,
            high,
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (self.axis.scale.place(value) - self.low) / (self.high - self.low);
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.axis.scale {
            Scale::Linear => {
                let step = round_step((self.high - self.low) / 4.0);
                let mut ticks = Vec::new();
                let mut tick = (self.low / step).ceil() * step;
                while tick <= self.high + 1e-9 {
                    ticks.push(tick);
                    tick += step;
                }
                ticks
            }
            Scale::Log => {
                let factors: &[f64] = if self.high - self.low > 2.5 {
                    &[1.0]
                } else {
                    &[1.0, 2.0, 5.0]
                };
                let decades = self.low.floor() as i32..=self.high.ceil() as i32;
                decades
                    .flat_map(|decade| {
                        factors
                            .iter()
                            .map(move |factor| factor * 10_f64.powi(decade))
                    })
                    .filter(|tick| (self.low - 1e-9..=self.high + 1e-9).contains(&tick.log10()))
                    .collect()
            }
            Scale::Quantile => [0.0, 0.9, 0.99, 0.999, 0.9999]
                .into_iter()
                .filter(|&tick| Scale::Quantile.place(tick) <= self.high)
                .collect(),
        }
    }
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.max(1e-3).log10(),
            Self::Quantile => -(1.0 - value.clamp(0.0, QUANTILE_MAX)).log10(),
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.max(1e-12).log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= step - 1e-12);
    factor.unwrap_or(10.0) * power
}

impl Chart {
    /// The drawing, and below it what its colours mean.
    pub(crate) fn draw(&self) -> String {
        let mut out = String::new();
        match &self.kind {
            Kind::Lines => self.draw_lines(&mut out),
            Kind::Bars(categories) => self.draw_bars(categories, &mut out),
        }
        .expect("writing to memory does not fail");
        out
    }

    fn draw_lines(&self, out: &mut String) -> std::fmt::Result {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Line::new(&self.x, points().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Line::new(&self.y, points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        self.open(out, HEIGHT)?;
        for mark in &self.marks {
            let (from, to) = (x.at(mark.from), x.at(mark.to).max(x.at(mark.from) + 2.0));
            write!(
                out,
                r#"<rect class="mark" x="{from:.1}" y="{TOP}" width="{:.1}" height="{:.1}"><title>{}</title></rect>"#,
                to - from,
                HEIGHT - BOTTOM - TOP,
                escape(&mark.label)
            )?;
            write!(
                out,
                r#"<text class="mark-label" x="{:.1}" y="{:.1}">{}</text>"#,
                from + 4.0,
                TOP + 13.0,
                escape(&mark.label)
            )?;
        }
        for tick in y.ticks() {
            let at = y.at(tick);
            write!(
                out,
                r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/><text class="tick" text-anchor="end" x="{:.1}" y="{:.1}">{}</text>"#,
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                escape(&self.y.show(tick))
            )?;
        }
        for tick in x.ticks() {
            let at = x.at(tick);
            write!(
                out,
                r#"<line class="grid" x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{:.1}"/><text class="tick" text-anchor="middle" x="{at:.1}" y="{:.1}">{}</text>"#,
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 17.0,
                escape(&self.x.show(tick))
            )?;
        }
        write!(
            out,
            r#"<text class="axis" text-anchor="middle" x="{:.1}" y="{:.1}">{}</text>"#,
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 8.0,
            escape(&self.x.label)
        )?;
        for (number, series) in self.series.iter().enumerate() {
            let colour = number % COLOURS;
            let path: Vec<String> = series
                .points
                .iter()
                .map(|&(left, up)| format!("{:.1},{:.1}", x.at(left), y.at(up)))
                .collect();
            write!(
                out,
                r#"<polyline class="line c{colour}" points="{}"/>"#,
                path.join(" ")
            )?;
            // Dots are for the pointer; where there are many they would hide the line.
            let radius = if series.points.len() > 40 { 1.2 } else { 2.6 };
            for &(left, up) in &series.points {
                write!(
                    out,
                    r#"<circle class="dot c{colour}" cx="{:.1}" cy="{:.1}" r="{radius}"><title>{}: {} at {}</title></circle>"#,
                    x.at(left),
                    y.at(up),
                    escape(&series.name),
                    escape(&self.y.show(up)),
                    escape(&self.x.show(left))
                )?;
            }
        }
        out.push_str("</svg>");
        self.legend(out)
    }

    fn draw_bars(&self, categories: &[String], out: &mut String) -> std::fmt::Result {
        let group = self.series.len() as f64 * (BAR + BAR_GAP) + GROUP_GAP;
        let height = TOP + group * categories.len() as f64;
        let values = self.series.iter().flat_map(|series| &series.points);
        let x = Line::new(
            &self.y,
            values.map(|point| point.1).chain([0.0]),
            BARS_LEFT,
            WIDTH - BARS_RIGHT,
        );
        self.open(out, height)?;
        for (row, category) in categories.iter().enumerate() {
            let top = TOP + row as f64 * group;
            write!(
                out,
                r#"<text class="tick" text-anchor="end" x="{:.1}" y="{:.1}">{}</text>"#,
                BARS_LEFT - 8.0,
                top + (group - GROUP_GAP) / 2.0 + 3.0,
                escape(category)
            )?;
            for (number, series) in self.series.iter().enumerate() {
                let Some(&(_, value)) = series.points.iter().find(|point| point.0 == row as f64)
                else {
                    continue;
                };
                let (y, end) = (top + number as f64 * (BAR + BAR_GAP), x.at(value));
                let shown = escape(&self.y.show(value));
                write!(
                    out,
                    r#"<rect class="bar c{}" x="{BARS_LEFT}" y="{y:.1}" width="{:.1}" height="{BAR}" rx="2"><title>{}: {shown}</title></rect><text class="value" x="{:.1}" y="{:.1}">{shown}</text>"#,
                    number % COLOURS,
                    (end - BARS_LEFT).max(1.0),
                    escape(&series.name),
                    end.max(BARS_LEFT + 1.0) + 5.0,
                    y + BAR - 3.0
                )?;
            }
        }
        out.push_str("</svg>");
        self.legend(out)
    }

    fn open(&self, out: &mut String, height: f64) -> std::fmt::Result {
        write!(
            out,
            r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{}">"#,
            escape(&self.title)
        )
    }

    fn legend(&self, out: &mut String) -> std::fmt::Result {
        if self.series.len() < 2 {
            return Ok(());
        }
        out.push_str(r#"<ul class="legend">"#);
        for (number, series) in self.series.iter().enumerate() {
            write!(
                out,
                r#"<li><span class="key c{}"></span>{}</li>"#,
                number % COLOURS,
                escape(&series.name)
            )?;
        }
        out.push_str("</ul>");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(scale: Scale, values: &[f64]) -> Vec<f64> {
        let axis = Axis::new("", Unit::Count, scale);
        Line::new(&axis, values.iter().copied(), 0.0, 100.0).ticks()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(ticks(Scale::Linear, &[0.0, 93.0]), [0.0, 50.0]);
        assert_eq!(ticks(Scale::Linear, &[3.0, 40.0]), [0.0, 20.0, 40.0]);
        assert_eq!(ticks(Scale::Log, &[10.0, 100.0]), [10.0, 20.0, 50.0, 100.0]);
        assert_eq!(
            ticks(Scale::Log, &[1.0, 99_000.0]),
            [1.0, 10.0, 100.0, 1e3, 1e4, 1e5]
        );
        assert_eq!(
            ticks(Scale::Quantile, &[0.0, 1.0]),
            [0.0, 0.9, 0.99, 0.999, 0.9999]
        );
    }

    /// Nothing, one point, zeros, endless numbers: a drawing all the same, and no coordinate outside of it.
    #[test]
    fn strange_points_are_drawn_inside() {
        for points in [
            vec![],
            vec![(1.0, 0.0)],
            vec![(0.0, 0.0), (0.0, 0.0)],
            vec![(1.0, f64::INFINITY), (2.0, 5.0)],
            vec![(1.0, f64::NAN)],
        ] {
            for scale in [Scale::Linear, Scale::Log, Scale::Quantile] {
                let axis = || Axis::new("a", Unit::Microseconds, scale);
                let drawing = Chart::lines("t", axis(), axis())
                    .with("s", points.clone())
                    .draw();
                assert!(
                    drawing.starts_with("<svg") && drawing.contains("</svg>"),
                    "{drawing}"
                );
                assert!(!drawing.contains("inf,"), "{drawing}");
            }
            let mut bars = Chart::bars("t", Unit::Count, vec!["one".to_owned(), "two".to_owned()]);
            bars.add("s", points);
            assert!(bars.draw().ends_with("</svg>"));
        }
    }

    #[test]
    fn names_cannot_break_out_of_the_drawing() {
        let axis = || Axis::new("<x>", Unit::Count, Scale::Linear);
        let chart = Chart::lines("\"t\"", axis(), axis()).with("<b>&", vec![(1.0, 1.0)]);
        let drawing = chart.draw();
        assert!(
            drawing.contains("&lt;b&gt;&amp;") && !drawing.contains("<b>"),
            "{drawing}"
        );
    }
}
