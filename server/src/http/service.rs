//! One request: which surface and endpoint it speaks to, and what became of it.

use super::answer::{Answer, fail};
use super::body::Body;
use super::context::Context as LoopState;
use super::fault::Fault;
use super::guard::{self, Peer};
use super::guests::Seat;
use super::io::Link;
use super::problems::Refused;
use super::route::Endpoint;
use super::traffic::{Place, Surface};
use super::{
    admin, backup, batch, configuration, follow, health, hot, keys, kv, metrics, persistence,
    restore, ui, v1, watch,
};
use crate::observe::trace::{TRACEPARENT, TraceContext};
use crate::observe::{Record, Stages};
use crate::trust::Place as Reserved;
use http::header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Request, Response, Uri};
use hyper::body::{Body as _, Incoming};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

/// The longest body that is read past without a word when nobody wants it.
const SKIPPED_BYTES_MAX: u64 = 8 * 1024;

/// Answers the requests of one connection.
#[derive(Debug)]
pub(crate) struct Service {
    state: Rc<LoopState>,
    /// Told where requests begin and end; absent on HTTP/2, where they overlap.
    link: Option<Rc<Link>>,
    peer: Peer,
    /// What the connection is held to, when there is anything.
    seat: Option<Rc<Seat>>,
}

impl Service {
    pub(crate) fn new(
        state: Rc<LoopState>,
        link: Option<Rc<Link>>,
        peer: Peer,
        seat: Option<Rc<Seat>>,
    ) -> Self {
        Self {
            state,
            link,
            peer,
            seat,
        }
    }

    /// Whether a request to `endpoint` that begins `now` may be served now.
    fn admit(&self, endpoint: Option<Endpoint>, now: Instant) -> Result<(), Fault> {
        if endpoint.is_some_and(Endpoint::comes_first) {
            return Ok(());
        }
        if let Some(seat) = &self.seat {
            seat.asks(now).map_err(Fault::TooFast)?;
        }
        if self.state.overload.sheds(now) {
            return Err(Fault::Overloaded);
        }
        Ok(())
    }

    fn dispatch(
        &self,
        parts: Parts,
        body: Incoming,
        found: Option<(Endpoint, usize)>,
        now: Instant,
        place: &mut Option<Reserved>,
    ) -> Dispatched {
        let endpoint = found.map(|(endpoint, _)| endpoint);
        match self.admit(endpoint, now) {
            Ok(()) => dispatch(&self.state, parts, body, found, self.peer, place),
            Err(fault) => {
                let surface = endpoint.map_or(Surface::Other, Endpoint::surface);
                (surface, Err(fault))
            }
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Exchange;

    fn call(&self, request: Request<Incoming>) -> Exchange {
        // On HTTP/2 requests are tasks of their own, so the turn's clock is not theirs.
        let begun = match &self.link {
            Some(_) => self.state.now.get(),
            None => Instant::now(),
        };
        let (parts, body) = request.into_parts();
        // hyper reads past a body that nobody wanted only as far as it is there already. If more is to come, the
        // connection ends after the answer, and the client is better told so.
        let unread = self.link.is_some()
            && !body.is_end_stream()
            && body
                .size_hint()
                .exact()
                .is_none_or(|len| len > SKIPPED_BYTES_MAX);
        let found = Endpoint::find(parts.uri.path());
        if let Some((Endpoint::V1Key | Endpoint::KvKey, start)) = found {
            self.state.note_key(&parts.uri.path()[start..]);
        }
        let watch = Watch::new(
            &self.state,
            self.link.as_deref(),
            &parts,
            &body,
            found,
            begun,
        );
        let mut place = None;
        let (surface, answer) = match &self.link {
            Some(link) => {
                link.request_began();
                // hyper drops a Content-Length beside a Transfer-Encoding before anybody sees it, so the bytes as they
                // came are asked. Where they are no longer known hyper's reading stands, which is RFC 9112's: chunked
                // wins, and the connection ends after the answer.
                if !body.is_end_stream()
                    && parts.headers.contains_key(TRANSFER_ENCODING)
                    && has_two_lengths(link, &parts)
                {
                    (Surface::Other, Err(Fault::AmbiguousLength))
                } else if parts.headers.get_all(HOST).iter().nth(1).is_some() {
                    // RFC 9112, section 3.2: two of them are two opinions about whom the request is for.
                    let fault = Fault::Header {
                        name: "Host",
                        reason: "is there more than once",
                    };
                    (Surface::Other, Err(fault))
                } else {
                    self.dispatch(parts, body, found, begun, &mut place)
                }
            }
            None => self.dispatch(parts, body, found, begun, &mut place),
        };
        let answer = answer.unwrap_or_else(|fault| Answer::now(fail(surface, &fault)));
        Exchange {
            state: self.state.clone(),
            link: self.link.clone(),
            closes: unread && !answer.waits_for_body(),
            answer,
            watch,
            place,
        }
    }
}

/// One request being answered.
#[derive(Debug)]
pub(crate) struct Exchange {
    state: Rc<LoopState>,
    link: Option<Rc<Link>>,
    /// The connection ends after the answer.
    closes: bool,
    answer: Answer,
    watch: Watch,
    /// In the audit log, of what is audited.
    place: Option<Reserved>,
}

impl Future for Exchange {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.watch.resume(&this.state, this.link.is_some());
        let Poll::Ready(mut response) = this.answer.poll(&this.state, context) else {
            this.watch.pause(this.answer.waits_for_body());
            return Poll::Pending;
        };
        if this.closes {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        if let Some(trace) = &this.watch.trace {
            response
                .headers_mut()
                .insert(TRACEPARENT, trace.traceparent());
        }
        if let Some(place) = this.place.take() {
            let status = response.status();
            let code = status.as_str().to_owned();
            place.fill(status.is_success(), [("http.response.status_code", code)]);
        }
        let record = this.watch.end(&this.state, &response);
        match (&this.link, record) {
            (Some(link), record) => {
                link.request_ended();
                if let Some(record) = record {
                    link.tell_when_sent(record);
                }
            }
            (None, Some(record)) => this.state.tell(&record),
            (None, None) => {}
        }
        Poll::Ready(Ok(response))
    }
}

/// Where the time of one request goes. The clock is read when it begins and ends, and when it has to wait.
#[derive(Debug)]
struct Watch {
    place: Place,
    /// What a line about it needs, when there may be one.
    told: Option<(Uri, usize)>,
    sampled: bool,
    trace: Option<Box<TraceContext>>,
    bytes_in: u64,
    begun: Instant,
    stages: Stages,
    /// Since when it waits, and whether for its body.
    paused: Option<(Instant, bool)>,
}

impl Watch {
    fn new(
        state: &LoopState,
        link: Option<&Link>,
        parts: &Parts,
        body: &Incoming,
        found: Option<(Endpoint, usize)>,
        begun: Instant,
    ) -> Self {
        let endpoint = found.map(|(endpoint, _)| endpoint);
        let is_a_probe = endpoint.is_some_and(|endpoint| endpoint.surface() == Surface::Other);
        let mut watch = Self {
            place: Place::of(endpoint, &parts.method),
            told: None,
            sampled: false,
            trace: state.trace(&parts.headers, is_a_probe),
            bytes_in: body.size_hint().exact().unwrap_or(0),
            begun,
            stages: Stages::default(),
            paused: None,
        };
        let mut may_be_told = watch.trace.is_some();
        if let Some(log) = &state.settings.request_log {
            watch.sampled = log.draws(|| state.random());
            may_be_told |= watch.sampled || log.slow_after.is_some();
        }
        if may_be_told {
            let key_start = found.map_or(usize::MAX, |(_, start)| start);
            watch.told = Some((parts.uri.clone(), key_start));
        }
        if let Some(arrived) = link.and_then(Link::arrived) {
            watch.stages.queue = begun.saturating_duration_since(arrived);
        }
        watch
    }

    fn pause(&mut self, for_body: bool) {
        self.paused = Some((Instant::now(), for_body));
    }

    fn resume(&mut self, state: &LoopState, in_turn: bool) {
        if let Some((since, for_body)) = self.paused.take() {
            let now = if in_turn {
                state.now.get()
            } else {
                Instant::now()
            };
            let stage = match for_body {
                true => &mut self.stages.receive,
                false => &mut self.stages.wait,
            };
            *stage += now.saturating_duration_since(since);
        }
    }

    /// Counts the answer, and says what is to be told of it.
    fn end(&mut self, state: &LoopState, response: &Response<Body>) -> Option<Record> {
        let now = Instant::now();
        state.now.set(now);
        let took = now.saturating_duration_since(self.begun);
        let bytes_out = response.body().size_hint().exact().unwrap_or(0);
        state.traffic.answered(
            self.place,
            response.status(),
            took,
            self.bytes_in,
            bytes_out,
        );
        if let Some(Refused(code)) = response.extensions().get() {
            state.traffic.refused_with(code);
        }
        let (target, key_start) = self.told.take()?;
        let log = state.settings.request_log.as_ref();
        let paused = self.stages.receive + self.stages.wait;
        self.stages.execute = took.saturating_sub(paused);
        let is_slow = log.is_some_and(|log| log.is_slow(self.place, self.stages.total()));
        if !self.sampled && !is_slow && self.trace.is_none() {
            return None;
        }
        Some(Record {
            place: self.place,
            target,
            key_start,
            status: response.status(),
            bytes_in: self.bytes_in,
            bytes_out,
            stages: self.stages,
            write: None,
            peer: None,
            sampled: self.sampled,
            trace: self.trace.take(),
        })
    }
}

type Dispatched = (Surface, Result<Answer, Fault>);

fn dispatch(
    state: &Rc<LoopState>,
    parts: Parts,
    body: Incoming,
    found: Option<(Endpoint, usize)>,
    peer: Peer,
    place: &mut Option<Reserved>,
) -> Dispatched {
    let Some((endpoint, key_start)) = found else {
        // What looks like a request of the old surface is told so in its words.
        let surface = if parts.uri.path().starts_with("/kv") {
            Surface::Kv
        } else {
            Surface::Other
        };
        return (surface, Err(Fault::UnknownPath));
    };
    let surface = endpoint.surface();
    if !endpoint.allows(&parts.method) {
        return (
            surface,
            Err(Fault::MethodNotAllowed {
                allow: endpoint.allow(),
            }),
        );
    }
    let caller = match guard::admit(state, endpoint, key_start, &parts, peer) {
        Ok((caller, reserved)) => {
            *place = reserved;
            caller
        }
        Err(fault) => return (surface, Err(fault)),
    };
    if endpoint.needs_the_store()
        && let Err(refused) = state.lane.check_serving()
    {
        // Before anything is said about the request, and before its body is read.
        return (surface, Err(Fault::NotServing(refused.readiness)));
    }
    let answer = match endpoint {
        Endpoint::V1Key => v1::key(state, parts, body, key_start),
        Endpoint::KvKey => kv::key(state, parts, body, key_start),
        Endpoint::KvKeys => kv::keys(state, caller.scope()),
        Endpoint::ClusterRoute => kv::cluster_route(state, parts, key_start),
        Endpoint::V1Keys => keys::page(state, &parts, caller.scope()),
        Endpoint::V1Batch => batch::post(state, parts, body, caller),
        Endpoint::Watch => watch::get(state, &parts, &caller),
        Endpoint::Stats => admin::stats(state, &parts),
        Endpoint::Metrics => Ok(metrics::get(state, &parts)),
        Endpoint::Ui => Ok(ui::page()),
        Endpoint::Snapshot => admin::snapshot(state, &parts),
        Endpoint::Snapshots => admin::snapshots(state, &parts),
        Endpoint::HotKeys => hot::hot_keys(state, &parts),
        Endpoint::BigKeys => hot::big_keys(state, &parts),
        Endpoint::Wal => follow::wal(state, &parts),
        Endpoint::Promote => follow::promote(state, &parts),
        Endpoint::Demote => follow::demote(state, &parts),
        Endpoint::Config => configuration::config(state, &parts, body),
        Endpoint::Backup => backup::get(state, &parts),
        Endpoint::Evict => admin::evict(state, &parts),
        Endpoint::Restore => restore::post(state, &parts, body),
        Endpoint::Verify => admin::verify(state, &parts),
        Endpoint::Persistence => persistence::post(state, &parts),
        Endpoint::Actuator => Ok(health::actuator(state)),
        Endpoint::Live => Ok(health::live()),
        Endpoint::Ready => Ok(health::ready(state)),
        Endpoint::Startup => Ok(health::startup(state)),
        Endpoint::OpenApi => Ok(health::openapi()),
    };
    (surface, answer)
}

/// Whether the head of this request, as it came, has both fields that tell its body's length.
fn has_two_lengths(link: &Link, parts: &Parts) -> bool {
    let recent = link.recent_head();
    let target = parts
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    let mut lines = recent.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let ours = |line: &[u8]| {
        let mut words = line
            .split(|&byte| byte == b' ')
            .filter(|word| !word.is_empty());
        words.next() == Some(parts.method.as_str().as_bytes())
            && words
                .next()
                .is_some_and(|word| word.ends_with(target.as_bytes()))
            && words.next().is_some_and(|word| word.starts_with(b"HTTP/"))
    };
    if !lines.by_ref().any(ours) {
        return false;
    }
    lines.take_while(|line| !line.is_empty()).any(|line| {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        name.eq_ignore_ascii_case(b"content-length")
    })
}
