//! That the primary is to be sought, and that it was.
//!
//! Owns the order of looks. Must never take a look that began before for one that was asked for.

use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, watch};

/// Between those who want the primary sought and the one who seeks, on one runtime.
pub(crate) struct Seek {
    wanted: Notify,
    begun: AtomicU64,
    done: watch::Sender<u64>,
}

impl Seek {
    pub(crate) fn new() -> Self {
        Self {
            wanted: Notify::new(),
            begun: AtomicU64::new(0),
            done: watch::Sender::new(0),
        }
    }

    /// Asks for a look.
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Waits until somebody asks for a look.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A look begins. Gives its number.
    pub(crate) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The look found the primaries, and what it found is followed.
    pub(crate) fn found(&self, number: u64) {
        self.done.send_replace(number);
    }

    /// Asks for a look and waits until one that began after this has found the primaries.
    pub(crate) async fn look(&self) {
        let before = self.begun.load(Ordering::SeqCst);
        self.want();
        // The sender lives as long as this.
        let _ = self.done.subscribe().wait_for(|done| *done > before).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_that_began_before_it_was_asked_for_does_not_count() {
        let seek = std::sync::Arc::new(Seek::new());
        let first = seek.begin();
        let waits = tokio::spawn({
            let seek = seek.clone();
            async move { seek.look().await }
        });
        seek.wanted().await;
        seek.found(first);
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        let second = seek.begin();
        seek.found(second);
        waits.await.unwrap();
    }
}
