//! Bytes that others have sent.

use super::*;
use crate::ledger::collecting::tests::Gate;

fn range() -> Range {
    let mut gate = Gate::new(1);
    gate.record(25);
    gate.range(0, 25)
}

#[test]
fn a_range_is_read_as_it_was_written() {
    let range = range();
    assert_eq!(range.records(), 25);
    assert_eq!(Range::decode(&range.encode()), Ok(range));
}

#[test]
fn no_bytes_make_the_reader_panic_or_take_in_more_than_they_hold() {
    let whole = range().encode();
    let mut dice = fastrand::Rng::with_seed(7);
    let mut refused = 0;
    for round in 0..60_000 {
        let mut bytes = match round % 3 {
            // Anything at all, behind the right first byte.
            0 => {
                let mut bytes: Vec<u8> = (0..dice.usize(0..300)).map(|_| dice.u8(..)).collect();
                bytes.insert(0, FORMAT);
                bytes
            }
            // Some bytes changed, or bits of them.
            1 => {
                let mut bytes = whole.clone();
                for _ in 0..dice.usize(1..6) {
                    let at = dice.usize(0..bytes.len());
                    bytes[at] = match dice.bool() {
                        true => [0, 1, 0x7f, 0x80, 0xff][dice.usize(0..5)],
                        false => bytes[at] ^ 1 << dice.u8(0..8),
                    };
                }
                bytes
            }
            // Cut off, or with something of itself put in.
            _ => {
                let mut bytes = whole.clone();
                let (one, two) = (dice.usize(0..bytes.len()), dice.usize(0..bytes.len()));
                let part = bytes[one.min(two)..one.max(two)].to_vec();
                bytes.splice(one..one, part);
                bytes.truncate(dice.usize(0..=bytes.len()));
                bytes
            }
        };
        if round % 7 == 0 {
            bytes[0] = FORMAT;
        }
        match Range::decode(&bytes) {
            Ok(range) => {
                assert!(range.rows.len() <= bytes.len());
                let numbers = range.last_seq - range.first_seq + 1;
                assert_eq!(numbers, range.rows.len() as u64);
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(refused > 30_000, "{refused}");
}

#[test]
fn a_format_of_another_version_is_refused_by_its_number() {
    let mut bytes = range().encode();
    bytes[0] = 9;
    assert_eq!(Range::decode(&bytes), Err(RangeError::Format(9)));
    let error = RangeError::Format(9).to_string();
    assert!(error.contains("format 9") && error.contains("reads format 1"));
    assert!(matches!(Range::decode(&[]), Err(RangeError::Malformed(_))));
    let long = vec![FORMAT; MOST_BYTES + 1];
    assert_eq!(
        Range::decode(&long),
        Err(RangeError::TooLong(MOST_BYTES + 1))
    );
}

#[test]
fn what_no_ledger_gives_out_is_refused() {
    type Change = fn(&mut Range);
    let changes: [(&str, Change); 14] = [
        ("no id", |range| range.ledger_id = "gate-1".into()),
        ("a longer run of seqs", |range| range.last_seq += 1),
        ("seqs that end before they begin", |range| {
            range.last_seq = 0
        }),
        ("seq 0", |range| (range.first_seq, range.last_seq) = (0, 24)),
        ("all seqs", |range| {
            (range.first_seq, range.last_seq) = (0, u64::MAX)
        }),
        ("seqs beyond all", |range| {
            (range.first_seq, range.last_seq) = (u64::MAX - 24, u64::MAX);
        }),
        ("a version to come", |range| range.link_version = 3),
        ("no version", |range| range.link_version = 0),
        ("another gap", |range| {
            range.restored = Some(Gap {
                last_seq: 1,
                next_seq: 9,
                restored_at: 0,
            });
        }),
        ("no such series", |range| range.rows[2].series = 99),
        ("no such run", |range| range.rows[2].run = 99),
        ("before all time", |range| range.rows[2].admitted_at = -1),
        ("after all time", |range| {
            range.rows[2].admitted_at = i64::MAX
        }),
        ("a call that ends before it begins", |range| {
            range.rows[2].duration_us = -1
        }),
    ];
    for (what, change) in changes {
        let mut range = range();
        change(&mut range);
        let read = Range::decode(&range.encode());
        assert!(
            matches!(read, Err(RangeError::Malformed(_))),
            "{what}: {read:?}"
        );
    }
    let mut longer = range().encode();
    longer.push(0);
    assert!(Range::decode(&longer).is_err());
}
