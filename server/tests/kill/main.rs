//! Processes and their end: killed at any moment, asked to end, and refused a data directory.
//!
//! `KILL_ROUNDS=N` makes every test that kills under load go N rounds instead of a few; `KILL_SEED=N` repeats a run's
//! choices (which are printed; the moment of a kill is the machine's).
#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;

mod endings;
mod expiry;
mod full;
mod load;
mod model;
mod refusals;
mod rounds;
