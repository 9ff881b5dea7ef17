//! What goes when memory is full, and whose time has come: eviction policies and expiry timers on slot numbers.
//!
//! A [`Policy`] is told of entries that come, are used, change and leave, and says which goes next; [`PolicyKind`] lists
//! them and builds one. A [`Budget`] says when to begin and when to stop. A [`TimerWheel`] holds at most one timer a slot,
//! says how long to sleep, and hands over what is due, as much at a time as the caller can afford.
//!
//! It is not a store, not a cache and not a scheduler: it knows slot numbers, weights and instants, no keys, no clock, no
//! thread. Whoever owns the entries calls it and removes what it names.
//!
//! # Promises
//! - A policy names only slots that it was told of and that have not left, each once.
//! - No timer fires before its instant, whatever the clock does; none is lost, none fires twice.
//! - A clock that stands still, jumps ahead or goes back breaks nothing.
//! - Policies and wheels say exactly how much heap memory they hold, and none when they hold nothing.
//! - [`TimerWheel::expire`] fires and moves no more timers than its budget allows.
//!
//! # Reading order
//! `policy` (what all promise), then one policy a file: `lru`, `lfu`, `ttl`, `size`, `random`, `s3_fifo`, `tiny_lfu`, on
//! `slab` and `heap` (slots in order), `ghost` and `sketch` (what is remembered of keys that left); `budget`.
//! `timer_wheel` (what is due when), `timer_wheel::rings` (the lists), `timer_wheel::slots` (from a slot to its timer).
#![forbid(unsafe_code)]

mod budget;
mod draw;
mod ghost;
mod heap;
mod lfu;
mod lru;
mod policy;
mod random;
mod s3_fifo;
mod size;
mod sketch;
mod slab;
mod timer_wheel;
mod tiny_lfu;
mod ttl;

pub use budget::Budget;
pub use policy::{Facts, Policy, PolicyKind, UnknownPolicy};
pub use timer_wheel::TimerWheel;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
