//! What can go wrong with a ledger's file, and what to do about it.
//!
//! Owns the words and the remedies, and which errors say that the disk has failed.

use crate::ledger::cursor::Cursor;
use crate::ledger::schema;
use rustix::process::{getegid, geteuid};
use std::io;
use std::path::{Path, PathBuf};

/// With less than that a ledger cannot be opened: SQLite makes two files beside it.
const ROOM_BYTES: u64 = 1024 * 1024;

/// Why no slot can be had. The call must be refused before it reaches the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Trouble {
    /// The file cannot be written: disk full, I/O error, held by another program, or a disk that
    /// does not answer. It is tried again each second.
    #[error("the ledger cannot be written")]
    Failing,
    /// `pending_limit` slots are out.
    #[error("too many calls wait for the ledger")]
    Full,
    /// [`Ledger::close`](crate::ledger::Ledger::close) was called.
    #[error("the ledger is closed")]
    Closed,
}

/// Why the ledger was not closed in order. In strict mode no lost record was promised to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CloseError {
    /// The patience ran out: so many slots were still out, or so many records could not be written.
    #[error("{0} calls are not in the ledger")]
    Unrecorded(usize),
    /// The disk does not answer. So many slots were out; what the calls were promised is in the
    /// WAL.
    #[error("the disk does not answer; {0} calls are not in the ledger as far as is known")]
    DiskHangs(usize),
    /// The writer thread panicked. What it had not promised as durable is lost.
    #[error("the ledger's writer failed")]
    WriterDied,
}

/// Why a ledger cannot be opened, read or copied.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process writes it.
    #[error(
        "another tollgate is using this ledger (it holds the lock on {0}): stop it first, or give this one a ledger of its own"
    )]
    Locked(PathBuf),
    /// There is no such file, or nothing was ever written to it.
    #[error(
        "there is no ledger at {0}: mount its disk if it is not mounted, put a backup back with `tollgate restore --from FILE` \
         if it was lost, or, for a new gate, write `ledger: {{when_missing: create}}` in tollgate.yaml and start it"
    )]
    Missing(PathBuf),
    /// SQLite would read it into whatever is put at the path.
    #[error(
        "there is no ledger beside {0}, which holds what was last written to one: put the ledger back beside it, or put a backup \
         back with `tollgate restore --from FILE`, which moves it aside"
    )]
    LoneWal(PathBuf),
    /// The file at the path is a ledger, and not the one that this process has written.
    #[error(
        "another ledger is at {path} ({why}), or a damaged one: put back the one that was there, or stop the gate and put a \
         backup back with `tollgate restore`"
    )]
    Another {
        /// The path.
        path: PathBuf,
        /// In which respect.
        why: String,
    },
    /// The file is something else. It was not changed.
    #[error("this file is not a tollgate ledger; it was left as it is")]
    NotALedger,
    /// The file was written by another version of tollgate. It was not changed.
    #[error(
        "the ledger has schema {found}, this tollgate knows {known}: use the tollgate that wrote it or a newer one"
    )]
    OtherVersion {
        /// `user_version` of the file.
        found: i32,
        /// The one that this program knows.
        known: i32,
    },
    /// The file is a ledger of an older schema. It was not changed.
    #[error(
        "the ledger has schema {found}, and this tollgate reads {}: start `tollgate serve` once, which brings it up to date",
        schema::VERSION
    )]
    Outdated {
        /// `user_version` of the file.
        found: i32,
    },
    /// The file system cannot do what SQLite's WAL needs.
    #[error(
        "this file system cannot hold a ledger (no WAL mode): use a local disk, not a network share"
    )]
    NoWal,
    /// Another file is at the path now.
    #[error(
        "{0} was deleted or replaced while it was open: put the file back that was there, or stop the gate and put a backup back with \
         `tollgate restore`"
    )]
    Replaced(PathBuf),
    /// Going on from here would give seqs a second time.
    #[error(
        "the ledger ends with record {found}, and {written} were written: it is an older one, or has lost records; put the \
         newer one back, or stop the gate and put a backup back with `tollgate restore`"
    )]
    Older {
        /// The newest seq of the file.
        found: i64,
        /// The newest that this process wrote or found.
        written: i64,
    },
    /// The records do not give the links that stand beside them.
    #[error(
        "the ledger is damaged at record {0} (`tollgate verify` says more): stop the gate and put a backup back with \
         `tollgate restore`"
    )]
    Broken(i64),
    /// An error of the disk has made it doubtful what the file holds.
    #[error(
        "the disk has failed, so nothing is read from the ledger until it has been made sound: ask again when `/readyz` says 200"
    )]
    Suspect,
    /// A repair, or a copy of a WAL that was deleted, needs the file for itself.
    #[error(
        "another program, or a query of this gate, holds the ledger open: it cannot be written before that has ended"
    )]
    HeldOpen,
    /// The thread that copies the WAL is in a call to the disk.
    #[error("the disk does not answer the thread that copies the WAL")]
    CheckpointHangs,
    /// The next start has to correct it first.
    #[error(
        "{0} is there: calls of this ledger were told an error and may stand in it as answered. Start the gate on it once, or wait \
         until `/readyz` says 200; that corrects them"
    )]
    Uncorrected(PathBuf),
    /// A backup would overwrite something.
    #[error("{0} exists already: a backup never overwrites a file")]
    Exists(PathBuf),
    /// There is nothing to put back.
    #[error("there is no backup at {0}")]
    NoBackup(PathBuf),
    /// The backup is the ledger.
    #[error("{0} is the ledger itself: name a backup of it")]
    Itself(PathBuf),
    /// There is a partial file: another copy to the same path left it, or still writes it.
    #[error(
        "cannot copy to {to}: {partial} is of a copy that is under way, or that ended halfway: remove it if none is"
    )]
    Unfinished {
        /// As given.
        to: PathBuf,
        /// The path where a copy is written before it is whole.
        partial: PathBuf,
    },
    /// The copy does not pass SQLite's own check.
    #[error("the copy is damaged ({0}), and so may be the ledger itself")]
    Damaged(String),
    /// The file has not the tables of a ledger, or something that changes them.
    #[error("the ledger is not as tollgate made it: {0}")]
    Foreign(String),
    /// The file at the path and the backup are of two ledgers.
    #[error(
        "{path} is another ledger than the one of the backup: if that is what you want there, move {path} and its -wal away first"
    )]
    NotItsBackup {
        /// The path.
        path: PathBuf,
    },
    /// A file says that it is of a restore beyond all that there can be.
    #[error(
        "{path} says that it is of restore {count}, and no ledger has so many: move it away first"
    )]
    TooManyRestores {
        /// The file.
        path: PathBuf,
        /// What its name or it says.
        count: i64,
    },
    /// tollgate could not open the ledger that would be put back.
    #[error(
        "the ledger belongs to uid {uid}, gid {gid}, and uid {} cannot give a file to them ({error}): run this as that user, or as root",
        geteuid().as_raw()
    )]
    NotGiven {
        /// The user id of the owner.
        uid: u32,
        /// The group id of the owner.
        gid: u32,
        /// The error of the system.
        error: io::Error,
    },
    /// The operating system refused.
    #[error("{path}: {error}{}", who_may(error.kind() == io::ErrorKind::PermissionDenied))]
    Io {
        /// On what.
        path: PathBuf,
        /// Why. Not the `source`, for it would be told twice.
        error: io::Error,
    },
    /// SQLite refused to open or to write the file.
    #[error(
        "{path}: {error}{}{}",
        who_may(is_refused(error)),
        no_room(path, error)
    )]
    File {
        /// The path of the file.
        path: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
    /// SQLite refused.
    #[error("the ledger cannot be used: {0}")]
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Whether the user may be the wrong one: SQLite does not tell why it could not open or write a
/// file.
fn is_refused(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, PermissionDenied, ReadOnly};
    matches!(
        error.sqlite_error_code(),
        Some(CannotOpen | PermissionDenied | ReadOnly)
    )
}

/// The remedy when it is. In WAL mode a ledger that nobody has open can be read only by who may
/// write beside it.
fn who_may(refused: bool) -> String {
    if !refused {
        return String::new();
    }
    format!(
        " (tollgate runs as uid {}, gid {}, which must be able to write the file and its folder, also to read a ledger that no gate \
         has open: give them to that user with chown, run this as the user that owns them, or read a copy that `tollgate backup` \
         has made)",
        geteuid().as_raw(),
        getegid().as_raw()
    )
}

/// The remedy when the disk is full, which SQLite often tells as an error of the disk.
fn no_room(path: &Path, error: &rusqlite::Error) -> String {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
    let may_be = matches!(
        error.sqlite_error_code(),
        Some(CannotOpen | DiskFull | SystemIoFailure)
    );
    let folder = path.parent().unwrap_or(path);
    let free = rustix::fs::statvfs(folder).map(|of| of.f_bavail.saturating_mul(of.f_frsize));
    match free {
        Ok(free) if may_be && free < ROOM_BYTES => {
            format!(
                " (the disk of {} is full: {free} bytes are free; make room)",
                folder.display()
            )
        }
        _ => String::new(),
    }
}

impl LedgerError {
    /// Whether the disk has failed, so that nothing that is read back shows what is on it.
    pub(super) fn is_suspect(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
        match self {
            Self::Sql(error) | Self::File { error, .. } => matches!(
                error.sqlite_error_code(),
                Some(DatabaseCorrupt | NotADatabase | SystemIoFailure)
            ),
            Self::Io { error, .. } => {
                error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
            }
            _ => false,
        }
    }

    /// Whether no call can be recorded before the file was opened again.
    pub(super) fn stops_the_writer(&self) -> bool {
        self.is_suspect() || matches!(self, Self::Replaced(_) | Self::Io { .. })
    }
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    |error| LedgerError::Io {
        path: path.to_owned(),
        error,
    }
}

/// Names the file that SQLite does not name.
pub(super) fn named(path: &Path) -> impl FnOnce(LedgerError) -> LedgerError {
    |error| match error {
        LedgerError::Sql(error) => LedgerError::File {
            path: path.to_owned(),
            error,
        },
        other => other,
    }
}

/// Why records or counts cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Records after the cursor have been deleted: going on from here would skip them silently.
    #[error(
        "records from {} on were asked for, but those before {first_kept} have been deleted: go on after {} if that gap is known",
        after + 1,
        first_kept - 1
    )]
    CursorTooOld {
        /// The cursor.
        after: u64,
        /// The oldest seq that has not been deleted.
        first_kept: u64,
    },
    /// The ledger was put back to an older state since the cursor was given out.
    #[error(
        "the cursor {cursor} was given out before the ledger was put back to a backup: of the records up to there it has those up \
         to {}. Forget what you have beyond it, and go on after {on}", on.seq
    )]
    Restored {
        /// The cursor.
        cursor: Cursor,
        /// The cursor to go on with.
        on: Cursor,
    },
    /// The cursor is of more restores than this ledger has seen.
    #[error(
        "the cursor {cursor} is of another ledger: this one was put back to a backup {restore_count} times"
    )]
    Foreign {
        /// The cursor.
        cursor: Cursor,
        /// How often this ledger was restored.
        restore_count: u64,
    },
    /// The cursor is past the newest record. It comes from another ledger, or this one was put back
    /// to an older state: its new records would be taken for known ones.
    #[error("the cursor {after} is past the newest record {last}: it belongs to another ledger")]
    CursorAhead {
        /// The cursor.
        after: u64,
        /// The newest seq; 0 when there is none.
        last: u64,
    },
    /// The rollup alone cannot tell, and the records that could have been deleted.
    #[error(
        "this is counted from records that have been deleted: those from {first_kept} on are kept; of older ones only whole \
         hours are known"
    )]
    Pruned {
        /// The oldest seq that has not been deleted.
        first_kept: u64,
    },
    /// The disk has failed, and the ledger is made sound.
    #[error(
        "the disk has failed, so this reader was closed: open another one when the ledger has been made sound"
    )]
    Closed,
    /// A record is neither there nor deleted.
    #[error("record {0} of the ledger is missing (`tollgate verify` says more)")]
    Missing(u64),
    /// The ledger holds a word that this program does not know.
    #[error("the ledger holds something that this tollgate does not understand: {0}")]
    Unknown(String),
    /// SQLite refused.
    #[error("the ledger cannot be read: {0}")]
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}
