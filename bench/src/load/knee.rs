//! The knee: the highest rate at which the server still answers within a bound.
//!
//! A closed loop finds the ceiling; then rates between nothing and the ceiling are tried with an open loop, halving
//! what is left, until the answer is known to a twentieth.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::cli::Arrivals;
use crate::error::Error;
use crate::load::{self, Pace, Plan, Report, Stop};

/// Rates closer than this are one answer.
const RESOLUTION: f64 = 0.05;
/// A rate is kept up if this share of it was achieved.
const ACHIEVED_MIN: f64 = 0.95;
const STEPS_MAX: usize = 8;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Knee {
    /// p99 has to stay below.
    pub(crate) bound_us: f64,
    /// The closed loop's requests per second.
    pub(crate) ceiling: f64,
    /// Requests per second; none if even the lowest rate tried was not kept up within the bound.
    pub(crate) knee: Option<f64>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) rate: f64,
    pub(crate) throughput: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) failed: u64,
    pub(crate) unsent: u64,
    pub(crate) within: bool,
}

/// Searches with the plan's connections and mix; each step takes `step`.
pub(crate) fn find(
    plan: &Plan,
    bound: Duration,
    step: Duration,
    arrivals: Arrivals,
) -> Result<Knee, Error> {
    let of = |pace| Plan {
        pace,
        stop: Stop::After(step),
        ..plan.clone()
    };
    let closed = load::run(&of(Pace::Closed))?;
    closed.demand_success()?;
    let bound_us = bound.as_secs_f64() * 1e6;
    let mut steps = Vec::new();
    let knee = search(closed.throughput, |rate| {
        let report = load::run(&of(Pace::Open { rate, arrivals }))?;
        let step = judge(&report, rate, bound_us);
        steps.push(step);
        Ok(step.within)
    })?;
    steps.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    Ok(Knee {
        bound_us,
        ceiling: closed.throughput,
        knee,
        steps,
    })
}

fn judge(report: &Report, rate: f64, bound_us: f64) -> Step {
    let p99_us = report.latency_us.p99;
    let kept_up = report.throughput >= ACHIEVED_MIN * rate;
    Step {
        rate,
        throughput: report.throughput,
        p50_us: report.latency_us.p50,
        p99_us,
        failed: report.failed(),
        unsent: report.unsent,
        within: kept_up && p99_us <= bound_us && report.failed() == 0,
    }
}

/// The highest rate for which `within` holds, between a fiftieth of the ceiling and the ceiling.
fn search(
    ceiling: f64,
    mut within: impl FnMut(f64) -> Result<bool, Error>,
) -> Result<Option<f64>, Error> {
    let (mut low, mut high) = (None, ceiling);
    for step in 0..STEPS_MAX {
        let rate = match low {
            // The first guess is where most servers still answer in time.
            None if step == 0 => 0.7 * ceiling,
            None => high / 2.0,
            Some(low) => f64::midpoint(low, high),
        };
        if rate < ceiling / 50.0 {
            break;
        }
        if within(rate)? {
            low = Some(rate);
        } else {
            high = rate;
        }
        if low.is_some_and(|low| high - low <= RESOLUTION * high) {
            break;
        }
    }
    Ok(low)
}

impl fmt::Display for Knee {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "closed loop  {:.0} requests/s", self.ceiling)?;
        for step in &self.steps {
            let verdict = if step.within { "within" } else { "beyond" };
            writeln!(
                out,
                "{:>9.0}/s   achieved {:.0}, p50 {:.0} µs, p99 {:.0} µs, {} failed, {} never sent: {verdict}",
                step.rate, step.throughput, step.p50_us, step.p99_us, step.failed, step.unsent
            )?;
        }
        let bound = self.bound_us / 1e3;
        match self.knee {
            Some(knee) => write!(
                out,
                "knee         {knee:.0} requests/s with p99 below {bound} ms, {:.0} % of the ceiling",
                100.0 * knee / self.ceiling
            ),
            None => write!(
                out,
                "knee         none: p99 was above {bound} ms at every rate tried"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_ends_near_the_highest_rate_that_holds() {
        for limit in [15_000.0, 40_000.0, 71_000.0, 99_000.0] {
            let found = search(100_000.0, |rate| Ok(rate <= limit)).unwrap();
            let found = found.expect("some rate holds");
            assert!(found <= limit && found > 0.85 * limit, "{found} of {limit}");
        }
        assert_eq!(search(100_000.0, |_| Ok(false)).unwrap(), None);
    }
}
