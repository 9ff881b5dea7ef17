//! The design that this project does not have: partitions on threads of their own, each behind a queue, every
//! operation a message and a future.
//!
//! It keeps the same partitions and does the same checks, so that what is measured beside it is the hop alone. Behind
//! HTTP it answers with as much as it needs to be compared, and no more.

mod serve;
mod store;

pub(crate) use serve::run;
pub(crate) use store::Store;
