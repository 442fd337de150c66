//! What a replica believes of the store's clock, and what it starts on an answer.

use crate::model::{Mono, StoreStart, Utc};
use crate::store::{Heard, NoAnswer, Said, Silence, StoreClock};
use std::time::Duration;

const MS: u64 = 1_000_000;
const BUDGET: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_millis(50);

/// The store's clock is that of a replica at 0 plus this.
const STORE_US: i64 = 1_800_000_000_000_000;
const EPOCH: i64 = STORE_US;

fn ms(at: u64) -> Mono {
    Mono(at * MS)
}

/// The store's clock at an instant of ours, both exact.
fn store_at(at: Mono) -> Utc {
    Utc(STORE_US + i64::try_from(at.0 / 1_000).unwrap())
}

fn granted(now: Utc, offsets_ms: &[u64]) -> Said {
    Said::Granted {
        epoch: EPOCH,
        now,
        ahead: Duration::ZERO,
        offsets: offsets_ms
            .iter()
            .map(|ms| Duration::from_millis(*ms))
            .collect(),
        refused_for: None,
        left: 3,
    }
}

fn new_clock() -> StoreClock {
    StoreClock::new(BUDGET, MAX_DELAY, Duration::from_millis(1_060))
}

/// A heartbeat that took 0.2 ms on its way.
fn beat(clock: &mut StoreClock, at: u64, ahead_us: i64) -> Heard {
    let (sent, decided) = (ms(at), Mono(at * MS + 200_000));
    let now = Utc(store_at(decided).0 + ahead_us);
    clock.heard(sent, Mono(at * MS + 400_000), &granted(now, &[]))
}

/// A clock that has heard of its epoch at 0.8 s and may start calls from 2.02 s on.
fn open_clock() -> StoreClock {
    let mut clock = new_clock();
    for nth in 0..14 {
        beat(&mut clock, 800 + nth * 100, 0);
    }
    assert!(clock.ask(ms(2_100)).is_ok());
    clock
}

fn is_silent(heard: &Heard, why: Silence) -> bool {
    matches!(heard, Heard::Silent(silent) if silent.why == why)
}

fn starts(heard: &Heard) -> usize {
    match heard {
        Heard::Grants { grants, .. } => grants.len(),
        _ => 0,
    }
}

#[test]
fn a_replica_starts_nothing_before_1215_ms_from_its_first_answer_in_an_epoch() {
    let mut clock = new_clock();
    assert_eq!(clock.ask(ms(900)).unwrap_err().why, Silence::Unknown);
    assert_eq!(
        (clock.touch(ms(900)).epoch, clock.touch(ms(900)).deadline),
        (0, Utc(0))
    );
    let said = Said::Epoch {
        epoch: EPOCH,
        now: store_at(ms(1_000)),
        ahead: Duration::ZERO,
    };
    let heard = clock.heard(ms(999), ms(1_001), &said);
    assert!(is_silent(&heard, Silence::NewEpoch));
    assert_eq!(clock.ask(ms(2_215)).unwrap_err().until, ms(2_216));
    assert_eq!(
        clock.touch(ms(2_215)).epoch,
        EPOCH,
        "a heartbeat may be sent"
    );
    assert_eq!(clock.ask(ms(2_216)).unwrap().epoch, EPOCH);
}

#[test]
fn a_replica_holds_a_new_epoch_itself_for_as_long_as_the_store_is_told_to() {
    let mut clock = StoreClock::new(BUDGET, MAX_DELAY, Duration::from_millis(4_100));
    let now = store_at(ms(1_000));
    // The store says that its hold is over: its clock may have jumped in it.
    clock.heard(
        ms(1_000),
        ms(1_001),
        &Said::Epoch {
            epoch: EPOCH,
            now,
            ahead: Duration::ZERO,
        },
    );
    assert_eq!(clock.ask(ms(5_100)).unwrap_err().until, ms(5_101));
    // A jump meanwhile does not shorten it.
    let now = Utc(store_at(ms(1_500)).0 + 5_000_000);
    clock.heard(
        ms(1_500),
        ms(1_501),
        &Said::Epoch {
            epoch: EPOCH,
            now,
            ahead: Duration::ZERO,
        },
    );
    assert!(clock.ask(ms(5_100)).is_err() && clock.ask(ms(5_101)).is_ok());
}

#[test]
fn a_hold_of_the_store_that_is_longer_counts() {
    let mut clock = new_clock();
    let hold = |opens_in, at| Said::Hold {
        epoch: EPOCH,
        now: store_at(ms(at)),
        ahead: Duration::ZERO,
        opens_in: Duration::from_millis(opens_in),
    };
    clock.heard(ms(1_000), ms(1_001), &hold(4_100, 1_000));
    assert_eq!(clock.ask(ms(5_000)).unwrap_err().until, ms(5_101));
    clock.heard(ms(5_100), ms(5_102), &hold(10, 5_101));
    assert_eq!(clock.ask(ms(5_102)).unwrap_err().until, ms(5_112));
}

#[test]
fn the_deadline_is_the_lowest_anchor_of_the_last_two_seconds_and_the_budget() {
    let mut clock = open_clock();
    let deadline = |clock: &StoreClock, at| clock.ask(ms(at)).unwrap().deadline;
    let exact = store_at(ms(2_200)).0;
    assert_eq!(deadline(&clock, 2_200), Utc(exact + 200 + 5_000));
    // A longer way does not loosen it, a shorter one tightens it.
    clock.heard(ms(2_150), ms(2_154), &granted(store_at(ms(2_154)), &[]));
    assert_eq!(deadline(&clock, 2_200), Utc(exact + 200 + 5_000));
    clock.heard(ms(2_160), ms(2_164), &granted(store_at(ms(2_160)), &[]));
    assert_eq!(deadline(&clock, 2_200), Utc(exact + 5_000));
    assert_eq!(clock.now_utc(ms(2_200)).unwrap().utc, Utc(exact));
    // It counts while later ones are higher, and on into the next second.
    beat(&mut clock, 2_170, 0);
    assert_eq!(deadline(&clock, 2_200), Utc(exact + 5_000));
    beat(&mut clock, 3_000, 0);
    assert_eq!(deadline(&clock, 3_001).0 - store_at(ms(3_001)).0, 5_000);
    // After two seconds of answers over a longer way it is forgotten.
    for nth in 0..25 {
        beat(&mut clock, 3_100 + nth * 100, 0);
    }
    assert_eq!(deadline(&clock, 5_600).0 - store_at(ms(5_600)).0, 5_200);
}

#[test]
fn a_call_leaves_at_the_receipt_and_its_offset_and_the_next_one_asks_from_the_sending_on() {
    let mut clock = open_clock();
    let (now, wait) = (store_at(ms(2_501)), Duration::from_millis(300));
    let said = Said::Granted {
        epoch: EPOCH,
        now,
        ahead: Duration::ZERO,
        offsets: vec![Duration::ZERO, Duration::from_millis(40)],
        refused_for: Some(wait),
        left: 0,
    };
    let Heard::Grants {
        grants,
        retry_after,
        not_before,
        left,
    } = clock.heard(ms(2_500), ms(2_503), &said)
    else {
        panic!("granted");
    };
    assert_eq!(
        (grants[0].release, grants[1].release),
        (ms(2_503), ms(2_543))
    );
    assert_eq!(
        grants[1].start,
        StoreStart {
            epoch: EPOCH,
            at: now.plus(Duration::from_millis(40))
        }
    );
    assert_eq!(
        (retry_after, not_before, left),
        (Some(wait), Some(ms(2_500 + 250)), 0)
    );
}

#[test]
fn an_answer_after_the_budget_starts_nothing_and_is_no_anchor() {
    let mut clock = open_clock();
    let before = clock.touch(ms(2_600));
    let late = clock.heard(
        ms(2_500),
        Mono(2_505 * MS + 1),
        &granted(store_at(ms(2_500)), &[0]),
    );
    assert_eq!(late, Heard::AskAgain(NoAnswer::LateAnswer));
    assert_eq!(clock.touch(ms(2_600)), before);
    let in_time = clock.heard(ms(2_500), ms(2_505), &granted(store_at(ms(2_500)), &[0]));
    assert_eq!(starts(&in_time), 1);
    // A first answer that comes late makes nothing known.
    let mut clock = new_clock();
    clock.heard(ms(1_000), ms(1_006), &granted(store_at(ms(1_003)), &[]));
    assert_eq!(clock.ask(ms(5_000)).unwrap_err().why, Silence::Unknown);
}

#[test]
fn a_clock_that_jumps_further_than_the_budget_silences_the_replica_for_1215_ms() {
    for said in [
        |now| Said::Late {
            epoch: EPOCH,
            now,
            ahead: Duration::ZERO,
        },
        |now| granted(now, &[0, 0]),
        |now| Said::Hold {
            epoch: EPOCH,
            now,
            ahead: Duration::ZERO,
            opens_in: Duration::ZERO,
        },
    ] {
        let mut clock = open_clock();
        let now = Utc(store_at(ms(2_501)).0 + 6_000);
        let heard = clock.heard(ms(2_500), ms(2_502), &said(now));
        assert!(is_silent(&heard, Silence::Jumped), "{heard:?}");
        assert_eq!(clock.ask(ms(3_716)).unwrap_err().until, ms(3_717));
        assert!(clock.ask(ms(3_717)).is_ok());
        // The new anchor is the one after the jump.
        assert_eq!(clock.now_utc(ms(2_500)).unwrap().utc, now);
    }
    let mut clock = open_clock();
    let now = Utc(store_at(ms(2_501)).0 + 3_000);
    assert_eq!(
        starts(&clock.heard(ms(2_500), ms(2_502), &granted(now, &[0]))),
        1
    );
}

#[test]
fn a_jump_that_a_late_answer_proves_silences_until_an_answer_in_time_and_1215_ms() {
    let mut clock = open_clock();
    let now = Utc(store_at(ms(2_900)).0 + 20_000);
    let heard = clock.heard(ms(2_500), ms(2_900), &granted(now, &[0]));
    assert!(is_silent(&heard, Silence::Jumped));
    assert!(clock.ask(ms(9_000)).is_err(), "there is no anchor");
    beat(&mut clock, 9_000, 20_000);
    assert!(clock.ask(ms(10_215)).is_err() && clock.ask(ms(10_216)).is_ok());
    // One that may have come so late on its way proves nothing.
    let mut clock = open_clock();
    let heard = clock.heard(ms(2_500), ms(2_900), &granted(store_at(ms(2_899)), &[0]));
    assert_eq!(heard, Heard::AskAgain(NoAnswer::LateAnswer));
    assert!(clock.ask(ms(2_900)).is_ok());
}

#[test]
fn a_clock_that_gains_one_percent_on_ours_is_noticed_although_each_answer_gains_little() {
    for (gain_us, noticed) in [(1_000, true), (-1_000, false), (10, false)] {
        let mut clock = open_clock();
        let gains = (1..30).map(|nth: i64| {
            let at = 2_100 + u64::try_from(nth).unwrap() * 100;
            beat(&mut clock, at, nth * gain_us)
        });
        let jumps = gains
            .filter(|heard| is_silent(heard, Silence::Jumped))
            .count();
        assert_eq!(jumps > 0, noticed, "{gain_us} us in 100 ms");
    }
}

#[test]
fn a_clock_that_is_set_back_is_no_jump() {
    let mut clock = open_clock();
    // It stood still for 80 ms.
    beat(&mut clock, 2_200, -80_000);
    let deadline = clock.ask(ms(2_300)).unwrap().deadline;
    assert_eq!(deadline.0, store_at(ms(2_300)).0 - 80_000 + 200 + 5_000);
    // What goes on from there is no jump, what makes up for it is one.
    assert_eq!(
        beat(&mut clock, 2_300, -80_000),
        beat(&mut open_clock(), 2_300, 0)
    );
    assert!(is_silent(&beat(&mut clock, 2_400, 0), Silence::Jumped));
}

#[test]
fn a_replica_that_was_cut_off_for_a_minute_goes_on_at_once() {
    let mut clock = open_clock();
    assert!(clock.ask(ms(62_000)).is_ok());
    let now = Utc(store_at(ms(62_001)).0 + 500);
    assert_eq!(
        starts(&clock.heard(ms(62_000), ms(62_001), &granted(now, &[0]))),
        1
    );
}

#[test]
fn an_answer_of_an_epoch_that_has_ended_neither_starts_calls_nor_brings_it_back() {
    let mut clock = open_clock();
    let next = Said::Hold {
        epoch: EPOCH + 1,
        now: Utc(77),
        ahead: Duration::ZERO,
        opens_in: Duration::ZERO,
    };
    assert!(is_silent(
        &clock.heard(ms(2_500), ms(2_502), &next),
        Silence::NewEpoch
    ));
    let of_before = clock.heard(ms(2_501), ms(2_503), &granted(store_at(ms(2_502)), &[0]));
    assert_eq!(of_before, Heard::AskAgain(NoAnswer::OtherEpoch));
    assert_eq!(clock.touch(ms(2_503)).epoch, EPOCH + 1);
    // A question that was sent later tells the truth: the primary of before is asked again.
    let back = clock.heard(ms(2_503), ms(2_504), &granted(store_at(ms(2_503)), &[0]));
    assert!(is_silent(&back, Silence::NewEpoch));
}

#[test]
fn what_was_asked_before_a_jump_was_found_starts_nothing_after_it() {
    let mut clock = open_clock();
    let now = store_at(ms(2_501));
    let jumped = Utc(now.0 + 100_000);
    clock.heard(
        ms(2_500),
        ms(2_501),
        &Said::Late {
            epoch: EPOCH,
            now: jumped,
            ahead: Duration::ZERO,
        },
    );
    let heard = clock.heard(ms(2_500), ms(2_502), &granted(now, &[0]));
    assert!(is_silent(&heard, Silence::Jumped));
}

#[test]
fn a_bucket_of_a_newer_version_is_asked_again_after_a_second() {
    let mut clock = open_clock();
    assert!(is_silent(
        &clock.heard(ms(2_500), ms(2_501), &Said::Newer),
        Silence::Newer
    ));
    assert!(clock.ask(ms(3_500)).is_err() && clock.ask(ms(3_501)).is_ok());
}

#[test]
fn terms_and_the_instant_of_admission_go_by_the_machines_clock_when_it_was_set_back() {
    let mut clock = open_clock();
    // The clock that never runs back is 40 days ahead since then.
    let ahead = Duration::from_secs(40 * 86_400);
    let now = store_at(ms(2_501));
    let told = |now, ahead| Said::Granted {
        epoch: EPOCH,
        now,
        ahead,
        offsets: vec![Duration::from_millis(30)],
        refused_for: None,
        left: 3,
    };
    let heard = clock.heard(ms(2_500), ms(2_501), &told(now, ahead));
    let Heard::Grants { grants, .. } = heard else {
        panic!("{heard:?}");
    };
    let start = now.plus(Duration::from_millis(30));
    assert_eq!(grants[0].start.at, start);
    assert_eq!(grants[0].admitted_at, Utc(start.0 - 40 * 86_400_000_000));
    let exact = store_at(ms(2_600)).0;
    let on_machine = clock.now_utc(ms(2_600)).unwrap().utc.0 + 40 * 86_400_000_000;
    assert!((on_machine - exact).abs() <= 1_000, "{on_machine} {exact}");
    assert_eq!(
        clock.ask(ms(2_600)).unwrap().deadline.0 / 100_000,
        exact / 100_000
    );
    // An answer that comes out of order brings no older state of it.
    let older = store_at(ms(2_491));
    clock.heard(ms(2_490), ms(2_502), &told(older, Duration::ZERO));
    clock.heard(ms(2_490), ms(2_492), &told(older, Duration::ZERO));
    let again = clock.now_utc(ms(2_600)).unwrap().utc.0 + 40 * 86_400_000_000;
    assert!((again - exact).abs() <= 1_000, "{again} {exact}");
}

#[test]
fn a_replica_is_silent_for_what_any_other_may_have_been_granted_whatever_its_own_settings_are() {
    let silence = |delay_ms, budget_ms| {
        let (delay, budget) = (
            Duration::from_millis(delay_ms),
            Duration::from_millis(budget_ms),
        );
        StoreClock::new(budget, delay, Duration::ZERO).silence
    };
    assert_eq!(silence(0, 1), Duration::from_millis(1_215));
    assert_eq!(silence(0, 1), silence(200, 10));
}

#[test]
fn no_answer_silences_for_longer_than_the_longest_hold() {
    let mut clock = open_clock();
    let hold = Said::Hold {
        epoch: EPOCH,
        now: store_at(ms(2_501)),
        ahead: Duration::ZERO,
        opens_in: Duration::from_secs(3_600),
    };
    clock.heard(ms(2_500), ms(2_501), &hold);
    assert_eq!(clock.ask(ms(2_600)).unwrap_err().until, ms(2_501 + 4_255));
}
