//! What was written, and where: the layers of file, environment and flags, before anything is checked against the table.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::settings::{self, CONFIG, Setting, Value, Written};

pub(crate) const VARIABLE_PREFIX: &str = "INFLIGHTKV_";

/// Variables with the prefix that are not settings of the server: where the client subcommands find it.
const OTHER_VARIABLES: [&str; 2] = ["INFLIGHTKV_URL", "INFLIGHTKV_TOKEN"];

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Default,
    /// Lines count from 1.
    File {
        path: PathBuf,
        line: usize,
    },
    Variable(String),
    Flag(&'static str),
    /// Changed while the server ran.
    Request,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => formatter.write_str("default"),
            Place::File { path, line } => write!(formatter, "{} line {line}", path.display()),
            Place::Variable(name) => write!(formatter, "environment variable {name}"),
            Place::Flag(name) => write!(formatter, "flag --{name}"),
            Place::Request => formatter.write_str("changed at run time"),
        }
    }
}

/// One setting as one place gives it.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) setting: &'static Setting,
    pub(crate) written: Written,
    pub(crate) place: Place,
}

impl Raw {
    /// The value, if the setting accepts it.
    pub(crate) fn read(&self) -> Result<Value, ConfigError> {
        let Raw {
            setting,
            written,
            place,
        } = self;
        setting.kind.read(written).ok_or_else(|| {
            ConfigError::new(
                place,
                format!(
                    "{}: found {written}; expected {}",
                    setting.name,
                    setting.kind.expected()
                ),
            )
        })
    }
}

/// All layers, the weakest first: of two entries for a setting, the later one wins.
///
/// The file is the one that a flag or else a variable names.
pub(crate) fn layers(
    flags: impl IntoIterator<Item = (&'static str, OsString)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Raw>, ConfigError> {
    let mut above = from_environment(environment)?;
    above.extend(from_flags(flags)?);
    let file = above.iter().rev().find(|raw| raw.setting.name == CONFIG);
    let mut layers = match file {
        Some(raw) => from_file(raw)?,
        None => Vec::new(),
    };
    layers.append(&mut above);
    Ok(layers)
}

fn from_flags(
    flags: impl IntoIterator<Item = (&'static str, OsString)>,
) -> Result<Vec<Raw>, ConfigError> {
    flags
        .into_iter()
        .map(|(name, value)| {
            let setting = settings::find(name).expect("flags are made from the table");
            let place = Place::Flag(setting.name);
            let written = word(setting, &place, value)?;
            Ok(Raw {
                setting,
                written,
                place,
            })
        })
        .collect()
}

fn from_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Raw>, ConfigError> {
    let mut ours: Vec<(String, OsString)> = environment
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value)))
        .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
        .filter(|(name, _)| !OTHER_VARIABLES.contains(&name.as_str()))
        .collect();
    // The environment has no order; the first error should be the same one every time.
    ours.sort();
    ours.into_iter()
        .map(|(name, value)| {
            let Some(setting) = settings::SETTINGS
                .iter()
                .find(|setting| setting.variable() == name)
            else {
                return Err(unknown_variable(&name));
            };
            let place = Place::Variable(name);
            let written = word(setting, &place, value)?;
            Ok(Raw {
                setting,
                written,
                place,
            })
        })
        .collect()
}

fn word(setting: &Setting, place: &Place, value: OsString) -> Result<Written, ConfigError> {
    value.into_string().map(Written::Word).map_err(|value| {
        ConfigError::new(
            place,
            format!(
                "{}: found {:?}, which is not UTF-8; expected {}",
                setting.name,
                value.to_string_lossy(),
                setting.kind.expected()
            ),
        )
    })
}

fn unknown_variable(name: &str) -> ConfigError {
    let key = &name[VARIABLE_PREFIX.len()..];
    let hint = if key.starts_with("SERVICE_") || key == "PORT" || key.starts_with("PORT_") {
        // Kubernetes gives every pod such variables for each service, also for one called inflightkv.
        "expected a setting's name; Kubernetes sets this one unless the pod has enableServiceLinks: false"
            .to_owned()
    } else {
        match settings::nearest(key).and_then(settings::find) {
            Some(setting) => format!("expected {}, perhaps", setting.variable()),
            None => "expected the name of a setting, which `inflightkv config --default` lists"
                .to_owned(),
        }
    };
    ConfigError::new(
        &Place::Variable(name.to_owned()),
        format!("found an unknown setting; {hint}"),
    )
}

fn from_file(named: &Raw) -> Result<Vec<Raw>, ConfigError> {
    let Value::Path(path) = named.read()? else {
        unreachable!("the table says that {CONFIG} is a path")
    };
    let unreadable = |problem: &str| {
        ConfigError::new(
            &named.place,
            format!(
                "{CONFIG}: found {}, {problem}; expected a TOML file",
                named.written
            ),
        )
    };
    let bytes =
        fs::read(&path).map_err(|error| unreadable(&format!("which cannot be read ({error})")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        unreadable(&format!("which is not UTF-8 in line {line}"))
    })?;
    parse_file(&path, &text)
}

/// The settings of a file's text, in the order of their lines.
pub(crate) fn parse_file(path: &Path, text: &str) -> Result<Vec<Raw>, ConfigError> {
    let place = |span: Range<usize>| Place::File {
        path: path.to_owned(),
        line: 1 + text.as_bytes()[..span.start.min(text.len())]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count(),
    };
    let table = DeTable::parse(text).map_err(|error| {
        ConfigError::new(
            &place(error.span().unwrap_or(0..0)),
            format!(
                "found what is not TOML; {}",
                error.message().replace('\n', ", ")
            ),
        )
    })?;
    let mut entries: Vec<_> = table.into_inner().into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
        .into_iter()
        .map(|(key, value)| {
            let place = place(key.span());
            let name = key.into_inner();
            let setting = match settings::find(&name) {
                Some(setting) if setting.name == CONFIG => {
                    let problem =
                        "config: found in a file; expected only as a flag or a variable, since one file does not name another";
                    return Err(ConfigError::new(&place, problem.to_owned()));
                }
                Some(setting) => setting,
                None => return Err(unknown_key(&place, &name, value.get_ref())),
            };
            let written = scalar(value.get_ref());
            Ok(Raw {
                setting,
                written,
                place,
            })
        })
        .collect()
}

fn unknown_key(place: &Place, name: &str, value: &DeValue<'_>) -> ConfigError {
    let hint = match settings::nearest(name) {
        Some(nearest) => format!("{nearest}, perhaps"),
        None if value.is_table() => "settings without tables, such as wal-sync".to_owned(),
        None => "the name of a setting, which `inflightkv config --default` lists".to_owned(),
    };
    let shown = Written::String(name.to_owned());
    ConfigError::new(
        place,
        format!("found the unknown key {shown}; expected {hint}"),
    )
}

fn scalar(value: &DeValue<'_>) -> Written {
    match value {
        DeValue::String(text) => Written::String(text.to_string()),
        DeValue::Boolean(on) => Written::Boolean(*on),
        DeValue::Integer(integer) => {
            match i128::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) => Written::Integer(number),
                Err(_) => Written::Other("an integer far too large"),
            }
        }
        DeValue::Float(float) => Written::Real(float.as_str().to_owned()),
        DeValue::Datetime(_) => Written::Other("a date or time"),
        DeValue::Array(_) => Written::Other("an array"),
        DeValue::Table(_) => Written::Other("a table"),
    }
}
