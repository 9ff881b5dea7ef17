//! Writes every key once, fast: batches over HTTP, pipelines to Redis and memcached. Nothing is measured but the time it takes.

use std::time::{Duration, Instant};

use crate::cli::{Data, ServerName};
use crate::client::Client;
use crate::error::Error;
use crate::interrupt;
use crate::protocol::resp;
use crate::servers::Server;
use crate::workload::{Values, key};

/// Operations of one batch, commands of one pipeline.
const BATCH: u64 = 1_000;
/// A batch of large values has fewer operations: servers bound the size of a request.
const BATCH_BYTES: usize = 4 << 20;
const SUCCESS: &[u8] = br#""status":20"#;

/// Which keys, and for how long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Range {
    /// The number of the first key; as many follow as the data has.
    pub(crate) first: u64,
    /// When all of them expire, if they do.
    pub(crate) expire_at: Option<Instant>,
}

/// How long the writing took. `each` is told how many keys were written.
pub(crate) fn run(
    server: &Server,
    data: &Data,
    range: Range,
    mut each: impl FnMut(u64),
) -> Result<Duration, Error> {
    let values = Values::new(data);
    let mut random = fastrand::Rng::with_seed(data.seed);
    let mut client = server.connect()?;
    let start = Instant::now();
    let mut request = Vec::new();
    let mut count = 0;
    let end = range.first + data.keys;
    let mut ttl = None;
    for number in range.first..end {
        if count == 0 {
            let left = |at: Instant| at.saturating_duration_since(Instant::now());
            // A key has to live to expire.
            ttl = range
                .expire_at
                .map(|at| left(at).max(Duration::from_millis(1)));
        }
        append_put(server.name, number, &values, ttl, &mut random, &mut request);
        count += 1;
        if count < BATCH && request.len() < BATCH_BYTES && number + 1 < end {
            continue;
        }
        interrupt::check()?;
        let replies = usize::try_from(count).expect("a batch is small");
        if server.name == ServerName::Redis {
            client.redis(&request, replies)?;
        } else if server.name == ServerName::Memcached {
            client.memcached(&request, replies)?;
        } else {
            let answer =
                client.http_success("POST", "/v1/batch", "application/x-ndjson", &request)?;
            demand_successes(server.name, &answer, count)?;
        }
        each(count);
        request.clear();
        count = 0;
    }
    Ok(start.elapsed())
}

/// Writes of given values, as they come, to InFlightKv or Redis.
pub(crate) struct Batch<'a> {
    server: &'a Server,
    client: Client,
    request: Vec<u8>,
    count: u64,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(server: &'a Server) -> Result<Self, Error> {
        Ok(Self {
            server,
            client: server.connect()?,
            request: Vec::new(),
            count: 0,
        })
    }

    /// Writes one, now or with later ones. The value is JSON.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if self.server.name == ServerName::Redis {
            resp::append_command(&[b"SET", key, value], &mut self.request);
        } else {
            self.request.extend_from_slice(br#"{"op":"put","key":""#);
            self.request.extend_from_slice(key);
            self.request.extend_from_slice(br#"","value":"#);
            self.request.extend_from_slice(value);
            self.request.extend_from_slice(b"}\n");
        }
        self.count += 1;
        if self.count >= BATCH || self.request.len() >= BATCH_BYTES {
            self.send()?;
        }
        Ok(())
    }

    /// Writes what was not yet.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        self.send()
    }

    fn send(&mut self) -> Result<(), Error> {
        interrupt::check()?;
        let replies = usize::try_from(self.count).expect("a batch is small");
        if self.server.name == ServerName::Redis {
            self.client.redis(&self.request, replies)?;
        } else if replies > 0 {
            let answer = self.client.http_success(
                "POST",
                "/v1/batch",
                "application/x-ndjson",
                &self.request,
            )?;
            demand_successes(self.server.name, &answer, self.count)?;
        }
        self.request.clear();
        self.count = 0;
        Ok(())
    }
}

/// One write, as a line of a batch or as a command of a pipeline.
fn append_put(
    name: ServerName,
    number: u64,
    values: &Values,
    ttl: Option<Duration>,
    random: &mut fastrand::Rng,
    out: &mut Vec<u8>,
) {
    let key = key(number);
    if name == ServerName::Redis {
        resp::append_set_head(&key, values.bytes(number), out);
        values.append(number, random, out);
        out.extend_from_slice(b"\r\n");
        return;
    }
    if name == ServerName::Memcached {
        out.extend_from_slice(b"set ");
        out.extend_from_slice(&key);
        out.extend_from_slice(format!(" 0 0 {}\r\n", values.bytes(number)).as_bytes());
        values.append(number, random, out);
        out.extend_from_slice(b"\r\n");
        return;
    }
    out.extend_from_slice(br#"{"op":"put","key":""#);
    out.extend_from_slice(&key);
    if let Some(ttl) = ttl {
        out.extend_from_slice(format!(r#"","ttl":"{}ms"#, ttl.as_millis()).as_bytes());
    }
    out.extend_from_slice(br#"","value":"#);
    values.append(number, random, out);
    out.extend_from_slice(b"}\n");
}

fn demand_successes(name: ServerName, answer: &[u8], count: u64) -> Result<(), Error> {
    let succeeded = |line: &&[u8]| line.windows(SUCCESS.len()).any(|bytes| bytes == SUCCESS);
    let lines = || {
        answer
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
    };
    let successes = lines().filter(succeeded).count() as u64;
    if successes == count {
        return Ok(());
    }
    let failed = lines().find(|line| !succeeded(line)).unwrap_or_default();
    Err(Error::Answer {
        name: name.as_str().to_owned(),
        what: "a batch".to_owned(),
        found: format!(
            "{successes} successes {}",
            String::from_utf8_lossy(&failed[..failed.len().min(300)])
        ),
        expected: count.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_batch_is_an_operation() {
        let values = Values::new(&Data::new(10, 100, 1));
        let (mut random, mut out) = (fastrand::Rng::with_seed(1), Vec::new());
        let ttl = Some(Duration::from_secs(3));
        append_put(
            ServerName::Inflightkv,
            7,
            &values,
            ttl,
            &mut random,
            &mut out,
        );
        let line: serde_json::Value = serde_json::from_slice(&out).expect("it is JSON");
        assert_eq!(line["op"], "put");
        assert_eq!(line["key"], "key:000000000007");
        assert_eq!(line["ttl"], "3000ms");
        assert_eq!(line["value"].to_string().len(), 100);
        assert_eq!(out.last(), Some(&b'\n'));
    }
}
