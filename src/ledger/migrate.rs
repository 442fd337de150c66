//! From an older schema to this one.
//!
//! Owns the copy that is kept and the one transaction that changes the tables. Must never change a
//! file of which there is no copy.

use crate::ledger::backup::copy_to;
use crate::ledger::chain::{self, Digests};
use crate::ledger::event::event_id;
use crate::ledger::files::suffixed;
use crate::ledger::header::{self, FileKind};
use crate::ledger::schema;
use crate::ledger::{LedgerError, ReadError, bills, fixed, seal};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};
use std::fs;
use std::path::Path;

/// Records that are linked at a time.
const STEP: i64 = 4_096;

/// Copies the ledger, whose schema is `found`, to `PATH.schema-FOUND.bak`, or to
/// `PATH.schema-FOUND.2.bak` and so on. There is such a copy where an older tollgate was used for a
/// while. Then brings the ledger to this schema. Its lock must be held.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    found: i32,
) -> Result<(), LedgerError> {
    let mut copy = suffixed(path, &format!(".schema-{found}.bak"));
    for next in 2.. {
        // Of a start that was killed while it copied: nobody else writes it, for the ledger is
        // locked.
        let _ = fs::remove_file(suffixed(&copy, ".partial"));
        if copy.symlink_metadata().is_err() {
            copy_to(connection, &copy)?;
            break;
        }
        // An earlier start may have been killed between its copy and its change.
        if is_copy_of(&copy, connection) {
            break;
        }
        copy = suffixed(path, &format!(".schema-{found}.{next}.bak"));
    }
    tracing::info!(copy = %copy.display(), "the ledger has an older schema: it was copied and is brought to the new one");
    change(connection, found, None)
}

/// Brings the tables of a ledger of schema `found` to this one as a whole or not at all, and links
/// the records that are rolled up. There is a copy of it. One
/// that has no id yet gets `ledger_id`, or a new one.
pub(super) fn change(
    connection: &mut Connection,
    found: i32,
    ledger_id: Option<&str>,
) -> Result<(), LedgerError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::migrate(&transaction, found)?;
    if let Some(ledger_id) = ledger_id.filter(|_| found < 4) {
        // Before anything is sealed: each seal is made of it.
        transaction.execute("UPDATE identity SET ledger_id = ?1", [ledger_id])?;
    }
    let rolled_up: i64 =
        transaction.query_row("SELECT rolled_up FROM bounds", [], |row| row.get(0))?;
    let (mut linked, mut link) = chain::head(&transaction)?;
    let mut digests = Digests::default();
    while linked < rolled_up {
        let until = rolled_up.min(linked + STEP);
        link = chain::extend(
            &transaction,
            &mut digests,
            (linked, link),
            until,
            &[],
            |_| (),
        )?;
        linked = until;
    }
    if found < 4 {
        seal_again(&transaction)?;
    }
    notices_to_events(&transaction, found)?;
    Ok(transaction.commit()?)
}

/// A notice of schema 3 or 4 that was not sent yet becomes an event; one that was sent is known, and
/// not raised again.
fn notices_to_events(transaction: &Connection, found: i32) -> Result<(), LedgerError> {
    if !(3..5).contains(&found) {
        return Ok(());
    }
    let mut select = transaction.prepare(
        "SELECT id, account, raised_at, body, sent_at FROM notices ORDER BY raised_at, rowid",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (id, account): (String, String) = (row.get(0)?, row.get(1)?);
        let raised_at: i64 = row.get(2)?;
        // Its id ends with the threshold.
        let r#type = match id.ends_with("/low") {
            true => "pack.low",
            false => "pack.exhausted",
        };
        let body: String = row.get(3)?;
        let data: serde_json::Value = serde_json::from_str(&body).unwrap_or(body.into());
        let timestamp = jiff::Timestamp::from_microsecond(raised_at).unwrap_or_default();
        let body =
            serde_json::json!({"type": r#type, "timestamp": timestamp.to_string(), "data": data});
        transaction.execute(
            "INSERT INTO events (id, account, type, raised_at, body, sent_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![event_id(&id), account, r#type, raised_at, body.to_string(), row.get::<_, Option<i64>>(4)?],
        )?;
    }
    drop(rows);
    drop(select);
    Ok(transaction.execute_batch("DROP TABLE notices")?)
}

/// Seals what was published by older schemas: the head of the newest day stands for its records and
/// all before, and each settled month for its statements.
fn seal_again(transaction: &Connection) -> Result<(), LedgerError> {
    if let Some(newest) = bills::last_seal(transaction)? {
        seal::add(transaction, &seal::of_day(&newest.day), &newest.head)?;
    }
    let months: Vec<String> = transaction
        .prepare("SELECT month FROM settlements WHERE settled_at IS NOT NULL ORDER BY month")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for month in months {
        let digest =
            fixed::statements_digest(transaction, &month).map_err(|error| match error {
                ReadError::Sql(error) => LedgerError::Sql(error),
                other => LedgerError::Damaged(other.to_string()),
            })?;
        let sql = "UPDATE settlements SET digest = ?2 WHERE month = ?1";
        transaction.execute(sql, params![month, digest])?;
        bills::seal_month(transaction, &month)?;
    }
    Ok(())
}

/// Whether `copy` holds what the ledger holds. Each start of a process notes itself, so two states
/// with the same runs and the same records are one.
fn is_copy_of(copy: &Path, ledger: &Connection) -> bool {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(found) = Connection::open_with_flags(copy, flags) else {
        return false;
    };
    let state = |connection: &Connection| -> Result<(i64, i64, i64), rusqlite::Error> {
        connection.query_row(
            "SELECT (SELECT coalesce(max(run), 0) FROM runs), first_kept,
                    max(rolled_up, (SELECT coalesce(max(seq), 0) FROM raw)) FROM bounds",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
    };
    matches!(header::identify(&found), Ok(FileKind::Older(_)))
        && state(&found).is_ok_and(|found| state(ledger).is_ok_and(|ledger| ledger == found))
}

#[cfg(test)]
mod tests;
