//! `inflightkv put --ndjson FILE`: many values through `/v1/batch`, a bounded number of bytes at a time.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ArgMatches;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Failure;
use super::client::{header_value, is_json, problem, target_of};
use super::connection::{Connection, Request};

/// A batch is sent when it has this many operations or bytes, well within what a server allows by default.
const OPERATIONS_MAX: usize = 1_000;
const BYTES_MAX: usize = 4 << 20;
/// No line is longer than a value can be, with room for the key and for base64.
const LINE_BYTES_MAX: u64 = 2 << 30;
/// How often a batch is offered to a server that says it is busy.
const ATTEMPTS: u32 = 8;
/// Failures told one by one; the rest are counted.
const FAILURES_SHOWN: u64 = 20;

/// A line of the file. It may be one that `inflightkv keys --values` printed: version and etag are the server's to give.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    value_base64: Option<String>,
    media_type: Option<String>,
    #[serde(borrow)]
    ttl: Option<&'a RawValue>,
    ttl_ms: Option<u64>,
    #[serde(rename = "version")]
    _version: Option<u64>,
    #[serde(rename = "etag")]
    _etag: Option<String>,
}

/// A member that is there, also when it is `null`: that is a value like any other.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// An operation of `/v1/batch`.
#[derive(Serialize)]
struct Put<'a> {
    op: &'static str,
    key: &'a str,
    value: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'a RawValue>,
}

/// What one line asks for.
enum Operation {
    /// A line of a batch.
    Json(Vec<u8>),
    /// A value that is not JSON, which only a request of its own can carry.
    Opaque {
        key: String,
        media_type: String,
        ttl: Option<String>,
        value: Vec<u8>,
    },
}

/// Loads the file that the arguments name.
pub(crate) fn load(connection: Connection, matches: &ArgMatches) -> Result<(), Failure> {
    let path = matches
        .get_one::<PathBuf>("ndjson")
        .expect("the caller has seen the argument");
    let durability = matches.get_one::<String>("durability").cloned();
    let mut loader = Loader {
        connection,
        durability,
        batch: Vec::new(),
        lines: Vec::new(),
        stored: 0,
        failed: 0,
    };
    if path == Path::new("-") {
        loader.all("standard input", io::stdin().lock())?;
    } else {
        let name = path.display().to_string();
        let file = File::open(path)
            .map_err(|error| Failure::Failed(format!("{name} cannot be read: {error}")))?;
        loader.all(&name, BufReader::with_capacity(256 << 10, file))?;
    }
    let Loader { stored, failed, .. } = loader;
    // Standard output is for data, and this is none.
    let _ = writeln!(io::stderr(), "{stored} stored, {failed} failed");
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::Failed(format!(
            "{failed} of {} lines were not stored",
            stored + failed
        )))
    }
}

struct Loader {
    connection: Connection,
    durability: Option<String>,
    /// Operations waiting to be sent, and the number of the line that each came from.
    batch: Vec<u8>,
    lines: Vec<u64>,
    stored: u64,
    failed: u64,
}

impl Loader {
    fn all(&mut self, name: &str, mut input: impl BufRead) -> Result<(), Failure> {
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            number += 1;
            line.clear();
            let read = io::Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let wrong =
                |problem: String| Failure::Failed(format!("{name} line {number}: {problem}"));
            if read.map_err(|error| wrong(format!("cannot be read: {error}")))? == 0 {
                return self.flush();
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match operation(&line).map_err(wrong) {
                Ok(operation) => self.add(operation, number)?,
                // What came before is stored; the message says where to go on.
                Err(failure) => return self.flush().and(Err(failure)),
            }
        }
    }

    fn add(&mut self, operation: Operation, number: u64) -> Result<(), Failure> {
        match operation {
            Operation::Json(line) => {
                if self.lines.len() >= OPERATIONS_MAX || self.batch.len() + line.len() > BYTES_MAX {
                    self.flush()?;
                }
                self.batch.extend_from_slice(&line);
                self.batch.push(b'\n');
                self.lines.push(number);
                Ok(())
            }
            Operation::Opaque {
                key,
                media_type,
                ttl,
                value,
            } => {
                self.flush()?;
                let mut target = target_of(&key);
                let mut separator = '?';
                for (name, value) in [("ttl", &ttl), ("durability", &self.durability)] {
                    if let Some(value) = value {
                        target.push_str(&format!("{separator}{name}={value}"));
                        separator = '&';
                    }
                }
                let headers = [("Content-Type", media_type)];
                let (status, answer) = self.send("PUT", &target, &headers, &value)?;
                self.count(status, number, || problem(status, &answer));
                Ok(())
            }
        }
    }

    /// Sends what has been gathered.
    fn flush(&mut self) -> Result<(), Failure> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let lines = std::mem::take(&mut self.lines);
        let ndjson = "application/x-ndjson".to_owned();
        let headers = [("Content-Type", ndjson.clone()), ("Accept", ndjson)];
        let target = match &self.durability {
            Some(durability) => format!("/v1/batch?durability={durability}"),
            None => "/v1/batch".to_owned(),
        };
        let (status, answer) = self.send("POST", &target, &headers, &batch)?;
        if status != 200 {
            let (first, last) = (lines[0], lines[lines.len() - 1]);
            let document: Value = serde_json::from_slice(&answer).unwrap_or_default();
            let at = document
                .get("index")
                .and_then(Value::as_u64)
                .and_then(|index| lines.get(usize::try_from(index).ok()?))
                .map_or_else(
                    || format!("lines {first} to {last}"),
                    |line| format!("line {line}"),
                );
            return Err(Failure::Failed(format!(
                "{at}: {} (nothing from line {first} on was stored)",
                problem(status, &answer)
            )));
        }
        let mut results = answer
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty());
        for number in lines {
            let Some(result) = results.next() else {
                return Err(Failure::Failed(format!(
                    "the server gave no result for line {number}"
                )));
            };
            let document: Value = serde_json::from_slice(result).map_err(|error| {
                Failure::Failed(format!("the result for line {number} is not JSON: {error}"))
            })?;
            let status = document.get("status").and_then(Value::as_u64);
            let status = status
                .and_then(|status| u16::try_from(status).ok())
                .unwrap_or(0);
            self.count(status, number, || problem(status, result));
        }
        Ok(())
    }

    fn count(&mut self, status: u16, line: u64, problem: impl FnOnce() -> String) {
        if (200..300).contains(&status) {
            self.stored += 1;
            return;
        }
        self.failed += 1;
        if self.failed <= FAILURES_SHOWN {
            super::complain(&format!("line {line}: {}", problem()));
        }
    }

    /// Puts are the same done twice, so a busy server may be asked again.
    fn send(
        &mut self,
        method: &'static str,
        target: &str,
        headers: &[(&'static str, String)],
        body: &[u8],
    ) -> Result<(u16, Vec<u8>), Failure> {
        let url = self.connection.url().text();
        let request = Request {
            method,
            target,
            headers,
            body: Some(body),
        };
        for attempt in 1.. {
            let failed =
                |error: io::Error| Failure::Failed(format!("no answer from {url}: {error}"));
            let response = self.connection.send(request).map_err(failed)?;
            let status = response.status;
            let wait = response
                .header("retry-after")
                .and_then(|seconds| seconds.parse::<u64>().ok())
                .map(|seconds| Duration::from_secs(seconds.clamp(1, 10)));
            let answer = response.into_bytes().map_err(failed)?;
            match wait {
                Some(wait) if status == 503 && attempt < ATTEMPTS => thread::sleep(wait),
                _ => return Ok((status, answer)),
            }
        }
        unreachable!("the last attempt returns")
    }
}

/// A line as an operation, or in words what is wrong with it.
fn operation(line: &[u8]) -> Result<Operation, String> {
    let line: Line<'_> =
        serde_json::from_slice(line).map_err(|error| format!("found no put: {error}"))?;
    let milliseconds = line.ttl_ms.map(|milliseconds| format!("{milliseconds}ms"));
    if line.ttl.is_some() && milliseconds.is_some() {
        return Err("found both ttl and ttlMs; expected one of them".to_owned());
    }
    match (line.value, line.value_base64) {
        (Some(value), None) if line.media_type.as_deref().is_none_or(is_json) => {
            let milliseconds = milliseconds
                .map(|text| serde_json::value::to_raw_value(&text))
                .transpose()
                .map_err(|error| error.to_string())?;
            let put = Put {
                op: "put",
                key: &line.key,
                value,
                ttl: line.ttl.or(milliseconds.as_deref()),
            };
            serde_json::to_vec(&put)
                .map(Operation::Json)
                .map_err(|error| error.to_string())
        }
        (None, Some(value)) => {
            let value = STANDARD
                .decode(value)
                .map_err(|error| format!("found valueBase64 that is not base64: {error}"))?;
            let media_type = line
                .media_type
                .as_deref()
                .unwrap_or("application/octet-stream");
            let media_type = header_value("mediaType", media_type)
                .map_err(|_| "found a mediaType with control characters".to_owned())?;
            let ttl = line
                .ttl
                .map(|ttl| ttl.get().trim_matches('"').to_owned())
                .or(milliseconds);
            if ttl
                .as_deref()
                .is_some_and(|ttl| crate::config::parse_duration(ttl).is_none())
            {
                return Err("found a ttl that is no duration".to_owned());
            }
            Ok(Operation::Opaque {
                key: line.key.into_owned(),
                media_type,
                ttl,
                value,
            })
        }
        (Some(_), None) => {
            Err("found a mediaType that is not JSON with value; expected valueBase64".to_owned())
        }
        (None, None) => Err("found no value; expected value or valueBase64".to_owned()),
        (Some(_), Some(_)) => {
            Err("found both value and valueBase64; expected one of them".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(line: &str) -> String {
        match operation(line.as_bytes()).expect("a put") {
            Operation::Json(line) => String::from_utf8(line).expect("text"),
            Operation::Opaque { .. } => panic!("{line} is JSON"),
        }
    }

    #[test]
    fn a_line_becomes_a_put_and_keeps_the_digits_of_its_value() {
        for (line, put) in [
            (
                r#"{"key":"a","value":{"n":1.00,"s":"\u0061"}}"#,
                r#"{"op":"put","key":"a","value":{"n":1.00,"s":"\u0061"}}"#,
            ),
            (
                r#" {"value":null,"key":"\"q","ttl":"90s"} "#,
                r#"{"op":"put","key":"\"q","value":null,"ttl":"90s"}"#,
            ),
            (
                r#"{"key":"a","version":7,"etag":"\"1f\"","ttlMs":1500,"value":[]}"#,
                r#"{"op":"put","key":"a","value":[],"ttl":"1500ms"}"#,
            ),
        ] {
            assert_eq!(json(line), put);
        }
    }

    #[test]
    fn an_opaque_value_is_a_request_of_its_own() {
        let line = br#"{"key":"a","valueBase64":"AAE=","mediaType":"image/png","ttlMs":5}"#;
        let Operation::Opaque {
            media_type,
            ttl,
            value,
            ..
        } = operation(line).expect("a put")
        else {
            panic!("not JSON");
        };
        assert_eq!(
            (media_type.as_str(), ttl.as_deref(), &value[..]),
            ("image/png", Some("5ms"), &[0, 1][..])
        );
    }

    #[test]
    fn a_line_that_is_no_put_is_refused() {
        for line in [
            "",
            "1",
            "{}",
            r#"{"key":"a"}"#,
            r#"{"key":1,"value":1}"#,
            r#"{"key":"a","value":1,"tll":"90s"}"#,
            r#"{"key":"a","value":1,"valueBase64":"AA=="}"#,
            r#"{"key":"a","valueBase64":"?"}"#,
            r#"{"key":"a","value":1,"ttl":"1s","ttlMs":1}"#,
            r#"{"key":"a","valueBase64":"","ttl":"1&x"}"#,
        ] {
            assert!(operation(line.as_bytes()).is_err(), "{line}");
        }
    }
}
