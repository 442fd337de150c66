//! The balance of an account, and the calls that are left of its free pack and its orders of packs.
//!
//! Owns what is shown of it. Must never decide a rule itself: the rules of
//! [`billing`] do.

use crate::billing::books::{AccountRef, Books, BooksError};
use crate::billing::history::{amount, parse};
use crate::billing::{self, FreeUse, GroupStatement, Notice, PackState, Statement};
use crate::config::{Account, Charging};
use crate::ledger::Reader;
use crate::model::{AccountId, GroupId, Local, Month, Stop, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// The balance of an account, and the calls that are left. For the operator, the account and the
/// notices.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Balances {
    /// The running month.
    pub month: String,
    /// Payments and manual adjustments less what settlements debited (R17).
    pub balance: Decimal,
    /// Whether paid services are stopped for arrears: because the balance is too far below zero, or
    /// by the files.
    pub in_arrears: bool,
    /// The amount of the running month's post-paid calls so far, with the adjustments that its
    /// statement carries (R16).
    pub due_so_far: Decimal,
    /// The groups that the account opened or called.
    pub services: BTreeMap<GroupId, ServiceBalance>,
}

/// The calls of one group: admitted, billable, and left.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServiceBalance {
    /// The number of calls on the running month's statement so far.
    pub admitted: u64,
    /// The number of them that are billable.
    pub billable: u64,
    /// The month's free pack (R10); `None` in a free group.
    pub free_calls: Option<FreeUse>,
    /// The orders of packs that can cover calls now, in the order in which they will (R12).
    pub packs: Vec<PackBalance>,
    /// The notices that these orders have given rise to (R14).
    pub notices: Vec<Notice>,
}

/// The calls that are left of an order of packs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PackBalance {
    /// The id of the order.
    pub order: String,
    /// The size of one pack, in calls.
    pub calls: u64,
    /// The number of packs.
    pub count: u32,
    /// The number of calls that are left in all its packs.
    pub left: u64,
    /// The number of calls that are left in the pack in use. 0 when all packs are used up.
    pub left_in_use: u64,
    /// The instant at which the order ends.
    pub expires: Local,
}

impl Books<'_> {
    /// The balances of the account now, with the payments that count by `paid_by`.
    pub(crate) fn balances(
        &self,
        sold: AccountRef<'_>,
        paid_by: Utc,
    ) -> Result<Balances, BooksError> {
        let month = Month::of(self.now, &self.catalog.time_zone);
        let statement = match self.stored(sold.id, month)? {
            Some(fixed) => fixed,
            None => billing::statement(&self.counted(sold, month)?),
        };
        let balance = balance(sold.account, debited(self.reader, sold.id)?, paid_by);
        let mut services = BTreeMap::new();
        for group in &statement.groups {
            services.insert(group.group.clone(), self.service_balance(sold.id, group));
        }
        let mut stops = sold.services().iter().map(|service| service.stopped);
        let in_arrears = in_arrears(sold.account, balance, || self.credits(sold))?;
        Ok(Balances {
            month: statement.month,
            balance,
            in_arrears: in_arrears || stops.any(|s| s == Some(Stop::Arrears)),
            due_so_far: statement.due,
            services,
        })
    }

    /// What late entries take back that is not debited yet (R17), zero or more: nobody is stopped
    /// for a debt that the next statement takes back. Charges of late entries count against it.
    pub(crate) fn credits(&self, sold: AccountRef<'_>) -> Result<Decimal, BooksError> {
        let adjusted = |statement: &Statement| -> Decimal {
            let lines = statement.groups.iter().flat_map(|group| &group.adjustments);
            lines.map(|line| line.amount).sum()
        };
        let month = Month::of(self.now, &self.catalog.time_zone);
        let next = self.next_statement(sold, month)?;
        let mut charges = next.as_ref().map_or(Decimal::ZERO, adjusted);
        for settlement in self.reader.not_debited()? {
            let stored = self.reader.stored_statement(&settlement.month, sold.id)?;
            if let Some(stored) = stored {
                charges += adjusted(&parse(sold.id, &stored)?);
            }
        }
        Ok((-charges).max(Decimal::ZERO))
    }

    fn service_balance(&self, id: &AccountId, group: &GroupStatement) -> ServiceBalance {
        let notice_below = self.notice_below(&group.group);
        let use_of = group.per_call.as_ref();
        let valid = use_of.into_iter().flat_map(|use_of| &use_of.packs);
        let valid =
            valid.filter(|pack| matches!(pack.state, PackState::Valid | PackState::Exhausted));
        let (mut packs, mut notices) = (Vec::new(), Vec::new());
        for pack in valid {
            let used = pack.used_before + pack.used;
            let (left_in_use, size) = billing::pack_in_use(pack.calls, pack.count, used);
            packs.push(PackBalance {
                order: pack.order.clone(),
                calls: size,
                count: pack.count,
                left: pack.left,
                left_in_use,
                expires: pack.expires.clone(),
            });
            notices.extend(billing::notices(
                id,
                &pack.order,
                pack.calls,
                pack.count,
                used,
                notice_below,
            ));
        }
        let served: u64 = group.calls.iter().map(|calls| calls.calls).sum();
        let not_billable: u64 = group.not_billable.iter().map(|calls| calls.calls).sum();
        ServiceBalance {
            admitted: served + not_billable,
            billable: use_of.map_or(0, |use_of| use_of.billable) + group.qps_calls,
            free_calls: use_of.map(|use_of| use_of.free.clone()),
            packs,
            notices,
        }
    }

    fn notice_below(&self, group: &GroupId) -> Decimal {
        let of_group = self.catalog.groups.iter().find(|known| known.id == *group);
        match of_group.map(|group| &group.charging) {
            Some(Charging::Paid { per_call, .. }) => per_call.notice_below,
            _ => Decimal::ZERO,
        }
    }
}

/// The payments and manual adjustments in the files that count by `paid_by`, less the debits (R17).
/// For an account that was taken out of the files nothing of that is known: it owes its debits.
pub(crate) fn balance(account: Option<&Account>, debited: Decimal, paid_by: Utc) -> Decimal {
    let payments = account.into_iter().flat_map(|account| &account.payments);
    let adjustments = account.into_iter().flat_map(|account| &account.adjustments);
    let payments = payments.map(|payment| (payment.at, payment.amount));
    let adjustments = adjustments.map(|adjustment| (adjustment.at, adjustment.amount));
    billing::balance(payments.chain(adjustments), debited, paid_by)
}

/// The balance of an account from which nothing was debited.
pub(crate) fn undebited(account: &Account, paid_by: Utc) -> Decimal {
    balance(Some(account), Decimal::ZERO, paid_by)
}

/// Whether something is owed.
pub(crate) fn is_debt(balance: Decimal) -> bool {
    balance < Decimal::ZERO
}

/// Whether the account is in arrears by this balance (R17). `credits` is asked for only when they
/// decide it: see [`Books::credits`].
pub(crate) fn in_arrears<E>(
    account: Option<&Account>,
    balance: Decimal,
    credits: impl FnOnce() -> Result<Decimal, E>,
) -> Result<bool, E> {
    let limit = account.map_or(Decimal::ZERO, |account| account.credit_limit);
    if !billing::in_arrears(balance, Decimal::ZERO, limit) {
        return Ok(false);
    }
    Ok(billing::in_arrears(balance, credits()?, limit))
}

/// The sum that the settlements have debited, by account.
pub(crate) fn debits(reader: &Reader) -> Result<HashMap<AccountId, Decimal>, BooksError> {
    let mut debits: HashMap<AccountId, Decimal> = HashMap::new();
    for stored in reader.debits(None)? {
        *debits.entry(stored.account.clone()).or_default() += amount(&stored)?;
    }
    Ok(debits)
}

/// The newest month whose settlement is debited.
pub(crate) fn last_debited(reader: &Reader) -> Result<Option<String>, BooksError> {
    let settled = reader.settlements()?.into_iter();
    let debited = settled.filter(|of| of.debited_at.is_some());
    Ok(debited.map(|of| of.month).max())
}

/// The sum that the settlements have debited from one account.
pub(crate) fn debited(reader: &Reader, id: &AccountId) -> Result<Decimal, BooksError> {
    let mut debited = Decimal::ZERO;
    for stored in reader.debits(Some(id))? {
        debited += amount(&stored)?;
    }
    Ok(debited)
}
