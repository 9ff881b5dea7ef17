//! The machine that a figure belongs to.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::Error;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// How the clock of the processor is governed, where the kernel says.
    pub(crate) governor: Option<String>,
    /// Runnable processes when the comparison began; above the number of cores it was not alone.
    pub(crate) load_average: f64,
    /// Of the source tree that the program was started in, with a plus where it has changes.
    pub(crate) commit: String,
    /// UTC.
    pub(crate) date: String,
    pub(crate) command: String,
    /// Where data directories are.
    pub(crate) disk: Option<Disk>,
}

/// What a file system does to a small write that has to last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Disk {
    pub(crate) filesystem: String,
    pub(crate) sync_p50_us: f64,
    pub(crate) sync_p99_us: f64,
}

impl Environment {
    pub(crate) fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let first = |path| fs::read_to_string(path).unwrap_or_default();
        let governor = first("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Self {
            processor: model.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            cores: cores(),
            memory_bytes: memory(&first("/proc/meminfo")).unwrap_or(0),
            kernel: first("/proc/sys/kernel/osrelease").trim().to_owned(),
            governor: Some(governor.trim().to_owned()).filter(|name| !name.is_empty()),
            load_average: first("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0.0),
            commit: commit(),
            date: date(now()),
            command: command(),
            disk: None,
        }
    }

    /// The same, with what the disk under this folder does.
    pub(crate) fn with_disk(self, folder: &Path) -> Result<Self, Error> {
        let disk = Disk::measure(folder).map_err(Error::io(format!(
            "measuring the disk of {}",
            folder.display()
        )))?;
        Ok(Self {
            disk: Some(disk),
            ..self
        })
    }

    /// An error unless figures of this machine can be set beside those of a baseline.
    pub(crate) fn demand_same_machine(&self, baseline: &Self) -> Result<(), Error> {
        if self.processor == baseline.processor && self.cores == baseline.cores {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "the baseline is of another machine ({}, {} cores; this is {}, {} cores), so nothing can be compared; \
             take one here with `cargo xtask bench -- --save-baseline`",
            baseline.processor, baseline.cores, self.processor, self.cores
        )))
    }

    /// The machine in a line.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}, {} cores, Linux {}, load average {} at the start",
            self.processor, self.cores, self.kernel, self.load_average
        )
    }

    /// Everything, by name.
    pub(crate) fn rows(&self) -> Vec<(String, String)> {
        let mut rows = vec![
            (
                "processor",
                format!("{}, {} cores", self.processor, self.cores),
            ),
            (
                "memory",
                format!("{:.1} GiB", self.memory_bytes as f64 / f64::from(1 << 30)),
            ),
            ("kernel", format!("Linux {}", self.kernel)),
            ("load average at the start", self.load_average.to_string()),
            ("commit", self.commit.clone()),
            ("date", self.date.clone()),
            ("command", self.command.clone()),
        ];
        if let Some(governor) = &self.governor {
            rows.insert(3, ("governor", governor.clone()));
        }
        if let Some(disk) = &self.disk {
            let sync = format!(
                "{}, 4 KiB and fdatasync in {:.0} µs (median), {:.0} µs (p99)",
                disk.filesystem, disk.sync_p50_us, disk.sync_p99_us
            );
            rows.insert(3, ("disk", sync));
        }
        let rows = rows.into_iter();
        rows.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Disk {
    const WRITES: usize = 100;
    const BYTES: usize = 4096;

    /// Appends blocks to a preallocated file, each followed by a sync, as a log does.
    fn measure(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join("sync.tmp");
        let mut file = File::create(&path)?;
        file.write_all(&vec![0; Self::WRITES * Self::BYTES])?;
        file.sync_all()?;
        drop(file);
        let mut file = File::options().write(true).open(&path)?;
        let mut times = Vec::with_capacity(Self::WRITES);
        for number in 0..Self::WRITES {
            let start = Instant::now();
            file.write_all(&[number as u8; Self::BYTES])?;
            file.sync_data()?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        fs::remove_file(&path)?;
        times.sort_by(f64::total_cmp);
        Ok(Self {
            filesystem: filesystem(folder),
            sync_p50_us: times[Self::WRITES / 2],
            sync_p99_us: times[Self::WRITES * 99 / 100],
        })
    }
}

/// The kind of file system that a folder is on: that of the longest mount point above it.
fn filesystem(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (point, kind) = (fields.nth(1)?, fields.next()?);
            folder.starts_with(point).then_some((point.len(), kind))
        })
        // Of two on the same point the later one is seen.
        .max_by_key(|&(len, _)| len)
        .map_or("unknown", |(_, kind)| kind)
        .to_owned()
}

/// `MemTotal:       24105000 kB`
fn memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => commit + "+",
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// `2026-11-25 14:30 UTC` (civil from days; H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let minutes = seconds % 86_400 / 60;
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
        minutes / 60,
        minutes % 60
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_795_617_031), "2026-11-25 14:30 UTC");
    }

    #[test]
    fn another_machine_is_told_apart() {
        let (here, mut there) = (Environment::default(), Environment::default());
        assert!(here.demand_same_machine(&there).is_ok());
        there.cores += 1;
        let error = here.demand_same_machine(&there).unwrap_err().to_string();
        assert!(error.contains("of another machine"), "{error}");
    }

    #[test]
    fn the_machine_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::read().with_disk(folder.path()).unwrap();
        assert!(environment.cores > 0 && environment.memory_bytes > 1 << 20);
        let disk = environment.disk.expect("it was measured");
        assert!(disk.sync_p50_us > 0.0 && disk.sync_p50_us <= disk.sync_p99_us);
        assert_ne!(disk.filesystem, "unknown");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            0,
            "a file was left"
        );
    }
}
