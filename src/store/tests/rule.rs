//! The library of the store: epochs, holds, deadlines and versions. What it decides is proven with
//! the window of the proxy, by one suite.

use crate::model::Utc;
use crate::store::question::BadReply;
use crate::store::tests::{Machine, StoreProcess};
use crate::store::{MOST_STARTS, Question, QuestionTerms, Said, SaidValue};
use proptest::prelude::*;
use std::rc::Rc;
use std::time::Duration;

const HOLD_US: i64 = 1_060_000;
const BEGIN_US: i64 = 1_800_000_000_000_000;

fn machine() -> Rc<Machine> {
    let machine = Rc::new(Machine::default());
    machine.wall_us.set(BEGIN_US);
    machine
}

fn later(store: &StoreProcess, by_us: i64) {
    store.machine.wall_us.set(store.wall().0 + by_us);
}

fn ask_under(store: &StoreProcess, epoch: i64, deadline: Utc, quota: u32, n: u16) -> Said {
    let question = Question {
        limiter: "a:g".into(),
        quota,
        n,
        max_delay: Duration::from_millis(50),
    };
    store.ask(&question, QuestionTerms { epoch, deadline }, HOLD_US)
}

fn ask(store: &StoreProcess, epoch: i64, n: u16) -> Said {
    ask_under(store, epoch, Utc(i64::MAX / 1_024), 20, n)
}

fn epoch(said: &Said) -> i64 {
    match said {
        Said::Granted { epoch, .. }
        | Said::Hold { epoch, .. }
        | Said::Epoch { epoch, .. }
        | Said::Late { epoch, .. } => *epoch,
        Said::Newer => panic!("there is none"),
    }
}

fn granted(said: &Said) -> usize {
    match said {
        Said::Granted { offsets, .. } => offsets.len(),
        _ => 0,
    }
}

/// A store whose hold is over, and its epoch.
fn open_store() -> (StoreProcess, i64) {
    let store = StoreProcess::load(&machine());
    let epoch = epoch(&ask(&store, 0, 0));
    later(&store, HOLD_US);
    (store, epoch)
}

#[test]
fn a_store_that_was_restarted_empty_holds_for_as_long_as_it_is_told() {
    let store = StoreProcess::load(&machine());
    let said = ask(&store, 0, 1);
    let opens_in = Duration::from_micros(1_060_000);
    let (epoch, now) = (BEGIN_US, Utc(BEGIN_US));
    assert_eq!(
        said,
        Said::Hold {
            epoch,
            now,
            ahead: Duration::ZERO,
            opens_in
        }
    );
    later(&store, HOLD_US - 1);
    assert!(matches!(ask(&store, epoch, 1), Said::Hold { .. }));
    later(&store, 1);
    assert_eq!(granted(&ask(&store, epoch, 1)), 1);
}

#[test]
fn a_flush_a_new_load_and_a_promotion_each_begin_an_epoch_with_a_hold() {
    let (store, first) = open_store();
    assert_eq!(granted(&ask(&store, first, 20)), 20);

    store.machine.flush_all();
    later(&store, 1);
    let flushed = ask(&store, first, 1);
    assert!(matches!(flushed, Said::Hold { .. }) && epoch(&flushed) != first);

    later(&store, HOLD_US);
    let loaded = StoreProcess::load(&store.machine);
    let again = ask(&loaded, epoch(&flushed), 1);
    assert!(matches!(again, Said::Hold { .. }) && epoch(&again) != epoch(&flushed));

    later(&store, HOLD_US);
    let standby = machine();
    standby.wall_us.set(BEGIN_US - 5_000_000);
    standby.copy_keys(&store.machine);
    let promoted = StoreProcess::load(&standby);
    let said = ask(&promoted, epoch(&again), 1);
    assert!(matches!(said, Said::Hold { .. }) && epoch(&said) != epoch(&again));
}

#[test]
fn a_machine_whose_clock_was_set_back_to_the_microsecond_begins_another_epoch() {
    let store = StoreProcess::load(&machine());
    let first = epoch(&ask(&store, 0, 0));
    let again = StoreProcess::load(&store.machine);
    let second = epoch(&ask(&again, 0, 0));
    assert_ne!(first, second);
    later(&store, HOLD_US);
    assert_eq!(granted(&ask(&again, second, 1)), 1);
}

#[test]
fn a_clock_that_is_set_back_stands_still_and_goes_on_at_once() {
    let (store, epoch) = open_store();
    let now = |said: Said| match said {
        Said::Granted { now, .. } => now.0,
        said => panic!("{said:?}"),
    };
    let before = now(ask(&store, epoch, 20));
    later(&store, -10_000_000);
    assert_eq!(now(ask(&store, epoch, 0)), before);
    later(&store, 999_999);
    let said = ask(&store, epoch, 1);
    assert_eq!((granted(&said), now(said)), (1, before + 999_999));
    later(&store, -1);
    assert_eq!(now(ask(&store, epoch, 1)), before + 999_999);
    later(&store, 1);
    assert_eq!(now(ask(&store, epoch, 1)), before + 1_000_000);
}

#[test]
fn a_question_of_another_epoch_or_after_its_deadline_changes_nothing() {
    let (store, epoch) = open_store();
    assert!(matches!(ask(&store, epoch - 1, 20), Said::Epoch { .. }));
    let deadline = Utc(store.wall().0 - 1);
    let late = ask_under(&store, epoch, deadline, 20, 20);
    assert!(matches!(late, Said::Late { .. }));
    let in_time = ask_under(&store, epoch, store.wall(), 20, 20);
    assert_eq!(granted(&in_time), 20, "at the deadline it is in time");
}

#[test]
fn a_heartbeat_and_a_quota_of_0_change_nothing() {
    let (store, epoch) = open_store();
    assert_eq!(granted(&ask(&store, epoch, 20)), 20);
    let before = store.machine.commands.get();
    assert_eq!(granted(&ask(&store, epoch, 0)), 0);
    assert_eq!(store.machine.commands.get() - before, 2, "TIME and HMGET");
    let never = ask_under(&store, epoch, Utc(i64::MAX / 1_024), 0, 3);
    assert!(
        matches!(never, Said::Granted { refused_for: Some(Duration::MAX), ref offsets, .. } if offsets.is_empty())
    );
    assert_eq!(store.machine.commands.get() - before, 4);
}

#[test]
fn an_older_library_refuses_a_bucket_of_a_newer_one_and_changes_nothing() {
    let (store, epoch) = open_store();
    store.is_taken_by_version(2);
    for n in [0, 1] {
        let before = store.machine.commands.get();
        assert_eq!(ask(&store, epoch, n), Said::Newer);
        assert_eq!(store.machine.commands.get() - before, 2, "TIME and HMGET");
    }
}

#[test]
fn a_newer_library_takes_a_bucket_over_with_a_hold_and_the_older_one_refuses_from_then_on() {
    let (older, first) = open_store();
    let text = include_str!("../tollgate.lua").replace("VERSION = 1", "VERSION = 2");
    let newer = StoreProcess::load_text(&older.machine, &text);
    let said = ask(&newer, first, 1);
    assert!(matches!(said, Said::Hold { .. }));
    assert_eq!(ask(&older, first, 1), Said::Newer);
    later(&newer, HOLD_US);
    assert_eq!(granted(&ask(&newer, epoch(&said), 1)), 1);
    assert_eq!(ask(&older, first, 1), Said::Newer);
}

#[test]
fn one_question_is_granted_256_starts_at_most() {
    let (store, epoch) = open_store();
    let said = ask_under(&store, epoch, Utc(i64::MAX / 1_024), 1_000, 300);
    assert_eq!(granted(&said), usize::from(MOST_STARTS));
    assert!(matches!(
        said,
        Said::Granted {
            refused_for: None,
            ..
        }
    ));
}

#[test]
fn a_start_costs_few_commands_also_after_a_busy_second() {
    let (store, epoch) = open_store();
    let cost = |n: u16| {
        let before = store.machine.commands.get();
        let said = ask_under(&store, epoch, Utc(i64::MAX / 1_024), 10_000, n);
        assert_eq!(granted(&said), usize::from(n));
        store.machine.commands.get() - before
    };
    for _ in 0..30 {
        cost(256);
    }
    assert_eq!(cost(1), 7, "TIME HMGET LLEN LINDEX RPUSH LRANGE PTTL");
    later(&store, 1_100_000);
    // A search for the place of 13 steps, and all old starts go at once.
    assert!(cost(1) < 25);
    assert_eq!(cost(1), 7);
}

/// A clock that was set back is told beside the one that never runs back.
#[test]
fn an_answer_says_the_clock_of_the_machine_beside_the_one_that_never_runs_back() {
    let (store, epoch) = open_store();
    let days = 40 * 86_400_000_000;
    for (step, ahead) in [
        (days, 0),
        (-days, days),
        (-3_000_000, days + 3_000_000),
        (7, days + 3_000_000),
    ] {
        later(&store, step);
        let said = ask(&store, epoch, 0);
        let Said::Granted { now, .. } = said else {
            panic!("{said:?}");
        };
        assert_eq!(said.on_machine(), Some(store.wall()));
        assert_eq!(now.0 - store.wall().0, ahead);
    }
}

/// The answer to a question for three calls of a quota of 20.
fn read(text: &str) -> Result<Said, BadReply> {
    let value = |word: &str| match word.strip_prefix('"') {
        Some(text) => SaidValue::Text(text.as_bytes().to_vec()),
        None => SaidValue::Int(word.parse().unwrap()),
    };
    let values: Vec<SaidValue> = text.split(' ').map(value).collect();
    let question = Question {
        limiter: "a/g".into(),
        quota: 20,
        n: 3,
        max_delay: Duration::from_millis(50),
    };
    Said::read(&values, &question, 9)
}

#[test]
fn an_answer_that_no_sound_store_gives_is_nonsense() {
    // Word, epoch, now, shift, number, wait, left, offsets.
    for sound in [
        "\"OK \"7 1000 0 9 0 17 0 0 50000",
        "\"OK \"7 1000 999 9 1200000 0 0 0",
        "\"OK \"7 1000 0 9 50001 0",
        "\"HOLD \"7 1000 0 9 4255000 0",
        "\"NEWER \"0 1000 0 9 0 0",
    ] {
        assert!(read(sound).is_ok(), "{sound}: {:?}", read(sound));
    }
    for (why, said) in [
        (
            "a hold that is longer than any",
            "\"HOLD \"7 1000 0 9 4255001 0",
        ),
        (
            "a start beyond max_delay",
            "\"OK \"7 1000 0 9 0 17 0 0 50001",
        ),
        ("starts that run back", "\"OK \"7 1000 0 9 0 17 0 9 8"),
        (
            "more starts than were asked for",
            "\"OK \"7 1000 0 9 0 16 0 0 0 0",
        ),
        ("neither granted nor refused", "\"OK \"7 1000 0 9 0 0 0 0"),
        (
            "refused beside all granted",
            "\"OK \"7 1000 0 9 60000 0 0 0 0",
        ),
        ("a start in an hour", "\"OK \"7 1000 0 9 3600000000 0"),
        (
            "a start that never comes of a quota",
            "\"OK \"7 1000 0 9 -1 0",
        ),
        ("a start in the past", "\"OK \"7 1000 0 9 -2 0"),
        ("a refused start that was near", "\"OK \"7 1000 0 9 49999 0"),
        ("more left than the quota", "\"OK \"7 1000 0 9 0 21 0 0 0"),
        (
            "an instant after 2255",
            "\"OK \"7 9007199254740993 0 9 60000 0",
        ),
        ("an instant before 1970", "\"OK \"7 0 0 9 60000 0"),
        (
            "a clock that was set forward, not back",
            "\"OK \"7 1000 -1 9 60000 0",
        ),
        (
            "an epoch of another world",
            "\"OK \"9007199254740993 1000 0 9 60000 0",
        ),
    ] {
        assert!(read(said).is_err(), "{why}: {:?}", read(said));
    }
    for other in ["\"OK \"7 1000 0 8 0 17 0 0 0", "\"NEWER \"0 1000 0 10 0 0"] {
        assert_eq!(read(other), Err(BadReply::OtherQuestion));
    }
}

proptest! {
    /// A store that is none, or a broken one, may say anything.
    #[test]
    fn no_answer_whatever_it_is_makes_a_replica_panic(
        word in prop_oneof![Just("OK"), Just("HOLD"), Just("EPOCH"), Just("LATE"), Just("NEWER"), Just("?")],
        rest in proptest::collection::vec(prop_oneof![
            any::<i64>().prop_map(SaidValue::Int),
            (-2_i64..3).prop_map(SaidValue::Int),
            any::<i64>().prop_map(|int| SaidValue::Text(int.to_string().into_bytes())),
            proptest::collection::vec(any::<u8>(), 0..9).prop_map(SaidValue::Text),
        ], 0..9),
    ) {
        use crate::model::Mono;
        use crate::store::{Asks, StoreClock};
        let mut values = vec![SaidValue::Text(word.as_bytes().to_vec())];
        values.extend(rest);
        values.insert(4.min(values.len()), SaidValue::Int(9));
        let asked = Question { limiter: "a/g".into(), quota: 20, n: 3, max_delay: Duration::from_millis(50) };
        if let Ok(said) = Said::read(&values, &asked, 9) {
            let delay = Duration::from_millis(50);
            let mut clock = StoreClock::new(Duration::from_millis(5), delay, delay);
            let mut asks = Asks::new(delay);
            let mut at = Mono(u64::MAX / 2);
            for _ in 0..3 {
                let _ = (clock.touch(at), clock.now_utc(at), clock.ask(at));
                asks.arrive(at, 20, ()).ok();
                asks.next(at);
                let heard = clock.heard(at, at, &said);
                asks.answered(at, heard);
                at = Mono(at.0 + 2_000_000_000);
            }
        }
    }
}
