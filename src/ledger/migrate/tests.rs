//! From a ledger of an older schema, as an older tollgate left it.

use super::*;
use crate::ledger::chain::Link;
use crate::ledger::handle::tests::{ALL, Bench, DAY, assert_consistent, record, settled};
use crate::ledger::known::KnownLedger;
use crate::ledger::restore::restore;
use crate::ledger::store::Store;
use crate::ledger::{Ledger, LedgerError, Reader, StoredRecord};
use crate::model::Utc;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// The tables of schema 2, as they were released.
const SCHEMA_2: &str = r#"
CREATE TABLE runs (run INTEGER PRIMARY KEY, replica TEXT NOT NULL, opened_at INTEGER NOT NULL) STRICT;
CREATE TABLE series (id INTEGER PRIMARY KEY, account TEXT NOT NULL, "group" TEXT NOT NULL, action TEXT NOT NULL,
    mode TEXT NOT NULL, outcome TEXT NOT NULL, billable INTEGER NOT NULL, reason TEXT NOT NULL,
    UNIQUE (account, "group", action, mode, outcome, reason)) STRICT;
CREATE TABLE raw (seq INTEGER PRIMARY KEY, id BLOB NOT NULL, series INTEGER NOT NULL, admitted_at INTEGER NOT NULL,
    start_ns INTEGER NOT NULL, run INTEGER NOT NULL, status INTEGER, duration_us INTEGER NOT NULL) STRICT;
CREATE TABLE hours (hour INTEGER NOT NULL, series INTEGER NOT NULL, calls INTEGER NOT NULL, first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL, PRIMARY KEY (hour, series)) STRICT, WITHOUT ROWID;
CREATE TABLE bounds (one INTEGER PRIMARY KEY CHECK (one = 1), first_kept INTEGER NOT NULL,
    rolled_up INTEGER NOT NULL) STRICT;
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
CREATE VIEW days AS
SELECT date(hour * 3600, 'unixepoch') AS day, min(first_seq) AS first_seq, max(last_seq) AS last_seq
FROM rollup GROUP BY day;
PRAGMA application_id = 0x746f6c6c;
PRAGMA user_version = 2;
"#;

/// What schema 3 added to it, as it was released.
const SCHEMA_3: &str = r#"
DROP VIEW days;
CREATE TABLE links (last_seq INTEGER PRIMARY KEY, link BLOB NOT NULL, marks BLOB NOT NULL) STRICT;
CREATE TABLE days (day TEXT PRIMARY KEY, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, head BLOB NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE TABLE settlements (month TEXT PRIMARY KEY, through_seq INTEGER NOT NULL, head BLOB NOT NULL,
    fixed_at INTEGER NOT NULL, settled_at INTEGER) STRICT, WITHOUT ROWID;
CREATE TABLE statements (month TEXT NOT NULL, account TEXT NOT NULL, due TEXT NOT NULL, inputs TEXT NOT NULL,
    statement TEXT NOT NULL, PRIMARY KEY (month, account)) STRICT;
CREATE INDEX statements_of_account ON statements (account, month, due);
CREATE TABLE notices (id TEXT PRIMARY KEY, account TEXT NOT NULL, "order" TEXT NOT NULL, raised_at INTEGER NOT NULL,
    body TEXT NOT NULL, sent_at INTEGER) STRICT;
CREATE INDEX notices_unsent ON notices (raised_at) WHERE sent_at IS NULL;
PRAGMA user_version = 3;
"#;

/// The one of [`old_ledger`] in schema 3: linked in two steps, a day sealed and a month settled
/// after the first. Gives the heads after both.
fn ledger_of_schema_3(bench: &Bench) -> [Link; 2] {
    let old = old_ledger(bench, 0);
    old.execute_batch(SCHEMA_3).unwrap();
    old.execute(
        "INSERT INTO links VALUES (0, zeroblob(32), zeroblob(0))",
        [],
    )
    .unwrap();
    let first = linked_as_released(&old, (0, chain::ORIGIN), 2_000);
    let second = linked_as_released(&old, (2_000, first), 4_990);
    for sql in [
        "INSERT INTO days VALUES ('2026-11-24', 1, 2000, ?1)",
        "INSERT INTO settlements VALUES ('2026-10', 2000, ?1, 5, 6)",
    ] {
        old.execute(sql, [first]).unwrap();
    }
    let statement = "INSERT INTO statements VALUES ('2026-10', 'a', '0.00', '{}', '{}')";
    old.execute(statement, []).unwrap();
    [first, second]
}

/// Links the records after `from` up to `until` as SCHEMA says of version 1, and writes the step
/// down.
fn linked_as_released(old: &Connection, (from, mut link): (i64, Link), until: i64) -> Link {
    let mut marks = Vec::new();
    let mut select = old
        .prepare(
            r#"SELECT account, "group", action, mode, outcome, reason, replica, billable, seq, raw.id, admitted_at,
                      start_ns, run, status, duration_us
               FROM raw JOIN series ON series.id = raw.series JOIN runs USING (run)
               WHERE seq > ?1 AND seq <= ?2 ORDER BY seq"#,
        )
        .unwrap();
    let mut rows = select.query([from, until]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let mut texts = Vec::new();
        for column in 0..7 {
            let text: String = row.get(column).unwrap();
            texts.extend((text.len() as u32).to_be_bytes());
            texts.extend(text.as_bytes());
        }
        let number = |column| row.get::<_, i64>(column).unwrap().to_be_bytes();
        texts.extend(number(7));
        let mut bytes = link.to_vec();
        bytes.extend(number(8));
        bytes.extend(row.get::<_, [u8; 16]>(9).unwrap());
        bytes.extend(&Sha256::digest(&texts)[..16]);
        bytes.extend([number(10), number(11), number(12)].concat());
        match row.get::<_, Option<i64>>(13).unwrap() {
            Some(status) => bytes.extend([&[1][..], &status.to_be_bytes()].concat()),
            None => bytes.extend([0; 9]),
        }
        bytes.extend(number(14));
        assert_eq!(bytes.len(), 113);
        link = Sha256::digest(&bytes).into();
        marks.extend_from_slice(&link[..8]);
    }
    let step = "INSERT INTO links (last_seq, link, marks) VALUES (?1, ?2, ?3)";
    old.execute(step, params![until, link, marks]).unwrap();
    link
}

/// The seals and the link that a tollgate of that time published of [`ledger_of_schema_4`].
const HEADS_OF_SCHEMA_4: [&str; 4] = [
    "45166007997d2c1a8a3a938fb98acf96552a2701f2de250a40d48f0d26d74e19",
    "75e20ee75f162c173f04a77a4a6fa4296dd63bf23019ca2aaf27e5f2f44aa76d",
    "31bd9712b12d00c08180c375e18a4a1c4bd77fa405e4b6231fa125ea00336758",
    "d48215d33ee5f710f8af15d3656cbe527776a37c3d51db31a12755dd9617d5a4",
];

fn ledger_of_schema_4(bench: &Bench) {
    let old = Connection::open(bench.path()).unwrap();
    old.execute_batch(include_str!("schema_4.sql")).unwrap();
}

/// The seals and the link that a tollgate of that time published of [`ledger_of_schema_5`].
const HEADS_OF_SCHEMA_5: [&str; 3] = [
    "af2fb528e51b6bb800d67f5e890df69c537de29dda6f0c4a2caa354a98f28abf",
    "febd7e5acd5c0cb54a4d947ce917ec1963ad8aa46cebd42fe58c204eab0336bb",
    "6fb57946f043eeed9ad0f46faf329528e2047d71146dc4d2bf30606c8fdcf7a5",
];

fn ledger_of_schema_5(bench: &Bench) {
    let old = Connection::open(bench.path()).unwrap();
    old.execute_batch(include_str!("schema_5.sql")).unwrap();
}

fn head(hex_text: &str) -> Link {
    hex::decode(hex_text).unwrap().try_into().unwrap()
}

#[test]
fn a_ledger_of_schema_4_keeps_its_records_seals_and_debits_and_its_notices_become_events() {
    let bench = Bench::new();
    ledger_of_schema_4(&bench);
    let before = old_records(&bench.path());
    let ledger = bench.open();
    assert_eq!(old_records(&bench.path()), before);
    let copy = suffixed(&bench.path(), ".schema-4.bak");
    assert_eq!(old_records(&copy), before);
    for published in HEADS_OF_SCHEMA_4 {
        let verified = bench.reader().verify(Some(head(published))).unwrap();
        assert_eq!(verified.last_seq, 73);
    }
    let fixed = bench.reader().last_settlement().unwrap().unwrap();
    assert_eq!(fixed.debited_at, fixed.settled_at);
    let debits = bench.reader().debits(None).unwrap();
    assert_eq!(debits.len(), 1);
    assert_eq!(
        (&*debits[0].account.to_string(), &*debits[0].due),
        ("a1", "12.50")
    );

    let unsent = bench.reader().unsent_events(10).unwrap();
    let told: Vec<_> = unsent
        .iter()
        .map(|event| (&*event.id, &*event.r#type))
        .collect();
    let (low, exhausted) = (event_id("a1/P-2/1/low"), event_id("a1/P-1/1/exhausted"));
    assert_eq!(told, [(&*low, "pack.low"), (&*exhausted, "pack.exhausted")]);
    assert!(unsent[0].body.contains(r#""left":3"#), "{}", unsent[0].body);
    // One that was sent is known, and not raised again.
    assert!(
        bench
            .reader()
            .event_known(&event_id("a1/P-1/1/low"))
            .unwrap()
    );

    // What comes after it is linked and sealed with what is new.
    crate::ledger::handle::tests::commit(&ledger, record(4_000)).unwrap();
    let seal = ledger.seal("2026-11-26").unwrap();
    drop(ledger);
    for published in HEADS_OF_SCHEMA_4 {
        bench.reader().verify(Some(head(published))).unwrap();
    }
    bench.reader().verify(Some(seal.head)).unwrap();
    let refused = |sql: &str| {
        let changed = bench.sql();
        changed.execute_batch(&format!("BEGIN; {sql}")).unwrap();
        changed.execute_batch("COMMIT").unwrap();
        bench
            .reader()
            .verify(Some(seal.head))
            .unwrap_err()
            .to_string()
    };
    let debit = refused("UPDATE settlements SET debited_at = debited_at + 1");
    assert!(
        debit.starts_with("settlements 2026-10: debited_at is"),
        "{debit}"
    );
    let undone = bench.sql();
    undone
        .execute("UPDATE settlements SET debited_at = debited_at - 1", [])
        .unwrap();
    drop(undone);
    let key = refused("UPDATE series SET key = 'other' WHERE key <> ''");
    assert!(key.starts_with("raw 74: it is not the record"), "{key}");
    bench
        .sql()
        .execute("UPDATE series SET key = 'k' WHERE key <> ''", [])
        .unwrap();
    bench.reader().verify(Some(seal.head)).unwrap();
    let version = refused("UPDATE links SET version = 1 WHERE last_seq = 74");
    assert!(version.starts_with("raw 74"), "{version}");
}

#[test]
fn a_ledger_of_schema_5_keeps_its_records_and_seals_and_is_the_source_of_nothing_yet() {
    let bench = Bench::new();
    ledger_of_schema_5(&bench);
    let before = old_records(&bench.path());
    assert_eq!(before.len(), 63);
    let ledger = bench.open();
    assert_eq!(old_records(&bench.path()), before);
    let copy = suffixed(&bench.path(), ".schema-5.bak");
    assert_eq!(old_records(&copy), before);
    for published in HEADS_OF_SCHEMA_5 {
        let verified = bench.reader().verify(Some(head(published))).unwrap();
        assert_eq!(verified.last_seq, 63);
    }
    assert!(bench.reader().sources().unwrap().is_empty());
    // It settled a month alone.
    assert_eq!(bench.reader().outbox().unwrap().collected_seq, 40);
    crate::ledger::handle::tests::commit(&ledger, record(4_000)).unwrap();
    let seal = ledger.seal("2026-11-26").unwrap();
    drop(ledger);
    bench.reader().verify(Some(seal.head)).unwrap();
    // A second start finds nothing to bring up to date.
    drop(bench.open());
    assert!(!suffixed(&bench.path(), ".schema-6.bak").exists());
}

/// Writes a ledger of schema 2 with 5,000 records, the last 10 of them not rolled up, and the first
/// `pruned` deleted. Its WAL was not copied into the file.
fn old_ledger(bench: &Bench, pruned: i64) -> Connection {
    let old = Connection::open(bench.path()).unwrap();
    old.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; {SCHEMA_2}
         INSERT INTO runs VALUES (1, 'gate-1', {0});
         INSERT INTO series VALUES (1, 'a', 'portrait-segmentation', 'SegmentPortraitPic', 'per_call', 'answered', 1, ''),
                                   (2, 'b', 'portrait-segmentation', 'SegmentPortraitPic', 'per_call', 'answered', 0, 'vetoed');
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5000)
         INSERT INTO raw SELECT n, randomblob(16), 1 + n % 2, {0} + n * 5000000, n * 1000, 1,
                                iif(n % 3 = 0, NULL, 200), n FROM n;
         INSERT INTO hours SELECT admitted_at / 3600000000, series, count(*), min(seq), max(seq) FROM raw
                           WHERE seq <= 4990 GROUP BY 1, 2;
         UPDATE bounds SET rolled_up = 4990, first_kept = {pruned} + 1;
         DELETE FROM raw WHERE seq <= {pruned};",
        DAY.0
    ))
    .unwrap();
    old
}

#[test]
fn a_ledger_of_schema_3_is_copied_and_brought_up_to_date_and_its_heads_still_verify() {
    let bench = Bench::new();
    let heads = ledger_of_schema_3(&bench);
    let before = old_records(&bench.path());
    let outdated = Reader::open(&bench.path()).err();
    assert!(matches!(outdated, Some(LedgerError::Outdated { found: 3 })));
    let ledger = bench.open();
    for head in heads {
        assert_eq!(bench.reader().verify(Some(head)).unwrap().days, 1);
    }
    // What was fixed by the older rule stays so.
    let fixed = bench.reader().last_settlement().unwrap().unwrap();
    assert_eq!((&*fixed.month, fixed.late_months), ("2026-10", Some(2)));
    assert_eq!(ledger.seal("2026-11-25").unwrap().first_seq, 2_001);
    for head in heads {
        let verified = bench.reader().verify(Some(head)).unwrap();
        assert_eq!((verified.last_seq, verified.days), (5_000, 2));
    }
    assert_consistent(&bench.path());
    let copy = suffixed(&bench.path(), ".schema-3.bak");
    assert_eq!(old_records(&copy), before);
    let copy = Connection::open(copy).unwrap();
    assert_eq!(header::identify(&copy).unwrap(), FileKind::Older(3));
}

#[test]
fn a_ledger_that_was_brought_up_to_date_has_the_tables_of_a_new_one() {
    let tables = |bench: &Bench| -> Vec<String> {
        let sql = bench.sql();
        let mut select = sql
            .prepare(
                r#"SELECT concat_ws(' ', s.type, s.name, c.name, c.type, c."notnull", c.pk) AS line
                   FROM sqlite_schema AS s LEFT JOIN pragma_table_info(s.name) AS c
                   WHERE s.name NOT LIKE 'sqlite%' ORDER BY s.name, c.cid"#,
            )
            .unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let (new, two, three) = (Bench::new(), Bench::new(), Bench::new());
    let (four, five) = (Bench::new(), Bench::new());
    ledger_of_schema_4(&four);
    ledger_of_schema_5(&five);
    drop((four.store(), five.store()));
    drop(old_ledger(&two, 7));
    ledger_of_schema_3(&three);
    drop((new.store(), two.store(), three.store()));
    assert!(tables(&new).len() > 50);
    assert_eq!(tables(&two), tables(&new));
    assert_eq!(tables(&three), tables(&new));
    assert_eq!(tables(&four), tables(&new));
    assert_eq!(tables(&five), tables(&new));
}

fn copy_of(bench: &Bench) -> PathBuf {
    suffixed(&bench.path(), ".schema-2.bak")
}

fn old_records(path: &Path) -> Vec<(i64, Vec<u8>, i64)> {
    let old = Connection::open(path).unwrap();
    let mut select = old
        .prepare("SELECT seq, raw.id, series FROM raw ORDER BY seq")
        .unwrap();
    let rows = select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    rows.map(Result::unwrap).collect()
}

fn records_after(bench: &Bench, after: u64) -> Vec<StoredRecord> {
    bench.reader().records(after, usize::MAX).unwrap()
}

#[test]
fn a_ledger_of_schema_2_is_copied_and_brought_up_to_date_with_every_record_and_count() {
    let bench = Bench::new();
    drop(old_ledger(&bench, 0));
    let before = old_records(&bench.path());
    assert!(matches!(
        Reader::open(&bench.path()),
        Err(LedgerError::Outdated { found: 2 })
    ));
    let ledger: Ledger = bench.open();
    let records = records_after(&bench, 0);
    assert_eq!(records.len(), 5_000);
    let kept: Vec<_> = records
        .iter()
        .zip(&before)
        .map(|(record, old)| (record.seq as i64, record.id.0.as_bytes().to_vec(), old.2))
        .collect();
    assert_eq!(kept, before);
    assert_consistent(&bench.path());
    // The chain begins with the first record, also for those that were there before.
    let seal = ledger.seal("2026-11-24").unwrap();
    assert_eq!((seal.first_seq, seal.last_seq), (1, 5_000));
    let verified = bench.reader().verify(Some(seal.head)).unwrap();
    assert_eq!((verified.records, verified.days), (5_000, 1));
    let until = Utc(DAY.0 + 30 * 3_600_000_000);
    let lines = bench.reader().usage(DAY, until, None, ALL).unwrap();
    assert_eq!(lines.iter().map(|line| line.calls).sum::<u64>(), 5_000);

    // The copy is the ledger as it was, and nothing lies beside it.
    assert_eq!(old_records(&copy_of(&bench)), before);
    let copy = Connection::open(copy_of(&bench)).unwrap();
    assert_eq!(header::identify(&copy).unwrap(), FileKind::Older(2));
    assert!(!suffixed(&copy_of(&bench), ".partial").exists());
    drop(copy);
    // It opens: brought up to date, it holds what the ledger holds.
    let restored = Bench::new();
    std::fs::copy(copy_of(&bench), restored.path()).unwrap();
    drop(restored.open());
    assert_eq!(records_after(&restored, 0), records);
    assert_consistent(&restored.path());
}

#[test]
fn the_chain_of_a_ledger_that_was_pruned_before_begins_with_its_first_kept_record() {
    let bench = Bench::new();
    drop(old_ledger(&bench, 1_234));
    let mut store = bench.store();
    store.roll_up(100).unwrap();
    let verified = bench.reader().verify(None).unwrap();
    assert_eq!((verified.first_seq, verified.last_seq), (1_235, 5_000));
    assert_eq!(verified.records, 5_000 - 1_234);
    assert_eq!(records_after(&bench, 1_234).len(), 5_000 - 1_234);
    // What was linked at once is pruned as whole steps like the rest.
    store
        .keep(&settled("2026-11", 5_000, verified.head))
        .unwrap();
    while store.prune(Utc(i64::MAX)).unwrap() {}
    assert_eq!(bench.reader().verify(None).unwrap().first_seq, 5_001);
}

#[test]
fn a_start_that_is_killed_anywhere_in_the_migration_leaves_a_ledger_that_the_next_start_migrates() {
    let bench = Bench::new();
    let old = old_ledger(&bench, 0);
    let untouched = std::fs::read(bench.path()).unwrap();
    let before = std::fs::read(suffixed(&bench.path(), "-wal")).unwrap();
    // Held open, so that nothing is copied back into the file.
    let store = bench.store();
    let wal = std::fs::read(suffixed(&bench.path(), "-wal")).unwrap();
    assert!(wal.len() > before.len());
    let copy = std::fs::read(copy_of(&bench)).unwrap();
    drop((store, old));

    let frame = 24 + 4_096;
    let mut states: Vec<(usize, bool, bool)> = vec![(before.len(), false, true)];
    // Before the copy, in the midst of it, after it, and at each frame of the one transaction.
    states.push((before.len(), true, false));
    let frames = (before.len()..=wal.len()).step_by(frame);
    states.extend(frames.map(|cut| (cut, true, true)));
    assert!(states.len() > 10);
    let mut migrated = 0;
    for (cut, copied, complete) in states {
        let crashed = Bench::new();
        std::fs::write(crashed.path(), &untouched).unwrap();
        let mut left = wal[..cut].to_vec();
        left.resize(wal.len(), 0xa5);
        std::fs::write(suffixed(&crashed.path(), "-wal"), left).unwrap();
        if copied && complete {
            std::fs::write(copy_of(&crashed), &copy).unwrap();
        } else if copied {
            let partial = suffixed(&copy_of(&crashed), ".partial");
            std::fs::write(partial, &copy[..copy.len() / 2]).unwrap();
        }
        migrated += usize::from(Reader::open(&crashed.path()).is_ok());
        let ledger = crashed.open();
        drop(ledger);
        assert_eq!(records_after(&crashed, 0).len(), 5_000);
        assert_consistent(&crashed.path());
        assert_eq!(old_records(&copy_of(&crashed)).len(), 5_000);
    }
    assert_eq!(migrated, 1, "as a whole or not at all");
}

#[test]
fn whatever_has_the_name_of_the_copy_is_not_overwritten_and_the_copy_gets_another() {
    for precious in [&b"precious"[..], b""] {
        let bench = Bench::new();
        drop(old_ledger(&bench, 0));
        let before = old_records(&bench.path());
        fs::write(copy_of(&bench), precious).unwrap();
        drop(bench.store());
        assert_eq!(fs::read(copy_of(&bench)).unwrap(), precious);
        let copy = suffixed(&bench.path(), ".schema-2.2.bak");
        assert_eq!(old_records(&copy), before);
    }
}

#[test]
fn a_file_of_schema_1_or_of_a_newer_one_is_refused_and_left_as_it_is() {
    for version in [1, 7] {
        let bench = Bench::new();
        let old = old_ledger(&bench, 0);
        old.pragma_update(None, "user_version", version).unwrap();
        old.close().unwrap();
        let before = std::fs::read(bench.path()).unwrap();
        for refused in [
            bench.open_with(bench.options()).err(),
            Reader::open(&bench.path()).err(),
        ] {
            assert!(
                matches!(refused, Some(LedgerError::OtherVersion { found, known: 6 }) if found == version),
                "{refused:?}"
            );
        }
        assert_eq!(std::fs::read(bench.path()).unwrap(), before);
        assert!(!copy_of(&bench).exists());
    }
}

#[test]
fn a_ledger_in_trouble_is_never_migrated_when_it_is_opened_again() {
    let bench = Bench::new();
    drop(old_ledger(&bench, 0));
    let refused = Store::open(&bench.path(), false);
    assert!(matches!(refused, Err(LedgerError::Outdated { found: 2 })));
    assert!(!copy_of(&bench).exists());
    // What it looks like when nothing has gone wrong.
    let ledger = bench.open();
    crate::ledger::handle::tests::commit(&ledger, record(7)).unwrap();
}

#[test]
fn every_restore_of_a_backup_of_an_older_schema_keeps_the_id_of_the_ledger() {
    let bench = Bench::new();
    ledger_of_schema_3(&bench);
    let from = bench.home.path().join("old.db");
    fs::copy(bench.path(), &from).unwrap();
    drop(bench.open());
    let id = |bench: &Bench| KnownLedger::read(&bench.sql()).unwrap().identity.ledger_id;
    let made = id(&bench);
    for round in 1..=2 {
        let restored = restore(&from, &bench.path(), DAY).unwrap();
        assert_eq!(
            (&restored.ledger_id, restored.restore_count),
            (&made, round)
        );
        bench.reader().verify(Some(restored.seal)).unwrap();
    }
    // A backup of another one that was begun at another time.
    let sql = Connection::open(&from).unwrap();
    sql.execute("UPDATE runs SET opened_at = 1", []).unwrap();
    drop(sql);
    let refused = restore(&from, &bench.path(), DAY).unwrap_err();
    assert!(matches!(refused, LedgerError::NotItsBackup { .. }));
    fs::remove_file(bench.path()).unwrap();
    let restored = restore(&from, &bench.path(), DAY).unwrap();
    assert_ne!(restored.ledger_id, made);
}

#[test]
fn an_upgrade_after_a_way_back_to_the_older_tollgate_keeps_both_copies() {
    let bench = Bench::new();
    ledger_of_schema_3(&bench);
    drop(bench.open());
    let copies = [".schema-3.bak", ".schema-3.2.bak", ".schema-3.3.bak"];
    let copies = copies.map(|end| suffixed(&bench.path(), end));
    let mut kept = Vec::new();
    for (at, copy) in copies.iter().enumerate() {
        kept.push(fs::read(copy).unwrap());
        // Back, and the older one works for a while.
        fs::copy(copy, bench.path()).unwrap();
        let sql = bench.sql();
        sql.execute(
            "INSERT INTO runs (replica, opened_at) VALUES ('gate-1', 9)",
            [],
        )
        .unwrap();
        drop(sql);
        drop(bench.open());
        for (copy, kept) in copies[..=at].iter().zip(&kept) {
            assert!(fs::read(copy).unwrap() == *kept, "{}", copy.display());
        }
    }
    assert_eq!(bench.reader().last_seq().unwrap(), 5_000);
}
