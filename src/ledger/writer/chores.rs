//! The work of the writer between two commits: the biller's jobs, the roll-up, pruning,
//! checkpoints.
//!
//! Owns when each of them is due under load. Must never hold a commit up for longer than one small
//! step.

use crate::ledger::job::Job;
use crate::ledger::pace::{CHECKPOINT_PAGES, CHORE_PAUSE, PRUNE_INTERVAL, REST, ROLL_UPS_A_COMMIT};
use crate::ledger::queue::FAILING;
use crate::ledger::store::Store;
use crate::ledger::writer::Writer;
use crate::ledger::{LedgerError, StoreError, Trouble};
use crate::model::{Mono, Utc};
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

impl Writer {
    /// Lets `write` use the file, opened again when it must be.
    pub(super) fn with_store<T, E: From<LedgerError>>(
        &mut self,
        write: impl FnOnce(&mut Store) -> Result<T, E>,
    ) -> Result<T, E> {
        let store = match &mut self.store {
            Some(store) => store,
            none => none.insert(Store::reopen(&self.target.path, &self.known)?),
        };
        let written = write(store)?;
        self.known.linked = store.linked();
        Ok(written)
    }

    /// Work that can wait has failed. Gives the error back when the calls cannot go on either.
    fn put_off(&mut self, what: &str, error: LedgerError) -> Option<LedgerError> {
        if error.stops_the_writer() {
            return Some(error);
        }
        tracing::warn!(%error, "{what}; trying again");
        // Only the file knows what was written.
        self.store = None;
        None
    }

    /// Does the job that the biller asked for. Where calls can go on, its failure only fails the
    /// job: the biller tries again.
    pub(super) fn do_chore(&mut self) -> Option<LedgerError> {
        let chore = self.chore.take()?;
        let step = self.target.pace.roll_up;
        self.wal_pages += 16;
        match chore {
            Job::Freeze { day, reply } => {
                let frozen = self.with_store(|store| store.freeze(&day, step));
                self.reply(reply, frozen)
            }
            Job::Seal {
                day,
                last_seq,
                hours,
                reply,
            } => {
                let sealed = self.with_store(|store| store.seal(&day, last_seq, hours));
                self.reply(reply, sealed)
            }
            Job::Keep { entries, reply } => {
                let kept = self.with_store(|store| store.keep(&entries));
                self.reply(reply, kept)
            }
            Job::Apply {
                of: (account, package),
                apps,
                at,
                reply,
            } => {
                let place = self.with_store(|store| store.apply(&account, &package, apps, at));
                self.reply(reply, place)
            }
            Job::Collect { ranges, reply } => self.collect(&ranges, reply),
            Job::Note { note, reply } => self.note(&note, reply),
        }
    }

    pub(super) fn reply<T>(
        &mut self,
        reply: SyncSender<Result<T, StoreError>>,
        done: Result<T, StoreError>,
    ) -> Option<LedgerError> {
        let (done, trouble) = match done {
            Err(StoreError::Ledger(error)) if error.stops_the_writer() => {
                (Err(Trouble::Failing.into()), Some(error))
            }
            Err(error) => {
                // Only the file knows what was written.
                self.store = None;
                (Err(error), None)
            }
            done => (done, None),
        };
        if trouble.is_some() {
            // Before the biller is told: it may look at once whether the ledger is healthy.
            let _queue = self.shared.queue.lock();
            self.shared.health.store(FAILING, Ordering::Release);
        }
        // The thread that asked waits for the answer, unless it has panicked.
        let _ = reply.send(done);
        trouble
    }

    pub(super) fn prune(&mut self, now: Mono, keep_from: Utc) -> Option<LedgerError> {
        let pruned: Result<bool, LedgerError> =
            self.with_store(|store| Ok(store.prune(keep_from)?));
        self.wal_pages += 16;
        match pruned {
            Ok(true) => self.prune_at = now.plus(PRUNE_INTERVAL),
            Ok(false) => {
                let mut queue = self.shared.queue.lock();
                queue.keep_from = queue.keep_from.filter(|wanted| *wanted != keep_from);
            }
            Err(error) => {
                self.prune_at = now.plus(CHORE_PAUSE);
                return self.put_off("old records could not be deleted", error);
            }
        }
        None
    }

    /// Under load there is no rest in which old records could be deleted.
    pub(super) fn prune_under_load(&mut self, now: Mono) -> Option<LedgerError> {
        // A ledger that is not busy will rest soon, and prunes then.
        let due = match self.load.is_heavy() {
            true => self.prune_at,
            false => self.prune_at.plus(REST),
        };
        if !self.prunes || now < due {
            return None;
        }
        // Again: it may have been taken back since.
        let keep_from = self.shared.queue.lock().keep_from?;
        self.prune(now, keep_from)
    }

    /// Rolls up one step: see "The roll-up" in the head of [`ledger`](crate::ledger). Its failure
    /// is no trouble of the calls, unless it makes the ledger suspect: their records are durable
    /// and are counted from the tail until it can be written.
    pub(super) fn roll_up(&mut self, now: Mono) -> Option<LedgerError> {
        let step = self.target.pace.roll_up;
        // Nine of them are the marks of a whole step.
        self.wal_pages += 24;
        let rolled_up: Result<(), LedgerError> = self.with_store(|store| Ok(store.roll_up(step)?));
        let error = rolled_up.err()?;
        self.roll_up_at = now.plus(CHORE_PAUSE);
        self.put_off("records could not be rolled up", error)
    }

    /// The number of records that are not rolled up. While the file is closed nobody knows: then
    /// there may be one.
    pub(super) fn tail(&self) -> i64 {
        self.store.as_ref().map_or(1, Store::tail)
    }

    pub(super) fn roll_up_under_load(&mut self) -> Option<LedgerError> {
        // A long tail, of a process that was killed, is caught up with over several commits: calls
        // wait for each.
        for _ in 0..ROLL_UPS_A_COMMIT {
            let now = self.clock.mono();
            if self.tail() < self.target.pace.roll_up || now < self.roll_up_at {
                return None;
            }
            if let Some(error) = self.roll_up(now) {
                return Some(error);
            }
        }
        None
    }

    pub(super) fn ask_for_a_copy(&self) -> bool {
        let files = self.store.as_ref().map(Store::files);
        files.is_some_and(|files| self.checkpointer.ask(files.clone()))
    }

    /// Copies the WAL under load: see "Checkpoints" in the head of [`ledger`](crate::ledger).
    pub(super) fn checkpoint_under_load(&mut self) -> Option<LedgerError> {
        if self.checkpoint_behind && self.checkpointer.rests() {
            // The copy may have ended with an error of the disk: then nothing more is copied.
            if self.shared.queue.lock().failure.is_some() {
                return None;
            }
            self.checkpoint_behind = false;
            if let Some(Err(error)) = self.store.as_ref().map(|store| store.checkpoint("PASSIVE")) {
                let what = "the WAL could not be copied into the ledger";
                return self.put_off(what, error.into());
            }
        }
        if self.wal_pages >= CHECKPOINT_PAGES && self.ask_for_a_copy() {
            self.wal_pages = 0;
            self.checkpoint_behind = true;
        }
        None
    }
}
