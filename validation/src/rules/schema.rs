//! JSON Schema behind one door: drafts 4 to 2020-12, references within the document only.

use super::check::beyond_a_double;
use super::walk::{self, Event};
use crate::Breach;
use std::ops::ControlFlow;

/// Longest text of a schema, in bytes.
const BYTES_MAX: usize = 1 << 20;
/// What a schema's regular expressions may compile to, each, in bytes.
#[cfg(feature = "json-schema")]
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A compiled schema.
#[derive(Debug)]
pub(crate) struct Schema {
    #[cfg(feature = "json-schema")]
    validator: jsonschema::Validator,
}

impl Schema {
    /// Compiles the text of a schema.
    ///
    /// # Errors
    /// What was found instead of a schema, as a phrase.
    pub(crate) fn compile(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("a schema of {} bytes", text.len()));
        }
        let schema = serde_json::from_str::<serde_json::Value>(text)
            .map_err(|error| format!("a schema that is not JSON ({error})"))?;
        Self::of(&schema)
    }

    #[cfg(feature = "json-schema")]
    fn of(schema: &serde_json::Value) -> Result<Self, String> {
        let patterns = jsonschema::PatternOptions::regex()
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_BYTES_MAX);
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(patterns)
            .build(schema)
            .map_err(|error| {
                let place = error.instance_path().to_string();
                let place = if place.is_empty() {
                    String::new()
                } else {
                    format!(" at `{place}`")
                };
                format!("a schema that cannot be used{place} ({error})")
            })?;
        Ok(Self { validator })
    }

    #[cfg(not(feature = "json-schema"))]
    fn of(_: &serde_json::Value) -> Result<Self, String> {
        Err("a schema, which this build does not know".to_owned())
    }

    /// Decides about a document that is JSON.
    pub(crate) fn check(&self, document: &[u8]) -> Result<(), Breach> {
        match serde_json::from_slice::<serde_json::Value>(document) {
            Ok(value) => self.check_tree(&value),
            Err(_) => Err(unreadable(document)),
        }
    }

    #[cfg(feature = "json-schema")]
    fn check_tree(&self, value: &serde_json::Value) -> Result<(), Breach> {
        let Err(error) = self.validator.validate(value) else {
            return Ok(());
        };
        // The message without the value that it is about.
        let found = error.masked().to_string();
        let keyword = error.schema_path().to_string();
        let allowed = format!("what the schema says at `{keyword}`");
        Err(Breach::new(found, allowed).at(error.instance_path().to_string()))
    }

    #[cfg(not(feature = "json-schema"))]
    fn check_tree(&self, _: &serde_json::Value) -> Result<(), Breach> {
        Ok(())
    }
}

/// JSON that the schema's engine cannot hold: a number beyond a double, or the deepest nesting.
fn unreadable(document: &[u8]) -> Breach {
    let mut breach = Breach::new(
        "nesting that a schema cannot be asked about",
        "at most 127 levels",
    );
    walk::walk(document, |event, path| match event {
        Event::Scalar(number @ [b'-' | b'0'..=b'9', ..]) if beyond_a_double(number) => {
            breach = Breach::new(
                "a number that no double holds",
                "a number of at most about 1.8e308",
            )
            .at(path.pointer());
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    breach
}
