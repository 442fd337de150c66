//! The one thread that writes: group commits, trouble, pruning, checkpoints.
//!
//! Owns the way of a record from the queue to the disk. Each record gets into the ledger exactly
//! once, and the ledger says of it what its client was told. Must never wait for anything but the
//! disk.
//!
//! # Trouble
//! A commit that fails is not durable, whatever the file shows afterwards. Its calls are told so,
//! and its records become `gate_failed`. The commit may have reached the file all the same: its
//! sync failed, and its frames are there. So the next try asks the file first, and makes the rows
//! of such a batch say what its calls were told. A relaxed ledger leaves the records as they are,
//! since their clients were answered before.
//!
//! After an error of the disk ([`LedgerError::is_suspect`]) the page cache is no witness: what a
//! failed sync left in memory can be read back and is not on the disk. Then nothing is written and
//! nothing is copied until [`Repair`](crate::ledger::repair::Repair) has written the ledger again
//! and checked it.
//!
//! A disk that does not return cannot be waited for by the calls:
//! [`watch`](crate::ledger::stall::watch) tells them an error while this thread is in the system
//! call. Their records become `gate_failed` when the late commit succeeds after all.

mod chores;
mod collect;
mod trouble;
mod unavailable;

use crate::ledger::checkpoint::Checkpointer;
use crate::ledger::commit::{Batch, Decision};
use crate::ledger::job::Job;
use crate::ledger::known::KnownLedger;
use crate::ledger::pace::{
    COPY_ASKED_AGAIN, GROUP_INTERVAL, GROUP_RECORDS, Load, NextCommit, POLL, Pace, REST,
};
use crate::ledger::pending::Colour;
use crate::ledger::queue::{CLOSED, HEALTHY, LedgerShared, RecordQueue, STALLED, Writing};
use crate::ledger::stall::CloseOnDrop;
use crate::ledger::store::Store;
use crate::ledger::uncertain::{Uncertain, remove_note};
use crate::ledger::writer::unavailable::Unavailable;
use crate::ledger::{Committed, LedgerError, Record};
use crate::model::{Clock, Durability, Mono, Outcome, Utc};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The ledger that is written: what is needed to open the file again.
#[derive(Debug)]
pub(super) struct WriteTarget {
    pub(super) path: PathBuf,
    pub(super) run: i64,
    pub(super) pace: Pace,
}

/// The batch that is being written, from the front of `held`. After an error only the file knows
/// whether it is there.
#[derive(Clone, Copy, Debug)]
struct UncertainBatch {
    batch: Uncertain,
    started: Mono,
}

enum Task {
    Write(Decision),
    Job,
    RollUp,
    Prune(Utc),
    /// The disk has failed another thread.
    Fail(LedgerError),
    Rest(NextCommit),
    /// The ledger is closed, with so many calls that are not in it.
    End(usize),
}

pub(super) struct Writer {
    shared: Arc<LedgerShared>,
    clock: Clock,
    target: WriteTarget,
    /// `None` after an error, until the file has been opened again.
    store: Option<Store>,
    /// The state that is durable for certain. A file that is opened again must have it.
    known: KnownLedger,
    checkpointer: Checkpointer,
    on_commit: Box<dyn Fn(&Committed) + Send>,
    /// Records that were taken from the queue and are not known to be in the ledger.
    held: Vec<Record>,
    /// The colours of their slots.
    colours: Vec<Colour>,
    uncertain: Option<UncertainBatch>,
    trouble: Option<Unavailable>,
    /// A job that was taken from the queue. It is done when no commit waits.
    chore: Option<Job>,
    last_start: Mono,
    load: Load,
    /// About how many pages were written to the WAL since a checkpoint was last asked for.
    wal_pages: usize,
    /// The checkpointer was asked under load, so that commits went on beside it.
    checkpoint_behind: bool,
    /// Old records were to be deleted when the queue was last read.
    prunes: bool,
    prune_at: Mono,
    roll_up_at: Mono,
    close_by: Option<Mono>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<LedgerShared>,
        clock: Clock,
        target: WriteTarget,
        (store, known): (Store, KnownLedger),
        checkpointer: Checkpointer,
        on_commit: Box<dyn Fn(&Committed) + Send>,
    ) -> Self {
        Self {
            shared,
            clock,
            target,
            store: Some(store),
            known,
            checkpointer,
            on_commit,
            held: Vec::new(),
            colours: Vec::new(),
            uncertain: None,
            trouble: None,
            chore: None,
            last_start: Mono::default(),
            load: Load::default(),
            wal_pages: 0,
            checkpoint_behind: false,
            prunes: false,
            prune_at: Mono::default(),
            roll_up_at: Mono::default(),
            close_by: None,
        }
    }

    /// Runs until the ledger is closed; gives the number of calls that are not in the ledger.
    pub(super) fn run(mut self) -> usize {
        let _farewell = CloseOnDrop(self.shared.clone());
        loop {
            match self.step(self.clock.mono()) {
                NextCommit::Step => {}
                NextCommit::Wait { until, wake_at } => self.wait(until, wake_at),
                NextCommit::Ended(unrecorded) => return unrecorded,
            }
        }
    }

    fn wait(&self, until: Option<Mono>, wake_at: usize) {
        let mut queue = self.shared.queue.lock();
        // It may have come since the step looked.
        if !queue.asked && queue.records.len() < wake_at {
            queue.wake_at = wake_at;
            self.clock.wait(&self.shared.wake, &mut queue, until);
            queue.wake_at = usize::MAX;
        }
        queue.asked = false;
    }

    /// Does what is due at `now`: at most one commit, with what goes with it.
    pub(super) fn step(&mut self, now: Mono) -> NextCommit {
        if self.trouble.is_some() {
            return self.step_in_trouble(now);
        }
        let error = match self.next_task(now) {
            Task::Write(decision) => match self.write(now, decision) {
                Ok(()) => self.follow_up(now),
                Err((error, decision)) => {
                    // The calls are told last: they may ask at once whether the ledger is healthy.
                    self.begin_trouble(now, error);
                    decision.not_durable();
                    None
                }
            },
            Task::Job => self.do_chore(),
            Task::RollUp => self.roll_up(now),
            Task::Prune(keep_from) => self.prune(now, keep_from),
            // As if a commit had failed: what waits is not written to a disk that cannot be
            // trusted.
            Task::Fail(error) => Some(error),
            Task::Rest(next) => return next,
            Task::End(unrecorded) => {
                self.end();
                return NextCommit::Ended(unrecorded);
            }
        };
        if let Some(error) = error {
            self.begin_trouble(now, error);
        }
        NextCommit::Step
    }

    /// The work between two commits under load. Gives the error after which nothing may be written.
    fn follow_up(&mut self, now: Mono) -> Option<LedgerError> {
        self.do_chore()
            .or_else(|| self.roll_up_under_load())
            .or_else(|| self.prune_under_load(now))
            .or_else(|| self.checkpoint_under_load())
    }

    /// The task that is due at `now`. No record is held when this is called.
    fn next_task(&mut self, now: Mono) -> Task {
        let shared = self.shared.clone();
        let half = (shared.pending_limit / 2).max(1);
        let (interval, enough) = match (shared.durability, self.load.is_heavy()) {
            (Durability::Relaxed, _) => (self.target.pace.gather, half),
            (Durability::Strict, true) => (GROUP_INTERVAL, half.min(GROUP_RECORDS)),
            (Durability::Strict, false) => (Duration::ZERO, half),
        };
        let mut queue = shared.queue.lock();
        queue.writing = None;
        if shared.health.load(Ordering::Acquire) == STALLED {
            shared.health.store(HEALTHY, Ordering::Release);
            tracing::info!("the disk has answered: calls are admitted again");
        }
        queue.asked = false;
        if let Some(error) = queue.failure.take() {
            return Task::Fail(error);
        }
        let close_by = self.close_by(&queue, now);
        let prune = queue.keep_from.filter(|_| now >= self.prune_at);
        if !queue.records.is_empty() {
            let due = self.last_start.plus(interval);
            // Half the capacity: a relaxed ledger must not refuse calls while it lets records
            // gather.
            if now >= due || close_by.is_some() || queue.records.len() >= enough {
                return Task::Write(self.take(&mut queue));
            }
            return Task::Rest(NextCommit::Wait {
                until: Some(due),
                wake_at: enough,
            });
        }
        if queue.chore.is_some() {
            self.chore = queue.chore.take();
            return Task::Job;
        }
        if let Some(close_by) = close_by {
            let pending = shared.pending.count();
            if pending == 0 || now >= close_by {
                shared.health.store(CLOSED, Ordering::Release);
                return Task::End(pending);
            }
            return Task::Rest(NextCommit::Wait {
                until: Some(now.plus(POLL)),
                wake_at: 1,
            });
        }
        if let Some(keep_from) = prune {
            return Task::Prune(keep_from);
        }
        let rest_at = self.last_start.plus(REST);
        if self.tail() > 0 && now >= self.roll_up_at.max(rest_at) {
            return Task::RollUp;
        }
        if self.wal_pages > 0 && now >= rest_at && self.ask_for_a_copy() {
            self.wal_pages = 0;
        }
        let rest = (self.wal_pages > 0 || self.tail() > 0).then_some(rest_at);
        let prune = queue.keep_from.map(|_| self.prune_at);
        let until = [rest, prune].into_iter().flatten().min();
        Task::Rest(NextCommit::Wait {
            // A checkpointer that was still busy is asked again, not in a hot loop: its disk may
            // not answer.
            until: until.map(|until| until.max(now.plus(COPY_ASKED_AGAIN))),
            wake_at: 1,
        })
    }

    fn close_by(&mut self, queue: &RecordQueue, now: Mono) -> Option<Mono> {
        let patience = queue.closing?;
        Some(*self.close_by.get_or_insert(now.plus(patience)))
    }

    /// Moves the queue into the hand.
    fn take(&mut self, queue: &mut RecordQueue) -> Decision {
        // Under load there is no rest: the job of the biller comes right after this commit.
        self.chore = self.chore.take().or_else(|| queue.chore.take());
        if self.held.is_empty() {
            // Both keep the room that they once needed.
            std::mem::swap(&mut self.held, &mut queue.records);
            std::mem::swap(&mut self.colours, &mut queue.colours);
        } else {
            self.hold(queue);
        }
        let batch = std::mem::replace(&mut queue.batch, Batch::new());
        let next_seq = self.shared.last_seq.load(Ordering::Acquire) + 1;
        queue.writing = queue.oldest.take().map(|since| Writing {
            since,
            batch: batch.clone(),
            uncertain: Uncertain::new(next_seq, &self.held),
        });
        self.prunes = queue.keep_from.is_some();
        Decision::new(batch)
    }

    /// Holds what is queued behind what is held.
    fn hold(&mut self, queue: &mut RecordQueue) {
        self.held.append(&mut queue.records);
        self.colours.append(&mut queue.colours);
    }

    /// Writes what is held. On an error its calls are still to be told so.
    fn write(&mut self, now: Mono, decision: Decision) -> Result<(), (LedgerError, Decision)> {
        self.load
            .commit(self.held.len(), now.since(self.last_start));
        self.last_start = now;
        if let Err(error) = self.commit(now) {
            return Err((error, decision));
        }
        if decision.synced() {
            self.recorded();
            decision.durable();
            return Ok(());
        }
        // Its calls were told an error while the disk did not answer.
        self.fail_held();
        self.resolve_uncertain().map_err(|error| (error, decision))
    }

    /// Commits all records that are held. [`Writer::recorded`] must follow when they are durable.
    fn commit(&mut self, now: Mono) -> Result<(), LedgerError> {
        let run = self.target.run;
        let store = match &mut self.store {
            Some(store) => store,
            none => none.insert(Store::reopen(&self.target.path, &self.known)?),
        };
        let batch = Uncertain::new(store.next_seq(), &self.held);
        self.uncertain = batch.map(|batch| UncertainBatch {
            batch,
            started: now,
        });
        store.commit(run, &self.held)
    }

    /// Makes the held records `gate_failed`: no call was answered. A relaxed ledger answered them
    /// all.
    fn fail_held(&mut self) {
        if self.shared.durability == Durability::Strict {
            self.held = std::mem::take(&mut self.held)
                .into_iter()
                .map(Record::into_gate_failed)
                .collect();
        }
    }

    /// Asks the file whether the batch whose fate is uncertain was committed, and if so makes its
    /// rows say what is held.
    fn resolve_uncertain(&mut self) -> Result<(), LedgerError> {
        let (Some(UncertainBatch { batch, .. }), Some(store)) = (self.uncertain, &mut self.store)
        else {
            return Ok(());
        };
        if store.holds(batch.first_seq, batch.first)? {
            store.correct(batch.first_seq, &self.held[..batch.records])?;
            self.recorded();
        }
        self.uncertain = None;
        remove_note(&self.target.path);
        Ok(())
    }

    /// Lets go of the records that are in the ledger now.
    fn recorded(&mut self) {
        let Some(UncertainBatch { batch, started }) = self.uncertain.take() else {
            return;
        };
        let mut committed = Committed {
            duration: self.clock.mono().since(started),
            records: [0; Outcome::ALL.len()],
        };
        let count = i64::try_from(batch.records).unwrap_or(i64::MAX);
        let last_seq = batch.first_seq + count - 1;
        for record in &self.held[..batch.records] {
            committed.records[record.outcome as usize] += 1;
        }
        if let Some(last) = self.held.drain(..batch.records).next_back() {
            self.known.last = Some((last_seq, last.id));
        }
        let shared = &self.shared;
        shared.last_seq.store(last_seq, Ordering::Release);
        shared
            .last_commit_at_us
            .store(self.clock.utc().0, Ordering::Release);
        // After the seq: who sees that a slot is back must see its record.
        shared.pending.give_all_back(&self.colours[..batch.records]);
        self.colours.drain(..batch.records);
        // A commit writes the page that it begins in, and some eighty rows fill one.
        self.wal_pages += 1 + batch.records.div_ceil(64);
        (self.on_commit)(&committed);
    }

    /// Leaves one file without a WAL, where the disk lets it. Otherwise nothing is lost: the next
    /// start reads the WAL.
    fn end(&mut self) {
        let mut error = None;
        while self.tail() > 0 && error.is_none() {
            error = self.roll_up(Mono::default());
            if self.store.is_none() {
                // It was put off: the next start does it.
                break;
            }
        }
        self.checkpointer.stop();
        error = error.or_else(|| self.shared.queue.lock().failure.take());
        let Some(store) = self.store.take() else {
            return;
        };
        let copied = match error {
            Some(error) => Err(error),
            None => store.checkpoint("TRUNCATE").map_err(LedgerError::from),
        };
        match copied.and_then(|()| store.close_without_wal()) {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "the WAL could not be copied into the ledger at the end");
            }
        }
    }
}
