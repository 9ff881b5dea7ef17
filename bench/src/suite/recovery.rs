//! How long until a server is ready again, and whether everything acknowledged is there after a crash.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::client::Client;
use crate::error::Error;
use crate::load::{Plan, Stop};
use crate::report::chart::{Axis, Chart, Scale};
use crate::report::unit::Unit;
use crate::report::{Better, Section};
use crate::suite::{Context, joined};
use crate::workload::mix::Mix;

const JSON: &str = "application/json";
const WRITERS: usize = 8;
/// Random keys that are read back after a restart.
const SAMPLE: u64 = 5_000;

pub(super) fn run(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "recovery",
        "Recovery",
        "From the start of the process until it is ready, with keys in the log and with keys in a snapshot, random \
         keys read back each time. Then 8 clients write with sync always until the server is killed (SIGKILL), and \
         every acknowledged write is looked for after the restart.",
    );
    let axis = Axis::new("keys", Unit::Count, Scale::Linear);
    let time = Axis::new("until ready", Unit::Seconds, Scale::Linear);
    let (mut from_log, mut from_snapshot) = (Vec::new(), Vec::new());
    for keys in [50_000, 100_000, 200_000, 400_000] {
        context.progress.tell(format!("recovery: {keys} keys"));
        let data = context.data(keys, 100);
        let folder = context.data_dir();
        let start = || context.launcher.inflightkv(Some(&folder), &[]);
        let read_back = |server: &crate::servers::Server| {
            context.load(&Plan {
                stop: Stop::Requests(SAMPLE),
                warmup: std::time::Duration::ZERO,
                ..context.plan(server, &data, Mix::Get, 1.0)
            })
        };
        let server = start()?;
        context.fill(&server, &data)?;
        server.stop()?;
        let server = start()?;
        let seconds = server.ready_after.as_secs_f64();
        from_log.push((data.keys as f64, seconds));
        section.figure(
            format!("{keys} keys from the log"),
            seconds,
            Unit::Seconds,
            Better::Lower,
        );
        read_back(&server)?;
        server
            .connect()?
            .http_success("POST", "/v1/admin/snapshot?wait=true", JSON, b"")?;
        server.stop()?;
        let server = start()?;
        let seconds = server.ready_after.as_secs_f64();
        from_snapshot.push((data.keys as f64, seconds));
        section.figure(
            format!("{keys} keys from a snapshot"),
            seconds,
            Unit::Seconds,
            Better::Lower,
        );
        read_back(&server)?;
        server.stop()?;
        std::fs::remove_dir_all(&folder).map_err(Error::io("removing a data directory"))?;
    }
    if let (Some(log), Some(snapshot)) = (from_log.last(), from_snapshot.last()) {
        section.headline(
            "400k keys from the log",
            log.1,
            Unit::Seconds,
            Better::Lower,
        );
        section.headline(
            "400k keys from a snapshot",
            snapshot.1,
            Unit::Seconds,
            Better::Lower,
        );
    }
    section.charts = vec![
        Chart::lines("Time until ready", axis, time)
            .with("from the log", from_log)
            .with("from a snapshot", from_snapshot),
    ];
    crash(context, &mut section)?;
    Ok(section)
}

fn crash(context: &Context<'_>, section: &mut Section) -> Result<(), Error> {
    context.progress.tell("recovery: after SIGKILL");
    let folder = context.data_dir();
    let start = || {
        context
            .launcher
            .inflightkv(Some(&folder), &["--wal-sync", "always"])
    };
    let server = start()?;
    let stop = AtomicBool::new(false);
    let clients: Vec<Client> = (0..WRITERS)
        .map(|_| server.connect())
        .collect::<Result<_, _>>()?;
    let acknowledged: Vec<u64> = thread::scope(|scope| {
        let writers: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(writer, client)| {
                let stop = &stop;
                scope.spawn(move || write_until_killed(client, writer, stop))
            })
            .collect();
        thread::sleep(context.time(2.0));
        // In the middle of their writes.
        server.kill();
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(joined).collect()
    });
    let server = start()?;
    let mut client = server.connect()?;
    let mut lost = 0;
    for (writer, &count) in acknowledged.iter().enumerate() {
        for number in 0..count {
            let (status, body) = client.http("GET", &path(writer, number), JSON, b"")?;
            if status != 200 || body != number.to_string().as_bytes() {
                lost += 1;
            }
        }
    }
    let total: u64 = acknowledged.iter().sum();
    section.headline(
        "lost after SIGKILL",
        lost as f64,
        Unit::Count,
        Better::Lower,
    );
    section.figure(
        "acknowledged before SIGKILL",
        total as f64,
        Unit::Count,
        Better::Neither,
    );
    section.figure(
        "ready after SIGKILL",
        server.ready_after.as_secs_f64(),
        Unit::Seconds,
        Better::Lower,
    );
    section.note(format!(
        "{total} writes were acknowledged before the server was killed; {lost} of them were missing afterwards."
    ));
    server.stop()?;
    if lost > 0 {
        return Err(Error::Answer {
            name: "inflightkv".to_owned(),
            what: format!("{total} reads after a restart"),
            found: format!("{lost} acknowledged writes missing"),
            expected: "none missing".to_owned(),
        });
    }
    Ok(())
}

/// How many writes were acknowledged: those with the numbers below.
fn write_until_killed(mut client: Client, writer: usize, stop: &AtomicBool) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let body = u64::to_string(&number);
        match client.http("PUT", &path(writer, number), JSON, body.as_bytes()) {
            Ok((200..=299, _)) => number += 1,
            // It was killed before this one was acknowledged.
            _ => break,
        }
    }
    number
}

fn path(writer: usize, number: u64) -> String {
    format!("/v1/kv/crash/{writer}/{number}")
}
