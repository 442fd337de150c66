//! Any span, any range of seqs: against a count of all records, one by one.

use super::*;
use crate::ledger::handle::tests::{ALL, Bench, DAY, HOUR_US, settled, varied};
use crate::ledger::store::Store;
use crate::ledger::{HourlyLine, ReadError, Record, RecordsOf};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Kind = [String; 7];

fn kind_of(record: &Record) -> Kind {
    [
        record.account.to_string(),
        record.group.to_string(),
        record.action.to_string(),
        record.mode.to_string(),
        record.outcome.to_string(),
        record.reason.to_string(),
        record.billable().to_string(),
    ]
}

/// Calls, first and last seq by kind, in the order of usage.
fn by_hand(
    records: &[Record],
    (from, until): (Utc, Utc),
    account: Option<&AccountId>,
    seqs: &RangeInclusive<u64>,
) -> Vec<(Kind, (u64, u64, u64))> {
    let mut counts: BTreeMap<Kind, (u64, u64, u64)> = BTreeMap::new();
    for (seq, record) in (1..).zip(records) {
        let asked = from <= record.admitted_at
            && record.admitted_at < until
            && account.is_none_or(|account| *account == record.account)
            && seqs.contains(&seq);
        if asked {
            let count = counts.entry(kind_of(record)).or_insert((0, seq, seq));
            *count = (count.0 + 1, count.1, seq);
        }
    }
    counts.into_iter().collect()
}

fn told(lines: Vec<UsageLine>) -> Vec<(Kind, (u64, u64, u64))> {
    let line = |line: UsageLine| {
        let kind = [
            line.account.to_string(),
            line.group.to_string(),
            line.action.to_string(),
            line.mode.to_string(),
            line.outcome.to_string(),
            line.reason.to_string(),
            line.billable.to_string(),
        ];
        (kind, (line.calls, line.first_seq, line.last_seq))
    };
    lines.into_iter().map(line).collect()
}

/// So many records, rolled up in these steps and no further, and pruned as far as `keep_from`
/// allows.
fn ledger(bench: &Bench, count: u128, steps: &[i64], keep_from: i64) -> (Store, Vec<Record>) {
    let records: Vec<Record> = (0..count).map(varied).collect();
    let mut store = bench.store();
    let run = store.begin_run("", DAY).unwrap();
    for batch in records.chunks(50) {
        store.commit(run, batch).unwrap();
    }
    store.keep(&settled("2026-10", 1_000, [0; 32])).unwrap();
    for (at, step) in steps.iter().enumerate() {
        if store.tail() > 0 {
            store.roll_up(*step).unwrap();
        }
        // As a seal does: an hour has several rows then.
        if at % 2 == 1 {
            let freeze = "UPDATE bounds SET frozen = rolled_up";
            bench.sql().execute(freeze, []).unwrap();
        }
    }
    while store.prune(Utc(DAY.0 + keep_from)).unwrap() && store.tail() == 0 {}
    (store, records)
}

/// On the hour, or anywhere.
fn instant() -> impl Strategy<Value = i64> {
    prop_oneof![
        (-1_i64..17).prop_map(|hour| hour * HOUR_US),
        -HOUR_US..17 * HOUR_US
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn usage_of_any_span_and_any_seqs_is_what_a_count_of_all_records_gives(
        count in 0_u128..260,
        steps in prop::collection::vec(1_i64..60, 0..8),
        keep_from in prop_oneof![Just(i64::MIN / 4), 0..16 * HOUR_US],
        asked in prop::collection::vec(
            (instant(), instant(), prop::option::of(0_u8..8), 0_u64..280, prop_oneof![0_u64..280, Just(u64::MAX)]), 30),
    ) {
        let bench = Bench::new();
        let (_store, records) = ledger(&bench, count, &steps, keep_from);
        let reader = bench.reader();
        let first_kept = reader.first_kept_seq().unwrap();
        for (from, until, account, first, last) in asked {
            let span = (Utc(DAY.0 + from), Utc(DAY.0 + until));
            let account = account.and_then(|n| AccountId::new(&format!("a{n}")));
            for seqs in [ALL, first..=last] {
                let counted = match reader.usage(span.0, span.1, account.as_ref(), seqs.clone()) {
                    // Only where records are gone, and never of whole hours.
                    Err(ReadError::Pruned { .. }) => {
                        prop_assert!(first_kept > 1);
                        let on_the_hour = from % HOUR_US == 0 && until % HOUR_US == 0;
                        prop_assert!(!(on_the_hour && seqs == ALL));
                        continue;
                    }
                    counted => counted.unwrap(),
                };
                let expected = by_hand(&records, span, account.as_ref(), &seqs);
                if account.is_none() {
                    let mut called: Vec<String> = expected.iter().map(|(kind, _)| kind[0].clone()).collect();
                    called.dedup();
                    let told = reader.called(span.0, span.1, seqs.clone()).unwrap();
                    prop_assert_eq!(told.iter().map(AccountId::to_string).collect::<Vec<_>>(), called);
                }
                prop_assert_eq!(told(counted), expected, "{:?} {:?} {:?}", span, account, seqs);
            }
        }
    }

    /// Also of hours that have several rows, a tail, or pruned records.
    #[test]
    fn usage_hour_by_hour_is_what_a_count_of_the_records_of_each_hour_gives(
        count in 0_u128..260,
        steps in prop::collection::vec(1_i64..60, 0..8),
        keep_from in prop_oneof![Just(i64::MIN / 4), 0..16 * HOUR_US],
        (from, until) in (-1_i64..17, -1_i64..17),
    ) {
        let bench = Bench::new();
        let (_store, records) = ledger(&bench, count, &steps, keep_from);
        let reader = bench.reader();
        let hour = |hour: i64| Utc(DAY.0 + hour * HOUR_US);
        for account in (0..8).filter_map(|n| AccountId::new(&format!("a{n}"))) {
            let by_hour = reader.hourly_usage(hour(from), hour(until), &account).unwrap();
            for at in from..until {
                let of_hour = by_hour.iter().filter(|line| line.hour == hour(at));
                let lines = of_hour.map(|line| line.line.clone()).collect();
                let expected = by_hand(&records, (hour(at), hour(at + 1)), Some(&account), &ALL);
                prop_assert_eq!(told(lines), expected, "{}", at);
            }
            let is_asked = |line: &HourlyLine| hour(from) <= line.hour && line.hour < hour(until);
            prop_assert!(by_hour.iter().all(is_asked));
            prop_assert!(by_hour.is_sorted_by_key(|line| line.hour));
        }
    }

    /// Whatever the settlements saw: a record is on the statement of its month, or on a later one
    /// as a late call.
    #[test]
    fn statements_that_part_the_records_by_what_each_settlement_saw_have_each_record_once(
        count in 0_u128..260,
        steps in prop::collection::vec(1_i64..60, 0..8),
        bounds in prop::collection::vec(instant(), 1..4),
        mut through in prop::collection::vec(0_u64..280, 4),
    ) {
        let bench = Bench::new();
        let (_store, records) = ledger(&bench, count, &steps, i64::MIN / 4);
        let reader = bench.reader();
        let mut bounds: Vec<Utc> = bounds.into_iter().map(|at| Utc(DAY.0 + at)).collect();
        bounds.sort();
        let (begin, end) = (Utc(DAY.0 - 10 * HOUR_US), Utc(DAY.0 + 40 * HOUR_US));
        bounds.insert(0, begin);
        bounds.push(end);
        through.sort_unstable();
        let mut total = 0;
        let calls = |lines: Vec<UsageLine>| lines.iter().map(|line| line.calls).sum::<u64>();
        let months = bounds.len() - 1;
        for month in 0..months {
            let fixed = if month + 1 == months { u64::MAX } else { through[month] };
            total += calls(reader.usage(bounds[month], bounds[month + 1], None, 0..=fixed).unwrap());
            if month > 0 {
                let late = through[month - 1] + 1..=fixed;
                total += calls(reader.usage(begin, bounds[month], None, late).unwrap());
            }
        }
        prop_assert_eq!(total, records.len() as u64);
    }

    #[test]
    fn the_records_of_an_account_come_in_pages_and_none_is_left_out(
        count in 0_u128..260,
        steps in prop::collection::vec(1_i64..60, 0..8),
        from in instant(),
        until in instant(),
        limit in 1_usize..40,
        rows in 1_u64..100,
    ) {
        let bench = Bench::new();
        let (_store, records) = ledger(&bench, count, &steps, i64::MIN / 4);
        let reader = bench.reader();
        let (from, until) = (Utc(DAY.0 + from), Utc(DAY.0 + until));
        let account = AccountId::new("a3").unwrap();
        let asked = RecordsOf { account: &account, from, until, through: u64::MAX, records: limit, rows };
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let page = reader.records_of(&asked, after).unwrap();
            prop_assert!(page.records.len() <= limit);
            // A page looks at no more rows than it may, and comes further with each.
            prop_assert!(page.records.iter().all(|r| r.seq > after && r.seq <= page.next.seq));
            prop_assert!(page.is_last || page.next.seq > after);
            after = page.next.seq;
            found.extend(page.records.into_iter().map(|record| record.seq));
            if page.is_last { break }
        }
        let expected: Vec<u64> = (1..)
            .zip(&records)
            .filter(|(_, r)| r.account == account && from <= r.admitted_at && r.admitted_at < until)
            .map(|(seq, _)| seq)
            .collect();
        prop_assert_eq!(&found, &expected);
        // Whatever a cursor beyond the account's newest record names, the answer is the same and
        // tells of no other account.
        let is_own = |seq: u64| seq == 0 || records[seq as usize - 1].account == account;
        let beyond = [count as u64, 7_000, u64::MAX].map(|after| {
            let page = reader.records_of(&asked, after).unwrap();
            (page.records.len(), page.is_last, page.next)
        });
        prop_assert!(beyond.iter().all(|told| *told == beyond[0]), "{beyond:?}");
        prop_assert!(beyond[0].0 == 0 && beyond[0].1 && is_own(beyond[0].2.seq), "{beyond:?}");
    }
}

#[test]
fn what_would_have_to_be_counted_from_deleted_records_is_an_error_and_not_less() {
    let bench = Bench::new();
    let mut store = bench.store();
    let run = store.begin_run("", DAY).unwrap();
    // Two in each hour, in order of time.
    let records: Vec<Record> = (0..20)
        .map(|id| Record {
            admitted_at: Utc(DAY.0 + id * HOUR_US / 2),
            ..crate::ledger::handle::tests::record(id.unsigned_abs().into())
        })
        .collect();
    store.commit(run, &records).unwrap();
    for _ in 0..5 {
        store.roll_up(4).unwrap();
    }
    store.keep(&settled("2026-10", 20, [0; 32])).unwrap();
    while store.prune(Utc(DAY.0 + 4 * HOUR_US)).unwrap() {}
    let reader = bench.reader();
    assert_eq!(reader.first_kept_seq().unwrap(), 9);
    let at = |half_hours: i64| Utc(DAY.0 + half_hours * HOUR_US / 2);
    let usage = |from, until, seqs| reader.usage(at(from), at(until), None, seqs);
    let calls = |from, until, seqs| usage(from, until, seqs).unwrap()[0].calls;
    assert_eq!(calls(0, 20, ALL), 20);
    assert_eq!(calls(0, 20, 0..=8), 8);
    assert_eq!(calls(0, 20, 0..=11), 11, "the split hour is kept");
    assert_eq!(calls(8, 11, ALL), 3);
    for gone in [usage(0, 7, ALL), usage(1, 20, ALL), usage(0, 20, 0..=7)] {
        assert!(
            matches!(gone, Err(ReadError::Pruned { first_kept: 9 })),
            "{gone:?}"
        );
    }
    let account = AccountId::new("1250000001").unwrap();
    let records_of = |from, after: u64| {
        let asked = RecordsOf {
            account: &account,
            from: at(from),
            until: at(20),
            through: u64::MAX,
            records: 100,
            rows: 100,
        };
        reader.records_of(&asked, after).map(|page| page.records)
    };
    assert!(matches!(
        records_of(0, 0),
        Err(ReadError::Pruned { first_kept: 9 })
    ));
    assert!(matches!(records_of(0, 7), Err(ReadError::Pruned { .. })));
    assert_eq!(records_of(0, 8).unwrap().len(), 12);
    assert_eq!(records_of(8, 0).unwrap().len(), 12);
    assert!(matches!(
        reader.accounts_since(7, 20),
        Err(ReadError::Pruned { .. })
    ));
    assert_eq!(reader.accounts_since(8, 20).unwrap(), [account]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_hours_that_have_newer_records_are_found_whether_they_are_rolled_up_or_not(
        count in 1..80_u128,
        steps in prop::collection::vec(1..60_i64, 0..3),
        after in 0..90_u64,
        until in 0..40_i64,
    ) {
        let bench = Bench::new();
        let (store, records) = ledger(&bench, count, &steps, i64::MIN / 4);
        drop(store);
        let until = Utc(DAY.0 + until * HOUR_US + 7);
        let mut expected: Vec<i64> = (1..)
            .zip(&records)
            .filter(|(seq, record)| *seq > after && record.admitted_at.hour() <= until.hour())
            .map(|(_, record)| record.admitted_at.hour())
            .collect();
        expected.sort_unstable();
        expected.dedup();
        let reader = bench.reader();
        let mut found = Vec::new();
        let mut end = i64::MIN;
        for (from, to) in reader.spans_after(after, until).unwrap() {
            prop_assert!(from.0 > end && from < to && to <= until, "apart, in order");
            end = to.0;
            found.extend(from.hour()..=Utc(to.0 - 1).hour());
        }
        prop_assert_eq!(found, expected);
        let newest = records.iter().map(|record| record.admitted_at.hour()).max();
        let told = reader.last_admitted().unwrap().map(Utc::hour);
        prop_assert_eq!(told, newest);
    }
}

#[test]
fn the_accounts_that_called_since_are_those_with_newer_records() {
    let bench = Bench::new();
    let (store, records) = ledger(&bench, 60, &[20], i64::MIN / 4);
    drop(store);
    let reader = bench.reader();
    for (after, until) in [(0, 60), (17, 23), (40, 41), (60, 60), (55, 1_000)] {
        let mut expected: Vec<String> = (1..)
            .zip(&records)
            .filter(|(seq, _)| after < *seq && *seq <= until)
            .map(|(_, record)| record.account.to_string())
            .collect();
        expected.sort();
        expected.dedup();
        let told = reader.accounts_since(after, until).unwrap();
        let told: Vec<String> = told.iter().map(AccountId::to_string).collect();
        assert_eq!(told, expected, "{after}..={until}");
    }
    assert_eq!(reader.first_admitted(Utc(i64::MIN)).unwrap(), {
        let oldest = records.iter().map(|record| record.admitted_at.hour()).min();
        oldest.map(|hour| Utc(hour * HOUR_US))
    });
    let empty = Bench::new();
    drop(empty.store());
    assert_eq!(empty.reader().first_admitted(Utc(i64::MIN)).unwrap(), None);
}
