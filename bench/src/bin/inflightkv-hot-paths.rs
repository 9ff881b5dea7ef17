//! Does scenarios so and so often, for a tool that counts from outside; counts allocations itself.
//!
//! `inflightkv-hot-paths list` prints the names and how often each is to be done; `run NAME TIMES` does one;
//! `allocations` prints, for each, the allocations and bytes of one repetition as JSON.
#![forbid(unsafe_code)]

use std::alloc::System;
use std::process::ExitCode;

use inflightkv_bench::scenarios::{Scenario, all};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["list"] => {
            for scenario in all() {
                println!("{} {}", scenario.name, scenario.repetitions);
            }
            ExitCode::SUCCESS
        }
        ["run", name, times] => {
            let scenario = all().into_iter().find(|scenario| scenario.name == name);
            let (Some(scenario), Ok(times)) = (scenario, times.parse()) else {
                eprintln!(
                    "inflightkv-hot-paths: there is no {name:?}, or {times:?} is no number; `list` tells the names"
                );
                return ExitCode::FAILURE;
            };
            repeat(&mut *scenario.start(), times);
            ExitCode::SUCCESS
        }
        ["allocations"] => {
            let counts: serde_json::Map<String, serde_json::Value> = all()
                .iter()
                .map(|scenario| (scenario.name.to_owned(), allocations(scenario)))
                .collect();
            println!("{}", serde_json::Value::Object(counts));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: inflightkv-hot-paths list | run NAME TIMES | allocations");
            ExitCode::FAILURE
        }
    }
}

fn repeat(work: &mut dyn FnMut(), times: u32) {
    for _ in 0..times {
        work();
    }
}

/// Of one repetition, on average, after as many to grow what grows once.
fn allocations(scenario: &Scenario) -> serde_json::Value {
    let mut work = scenario.start();
    repeat(&mut *work, scenario.repetitions);
    let region = Region::new(ALLOCATOR);
    repeat(&mut *work, scenario.repetitions);
    let change = region.change();
    let each = |count: usize| count as f64 / f64::from(scenario.repetitions);
    serde_json::json!({
        "allocations": each(change.allocations + change.reallocations),
        "bytes": each(change.bytes_allocated),
    })
}
