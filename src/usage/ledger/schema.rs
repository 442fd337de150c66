//! The tables, and telling a ledger from any other file. The tables are documented in the head of
//! [`super`], for people who read them with a client of their own.
//!
//! Owns `application_id` and `user_version`. Must never touch a file that is not a ledger of ours.

use super::LedgerError;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction};

/// "toll", in the header of the file: `file(1)` and [`identify`] know a ledger by it.
const APPLICATION_ID: i32 = 0x746f_6c6c;

/// The schema that this program reads and writes. Newer is refused, older is migrated.
pub(super) const VERSION: i32 = 3;

/// The one that [`super::migrate`] makes it of.
pub(super) const OLDER: i32 = 2;

/// Records and their rollup, as in schema 2.
const RECORDS: &str = r#"
CREATE TABLE runs (
    run        INTEGER PRIMARY KEY,
    replica    TEXT NOT NULL,
    opened_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE series (
    id        INTEGER PRIMARY KEY,
    account   TEXT NOT NULL,
    "group"   TEXT NOT NULL,
    action    TEXT NOT NULL,
    mode      TEXT NOT NULL,
    outcome   TEXT NOT NULL,
    billable  INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    UNIQUE (account, "group", action, mode, outcome, reason)
) STRICT;

CREATE TABLE raw (
    seq          INTEGER PRIMARY KEY,
    id           BLOB NOT NULL,
    series       INTEGER NOT NULL,
    admitted_at  INTEGER NOT NULL,
    start_ns     INTEGER NOT NULL,
    run          INTEGER NOT NULL,
    status       INTEGER,
    duration_us  INTEGER NOT NULL
) STRICT;

CREATE TABLE hours (
    hour       INTEGER NOT NULL,
    series     INTEGER NOT NULL,
    calls      INTEGER NOT NULL,
    first_seq  INTEGER NOT NULL,
    last_seq   INTEGER NOT NULL,
    PRIMARY KEY (hour, series)
) STRICT, WITHOUT ROWID;

CREATE TABLE bounds (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    first_kept INTEGER NOT NULL,
    rolled_up  INTEGER NOT NULL
) STRICT;
INSERT INTO bounds VALUES (1, 1, 0);

CREATE VIEW records AS
SELECT raw.seq,
       lower(substr(hex(raw.id), 1, 8) || '-' || substr(hex(raw.id), 9, 4) || '-' || substr(hex(raw.id), 13, 4)
             || '-' || substr(hex(raw.id), 17, 4) || '-' || substr(hex(raw.id), 21)) AS id,
       account, "group", action, mode, admitted_at, start_ns, raw.run, outcome, status, billable, reason,
       duration_us, replica
FROM raw CROSS JOIN series ON series.id = raw.series CROSS JOIN runs ON runs.run = raw.run;

CREATE VIEW tail AS
SELECT admitted_at / 3600000000 AS hour, series, 1 AS calls, seq AS first_seq, seq AS last_seq
FROM raw WHERE seq > (SELECT rolled_up FROM bounds);

CREATE VIEW rollup AS
SELECT account, "group", action, mode, outcome, billable, reason, hour, calls, first_seq, last_seq
FROM hours CROSS JOIN series ON series.id = hours.series
UNION ALL
SELECT account, "group", action, mode, outcome, billable, reason, hour, calls, first_seq, last_seq
FROM tail CROSS JOIN series ON series.id = tail.series;
"#;

/// The chain over the records and what is billed from them: what schema 3 added.
const BILLS: &str = r#"
CREATE TABLE links (
    last_seq  INTEGER PRIMARY KEY,
    link      BLOB NOT NULL,
    marks     BLOB NOT NULL
) STRICT;

CREATE TABLE days (
    day        TEXT PRIMARY KEY,
    first_seq  INTEGER NOT NULL,
    last_seq   INTEGER NOT NULL,
    head       BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE settlements (
    month        TEXT PRIMARY KEY,
    through_seq  INTEGER NOT NULL,
    head         BLOB NOT NULL,
    fixed_at     INTEGER NOT NULL,
    settled_at   INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE statements (
    month      TEXT NOT NULL,
    account    TEXT NOT NULL,
    due        TEXT NOT NULL,
    inputs     TEXT NOT NULL,
    statement  TEXT NOT NULL,
    PRIMARY KEY (month, account)
) STRICT;
CREATE INDEX statements_of_account ON statements (account, month, due);

CREATE TABLE notices (
    id         TEXT PRIMARY KEY,
    account    TEXT NOT NULL,
    "order"    TEXT NOT NULL,
    raised_at  INTEGER NOT NULL,
    body       TEXT NOT NULL,
    sent_at    INTEGER
) STRICT;
CREATE INDEX notices_unsent ON notices (raised_at) WHERE sent_at IS NULL;
"#;

/// What a file is, by its header alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A ledger in the schema [`VERSION`].
    Ledger,
    /// A ledger in the schema [`OLDER`].
    Older,
    /// Nothing was ever written to it.
    Empty,
}

/// Reads the header of the file. Writes nothing, so that a file which is not ours stays as it is.
pub(super) fn identify(connection: &Connection) -> Result<Kind, LedgerError> {
    let pragma = |name| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
    let application_id: i32 = match pragma("application_id") {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            return Err(LedgerError::NotALedger);
        }
        other => other?,
    };
    if application_id == APPLICATION_ID {
        return match pragma("user_version")? {
            VERSION => Ok(Kind::Ledger),
            OLDER => Ok(Kind::Older),
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
        (0, 0, None) => Ok(Kind::Empty),
        _ => Err(LedgerError::NotALedger),
    }
}

/// Makes an empty file a ledger, as a whole or not at all.
pub(super) fn create(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {RECORDS} {BILLS}
         INSERT INTO links VALUES (0, zeroblob(32), zeroblob(0));
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
    ))
}

/// Makes the tables of [`OLDER`] those of [`VERSION`], inside a transaction. The chain begins with the first record
/// that is kept.
pub(super) fn migrate(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    transaction.execute_batch(&format!(
        "DROP VIEW days; {BILLS}
         INSERT INTO links SELECT first_kept - 1, zeroblob(32), zeroblob(0) FROM bounds;
         PRAGMA user_version = {VERSION};"
    ))
}
