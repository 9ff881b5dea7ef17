//! One request: which surface and endpoint it speaks to, and what became of it.

use super::answer::{Answer, fail};
use super::body::Body;
use super::context::Context as LoopState;
use super::fault::Fault;
use super::io::Link;
use super::route::Endpoint;
use super::traffic::Surface;
use super::{admin, batch, configuration, health, keys, kv, v1};
use http::header::TRANSFER_ENCODING;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Answers the requests of one connection.
#[derive(Debug)]
pub(crate) struct Service {
    state: Rc<LoopState>,
    /// Told where requests begin and end; absent on HTTP/2, where they overlap.
    link: Option<Rc<Link>>,
}

impl Service {
    pub(crate) fn new(state: Rc<LoopState>, link: Option<Rc<Link>>) -> Self {
        Self { state, link }
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Exchange;

    fn call(&self, request: Request<Incoming>) -> Exchange {
        let (parts, body) = request.into_parts();
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
                } else {
                    dispatch(&self.state, parts, body)
                }
            }
            None => dispatch(&self.state, parts, body),
        };
        let answer = answer.unwrap_or_else(|fault| Answer::now(fail(surface, &fault)));
        Exchange {
            state: self.state.clone(),
            link: self.link.clone(),
            surface,
            answer,
        }
    }
}

/// One request being answered.
#[derive(Debug)]
pub(crate) struct Exchange {
    state: Rc<LoopState>,
    link: Option<Rc<Link>>,
    surface: Surface,
    answer: Answer,
}

impl Future for Exchange {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let response = ready!(this.answer.poll(&this.state, context));
        this.state.traffic.answered(this.surface, response.status());
        if let Some(link) = &this.link {
            link.request_ended();
        }
        Poll::Ready(Ok(response))
    }
}

type Dispatched = (Surface, Result<Answer, Fault>);

fn dispatch(state: &Rc<LoopState>, parts: Parts, body: Incoming) -> Dispatched {
    let path = parts.uri.path();
    let Some((endpoint, key_start)) = Endpoint::find(path) else {
        // What looks like a request of the old surface is told so in its words.
        let surface = if path.starts_with("/kv") {
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
    let answer = match endpoint {
        Endpoint::V1Key => v1::key(state, parts, body, key_start),
        Endpoint::KvKey => kv::key(state, parts, body, key_start),
        Endpoint::KvKeys => kv::keys(state),
        Endpoint::ClusterRoute => kv::cluster_route(state, parts, key_start),
        Endpoint::V1Keys => keys::page(state, &parts),
        Endpoint::V1Batch => batch::post(state, parts, body),
        Endpoint::Stats => admin::stats(state, &parts),
        Endpoint::Snapshot => admin::snapshot(state, &parts),
        Endpoint::Snapshots => admin::snapshots(state, &parts),
        Endpoint::Config => configuration::config(state, &parts, body),
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
