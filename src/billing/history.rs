//! What the fixed statements of an account tell of its orders, and its months to be computed again.
//!
//! Owns the reading of fixed statements: the newest that tells of an order or a month counts. Must
//! never change one.

use crate::billing::books_error::BooksError;
use crate::billing::late::{Used, charged};
use crate::billing::orders::{OrderOnce, OrdersOnce};
use crate::billing::statement::{GroupStatement, PaidKind};
use crate::billing::{BalanceInputs, Inputs, Interval, MonthAgain, PackOrder, Statement};
use crate::config::{Account, Service};
use crate::ledger::{Debit, Reader, StoredStatement};
use crate::model::{AccountId, GroupId, Local, Month, Utc};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// After every month there is.
const AFTER_ALL: &str = "9999-12";

/// An order as fixed statements tell of it.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownOrder {
    /// The calls that are used, by the newest that lists it.
    pub used: u64,
    /// The most that any of those that were read shows as used.
    pub most_used: u64,
}

/// What the fixed statements before a month tell of the account's orders.
#[derive(Clone, Debug, Default)]
pub(super) struct Carried {
    /// The month of the newest of them.
    pub newest: Option<Month>,
    /// By order.
    pub orders: HashMap<String, KnownOrder>,
    /// When orders were paid back, by order.
    pub paid_back: HashMap<String, Utc>,
    /// The orders without calls that are on one of them: see [`OrdersOnce`].
    pub once: HashSet<String>,
}

impl Carried {
    /// Reads the account's statements before `month`, the newest first. An order may have been out
    /// of the files for a while, so it goes back until all orders of `services` are told of. For a
    /// refund that no statement knows it goes back to the order's delivery: any of them may show a
    /// use.
    pub(super) fn before(
        reader: &Reader,
        id: &AccountId,
        services: &[Service],
        once: &OrdersOnce<'_>,
        month: &str,
        zone: &TimeZone,
    ) -> Result<Self, BooksError> {
        let mut carried = Self::default();
        let mut before = month.to_owned();
        while let Some(stored) = reader.last_statement(id, &before)? {
            let statement = parse(id, &stored)?;
            let month = Month::parse(&stored.month).map_err(BooksError::Month)?;
            let (begins, until) = month.bounds(zone);
            for group in &statement.groups {
                carried.add(group, until);
            }
            let licences = statement.licences.iter();
            carried.once.extend(licences.map(|line| line.order.clone()));
            carried.newest.get_or_insert(month);
            before = stored.month;
            let packs = services.iter().flat_map(|service| &service.packs);
            let mut older = packs.filter(|pack| pack.delivered < begins);
            let are_told = older.all(|pack| {
                let is_told =
                    pack.refunded.is_none() || carried.paid_back.contains_key(&*pack.order);
                is_told && carried.orders.contains_key(&*pack.order)
            });
            // One that was moved to this month may be on an older one.
            if are_told && once.are_all_in(&carried.once, until) {
                break;
            }
        }
        Ok(carried)
    }

    /// Takes in a group's part of a statement that is older than those before. `until`: the end of
    /// its month.
    fn add(&mut self, group: &GroupStatement, until: Utc) {
        let own = group.per_call.iter().flat_map(|per_call| &per_call.packs);
        // Of the months that were computed again with it, the newest tells what is used.
        let again = group.adjustments.iter().rev();
        let again = again.flat_map(|line| &line.per_call.packs);
        for pack in own.chain(again) {
            let used = pack.used_before.saturating_add(pack.used);
            // Up to schema 5 a statement listed a refund that was still to come.
            let refunded = pack.refunded.as_ref().and_then(instant);
            if let Some(at) = refunded.filter(|at| *at < until) {
                self.paid_back.entry(pack.order.clone()).or_insert(at);
            }
            let known = self.orders.entry(pack.order.clone());
            let known = known.or_insert(KnownOrder {
                used,
                most_used: used,
            });
            known.most_used = known.most_used.max(used);
        }
        // An entry may be of months in which nothing was called.
        for line in &group.paid {
            let order = line.order.clone();
            match (line.kind, instant(&line.at)) {
                (PaidKind::Packs, _) => {
                    self.orders.entry(order).or_default();
                }
                (PaidKind::PaidBack, Some(at)) => {
                    self.paid_back.entry(order).or_insert(at);
                }
                (PaidKind::Qps, _) => {
                    self.once.insert(order);
                }
                (PaidKind::PaidBack | PaidKind::Licence, _) => {}
            }
        }
    }

    /// The calls that were used, by order.
    pub(super) fn used(&self) -> Used {
        let orders = self.orders.iter();
        orders
            .map(|(order, known)| (order.clone(), known.used))
            .collect()
    }
}

fn instant(at: &Local) -> Option<Utc> {
    let at: jiff::Timestamp = at.to_string().parse().ok()?;
    Some(Utc(at.as_microsecond()))
}

/// The account's fixed months from `first` on and before `until`, by group and in order, each as
/// the newest statement that tells of it has it. Only what is priced can be computed again.
pub(super) fn fixed_months(
    reader: &Reader,
    id: &AccountId,
    first: Month,
    until: &str,
) -> Result<BTreeMap<GroupId, Vec<MonthAgain>>, BooksError> {
    let mut stored = Vec::new();
    let mut before = until.to_owned();
    while let Some(next) = reader.last_statement(id, &before)? {
        if next.month < first.to_string() {
            break;
        }
        before.clone_from(&next.month);
        stored.push(next);
    }
    let mut months: BTreeMap<GroupId, BTreeMap<String, MonthAgain>> = BTreeMap::new();
    for stored in stored.iter().rev() {
        let (inputs, statement) = (inputs_of(id, stored)?, parse(id, stored)?);
        for group in &statement.groups {
            let of_group = months.entry(group.group.clone()).or_default();
            let own = as_fixed(&inputs, group);
            of_group.extend(own.map(|own| (own.month.clone(), own)));
            let late = inputs.groups.iter().find(|of| of.group == group.group);
            let again = late.into_iter().flat_map(|of| &of.late_entries.months);
            for again in again.filter(|month| *month.month >= *first.to_string()) {
                let mut lines = group.adjustments.iter();
                let line = lines.find(|line| line.month == again.month);
                let amount = line.map_or(Decimal::ZERO, |line| line.amount);
                let again = MonthAgain {
                    adjusted: again.adjusted.saturating_add(amount),
                    ..again.clone()
                };
                of_group.insert(again.month.clone(), again);
            }
        }
    }
    let in_order = |months: BTreeMap<_, MonthAgain>| months.into_values().collect();
    Ok(months
        .into_iter()
        .map(|(group, months)| (group, in_order(months)))
        .collect())
}

/// An order as a fixed month lists it.
#[derive(Clone, Debug)]
pub(super) struct ListedOrder {
    pub month: String,
    pub group: GroupId,
    pub order: PackOrder,
    /// Whether the newest statement of the account lists it.
    pub is_on_newest: bool,
}

/// The orders of packs that the account's fixed statements list, each as the newest of them does.
/// It goes back until all orders of `services` are found.
pub(super) fn listed_orders(
    reader: &Reader,
    id: &AccountId,
    services: &[Service],
    zone: &TimeZone,
) -> Result<BTreeMap<String, ListedOrder>, BooksError> {
    let mut listed: BTreeMap<String, ListedOrder> = BTreeMap::new();
    let mut before = AFTER_ALL.to_owned();
    let mut is_on_newest = true;
    while let Some(stored) = reader.last_statement(id, &before)? {
        let inputs = inputs_of(id, &stored)?;
        for group in &inputs.groups {
            let again = group.late_entries.months.iter().rev();
            let again = again.flat_map(|month| &month.packs);
            for order in group.packs.iter().chain(again) {
                let listed = listed.entry(order.order.clone());
                listed.or_insert(ListedOrder {
                    month: stored.month.clone(),
                    group: group.group.clone(),
                    order: order.clone(),
                    is_on_newest,
                });
            }
        }
        let month = Month::parse(&stored.month).map_err(BooksError::Month)?;
        let (begins, _) = month.bounds(zone);
        (before, is_on_newest) = (stored.month, false);
        let packs = services.iter().flat_map(|service| &service.packs);
        let mut older = packs.filter(|pack| pack.delivered < begins);
        if older.all(|pack| listed.contains_key(&*pack.order)) {
            break;
        }
    }
    Ok(listed)
}

/// The orders without calls that the account's fixed statements list, with the month of the statement
/// and whether that is the newest. It goes back until all of the account's are found.
pub(super) fn listed_once(
    reader: &Reader,
    account: &Account,
    zone: &TimeZone,
) -> Result<Vec<(OrderOnce, String, bool)>, BooksError> {
    let first = reader.first_settlement()?;
    let first = first.and_then(|first| Month::parse(&first.month).ok());
    let once = OrdersOnce::new(&account.services, &account.licences);
    let once = once.since(first.map(|first| first.bounds(zone).0));
    let (mut listed, mut known) = (Vec::new(), HashSet::new());
    let mut before = AFTER_ALL.to_owned();
    while let Some(stored) = reader.last_statement(&account.id, &before)? {
        let inputs = inputs_of(&account.id, &stored)?;
        let is_newest = before == AFTER_ALL;
        let of_quota = inputs.groups.into_iter().flat_map(|group| {
            let of_group = move |order| OrderOnce::of_quota(&group.group, order);
            group.purchases.into_iter().map(of_group)
        });
        let licences = inputs.licences.into_iter().map(OrderOnce::of_licence);
        for order in of_quota.chain(licences) {
            known.insert(order.order.clone());
            listed.push((order, stored.month.clone(), is_newest));
        }
        let month = Month::parse(&stored.month).map_err(BooksError::Month)?;
        if once.are_all_in(&known, month.bounds(zone).1) {
            break;
        }
        before = stored.month;
    }
    Ok(listed)
}

/// The group's month as its own statement has it.
fn as_fixed(inputs: &Inputs, statement: &GroupStatement) -> Option<MonthAgain> {
    let mut groups = inputs.groups.iter();
    let group = groups.find(|group| group.group == statement.group)?;
    let interval = |of: &Interval| Interval {
        calls: charged(&of.calls),
        ..of.clone()
    };
    Some(MonthAgain {
        month: inputs.month.clone(),
        from: inputs.from,
        until: inputs.until,
        terms: group.terms.clone()?,
        packs: group.packs.clone(),
        intervals: group.intervals.iter().map(interval).collect(),
        late: charged(&group.late),
        fixed: statement.lines.iter().map(|line| line.amount).sum(),
        adjusted: Decimal::ZERO,
    })
}

fn unreadable(id: &AccountId, stored: &StoredStatement, why: &serde_json::Error) -> BooksError {
    BooksError::Stored {
        account: id.clone(),
        month: stored.month.clone(),
        why: why.to_string(),
    }
}

/// A fixed statement as it was stored.
pub(super) fn parse(id: &AccountId, stored: &StoredStatement) -> Result<Statement, BooksError> {
    serde_json::from_str(&stored.statement).map_err(|error| unreadable(id, stored, &error))
}

/// The inputs of a fixed statement as they were stored.
pub(super) fn inputs_of(id: &AccountId, stored: &StoredStatement) -> Result<Inputs, BooksError> {
    serde_json::from_str(&stored.inputs).map_err(|error| unreadable(id, stored, &error))
}

/// The begin of a fixed month and what its statement shows of the balance, by the inputs as they
/// were stored. `None`: it shows nothing.
pub(super) fn balance_of(
    id: &AccountId,
    month: &str,
    inputs: &str,
) -> Result<Option<(Utc, BalanceInputs)>, BooksError> {
    /// The part of [`Inputs`] that this asks for: the rest need not be read.
    #[derive(Deserialize)]
    struct BalanceOnly {
        from: Utc,
        balance: Option<BalanceInputs>,
    }
    let read: BalanceOnly = serde_json::from_str(inputs).map_err(|error| BooksError::Stored {
        account: id.clone(),
        month: month.to_owned(),
        why: error.to_string(),
    })?;
    Ok(read.balance.map(|balance| (read.from, balance)))
}

/// What a fixed statement charges.
pub(crate) fn amount(stored: &Debit) -> Result<Decimal, BooksError> {
    stored
        .due
        .parse()
        .map_err(|error: rust_decimal::Error| BooksError::Stored {
            account: stored.account.clone(),
            month: stored.month.clone(),
            why: error.to_string(),
        })
}
