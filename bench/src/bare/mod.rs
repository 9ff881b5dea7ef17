//! The bare server: hyper alone, answering a constant, on one event loop per core.

mod io;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};

use crate::bare::io::HyperIo;
use crate::cli::Bare;
use crate::error::Error;

const BACKLOG: i32 = 1024;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Serves until the process is ended.
pub(crate) fn run(options: &Bare) -> Result<(), Error> {
    let threads = options
        .threads
        .map_or_else(crate::environment::cores, usize::from);
    let answer = constant(options.bytes);
    serve_with(options.listen, threads, options.pipeline_flush, move || {
        let answer = answer.clone();
        move |request| respond(request, answer.clone())
    })
}

/// Serves on as many event loops until the process is ended; `handler` is called once for each of them.
pub(crate) fn serve_with<M, H, A>(
    address: SocketAddr,
    threads: usize,
    pipeline_flush: bool,
    handler: M,
) -> Result<(), Error>
where
    M: Fn() -> H,
    H: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Result<Response<Full<Bytes>>, hyper::Error>> + 'static,
{
    let first = listener(address)?;
    let address = first
        .local_addr()
        .map_err(Error::io("reading the address listened on"))?;
    // The further listeners share the port that the first one was given.
    let mut listeners = vec![first];
    for _ in 1..threads {
        listeners.push(listener(address)?);
    }
    let loops: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let handler = handler();
            thread::Builder::new()
                .name("loop".to_owned())
                .spawn(move || serve(listener, &handler, pipeline_flush))
                .map_err(Error::io("starting an event loop"))
        })
        .collect::<Result<_, _>>()?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{address}")
        .map_err(Error::io("writing to standard output"))?;
    for event_loop in loops {
        event_loop
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    }
    Ok(())
}

/// A JSON string of exactly `bytes` bytes.
fn constant(bytes: usize) -> Bytes {
    let mut text = vec![b'x'; bytes.max(2)];
    let last = text.len() - 1;
    text[0] = b'"';
    text[last] = b'"';
    text.into()
}

/// A listener whose port other listeners of this process share: the kernel deals the connections out.
fn listener(address: SocketAddr) -> Result<StdListener, Error> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(StdListener::from(socket))
    };
    open().map_err(Error::io(format!("listening on {address}")))
}

fn serve<H, A>(listener: StdListener, handler: &H, pipeline_flush: bool) -> Result<(), Error>
where
    H: Fn(Request<Incoming>) -> A + Clone + 'static,
    A: Future<Output = Result<Response<Full<Bytes>>, hyper::Error>> + 'static,
{
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(Error::io("starting an event loop"))?;
    runtime.block_on(async {
        let listener =
            TcpListener::from_std(listener).map_err(Error::io("registering the listener"))?;
        let mut http = http1::Builder::new();
        http.pipeline_flush(pipeline_flush);
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, or a client that left again: the next may fare better.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            // Without it an answer could wait for the client's acknowledgement of the one before.
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            let service = service_fn(handler.clone());
            let connection = http.serve_connection(HyperIo::new(stream), service);
            tokio::task::spawn_local(async {
                // A client that breaks off is no failure of this server; there is nobody to tell.
                let _ = connection.await;
            });
        }
    })
}

async fn respond(
    request: Request<Incoming>,
    answer: Bytes,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    match *request.method() {
        Method::GET => {
            let mut response = Response::new(Full::new(answer));
            response.headers_mut().insert(header::CONTENT_TYPE, JSON);
            Ok(response)
        }
        Method::PUT => {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                frame?;
            }
            Ok(empty(StatusCode::NO_CONTENT))
        }
        _ => Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constant_is_json_of_the_size_asked_for() {
        for bytes in [2, 100, 4096] {
            let constant = constant(bytes);
            assert_eq!(constant.len(), bytes);
            assert!(serde_json::from_slice::<serde_json::Value>(&constant).is_ok());
        }
    }
}
