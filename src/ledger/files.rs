//! The files of a ledger: their names, the lock, and what makes a change of a directory last.
//!
//! Owns the rule of what may be created where. Must never leave a file at the path of a ledger that
//! is missing.

use crate::ledger::LedgerError;
use crate::ledger::error::io_error;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The real path of the ledger, and the lock on it. A file that is not there is created if
/// `create`.
pub(super) fn claim(path: &Path, create: bool) -> Result<(PathBuf, File), LedgerError> {
    if length(path)? == 0 {
        let wal = suffixed(&path.canonicalize().unwrap_or(path.to_owned()), "-wal");
        if length(&wal)? > 0 {
            return Err(LedgerError::LoneWal(wal));
        }
        if !create {
            return Err(LedgerError::Missing(path.to_owned()));
        }
    }
    let (real, lock) = lock(path)?;
    // Only when it is missing: opening and closing the file would take the locks of another SQLite
    // connection in this process with it.
    if !real.exists() {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&real)
            .map_err(io_error(&real))?;
        sync_directory(&real)?;
    }
    Ok((real, lock))
}

/// In bytes; 0 when there is no such file.
pub(super) fn length(path: &Path) -> Result<u64, LedgerError> {
    match path.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io_error(path)(error)),
    }
}

/// The real path of the file, which need not be there, and the lock on it.
pub(super) fn lock(path: &Path) -> Result<(PathBuf, File), LedgerError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory).map_err(io_error(directory))?;
    let real = match path.canonicalize() {
        Ok(real) => real,
        // A link to a file that is not there yet: the file must be there to be found by all names.
        Err(_) if path.is_symlink() => {
            File::create(path).map_err(io_error(path))?;
            path.canonicalize().map_err(io_error(path))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = directory.canonicalize().map_err(io_error(directory))?;
            directory.join(path.file_name().unwrap_or_default())
        }
        Err(error) => return Err(io_error(path)(error)),
    };
    let lock_path = suffixed(&real, ".lock");
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&lock_path)
        .map_err(io_error(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => Ok((real, lock)),
        Err(TryLockError::WouldBlock) => Err(LedgerError::Locked(lock_path)),
        Err(TryLockError::Error(error)) => Err(io_error(&lock_path)(error)),
    }
}

/// Syncs the folder of `path`: a file that was created, renamed or removed there stays so after a
/// power cut.
pub(super) fn sync_directory(path: &Path) -> Result<(), LedgerError> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error(directory))
}

pub(super) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The files that were opened. A file that was deleted or replaced takes writes as before and
/// forgets them with the process; SQLite does not look in WAL mode.
#[derive(Clone, Debug)]
pub(super) struct LedgerFiles([(PathBuf, Inode); 2]);

/// Device (major, minor) and number.
type Inode = (u32, u32, u64);

impl LedgerFiles {
    pub(super) fn at(path: &Path) -> Result<Self, LedgerError> {
        let with_inode = |path: PathBuf| Ok::<_, LedgerError>((path.clone(), inode(&path)?));
        let wal = with_inode(suffixed(path, "-wal"))?;
        Ok(Self([with_inode(path.to_owned())?, wal]))
    }

    /// Two system calls a commit, some 1 % of what it costs.
    pub(super) fn still_there(&self) -> Result<(), LedgerError> {
        for (path, opened) in &self.0 {
            match inode(path) {
                Ok(found) if found == *opened => {}
                Err(LedgerError::Io { error, .. }) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error(path)(error));
                }
                _ => return Err(LedgerError::Replaced(path.clone())),
            }
        }
        Ok(())
    }
}

fn inode(path: &Path) -> Result<Inode, LedgerError> {
    // The number alone: a file whose times were asked for has to get new ones, and its inode dirty,
    // with each write from then on.
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::INO)
        .map_err(|error| io_error(path)(error.into()))?;
    Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}
