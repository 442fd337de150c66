//! P1 and P2 against brute force.

use super::*;
use crate::model::{AccountId, Action, GroupId, Stop};
use crate::proxy::admission::*;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MS: u64 = 1_000_000;
const MAX_DELAY: Duration = Duration::from_millis(50);

/// The law, recounted: the starts in `(s − 1 s, s]` are at most the quota under which s was
/// decided.
fn breaks_the_cap(mut starts: Vec<(u64, u32)>) -> Option<String> {
    starts.sort_unstable();
    let mut first = 0;
    for (index, &(start, _)) in starts.iter().enumerate() {
        while starts[first].0 + 1_000 * MS <= start {
            first += 1;
        }
        // Starts of one instant were decided one after the other: the last of them sees them all.
        let last_of_instant = starts.get(index + 1).is_none_or(|next| next.0 > start);
        let loosest = starts[first..=index]
            .iter()
            .filter(|s| s.0 == start)
            .map(|s| s.1)
            .max()
            .unwrap_or(0);
        if last_of_instant && index + 1 - first > loosest as usize {
            return Some(format!(
                "{} starts in the second that ends at {start}, quota {loosest}",
                index + 1 - first
            ));
        }
    }
    None
}

fn now(mono: u64) -> Now {
    Now {
        mono: Mono(mono),
        utc: Utc(i64::try_from(mono / 1_000).unwrap()),
    }
}

fn fixed(quota: u32) -> Terms {
    Terms {
        opened: Utc(0),
        stopped: None,
        mode: Mode::PerCall,
        quota: Quota::Fixed(quota),
    }
}

fn limiter(terms: &Terms) -> Arc<Limiter> {
    let key = LimiterKey {
        account: AccountId::new("a").unwrap(),
        group: GroupId::new("g").unwrap(),
        action: None,
    };
    Limiters::default().get_or_insert(key, 1, terms.clone())
}

#[derive(Clone, Debug)]
enum Step {
    Arrive { after_us: u64 },
    Quota(u32),
    Shrink,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        30 => (0_u64..2_000).prop_map(|after_us| Step::Arrive { after_us }),
        30 => Just(Step::Arrive { after_us: 0 }),
        10 => (0_u64..120_000).prop_map(|after_us| Step::Arrive { after_us }),
        2 => (900_000_u64..1_100_000).prop_map(|after_us| Step::Arrive { after_us }),
        3 => (0_u32..=40).prop_map(Step::Quota),
        1 => (0_u32..=500).prop_map(Step::Quota),
        1 => Just(Step::Quota(0)),
        1 => Just(Step::Shrink),
    ];
    proptest::collection::vec(step, 1..600)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Both ways: never a start too many, and never a throttle while a place opens within the
    /// delay.
    #[test]
    fn the_window_admits_exactly_what_the_trailing_second_allows(
        steps in steps(), first_quota in 0_u32..=60, max_delay_ms in 0_u64..=200,
    ) {
        let max_delay = Duration::from_millis(max_delay_ms);
        let (mut window, mut quota, mut at) = (Window::default(), first_quota, 5_000 * MS);
        let mut starts: Vec<(u64, u32)> = Vec::new();
        for step in steps {
            match step {
                Step::Quota(changed) => quota = changed,
                Step::Shrink => window.shrink(Mono(at)),
                Step::Arrive { after_us } => {
                    at += after_us * 1_000;
                    let verdict = window.decide(quota, Mono(at), max_delay);
                    let in_second = |end: u64| starts.iter().filter(|s| s.0 + 1_000 * MS > end && s.0 <= end).count();
                    let newest = starts.last().map_or(0, |s| s.0);
                    match verdict {
                        Verdict::Admit(start) => {
                            prop_assert!(start.0 >= at && start.0 >= newest);
                            prop_assert!(start.0 - at <= max_delay_ms * MS);
                            prop_assert!(in_second(start.0) < quota as usize);
                            starts.push((start.0, quota));
                        }
                        Verdict::Throttle(retry_after) => {
                            let latest = at + max_delay_ms * MS;
                            prop_assert!(latest < newest || in_second(latest) >= quota as usize);
                            // A client that calls alone and obeys is admitted at once.
                            let back = at + u64::try_from(retry_after.as_nanos()).unwrap();
                            prop_assert!(in_second(back) < quota as usize && back >= newest);
                        }
                        Verdict::Never => prop_assert_eq!(quota, 0),
                    }
                }
            }
        }
        prop_assert_eq!(breaks_the_cap(starts), None);
    }
}

#[test]
fn a_million_arrivals_from_many_threads_keep_the_cap_while_the_quota_moves() {
    let limiter = limiter(&fixed(20));
    let time = AtomicU64::new(10_000 * MS);
    let starts: Vec<(u64, u32)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|seed| {
                let (limiter, time) = (&limiter, &time);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut starts = Vec::new();
                    for arrival in 0..250_000_u32 {
                        // Some threads decide with a clock that others have long overtaken.
                        let at = time.fetch_add(random.u64(0..200_000), Ordering::Relaxed);
                        if random.u32(0..1_000) == 0 {
                            std::thread::yield_now();
                        }
                        if arrival % 97 == 0 {
                            let quota = [0, 1, 20, 500, random.u32(0..=500)][random.usize(0..5)];
                            limiter.set_terms(1, fixed(quota));
                        }
                        if let Ok(reservation) = limiter.reserve(now(at), MAX_DELAY) {
                            starts.push((reservation.start().0, reservation.quota()));
                        }
                    }
                    starts
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    assert!(
        starts.len() > 1_000,
        "only {} admitted: the test shows nothing",
        starts.len()
    );
    assert_eq!(breaks_the_cap(starts), None);
}

#[test]
fn a_quota_cut_to_zero_and_back_within_a_second_refills_nothing() {
    let limiter = limiter(&fixed(20));
    let burst = |at: u64| {
        (0..100)
            .filter(|_| limiter.reserve(now(at), Duration::ZERO).is_ok())
            .count()
    };
    assert_eq!(burst(10_000 * MS), 20);
    limiter.set_terms(1, fixed(0));
    assert_eq!(burst(10_200 * MS), 0);
    limiter.set_terms(1, fixed(30));
    assert_eq!(burst(10_400 * MS), 10);
    limiter.set_terms(1, fixed(20));
    assert_eq!(burst(10_999 * MS), 0);
    assert_eq!(
        burst(11_000 * MS),
        10,
        "the second start of the burst of 10 still counts"
    );
    assert_eq!(burst(11_400 * MS), 10);
}

#[test]
fn a_client_paced_at_its_quota_with_jitter_loses_nothing() {
    let mut random = fastrand::Rng::with_seed(7);
    for quota in 1_u32..=500 {
        let mut window = Window::default();
        let mut arrivals: Vec<u64> = (0..u64::from(quota) * 60)
            .map(|k| 1_000_000 * MS + k * 1_000 * MS / u64::from(quota))
            .map(|even| even + random.u64(0..=20 * MS) - 10 * MS)
            .collect();
        arrivals.sort_unstable();
        for at in arrivals {
            let verdict = window.decide(quota, Mono(at), MAX_DELAY);
            assert!(
                matches!(verdict, Verdict::Admit(_)),
                "quota {quota}: {verdict:?}"
            );
        }
    }
}

#[test]
fn a_burst_of_the_quota_at_each_seconds_start_loses_nothing() {
    let mut random = fastrand::Rng::with_seed(8);
    for quota in [1, 2, 7, 20, 99, 500] {
        let mut window = Window::default();
        for second in 0_u64..60 {
            let begins = 1_000_000 * MS + second * 1_000 * MS + random.u64(0..=20 * MS);
            for _ in 0..quota {
                assert!(matches!(
                    window.decide(quota, Mono(begins), MAX_DELAY),
                    Verdict::Admit(_)
                ));
            }
        }
    }
}

#[test]
fn bursts_on_both_sides_of_a_seconds_edge_share_one_quota() {
    let limiter = limiter(&fixed(20));
    let burst = |at: u64| {
        (0..40)
            .filter(|_| limiter.reserve(now(at), Duration::ZERO).is_ok())
            .count()
    };
    assert_eq!(burst(10_990 * MS) + burst(11_010 * MS), 20);
}

#[test]
fn a_throttle_changes_nothing_so_a_flood_does_not_starve_its_own_account() {
    let limiter = limiter(&fixed(20));
    let mut admitted = 0;
    for at in (0..10_000).map(|ms| 50_000 * MS + ms * MS) {
        admitted += u64::from(limiter.reserve(now(at), Duration::ZERO).is_ok());
    }
    assert_eq!(
        admitted, 200,
        "20 in each of 10 seconds, whatever was throttled between"
    );
}

#[test]
fn purchases_begin_and_end_to_the_second_without_new_terms() {
    let second = 1_000_000;
    let purchase = |qps, from: i64, until: i64| Purchase {
        order: "Q-1".into(),
        qps,
        from: Utc(from * second),
        until: Utc(until * second),
    };
    let limiter = limiter(&Terms {
        mode: Mode::Qps,
        quota: Quota::Purchased(vec![purchase(10, 100, 200), purchase(5, 150, 300)]),
        ..fixed(0)
    });
    let burst = |at_ms: u64| {
        (0..100)
            .filter(|_| limiter.reserve(now(at_ms * MS), Duration::ZERO).is_ok())
            .count()
    };
    let denied = |at_ms: u64| {
        limiter
            .reserve(now(at_ms * MS), Duration::ZERO)
            .unwrap_err()
    };
    assert_eq!(
        denied(99_500),
        Denied::NoQuota {
            begins_in: Some(Duration::from_millis(500))
        }
    );
    assert_eq!(
        denied(99_999),
        Denied::NoQuota {
            begins_in: Some(Duration::from_millis(1))
        }
    );
    assert_eq!(burst(100_000), 10);
    assert_eq!(burst(149_500), 10);
    assert_eq!(burst(149_999), 0);
    assert_eq!(
        burst(150_000),
        5,
        "10 + 5 in force, 10 of them spent half a second ago"
    );
    assert_eq!(burst(199_999), 15);
    assert_eq!(burst(200_000), 0, "5 in force, 15 spent a millisecond ago");
    assert_eq!(burst(201_000), 5);
    assert_eq!(burst(300_000), 0);
    assert_eq!(denied(300_000), Denied::NoQuota { begins_in: None });
}

#[test]
fn a_purchase_that_takes_the_place_of_an_equal_one_is_no_change() {
    let purchase = |qps, from, until| Purchase {
        order: "Q-1".into(),
        qps,
        from: Utc(from),
        until: Utc(until),
    };
    let quota = Quota::Purchased(vec![
        purchase(10, 0, 100),
        purchase(10, 100, 200),
        purchase(5, 150, 300),
    ]);
    let next = |at| {
        quota
            .next_change(Utc(at))
            .map(|next| (next.from.0, next.qps))
    };
    assert_eq!(next(-5), Some((0, 10)));
    assert_eq!(next(50), Some((150, 15)));
    assert_eq!(next(160), Some((200, 5)));
    assert_eq!(next(250), Some((300, 0)));
    assert_eq!(next(300), None);
    assert_eq!(Quota::Fixed(20).next_change(Utc(0)), None);
}

#[test]
fn the_wall_clock_can_jump_and_the_cap_does_not_care() {
    let limiter = limiter(&fixed(20));
    let mut admitted = 0;
    for step in 0_u64..1_000 {
        let utc = Utc(if step % 2 == 0 {
            1_000_000
        } else {
            9_000_000_000_000
        });
        let at = Now {
            mono: Mono(77_000 * MS + step * MS),
            utc,
        };
        admitted += u64::from(limiter.reserve(at, Duration::ZERO).is_ok());
    }
    assert_eq!(admitted, 20);
}

#[test]
fn a_stopped_or_unopened_service_admits_nothing_and_says_which_even_in_a_flood() {
    let limiter = limiter(&fixed(1));
    assert!(limiter.reserve(now(10_000 * MS), MAX_DELAY).is_ok());
    assert!(matches!(
        limiter.reserve(now(10_001 * MS), MAX_DELAY),
        Err(Denied::Throttled { .. })
    ));
    limiter.set_terms(
        1,
        Terms {
            stopped: Some(Stop::Arrears),
            ..fixed(1)
        },
    );
    assert_eq!(
        limiter.reserve(now(10_002 * MS), MAX_DELAY).unwrap_err(),
        Denied::Stopped(Stop::Arrears)
    );
    limiter.set_terms(
        1,
        Terms {
            opened: Utc(i64::MAX),
            ..fixed(1)
        },
    );
    assert_eq!(
        limiter.reserve(now(10_003 * MS), MAX_DELAY).unwrap_err(),
        Denied::NotOpened
    );
    limiter.set_terms(1, fixed(1));
    let Err(Denied::Throttled { retry_after, .. }) = limiter.reserve(now(10_004 * MS), MAX_DELAY)
    else {
        panic!("the window was refilled");
    };
    assert_eq!(retry_after, Duration::from_millis(996));
}

#[test]
fn the_lock_free_throttle_says_what_the_lock_would_say() {
    let limiter = limiter(&Terms {
        mode: Mode::Qps,
        quota: Quota::Fixed(3),
        ..fixed(0)
    });
    for _ in 0..3 {
        assert!(limiter.reserve(now(10_000 * MS), MAX_DELAY).is_ok());
    }
    let at_first = limiter.reserve(now(10_001 * MS), MAX_DELAY).unwrap_err();
    assert_eq!(
        at_first,
        Denied::Throttled {
            quota: 3,
            mode: Mode::Qps,
            retry_after: Duration::from_millis(999)
        }
    );
    assert!(limiter.reserve(now(10_949 * MS), MAX_DELAY).is_err());
    let reservation = limiter.reserve(now(10_950 * MS), MAX_DELAY).unwrap();
    assert_eq!(reservation.start(), Mono(11_000 * MS));
}

#[test]
fn a_caller_with_an_old_clock_gains_nothing_from_a_window_that_was_shrunk() {
    let mut window = Window::default();
    assert_eq!(
        window.decide(2, Mono(10_000 * MS), MAX_DELAY),
        Verdict::Admit(Mono(10_000 * MS))
    );
    assert_eq!(
        window.decide(2, Mono(10_500 * MS), MAX_DELAY),
        Verdict::Admit(Mono(10_500 * MS))
    );
    window.shrink(Mono(11_501 * MS));
    let overtaken = Mono(10_700 * MS);
    assert_eq!(
        window.decide(2, overtaken, MAX_DELAY),
        Verdict::Throttle(Duration::from_millis(801))
    );
}

#[test]
fn a_gate_is_forgotten_only_when_nobody_holds_it_and_its_second_is_past() {
    let limiters = Limiters::default();
    let key = LimiterKey {
        account: AccountId::new("a").unwrap(),
        group: GroupId::new("g").unwrap(),
        action: None,
    };
    let limiter = limiters.get_or_insert(key.clone(), 1, fixed(1));
    assert!(limiter.reserve(now(10_000 * MS), MAX_DELAY).is_ok());
    limiters.sweep(Mono(20_000 * MS), |_, _| panic!("still held"));
    assert!(limiter.reserve(now(20_000 * MS), MAX_DELAY).is_ok());
    drop(limiter);
    limiters.sweep(Mono(20_500 * MS), |_, _| panic!("its second is not past"));
    let back = limiters.get_or_insert(key, 1, fixed(1));
    assert!(
        back.reserve(now(20_600 * MS), MAX_DELAY).is_err(),
        "removed and re-added, the window is the same"
    );
    drop(back);
    limiters.sweep(Mono(21_001 * MS), |_, _| ());
    assert!(limiters.is_empty());
}

#[test]
fn a_call_belongs_to_the_mode_in_force_at_its_admission_and_a_switch_refills_nothing() {
    let limiter = limiter(&fixed(2));
    let before = limiter.reserve(now(10_000 * MS), MAX_DELAY).unwrap();
    let switched = Terms {
        mode: Mode::Qps,
        ..fixed(2)
    };
    limiter.set_terms(1, switched);
    let after = limiter.reserve(now(10_001 * MS), MAX_DELAY).unwrap();
    assert_eq!((before.mode, after.mode), (Mode::PerCall, Mode::Qps));
    // One start of each mode: the window is theirs together.
    assert!(matches!(
        limiter.reserve(now(10_002 * MS), MAX_DELAY),
        Err(Denied::Throttled {
            mode: Mode::Qps,
            ..
        })
    ));
}

#[test]
fn terms_of_an_older_generation_never_take_the_place_of_later_ones() {
    let limiters = Limiters::default();
    let key = LimiterKey {
        account: AccountId::new("a").unwrap(),
        group: GroupId::new("g").unwrap(),
        action: None,
    };
    let limiter = limiters.get_or_insert(key.clone(), 2, fixed(1));
    assert!(limiter.reserve(now(10_000 * MS), MAX_DELAY).is_ok());
    limiters.get_or_insert(key.clone(), 1, fixed(5));
    assert!(limiter.reserve(now(10_001 * MS), MAX_DELAY).is_err());
    // Made with a policy that was about to go; the next generation's first call finds it.
    limiters.get_or_insert(key, 3, fixed(2));
    assert!(limiter.reserve(now(10_002 * MS), MAX_DELAY).is_ok());
    assert!(
        limiter.reserve(now(10_003 * MS), MAX_DELAY).is_err(),
        "what was spent stays spent"
    );
}

#[test]
fn arrears_stop_the_paid_groups_of_an_account_from_the_next_call_until_they_are_paid() {
    let limiters = Limiters::default();
    let key = |account: &str, action: Option<&str>| LimiterKey {
        account: AccountId::new(account).unwrap(),
        group: GroupId::new("g").unwrap(),
        action: action.and_then(Action::new),
    };
    let in_arrears = |accounts: &[&str]| {
        let ids = accounts.iter().map(|id| AccountId::new(id).unwrap());
        limiters.set_arrears(ids.collect());
    };
    let stopped = |limiter: &Limiter, ms: u64| {
        limiter
            .reserve(now(ms * MS), MAX_DELAY)
            .is_err_and(|denied| denied == Denied::Stopped(Stop::Arrears))
    };
    let early = limiters.get_or_insert(key("a", None), 1, fixed(1));
    assert!(early.reserve(now(10_000 * MS), MAX_DELAY).is_ok());
    assert!(
        !stopped(&early, 10_001),
        "a flood that is throttled unlocked"
    );
    in_arrears(&["a", "b"]);
    assert!(stopped(&early, 10_002));
    assert_eq!(
        early.snapshot(now(10_003 * MS)).0.stopped,
        Some(Stop::Arrears)
    );
    // A first call, whatever the files say meanwhile.
    let late = limiters.get_or_insert(key("b", None), 1, fixed(1));
    assert!(stopped(&late, 10_000));
    early.set_terms(2, fixed(5));
    assert!(stopped(&early, 10_004));
    let free = limiters.get_or_insert(key("a", Some("Describe")), 1, fixed(1));
    assert!(!stopped(&free, 10_000), "a free group costs nothing");
    let violation = Terms {
        stopped: Some(Stop::Violation),
        ..fixed(5)
    };
    early.set_terms(3, violation);
    assert_eq!(
        early.reserve(now(10_005 * MS), MAX_DELAY).unwrap_err(),
        Denied::Stopped(Stop::Violation),
        "paying would not end it"
    );
    in_arrears(&["b"]);
    early.set_terms(4, fixed(5));
    assert!(early.reserve(now(10_006 * MS), MAX_DELAY).is_ok());
    assert!(stopped(&late, 10_006));
}

proptest! {
    /// A call comes with the instant at which it was received. Limiters are swept, and removed,
    /// between that instant and its decision.
    #[test]
    fn a_call_that_was_received_before_a_sweep_gains_nothing_from_it(
        steps in proptest::collection::vec((0..1_500_u64, 0..1_200_u64, any::<bool>()), 1..60),
        quota in 1..4_u32,
    ) {
        let limiters = Limiters::default();
        let key = || LimiterKey {
            account: AccountId::new("a").unwrap(),
            group: GroupId::new("g").unwrap(),
            action: None,
        };
        let (mut at, mut starts) = (10_000 * MS, Vec::new());
        for (passes, age, sweeps) in steps {
            at += passes * MS;
            if sweeps {
                limiters.sweep(Mono(at), |_, _| ());
            }
            let received = now(at - age * MS);
            let limiter = limiters.get_or_insert(key(), 1, fixed(quota));
            // However long it may have to wait, for the law is of starts.
            if let Ok(reserved) = limiter.reserve(received, Duration::from_secs(5)) {
                starts.push((reserved.start().0, quota));
            }
        }
        prop_assert_eq!(breaks_the_cap(starts), None);
    }
}
