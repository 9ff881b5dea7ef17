//! `inflightkv-bench load`: from the command line to a plan, from the report to standard output.

use crate::cli::{Load, ProtocolName};
use crate::environment;
use crate::error::Error;
use crate::load::{self, Pace, Plan, Stop};
use crate::protocol::Protocol;

/// Below it a GET answers the value as it was written.
const NATIVE_PATH: &str = "/v1/kv/";

pub(crate) fn run(options: &Load) -> Result<(), Error> {
    if options.fill {
        let filled = load::run(&plan(options).fill())?;
        filled.demand_success()?;
    }
    let report = load::run(&plan(options))?;
    if options.json {
        let text = serde_json::to_string_pretty(&report).expect("a report is plain data");
        println!("{text}");
    } else {
        println!("{report}");
    }
    report.demand_success()
}

fn plan(options: &Load) -> Plan {
    let bytes = options.data.value_bytes;
    let protocol = match options.protocol {
        ProtocolName::Http => Protocol::http(&options.path, options.address, bytes),
        ProtocolName::Redis => Protocol::Redis,
    };
    let echoes = options.protocol == ProtocolName::Redis || options.path == NATIVE_PATH;
    Plan {
        address: options.address,
        protocol,
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
        mix: options.mix,
        reads_percent: options.reads,
        data: options.data.clone(),
        sequential: false,
        body_bytes: echoes.then_some(bytes),
        pid: options.pid,
    }
}
