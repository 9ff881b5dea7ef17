//! Where log lines go: to standard error, pretty on a terminal and as JSON otherwise, without tearing a progress bar.

use std::io::{self, IsTerminal, Write};

use indicatif::ProgressBar;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, LogLevel};

/// Installs the subscriber for the life of the process. Lines are printed above `bar` while it is shown.
pub(crate) fn install(format: Option<LogFormat>, level: LogLevel, bar: &ProgressBar) {
    let terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal {
        LogFormat::Pretty
    } else {
        LogFormat::Json
    });
    let builder = tracing_subscriber::fmt()
        .with_max_level(filter(level))
        .with_writer(Above(bar.clone()));
    // Embedders and tests may have installed one of their own, which then gets the events.
    match format {
        LogFormat::Pretty => {
            let colours =
                terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let _ = builder.with_ansi(colours).with_target(false).try_init();
        }
        LogFormat::Json => {
            let _ = builder
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .try_init();
        }
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Writes whole lines above a bar.
struct Above(ProgressBar);

struct Lines<'a>(&'a ProgressBar);

impl<'a> MakeWriter<'a> for Above {
    type Writer = Lines<'a>;

    fn make_writer(&'a self) -> Lines<'a> {
        Lines(&self.0)
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The subscriber hands over a whole line in one call.
        let write = || io::stderr().lock().write_all(bytes);
        if self.0.is_finished() || self.0.is_hidden() {
            write()?;
        } else {
            self.0.suspend(write)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
