//! Ledgers that are collected in another one.

use crate::ledger::handle::tests::disk::{self, Disk, ENOSPC, Word};
use crate::ledger::handle::tests::{
    Bench, DAY, assert_consistent, close, commit, eventually, record, settled, varied,
};
use crate::ledger::restore::restore;
use crate::ledger::store::Store;
use crate::ledger::{
    Collected, CollectedBy, Range, RangeReader, ReadError, Reader, Record, SourceLedger,
    StoreError, StoredRecord, Watermark, backup,
};
use crate::model::{Mono, Outcome, Reason, RequestId, StoreStart, Utc};
use std::path::Path;

/// A ledger that is written without a thread, so that things happen when they are called for.
pub(in crate::ledger) struct Gate {
    pub(in crate::ledger) bench: Bench,
    store: Option<Store>,
    run: i64,
    next_id: u128,
}

impl Gate {
    /// Records of this one have ids from `first_id` on.
    pub(in crate::ledger) fn new(first_id: u128) -> Self {
        let bench = Bench::new();
        let mut gate = Self {
            store: Some(bench.store()),
            bench,
            run: 0,
            next_id: first_id,
        };
        gate.restart("gate-1");
        gate
    }

    pub(in crate::ledger) fn restart(&mut self, replica: &str) {
        drop(self.store.take());
        let store = self.bench.store();
        self.run = store.begin_run(replica, DAY).unwrap();
        self.store = Some(store);
    }

    pub(in crate::ledger) fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    pub(in crate::ledger) fn record(&mut self, count: usize) {
        let records: Vec<Record> = (0..count)
            .map(|_| {
                self.next_id += 1;
                sent(self.next_id)
            })
            .collect();
        if count > 0 {
            let run = self.run;
            self.store().commit(run, &records).unwrap();
        }
    }

    pub(in crate::ledger) fn roll_up(&mut self, step: i64) {
        if self.store().tail() > 0 {
            self.store().roll_up(step).unwrap();
        }
    }

    pub(in crate::ledger) fn reader(&self) -> RangeReader {
        RangeReader::open(&self.bench.path()).unwrap()
    }

    /// The range after `after`.
    pub(in crate::ledger) fn range(&self, after: u64, limit: usize) -> Range {
        let range = self.reader().next(after, limit).unwrap().unwrap();
        let again = Range::decode(&range.encode()).unwrap();
        assert_eq!(again, range);
        range
    }

    fn id(&self) -> String {
        let sql = self.bench.sql();
        sql.query_row("SELECT ledger_id FROM identity", [], |row| row.get(0))
            .unwrap()
    }

    /// Puts the ledger back to `copy`.
    fn put_back(&mut self, copy: &Path) {
        drop(self.store.take());
        restore(copy, &self.bench.path(), DAY).unwrap();
        self.restart("gate-1");
    }

    fn back_up(&self, name: &str) -> std::path::PathBuf {
        let to = self.bench.home.path().join(name);
        backup(&self.bench.path(), &to).unwrap();
        to
    }
}

/// A record whose fields follow from `id`, some of them decided by a shared store.
fn sent(id: u128) -> Record {
    let start = StoreStart {
        epoch: 3,
        at: Utc(DAY.0 + id as i64),
    };
    Record {
        start: Mono(7_000_000_000 + id as u64),
        store_start: id.is_multiple_of(3).then_some(start),
        ..varied(id)
    }
}

/// All that a record says but its seq and its run, which another ledger gives anew.
fn contents(record: &StoredRecord) -> StoredRecord {
    StoredRecord {
        seq: 0,
        run: 0,
        ..record.clone()
    }
}

/// What was collected, by id.
fn union(records: impl Iterator<Item = StoredRecord>) -> Vec<StoredRecord> {
    let mut all: Vec<_> = records.map(|record| contents(&record)).collect();
    all.sort_by_key(|record| record.id.0);
    all
}

fn seq_of(collector: &Bench, ledger_id: &str) -> u64 {
    let sources = collector.reader().sources().unwrap();
    let source = sources.iter().find(|it| it.ledger_id == ledger_id);
    source.map_or(0, |source| source.seq)
}

fn only_source(collector: &Bench) -> SourceLedger {
    let sources = collector.reader().sources().unwrap();
    assert_eq!(sources.len(), 1);
    sources.into_iter().next().unwrap()
}

fn collect(store: &mut Store, range: Range) -> Collected {
    let collected = store.collect(&[range], DAY).unwrap();
    assert_eq!(collected.ranges.len(), 1);
    collected.ranges.into_iter().next().unwrap()
}

/// Sends what is missing until all is there.
fn send_all(store: &mut Store, collector: &Bench, gate: &Gate) {
    let (id, mut reader) = (gate.id(), gate.reader());
    while let Some(range) = reader.next(seq_of(collector, &id), 7).unwrap() {
        let (records, last) = (range.records() as u64, range.last_seq);
        let taken = Collected::Taken {
            ledger_id: id.clone(),
            seq: last,
            records,
        };
        assert_eq!(collect(store, range), taken);
    }
}

fn assert_is_union(collector: &Bench, gates: &[Gate]) {
    let sent = gates.iter().flat_map(|gate| gate.bench.all());
    assert_eq!(union(collector.all().into_iter()), union(sent));
    collector.assert_consistent();
}

fn taken(collected: &Collected) -> u64 {
    match collected {
        Collected::Taken { records, .. } => *records,
        other => panic!("{other:?}"),
    }
}

fn why_broken(collected: &Collected) -> &str {
    match collected {
        Collected::Broken { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn however_histories_are_cut_repeated_and_mixed_the_collected_ledger_is_their_union() {
    for seed in 1..=30 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut gates: Vec<Gate> = (0..dice.usize(1..4))
            .map(|at| Gate::new(1 + 1_000_000 * at as u128))
            .collect();
        for gate in &mut gates {
            for round in 0..dice.usize(1..5) {
                gate.record(dice.usize(0..30));
                gate.roll_up(dice.i64(1..20));
                if dice.bool() {
                    gate.restart(&format!("gate-{round}"));
                }
            }
        }
        let mut messages = Vec::new();
        for gate in &gates {
            let last = gate.bench.reader().last_seq().unwrap();
            let mut reader = gate.reader();
            for _ in 0..dice.usize(0..25) {
                let (after, limit) = (dice.u64(0..=last), dice.usize(1..20));
                let range = match dice.bool() {
                    true => reader.next(after, limit).unwrap(),
                    false => gate.reader().next(after, limit).unwrap(),
                };
                messages.extend(range.map(|range| range.encode()));
            }
        }
        dice.shuffle(&mut messages);
        let collector = Bench::new();
        let mut store = collector.store();
        while !messages.is_empty() {
            let count = dice.usize(1..6).min(messages.len());
            let ranges: Vec<Range> = messages
                .drain(..count)
                .map(|bytes| Range::decode(&bytes).unwrap())
                .collect();
            let before = store.next_seq();
            let collected = store.collect(&ranges, DAY).unwrap();
            let records: u64 = collected
                .ranges
                .iter()
                .map(|it| match it {
                    Collected::Taken { records, .. } => *records,
                    Collected::Gap { .. } => 0,
                    broken @ Collected::Broken { .. } => panic!("seed {seed}: {broken:?}"),
                })
                .sum();
            assert_eq!(records as i64, store.next_seq() - before);
            if store.tail() > 0 && dice.bool() {
                store.roll_up(dice.i64(1..40)).unwrap();
            }
            if dice.u8(0..4) == 0 {
                drop(store);
                store = collector.store();
            }
            let at = dice.usize(0..gates.len());
            gates[at].record(dice.usize(0..4));
        }
        for gate in &gates {
            send_all(&mut store, &collector, gate);
        }
        assert_is_union(&collector, &gates);
        let sources = collector.reader().sources().unwrap();
        for gate in &gates {
            let last = gate.bench.reader().last_seq().unwrap();
            let source = sources.iter().find(|it| it.ledger_id == gate.id());
            assert_eq!(source.map_or(0, |source| source.seq), last, "seed {seed}");
        }
    }
}

#[test]
fn whatever_is_changed_in_a_range_on_its_way_nothing_of_it_is_taken_and_it_is_named() {
    type Change = fn(&mut Range);
    let changes: [(&str, Change); 20] = [
        ("an id", |range| range.rows[3].id[0] ^= 1),
        ("an instant", |range| range.rows[3].admitted_at += 1),
        ("a start", |range| range.rows[3].start_ns += 1),
        ("a status", |range| range.rows[3].status = Some(299)),
        ("a duration", |range| range.rows[3].duration_us += 1),
        ("an epoch", |range| range.rows[3].store_epoch = Some(9)),
        ("a start of the store", |range| {
            range.rows[3].store_start_us = Some(9)
        }),
        ("an account", |range| range.series[0].account.push('x')),
        ("a key", |range| range.series[0].key.push('x')),
        ("a group", |range| range.series[0].group.push('x')),
        ("an action", |range| range.series[0].action.push('x')),
        ("a replica", |range| range.runs[0].replica.push('x')),
        ("a run", |range| range.runs[0].run += 1),
        ("the order", |range| range.rows.swap(2, 3)),
        ("what is billable", |range| {
            range.series[0].billable = !range.series[0].billable;
        }),
        ("the link before", |range| range.link_before[0] ^= 1),
        ("the link after", |range| range.link_after[0] ^= 1),
        ("the version", |range| range.link_version = 1),
        ("a record that is left out", |range| {
            range.rows.remove(4);
            range.last_seq -= 1;
        }),
        ("the seqs", |range| {
            range.first_seq -= 1;
            range.last_seq -= 1;
        }),
    ];
    let mut gate = Gate::new(1);
    gate.record(24);
    let collector = Bench::new();
    let mut store = collector.store();
    for (begun, after) in [(false, 0), (true, 8)] {
        if begun {
            assert_eq!(taken(&collect(&mut store, gate.range(0, 8))), 8);
        }
        for (what, change) in &changes {
            let mut range = gate.range(after, 10);
            // There is no seq before the first.
            if range.first_seq == 1 && *what == "the seqs" {
                continue;
            }
            change(&mut range);
            let collected = collect(&mut store, range);
            let why = why_broken(&collected);
            assert!(
                why.contains("link") || why.contains("billable"),
                "{what}: {why}"
            );
            assert_eq!(store.next_seq(), 1 + after as i64, "{what}");
        }
    }
    // Nothing of all that is in the way of the right one.
    send_all(&mut store, &collector, &gate);
    assert_is_union(&collector, &[gate]);
}

#[test]
fn a_range_with_a_word_that_this_tollgate_does_not_know_is_refused_and_says_what_to_do() {
    let mut gate = Gate::new(1);
    gate.record(3);
    let sql = gate.bench.sql();
    sql.execute("UPDATE series SET outcome = 'teleported'", [])
        .unwrap();
    let collector = Bench::new();
    let collected = collect(&mut collector.store(), gate.range(0, 10));
    let why = why_broken(&collected);
    assert!(why.contains("bring the collector to the version"), "{why}");
    assert!(collector.all().is_empty());
}

#[test]
fn of_ranges_that_come_together_one_that_is_broken_does_not_hold_up_the_others() {
    let (mut one, mut two) = (Gate::new(1), Gate::new(1_000));
    one.record(10);
    two.record(10);
    let mut broken = one.range(0, 10);
    broken.rows[0].status = Some(299);
    let collector = Bench::new();
    let mut store = collector.store();
    let ranges = [broken, two.range(0, 4), two.range(6, 10), two.range(2, 4)];
    let collected = store.collect(&ranges, DAY).unwrap().ranges;
    why_broken(&collected[0]);
    assert_eq!(taken(&collected[1]), 4);
    let gap = Collected::Gap {
        ledger_id: two.id(),
        have: 4,
    };
    assert_eq!(collected[2], gap);
    assert_eq!(taken(&collected[3]), 2);
    let source = only_source(&collector);
    assert_eq!((source.ledger_id, source.seq), (two.id(), 6));
    collector.assert_consistent();
}

#[test]
fn a_ledger_that_settled_months_alone_sends_what_came_after_and_nothing_before() {
    let mut gate = Gate::new(1);
    gate.record(30);
    let seal = {
        let Gate { bench, store, .. } = &mut gate;
        bench.seal(store.as_mut().unwrap(), "2026-10-31", 100)
    };
    gate.record(12);
    gate.store()
        .keep(&settled("2026-10", 30, seal.head))
        .unwrap();
    let begins = gate.bench.reader().outbox().unwrap().collected_seq;
    assert_eq!(begins, 30);
    let collector = Bench::new();
    let mut store = collector.store();
    // One that is not the first: others are on their way.
    let gap = Collected::Gap {
        ledger_id: gate.id(),
        have: 30,
    };
    assert_eq!(collect(&mut store, gate.range(35, 5)), gap);
    assert_eq!(taken(&collect(&mut store, gate.range(30, 10))), 10);
    // What was billed there already is not counted a second time, whoever sends it.
    let why = "it begins before record 31";
    assert!(why_broken(&collect(&mut store, gate.range(25, 17))).starts_with(why));
    let not_here = collect(&mut store, gate.range(20, 5));
    assert!(why_broken(&not_here).starts_with("its records are not collected"));
    assert_eq!(taken(&collect(&mut store, gate.range(40, 10))), 2);
    assert_eq!(collector.all().len(), 12);
    collector.assert_consistent();
}

#[test]
fn after_a_restore_of_a_source_what_was_collected_stays_and_what_is_new_comes_once() {
    // How many records were collected when the ledger was put back to record 20 of 30.
    for had in [0, 15, 20, 25, 30] {
        let mut gate = Gate::new(1);
        gate.record(20);
        gate.roll_up(9);
        let copy = gate.back_up("copy.db");
        gate.record(10);
        let before = gate.bench.all();
        let collector = Bench::new();
        let mut store = collector.store();
        if had > 0 {
            assert_eq!(
                taken(&collect(&mut store, gate.range(0, had as usize))),
                had
            );
        }
        let old = gate.range(0, 30);
        gate.put_back(&copy);
        gate.next_id = 5_000;
        gate.record(6);
        let next_seq = gate.bench.reader().last_seq().unwrap() - 5;
        let new = gate.range(next_seq - 1, 10);
        assert_eq!((new.restore_count, new.records()), (1, 6));
        assert_eq!(new.restored.map(|gap| gap.last_seq), Some(20));
        if had < 20 {
            let gap = Collected::Gap {
                ledger_id: gate.id(),
                have: had,
            };
            assert_eq!(collect(&mut store, new.clone()), gap);
        }
        send_all(&mut store, &collector, &gate);
        assert_eq!(only_source(&collector).restore_count, 1);
        let kept = before
            .into_iter()
            .filter(|record| record.seq <= had.max(20));
        let since = gate
            .bench
            .all()
            .into_iter()
            .filter(|record| record.seq >= next_seq);
        let all = union(collector.all().into_iter());
        assert_eq!(all, union(kept.chain(since)), "{had}");
        collector.assert_consistent();
        // Both come again.
        let expected = if had == 30 { "taken" } else { "refused" };
        let again = match collect(&mut store, old) {
            Collected::Taken { records: 0, .. } => "taken",
            Collected::Broken { .. } => "refused",
            other => panic!("{other:?}"),
        };
        assert_eq!(again, expected, "{had}");
        assert_eq!(taken(&collect(&mut store, new)), 0);
        drop(store);
        let mut store = collector.store();
        gate.record(3);
        send_all(&mut store, &collector, &gate);
        assert_eq!(collector.all().len() as u64, had.max(20) + 9);
        collector.assert_consistent();
    }
}

#[test]
fn a_ledger_that_goes_on_beside_its_restored_copy_is_refused() {
    let mut gate = Gate::new(1);
    gate.record(20);
    let copy = gate.back_up("copy.db");
    let collector = Bench::new();
    let mut store = collector.store();
    assert_eq!(taken(&collect(&mut store, gate.range(0, 20))), 20);
    // A copy that somebody started as a gate of its own.
    let mut twin = Gate::new(900);
    drop(twin.store.take());
    std::fs::copy(&copy, twin.bench.path()).unwrap();
    let _ = std::fs::remove_file(twin.bench.home.path().join("ledger.db-wal"));
    let _ = std::fs::remove_file(twin.bench.home.path().join("ledger.db-shm"));
    twin.restart("gate-2");
    twin.record(5);
    gate.record(5);
    assert_eq!(taken(&collect(&mut store, gate.range(20, 5))), 5);
    let same_seqs = collect(&mut store, twin.range(20, 5));
    assert!(why_broken(&same_seqs).contains("another ledger has its id"));
    twin.record(5);
    let goes_on = collect(&mut store, twin.range(25, 5));
    assert!(why_broken(&goes_on).contains("another ledger has its id"));
    // And one from before a restore, after records from since were collected.
    let copy = gate.back_up("copy-2.db");
    let before = gate.back_up("before.db");
    gate.put_back(&copy);
    gate.record(2);
    send_all(&mut store, &collector, &gate);
    drop(twin.store.take());
    std::fs::remove_file(twin.bench.path()).unwrap();
    std::fs::copy(&before, twin.bench.path()).unwrap();
    twin.restart("gate-2");
    twin.record(5);
    let from_before = collect(&mut store, twin.range(25, 5));
    why_broken(&from_before);
    assert_eq!(collector.all().len(), 27);
    collector.assert_consistent();
}

#[test]
fn ranges_are_collected_in_no_ledger_that_has_calls_of_its_own() {
    let mut gate = Gate::new(1);
    gate.record(3);
    let bench = Bench::new();
    let ledger = bench.open();
    commit(&ledger, record(1)).unwrap();
    for _ in 0..2 {
        let refused = ledger.collect(vec![gate.range(0, 10)]).unwrap_err();
        assert!(matches!(refused, StoreError::OwnCalls), "{refused}");
        assert!(refused.to_string().contains("name a new file"));
    }
    let watermark = watermark(&gate.id(), 1, 1);
    assert!(ledger.watermark_of(vec![watermark]).is_err());
    assert!(bench.reader().sources().unwrap().is_empty());
    commit(&ledger, record(2)).unwrap();
    close(&ledger);
    bench.assert_consistent();
}

#[test]
fn the_handle_shows_what_it_has_collected_rolls_it_up_and_reports_it() {
    let mut gate = Gate::new(1);
    gate.record(100);
    let bench = Bench::new();
    let ledger = bench.open();
    let ranges: Vec<Range> = (0..10).map(|at| gate.range(at * 10, 10)).collect();
    for group in ranges.chunks(3) {
        ledger.collect(group.to_vec()).unwrap();
        // Readers of this process see it at once.
        let seq = only_source(&bench).seq;
        assert_eq!(bench.all().len() as u64, seq);
        assert!(bench.reader().last_seq().unwrap() == seq);
        eventually("rolled up", || {
            bench.rolled_up() + bench.pace.roll_up > seq as i64
        });
    }
    let seal = ledger.seal("2026-11-24").unwrap();
    assert_eq!(seal.last_seq, 100);
    // Each of the four was a commit, and none of its records a call of this process.
    let reports = bench.reports.lock().clone();
    assert_eq!(reports.len(), 4);
    assert!(
        reports
            .iter()
            .all(|report| report.records.iter().sum::<u64>() == 0)
    );
    close(&ledger);
    assert_is_union(&bench, &[gate]);
}

fn watermark(ledger_id: &str, at: i64, seq: u64) -> Watermark {
    Watermark {
        ledger_id: ledger_id.to_owned(),
        replica: "gate-1".to_owned(),
        at: Some(Utc(DAY.0 + at)),
        seq,
        billed_seq: 0,
    }
}

#[test]
fn all_calls_before_an_instant_are_collected_when_every_ledger_has_told_so_and_come_so_far() {
    let (mut one, mut two) = (Gate::new(1), Gate::new(1_000));
    one.record(10);
    two.record(10);
    let bench = Bench::new();
    let ledger = bench.open();
    let before = || {
        bench
            .reader()
            .all_admitted_before()
            .unwrap()
            .map(|at| at.0 - DAY.0)
    };
    assert_eq!(before(), None);
    ledger.collect(vec![one.range(0, 10)]).unwrap();
    // Nobody knows how far it is.
    assert_eq!(before(), None);
    ledger
        .watermark_of(vec![watermark(&one.id(), 5, 10)])
        .unwrap();
    assert_eq!(before(), Some(5));
    // Another one is heard of: nothing is known of its calls.
    ledger
        .watermark_of(vec![watermark(&two.id(), 8, 10)])
        .unwrap();
    assert_eq!(before(), None);
    ledger.collect(vec![two.range(0, 9)]).unwrap();
    assert_eq!(before(), None);
    ledger.collect(vec![two.range(9, 1)]).unwrap();
    assert_eq!(before(), Some(5));
    // One that is not come to yet counts with the one before.
    let both = vec![watermark(&one.id(), 20, 11), watermark(&two.id(), 30, 10)];
    ledger.watermark_of(both).unwrap();
    assert_eq!(before(), Some(5));
    one.record(1);
    ledger.collect(vec![one.range(10, 5)]).unwrap();
    assert_eq!(before(), Some(20));
    // Its clock went back: it admits calls from before what it told.
    ledger
        .watermark_of(vec![watermark(&one.id(), 7, 11)])
        .unwrap();
    assert_eq!(before(), Some(7));
    ledger
        .watermark_of(vec![watermark(&one.id(), 20, 11)])
        .unwrap();
    close(&ledger);
    let ledger = bench.open();
    assert_eq!(before(), Some(20));
    assert!(!ledger.retire("nobody", "it never was", DAY).unwrap());
    assert!(ledger.retire(&one.id(), "its disk is lost", DAY).unwrap());
    assert!(!ledger.retire(&one.id(), "again", DAY).unwrap());
    assert_eq!(before(), Some(30));
    let sources = bench.reader().sources().unwrap();
    let retired = Some((DAY, "its disk is lost".to_owned()));
    assert_eq!(sources[0].retired, retired);
    assert_eq!(sources[0].watermark, Some((Utc(DAY.0 + 20), 11)));
    // What it sends all the same is taken.
    one.record(1);
    ledger.collect(vec![one.range(11, 5)]).unwrap();
    assert_eq!(bench.reader().sources().unwrap()[0].seq, 12);
    assert!(ledger.retire(&two.id(), "the gate is gone", DAY).unwrap());
    assert_eq!(
        bench.reader().all_admitted_before().unwrap(),
        Some(Utc(i64::MAX))
    );
    close(&ledger);
    bench.assert_consistent();
}

#[test]
fn a_ledger_that_has_nothing_to_send_is_not_waited_for() {
    let bench = Bench::new();
    let ledger = bench.open();
    let id = "0123456789abcdef0123456789abcdef";
    let billed_already = Watermark {
        billed_seq: 500,
        ..watermark(id, 5, 500)
    };
    ledger.watermark_of(vec![billed_already.clone()]).unwrap();
    let before = || bench.reader().all_admitted_before().unwrap();
    assert_eq!(before(), Some(Utc(DAY.0 + 5)));
    let one_more = Watermark {
        at: Some(Utc(DAY.0 + 6)),
        seq: 501,
        ..billed_already
    };
    ledger.watermark_of(vec![one_more]).unwrap();
    assert_eq!(before(), Some(Utc(DAY.0 + 5)));
}

fn collected_by(restore_count: u64) -> CollectedBy {
    CollectedBy {
        ledger_id: "fedcba9876543210fedcba9876543210".to_owned(),
        restore_count,
    }
}

#[test]
fn what_a_restored_collector_lacks_is_not_deleted_though_it_had_it_before() {
    let mut bench = Bench::new();
    bench.pace.roll_up = 5;
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=40).map(varied));
    eventually("rolled up", || bench.rolled_up() >= 38);
    ledger.collected(30, collected_by(0)).unwrap();
    ledger.collected(4, collected_by(1)).unwrap();
    let far = Utc(DAY.0 * 2);
    ledger.prune(far);
    ledger.keep(Vec::new()).unwrap();
    assert_eq!(bench.reader().first_kept_seq().unwrap(), 1);
    assert_eq!(bench.reader().outbox().unwrap().collected_seq, 4);
    // Another ledger in its place says what it has, too.
    let another = CollectedBy {
        ledger_id: "0123456789abcdef0123456789abcdef".to_owned(),
        restore_count: 0,
    };
    ledger.collected(40, another.clone()).unwrap();
    ledger.prune(far);
    eventually("pruned", || bench.reader().first_kept_seq().unwrap() > 30);
    // What is deleted was collected, also when it is collected no more.
    ledger.collected(0, another).unwrap();
    bench.reader().verify(None).unwrap();
}

#[test]
fn a_ledger_that_was_ever_sent_elsewhere_is_one_gates_part_though_nobody_answered_yet() {
    let bench = Bench::new();
    let ledger = bench.open();
    let is_part = || bench.reader().is_one_replicas_part().unwrap();
    bench.commit_all(&ledger, (1..=3).map(varied));
    assert!(!is_part());
    ledger.sends().unwrap();
    assert!(is_part());
    assert_eq!(bench.reader().outbox().unwrap().collected_seq, 0);
}

#[test]
fn a_ledger_is_known_and_waited_for_before_it_knows_of_any_instant() {
    let bench = Bench::new();
    let ledger = bench.open();
    let id = "0123456789abcdef0123456789abcdef";
    let before = || bench.reader().all_admitted_before().unwrap();
    let other = "00112233445566778899aabbccddeeff";
    ledger.watermark_of(vec![watermark(other, 9, 0)]).unwrap();
    assert_eq!(before(), Some(Utc(DAY.0 + 9)));
    let silent = Watermark {
        at: None,
        ..watermark(id, 0, 5)
    };
    ledger.watermark_of(vec![silent.clone()]).unwrap();
    assert_eq!(before(), None);
    ledger.watermark_of(vec![watermark(id, 7, 0)]).unwrap();
    // What it said stands while its clock is not trusted.
    ledger.watermark_of(vec![silent]).unwrap();
    assert_eq!(before(), Some(Utc(DAY.0 + 7)));
}

#[test]
fn the_first_range_of_a_ledger_begins_behind_what_it_has_billed_itself_and_nowhere_else() {
    let mut gate = Gate::new(1);
    gate.record(20);
    let bench = Bench::new();
    let ledger = bench.open();
    let id = gate.id();
    // An older backup of the collected ledger does not know the gate: that its gate was told of
    // collected records, and deleted them, does not make them billed.
    let gap = ledger.collect(vec![gate.range(10, 10)]).unwrap();
    let from_the_first = Collected::Gap {
        ledger_id: id.clone(),
        have: 0,
    };
    assert_eq!(gap, [from_the_first]);
    // What is on statements of its own is taken neither in part nor as a whole.
    let billed = Range {
        billed_seq: 5,
        ..gate.range(0, 10)
    };
    let told = ledger.collect(vec![billed]).unwrap();
    assert!(
        matches!(&told[..], [Collected::Broken { why, .. }] if why.contains("their own ledger")),
        "{told:?}"
    );
    let behind = Range {
        billed_seq: 5,
        ..gate.range(5, 15)
    };
    let told = ledger.collect(vec![behind]).unwrap();
    assert!(
        matches!(&told[..], [Collected::Taken { records: 15, .. }]),
        "{told:?}"
    );
}

#[test]
fn records_that_are_collected_elsewhere_may_be_deleted_and_no_others() {
    let mut bench = Bench::new();
    bench.pace.roll_up = 5;
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=40).map(varied));
    eventually("rolled up", || bench.rolled_up() >= 38);
    let far = Utc(DAY.0 * 2);
    ledger.prune(far);
    ledger.keep(Vec::new()).unwrap();
    assert_eq!(bench.reader().first_kept_seq().unwrap(), 1);
    ledger.collected(23, collected_by(0)).unwrap();
    assert_eq!(bench.reader().outbox().unwrap().collected_seq, 23);
    let ahead = ledger.collected(41, collected_by(0)).unwrap_err();
    assert!(
        matches!(ahead, StoreError::Ahead { seq: 41, last: 40 }),
        "{ahead}"
    );
    ledger.prune(far);
    eventually("pruned", || bench.reader().first_kept_seq().unwrap() > 15);
    let first_kept = bench.reader().first_kept_seq().unwrap();
    assert!(first_kept <= 24, "{first_kept}");
    bench.reader().verify(None).unwrap();
    close(&ledger);
    let mut reader = RangeReader::open(&bench.path()).unwrap();
    let gone = reader.next(3, 10).unwrap_err();
    assert!(
        matches!(gone, ReadError::CursorTooOld { after: 3, .. }),
        "{gone}"
    );
    let range = reader.next(23, 100).unwrap().unwrap();
    assert_eq!(
        (range.first_seq, range.records(), range.billed_seq),
        (24, 17, 0)
    );
    // Who deletes more is found.
    bench
        .sql()
        .execute("UPDATE outbox SET most_seq = 3", [])
        .unwrap();
    let found = bench.reader().verify(None).unwrap_err().to_string();
    assert!(found.contains("collected elsewhere"), "{found}");
}

#[test]
fn of_a_collected_ledger_old_records_are_deleted_with_their_ranges_and_the_rest_verifies() {
    let mut gate = Gate::new(1);
    gate.record(60);
    let mut bench = Bench::new();
    bench.pace.roll_up = 5;
    let ledger = bench.open();
    for at in 0..6 {
        ledger.collect(vec![gate.range(at * 10, 10)]).unwrap();
    }
    let seal = ledger.seal("2026-11-24").unwrap();
    ledger
        .keep(settled("2026-10", 38, seal.head).into())
        .unwrap_or(());
    close(&ledger);
    // The settlement needs the head after its own record; this one is not looked at here.
    bench.sql().execute("DELETE FROM settlements", []).unwrap();
    bench
        .sql()
        .execute("DELETE FROM seals WHERE what LIKE 'month%'", [])
        .unwrap();
    bench
        .sql()
        .execute("INSERT INTO outbox VALUES (1, 38, 38, '', 0)", [])
        .unwrap();
    let mut store = bench.store();
    while store.prune(Utc(DAY.0 * 2)).unwrap() {}
    let first_kept = bench.reader().first_kept_seq().unwrap();
    assert!((31..=39).contains(&first_kept), "{first_kept}");
    let ranges: i64 = bench
        .sql()
        .query_row("SELECT count(*) FROM collected", [], |row| row.get(0))
        .unwrap();
    assert_eq!(ranges, 3);
    bench.reader().verify(None).unwrap();
    // A range of which nothing is left is a repeat still.
    assert_eq!(taken(&collect(&mut store, gate.range(0, 10))), 0);
    gate.record(5);
    send_all(&mut store, &bench, &gate);
    bench.reader().verify(None).unwrap();
}

#[test]
fn whoever_changes_what_a_ledger_says_of_its_sources_is_found_and_the_source_is_named() {
    let (mut one, mut two) = (Gate::new(1), Gate::new(1_000));
    one.record(20);
    two.record(20);
    let bench = Bench::new();
    let mut store = bench.store();
    for at in 0..4 {
        collect(&mut store, one.range(at * 5, 5));
        collect(&mut store, two.range(at * 5, 5));
    }
    while store.tail() > 0 {
        store.roll_up(9).unwrap();
    }
    store.checkpoint("TRUNCATE").unwrap();
    drop(store);
    bench.reader().verify(None).unwrap();
    let (id, other) = (one.id(), two.id());
    let changes = [
        (
            "UPDATE collected SET link = zeroblob(32) WHERE first_seq = 11",
            &*id,
        ),
        (
            "UPDATE collected SET link_before = zeroblob(32) WHERE first_seq = 11",
            &id,
        ),
        (
            "UPDATE collected SET source = 2 WHERE first_seq = 11",
            "does not go on",
        ),
        (
            "UPDATE collected SET source_first = source_first + 1, source_last = source_last + 1 WHERE first_seq = 31",
            &id,
        ),
        ("UPDATE collected SET version = 1 WHERE first_seq = 11", &id),
        (
            "UPDATE collected SET restore_count = 1 WHERE first_seq = 11",
            &id,
        ),
        (
            "UPDATE collected SET last_seq = 14 WHERE first_seq = 11",
            &id,
        ),
        ("DELETE FROM collected WHERE first_seq = 11", "raw 11"),
        ("DELETE FROM collected WHERE first_seq = 36", &other),
        (
            "DELETE FROM collected",
            "raw 1: it was collected from no ledger",
        ),
        ("UPDATE sources SET seq = 19 WHERE source = 1", &id),
        (
            "UPDATE sources SET link = zeroblob(32) WHERE source = 1",
            &id,
        ),
        (
            "UPDATE runs SET source_run = source_run + 1 WHERE source = 1",
            &id,
        ),
        (
            "UPDATE runs SET source = 2 WHERE source = 1",
            "its run is not one of",
        ),
    ];
    let path = bench.path();
    let whole = std::fs::read(&path).unwrap();
    for (change, named) in changes {
        let sql = bench.sql();
        sql.execute_batch(change).unwrap();
        drop(sql);
        let found = bench.reader().verify(None).unwrap_err().to_string();
        assert!(found.contains(named), "{change}: {found}");
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(bench.home.path().join(format!("ledger.db{end}")));
        }
        std::fs::write(&path, &whole).unwrap();
    }
    bench.reader().verify(None).unwrap();
}

/// The disk fails while ranges are collected, and then the power: what was said to be taken is
/// there, once, and the cursors are where the records end.
#[test]
fn no_failure_of_the_disk_loses_or_doubles_what_is_collected() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    for seed in 1..=16 {
        fastrand::seed(seed);
        collects_on_a_failing_disk(&disk, seed);
    }
}

fn collects_on_a_failing_disk(disk: &Disk, seed: u64) {
    let mut gates = [Gate::new(1), Gate::new(1_000)];
    for gate in &mut gates {
        gate.record(fastrand::usize(20..60));
        // Nothing of the gates is written while the disk fails.
        drop(gate.store.take());
    }
    let bench = Bench::new();
    let ledger = bench.open();
    let mut readers = gates.each_ref().map(Gate::reader);
    let mut told = [0, 0];
    let faults = [
        Word::FailWal,
        Word::FailDb,
        Word::FailWrite,
        Word::LoseAfter,
    ];
    for _ in 0..fastrand::usize(4..14) {
        disk.set(Word::Dice, fastrand::u32(1..));
        disk.set(Word::Evict, [0, 50, 100][fastrand::usize(0..3)]);
        disk.set(Word::WriteErrno, [disk::EIO, ENOSPC][fastrand::usize(0..2)]);
        for word in [Word::FailWal, Word::FailDb, Word::FailWrite] {
            disk.set(word, fastrand::u32(0..6).saturating_sub(3));
        }
        disk.set(Word::LoseAfter, fastrand::u32(0..40).saturating_sub(20));
        let ranges: Vec<Range> = (0..2)
            .filter_map(|at| readers[at].next(told[at], fastrand::usize(1..12)).unwrap())
            .collect();
        // An error says nothing: then the same ranges are collected again.
        if let Ok(collected) = ledger.collect(ranges) {
            for one in collected {
                let Collected::Taken { ledger_id, seq, .. } = one else {
                    panic!("seed {seed}: {one:?}");
                };
                let at = usize::from(gates[1].id() == ledger_id);
                told[at] = seq;
            }
        }
        for word in faults {
            disk.set(word, 0);
        }
        eventually("healthy", || ledger.healthy());
    }
    close(&ledger);
    let cut = disk.root().join(format!("cut-{seed}"));
    disk.power_cut(bench.home.path(), &cut, seed);
    for path in [bench.path(), cut.join("ledger.db")] {
        assert_consistent(&path);
        let reader = Reader::open(&path).unwrap();
        let sources = reader.sources().unwrap();
        let mut expected = Vec::new();
        for (gate, told) in gates.iter().zip(told) {
            let source = sources.iter().find(|it| it.ledger_id == gate.id());
            let seq = source.map_or(0, |source| source.seq);
            assert!(seq >= told, "seed {seed}: {seq} of {told}");
            expected.extend(gate.bench.all().into_iter().filter(|it| it.seq <= seq));
        }
        let found = reader.records(0, usize::MAX).unwrap();
        assert_eq!(
            union(found.into_iter()),
            union(expected.into_iter()),
            "seed {seed}"
        );
    }
}

/// A line of `/proc/self/status`.
fn resident_kb(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

/// Prints what a million records cost, in `make torture`.
#[test]
#[ignore = "it measures, and takes a minute"]
fn a_great_many_records_are_read_and_collected() {
    const RECORDS: u64 = 1_000_000;
    let mut gates = [Gate::new(1), Gate::new(10_000_000)];
    for gate in &mut gates {
        for _ in 0..RECORDS / 2 / 5_000 {
            gate.record(5_000);
            gate.roll_up(5_000);
        }
    }
    let clock = crate::model::Clock::default();
    let mut messages = Vec::new();
    let started = clock.mono();
    for gate in &gates {
        let (mut reader, mut after) = (gate.reader(), 0);
        while let Some(range) = reader.next(after, 500).unwrap() {
            after = range.last_seq;
            messages.push(range.encode());
        }
    }
    let read = clock.mono().since(started);
    let bytes: usize = messages.iter().map(Vec::len).sum();
    println!(
        "read and encoded: {read:?}, {} ns and {} bytes a record",
        read.as_nanos() / u128::from(RECORDS),
        bytes as u64 / RECORDS
    );
    let mut bench = Bench::new();
    bench.pace = crate::ledger::pace::Pace::REAL;
    let ledger = bench.open();
    // Here all messages are in memory, which is none of the collector's.
    let (before, mut most) = (resident_kb("VmRSS:"), Vec::new());
    let started = clock.mono();
    for quarter in messages.chunks(messages.len().div_ceil(4)) {
        // So that the most is that of this quarter.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        for group in quarter.chunks(16) {
            let ranges = group.iter().map(|bytes| Range::decode(bytes).unwrap());
            ledger.collect(ranges.collect()).unwrap();
        }
        most.push(resident_kb("VmHWM:").saturating_sub(before));
    }
    close(&ledger);
    println!(
        "collected, linked and rolled up: {:?}; the most memory that it took in each quarter, in KiB: {most:?}",
        clock.mono().since(started)
    );
    assert!(
        most[3] <= most[0] + (8 << 10),
        "memory grows with the records: {most:?}"
    );
    assert_eq!(bench.reader().last_seq().unwrap(), RECORDS);
    let started = clock.mono();
    bench.reader().verify(None).unwrap();
    println!("verified: {:?}", clock.mono().since(started));
}

#[test]
fn what_a_failed_call_left_is_collected_as_it_was_recorded() {
    let mut gate = Gate::new(1);
    let failed = Record {
        id: RequestId(uuid::Uuid::from_u128(77)),
        ..sent(77).into_gate_failed()
    };
    let run = gate.run;
    gate.store().commit(run, &[failed]).unwrap();
    let collector = Bench::new();
    collect(&mut collector.store(), gate.range(0, 1));
    let stored = &collector.all()[0];
    assert_eq!(
        (stored.outcome, stored.reason),
        (Outcome::GateFailed, Reason::GateFailed)
    );
    assert_eq!(stored.status, None);
}
