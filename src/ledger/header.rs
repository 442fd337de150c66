//! Telling a ledger from any other file, by its header.
//!
//! Must never touch a file that is not a ledger of ours.

use crate::ledger::LedgerError;
use crate::ledger::schema::{self, APPLICATION_ID, OLDER, VERSION};
use rusqlite::{Connection, ErrorCode, OptionalExtension};
use std::collections::BTreeMap;

/// What a file is, by its header alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FileKind {
    /// A ledger in the schema [`VERSION`].
    Ledger,
    /// A ledger in this one of the schemas [`OLDER`].
    Older(i32),
    /// Nothing was ever written to it.
    Empty,
}

/// Reads the header of the file. Writes nothing, so that a file which is not ours stays as it is.
pub(super) fn identify(connection: &Connection) -> Result<FileKind, LedgerError> {
    let pragma = |name| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
    let application_id: i32 = match pragma("application_id") {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            return Err(LedgerError::NotALedger);
        }
        other => other?,
    };
    if application_id == APPLICATION_ID {
        return match pragma("user_version")? {
            VERSION => Ok(FileKind::Ledger),
            found if OLDER.contains(&found) => Ok(FileKind::Older(found)),
            found => Err(LedgerError::OtherVersion {
                found,
                known: VERSION,
            }),
        };
    }
    let something: Option<i32> = connection
        .query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |row| row.get(0))
        .optional()?;
    let user_version: i32 = pragma("user_version")?;
    match (application_id, user_version, something) {
        (0, 0, None) => Ok(FileKind::Empty),
        _ => Err(LedgerError::NotALedger),
    }
}

/// Checks that the file has all that a ledger has, and no trigger: one would change what is
/// recorded, behind every commit. Tables and indices of others are left alone.
pub(super) fn check_objects(connection: &Connection) -> Result<(), LedgerError> {
    let model = Connection::open_in_memory()?;
    schema::create(&model)?;
    let found = objects(connection)?;
    if let Some((name, _)) = found.iter().find(|(_, (kind, _))| kind == "trigger") {
        return Err(LedgerError::Foreign(format!(
            "it has a trigger {name}, which tollgate did not make and which may change records: see what it does, take it away \
             with DROP TRIGGER, and compare the ledger with a backup"
        )));
    }
    for (name, (kind, sql)) in objects(&model)? {
        // A table that was migrated has another text; a view is made anew.
        let is_there = found
            .get(&name)
            .is_some_and(|(other, text)| *other == kind && (kind != "view" || *text == sql));
        if !is_there {
            return Err(LedgerError::Foreign(format!(
                "its {kind} {name} is missing or another: put a backup back with `tollgate restore`"
            )));
        }
    }
    Ok(())
}

/// Kind and SQL of each object by its name, without SQLite's own.
fn objects(
    connection: &Connection,
) -> Result<BTreeMap<String, (String, Option<String>)>, rusqlite::Error> {
    connection
        .prepare("SELECT name, type, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'")?
        .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?
        .collect()
}
