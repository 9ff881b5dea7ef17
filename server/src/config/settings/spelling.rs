//! Values and what was written, spelt out again: as JSON, as TOML, and as an error message names them.

use super::{Value, WHOLE, Written};
use crate::config::units;

impl Value {
    /// As JSON: numbers and truth values as such, everything else as the text that a person would write.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Count(count) => (*count).into(),
            Value::Switch(on) => (*on).into(),
            Value::Address(address) => address.to_string().into(),
            Value::Choice(choice) => (*choice).into(),
            Value::Duration(duration) => units::print_duration(*duration).into(),
            Value::Size(bytes) => units::print_size(*bytes).into(),
            Value::Share(percent) => format!("{percent}%").into(),
            Value::Rate(0) => "off".into(),
            Value::Rate(WHOLE) => "on".into(),
            Value::Rate(rate) => format!("{}%", f64::from(*rate) / 1e4).into(),
            Value::Name(name) => name.as_str().into(),
            Value::Path(path) => path.to_string_lossy().into(),
        }
    }
}

/// As TOML, which is also how `inflightkv config` prints it.
impl std::fmt::Display for Value {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Count(count) => write!(formatter, "{count}"),
            Value::Switch(on) => write!(formatter, "{on}"),
            Value::Rate(_) => write!(formatter, "{}", self.to_json()),
            Value::Address(address) => write!(formatter, "\"{address}\""),
            Value::Choice(choice) => write!(formatter, "\"{choice}\""),
            Value::Duration(duration) => {
                write!(formatter, "\"{}\"", units::print_duration(*duration))
            }
            Value::Size(bytes) => write!(formatter, "\"{}\"", units::print_size(*bytes)),
            Value::Share(percent) => write!(formatter, "\"{percent}%\""),
            Value::Name(name) => write!(formatter, "{}", toml::Value::from(name.as_str())),
            Value::Path(path) => {
                write!(
                    formatter,
                    "{}",
                    toml::Value::from(path.to_string_lossy().as_ref())
                )
            }
        }
    }
}

/// As an error message names it. Long ones are cut: the message stays one line to read.
impl std::fmt::Display for Written {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN_MAX: usize = 80;
        match self {
            Written::Word(text) | Written::String(text) => {
                if let Some((cut, _)) = text.char_indices().nth(SHOWN_MAX) {
                    write!(formatter, "{:?}…", &text[..cut])
                } else {
                    write!(formatter, "{text:?}")
                }
            }
            Written::Integer(number) => write!(formatter, "{number}"),
            Written::Boolean(on) => write!(formatter, "{on}"),
            Written::Real(text) => formatter.write_str(text),
            Written::Other(what) => formatter.write_str(what),
        }
    }
}
