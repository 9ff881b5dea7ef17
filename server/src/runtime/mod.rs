//! Event loops: one thread per core, each accepting, parsing, executing and answering on its own.
//!
//! `server` starts and ends the process's loops, `event_loop` is one of them, `gate` holds answers until what they
//! say is durable, `shutdown` tells every loop when to end.

pub mod event_loop;
pub mod gate;
pub mod server;
pub mod shutdown;

pub use event_loop::LoopContext;
pub use gate::{Gate, NotDurable};
pub use shutdown::Shutdown;
