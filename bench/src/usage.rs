//! What a process has used: CPU time and resident memory, from `/proc`.

use std::fs;
use std::io::{self, ErrorKind};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::error::Error;

/// CPU time of all threads of a process.
///
/// The scheduler's own account (`schedstat`) has nanoseconds, but knows living threads only; where the kernel keeps
/// none, `stat` has it in ticks of 10 ms. The servers measured here end no threads while they work.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration, Error> {
    let precise =
        scheduled(pid).map_err(Error::io(format!("reading the CPU time of process {pid}")))?;
    if !precise.is_zero() {
        return Ok(precise);
    }
    let text = read(&format!("/proc/{pid}/stat"))?;
    let ticks = ticks(&text).ok_or_else(|| unexpected(&text))?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// CPU time of several processes together; none for no process.
pub(crate) fn cpu_time_of(pids: &[u32]) -> Result<Option<Duration>, Error> {
    if pids.is_empty() {
        return Ok(None);
    }
    pids.iter()
        .map(|&pid| cpu_time(pid))
        .sum::<Result<_, _>>()
        .map(Some)
}

/// CPU time of this process, including threads that have ended.
pub(crate) fn own_cpu_time() -> Duration {
    // A clock of the process starts at zero and is never negative.
    clock_gettime(ClockId::ProcessCPUTime)
        .try_into()
        .unwrap_or_default()
}

/// How busy each core of the machine has been since it started, whoever used it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    /// Ticks in use, and all ticks.
    cores: Vec<(u64, u64)>,
}

impl Machine {
    /// Empty where the kernel does not say.
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            cores: text.lines().filter_map(core_ticks).collect(),
        }
    }

    /// The share of the time in which each core was busy since `before`.
    pub(crate) fn busy_since(&self, before: &Self) -> Vec<f64> {
        let shares = self.cores.iter().zip(&before.cores);
        shares
            .map(|(after, before)| {
                let all = after.1.saturating_sub(before.1).max(1);
                after.0.saturating_sub(before.0) as f64 / all as f64
            })
            .collect()
    }
}

/// `cpu0 user nice system idle iowait …`; the line without a number is their sum.
fn core_ticks(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("cpu")?;
    if !rest.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let ticks: Vec<u64> = rest
        .split_whitespace()
        .skip(1)
        // What follows are guests, counted in `user` already.
        .take(8)
        .map_while(|text| text.parse().ok())
        .collect();
    let (all, idle): (u64, u64) = (ticks.iter().sum(), ticks.iter().skip(3).take(2).sum());
    Some((all - idle, all))
}

/// Memory of a process that is in RAM.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64, Error> {
    let text = read(&format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| unexpected(&text))
}

/// Memory of a process in RAM, what it shares with others by its share of it.
pub(crate) fn proportional_bytes(pid: u32) -> Result<u64, Error> {
    let text = read(&format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| unexpected(&text))
}

/// Processes that a process has begun and that have not ended.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let listed = threads.into_iter().flatten().flatten();
    let texts = listed.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    texts
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|number| number.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn scheduled(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0_u64;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read_to_string(thread?.path().join("schedstat")) {
            Ok(text) => {
                nanoseconds += text
                    .split(' ')
                    .next()
                    .and_then(|first| first.parse::<u64>().ok())
                    .unwrap_or(0);
            }
            // The thread has just ended, or the kernel keeps no such account.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// User and system time, fields 14 and 15 of `stat`. The second field is the program's name in parentheses and
/// may hold anything, so counting starts after its end.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn read(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::io(format!("reading {path}")))
}

fn unexpected(text: &str) -> Error {
    let found = text.chars().take(80).collect();
    Error::Answer {
        name: "the kernel".to_owned(),
        what: "/proc".to_owned(),
        found,
        expected: "its usual form".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_busy_process_is_seen_to_use_cpu_time_and_memory() {
        let pid = std::process::id();
        let (start, before, own_before) = (Instant::now(), cpu_time(pid).unwrap(), own_cpu_time());
        let mut number = 1_u64;
        while start.elapsed() < Duration::from_millis(60)
            || own_cpu_time() - own_before < Duration::from_millis(30)
        {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(cpu_time(pid).unwrap() - before >= Duration::from_millis(10));
        assert!(resident_bytes(pid).unwrap() > 100 << 10);
        assert!(proportional_bytes(pid).unwrap() <= resident_bytes(pid).unwrap() * 2);
    }

    #[test]
    fn the_time_of_a_core_is_split_into_busy_and_idle() {
        assert_eq!(core_ticks("cpu1 10 1 5 80 4 0 0 0 0 0"), Some((16, 100)));
        assert_eq!(core_ticks("cpu  20 2 10 160 8 0 0 0 0 0"), None);
        assert_eq!(core_ticks("intr 1 2 3"), None);
        let (before, after) = (
            Machine {
                cores: vec![(16, 100)],
            },
            Machine {
                cores: vec![(66, 200)],
            },
        );
        assert_eq!(after.busy_since(&before), [0.5]);
    }

    #[test]
    fn the_name_of_a_program_may_hold_anything() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 12 30 0 0 20 0 1 0 5 1 1 1";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("nothing"), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(cpu_time(u32::MAX).is_err());
        assert!(resident_bytes(u32::MAX).is_err());
    }
}
