//! The calls and the connections of all upstreams together.
//!
//! Owns the one bound of both, which the limit of open files pays for: one connection for each of
//! `limits.connections`, whatever the settings say of single upstreams, and before a reload and
//! after.
//!
//! # Decided
//! - **A call counts from before its admission until its answer has ended**, and has at most one
//!   connection at a time. So a call that was let in always finds a place for its connection: when
//!   as many are open as may be, one of them is kept for later and can be closed.
//! - **Checks are no calls**: they may not wait for calls that never end, and take no place of one.
//!   They have a bound of their own, [`CHECKS_AT_ONCE`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The most connections of checks, and of tries of servers that are out. The next one waits.
pub(crate) const CHECKS_AT_ONCE: usize = 64;

/// What all upstreams have now, and the most of it.
pub(super) struct Total {
    /// The most calls; and the most connections, those of checks left out.
    pub(super) most: u32,
    calls: AtomicU32,
    links: AtomicU32,
    checks: Semaphore,
}

/// A connection that counts until this is dropped.
pub(super) struct OpenLink {
    total: Arc<Total>,
    counts_as_call: AtomicBool,
}

impl Total {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: u32::try_from(most).unwrap_or(u32::MAX),
            calls: AtomicU32::new(0),
            links: AtomicU32::new(0),
            checks: Semaphore::new(CHECKS_AT_ONCE),
        })
    }

    /// Counts a call, unless there are as many as may be. Whether it is counted.
    pub(super) fn enter(&self) -> bool {
        // The connections of the calls that have left are closed or kept by then.
        let is_one = self.calls.fetch_add(1, Ordering::AcqRel) < self.most;
        if !is_one {
            self.leave();
        }
        is_one
    }

    /// A call that was counted has ended.
    pub(super) fn leave(&self) {
        self.calls.fetch_sub(1, Ordering::AcqRel);
    }

    /// Counts a connection, before it is opened.
    pub(super) fn open(self: &Arc<Self>) -> OpenLink {
        self.links.fetch_add(1, Ordering::AcqRel);
        OpenLink {
            total: self.clone(),
            counts_as_call: AtomicBool::new(false),
        }
    }

    /// Whether more connections are open than may be.
    pub(super) fn is_exceeded(&self) -> bool {
        self.links.load(Ordering::Acquire) > self.most
    }

    /// Waits until a check may connect. `None` is never seen: no end of checks is ever declared.
    pub(super) async fn check(&self) -> Option<SemaphorePermit<'_>> {
        self.checks.acquire().await.ok()
    }
}

impl OpenLink {
    /// Whether more connections are open than may be.
    pub(super) fn is_beyond(&self) -> bool {
        self.total.is_exceeded()
    }

    /// Its call ends before it does, so that it takes the place of the call.
    pub(super) fn outlives_its_call(&self) {
        if !self.counts_as_call.swap(true, Ordering::AcqRel) {
            self.total.calls.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for OpenLink {
    fn drop(&mut self) {
        self.total.links.fetch_sub(1, Ordering::AcqRel);
        if *self.counts_as_call.get_mut() {
            self.total.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_beyond_the_most_is_not_counted_and_one_that_has_left_makes_place() {
        let total = Total::new(2);
        assert!(total.enter() && total.enter());
        assert!(!total.enter() && !total.enter());
        total.leave();
        assert!(total.enter() && !total.enter());
    }

    #[test]
    fn a_connection_that_outlives_its_call_takes_its_place_until_it_closes() {
        let total = Total::new(1);
        assert!(total.enter());
        let open = total.open();
        open.outlives_its_call();
        total.leave();
        assert!(!total.enter(), "its file is still open");
        drop(open);
        assert!(total.enter());
        assert!(!total.is_exceeded());
    }
}
