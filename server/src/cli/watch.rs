//! `inflightkv watch`: the events of `GET /v1/watch`, a line of JSON each.

use std::io::{self, BufRead, Write};

use clap::ArgMatches;
use serde_json::value::RawValue;

use super::Failure;
use super::client::{Query, broken, call, connect, text};
use super::connection::Request;

/// `inflightkv watch`
pub(crate) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let mut connection = connect(matches)?;
    let from = matches.get_one::<u64>("from").map(u64::to_string);
    let mut query = Query::default();
    query.add("prefix", text(matches, "prefix"));
    query.add("from", from.as_deref());
    query.add("values", matches.get_flag("values").then_some("true"));
    let response = call(
        &mut connection,
        Request {
            method: "GET",
            target: &query.after("/v1/watch"),
            headers: &[("Accept", "text/event-stream".to_owned())],
            body: None,
        },
    )?;
    let limit = matches.get_one::<u64>("limit").copied().unwrap_or(u64::MAX);
    let mut output = io::stdout().lock();
    let mut events = Events {
        lines: response.into_reader(),
        line: String::new(),
        seen: None,
    };
    let mut changes = 0;
    while changes < limit {
        let resume = |seen: Option<u64>| match seen {
            Some(seen) => format!("; go on with --from {}", seen + 1),
            None => String::new(),
        };
        let Some((name, data)) = events.next().map_err(|error| match broken(&error) {
            Failure::Failed(message) => Failure::Failed(message + &resume(events.seen)),
            other => other,
        })?
        else {
            return Err(Failure::Failed(format!(
                "the server ended the watch{}",
                resume(events.seen)
            )));
        };
        if name == "end" {
            let end: serde_json::Value = serde_json::from_str(&data).unwrap_or_default();
            let detail = end["detail"].as_str().unwrap_or("it gave no reason");
            return Err(Failure::Failed(format!(
                "the server ended the watch: {detail}{}",
                resume(end["next"].as_u64().map(|next| next.saturating_sub(1)))
            )));
        }
        let line = line_of(&name, &data)?;
        let written = output
            .write_all(line.as_bytes())
            .and_then(|()| output.flush());
        if written.is_err() {
            // Whoever read the lines has seen enough.
            return Ok(());
        }
        changes += u64::from(name != "gap");
    }
    Ok(())
}

/// The document of an event, with what happened as its first member.
fn line_of(name: &str, data: &str) -> Result<String, Failure> {
    let members = serde_json::from_str::<&RawValue>(data)
        .ok()
        .and_then(|document| document.get().strip_prefix('{'))
        .ok_or_else(|| {
            Failure::Failed("the server sent an event that is no document".to_owned())
        })?;
    let name = serde_json::Value::from(name);
    Ok(format!("{{\"op\":{name},{members}\n"))
}

/// Reads events as https://html.spec.whatwg.org/multipage/server-sent-events.html has them, as far as this server sends them.
struct Events<R> {
    lines: R,
    line: String,
    /// The number of the last event.
    seen: Option<u64>,
}

impl<R: BufRead> Events<R> {
    /// The name and the data of the next event that has some; `None` at the end.
    fn next(&mut self) -> io::Result<Option<(String, String)>> {
        let (mut name, mut data) = (String::new(), String::new());
        let mut seen = None;
        loop {
            self.line.clear();
            if self.lines.read_line(&mut self.line)? == 0 {
                return Ok(None);
            }
            let line = self.line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                self.seen = seen.or(self.seen);
                if !data.is_empty() {
                    return Ok(Some((name, data)));
                }
                name.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut name),
                "data" => value.clone_into(&mut data),
                "id" => seen = value.parse().ok(),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines_and_places_are_none() {
        let stream = "id: 6\n\nid: 7\nevent: put\ndata: {\"key\":\"a\"}\n\n: a comment\nid: 8\n\n\
                      event: gap\ndata: {\"from\":1}\n\nid: 9\nevent: put\ndata: {\"key\"";
        let mut events = Events {
            lines: stream.as_bytes(),
            line: String::new(),
            seen: None,
        };
        let mut next = || {
            let event = events.next().expect("read");
            (events.seen, event)
        };
        let (seen, event) = next();
        assert_eq!(seen, Some(7));
        let (name, data) = event.expect("an event");
        assert_eq!(
            line_of(&name, &data).expect("a line"),
            "{\"op\":\"put\",\"key\":\"a\"}\n"
        );
        let (seen, event) = next();
        assert_eq!(
            (seen, event.map(|(name, _)| name)),
            (Some(8), Some("gap".to_owned()))
        );
        // What is cut off is no event, and does not count as seen.
        assert_eq!(next(), (Some(8), None));
    }
}
