//! When the requests of an open loop are due, decided before the first one is sent.

use std::time::{Duration, Instant};

use crate::cli::Arrivals;

#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    /// Seconds from the start to the next arrival.
    at: f64,
    spacing: f64,
    arrivals: Arrivals,
    random: fastrand::Rng,
}

impl Schedule {
    /// `rate` arrivals a second in all, dealt to `workers` in turn; this is the share of one.
    pub(crate) fn new(
        start: Instant,
        rate: f64,
        arrivals: Arrivals,
        worker: usize,
        workers: usize,
        seed: u64,
    ) -> Self {
        let mut schedule = Self {
            start,
            at: worker as f64 / rate,
            spacing: workers as f64 / rate,
            arrivals,
            random: fastrand::Rng::with_seed(seed),
        };
        if arrivals == Arrivals::Poisson {
            schedule.at = schedule.gap();
        }
        schedule
    }

    pub(crate) fn due(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.at)
    }

    pub(crate) fn advance(&mut self) {
        self.at += self.gap();
    }

    fn gap(&mut self) -> f64 {
        match self.arrivals {
            Arrivals::Constant => self.spacing,
            // The gaps of independent arrivals are exponentially distributed; 1 - [0, 1) is never zero.
            Arrivals::Poisson => -(1.0 - self.random.f64()).ln() * self.spacing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_together_keep_the_rate_and_the_order() {
        let start = Instant::now();
        let mut dues = Vec::new();
        for worker in 0..3 {
            let mut schedule = Schedule::new(start, 1000.0, Arrivals::Constant, worker, 3, 1);
            for _ in 0..100 {
                dues.push(schedule.due() - start);
                schedule.advance();
            }
        }
        dues.sort();
        for (number, due) in (0_u32..).zip(dues) {
            let expected = Duration::from_millis(1) * number;
            assert!(
                due.abs_diff(expected) < Duration::from_micros(1),
                "{number}: {due:?}"
            );
        }
    }

    #[test]
    fn independent_arrivals_keep_the_rate_on_average() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 1000.0, Arrivals::Poisson, 0, 1, 5);
        for _ in 0..10_000 {
            schedule.advance();
        }
        let seconds = (schedule.due() - start).as_secs_f64();
        assert!(
            (9.5..10.5).contains(&seconds),
            "{seconds} s for 10000 arrivals at 1000/s, seed 5"
        );
    }
}
