//! What a ledger says of its own calls.

use crate::ledger::handle::tests::{Bench, DAY, close, eventually, record, varied, wait};
use crate::ledger::restore::restore;
use crate::ledger::{Record, backup};
use crate::model::Utc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::thread;

/// An instant that nobody else was given.
fn tick(clock: &AtomicI64) -> Utc {
    Utc(DAY.0 + clock.fetch_add(1, SeqCst))
}

#[test]
fn no_call_that_was_admitted_before_a_watermark_is_recorded_behind_it() {
    let bench = Bench::new();
    let ledger = bench.open();
    let (clock, stopped) = (AtomicI64::new(0), AtomicBool::new(false));
    let marks = thread::scope(|scope| {
        for worker in 0..4_u128 {
            let (ledger, clock, stopped) = (&ledger, &clock, &stopped);
            scope.spawn(move || {
                let mut dice = fastrand::Rng::with_seed(worker as u64);
                let mut held = Vec::new();
                for call in 0.. {
                    if stopped.load(SeqCst) {
                        break;
                    }
                    // The gate reads the time before it takes the slot.
                    let admitted_at = tick(clock);
                    if dice.u8(0..4) == 0 {
                        thread::yield_now();
                    }
                    let slot = ledger.reserve().unwrap();
                    // Calls last, overlap, and leave at times no record.
                    held.push((slot, admitted_at, call));
                    if dice.u8(0..3) == 0 {
                        thread::yield_now();
                    }
                    while held.len() > dice.usize(0..6) {
                        let (slot, admitted_at, call) = held.swap_remove(dice.usize(0..held.len()));
                        if dice.u8(0..8) == 0 {
                            continue;
                        }
                        let made = slot.commit(Record {
                            admitted_at,
                            ..varied(worker << 64 | call)
                        });
                        if dice.u8(0..4) == 0 {
                            wait(made).unwrap();
                        }
                    }
                }
            });
        }
        let mut marks = Vec::new();
        eventually("watermarks", || {
            marks.extend(ledger.watermark(|| tick(&clock)));
            marks.dedup();
            marks.len() > 60
        });
        stopped.store(true, SeqCst);
        marks
    });
    close(&ledger);
    let mut records: Vec<_> = bench
        .all()
        .into_iter()
        .map(|record| (record.admitted_at, record.seq))
        .collect();
    records.sort_unstable();
    let mut newest = 0;
    let newest_before: Vec<(Utc, u64)> = records
        .into_iter()
        .map(|(at, seq)| {
            newest = newest.max(seq);
            (at, newest)
        })
        .collect();
    for (at, seq) in &marks {
        let before = newest_before.partition_point(|(admitted_at, _)| admitted_at < at);
        let needed = before
            .checked_sub(1)
            .map_or(0, |last| newest_before[last].1);
        assert!(needed <= *seq, "{at:?}: record {needed} came after {seq}");
    }
    assert!(marks.is_sorted());
}

#[test]
fn a_watermark_waits_for_the_calls_that_are_in_flight_and_for_no_later_ones() {
    let bench = Bench::new();
    let ledger = bench.open();
    let at = |second: i64| Utc(DAY.0 + second);
    assert_eq!(ledger.watermark(|| at(1)), Some((at(1), 0)));
    let early = ledger.reserve().unwrap();
    let dropped = ledger.reserve().unwrap();
    // That of the second before stands until these are back.
    assert_eq!(ledger.watermark(|| at(2)), Some((at(1), 0)));
    let late = ledger.reserve().unwrap();
    wait(early.commit(record(1))).unwrap();
    assert_eq!(ledger.watermark(|| at(3)), Some((at(1), 0)));
    drop(dropped);
    assert_eq!(ledger.watermark(|| at(4)), Some((at(2), 1)));
    assert_eq!(ledger.watermark(|| at(5)), Some((at(2), 1)));
    wait(late.commit(record(2))).unwrap();
    assert_eq!(ledger.watermark(|| at(6)), Some((at(6), 2)));
    // At rest it is always that of now.
    assert_eq!(ledger.watermark(|| at(7)), Some((at(7), 2)));
    // When the clock was set back, what was found holds no more: calls are admitted before it.
    assert_eq!(ledger.watermark(|| at(3)), None);
    assert_eq!(ledger.watermark(|| at(4)), Some((at(4), 2)));
}

#[test]
fn a_watermark_waits_for_records_that_the_disk_does_not_take() {
    use crate::ledger::handle::tests::disk::{self, Disk};
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let _: &Disk = &disk;
    let bench = Bench::new();
    let ledger = bench.open();
    let at = |second: i64| Utc(DAY.0 + second);
    let slot = ledger.reserve().unwrap();
    assert_eq!(ledger.watermark(|| at(1)), None);
    disk.refuse_writes(disk::ENOSPC);
    assert!(wait(slot.commit(record(1))).is_err());
    for second in 2..20 {
        assert_eq!(ledger.watermark(|| at(second)), None);
    }
    disk.refuse_writes(0);
    eventually("healthy", || ledger.healthy());
    assert_eq!(ledger.watermark(|| at(20)), Some((at(20), 1)));
}

#[test]
fn after_a_restore_a_watermark_names_the_newest_record_and_no_seq_that_was_left_out() {
    let bench = Bench::new();
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=3).map(record));
    close(&ledger);
    drop(ledger);
    let copy = bench.home.path().join("copy.db");
    backup(&bench.path(), &copy).unwrap();
    restore(&copy, &bench.path(), DAY).unwrap();
    let ledger = bench.open();
    assert_eq!(ledger.watermark(|| DAY), Some((DAY, 3)));
    bench.commit_all(&ledger, [record(9)].into_iter());
    let last_seq = bench.reader().last_seq().unwrap();
    assert!(last_seq > 1_000_000);
    let later = Utc(DAY.0 + 1);
    assert_eq!(ledger.watermark(|| later), Some((later, last_seq)));
}

#[test]
fn a_call_is_dated_at_the_turn_after_which_it_took_its_slot_unless_the_clock_was_set_back() {
    let bench = Bench::new();
    let ledger = bench.open();
    let at = |micros: i64| Utc(DAY.0 + micros);
    let dated = |id: u128, admitted_at: Utc| Record {
        admitted_at,
        ..record(id)
    };
    wait(ledger.reserve().unwrap().commit(dated(1, at(-5)))).unwrap();
    ledger.watermark(|| at(0));
    let early = ledger.reserve().unwrap();
    wait(early.commit(dated(2, at(-5)))).unwrap();
    wait(ledger.reserve().unwrap().commit(dated(3, at(7)))).unwrap();
    wait(ledger.reserve().unwrap().commit(dated(4, at(-11_000_000)))).unwrap();
    let found: Vec<i64> = bench
        .all()
        .iter()
        .map(|record| record.admitted_at.0 - DAY.0)
        .collect();
    assert_eq!(found, [-5, 0, 7, -11_000_000]);
}
