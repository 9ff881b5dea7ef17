//! Compression of values in memory: what it saves, what it costs, with which codec and dictionaries.

use super::Out;
use crate::engine::CompressionStats;
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;

pub(super) fn encode(out: &mut Out<'_>, stats: &CompressionStats) -> fmt::Result {
    let mut family = out.family(
        "compressed_keys",
        "Entries whose value is compressed, by codec.",
        None,
        MetricType::Gauge,
    )?;
    for (codec, share) in &stats.codecs {
        family
            .encode_family(&[("codec", *codec)])?
            .encode_gauge(&share.entries)?;
    }
    let mut family = out.family(
        "compressed_values",
        "Values that are compressed: what they are, and what is stored of them.",
        Some(&Unit::Bytes),
        MetricType::Gauge,
    )?;
    for (codec, share) in &stats.codecs {
        for (form, bytes) in [("raw", share.raw_bytes), ("stored", share.stored_bytes)] {
            family
                .encode_family(&[("codec", *codec), ("form", form)])?
                .encode_gauge(&bytes)?;
        }
    }
    let mut family = out.family(
        "compression_values",
        "Values that the compressor looked at, by what became of them.",
        None,
        MetricType::Counter,
    )?;
    for (outcome, count) in [
        ("compressed", stats.compressed),
        ("decompressed", stats.decompressed),
        ("not_worth_it", stats.failed),
        ("overtaken", stats.overtaken),
        ("packed", stats.packed),
        ("unpacked", stats.unpacked),
    ] {
        family
            .encode_family(&[("outcome", outcome)])?
            .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    out.gauge(
        "packed_keys",
        "Entries whose value is packed together with others.",
        None,
        stats.blocks.values,
    )?;
    out.gauge(
        "packed_saved",
        "What packing them together saves.",
        Some(&Unit::Bytes),
        stats.batches_saved_bytes(),
    )?;
    out.gauge(
        "coded_keys",
        "Entries whose key is stored with a prefix that their partition has learned.",
        None,
        stats.keys.keys,
    )?;
    out.gauge(
        "coded_keys_saved",
        "By how much that makes their entries shorter.",
        Some(&Unit::Bytes),
        stats.keys.saved_bytes,
    )?;
    out.gauge(
        "compression_memory",
        "Memory of dictionaries, samples and buffers.",
        Some(&Unit::Bytes),
        stats.bytes,
    )?;
    let mut family = out.family(
        "compression_dictionary",
        "Memory of each dictionary in use, by its number in this run.",
        Some(&Unit::Bytes),
        MetricType::Gauge,
    )?;
    for dictionary in &stats.dictionaries {
        family
            .encode_family(&[("version", dictionary.version.to_string())])?
            .encode_gauge(&dictionary.bytes)?;
    }
    out.counter(
        "compression_dictionaries_trained",
        "Dictionaries trained.",
        None,
        stats.trainings,
    )?;
    out.counter(
        "compression_cpu",
        "Processor time of compressing in the background.",
        Some(&Unit::Seconds),
        stats.cpu_us as f64 / 1e6,
    )
}
