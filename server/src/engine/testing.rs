//! What tests of the engine's parts share.

use super::write::{Change, PutTtl, Value, Write};
use super::{Conditions, Durability, Engine};

/// Writes a value.
pub(crate) fn put(engine: &Engine, key: &str, value: Vec<u8>) {
    let change = Change::Put {
        value: Value {
            bytes: value.into(),
            media_type: None,
        },
        ttl: PutTtl::Clear,
    };
    let write = Write {
        key,
        conditions: Conditions::default(),
        change,
        durability: Durability::Default,
        returning: false,
        pin: None,
    };
    engine.lane(0).write(write).expect("it is taken");
}
