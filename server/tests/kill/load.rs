//! Clients that change their keys in every way there is until the server is gone, and write down what they were told.

use super::model::{Found, Journal, State};
use super::support::{Answer, Client, Server};
use fastrand::Rng;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Keys of one client: few, so that they are changed often.
const KEYS: usize = 24;
const JSON: &str = "application/json";
const TEXT: &str = "text/plain";

/// A load on a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// Whether every answer is a promise.
    pub(crate) durable: bool,
    /// Changes of all clients together after which the load ends, one way or another.
    pub(crate) changes: usize,
}

/// Has each journal's client work until enough was changed, then calls `end` while they go on.
pub(crate) fn run(load: Load, journals: &mut [Journal], seed: u64, end: impl FnOnce()) {
    let (made, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for (client, journal) in journals.iter_mut().enumerate() {
            let (made, over) = (&made, &over);
            scope.spawn(move || {
                let _end = Over(over);
                let mut rng = Rng::with_seed(seed ^ (client as u64 + 1));
                let mut connection = Client::connect(load.address);
                while !over.load(Ordering::Relaxed) {
                    if change(journal, client, load.durable, &mut connection, &mut rng).is_none() {
                        break;
                    }
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            let mut rng = Rng::with_seed(seed);
            let mut connection = Client::connect(load.address);
            while !over.load(Ordering::Relaxed) {
                let mode = if rng.bool() { "full" } else { "incremental" };
                let wait = rng.bool();
                let asked = format!("POST /v1/admin/snapshot?mode={mode}&wait={wait}");
                match connection.attempt(&asked, "") {
                    Some(answer) => assert!(matches!(answer.status, 200 | 202 | 503), "{answer:?}"),
                    None => break,
                }
            }
        });
        let _end = Over(&over);
        super::support::eventually("the load", || {
            made.load(Ordering::Relaxed) >= load.changes || over.load(Ordering::Relaxed)
        });
        end();
    });
}

/// Ends a load when it is dropped, also by a failed test.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn name(client: usize, number: usize) -> String {
    format!("client/{client}/key {number}")
}

fn path(key: &str) -> String {
    key.replace(' ', "%20")
}

/// A value that no other change has, and now and then one too large for the entry's own allocation.
fn value(rng: &mut Rng) -> String {
    let filling = match rng.u8(..) {
        0..=1 => rng.usize(20_000..60_000),
        2..=20 => rng.usize(1_500..4_000),
        _ => rng.usize(0..120),
    };
    format!(
        r#"{{"n":{},"filling":"{}"}}"#,
        rng.u64(..),
        "x".repeat(filling)
    )
}

fn next(known: &State, value: String, media_type: &'static str) -> State {
    let version = match known {
        State::Absent => 0,
        State::Present { version, .. } => version + 1,
    };
    State::Present {
        version,
        value,
        media_type,
    }
}

/// Makes one change; `None` when the server was gone before it had answered.
fn change(
    journal: &mut Journal,
    client: usize,
    durable: bool,
    connection: &mut Client,
    rng: &mut Rng,
) -> Option<()> {
    let key = name(client, rng.usize(..KEYS));
    let known = journal.known(&key).clone();
    // One write in eight asks for its own promise, whatever the server's mode is.
    let sync = rng.u8(..8) == 0;
    let query = if sync { "?durability=sync" } else { "" };
    let durable = durable || sync;
    let target = format!("/v1/kv/{}{query}", path(&key));
    match (rng.u8(..100), &known) {
        (0..15, State::Present { .. }) => {
            journal.asks(&key, State::Absent);
            let answer = connection.attempt(&format!("DELETE {target}"), "")?;
            assert_eq!(answer.status, 204, "{key}: {answer:?}");
            journal.was_told(0, None, durable);
        }
        (
            15..35,
            State::Present {
                value, media_type, ..
            },
        ) if *media_type == JSON => {
            let number = format!(r#"{{"n":{}"#, rng.u64(..));
            let rest = &value[value.find(',').expect("two members")..];
            journal.asks(&key, next(&known, format!("{number}{rest}"), JSON));
            let answer = connection.attempt(&format!("PATCH {target}"), format!("{number}}}"))?;
            assert_eq!(answer.status, 204, "{key}: {answer:?}");
            journal.was_told(0, Some(sequence(answer.etag())), durable);
        }
        (35..45, _) => {
            let text = value(rng);
            journal.asks(&key, next(&known, text.clone(), TEXT));
            let request = format!("PUT {target}\nContent-Type: {TEXT}");
            let answer = connection.attempt(&request, text)?;
            assert!(matches!(answer.status, 201 | 204), "{key}: {answer:?}");
            journal.was_told(0, Some(sequence(answer.etag())), durable);
        }
        (45..60, _) => batch(journal, client, query, durable, connection, rng)?,
        _ => {
            let text = value(rng);
            journal.asks(&key, next(&known, text.clone(), JSON));
            let condition = match &known {
                State::Absent => "If-None-Match",
                State::Present { .. } => "If-Match",
            };
            let request = format!("PUT {target}\n{condition}: *");
            let answer = connection.attempt(&request, text)?;
            assert!(matches!(answer.status, 201 | 204), "{key}: {answer:?}");
            journal.was_told(0, Some(sequence(answer.etag())), durable);
        }
    }
    Some(())
}

/// Puts several keys in one request. Each is a change of its own.
fn batch(
    journal: &mut Journal,
    client: usize,
    query: &str,
    durable: bool,
    connection: &mut Client,
    rng: &mut Rng,
) -> Option<()> {
    let first = rng.usize(..KEYS);
    let count = rng.usize(2..6);
    let mut lines = String::new();
    for number in 0..count {
        let key = name(client, (first + number) % KEYS);
        let text = format!(r#"{{"n":{},"filling":"batch"}}"#, rng.u64(..));
        lines += &format!("{{\"op\":\"put\",\"key\":\"{key}\",\"value\":{text}}}\n");
        let state = next(journal.known(&key), text, JSON);
        journal.asks(&key, state);
    }
    let request = format!("POST /v1/batch{query}\nContent-Type: application/x-ndjson");
    let answer = connection.attempt(&request, lines)?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results: Vec<serde_json::Value> = answer
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(results.len(), count, "{results:?}");
    for (number, result) in results.iter().enumerate() {
        let etag = result["etag"]
            .as_str()
            .unwrap_or_else(|| panic!("{result}"));
        journal.was_told(count - 1 - number, Some(sequence(etag)), durable);
    }
    Some(())
}

/// The number that an entity tag is made of. That it can be ordered is known to this test alone.
fn sequence(etag: &str) -> u64 {
    u64::from_str_radix(etag.trim_matches('"'), 16).expect("a tag of ours")
}

/// Everything that a server has, key by key, and that its listings say the same.
pub(crate) fn everything(server: &Server, clients: usize) -> Found {
    let mut connection = server.connect();
    let mut found = Found::new();
    for client in 0..clients {
        for number in 0..KEYS {
            let key = name(client, number);
            let answer = connection.ask(&format!("GET /v1/kv/{}", path(&key)), "");
            match answer.status {
                404 => {}
                200 => {
                    found.insert(key, (state(&answer), sequence(answer.etag())));
                }
                _ => panic!("{key}: {answer:?}"),
            }
        }
    }
    let lines = connection.ask("GET /v1/keys?values=true\nAccept: application/x-ndjson", "");
    let mut listed = 0;
    for line in lines.text().lines() {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let key = row["key"].as_str().expect("a key");
        let (state, sequence_of_key) = found.get(key).unwrap_or_else(|| panic!("invented: {line}"));
        let etag = row["etag"].as_str().expect("a tag");
        assert_eq!(sequence(etag), *sequence_of_key, "{key}");
        let State::Present {
            version,
            value,
            media_type,
        } = state
        else {
            panic!("{key} is listed and not there");
        };
        assert_eq!(row["version"], *version, "{key}");
        if *media_type == JSON {
            assert!(line.ends_with(&format!("\"value\":{value}}}")), "{key}");
        }
        listed += 1;
    }
    assert_eq!(listed, found.len());
    assert_eq!(connection.ask("GET /kv", "").text().lines().count(), listed);
    found
}

fn state(answer: &Answer) -> State {
    let version = answer.field("version").expect("a version");
    State::Present {
        version: version.parse().expect("a number"),
        value: answer.text().to_owned(),
        media_type: match answer.field("content-type") {
            Some(TEXT) => TEXT,
            Some(JSON) => JSON,
            other => panic!("{other:?}"),
        },
    }
}
