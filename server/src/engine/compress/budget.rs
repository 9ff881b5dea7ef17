//! The share of the processor that the compressor keeps to.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The most that is done before it is paid for in sleep.
const BURST: Duration = Duration::from_millis(2);

/// A token bucket the other way round: work is done first and paid for in sleep, so that nothing has to be saved up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    owed: Duration,
}

impl Budget {
    /// `work` was done, of which `share` percent of one processor may be used; how long to sleep now, if it is time.
    pub(super) fn spend(&mut self, work: Duration, share: u32) -> Option<Duration> {
        let share = share.max(1);
        if share >= 100 {
            return None;
        }
        self.owed += work;
        if self.owed < BURST {
            return None;
        }
        let pause = self.owed * (100 - share) / share;
        self.owed = Duration::ZERO;
        Some(pause)
    }
}

/// Processor time of this thread so far.
pub(super) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_sleep_keep_the_share() {
        for share in [1, 10, 20, 50, 99] {
            let mut budget = Budget::default();
            let (mut work, mut sleep) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..10_000 {
                work += Duration::from_micros(50);
                sleep += budget
                    .spend(Duration::from_micros(50), share)
                    .unwrap_or_default();
            }
            let found = work.as_secs_f64() / (work + sleep).as_secs_f64() * 100.0;
            assert!(
                (found - f64::from(share)).abs() < 0.5,
                "{found} % instead of {share} %"
            );
        }
        assert_eq!(Budget::default().spend(Duration::from_secs(1), 100), None);
        assert_eq!(Budget::default().spend(Duration::from_secs(1), 1000), None);
    }

    #[test]
    fn a_thread_knows_what_it_worked() {
        let before = thread_time();
        let mut sum = 0_u64;
        while thread_time() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(thread_time() > before);
    }
}
