//! The watch over the writer: calls are told an error when the disk does not answer.
//!
//! Owns the look at how long the oldest record has waited, and the end of a writer. Must never be
//! in a call to the disk.

use crate::ledger::Trouble;
use crate::ledger::commit::{Batch, Decision};
use crate::ledger::queue::{CLOSED, HEALTHY, LedgerShared};
use crate::model::Clock;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// However the writer ends, nobody waits for it afterwards.
pub(super) struct CloseOnDrop(pub(super) Arc<LedgerShared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        self.0.health.store(CLOSED, Ordering::Release);
        if let Some(chore) = queue.chore.take() {
            chore.refuse(Trouble::Closed);
        }
        Decision::new(std::mem::replace(&mut queue.batch, Batch::new())).not_durable();
        self.0.watch.notify_all();
    }
}

/// Tells the calls of a disk that does not return that they are not counted, and has new ones
/// refused, when the oldest record has waited for `stall_after`. Runs until the writer has ended.
pub(super) fn watch(shared: &LedgerShared, path: &Path, clock: &Clock, stall_after: Duration) {
    let mut queue = shared.queue.lock();
    loop {
        match shared.health.load(Ordering::Acquire) {
            CLOSED => return,
            HEALTHY => {
                // What is written and decided is not waited for any more.
                let writing = queue.writing.as_ref().filter(|it| it.batch.is_open());
                let waits = writing
                    .map(|writing| writing.since)
                    .or(queue.oldest)
                    .map(|since| clock.mono().since(since));
                if waits.is_some_and(|waits| waits >= stall_after) {
                    tracing::error!(
                        "the disk has not answered for {stall_after:?}: calls are refused until it does"
                    );
                    if let Some(uncertain) = shared.stall(&mut queue) {
                        // Nobody waits for it: the disk may not answer that either.
                        drop(uncertain.note(path));
                    }
                }
            }
            _ => {}
        }
        // Nobody wakes it: a record that begins to wait must not cost a system call.
        let next = clock.mono().plus(stall_after / 4);
        clock.wait(&shared.watch, &mut queue, Some(next));
    }
}
