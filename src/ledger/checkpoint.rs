//! The thread that copies the WAL into the file while commits go on.
//!
//! Owns one connection for its life, and what the writer is told of it. Must never copy while the
//! ledger is suspect: the writer has it let go of its connection first.

use crate::ledger::LedgerError;
use crate::ledger::files::LedgerFiles;
use crate::ledger::pace::POLL;
use crate::ledger::rows::let_nobody_copy_at_close;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// The thread that copies the WAL into the file while commits go on. It keeps one connection from
/// its first copy on: a descriptor that is opened after a sync has failed is not told of it.
#[derive(Debug)]
pub(super) struct Checkpointer {
    orders: Option<SyncSender<CheckpointOrder>>,
    state: Arc<Mutex<CheckpointerState>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
enum CheckpointOrder {
    Copy(LedgerFiles),
    /// Close the connection.
    LetGo,
}

#[derive(Default, Debug)]
struct CheckpointerState {
    /// An order is under way.
    busy: bool,
    /// It has a connection.
    open: bool,
}

/// How long a ledger in trouble waits for the checkpointer's connection to be closed, at a time.
const LET_GO: Duration = Duration::from_millis(200);

impl Checkpointer {
    /// `failed` is called on its thread with an error that makes the ledger suspect.
    pub(super) fn start(
        path: PathBuf,
        failed: impl Fn(LedgerError) + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, ordered) = sync_channel(1);
        let state: Arc<Mutex<CheckpointerState>> = Arc::default();
        let thread = std::thread::Builder::new()
            .name("ledger-wal".into())
            .spawn({
                let state = state.clone();
                move || checkpoint_when_asked(&path, &ordered, &state, &failed)
            })?;
        Ok(Self {
            orders: Some(orders),
            state,
            thread: Some(thread),
        })
    }

    /// Asks for a checkpoint of these files; `false` when one is under way.
    pub(super) fn ask(&self, files: LedgerFiles) -> bool {
        self.order(CheckpointOrder::Copy(files))
    }

    fn order(&self, order: CheckpointOrder) -> bool {
        let mut state = self.state.lock();
        let Some(orders) = self.orders.as_ref().filter(|_| !state.busy) else {
            return false;
        };
        state.busy = orders.try_send(order).is_ok();
        state.busy
    }

    pub(super) fn rests(&self) -> bool {
        !self.state.lock().busy
    }

    /// Has its connection closed. `false` when that takes long: it may be in a call that does not
    /// return.
    pub(super) fn release(&self) -> bool {
        for _ in 0..LET_GO.as_millis() / POLL.as_millis() {
            // In one look: a copy that ends between two would leave its connection open.
            let (open, busy) = {
                let state = self.state.lock();
                (state.open, state.busy)
            };
            if !open && !busy {
                return true;
            }
            self.order(CheckpointOrder::LetGo);
            std::thread::sleep(POLL);
        }
        false
    }

    pub(super) fn stop(&mut self) {
        self.orders = None;
        if let Some(Err(_)) = self.thread.take().map(std::thread::JoinHandle::join) {
            tracing::warn!("the thread that copies the WAL had panicked");
        }
    }
}

fn checkpoint_when_asked(
    path: &Path,
    ordered: &Receiver<CheckpointOrder>,
    state: &Mutex<CheckpointerState>,
    failed: &dyn Fn(LedgerError),
) {
    let mut connection = None;
    while let Ok(order) = ordered.recv() {
        let done = match order {
            CheckpointOrder::Copy(files) => copy_wal(path, &files, &mut connection),
            CheckpointOrder::LetGo => {
                connection = None;
                Ok(())
            }
        };
        match done {
            Ok(()) => {}
            // Before it is seen to rest, for then the writer may copy.
            Err(error) if error.is_suspect() => failed(error),
            Err(error) => {
                tracing::warn!(%error, "the WAL could not be copied into the ledger; trying again after the next commit");
            }
        }
        let mut state = state.lock();
        state.busy = false;
        state.open = connection.is_some();
    }
}

fn copy_wal(
    path: &Path,
    files: &LedgerFiles,
    kept: &mut Option<Connection>,
) -> Result<(), LedgerError> {
    let connection = match kept {
        Some(connection) => connection,
        none => {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            let_nobody_copy_at_close(&connection)?;
            connection.execute_batch("PRAGMA synchronous = FULL")?;
            // Opened by its path: the WAL must not be copied into a file that was put there
            // meanwhile.
            files.still_there()?;
            none.insert(connection)
        }
    };
    Ok(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
}
