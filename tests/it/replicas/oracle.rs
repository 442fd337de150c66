//! P1 over the union of the ledgers, and at the upstream's door.

use super::fleet::Replica;
use crate::cap::most_within;
use crate::figure;
use crate::harness::{Seen, records};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// What may pass between a start by the store and the leaving of its call: the budget, and a
/// millisecond for two clocks over a second.
const LOOSE_NS: u64 = 6_000_000;

/// How long the machine may take from the leaving of a call to its arrival at the door, as in P1.
const SCHEDULER_NS: u64 = 15_000_000;

/// A start of the drill's account.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The index of the gate.
    pub replica: usize,
    /// By the store's clock.
    pub store_us: i64,
    /// Which process of the store decided.
    pub epoch: i64,
    /// When the call left, on the machine's monotonic clock.
    pub left_ns: u64,
}

/// All starts of one account, from all ledgers, by the store's clock.
pub struct Starts(pub Vec<Start>);

impl Starts {
    /// Reads the ledgers. Asserts that each record names its gate and has its start by the store's
    /// clock, that the account never had more than its quota, on the store's clock and where the
    /// calls left, and that neither the upstream saw more.
    pub fn judged(replicas: &[Replica], account: &str, quota: u32, seen: &[Seen]) -> Self {
        let quota = usize::try_from(quota).unwrap();
        let mut starts = Vec::new();
        let mut left = HashMap::new();
        let mut of_others = HashSet::new();
        for (at, replica) in replicas.iter().enumerate() {
            for record in records(&replica.sandbox.ledger()) {
                assert_eq!(record.replica, replica.name, "a record names its gate");
                let id = record.id.to_string();
                if record.account.to_string() != account {
                    of_others.insert(id);
                    continue;
                }
                let epoch = record.store_epoch.expect("the store decided");
                let store_us = record.store_start_us.unwrap();
                // They differ by how much the clock of the store's machine was set back.
                assert!(record.admitted_at.0 <= store_us, "admitted at its start");
                starts.push(Start {
                    replica: at,
                    store_us,
                    epoch,
                    left_ns: record.start.0,
                });
                left.insert(id, record.start.0);
            }
        }
        starts.sort_by_key(|start| start.store_us);
        let by_store = starts.iter().map(|it| it.store_us as u64 * 1_000);
        let by_store = most_within(by_store.collect(), 1_000_000_000);
        let leaving = starts.iter().map(|it| it.left_ns).collect();
        let leaving = most_within(leaving, 1_000_000_000 - LOOSE_NS);
        let door = door(seen, &left, &of_others, quota);
        figure!(
            "{} starts of {account}; of {quota} the most in a second: {by_store} by the store, \
             {leaving} as they left, {door} at the door",
            starts.len()
        );
        assert!(
            by_store <= quota,
            "{by_store} starts of {quota} in a second"
        );
        assert!(leaving <= quota, "{leaving} calls of {quota} left at once");
        Self(starts)
    }

    /// The epochs, in the order of their first starts.
    pub fn epochs(&self) -> Vec<i64> {
        let mut all: Vec<i64> = Vec::new();
        for start in &self.0 {
            if !all.contains(&start.epoch) {
                all.push(start.epoch);
            }
        }
        all
    }

    /// Starts in a span of the store's clock, of the gates that `of` names.
    pub fn within(&self, from_us: i64, until_us: i64, of: impl Fn(usize) -> bool) -> usize {
        let within = |it: &&Start| (from_us..until_us).contains(&it.store_us) && of(it.replica);
        self.0.iter().filter(within).count()
    }

    /// How many of the quota's starts were used over a span, as a share.
    pub fn used(&self, from_us: i64, until_us: i64, quota: u32) -> f64 {
        let paid = f64::from(quota) * (until_us - from_us) as f64 / 1e6;
        self.within(from_us, until_us, |_| true) as f64 / paid
    }
}

/// The most calls at the door within 980 ms. Asserts that it is the quota, save where the machine
/// was so busy that it held a call back for longer than P1 grants it.
fn door(
    seen: &[Seen],
    left: &HashMap<String, u64>,
    of_others: &HashSet<String>,
    quota: usize,
) -> usize {
    let mut door: Vec<(u64, u64)> = Vec::new();
    for call in seen {
        let id = call.headers["x-request-id"].to_str().unwrap();
        if !of_others.contains(id) {
            let delay = left
                .get(id)
                .map_or(0, |left| call.at.0.saturating_sub(*left));
            door.push((call.at.0, delay));
        }
    }
    door.sort_unstable();
    for span in door.windows(quota + 1) {
        let took = Duration::from_nanos(span[quota].0 - span[0].0);
        let held_back = Duration::from_nanos(span[0].1);
        if took < Duration::from_millis(980) {
            figure!(
                "{} calls at the door in {took:?}, the first {held_back:?} late",
                quota + 1
            );
            assert!(
                span[0].1 > SCHEDULER_NS,
                "{} calls at the door in {took:?}, the first after {held_back:?}",
                quota + 1
            );
        }
    }
    most_within(door.iter().map(|(at, _)| *at).collect(), 980_000_000)
}
