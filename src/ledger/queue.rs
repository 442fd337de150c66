//! The way of a record to the writer: a slot is taken, filled and queued.
//!
//! Owns what the workers and the ledger's threads share. Must never wait for the disk.

use crate::ledger::commit::Batch;
use crate::ledger::job::Job;
use crate::ledger::pending::{Colour, Pending};
use crate::ledger::record::Record;
use crate::ledger::uncertain::Uncertain;
use crate::ledger::{Commit, LedgerError, LedgerOptions, NotDurable};
use crate::model::{Durability, Mono, Outcome, Utc};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
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
    pub(super) pending: Pending,
    /// Changes only under the lock of `queue`.
    pub(super) health: AtomicU8,
    pub(super) queue: Mutex<RecordQueue>,
    /// Tells the writer: something was queued while it slept, or a wish changed.
    pub(super) wake: Condvar,
    /// Tells the thread that watches the disk that the writer has ended.
    pub(super) watch: Condvar,
    pub(super) last_seq: AtomicI64,
    /// Since when each colour is the current one, or was; the least of all before the first turn to
    /// it. It does not change while a slot of that colour is out.
    pub(super) current_since_us: [AtomicI64; 2],
    /// The newest seq when the ledger was opened, and the newest record: a restore leaves seqs out.
    opened_with: (i64, i64),
    pub(super) last_commit_at_us: AtomicI64,
    /// What holds the file open for longer than one query.
    holders: Mutex<Vec<Weak<dyn HoldsFile>>>,
}

/// Something of this process that keeps the ledger's file open between queries.
pub(super) trait HoldsFile: std::fmt::Debug + Send + Sync {
    /// Lets go of the file, which must be written again as a whole.
    fn let_go(&self);
}

#[derive(Debug)]
pub(super) struct RecordQueue {
    pub(super) records: Vec<Record>,
    /// The colours of their slots.
    pub(super) colours: Vec<Colour>,
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
    /// The state of a ledger that was just opened. Its newest seq is `last_seq`, and its newest record
    /// `last_record`.
    pub(super) fn new(options: &LedgerOptions, last_seq: i64, last_record: i64) -> Self {
        Self {
            pending_limit: options.pending_limit,
            durability: options.durability,
            pending: Pending::default(),
            health: AtomicU8::new(HEALTHY),
            queue: Mutex::new(RecordQueue {
                records: Vec::new(),
                colours: Vec::new(),
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
            current_since_us: [const { AtomicI64::new(i64::MIN) }; 2],
            opened_with: (last_seq, last_record),
            last_commit_at_us: AtomicI64::new(i64::MIN),
            holders: Mutex::default(),
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

    /// The newest durable record. It is not the newest seq as long as there is none since a restore.
    pub(super) fn last_record(&self) -> u64 {
        let last_seq = self.last_seq.load(Ordering::SeqCst);
        let (opened_with, last_record) = self.opened_with;
        let last = if last_seq == opened_with {
            last_record
        } else {
            last_seq
        };
        u64::try_from(last).unwrap_or(0)
    }

    /// Remembers what is to let go of the file before a repair.
    pub(super) fn is_held_by(&self, holder: Weak<dyn HoldsFile>) {
        let mut holders = self.holders.lock();
        holders.retain(|holder| holder.strong_count() > 0);
        holders.push(holder);
    }

    /// Makes all let go of the file that keep it open. A repair needs it for itself.
    pub(super) fn let_go_of_the_file(&self) {
        let holders = std::mem::take(&mut *self.holders.lock());
        for holder in holders.iter().filter_map(Weak::upgrade) {
            holder.let_go();
        }
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
pub struct Slot(pub(super) Option<Arc<SlotHome>>);

/// Where the slots of one colour come from. A slot is no more than a pointer: it lies in the future
/// of each call.
#[derive(Debug)]
pub(super) struct SlotHome {
    pub(super) shared: Arc<LedgerShared>,
    pub(super) colour: Colour,
}

/// By more than this a record is never dated later: then the wall clock was set back.
const DATED_LATER: Duration = Duration::from_secs(10);

impl SlotHome {
    /// The gate reads the time some microseconds before it takes the slot, and counts on from the
    /// arrival of the call. A call that takes its slot after a turn was not admitted before it.
    fn dated(&self, record: Record) -> Record {
        let since = &self.shared.current_since_us[self.colour as usize];
        let since = Utc(since.load(Ordering::SeqCst));
        let behind = since.since(record.admitted_at);
        match behind.is_zero() || behind > DATED_LATER {
            true => record,
            false => Record {
                admitted_at: since,
                ..record
            },
        }
    }
}

impl Slot {
    /// Hands the record to the writer. Never waits for the disk, so it may be called from a `drop`.
    ///
    /// When the ledger is in trouble the commit is [`NotDurable`] at once, and the record is kept
    /// as `gate_failed` until it can be written.
    pub fn commit(mut self, record: Record) -> Commit {
        let Some(slot) = self.0.take() else {
            return Commit::known(Err(NotDurable));
        };
        let record = slot.dated(record);
        let shared = &slot.shared;
        let mut queue = shared.queue.lock();
        match shared.health.load(Ordering::Acquire) {
            HEALTHY => {}
            CLOSED => {
                drop(queue);
                self.0 = Some(slot);
                return Commit::known(Err(NotDurable));
            }
            _ => {
                queue.records.push(record.into_gate_failed());
                queue.colours.push(slot.colour);
                return Commit::known(Err(NotDurable));
            }
        }
        // Records of calls that were told an error may be queued before it: nobody waits for those.
        if queue.oldest.is_none() {
            queue.oldest = Some(record.start.plus(record.duration));
        }
        queue.records.push(record);
        queue.colours.push(slot.colour);
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
        if let Some(slot) = self.0.take() {
            slot.shared.pending.give_back(slot.colour);
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
