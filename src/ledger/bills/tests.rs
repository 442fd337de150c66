//! What the biller keeps, with the disk failing underneath.

use super::*;
use crate::ledger::files::suffixed;
use crate::ledger::handle::tests::disk::{self, ENOSPC, Word};
use crate::ledger::handle::tests::{Bench, DAY, close, commit, eventually, record, varied, wait};
use crate::ledger::job::Job;
use crate::ledger::{Committed, Ledger, StoredStatement};
use crate::model::Clock;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

fn account(id: &str) -> AccountId {
    AccountId::new(id).unwrap()
}

fn settlement(month: &str, seal: &Seal) -> Entry {
    Entry::Settlement {
        month: month.into(),
        through_seq: seal.last_seq,
        head: seal.head,
        fixed_at: DAY,
    }
}

fn statement(month: &str, id: &str, due: &str) -> Entry {
    Entry::Statement {
        month: month.into(),
        account: account(id),
        due: due.into(),
        inputs: format!("inputs of {due}"),
        statement: format!("statement of {due}"),
    }
}

fn event(id: &str, at: i64) -> Entry {
    Entry::Event(EventEntry::Raised {
        id: id.into(),
        account: account("a"),
        r#type: "pack.low".into(),
        raised_at: Utc(at),
        body: "{}".into(),
    })
}

#[test]
fn days_follow_each_other_and_a_sealed_day_stays_what_it_is() {
    let bench = Bench::new();
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=10).map(varied));
    let first = ledger.seal("2026-11-24").unwrap();
    assert_eq!((first.first_seq, first.last_seq), (1, 10));
    // All that was committed is linked then, and the newest link is the head.
    assert_eq!(bench.reader().head().unwrap().0, 10);
    bench.commit_all(&ledger, (11..=15).map(varied));
    assert_eq!(ledger.seal("2026-11-24").unwrap(), first);
    // A day that was left out is part of the next one.
    let second = ledger.seal("2026-11-26").unwrap();
    assert_eq!((second.first_seq, second.last_seq), (11, 15));
    let empty = ledger.seal("2026-11-27").unwrap();
    assert_eq!((empty.first_seq, empty.last_seq), (16, 15));
    assert_ne!(empty.head, second.head, "it stands for the day as well");
    let refused = ledger.seal("2026-11-25");
    assert!(
        matches!(&refused, Err(StoreError::OutOfOrder { sealed, .. }) if sealed == "2026-11-27"),
        "{refused:?}"
    );
    let reader = bench.reader();
    assert_eq!(
        reader.days().unwrap(),
        [first.clone(), second.clone(), empty.clone()]
    );
    assert_eq!(reader.last_day().unwrap(), Some(empty.clone()));
    assert_eq!(
        reader.days_from("2026-11-25").unwrap(),
        [second.clone(), empty]
    );
    assert_eq!(reader.days_from("2026-11-28").unwrap(), []);
    for head in [first.head, second.head] {
        assert_eq!(reader.verify(Some(head)).unwrap().days, 3);
    }
    // It goes on after a restart.
    close(&ledger);
    drop(ledger);
    let ledger = bench.open();
    commit(&ledger, record(99)).unwrap();
    let next = ledger.seal("2026-11-28").unwrap();
    assert_eq!((next.first_seq, next.last_seq), (16, 16));
    bench.assert_consistent();
}

#[test]
fn a_ledger_without_a_record_can_be_sealed() {
    let bench = Bench::new();
    let seal = bench.open().seal("2026-11-24").unwrap();
    assert_eq!((seal.first_seq, seal.last_seq), (1, 0));
    let verified = bench.reader().verify(Some(seal.head)).unwrap();
    assert_eq!((verified.records, verified.days), (0, 1));
}

#[test]
fn what_is_kept_is_found_and_keeping_it_again_changes_nothing() {
    let bench = Bench::new();
    let ledger = bench.open();
    commit(&ledger, record(1)).unwrap();
    let seal = ledger.seal("2026-11-30").unwrap();
    let reader = bench.reader();
    assert_eq!(reader.last_settlement().unwrap(), None);
    ledger
        .keep(vec![
            settlement("2026-11", &seal),
            statement("2026-11", "a", "8.80"),
            statement("2026-11", "b", "0.00"),
        ])
        .unwrap();
    let fixed = reader.settlement("2026-11").unwrap().unwrap();
    assert_eq!((fixed.through_seq, fixed.head), (1, seal.head));
    assert_eq!((fixed.fixed_at, fixed.settled_at), (DAY, None));
    assert_eq!(reader.last_settled().unwrap(), None);
    assert_eq!(reader.last_settlement().unwrap(), Some(fixed.clone()));

    let settled = |at| Entry::Settled {
        month: "2026-11".into(),
        at: Utc(at),
        digest: [7; 32],
    };
    let other = Seal {
        last_seq: 0,
        head: [1; 32],
        ..seal.clone()
    };
    ledger
        .keep(vec![
            settled(5),
            settled(6),
            settlement("2026-11", &other),
            statement("2026-11", "a", "1000.00"),
        ])
        .unwrap();
    let settled = reader.last_settled().unwrap().unwrap();
    assert_eq!(settled.settled_at, Some(Utc(5)));
    // It is settled, and debited only by an entry of its own, once (R16).
    assert_eq!(settled.debited_at, None);
    assert_eq!(
        reader.not_debited().unwrap(),
        std::slice::from_ref(&settled)
    );
    assert!(reader.debits(None).unwrap().is_empty());
    let debited = |month: &str, at| Entry::Debited {
        month: month.into(),
        at: Utc(at),
    };
    let debits = ["2026-11", "2026-11", "2026-12"].into_iter().zip(8..);
    ledger
        .keep(debits.map(|(month, at)| debited(month, at)).collect())
        .unwrap();
    assert!(reader.not_debited().unwrap().is_empty());
    let debit = reader.settlement("2026-11").unwrap().unwrap().debited_at;
    assert_eq!(debit, Some(Utc(8)));
    assert_eq!(settled.head, seal.head);
    let stored = reader.stored_statement("2026-11", &account("a")).unwrap();
    assert_eq!(
        stored,
        Some(StoredStatement {
            month: "2026-11".into(),
            account: account("a"),
            due: "8.80".into(),
            inputs: "inputs of 8.80".into(),
            statement: "statement of 8.80".into(),
        })
    );
    assert_eq!(
        reader.stored_statement("2026-12", &account("a")).unwrap(),
        None
    );

    ledger
        .keep(vec![
            settlement("2026-12", &seal),
            statement("2026-12", "a", "1.20"),
            statement("2027-01", "a", "3.00"),
        ])
        .unwrap();
    let last = |month| {
        let last = reader.last_statement(&account("a"), month).unwrap();
        last.map(|statement| statement.month)
    };
    assert_eq!(last("2026-11"), None);
    assert_eq!(last("2026-12").as_deref(), Some("2026-11"));
    assert_eq!(last("2027-06").as_deref(), Some("2027-01"));
    assert_eq!(reader.last_settlement().unwrap().unwrap().month, "2026-12");
    assert_eq!(reader.last_settled().unwrap().unwrap().month, "2026-11");
    let dues = |id: Option<&AccountId>| -> Vec<String> {
        let debits = reader.debits(id).unwrap().into_iter();
        debits
            .map(|debit| format!("{} {} {}", debit.account, debit.month, debit.due))
            .collect()
    };
    assert_eq!(dues(Some(&account("b"))), ["b 2026-11 0.00"]);
    // Of a month that was debited; the statements of the others are there all the same.
    assert_eq!(dues(None), ["a 2026-11 8.80", "b 2026-11 0.00"]);
    let mut walk = Vec::new();
    let (mut month, mut account) = (String::new(), String::new());
    while let Some(next) = reader.next_statement(&month, &account).unwrap() {
        walk.push(format!("{} {}", next.month, next.account));
        (month, account) = (next.month, next.account.to_string());
    }
    assert_eq!(walk, ["2026-11 a", "2026-11 b", "2026-12 a", "2027-01 a"]);
    bench.assert_consistent();
}

#[test]
fn events_come_in_the_order_in_which_they_were_raised() {
    let bench = Bench::new();
    let ledger = bench.open();
    let raised = ["a/P/2/low", "a/P/2/exhausted", "a/P/10/low", "a/O/1/low"];
    ledger.keep(raised.map(|id| event(id, 7)).into()).unwrap();
    let unsent = bench.reader().unsent_events(10).unwrap();
    let told: Vec<_> = unsent.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(told, raised);
}

#[test]
fn an_event_is_raised_once_and_waits_until_it_is_marked_as_sent() {
    let bench = Bench::new();
    let ledger = bench.open();
    let reader = bench.reader();
    assert!(!reader.event_known("a/P-1/1/low").unwrap());
    ledger
        .keep(vec![event("a/P-1/1/low", 3), event("a/P-1/1/exhausted", 7)])
        .unwrap();
    ledger.keep(vec![event("a/P-1/1/low", 99)]).unwrap();
    let unsent = |limit| -> Vec<String> {
        let events = reader.unsent_events(limit).unwrap().into_iter();
        events
            .map(|event| format!("{} {}", event.id, event.raised_at.0))
            .collect()
    };
    assert_eq!(unsent(10), ["a/P-1/1/low 3", "a/P-1/1/exhausted 7"]);
    assert_eq!(unsent(1), ["a/P-1/1/low 3"]);
    let sent = |at| {
        Entry::Event(EventEntry::Sent {
            id: "a/P-1/1/low".into(),
            at: Utc(at),
        })
    };
    ledger.keep(vec![sent(8), sent(9)]).unwrap();
    assert_eq!(unsent(10), ["a/P-1/1/exhausted 7"]);
    assert!(reader.event_known("a/P-1/1/low").unwrap());
    // Also by a later process.
    drop(ledger);
    let ledger = bench.open();
    ledger.keep(vec![event("a/P-1/1/low", 100)]).unwrap();
    assert_eq!(unsent(10), ["a/P-1/1/exhausted 7"]);
    let sent_at: i64 = bench
        .sql()
        .query_row(
            "SELECT sent_at FROM events WHERE id LIKE '%low'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(sent_at, 8);
}

#[test]
fn entries_are_kept_together_or_not_at_all() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench.open();
    disk.refuse_writes(ENOSPC);
    let entries = vec![statement("2026-11", "a", "1"), event("n", 0)];
    assert!(ledger.keep(entries.clone()).is_err());
    disk.refuse_writes(0);
    let reader = bench.reader();
    assert_eq!(reader.next_statement("", "").unwrap(), None);
    assert!(!reader.event_known("n").unwrap());
    ledger.keep(entries).unwrap();
    assert!(reader.next_statement("", "").unwrap().is_some());
    assert!(reader.event_known("n").unwrap());
}

/// The caller tries again.
#[test]
fn a_chore_that_finds_the_disk_full_is_an_error_of_its_own_and_fails_no_call() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=30).map(varied));
    for day in ["2026-11-24", "2026-11-25", "2026-11-26"] {
        // Fewer than a step, so that the roll-up waits for the seal.
        eventually("rolled up", || {
            bench.rolled_up() == i64::try_from(ledger.stats().last_seq).unwrap()
        });
        commit(&ledger, record(day.bytes().map(u128::from).sum())).unwrap();
        disk.refuse_writes(ENOSPC);
        let failed = ledger.seal(day);
        assert!(matches!(failed, Err(StoreError::Ledger(_))), "{failed:?}");
        disk.refuse_writes(0);
        assert!(ledger.healthy());
        let seal = ledger.seal(day).unwrap();
        assert_eq!(seal.last_seq, ledger.stats().last_seq);
        commit(&ledger, record(1_000 + seal.last_seq as u128)).unwrap();
    }
    bench.assert_consistent();
    assert_eq!(bench.reader().days().unwrap().len(), 3);
}

/// What happened in spite of the error is not done twice.
#[test]
fn a_seal_whose_sync_failed_is_refused_and_is_made_once_when_the_ledger_is_sound() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=30).map(varied));
    eventually("rolled up", || bench.rolled_up() == 30);
    for day in ["2026-11-24", "2026-11-25"] {
        disk.set(Word::FailWal, 1);
        let refused = ledger.seal(day);
        assert!(
            matches!(refused, Err(StoreError::Trouble(Trouble::Failing))),
            "{refused:?}"
        );
        eventually("healthy", || ledger.healthy());
        assert_eq!(ledger.seal(day).unwrap().last_seq, 30);
    }
    bench.assert_consistent();
    assert_eq!(bench.reader().days().unwrap().len(), 2);
}

#[test]
fn in_trouble_a_chore_is_refused_at_once_and_succeeds_when_the_ledger_is_well_again() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench.open();
    commit(&ledger, record(1)).unwrap();
    disk.refuse_writes(disk::EIO);
    assert!(commit(&ledger, record(2)).is_err());
    let failing = |error: StoreError| matches!(error, StoreError::Trouble(Trouble::Failing));
    assert!(failing(ledger.seal("2026-11-24").unwrap_err()));
    assert!(failing(ledger.keep(vec![event("n", 0)]).unwrap_err()));
    disk.refuse_writes(0);
    eventually("healthy", || ledger.healthy());
    assert!(!bench.reader().event_known("n").unwrap());
    assert_eq!(ledger.seal("2026-11-24").unwrap().last_seq, 2);
    ledger.keep(vec![event("n", 0)]).unwrap();
    bench.assert_consistent();
}

#[test]
fn a_chore_that_was_queued_when_the_trouble_began_is_refused_too() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench.open();
    commit(&ledger, record(1)).unwrap();
    let other = bench.sql();
    // The writer stands before the file with this record, for a while.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    disk.refuse_writes(disk::EIO);
    thread::scope(|scope| {
        let stuck = scope.spawn(|| commit(&ledger, record(2)));
        eventually("the record is taken", || {
            ledger.shared.queue.lock().records.is_empty() && ledger.stats().pending == 1
        });
        let sealing = scope.spawn(|| ledger.seal("2026-11-24"));
        eventually("the chore is queued", || {
            ledger.shared.queue.lock().chore.is_some() || !ledger.healthy()
        });
        other.execute_batch("COMMIT").unwrap();
        // A repair needs the file for itself.
        drop(other);
        assert!(stuck.join().unwrap().is_err());
        let refused = sealing.join().unwrap();
        assert!(
            matches!(refused, Err(StoreError::Trouble(Trouble::Failing))),
            "{refused:?}"
        );
    });
    disk.refuse_writes(0);
    eventually("healthy", || ledger.healthy());
    bench.assert_consistent();
}

#[test]
fn a_closed_ledger_and_one_whose_writer_died_refuse_chores() {
    let bench = Bench::new();
    let ledger = bench.open();
    close(&ledger);
    let closed = |error: StoreError| matches!(error, StoreError::Trouble(Trouble::Closed));
    assert!(closed(ledger.seal("2026-11-24").unwrap_err()));
    drop(ledger);
    let ledger = Ledger::open(bench.options(), Clock::default(), |_| {
        panic!("injected by a test")
    })
    .unwrap();
    thread::scope(|scope| {
        let sealing = scope.spawn(|| {
            // Queued at any time before or after its death.
            loop {
                if let Err(error) = ledger.seal("2026-11-24") {
                    return error;
                }
            }
        });
        assert!(commit(&ledger, record(1)).is_err());
        assert!(closed(sealing.join().unwrap()));
    });
}

/// In WAL mode SQLite goes on writing into a file that is gone.
#[test]
fn what_went_into_a_file_that_was_replaced_is_not_kept() {
    let bench = Bench::new();
    let ledger = bench.open();
    commit(&ledger, record(1)).unwrap();
    let away = bench.home.path().join("away.db");
    std::fs::rename(bench.path(), &away).unwrap();
    for refused in [
        ledger.keep(vec![event("n", 0)]),
        ledger.seal("2026-11-24").map(drop),
    ] {
        assert!(
            matches!(refused, Err(StoreError::Trouble(Trouble::Failing))),
            "{refused:?}"
        );
    }
    std::fs::rename(&away, bench.path()).unwrap();
    eventually("healthy", || ledger.healthy());
    ledger.keep(vec![event("n", 0)]).unwrap();
    assert!(bench.reader().event_known("n").unwrap());
}

#[test]
fn many_who_ask_at_once_are_served_one_after_the_other_beside_the_commits() {
    let bench = Bench::new();
    let ledger = bench.open();
    thread::scope(|scope| {
        scope.spawn(|| {
            for id in 0..200 {
                commit(&ledger, varied(id)).unwrap();
            }
        });
        for asker in 0..4 {
            let ledger = &ledger;
            scope.spawn(move || {
                for n in 0..10 {
                    ledger
                        .keep(vec![event(&format!("{asker}/{n}"), n)])
                        .unwrap();
                    // Whoever is late asks for a day before the newest; that is not what is shown
                    // here.
                    let _ = ledger.seal(&format!("day {n:02}"));
                }
            });
        }
    });
    assert_eq!(bench.reader().unsent_events(1_000).unwrap().len(), 40);
    assert_eq!(bench.reader().days().unwrap().len(), 10);
    bench.assert_consistent();
}

#[test]
fn a_gate_that_never_rests_does_the_billers_chores_as_well() {
    let bench = Bench::new();
    // The next record is queued before the writer is done with the last one.
    let busy = Arc::new(Mutex::new(None::<Arc<Ledger>>));
    let (again, ids) = (busy.clone(), AtomicU64::new(100));
    let call_again = move |_: &Committed| {
        if let Some(ledger) = &*again.lock() {
            let slot = ledger.reserve().unwrap();
            drop(slot.commit(record(ids.fetch_add(1, SeqCst).into())));
        }
    };
    let ledger = Arc::new(
        Ledger::open_with(bench.options(), Clock::default(), call_again, bench.pace).unwrap(),
    );
    *busy.lock() = Some(ledger.clone());
    commit(&ledger, record(11)).unwrap();
    ledger.seal("2026-11-24").unwrap();
    ledger.keep(vec![event("n", 0)]).unwrap();
    *busy.lock() = None;
    assert!(bench.reader().event_known("n").unwrap());
    ledger.close(Duration::from_secs(30)).unwrap();
    bench.assert_consistent();
}

/// A seal, entries and a roll-up may each be cut off by a crash, at any frame of the WAL.
#[test]
fn a_wal_cut_off_anywhere_leaves_whole_chores_and_a_chain_that_holds() {
    let bench = Bench::new();
    let mut store = bench.store();
    let run = store.begin_run("", DAY).unwrap();
    let old = |id| crate::ledger::Record {
        admitted_at: Utc(DAY.0 - 1),
        ..record(id)
    };
    store
        .commit(run, &(1..=20).map(old).collect::<Vec<_>>())
        .unwrap();
    let first = bench.seal(&mut store, "2026-11-24", 7);
    store.keep(&[settlement("2026-11", &first)]).unwrap();
    store
        .keep(&[
            statement("2026-11", "a", "1"),
            statement("2026-11", "b", "2"),
        ])
        .unwrap();
    let digest = bench.reader().statements_digest("2026-11").unwrap();
    let done = |at| Entry::Settled {
        month: "2026-11".into(),
        at,
        digest,
    };
    store.keep(&[done(DAY)]).unwrap();
    store.commit(run, &[record(21)]).unwrap();
    let second = bench.seal(&mut store, "2026-11-25", 7);
    while store.prune(DAY).unwrap() {}
    assert_eq!(bench.reader().first_kept_seq().unwrap(), 21);

    let file = std::fs::read(bench.path()).unwrap();
    let wal = std::fs::read(suffixed(&bench.path(), "-wal")).unwrap();
    let (head, frame) = (32, 24 + 4_096);
    let mut seen = Vec::new();
    for cut in std::iter::once(0).chain((head..=wal.len()).step_by(frame)) {
        let crashed = Bench::new();
        std::fs::write(crashed.path(), &file).unwrap();
        let mut left = wal[..cut].to_vec();
        left.resize(wal.len(), 0xa5);
        std::fs::write(suffixed(&crashed.path(), "-wal"), left).unwrap();
        let mut store = crashed.store();
        let reader = crashed.reader();
        reader.verify(None).unwrap();
        let days = reader.days().unwrap();
        let statements: i64 = crashed
            .sql()
            .query_row("SELECT count(*) FROM statements", [], |row| row.get(0))
            .unwrap();
        let settlement = reader.settlement("2026-11").unwrap();
        let fixed = settlement.is_some();
        let settled = settlement.is_some_and(|month| month.settled_at.is_some());
        seen.push((
            days.len(),
            fixed,
            statements,
            settled,
            reader.first_kept_seq().unwrap(),
        ));
        // What was sealed is what was published, and what was not is sealed to the same head by the
        // next try.
        for (seal, sealed) in [&first, &second].into_iter().zip(&days) {
            assert_eq!(seal, sealed);
            reader
                .verify(Some(seal.head))
                .map(drop)
                .or_else(|error| {
                    let gone = reader.first_kept_seq().unwrap() > seal.last_seq + 1;
                    gone.then_some(()).ok_or(error)
                })
                .unwrap();
        }
        if days.len() == 1 && store.next_seq() == 22 {
            assert_eq!(crashed.seal(&mut store, "2026-11-25", 7), second);
        }
        reader.verify(None).unwrap();
    }
    assert!(seen.is_sorted(), "{seen:?}");
    seen.dedup();
    assert!(seen.len() >= 7, "{seen:?}");
}

#[test]
fn a_chore_waits_for_no_answer_of_a_caller_that_has_gone() {
    let bench = Bench::new();
    let ledger = bench.open();
    let (reply, answer) = std::sync::mpsc::sync_channel(1);
    drop(answer);
    let day = "2026-11-24".to_owned();
    ledger.shared.queue.lock().chore = Some(Job::Freeze { day, reply });
    ledger.shared.wake.notify_one();
    eventually("taken", || ledger.shared.queue.lock().chore.is_none());
    wait(ledger.reserve().unwrap().commit(record(1))).unwrap();
}
