//! Log lines of the program: from events to a [`Sink`], which writes them to standard error without tearing a progress
//! bar and without anybody waiting.
//!
//! An event that comes in floods is told a few times a second, and then once with the number of those that were not.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use indicatif::ProgressBar;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, LogLevel};
use crate::observe::{Format, Level, Line, Name, Sink, Value};

/// Lines of one event within [`WINDOW`]; those after are counted.
const FLOOD: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// The log of the process. Dropping it waits until what was logged is written.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) sink: Sink,
    pub(crate) format: Format,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.sink.flush();
    }
}

/// Starts the log for the life of the process. Lines are printed above `bar` while it is shown.
///
/// # Errors
/// The system has no more threads.
pub(crate) fn install(
    format: Option<LogFormat>,
    level: LogLevel,
    bar: &ProgressBar,
) -> io::Result<Log> {
    let terminal = io::stderr().is_terminal();
    let format = match format {
        Some(LogFormat::Json) => Format::Json,
        Some(LogFormat::Ecs) => Format::Ecs,
        None if !terminal => Format::Json,
        Some(LogFormat::Pretty) | None => Format::Pretty {
            colours: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        },
    };
    let bar = bar.clone();
    let sink = Sink::start(move |lines| {
        let write = || io::stderr().lock().write_all(lines);
        // Nobody is left to tell when standard error is gone.
        let _ = if bar.is_finished() || bar.is_hidden() {
            write()
        } else {
            bar.suspend(write)
        };
    })?;
    let events = Events {
        sink: sink.clone(),
        format,
        floods: Mutex::default(),
    };
    // Embedders and tests may have installed a subscriber of their own, which then gets the events.
    let _ = tracing_subscriber::registry()
        .with(events.with_filter(filter(level)))
        .try_init();
    Ok(Log { sink, format })
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

/// Makes lines of events.
struct Events {
    sink: Sink,
    format: Format,
    floods: Mutex<HashMap<Identifier, Flood>>,
}

/// One event's lines since a moment.
struct Flood {
    since: Instant,
    told: u32,
    suppressed: u64,
}

impl Events {
    /// Whether an event is told, and how many before it were not.
    fn admit(&self, metadata: &Metadata<'_>, now: Instant) -> Option<u64> {
        let mut floods = self.floods.lock().unwrap_or_else(PoisonError::into_inner);
        let flood = floods.entry(metadata.callsite()).or_insert(Flood {
            since: now,
            told: 0,
            suppressed: 0,
        });
        let mut suppressed = 0;
        if now.saturating_duration_since(flood.since) >= WINDOW {
            suppressed = std::mem::take(&mut flood.suppressed);
            flood.since = now;
            flood.told = 0;
        }
        if flood.told == FLOOD {
            flood.suppressed += 1;
            return None;
        }
        flood.told += 1;
        Some(suppressed)
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(suppressed) = self.admit(event.metadata(), Instant::now()) else {
            return;
        };
        let mut message = Message(String::new());
        event.record(&mut message);
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::TRACE => Level::Trace,
        };
        let mut line = Line::new(self.format, SystemTime::now(), level, "server", &message.0);
        event.record(&mut Fields(&mut line));
        if suppressed > 0 {
            line.field(Name::Own("suppressed"), Value::Count(suppressed));
        }
        self.sink.push(&line.end());
    }
}

const MESSAGE: &str = "message";

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.0 = format!("{value:?}");
        }
    }
}

/// Adds an event's fields to its line.
struct Fields<'a>(&'a mut Line);

fn name(field: &Field) -> Option<Name<'static>> {
    match field.name() {
        MESSAGE => None,
        "error" => Some(Name::Known("error", "error.message")),
        name => Some(Name::Own(name)),
    }
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value<'_>) {
        if let Some(name) = name(field) {
            self.0.field(name, value);
        }
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::Real(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::Count(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Switch(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::Text(value));
    }

    /// An error with what caused it, and what caused that.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        self.put(field, Value::Text(&text));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if let Some(name) = name(field) {
            self.0.field(name, Value::Text(&format!("{value:?}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// The lines that `log` leads to.
    fn lines(format: Format, log: impl FnOnce()) -> Vec<String> {
        let (sender, receiver) = mpsc::channel();
        let sink = Sink::start(move |lines| _ = sender.send(lines.to_vec())).expect("a thread");
        let events = Events {
            sink: sink.clone(),
            format,
            floods: Mutex::default(),
        };
        let subscriber = tracing_subscriber::registry().with(events);
        tracing::subscriber::with_default(subscriber, log);
        sink.flush();
        let written: Vec<u8> = receiver.try_iter().flatten().collect();
        String::from_utf8_lossy(&written)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn an_events_fields_keep_their_types() {
        #[derive(Debug, thiserror::Error)]
        #[error("the top")]
        struct Top(#[source] io::Error);
        let cause = Top(io::Error::other("the root"));
        let told = lines(Format::Ecs, || {
            tracing::warn!(
                number = 7u64,
                below = -1,
                share = 0.5,
                on = true,
                text = "a",
                shown = %"b",
                error = &cause as &dyn Error,
                "{} happened",
                "something"
            );
        });
        let [line] = &told[..] else {
            panic!("one line: {told:?}");
        };
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["message"], "something happened");
        assert_eq!(line["log.level"], "warn");
        assert_eq!(line["inflightkv.number"], 7);
        assert_eq!(line["inflightkv.below"], -1);
        assert_eq!(line["inflightkv.share"], 0.5);
        assert_eq!(line["inflightkv.on"], true);
        assert_eq!(line["inflightkv.text"], "a");
        assert_eq!(line["inflightkv.shown"], "b");
        assert_eq!(line["error.message"], "the top: the root");
    }

    #[test]
    fn a_flood_is_told_a_few_times_and_counted() {
        let told = lines(Format::Json, || {
            for number in 0..1_000 {
                tracing::warn!(number, "again");
            }
            tracing::warn!("something else");
        });
        assert_eq!(told.len(), FLOOD as usize + 1);
        assert!(told.last().expect("a line").contains("something else"));
    }

    #[test]
    fn what_was_suppressed_is_told_with_the_next() {
        let events = Events {
            sink: Sink::start(|_| ()).expect("a thread"),
            format: Format::Json,
            floods: Mutex::default(),
        };
        let metadata = {
            use tracing::Callsite as _;
            static CALLSITE: tracing::callsite::DefaultCallsite =
                tracing::callsite::DefaultCallsite::new(&METADATA);
            static METADATA: Metadata<'static> = tracing::metadata! {
                name: "flood", target: "test", level: tracing::Level::WARN, fields: &[], callsite: &CALLSITE,
                kind: tracing::metadata::Kind::EVENT,
            };
            CALLSITE.metadata()
        };
        let begun = Instant::now();
        for _ in 0..FLOOD {
            assert_eq!(events.admit(metadata, begun), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(events.admit(metadata, begun), None);
        }
        assert_eq!(events.admit(metadata, begun + WINDOW), Some(5));
        assert_eq!(events.admit(metadata, begun + WINDOW), Some(0));
    }
}
