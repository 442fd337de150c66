//! The ledger: every admitted call, durable and readable with SQL (P3), and what was billed from it.
//!
//! Owns the SQLite file, its lock and the one thread that writes it; the only rusqlite. Must never block
//! a caller on the disk, hold more than `pending_limit` records, bill what it told a caller it could not count, or change
//! a record or a statement that was fixed.
//!
//! The file itself is described at the end of this page.
//!
//! # Checkpoints
//! A commit appends to the WAL and syncs that alone. Copying the WAL back into the file (a checkpoint)
//! costs milliseconds, so it is done by a thread of its own, with a connection of its own, while commits go on:
//! when the WAL has grown by some 4 MiB, or after a second of rest. Under load new commits arrive
//! meanwhile, and SQLite starts the WAL over only when all of it was copied: so the writer
//! then copies the little that came since. Otherwise the WAL would grow for ever. No connection copies the WAL when it is
//! closed, save the last one of an orderly end.
//!
//! # Errors of the disk
//! After `SQLITE_IOERR`, `SQLITE_CORRUPT` or `SQLITE_NOTADB` of a commit, a roll-up, a seal, a step of pruning or a checkpoint the
//! ledger is suspect: calls are refused, nothing is written and nothing is copied until `repair` has made it sound, which it
//! tries each second. It also runs at a start that finds a WAL which is not empty, for nobody knows what the process before
//! was told. A disk that does not answer within `stall_after` is trouble as well, without a repair: what it answers in
//! the end decides.
#![doc = ""]
#![doc = include_str!("SCHEMA.md")]

mod chain;
mod checkpoint;
mod commit;
mod count;
mod error;
mod files;
mod keep;
mod known;
mod migrate;
mod pace;
mod read;
mod repair;
mod restore;
mod running;
mod schema;
mod seal;
mod stall;
mod store;
mod uncertain;
mod verify;
mod watch;
mod writer;

pub use commit::{Commit, NotDurable};
pub use count::UsageLine;
pub use error::LedgerError;
pub use keep::{
    Debit, Entry, Seal, Settlement, StatementsDigest, StoreError, StoredNotice, StoredStatement,
};
pub use read::{Cursor, ReadError, Reader, StoredRecord, backup};
pub use restore::{Restored, restore};
pub use verify::{Mismatch, Verified};
pub use watch::ClockWatch;

use crate::model::{Clock, Durability, Mono, Outcome, Utc};
use crate::usage::Record;
use checkpoint::Checkpointer;
use commit::Batch;
use error::io_error;
use files::{claim, suffixed};
use keep::Job;
use pace::Pace;
use parking_lot::{Condvar, Mutex};
use running::Told;
use stall::watch;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use store::{Frozen, Store};
use uncertain::Uncertain;
use writer::{Place, Writer};

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Where and how records are kept.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// The SQLite file. Missing directories are created.
    pub path: PathBuf,
    /// What an answer waits for.
    pub durability: Durability,
    /// The name of this replica, written to each record; may be empty.
    pub replica: String,
    /// Whether a missing ledger is created. Otherwise it is an error: a volume that is not mounted would look like one.
    pub create: bool,
    /// How many slots may be out at once: calls in flight and records that are not durable yet.
    pub pending_limit: usize,
    /// How long a record may wait for the disk before that is trouble.
    pub stall_after: Duration,
}

/// Why no slot can be had. The call must be refused before it reaches the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Trouble {
    /// The file cannot be written: disk full, I/O error, held by another program, or a disk that does not answer. It is tried
    /// again each second.
    #[error("the ledger cannot be written")]
    Failing,
    /// `pending_limit` slots are out.
    #[error("too many calls wait for the ledger")]
    Full,
    /// [`Ledger::close`] was called.
    #[error("the ledger is closed")]
    Closed,
}

/// What was lost when the ledger was closed. None of it was promised to anybody in strict mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CloseError {
    /// The patience ran out: so many slots were still out, or so many records could not be written.
    #[error("{0} calls are not in the ledger")]
    Unrecorded(usize),
    /// The disk does not answer. So many slots were out; what the calls were promised is in the WAL.
    #[error("the disk does not answer; {0} calls are not in the ledger as far as is known")]
    DiskHangs(usize),
    /// The writer thread panicked. What it had not promised as durable is lost.
    #[error("the ledger's writer failed")]
    WriterDied,
}

/// One group commit, for `ledger_commit_seconds` and `records_total`.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// From the begin of the transaction until it was durable.
    pub duration: Duration,
    /// How many records became durable, in the order of [`Outcome::ALL`].
    pub records: [u64; Outcome::ALL.len()],
}

/// Figures for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LedgerStats {
    /// Slots that are out: calls in flight and records that are not durable yet.
    pub pending: usize,
    /// Size of the file without its WAL.
    pub bytes: u64,
    /// Size of the WAL file.
    pub wal_bytes: u64,
    /// What this process may still write on the disk.
    pub free_bytes: u64,
    /// The newest durable seq; 0 before the first.
    pub last_seq: u64,
    /// When the last commit ended; `None` before the first of this run.
    pub last_commit_at: Option<Utc>,
}

const HEALTHY: u8 = 0;
const FAILING: u8 = 1;
const CLOSED: u8 = 2;
/// The writer is in a call to the disk that takes too long. It ends with the call.
const STALLED: u8 = 3;

/// How much longer than its patience [`Ledger::close`] waits for a writer that is in a call to the disk.
const GRACE: Duration = Duration::from_secs(1);

/// What callers and the writer share.
#[derive(Debug)]
struct Shared {
    pending_limit: usize,
    durability: Durability,
    /// Slots that are out. Only grows below `pending_limit`, so that the queue needs no bound of its own.
    pending: AtomicUsize,
    /// Changes only under the lock of `queue`.
    health: AtomicU8,
    queue: Mutex<Queue>,
    /// Tells the writer: something was queued while it slept, or a wish changed.
    wake: Condvar,
    /// Tells the thread that watches the disk that the writer has ended.
    watch: Condvar,
    last_seq: AtomicI64,
    last_commit_at_us: AtomicI64,
}

#[derive(Debug)]
struct Queue {
    records: Vec<Record>,
    /// Shared by the records that are queued now.
    batch: Arc<Batch>,
    /// Since when the first of them waits whose call was not told an error.
    oldest: Option<Mono>,
    /// What the writer has in hand.
    writing: Option<Writing>,
    /// Something was asked for besides a commit.
    asked: bool,
    /// At how many records the writer wants to be told: 1 when it sleeps, more when it lets a batch gather.
    wake_at: usize,
    /// Records admitted before this may be deleted.
    keep_from: Option<Utc>,
    /// What the biller asked for, until the writer gets to it.
    chore: Option<Job>,
    /// An error of the disk that another thread met, until the writer gets to it.
    failure: Option<LedgerError>,
    /// Set by `close`: how long to wait for the slots that are out.
    closing: Option<Duration>,
}

/// Records that are being written.
#[derive(Debug)]
struct Writing {
    /// Since when the first of them waits.
    since: Mono,
    /// What their calls wait for.
    batch: Arc<Batch>,
    uncertain: Option<Uncertain>,
}

/// Makes an empty ledger where there is no file, without a word.
pub fn create(path: &Path) -> Result<(), LedgerError> {
    let (path, _lock) = claim(path, true)?;
    let connection = rusqlite::Connection::open(&path)?;
    match schema::identify(&connection)? {
        schema::Kind::Empty => Ok(schema::create(&connection)?),
        _ => Err(LedgerError::Exists(path)),
    }
}

/// The open ledger. Any number of threads may reserve and commit.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    path: PathBuf,
    wal_path: PathBuf,
    created_at: Utc,
    /// One chore of the biller at a time: the others wait for it here.
    chores: Mutex<()>,
    /// One day is sealed at a time: it takes two chores, and what lies between.
    sealing: Mutex<()>,
    /// Held as long as the process may write. Released by the operating system however it ends.
    lock: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    writer: JoinHandle<()>,
    /// What the writer's thread ends with; nothing when it panicked.
    ended: Receiver<usize>,
    /// What readers of this process must find at the path.
    _written: Told,
    _lock: File,
}

impl Shared {
    /// The disk does not answer: whoever waits for it is told an error, and their records say so should they be written. Gives
    /// those that may be in the file as answered.
    fn stall(&self, queue: &mut Queue) -> Option<Uncertain> {
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
    fn disk_failed(&self, error: LedgerError) {
        let mut queue = self.queue.lock();
        queue.failure = Some(error);
        self.ask(&mut queue);
    }

    /// Wakes the writer for something else than a commit.
    fn ask(&self, queue: &mut Queue) {
        queue.asked = true;
        self.wake.notify_one();
    }
}

impl Ledger {
    /// Takes the exclusive lock, opens or creates the file, notes a new run, starts the writer.
    ///
    /// The lock is on `<real path>.lock`, so that two names of one file meet (not two hard links). `on_commit` is called by the writer
    /// thread after each commit and must be quick.
    pub fn open(
        options: LedgerOptions,
        clock: Clock,
        on_commit: impl Fn(&Committed) + Send + 'static,
    ) -> Result<Self, LedgerError> {
        Self::open_with(options, clock, on_commit, Pace::REAL)
    }

    fn open_with(
        options: LedgerOptions,
        clock: Clock,
        on_commit: impl Fn(&Committed) + Send + 'static,
        pace: Pace,
    ) -> Result<Self, LedgerError> {
        let (path, lock) = claim(&options.path, options.create)?;
        if fs::metadata(&path).map_err(io_error(&path))?.len() == 0 {
            tracing::warn!(
                path = %path.display(),
                "there is no ledger: an empty one is created, and all counts begin at zero"
            );
        }
        repair::at_start(&path)?;
        let mut store = Store::open(&path, true)?;
        uncertain::resolve_noted(&mut store, &path)?;
        let place = Place {
            path: path.clone(),
            run: store.begin_run(&options.replica, clock.utc())?,
            pace,
        };
        let (created_at, known) = (store.created_at()?, store.known()?);
        let shared = Arc::new(Shared {
            pending_limit: options.pending_limit,
            durability: options.durability,
            pending: AtomicUsize::new(0),
            health: AtomicU8::new(HEALTHY),
            queue: Mutex::new(Queue {
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
            last_seq: AtomicI64::new(store.next_seq() - 1),
            last_commit_at_us: AtomicI64::new(i64::MIN),
        });
        let written = running::written(&path, known.identity.clone(), shared.clone());
        let failed = {
            let shared = shared.clone();
            move |error| shared.disk_failed(error)
        };
        let checkpointer = Checkpointer::start(path.clone(), failed).map_err(io_error(&path))?;
        let writer = Writer::new(
            shared.clone(),
            clock.clone(),
            place,
            (store, known),
            checkpointer,
            Box::new(on_commit),
        );
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let (end, ended) = sync_channel(1);
        let writer = thread("ledger")
            // Nobody may wait for the end any more.
            .spawn(move || {
                let _ = end.send(writer.run());
            })
            .map_err(io_error(&path))?;
        // A relaxed ledger lets records wait on purpose.
        let gather = match options.durability {
            Durability::Relaxed => pace.gather,
            Durability::Strict => Duration::ZERO,
        };
        let (watched, stall_after) = (shared.clone(), options.stall_after.saturating_add(gather));
        let watched_path = path.clone();
        thread("ledger-watch")
            .spawn(move || watch(&watched, &watched_path, &clock, stall_after))
            .map_err(io_error(&path))?;
        Ok(Self {
            shared,
            wal_path: suffixed(&path, "-wal"),
            path,
            created_at,
            chores: Mutex::default(),
            sealing: Mutex::default(),
            lock: Mutex::new(Some(Running {
                writer,
                ended,
                _written: written,
                _lock: lock,
            })),
        })
    }

    /// Capacity for one record, to be taken before its call is admitted. On an error the call must be
    /// refused before it reaches the upstream.
    pub fn reserve(&self) -> Result<Slot, Trouble> {
        let shared = &self.shared;
        match shared.health.load(Ordering::Acquire) {
            HEALTHY => {}
            CLOSED => return Err(Trouble::Closed),
            _ => return Err(Trouble::Failing),
        }
        shared
            .pending
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |pending| {
                (pending < shared.pending_limit).then_some(pending + 1)
            })
            .map_err(|_| Trouble::Full)?;
        Ok(Slot(Some(shared.clone())))
    }

    /// The real path of the file, for a [`Reader`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it for reading. Where that fails, the writer looks at its files too: it may be that no call comes which would have
    /// it do so. Blocks: not for the way of a call.
    pub fn reader(&self) -> Result<Reader, LedgerError> {
        Reader::open(&self.path).inspect_err(|_| {
            // What it finds it tells itself.
            let _ = self.keep(Vec::new());
        })
    }

    /// When the first process opened it.
    pub fn created_at(&self) -> Utc {
        self.created_at
    }

    /// Whether new calls can be counted, as far as is known.
    pub fn healthy(&self) -> bool {
        self.shared.health.load(Ordering::Acquire) == HEALTHY
    }

    /// Whether the writer has ended: no call can be counted until the process is started again.
    pub fn is_closed(&self) -> bool {
        self.shared.health.load(Ordering::Acquire) == CLOSED
    }

    /// Figures for metrics. Asks the file system: not for the way of a call. What it will not tell is 0.
    pub fn stats(&self) -> LedgerStats {
        let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let last_commit_at_us = self.shared.last_commit_at_us.load(Ordering::Acquire);
        LedgerStats {
            pending: self.shared.pending.load(Ordering::Acquire),
            bytes: size(&self.path),
            wal_bytes: size(&self.wal_path),
            free_bytes: rustix::fs::statvfs(&self.path)
                .map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            last_seq: u64::try_from(self.shared.last_seq.load(Ordering::Acquire)).unwrap_or(0),
            last_commit_at: (last_commit_at_us != i64::MIN).then_some(Utc(last_commit_at_us)),
        }
    }

    /// Lets the writer delete the records that were admitted before `keep_from`, oldest first, in small steps between
    /// commits. The caller sees to it that no unsettled month is among them. It stops at the first record that must be
    /// kept, so that what is kept is always one run of seqs. The rollup keeps all.
    pub fn prune(&self, keep_from: Utc) {
        let mut queue = self.shared.queue.lock();
        queue.keep_from = Some(keep_from);
        self.shared.ask(&mut queue);
    }

    /// Counts and links all records that are committed and seals `day` with the newest of them, unless it is sealed already:
    /// then it gives that seal. Days are sealed in order; each begins after the one sealed before, so a day that was
    /// left out is part of the next. Blocks: not for the way of a call.
    ///
    /// The seal stands for the records, for the rows of the roll-up, and for all that was sealed before.
    pub fn seal(&self, day: &str) -> Result<Seal, StoreError> {
        let _turn = self.sealing.lock();
        let day = day.to_owned();
        let frozen = self.ask(|reply| Job::Freeze {
            day: day.clone(),
            reply,
        })?;
        let (after, last_seq) = match frozen {
            Frozen::Sealed(seal) => return Ok(seal),
            Frozen::Rows { after, last_seq } => (after, last_seq),
        };
        // On this thread: there may be millions of them, and no commit waits.
        let read = Reader::open(&self.path)
            .and_then(|reader| Ok(seal::hours(&reader.0, after, last_seq)?));
        let hours = match read {
            Err(error) if error.is_suspect() => {
                self.shared.disk_failed(error);
                return Err(Trouble::Failing.into());
            }
            read => read?,
        };
        self.ask(|reply| Job::Seal {
            day,
            last_seq,
            hours,
            reply,
        })
    }

    /// Writes all entries or, on an error, none of them as far as is known. Durable when it returns. What stands there already
    /// stays as it is. Blocks: not for the way of a call.
    pub fn keep(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.ask(|reply| Job::Keep { entries, reply })
    }

    /// Asks the writer for a chore, and waits until it was done between two commits.
    fn ask<T>(
        &self,
        chore: impl FnOnce(SyncSender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let _turn = self.chores.lock();
        let (reply, answer) = sync_channel(1);
        {
            let mut queue = self.shared.queue.lock();
            match self.shared.health.load(Ordering::Acquire) {
                HEALTHY => queue.chore = Some(chore(reply)),
                CLOSED => return Err(Trouble::Closed.into()),
                _ => return Err(Trouble::Failing.into()),
            }
            self.shared.ask(&mut queue);
        }
        // A writer that died drops the chore, and with it the other end.
        answer.recv().unwrap_or(Err(Trouble::Closed.into()))
    }

    /// Writes what is queued, waits up to `patience` for the slots that are still out (and, in trouble, for
    /// the file), then copies the WAL into the file and lets go of it. New slots and late commits are
    /// refused. Blocks, and hardly longer than `patience` even when the disk does not answer: then the writer's thread is left
    /// behind, and the next start reads the WAL. A second call does nothing.
    pub fn close(&self, patience: Duration) -> Result<(), CloseError> {
        let Some(running) = self.lock.lock().take() else {
            return Ok(());
        };
        {
            let mut queue = self.shared.queue.lock();
            queue.closing = Some(patience);
            self.shared.ask(&mut queue);
        }
        match running.ended.recv_timeout(patience.saturating_add(GRACE)) {
            Ok(unrecorded) => {
                // It has ended but for its last instruction; the lock is let go of after it.
                let _ = running.writer.join();
                match unrecorded {
                    0 => Ok(()),
                    unrecorded => Err(CloseError::Unrecorded(unrecorded)),
                }
            }
            Err(RecvTimeoutError::Disconnected) => Err(CloseError::WriterDied),
            Err(RecvTimeoutError::Timeout) => {
                // The lock stays with the process: its writer may still write.
                std::mem::forget(running);
                let pending = self.shared.pending.load(Ordering::Acquire);
                Err(CloseError::DiskHangs(pending))
            }
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if let Err(error) = self.close(Duration::ZERO) {
            tracing::error!(%error, "the ledger was dropped before it was closed");
        }
    }
}

/// Capacity for one record. Dropping it gives the capacity back.
#[must_use = "a slot that is dropped records nothing"]
#[derive(Debug)]
pub struct Slot(Option<Arc<Shared>>);

impl Slot {
    /// Hands the record to the writer. Never waits for the disk, so it may be called from a `drop`.
    ///
    /// When the ledger is in trouble the commit is [`NotDurable`] at once, and the record is kept as `gate_failed`
    /// until it can be written.
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

#[cfg(test)]
mod tests;
