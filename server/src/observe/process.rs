//! What the system says of this process.

use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::{Duration, Instant};

/// The process at one moment; what could not be found out is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    pub(crate) resident_bytes: u64,
    pub(crate) cpu: Duration,
    pub(crate) open_files: u64,
    pub(crate) uptime: Duration,
}

impl Process {
    /// Asks the system; `started` is when the process began, near enough.
    pub(crate) fn read(started: Instant) -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            resident_bytes: resident_bytes().unwrap_or(0),
            cpu: Duration::new(
                u64::try_from(cpu.tv_sec).unwrap_or(0),
                u32::try_from(cpu.tv_nsec).unwrap_or(0),
            ),
            open_files: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
            uptime: started.elapsed(),
        }
    }
}

/// `VmRSS` of `/proc/self/status`.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
