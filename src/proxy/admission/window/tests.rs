//! The two windows, the one of this process and the one of the store, against one oracle.

use super::*;
use crate::model::Utc;
use crate::store::{Machine, Question, QuestionTerms, Said, StoreProcess};
use proptest::prelude::*;
use std::rc::Rc;

const SECOND_US: u64 = 1_000_000;
const BEGIN_US: u64 = 1_800_000_000_000_000;

/// What a window says to `n` calls at once.
#[derive(PartialEq, Eq, Debug)]
struct Decided {
    /// The starts, in microseconds.
    starts: Vec<u64>,
    /// How far away the next one was, if one was refused; `None` within when it never comes.
    refused_for: Option<Option<u64>>,
    /// How many more would fit beside the last start, if there was one.
    left: Option<u32>,
}

/// A window, whoever keeps it.
trait AnyWindow {
    fn decide_all(&mut self, quota: u32, n: u16, now_us: u64, max_delay: Duration) -> Decided;
    /// Nobody has called for a while.
    fn rest(&mut self, now_us: u64);
}

impl AnyWindow for Window {
    fn decide_all(&mut self, quota: u32, n: u16, now_us: u64, max_delay: Duration) -> Decided {
        let (mut starts, mut left) = (Vec::new(), None);
        for _ in 0..n {
            let refused_for = match self.decide(quota, Mono(now_us * 1_000), max_delay) {
                Verdict::Admit(start) => {
                    starts.push(start.0 / 1_000);
                    left = Some(self.left(quota));
                    continue;
                }
                Verdict::Throttle(wait) => Some(u64::try_from(wait.as_micros()).unwrap()),
                Verdict::Never => None,
            };
            let refused_for = Some(refused_for);
            return Decided {
                starts,
                refused_for,
                left,
            };
        }
        let refused_for = None;
        Decided {
            starts,
            refused_for,
            left,
        }
    }

    fn rest(&mut self, now_us: u64) {
        self.shrink(Mono(now_us * 1_000));
    }
}

struct OfTheStore {
    process: StoreProcess,
    epoch: i64,
}

impl OfTheStore {
    fn new(process: StoreProcess) -> Self {
        process.machine.wall_us.set(1);
        let mut window = Self { process, epoch: 0 };
        match window.said(1, 0, 1_000, Duration::ZERO) {
            Said::Epoch { epoch, .. } => window.epoch = epoch,
            said => panic!("{said:?}"),
        }
        window
    }

    fn said(&self, quota: u32, n: u16, now_us: u64, max_delay: Duration) -> Said {
        let now_us = i64::try_from(now_us).unwrap();
        self.process.machine.wall_us.set(now_us);
        let question = Question {
            limiter: "a:g".into(),
            quota,
            n,
            max_delay,
        };
        let terms = QuestionTerms {
            epoch: self.epoch,
            deadline: Utc(now_us),
        };
        self.process.ask(&question, terms, 0)
    }
}

impl AnyWindow for OfTheStore {
    fn decide_all(&mut self, quota: u32, n: u16, now_us: u64, max_delay: Duration) -> Decided {
        let said = self.said(quota, n, now_us, max_delay);
        let Said::Granted {
            now,
            offsets,
            refused_for,
            left,
            ..
        } = said
        else {
            panic!("{said:?}");
        };
        let start = |offset: &Duration| u64::try_from(now.plus(*offset).0).unwrap();
        let wait = |wait: Duration| (wait != Duration::MAX).then_some(wait.as_micros());
        let wait = |away: Duration| wait(away).map(|away| u64::try_from(away).unwrap());
        Decided {
            starts: offsets.iter().map(start).collect(),
            refused_for: refused_for.map(wait),
            left: (!offsets.is_empty()).then_some(left),
        }
    }

    fn rest(&mut self, _: u64) {}
}

/// The promise by brute force: every start ever granted, and a search.
#[derive(Default)]
struct Oracle {
    starts: Vec<u64>,
}

impl Oracle {
    /// The starts in the second that ends at `end`.
    fn in_second(&self, end: u64) -> usize {
        let recent = |start: &&u64| **start + SECOND_US > end && **start <= end;
        self.starts.iter().rev().take(2_000).filter(recent).count()
    }

    /// The earliest start that P1 allows: the count falls only a second after a start.
    fn earliest(&self, quota: u32, now_us: u64) -> Option<u64> {
        let soonest = self.starts.last().map_or(now_us, |last| now_us.max(*last));
        let later = self.starts.iter().rev().take(2_000);
        let later = later.map(|start| start + SECOND_US);
        let mut ends: Vec<u64> = later.filter(|end| *end > soonest).collect();
        ends.push(soonest);
        ends.sort_unstable();
        let fits = |end: &u64| self.in_second(*end) < quota as usize;
        (quota > 0).then(|| ends.into_iter().find(fits).unwrap())
    }

    fn decide_all(&mut self, quota: u32, n: u16, now_us: u64, max_delay: Duration) -> Decided {
        let max_delay = u64::try_from(max_delay.as_micros()).unwrap();
        let mut decided = Decided {
            starts: Vec::new(),
            refused_for: None,
            left: None,
        };
        for _ in 0..n {
            match self.earliest(quota, now_us) {
                Some(start) if start - now_us <= max_delay => {
                    self.starts.push(start);
                    decided.starts.push(start);
                    let used = u32::try_from(self.in_second(start)).unwrap();
                    assert!(used <= quota, "P1");
                    decided.left = Some(quota - used);
                }
                refused => {
                    decided.refused_for = Some(refused.map(|start| start - now_us));
                    break;
                }
            }
        }
        decided
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arrive { after_us: u64, n: u16 },
    Quota(u32),
    Rest,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let arrive = |after_us: std::ops::Range<u64>, n: std::ops::RangeInclusive<u16>| {
        (after_us, n).prop_map(|(after_us, n)| Step::Arrive { after_us, n })
    };
    let step = prop_oneof![
        20 => arrive(0..2_000, 1..=16),
        20 => arrive(0..1, 1..=16),
        20 => arrive(0..120_000, 1..=1),
        5 => arrive(900_000..1_100_000, 1..=16),
        1 => arrive(2_000_000..8_000_000, 1..=16),
        1 => arrive(0..2_000, 200..=256),
        4 => (0_u32..=40).prop_map(Step::Quota),
        1 => (0_u32..=500).prop_map(Step::Quota),
        1 => Just(Step::Quota(0)),
        1 => Just(Step::Rest),
    ];
    proptest::collection::vec(step, 1..150)
}

fn decides_as_the_oracle(
    mut window: impl AnyWindow,
    steps: &[Step],
    mut quota: u32,
    max_delay: Duration,
    grain_us: u64,
) -> Result<(), TestCaseError> {
    let (mut oracle, mut at) = (Oracle::default(), BEGIN_US);
    for step in steps {
        match *step {
            Step::Quota(changed) => quota = changed,
            Step::Rest => window.rest(at),
            Step::Arrive { after_us, n } => {
                at += after_us / grain_us * grain_us;
                let expected = oracle.decide_all(quota, n, at, max_delay);
                prop_assert_eq!(window.decide_all(quota, n, at, max_delay), expected);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each start is the earliest that P1 allows, each refusal tells how far it is away, and the
    /// rest of the quota is right: for 1 to 256 calls at once, while the quota changes.
    #[test]
    fn both_windows_decide_exactly_as_brute_force(
        steps in steps(), quota in 0_u32..=60, max_delay_ms in 0_u64..=200, grains in any::<bool>(),
    ) {
        // In grains of 10 ms some start is exactly `max_delay` away.
        let grain_us = if grains { 10_000 } else { 1 };
        let max_delay_ms = if grains { max_delay_ms / 10 * 10 } else { max_delay_ms };
        let max_delay = Duration::from_millis(max_delay_ms);
        decides_as_the_oracle(Window::default(), &steps, quota, max_delay, grain_us)?;
        let store = StoreProcess::load(&Rc::new(Machine::default()));
        decides_as_the_oracle(OfTheStore::new(store), &steps, quota, max_delay, grain_us)?;
    }
}
