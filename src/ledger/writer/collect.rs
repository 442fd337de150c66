//! The writer of a ledger in which others are collected.
//!
//! Owns what follows when ranges were taken: readers are shown their records, and these are rolled
//! up. Must never let records come faster than they are rolled up.

use crate::ledger::job::Note;
use crate::ledger::store::Store;
use crate::ledger::writer::Writer;
use crate::ledger::{Collected, Committed, LedgerError, Range, StoreError};
use crate::model::Outcome;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

impl Writer {
    /// Takes ranges, then rolls up whole steps: who collects is answered before.
    pub(super) fn collect(
        &mut self,
        ranges: &[Range],
        reply: SyncSender<Result<Vec<Collected>, StoreError>>,
    ) -> Option<LedgerError> {
        let started = self.clock.mono();
        let now = self.clock.utc();
        // The records rest once nothing was taken for a while, as after a commit.
        self.last_start = started;
        let taken = self.with_store(|store| {
            let taken = store.collect(ranges, now)?;
            Ok((taken, store.next_seq() - 1))
        });
        let done = taken.map(|(taken, last_seq)| {
            let count: u64 = taken.records.iter().sum();
            self.known.last = taken.last.or(self.known.last);
            self.shared.last_seq.store(last_seq, Ordering::Release);
            if count > 0 {
                self.shared
                    .last_commit_at_us
                    .store(now.0, Ordering::Release);
                // Some sixty rows fill a page.
                self.wal_pages += usize::try_from(count / 60).unwrap_or(usize::MAX);
                (self.on_commit)(&Committed {
                    duration: self.clock.mono().since(started),
                    // No call of this process: its gate has counted each of them.
                    records: [0; Outcome::ALL.len()],
                });
            }
            taken.ranges
        });
        if let Some(error) = self.reply(reply, done) {
            return Some(error);
        }
        while self.store.as_ref().map_or(0, Store::tail) >= self.target.pace.roll_up {
            let now = self.clock.mono();
            if now < self.roll_up_at {
                // The last one has failed: the next is tried later.
                break;
            }
            if let Some(error) = self.roll_up(now) {
                return Some(error);
            }
        }
        self.checkpoint_under_load()
    }

    pub(super) fn note(
        &mut self,
        note: &Note,
        reply: SyncSender<Result<bool, StoreError>>,
    ) -> Option<LedgerError> {
        let now = self.clock.utc();
        let noted = self.with_store(|store| store.note(note, now));
        self.reply(reply, noted)
    }
}
