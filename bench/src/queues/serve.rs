//! The queues behind HTTP, on the same kind of event loops as the bare server.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use inflightkv_validation::{Limits, minify};

use crate::bare;
use crate::cli::Queues;
use crate::error::Error;
use crate::protocol::http::NATIVE_PATH;
use crate::queues::Store;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Serves until the process is ended.
pub(crate) fn run(options: &Queues) -> Result<(), Error> {
    let store = Store::start()?;
    let threads = options
        .threads
        .map_or_else(crate::environment::cores, usize::from);
    bare::serve_with(options.listen, threads, true, move || {
        let store = store.clone();
        move |request| respond(request, store.clone())
    })
}

async fn respond(
    request: Request<Incoming>,
    store: Store,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let Some(key) = request
        .uri()
        .path()
        .strip_prefix(NATIVE_PATH)
        .map(str::to_owned)
    else {
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    match *request.method() {
        Method::GET => Ok(match store.get(key).await {
            Some(value) => {
                let mut response = Response::new(Full::new(value));
                response.headers_mut().insert(header::CONTENT_TYPE, JSON);
                response
            }
            None => empty(StatusCode::NOT_FOUND),
        }),
        Method::PUT => {
            let body = request.into_body().collect().await?.to_bytes();
            let mut text = Vec::with_capacity(body.len());
            if minify(&body, &Limits::default(), &mut text).is_err() {
                return Ok(empty(StatusCode::BAD_REQUEST));
            }
            Ok(match store.put(key, text.into()).await {
                Some(_) => empty(StatusCode::NO_CONTENT),
                None => empty(StatusCode::INTERNAL_SERVER_ERROR),
            })
        }
        _ => Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
