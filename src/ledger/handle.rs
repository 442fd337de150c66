//! The ledger as a handle: opened, asked for slots and chores, closed.

use crate::ledger::checkpoint::Checkpointer;
use crate::ledger::error::io_error;
use crate::ledger::files::{claim, suffixed};
use crate::ledger::header::{self, FileKind};
use crate::ledger::job::{Frozen, Job};
use crate::ledger::options::LedgerOptions;
use crate::ledger::pace::Pace;
use crate::ledger::pending::Colour;
use crate::ledger::queue::{CLOSED, HEALTHY, LedgerShared, SlotHome};
use crate::ledger::running::FactGuard;
use crate::ledger::stall::watch;
use crate::ledger::store::Store;
use crate::ledger::turns::Turns;
use crate::ledger::writer::{WriteTarget, Writer};
use crate::ledger::{
    CloseError, Committed, Entry, LedgerError, Reader, Seal, Slot, StoreError, Trouble, repair,
    running, schema, seal, uncertain,
};
use crate::model::{Clock, Durability, Utc};
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Figures for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LedgerStats {
    /// The slots that are taken: calls in flight and records that are not durable yet.
    pub pending: usize,
    /// The size of the file without its WAL.
    pub bytes: u64,
    /// The size of the WAL file.
    pub wal_bytes: u64,
    /// The space on the disk that this process may still write.
    pub free_bytes: u64,
    /// The newest durable seq; 0 before the first.
    pub last_seq: u64,
    /// The instant at which the last commit ended. `None` before the first of this run.
    pub last_commit_at: Option<Utc>,
}

/// How much longer than its patience [`Ledger::close`] waits for a writer that is in a call to the
/// disk.
const GRACE: Duration = Duration::from_secs(1);

/// Creates an empty ledger where there is no file. Logs nothing.
pub(crate) fn create(path: &Path) -> Result<(), LedgerError> {
    let (path, _lock) = claim(path, true)?;
    let connection = rusqlite::Connection::open(&path)?;
    match header::identify(&connection)? {
        FileKind::Empty => Ok(schema::create(&connection)?),
        _ => Err(LedgerError::Exists(path)),
    }
}

/// The open ledger. Any number of threads may reserve and commit.
#[derive(Debug)]
pub struct Ledger {
    pub(super) shared: Arc<LedgerShared>,
    /// Where slots come from, by colour.
    slots: [Arc<SlotHome>; 2],
    path: PathBuf,
    wal_path: PathBuf,
    created_at: Utc,
    pub(super) turns: Mutex<Turns>,
    /// One chore of the biller at a time: the others wait for it here.
    chores: Mutex<()>,
    /// One day is sealed at a time: it takes two chores, and what lies between.
    sealing: Mutex<()>,
    /// Held as long as the process may write. Released by the operating system however it ends.
    lock: Mutex<Option<RunningWriter>>,
}

#[derive(Debug)]
struct RunningWriter {
    writer: JoinHandle<()>,
    /// Gives the number of unrecorded calls when the writer's thread ends. Nothing comes when it
    /// panicked.
    ended: Receiver<usize>,
    /// Tells readers of this process which ledger they must find at the path.
    _written: FactGuard,
    _lock: File,
}

impl Ledger {
    /// Takes the exclusive lock, opens or creates the file, notes a new run, starts the writer.
    ///
    /// The lock is on `<real path>.lock`, so that two names of one file meet (not two hard links).
    /// `on_commit` is called by the writer thread after each commit and must be quick.
    pub fn open(
        options: LedgerOptions,
        clock: Clock,
        on_commit: impl Fn(&Committed) + Send + 'static,
    ) -> Result<Self, LedgerError> {
        Self::open_with(options, clock, on_commit, Pace::REAL)
    }

    pub(super) fn open_with(
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
        uncertain::resolve_noted(&path, |uncertain| Ok(store.fail_uncertain(uncertain)?))?;
        let target = WriteTarget {
            path: path.clone(),
            run: store.begin_run(&options.replica, clock.utc())?,
            pace,
        };
        let (created_at, known) = (store.created_at()?, store.known()?);
        let shared = Arc::new(LedgerShared::new(
            &options,
            store.next_seq() - 1,
            store.last_record()?,
        ));
        let written = running::written(&path, known.identity.clone(), shared.clone());
        let failed = {
            let shared = shared.clone();
            move |error| shared.disk_failed(error)
        };
        let checkpointer = Checkpointer::start(path.clone(), failed).map_err(io_error(&path))?;
        let writer = Writer::new(
            shared.clone(),
            clock.clone(),
            target,
            (store, known),
            checkpointer,
            Box::new(on_commit),
        );
        let (writer, ended) = start_writer(writer).map_err(io_error(&path))?;
        start_watch(
            shared.clone(),
            path.clone(),
            clock,
            stall_after(&options, pace),
        )?;
        Ok(Self {
            slots: Colour::BOTH.map(|colour| {
                let shared = shared.clone();
                Arc::new(SlotHome { shared, colour })
            }),
            shared,
            wal_path: suffixed(&path, "-wal"),
            path,
            created_at,
            turns: Mutex::default(),
            chores: Mutex::default(),
            sealing: Mutex::default(),
            lock: Mutex::new(Some(RunningWriter {
                writer,
                ended,
                _written: written,
                _lock: lock,
            })),
        })
    }

    /// Capacity for one record, to be taken before its call is admitted. On an error the call must
    /// be refused before it reaches the upstream.
    pub fn reserve(&self) -> Result<Slot, Trouble> {
        let shared = &self.shared;
        match shared.health.load(Ordering::Acquire) {
            HEALTHY => {}
            CLOSED => return Err(Trouble::Closed),
            _ => return Err(Trouble::Failing),
        }
        let colour = shared.pending.take(shared.pending_limit);
        let colour = colour.ok_or(Trouble::Full)?;
        Ok(Slot(Some(self.slots[colour as usize].clone())))
    }

    /// The real path of the file, for a [`Reader`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the ledger for reading. Where that fails the writer checks its files too, since
    /// perhaps no call comes that makes it do so. Blocks: not for the way of a call.
    pub fn reader(&self) -> Result<Reader, LedgerError> {
        Reader::open(&self.path).inspect_err(|_| {
            // The writer logs what it finds.
            let _ = self.keep(Vec::new());
        })
    }

    /// The instant at which the first process opened the ledger.
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

    /// Figures for metrics. Asks the file system: not for the way of a call. An unknown size is 0.
    pub fn stats(&self) -> LedgerStats {
        let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let last_commit_at_us = self.shared.last_commit_at_us.load(Ordering::Acquire);
        LedgerStats {
            pending: self.shared.pending.count(),
            bytes: size(&self.path),
            wal_bytes: size(&self.wal_path),
            free_bytes: rustix::fs::statvfs(&self.path)
                .map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            last_seq: u64::try_from(self.shared.last_seq.load(Ordering::Acquire)).unwrap_or(0),
            last_commit_at: (last_commit_at_us != i64::MIN).then_some(Utc(last_commit_at_us)),
        }
    }

    /// The newest durable seq; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        u64::try_from(self.shared.last_seq.load(Ordering::Acquire)).unwrap_or(0)
    }

    /// The slots that are taken: calls in flight and records that are not durable yet.
    pub fn pending(&self) -> usize {
        self.shared.pending.count()
    }

    /// Lets the writer delete the records that were admitted before `keep_from`, oldest first, in
    /// small steps between commits. Records of an unsettled month are kept. It stops at the first
    /// record that must be kept, so that what is kept is always one run of seqs. The rollup keeps
    /// all.
    pub fn prune(&self, keep_from: Utc) {
        let mut queue = self.shared.queue.lock();
        queue.keep_from = Some(keep_from);
        self.shared.ask(&mut queue);
    }

    /// Counts and links all records that are committed and seals `day` with the newest of them,
    /// unless it is sealed already: then it gives that seal. Days are sealed in order; each begins
    /// after the one sealed before, so a day that was left out is part of the next. Blocks: not for
    /// the way of a call.
    ///
    /// The seal stands for the records, for the rows of the roll-up, and for all that was sealed
    /// before.
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
            .and_then(|reader| Ok(seal::hours(&reader.connection, after, last_seq)?));
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

    /// Writes all entries, which are durable when it returns. On an error none of them is known to
    /// be written. An entry that the ledger has already stays as it is. Blocks: not for the way of
    /// a call.
    pub fn keep(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.ask(|reply| Job::Keep { entries, reply })
    }

    /// Asks the writer for a chore, and waits until it was done between two commits.
    pub(super) fn ask<T>(
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
        // A writer that died drops the job, and the channel closes.
        answer.recv().unwrap_or(Err(Trouble::Closed.into()))
    }

    /// Writes the queued records, and waits up to `patience` for the slots that are still taken
    /// and, in trouble, for the file. Then it copies the WAL into the file and lets go of it. New
    /// slots and late commits are refused. Blocks, and hardly longer than `patience` even when the
    /// disk does not answer: then the writer's thread is left behind, and the next start reads the
    /// WAL. A second call does nothing.
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
                let pending = self.shared.pending.count();
                Err(CloseError::DiskHangs(pending))
            }
        }
    }
}

fn thread(name: &str) -> std::thread::Builder {
    std::thread::Builder::new().name(name.into())
}

/// Starts the thread that writes. It gives the number of unrecorded calls when it ends.
fn start_writer(writer: Writer) -> io::Result<(JoinHandle<()>, Receiver<usize>)> {
    let (end, ended) = sync_channel(1);
    let writer = thread("ledger").spawn(move || {
        // Nobody may wait for the end any more.
        let _ = end.send(writer.run());
    });
    Ok((writer?, ended))
}

/// How long a record may wait before that is trouble.
fn stall_after(options: &LedgerOptions, pace: Pace) -> Duration {
    match options.durability {
        // A relaxed ledger lets records wait on purpose.
        Durability::Relaxed => options.stall_after.saturating_add(pace.gather),
        Durability::Strict => options.stall_after,
    }
}

/// Starts the thread that tells the calls when the disk does not answer.
fn start_watch(
    shared: Arc<LedgerShared>,
    path: PathBuf,
    clock: Clock,
    stall_after: Duration,
) -> Result<(), LedgerError> {
    let watched = path.clone();
    thread("ledger-watch")
        .spawn(move || watch(&shared, &watched, &clock, stall_after))
        .map(drop)
        .map_err(io_error(&path))
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if let Err(error) = self.close(Duration::ZERO) {
            tracing::error!(%error, "the ledger was dropped before it was closed");
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
