//! Many keys that expire in one moment, and who notices.

use std::thread;
use std::time::{Duration, Instant};

use crate::cli::Arrivals;
use crate::error::Error;
use crate::fill::{self, Range};
use crate::interrupt;
use crate::load::{Pace, Plan, Stop};
use crate::report::chart::{Axis, Chart, Scale};
use crate::report::unit::Unit;
use crate::report::{Better, Section};
use crate::suite::snapshot::over_time;
use crate::suite::{Context, joined, latencies, number, stats};
use crate::workload::mix::Mix;

const RATE: f64 = 4_000.0;
const LASTING: u64 = 20_000;
/// Far from the numbers of the keys that are read.
const FIRST: u64 = 1_000_000_000;

pub(super) fn run(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "expiry",
        "Expiry",
        "200,000 keys expire in the same moment, while 4000 GETs a second ask for others.",
    );
    let lasting = context.data(LASTING, 100);
    let expiring = context.data(200_000, 100);
    let server = context.filled(&lasting)?;
    // Long enough for writing them all, also on a machine that is busy.
    let probe = context.fill(&server, &lasting)?;
    let writing =
        probe.mul_f64(2.0 * expiring.keys as f64 / lasting.keys as f64) + context.time(1.0);
    let due = Instant::now() + writing;
    let range = Range {
        first: FIRST,
        expire_at: Some(due),
    };
    fill::run(&server, &expiring, range, |_| {})?;
    let plan = Plan {
        pace: Pace::Open {
            rate: RATE,
            arrivals: Arrivals::Constant,
        },
        window: Some(Duration::from_millis(100)),
        warmup: Duration::ZERO,
        ..context.plan(&server, &lasting, Mix::Get, 1.0)
    };
    let start = Instant::now();
    let at = due.saturating_duration_since(start);
    let until = at + context.time(4.0);
    let mut client = server.connect()?;
    let (report, remaining) = thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let mut points = Vec::new();
            let mut next = start;
            while start.elapsed() < until {
                let entries = number(&stats(&mut client)?, "/total/entries");
                points.push((start.elapsed().as_secs_f64(), entries));
                next += Duration::from_millis(50);
                interrupt::sleep_until(next)?;
            }
            Ok::<_, Error>(points)
        });
        let report = context.load(&Plan {
            stop: Stop::After(until),
            ..plan
        });
        Ok::<_, Error>((report?, joined(watch)?))
    })?;
    let told = stats(&mut server.connect()?)?;
    server.stop()?;
    let at = at.as_secs_f64();
    let gone = remaining
        .iter()
        .find(|&&(time, entries)| time >= at && entries <= lasting.keys as f64)
        .map(|&(time, _)| time - at);
    if let Some(seconds) = gone {
        section.headline("all reclaimed after", seconds, Unit::Seconds, Better::Lower);
    } else {
        section.note("Not all keys were reclaimed while it was watched.");
    }
    section.figure(
        "reclaimed too late, at most",
        number(&told, "/expiryLagMaxMs") / 1e3,
        Unit::Seconds,
        Better::Lower,
    );
    section.figure(
        "expired",
        number(&told, "/expired"),
        Unit::Count,
        Better::Neither,
    );
    latencies(&mut section, "GET", &report);
    section.headline(
        "p99 over the storm",
        report.latency_us.p99,
        Unit::Microseconds,
        Better::Lower,
    );
    section.charts = vec![
        over_time(
            "Latency over time",
            &report,
            Some((at, at + gone.unwrap_or(0.1), "expiry")),
        ),
        Chart::lines(
            "Entries",
            Axis::seconds(),
            Axis::new("entries", Unit::Count, Scale::Linear),
        )
        .with("entries", remaining),
    ];
    Ok(section)
}
