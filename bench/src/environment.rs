//! The machine that a figure belongs to.

use std::fs;
use std::thread;

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Environment {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Runnable processes when the comparison began; above the number of cores it was not alone.
    pub(crate) load_average: f64,
    pub(crate) command: String,
}

impl Environment {
    pub(crate) fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let first = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            processor: model.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            cores: cores(),
            kernel: first("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: first("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0.0),
            command: command(),
        }
    }
}

/// Cores this process may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Threads of the generator where nothing else was asked for: a request costs it about half of what it costs a
/// server, and both share the cores.
pub(crate) fn load_threads() -> usize {
    (cores() / 2).max(1)
}

/// The command line, the program without its folder.
fn command() -> String {
    let program = env!("CARGO_BIN_NAME").to_owned();
    std::iter::once(program)
        .chain(std::env::args().skip(1))
        .collect::<Vec<_>>()
        .join(" ")
}
