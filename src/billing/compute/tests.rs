//! Random months against a biller that goes call by call and shares nothing with the one it checks:
//! no intervals, no sorting, every pack by itself, money in whole millionths.

use super::*;
use crate::billing::{Interval, boundaries};
use crate::model::{AccountId, Action, GroupId, Origin, TierBasis};
use proptest::prelude::*;
use std::collections::HashMap;

/// November 2026 in Shanghai.
const FROM: i64 = 1_793_462_400_000_000;
/// Instants come from a coarse grid of 12 hours, give or take a microsecond, so that calls often
/// meet the very instant at which a pack begins or ends.
const STEP: i64 = 12 * 3_600_000_000;
const STEPS: i64 = 60;
const UNTIL: i64 = FROM + STEPS * STEP;

/// One call as a ledger has it.
#[derive(Clone, Debug)]
struct Call {
    at: i64,
    action: usize,
    reason: Reason,
    late: bool,
}

/// How an account stands from an instant on.
#[derive(Clone, Copy, Debug)]
enum Standing {
    PerCall,
    Qps,
    Stopped,
}

#[derive(Clone, Debug)]
struct Order {
    size: u64,
    count: u32,
    delivered: i64,
    expires: i64,
    refunded: Option<i64>,
    used_before: u64,
    paid_fen: Vec<(Fund, u32)>,
}

#[derive(Clone, Debug)]
struct Group {
    /// `None`: a free group.
    free_calls: Option<u64>,
    basis: TierBasis,
    /// `(calls from the tier before, price in millionths)`.
    tiers: Vec<(u64, i128)>,
    orders: Vec<Order>,
    /// Begins before the month; the service is opened at the first of them.
    standings: Vec<(i64, Standing)>,
    calls: Vec<Call>,
}

fn instant(steps: std::ops::Range<i64>) -> impl Strategy<Value = i64> {
    (steps, -1..=1i64).prop_map(|(step, us)| FROM + step * STEP + us)
}

fn order() -> impl Strategy<Value = Order> {
    let funds = prop::collection::vec((prop::sample::select(Fund::ALL), 0..50_000u32), 0..4);
    (
        (1..15u64, 1..4u32),
        instant(-60..STEPS),
        1..90i64,
        prop::option::weighted(0.3, 0..60i64),
        0..40u64,
        funds,
    )
        .prop_map(
            |((size, count), delivered, life, refunded, used_before, paid_fen)| Order {
                size,
                count,
                delivered,
                expires: delivered + life * STEP,
                refunded: refunded.map(|after| delivered + after * STEP),
                // Before the month nothing was used of what came in it.
                used_before: if delivered < FROM {
                    used_before.min(size * u64::from(count))
                } else {
                    0
                },
                paid_fen,
            },
        )
        // What ended before the month is no part of its inputs, nor is what comes after it.
        .prop_filter("of the month", |order| {
            order.delivered < UNTIL
                && order.expires > FROM
                && order.refunded.is_none_or(|at| at > FROM)
        })
}

fn call(late: bool) -> impl Strategy<Value = Call> {
    let steps = if late { -90..-1 } else { 0..STEPS };
    let reason = prop_oneof![
        5 => Just(Reason::Billable),
        1 => prop::sample::select(Reason::ALL),
    ];
    (instant(steps), 0..2usize, reason).prop_map(move |(at, action, reason)| Call {
        // The grid's microsecond must not carry a call over the month's edge.
        at: if late { at } else { at.clamp(FROM, UNTIL - 1) },
        action,
        reason,
        late,
    })
}

fn group() -> impl Strategy<Value = Group> {
    let standing = prop_oneof![
        3 => Just(Standing::PerCall),
        1 => Just(Standing::Qps),
        1 => Just(Standing::Stopped),
    ];
    let calls = (
        prop::collection::vec(call(false), 0..150),
        prop::collection::vec(call(true), 0..12),
    );
    (
        prop::option::weighted(0.9, 0..25u64),
        prop::sample::select(TierBasis::ALL),
        prop::collection::vec((1..60u64, 1..20_000i128), 1..5),
        prop::collection::vec(order(), 0..5),
        prop::collection::vec((instant(-100..STEPS), standing), 1..5),
        calls,
    )
        .prop_map(
            |(free_calls, basis, mut tiers, orders, mut standings, (calls, late))| {
                if let Some(first) = tiers.first_mut() {
                    first.0 = 0;
                }
                standings.sort_by_key(|(from, _)| *from);
                Group {
                    free_calls,
                    basis,
                    tiers,
                    orders,
                    standings,
                    calls: late.into_iter().chain(calls).collect(),
                }
            },
        )
}

impl Group {
    /// The mode of an admitted call; `None` when the service admits nothing then.
    fn mode(&self, at: i64) -> Option<Mode> {
        let now = self.standings.iter().rev().find(|(from, _)| *from <= at);
        match (now?.1, self.free_calls) {
            (Standing::Stopped, _) => None,
            (_, None) => Some(Mode::Free),
            (Standing::PerCall, _) => Some(Mode::PerCall),
            (Standing::Qps, _) => Some(Mode::Qps),
        }
    }

    fn admitted(&self) -> impl Iterator<Item = (&Call, Mode)> {
        self.calls
            .iter()
            .filter_map(|call| Some((call, self.mode(call.at)?)))
    }

    fn inputs(&self, name: usize) -> GroupInputs {
        let packs: Vec<PackOrder> = self
            .orders
            .iter()
            .enumerate()
            .map(|(place, order)| PackOrder {
                order: format!("P-{name}-{place}"),
                calls: order.size,
                count: order.count,
                delivered: Utc(order.delivered),
                expires: Utc(order.expires),
                refunded: order.refunded.map(Utc),
                origin: Origin::Bought,
                paid: order
                    .paid_fen
                    .iter()
                    .map(|(fund, fen)| (*fund, Decimal::new(i64::from(*fen), 2)))
                    .collect(),
                used_before: order.used_before,
            })
            .collect();
        let mut from = 0;
        let tiers = self.tiers.iter().map(|(more, millionths)| {
            from += more;
            (from, Decimal::from_i128_with_scale(*millionths, 6))
        });
        let terms = self.free_calls.map(|free_calls| PriceTerms {
            free_calls,
            tier_basis: self.basis,
            tiers: tiers.collect(),
        });
        let mut edges = boundaries(&packs, Utc(FROM), Utc(UNTIL));
        edges.insert(0, Utc(FROM));
        edges.push(Utc(UNTIL));
        let intervals = edges
            .windows(2)
            .map(|edge| Interval {
                from: edge[0],
                until: edge[1],
                calls: self.counted(|call| !call.late && (edge[0].0..edge[1].0).contains(&call.at)),
            })
            .collect();
        GroupInputs {
            group: GroupId::new(&format!("group-{name}")).unwrap(),
            title: "组".into(),
            title_en: String::new(),
            terms,
            packs,
            purchases: Vec::new(),
            intervals,
            late: self.counted(|call| call.late),
            keys: Vec::new(),
            late_entries: LateEntries::default(),
        }
    }

    fn counted(&self, wanted: impl Fn(&Call) -> bool) -> Vec<Calls> {
        let mut counts: HashMap<(usize, Mode, Reason), u64> = HashMap::new();
        for (call, mode) in self.admitted().filter(|(call, _)| wanted(call)) {
            *counts.entry((call.action, mode, call.reason)).or_default() += 1;
        }
        counts
            .into_iter()
            .map(|((action, mode, reason), calls)| Calls {
                action: Action::new(&format!("Action{action}")).unwrap(),
                mode,
                reason,
                calls,
            })
            .collect()
    }
}

/// What the other biller makes of a group.
#[derive(Default, PartialEq, Eq, Debug)]
struct Bill {
    free: u64,
    by_order: Vec<u64>,
    postpaid: u64,
    qps: u64,
    free_group: u64,
    not_billable: u64,
    late: u64,
    tier_from: Option<u64>,
    unit_millionths: Option<i128>,
    fen: i128,
    paid_fen: i128,
}

/// One pack by itself.
struct Single {
    order: usize,
    left: u64,
}

fn call_by_call(group: &Group) -> Bill {
    let mut bill = Bill {
        by_order: vec![0; group.orders.len()],
        ..Bill::default()
    };
    let mut singles: Vec<Single> = Vec::new();
    for (order, of) in group.orders.iter().enumerate() {
        let mut gone = of.used_before;
        for _ in 0..of.count {
            let used = gone.min(of.size);
            gone -= used;
            let left = of.size - used;
            singles.push(Single { order, left });
        }
    }
    // A late call is one of the month's first instant.
    let mut calls: Vec<(i64, &Call, Mode)> = group
        .admitted()
        .map(|(call, mode)| (if call.late { FROM } else { call.at }, call, mode))
        .collect();
    calls.sort_by_key(|(at, ..)| *at);
    let mut billable = 0;
    for (at, call, mode) in calls {
        bill.late += u64::from(call.late);
        match mode {
            Mode::Free if matches!(call.reason, Reason::Free | Reason::Billable) => {
                bill.free_group += 1;
            }
            _ if call.reason != Reason::Billable => bill.not_billable += 1,
            Mode::Free => unreachable!(),
            Mode::Qps => bill.qps += 1,
            Mode::PerCall => {
                billable += 1;
                if Some(bill.free) < group.free_calls {
                    bill.free += 1;
                    continue;
                }
                let covers = |single: &&mut Single| {
                    let order = &group.orders[single.order];
                    let begun = at >= order.delivered;
                    let over = at >= order.expires || order.refunded.is_some_and(|back| at >= back);
                    begun && !over && single.left > 0
                };
                let first = singles.iter_mut().filter(covers).min_by_key(|single| {
                    let order = &group.orders[single.order];
                    (order.expires, order.delivered, single.order)
                });
                match first {
                    Some(single) => {
                        single.left -= 1;
                        bill.by_order[single.order] += 1;
                    }
                    None => bill.postpaid += 1,
                }
            }
        }
    }
    if group.free_calls.is_some() {
        let basis = match group.basis {
            TierBasis::AllCalls => billable,
            TierBasis::PostpaidCalls => bill.postpaid,
        };
        let (mut from, mut reached) = (0, (0, 0));
        for (more, price) in &group.tiers {
            from += more;
            if basis >= from {
                reached = (from, *price);
            }
        }
        bill.tier_from = Some(reached.0);
        bill.unit_millionths = Some(reached.1);
        let millionths = reached.1 * i128::from(bill.postpaid);
        bill.fen = (millionths + 5_000) / 10_000;
    }
    for order in &group.orders {
        for (fund, fen) in &order.paid_fen {
            if order.delivered >= FROM {
                bill.paid_fen += i128::from(*fen);
            }
            let back = order.refunded.is_some_and(|back| back < UNTIL);
            if back && !["deduction", "voucher"].contains(&fund.as_str()) {
                bill.paid_fen -= i128::from(*fen);
            }
        }
    }
    bill
}

fn in_units(amount: Decimal, unit: i64) -> i128 {
    let units = amount * Decimal::from(unit);
    assert!(units.fract().is_zero(), "{amount} in units of 1/{unit}");
    i128::try_from(units).unwrap()
}

/// The statement's figures in the other biller's words.
fn as_bill(group: &GroupStatement) -> Bill {
    let per_call = group.per_call.as_ref();
    let sum = |mode| -> u64 {
        let calls = group.calls.iter().filter(|calls| calls.mode == mode);
        calls.map(|calls| calls.calls).sum()
    };
    assert_eq!(group.qps_calls, sum(Mode::Qps));
    assert_eq!(per_call.map_or(0, |used| used.billable), sum(Mode::PerCall));
    if let Some(used) = per_call {
        assert_eq!(used.free.granted, used.free.used + used.free.left);
        assert_eq!(group.lines.len(), usize::from(used.postpaid.calls > 0));
        for pack in &used.packs {
            let granted = pack.calls * u64::from(pack.count);
            // No pack is below zero, and nothing of it is lost.
            assert_eq!(pack.used_before + pack.used + pack.left, granted);
        }
    }
    let lines = group.lines.iter().map(|line| line.amount);
    let paid = group.paid.iter().map(|line| line.amount);
    Bill {
        free: per_call.map_or(0, |used| used.free.used),
        by_order: per_call.map_or_else(Vec::new, |used| {
            used.packs.iter().map(|pack| pack.used).collect()
        }),
        postpaid: per_call.map_or(0, |used| used.postpaid.calls),
        qps: group.qps_calls,
        free_group: sum(Mode::Free),
        not_billable: group.not_billable.iter().map(|calls| calls.calls).sum(),
        late: group.late,
        tier_from: per_call.map(|used| used.postpaid.tier_from),
        unit_millionths: per_call.map(|used| in_units(used.postpaid.unit_price, 1_000_000)),
        fen: in_units(lines.sum(), 100),
        paid_fen: in_units(paid.sum(), 100),
    }
}

fn inputs(groups: &[Group]) -> Inputs {
    Inputs {
        account: AccountId::new("a").unwrap(),
        name: "A".into(),
        month: "2026-11".into(),
        time_zone: "Asia/Shanghai".into(),
        currency: "CNY".into(),
        from: Utc(FROM),
        until: Utc(UNTIL),
        counted_until: Utc(UNTIL),
        on_no_statement: 0,
        balance: None,
        licences: Vec::new(),
        groups: groups
            .iter()
            .enumerate()
            .map(|(at, g)| g.inputs(at))
            .collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_biller_that_goes_call_by_call_comes_to_the_same_statement(
        groups in prop::collection::vec(group(), 1..3)
    ) {
        let statement = statement(&inputs(&groups));
        let (mut due, mut paid) = (0, 0);
        for (group, stated) in groups.iter().zip(&statement.groups) {
            let mut expected = call_by_call(group);
            if group.free_calls.is_none() {
                // A free group sells no packs; if it ever did, they cover nothing.
                expected.by_order.clear();
            }
            prop_assert_eq!(&as_bill(stated), &expected);
            // R8: every admitted call has exactly one fate.
            let fates = expected.free
                + expected.by_order.iter().sum::<u64>()
                + expected.postpaid
                + expected.qps
                + expected.free_group
                + expected.not_billable;
            prop_assert_eq!(group.admitted().count() as u64, fates);
            due += expected.fen;
            paid += expected.paid_fen;
        }
        prop_assert_eq!(in_units(statement.due, 100), due);
        prop_assert_eq!(in_units(statement.paid_when_ordered, 100), paid);
    }

    #[test]
    fn a_statement_does_not_depend_on_how_finely_its_calls_were_counted(
        groups in prop::collection::vec(group(), 1..2),
        cuts in prop::collection::btree_set(instant(0..STEPS), 0..6),
    ) {
        let coarse = inputs(&groups);
        let mut fine = coarse.clone();
        for (group, of) in groups.iter().zip(&mut fine.groups) {
            let mut edges = boundaries(&of.packs, Utc(FROM), Utc(UNTIL));
            edges.extend(cuts.iter().filter(|cut| (FROM..UNTIL).contains(cut)).map(|cut| Utc(*cut)));
            edges.extend([Utc(FROM), Utc(UNTIL)]);
            edges.sort_unstable();
            edges.dedup();
            of.intervals = edges
                .windows(2)
                .map(|edge| Interval {
                    from: edge[0],
                    until: edge[1],
                    calls: group.counted(|call| !call.late && (edge[0].0..edge[1].0).contains(&call.at)),
                })
                .collect();
        }
        prop_assert_eq!(statement(&fine), statement(&coarse));
    }
}

#[test]
fn the_random_months_are_as_varied_as_they_should_be() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen: HashMap<&str, u32> = HashMap::new();
    for _ in 0..500 {
        let group = group().new_tree(&mut runner).unwrap().current();
        let bill = call_by_call(&group);
        let used_orders = bill.by_order.iter().filter(|used| **used > 0).count();
        let instants = || group.orders.iter().flat_map(|o| [o.delivered, o.expires]);
        let edges = instants().filter(|at| group.calls.iter().any(|call| call.at == *at));
        for (what, holds) in [
            ("free", bill.free > 0),
            ("two orders", used_orders > 1),
            (
                "post-paid after packs",
                bill.postpaid > 0 && used_orders > 0,
            ),
            ("qps", bill.qps > 0),
            ("free group", bill.free_group > 0),
            ("not billable", bill.not_billable > 0),
            ("late", bill.late > 0),
            ("a higher tier", bill.tier_from.is_some_and(|from| from > 0)),
            ("a call at a pack's edge", edges.count() > 0),
            (
                "a half to round",
                bill.unit_millionths
                    .is_some_and(|unit| (unit * i128::from(bill.postpaid)) % 10_000 >= 5_000),
            ),
        ] {
            *seen.entry(what).or_default() += u32::from(holds);
        }
    }
    assert!(seen.values().all(|times| *times >= 25), "{seen:?}");
}
