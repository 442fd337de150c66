//! Telling the ledger that a process has written from any other file at its path.
//!
//! Owns what is remembered of the ledger while its file is not open. Must never take a file for the
//! ledger because it is long enough: another ledger, or an older copy of this one, may be longer.

use crate::ledger::LedgerError;
use crate::ledger::chain::{self, Link};
use crate::model::RequestId;
use rusqlite::{Connection, OptionalExtension};
use std::path::Path;

/// The identity of a ledger, and the number of its restores.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    /// 32 hex digits, made with the ledger and kept by a restore.
    pub(super) ledger_id: String,
    pub(super) restore_count: i64,
}

impl Identity {
    /// Reads the identity of an open file.
    pub(super) fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        connection.query_row("SELECT ledger_id, restore_count FROM identity", [], |row| {
            Ok(Self {
                ledger_id: row.get(0)?,
                restore_count: row.get(1)?,
            })
        })
    }

    /// Checks that the identity `found` at `path` is this one.
    ///
    /// # Errors
    /// [`LedgerError::Another`] says in which respect it does not.
    pub(super) fn check(&self, found: &Self, path: &Path) -> Result<(), LedgerError> {
        if found.ledger_id != self.ledger_id {
            let (found, known) = (&found.ledger_id, &self.ledger_id);
            return another(path, format!("it is ledger {found}, not {known}"));
        }
        if found.restore_count != self.restore_count {
            let (found, known) = (found.restore_count, self.restore_count);
            return another(path, format!("it was restored {found} times, not {known}"));
        }
        Ok(())
    }
}

fn another(path: &Path, why: String) -> Result<(), LedgerError> {
    let path = path.to_owned();
    Err(LedgerError::Another { path, why })
}

/// The state by which a process knows its ledger again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KnownLedger {
    pub(super) identity: Identity,
    /// The newest durable record, when there is one and it was not deleted.
    pub(super) last: Option<(i64, RequestId)>,
    /// The newest record that is linked, and its link.
    pub(super) linked: (i64, Link),
}

impl KnownLedger {
    /// Reads the state of an open file.
    pub(super) fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let last = connection
            .query_row(
                "SELECT seq, id FROM raw ORDER BY seq DESC LIMIT 1",
                [],
                |row| Ok((row.get(0)?, id(row.get(1)?))),
            )
            .optional()?;
        Ok(Self {
            identity: Identity::read(connection)?,
            last,
            linked: chain::head(connection)?,
        })
    }

    fn newest(&self) -> i64 {
        let (linked, _) = self.linked;
        self.last.map_or(linked, |(seq, _)| seq.max(linked))
    }

    /// Checks that the file at `path`, which is open as `connection`, is the ledger that is known,
    /// with at least what was durable in it.
    ///
    /// # Errors
    /// [`LedgerError::Another`] says in which respect it is not, [`LedgerError::Older`] what it
    /// lacks.
    pub(super) fn check(&self, connection: &Connection, path: &Path) -> Result<(), LedgerError> {
        let found = Self::read(connection)?;
        self.identity.check(&found.identity, path)?;
        // Less than was durable: said first, since a loss of records is what an error of the disk
        // leaves.
        let (found, written) = (found.newest(), self.newest());
        if found < written {
            return Err(LedgerError::Older { found, written });
        }
        let (seq, link) = self.linked;
        let linked: Option<Vec<u8>> = connection
            .query_row("SELECT link FROM links WHERE last_seq = ?1", [seq], |row| {
                row.get(0)
            })
            .optional()?;
        if linked.as_deref() != Some(&link[..]) {
            return another(path, format!("its link after record {seq} is another"));
        }
        let Some((seq, known)) = self.last else {
            return Ok(());
        };
        let first_kept: i64 =
            connection.query_row("SELECT first_kept FROM bounds", [], |row| row.get(0))?;
        let record: Option<[u8; 16]> = connection
            .query_row("SELECT id FROM raw WHERE seq = ?1", [seq], |row| row.get(0))
            .optional()?;
        match record.map(id) {
            Some(found) if found == known => Ok(()),
            // Deleted since: its link was compared.
            None if seq < first_kept => Ok(()),
            _ => another(path, format!("record {seq} is not call {known}")),
        }
    }
}

fn id(bytes: [u8; 16]) -> RequestId {
    RequestId(uuid::Uuid::from_bytes(bytes))
}
