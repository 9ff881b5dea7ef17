//! One event loop: a thread with its connections, the timers of its partitions and their background slices.

use super::{Gate, Shutdown};
use crate::engine::{Engine, HomeTurn, Lane};
use crate::http;
use crate::observe::loops::LoopWatch;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};

/// What everything on one loop shares. Nothing here leaves the thread.
#[derive(Clone, Debug)]
pub struct LoopContext {
    /// The loop's number, from 0.
    pub index: usize,
    /// The store, as this loop sees it.
    pub lane: Lane,
    /// How busy the loop is.
    pub watch: Arc<LoopWatch>,
    /// The loop's held answers.
    pub gate: Gate,
    /// When to end.
    pub shutdown: Shutdown,
}

/// Turns one loop on the calling thread until the end is asked for and its connections are done.
///
/// `watching` is dropped once signals are looked at.
///
/// # Errors
/// The runtime or the listener could not be set up.
pub(crate) fn turn(
    index: usize,
    engine: &Engine,
    listener: std::net::TcpListener,
    settings: http::Settings,
    shutdown: Shutdown,
    watching: Option<mpsc::Sender<()>>,
) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let listener = TcpListener::from_std(listener)?;
        let lane = engine.lane(index);
        let context = LoopContext {
            index,
            watch: settings
                .loops
                .join(index, tokio::runtime::Handle::current().metrics()),
            gate: Gate::new(lane.clone()),
            lane,
            shutdown,
        };
        tokio::task::spawn_local(context.gate.clone().dispatch());
        let home = tokio::task::spawn_local(run_home(context.lane.clone(), context.watch.clone()));
        if index == 0 {
            tokio::task::spawn_local(watch_signals(
                context.shutdown.clone(),
                context.lane.engine(),
                settings.configuration.clone(),
                watching,
            ));
        }
        http::listener::serve(context, listener, Rc::new(settings)).await;
        home.abort();
        Ok(())
    })
}

/// Background work of the loop's partitions: expiry and snapshot walks, a slice at a time, between requests.
async fn run_home(lane: Lane, watch: Arc<LoopWatch>) {
    loop {
        let begun = Instant::now();
        let turn = lane.home_turn();
        watch.sliced(begun.elapsed());
        match turn {
            HomeTurn::More => tokio::task::yield_now().await,
            HomeTurn::Sleep { until: None } => poll_fn(|context| lane.poll_home(context)).await,
            HomeTurn::Sleep { until: Some(due) } => {
                let wait = Duration::from_millis(due.saturating_sub(lane.now()));
                // Whichever comes first; being woken for nothing is harmless.
                let _ =
                    tokio::time::timeout(wait, poll_fn(|context| lane.poll_home(context))).await;
            }
        }
    }
}

/// SIGTERM and SIGINT end the server; SIGHUP has it read its run-time settings again.
async fn watch_signals(
    shutdown: Shutdown,
    engine: Engine,
    configuration: Option<Arc<dyn http::Configuration>>,
    watching: Option<mpsc::Sender<()>>,
) {
    use tokio::signal::unix::{SignalKind, signal};
    let installed = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ]
    .map(signal);
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = installed else {
        tracing::error!(
            "the signal handlers could not be installed: the server ends only when it is killed"
        );
        return;
    };
    // Told by its end.
    drop(watching);
    loop {
        tokio::select! {
            _ = terminate.recv() => break tracing::info!("SIGTERM: finishing requests in flight"),
            _ = interrupt.recv() => break tracing::info!("SIGINT: finishing requests in flight"),
            _ = hangup.recv() => reload(&engine, configuration.clone()),
        }
    }
    shutdown.request();
}

/// Reads the configuration again, on a thread of its own: a loop must not wait for a file.
fn reload(engine: &Engine, configuration: Option<Arc<dyn http::Configuration>>) {
    let Some(configuration) = configuration else {
        return tracing::info!("SIGHUP: this server was embedded without a configuration");
    };
    let engine = engine.clone();
    let spawned = std::thread::Builder::new()
        .name("reload".to_owned())
        .spawn(move || match configuration.reload(&engine) {
            Ok(changed) => {
                tracing::info!(changed = ?changed, "SIGHUP: run-time settings read again");
            }
            Err(error) => tracing::error!(%error, "SIGHUP: the configuration stays as it was"),
        });
    if let Err(error) = spawned {
        tracing::error!(%error, "SIGHUP: no thread to read the configuration with");
    }
}
