//! `inflightkv-bench load`: from the command line to a plan, from the report to standard output.

use crate::cli::{Load, ProtocolName};
use crate::environment;
use crate::error::Error;
use crate::load::{self, Pace, Plan, Stop, knee};
use crate::protocol::Protocol;
use crate::protocol::http::{Dialect, Requests};

pub(crate) fn run(options: &Load) -> Result<(), Error> {
    let plan = plan(options);
    plan.check()?;
    if options.fill {
        load::run(&plan.clone().fill())?.demand_success()?;
    }
    if options.knee {
        let knee = knee::find(&plan, options.p99_below, options.duration, options.arrivals)?;
        print(&knee, options.json);
        return Ok(());
    }
    let report = load::run(&plan)?;
    print(&report, options.json);
    report.demand_success()
}

fn print<T: serde::Serialize + std::fmt::Display>(outcome: &T, json: bool) {
    if json {
        let text = serde_json::to_string_pretty(outcome).expect("an outcome is plain data");
        println!("{text}");
    } else {
        println!("{outcome}");
    }
}

fn plan(options: &Load) -> Plan {
    let http = |dialect| Protocol::Http(Requests::new(dialect, options.address));
    let protocol = match options.protocol {
        ProtocolName::Http => http(Dialect::Path(options.path.clone())),
        ProtocolName::Webdis => http(Dialect::Webdis),
        ProtocolName::Etcd => http(Dialect::Etcd),
        ProtocolName::Redis => Protocol::Redis,
        ProtocolName::Memcached => Protocol::Memcached,
    };
    let plan = Plan::new(options.address, protocol, options.data.clone(), options.mix);
    Plan {
        connections: options.connections as usize,
        threads: options
            .threads
            .map_or_else(environment::load_threads, usize::from),
        pipeline: options.pipeline as usize,
        pace: match options.rate {
            Some(rate) => Pace::Open {
                rate,
                arrivals: options.arrivals,
            },
            None => Pace::Closed,
        },
        stop: match options.requests {
            Some(requests) => Stop::Requests(requests),
            None => Stop::After(options.duration),
        },
        warmup: options.warmup,
        timeout: options.timeout,
        reads_percent: options.reads,
        // What was created by a patch alone is shorter.
        checks_length: plan.checks_length && !options.mix.misses(),
        pids: options.pid.into_iter().collect(),
        window: options.windows.filter(|window| !window.is_zero()),
        bar: true,
        ..plan
    }
}
