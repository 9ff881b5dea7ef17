//! Answers held until what they say is durable: one gate a loop, one wake-up of the loop a sync.

use crate::engine::{Durable, Lane, Refusal, Sequence};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a write waits for room in the hand-over buffers before it is refused.
const ROOM_WAIT: Duration = Duration::from_secs(1);
const ROOM_POLL: Duration = Duration::from_millis(5);

/// A change was applied in memory and could not be made durable.
#[derive(Clone, Debug)]
pub struct NotDurable {
    /// What went wrong, as a sentence.
    pub reason: String,
    /// Whether the cause is a full disk, so that it may pass.
    pub disk_full: bool,
}

/// The held answers of one loop. Clones share them.
#[derive(Clone)]
pub struct Gate(Rc<Inner>);

struct Inner {
    lane: Lane,
    waiters: RefCell<BinaryHeap<Reverse<Waiter>>>,
    /// Wakes the dispatcher when the first waiter arrives.
    armed: Notify,
}

struct Waiter {
    sequence: Sequence,
    waker: Waker,
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Waiter {}

impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.sequence.cmp(&other.sequence)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("waiting", &self.0.waiters.borrow().len())
            .finish()
    }
}

impl Gate {
    /// A gate for the loop that holds `lane`. Its [`dispatch`](Self::dispatch) has to run as a task of that loop.
    pub fn new(lane: Lane) -> Self {
        Self(Rc::new(Inner {
            lane,
            waiters: RefCell::default(),
            armed: Notify::new(),
        }))
    }

    /// Resolves when every change up to `sequence` is on stable storage.
    ///
    /// # Errors
    /// The log failed, or the disk is full and what is waited for could not be written.
    pub fn durable(
        &self,
        sequence: Sequence,
    ) -> impl Future<Output = Result<(), NotDurable>> + use<> {
        Held {
            gate: self.clone(),
            sequence,
            registered: None,
        }
    }

    /// Resolves when writes are admitted again, at once in the usual case.
    ///
    /// # Errors
    /// What refuses them, when that is not a backlog or when a backlog lasted for a second.
    pub async fn room(&self) -> Result<(), Refusal> {
        let deadline = Instant::now() + ROOM_WAIT;
        loop {
            match self.0.lane.admit() {
                Err(Refusal::Backlog) if Instant::now() < deadline => {
                    tokio::time::sleep(ROOM_POLL).await;
                }
                answer => return answer,
            }
        }
    }

    /// Lets held answers go as the log's high watermark moves. Runs for the life of the loop, and sleeps whenever
    /// nobody waits.
    pub async fn dispatch(self) {
        loop {
            while self.0.waiters.borrow().is_empty() {
                self.0.armed.notified().await;
            }
            poll_fn(|context| {
                // Register first, look second: a sync between the two is not missed.
                self.0.lane.on_progress(context.waker());
                self.release()
            })
            .await;
        }
    }

    /// Wakes everybody whose wait is over; ready when nobody is left.
    fn release(&self) -> Poll<()> {
        let mut waiters = self.0.waiters.borrow_mut();
        while let Some(Reverse(first)) = waiters.peek() {
            if matches!(self.0.lane.durable(first.sequence), Durable::NotYet) {
                return Poll::Pending;
            }
            if let Some(Reverse(waiter)) = waiters.pop() {
                waiter.waker.wake();
            }
        }
        Poll::Ready(())
    }
}

struct Held {
    gate: Gate,
    sequence: Sequence,
    registered: Option<Waker>,
}

impl Future for Held {
    type Output = Result<(), NotDurable>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.gate.0.lane.durable(self.sequence) {
            Durable::Yes => return Poll::Ready(Ok(())),
            Durable::Never { reason, disk_full } => {
                return Poll::Ready(Err(NotDurable { reason, disk_full }));
            }
            Durable::NotYet => {}
        }
        // A connection's task is polled for other reasons too: one entry a waker is enough.
        if !self
            .registered
            .as_ref()
            .is_some_and(|known| known.will_wake(context.waker()))
        {
            let waker = context.waker().clone();
            self.registered = Some(waker.clone());
            let inner = &self.gate.0;
            inner.waiters.borrow_mut().push(Reverse(Waiter {
                sequence: self.sequence,
                waker,
            }));
            inner.armed.notify_one();
        }
        Poll::Pending
    }
}
