//! How rows are read and written: numbers, words, instants, and the two ends of the records.

use crate::ledger::error::ReadError;
use crate::model::{Mono, Utc};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Row};
use serde::Serializer;
use std::fmt::Display;

/// How long a read waits while the file is being created or recovered by another process.
use std::collections::HashMap;

/// A map with a fast hash. Only for keys that no client chooses.
pub(super) type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

pub(super) fn text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(super) fn micros<S: Serializer>(at: &Utc, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(at.0)
}

pub(super) fn nanos<S: Serializer>(at: &Mono, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.0)
}

pub(super) fn last_seq(connection: &Connection) -> Result<u64, ReadError> {
    Ok(u64::try_from(newest_seq(connection)?).unwrap_or(0))
}

pub(super) fn first_kept(connection: &Connection) -> Result<u64, ReadError> {
    Ok(connection.query_row("SELECT first_kept FROM bounds", [], |row| unsigned(row, 0))?)
}

pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

pub(super) fn word<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, ReadError> {
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(rusqlite::Error::from)?;
    parse(text).ok_or_else(|| ReadError::Unknown(text.to_owned()))
}

/// The newest seq that was ever given, also when its record has been pruned; 0 before the first.
pub(super) fn newest_seq(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.query_row(
        "SELECT max(rolled_up, (SELECT coalesce(max(seq), 0) FROM raw)) FROM bounds",
        [],
        |row| row.get(0),
    )
}

/// By default SQLite copies the WAL when the last connection of a file is closed. After an error of
/// the disk that would write what cannot be trusted, so the WAL is copied on purpose or not at all.
pub(super) fn let_nobody_copy_at_close(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map(drop)
}
