//! The configuration as text: what `inflightkv config` and `inflightkv config --default` print, both valid TOML.

use std::fmt::Write;

use super::settings::{CONFIG, Fallback, Kind, SETTINGS, Section, Setting};
use super::{Effective, Place};

/// Where a text wider than this is broken.
const WIDTH: usize = 100;

/// Every setting with its default, its range and what it does. Reading it back gives the defaults.
pub(crate) fn default_file() -> String {
    let mut text = String::from(
        "# Configuration of InFlightKv: every setting with its default.\n\
         #\n\
         # A variable INFLIGHTKV_NAME, with _ for -, wins over this file, and a flag --name over both.\n\
         # Durations are seconds or have a unit (1500ms, 90s, 15m, 12h, 7d), sizes are bytes or have one\n\
         # (KiB, MiB, GiB, TiB, or KB, MB, GB, TB in powers of ten).\n",
    );
    let mut section = None;
    for setting in SETTINGS {
        if setting.name == CONFIG {
            continue;
        }
        if section != Some(setting.section) {
            section = Some(setting.section);
            let title = setting.section.title();
            line(
                &mut text,
                &format!("\n# ---- {title} {}", "-".repeat(WIDTH - title.len() - 8)),
            );
        }
        text.push('\n');
        paragraph(&mut text, &format!("{}.", setting.summary));
        paragraph(&mut text, setting.details);
        paragraph(&mut text, &format!("Allowed: {}.", setting.kind.expected()));
        match (setting.default_value(), setting.default) {
            (Some(value), _) => line(&mut text, &format!("{} = {value}", setting.name)),
            (None, Fallback::Nothing(words)) => {
                paragraph(&mut text, &format!("Default: {words}."));
                line(
                    &mut text,
                    &format!("# {} = {}", setting.name, example(setting)),
                );
            }
            (None, Fallback::Value(_)) => unreachable!("a default of the table is a value"),
        }
    }
    text
}

impl Effective {
    /// Every setting with its value and where that came from.
    pub(crate) fn print(&self) -> String {
        let cells: Vec<(String, String)> = self
            .rows
            .iter()
            .filter(|row| row.setting.section != Section::Configuration)
            .map(|row| {
                let name = row.setting.name;
                match (&row.value, &row.place, row.setting.default) {
                    (Some(value), Place::Default, Fallback::Nothing(words)) => {
                        (format!("{name} = {value}"), format!("default: {words}"))
                    }
                    (Some(value), place, _) => (format!("{name} = {value}"), place.to_string()),
                    (None, _, Fallback::Nothing(words)) => {
                        (format!("# {name} is not set"), format!("default: {words}"))
                    }
                    (None, _, Fallback::Value(_)) => {
                        unreachable!("a setting with a default always has a value")
                    }
                }
            })
            .collect();
        let widest = cells
            .iter()
            .map(|(cell, _)| cell.chars().count())
            .filter(|width| *width <= WIDTH / 2)
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        for (cell, origin) in cells {
            // A path may hold any character, a comment may not.
            let origin = origin.replace(char::is_control, "\u{fffd}");
            line(&mut text, &format!("{cell:widest$}  # {origin}"));
        }
        text
    }
}

fn example(setting: &Setting) -> String {
    match setting.name {
        "threads" => "4".to_owned(),
        "data-dir" => "\"/var/lib/inflightkv\"".to_owned(),
        "log-format" => "\"json\"".to_owned(),
        "max-memory" => "\"512MiB\"".to_owned(),
        "max-upload-memory" => "\"1GiB\"".to_owned(),
        _ if matches!(setting.kind, Kind::Count { .. }) => "1000".to_owned(),
        _ => format!("\"{}\"", setting.placeholder),
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes whatever is written");
}

/// Words as comment lines.
fn paragraph(text: &mut String, words: &str) {
    let mut current = String::from("#");
    for word in words.split_whitespace() {
        if current.chars().count() + 1 + word.chars().count() > WIDTH && current.len() > 1 {
            line(text, &current);
            current = String::from("#");
        }
        current.push(' ');
        current.push_str(word);
    }
    line(text, &current);
}
