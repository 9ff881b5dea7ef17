//! What can go wrong while measuring, in one plain sentence each.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{doing}")]
    Io { doing: String, source: io::Error },
    #[error("connecting to {address}")]
    Connect {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(
        "{program} is not there; build it with `cargo build --release` or name it with --server"
    )]
    NoServer { program: PathBuf },
    #[error("{name} did not become ready within {seconds} s{log}")]
    NotReady {
        name: String,
        seconds: u64,
        log: String,
    },
    #[error("{name} ended early ({status}){log}")]
    Ended {
        name: String,
        status: String,
        log: String,
    },
    #[error("{name} answered {what} with {found}, expected {expected}")]
    Answer {
        name: String,
        what: String,
        found: String,
        expected: String,
    },
    #[error("{failed} of {requests} requests failed: {kinds}")]
    Failures {
        failed: u64,
        requests: u64,
        kinds: String,
    },
    #[error("gave up after {attempts} connections in a row failed")]
    Unreachable { attempts: u32, source: io::Error },
    #[error("{0}")]
    Usage(String),
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// For `map_err`: names what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
