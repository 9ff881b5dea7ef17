//! The client subcommands: get, put, patch, del and keys, one request each over [`connection`](super::connection).

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::connection::{Connection, Request, Response, Url};
use super::wire::Security;
use super::{Failure, bulk, print, unless_broken};

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Everything but what RFC 3986 calls unreserved, and the slash, which many keys have.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// `inflightkv get KEY`
pub(crate) fn get(matches: &ArgMatches) -> Result<(), Failure> {
    let mut connection = connect(matches)?;
    let target = key_target(matches);
    let response = call(
        &mut connection,
        Request {
            method: "GET",
            target: &target,
            headers: &[],
            body: None,
        },
    )?;
    if matches.get_flag("include") {
        for name in ["Version", "ETag", "Content-Type", "TTL-Ms"] {
            if let Some(value) = response.header(name) {
                // Beside the value, and no reason to fail.
                let _ = writeln!(io::stderr(), "{name}: {value}");
            }
        }
    }
    let json = response.header("content-type").is_some_and(is_json);
    let mut value = response.into_bytes().map_err(|error| broken(&error))?;
    // JSON is text, and a line of it ends; other bytes are the caller's own.
    if json || io::stdout().is_terminal() {
        value.push(b'\n');
    }
    print(&value)
}

/// `inflightkv put KEY [VALUE]` and `inflightkv put --ndjson FILE`
pub(crate) fn put(matches: &ArgMatches) -> Result<(), Failure> {
    if matches.contains_id("ndjson") {
        return bulk::load(connect(matches)?, matches);
    }
    let mut query = Query::default();
    query.add("ttl", text(matches, "ttl"));
    query.add("keepTtl", matches.get_flag("keep-ttl").then_some("true"));
    let content_type = text(matches, "content-type").unwrap_or("application/json");
    write(matches, "PUT", query, Some(content_type))
}

/// `inflightkv patch KEY [PATCH]`
pub(crate) fn patch(matches: &ArgMatches) -> Result<(), Failure> {
    let mut query = Query::default();
    query.add("ttl", text(matches, "ttl"));
    let content_type = if matches.get_flag("json-patch") {
        "application/json-patch+json"
    } else {
        text(matches, "content-type").unwrap_or("application/merge-patch+json")
    };
    write(matches, "PATCH", query, Some(content_type))
}

/// `inflightkv del KEY`
pub(crate) fn del(matches: &ArgMatches) -> Result<(), Failure> {
    write(matches, "DELETE", Query::default(), None)
}

/// `inflightkv keys`
pub(crate) fn keys(matches: &ArgMatches) -> Result<(), Failure> {
    let mut connection = connect(matches)?;
    let values = matches.get_flag("values");
    let mut query = Query::default();
    query.add("prefix", text(matches, "prefix"));
    query.add("values", values.then_some("true"));
    let headers = [("Accept", "application/x-ndjson".to_owned())];
    let response = call(
        &mut connection,
        Request {
            method: "GET",
            target: &query.after("/v1/keys"),
            headers: &headers,
            body: None,
        },
    )?;
    // The stream is left when there is enough of it: the server sends no more than is read.
    let limit = matches.get_one::<u64>("limit").copied().unwrap_or(u64::MAX);
    let mut output = io::BufWriter::new(io::stdout().lock());
    let mut lines = response.into_reader();
    let mut line = Vec::new();
    for _ in 0..limit {
        line.clear();
        if lines
            .read_until(b'\n', &mut line)
            .map_err(|error| broken(&error))?
            == 0
        {
            break;
        }
        if !values {
            line = key_of(&line)?;
            line.push(b'\n');
        }
        if output.write_all(&line).is_err() {
            // Whoever read the keys has seen enough.
            return Ok(());
        }
    }
    unless_broken(output.flush())
}

/// The key of one line of a listing.
fn key_of(line: &[u8]) -> Result<Vec<u8>, Failure> {
    #[derive(Deserialize)]
    struct Line {
        key: String,
    }
    serde_json::from_slice(line)
        .map(|line: Line| line.key.into_bytes())
        .map_err(|error| Failure::Failed(format!("the server sent a line that is no key: {error}")))
}

/// One write, and its outcome as a line of JSON.
fn write(
    matches: &ArgMatches,
    method: &'static str,
    mut query: Query,
    content_type: Option<&str>,
) -> Result<(), Failure> {
    let mut connection = connect(matches)?;
    let version = matches.get_one::<i64>("if-version").map(i64::to_string);
    query.add("ifVersion", version.as_deref());
    query.add("durability", text(matches, "durability"));
    let body = match content_type {
        Some(_) => Some(value(matches)?),
        None => None,
    };
    let mut headers = Vec::new();
    if let Some(content_type) = content_type {
        headers.push((
            "Content-Type",
            header_value("--content-type", content_type)?,
        ));
    }
    if let Some(etag) = text(matches, "if-match") {
        headers.push(("If-Match", etags("--if-match", etag)?));
    }
    if method == "PUT"
        && let Some(etag) = text(matches, "if-none-match")
    {
        headers.push(("If-None-Match", etags("--if-none-match", etag)?));
    }
    let response = call(
        &mut connection,
        Request {
            method,
            target: &query.after(&key_target(matches)),
            headers: &headers,
            body: body.as_deref(),
        },
    )?;
    if method == "DELETE" {
        return Ok(());
    }
    let mut outcome = json!({ "created": response.status == 201 });
    if let Some(version) = response
        .header("version")
        .and_then(|version| version.parse::<u64>().ok())
    {
        outcome["version"] = version.into();
    }
    if let Some(etag) = response.header("etag") {
        outcome["etag"] = etag.into();
    }
    response.into_bytes().map_err(|error| broken(&error))?;
    print(format!("{outcome}\n").as_bytes())
}

/// A connection to the server that the arguments or the environment name.
pub(crate) fn connect(matches: &ArgMatches) -> Result<Connection, Failure> {
    let variable = env::var_os("INFLIGHTKV_URL").filter(|url| !url.is_empty());
    let (place, url) = match (text(matches, "url"), variable) {
        (Some(url), _) => ("flag --url", url.to_owned()),
        (None, Some(url)) => (
            "environment variable INFLIGHTKV_URL",
            url.to_string_lossy().into_owned(),
        ),
        (None, None) => ("default", DEFAULT_URL.to_owned()),
    };
    let url = Url::parse(&url).map_err(|expected| {
        Failure::Usage(format!("{place}: url: found {url:?}; expected {expected}"))
    })?;
    let timeout = text(matches, "timeout").unwrap_or("30s");
    let timeout = crate::config::parse_duration(timeout)
        .filter(|timeout| !timeout.is_zero() && *timeout <= Duration::from_secs(86_400))
        .ok_or_else(|| {
            Failure::Usage(format!(
                "flag --timeout: timeout: found {timeout:?}; expected a duration from 1ms to 1d, in seconds or such as \
                 1500ms, 90s or 15m"
            ))
        })?;
    let security = match matches.get_one::<PathBuf>("tls-ca") {
        _ if !url.is_tls() => Security::Plain,
        Some(path) => Security::trusting(path).map_err(Failure::Usage)?,
        None => {
            return Err(Failure::Usage(format!(
                "{place}: url: found {:?} without --tls-ca; expected a file of the authorities that are trusted",
                url.text()
            )));
        }
    };
    Ok(Connection::new(url, timeout, token(matches)?, security))
}

/// The token that the arguments or the environment name. No message ever shows it.
fn token(matches: &ArgMatches) -> Result<Option<String>, Failure> {
    let (place, token) = match matches.get_one::<PathBuf>("token-file") {
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::Usage(format!("flag --token-file: {name} cannot be read: {error}"))
            })?;
            (name, text.trim().to_owned())
        }
        None => match env::var("INFLIGHTKV_TOKEN") {
            Ok(token) if !token.is_empty() => {
                ("environment variable INFLIGHTKV_TOKEN".to_owned(), token)
            }
            _ => return Ok(None),
        },
    };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::Usage(format!(
            "{place}: found what is no token; expected one as `inflightkv token new` prints it"
        )));
    }
    Ok(Some(token))
}

/// Sends a request; an answer that is not a success is a failure with the server's own words.
pub(crate) fn call<'c>(
    connection: &'c mut Connection,
    request: Request<'_>,
) -> Result<Response<'c>, Failure> {
    let url = connection.url().text();
    let response = connection
        .send(request)
        .map_err(|error| Failure::Failed(format!("no answer from {url}: {error}")))?;
    if (200..300).contains(&response.status) {
        return Ok(response);
    }
    let status = response.status;
    let body = response.into_bytes().map_err(|error| broken(&error))?;
    Err(Failure::Failed(problem(status, &body)))
}

/// The server's own words for a failure: those of the problem document (RFC 9457), or the status alone.
pub(crate) fn problem(status: u16, body: &[u8]) -> String {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let member = |name: &str| document.get(name).and_then(Value::as_str);
    let code = member("code")
        .map(|code| format!(" {code}"))
        .unwrap_or_default();
    let words = member("detail")
        .or_else(|| member("title"))
        .unwrap_or("the server gave no reason");
    let mut sentence = format!("{status}{code}: {words}");
    let version = document.get("currentVersion").and_then(Value::as_u64);
    if let Some(version) = version.filter(|_| !words.contains("current version")) {
        sentence.push_str(&format!(" (the current version is {version})"));
    }
    sentence
}

pub(crate) fn broken(error: &io::Error) -> Failure {
    Failure::Failed(format!("the answer broke off: {error}"))
}

pub(crate) fn text<'m>(matches: &'m ArgMatches, name: &str) -> Option<&'m str> {
    matches.get_one::<String>(name).map(String::as_str)
}

fn key_target(matches: &ArgMatches) -> String {
    target_of(text(matches, "key").unwrap_or_default())
}

/// The path of a key.
pub(crate) fn target_of(key: &str) -> String {
    format!("/v1/kv/{}", utf8_percent_encode(key, ENCODED))
}

/// The value from the argument, a file or standard input.
fn value(matches: &ArgMatches) -> Result<Vec<u8>, Failure> {
    let argument = matches
        .get_one::<std::ffi::OsString>("value")
        .map(std::ffi::OsString::as_os_str);
    match argument {
        None => read_input(),
        Some(dash) if dash == OsStr::new("-") => read_input(),
        Some(argument) => match argument.as_encoded_bytes().split_first() {
            Some((b'@', _)) => {
                // The part after an ASCII character is text of the same encoding.
                let Some(path) = argument.to_str().and_then(|text| text.strip_prefix('@')) else {
                    return Err(Failure::Usage("command line: VALUE: found a file name that is not UTF-8; expected one that is".to_owned()));
                };
                fs::read(path)
                    .map_err(|error| Failure::Failed(format!("{path} cannot be read: {error}")))
            }
            _ => Ok(argument.as_encoded_bytes().to_vec()),
        },
    }
}

fn read_input() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Failed(format!("standard input cannot be read: {error}")))?;
    Ok(bytes)
}

/// A header's value: what could end the header would be another one.
pub(crate) fn header_value(flag: &str, value: &str) -> Result<String, Failure> {
    if value.is_empty() || value.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Failure::Usage(format!(
            "flag {flag}: found {value:?}; expected a value without control characters"
        )));
    }
    Ok(value.to_owned())
}

/// Etags as a header has them; the quotes, which a shell takes off, may be missing.
fn etags(flag: &str, value: &str) -> Result<String, Failure> {
    let value = header_value(flag, value)?;
    if value == "*" || value.contains('"') {
        return Ok(value);
    }
    let quoted: Vec<String> = value
        .split(',')
        .map(|etag| format!("\"{}\"", etag.trim()))
        .collect();
    Ok(quoted.join(", "))
}

/// Media types that the server takes as JSON.
pub(crate) fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
        || media_type.to_ascii_lowercase().ends_with("+json")
}

/// Query parameters, encoded as they are added.
#[derive(Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn add(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            let separator = if self.0.is_empty() { '?' } else { '&' };
            let value = utf8_percent_encode(value, ENCODED);
            self.0.push_str(&format!("{separator}{name}={value}"));
        }
    }

    pub(crate) fn after(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_parameters_are_encoded() {
        assert_eq!(target_of("user/42"), "/v1/kv/user/42");
        assert_eq!(
            target_of("a b?c#d%e+ü"),
            "/v1/kv/a%20b%3Fc%23d%25e%2B%C3%BC"
        );
        let mut query = Query::default();
        query.add("prefix", Some("a&b"));
        query.add("none", None);
        query.add("ttl", Some("90s"));
        assert_eq!(query.after("/v1/keys"), "/v1/keys?prefix=a%26b&ttl=90s");
    }

    #[test]
    fn etags_get_the_quotes_that_the_shell_took() {
        for (given, sent) in [
            ("1f", "\"1f\""),
            ("\"1f\"", "\"1f\""),
            ("*", "*"),
            ("1, 2", "\"1\", \"2\""),
        ] {
            assert_eq!(etags("--if-match", given).expect("an etag"), sent);
        }
        assert!(etags("--if-match", "a\r\nX: y").is_err());
    }

    #[test]
    fn a_problem_is_told_in_the_words_of_the_server() {
        let body = br#"{"status":412,"code":"PRECONDITION_FAILED","detail":"The version is another.","currentVersion":3}"#;
        assert_eq!(
            problem(412, body),
            "412 PRECONDITION_FAILED: The version is another. (the current version is 3)"
        );
        assert_eq!(problem(502, b"<html>"), "502: the server gave no reason");
    }
}
