//! Expiry timers on slot numbers: which entry's time has come, on the caller's clock.
//!
//! [`TimerWheel`] holds at most one timer a slot. [`TimerWheel::set`] and [`TimerWheel::clear`]
//! cost the same however many timers there are, [`TimerWheel::next_due`] says how long to sleep,
//! and [`TimerWheel::expire`] hands over what is due, as much at a time as the caller can afford.
//!
//! It is not a store and not a scheduler: it knows slot numbers and instants, no keys, no clock, no
//! thread. Whoever owns the entries calls it, sleeps, and removes what it names.
//!
//! # Promises
//! - No timer fires before its instant, whatever the clock does; none is lost, none fires twice.
//! - A clock that stands still, jumps ahead or goes back breaks nothing.
//! - A wheel without timers holds no heap memory; one with timers says exactly how much it holds.
//! - [`TimerWheel::expire`] fires and moves no more timers than its budget allows.
//!
//! # Reading order
//! `timer_wheel` (what is due when), `timer_wheel::rings` (the lists), `timer_wheel::slots` (from a
//! slot to its timer).
#![forbid(unsafe_code)]

mod policy;
mod timer_wheel;

pub use policy::{PolicyKind, UnknownPolicy};
pub use timer_wheel::TimerWheel;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
