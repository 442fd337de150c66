//! Fixed months are computed again with what became known of them (R16). Pure.
//!
//! Owns the rule of adjustments: what a month is computed again from, and what may be paid back.
//! Must never change what was fixed: the difference is a line of the next statement.

use crate::billing::packs::PackWalk;
use crate::billing::{Calls, Interval, MonthAgain, PackOrder};
use crate::model::{Mode, Reason, Utc};
use std::collections::HashMap;

/// The number of calls that each order of packs has covered.
pub(super) type Used = HashMap<String, u64>;

/// Whether a call takes of the free pack, of packs, or is post-paid (R12).
pub(super) fn is_charged(calls: &Calls) -> bool {
    calls.mode == Mode::PerCall && calls.reason == Reason::Billable
}

/// A month's calls on their way through free pack, packs and post-paid (R12), and the number of
/// them. Late calls come first: they are billed as calls of the month's first instant (ours).
pub(super) fn walk<'p>(
    free_calls: u64,
    packs: &'p [PackOrder],
    from: Utc,
    late: &[Calls],
    intervals: &[Interval],
) -> (PackWalk<'p>, u64) {
    let late = late.iter().map(|calls| (from, calls));
    let counted = intervals
        .iter()
        .flat_map(|interval| interval.calls.iter().map(|calls| (interval.from, calls)));
    let mut walk = PackWalk::new(free_calls, packs);
    let mut billable = 0u64;
    for (at, calls) in late.chain(counted).filter(|(_, calls)| is_charged(calls)) {
        billable = billable.saturating_add(calls.calls);
        walk.take(at, calls.calls);
    }
    (walk, billable)
}

impl MonthAgain {
    pub(super) fn walk(&self) -> (PackWalk<'_>, u64) {
        let free_calls = self.terms.free_calls;
        walk(
            free_calls,
            &self.packs,
            self.from,
            &self.late,
            &self.intervals,
        )
    }

    /// The calls of each order that are used when the month ends.
    pub(super) fn used_after(&self) -> Used {
        let (walk, _) = self.walk();
        let used = |(pack, left): (&PackOrder, &u64)| {
            let used = pack.granted().saturating_sub(*left);
            (pack.order.clone(), used.max(pack.used_before))
        };
        self.packs.iter().zip(&walk.left).map(used).collect()
    }

    /// Cuts the interval that reaches over `at`, so that an entry can begin or end there. `count`
    /// gives the calls of a span from the month's begin: hours that are known as a whole are enough
    /// where `at` is a full hour. The sum of all intervals is as it was fixed.
    pub(super) fn cut<E>(
        &mut self,
        at: Utc,
        mut count: impl FnMut(Utc, Utc) -> Result<Vec<Calls>, E>,
    ) -> Result<(), E> {
        let over = |interval: &Interval| interval.from < at && at < interval.until;
        let Some(place) = self.intervals.iter().position(over) else {
            return Ok(());
        };
        let Some(whole) = self.intervals.get(place).cloned() else {
            return Ok(());
        };
        let counted = charged(&count(self.from, at)?);
        let earlier = self.intervals.iter().take(place);
        let earlier: Vec<&Calls> = earlier.flat_map(|interval| &interval.calls).collect();
        let (mut head, mut tail) = (whole.calls.clone(), whole.calls);
        for (head, tail) in head.iter_mut().zip(&mut tail) {
            let same = |of: &&&Calls| of.action == head.action;
            let earlier = earlier.iter().filter(same).map(|of| of.calls).sum();
            let counted = counted.iter().find(|of| of.action == head.action);
            let counted = counted.map_or(0, |of| of.calls.saturating_sub(earlier));
            // Never more than was fixed.
            head.calls = counted.min(head.calls);
            tail.calls -= head.calls;
        }
        let parts = [(whole.from, at, head), (at, whole.until, tail)];
        let parts = parts.map(|(from, until, calls)| Interval {
            from,
            until,
            calls: calls.into_iter().filter(|of| of.calls > 0).collect(),
        });
        self.intervals.splice(place..=place, parts);
        Ok(())
    }
}

/// The calls that R12 goes by.
pub(super) fn charged(calls: &[Calls]) -> Vec<Calls> {
    calls.iter().filter(|of| is_charged(of)).cloned().collect()
}

/// The months computed again, in order: with the late `orders`, and `refunds` by order. A month's
/// packs start from what the month before used.
pub(super) fn again(
    months: &[MonthAgain],
    orders: &[PackOrder],
    refunds: &HashMap<String, Utc>,
) -> Vec<MonthAgain> {
    let mut used = Used::new();
    let mut computed = Vec::new();
    for month in months {
        let mut month = month.clone();
        let is_new = |order: &&PackOrder| {
            let listed = month.packs.iter().any(|pack| pack.order == order.order);
            !listed && order.delivered < month.until && order.expires > month.from
        };
        let new: Vec<PackOrder> = orders.iter().filter(is_new).cloned().collect();
        month.packs.extend(new.into_iter().map(|order| PackOrder {
            refunded: None,
            ..order
        }));
        for pack in &mut month.packs {
            if let Some(used) = used.get(&pack.order) {
                pack.used_before = *used;
            }
            // A refund of a later month is none of this one's.
            let refunded = refunds.get(&pack.order).filter(|at| **at < month.until);
            pack.refunded = pack.refunded.or(refunded.copied());
        }
        used.extend(month.used_after());
        computed.push(month);
    }
    computed
}

/// The calls of the order that are used when the last of the months ends. 0 when none lists it.
pub(super) fn used_of(months: &[MonthAgain], order: &str) -> u64 {
    let newest = months
        .iter()
        .rev()
        .find_map(|month| month.used_after().get(order).copied());
    newest.unwrap_or(0)
}

/// Refuses the refunds of the month that cannot be (R18): of an order of which something is used,
/// up to the refund or on any statement before. Gives them, each with the calls that are used. The
/// intervals are cut at every refund that is asked for.
pub(super) fn refuse_used(
    free_calls: u64,
    packs: &mut [PackOrder],
    (from, until): (Utc, Utc),
    (late, intervals): (&[Calls], &[Interval]),
    most_used: &Used,
) -> Used {
    let in_month = |pack: &PackOrder| pack.refunded.filter(|at| from <= *at && *at < until);
    let mut asked: Vec<(Utc, usize)> = (0..)
        .zip(packs.iter())
        .filter_map(|(place, pack)| Some((in_month(pack)?, place)))
        .collect();
    // By time: whether an order goes on decides what covers the calls after its refund alone.
    asked.sort_unstable();
    let mut refused = Used::new();
    for (_, place) in asked {
        let (walk, _) = walk(free_calls, packs, from, late, intervals);
        let left = walk.left.get(place).copied().unwrap_or(0);
        let Some(pack) = packs.get_mut(place) else {
            continue;
        };
        let used = pack.granted().saturating_sub(left);
        let used = used.max(most_used.get(&pack.order).copied().unwrap_or(0));
        if used > 0 {
            refused.insert(pack.order.clone(), used);
            pack.refunded = None;
        }
    }
    refused
}
