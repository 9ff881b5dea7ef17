//! Memory for each entry, on average and at its peak: by size of values, by codec, by eviction policy.

use crate::cli::{Content, Data};
use crate::error::Error;
use crate::fill::{self, Range};
use crate::report::chart::Chart;
use crate::report::unit::Unit;
use crate::report::{Better, Section};
use crate::suite::{Context, POLICIES, number, stats};
use crate::usage;
use crate::workload::KEY_BYTES;

const CODECS: [&str; 4] = ["lz4", "snappy", "zstd", "adaptive"];
const KEYS: u64 = 200_000;
/// More than any of it needs: what a policy keeps for each entry is there, and nothing is evicted.
const PLENTY: &str = "64GiB";
/// What codecs work on.
const WORDS: usize = 400;

/// One server that is filled and looked at.
struct Variant {
    name: String,
    data: Data,
    arguments: Vec<&'static str>,
    /// For what the server does after it has answered.
    settle_seconds: f64,
}

/// Bytes for each entry.
#[derive(Default)]
struct Bars {
    names: Vec<String>,
    payload: Vec<f64>,
    counted: Vec<f64>,
    resident: Vec<f64>,
    peak: Vec<f64>,
}

pub(super) fn run(context: &Context<'_>) -> Result<Section, Error> {
    let mut section = Section::new(
        "memory",
        "Memory",
        "Keys of 16 bytes, written in batches into an empty server: resident memory for each of them afterwards and \
         at the peak while loading, and what the store itself counts.",
    );
    let sizes = [40, 100, 400, 1_000].map(|bytes| Variant {
        name: Unit::Bytes.show(bytes as f64),
        data: context.data(KEYS, bytes),
        arguments: Vec::new(),
        settle_seconds: 0.3,
    });
    let words = |name: &str, arguments: Vec<&'static str>| Variant {
        name: name.to_owned(),
        data: Data {
            content: Content::Words,
            ..context.data(KEYS, WORDS)
        },
        arguments,
        settle_seconds: 1.5,
    };
    let codecs = std::iter::once(words("no codec", Vec::new()))
        .chain(CODECS.map(|codec| words(codec, vec!["--compression", codec])));
    let policies = POLICIES.map(|policy| Variant {
        name: policy.to_owned(),
        data: context.data(KEYS, 100),
        arguments: vec!["--max-memory", PLENTY, "--eviction", policy],
        settle_seconds: 0.3,
    });
    let groups: [(&str, Vec<Variant>); 3] = [
        ("Bytes for each entry, by size of value", sizes.into()),
        ("Bytes for each entry, by codec", codecs.collect()),
        ("Bytes for each entry, by policy", policies.into()),
    ];
    for (title, variants) in groups {
        let mut bars = Bars::default();
        for variant in variants {
            // What this build of the server does not know cannot be measured.
            if variant.arguments.is_empty() || context.launcher.takes(&variant.arguments) {
                measure(context, &variant, &mut section, &mut bars)?;
            }
        }
        if bars.names.len() > 1 {
            section.charts.push(bars.chart(title));
        }
    }
    section.note(
        "Sizes and policies: values are JSON with random letters and digits, which no codec can make much smaller. \
         Codecs: 400 bytes of JSON with English words in it, drawn at random; a second and a half after loading.",
    );
    section.note(
        "With a policy there is more than enough memory: the bars show what it keeps for each entry.",
    );
    Ok(section)
}

fn measure(
    context: &Context<'_>,
    variant: &Variant,
    section: &mut Section,
    bars: &mut Bars,
) -> Result<(), Error> {
    let Variant { name, data, .. } = variant;
    context.progress.tell(format!("memory: {name}"));
    let keys = data.keys as f64;
    let server = context.launcher.inflightkv(None, &variant.arguments)?;
    let empty = usage::resident_bytes(server.pid())?;
    let (mut peak, mut sum, mut samples) = (empty, 0.0, 0.0);
    fill::run(&server, data, Range::default(), |_| {
        // A reading that fails is one of hundreds.
        let now = usage::resident_bytes(server.pid()).unwrap_or(peak);
        peak = peak.max(now);
        sum += now as f64;
        samples += 1.0;
    })?;
    std::thread::sleep(context.time(variant.settle_seconds));
    let full = usage::resident_bytes(server.pid())?;
    let told = stats(&mut server.connect()?)?;
    server.stop()?;
    let each = |bytes: u64| bytes.saturating_sub(empty) as f64 / keys;
    let counted = (number(&told, "/total/entryBytes")
        + number(&told, "/total/tableBytes")
        + number(&told, "/memory/policyBytes"))
        / keys;
    if name == "100 B" {
        section.headline("empty server", empty as f64, Unit::Bytes, Better::Lower);
        section.headline("per entry (100 B)", each(full), Unit::Bytes, Better::Lower);
    }
    let mut bytes = |what: &str, value: f64| {
        section.figure(format!("{name}: {what}"), value, Unit::Bytes, Better::Lower);
    };
    bytes("bytes per entry", each(full));
    bytes("at the peak of loading", each(peak));
    bytes("counted by the store", counted);
    bytes(
        "resident while loading, average",
        sum / f64::max(samples, 1.0),
    );
    bars.names.push(name.clone());
    bars.payload.push((KEY_BYTES + data.value_bytes) as f64);
    bars.counted.push(counted);
    bars.resident.push(each(full));
    bars.peak.push(each(peak));
    Ok(())
}

impl Bars {
    fn chart(self, title: &str) -> Chart {
        let mut chart = Chart::bars(title, Unit::Bytes, self.names);
        chart.add_bars("key and value", &self.payload);
        chart.add_bars("counted by the store", &self.counted);
        chart.add_bars("resident", &self.resident);
        chart.add_bars("resident at the peak", &self.peak);
        chart
    }
}
