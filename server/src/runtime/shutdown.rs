//! The one bit that every loop watches: it is time to end.

use tokio::sync::watch;

/// Tells tasks of every loop that the server is to end. Clones share the bit.
#[derive(Clone, Debug)]
pub struct Shutdown {
    sender: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            sender: watch::Sender::new(false),
        }
    }
}

impl Shutdown {
    /// Asks everybody to end. Asking twice changes nothing.
    pub fn request(&self) {
        self.sender.send_replace(true);
    }

    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        *self.sender.borrow()
    }

    /// Resolves once the end is asked for; at once if it was.
    pub async fn requested(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = receiver.wait_for(|requested| *requested).await;
    }
}
