//! Rule files: read for the server, and tried out by `inflightkv check-rules FILE [--sample NDJSON]`.

use super::{Failure, print};
use crate::engine::Rules;
use clap::ArgMatches;
use inflightkv_validation::{Candidate, Limits, check};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// No line of a sample is longer than a value can be, with room for its key.
const LINE_BYTES_MAX: u64 = 2 << 30;
/// A file that a rule names is a schema; the limit of those is far below.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The rules of a file. Files that it names are beside it.
///
/// # Errors
/// One sentence with file, line, key, what was found and what could stand there.
pub(crate) fn read(path: &Path) -> Result<Rules, String> {
    let name = path.display();
    let text = read_text(path).map_err(|error| {
        format!(
            "validation: found {name}, which cannot be read ({error}); expected a file of rules"
        )
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    Rules::parse(&text, &|named| read_text(&folder.join(named)))
        .map_err(|error| format!("{name} {error}"))
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)?;
    if read as u64 == FILE_BYTES_MAX {
        return Err(io::Error::other("it is too large"));
    }
    Ok(text)
}

/// A line of a sample, as `inflightkv keys --values` prints it; members that say nothing here are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    value_base64: Option<String>,
    media_type: Option<String>,
}

/// `inflightkv check-rules FILE [--sample NDJSON]`: prints what each rule refused; exit 1 when anything was.
pub(crate) fn check_rules(matches: &ArgMatches) -> Result<(), Failure> {
    let path = matches
        .get_one::<PathBuf>("file")
        .expect("the argument is required");
    let rules = read(path).map_err(Failure::Usage)?;
    let Some(sample) = matches.get_one::<PathBuf>("sample") else {
        let mut out = String::new();
        for hits in rules.hits() {
            writeln!(out, "{} ({})", hits.name, hits.mode.name()).expect("writing to a string");
        }
        return print(out.as_bytes());
    };
    let refused = if sample == Path::new("-") {
        try_all(&rules, "standard input", io::stdin().lock())?
    } else {
        let name = sample.display().to_string();
        let file = File::open(sample)
            .map_err(|error| Failure::Failed(format!("{name} cannot be read: {error}")))?;
        try_all(&rules, &name, BufReader::new(file))?
    };
    let mut out = String::new();
    for hits in rules.hits() {
        writeln!(
            out,
            "{} ({}): {} broke it",
            hits.name,
            hits.mode.name(),
            hits.hits
        )
        .expect("writing to a string");
    }
    print(out.as_bytes())?;
    if refused == 0 {
        Ok(())
    } else {
        Err(Failure::Damaged)
    }
}

/// Holds every line against the rules and prints why those are refused that are; how many.
fn try_all(rules: &Rules, name: &str, mut input: impl BufRead) -> Result<u64, Failure> {
    let limits = Limits {
        bytes_max: usize::MAX,
        ..Limits::default()
    };
    let mut line = Vec::new();
    let mut refused = 0;
    for number in 1_u64.. {
        line.clear();
        let wrong = |problem: String| Failure::Failed(format!("{name} line {number}: {problem}"));
        let read = Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if read.map_err(|error| wrong(format!("cannot be read: {error}")))? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        check(&line, &limits).map_err(|error| wrong(error.to_string()))?;
        let line: Line<'_> =
            serde_json::from_slice(&line).map_err(|error| wrong(error.to_string()))?;
        let opaque = match &line.value_base64 {
            Some(text) => {
                use base64::Engine as _;
                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                Some(bytes.map_err(|error| wrong(format!("valueBase64: {error}")))?)
            }
            None => None,
        };
        let candidate = match (&opaque, line.value) {
            (Some(bytes), _) => Candidate {
                bytes,
                media_type: Some(
                    line.media_type
                        .as_deref()
                        .unwrap_or("application/octet-stream"),
                ),
            },
            (None, Some(value)) => Candidate::json(value.get().as_bytes()),
            (None, None) => {
                return Err(wrong(
                    "found no `value` and no `valueBase64`; expected one".to_owned(),
                ));
            }
        };
        let verdict = rules
            .check_key(&line.key)
            .and_then(|()| rules.check_value(&line.key, &candidate));
        if let Err(violation) = verdict {
            refused += 1;
            let setting = violation.rule.setting().unwrap_or_default();
            let out = format!(
                "line {number}: {}: {setting}: {violation}\n",
                violation.rule.name()
            );
            print(out.as_bytes())?;
        }
    }
    Ok(refused)
}
