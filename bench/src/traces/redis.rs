//! A real redis-server in a replay: `allkeys-lru` or `allkeys-lfu`, with memory for as many entries as the others hold.
//!
//! Redis is bounded by bytes and not by entries. What so many keys take is measured first, and corrected by how many there
//! were at the end of a replay, until that is near enough. Each request is one script that reads the key and writes it when
//! it is missing; Redis evicts before it runs one.

use std::path::Path;

use super::trace::Trace;
use crate::cli::Subjects;
use crate::client::Client;
use crate::error::Error;
use crate::protocol::resp;
use crate::servers::{Launcher, Server};

const SCRIPT: &[u8] = b"local value = redis.call('GET', KEYS[1]) if value then return value end \
    redis.call('SET', KEYS[1], ARGV[1]) return false";
/// Commands of one pipeline.
const PIPELINE: usize = 500;
/// How far off the number of entries may be, in percent, and how often it is corrected.
const OFF_PERCENT: f64 = 1.0;
const ROUNDS: usize = 5;

/// A server for all replays of a run.
pub(super) struct Redis {
    server: Server,
    _folder: tempfile::TempDir,
}

/// What came of a replay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replay {
    /// As a share of 1.
    pub(super) hits: f64,
    /// How many entries there were at the end.
    pub(super) entries: u64,
}

impl Redis {
    pub(super) fn start() -> Result<Self, Error> {
        let folder = crate::compare::temporary_folder(None)?;
        let subjects = Subjects::default();
        let launcher = Launcher::new(&subjects, folder.path())?;
        let data: &Path = &folder.path().join("redis");
        let server = launcher.redis(data, &[])?;
        Ok(Self {
            server,
            _folder: folder,
        })
    }

    /// Replays a trace with room for `capacity` keys.
    pub(super) fn replay(
        &self,
        policy: &str,
        trace: &Trace,
        capacity: u64,
    ) -> Result<Replay, Error> {
        let mut client = self.server.connect()?;
        told(&mut client, &[b"CONFIG", b"SET", b"maxmemory", b"0"])?;
        told(
            &mut client,
            &[b"CONFIG", b"SET", b"maxmemory-policy", policy.as_bytes()],
        )?;
        told(&mut client, &[b"FLUSHALL"])?;
        let empty = used_memory(&mut client)?;
        let all: Vec<u32> = (0..capacity.min(trace.sizes.len() as u64) as u32).collect();
        ask(&mut client, &all)?;
        let mut room = (used_memory(&mut client)? - empty).max(1.0);
        let mut best: Option<Replay> = None;
        for _ in 0..ROUNDS {
            told(&mut client, &[b"FLUSHALL"])?;
            let limit = format!("{:.0}", empty + room);
            told(
                &mut client,
                &[b"CONFIG", b"SET", b"maxmemory", limit.as_bytes()],
            )?;
            let hits = ask(&mut client, &trace.requests)?;
            let entries = told(&mut client, &[b"DBSIZE"])?
                .trim_start_matches(':')
                .trim()
                .parse();
            let entries: u64 = entries.unwrap_or(0);
            told(&mut client, &[b"CONFIG", b"SET", b"maxmemory", b"0"])?;
            let replay = Replay {
                hits: hits as f64 / trace.requests.len().max(1) as f64,
                entries,
            };
            let off = |replay: &Replay| replay.entries.abs_diff(capacity);
            if best.is_none_or(|best| off(&replay) < off(&best)) {
                best = Some(replay);
            }
            if off(&replay) as f64 * 100.0 <= (capacity as f64 * OFF_PERCENT).max(100.0) {
                break;
            }
            room *= (capacity as f64 / entries.max(1) as f64).clamp(0.5, 2.0);
        }
        Ok(best.expect("there was a round"))
    }

    pub(super) fn stop(self) -> Result<(), Error> {
        self.server.stop().map(|_| ())
    }
}

/// One command and its reply, as it came.
fn told(client: &mut Client, words: &[&[u8]]) -> Result<String, Error> {
    let mut command = Vec::new();
    resp::append_command(words, &mut command);
    let mut reply = String::new();
    client.redis_each(&command, 1, |bytes| {
        reply = String::from_utf8_lossy(bytes).into_owned();
    })?;
    Ok(reply)
}

fn used_memory(client: &mut Client) -> Result<f64, Error> {
    let info = told(client, &[b"INFO", b"memory"])?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    Ok(line
        .and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or(0.0))
}

/// Asks for keys one after the other; how many were there.
fn ask(client: &mut Client, keys: &[u32]) -> Result<u64, Error> {
    let loaded = told(client, &[b"SCRIPT", b"LOAD", SCRIPT])?;
    let sha = loaded.lines().nth(1).unwrap_or_default().to_owned();
    let (mut hits, mut commands) = (0, Vec::new());
    for keys in keys.chunks(PIPELINE) {
        commands.clear();
        for key in keys {
            let key = format!("{key:08}");
            resp::append_command(
                &[b"EVALSHA", sha.as_bytes(), b"1", key.as_bytes(), b"x"],
                &mut commands,
            );
        }
        client.redis_each(&commands, keys.len(), |reply| {
            hits += u64::from(!reply.starts_with(b"$-1"));
        })?;
    }
    Ok(hits)
}
