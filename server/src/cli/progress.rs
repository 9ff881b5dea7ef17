//! What a start looks like: a progress bar on a terminal, log lines otherwise, and the one line that says where the
//! server listens.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::notify;
use crate::engine::Progress;
use crate::runtime::server::Observer;

/// Log lines are for reading later: one now and then is enough.
const LINE_EVERY: Duration = Duration::from_secs(2);

const TEMPLATE: &str = "{msg} [{bar:40}] {bytes}/{total_bytes} {percent}%, {eta} left";

/// Shows a person how a start goes.
#[derive(Debug)]
pub(crate) struct Console {
    bar: ProgressBar,
    terminal: bool,
    /// What the address is announced with.
    scheme: &'static str,
    last_line: Mutex<Option<Instant>>,
}

impl Console {
    pub(crate) fn new(scheme: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Console {
            bar,
            terminal: io::stderr().is_terminal(),
            scheme,
            last_line: Mutex::new(None),
        }
    }

    /// The bar, for whoever else writes to the terminal.
    pub(crate) fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    fn line_is_due(&self) -> bool {
        let mut last = self
            .last_line
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| at.elapsed() >= LINE_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

impl Observer for Console {
    fn recovering(&self, progress: &Progress) {
        if self.terminal {
            if self.bar.is_hidden() {
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            self.bar.set_length(progress.total_bytes);
            self.bar.set_position(progress.done_bytes);
            self.bar.set_message(progress.phase);
        } else if self.line_is_due() {
            tracing::info!(
                phase = progress.phase,
                done_bytes = progress.done_bytes,
                total_bytes = progress.total_bytes,
                entries = progress.entries,
                remaining_ms = progress.remaining_ms,
                "recovering"
            );
        }
    }

    fn recovered(&self) {
        self.bar.finish_and_clear();
        notify::ready();
    }

    fn listening(&self, address: SocketAddr) {
        let announce = || {
            let mut output = io::stdout().lock();
            // Without anybody to read it the server runs all the same.
            let _ = writeln!(output, "listening on {}://{address}", self.scheme)
                .and_then(|()| output.flush());
        };
        if self.bar.is_finished() || self.bar.is_hidden() {
            announce();
        } else {
            self.bar.suspend(announce);
        }
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "accepting connections");
    }
}
