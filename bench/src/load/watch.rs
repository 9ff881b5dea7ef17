//! What is looked at while a run goes on: memory of the server, cores of the machine, and a bar for who waits.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::load::{Answered, Stop};
use crate::usage;

const EVERY: Duration = Duration::from_millis(50);
/// A bar for less than this only flickers.
const BAR_FROM: Duration = Duration::from_secs(1);

/// Resident memory over the measured time, by samples.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Memory {
    pub(crate) average_bytes: u64,
    pub(crate) peak_bytes: u64,
    pub(crate) last_bytes: u64,
}

pub(crate) struct Watch<'a> {
    pub(crate) pids: &'a [u32],
    pub(crate) answered: &'a [Answered],
    pub(crate) measure_from: Instant,
    pub(crate) stop: Stop,
    pub(crate) bar: bool,
    pub(crate) done: &'a AtomicBool,
}

impl Watch<'_> {
    /// Looks until `done`, and once more; `None` without a process, or when its memory could not be read.
    pub(crate) fn run(&self) -> Option<Memory> {
        let bar = self.progress();
        let (mut sum, mut samples, mut memory) = (0_u64, 0, Memory::default());
        loop {
            let done = self.done.load(Ordering::Acquire);
            let now = Instant::now();
            if now >= self.measure_from
                && let Some(bytes) = self.resident_bytes()
            {
                sum += bytes;
                samples += 1;
                memory.peak_bytes = memory.peak_bytes.max(bytes);
                memory.last_bytes = bytes;
            }
            if let Some(bar) = &bar {
                self.show(bar, now);
            }
            if done {
                break;
            }
            std::thread::park_timeout(EVERY);
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        memory.average_bytes = sum.checked_div(samples)?;
        Some(memory)
    }

    /// Of all processes together.
    fn resident_bytes(&self) -> Option<u64> {
        let all = self.pids.iter().map(|&pid| usage::resident_bytes(pid));
        let bytes: u64 = all.sum::<Result<u64, _>>().ok()?;
        (!self.pids.is_empty()).then_some(bytes)
    }

    fn progress(&self) -> Option<ProgressBar> {
        let long = match self.stop {
            Stop::After(duration) => duration >= BAR_FROM,
            Stop::Requests(_) => true,
        };
        if !(self.bar && long && std::io::stderr().is_terminal()) {
            return None;
        }
        let style =
            ProgressStyle::with_template("{wide_bar} {msg}").expect("the template is constant");
        let len = match self.stop {
            Stop::After(duration) => u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            Stop::Requests(requests) => requests,
        };
        Some(ProgressBar::new(len).with_style(style))
    }

    fn show(&self, bar: &ProgressBar, now: Instant) {
        let answers: u64 = self.answered.iter().map(Answered::count).sum();
        let elapsed = now.saturating_duration_since(self.measure_from);
        bar.set_position(match self.stop {
            Stop::After(_) => u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            Stop::Requests(_) => answers,
        });
        bar.set_message(format!("{answers} answers, {:.0} s", elapsed.as_secs_f64()));
    }
}
