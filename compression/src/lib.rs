//! Codecs behind one trait, with ids whose numbers are fixed on disk.
//!
//! [`codec`] turns a [`CodecId`] into a [`Codec`]; [`Codec::compress`] appends the compressed bytes
//! and [`Codec::decompress`] appends exactly the bytes that went in, or fails. Whoever stores
//! compressed bytes keeps the id's number and the raw length beside them: neither is inside.
//!
//! It is not a container format and not a checksum: bytes that were changed on the way may come
//! back as other bytes of the same length. Integrity belongs to the file or the entry around them.
//! Nothing here starts a thread or reads a clock, and no call depends on another.
//!
//! # Promises
//! - What was compressed comes back byte for byte, whatever the bytes.
//! - A number, once given to a codec, never means another one ([`CodecId`]).
//! - Hostile input never panics, and a raw length that the input cannot possibly fill is refused
//!   before memory is spent on it.
//!
//! # Reading order
//! `codec` (the trait, the ids), `plain`, `lz4`, `snappy`, `zstd`; then [`adaptive`] (which codec pays) and [`dictionary`]
//! (what small values have in common), [`batch`] (cold values packed together), [`keys`] (shared prefixes); `error` for what can go wrong.
#![forbid(unsafe_code)]

pub mod adaptive;
pub mod batch;
mod codec;
pub mod dictionary;
mod error;
pub mod keys;
mod lz4;
mod plain;
mod snappy;
mod zstd;

pub use codec::{Codec, CodecId, codec};
pub use dictionary::{Dictionary, DictionarySet};
pub use error::{BlockError, DecodeError, DictionaryError, KeyError, TrainError, UnknownCodec};
pub use lz4::Lz4;
pub use plain::Plain;
pub use snappy::Snappy;
pub use zstd::{ZSTD_LEVEL, Zstd};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
