//! The one thread that writes: group commits, trouble, pruning, checkpoints.
//!
//! Owns what happens to a record between the queue and the disk: it gets into the ledger exactly once, and what
//! its caller was told about it is what the ledger says. Must never wait for anything but the disk.
//!
//! When a commit fails, only the file knows whether it happened: so the connection is thrown away, the file opened
//! again and asked for the row that the batch began with. If it is there, the batch is durable and its
//! callers are told so. If it is not, they are told that it is not, the records become `gate_failed`, and they
//! are written when the file can be written again. If the file cannot be asked, the callers are told
//! that it is not durable, and should it turn out later that it was, the rows are corrected to `gate_failed`.
//! (Relaxed: the callers were told long ago that all is well, so the records stay what they are.)

use super::commit::{Batch, Decision};
use super::keep::Chore;
use super::known::Known;
use super::store::Store;
use super::{CLOSED, Committed, FAILING, HEALTHY, LedgerError, Queue, Shared, Trouble};
use crate::clock::Clock;
use crate::usage::Record;
use crate::words::{Durability, Mono, Outcome, Utc};
use rusqlite::{Connection, OpenFlags};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The waits and steps that tests shorten or stretch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How often a ledger in trouble is tried again (DESIGN §6).
    pub(super) probe: Duration,
    /// From the start of a commit to the start of the next when nobody waits for it (relaxed): what a crash may lose.
    pub(super) gather: Duration,
    /// How many records are rolled up at a time, and after how many under load.
    pub(super) roll_up: i64,
}

impl Pace {
    pub(super) const REAL: Self = Self {
        probe: Duration::from_secs(1),
        gather: Duration::from_millis(100),
        // Some two milliseconds in which no call is recorded. At 1,000 active accounts a shorter step writes as
        // many rows of `hours` for fewer records.
        roll_up: 4_096,
    };
}

/// From the start of a commit to the start of the next, under load and at most: a commit costs some 150 us of CPU
/// whatever is in it, most of it the sync (benches/README.md). Shared by so many calls it is a few us a call.
const GROUP_INTERVAL: Duration = Duration::from_millis(2);

/// So many records are not kept waiting for more.
const GROUP_RECORDS: usize = 64;

/// Below so many records a second a commit starts at once: there would be few to share it.
const LOADED_PER_SECOND: u128 = 4_000;

/// How many records came in how much time, the last few commits counting most.
#[derive(Clone, Copy, Default, Debug)]
struct Load {
    records: u128,
    nanos: u128,
}

impl Load {
    /// Takes in a commit of so many records and the time from the start of the one before to its own.
    fn commit(&mut self, records: usize, since_last: Duration) {
        // In 1,024ths, so that a lone record does not decay to nothing.
        self.records = self.records * 7 / 8 + records as u128 * 1_024;
        self.nanos = self.nanos * 7 / 8 + since_last.as_nanos() * 1_024;
    }

    fn is_heavy(self) -> bool {
        self.records * 1_000_000_000 >= self.nanos * LOADED_PER_SECOND && self.nanos > 0
    }
}

/// After so long without a commit the records are rolled up and the WAL is copied into the file.
const REST: Duration = Duration::from_secs(1);

/// Pages of 4 KiB in the WAL after which it is copied into the file under load.
const CHECKPOINT_PAGES: usize = 1000;

/// From one step of pruning to the next.
const PRUNE_INTERVAL: Duration = Duration::from_millis(50);

/// How soon after a failed step of pruning or of the roll-up the next is tried.
const CHORE_PAUSE: Duration = Duration::from_secs(1);

/// How often a closing ledger looks whether the last slot is back, and a resting one whether the checkpointer is.
const POLL: Duration = Duration::from_millis(2);

/// What it takes to open the file again.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) run: i64,
    pub(super) pace: Pace,
    #[cfg(test)]
    pub(super) faults: Arc<super::store::Faults>,
}

impl Place {
    fn open(&self) -> Result<Store, LedgerError> {
        Store::open(
            &self.path,
            false,
            #[cfg(test)]
            self.faults.clone(),
        )
    }
}

/// A batch that was being committed when the file was lost.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    first_seq: i64,
    /// How many of `held`, from its front.
    records: usize,
    started: Mono,
}

enum Task {
    Write(Decision),
    Chore,
    RollUp,
    Prune(Utc),
    /// With the number of calls that are not in the ledger.
    End(usize),
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    clock: Clock,
    place: Place,
    /// `None` after an error, until the file has been opened again.
    store: Option<Store>,
    /// What is durable in the file for certain: a file that is opened again must have it.
    known: Known,
    checkpointer: Checkpointer,
    on_commit: Box<dyn Fn(&Committed) + Send>,
    /// Taken from the queue and, as far as is known, not in the ledger.
    held: Vec<Record>,
    doubt: Option<Doubt>,
    /// Taken from the queue, to be done when no commit waits.
    chore: Option<Chore>,
    last_start: Mono,
    load: Load,
    /// Pages written to the WAL since a checkpoint was last asked for, roughly.
    wal_pages: usize,
    /// The checkpointer was asked under load, so that commits went on beside it.
    checkpoint_behind: bool,
    prune_at: Mono,
    roll_up_at: Mono,
    close_by: Option<Mono>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        clock: Clock,
        place: Place,
        (store, known): (Store, Known),
        checkpointer: Checkpointer,
        on_commit: Box<dyn Fn(&Committed) + Send>,
    ) -> Self {
        Self {
            shared,
            clock,
            place,
            store: Some(store),
            known,
            checkpointer,
            on_commit,
            held: Vec::new(),
            doubt: None,
            chore: None,
            last_start: Mono::default(),
            load: Load::default(),
            wal_pages: 0,
            checkpoint_behind: false,
            prune_at: Mono::default(),
            roll_up_at: Mono::default(),
            close_by: None,
        }
    }

    /// Runs until the ledger is closed; gives the number of calls that are not in the ledger.
    pub(super) fn run(mut self) -> usize {
        let _farewell = Farewell(self.shared.clone());
        loop {
            match self.next_task() {
                Task::Write(decision) => {
                    if self.write(decision).is_break() {
                        let unrecorded = self.shared.pending.load(Ordering::Acquire);
                        return self.end(unrecorded);
                    }
                    self.do_chore();
                    self.roll_up_under_load();
                    self.prune_under_load();
                    self.checkpoint_under_load();
                }
                Task::Chore => self.do_chore(),
                Task::RollUp => self.roll_up(),
                Task::Prune(keep_from) => self.prune(keep_from),
                Task::End(unrecorded) => return self.end(unrecorded),
            }
        }
    }

    /// Sleeps until there is something to do. Nothing is held when it is called.
    fn next_task(&mut self) -> Task {
        let shared = self.shared.clone();
        let half = (shared.pending_limit / 2).max(1);
        let (interval, enough) = match (shared.durability, self.load.is_heavy()) {
            (Durability::Relaxed, _) => (self.place.pace.gather, half),
            (Durability::Strict, true) => (GROUP_INTERVAL, half.min(GROUP_RECORDS)),
            (Durability::Strict, false) => (Duration::ZERO, half),
        };
        let mut queue = shared.queue.lock();
        loop {
            let now = self.clock.mono();
            let close_by = self.close_by(&queue, now);
            let prune = queue.keep_from.filter(|_| now >= self.prune_at);
            // How long to sleep, and how many records end the sleep.
            let (sleep, wake_at) = if !queue.records.is_empty() {
                let due = self.last_start.plus(interval);
                // Half the capacity: a relaxed ledger must not refuse calls while it lets records gather.
                if now >= due || close_by.is_some() || queue.records.len() >= enough {
                    return Task::Write(self.take(&mut queue));
                }
                (Some(due.since(now)), enough)
            } else if queue.chore.is_some() {
                self.chore = queue.chore.take();
                return Task::Chore;
            } else if let Some(close_by) = close_by {
                let pending = shared.pending.load(Ordering::Acquire);
                if pending == 0 || now >= close_by {
                    shared.health.store(CLOSED, Ordering::Release);
                    return Task::End(pending);
                }
                (Some(POLL), 1)
            } else if let Some(keep_from) = prune {
                return Task::Prune(keep_from);
            } else if self.tail() > 0 && now >= self.roll_up_at.max(self.last_start.plus(REST)) {
                return Task::RollUp;
            } else {
                if self.wal_pages > 0
                    && now >= self.last_start.plus(REST)
                    && self.checkpointer.ask()
                {
                    self.wal_pages = 0;
                }
                let rest = (self.wal_pages > 0 || self.tail() > 0)
                    .then(|| self.last_start.plus(REST).since(now));
                let prune = queue.keep_from.map(|_| self.prune_at.since(now));
                let sleep = [rest, prune].into_iter().flatten().min();
                // A checkpointer that was still busy is asked again, not in a hot loop.
                (sleep.map(|sleep| sleep.max(POLL)), 1)
            };
            queue.wake_at = wake_at;
            match sleep {
                Some(sleep) => {
                    shared.wake.wait_for(&mut queue, sleep);
                }
                None => shared.wake.wait(&mut queue),
            }
            queue.wake_at = usize::MAX;
        }
    }

    fn close_by(&mut self, queue: &Queue, now: Mono) -> Option<Mono> {
        let patience = queue.closing?;
        Some(*self.close_by.get_or_insert(now.plus(patience)))
    }

    /// Moves the queue into the hand.
    fn take(&mut self, queue: &mut Queue) -> Decision {
        // A gate that never rests must do the biller's chores as well: after this commit.
        self.chore = self.chore.take().or_else(|| queue.chore.take());
        if self.held.is_empty() {
            // Both keep the room that they once needed.
            std::mem::swap(&mut self.held, &mut queue.records);
        } else {
            self.held.append(&mut queue.records);
        }
        Decision::new(std::mem::replace(&mut queue.batch, Batch::new()))
    }

    /// Writes what is held. Breaks when the ledger was closed before that could be done.
    fn write(&mut self, decision: Decision) -> ControlFlow<()> {
        let now = self.clock.mono();
        self.load
            .commit(self.held.len(), now.since(self.last_start));
        self.last_start = now;
        match self.flush() {
            Ok(()) => {
                decision.durable();
                ControlFlow::Continue(())
            }
            Err(error) => {
                tracing::error!(%error, "the ledger cannot be written: calls are refused until it can");
                self.sit_out(decision, error.to_string())
            }
        }
    }

    /// Opens the file again. It must be the same ledger and hold at least what was durable before: whatever took it away
    /// may have put another one in its place.
    fn reopen(&self) -> Result<Store, LedgerError> {
        let store = self.place.open()?;
        let (found, written) = (
            store.next_seq() - 1,
            self.shared.last_seq.load(Ordering::Acquire),
        );
        if found < written {
            return Err(LedgerError::Older { found, written });
        }
        store.is_known(&self.known, &self.place.path)?;
        Ok(store)
    }

    /// Gets all that is held into the ledger, once. On an error it is still held, and the next try
    /// finds out first how this one ended.
    fn flush(&mut self) -> Result<(), LedgerError> {
        self.settle_doubt()?;
        if self.held.is_empty() {
            return Ok(());
        }
        let mut store = match self.store.take() {
            Some(store) => store,
            None => self.reopen()?,
        };
        let doubt = Doubt {
            first_seq: store.next_seq(),
            records: self.held.len(),
            started: self.clock.mono(),
        };
        match store.commit(self.place.run, &self.held) {
            Ok(()) => {
                self.store = Some(store);
                self.recorded(doubt);
                Ok(())
            }
            Err(error) => {
                drop(store);
                self.doubt = Some(doubt);
                match self.settle_doubt() {
                    Ok(()) if self.held.is_empty() => Ok(()),
                    _ => Err(error),
                }
            }
        }
    }

    /// Asks the file whether the batch in doubt was committed, and if so makes its rows say what is held.
    fn settle_doubt(&mut self) -> Result<(), LedgerError> {
        let Some(doubt) = self.doubt else {
            return Ok(());
        };
        // The old connection may believe what the file does not say.
        self.store = None;
        let mut store = self.reopen()?;
        let batch = self.held.get(..doubt.records).unwrap_or_default();
        let committed = match batch.first() {
            Some(first) => store.holds(doubt.first_seq, first.id)?,
            None => false,
        };
        if committed {
            store.correct(doubt.first_seq, batch)?;
            self.recorded(doubt);
        }
        self.doubt = None;
        self.store = Some(store);
        Ok(())
    }

    /// Lets go of the records that are in the ledger now.
    fn recorded(&mut self, batch: Doubt) {
        let mut committed = Committed {
            duration: self.clock.mono().since(batch.started),
            records: [0; Outcome::ALL.len()],
        };
        for (seq, record) in (batch.first_seq..).zip(self.held.drain(..batch.records)) {
            committed.records[record.outcome as usize] += 1;
            self.known.last = Some((seq, record.id));
        }
        let shared = &self.shared;
        let count = i64::try_from(batch.records).unwrap_or(i64::MAX);
        shared
            .last_seq
            .store(batch.first_seq + count - 1, Ordering::Release);
        shared
            .last_commit_at_us
            .store(self.clock.utc().0, Ordering::Release);
        shared.pending.fetch_sub(batch.records, Ordering::AcqRel);
        // A commit writes the page that it begins in, and some eighty rows fill one.
        self.wal_pages += 1 + batch.records.div_ceil(64);
        (self.on_commit)(&committed);
    }

    /// Trouble: refuses new calls and tries again until the file can be written. Breaks when the ledger was closed
    /// before that.
    fn sit_out(&mut self, decision: Decision, mut reason: String) -> ControlFlow<()> {
        let shared = self.shared.clone();
        let queued = {
            let mut queue = shared.queue.lock();
            // From here on a commit is refused at once, and its record comes as `gate_failed`.
            shared.health.store(FAILING, Ordering::Release);
            self.take(&mut queue)
        };
        if shared.durability == Durability::Strict {
            self.held = std::mem::take(&mut self.held)
                .into_iter()
                .map(Record::into_gate_failed)
                .collect();
        }
        if let Some(chore) = self.chore.take() {
            chore.refuse(Trouble::Failing);
        }
        decision.not_durable();
        queued.not_durable();
        let mut tried_since_close = false;
        loop {
            {
                let mut queue = shared.queue.lock();
                let now = self.clock.mono();
                match self.close_by(&queue, now) {
                    None => {
                        shared.wake.wait_for(&mut queue, self.place.pace.probe);
                    }
                    Some(close_by) => {
                        let left = close_by.since(now);
                        if tried_since_close && left.is_zero() {
                            shared.health.store(CLOSED, Ordering::Release);
                            return ControlFlow::Break(());
                        }
                        if tried_since_close {
                            let sleep = left.min(self.place.pace.probe);
                            shared.wake.wait_for(&mut queue, sleep);
                        }
                        tried_since_close = true;
                    }
                }
                self.held.append(&mut queue.records);
            }
            self.last_start = self.clock.mono();
            match self.flush() {
                Ok(()) => {
                    let _queue = shared.queue.lock();
                    shared.health.store(HEALTHY, Ordering::Release);
                    tracing::info!("the ledger can be written again");
                    return ControlFlow::Continue(());
                }
                // Told once: it is tried each second.
                Err(error) if error.to_string() != reason => {
                    reason = error.to_string();
                    tracing::error!(%error, "the ledger still cannot be written");
                }
                Err(_) => {}
            }
        }
    }

    /// Lets `write` use the file, opened again when it must be. On an error the file is let go of: only it knows what
    /// was written.
    fn with_store<T, E: From<LedgerError>>(
        &mut self,
        write: impl FnOnce(&mut Store) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut store = match self.store.take() {
            Some(store) => store,
            None => self.reopen()?,
        };
        let written = write(&mut store)?;
        self.known.linked = store.linked();
        self.store = Some(store);
        Ok(written)
    }

    /// What the biller asked for. Its failure is no trouble of the calls: whoever asked tries again.
    fn do_chore(&mut self) {
        let Some(chore) = self.chore.take() else {
            return;
        };
        let step = self.place.pace.roll_up;
        // Who asked waits for the answer, unless it has panicked.
        match chore {
            Chore::Seal { day, reply } => {
                let _ = reply.send(self.with_store(|store| store.seal(&day, step)));
            }
            Chore::Keep { entries, reply } => {
                let _ = reply.send(self.with_store(|store| store.keep(&entries)));
            }
        }
        self.wal_pages += 16;
    }

    fn prune(&mut self, keep_from: Utc) {
        let pruned: Result<bool, LedgerError> =
            self.with_store(|store| Ok(store.prune(keep_from)?));
        let now = self.clock.mono();
        match pruned {
            Ok(true) => self.prune_at = now.plus(PRUNE_INTERVAL),
            Ok(false) => {
                let mut queue = self.shared.queue.lock();
                queue.keep_from = queue.keep_from.filter(|wanted| *wanted != keep_from);
            }
            Err(error) => {
                tracing::warn!(%error, "old records could not be deleted; trying again");
                self.prune_at = now.plus(CHORE_PAUSE);
            }
        }
        self.wal_pages += 16;
    }

    /// A gate that never rests must prune as well.
    fn prune_under_load(&mut self) {
        if self.load.is_heavy() && self.clock.mono() >= self.prune_at {
            let keep_from = self.shared.queue.lock().keep_from;
            if let Some(keep_from) = keep_from {
                self.prune(keep_from);
            }
        }
    }

    /// See "The roll-up" in the head of [`super`]. Its failure is no trouble of the calls: their records are durable and are
    /// counted from the tail until it can be written.
    fn roll_up(&mut self) {
        let Some(store) = &mut self.store else {
            return;
        };
        match store.roll_up(self.place.pace.roll_up) {
            Ok(()) => self.known.linked = store.linked(),
            Err(error) => {
                tracing::warn!(%error, "records could not be rolled up; trying again");
                self.store = None;
                self.roll_up_at = self.clock.mono().plus(CHORE_PAUSE);
            }
        }
        // Nine of them are the marks of a whole step.
        self.wal_pages += 24;
    }

    fn tail(&self) -> i64 {
        self.store.as_ref().map_or(0, Store::tail)
    }

    fn roll_up_under_load(&mut self) {
        while self.tail() >= self.place.pace.roll_up && self.clock.mono() >= self.roll_up_at {
            self.roll_up();
        }
    }

    /// See "Checkpoints" in the head of [`super`].
    fn checkpoint_under_load(&mut self) {
        if self.checkpoint_behind && self.checkpointer.rests() {
            self.checkpoint_behind = false;
            if let Some(Err(error)) = self.store.as_ref().map(|store| store.checkpoint("PASSIVE")) {
                tracing::warn!(%error, "the WAL could not be copied into the ledger; trying again");
                self.store = None;
            }
        }
        if self.wal_pages >= CHECKPOINT_PAGES && self.checkpointer.ask() {
            self.wal_pages = 0;
            self.checkpoint_behind = true;
        }
    }

    fn end(mut self, unrecorded: usize) -> usize {
        while self.tail() > 0 {
            self.roll_up();
        }
        self.checkpointer.stop();
        if let Some(Err(error)) = self
            .store
            .as_ref()
            .map(|store| store.checkpoint("TRUNCATE"))
        {
            // Nothing is lost: the next start reads the WAL.
            tracing::warn!(%error, "the WAL could not be copied into the ledger at the end");
        }
        unrecorded
    }
}

/// However the writer ends, nobody waits for it afterwards.
struct Farewell(Arc<Shared>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        self.0.health.store(CLOSED, Ordering::Release);
        if let Some(chore) = queue.chore.take() {
            chore.refuse(Trouble::Closed);
        }
        Decision::new(std::mem::replace(&mut queue.batch, Batch::new())).not_durable();
    }
}

/// The thread that copies the WAL into the file while commits go on.
#[derive(Debug)]
pub(super) struct Checkpointer {
    ask: Option<SyncSender<()>>,
    busy: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(path: PathBuf) -> io::Result<Self> {
        let (ask, asked) = sync_channel(1);
        let busy = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("ledger-wal".into())
            .spawn({
                let busy = busy.clone();
                move || checkpoint_when_asked(&path, &asked, &busy)
            })?;
        Ok(Self {
            ask: Some(ask),
            busy,
            thread: Some(thread),
        })
    }

    /// Asks for a checkpoint; `false` when one is under way.
    fn ask(&self) -> bool {
        !self.busy.swap(true, Ordering::AcqRel)
            && self
                .ask
                .as_ref()
                .is_some_and(|ask| ask.try_send(()).is_ok())
    }

    fn rests(&self) -> bool {
        !self.busy.load(Ordering::Acquire)
    }

    fn stop(&mut self) {
        self.ask = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::warn!("the thread that copies the WAL had panicked");
        }
    }
}

fn checkpoint_when_asked(path: &Path, asked: &Receiver<()>, busy: &AtomicBool) {
    while asked.recv().is_ok() {
        // A connection for each time: after an error of the disk an old one cannot be trusted.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let done = Connection::open_with_flags(path, flags).and_then(|connection| {
            connection.execute_batch("PRAGMA synchronous = FULL")?;
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        });
        if let Err(error) = done {
            tracing::warn!(%error, "the WAL could not be copied into the ledger; trying again");
        }
        busy.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(commits: &[(usize, u64)]) -> Load {
        let mut load = Load::default();
        for (records, micros) in commits {
            load.commit(*records, Duration::from_micros(*micros));
        }
        load
    }

    #[test]
    fn a_ledger_gathers_records_when_many_come_and_not_when_few_do() {
        assert!(!after(&[]).is_heavy());
        assert!(!after(&[(1, 0)]).is_heavy());
        assert!(!after(&[(1, 500); 1_000]).is_heavy());
        assert!(after(&[(1, 200); 1_000]).is_heavy());
        assert!(after(&[(64, 2_000); 10]).is_heavy());
        // A rest ends it, and so does a slower pace soon.
        assert!(!after(&[(64, 2_000), (64, 2_000), (1, 1_000_000)]).is_heavy());
        let slower: Vec<_> = [(64, 2_000); 50]
            .into_iter()
            .chain([(1, 1_000); 40])
            .collect();
        assert!(!after(&slower).is_heavy());
    }
}
