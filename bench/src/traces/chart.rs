//! Curves as an SVG text: sizes on a logarithmic axis, ratios from 0 to 100 percent.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 44.0;
/// Distinct for most eyes (after P. Tol's qualitative schemes), then again with dashes.
const COLOURS: [&str; 7] = [
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777",
];

/// The chart of curves that have a value for each size.
pub(crate) fn svg(title: &str, sizes: &[f64], curves: &[(&str, Vec<f64>)]) -> String {
    let mut out = String::new();
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let least = sizes.iter().copied().fold(f64::INFINITY, f64::min).ln();
    let most = sizes.iter().copied().fold(0.0, f64::max).ln();
    let across = |size: f64| {
        let share = if most > least {
            (size.ln() - least) / (most - least)
        } else {
            0.5
        };
        LEFT + share * (right - LEFT)
    };
    let down = |ratio: f64| bottom - ratio * (bottom - TOP);
    let mut push = |line: std::fmt::Arguments<'_>| {
        out.write_fmt(line)
            .expect("a string takes whatever is written");
        out.push('\n');
    };
    push(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">"
    ));
    push(format_args!(
        "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    ));
    push(format_args!(
        "<text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>",
        escaped(title)
    ));
    for percent in (0..=100).step_by(20) {
        let y = down(f64::from(percent) / 100.0);
        push(format_args!(
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{percent}%</text>",
            LEFT - 6.0,
            y + 4.0
        ));
    }
    for &size in sizes {
        let x = across(size);
        push(format_args!(
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#eee\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{size}%</text>",
            bottom + 18.0
        ));
    }
    for (index, (name, ratios)) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let dashes = if index < COLOURS.len() { "none" } else { "5 3" };
        let points: Vec<String> = sizes
            .iter()
            .zip(ratios)
            .map(|(size, ratio)| format!("{:.1},{:.1}", across(*size), down(*ratio)))
            .collect();
        push(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>",
            points.join(" ")
        ));
        let (x, y) = (right + 14.0, TOP + 10.0 + index as f64 * 20.0);
        push(format_args!(
            "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dashes}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            x + 26.0,
            x + 34.0,
            y + 4.0,
            escaped(name)
        ));
    }
    push(format_args!("</svg>"));
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_has_a_line_and_a_name() {
        let text = svg(
            "a < b",
            &[1.0, 10.0],
            &[("lru", vec![0.0, 1.0]), ("x", vec![0.5, 0.5])],
        );
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert_eq!(text.matches("<polyline").count(), 2);
        assert!(text.contains("a &lt; b") && text.contains(">lru</text>"));
        // From the lower left corner to the upper right one.
        assert!(text.contains("points=\"56.0,436.0 690.0,40.0\""), "{text}");
    }
}
