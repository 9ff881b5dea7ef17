//! The accept loop of one event loop, and the life of a connection: protocol, deadlines, graceful end.

use super::context::Context as LoopState;
use super::fault::Fault;
#[cfg(feature = "tls")]
use super::guard;
use super::guests::Seat;
use super::io::{FirstBytes, Io, Link, Phase};
use super::service::Service;
use super::settings::Settings;
use super::v1;
use super::wire::Wire;
use crate::runtime::LoopContext;
use hyper::rt::Read;
use hyper::server::conn::{http1, http2};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};

/// After an accept that failed for want of something, most likely file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Refused connections that are told so at the same time; past that they are only closed.
const REFUSALS_MAX: usize = 64;

/// Accepts and serves connections until the end is asked for, then lets requests in flight finish.
pub async fn serve(context: LoopContext, listener: TcpListener, settings: Rc<Settings>) {
    let state = LoopState::new(context, settings);
    let shutdown = state.shutdown.clone();
    let mut end = pin!(shutdown.requested());
    let refusals = Rc::new(Cell::new(0));
    let probing = state.clone();
    let probe = tokio::task::spawn_local(async move { probing.overload.probe().await });
    loop {
        tokio::select! {
            biased;
            () = &mut end => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => accept(&state, stream, peer, &refusals),
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    probe.abort();
    state.stop();
    let drained = async {
        while state.connections() > 0 {
            state.drained.notified().await;
        }
    };
    if tokio::time::timeout(state.settings.shutdown_grace, drained)
        .await
        .is_err()
    {
        tracing::warn!(
            connections = state.connections(),
            "connections were cut off, their requests took too long"
        );
    }
}

/// Errors of one connection that was given up before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

fn accept(state: &Rc<LoopState>, stream: TcpStream, peer: SocketAddr, refusals: &Rc<Cell<usize>>) {
    state.traffic.accepted();
    let settings = &state.settings;
    if !settings.traffic.enter(settings.connections_max) {
        return refuse(state, stream, peer, refusals, Fault::TooManyConnections);
    }
    let Ok(seat) = settings.guests.seat(peer.ip(), &settings.fairness) else {
        settings.traffic.leave();
        return refuse(state, stream, peer, refusals, Fault::Crowded);
    };
    let seat = seat.map(Rc::new);
    // Answers are whole when they are written; holding back small ones only adds delay. It fails only on a socket
    // that is gone, which the first read finds out as well.
    let _ = stream.set_nodelay(true);
    #[cfg(feature = "tls")]
    if let Some(tls) = &state.settings.tls {
        let (config, state) = (tls.current(), state.clone());
        tokio::task::spawn_local(async move {
            if let Some(stream) = shake_hands(&state, config, stream, peer).await {
                talk(&state, Wire::Tls(Box::new(stream)), peer, seat).await;
            }
        });
        return;
    }
    let state = state.clone();
    tokio::task::spawn_local(async move { talk(&state, Wire::Plain(stream), peer, seat).await });
}

/// Has a place among the open connections for as long as it lasts.
async fn talk(state: &Rc<LoopState>, wire: Wire, peer: SocketAddr, seat: Option<Rc<Seat>>) {
    let link = Link::new(state.next_link_id(), wire, Some(peer), state.clone());
    state.enter(&link);
    let guard = Place(link);
    converse(&guard.0, seat).await;
}

/// The beginning of TLS. `None` when it fails, takes longer than a request's head may, or the loop ends.
#[cfg(feature = "tls")]
async fn shake_hands(
    state: &Rc<LoopState>,
    config: Arc<rustls::ServerConfig>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    /// Gives the connection's place back unless it goes on.
    struct Taken<'a>(&'a LoopState, bool);
    impl Drop for Taken<'_> {
        fn drop(&mut self) {
            if !self.1 {
                self.0.settings.traffic.leave();
            }
        }
    }
    let mut taken = Taken(state, false);
    let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
    let shaken = tokio::select! {
        biased;
        () = state.shutdown.requested() => return None,
        shaken = tokio::time::timeout(state.settings.header_timeout, handshake) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => {
            taken.1 = true;
            Some(stream)
        }
        Ok(Err(error)) => {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
            if let Some(rustls::Error::InvalidCertificate(_)) = cause {
                guard::certificate_refused(state, peer);
            }
            tracing::debug!(%error, "a connection did not get through the beginning of TLS");
            None
        }
        Err(_) => {
            tracing::debug!("a connection took too long for the beginning of TLS");
            None
        }
    }
}

/// Says why a connection is not taken, to some at a time; the others are only closed.
fn refuse(
    state: &Rc<LoopState>,
    stream: TcpStream,
    peer: SocketAddr,
    refusals: &Rc<Cell<usize>>,
    fault: Fault,
) {
    state.traffic.refused();
    if refusals.get() >= REFUSALS_MAX {
        return;
    }
    refusals.set(refusals.get() + 1);
    let (state, refusals) = (state.clone(), refusals.clone());
    tokio::task::spawn_local(async move {
        let link = Link::new(0, Wire::Plain(stream), Some(peer), state);
        link.push_last(&v1::last_words(&fault));
        link.linger().await;
        refusals.set(refusals.get() - 1);
    });
}

/// A place among the open connections; given back also when the task is dropped.
struct Place(Rc<Link>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state.leave(&self.0);
    }
}

async fn converse(link: &Rc<Link>, seat: Option<Rc<Seat>>) {
    let state = link.state.clone();
    let ending = match link.first_bytes().await {
        None => Ending::Silent,
        Some(FirstBytes::TooSlow) => Ending::HeadTooSlow,
        Some(FirstBytes::Http1) => {
            let service = Service::new(state.clone(), Some(link.clone()), link.peer(), seat);
            drive(
                link,
                state.http1.serve_connection(Io(link.clone()), service),
            )
            .await
        }
        Some(FirstBytes::Http2) => {
            let service = Service::new(state.clone(), None, link.peer(), seat);
            drive(
                link,
                state.http2.serve_connection(Io(link.clone()), service),
            )
            .await
        }
    };
    let settings = &state.settings;
    match ending {
        Ending::Silent => return,
        Ending::Finished => {}
        Ending::HeadTooSlow => {
            let fault = Fault::HeaderTimeout {
                seconds: settings.header_timeout.as_secs(),
            };
            link.push_last(&v1::last_words(&fault));
        }
        Ending::TargetTooLong => {
            link.push_last(&v1::last_words(&Fault::TargetTooLong {
                max: settings.header_bytes_max,
            }));
        }
    }
    link.linger().await;
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// hyper is done with it, well or not, and has said what there was to say.
    Finished,
    HeadTooSlow,
    TargetTooLong,
    /// Nothing was asked, or nothing is taken.
    Silent,
}

/// hyper's connections of both protocols.
trait Connection: Future<Output = hyper::Result<()>> {
    /// Ends after the requests in flight.
    fn finish(self: Pin<&mut Self>);
}

impl<I: Read + hyper::rt::Write + Unpin + 'static> Connection for http1::Connection<I, Service> {
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I: Read + hyper::rt::Write + Unpin + 'static> Connection
    for http2::Connection<I, Service, super::timer::LocalExecutor>
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

async fn drive(link: &Rc<Link>, connection: impl Connection) -> Ending {
    let mut connection = pin!(connection);
    let mut deadline = Deadline::default();
    let mut finishing = false;
    poll_fn(|context| {
        let begun = std::time::Instant::now();
        link.state.now.set(begun);
        link.remember(context.waker());
        if link.state.stopping.get() && !finishing {
            finishing = true;
            connection.as_mut().finish();
        }
        let progress = connection.as_mut().poll(context);
        let sent = link.end_turn(context);
        let worked = link.state.now.get().saturating_duration_since(begun);
        link.state.watch.turned(worked);
        if sent.is_err() {
            return Poll::Ready(Ending::Silent);
        }
        match progress {
            Poll::Ready(_) if link.target_is_too_long() => Poll::Ready(Ending::TargetTooLong),
            Poll::Ready(_) => Poll::Ready(Ending::Finished),
            Poll::Pending => deadline.poll(link, context),
        }
    })
    .await
}

/// One timer for everything a client can be slow at. In the usual case it is touched once in `idle_timeout`: a
/// request only changes a number that the timer looks at when it goes off.
#[derive(Default)]
struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    waits_for: Option<WaitsFor>,
}

/// What the client has to do in time, and a number that tells one such wait from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    /// Ask something. Not a strict deadline: it is checked when the timer goes off.
    Request(u32),
    /// Nothing: it is our turn.
    Nothing(u32),
    Head(u32),
    Reading(u32),
}

impl Deadline {
    fn poll(&mut self, link: &Link, context: &mut Context<'_>) -> Poll<Ending> {
        let settings = &link.state.settings;
        let (now, patience) = match link.phase() {
            _ if link.is_blocked() => (WaitsFor::Reading(link.sent()), settings.write_timeout),
            Phase::Head => (WaitsFor::Head(link.requests()), settings.header_timeout),
            Phase::Idle => (WaitsFor::Request(link.requests()), settings.idle_timeout),
            Phase::Busy => (WaitsFor::Nothing(link.requests()), settings.idle_timeout),
        };
        let over = self.sleep.as_ref().is_some_and(|sleep| sleep.is_elapsed());
        let lax = |wait| matches!(wait, WaitsFor::Request(_) | WaitsFor::Nothing(_));
        match self.waits_for {
            Some(before) if before == now && over => match now {
                WaitsFor::Request(_) | WaitsFor::Reading(_) => return Poll::Ready(Ending::Silent),
                WaitsFor::Head(_) => return Poll::Ready(Ending::HeadTooSlow),
                WaitsFor::Nothing(_) => {}
            },
            Some(before) if !over && (before == now || (lax(before) && lax(now))) => {
                return Poll::Pending;
            }
            _ => {}
        }
        self.waits_for = Some(now);
        let until = Instant::now() + patience;
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                sleep.as_mut().reset(until);
                sleep
            }
            empty => empty.insert(Box::pin(tokio::time::sleep_until(until))),
        };
        // For the waker; ready at once only with a patience of nothing.
        if sleep.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
