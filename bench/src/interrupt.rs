//! Ctrl-C and termination: children are ended, and whatever runs returns in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;
use crate::process;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
const SLICE: Duration = Duration::from_millis(20);

/// From here on a signal no longer ends the process at once.
pub(crate) fn install() -> Result<(), Error> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("starting the handler of signals"))?;
    let (mut interrupt, mut terminate) = runtime
        .block_on(async {
            let interrupt = signal(SignalKind::interrupt())?;
            Ok((interrupt, signal(SignalKind::terminate())?))
        })
        .map_err(Error::io("registering for signals"))?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            });
            INTERRUPTED.store(true, Ordering::SeqCst);
            // Whoever waits for a child's answer is freed by its end.
            process::kill_all();
        })
        .map_err(Error::io("starting the handler of signals"))?;
    Ok(())
}

/// An error once a signal has come.
pub(crate) fn check() -> Result<(), Error> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        Err(Error::Interrupted)
    } else {
        Ok(())
    }
}

/// Sleeps, and stops at a signal.
pub(crate) fn sleep_until(deadline: Instant) -> Result<(), Error> {
    loop {
        check()?;
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return Ok(()),
            rest => thread::sleep(rest.min(SLICE)),
        }
    }
}
