//! `serve --follow URL`: the other server's log over HTTP, on a thread of its own, for as long as this server follows it.
//!
//! Everything is read to its checksums before it is applied, and asked for again from where it broke off. Where the log does not
//! reach back to, a backup is loaded first.

use std::io::{self, BufReader, Read};
use std::thread;
use std::time::{Duration, Instant};

use inflightkv_snapshot::BackupDecoder;
use serde_json::Value;

use super::connection::{Connection, Request, Response, Url};
use super::wire::Security;
use crate::engine::{
    Engine, Follower, RoleError, Sequence, StreamReader, TakeOver, TakenOver, Violation, loaded,
    snapshot_codecs,
};

/// The other server says something at least each second; silence for so long is a lost connection.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// From one attempt to connect to the next.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long taking over waits for the last changes.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(60);

/// Begins to follow the server at `url`, with a token for it if it takes one.
pub(crate) fn start(
    engine: &Engine,
    url: &Url,
    token: Option<String>,
    security: Security,
) -> io::Result<()> {
    let following = Following {
        follower: engine.follow(&url.text()),
        url: url.clone(),
        token,
        security,
        applied: None,
    };
    thread::Builder::new()
        .name("follow".to_owned())
        .spawn(move || following.run())
        .map(drop)
}

struct Following {
    follower: Follower,
    url: Url,
    token: Option<String>,
    security: Security,
    /// The last change that is here, and not a number after it that was left out: by it the other server knows whether it
    /// still has what is here. `None` before anything was loaded.
    applied: Option<Sequence>,
}

/// Why reading ended.
enum Ended {
    /// The connection, or what came over it.
    Broken(String),
    /// The other server's log does not reach back to what is needed.
    Gone,
    /// The other server's content was replaced by a restored backup.
    Replaced,
    /// This server takes writes now, or ends.
    Done,
}

impl Following {
    fn run(mut self) {
        tracing::info!(url = self.url.text(), "following");
        let mut last_error = String::new();
        while !self.follower.is_stopping() {
            match self.round() {
                Ended::Done => return,
                Ended::Gone => {
                    // Nothing that is here can be continued.
                    tracing::warn!(
                        "the log of the server that is followed does not reach back to here: loading anew"
                    );
                    self.applied = None;
                }
                Ended::Replaced => {
                    tracing::info!(
                        "a backup replaced the content of the server that is followed: loading anew"
                    );
                    self.applied = None;
                }
                Ended::Broken(error) => {
                    if error != last_error {
                        tracing::warn!(error, "following broke off and is tried again");
                        last_error.clone_from(&error);
                    }
                    self.follower.disconnected(error);
                }
            }
            let until = Instant::now() + RETRY_AFTER;
            while Instant::now() < until && !self.follower.is_stopping() {
                if self.take_over_without_connection() {
                    return;
                }
                thread::sleep(RETRY_AFTER / 20);
            }
        }
    }

    fn connection(&self, timeout: Duration) -> Connection {
        Connection::new(
            self.url.clone(),
            timeout,
            self.token.clone(),
            self.security.clone(),
        )
    }

    fn round(&mut self) -> Ended {
        if self.applied.is_none()
            && let Err(error) = self.load()
        {
            return Ended::Broken(error);
        }
        self.tail()
    }

    /// Loads a backup in place of whatever is here.
    fn load(&mut self) -> Result<(), String> {
        self.follower.begin_load();
        let mut connection = self.connection(SILENCE_MAX);
        let response = get(&mut connection, "/v1/admin/backup")?;
        let mut reader = response.into_reader();
        let codecs = snapshot_codecs();
        let mut decoder = BackupDecoder::new("the backup");
        let mut buffer = vec![0u8; 256 << 10];
        let follower = &self.follower;
        loop {
            let len = reader
                .read(&mut buffer)
                .map_err(|error| error.to_string())?;
            if len == 0 {
                break;
            }
            let mut refused = None;
            let fed = decoder.feed(&buffer[..len], &codecs, |entry| {
                if !entry.tombstone {
                    let loaded = follower.load(loaded(&entry));
                    if let Err(violation) = loaded {
                        refused = Some(violation);
                        return std::ops::ControlFlow::Break(());
                    }
                }
                match follower.is_stopping() {
                    true => std::ops::ControlFlow::Break(()),
                    false => std::ops::ControlFlow::Continue(()),
                }
            });
            if let Some(violation) = refused {
                return Err(refusal(&violation));
            }
            fed.map_err(|error| error.to_string())?;
        }
        let report = decoder.finish().map_err(|error| error.to_string())?;
        let cut = Sequence::from_raw(report.header.cut);
        follower.end_load(cut);
        self.applied = Some(cut);
        tracing::info!(entries = report.entries, cut = cut.get(), "loaded a backup");
        Ok(())
    }

    /// Applies the log from where this server is, until something ends that.
    fn tail(&mut self) -> Ended {
        let from = self.applied.map_or(0, Sequence::get).saturating_add(1);
        let mut connection = self.connection(SILENCE_MAX);
        let response = match connection.send(Request {
            method: "GET",
            target: &format!("/v1/admin/wal?from={from}"),
            headers: &[],
            body: None,
        }) {
            Ok(response) if response.status == 410 => return Ended::Gone,
            Ok(response) => match succeeded(response) {
                Ok(response) => response,
                Err(error) => return Ended::Broken(error),
            },
            Err(error) => return Ended::Broken(error.to_string()),
        };
        let mut stream = match StreamReader::begin(BufReader::new(response.into_reader())) {
            Ok(stream) => stream,
            Err(error) => return Ended::Broken(error.to_string()),
        };
        // Asked to hand over: the last change there, and until when it may take to come.
        let mut target: Option<(u64, Instant)> = None;
        loop {
            let frame = match stream.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return self.broken(target, "the other server ended the stream"),
                Err(error) => return self.broken(target, &error.to_string()),
            };
            for record in frame.records() {
                match self.follower.apply(&record) {
                    Ok(TakenOver::Yes) => {}
                    Ok(TakenOver::Replaced) => return Ended::Replaced,
                    Err(violation) => return self.broken(target, &refusal(&violation)),
                }
                self.applied = Some(Sequence::from_raw(record.lsn.get()));
            }
            let applied = Sequence::from_raw(frame.next_lsn.previous().get());
            let source = Sequence::from_raw(frame.durable_lsn.get());
            self.follower.note(applied, source);
            if self.follower.is_stopping() {
                return Ended::Done;
            }
            match (target, self.follower.wish()) {
                (None, Some(TakeOver::Now)) if self.take_over() => return Ended::Done,
                (None, Some(TakeOver::InOrder)) => match self.ask_to_hand_over() {
                    Ok(last) => target = Some((last, Instant::now() + HAND_OVER_TIMEOUT)),
                    Err(reason) => self.refuse(reason),
                },
                _ => {}
            }
            if let Some((last, until)) = target {
                if applied.get() >= last {
                    if self.take_over() {
                        return Ended::Done;
                    }
                    target = None;
                } else if Instant::now() >= until {
                    self.refuse("its last changes did not come in time".to_owned());
                    target = None;
                }
            }
        }
    }

    /// The stream ended. Who waits for a hand-over learns it: the other server takes no writes any more, and asking again is safe.
    fn broken(&self, target: Option<(u64, Instant)>, reason: &str) -> Ended {
        if target.is_some() {
            self.refuse(reason.to_owned());
        }
        Ended::Broken(reason.to_owned())
    }

    /// Asks the other server to take no more writes; its last change.
    fn ask_to_hand_over(&self) -> Result<u64, String> {
        let mut connection = self.connection(HAND_OVER_TIMEOUT);
        let response = connection
            .send(Request {
                method: "POST",
                target: "/v1/admin/demote",
                headers: &[],
                body: Some(b""),
            })
            .map_err(|error| error.to_string())?;
        let answer = succeeded(response)?
            .into_bytes()
            .map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        answer["lastSequence"]
            .as_u64()
            .ok_or_else(|| "its answer names no sequence".to_owned())
    }

    /// `true`: this server takes writes now.
    fn take_over(&self) -> bool {
        match self.follower.take_over() {
            Ok(first) => {
                tracing::info!(first = first.get(), "taking writes from now on");
                true
            }
            Err(error) => {
                tracing::error!(%error, "taking over failed");
                self.follower.refuse(error);
                false
            }
        }
    }

    fn take_over_without_connection(&self) -> bool {
        match (self.follower.wish(), self.applied) {
            (None, _) => false,
            (Some(TakeOver::Now), Some(_)) => self.take_over(),
            (Some(TakeOver::Now), None) => {
                self.refuse("nothing was loaded from it yet".to_owned());
                false
            }
            (Some(TakeOver::InOrder), _) => {
                self.refuse(
                    "there is no connection to it; `force=true` takes over without".to_owned(),
                );
                false
            }
        }
    }

    fn refuse(&self, reason: String) {
        tracing::warn!(reason, "not taking over");
        self.follower.refuse(RoleError::NotHandedOver { reason });
    }
}

/// Why following stops at an entry. Neither its key nor its value is in it.
fn refusal(violation: &Violation) -> String {
    format!(
        "an entry breaks the rule {} ({}), and rules-on-load is refuse: expected {}, found {}",
        violation.rule.name(),
        violation.rule.setting().unwrap_or_default(),
        violation.allowed,
        violation.found
    )
}

fn get<'a>(connection: &'a mut Connection, target: &str) -> Result<Response<'a>, String> {
    let request = Request {
        method: "GET",
        target,
        headers: &[],
        body: None,
    };
    let response = connection
        .send(request)
        .map_err(|error| error.to_string())?;
    succeeded(response)
}

/// The answer, or what the server said instead.
fn succeeded(response: Response<'_>) -> Result<Response<'_>, String> {
    if response.status == 200 {
        return Ok(response);
    }
    let status = response.status;
    let body = response.into_bytes().unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("it gave no reason");
    Err(format!(
        "the server that is followed answered {status}: {detail}"
    ))
}
