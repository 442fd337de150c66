//! A ledger is lost, an older copy of it is put back, and everything goes on.

use super::*;
use crate::ledger::handle::tests::{
    Bench, DAY, HOUR_US, close, commit, eventually, record, settled, varied,
};
use crate::ledger::{Cursor, Ledger, LedgerOptions, Mismatch, ReadError, Record, backup};

const NOW: Utc = Utc(DAY.0 + 40 * HOUR_US);

/// Records 1 to 10, then a backup, then some more that are lost with the disk. Gives the backup.
fn lost(bench: &Bench) -> PathBuf {
    let to = bench.home.path().join("backup.db");
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=8).map(varied));
    ledger.seal("2026-11-24").unwrap();
    bench.commit_all(&ledger, (9..=10).map(varied));
    backup(&bench.path(), &to).unwrap();
    bench.commit_all(&ledger, (11..=15).map(varied));
    close(&ledger);
    to
}

fn again(bench: &Bench) -> Ledger {
    bench
        .open_with(LedgerOptions {
            create: false,
            ..bench.options()
        })
        .unwrap()
}

fn names(bench: &Bench) -> Vec<String> {
    let entries = fs::read_dir(bench.home.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_restored_ledger_goes_on_with_seqs_that_were_never_given_and_verifies_over_the_gap() {
    let bench = Bench::new();
    let from = lost(&bench);
    let id = bench
        .reader()
        .connection
        .query_row("SELECT ledger_id FROM identity", [], |row| {
            row.get::<_, String>(0)
        });
    let restored = restore(&from, &bench.path(), NOW).unwrap();
    assert_eq!(restored.ledger_id, id.unwrap());
    assert_eq!((restored.restore_count, restored.last_seq), (1, 10));
    assert_eq!(restored.next_seq, 1_000_000_000_011);
    let moved = suffixed(&bench.path(), ".before-restore-1");
    assert_eq!(restored.moved.as_ref(), Some(&moved));
    assert_eq!(
        names(&bench),
        [
            "backup.db",
            "ledger.db",
            "ledger.db.before-restore-1",
            "ledger.db.lock"
        ]
    );
    assert_eq!(
        crate::ledger::Reader::open(&moved)
            .unwrap()
            .last_seq()
            .unwrap(),
        15
    );

    // A process that is killed before it has written a record after the gap, and one after.
    let ledger = again(&bench);
    for id in [0, 1] {
        if id > 0 {
            commit(&ledger, record(100)).unwrap();
        }
        let killed = Bench::new();
        for end in ["", "-wal"] {
            fs::copy(suffixed(&bench.path(), end), suffixed(&killed.path(), end)).unwrap();
        }
        assert!(bytes(&suffixed(&killed.path(), "-wal")) > 0);
        close(&again(&killed));
        assert_eq!(killed.reader().verify(None).unwrap().records, 10 + id);
    }
    close(&ledger);
    drop(ledger);

    // The day goes on over the gap, and the roll-up, the pruning and what they are recomputed from
    // step over it.
    let ledger = again(&bench);
    bench.commit_all(&ledger, (21..=39).map(varied));
    let seal = ledger.seal("2026-11-25").unwrap();
    assert_eq!((seal.first_seq, seal.last_seq), (9, 1_000_000_000_030));
    let records = bench.reader().records(0, 100).unwrap();
    let seqs: Vec<u64> = records.iter().map(|record| record.seq).collect();
    let expected: Vec<u64> = (1..=10)
        .chain(1_000_000_000_011..=1_000_000_000_030)
        .collect();
    assert_eq!(seqs, expected);
    let calls =
        |lines: Vec<crate::ledger::UsageLine>| lines.iter().map(|line| line.calls).sum::<u64>();
    let (from, until) = (Utc(0), Utc(i64::MAX / 2));
    let all = bench
        .reader()
        .usage(from, until, None, 0..=u64::MAX)
        .unwrap();
    assert_eq!(calls(all), 30);
    for head in [seal.head, restored.seal] {
        let verified = bench.reader().verify(Some(head)).unwrap();
        assert_eq!(
            (verified.first_seq, verified.records, verified.days),
            (1, 30, 2)
        );
    }
    ledger
        .keep(settled("2026-11", seal.last_seq, seal.head).to_vec())
        .unwrap();
    ledger.prune(Utc(i64::MAX));
    eventually("all is gone", || {
        bench.reader().first_kept_seq().unwrap() == 1_000_000_000_031
    });
    bench.reader().verify(Some(seal.head)).unwrap();
    close(&ledger);
}

#[test]
fn two_restores_of_one_backup_give_no_seq_twice() {
    let bench = Bench::new();
    let from = lost(&bench);
    let mut seen = std::collections::HashSet::new();
    for round in 1..=3_u64 {
        let restored = restore(&from, &bench.path(), NOW).unwrap();
        assert_eq!((restored.restore_count, restored.last_seq), (round, 10));
        let ledger = again(&bench);
        for id in 0..round {
            commit(&ledger, record(u128::from(100 * round + id))).unwrap();
        }
        close(&ledger);
        for record in bench.reader().records(0, 100).unwrap() {
            assert!(
                record.seq <= 10 || seen.insert(record.seq),
                "{}",
                record.seq
            );
        }
        bench.reader().verify(Some(restored.seal)).unwrap();
    }
    // And a backup of the third, put back where there is nothing any more.
    let later = bench.home.path().join("later.db");
    backup(&bench.path(), &later).unwrap();
    for name in names(&bench)
        .iter()
        .filter(|name| name.starts_with("ledger.db"))
    {
        fs::remove_file(bench.home.path().join(name)).unwrap();
    }
    let restored = restore(&later, &bench.path(), NOW).unwrap();
    assert_eq!((restored.restore_count, &restored.moved), (4, &None));
    assert_eq!(restored.last_seq, 3_000_000_000_013);
    assert_eq!(bench.reader().verify(None).unwrap().records, 13);
}

#[test]
fn a_cursor_of_before_a_restore_is_an_error_that_says_where_to_go_on() {
    let bench = Bench::new();
    let from = lost(&bench);
    restore(&from, &bench.path(), NOW).unwrap();
    let ledger = again(&bench);
    commit(&ledger, record(1)).unwrap();
    let reader = bench.reader();
    for (cursor, on) in [("0:7", "1:7"), ("7", "1:7"), ("0:14", "1:10")] {
        let refused = reader.records(Cursor::parse(cursor).unwrap(), 100);
        let Err(ReadError::Restored { on: told, .. }) = &refused else {
            panic!("{cursor}: {refused:?}");
        };
        assert_eq!(told.to_string(), on, "{cursor}");
        let said = refused.unwrap_err().to_string();
        assert!(said.contains(&format!("go on after {on}")), "{said}");
    }
    let after = |cursor| -> Vec<u64> {
        let records = reader.records(Cursor::parse(cursor).unwrap(), 100).unwrap();
        records.iter().map(|record| record.seq).collect()
    };
    assert_eq!(after("1:8"), [9, 10, 1_000_000_000_011]);
    assert_eq!(after("1:10"), [1_000_000_000_011]);
    assert_eq!(
        after("0").len(),
        11,
        "from the beginning there is nothing to pass over"
    );
    let foreign = reader.records(Cursor::parse("2:7").unwrap(), 100);
    assert!(matches!(
        foreign,
        Err(ReadError::Foreign {
            restore_count: 1,
            ..
        })
    ));
    for text in [
        "", ":", "1:", ":1", "+1", "1:+1", "1:1:1", "-1", "1 ", "a", "01", "00:5", "0:005",
    ] {
        assert!(Cursor::parse(text).is_err(), "{text:?}");
    }

    // A second restore, to a state before the first one's.
    close(&ledger);
    drop(ledger);
    restore(&from, &bench.path(), NOW).unwrap();
    let on = |cursor| match bench.reader().records(Cursor::parse(cursor).unwrap(), 1) {
        Err(ReadError::Restored { on, .. }) => on.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(on("1:1000000000011"), "2:10");
    assert_eq!(on("0:3"), "2:3");
}

#[test]
fn a_restore_moves_the_wal_aside_with_its_ledger_and_no_step_of_it_leaves_a_database_beside_it() {
    // What the gate left when it was killed: the newest records are in the WAL alone.
    let (bench, killed) = (Bench::new(), Bench::new());
    let from = lost(&bench);
    fs::copy(&from, killed.path()).unwrap();
    let ledger = killed.open();
    killed.commit_all(&ledger, (11..=20).map(varied));
    for end in ["", "-wal"] {
        fs::copy(suffixed(&killed.path(), end), suffixed(&bench.path(), end)).unwrap();
    }
    let wal = fs::read(suffixed(&bench.path(), "-wal")).unwrap();
    assert!(!wal.is_empty());

    // Killed after the database was moved: nothing is at the path, so `serve` refuses to start, and
    // the next restore brings the WAL to its database.
    let half = Bench::new();
    fs::copy(&from, half.home.path().join("backup.db")).unwrap();
    fs::copy(bench.path(), suffixed(&half.path(), ".before-restore-1")).unwrap();
    fs::write(suffixed(&half.path(), "-wal"), &wal).unwrap();
    let refused = half.open_with(half.options());
    assert!(
        matches!(refused, Err(LedgerError::LoneWal(_))),
        "{refused:?}"
    );

    for (bench, count) in [(&bench, 1), (&half, 2)] {
        let from = bench.home.path().join("backup.db");
        let restored = restore(&from, &bench.path(), NOW).unwrap();
        assert_eq!(restored.restore_count, count);
        let moved = suffixed(&bench.path(), ".before-restore-1");
        assert_eq!(restored.moved, Some(moved.clone()));
        assert!(!suffixed(&bench.path(), "-wal").exists());
        assert_eq!(fs::read(suffixed(&moved, "-wal")).unwrap(), wal);
        let kept = crate::ledger::Reader::open(&moved).unwrap();
        assert_eq!(kept.last_seq().unwrap(), 20, "nothing is lost of it");
        assert_eq!(bench.reader().last_seq().unwrap() % 1_000_000_000_000, 10);
    }
}

#[test]
fn a_restore_refuses_what_is_no_backup_and_a_ledger_in_use_and_changes_nothing() {
    let bench = Bench::new();
    let from = lost(&bench);
    let before = fs::read(bench.path()).unwrap();
    let text = bench.home.path().join("notes.txt");
    fs::write(
        &text,
        "these are notes, and they are longer than a page of a database may be short",
    )
    .unwrap();
    let missing = bench.home.path().join("missing.db");
    assert!(matches!(
        restore(&text, &bench.path(), NOW),
        Err(LedgerError::NotALedger)
    ));
    assert!(matches!(
        restore(&missing, &bench.path(), NOW),
        Err(LedgerError::NoBackup(_))
    ));
    assert!(matches!(
        restore(&bench.path(), &bench.path(), NOW),
        Err(LedgerError::Itself(_))
    ));
    // Half of it was overwritten.
    let damaged = bench.home.path().join("damaged.db");
    let mut bytes = fs::read(&from).unwrap();
    let length = bytes.len();
    bytes[length / 2..].fill(0x5a);
    fs::write(&damaged, bytes).unwrap();
    assert!(restore(&damaged, &bench.path(), NOW).is_err());
    assert_eq!(fs::read(bench.path()).unwrap(), before);
    let ledger = again(&bench);
    assert!(matches!(
        restore(&from, &bench.path(), NOW),
        Err(LedgerError::Locked(_))
    ));
    commit(&ledger, record(99)).unwrap();
    close(&ledger);
    // What a restore that was killed has left is in nobody's way.
    drop(ledger);
    for end in ["", "-wal", ".partial"] {
        fs::write(
            suffixed(&suffixed(&bench.path(), ".restoring"), end),
            "left",
        )
        .unwrap();
    }
    restore(&from, &bench.path(), NOW).unwrap();
    assert!(!names(&bench).iter().any(|name| name.contains("restoring")));
}

#[test]
fn a_restore_that_is_changed_by_hand_is_found_and_named() {
    let bench = Bench::new();
    let from = lost(&bench);
    restore(&from, &bench.path(), NOW).unwrap();
    let ledger = again(&bench);
    bench.commit_all(&ledger, (21..=25).map(|id| Record { ..varied(id) }));
    ledger.seal("2026-11-25").unwrap();
    close(&ledger);
    for (change, named) in [
        ("UPDATE restores SET restored_at = 1", "restores 1"),
        (
            "DELETE FROM seals WHERE what = 'restore 1'",
            "days 2026-11-25",
        ),
        (
            "UPDATE identity SET restore_count = 0",
            "identity restore_count",
        ),
        ("UPDATE identity SET ledger_id = '00'", "days 2026-11-24"),
        (
            "UPDATE links SET link = zeroblob(32) WHERE last_seq = 1000000000010",
            "raw 11",
        ),
        ("DELETE FROM restores", "raw 11"),
    ] {
        let changed = Bench::new();
        fs::copy(bench.path(), changed.path()).unwrap();
        changed.sql().execute_batch(change).unwrap();
        match changed.reader().verify(None) {
            Err(Mismatch::Row { table, key, .. }) => {
                assert_eq!(format!("{table} {key}"), named, "{change}")
            }
            other => panic!("{change}: {other:?}"),
        }
    }
}

#[test]
fn a_restored_ledger_belongs_to_whom_the_one_before_it_did_or_else_to_whom_the_folder_does() {
    let bench = Bench::new();
    let from = lost(&bench);
    let (uid, gid) = match geteuid().is_root() {
        true => (65_534, 65_534),
        // Who is not root can give nothing away: the modes are all that there is to see.
        false => {
            let own = fs::metadata(bench.path()).unwrap();
            (own.uid(), own.gid())
        }
    };
    let give = |path: &Path, mode| {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    let lock = suffixed(&bench.path(), ".lock");
    let found = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    give(&bench.path(), 0o620);
    fs::remove_file(&lock).unwrap();
    restore(&from, &bench.path(), NOW).unwrap();
    assert_eq!(found(&bench.path()), (uid, gid, 0o620));
    if geteuid().is_root() {
        assert_eq!(found(&lock), (uid, gid, 0o620));
    }

    // The disk was lost with all that was on it.
    let folder = bench.home.path().join("new");
    fs::create_dir(&folder).unwrap();
    give(&folder, 0o760);
    let path = folder.join("ledger.db");
    restore(&from, &path, NOW).unwrap();
    assert_eq!(found(&path), (uid, gid, 0o660));
}

#[test]
fn a_backup_of_another_ledger_is_not_put_in_the_place_of_one_before_that_is_moved_away() {
    let (bench, other) = (Bench::new(), Bench::new());
    let (from, theirs) = (lost(&bench), lost(&other));
    let before = fs::read(bench.path()).unwrap();
    let refused = restore(&theirs, &bench.path(), NOW).unwrap_err();
    assert!(refused.to_string().contains("-wal away first"), "{refused}");
    assert_eq!(fs::read(bench.path()).unwrap(), before);
    assert!(!names(&bench).iter().any(|name| name.contains("restor")));
    // One that cannot be read is what a restore is for.
    fs::write(bench.path(), vec![0x5a; 5_000]).unwrap();
    restore(&theirs, &bench.path(), NOW).unwrap();
    fs::rename(bench.path(), bench.home.path().join("away.db")).unwrap();
    restore(&from, &bench.path(), NOW).unwrap();
}

#[test]
fn a_count_that_no_restore_can_reach_is_an_error_that_names_the_file_and_changes_nothing() {
    let bench = Bench::new();
    let from = lost(&bench);
    let before = fs::read(bench.path()).unwrap();
    for count in [MAX_RESTORES, 20_000_000, i64::MAX] {
        let beside = suffixed(&bench.path(), &format!(".before-restore-{count}"));
        fs::write(&beside, "x").unwrap();
        let refused = restore(&from, &bench.path(), NOW).unwrap_err();
        let named = beside.display().to_string();
        assert!(refused.to_string().starts_with(&named), "{refused}");
        fs::remove_file(beside).unwrap();
    }
    assert_eq!(fs::read(bench.path()).unwrap(), before);
    let copy = Connection::open(&from).unwrap();
    copy.execute("UPDATE identity SET restore_count = ?1", [i64::MAX])
        .unwrap();
    drop(copy);
    let refused = restore(&from, &bench.path(), NOW).unwrap_err();
    assert!(
        matches!(&refused, LedgerError::TooManyRestores { path, .. } if *path == from),
        "{refused}"
    );

    // The last that there can be.
    let from = bench.home.path().join("again.db");
    backup(&bench.path(), &from).unwrap();
    let last = suffixed(
        &bench.path(),
        &format!(".before-restore-{}", MAX_RESTORES - 1),
    );
    fs::write(last, "x").unwrap();
    let restored = restore(&from, &bench.path(), NOW).unwrap();
    assert_eq!(restored.next_seq, 1_000_000_000_000_000_016);
    bench.reader().verify(Some(restored.seal)).unwrap();
}

#[test]
fn an_error_of_sqlite_names_its_file_and_says_its_words_once() {
    let bench = Bench::new();
    let from = lost(&bench);
    let whole = fs::read(&from).unwrap();
    fs::write(&from, &whole[..whole.len() / 2]).unwrap();
    let failed = restore(&from, &bench.path(), NOW).unwrap_err();
    let said = failed.to_string();
    assert!(said.starts_with(&*from.display().to_string()), "{said}");
    assert_eq!(said.matches("malformed").count(), 1, "{said}");
    assert!(std::error::Error::source(&failed).is_none(), "told twice");

    let error = |code| {
        let error = rusqlite::ffi::Error::new(code);
        let error = rusqlite::Error::SqliteFailure(error, None);
        named(&from)(error.into()).to_string()
    };
    use rusqlite::ffi::{SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_READONLY_DIRECTORY};
    assert!(!error(SQLITE_FULL).contains("uid"));
    for code in [SQLITE_CANTOPEN, SQLITE_READONLY_DIRECTORY] {
        let said = error(code);
        let uid = format!("uid {}", geteuid().as_raw());
        for part in [&*uid, "backup.db: ", "tollgate backup"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[test]
fn a_restore_that_fails_leaves_nothing_of_its_copy() {
    let bench = Bench::new();
    let from = lost(&bench);
    let copy = Connection::open(&from).unwrap();
    copy.execute("UPDATE bounds SET rolled_up = ?1", [i64::MAX - 5])
        .unwrap();
    drop(copy);
    let failed = restore(&from, &bench.path(), NOW).unwrap_err();
    assert!(matches!(failed, LedgerError::Damaged(_)), "{failed}");
    assert!(!names(&bench).iter().any(|name| name.contains("restoring")));
}
