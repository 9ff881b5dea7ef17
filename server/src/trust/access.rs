//! Whether requests have to say whose they are, and the tokens that are known; replaced while the server runs.

use super::audit::Audit;
use super::tokens::{Denied, Identity, Tokens};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the surfaces ask about everybody.
#[derive(Debug, Default)]
pub struct Access {
    /// Whether there are tokens at all: without, everybody may do everything, and a request looks at this only.
    required: AtomicBool,
    tokens: RwLock<Arc<Tokens>>,
    audit: Option<Audit>,
    denied: AtomicU64,
    forbidden: AtomicU64,
}

impl Access {
    /// Access with an audit log, or without.
    #[must_use]
    pub fn new(audit: Option<Audit>) -> Self {
        Self {
            audit,
            ..Self::default()
        }
    }

    /// Knows these from now on; with `None` everybody may do everything.
    pub fn set_tokens(&self, tokens: Option<Tokens>) {
        let required = tokens.is_some();
        let mut current = self.tokens.write();
        *current = Arc::new(tokens.unwrap_or_default());
        self.required.store(required, Ordering::Release);
    }

    /// Whether requests have to say whose they are.
    pub fn is_required(&self) -> bool {
        self.required.load(Ordering::Acquire)
    }

    /// The audit log, if there is one.
    pub fn audit(&self) -> Option<&Audit> {
        self.audit.as_ref()
    }

    /// Whose a request is: its token's, or, without one, its connection's certificate's.
    ///
    /// # Errors
    /// Why it is nobody's.
    pub fn identify(
        &self,
        token: Option<&[u8]>,
        certificate: Option<&[u8; 32]>,
        now_ms: u64,
    ) -> Result<Arc<Identity>, Denied> {
        let tokens = Arc::clone(&self.tokens.read());
        let found = match (token, certificate) {
            (Some(token), _) => tokens.of_token(token, now_ms),
            (None, Some(hash)) => tokens.of_certificate(hash, now_ms),
            (None, None) => Err(Denied::Missing),
        };
        if found.is_err() {
            self.count_denied();
        }
        found
    }

    /// Whether somebody who was let in would be let in again: what goes on for long asks from time to time.
    pub fn still_knows(&self, identity: &Identity, now_ms: u64) -> bool {
        !self.is_required() || self.tokens.read().has(identity, now_ms)
    }

    /// Counts somebody who is not known.
    pub fn count_denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that its sender may not make.
    pub fn count_forbidden(&self) {
        self.forbidden.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests of nobody known, and requests that their senders may not make.
    pub fn refusals(&self) -> (u64, u64) {
        (
            self.denied.load(Ordering::Relaxed),
            self.forbidden.load(Ordering::Relaxed),
        )
    }
}
