//! From an older schema to this one.
//!
//! Owns the copy that is kept and the one transaction that changes the tables. Must never change a file of which there
//! is no copy.

use super::chain::{self, Digests};
use super::read::copy_to;
use super::schema::{self, Kind};
use super::{LedgerError, suffixed};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::fs;
use std::path::Path;

/// Records that are linked at a time.
const STEP: i64 = 4_096;

/// Copies the ledger, whose schema is `found`, to `PATH.schema-FOUND.bak`, then brings its tables to this schema as a whole or not at all, and
/// links the records that are rolled up. The caller holds the ledger's lock.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    found: i32,
) -> Result<(), LedgerError> {
    let copy = suffixed(path, &format!(".schema-{found}.bak"));
    // Of a start that was killed while it copied: nobody else writes it, for the ledger is locked.
    let _ = fs::remove_file(suffixed(&copy, ".partial"));
    // An earlier start may have been killed between its copy and its change.
    if !is_copy_of(&copy, connection)? {
        copy_to(connection, &copy)?;
    }
    tracing::info!(copy = %copy.display(), "the ledger has an older schema: it was copied and is brought to the new one");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::migrate(&transaction, found)?;
    let rolled_up: i64 =
        transaction.query_row("SELECT rolled_up FROM bounds", [], |row| row.get(0))?;
    let (mut linked, mut link) = chain::head(&transaction)?;
    let mut digests = Digests::default();
    while linked < rolled_up {
        let until = rolled_up.min(linked + STEP);
        link = chain::extend(&transaction, &mut digests, (linked, link), until, |_| ())?;
        linked = until;
    }
    Ok(transaction.commit()?)
}

/// Whether `copy` is there and holds what the ledger holds. Each start of a process notes itself, so two states with the
/// same runs and the same records are one.
fn is_copy_of(copy: &Path, ledger: &Connection) -> Result<bool, LedgerError> {
    if copy.symlink_metadata().is_err() {
        return Ok(false);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let found = Connection::open_with_flags(copy, flags)?;
    let state = |connection: &Connection| -> Result<(i64, i64, i64), rusqlite::Error> {
        connection.query_row(
            "SELECT (SELECT coalesce(max(run), 0) FROM runs), first_kept,
                    max(rolled_up, (SELECT coalesce(max(seq), 0) FROM raw)) FROM bounds",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
    };
    let same = matches!(schema::identify(&found), Ok(Kind::Older(_)))
        && state(&found).is_ok_and(|found| state(ledger).is_ok_and(|ledger| ledger == found));
    Ok(same)
}

#[cfg(test)]
mod tests;
