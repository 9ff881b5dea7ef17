//! One thread that writes log lines, so that nobody else ever waits for standard error.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that wait for a reader of standard error that does not read; past that they are dropped and counted.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Lines that follow the first within this time go out with it: a wake-up of the thread is dearer than a line.
const GATHER: Duration = Duration::from_millis(2);
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Takes whole lines and writes them in order, on a thread of its own. Clones are the same sink.
#[derive(Clone, Debug)]
pub struct Sink {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// Everything was written.
    drained: Condvar,
    lines: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    writing: bool,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    /// Starts the thread. `write` gets one or more whole lines at a time; whether it succeeds is its own affair.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(write: impl FnMut(&[u8]) + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || run(&writer, write))?;
        Ok(Self { shared })
    }

    /// Hands a line over, its line feed included. Never waits for the writing; a line that finds no room is dropped.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.shared.state();
        if state.closed || state.waiting.len() + line.len() > BYTES_MAX {
            drop(state);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        self.shared.lines.fetch_add(1, Ordering::Relaxed);
        if was_empty {
            self.shared.filled.notify_one();
        }
    }

    /// Waits until what was pushed is written, but not for ever.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_PATIENCE;
        let mut state = self.shared.state();
        while !state.waiting.is_empty() || state.writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self
                .shared
                .drained
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Lines taken.
    pub fn lines(&self) -> u64 {
        self.shared.lines.load(Ordering::Relaxed)
    }

    /// Lines that found no room.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

fn run(shared: &Shared, mut write: impl FnMut(&[u8])) {
    /// A writer that panics must not leave others waiting for it.
    struct Closing<'a>(&'a Shared);
    impl Drop for Closing<'_> {
        fn drop(&mut self) {
            let mut state = self.0.state();
            state.closed = true;
            state.writing = false;
            state.waiting.clear();
            self.0.drained.notify_all();
        }
    }
    let _closing = Closing(shared);
    let mut lines = Vec::new();
    loop {
        let mut state = shared.state();
        while state.waiting.is_empty() {
            state = shared
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.writing = true;
        drop(state);
        thread::sleep(GATHER);
        std::mem::swap(&mut lines, &mut shared.state().waiting);
        write(&lines);
        lines.clear();
        let mut state = shared.state();
        state.writing = false;
        if state.waiting.is_empty() {
            shared.drained.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn lines_come_out_in_order_and_a_flush_waits_for_them() {
        let (sender, receiver) = mpsc::channel();
        let sink = Sink::start(move |lines| sender.send(lines.to_vec()).expect("a receiver"))
            .expect("a thread");
        for number in 0..1_000 {
            sink.push(format!("{number}\n").as_bytes());
        }
        sink.flush();
        let written: Vec<u8> = receiver.try_iter().flatten().collect();
        let expected: String = (0..1_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&written), expected);
        assert_eq!((sink.lines(), sink.dropped()), (1_000, 0));
    }

    /// Standard error is a pipe that nobody reads: nobody waits, memory is bounded, and the loss is counted.
    #[test]
    fn a_writer_that_hangs_makes_nobody_wait() {
        let (release, held) = mpsc::channel::<()>();
        let sink = Sink::start(move |_| _ = held.recv()).expect("a thread");
        let line = [b'x'; 1024];
        for _ in 0..3 * BYTES_MAX / line.len() {
            sink.push(&line);
        }
        assert!(sink.dropped() > 0);
        assert!(sink.shared.state().waiting.len() <= BYTES_MAX);
        drop(release);
    }

    #[test]
    fn a_writer_that_panics_is_noticed_as_drops() {
        let sink = Sink::start(|_| panic!("nowhere to write to")).expect("a thread");
        sink.push(b"lost\n");
        sink.flush();
        sink.push(b"dropped\n");
        assert_eq!(sink.dropped(), 1);
    }
}
