//! A document as one page that needs nothing else: no script, no font, no file beside it.

use std::fmt::Write as _;

use crate::report::compare::{Trend, trend};
use crate::report::{Better, Document, Figure, Section};

const PAGE: &str = include_str!("page.html");

/// Text that cannot be taken for markup.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

pub(crate) fn render(document: &Document, baseline: Option<&Document>) -> String {
    let sections: String = document
        .sections
        .iter()
        .map(|one| section(one, baseline))
        .collect();
    let navigation: String = document
        .sections
        .iter()
        .map(|section| (section.name.as_str(), section.title.as_str()))
        .chain([("machine", "Where and how")])
        .map(|(name, title)| format!(r##"<a href="#{}">{}</a>"##, escape(name), escape(title)))
        .collect();
    let subtitle = format!(
        "{} · commit {} · {}",
        document.environment.line(),
        document.environment.commit,
        document.environment.date
    );
    // In this order, so that nothing measured is taken for a place to fill.
    PAGE.replace("{{title}}", &escape(&document.title))
        .replace("{{navigation}}", &navigation)
        .replace("{{cards}}", &cards(document, baseline))
        .replace("{{machine}}", &machine(document, baseline))
        .replace("{{subtitle}}", &escape(&subtitle))
        .replace("{{sections}}", &sections)
}

/// A card for each benchmark, with the figures that say most.
fn cards(document: &Document, baseline: Option<&Document>) -> String {
    let mut out = String::new();
    for section in &document.sections {
        let rows: String = section
            .figures
            .iter()
            .filter(|figure| figure.headline)
            .map(|figure| row(section, figure, baseline))
            .collect();
        if !rows.is_empty() {
            write!(
                out,
                r##"<div class="card"><h3><a href="#{}">{}</a></h3><dl>{rows}</dl></div>"##,
                escape(&section.name),
                escape(&section.title)
            )
            .expect("writing to memory does not fail");
        }
    }
    out
}

fn row(section: &Section, figure: &Figure, baseline: Option<&Document>) -> String {
    let before = baseline.and_then(|baseline| baseline.value(&section.name, &figure.name));
    let change = change(figure, before);
    format!(
        "<div><dt>{}{}</dt><dd>{}{}</dd></div>",
        escape(&figure.name),
        direction(figure.better),
        escape(&figure.unit.show(figure.value)),
        change.map_or_else(String::new, |change| format!("<br>{change}"))
    )
}

/// An arrow to where it is better.
fn direction(better: Better) -> &'static str {
    match better {
        Better::Higher => r#" <span class="arrow" title="more is better">↑</span>"#,
        Better::Lower => r#" <span class="arrow" title="less is better">↓</span>"#,
        Better::Neither => "",
    }
}

/// `1.12× the baseline`, coloured by whether that is good.
fn change(figure: &Figure, before: Option<f64>) -> Option<String> {
    let (ratio, trend) = trend(figure, before?)?;
    let class = match trend {
        Trend::Better => "better",
        Trend::Worse => "worse",
        Trend::Same => "soft",
    };
    Some(format!(
        r#"<i class="{class}">{ratio:.2}× the baseline</i>"#
    ))
}

fn section(section: &Section, baseline: Option<&Document>) -> String {
    let mut out = String::new();
    let name = escape(&section.name);
    write!(
        out,
        r#"<section id="{name}"><h2>{}</h2><p class="soft">{}</p>"#,
        escape(&section.title),
        escape(&section.about)
    )
    .and_then(|()| {
        out.push_str(r#"<div class="charts">"#);
        for chart in &section.charts {
            write!(
                out,
                "<figure><h3>{}</h3>{}</figure>",
                escape(&chart.title),
                chart.draw()
            )?;
        }
        out.push_str("</div>");
        if !section.notes.is_empty() {
            out.push_str(r#"<ul class="notes">"#);
            for note in &section.notes {
                write!(out, "<li>{}</li>", escape(note))?;
            }
            out.push_str("</ul>");
        }
        table(section, baseline, &mut out)
    })
    .expect("writing to memory does not fail");
    out.push_str("</section>\n");
    out
}

/// Every figure; folded where charts already tell the story.
fn table(section: &Section, baseline: Option<&Document>, out: &mut String) -> std::fmt::Result {
    let open = if section.charts.is_empty() {
        " open"
    } else {
        ""
    };
    write!(
        out,
        r#"<details{open}><summary>All {} figures</summary><div class="scroll"><table><tr><th>figure</th><th class="number">value</th>"#,
        section.figures.len()
    )?;
    if baseline.is_some() {
        out.push_str(r#"<th class="number">baseline</th><th>change</th>"#);
    }
    out.push_str("</tr>");
    for figure in &section.figures {
        write!(
            out,
            r#"<tr><td>{}{}</td><td class="number">{}</td>"#,
            escape(&figure.name),
            direction(figure.better),
            escape(&figure.unit.show(figure.value))
        )?;
        if let Some(baseline) = baseline {
            let before = baseline.value(&section.name, &figure.name);
            let shown = before.map_or_else(|| "–".to_owned(), |before| figure.unit.show(before));
            write!(
                out,
                r#"<td class="number">{}</td><td>{}</td>"#,
                escape(&shown),
                change(figure, before).unwrap_or_default()
            )?;
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div></details>");
    Ok(())
}

fn machine(document: &Document, baseline: Option<&Document>) -> String {
    let mut rows = document.environment.rows();
    rows.extend(document.settings.iter().cloned());
    rows.push(("took".to_owned(), format!("{:.0} s", document.seconds)));
    if let Some(baseline) = baseline {
        let Document { environment, .. } = baseline;
        let line = format!("commit {}, {}", environment.commit, environment.date);
        rows.push(("baseline".to_owned(), line));
    }
    rows.iter()
        .map(|(name, value)| {
            format!(
                "<tr><th>{}</th><td>{}</td></tr>",
                escape(name),
                escape(value)
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::report::FORMAT;
    use crate::report::chart::{Axis, Chart};
    use crate::report::unit::Unit;

    fn document(value: f64) -> Document {
        let mut section = Section::new("reads", "Reads & more", "What <was> done.");
        section.headline("GET", value, Unit::PerSecond, Better::Higher);
        let chart = Chart::lines("Latency", Axis::quantiles(), Axis::latency());
        section
            .charts
            .push(chart.with("GET", vec![(0.5, 100.0), (0.99, 900.0)]));
        section.note("A note.");
        Document {
            format: FORMAT,
            title: "Benchmarks".to_owned(),
            environment: Environment::default(),
            settings: vec![("seed".to_owned(), "1".to_owned())],
            started_at: 0,
            seconds: 1.0,
            sections: vec![section],
        }
    }

    #[test]
    fn the_page_has_everything_and_needs_nothing() {
        let page = render(&document(2_000.0), Some(&document(1_000.0)));
        for part in [
            "Reads &amp; more",
            "What &lt;was&gt; done.",
            "2000/s",
            "2.00× the baseline",
            "A note.",
            "<svg",
        ] {
            assert!(page.contains(part), "{part} is missing");
        }
        for reference in ["{{", "http:", "https:", "src=", "<script", "<link", "url("] {
            assert!(!page.contains(reference), "the page has {reference}");
        }
    }

    #[test]
    fn a_document_is_read_back_and_another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        document(5.0).write(folder.path(), "x", None).unwrap();
        let path = folder.path().join("x.json");
        let read = Document::read(&path).unwrap();
        assert_eq!(read.value("reads", "GET"), Some(5.0));
        let other = std::fs::read_to_string(&path)
            .unwrap()
            .replace("\"format\": 1", "\"format\": 7");
        std::fs::write(&path, other).unwrap();
        let error = Document::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("has format 7, this program reads 1"),
            "{error}"
        );
        std::fs::write(&path, "[]").unwrap();
        let error = Document::read(&path).unwrap_err().to_string();
        assert!(error.contains("is no report of this program"), "{error}");
    }
}
