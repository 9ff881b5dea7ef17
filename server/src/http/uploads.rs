//! Memory for request bodies that are still arriving, over all event loops: bounded, however many clients send.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of bodies that wait for more. A body that is there when its request is costs nothing here.
#[derive(Debug, Default)]
pub struct Uploads {
    held: AtomicUsize,
}

/// One body's part of it; given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    bytes: usize,
    of: Option<Arc<Uploads>>,
}

/// All the memory for bodies is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl Uploads {
    pub(crate) fn bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Hold {
    /// Holds `bytes` in all, of at most `max` for everybody together.
    pub(crate) fn grow_to(
        &mut self,
        bytes: usize,
        uploads: &Arc<Uploads>,
        max: usize,
    ) -> Result<(), Exhausted> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let held = uploads.held.fetch_add(more, Ordering::Relaxed);
        if held.saturating_add(more) > max {
            uploads.held.fetch_sub(more, Ordering::Relaxed);
            return Err(Exhausted);
        }
        self.bytes = bytes;
        self.of.get_or_insert_with(|| uploads.clone());
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(uploads) = &self.of {
            uploads.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_comes_back() {
        let uploads = Arc::new(Uploads::default());
        let (mut first, mut second) = (Hold::default(), Hold::default());
        assert_eq!(first.grow_to(60, &uploads, 100), Ok(()));
        assert_eq!(first.grow_to(50, &uploads, 100), Ok(()), "it has more");
        assert_eq!(second.grow_to(41, &uploads, 100), Err(Exhausted));
        assert_eq!(second.grow_to(40, &uploads, 100), Ok(()));
        assert_eq!(uploads.bytes(), 100);
        assert_eq!(first.grow_to(61, &uploads, 100), Err(Exhausted));
        drop(first);
        assert_eq!(uploads.bytes(), 40);
        assert_eq!(second.grow_to(100, &uploads, 100), Ok(()));
        drop(second);
        assert_eq!(uploads.bytes(), 0);
    }
}
