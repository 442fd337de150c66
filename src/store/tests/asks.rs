//! The waiting calls of a limiter: when a question is asked, and what each call gets.

use crate::model::{Mono, StoreStart, Utc};
use crate::store::{Asks, Grant, Heard, NextAsk, NoAnswer, Silence, Silent, Told};
use std::time::Duration;

const MS: u64 = 1_000_000;
const MAX_DELAY: Duration = Duration::from_millis(50);
const NO_ANSWER: Heard = Heard::AskAgain(NoAnswer::Unanswered);

fn ms(at: u64) -> Mono {
    Mono(at * MS)
}

fn asks(calls: u32, quota: u32) -> Asks<u32> {
    let mut asks = Asks::new(MAX_DELAY);
    for call in 0..calls {
        asks.arrive(ms(1_000), quota, call).unwrap();
    }
    asks
}

fn grant(at: u64) -> Grant {
    let (epoch, micros) = (7, i64::try_from(at * 1_000).unwrap());
    let start = StoreStart {
        epoch,
        at: Utc(micros),
    };
    Grant {
        start,
        admitted_at: start.at,
        release: ms(at),
    }
}

fn grants(starts: &[u64]) -> Heard {
    let grants = starts.iter().map(|at| grant(*at)).collect();
    Heard::Grants {
        grants,
        retry_after: None,
        not_before: None,
        left: 5,
    }
}

/// The starts, and a refusal of the next: a call that comes at `not_before` or later may ask.
fn refusal(starts: &[u64], not_before: u64) -> Heard {
    let grants = starts.iter().map(|at| grant(*at)).collect();
    let retry_after = Some(Duration::from_millis(700));
    Heard::Grants {
        grants,
        retry_after,
        not_before: Some(ms(not_before)),
        left: 0,
    }
}

const THROTTLED: Told = Told::Throttled(Duration::from_millis(700));

fn asked(asks: &mut Asks<u32>, at: u64) -> Option<u16> {
    match asks.next(ms(at)) {
        (NextAsk::Ask { n, .. }, _) => Some(n),
        _ => None,
    }
}

#[test]
fn one_question_is_in_flight_and_those_who_come_meanwhile_join_the_next_one() {
    let mut asks = asks(1, 20);
    assert_eq!(asked(&mut asks, 1_000), Some(1));
    for call in 1..4 {
        asks.arrive(ms(1_001), 20, call).unwrap();
        assert_eq!(asks.next(ms(1_001)), (NextAsk::Idle, vec![]));
    }
    let told = asks.answered(ms(1_002), grants(&[1_002]));
    assert_eq!(told, [(0, Told::Start(grant(1_002), 5))]);
    assert_eq!(asked(&mut asks, 1_002), Some(3));
    let told = asks.answered(ms(1_003), grants(&[1_003, 1_004, 1_005]));
    assert_eq!(
        told.iter().map(|(call, _)| *call).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(asks.next(ms(1_003)), (NextAsk::Idle, vec![]));
}

#[test]
fn a_question_carries_64_calls_at_most_and_the_others_follow_at_once() {
    let mut asks = asks(200, 20);
    assert_eq!(asked(&mut asks, 1_000), Some(64));
    asks.answered(ms(1_001), grants(&[1_001; 64]));
    assert_eq!(asked(&mut asks, 1_001), Some(64));
}

#[test]
fn the_first_calls_start_and_all_others_are_throttled_when_the_next_start_is_too_far() {
    let mut asks = asks(70, 20);
    assert_eq!(asked(&mut asks, 1_000), Some(64));
    let told = asks.answered(ms(1_001), refusal(&[1_001, 1_002], 1_650));
    assert_eq!(
        told.len(),
        70,
        "those that were not asked for are over the cap too"
    );
    assert!(matches!(told[1], (1, Told::Start(..))));
    assert!(told[2..].iter().all(|(_, told)| *told == THROTTLED));
}

#[test]
fn calls_are_throttled_without_a_question_until_one_could_succeed() {
    let mut asks = asks(1, 20);
    asked(&mut asks, 1_000);
    asks.answered(ms(1_001), refusal(&[], 1_650));
    // The start is at 1.7 s; it may be waited for from 1.65 s on.
    let told = asks.arrive(ms(1_600), 20, 1).unwrap_err();
    assert_eq!(told, (1, Told::Throttled(Duration::from_millis(100))));
    assert!(asks.arrive(ms(1_650), 20, 2).is_ok());
}

#[test]
fn another_quota_is_asked_for_at_once_and_an_answer_under_the_one_before_does_not_count() {
    let mut asks = asks(1, 20);
    asked(&mut asks, 1_000);
    asks.answered(ms(1_001), refusal(&[], 1_650));
    asks.arrive(ms(1_002), 30, 1).unwrap();
    assert_eq!(asks.next(ms(1_002)).0, NextAsk::Ask { n: 1, quota: 30 });

    asks.arrive(ms(1_002), 40, 2).unwrap();
    asks.arrive(ms(1_002), 40, 3).unwrap();
    let told = asks.answered(ms(1_003), refusal(&[], 1_650));
    assert_eq!(
        told,
        [(1, THROTTLED)],
        "under the quota when it was asked for"
    );
    assert_eq!(asks.next(ms(1_003)).0, NextAsk::Ask { n: 2, quota: 40 });
}

#[test]
fn what_was_refused_in_one_epoch_is_asked_for_again_in_the_next_one() {
    let mut asks = asks(1, 20);
    asks.in_epoch(7);
    asked(&mut asks, 1_000);
    asks.answered(ms(1_001), refusal(&[], 1_650));
    asks.in_epoch(7);
    assert!(asks.arrive(ms(1_100), 20, 1).is_err());
    asks.in_epoch(8);
    assert!(asks.arrive(ms(1_100), 20, 1).is_ok());
}

#[test]
fn a_quota_of_0_is_asked_for_once() {
    let mut asks = asks(1, 0);
    asked(&mut asks, 1_000);
    let never = Heard::Grants {
        grants: vec![],
        retry_after: Some(Duration::MAX),
        not_before: Some(Mono(u64::MAX)),
        left: 0,
    };
    assert_eq!(asks.answered(ms(1_001), never).len(), 1);
    assert!(asks.arrive(ms(900_000), 0, 1).is_err());
    assert!(asks.arrive(ms(900_000), 5, 1).is_ok());
}

#[test]
fn questions_of_which_nothing_is_granted_come_5_10_20_and_25_ms_apart() {
    let mut asks = asks(1, 20);
    let mut at = 1_000;
    for pause in [5, 10, 20, 25, 25] {
        assert_eq!(asked(&mut asks, at), Some(1));
        // Another replica has taken the start that could be waited for.
        asks.answered(ms(at), refusal(&[], at));
        asks.arrive(ms(at), 20, 1).unwrap();
        assert_eq!(asks.next(ms(at)).0, NextAsk::Wait(ms(at + pause)));
        at += pause;
    }
    assert_eq!(asked(&mut asks, at), Some(1));
    asks.answered(ms(at), grants(&[at]));
    asks.arrive(ms(at), 20, 2).unwrap();
    assert_eq!(asked(&mut asks, at), Some(1), "a start ends the calm");
}

#[test]
fn a_void_answer_is_asked_again_after_0_5_10_and_20_ms_and_then_the_call_is_unavailable() {
    let mut asks = asks(1, 20);
    let mut at = 1_000;
    for pause in [0, 5, 10, 20] {
        assert_eq!(asked(&mut asks, at), Some(1));
        assert_eq!(asks.answered(ms(at), NO_ANSWER), []);
        if pause > 0 {
            assert_eq!(asks.next(ms(at)).0, NextAsk::Wait(ms(at + pause)));
        }
        at += pause;
    }
    assert_eq!(asked(&mut asks, at), Some(1));
    asks.answered(ms(at), NO_ANSWER);
    let (next, gone) = asks.next(ms(at));
    assert_eq!((next, gone), (NextAsk::Wait(Mono(1_050 * MS + 1)), vec![]));
    let (next, gone) = asks.next(Mono(1_050 * MS + 1));
    assert_eq!((next, gone), (NextAsk::Idle, vec![(0, Told::Unavailable)]));
}

#[test]
fn a_call_whose_time_ends_in_a_calm_is_throttled_and_not_unavailable() {
    let mut asks = asks(2, 20);
    asked(&mut asks, 1_000);
    asks.answered(ms(1_001), refusal(&[], 1_000));
    asks.arrive(ms(1_001), 20, 2).unwrap();
    let (_, gone) = asks.next(ms(1_052));
    assert_eq!(gone, [(2, THROTTLED)]);
}

#[test]
fn no_more_calls_wait_than_256_or_the_quota() {
    for (quota, bound) in [(20, 256), (1_000, 1_000)] {
        let mut asks = asks(bound, quota);
        let told = asks.arrive(ms(1_000), quota, 0).unwrap_err();
        assert_eq!(told, (0, Told::Unavailable));
        asked(&mut asks, 1_000);
        asks.answered(ms(1_001), grants(&[1_001]));
        assert!(asks.arrive(ms(1_001), quota, 0).is_ok());
    }
}

#[test]
fn a_silence_ends_the_waiting_of_those_whom_it_outlasts() {
    let mut asks = asks(1, 20);
    asks.arrive(ms(1_030), 20, 1).unwrap();
    asked(&mut asks, 1_030);
    let silent = |until| {
        Heard::Silent(Silent {
            until: ms(until),
            why: Silence::Held,
        })
    };
    let told = asks.answered(ms(1_031), silent(1_060));
    assert_eq!(told, [(0, Told::Unavailable)]);
    assert_eq!(asks.next(ms(1_031)).0, NextAsk::Wait(ms(1_060)));
    assert_eq!(asked(&mut asks, 1_060), Some(1));
    asks.answered(ms(1_061), silent(2_200));
    asks.arrive(ms(1_100), 20, 2).unwrap();
    let (next, _) = asks.next(ms(1_100));
    assert_eq!(next, NextAsk::Wait(Mono(1_150 * MS + 1)));
}
