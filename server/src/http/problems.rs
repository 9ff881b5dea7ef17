//! Every fault as a problem document: the part of `v1` that is a table.

use super::answer::respond;
use super::body::Body;
use super::configuration::SettingError;
use super::etag;
use super::fault::Fault;
use super::media::PATCH_TYPES;
use super::problem::{Member, Problem};
use crate::engine::{
    CheckpointError, PatchError, Readiness, Refusal, RestoreError, RoleError, SwitchError,
};
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use inflightkv_validation::{JsonErrorKind, Rule, Violation};
use std::io::ErrorKind;

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// The answer to a fault.
pub(crate) fn failure(fault: &Fault) -> Response<Body> {
    let mut headers = HeaderMap::new();
    match fault {
        Fault::MethodNotAllowed { allow } => {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        Fault::MediaType { patch: true, .. } => {
            headers.insert(ACCEPT_PATCH, HeaderValue::from_static(PATCH_TYPES));
        }
        Fault::ContentCoding { .. } => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        _ => {}
    }
    if let Some(challenge) = fault.challenge() {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(seconds) = fault.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
    }
    if fault.closes() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let problem = problem(fault);
    if problem.status == StatusCode::NOT_MODIFIED {
        return respond(problem.status, headers, Body::Empty);
    }
    let mut response = problem.into_response(headers);
    mark_refusal(fault, &mut response);
    response
}

/// Goes with an answer that refuses a request, so that it is counted for what it was refused for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused(pub(crate) &'static str);

/// Has an answer to `fault` counted, if it is a refusal.
pub(crate) fn mark_refusal(fault: &Fault, response: &mut Response<Body>) {
    if let Some(code) = refusal(fault) {
        response.extensions_mut().insert(Refused(code));
    }
}

/// The answer to a fault as bytes on a connection that ends with it.
pub(crate) fn last_words(fault: &Fault) -> Vec<u8> {
    problem(fault).to_http1(fault.retry_after())
}

/// The status, the code and the members of every fault on this surface.
pub(crate) fn problem(fault: &Fault) -> Problem {
    let (status, code) = classify(fault);
    Problem {
        status,
        code,
        detail: fault.to_string(),
        members: members(fault),
    }
}

fn classify(fault: &Fault) -> (StatusCode, &'static str) {
    match fault {
        Fault::UnknownPath => (StatusCode::NOT_FOUND, "UNKNOWN_PATH"),
        Fault::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
        Fault::KeyEncoding(_) => (StatusCode::BAD_REQUEST, "INVALID_KEY"),
        Fault::Key(violation) => match violation.rule {
            Rule::KeyReserved => (StatusCode::BAD_REQUEST, "RESERVED_KEY"),
            Rule::KeyTooLong => (StatusCode::URI_TOO_LONG, "KEY_TOO_LONG"),
            _ => (StatusCode::BAD_REQUEST, "INVALID_KEY"),
        },
        Fault::QueryEncoding | Fault::Parameter { .. } => {
            (StatusCode::BAD_REQUEST, "INVALID_PARAMETER")
        }
        Fault::UnknownParameters { .. } => (StatusCode::BAD_REQUEST, "UNKNOWN_PARAMETER"),
        Fault::Header { .. } => (StatusCode::BAD_REQUEST, "INVALID_HEADER"),
        Fault::AmbiguousLength => (StatusCode::BAD_REQUEST, "AMBIGUOUS_LENGTH"),
        Fault::TooLarge { .. } | Fault::TooManyOperations { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE")
        }
        Fault::TargetTooLong { .. } => (StatusCode::URI_TOO_LONG, "TARGET_TOO_LONG"),
        Fault::HeaderTimeout { .. } | Fault::BodyTimeout { .. } => {
            (StatusCode::REQUEST_TIMEOUT, "TIMEOUT")
        }
        Fault::BodyBroken => (StatusCode::BAD_REQUEST, "INVALID_BODY"),
        Fault::EmptyBody => (StatusCode::BAD_REQUEST, "INVALID_JSON"),
        Fault::Json(error) => match error.kind() {
            JsonErrorKind::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
            _ => (StatusCode::BAD_REQUEST, "INVALID_JSON"),
        },
        Fault::MediaType { .. } | Fault::ContentCoding { .. } => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE")
        }
        Fault::DigestMismatch { .. } => (StatusCode::BAD_REQUEST, "DIGEST_MISMATCH"),
        Fault::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
        Fault::Condition { .. } => (StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED"),
        Fault::Patch(error) => match error {
            PatchError::Damaged => (StatusCode::INTERNAL_SERVER_ERROR, "VALUE_DAMAGED"),
            PatchError::Malformed { .. } | PatchError::Unreadable { .. } => {
                (StatusCode::BAD_REQUEST, "INVALID_PATCH")
            }
            PatchError::TooDeep { .. } => (StatusCode::BAD_REQUEST, "INVALID_JSON"),
            PatchError::TooLarge { .. } | PatchError::TooCostly { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE")
            }
            PatchError::TestFailed { .. } => (StatusCode::CONFLICT, "TEST_FAILED"),
            _ => (StatusCode::CONFLICT, "CONFLICT"),
        },
        Fault::NotJson { .. } => (StatusCode::CONFLICT, "CONFLICT"),
        Fault::NotServing(readiness) => (StatusCode::SERVICE_UNAVAILABLE, not_serving(readiness)),
        Fault::Refused(refusal) => match refusal {
            Refusal::NotServing(readiness) => {
                (StatusCode::SERVICE_UNAVAILABLE, not_serving(readiness))
            }
            Refusal::ReadOnly { .. } => (StatusCode::SERVICE_UNAVAILABLE, "READ_ONLY"),
            Refusal::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE"),
            Refusal::Backlog => (StatusCode::SERVICE_UNAVAILABLE, "BACKLOG"),
        },
        Fault::MemoryFull { .. } => (StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE"),
        Fault::PersistenceOff => (StatusCode::CONFLICT, "NOT_DURABLE"),
        Fault::DurabilityFailed(cause) | Fault::ReadNotDurable(cause) => {
            let status = if cause.disk_full {
                StatusCode::INSUFFICIENT_STORAGE
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            (status, "DURABILITY_FAILED")
        }
        Fault::Cursor => (StatusCode::BAD_REQUEST, "INVALID_CURSOR"),
        Fault::Operation { .. } => (StatusCode::BAD_REQUEST, "INVALID_OPERATION"),
        Fault::Batch { .. } => (StatusCode::BAD_REQUEST, "INVALID_BATCH"),
        Fault::Invalid { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_FAILED"),
        Fault::Contended => (StatusCode::SERVICE_UNAVAILABLE, "CONTENDED"),
        Fault::Snapshot(error) => match error {
            CheckpointError::PersistenceOff => (StatusCode::CONFLICT, "NOT_DURABLE"),
            CheckpointError::TooManyBackups { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "TOO_MANY_BACKUPS")
            }
            CheckpointError::NotReady { readiness } => {
                (StatusCode::SERVICE_UNAVAILABLE, not_serving(readiness))
            }
            CheckpointError::Aborted { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "SNAPSHOT_ABORTED")
            }
            CheckpointError::Damaged => (StatusCode::INTERNAL_SERVER_ERROR, "VALUE_DAMAGED"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "SNAPSHOT_FAILED"),
        },
        Fault::LogGone { .. } => (StatusCode::GONE, "LOG_GONE"),
        Fault::TooManyWatches { .. } => (StatusCode::SERVICE_UNAVAILABLE, "TOO_MANY_WATCHES"),
        Fault::WatchAhead { .. } => (StatusCode::BAD_REQUEST, "SEQUENCE_AHEAD"),
        Fault::TooManyStreams { .. } => (StatusCode::SERVICE_UNAVAILABLE, "TOO_MANY_STREAMS"),
        Fault::Role(error) => match error {
            RoleError::NotNow(_) => (StatusCode::CONFLICT, "WRONG_ROLE"),
            RoleError::NotHandedOver { .. } => (StatusCode::CONFLICT, "NOT_HANDED_OVER"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "DISK_FAILED"),
        },
        Fault::Setting(SettingError::NeedsRestart { .. }) => {
            (StatusCode::BAD_REQUEST, "NEEDS_RESTART")
        }
        Fault::Setting(_) => (StatusCode::BAD_REQUEST, "INVALID_SETTING"),
        Fault::Unauthorized { .. } => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
        Fault::Forbidden => (StatusCode::FORBIDDEN, "FORBIDDEN"),
        Fault::AuditBacklog => (StatusCode::SERVICE_UNAVAILABLE, "AUDIT_BACKLOG"),
        Fault::Damaged => (StatusCode::INTERNAL_SERVER_ERROR, "VALUE_DAMAGED"),
        Fault::Restore(error) => match error {
            RestoreError::Backup(_) | RestoreError::Entry { .. } | RestoreError::Stopped => {
                (StatusCode::BAD_REQUEST, "INVALID_BACKUP")
            }
            RestoreError::Invalid { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_FAILED"),
            RestoreError::Running => (StatusCode::CONFLICT, "RESTORE_RUNNING"),
            RestoreError::Staging(error) if error.kind() == ErrorKind::StorageFull => {
                (StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE")
            }
            RestoreError::MemoryFull { .. } => {
                (StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE")
            }
            RestoreError::NotSwapped(_) => (StatusCode::SERVICE_UNAVAILABLE, "RESTORE_ABORTED"),
            RestoreError::NotDurable { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "DURABILITY_FAILED")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "RESTORE_FAILED"),
        },
        Fault::Switch(error) => match error {
            SwitchError::NoDirectory => (StatusCode::CONFLICT, "NO_DATA_DIR"),
            SwitchError::Running | SwitchError::Restoring => {
                (StatusCode::CONFLICT, "SWITCH_RUNNING")
            }
            SwitchError::Follows => (StatusCode::CONFLICT, "WRONG_ROLE"),
            SwitchError::Foreign => (StatusCode::CONFLICT, "FOREIGN_DATA_DIR"),
            SwitchError::TooOften { .. } => (StatusCode::CONFLICT, "TOO_MANY_SWITCHES"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "SWITCH_FAILED"),
        },
        Fault::Internal { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"),
        Fault::TooManyConnections | Fault::Crowded => {
            (StatusCode::SERVICE_UNAVAILABLE, "TOO_MANY_CONNECTIONS")
        }
        Fault::TooFast(_) => (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS"),
        Fault::Overloaded | Fault::UploadsExhausted => {
            (StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED")
        }
    }
}

/// The code of a request that was refused for the state of the server or for what its sender had taken already; `None` for one
/// that was answered, if only with what was wrong about it.
fn refusal(fault: &Fault) -> Option<&'static str> {
    let (status, code) = classify(fault);
    let is_refusal = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::URI_TOO_LONG
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::INSUFFICIENT_STORAGE
    );
    is_refusal.then_some(code)
}

fn not_serving(readiness: &Readiness) -> &'static str {
    match readiness {
        Readiness::ReadOnly { .. } => "READ_ONLY",
        _ => "NOT_READY",
    }
}

fn members(fault: &Fault) -> Vec<(&'static str, Member)> {
    match fault {
        Fault::Condition {
            current: Some(current),
            ..
        } => {
            vec![
                ("currentVersion", Member::Number(current.version)),
                ("currentEtag", Member::Text(etag::text(current.sequence))),
            ]
        }
        Fault::TooLarge { max, .. }
        | Fault::TooManyOperations { max }
        | Fault::TargetTooLong { max } => {
            vec![("limit", Member::Number(*max as u64))]
        }
        Fault::Json(error) => {
            let mut members = vec![("offset", Member::Number(error.offset() as u64))];
            if let JsonErrorKind::TooDeep { max } = error.kind() {
                members.push(("limit", Member::Number((*max).into())));
            }
            members
        }
        Fault::Key(violation) => broken(violation),
        Fault::Restore(RestoreError::Invalid { key, violation }) => {
            let mut members = broken(violation);
            members.push(("key", Member::Text(key.clone())));
            members
        }
        Fault::Invalid { violation, index } => {
            let mut members = broken(violation);
            if let Some(index) = index {
                members.push(("index", Member::Number(*index as u64)));
            }
            members
        }
        Fault::MemoryFull { limit } => vec![("limit", Member::Number(*limit))],
        Fault::Parameter { name, .. } => vec![("parameter", Member::Text((*name).to_owned()))],
        Fault::Setting(
            SettingError::NeedsRestart { name } | SettingError::Invalid { name, .. },
        ) => vec![("setting", Member::Text((*name).to_owned()))],
        Fault::Setting(SettingError::Unknown { name, .. }) => {
            vec![("setting", Member::Text(name.clone()))]
        }
        Fault::UnknownParameters { names, .. } => {
            vec![("parameters", Member::Texts(names.clone()))]
        }
        Fault::MethodNotAllowed { allow } => {
            vec![(
                "allow",
                Member::Texts(allow.split(", ").map(str::to_owned).collect()),
            )]
        }
        Fault::LogGone { oldest } => vec![("oldest", Member::Number(*oldest))],
        Fault::WatchAhead { last, .. } => vec![("lastSequence", Member::Number(*last))],
        Fault::TooManyStreams { max } | Fault::TooManyWatches { max } => {
            vec![("limit", Member::Number(*max as u64))]
        }
        Fault::Operation { index, .. } => vec![("index", Member::Number(*index as u64))],
        Fault::Patch(PatchError::TooLarge { max, .. }) => {
            vec![("limit", Member::Number(*max as u64))]
        }
        Fault::Patch(
            PatchError::TestFailed { index, path } | PatchError::PathMissing { index, path },
        ) => {
            vec![
                ("operation", Member::Number(*index as u64)),
                ("pointer", Member::Text(path.clone())),
            ]
        }
        _ => Vec::new(),
    }
}

/// What is broken, how, and what would keep it.
fn broken(violation: &Violation) -> Vec<(&'static str, Member)> {
    let mut members = vec![("rule", Member::Text(violation.rule.name().to_owned()))];
    if let Some(setting) = violation.rule.setting() {
        members.push(("setting", Member::Text(setting.to_owned())));
    }
    if let Some(pointer) = &violation.pointer {
        members.push(("pointer", Member::Text(pointer.clone())));
    }
    members.push(("found", Member::Text(violation.found.to_string())));
    members.push(("allowed", Member::Text(violation.allowed.to_string())));
    members
}
