//! How a group's part of a statement was computed, in sentences that cite the contract.
//!
//! Says again what `statement` did, with its figures; decides nothing.

use crate::billing::ladder::times;
use crate::billing::packs::PackWalk;
use crate::billing::statement::{GroupStatement, PerCallUse};
use crate::billing::{Inputs, PackState};
use crate::model::{Local, Mode, Reason, TierBasis};
use jiff::tz::TimeZone;

/// A sentence a step, in the order of the computation.
pub(super) fn computed(
    inputs: &Inputs,
    group: &GroupStatement,
    walk: Option<&PackWalk<'_>>,
    zone: &TimeZone,
) -> Vec<String> {
    let mut said = Vec::new();
    if group.late > 0 {
        said.push(format!(
            "R16: {} calls of earlier months came after their statements were fixed; they are counted here, as calls of {}",
            group.late,
            Local::new(inputs.from, zone)
        ));
    }
    let not_billable = total(group.not_billable.iter().map(|calls| calls.calls));
    if not_billable > 0 {
        said.push(format!(
            "R8: {not_billable} admitted calls are not billable: they cost nothing and count for nothing"
        ));
    }
    // Of this reason alone: the sentences of months that are fixed are compared word by word when
    // they are verified.
    let not_served = group
        .not_billable
        .iter()
        .filter(|calls| calls.reason == Reason::NotServed);
    let not_served = total(not_served.map(|calls| calls.calls));
    if not_served > 0 {
        said.push(format!(
            "R8: {not_served} of them were answered with a status of 408, 421, 425 or 429: the service did not do the work and asked for the call again"
        ));
    }
    let free = in_mode(group, Mode::Free);
    if !free.is_empty() {
        said.push(format!(
            "R2: {} in a free group: they cost nothing",
            added(&free)
        ));
    }
    if group.qps_calls > 0 {
        said.push(format!(
            "R5: {} in qps mode: inside the quota that was paid for, they cost nothing and decide no tier",
            added(&in_mode(group, Mode::Qps))
        ));
    }
    let calls = in_mode(group, Mode::PerCall);
    match (&group.per_call, walk) {
        (Some(per_call), Some(walk)) => {
            if !calls.is_empty() {
                said.push(format!("R1: {} in per-call mode", added(&calls)));
            }
            said.extend(covered(per_call, walk, zone));
            said.extend(priced(per_call, &inputs.currency));
        }
        _ if !calls.is_empty() => said.push(format!(
            "R2: {} in per-call mode: the group has no price, they cost nothing",
            added(&calls)
        )),
        _ => {}
    }
    said.extend(adjusted(inputs, group, zone));
    said
}

/// What became known of fixed months, and what it changes (R16).
fn adjusted(inputs: &Inputs, group: &GroupStatement, zone: &TimeZone) -> Vec<String> {
    let of_group = inputs.groups.iter().find(|of| of.group == group.group);
    let Some(late) = of_group.map(|of| &of.late_entries) else {
        return Vec::new();
    };
    let mut said = Vec::new();
    for order in &late.orders {
        said.push(format!(
            "R16: order {} of {} x {} calls, delivered at {}, was entered after that month was fixed",
            order.order,
            order.count,
            order.calls,
            Local::new(order.delivered, zone)
        ));
    }
    let with_refund = late.orders.iter().chain(&late.refunds);
    for (order, at) in with_refund.filter_map(|order| Some((&order.order, order.refunded?))) {
        said.push(format!(
            "R16: that order {order} was paid back at {} was entered after that month was fixed",
            Local::new(at, zone)
        ));
    }
    for line in &group.adjustments {
        said.push(format!(
            "R16: {} is computed again: {} post-paid calls x {} = {}, less {} fixed, less {} adjusted before = {} {}",
            line.month,
            line.per_call.postpaid.calls,
            line.per_call.postpaid.unit_price,
            line.recomputed,
            line.fixed,
            line.adjusted_before,
            line.amount,
            inputs.currency
        ));
    }
    said
}

fn in_mode(group: &GroupStatement, mode: Mode) -> Vec<(&str, u64)> {
    let calls = group.calls.iter().filter(|calls| calls.mode == mode);
    calls
        .map(|calls| (calls.action.as_str(), calls.calls))
        .collect()
}

/// `A 5 + B 6 = 11 calls`.
fn added(calls: &[(&str, u64)]) -> String {
    let each: Vec<String> = calls
        .iter()
        .map(|(action, calls)| format!("{action} {calls}"))
        .collect();
    let total = total(calls.iter().map(|(_, calls)| *calls));
    match each.as_slice() {
        [one] => format!("{one} calls"),
        _ => format!("{} = {total} calls", each.join(" + ")),
    }
}

fn total(calls: impl Iterator<Item = u64>) -> u64 {
    calls.fold(0, u64::saturating_add)
}

fn covered(per_call: &PerCallUse, walk: &PackWalk<'_>, zone: &TimeZone) -> Vec<String> {
    let free = &per_call.free;
    let mut said = vec![format!(
        "R10: the free pack of {} calls: {} used, {} left",
        free.granted, free.used, free.left
    )];
    let mut minus = format!(" - {} free", free.used);
    for (place, pack) in walk.in_order() {
        let Some(used) = per_call.packs.get(place) else {
            continue;
        };
        let void = match used.state {
            PackState::Expired if used.left > 0 => ", void",
            PackState::Refunded => ", paid back",
            PackState::NotYet => ", not delivered yet",
            _ => "",
        };
        said.push(format!(
            "R12: order {} of {} x {} calls, from {} until {}: {} used before, {} used, {} left{void}",
            used.order,
            used.count,
            used.calls,
            used.delivered,
            Local::new(pack.ends(), zone),
            used.used_before,
            used.used,
            used.left
        ));
        if used.used > 0 {
            minus.push_str(&format!(" - {} by {}", used.used, used.order));
        }
    }
    said.push(format!(
        "R12: {}{minus} = {} post-paid calls",
        per_call.billable, per_call.postpaid.calls
    ));
    said
}

fn priced(per_call: &PerCallUse, currency: &str) -> Vec<String> {
    let postpaid = &per_call.postpaid;
    if postpaid.calls == 0 {
        return vec!["R13: nothing is due".to_owned()];
    }
    let basis = match per_call.terms.tier_basis {
        TierBasis::AllCalls => "all billable calls in per-call mode",
        TierBasis::PostpaidCalls => "the post-paid calls alone",
    };
    let unit_price = postpaid.unit_price;
    vec![
        format!(
            "R13: the tier is decided by {basis} ({}): {} reach the tier from {}, {unit_price} {currency} a call",
            per_call.terms.tier_basis, postpaid.tier_calls, postpaid.tier_from
        ),
        format!(
            "R13: {} x {unit_price} = {}, rounded half up to {} {currency}",
            postpaid.calls,
            times(unit_price, postpaid.calls).normalize(),
            postpaid.amount
        ),
    ]
}
