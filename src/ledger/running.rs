//! The ledgers that this process has open, for its own readers.
//!
//! Owns the one list of them, by real path. Must never say anything of a ledger that another
//! process writes.

use crate::ledger::LedgerError;
use crate::ledger::known::Identity;
use crate::ledger::queue::LedgerShared;
use crate::ledger::rows::newest_seq;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Debug)]
struct Fact {
    path: PathBuf,
    kind: FactKind,
}

#[derive(Debug)]
enum FactKind {
    /// It is made sound after an error of the disk.
    Suspect,
    /// It is this one, and has all records that were told to be durable.
    Written(Identity, Arc<LedgerShared>),
}

static FACTS: Mutex<Vec<Arc<Fact>>> = Mutex::new(Vec::new());

/// Something that holds of the ledger at a path as long as this is kept.
#[derive(Debug)]
pub(super) struct FactGuard(Arc<Fact>);

impl Drop for FactGuard {
    fn drop(&mut self) {
        FACTS.lock().retain(|fact| !Arc::ptr_eq(fact, &self.0));
    }
}

fn tell(path: &Path, kind: FactKind) -> FactGuard {
    let path = path.to_owned();
    let fact = Arc::new(Fact { path, kind });
    FACTS.lock().push(fact.clone());
    FactGuard(fact)
}

/// This process makes the ledger at the real path sound.
pub(super) fn suspect(path: &Path) -> FactGuard {
    tell(path, FactKind::Suspect)
}

/// This process writes the ledger at the real path.
pub(super) fn written(path: &Path, identity: Identity, shared: Arc<LedgerShared>) -> FactGuard {
    tell(path, FactKind::Written(identity, shared))
}

/// The state that a reader must find in a ledger that this process writes.
#[derive(Debug)]
pub(super) struct Expected {
    identity: Identity,
    /// The newest seq that was durable before the file was opened.
    last_seq: i64,
    /// The state of the ledger: what becomes durable later.
    pub(super) shared: Arc<LedgerShared>,
}

/// The state that a reader must find at `path`, which may be any name of the file. `None` when this
/// process does not write it.
///
/// # Errors
/// [`LedgerError::Suspect`]
pub(super) fn expected(path: &Path) -> Result<Option<Expected>, LedgerError> {
    // Not under the lock: a disk that does not answer the look-up would hold up the writer as well.
    let facts = FACTS.lock().clone();
    if facts.is_empty() {
        return Ok(None);
    }
    // As it was given, too: a folder on the way may have become a link to another.
    let real = path.canonicalize();
    let mut expected = None;
    for fact in facts.iter() {
        if fact.path != path && real.as_ref().ok() != Some(&fact.path) {
            continue;
        }
        match &fact.kind {
            FactKind::Suspect => return Err(LedgerError::Suspect),
            FactKind::Written(identity, shared) => {
                expected = Some(Expected {
                    identity: identity.clone(),
                    last_seq: shared.last_seq.load(Ordering::Acquire),
                    shared: shared.clone(),
                });
            }
        }
    }
    Ok(expected)
}

impl Expected {
    /// Checks that the file that is open is the ledger that this process writes.
    ///
    /// # Errors
    /// [`LedgerError::Another`] and [`LedgerError::Older`].
    pub(super) fn check(&self, connection: &Connection, path: &Path) -> Result<(), LedgerError> {
        self.identity.check(&Identity::read(connection)?, path)?;
        let found = newest_seq(connection)?;
        match found < self.last_seq {
            true => Err(LedgerError::Older {
                found,
                written: self.last_seq,
            }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
