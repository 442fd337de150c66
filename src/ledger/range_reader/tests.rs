//! Records as they are read for another ledger.

use super::*;
use crate::ledger::collecting::tests::Gate;
use crate::ledger::handle::tests::{Bench, DAY, close, commit, record};
use crate::ledger::restore::restore;
use crate::ledger::{backup, chain};

fn head(gate: &Gate, seq: i64) -> Option<Link> {
    gate.bench
        .sql()
        .query_row("SELECT link FROM links WHERE last_seq = ?1", [seq], |row| {
            row.get(0)
        })
        .optional()
        .unwrap()
}

#[test]
fn ranges_follow_each_other_with_the_links_of_the_ledger_whether_they_are_rolled_up_or_not() {
    let mut gate = Gate::new(1);
    for _ in 0..5 {
        gate.record(13);
        gate.roll_up(9);
    }
    gate.restart("gate-2");
    gate.record(5);
    let mut kept = gate.reader();
    let (mut after, mut link) = (0, chain::ORIGIN);
    let mut links = Vec::new();
    while let Some(range) = kept.next(after, 6).unwrap() {
        assert_eq!((range.first_seq, range.link_before), (after + 1, link));
        // One that does not know what came before finds the same.
        assert_eq!(gate.reader().next(after, 6).unwrap().unwrap(), range);
        (after, link) = (range.last_seq, range.link_after);
        links.push((after, link));
    }
    assert_eq!(after, 70);
    // When all is rolled up the ledger says the same of them.
    while gate.store().tail() > 0 {
        gate.roll_up(1);
    }
    let compared = links
        .iter()
        .filter_map(|(seq, link)| head(&gate, *seq as i64).map(|head| (head, *link)))
        .inspect(|(head, link)| assert_eq!(head, link))
        .count();
    assert!(compared >= 2, "{compared}");
    // And who goes back is given the same again.
    assert_eq!(kept.next(20, 6).unwrap().unwrap(), gate.range(20, 6));
}

#[test]
fn a_range_says_which_records_need_not_be_sent_and_ends_where_the_ledger_ends() {
    let mut gate = Gate::new(1);
    let mut reader = gate.reader();
    assert_eq!(reader.next(0, 10).unwrap(), None);
    gate.record(4);
    assert_eq!(reader.next(0, 10).unwrap().unwrap().records(), 4);
    assert_eq!(reader.next(4, 10).unwrap(), None);
    let ahead = reader.next(5, 10).unwrap_err();
    assert!(matches!(
        ahead,
        ReadError::CursorAhead { after: 5, last: 4 }
    ));
    gate.record(1);
    assert_eq!(reader.next(4, 10).unwrap().unwrap().records(), 1);
}

#[test]
fn a_range_of_many_long_texts_stays_far_below_a_message() {
    let mut gate = Gate::new(1);
    let records: Vec<_> = (0..5_000)
        .map(|at| crate::ledger::Record {
            account: crate::model::AccountId::new(&format!("{at:032}")).unwrap(),
            ..record(at)
        })
        .collect();
    let run = gate.store().begin_run("gate-1", DAY).unwrap();
    gate.store().commit(run, &records).unwrap();
    let mut reader = gate.reader();
    let (mut after, mut ranges) = (0, 0);
    while let Some(range) = reader.next(after, 5_000).unwrap() {
        assert!(range.encode().len() < 256 << 10);
        after = range.last_seq;
        ranges += 1;
    }
    assert_eq!(after, 5_000);
    assert!(ranges > 2, "{ranges}");
}

#[test]
fn no_range_goes_over_a_restore_and_restores_without_a_record_between_are_one_gap() {
    let mut gate = Gate::new(1);
    gate.record(10);
    let copy = gate.bench.home.path().join("copy.db");
    backup(&gate.bench.path(), &copy).unwrap();
    let mut lost = gate.reader();
    gate.record(3);
    let lost_range = lost.next(10, 10).unwrap().unwrap();
    drop(lost);
    let path = gate.bench.path();
    let (bench, mut gate) = {
        let Gate { bench, .. } = gate;
        restore(&copy, &path, DAY).unwrap();
        let again = bench.home.path().join("again.db");
        backup(&path, &again).unwrap();
        restore(&again, &path, DAY).unwrap();
        let store = bench.store();
        (bench, store)
    };
    let run = gate.begin_run("gate-1", DAY).unwrap();
    let mut reader = RangeReader::open(&path).unwrap();
    // Nothing has come since.
    assert_eq!(reader.next(10, 10).unwrap(), None);
    assert_eq!(reader.next(13, 10).unwrap(), None);
    gate.commit(run, &[record(50), record(51)]).unwrap();
    let until = reader.next(5, 100).unwrap().unwrap();
    assert_eq!(
        (until.first_seq, until.last_seq, until.restore_count),
        (6, 10, 0)
    );
    for after in [10, 13, 1_000_000] {
        let range = reader.next(after, 100).unwrap().unwrap();
        assert_eq!((range.records(), range.restore_count), (2, 2));
        assert_eq!(range.link_before, until.link_after);
        assert_eq!(range.link_before, lost_range.link_before);
        let gap = range.restored.unwrap();
        assert_eq!(
            (gap.last_seq, gap.next_seq, gap.restored_at),
            (10, range.first_seq, DAY.0)
        );
    }
    assert_eq!(gate.last_record().unwrap(), gate.next_seq() - 1);
    drop(bench);
}

#[test]
fn records_of_an_older_schema_are_sent_as_they_were_linked_and_in_ranges_of_their_own() {
    let bench = Bench::new();
    let old = rusqlite::Connection::open(bench.path()).unwrap();
    old.execute_batch(include_str!("../migrate/schema_4.sql"))
        .unwrap();
    drop(old);
    let ledger = bench.open();
    for id in 4_000..4_005 {
        commit(&ledger, record(id)).unwrap();
    }
    close(&ledger);
    let mut reader = RangeReader::open(&bench.path()).unwrap();
    let collector = Bench::new();
    let mut store = collector.store();
    let (mut after, mut versions) = (0, Vec::new());
    while let Some(mut range) = reader.next(after, 500).unwrap() {
        after = range.last_seq;
        // Its gate would not send what is on its own statements.
        range.billed_seq = 0;
        versions.push(range.link_version);
        let collected = store.collect(&[range], DAY).unwrap().ranges;
        assert!(
            matches!(collected[0], crate::ledger::Collected::Taken { .. }),
            "{collected:?}"
        );
    }
    assert_eq!(after, 78);
    assert!(
        versions.contains(&1) && versions.last() == Some(&2),
        "{versions:?}"
    );
    assert_eq!(collector.all().len(), 78);
    collector.assert_consistent();
}

#[test]
fn of_a_ledger_that_this_process_writes_only_what_is_durable_is_given_out() {
    let bench = Bench::new();
    let ledger = bench.open();
    let mut reader = RangeReader::open(&bench.path()).unwrap();
    commit(&ledger, record(1)).unwrap();
    assert_eq!(reader.next(0, 10).unwrap().unwrap().records(), 1);
    // As if the writer did not know yet of the commit of the second.
    let shared = ledger.shared.clone();
    commit(&ledger, record(2)).unwrap();
    shared
        .last_seq
        .store(1, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(reader.next(1, 10).unwrap(), None);
    shared
        .last_seq
        .store(2, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(reader.next(1, 10).unwrap().unwrap().records(), 1);
}

#[test]
fn a_reader_lets_go_of_the_file_before_it_is_made_sound_and_says_so() {
    use crate::ledger::handle::tests::disk::{self, Word};
    use crate::ledger::handle::tests::eventually;
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench.open();
    commit(&ledger, record(1)).unwrap();
    let mut reader = RangeReader::open(&bench.path()).unwrap();
    assert_eq!(reader.next(0, 10).unwrap().unwrap().records(), 1);
    disk.set(Word::FailWal, 1);
    assert!(commit(&ledger, record(2)).is_err());
    // Nobody asks the reader for anything meanwhile, and the repair does not wait for it.
    eventually("healthy", || ledger.healthy());
    let closed = reader.next(0, 10).unwrap_err();
    assert!(matches!(closed, ReadError::Closed), "{closed}");
    let mut reader = RangeReader::open(&bench.path()).unwrap();
    assert_eq!(reader.next(0, 10).unwrap().unwrap().records(), 2);
}
