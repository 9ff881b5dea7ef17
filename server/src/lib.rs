//! InFlightKv: an in-memory JSON key-value store with versions that never loses an acknowledged write.
//!
//! [`engine`] composes the store from its layers: partitions (`inflightkv-core`), the write-ahead log
//! (`inflightkv-wal`), snapshots (`inflightkv-snapshot`), expiry timers (`inflightkv-eviction`) and codecs
//! (`inflightkv-compression`). It knows no HTTP and no async runtime and can be embedded: with
//! `default-features = false` this crate is the durable store alone.
//!
//! The feature `http` adds event loops and the HTTP surfaces, the feature `cli` the binary `inflightkv`.
//!
//! # Promises
//! - One change is one step: it is applied whole, under one number, or not at all.
//! - With `always` or `durability=sync` an answer is given only when what it says is on stable storage.
//! - After a restart the store holds a prefix of the sequence of changes, and everything acknowledged as durable.
//!
//! # Reading order
//! `engine::write` (one change), `engine::recover` (one restart), `engine::checkpoint` (one snapshot), then
//! `runtime::event_loop`, then `http::service`.
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod config;
pub mod engine;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "http")]
pub mod observe;
#[cfg(feature = "http")]
pub mod runtime;
#[cfg(feature = "http")]
pub mod trust;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
