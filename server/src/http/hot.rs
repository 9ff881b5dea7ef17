//! `GET /v1/admin/hotkeys` and `/v1/admin/bigkeys`: which keys are asked for most, and which are largest.

use super::admin::{on_a_thread, refuse_while_recovering, shown};
use super::answer::{Answer, fail};
use super::context::Context as LoopState;
use super::fault::Fault;
use super::query::{self, Unknown};
use super::traffic::Surface;
use crate::engine::{Lane, Scan, ScanError};
use crate::observe::hot::ONE_IN;
use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::rc::Rc;

const LIMIT: usize = 20;
const LIMIT_MAX: usize = 100;
/// Places looked at under one hold of a partition's lock: a few microseconds.
const SLICE: usize = 64;

fn limit(parts: &Parts) -> Result<usize, Fault> {
    let parameters = query::parse(parts.uri.query(), &["limit"], Unknown::Refuse)?;
    Ok(parameters.limit.unwrap_or(LIMIT).min(LIMIT_MAX))
}

/// The keys asked for most, out of the requests that were looked at.
pub(crate) fn hot_keys(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    let (keys, looked_at) = state.settings.loops.hottest(limit(parts)?);
    let keys: Vec<Value> = keys
        .into_iter()
        .map(|hot| {
            json!({
                "key": hot.key,
                "count": hot.count,
                "error": hot.error,
                "share": hot.count as f64 / looked_at.max(1) as f64,
            })
        })
        .collect();
    let document = json!({ "oneIn": ONE_IN, "lookedAt": looked_at, "keys": keys });
    Ok(Answer::now(shown(StatusCode::OK, &document)))
}

/// The largest keys. Every key is looked at, on a thread of its own, a few at a time.
pub(crate) fn big_keys(state: &Rc<LoopState>, parts: &Parts) -> Result<Answer, Fault> {
    let limit = limit(parts)?;
    refuse_while_recovering(state)?;
    let lane = state.lane.clone();
    let find = move || biggest(&lane, limit);
    Ok(on_a_thread("big-keys", find, |found| match found {
        Ok((keys, looked_at)) => {
            let keys: Vec<Value> = keys
                .into_iter()
                .map(|(bytes, key)| json!({ "key": key, "bytes": bytes }))
                .collect();
            let document = json!({ "lookedAt": looked_at, "keys": keys });
            shown(StatusCode::OK, &document)
        }
        Err(ScanError::NotServing(error)) => fail(Surface::V1, &Fault::NotServing(error.readiness)),
        Err(error) => fail(
            Surface::V1,
            &Fault::Internal {
                reason: error.to_string(),
            },
        ),
    }))
}

/// The `limit` largest keys by bytes of key and value, largest first, and how many there were.
fn biggest(lane: &Lane, limit: usize) -> Result<(Vec<(usize, String)>, u64), ScanError> {
    // The smallest of the largest on top, to be pushed out.
    let mut kept: BinaryHeap<Reverse<(usize, String)>> = BinaryHeap::with_capacity(limit + 1);
    let mut looked_at = 0;
    let mut from = None;
    loop {
        let scan = Scan {
            prefix: "",
            from,
            examine_max: SLICE,
            values: false,
        };
        from = lane.scan(&scan, &mut |row| {
            looked_at += 1;
            let bytes = row.key.len() + row.value_len;
            let full = kept.len() == limit;
            if !full
                || kept
                    .peek()
                    .is_some_and(|Reverse((least, _))| bytes > *least)
            {
                if full {
                    kept.pop();
                }
                kept.push(Reverse((bytes, row.key.to_owned())));
            }
            ControlFlow::Continue(())
        })?;
        if from.is_none() {
            let mut keys: Vec<(usize, String)> = kept.into_iter().map(|Reverse(key)| key).collect();
            keys.sort_unstable_by(|a, b| b.cmp(a));
            return Ok((keys, looked_at));
        }
        std::thread::yield_now();
    }
}
