//! The process's loops from first to last: listen, recover, serve, drain, sync.

use super::{Shutdown, event_loop};
use crate::engine::{self, Engine, OpenError, Progress, Readiness, RecoverError};
use crate::http;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How many connections may wait to be accepted, a loop.
const BACKLOG: i32 = 1024;
/// A recovery that is over within this time is over before the server is announced, so that whoever waits for the
/// announcement rarely meets a store that is not ready.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(500);
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Everything a server is started with.
#[derive(Debug)]
pub struct ServerOptions {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The store; its `lanes` is the number of event loops.
    pub engine: engine::Options,
    /// The HTTP surfaces and their limits.
    pub http: http::Settings,
    /// What is done with the store before anything is loaded.
    pub prepare: Option<Prepare>,
}

/// Something to be done with a store that was opened and not recovered yet.
pub struct Prepare(Box<Preparation>);

type Preparation = dyn FnOnce(&Engine) -> io::Result<()> + Send;

impl Prepare {
    /// Runs `prepare` once, before the store is recovered.
    pub fn new(prepare: impl FnOnce(&Engine) -> io::Result<()> + Send + 'static) -> Self {
        Self(Box::new(prepare))
    }
}

impl fmt::Debug for Prepare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepare").finish_non_exhaustive()
    }
}

/// Told of what a person at a terminal wants to see. Called from any thread, seldom.
pub trait Observer: Send + Sync {
    /// About ten times a second while recovery runs.
    fn recovering(&self, progress: &Progress);
    /// Once, when recovery ended well.
    fn recovered(&self);
    /// Once, when connections are accepted; may come before [`recovered`](Self::recovered) when that takes long.
    fn listening(&self, address: SocketAddr);
}

/// Why a server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is taken, not ours, or not allowed.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What is on disk could not be loaded.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A thread or a runtime could not be set up.
    #[error("an event loop could not be started: {0}")]
    Loop(io::Error),
    /// The log could not be completed at the end.
    #[error("the last changes could not be made durable: {0}")]
    Close(String),
}

/// Runs a server until SIGTERM or SIGINT has been served.
///
/// # Errors
/// See [`ServeError`]; in every case the process should end with a failure.
pub fn run(options: ServerOptions, observer: &Arc<dyn Observer>) -> Result<(), ServeError> {
    let ServerOptions {
        listen,
        engine,
        http,
        prepare,
    } = options;
    let loops = engine.lanes;
    // The data directory is locked before the port is taken: a second server on it says so whatever its address.
    let engine = Engine::open(engine)?;
    let (address, listeners) = bind(listen, loops)?;
    let http = http.listening_on(address);
    let shutdown = Shutdown::default();
    if let Some(Prepare(prepare)) = prepare {
        prepare(&engine).map_err(ServeError::Loop)?;
    }

    let threads = spawn_loops(&engine, listeners, &http, &shutdown)?;
    let recovered = recover(&engine, address, &shutdown, observer);
    if recovered.is_err() {
        shutdown.request();
    }
    // From here on the loops serve; they end when a signal asks for it.
    for thread in threads {
        match thread.join() {
            Ok(ended) => ended.map_err(ServeError::Loop)?,
            Err(_) => return Err(ServeError::Loop(io::Error::other("the thread panicked"))),
        }
    }
    recovered?;
    engine
        .close()
        .map_err(|error| ServeError::Close(error.to_string()))
}

/// Loads what is on disk beside the running loops, which answer that they are not ready, and announces the server.
fn recover(
    engine: &Engine,
    address: SocketAddr,
    shutdown: &Shutdown,
    observer: &Arc<dyn Observer>,
) -> Result<(), ServeError> {
    let started = Instant::now();
    let (sender, receiver) = mpsc::channel();
    let store = engine.clone();
    thread::Builder::new()
        .name("recovery".to_owned())
        .spawn(move || {
            let result = store.recover().and_then(|()| store.start_threads());
            // Nobody listens only if the server is ending already.
            let _ = sender.send(result);
        })
        .map_err(ServeError::Loop)?;
    let mut announced = false;
    let result = loop {
        match receiver.recv_timeout(PROGRESS_EVERY) {
            Ok(result) => break result,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(ServeError::Loop(io::Error::other(
                    "the recovery thread panicked",
                )));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Readiness::Recovering(progress) = engine.readiness() {
            observer.recovering(&progress);
        }
        if shutdown.is_requested() {
            engine.stop_recovery();
        }
        if !announced && started.elapsed() >= ANNOUNCE_AFTER {
            observer.listening(address);
            announced = true;
        }
    };
    match result {
        Ok(()) => {
            observer.recovered();
            if !announced {
                observer.listening(address);
            }
            Ok(())
        }
        // Asked to end while loading: nothing was changed, nothing is wrong.
        Err(RecoverError::Stopped) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn spawn_loops(
    engine: &Engine,
    listeners: Vec<std::net::TcpListener>,
    http: &http::Settings,
    shutdown: &Shutdown,
) -> Result<Vec<JoinHandle<io::Result<()>>>, ServeError> {
    let mut threads = Vec::with_capacity(listeners.len());
    let (watching, watched) = mpsc::channel();
    for (index, listener) in listeners.into_iter().enumerate() {
        // Only the first loop looks at signals.
        let watching = (index == 0).then(|| watching.clone());
        let (engine, http, end) = (engine.clone(), http.clone(), shutdown.clone());
        let spawned = thread::Builder::new()
            .name(format!("loop-{index}"))
            .spawn(move || {
                let ended = event_loop::turn(index, &engine, listener, http, end.clone(), watching);
                // A loop that cannot go on takes the server with it: half of the connections would hang.
                end.request();
                ended
            });
        match spawned {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                shutdown.request();
                return Err(ServeError::Loop(error));
            }
        }
    }
    drop(watching);
    // Whoever reads the announcement may send a signal, and one that is not looked at yet would kill the process.
    let _ = watched.recv();
    Ok(threads)
}

/// One listener a loop on the same address; the kernel spreads connections over them.
fn bind(
    listen: SocketAddr,
    loops: usize,
) -> Result<(SocketAddr, Vec<std::net::TcpListener>), ServeError> {
    let failed = |source| ServeError::Listen {
        address: listen,
        source,
    };
    let mut address = listen;
    let mut listeners = Vec::with_capacity(loops);
    for _ in 0..loops {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )
        .map_err(failed)?;
        socket.set_reuse_address(true).map_err(failed)?;
        if listeners.is_empty() {
            probe(address).map_err(failed)?;
        }
        socket.set_reuse_port(true).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        socket.bind(&address.into()).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        let listener = std::net::TcpListener::from(socket);
        // Port 0 was asked for: the first listener's port is the others'.
        address = listener.local_addr().map_err(failed)?;
        listeners.push(listener);
    }
    Ok((address, listeners))
}

/// Fails if somebody else listens on `address`: two servers of one user may share a port by `SO_REUSEPORT`, and each
/// would then get half of the other's connections.
fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}
