//! The configuration of a server that runs: what holds, and changing what may change.
//!
//! A change is all or nothing: every name and value is checked against the table, the whole is checked for
//! contradictions, the running server takes it, and only then does it count.

use std::ffi::OsString;
use std::fmt;

use parking_lot::Mutex;
use serde_json::{Map, Value as Json};

use super::raw::Place;
use super::settings::{self, Section, Setting, Written};
use super::{Config, ConfigError, Effective};
use crate::engine::Engine;
use crate::http::{Configuration, SettingError};

/// Has the running server do what a checked configuration says, as far as its run-time settings go.
type Apply = Box<dyn Fn(&Config, &Engine) -> Result<(), String> + Send + Sync>;

/// What holds now, and whom to tell when it changes.
pub(crate) struct Live {
    effective: Mutex<Effective>,
    /// The flags of the command line: a file that is read again stays below them.
    flags: Vec<(&'static str, OsString)>,
    apply: Apply,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl Live {
    pub(crate) fn new(
        effective: Effective,
        flags: Vec<(&'static str, OsString)>,
        apply: Apply,
    ) -> Self {
        Self {
            effective: Mutex::new(effective),
            flags,
            apply,
        }
    }

    /// Makes `next` what holds, if it is sound and the server takes it.
    fn adopt(
        &self,
        effective: &mut Effective,
        next: Effective,
        engine: &Engine,
    ) -> Result<(), String> {
        let config = Config::new(&next).map_err(|error| error.to_string())?;
        (self.apply)(&config, engine)?;
        *effective = next;
        Ok(())
    }
}

impl Configuration for Live {
    fn document(&self, details: bool) -> Json {
        let effective = self.effective.lock();
        let rows = effective
            .rows
            .iter()
            .filter(|row| row.setting.section != Section::Configuration);
        let members: Map<String, Json> = rows
            .map(|row| {
                let value = row
                    .value
                    .as_ref()
                    .map_or(Json::Null, settings::Value::to_json);
                let shown = if details {
                    serde_json::json!({
                        "value": value,
                        "from": row.place.to_string(),
                        "runtime": row.setting.runtime,
                        "allowed": row.setting.kind.expected(),
                        "summary": row.setting.summary,
                    })
                } else {
                    value
                };
                (row.setting.name.to_owned(), shown)
            })
            .collect();
        members.into()
    }

    fn change(&self, changes: &Map<String, Json>, engine: &Engine) -> Result<(), SettingError> {
        let mut effective = self.effective.lock();
        let mut next = effective.clone();
        for (name, found) in changes {
            let setting = changeable(name)?;
            let value = match written(found) {
                None => setting.default_value(),
                Some(written) => {
                    Some(
                        setting
                            .kind
                            .read(&written)
                            .ok_or_else(|| SettingError::Invalid {
                                name: setting.name,
                                reason: format!(
                                    "found {}; expected {}",
                                    shown(found),
                                    setting.kind.expected()
                                ),
                            })?,
                    )
                }
            };
            let row = next.row_mut(setting);
            row.value = value;
            row.place = Place::Request;
        }
        self.adopt(&mut effective, next, engine)
            .map_err(|reason| SettingError::Refused { reason })
    }

    fn reload(&self, engine: &Engine) -> Result<Vec<&'static str>, String> {
        let mut effective = self.effective.lock();
        let read = Effective::load(self.flags.iter().cloned(), std::env::vars_os())
            .map_err(|error: ConfigError| error.to_string())?;
        let mut next = effective.clone();
        let mut changed = Vec::new();
        for row in read.rows.into_iter().filter(|row| row.setting.runtime) {
            let known = next.row_mut(row.setting);
            if known.value != row.value {
                changed.push(row.setting.name);
            }
            *known = row;
        }
        self.adopt(&mut effective, next, engine)?;
        Ok(changed)
    }
}

fn changeable(name: &str) -> Result<&'static Setting, SettingError> {
    let Some(setting) = settings::find(name) else {
        let hint = match settings::nearest(name) {
            Some(nearest) => format!("{nearest}, perhaps"),
            None => "the name of a setting, which GET of this path lists".to_owned(),
        };
        return Err(SettingError::Unknown {
            name: name.chars().take(64).collect(),
            hint,
        });
    };
    if setting.runtime {
        Ok(setting)
    } else {
        Err(SettingError::NeedsRestart { name: setting.name })
    }
}

/// What was written; `None` for null, which means the default.
fn written(found: &Json) -> Option<Written> {
    Some(match found {
        Json::Null => return None,
        Json::String(text) => Written::String(text.clone()),
        Json::Bool(on) => Written::Boolean(*on),
        Json::Number(number) => match number.as_i128() {
            Some(number) => Written::Integer(number),
            None => Written::Other("a number with a fraction"),
        },
        Json::Array(_) => Written::Other("an array"),
        Json::Object(_) => Written::Other("an object"),
    })
}

fn shown(found: &Json) -> String {
    written(found).map_or_else(|| "null".to_owned(), |written| written.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Options;
    use serde_json::json;
    use std::sync::Arc;

    fn live() -> (Arc<Mutex<Vec<Config>>>, Live, Engine) {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&taken);
        let live = Live::new(
            Effective::defaults(),
            Vec::new(),
            Box::new(move |config: &Config, _: &Engine| {
                if config.memory.eviction == "random" {
                    return Err("not today".to_owned());
                }
                seen.lock().push(config.clone());
                Ok(())
            }),
        );
        (
            taken,
            live,
            Engine::open(Options::default()).expect("a store"),
        )
    }

    fn change(live: &Live, engine: &Engine, changes: &Json) -> Result<(), String> {
        live.change(changes.as_object().expect("an object"), engine)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_change_is_checked_applied_and_shown() {
        let (taken, live, engine) = live();
        assert_eq!(live.document(false)["eviction"], "none");
        assert_eq!(live.document(false)["max-memory"], Json::Null);
        change(
            &live,
            &engine,
            &json!({"eviction": "lru", "max-memory": "64MiB"}),
        )
        .expect("both may change");
        assert_eq!(live.document(false)["eviction"], "lru");
        assert_eq!(live.document(true)["max-memory"]["value"], "64MiB");
        assert_eq!(
            live.document(true)["max-memory"]["from"],
            "changed at run time"
        );
        change(&live, &engine, &json!({"max-memory": 1 << 20})).expect("bytes are a size");
        change(&live, &engine, &json!({"max-memory": null})).expect("null is the default");
        assert_eq!(live.document(false)["max-memory"], Json::Null);
        let limits: Vec<_> = taken
            .lock()
            .iter()
            .map(|config| config.memory.bytes_max)
            .collect();
        assert_eq!(limits, [Some(64 << 20), Some(1 << 20), None]);
    }

    #[test]
    fn a_change_that_cannot_be_made_changes_nothing() {
        let (taken, live, engine) = live();
        for (changes, words) in [
            (
                json!({"eviction": "lru", "max-memory": "much"}),
                "max-memory: found \"much\"",
            ),
            (
                json!({"eviction": "lru", "evicton": "lfu"}),
                "eviction, perhaps",
            ),
            (json!({"eviction": "lru", "threads": 2}), "threads"),
            (json!({"eviction": ["lru"]}), "an array"),
            (json!({"eviction": "random"}), "not today"),
        ] {
            let error = change(&live, &engine, &changes).expect_err("refused");
            assert!(error.contains(words), "{error}");
            assert_eq!(live.document(false)["eviction"], "none");
        }
        assert!(taken.lock().is_empty());
    }
}
