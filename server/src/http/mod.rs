//! The HTTP surfaces: `/kv`, frozen for the clients it has, and `/v1`, native; one store behind both.
//!
//! A handler turns a request into one command for the store and what came of it into one of two renderings. Everything
//! a request needs happens on the event loop that read it. Between having a request's body and having changed the store
//! nothing is awaited, so a client that disconnects leaves nothing half done.
//!
//! # Promises
//! - Every limit is enforced before memory is spent; a client that never reads costs a bounded amount of it.
//! - An answer says only what is as durable as the store was asked to make it.
//! - No input panics, hangs or reaches another client's request.
//!
//! # Reading order
//! `listener` (a connection's life), `service` (one request), `route`, then `kv` and `v1`; `io` and `body` for bytes,
//! `fault` for everything that can be wrong.

mod admin;
mod answer;
mod backup;
mod batch;
mod body;
mod configuration;
mod context;
#[cfg(test)]
mod damaged_tests;
mod digest;
mod envelope;
mod etag;
mod fault;
mod follow;
mod guard;
mod guests;
mod health;
mod hot;
mod io;
pub(crate) mod json;
mod keys;
mod kv;
pub mod listener;
mod media;
mod metrics;
mod operations;
mod overload;
mod pace;
mod persistence;
mod problem;
mod problems;
mod query;
mod restore;
mod route;
mod service;
mod settings;
mod stats;
pub(crate) mod target;
mod timer;
pub(crate) mod traffic;
mod ttl;
mod ui;
mod uploads;
mod v1;
mod value;
mod watch;
mod wire;

pub use configuration::{Configuration, SettingError};
pub use guests::Guests;
pub use settings::{Fairness, Settings};
pub use traffic::Traffic;
pub use uploads::Uploads;
