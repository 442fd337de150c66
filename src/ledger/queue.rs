//! The way of a record to the writer: a slot is taken, filled and queued.
//!
//! Owns what the workers and the ledger's threads share. Must never wait for the disk.

use crate::ledger::commit::Batch;
use crate::ledger::job::Job;
use crate::ledger::record::Record;
use crate::ledger::uncertain::Uncertain;
use crate::ledger::{Commit, LedgerError, LedgerOptions, NotDurable};
use crate::model::{Durability, Mono, Outcome, Utc};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

pub(super) const HEALTHY: u8 = 0;
pub(super) const FAILING: u8 = 1;
pub(super) const CLOSED: u8 = 2;
/// The writer is in a call to the disk that takes too long. It ends with the call.
pub(super) const STALLED: u8 = 3;

/// One group commit, for `ledger_commit_seconds` and `records_total`.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// The time from the begin of the transaction until it was durable.
    pub duration: Duration,
    /// The number of records that became durable, by outcome, in the order of [`Outcome::ALL`].
    pub records: [u64; Outcome::ALL.len()],
}

/// The state that the calls and the writer share.
#[derive(Debug)]
pub(super) struct LedgerShared {
    pub(super) pending_limit: usize,
    pub(super) durability: Durability,
    /// Slots that are out. Only grows below `pending_limit`, so that the queue needs no bound of
    /// its own.
    pub(super) pending: AtomicUsize,
    /// Changes only under the lock of `queue`.
    pub(super) health: AtomicU8,
    pub(super) queue: Mutex<RecordQueue>,
    /// Tells the writer: something was queued while it slept, or a wish changed.
    pub(super) wake: Condvar,
    /// Tells the thread that watches the disk that the writer has ended.
    pub(super) watch: Condvar,
    pub(super) last_seq: AtomicI64,
    pub(super) last_commit_at_us: AtomicI64,
}

#[derive(Debug)]
pub(super) struct RecordQueue {
    pub(super) records: Vec<Record>,
    /// The batch of the records that are queued now.
    pub(super) batch: Arc<Batch>,
    /// The end of the oldest queued call that was not told an error: its record waits since then.
    pub(super) oldest: Option<Mono>,
    /// The batch that the writer is writing.
    pub(super) writing: Option<Writing>,
    /// The writer was asked for something besides a commit.
    pub(super) asked: bool,
    /// At how many records the writer wants to be told: 1 when it sleeps, more when it lets a batch
    /// gather.
    pub(super) wake_at: usize,
    /// Records admitted before this may be deleted.
    pub(super) keep_from: Option<Utc>,
    /// The job of the biller that waits for the writer.
    pub(super) chore: Option<Job>,
    /// An error of the disk that another thread met, until the writer gets to it.
    pub(super) failure: Option<LedgerError>,
    /// Set by `close`: how long to wait for the slots that are out.
    pub(super) closing: Option<Duration>,
}

impl LedgerShared {
    /// The state of a ledger that was just opened. Its newest record is `last_seq`.
    pub(super) fn new(options: &LedgerOptions, last_seq: i64) -> Self {
        Self {
            pending_limit: options.pending_limit,
            durability: options.durability,
            pending: AtomicUsize::new(0),
            health: AtomicU8::new(HEALTHY),
            queue: Mutex::new(RecordQueue {
                records: Vec::new(),
                batch: Batch::new(),
                oldest: None,
                writing: None,
                asked: false,
                wake_at: usize::MAX,
                keep_from: None,
                chore: None,
                failure: None,
                closing: None,
            }),
            wake: Condvar::new(),
            watch: Condvar::new(),
            last_seq: AtomicI64::new(last_seq),
            last_commit_at_us: AtomicI64::new(i64::MIN),
        }
    }

    /// The disk does not answer. The calls that wait are told an error, and their records become
    /// `gate_failed`. Gives the batch that may be in the file as answered.
    pub(super) fn stall(&self, queue: &mut RecordQueue) -> Option<Uncertain> {
        self.health.store(STALLED, Ordering::Release);
        let given_up = queue.writing.as_ref().filter(|it| it.batch.give_up());
        let uncertain = given_up.and_then(|it| it.uncertain);
        std::mem::replace(&mut queue.batch, Batch::new()).give_up();
        // Else the next commit would look as old, and stall again.
        queue.oldest = None;
        if self.durability == Durability::Relaxed {
            // They were answered long ago.
            return None;
        }
        queue.records = std::mem::take(&mut queue.records)
            .into_iter()
            .map(Record::into_gate_failed)
            .collect();
        uncertain
    }

    /// Tells the writer of an error that makes the ledger suspect. It was met by another thread.
    pub(super) fn disk_failed(&self, error: LedgerError) {
        let mut queue = self.queue.lock();
        queue.failure = Some(error);
        self.ask(&mut queue);
    }

    /// Wakes the writer for something else than a commit.
    pub(super) fn ask(&self, queue: &mut RecordQueue) {
        queue.asked = true;
        self.wake.notify_one();
    }
}

/// Capacity for one record. Dropping it gives the capacity back.
#[must_use = "a slot that is dropped records nothing"]
#[derive(Debug)]
pub struct Slot(pub(super) Option<Arc<LedgerShared>>);

impl Slot {
    /// Hands the record to the writer. Never waits for the disk, so it may be called from a `drop`.
    ///
    /// When the ledger is in trouble the commit is [`NotDurable`] at once, and the record is kept
    /// as `gate_failed` until it can be written.
    pub fn commit(mut self, record: Record) -> Commit {
        let Some(shared) = self.0.take() else {
            return Commit::known(Err(NotDurable));
        };
        let mut queue = shared.queue.lock();
        match shared.health.load(Ordering::Acquire) {
            HEALTHY => {}
            CLOSED => {
                drop(queue);
                self.0 = Some(shared);
                return Commit::known(Err(NotDurable));
            }
            _ => {
                queue.records.push(record.into_gate_failed());
                return Commit::known(Err(NotDurable));
            }
        }
        // Records of calls that were told an error may be queued before it: nobody waits for those.
        if queue.oldest.is_none() {
            queue.oldest = Some(record.start.plus(record.duration));
        }
        queue.records.push(record);
        let commit = match shared.durability {
            Durability::Strict => Commit::waiting(queue.batch.clone()),
            Durability::Relaxed => Commit::known(Ok(())),
        };
        // A wake-up is a system call: only when the writer asked for it.
        let wake = queue.records.len() >= queue.wake_at;
        if wake {
            queue.wake_at = usize::MAX;
        }
        drop(queue);
        if wake {
            shared.wake.notify_one();
        }
        commit
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            let pending = shared.pending.fetch_sub(1, Ordering::AcqRel);
            debug_assert!(pending >= 1, "it was out");
        }
    }
}

/// Records that are being written.
#[derive(Debug)]
pub(super) struct Writing {
    /// The instant since which the first of them waits.
    pub(super) since: Mono,
    /// The batch whose end their calls wait for.
    pub(super) batch: Arc<Batch>,
    pub(super) uncertain: Option<Uncertain>,
}
