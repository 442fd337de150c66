//! Somebody changes the file by hand, or makes the chain anew.

use super::*;
use crate::ledger::bills::Entry;
use crate::ledger::handle::tests::{
    Bench, DAY, HOUR_US, close, commit, eventually, record, settled, varied,
};
use crate::ledger::store::Store;
use crate::ledger::{Record, seal};
use crate::model::StoreStart;
use std::fs;
use std::path::Path;
use std::thread;

const RECORDS: i64 = 58;
const LINKED: i64 = 50;

/// 58 records in steps of seven, two sealed days and a settlement; the last eight are not linked
/// yet. The heads of its days.
fn honest(bench: &Bench) -> [Link; 2] {
    let mut store = bench.store();
    let mut run = store.begin_run("gate-1", DAY).unwrap();
    let records: Vec<Record> = (1..=RECORDS as u128).map(varied).collect();
    let head = |store: &mut Store, day| bench.seal(store, day, 7).head;
    store.commit(run, &records[..25]).unwrap();
    let first = head(&mut store, "2026-11-24");
    // Goes on under another name.
    run = store.begin_run("gate-2", DAY).unwrap();
    store.commit(run, &records[25..50]).unwrap();
    let second = head(&mut store, "2026-11-25");
    let settlement = Entry::Settlement {
        month: "2026-11".into(),
        through_seq: 50,
        head: second,
        fixed_at: DAY,
    };
    store.keep(&[settlement]).unwrap();
    store.commit(run, &records[50..]).unwrap();
    store.checkpoint("TRUNCATE").unwrap();
    [first, second]
}

fn verify(bench: &Bench) -> Result<Verified, Mismatch> {
    bench.reader().verify(None)
}

/// Table and key of what does not fit after `change` in a copy of the ledger.
fn found_after(honest: &Path, change: &str) -> String {
    let bench = Bench::new();
    fs::copy(honest, bench.path()).unwrap();
    bench.sql().execute_batch(change).expect(change);
    match verify(&bench) {
        Err(Mismatch::Row { table, key, .. }) => format!("{table} {key}"),
        other => panic!("{change}: {other:?}"),
    }
}

#[test]
fn an_untouched_ledger_verifies_with_any_of_its_heads() {
    let bench = Bench::new();
    let heads = honest(&bench);
    let reader = bench.reader();
    let (last, link) = reader.head().unwrap();
    assert_eq!(last, 50);
    for checkpoint in [None, Some(heads[0]), Some(heads[1]), Some(link)] {
        let verified = reader.verify(checkpoint).unwrap();
        assert_eq!((verified.first_seq, verified.last_seq), (1, 50));
        assert_eq!((verified.records, verified.days), (50, 2));
        assert_eq!(verified.head, link);
    }
}

#[test]
fn records_that_are_not_linked_yet_are_told_beside_those_that_are() {
    let bench = Bench::new();
    honest(&bench);
    assert_eq!(verify(&bench).unwrap().unlinked, 8);
    let mut store = bench.store();
    while store.tail() > 0 {
        store.roll_up(7).unwrap();
    }
    let verified = verify(&bench).unwrap();
    assert_eq!((verified.records, verified.unlinked), (58, 0));
    // Of a new ledger, none is.
    let bench = Bench::new();
    let mut store = bench.store();
    let run = store.begin_run("gate-1", DAY).unwrap();
    store.commit(run, &[varied(1), varied(2)]).unwrap();
    let verified = verify(&bench).unwrap();
    assert_eq!((verified.records, verified.unlinked), (0, 2));
}

#[test]
fn one_value_of_one_record_changed_by_hand_is_found_and_the_record_named() {
    let bench = Bench::new();
    honest(&bench);
    for seq in 1..=LINKED {
        for value in [
            "status = coalesce(status, 0) + 1",
            "status = iif(status IS NULL, 0, NULL)",
            "admitted_at = admitted_at + 1",
            "start_ns = start_ns - 1",
            "duration_us = duration_us + 1",
            "id = randomblob(16)",
            "id = x'00'",
            "series = 1 + series % (SELECT count(*) FROM series)",
            "series = 1000",
            "run = 3 - run",
        ] {
            let change = format!("UPDATE raw SET {value} WHERE seq = {seq}");
            let found = found_after(&bench.path(), &change);
            assert_eq!(found, format!("raw {seq}"), "{change}");
        }
    }
}

#[test]
fn a_record_removed_added_or_renumbered_by_hand_is_found_and_the_place_named() {
    let bench = Bench::new();
    honest(&bench);
    let shift = |from: i64, by: i64| {
        format!(
            "UPDATE raw SET seq = -seq WHERE seq >= {from}; UPDATE raw SET seq = {by} - seq WHERE seq < 0;"
        )
    };
    for seq in 1..=LINKED {
        let removed = format!("DELETE FROM raw WHERE seq = {seq}");
        assert_eq!(
            found_after(&bench.path(), &removed),
            format!("raw {seq}"),
            "{removed}"
        );
        // The hole closed.
        let closed = format!("{removed}; {}", shift(seq, -1));
        assert_eq!(
            found_after(&bench.path(), &closed),
            format!("raw {seq}"),
            "{closed}"
        );
        // Two that changed places.
        let swapped = format!(
            "UPDATE raw SET seq = -1 WHERE seq = {seq}; UPDATE raw SET seq = {seq} WHERE seq = {seq} + 1;
             UPDATE raw SET seq = {seq} + 1 WHERE seq = -1"
        );
        assert_eq!(
            found_after(&bench.path(), &swapped),
            format!("raw {seq}"),
            "{swapped}"
        );
        if seq == LINKED {
            // What is put in behind it is younger than the newest head.
            continue;
        }
        // Another one put in, the same call once more.
        let added = format!(
            "{} INSERT INTO raw SELECT {seq}, id, series, admitted_at, start_ns, run, status, duration_us, NULL, NULL FROM raw WHERE seq = {seq} + 1",
            shift(seq, 1)
        );
        // It is in the place of the one that it repeats, which follows once more.
        let found = found_after(&bench.path(), &added);
        assert_eq!(found, format!("raw {}", seq + 1), "{added}");
    }
    // Also one that is not linked yet leaves a hole.
    assert_eq!(
        found_after(&bench.path(), "DELETE FROM raw WHERE seq = 54"),
        "raw 54"
    );
}

#[test]
fn the_words_of_a_series_or_a_run_changed_by_hand_are_found_at_their_first_record() {
    let bench = Bench::new();
    honest(&bench);
    let sql = bench.sql();
    let mut select = sql
        .prepare("SELECT series, min(seq) FROM raw WHERE seq <= 50 GROUP BY series")
        .unwrap();
    let series: Vec<(i64, i64)> = select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(series.len() > 10);
    for (series, first) in series {
        for value in [
            "account = 'zz'",
            "\"group\" = 'other'",
            "action = 'Other'",
            "mode = mode || 'x'",
            "outcome = 'other'",
            "reason = 'other'",
            "billable = 1 - billable",
            // The same letters, differently parted.
            "account = account || substr(\"group\", 1, 1), \"group\" = substr(\"group\", 2)",
        ] {
            let change = format!("UPDATE series SET {value} WHERE id = {series}");
            assert_eq!(
                found_after(&bench.path(), &change),
                format!("raw {first}"),
                "{change}"
            );
        }
        let change = format!("DELETE FROM series WHERE id = {series}");
        assert_eq!(found_after(&bench.path(), &change), format!("raw {first}"));
    }
    for (run, first) in [(1, "raw 1"), (2, "raw 26")] {
        let change = format!("UPDATE runs SET replica = 'gate-3' WHERE run = {run}");
        assert_eq!(found_after(&bench.path(), &change), first);
        let change = format!("DELETE FROM runs WHERE run = {run}");
        assert_eq!(found_after(&bench.path(), &change), first);
    }
}

#[test]
fn a_row_of_the_rollup_changed_by_hand_is_found_and_named() {
    let bench = Bench::new();
    honest(&bench);
    let sql = bench.sql();
    let mut select = sql.prepare("SELECT hour, series FROM hours").unwrap();
    let rows: Vec<(i64, i64)> = select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(rows.len() > 20);
    for (hour, series) in rows {
        let key = format!("hours hour {hour} series {series}");
        let this = format!("WHERE hour = {hour} AND series = {series}");
        for change in [
            "UPDATE hours SET calls = calls + 1",
            "UPDATE hours SET calls = calls - 1",
            "UPDATE hours SET first_seq = first_seq - 1",
            "UPDATE hours SET first_seq = first_seq + 1",
            "UPDATE hours SET last_seq = last_seq + 1",
            "UPDATE hours SET last_seq = last_seq - 1",
            "UPDATE hours SET last_seq = 1000",
            "DELETE FROM hours",
        ] {
            let change = format!("{change} {this}");
            assert_eq!(found_after(&bench.path(), &change), key, "{change}");
        }
        // To another account, or another hour.
        for change in [
            "UPDATE hours SET hour = hour + 1000",
            "UPDATE hours SET series = 1000 + series",
        ] {
            let change = format!("{change} {this}");
            assert_eq!(found_after(&bench.path(), &change), key, "{change}");
        }
    }
    // One that counts a record which is not rolled up yet.
    for change in [
        "UPDATE hour_ends SET last_seq = last_seq - 1",
        "UPDATE hour_ends SET last_seq = last_seq + 1",
        "DELETE FROM hour_ends",
    ] {
        let found = found_after(&bench.path(), change);
        assert!(found.starts_with("hour_ends hour "), "{change}: {found}");
    }
    let change = "INSERT INTO hours SELECT admitted_at / 3600000000, series, 0, seq, seq FROM raw WHERE seq > 50
        AND NOT EXISTS (SELECT 1 FROM hours WHERE hour = admitted_at / 3600000000 AND hours.series = raw.series)";
    let found = found_after(&bench.path(), change);
    assert!(found.starts_with("hours hour "), "{found}");
    // One that no record belongs to.
    for (first, last) in [(1, 50), (3, 3), (51, 51), (51, 60)] {
        let change = format!("INSERT INTO hours VALUES (7, 1, 0, {first}, {last})");
        assert_eq!(found_after(&bench.path(), &change), "hours hour 7 series 1");
    }
}

#[test]
fn a_day_a_settlement_a_link_or_a_bound_changed_by_hand_is_found_and_named() {
    let bench = Bench::new();
    honest(&bench);
    // A row of links that is too many claims records, and these are named.
    for (change, named) in [
        (
            "UPDATE days SET head = zeroblob(32) WHERE day = '2026-11-24'",
            "days 2026-11-24",
        ),
        (
            "UPDATE days SET head = zeroblob(31) WHERE day = '2026-11-25'",
            "days 2026-11-25",
        ),
        (
            "UPDATE days SET last_seq = 24 WHERE day = '2026-11-24'",
            "days 2026-11-25",
        ),
        (
            "UPDATE days SET last_seq = 49 WHERE day = '2026-11-25'",
            "days 2026-11-25",
        ),
        (
            "UPDATE days SET last_seq = 51 WHERE day = '2026-11-25'",
            "days 2026-11-25",
        ),
        (
            "UPDATE days SET first_seq = 2 WHERE day = '2026-11-24'",
            "days 2026-11-24",
        ),
        (
            "UPDATE days SET day = '2026-11-26' WHERE day = '2026-11-24'",
            "days 2026-11-25",
        ),
        (
            "DELETE FROM days WHERE day = '2026-11-24'",
            "days 2026-11-25",
        ),
        (
            "INSERT INTO days (day, first_seq, last_seq, head) VALUES ('2026-11-26', 51, 52, zeroblob(32))",
            "days 2026-11-26",
        ),
        (
            "INSERT INTO days (day, first_seq, last_seq, head) VALUES ('2026-11-26', 51, 50, zeroblob(32))",
            "days 2026-11-26",
        ),
        (
            "UPDATE settlements SET head = zeroblob(32)",
            "settlements 2026-11",
        ),
        (
            "UPDATE settlements SET through_seq = 49",
            "settlements 2026-11",
        ),
        (
            "UPDATE settlements SET through_seq = 51",
            "settlements 2026-11",
        ),
        (
            "UPDATE links SET link = randomblob(32) WHERE last_seq = 14",
            "links 14",
        ),
        (
            "UPDATE links SET link = zeroblob(3) WHERE last_seq = 14",
            "links 14",
        ),
        (
            "UPDATE links SET marks = randomblob(56) WHERE last_seq = 14",
            "links 14",
        ),
        (
            "UPDATE links SET marks = zeroblob(3) WHERE last_seq = 14",
            "links 14",
        ),
        (
            "UPDATE links SET last_seq = 13 WHERE last_seq = 14",
            "links 13",
        ),
        (
            "UPDATE links SET last_seq = 15 WHERE last_seq = 14",
            "links 15",
        ),
        ("DELETE FROM links WHERE last_seq = 14", "links 21"),
        ("DELETE FROM links WHERE last_seq = 50", "links after 46"),
        ("DELETE FROM links WHERE last_seq = 0", "links 0"),
        ("DELETE FROM links", "links 0"),
        (
            "INSERT INTO links VALUES (58, zeroblob(32), zeroblob(64), 2)",
            "links 58",
        ),
        (
            "INSERT INTO links VALUES (16, zeroblob(32), zeroblob(16), 2)",
            "raw 15",
        ),
        ("UPDATE bounds SET rolled_up = 49", "days 2026-11-25"),
        ("UPDATE bounds SET rolled_up = 51", "links after 50"),
        ("UPDATE bounds SET first_kept = 9", "links 8"),
    ] {
        assert_eq!(found_after(&bench.path(), change), named, "{change}");
    }
}

/// Whoever can write the file can also compute links: only what was published elsewhere gives it
/// away.
#[test]
fn a_chain_made_anew_after_a_change_is_found_with_a_head_that_was_published_before() {
    let bench = Bench::new();
    let heads = honest(&bench);
    for seq in [1, 17, 25, 26, 50] {
        let forged = Bench::new();
        fs::copy(bench.path(), forged.path()).unwrap();
        forged
            .sql()
            .execute_batch(&format!(
                "UPDATE raw SET series = 1 + series % (SELECT count(*) FROM series) WHERE seq = {seq};
                 DELETE FROM links WHERE last_seq > 0; DELETE FROM hours; DELETE FROM days; DELETE FROM settlements;
                 DELETE FROM seals; UPDATE bounds SET rolled_up = 0, frozen = 0;"
            ))
            .unwrap();
        for (day, after, last) in [("2026-11-24", 0, 25), ("2026-11-25", 25, 50)] {
            let mut store = forged.store();
            for step in [7, 7, 7, 4] {
                store.roll_up(step).unwrap();
            }
            let freeze = "UPDATE bounds SET frozen = ?1";
            forged.sql().execute(freeze, [last]).unwrap();
            let hours = seal::hours(&forged.reader().connection, after, last).unwrap();
            store.seal(day, last, hours).unwrap();
        }
        verify(&forged).unwrap();
        let found = |head| match forged.reader().verify(Some(head)) {
            Ok(_) => false,
            Err(Mismatch::Checkpoint(_)) => true,
            other => panic!("{other:?}"),
        };
        // The first day's head tells of its own records only.
        assert_eq!(found(heads[0]), seq <= 25, "{seq}");
        assert!(found(heads[1]), "{seq}");
    }
}

#[test]
fn the_end_cut_off_with_all_that_tells_of_it_is_found_with_a_head_that_was_published_before() {
    let bench = Bench::new();
    let heads = honest(&bench);
    bench
        .sql()
        .execute_batch(
            "DELETE FROM raw WHERE seq > 39; DELETE FROM links WHERE last_seq > 39; DELETE FROM days WHERE day > '2026-11-24';
             DELETE FROM settlements; DELETE FROM hours; UPDATE bounds SET rolled_up = 39, frozen = 25;
             DELETE FROM seals WHERE what <> 'day 2026-11-24';
             INSERT INTO hours SELECT admitted_at / 3600000000, series, count(*), min(seq), max(seq) FROM raw
             GROUP BY 1, 2, seq <= 25;
             DELETE FROM hour_ends; INSERT INTO hour_ends SELECT hour, max(last_seq) FROM hours GROUP BY 1;",
        )
        .unwrap();
    let reader = bench.reader();
    assert_eq!(reader.verify(Some(heads[0])).unwrap().last_seq, 39);
    assert!(matches!(
        reader.verify(Some(heads[1])),
        Err(Mismatch::Checkpoint(_))
    ));
}

/// Three days and two settled months; the records of the first two days are deleted. Accounts `a`
/// and `b` called on these days, `c` later. The heads of the days and of the months, as they were
/// published.
fn mostly_deleted(bench: &Bench) -> Vec<Link> {
    let mut store = bench.store();
    let run = store.begin_run("", DAY).unwrap();
    let mut heads = Vec::new();
    for (day, accounts) in [["a", "b"], ["a", "b"], ["c", "c"]].iter().enumerate() {
        let records: Vec<Record> = (0..20)
            .map(|id| Record {
                account: crate::model::AccountId::new(accounts[id % 2]).unwrap(),
                admitted_at: Utc(DAY.0 + (day as i64 * 24 + id as i64 / 5) * HOUR_US),
                ..record((day * 20 + id) as u128)
            })
            .collect();
        store.commit(run, &records).unwrap();
        let seal = bench.seal(&mut store, &format!("day {day}"), 10);
        heads.push(seal.head);
        if day < 2 {
            let month = format!("month {day}");
            let settled = settled(&month, seal.last_seq, seal.head);
            store.keep(&settled).unwrap();
            heads.push(bench.reader().month_seal(&month).unwrap().unwrap());
        }
    }
    while store.prune(Utc(DAY.0 + 48 * HOUR_US)).unwrap() {}
    store.checkpoint("TRUNCATE").unwrap();
    assert_eq!(bench.reader().first_kept_seq().unwrap(), 41);
    heads
}

#[test]
fn what_was_sealed_of_deleted_records_and_of_settled_months_is_found_and_named_when_it_is_changed()
{
    let bench = Bench::new();
    let heads = mostly_deleted(&bench);
    for head in &heads[2..] {
        assert_eq!(bench.reader().verify(Some(*head)).unwrap().days, 2);
    }
    for (change, named) in [
        // Calls moved from one account to another, the sum kept.
        (
            "UPDATE hours SET calls = calls - 1 WHERE first_seq = 1; UPDATE hours SET calls = calls + 1 WHERE first_seq = 2",
            "days day 0",
        ),
        (
            "UPDATE hours SET calls = calls - 1 WHERE first_seq = 21; UPDATE hours SET calls = calls + 1 WHERE first_seq = 22",
            "days day 1",
        ),
        ("UPDATE hours SET series = 3 - series WHERE series < 3 AND first_seq < 5", "days day 0"),
        ("UPDATE hours SET hour = hour + 24 WHERE first_seq = 1", "days day 0"),
        ("UPDATE hours SET last_seq = last_seq + 1 WHERE first_seq = 1", "days day 0"),
        // Two accounts change names.
        (
            "UPDATE series SET account = 'x' WHERE account = 'a'; UPDATE series SET account = 'a' WHERE account = 'b';
             UPDATE series SET account = 'b' WHERE account = 'x'",
            "days day 0",
        ),
        ("UPDATE series SET reason = 'vetoed', billable = 0 WHERE account = 'b'", "days day 0"),
        ("DELETE FROM series WHERE account = 'b'", "days day 0"),
        // Days.
        ("DELETE FROM days WHERE day = 'day 0'", "days day 1"),
        ("DELETE FROM days WHERE day = 'day 1'", "days day 2"),
        ("DELETE FROM days WHERE day = 'day 2'", "days day 2"),
        ("UPDATE days SET link = NULL, hours = NULL, first_kept = NULL WHERE day = 'day 2'", "days day 2"),
        ("UPDATE days SET head = zeroblob(32) WHERE day = 'day 0'", "days day 0"),
        ("UPDATE days SET link = zeroblob(32) WHERE day = 'day 0'", "days day 0"),
        ("UPDATE days SET first_kept = 2 WHERE day = 'day 2'", "days day 2"),
        // Months.
        ("UPDATE settlements SET fixed_at = fixed_at + 1 WHERE month = 'month 0'", "settlements month 0"),
        ("UPDATE settlements SET settled_at = settled_at - 1 WHERE month = 'month 1'", "settlements month 1"),
        ("UPDATE settlements SET settled_at = NULL WHERE month = 'month 0'", "settlements month 0"),
        ("UPDATE settlements SET digest = zeroblob(32) WHERE month = 'month 1'", "settlements month 1"),
        ("UPDATE settlements SET through_seq = 39 WHERE month = 'month 1'", "bounds first_kept"),
        ("UPDATE settlements SET head = zeroblob(32) WHERE month = 'month 0'", "settlements month 0"),
        ("UPDATE settlements SET late_months = 2 WHERE month = 'month 0'", "settlements month 0"),
        ("DELETE FROM settlements WHERE month = 'month 0'", "settlements month 0"),
        ("DELETE FROM settlements WHERE month = 'month 1'", "bounds first_kept"),
        ("DELETE FROM settlements WHERE month = 'month 0'; DELETE FROM seals WHERE what = 'month month 0'", "days day 1"),
        // Bounds, with all that belongs to them.
        (
            "DELETE FROM raw WHERE seq <= 50; DELETE FROM links WHERE last_seq < 50; UPDATE bounds SET first_kept = 51",
            "bounds first_kept",
        ),
        (
            "DELETE FROM raw WHERE seq <= 50; DELETE FROM links WHERE last_seq < 50; UPDATE bounds SET first_kept = 51, floor = 51",
            "days day 0",
        ),
        ("UPDATE bounds SET first_kept = 31", "links 30"),
        ("UPDATE bounds SET frozen = 59", "bounds frozen"),
        ("UPDATE bounds SET frozen = 61", "bounds frozen"),
        ("DELETE FROM seals", "days day 0"),
        ("DELETE FROM seals WHERE place = 3", "settlements month 1"),
        ("UPDATE seals SET head = zeroblob(32) WHERE place = 5", "days day 2"),
        ("UPDATE seals SET what = 'day of rest' WHERE place = 5", "days of rest"),
    ] {
        assert_eq!(found_after(&bench.path(), change), named, "{change}");
    }
    // What somebody cuts off at the end, with all that tells of it, only what was published gives
    // away.
    let cut = Bench::new();
    fs::copy(bench.path(), cut.path()).unwrap();
    cut.sql()
        .execute_batch(
            "DELETE FROM seals WHERE place = 5; DELETE FROM days WHERE day = 'day 2'; UPDATE bounds SET frozen = 40",
        )
        .unwrap();
    verify(&cut).unwrap();
    let refused = cut.reader().verify(Some(heads[4]));
    assert!(
        matches!(refused, Err(Mismatch::Checkpoint(_))),
        "{refused:?}"
    );
}

/// Whoever recomputes seals with a program of their own needs exactly these texts.
#[test]
fn a_seal_is_the_digest_of_the_text_that_the_head_of_the_room_describes() {
    use sha2::{Digest, Sha256};
    let bench = Bench::new();
    let heads = mostly_deleted(&bench);
    let sql = bench.sql();
    let text = |query: &str| -> String { sql.query_row(query, [], |row| row.get(0)).unwrap() };
    let mut before = [0_u8; 32];
    for (place, head) in heads.iter().enumerate() {
        let start = |title: &str| {
            format!(
                "tollgate {title}\nledger {}\nbefore {}\n",
                text("SELECT ledger_id FROM identity"),
                hex::encode(before)
            )
        };
        let n = place / 2;
        let sealed = if place % 2 == 0 {
            let rows = text(&format!(
                r#"SELECT coalesce(group_concat(line, ''), '') FROM (SELECT concat_ws(char(9), hour, calls, hours.first_seq, hours.last_seq,
                   account, "group", action, mode, outcome, billable, reason, nullif(key, '')) || char(10) AS line
                   FROM hours JOIN series ON series.id = series JOIN days ON day = 'day {n}'
                   WHERE hours.first_seq BETWEEN days.first_seq AND days.last_seq ORDER BY hours.first_seq)"#
            ));
            assert_eq!(rows.lines().count(), [8, 8, 4][n], "{rows}");
            let lines = text(&format!(
                "SELECT 'records ' || first_seq || ' ' || last_seq || char(10) || 'link ' || lower(hex(link)) || char(10)
                 FROM days WHERE day = 'day {n}'"
            ));
            let hours = hex::encode(Sha256::digest(rows));
            let debits = text(&format!(
                "SELECT coalesce('debits ' || debits || char(10), '') FROM days WHERE day = 'day {n}'"
            ));
            // Each month is debited after its own day, and before the next.
            assert_eq!(debits.is_empty(), n == 0, "{debits}");
            format!(
                "{}{lines}hours {hours}\nbounds 1 1\n{debits}",
                start(&format!("day day {n}"))
            )
        } else {
            let lines = text(&format!(
                "SELECT 'through ' || through_seq || char(10) || 'head ' || lower(hex(head)) || char(10) || 'fixed ' || fixed_at
                 || char(10) || 'settled ' || settled_at || char(10) || 'digest ' || lower(hex(digest)) || char(10) || 'late any' || char(10)
                 FROM settlements WHERE month = 'month {n}'"
            ));
            start(&format!("month month {n}")) + &lines
        };
        before = Sha256::digest(&sealed).into();
        assert_eq!(before, *head, "{sealed}");
    }
}

#[test]
fn a_trigger_a_changed_view_or_a_missing_table_is_found_by_verify_and_by_the_next_start() {
    for (change, named) in [
        (
            "CREATE TRIGGER x AFTER INSERT ON raw BEGIN UPDATE raw SET status = 500; END",
            "a trigger x",
        ),
        ("DROP TABLE events", "its table events is missing"),
        ("DROP INDEX hours_in_order", "its index hours_in_order"),
        (
            "DROP VIEW records; CREATE VIEW records AS SELECT * FROM raw",
            "its view records",
        ),
    ] {
        let bench = Bench::new();
        honest(&bench);
        bench.sql().execute_batch(change).unwrap();
        let found = verify(&bench).unwrap_err().to_string();
        assert!(found.contains(named), "{found}");
        let refused = bench.open_with(bench.options()).unwrap_err().to_string();
        assert!(refused.contains(named), "{refused}");
    }
    // An index or a table of an operator's own changes nothing.
    let bench = Bench::new();
    honest(&bench);
    let own = "CREATE TABLE mine (x); CREATE INDEX mine_of_runs ON runs (replica)";
    bench.sql().execute_batch(own).unwrap();
    verify(&bench).unwrap();
    drop(bench.open());
}

#[test]
fn the_start_by_a_shared_store_is_linked_and_a_change_of_it_is_named() {
    let bench = Bench::new();
    let mut store = bench.store();
    let run = store.begin_run("gate-1", DAY).unwrap();
    let records: Vec<Record> = (1..=9).map(varied).collect();
    store.commit(run, &records).unwrap();
    drop(store);
    // As a gate with a shared store leaves them; it is not built yet.
    let of_store = "UPDATE raw SET store_epoch = 3, store_start_us = seq * 10 WHERE seq > 4";
    bench.sql().execute(of_store, []).unwrap();
    let mut store = bench.store();
    while store.tail() > 0 {
        store.roll_up(3).unwrap();
    }
    drop(store);
    verify(&bench).unwrap();
    for change in [
        "store_epoch = 4",
        "store_start_us = 1",
        "store_start_us = NULL",
        "store_epoch = NULL, store_start_us = NULL",
    ] {
        let changed = format!("UPDATE raw SET {change} WHERE seq = 7");
        bench.sql().execute(&changed, []).unwrap();
        let named = verify(&bench).unwrap_err().to_string();
        assert!(named.starts_with("raw 7: it is not the record"), "{named}");
        let back = "UPDATE raw SET store_epoch = 3, store_start_us = 70 WHERE seq = 7";
        bench.sql().execute(back, []).unwrap();
    }
    verify(&bench).unwrap();
}

/// The rows of the newest records are linked from memory, the others from the file.
#[test]
fn what_is_linked_is_what_the_file_has_whatever_came_between() {
    for seed in 0..60 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let bench = Bench::new();
        let mut store = bench.store();
        let mut run = store.begin_run("gate-1", DAY).unwrap();
        let (mut made, mut newest) = (0, Vec::new());
        for _ in 0..40 {
            match dice.u8(..8) {
                0..4 => {
                    let several = made..made + dice.u128(1..20);
                    made = several.end;
                    newest = several.map(|id| of_any_window(&mut dice, id)).collect();
                    store.commit(run, &newest).unwrap();
                }
                4..6 if store.tail() > 0 => store.roll_up(dice.i64(1..25)).unwrap(),
                4..6 => {}
                6 => {
                    // As after a disk that answered too late.
                    let first = store.next_seq() - i64::try_from(newest.len()).unwrap();
                    if first > store.linked().0 {
                        let failed = |record: &Record| record.clone().into_gate_failed();
                        newest = newest.iter().map(failed).collect();
                        store.correct(first, &newest).unwrap();
                    }
                }
                _ => {
                    drop(store);
                    store = bench.store();
                    run = store.begin_run("gate-2", DAY).unwrap();
                }
            }
        }
        while store.tail() > 0 {
            store.roll_up(9).unwrap();
        }
        drop(store);
        verify(&bench).unwrap_or_else(|mismatch| panic!("seed {seed}: {mismatch}"));
        bench.assert_consistent();
    }
}

fn of_any_window(dice: &mut fastrand::Rng, id: u128) -> Record {
    let start = StoreStart {
        epoch: dice.i64(1..4),
        at: Utc(DAY.0 + dice.i64(..HOUR_US)),
    };
    Record {
        store_start: dice.bool().then_some(start),
        ..varied(id)
    }
}

#[test]
fn the_link_before_the_first_record_is_no_checkpoint() {
    let bench = Bench::new();
    honest(&bench);
    let refused = bench.reader().verify(Some([0; 32])).unwrap_err();
    assert!(matches!(refused, Mismatch::Checkpoint(_)), "{refused}");
}

/// Whoever recomputes the chain with a program of their own needs exactly these bytes.
#[test]
fn a_link_is_the_digest_that_the_head_of_the_room_describes() {
    use sha2::{Digest, Sha256};
    let bench = Bench::new();
    honest(&bench);
    let mut link = [0_u8; 32];
    for record in &bench.all()[..50] {
        let mut words = Sha256::new();
        for text in [
            record.account.as_str(),
            record.group.as_str(),
            record.action.as_str(),
            record.mode.as_str(),
            record.outcome.as_str(),
            record.reason.as_str(),
            &record.replica,
            record.key.as_str(),
        ] {
            words.update((text.len() as u32).to_be_bytes());
            words.update(text.as_bytes());
        }
        words.update(i64::from(record.billable).to_be_bytes());
        let mut bytes = link.to_vec();
        bytes.extend(record.seq.to_be_bytes());
        bytes.extend(record.id.0.as_bytes());
        bytes.extend(&words.finalize()[..16]);
        bytes.extend(record.admitted_at.0.to_be_bytes());
        bytes.extend(record.start.0.to_be_bytes());
        bytes.extend(record.run.to_be_bytes());
        bytes.push(u8::from(record.status.is_some()));
        bytes.extend(i64::from(record.status.unwrap_or(0)).to_be_bytes());
        bytes.extend(record.duration_us.to_be_bytes());
        assert_eq!(bytes.len(), 113);
        link = Sha256::digest(bytes).into();
    }
    assert_eq!(bench.reader().head().unwrap(), (50, link));
}

// While it is written, and pruned.

#[test]
fn a_ledger_verifies_while_it_is_written_sealed_and_pruned() {
    let bench = Bench::new();
    let ledger = bench.open();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut heads = Vec::new();
            for id in 0..600 {
                let record = Record {
                    admitted_at: Utc(DAY.0 + i64::try_from(id).unwrap() * HOUR_US / 50),
                    ..varied(id)
                };
                commit(&ledger, record).unwrap();
                if id % 100 == 99 {
                    let seal = ledger.seal(&format!("day {id:03}")).unwrap();
                    heads.push(seal.head);
                    let month = settled(&format!("month {id:03}"), seal.last_seq, seal.head);
                    ledger.keep(month.to_vec()).unwrap();
                    ledger.prune(Utc(DAY.0 + i64::try_from(id).unwrap() * HOUR_US / 100));
                }
            }
            heads
        });
        let mut rounds = 0;
        while !writer.is_finished() {
            verify(&bench).unwrap();
            rounds += 1;
        }
        assert!(rounds > 0);
        let last = writer.join().unwrap().pop();
        eventually("pruned", || bench.reader().first_kept_seq().unwrap() > 200);
        close(&ledger);
        let verified = bench.reader().verify(last).unwrap();
        assert!(verified.first_seq > 200);
        assert_eq!(verified.last_seq, 600);
    });
}

/// 100 records in order of time, two an hour, in steps of ten, a day sealed at each 20. The 25th
/// and the 70th are late: they belong to the second hour.
fn in_order(bench: &Bench) -> (Store, Vec<Link>) {
    let mut store = bench.store();
    let run = store.begin_run("", DAY).unwrap();
    let mut heads = Vec::new();
    for day in 0..5 {
        let records: Vec<Record> = (day * 20..day * 20 + 20)
            .map(|id| Record {
                admitted_at: Utc(
                    DAY.0 + if id == 24 || id == 69 { 2 } else { id + 1 } * HOUR_US / 2
                ),
                ..record(id.unsigned_abs().into())
            })
            .collect();
        store.commit(run, &records).unwrap();
        heads.push(bench.seal(&mut store, &format!("day {day}"), 10).head);
        let through = u64::try_from(day * 20 + 20).unwrap();
        let month = settled(&format!("month {day}"), through, heads[heads.len() - 1]);
        store.keep(&month).unwrap();
    }
    (store, heads)
}

fn prune(store: &mut Store, half_hours: i64) {
    while store.prune(Utc(DAY.0 + half_hours * HOUR_US / 2)).unwrap() {}
}

#[test]
fn a_pruned_ledger_verifies_from_its_first_kept_record_on() {
    let bench = Bench::new();
    let (mut store, heads) = in_order(&bench);
    prune(&mut store, 45);
    store.checkpoint("TRUNCATE").unwrap();
    let reader = bench.reader();
    let verified = reader.verify(None).unwrap();
    assert_eq!((verified.first_seq, verified.last_seq), (41, 100));
    assert_eq!(
        (verified.records, verified.head),
        (60, reader.head().unwrap().1)
    );
    // The days of deleted records keep their heads: the last of them is where the kept ones begin.
    assert_eq!(reader.days().unwrap().len(), 5);
    assert_eq!(verified.days, 4);
    for head in &heads[1..] {
        reader.verify(Some(*head)).unwrap();
    }
    // A head of deleted records says nothing of those that are kept, and is not taken for good.
    match reader.verify(Some(heads[0])) {
        Err(Mismatch::Checkpoint(why)) => assert!(why.contains("day 0"), "{why}"),
        other => panic!("{other:?}"),
    }
    // And what is changed is found as before.
    for (change, named) in [
        ("UPDATE raw SET status = 1 WHERE seq = 41", "raw 41"),
        ("UPDATE raw SET status = 1 WHERE seq = 77", "raw 77"),
        ("DELETE FROM raw WHERE seq = 41", "raw 41"),
        (
            "UPDATE links SET link = zeroblob(32) WHERE last_seq = 40",
            "days day 1",
        ),
        (
            "UPDATE hours SET calls = 9 WHERE first_seq = 52",
            "hours hour 498770 series 1",
        ),
        (
            "UPDATE hours SET calls = 9 WHERE first_seq = 1",
            "hours of all times",
        ),
    ] {
        assert_eq!(found_after(&bench.path(), change), named, "{change}");
    }
    // All of it.
    prune(&mut store, 1_000);
    let verified = reader.verify(Some(heads[4])).unwrap();
    assert_eq!((verified.first_seq, verified.records), (101, 0));
}

#[test]
fn records_that_are_deleted_while_they_are_looked_at_are_passed_over() {
    let bench = Bench::new();
    let (mut store, heads) = in_order(&bench);
    let reader = bench.reader();
    let mut walk = ChainWalk::new(&reader.connection, Some(heads[3])).unwrap();
    assert!(!walk.step(&reader.connection).unwrap());
    // Records 10 and 11 share an hour, and so do those on both sides of the new boundary. The hour
    // of the late one is open.
    prune(&mut store, 37);
    while !walk.step(&reader.connection).unwrap() {}
    walk.seals_follow(&reader.connection).unwrap();
    let verified = walk.end(&reader.connection).unwrap();
    assert_eq!((verified.first_seq, verified.last_seq), (31, 100));
    assert_eq!(verified.records, 80);
}
