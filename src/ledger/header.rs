//! Telling a ledger from any other file, by its header.
//!
//! Must never touch a file that is not a ledger of ours.

use crate::ledger::LedgerError;
use crate::ledger::schema::{APPLICATION_ID, OLDER, VERSION};
use rusqlite::{Connection, ErrorCode, OptionalExtension};

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
