//! Backups out of a running store, as fast as the client takes them.

use super::admin::refuse_while_recovering;
use super::answer::{Answer, respond};
use super::body::{Body, Cut, Source};
use super::context::Context as LoopState;
use super::fault::Fault;
use super::query::{self, Unknown};
use crate::engine::Backup;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use std::rc::Rc;
use std::task::{Context, Poll};

/// The media type of a backup.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.inflightkv.backup";

/// `GET /v1/admin/backup`
pub(crate) fn get(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    query::parse(parts.uri.query(), &[], Unknown::Refuse)?;
    refuse_while_recovering(state)?;
    let backup = state
        .lane
        .engine()
        .begin_backup()
        .map_err(Fault::Snapshot)?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(
        CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"inflightkv.backup\""),
    );
    let body = Body::Stream(Box::new(Download(backup)));
    Ok(Answer::now(respond(StatusCode::OK, headers, body)))
}

/// A backup given up in the middle cuts the answer off, so that nobody takes it for whole.
#[derive(Debug)]
struct Download(Backup);

impl Source for Download {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        self.0
            .poll_piece(context)
            .map(|piece| piece.map(|piece| piece.map_err(|error| Cut(error.to_string()))))
    }
}
