//! A month's statement: what was called, what covered it, what is due and what was paid (R10-R16).

use crate::billing::explain::computed;
use crate::billing::ladder::price;
use crate::billing::packs::PackWalk;
use crate::billing::refund::{paid_back, sum};
use crate::billing::{Calls, GroupInputs, Inputs, PackOrder, PackState, PriceTerms, QpsOrder};
use crate::model::{AccountId, Action, Fund, GroupId, Local, Mode, Origin, Reason, Utc};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// One account's bill of one month. Amounts are exact decimals, in JSON as text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Statement {
    /// The account of the statement.
    pub account: AccountId,
    /// The name of the account, for people.
    pub name: String,
    /// The month, as in `2026-11`.
    pub month: String,
    /// The IANA name of the time zone. Every instant here is written in it (R16).
    pub time_zone: String,
    /// The currency of every amount.
    pub currency: String,
    /// The month's first instant.
    pub from: Local,
    /// The next month's first instant.
    pub until: Local,
    /// Calls are counted until here; before `until` while the month runs.
    pub counted_until: Local,
    /// The groups, in the order of the catalogue.
    pub groups: Vec<GroupStatement>,
    /// Due at settlement (R16): the sum of all groups' rounded lines (R13).
    pub due: Decimal,
    /// Paid when ordered, less what was paid back: the sum of all groups' paid lines (R16).
    pub paid_when_ordered: Decimal,
    /// Calls of the account that are on no statement and cost nothing; [`Inputs::on_no_statement`].
    #[serde(default, skip_serializing_if = "crate::billing::inputs::is_zero")]
    pub on_no_statement: u64,
    /// `None` as long as it may change.
    pub fixed: Option<Fixed>,
}

/// When a statement was fixed, and on which records.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fixed {
    /// Later records of the month are late calls of the next one.
    pub at: Local,
    /// The newest record that it counts.
    pub through_seq: u64,
    /// The ledger's chain after that record, in hex.
    pub head: String,
}

/// One group's part of a statement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupStatement {
    /// The id of the group.
    pub group: GroupId,
    /// The title of the group, for people.
    pub title: String,
    /// The billable calls, and those of a free group. Late calls are among them.
    pub calls: Vec<ActionCalls>,
    /// The other admitted calls, which cost nothing and count for nothing (R8).
    pub not_billable: Vec<NotBillable>,
    /// The number of these calls that are of earlier months. They came after those were fixed.
    pub late: u64,
    /// How the calls in per-call mode were covered. `None` in a free group.
    pub per_call: Option<PerCallUse>,
    /// The billable calls in qps mode, which cost nothing (R5).
    pub qps_calls: u64,
    /// The lines that are due at settlement.
    pub lines: Vec<StatementLine>,
    /// The lines that were paid when ordered, by time.
    pub paid: Vec<PaidLine>,
    /// How it was computed, with the contract's rules.
    pub computed: Vec<String>,
}

/// Calls of one action in one mode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActionCalls {
    /// The action that was called.
    pub action: Action,
    /// The mode in force at the admission.
    pub mode: Mode,
    /// The number of calls.
    pub calls: u64,
}

/// Calls that are not billable for one reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NotBillable {
    /// The action that was called.
    pub action: Action,
    /// The mode in force at the admission.
    pub mode: Mode,
    /// The reason why they are not billable.
    pub reason: Reason,
    /// The number of calls.
    pub calls: u64,
}

/// How the month's billable calls in per-call mode were covered (R12).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PerCallUse {
    /// The number of billable calls: free, in packs and post-paid.
    pub billable: u64,
    /// The terms of the price. With them the statement can be computed again without the catalogue.
    pub terms: PriceTerms,
    /// The calls that the free pack covered (R10).
    pub free: FreeUse,
    /// The orders of packs, in the order of the file (R11).
    pub packs: Vec<PackUse>,
    /// The calls that are post-paid (R13).
    pub postpaid: PostpaidUse,
}

/// The month's free pack (R10).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FreeUse {
    /// The number of free calls that the month came with.
    pub granted: u64,
    /// The number of them that the month used.
    pub used: u64,
    /// The number that is left at `counted_until`. It is void when the month ends.
    pub left: u64,
}

/// An order of packs and what the month used of it (R11).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PackUse {
    /// The order's id.
    pub order: String,
    /// How the account came by the order.
    pub origin: Origin,
    /// The size of one pack, in calls.
    pub calls: u64,
    /// The number of packs.
    pub count: u32,
    /// The number of calls that earlier months used.
    pub used_before: u64,
    /// The number of calls that this month used.
    pub used: u64,
    /// The number of calls that are left in all its packs. They cover calls only while the order is
    /// valid.
    pub left: u64,
    /// The instant from which the order covers calls.
    pub delivered: Local,
    /// The instant from which the order covers nothing any more.
    pub expires: Local,
    /// The instant of its refund, from which it covers nothing either (R18).
    pub refunded: Option<Local>,
    /// The state of the order at `counted_until`.
    pub state: PackState,
}

/// The calls that neither the free pack nor a pack covered (R13).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PostpaidUse {
    /// The number of calls.
    pub calls: u64,
    /// The number of calls that decided the tier, by the basis in the terms.
    pub tier_calls: u64,
    /// The number of calls at which the reached tier begins.
    pub tier_from: u64,
    /// The price of one call.
    pub unit_price: Decimal,
    /// The amount, rounded once.
    pub amount: Decimal,
}

/// A line of what is due.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatementLine {
    /// The text that says what is due.
    pub what: String,
    /// The number of calls.
    pub calls: u64,
    /// The price of one call, not rounded.
    pub unit_price: Decimal,
    /// The amount, rounded once, half up, to the fen (R13).
    pub amount: Decimal,
}

/// Something paid when it was ordered, or paid back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PaidLine {
    /// The order's id.
    pub order: String,
    /// Whether it was an order of packs, of QPS, or a refund.
    pub kind: PaidKind,
    /// The text that says what was ordered.
    pub what: String,
    /// The instant of the delivery, of the begin, or of the refund.
    pub at: Local,
    /// The sum of the funds; below zero when paid back.
    pub amount: Decimal,
    /// Fund by fund; below zero when paid back, and then without deductions and vouchers (R18).
    pub funds: BTreeMap<Fund, Decimal>,
}

/// The kind of a [`PaidLine`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaidKind {
    /// An order of packs (R11).
    Packs,
    /// A QPS purchase (R15).
    Qps,
    /// An order of packs that was paid back (R18).
    PaidBack,
}

/// The whole month, or the month so far. A function of `inputs` alone: anybody who has them can
/// compute it again.
pub fn statement(inputs: &Inputs) -> Statement {
    // The catalogue takes only zones that there are; anything else shows as a statement that
    // differs.
    let zone = TimeZone::get(&inputs.time_zone).unwrap_or(TimeZone::UTC);
    let groups: Vec<GroupStatement> = inputs
        .groups
        .iter()
        .map(|group| group_statement(inputs, group, &zone))
        .collect();
    let lines = groups.iter().flat_map(|group| &group.lines);
    let paid = groups.iter().flat_map(|group| &group.paid);
    Statement {
        account: inputs.account.clone(),
        name: inputs.name.clone(),
        month: inputs.month.clone(),
        time_zone: inputs.time_zone.clone(),
        currency: inputs.currency.clone(),
        from: Local::new(inputs.from, &zone),
        until: Local::new(inputs.until, &zone),
        counted_until: Local::new(inputs.counted_until, &zone),
        // R13: the total is the sum of the rounded lines, not the rounded sum.
        due: sum(lines.map(|line| line.amount)),
        paid_when_ordered: sum(paid.map(|line| line.amount)),
        groups,
        on_no_statement: inputs.on_no_statement,
        fixed: None,
    }
}

fn group_statement(inputs: &Inputs, group: &GroupInputs, zone: &TimeZone) -> GroupStatement {
    // Late calls come first: they are billed as calls of the month's first instant (ours).
    let late = group.late.iter().map(|calls| (inputs.from, calls));
    let counted = group
        .intervals
        .iter()
        .flat_map(|interval| interval.calls.iter().map(|calls| (interval.from, calls)));
    let all = || late.clone().chain(counted.clone());

    let per_call = group.terms.as_ref().map(|terms| {
        let mut walk = PackWalk::new(terms.free_calls, &group.packs);
        let mut billable = 0u64;
        for (at, calls) in all().filter(|(_, calls)| kind(calls) == LineKind::PerCall) {
            billable = billable.saturating_add(calls.calls);
            walk.take(at, calls.calls);
        }
        (terms, walk, billable)
    });

    let ActionSums {
        calls,
        not_billable,
        qps_calls,
    } = sums_by_action(all().map(|(_, calls)| calls));

    let mut statement = GroupStatement {
        group: group.group.clone(),
        title: group.title.clone(),
        calls,
        not_billable,
        late: late.fold(0, |sum, (_, calls)| sum.saturating_add(calls.calls)),
        per_call: per_call.as_ref().map(|(terms, walk, billable)| {
            per_call_use(terms, walk, *billable, group, inputs.counted_until, zone)
        }),
        qps_calls,
        lines: Vec::new(),
        paid: paid_lines(inputs, group, zone),
        computed: Vec::new(),
    };
    statement.lines = lines(&statement);
    statement.computed = computed(
        inputs,
        &statement,
        per_call.as_ref().map(|(_, walk, _)| walk),
        zone,
    );
    statement
}

/// A group's calls, added together by action and mode.
struct ActionSums {
    calls: Vec<ActionCalls>,
    not_billable: Vec<NotBillable>,
    /// The billable calls in qps mode.
    qps_calls: u64,
}

fn sums_by_action<'c>(counted: impl Iterator<Item = &'c Calls>) -> ActionSums {
    let (mut calls, mut not_billable) = (BTreeMap::new(), BTreeMap::new());
    let mut qps_calls = 0u64;
    for of in counted.filter(|of| of.calls > 0) {
        let same = match kind(of) {
            LineKind::NotBillable => not_billable
                .entry((of.action.clone(), of.mode, of.reason))
                .or_insert(0u64),
            LineKind::PerCall | LineKind::Qps | LineKind::Free => {
                calls.entry((of.action.clone(), of.mode)).or_insert(0u64)
            }
        };
        *same = same.saturating_add(of.calls);
        if kind(of) == LineKind::Qps {
            qps_calls = qps_calls.saturating_add(of.calls);
        }
    }
    let served = |((action, mode), calls)| ActionCalls {
        action,
        mode,
        calls,
    };
    let unbilled = |((action, mode, reason), calls)| NotBillable {
        action,
        mode,
        reason,
        calls,
    };
    ActionSums {
        calls: calls.into_iter().map(served).collect(),
        not_billable: not_billable.into_iter().map(unbilled).collect(),
        qps_calls,
    }
}

/// How the contract charges a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineKind {
    /// Free pack, packs, post-paid (R12).
    PerCall,
    /// Inside a quota that was paid for (R5).
    Qps,
    /// In a free group (R2).
    Free,
    /// Admitted, and nothing is charged for it.
    NotBillable,
}

fn kind(calls: &Calls) -> LineKind {
    match (calls.mode, calls.reason) {
        (Mode::PerCall, Reason::Billable) => LineKind::PerCall,
        (Mode::Qps, Reason::Billable) => LineKind::Qps,
        (Mode::Free, Reason::Free | Reason::Billable) => LineKind::Free,
        _ => LineKind::NotBillable,
    }
}

fn per_call_use(
    terms: &PriceTerms,
    walk: &PackWalk<'_>,
    billable: u64,
    group: &GroupInputs,
    at: Utc,
    zone: &TimeZone,
) -> PerCallUse {
    let pack = |(pack, left): (&PackOrder, &u64)| PackUse {
        order: pack.order.clone(),
        origin: pack.origin,
        calls: pack.calls,
        count: pack.count,
        used_before: pack.used_before,
        used: pack
            .granted()
            .saturating_sub(pack.used_before)
            .saturating_sub(*left),
        left: *left,
        delivered: Local::new(pack.delivered, zone),
        expires: Local::new(pack.expires, zone),
        refunded: pack.refunded.map(|refunded| Local::new(refunded, zone)),
        state: pack.state(*left, at),
    };
    let price = price(terms, billable, walk.postpaid);
    PerCallUse {
        billable,
        terms: terms.clone(),
        free: FreeUse {
            granted: terms.free_calls,
            used: terms.free_calls.saturating_sub(walk.free_left),
            left: walk.free_left,
        },
        packs: group.packs.iter().zip(&walk.left).map(pack).collect(),
        postpaid: PostpaidUse {
            calls: walk.postpaid,
            tier_calls: price.tier_calls,
            tier_from: price.tier_from,
            unit_price: price.unit_price,
            amount: price.amount,
        },
    }
}

/// R13, R16: only post-paid calls are debited, one line a group.
fn lines(group: &GroupStatement) -> Vec<StatementLine> {
    let postpaid = group.per_call.iter().map(|per_call| &per_call.postpaid);
    postpaid
        .filter(|postpaid| postpaid.calls > 0)
        .map(|postpaid| StatementLine {
            what: format!("post-paid calls, tier from {}", postpaid.tier_from),
            calls: postpaid.calls,
            unit_price: postpaid.unit_price,
            amount: postpaid.amount,
        })
        .collect()
}

/// R16: packs and QPS were paid when ordered, and are shown apart.
fn paid_lines(inputs: &Inputs, group: &GroupInputs, zone: &TimeZone) -> Vec<PaidLine> {
    let in_month = |at: Utc| inputs.from <= at && at < inputs.until;
    let mut paid = Vec::new();
    let mut line = |at: Utc, order: &str, kind, what, funds: Vec<(Fund, Decimal)>| {
        let mut by_fund = BTreeMap::new();
        for (fund, amount) in &funds {
            let of: &mut Decimal = by_fund.entry(*fund).or_default();
            *of = crate::billing::money(of.saturating_add(*amount));
        }
        let line = PaidLine {
            order: order.to_owned(),
            kind,
            what,
            at: Local::new(at, zone),
            amount: sum(funds.into_iter().map(|(_, amount)| amount)),
            funds: by_fund,
        };
        paid.push((at, line));
    };
    for pack in group.packs.iter().filter(|pack| in_month(pack.delivered)) {
        let PackOrder { order, paid, .. } = pack;
        line(
            pack.delivered,
            order,
            PaidKind::Packs,
            packs_named(pack),
            paid.clone(),
        );
    }
    for purchase in group.purchases.iter().filter(|order| in_month(order.from)) {
        let QpsOrder { order, paid, .. } = purchase;
        let what = format!(
            "{} QPS until {}",
            purchase.qps,
            Local::new(purchase.until, zone)
        );
        line(purchase.from, order, PaidKind::Qps, what, paid.clone());
    }
    for pack in &group.packs {
        if let Some(at) = pack.refunded.filter(|at| in_month(*at)) {
            let back = paid_back(&pack.paid).map(|(fund, amount)| (fund, -amount));
            let what = format!("paid back: {}", packs_named(pack));
            line(at, &pack.order, PaidKind::PaidBack, what, back.collect());
        }
    }
    paid.sort_by_key(|(at, _)| *at);
    paid.into_iter().map(|(_, line)| line).collect()
}

fn packs_named(pack: &PackOrder) -> String {
    let (calls, origin) = (pack.calls, pack.origin);
    match pack.count {
        1 => format!("1 pack of {calls} calls, {origin}"),
        count => format!("{count} packs of {calls} calls, {origin}"),
    }
}
