//! All that a statement is computed from, and how money is rounded.

use crate::model::{
    AccountId, Action, Fund, GroupId, KeyId, Mode, Origin, Package, Reason, TierBasis, Utc,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// All that one account's statement of one month is computed from. A fixed statement is stored with
/// it, so that anybody can compute it again whatever the files say by then.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Inputs {
    /// The account of the statement.
    pub account: AccountId,
    /// The name of the account, for people.
    pub name: String,
    /// The month, as in `2026-11`.
    pub month: String,
    /// The provider's zone by its IANA name: dates are written in it (R16).
    pub time_zone: String,
    /// The currency: three capital letters.
    pub currency: String,
    /// The month's first instant.
    pub from: Utc,
    /// The next month's first instant.
    pub until: Utc,
    /// Calls are counted until here: `until`, or earlier while the month runs. Packs are shown as
    /// they are at this instant.
    pub counted_until: Utc,
    /// The groups that the account opened or called, in the catalogue's order.
    pub groups: Vec<GroupInputs>,
    /// The orders of licences for apps that begin in the month: paid when ordered (R19).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<LicenceInput>,
    /// Calls of the account that are on no statement: they came later than an older rule allowed,
    /// which some months were fixed by. Nothing is due for them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub on_no_statement: u64,
    /// The account's balance when the month began, and what people changed of it in the month.
    /// `None` for an account that the files do not name, and in statements of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<BalanceInputs>,
}

/// What a statement shows of the account's balance (R16, R17). As the files had it then: a payment
/// that is entered later is part of a later `before`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BalanceInputs {
    /// Payments and manual adjustments before the month, less what the statements before it charge.
    pub before: Decimal,
    /// The payments that count from an instant of the month, by time.
    pub payments: Vec<PaymentInput>,
    /// The manual adjustments of the month, by time.
    pub adjustments: Vec<ManualAdjustment>,
}

/// A payment towards post-paid charges.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PaymentInput {
    /// The order's id.
    pub order: String,
    /// When it counts from.
    pub at: Utc,
    /// The amount.
    pub amount: Decimal,
}

/// A correction of the balance that people decided (R16).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ManualAdjustment {
    /// Its id.
    pub id: String,
    /// When it counts from.
    pub at: Utc,
    /// In the customer's favour above zero.
    pub amount: Decimal,
    /// Why it was made.
    pub reason: String,
    /// Who decided it.
    pub by: String,
}

pub(super) fn is_zero(calls: &u64) -> bool {
    *calls == 0
}

/// One group's part of [`Inputs`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupInputs {
    /// The group of these inputs.
    pub group: GroupId,
    /// The title of the group, for people.
    pub title: String,
    /// The same in English. Empty in what was stored before there was one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title_en: String,
    /// The terms of per-call mode. `None` in a free group (R2).
    pub terms: Option<PriceTerms>,
    /// The orders of packs that were delivered before the month's end and had not ended before it
    /// began, in the order of the file.
    pub packs: Vec<PackOrder>,
    /// The QPS purchases that begin in the month: paid when ordered (R15).
    pub purchases: Vec<QpsOrder>,
    /// The calls admitted in the month, by intervals that are ascending and leave no gap. No pack
    /// begins or ends inside one ([`boundaries`](crate::billing::boundaries)).
    pub intervals: Vec<Interval>,
    /// Calls of earlier months that reached the ledger after their statement was fixed: billed as
    /// calls of this month's first instant (ours).
    pub late: Vec<Calls>,
    /// The same calls by the key that proved the account, those of the month and late ones, in order
    /// of key. Empty when all are from before keys had ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyCalls>,
    /// What became known of fixed months since the statement before (R16).
    #[serde(default, skip_serializing_if = "LateEntries::is_empty")]
    pub late_entries: LateEntries,
}

/// The calls of one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyCalls {
    /// The id of the key. Empty for calls from before keys had ids.
    pub key: KeyId,
    /// The number of admitted calls.
    pub calls: u64,
    /// The number of billable ones among them, in any mode.
    pub billable: u64,
}

/// Orders and refunds that are dated in fixed months, and were not known when these were fixed
/// (R16). Each is on the first statement that is fixed afterwards.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LateEntries {
    /// The orders of packs, by time of delivery. One that was paid back as well has its refund.
    pub orders: Vec<PackOrder>,
    /// Orders that fixed months list, and that were paid back in a fixed month as is known now.
    pub refunds: Vec<PackOrder>,
    /// Each fixed month from the earliest of them on, to be computed again, in order.
    pub months: Vec<MonthAgain>,
}

impl LateEntries {
    /// Whether nothing became known.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.refunds.is_empty()
    }
}

/// What a fixed month is computed again from: as it was fixed, with the late entries (R16).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MonthAgain {
    /// The month, as in `2026-11`.
    pub month: String,
    /// The month's first instant.
    pub from: Utc,
    /// The next month's first instant.
    pub until: Utc,
    /// The terms as fixed.
    pub terms: PriceTerms,
    /// The orders that the month was fixed with, and the late ones. `used_before` is what the
    /// months before used when they are computed again.
    pub packs: Vec<PackOrder>,
    /// The billable calls in per-call mode as fixed, also cut where a late entry begins or ends.
    pub intervals: Vec<Interval>,
    /// The late calls among them, which were billed at the month's first instant.
    pub late: Vec<Calls>,
    /// What the month's own statement charges for the group.
    pub fixed: Decimal,
    /// The adjustments of this month on earlier statements.
    pub adjusted: Decimal,
}

/// The catalogue's terms of per-call mode, as far as a statement needs them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PriceTerms {
    /// The number of calls in the month's free pack (R10).
    pub free_calls: u64,
    /// The calls that decide the tier (R13).
    pub tier_basis: TierBasis,
    /// The tiers: the number of calls at which each begins, and the price of a call. Ascending from
    /// 0 (R13).
    pub tiers: Vec<(u64, Decimal)>,
}

/// An order of prepaid packs (R11).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PackOrder {
    /// The order's id.
    pub order: String,
    /// The size of one pack, in calls.
    pub calls: u64,
    /// The number of packs.
    pub count: u32,
    /// The instant from which the order covers calls.
    pub delivered: Utc,
    /// The instant from which the order covers nothing any more.
    pub expires: Utc,
    /// The instant of its refund, from which it covers nothing.
    pub refunded: Option<Utc>,
    /// How the account came by the order.
    pub origin: Origin,
    /// The amount that each fund paid.
    pub paid: Vec<(Fund, Decimal)>,
    /// The number of calls that it covered before the month began.
    pub used_before: u64,
}

/// A QPS purchase as far as a statement shows it (R15).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QpsOrder {
    /// The order's id.
    pub order: String,
    /// The quota that was bought, in calls per second.
    pub qps: u32,
    /// The instant from which the quota is in force.
    pub from: Utc,
    /// The instant at which the purchase ends.
    pub until: Utc,
    /// The amount that each fund paid.
    pub paid: Vec<(Fund, Decimal)>,
}

/// An order of a licence as far as a statement shows it (R19).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LicenceInput {
    /// The order's id.
    pub order: String,
    /// The app that it is for.
    pub package: Package,
    /// The instant from which the licence is in force.
    pub from: Utc,
    /// The instant at which it ends.
    pub until: Utc,
    /// The amount that each fund paid.
    pub paid: Vec<(Fund, Decimal)>,
}

/// The calls admitted in `[from, until)`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Interval {
    /// The first instant.
    pub from: Utc,
    /// The instant at which the interval ends.
    pub until: Utc,
    /// The calls by kind. Each kind occurs once.
    pub calls: Vec<Calls>,
}

/// Calls that are alike in all that a bill asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Calls {
    /// The action that was called.
    pub action: Action,
    /// The mode in force at the admission (R3).
    pub mode: Mode,
    /// Why they are not billable, or [`Reason::Billable`].
    pub reason: Reason,
    /// The number of calls.
    pub calls: u64,
}

/// As people read it: with the two decimals of the currency (R13, ours); with more only when the
/// amount has them, for nothing is cut off.
pub(crate) fn money(amount: Decimal) -> Decimal {
    let mut amount = amount.normalize();
    if amount.scale() < 2 {
        amount.rescale(2);
    }
    amount
}
