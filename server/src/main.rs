//! The binary: everything is in the library's [`cli`](inflightkv_server::cli); here is only what a binary alone may choose.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// One allocator for server and tools: small objects of many sizes, freed on other threads than they came from.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    inflightkv_server::cli::main()
}
