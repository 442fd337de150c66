//! The tables. They are documented in the head of [`ledger`](crate::ledger), for people who read
//! them with a client of their own.
//!
//! Owns `application_id` and `user_version`.

use rusqlite::{Connection, Transaction};

/// "toll", in the header of the file: `file(1)` and [`crate::ledger::header`] know a ledger by it.
pub(super) const APPLICATION_ID: i32 = 0x746f_6c6c;

/// The schema that this program reads and writes. Newer is refused, older is migrated.
pub(super) const VERSION: i32 = 6;

/// Those that [`crate::ledger::migrate`] makes it of.
pub(super) const OLDER: [i32; 4] = [2, 3, 4, 5];

/// How records are linked today. Version 1, up to schema 4, knew neither keys nor a shared store.
/// The version of each step of the roll-up stands beside its link.
pub(super) const LINK_VERSION: i64 = 2;

/// Records.
const RECORDS: &str = r#"
CREATE TABLE runs (
    run         INTEGER PRIMARY KEY,
    replica     TEXT NOT NULL,
    opened_at   INTEGER NOT NULL,
    source      INTEGER,
    source_run  INTEGER
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
    key       TEXT NOT NULL,
    UNIQUE (account, "group", action, mode, outcome, reason, key)
) STRICT;

CREATE TABLE raw (
    seq          INTEGER PRIMARY KEY,
    id           BLOB NOT NULL,
    series       INTEGER NOT NULL,
    admitted_at  INTEGER NOT NULL,
    start_ns     INTEGER NOT NULL,
    run          INTEGER NOT NULL,
    status       INTEGER,
    duration_us     INTEGER NOT NULL,
    store_epoch     INTEGER,
    store_start_us  INTEGER
) STRICT;

CREATE TABLE bounds (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    first_kept INTEGER NOT NULL,
    rolled_up  INTEGER NOT NULL,
    frozen     INTEGER NOT NULL DEFAULT 0,
    floor      INTEGER NOT NULL DEFAULT 1
) STRICT;
INSERT INTO bounds (one, first_kept, rolled_up) VALUES (1, 1, 0);
"#;

/// What readers see of the records.
const RECORD_VIEWS: &str = r#"
CREATE VIEW records AS
SELECT raw.seq,
       lower(substr(hex(raw.id), 1, 8) || '-' || substr(hex(raw.id), 9, 4) || '-' || substr(hex(raw.id), 13, 4)
             || '-' || substr(hex(raw.id), 17, 4) || '-' || substr(hex(raw.id), 21)) AS id,
       account, "group", action, mode, admitted_at, start_ns, raw.run, outcome, status, billable, reason,
       duration_us, replica, key, store_epoch, store_start_us
FROM raw CROSS JOIN series ON series.id = raw.series CROSS JOIN runs ON runs.run = raw.run;

CREATE VIEW tail AS
SELECT admitted_at / 3600000000 AS hour, series, 1 AS calls, seq AS first_seq, seq AS last_seq
FROM raw WHERE seq > (SELECT rolled_up FROM bounds);
"#;

/// The rollup. A row is never changed once its records are sealed, so a series may have several in
/// an hour. The index is the order in which they are sealed.
const HOURS: &str = r#"
CREATE TABLE hours (
    hour       INTEGER NOT NULL,
    series     INTEGER NOT NULL,
    calls      INTEGER NOT NULL,
    first_seq  INTEGER NOT NULL,
    last_seq   INTEGER NOT NULL,
    PRIMARY KEY (hour, series, first_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX hours_in_order ON hours (first_seq);

CREATE TABLE hour_ends (
    hour      INTEGER PRIMARY KEY,
    last_seq  INTEGER NOT NULL
) STRICT;
CREATE INDEX hour_ends_in_order ON hour_ends (last_seq);
"#;

/// What readers see of the roll-up.
const ROLLUP_VIEW: &str = r#"
CREATE VIEW rollup AS
SELECT account, "group", action, mode, outcome, billable, reason, hour, calls, first_seq, last_seq, key
FROM hours CROSS JOIN series ON series.id = hours.series
UNION ALL
SELECT account, "group", action, mode, outcome, billable, reason, hour, calls, first_seq, last_seq, key
FROM tail CROSS JOIN series ON series.id = tail.series;
"#;

/// What tells this ledger from any other, and what of it was published.
const IDENTITY: &str = r#"
CREATE TABLE identity (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    ledger_id      TEXT NOT NULL,
    restore_count  INTEGER NOT NULL
) STRICT;
INSERT INTO identity VALUES (1, lower(hex(randomblob(16))), 0);

CREATE TABLE restores (
    restore_count  INTEGER PRIMARY KEY,
    last_seq       INTEGER NOT NULL,
    next_seq       INTEGER NOT NULL,
    restored_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE seals (
    place  INTEGER PRIMARY KEY,
    what   TEXT NOT NULL UNIQUE,
    head   BLOB NOT NULL
) STRICT;
"#;

/// What was seen of the clocks.
const CLOCK: &str = r#"
CREATE TABLE clock (
    one              INTEGER PRIMARY KEY CHECK (one = 1),
    boot             TEXT NOT NULL,
    mono_ns          INTEGER NOT NULL,
    utc_us           INTEGER NOT NULL,
    in_step_us       INTEGER NOT NULL,
    trusted_us       INTEGER NOT NULL,
    known_us         INTEGER NOT NULL,
    fixed_unseen_us  INTEGER
) STRICT;
"#;

/// The chain over the records and what is billed from them.
const BILLS: &str = r#"
CREATE TABLE links (
    last_seq  INTEGER PRIMARY KEY,
    link      BLOB NOT NULL,
    marks     BLOB NOT NULL,
    version   INTEGER NOT NULL
) STRICT;

CREATE TABLE days (
    day        TEXT PRIMARY KEY,
    first_seq  INTEGER NOT NULL,
    last_seq   INTEGER NOT NULL,
    head       BLOB NOT NULL,
    link       BLOB,
    first_kept INTEGER,
    hours      BLOB,
    debits     TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE settlements (
    month        TEXT PRIMARY KEY,
    through_seq  INTEGER NOT NULL,
    head         BLOB NOT NULL,
    fixed_at     INTEGER NOT NULL,
    settled_at   INTEGER,
    digest       BLOB,
    late_months  INTEGER,
    debited_at   INTEGER
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
"#;

/// What is told to the provider's systems, and what was turned away.
const EVENTS: &str = r#"
CREATE TABLE events (
    place          INTEGER PRIMARY KEY,
    id             TEXT NOT NULL UNIQUE,
    account        TEXT NOT NULL,
    type           TEXT NOT NULL,
    raised_at      INTEGER NOT NULL,
    body           TEXT NOT NULL,
    failing_since  INTEGER,
    sent_at        INTEGER,
    passed_at      INTEGER
) STRICT;
CREATE INDEX events_unsent ON events (place) WHERE sent_at IS NULL AND passed_at IS NULL;

CREATE TABLE turned_away (
    account  TEXT NOT NULL,
    hour     INTEGER NOT NULL,
    "group"  TEXT NOT NULL,
    reason   TEXT NOT NULL,
    calls    INTEGER NOT NULL,
    PRIMARY KEY (account, hour, "group", reason)
) STRICT, WITHOUT ROWID;
"#;

/// The ledgers whose records are collected here, and how far this one's own are collected elsewhere.
const SOURCES: &str = r#"
CREATE TABLE sources (
    source         INTEGER PRIMARY KEY,
    ledger_id      TEXT NOT NULL UNIQUE,
    replica        TEXT NOT NULL,
    restore_count  INTEGER NOT NULL,
    first_seq      INTEGER,
    seq            INTEGER NOT NULL,
    link           BLOB,
    told_us        INTEGER,
    told_seq       INTEGER,
    awaited_us     INTEGER,
    awaited_seq    INTEGER,
    reached_us     INTEGER,
    first_seen_at  INTEGER NOT NULL,
    retired_at     INTEGER,
    retired_why    TEXT
) STRICT;
CREATE INDEX runs_of_sources ON runs (source, source_run) WHERE source IS NOT NULL;

CREATE TABLE collected (
    first_seq      INTEGER PRIMARY KEY,
    last_seq       INTEGER NOT NULL,
    source         INTEGER NOT NULL,
    source_first   INTEGER NOT NULL,
    source_last    INTEGER NOT NULL,
    restore_count  INTEGER NOT NULL,
    left_after     INTEGER,
    link_before    BLOB NOT NULL,
    link           BLOB NOT NULL,
    version        INTEGER NOT NULL
) STRICT;
CREATE INDEX collected_of_source ON collected (source, source_first);

CREATE TABLE outbox (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    collected_seq  INTEGER NOT NULL,
    most_seq       INTEGER NOT NULL,
    ledger_id      TEXT    NOT NULL,
    restore_count  INTEGER NOT NULL
) STRICT;

CREATE TABLE adopted (
    ledger_id   TEXT PRIMARY KEY,
    adopted_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"#;

/// Licences for apps: who applied for a trial, what was revoked, how many grants were given out.
const LICENCES: &str = r#"
CREATE TABLE licence_trials (
    account     TEXT NOT NULL,
    place       INTEGER NOT NULL,
    package     TEXT NOT NULL,
    applied_at  INTEGER NOT NULL,
    PRIMARY KEY (account, place),
    UNIQUE (account, package)
) STRICT, WITHOUT ROWID;

CREATE TABLE licence_revocations (
    account     TEXT NOT NULL,
    package     TEXT NOT NULL,
    revoked_at  INTEGER NOT NULL,
    why         TEXT NOT NULL,
    PRIMARY KEY (account, package)
) STRICT, WITHOUT ROWID;

CREATE TABLE licence_grants (
    account  TEXT NOT NULL,
    day      TEXT NOT NULL,
    package  TEXT NOT NULL,
    kind     TEXT NOT NULL,
    grants   INTEGER NOT NULL,
    PRIMARY KEY (account, day, package, kind)
) STRICT, WITHOUT ROWID;
"#;

/// Makes an empty file a ledger, as a whole or not at all.
pub(super) fn create(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {RECORDS} {RECORD_VIEWS} {HOURS} {ROLLUP_VIEW} {BILLS} {EVENTS} {IDENTITY} {CLOCK} {SOURCES} {LICENCES}
         INSERT INTO links VALUES (0, zeroblob(32), zeroblob(0), {LINK_VERSION});
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
    ))
}

/// Makes the tables of schema `found`, one of [`OLDER`], those of [`VERSION`], inside a
/// transaction. The chain of a ledger of schema 2 begins with the first record that is kept.
pub(super) fn migrate(transaction: &Transaction<'_>, found: i32) -> Result<(), rusqlite::Error> {
    if found < 5 {
        migrate_to_5(transaction, found)?;
    }
    transaction.execute_batch(&format!(
        "ALTER TABLE runs ADD COLUMN source INTEGER;
         ALTER TABLE runs ADD COLUMN source_run INTEGER;
         {SOURCES} {LICENCES}
         PRAGMA user_version = {VERSION};"
    ))
}

/// Makes the tables of schema 2, 3 or 4 those of schema 5.
fn migrate_to_5(transaction: &Transaction<'_>, found: i32) -> Result<(), rusqlite::Error> {
    // The views name columns that change.
    transaction.execute_batch("DROP VIEW rollup; DROP VIEW tail; DROP VIEW records;")?;
    match found {
        2 => transaction.execute_batch(&format!(
            "DROP VIEW days; {BILLS}
             INSERT INTO links SELECT first_kept - 1, zeroblob(32), zeroblob(0), {LINK_VERSION} FROM bounds;"
        ))?,
        3 => transaction.execute_batch(
            "ALTER TABLE days ADD COLUMN link BLOB; ALTER TABLE days ADD COLUMN first_kept INTEGER;
             ALTER TABLE days ADD COLUMN hours BLOB; ALTER TABLE settlements ADD COLUMN digest BLOB;
             ALTER TABLE settlements ADD COLUMN late_months INTEGER; UPDATE settlements SET late_months = 2;",
        )?,
        _ => {}
    }
    if found < 4 {
        transaction.execute_batch(&format!(
            "ALTER TABLE hours RENAME TO older_hours;
             {HOURS}
             INSERT INTO hours SELECT hour, series, calls, first_seq, last_seq FROM older_hours;
             INSERT INTO hour_ends SELECT hour, max(last_seq) FROM hours GROUP BY hour;
             DROP TABLE older_hours;
             ALTER TABLE bounds ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0;
             ALTER TABLE bounds ADD COLUMN floor INTEGER NOT NULL DEFAULT 1;
             UPDATE bounds SET floor = first_kept;
             {IDENTITY} {CLOCK}"
        ))?;
    }
    if found > 2 {
        // What is linked stays linked as it was: heads that were published still verify.
        transaction.execute_batch(
            "ALTER TABLE links ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
             ALTER TABLE days ADD COLUMN debits TEXT;
             ALTER TABLE settlements ADD COLUMN debited_at INTEGER;
             UPDATE settlements SET debited_at = settled_at;",
        )?;
    }
    transaction.execute_batch(&format!(
        r#"CREATE TABLE newer_series (
             id INTEGER PRIMARY KEY, account TEXT NOT NULL, "group" TEXT NOT NULL, action TEXT NOT NULL,
             mode TEXT NOT NULL, outcome TEXT NOT NULL, billable INTEGER NOT NULL, reason TEXT NOT NULL,
             key TEXT NOT NULL, UNIQUE (account, "group", action, mode, outcome, reason, key)
           ) STRICT;
           INSERT INTO newer_series
             SELECT id, account, "group", action, mode, outcome, billable, reason, '' FROM series;
           DROP TABLE series;
           ALTER TABLE newer_series RENAME TO series;
           ALTER TABLE raw ADD COLUMN store_epoch INTEGER;
           ALTER TABLE raw ADD COLUMN store_start_us INTEGER;
           {RECORD_VIEWS} {ROLLUP_VIEW} {EVENTS}"#
    ))
}
