//! The work of the writer from an error until the ledger can be written again.
//!
//! Owns the order: note what is uncertain, tell the calls, make the file sound, write what is held.
//! Must never leave a call that was told an error in the ledger as answered, nor let go of records
//! that are in no other file.

use crate::ledger::pace::{NOTED_WITHIN, NextCommit};
use crate::ledger::queue::{CLOSED, FAILING, HEALTHY};
use crate::ledger::repair::Repair;
use crate::ledger::store::Store;
use crate::ledger::writer::unavailable::Unavailable;
use crate::ledger::writer::{UncertainBatch, Writer};
use crate::ledger::{LedgerError, Trouble};
use crate::model::{Durability, Mono};
use std::sync::atomic::Ordering;

impl Writer {
    /// Refuses calls from here on, those that wait as well, until the ledger can be written.
    pub(super) fn begin_trouble(&mut self, now: Mono, error: LedgerError) {
        tracing::error!(%error, "the ledger cannot be written: calls are refused until it can");
        let shared = self.shared.clone();
        let queued = {
            let mut queue = shared.queue.lock();
            // From here on a commit is refused at once, and its record comes as `gate_failed`.
            shared.health.store(FAILING, Ordering::Release);
            let queued = self.take(&mut queue);
            queue.writing = None;
            queued
        };
        self.note_uncertain();
        self.fail_held();
        if let Some(chore) = self.chore.take() {
            chore.refuse(Trouble::Failing);
        }
        queued.not_durable();
        let orphan = self.let_go_of_the_file();
        self.trouble = Some(Unavailable {
            reason: error.to_string(),
            repair: error.is_suspect().then(|| Repair::new(&self.target.path)),
            orphan,
            try_at: now.plus(self.target.pace.probe),
            tried_since_close: false,
        });
    }

    /// Before the calls are told an error: this process may be killed before their rows say so.
    fn note_uncertain(&self) {
        let strict = self.shared.durability == Durability::Strict;
        if let Some(UncertainBatch { batch, .. }) = self.uncertain.filter(|_| strict) {
            // A disk that does not answer is not waited for.
            let _ = batch.note(&self.target.path).recv_timeout(NOTED_WITHIN);
        }
    }

    /// The old connection may believe what the file does not say. It is given back as long as it
    /// holds what is in no file: the ledger or its WAL was deleted while it was open.
    fn let_go_of_the_file(&mut self) -> Option<Store> {
        let store = self.store.take()?;
        if !matches!(store.files().still_there(), Err(LedgerError::Replaced(_))) {
            return None;
        }
        // It may be in the midst of a copy, and then this connection cannot.
        self.checkpointer.release();
        match store.copies_all() {
            Ok(true) => None,
            Ok(false) => Some(store),
            Err(error) => {
                tracing::error!(%error, "the deleted WAL could not be copied into the ledger yet; trying again");
                Some(store)
            }
        }
    }

    /// Makes the rows of an uncertain batch say what its calls were told, without a sync. The next
    /// start finds them so, unless the power fails before. Nothing that was synced is written over.
    fn correct_unsynced(&mut self) -> Result<(), LedgerError> {
        if self.uncertain.is_none() || self.shared.durability == Durability::Relaxed {
            return Ok(());
        }
        let store = Store::reopen(&self.target.path, &self.known)?;
        store.sync_nothing()?;
        self.store = Some(store);
        let corrected = self.resolve_uncertain();
        self.store = None;
        corrected
    }

    /// Tries again when it is time. The end of the trouble, when the ledger could be written or was
    /// closed.
    pub(super) fn step_in_trouble(&mut self, now: Mono) -> NextCommit {
        let shared = self.shared.clone();
        let Some(mut trouble) = self.trouble.take() else {
            return NextCommit::Step;
        };
        let close_by = {
            let mut queue = shared.queue.lock();
            queue.asked = false;
            self.hold(&mut queue);
            self.close_by(&queue, now)
        };
        let last_try =
            close_by.filter(|_| !std::mem::replace(&mut trouble.tried_since_close, true));
        if let Some(close_by) = close_by.filter(|_| last_try.is_none())
            && now >= close_by
        {
            {
                let _queue = shared.queue.lock();
                shared.health.store(CLOSED, Ordering::Release);
            }
            let unrecorded = shared.pending.count();
            self.checkpointer.stop();
            if trouble.orphan.is_some() {
                tracing::error!(
                    "the deleted WAL could not be copied into the ledger: what was recorded since it was last copied is lost"
                );
            }
            if let Err(error) = self.correct_unsynced() {
                tracing::error!(%error, "calls that were told an error may be found as answered at the next start");
            }
            return NextCommit::Ended(unrecorded);
        }
        if now < trouble.try_at && last_try.is_none() {
            let until = close_by.map_or(trouble.try_at, |close_by| close_by.min(trouble.try_at));
            self.trouble = Some(trouble);
            return NextCommit::Wait {
                until: Some(until),
                wake_at: usize::MAX,
            };
        }
        self.last_start = now;
        match self.recover(now, &mut trouble) {
            Ok(()) => {
                let _queue = shared.queue.lock();
                shared.health.store(HEALTHY, Ordering::Release);
                tracing::info!("the ledger can be written again");
            }
            Err(error) => {
                self.store = None;
                if error.is_suspect() && trouble.repair.is_none() {
                    trouble.repair = Some(Repair::new(&self.target.path));
                }
                // Told once: it is tried each second.
                if error.to_string() != trouble.reason {
                    trouble.reason = error.to_string();
                    tracing::error!(%error, "the ledger still cannot be written");
                }
                trouble.try_at = self.clock.mono().plus(self.target.pace.probe);
                self.trouble = Some(trouble);
            }
        }
        NextCommit::Step
    }

    /// Gets all that is held into the ledger, once, after the ledger was made sound where that is
    /// in doubt.
    fn recover(&mut self, now: Mono, trouble: &mut Unavailable) -> Result<(), LedgerError> {
        // Its connection may have another file open than the one that is at the path now, and
        // stands in a repair's way.
        if !self.checkpointer.release() {
            return Err(LedgerError::CheckpointHangs);
        }
        let failed = self.shared.queue.lock().failure.take();
        if failed.is_some() {
            let path = &self.target.path;
            trouble.repair.get_or_insert_with(|| Repair::new(path));
        }
        self.store = None;
        if let Some(store) = &trouble.orphan {
            if !store.copies_all()? {
                return Err(LedgerError::HeldOpen);
            }
            trouble.orphan = None;
        }
        if let Some(repair) = &mut trouble.repair {
            self.shared.let_go_of_the_file();
            repair.run(Some(&self.known))?;
            trouble.repair = None;
        }
        self.store = Some(Store::reopen(&self.target.path, &self.known)?);
        self.resolve_uncertain()?;
        if !self.held.is_empty() {
            self.commit(now)?;
            self.recorded();
        }
        Ok(())
    }
}
