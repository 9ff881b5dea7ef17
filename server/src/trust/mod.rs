//! Who may do what, and what is written down about it.
//!
//! [`Access`] knows the tokens and certificates that are accepted and answers whose a request is; the surfaces ask
//! it before they look at anything else. [`Audit`] keeps the lossless, chained log of what mattered. Neither knows HTTP.

mod access;
mod audit;
mod chain;
mod file;
mod time;
#[cfg(feature = "tls")]
mod tls;
mod tokens;

pub use access::Access;
pub use audit::{Audit, AuditError, AuditFigures, Event, Place};
pub use chain::{ChainFault, ChainReport, verify};
pub use file::FileError;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError, TlsFiles, client_config};
pub use tokens::{Denied, Identity, Role, Scope, Tokens, digest, generate};
