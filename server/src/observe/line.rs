//! What a log line looks like: for people, as plain JSON, or in the names of the Elastic Common Schema.
//!
//! Field names of the schema are those of version 8.11; what it has no name for stands under `inflightkv.`.

use super::time::push_rfc3339;
use crate::http::json::push_string;
use std::io::Write;
use std::time::SystemTime;

/// The version of the schema, as its lines say.
const ECS_VERSION: &str = "8.11.0";

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Pretty {
        /// With escape sequences for a terminal.
        colours: bool,
    },
    /// One JSON object a line.
    Json,
    /// One JSON object a line, in the names of the Elastic Common Schema.
    Ecs,
}

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }

    fn ecs(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Error => "\x1b[31m",
            Self::Warn => "\x1b[33m",
            Self::Info => "\x1b[32m",
            Self::Debug => "\x1b[34m",
            Self::Trace => "\x1b[35m",
        }
    }
}

/// A field's name in both JSON formats.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Name<'a> {
    /// The schema knows it by its second name.
    Known(&'static str, &'static str),
    /// Our own.
    Own(&'a str),
}

/// What a field says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Count(u64),
    Signed(i64),
    Real(f64),
    Switch(bool),
}

/// A line being made.
#[derive(Debug)]
pub(crate) struct Line {
    format: Format,
    text: Vec<u8>,
}

impl Line {
    /// A line of `dataset` (`server`, `request`, `audit`): who says it is part of it, so that streams can be told
    /// apart.
    pub(crate) fn new(
        format: Format,
        at: SystemTime,
        level: Level,
        dataset: &'static str,
        message: &str,
    ) -> Self {
        let mut line = Self {
            format,
            text: Vec::with_capacity(256),
        };
        match format {
            Format::Pretty { colours } => {
                push_rfc3339(&mut line.text, at);
                let (begin, end) = if colours {
                    (level.colour(), "\x1b[0m")
                } else {
                    ("", "")
                };
                // Writing to a vector does not fail.
                let _ = write!(line.text, " {begin}{:>5}{end} ", level.name());
                line.push_plain(message);
            }
            Format::Json => {
                line.push_time("timestamp", at);
                line.field(Name::Own("level"), Value::Text(level.name()));
                line.field(Name::Own("dataset"), Value::Text(dataset));
                line.field(Name::Own("message"), Value::Text(message));
            }
            Format::Ecs => {
                line.push_time("@timestamp", at);
                line.field(Name::Known("", "log.level"), Value::Text(level.ecs()));
                line.field(Name::Known("", "message"), Value::Text(message));
                line.field(Name::Known("", "ecs.version"), Value::Text(ECS_VERSION));
                line.field(Name::Known("", "service.name"), Value::Text("inflightkv"));
                line.field(
                    Name::Known("", "event.dataset"),
                    Value::Text(match dataset {
                        "request" => "inflightkv.request",
                        "audit" => "inflightkv.audit",
                        _ => "inflightkv.server",
                    }),
                );
            }
        }
        line
    }

    fn push_time(&mut self, name: &str, at: SystemTime) {
        let _ = write!(self.text, "{{\"{name}\":\"");
        push_rfc3339(&mut self.text, at);
        self.text.push(b'"');
    }

    /// Adds a field.
    pub(crate) fn field(&mut self, name: Name<'_>, value: Value<'_>) {
        match self.format {
            Format::Pretty { .. } => {
                let (Name::Known(name, _) | Name::Own(name)) = name;
                self.text.push(b' ');
                self.push_plain(name);
                self.text.push(b'=');
                match value {
                    Value::Text(text) => self.push_plain(text),
                    other => self.push_number(other),
                }
                return;
            }
            Format::Json => {
                let (Name::Known(name, _) | Name::Own(name)) = name;
                self.text.push(b',');
                push_string(&mut self.text, name.as_bytes());
            }
            Format::Ecs => {
                self.text.push(b',');
                match name {
                    Name::Known(_, name) => push_string(&mut self.text, name.as_bytes()),
                    Name::Own(name) => {
                        push_string(&mut self.text, format!("inflightkv.{name}").as_bytes());
                    }
                }
            }
        }
        self.text.push(b':');
        match value {
            Value::Text(text) => push_string(&mut self.text, text.as_bytes()),
            other => self.push_number(other),
        }
    }

    fn push_number(&mut self, value: Value<'_>) {
        let _ = match value {
            Value::Text(text) => write!(self.text, "{text}"),
            Value::Count(number) => write!(self.text, "{number}"),
            Value::Signed(number) => write!(self.text, "{number}"),
            Value::Real(number) if number.is_finite() => write!(self.text, "{number}"),
            Value::Real(_) => write!(self.text, "null"),
            Value::Switch(on) => write!(self.text, "{on}"),
        };
    }

    /// Text from outside must not forge lines or drive a terminal: control characters are spelt out.
    fn push_plain(&mut self, text: &str) {
        if text.contains(char::is_control) {
            let _ = write!(self.text, "{}", text.escape_debug());
        } else {
            self.text.extend_from_slice(text.as_bytes());
        }
    }

    /// The line, with its line feed.
    pub(crate) fn end(mut self) -> Vec<u8> {
        if !matches!(self.format, Format::Pretty { .. }) {
            self.text.push(b'}');
        }
        self.text.push(b'\n');
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn line(format: Format) -> String {
        let mut line = Line::new(format, UNIX_EPOCH, Level::Warn, "server", "a \"b\"\nforged");
        line.field(
            Name::Known("method", "http.request.method"),
            Value::Text("GET"),
        );
        line.field(Name::Own("lost"), Value::Count(3));
        line.field(Name::Own("share"), Value::Real(f64::NAN));
        String::from_utf8(line.end()).expect("UTF-8")
    }

    #[test]
    fn a_line_is_one_line_in_every_format() {
        assert_eq!(
            line(Format::Pretty { colours: false }),
            "1970-01-01T00:00:00.000000Z  WARN a \\\"b\\\"\\nforged method=GET lost=3 share=null\n"
        );
        assert_eq!(
            line(Format::Json),
            "{\"timestamp\":\"1970-01-01T00:00:00.000000Z\",\"level\":\"WARN\",\"dataset\":\"server\",\
             \"message\":\"a \\\"b\\\"\\nforged\",\"method\":\"GET\",\"lost\":3,\"share\":null}\n"
        );
        let ecs: serde_json::Value =
            serde_json::from_str(&line(Format::Ecs)).expect("a JSON object");
        assert_eq!(ecs["@timestamp"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(ecs["http.request.method"], "GET");
        assert_eq!(ecs["inflightkv.lost"], 3);
        assert_eq!(ecs["log.level"], "warn");
    }
}
