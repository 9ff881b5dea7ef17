//! Memory for each entry, on average and at its peak, by size of values and by codec.

use crate::error::Error;
use crate::fill::{self, Range};
use crate::report::chart::Chart;
use crate::report::unit::Unit;
use crate::report::{Better, Section};
use crate::suite::{Context, number, stats};
use crate::usage;
use crate::workload::KEY_BYTES;

const CODECS: [&str; 4] = ["lz4", "snappy", "zstd", "adaptive"];

pub(super) fn run(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "memory",
        "Memory",
        "Keys of 16 bytes, written in batches into an empty server: resident memory for each of them afterwards and \
         at the peak while loading, and what the store itself counts.",
    );
    let mut variants: Vec<(String, usize, Vec<&str>)> = [40, 100, 400, 1_000]
        .map(|bytes| (Unit::Bytes.show(bytes as f64), bytes, Vec::new()))
        .to_vec();
    for codec in CODECS {
        let arguments = vec!["--compression", codec];
        if context.launcher.takes(&arguments) {
            variants.push((format!("400 B, {codec}"), 400, arguments));
        }
    }
    if variants.iter().all(|(.., arguments)| arguments.is_empty()) {
        section.note("This build of the server does not compress values in memory.");
    }
    let names: Vec<String> = variants.iter().map(|(name, ..)| name.clone()).collect();
    let (mut after, mut peaks, mut counted, mut payload) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, bytes, arguments) in &variants {
        context.progress.tell(format!("memory: {name}"));
        let data = context.data(200_000, *bytes);
        let keys = data.keys as f64;
        let server = context.launcher.inflightkv(None, arguments)?;
        let empty = usage::resident_bytes(server.pid())?;
        let (mut peak, mut sum, mut samples) = (empty, 0.0, 0.0);
        fill::run(&server, &data, Range::default(), |_| {
            // A reading that fails is one of thousands.
            let now = usage::resident_bytes(server.pid()).unwrap_or(peak);
            peak = peak.max(now);
            sum += now as f64;
            samples += 1.0;
        })?;
        std::thread::sleep(context.time(1.0));
        let full = usage::resident_bytes(server.pid())?;
        let total = stats(&mut server.connect()?)?;
        server.stop()?;
        let each = |bytes: u64| bytes.saturating_sub(empty) as f64 / keys;
        let own =
            (number(&total, "/total/entryBytes") + number(&total, "/total/tableBytes")) / keys;
        let per_entry = format!("{name}: bytes per entry");
        if name == "100 B" {
            section.headline("empty server", empty as f64, Unit::Bytes, Better::Lower);
            section.headline("per entry (100 B)", each(full), Unit::Bytes, Better::Lower);
        }
        section.figure(per_entry, each(full), Unit::Bytes, Better::Lower);
        section.figure(
            format!("{name}: at the peak of loading"),
            each(peak),
            Unit::Bytes,
            Better::Lower,
        );
        section.figure(
            format!("{name}: counted by the store"),
            own,
            Unit::Bytes,
            Better::Lower,
        );
        section.figure(
            format!("{name}: resident while loading, average"),
            sum / f64::max(samples, 1.0),
            Unit::Bytes,
            Better::Lower,
        );
        after.push(each(full));
        peaks.push(each(peak));
        counted.push(own);
        payload.push((KEY_BYTES + bytes) as f64);
    }
    let mut chart = Chart::bars("Bytes for each entry, by size of value", Unit::Bytes, names);
    chart.add_bars("key and value", &payload);
    chart.add_bars("counted by the store", &counted);
    chart.add_bars("resident", &after);
    chart.add_bars("resident at the peak", &peaks);
    section.charts = vec![chart];
    section.note("Values are JSON with random letters and digits in them, which no codec can make much smaller.");
    Ok(section)
}
