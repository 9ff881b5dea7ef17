//! Small pieces of work, one for each hot path of each crate: what the micro benchmarks time, and what the gate counts.
//!
//! The same list serves both, so that a path which is gated can be timed by hand and the other way round. Everything
//! in a scenario comes from constants: two runs do the same work, instruction by instruction, as far as the crates
//! themselves do.
#![forbid(unsafe_code)]

pub mod scenarios;
