//! Whose a request is, and whether it may be made: asked before anything else of it is looked at.
//!
//! Nothing here says whether a key exists: a refusal depends on the request and the token alone.

use super::context::Context as LoopState;
use super::fault::Fault;
use super::route::Endpoint;
use super::target;
use crate::trust::{Audit, Denied, Event, Identity, Place, Role, Scope};
use http::Method;
use http::header::AUTHORIZATION;
use http::request::Parts;
use std::net::SocketAddr;
use std::sync::Arc;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) address: Option<SocketAddr>,
    /// SHA-256 of the certificate that it has proven to be its own.
    pub(crate) certificate: Option<[u8; 32]>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// `None` when nobody has to say who they are.
    identity: Option<Arc<Identity>>,
    peer: Peer,
    endpoint: Endpoint,
    method: Method,
}

impl Caller {
    /// The keys that it may touch; `None`: all.
    pub(crate) fn scope(&self) -> Option<Scope> {
        self.identity.as_ref()?.scope.clone()
    }

    /// Whose the request is, when somebody has to say so.
    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.clone()
    }

    /// Refuses what takes more than the caller has: a role, or a key of its scope.
    pub(crate) fn check(
        &self,
        state: &LoopState,
        role: Role,
        key: Option<&str>,
    ) -> Result<(), Fault> {
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        let reason = if identity.role < role {
            "the role does not allow it"
        } else if let (Some(scope), Some(key)) = (&identity.scope, key)
            && !scope.covers(key)
        {
            "the key is not of the scope"
        } else {
            return Ok(());
        };
        state.settings.access.count_forbidden();
        let mut event = self.event("authorization");
        event.details.push(("message", reason.to_owned()));
        if let Some(key) = key {
            event.details.push(("key", key.to_owned()));
        }
        written(state.settings.access.audit(), event)?;
        Err(Fault::Forbidden)
    }

    fn event(&self, action: &'static str) -> Event {
        Event {
            action,
            success: false,
            who: self.identity.as_ref().map(|identity| identity.name.clone()),
            from: self.peer.address,
            details: vec![
                ("http.request.method", self.method.to_string()),
                ("endpoint", self.endpoint.template().to_owned()),
            ],
        }
    }
}

/// Lets a request in, or says why not. What is audited has its place in the log from here on.
pub(crate) fn admit(
    state: &LoopState,
    endpoint: Endpoint,
    key_start: usize,
    parts: &Parts,
    peer: Peer,
) -> Result<(Caller, Option<Place>), Fault> {
    let access = &state.settings.access;
    let mut caller = Caller {
        identity: None,
        peer,
        endpoint,
        method: parts.method.clone(),
    };
    let Some(role) = endpoint.needs(&parts.method) else {
        return Ok((caller, None));
    };
    if access.is_required() {
        let token = presented(parts);
        let now = state.lane.now();
        match access.identify(token, peer.certificate.as_ref(), now) {
            Ok(identity) => caller.identity = Some(identity),
            Err(denied) => {
                let mut event = caller.event("authentication");
                let reason = match &denied {
                    Denied::Missing => "no token",
                    Denied::Unknown => "an unknown token or certificate",
                    Denied::Expired(name) => {
                        event.who = Some(name.clone());
                        "an expired token or certificate"
                    }
                };
                event.details.push(("message", reason.to_owned()));
                written(access.audit(), event)?;
                return Err(Fault::Unauthorized {
                    presented: denied != Denied::Missing,
                });
            }
        }
        let scope = caller.scope();
        if role == Role::Admin && scope.is_some() {
            // Administration is about the whole store, so a scope has no part in it.
            caller.check(state, role, None)?;
            caller.check(state, role, Some(""))?;
        } else if scope.is_some() && endpoint.has_key() {
            // A key that cannot be decoded is refused for that, whoever asks.
            let key = target::decode(&parts.uri.path()[key_start..]);
            caller.check(state, role, key.as_deref().ok())?;
        } else {
            caller.check(state, role, None)?;
        }
    }
    let place = match access.audit() {
        Some(audit) if endpoint.is_audited(&parts.method) => {
            let place = audit.reserve(caller.event("admin"));
            Some(place.ok_or(Fault::AuditBacklog)?)
        }
        _ => None,
    };
    Ok((caller, place))
}

/// Tells of a connection that did not begin, because the certificate that its client presented is not accepted. There is
/// nothing left to refuse, so while the audit log is behind such connections are only counted.
#[cfg(feature = "tls")]
pub(crate) fn certificate_refused(state: &LoopState, peer: SocketAddr) {
    let access = &state.settings.access;
    access.count_denied();
    let message = "a certificate that no authority signed for clients";
    let event = Event {
        action: "authentication",
        from: Some(peer),
        details: vec![("message", message.to_owned())],
        ..Event::default()
    };
    // The place is filled when it is dropped.
    drop(access.audit().map(|audit| audit.reserve(event)));
}

/// Writes an event down. While the log cannot take it, what it tells of does not happen.
fn written(audit: Option<&Audit>, event: Event) -> Result<(), Fault> {
    match audit {
        None => Ok(()),
        Some(audit) => audit.reserve(event).map(drop).ok_or(Fault::AuditBacklog),
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750). Two of them are none that is known.
fn presented(parts: &Parts) -> Option<&[u8]> {
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return Some(b"");
    }
    let (scheme, token) = value.split_at(
        value
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(value.len()),
    );
    Some(if scheme.eq_ignore_ascii_case(b"bearer") {
        token.trim_ascii()
    } else {
        b""
    })
}
