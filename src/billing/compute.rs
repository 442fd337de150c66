//! How a statement is computed from its inputs (R10 to R16). Pure.

use crate::billing::explain::computed;
use crate::billing::ladder::price;
use crate::billing::late::walk;
use crate::billing::packs::PackWalk;
use crate::billing::refund::{paid_back, sum};
use crate::billing::statement::{
    ActionCalls, AdjustmentLine, FreeUse, GroupStatement, ManualLine, NotBillable, PackUse,
    PaidKind, PaidLine, PaymentLine, PerCallUse, PostpaidUse, Statement, StatementBalance,
    StatementLine,
};
use crate::billing::{
    BalanceInputs, Calls, GroupInputs, Inputs, LateEntries, LicenceInput, MonthAgain, PackOrder,
    PriceTerms, QpsOrder, money,
};
use crate::model::{Fund, Local, Mode, Reason, Utc};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use std::collections::BTreeMap;

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
    let adjustments = groups.iter().flat_map(|group| &group.adjustments);
    let licences = licences(inputs, &zone);
    let paid = groups.iter().flat_map(|group| &group.paid);
    let paid = paid.chain(&licences);
    // R13: the total is the sum of the rounded lines, not the rounded sum.
    let due = sum(lines
        .map(|line| line.amount)
        .chain(adjustments.map(|line| line.amount)));
    Statement {
        account: inputs.account.clone(),
        name: inputs.name.clone(),
        month: inputs.month.clone(),
        time_zone: inputs.time_zone.clone(),
        currency: inputs.currency.clone(),
        from: Local::new(inputs.from, &zone),
        until: Local::new(inputs.until, &zone),
        counted_until: Local::new(inputs.counted_until, &zone),
        due,
        paid_when_ordered: sum(paid.map(|line| line.amount)),
        groups,
        licences,
        on_no_statement: inputs.on_no_statement,
        balance: inputs
            .balance
            .as_ref()
            .map(|balance| statement_balance(balance, due, &zone)),
        fixed: None,
    }
}

fn group_statement(inputs: &Inputs, group: &GroupInputs, zone: &TimeZone) -> GroupStatement {
    let per_call = group.terms.as_ref().map(|terms| {
        let GroupInputs {
            packs,
            late,
            intervals,
            ..
        } = group;
        let (walk, billable) = walk(terms.free_calls, packs, inputs.from, late, intervals);
        (terms, walk, billable)
    });

    let counted = group.intervals.iter().flat_map(|interval| &interval.calls);
    let all = group.late.iter().chain(counted);
    let ActionSums {
        calls,
        not_billable,
        qps_calls,
    } = sums_by_action(all);

    let mut statement = GroupStatement {
        group: group.group.clone(),
        title: group.title.clone(),
        title_en: group.title_en.clone(),
        calls,
        not_billable,
        late: group
            .late
            .iter()
            .fold(0, |sum, calls| sum.saturating_add(calls.calls)),
        keys: group.keys.clone(),
        per_call: per_call.as_ref().map(|(terms, walk, billable)| {
            let (packs, at) = (&group.packs, inputs.counted_until);
            per_call_use(terms, walk, *billable, packs, at, zone)
        }),
        qps_calls,
        lines: Vec::new(),
        adjustments: group
            .late_entries
            .months
            .iter()
            .map(|month| adjustment(month, zone))
            .collect(),
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
    packs: &[PackOrder],
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
        packs: packs.iter().zip(&walk.left).map(pack).collect(),
        postpaid: PostpaidUse {
            calls: walk.postpaid,
            tier_calls: price.tier_calls,
            tier_from: price.tier_from,
            unit_price: price.unit_price,
            amount: price.amount,
        },
    }
}

/// R16: the month computed again, less what it was charged already. All three are sums of rounded
/// lines, so that nothing is rounded again.
fn adjustment(month: &MonthAgain, zone: &TimeZone) -> AdjustmentLine {
    let (walk, billable) = month.walk();
    let per_call = per_call_use(
        &month.terms,
        &walk,
        billable,
        &month.packs,
        month.until,
        zone,
    );
    let recomputed = per_call.postpaid.amount;
    let charged = month.fixed.saturating_add(month.adjusted);
    AdjustmentLine {
        month: month.month.clone(),
        amount: money(recomputed.saturating_sub(charged)),
        recomputed: money(recomputed),
        fixed: money(month.fixed),
        adjusted_before: money(month.adjusted),
        per_call,
    }
}

/// R16, R17: the balance before and after the statement.
fn statement_balance(inputs: &BalanceInputs, debit: Decimal, zone: &TimeZone) -> StatementBalance {
    let BalanceInputs {
        before,
        payments,
        adjustments,
    } = inputs;
    let paid = payments.iter().map(|payment| payment.amount);
    let adjusted = adjustments.iter().map(|adjustment| adjustment.amount);
    let after = sum([*before].into_iter().chain(paid).chain(adjusted));
    StatementBalance {
        before: money(*before),
        payments: payments
            .iter()
            .map(|payment| PaymentLine {
                order: payment.order.clone(),
                at: Local::new(payment.at, zone),
                amount: money(payment.amount),
            })
            .collect(),
        adjustments: adjustments
            .iter()
            .map(|adjustment| ManualLine {
                id: adjustment.id.clone(),
                at: Local::new(adjustment.at, zone),
                amount: money(adjustment.amount),
                reason: adjustment.reason.clone(),
                by: adjustment.by.clone(),
            })
            .collect(),
        debit,
        after: money(after.saturating_sub(debit)),
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
        let line = paid_line(Local::new(at, zone), order, kind, what, funds);
        paid.push((at, line));
    };
    let LateEntries {
        orders, refunds, ..
    } = &group.late_entries;
    let delivered = group.packs.iter().filter(|pack| in_month(pack.delivered));
    for pack in orders.iter().chain(delivered) {
        let PackOrder { order, paid, .. } = pack;
        line(
            pack.delivered,
            order,
            PaidKind::Packs,
            packs_named(pack),
            paid.clone(),
        );
    }
    // Those of fixed months that are on no statement are among them.
    for purchase in &group.purchases {
        let QpsOrder { order, paid, .. } = purchase;
        let what = format!(
            "{} QPS until {}",
            purchase.qps,
            Local::new(purchase.until, zone)
        );
        line(purchase.from, order, PaidKind::Qps, what, paid.clone());
    }
    let refunded = group.packs.iter();
    let refunded = refunded.filter(|pack| pack.refunded.is_some_and(in_month));
    for pack in orders.iter().chain(refunds).chain(refunded) {
        if let Some(at) = pack.refunded {
            let back = paid_back(&pack.paid).map(|(fund, amount)| (fund, -amount));
            let what = format!("paid back: {}", packs_named(pack));
            line(at, &pack.order, PaidKind::PaidBack, what, back.collect());
        }
    }
    paid.sort_by_key(|(at, _)| *at);
    paid.into_iter().map(|(_, line)| line).collect()
}

/// R19: licences were paid when ordered, like packs and QPS.
fn licences(inputs: &Inputs, zone: &TimeZone) -> Vec<PaidLine> {
    let mut orders: Vec<_> = inputs.licences.iter().collect();
    orders.sort_by_key(|order| order.from);
    let line = |of: &LicenceInput| {
        let what = format!(
            "licence of {} until {}",
            of.package,
            Local::new(of.until, zone)
        );
        let at = Local::new(of.from, zone);
        paid_line(at, &of.order, PaidKind::Licence, what, of.paid.clone())
    };
    orders.into_iter().map(line).collect()
}

fn paid_line(
    at: Local,
    order: &str,
    kind: PaidKind,
    what: String,
    funds: Vec<(Fund, Decimal)>,
) -> PaidLine {
    let mut by_fund = BTreeMap::new();
    for (fund, amount) in &funds {
        let of: &mut Decimal = by_fund.entry(*fund).or_default();
        *of = money(of.saturating_add(*amount));
    }
    PaidLine {
        order: order.to_owned(),
        kind,
        what,
        at,
        amount: sum(funds.into_iter().map(|(_, amount)| amount)),
        funds: by_fund,
    }
}

fn packs_named(pack: &PackOrder) -> String {
    let (calls, origin) = (pack.calls, pack.origin);
    match pack.count {
        1 => format!("1 pack of {calls} calls, {origin}"),
        count => format!("{count} packs of {calls} calls, {origin}"),
    }
}

#[cfg(test)]
mod tests;
