//! Everything that can be wrong with a request or refuse it, as data: `kv` and `v1` give it a status and a code.

use super::configuration::SettingError;
use super::guests::TooFast;
use super::ttl::TtlError;
use crate::engine::{
    CheckpointError, Current, FailedCondition, PatchError, Readiness, Refusal, RestoreError,
    RoleError, SwitchError, in_full,
};
use crate::runtime::NotDurable;
use inflightkv_validation::{JsonError, Violation};
use std::borrow::Cow;

/// Why a request is not answered as it hoped. `Display` is the sentence that both surfaces show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("there is nothing at this path")]
    UnknownPath,
    #[error("this path knows {allow}")]
    MethodNotAllowed { allow: &'static str },
    #[error("{0}")]
    KeyEncoding(KeyEncoding),
    #[error("{0}")]
    Key(Violation),
    #[error("the query is not valid percent-encoded UTF-8")]
    QueryEncoding,
    #[error("the parameter `{name}` {reason}")]
    Parameter {
        name: &'static str,
        reason: Cow<'static, str>,
    },
    #[error("unknown query parameter{}: {}; known here: {}", if names.len() == 1 { "" } else { "s" }, names.join(", "),
        if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    UnknownParameters {
        names: Vec<String>,
        known: &'static [&'static str],
    },
    #[error("the header {name} {reason}")]
    Header {
        name: &'static str,
        reason: &'static str,
    },
    #[error("both Content-Length and Transfer-Encoding were sent; one message has one length")]
    AmbiguousLength,
    #[error("the {what} is larger than the limit of {max} bytes")]
    TooLarge { what: &'static str, max: usize },
    #[error("the batch has more than the limit of {max} operations")]
    TooManyOperations { max: usize },
    #[error("the request target is longer than the limit of {max} bytes")]
    TargetTooLong { max: usize },
    #[error("the header block was not complete within {seconds} seconds")]
    HeaderTimeout { seconds: u64 },
    #[error("the body was not complete within {seconds} seconds")]
    BodyTimeout { seconds: u64 },
    #[error("the body could not be read to its end")]
    BodyBroken,
    #[error("the body is empty, a JSON value is expected")]
    EmptyBody,
    #[error("the body is not acceptable JSON: {0}")]
    Json(JsonError),
    #[error("the media type {found} is not accepted here; accepted: {accepted}")]
    MediaType {
        found: String,
        accepted: &'static str,
        patch: bool,
    },
    #[error("the content coding {found} is not accepted; send the content as it is")]
    ContentCoding { found: String },
    #[error("the {algorithm} digest of the body differs from the one in Content-Digest")]
    DigestMismatch { algorithm: &'static str },
    #[error("there is no such key")]
    NotFound,
    #[error("{}", describe_condition(*failed, *current))]
    Condition {
        failed: FailedCondition,
        current: Option<Current>,
    },
    #[error("{0}")]
    Patch(PatchError),
    #[error("the stored value is not JSON but {media_type}; it can be read at /v1/kv")]
    NotJson { media_type: String },
    #[error("{}", describe_readiness(.0))]
    NotServing(Readiness),
    #[error("{}", describe_refusal(.0))]
    Refused(Refusal),
    #[error(
        "the data takes all of the {limit} bytes that it may, and nothing can be evicted for it now"
    )]
    MemoryFull { limit: u64 },
    #[error("persistence is off, so no change can be made durable")]
    PersistenceOff,
    #[error("the change was applied in memory and is visible, but could not be made durable: {}", .0.reason)]
    DurabilityFailed(NotDurable),
    #[error("what was read is not durable and may not become so: {}", .0.reason)]
    ReadNotDurable(NotDurable),
    #[error("the cursor is not one that this server gave out since it started")]
    Cursor,
    #[error("operation {index}: {reason}")]
    Operation { index: usize, reason: String },
    #[error("{}{violation}, by the rule `{}`{}", operation(*index), violation.rule.name(), setting(violation))]
    Invalid {
        violation: Box<Violation>,
        /// The operation of a batch.
        index: Option<usize>,
    },
    #[error("the key changes too fast for the result of a patch to be held against the rules")]
    Contended,
    #[error("the batch is malformed: {reason}")]
    Batch { reason: String },
    #[error("{0}")]
    Snapshot(CheckpointError),
    #[error(
        "the log does not reach back so far: its oldest record is {oldest}; take a backup, and go on from its end"
    )]
    LogGone { oldest: u64 },
    #[error("there are {max} watches already, and no more are given")]
    TooManyWatches { max: usize },
    #[error(
        "the last change has the sequence {last}, so the changes from {from} on are none of this store; its next has {next}",
        next = last + 1
    )]
    WatchAhead { from: u64, last: u64 },
    #[error("there are {max} streams of the log already, and no more are given")]
    TooManyStreams { max: usize },
    #[error("{0}")]
    Role(RoleError),
    #[error("{}", in_full(.0))]
    Restore(RestoreError),
    #[error("{0}")]
    Switch(SwitchError),
    #[error("{0}")]
    Setting(SettingError),
    #[error("{}", if *presented { "the token or certificate is unknown, or has expired" } else { "this takes a token: Authorization: Bearer TOKEN" })]
    Unauthorized { presented: bool },
    #[error("this token or certificate does not allow it")]
    Forbidden,
    #[error("the audit log is behind, and nothing is done that it could not tell of")]
    AuditBacklog,
    #[error("the value does not have the checksum that it was stored with, so it is not served")]
    Damaged,
    #[error("{reason}")]
    Internal { reason: String },
    #[error("the server has as many connections as it takes")]
    TooManyConnections,
    #[error("there are as many connections from this address as it may have")]
    Crowded,
    #[error("more requests in a second than {} may send", match .0 {
        TooFast::Connection => "one connection",
        TooFast::Address => "one address",
    })]
    TooFast(TooFast),
    #[error("the server is behind with its work")]
    Overloaded,
    #[error("too many bodies are arriving at the same time")]
    UploadsExhausted,
}

/// What is wrong with a key before any rule about keys is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyEncoding {
    #[error("the key has a `%` that is not followed by two hexadecimal digits")]
    Percent,
    #[error("the key is not UTF-8 after percent-decoding")]
    NotUtf8,
}

impl Fault {
    pub(crate) fn ttl(error: TtlError) -> Self {
        Self::Parameter {
            name: "ttl",
            reason: error.to_string().into(),
        }
    }

    /// Whether the connection has to end after the answer: what follows on it cannot be trusted to be a request.
    pub(crate) fn closes(&self) -> bool {
        matches!(
            self,
            Self::AmbiguousLength
                | Self::TooLarge { .. }
                | Self::TargetTooLong { .. }
                | Self::HeaderTimeout { .. }
                | Self::BodyTimeout { .. }
                | Self::BodyBroken
                | Self::Restore(_)
                | Self::TooManyConnections
                | Self::Crowded
                | Self::UploadsExhausted
        )
    }

    /// What a client is told to prove itself with (RFC 6750).
    pub(crate) fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Unauthorized { presented: false } => Some(r#"Bearer realm="inflightkv""#),
            Self::Unauthorized { presented: true } => {
                Some(r#"Bearer realm="inflightkv", error="invalid_token""#)
            }
            _ => None,
        }
    }

    /// Seconds after which to try again, when that can help.
    pub(crate) fn retry_after(&self) -> Option<&'static str> {
        match self {
            Self::NotServing(_)
            | Self::Refused(_)
            | Self::TooManyConnections
            | Self::TooManyStreams { .. }
            | Self::TooManyWatches { .. }
            | Self::Contended
            | Self::Restore(RestoreError::Running)
            | Self::Snapshot(CheckpointError::TooManyBackups { .. })
            | Self::Crowded
            | Self::TooFast(_)
            | Self::Overloaded
            | Self::UploadsExhausted => Some("1"),
            Self::DurabilityFailed(cause) | Self::ReadNotDurable(cause) if cause.disk_full => {
                Some("1")
            }
            _ => None,
        }
    }
}

fn operation(index: Option<usize>) -> String {
    index.map_or_else(String::new, |index| format!("operation {index}: "))
}

fn setting(violation: &Violation) -> String {
    let setting = violation.rule.setting();
    setting.map_or_else(String::new, |setting| format!(" ({setting})"))
}

fn describe_condition(failed: FailedCondition, current: Option<Current>) -> String {
    match (failed, current) {
        (FailedCondition::Version, None) => {
            "the key does not exist, ifVersion names a version of it".to_owned()
        }
        (FailedCondition::Version, Some(current)) => {
            format!(
                "ifVersion does not hold, the current version is {}",
                current.version
            )
        }
        (FailedCondition::NoneMatch, _) => {
            "If-None-Match does not hold, the key exists as named".to_owned()
        }
        (_, None) => "If-Match does not hold, the key does not exist".to_owned(),
        (_, Some(_)) => "If-Match does not hold, the value has changed".to_owned(),
    }
}

pub(crate) fn describe_readiness(readiness: &Readiness) -> String {
    match readiness {
        Readiness::Recovering(progress) => {
            format!(
                "the store is recovering ({}), {} of {} bytes",
                progress.phase, progress.done_bytes, progress.total_bytes
            )
        }
        Readiness::Ready => "the store is ready".to_owned(),
        Readiness::ReadOnly { reason } => format!("the store takes no writes: {reason}"),
        Readiness::DiskFull => "the disk is full".to_owned(),
        Readiness::Stopping => "the server is stopping".to_owned(),
        Readiness::Failed { reason } => format!("the store could not start: {reason}"),
    }
}

fn describe_refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NotServing(readiness) => describe_readiness(readiness),
        Refusal::ReadOnly { reason } => format!("the store takes no writes: {reason}"),
        Refusal::DiskFull => "the disk is full".to_owned(),
        Refusal::Backlog => "the log is behind by more than its bound".to_owned(),
    }
}
