//! A month's statement: what was called, what covered it, what is due and what was paid (R10-R16).

use crate::billing::{KeyCalls, PackState, PriceTerms};
use crate::model::{AccountId, Action, Fund, GroupId, Local, Mode, Origin, Reason};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// Licences for apps, which were paid when ordered, by time (R19).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<PaidLine>,
    /// Due at settlement (R16): the sum of all groups' rounded lines (R13) and adjustments. Below
    /// zero it is a credit.
    pub due: Decimal,
    /// Paid when ordered, less what was paid back: the sum of all groups' paid lines (R16) and of
    /// the licences (R19).
    pub paid_when_ordered: Decimal,
    /// Calls of the account that are on no statement and cost nothing; as
    /// [`Inputs`](crate::billing::Inputs) has them.
    #[serde(default, skip_serializing_if = "crate::billing::inputs::is_zero")]
    pub on_no_statement: u64,
    /// The account's balance over the month; as [`Inputs`](crate::billing::Inputs) has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<StatementBalance>,
    /// `None` as long as it may change.
    pub fixed: Option<Fixed>,
}

impl Statement {
    /// Whether nothing was called, bought, paid or corrected in its month.
    pub(crate) fn has_nothing(&self) -> bool {
        let is_empty = |group: &GroupStatement| {
            group.calls.is_empty()
                && group.not_billable.is_empty()
                && group.lines.is_empty()
                && group.adjustments.is_empty()
                && group.paid.is_empty()
        };
        let balance = self.balance.as_ref();
        let has_entry =
            balance.is_some_and(|of| !of.payments.is_empty() || !of.adjustments.is_empty());
        self.groups.iter().all(is_empty) && self.licences.is_empty() && !has_entry
    }
}

/// The balance before and after a statement (R16, R17).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatementBalance {
    /// The balance when the month began, every earlier statement debited.
    pub before: Decimal,
    /// The payments of the month.
    pub payments: Vec<PaymentLine>,
    /// The manual adjustments of the month. They are not in the statement's total.
    pub adjustments: Vec<ManualLine>,
    /// The statement's total: to be debited on the `settle_day` after the month.
    pub debit: Decimal,
    /// The balance when that is debited.
    pub after: Decimal,
}

/// A payment towards post-paid charges.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PaymentLine {
    /// The order's id.
    pub order: String,
    /// When it counts from.
    pub at: Local,
    /// The amount.
    pub amount: Decimal,
}

/// A manual adjustment of the balance (R16).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ManualLine {
    /// Its id.
    pub id: String,
    /// When it counts from.
    pub at: Local,
    /// In the customer's favour above zero.
    pub amount: Decimal,
    /// Why it was made.
    pub reason: String,
    /// Who decided it.
    pub by: String,
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
    /// The same in English. Empty in what was stored before there was one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title_en: String,
    /// The billable calls, and those of a free group. Late calls are among them.
    pub calls: Vec<ActionCalls>,
    /// The other admitted calls, which cost nothing and count for nothing (R8).
    pub not_billable: Vec<NotBillable>,
    /// The number of these calls that are of earlier months. They came after those were fixed.
    pub late: u64,
    /// All of these calls by the key that proved the account. Empty when all are from before keys
    /// had ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyCalls>,
    /// How the calls in per-call mode were covered. `None` in a free group.
    pub per_call: Option<PerCallUse>,
    /// The billable calls in qps mode, which cost nothing (R5).
    pub qps_calls: u64,
    /// The lines that are due at settlement.
    pub lines: Vec<StatementLine>,
    /// The adjustments of fixed months, one for each month that was computed again (R16).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adjustments: Vec<AdjustmentLine>,
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

/// What a fixed month is charged or credited when it is computed again with late entries (R16).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AdjustmentLine {
    /// The fixed month, as in `2026-11`.
    pub month: String,
    /// `recomputed - fixed - adjusted_before`: a charge above zero, a credit below. Not rounded
    /// again.
    pub amount: Decimal,
    /// What is due of the month for the group, computed again.
    pub recomputed: Decimal,
    /// What the month's own statement charges for the group.
    pub fixed: Decimal,
    /// The adjustments of the month on earlier statements.
    pub adjusted_before: Decimal,
    /// How the month's calls are covered when it is computed again.
    pub per_call: PerCallUse,
}

/// Something paid when it was ordered, or paid back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PaidLine {
    /// The order's id.
    pub order: String,
    /// The kind: an order of packs, of QPS, or a refund.
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
    /// An order of a licence for an app (R19).
    Licence,
}
