//! The orders of the files as the rules know them.
//!
//! Owns which of them belong to a month. Must never say what they cover.

use crate::billing::late::Used;
use crate::billing::{LicenceInput, MonthAgain, PackOrder, QpsOrder, Statement};
use crate::config::{Account, LicenceOrder, Pack, Service};
use crate::model::{Fund, GroupId, Utc};
use rust_decimal::Decimal;
use std::collections::{HashMap, HashSet};

/// What decides how an order of the files counts: what was used and paid back of it before.
#[derive(Clone, Debug, Default)]
pub(super) struct OrderStates {
    /// The calls that were used before the month.
    pub used: Used,
    /// The most calls that any statement showed as used.
    pub most_used: Used,
    /// The refunds that are accepted, by order.
    pub refunds: HashMap<String, Utc>,
    /// The entries that are refused, by order.
    pub refused: HashMap<String, Refused>,
    /// The orders without calls that are on a statement: see [`OrdersOnce`].
    pub once: HashSet<String>,
    /// The begin of the first fixed month, where the next statement carries what is dated in fixed
    /// months and is on none.
    pub late_from: Option<Utc>,
}

/// An account's orders that cover no calls: purchases of quota (R15) and licences (R19). Each is on one
/// statement, as paid when ordered: that of the month in which it begins, or the next one when that
/// was fixed without it. It is not on a second one when its date is changed.
#[derive(Clone, Debug, Default)]
pub(super) struct OrdersOnce<'a>(Vec<(&'a str, Utc)>);

impl<'a> OrdersOnce<'a> {
    pub(super) fn new(services: &'a [Service], licences: &'a [LicenceOrder]) -> Self {
        let purchases = services.iter().flat_map(|service| &service.qps_purchases);
        let purchases = purchases.map(|order| (&*order.order, order.from));
        let licences = licences.iter().map(|order| (&*order.order, order.from));
        Self(purchases.chain(licences).collect())
    }

    /// Those that begin at this instant or after it.
    pub(super) fn since(mut self, first: Option<Utc>) -> Self {
        self.0
            .retain(|(_, from)| first.is_none_or(|first| first <= *from));
        self
    }

    /// Whether all that begin before `until` are in `listed`.
    pub(super) fn are_all_in(&self, listed: &HashSet<String>, until: Utc) -> bool {
        let mut before = self.0.iter().filter(|(_, from)| *from < until);
        before.all(|(order, _)| listed.contains(*order))
    }

    /// Whether one begins in a fixed month, before `until`, and is on no statement.
    pub(super) fn has_late(&self, states: &OrderStates, until: Utc) -> bool {
        let is_late = |(order, from): &(&str, Utc)| {
            let is_fixed = states.late_from.is_some_and(|late| late <= *from);
            is_fixed && *from < until && !states.once.contains(*order)
        };
        self.0.iter().any(is_late)
    }
}

/// One of these orders, for whoever compares the files with a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OrderOnce {
    pub order: String,
    /// Where in the files it stands.
    pub place: String,
    /// What was bought.
    pub what: String,
    pub from: Utc,
    pub until: Utc,
    pub paid: Vec<(Fund, Decimal)>,
}

impl OrderOnce {
    pub(super) fn of_quota(group: &GroupId, order: QpsOrder) -> Self {
        Self {
            order: order.order,
            place: group.to_string(),
            what: format!("{} QPS", order.qps),
            from: order.from,
            until: order.until,
            paid: order.paid,
        }
    }

    pub(super) fn of_licence(order: LicenceInput) -> Self {
        Self {
            order: order.order,
            place: "licences".to_owned(),
            what: format!("licence of {}", order.package),
            from: order.from,
            until: order.until,
            paid: order.paid,
        }
    }

    /// All of an account.
    pub(super) fn of_files(account: &Account) -> Vec<Self> {
        let (ever, states) = ((Utc(i64::MIN), Utc(i64::MAX)), OrderStates::default());
        let of_quota = |service: &Service| {
            let orders = purchases(service, ever, &states).into_iter();
            let of_group = |order| Self::of_quota(&service.group, order);
            orders.map(of_group).collect::<Vec<_>>()
        };
        let bought = account.services.iter().flat_map(of_quota);
        let licences = licences(account, ever, &states).into_iter();
        bought.chain(licences.map(Self::of_licence)).collect()
    }
}

/// Why an entry of the files does not count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// The order is dated in a fixed month that cannot be computed again.
    Order,
    /// The refund is dated in a fixed month that cannot be computed again.
    Refund,
    /// So many calls of the order are used, and only an unused one is paid back (R18).
    Used(u64),
}

impl OrderStates {
    /// Takes in what is used when a month of theirs is computed again.
    pub(super) fn add_used(&mut self, month: &MonthAgain) {
        for (order, used) in month.used_after() {
            let most = self.most_used.entry(order.clone()).or_default();
            *most = used.max(*most);
            self.used.insert(order, used);
        }
    }

    /// Takes in what is used after a statement.
    pub(super) fn add_statement(&mut self, statement: &Statement) {
        for (order, used) in used_after(statement) {
            let most = self.most_used.entry(order.clone()).or_default();
            *most = used.max(*most);
            self.used.insert(order, used);
        }
    }

    /// Refuses refunds that are dated before the first fixed month, of orders that are used (R18).
    pub(super) fn refuse_history(&mut self, packs: &[Pack], first: Utc) {
        let new = packs.iter().filter(|pack| {
            let is_history = pack.refunded.is_some_and(|at| at < first);
            is_history && !self.refunds.contains_key(&*pack.order)
        });
        let used = new.filter_map(|pack| Some((pack, *self.most_used.get(&*pack.order)?)));
        let used: Vec<_> = used.filter(|(_, used)| *used > 0).collect();
        for (pack, used) in used {
            let order = pack.order.to_string();
            self.refused.insert(order, Refused::Used(used));
        }
    }

    /// Whether an order without calls that begins at `at` is on the statement of the month.
    fn is_listed_in(&self, order: &str, at: Utc, (from, until): (Utc, Utc)) -> bool {
        let first = self.late_from.unwrap_or(from).min(from);
        first <= at && at < until && !self.once.contains(order)
    }

    /// Whether the order covers nothing at all.
    fn is_refused(&self, order: &str) -> bool {
        self.refused.get(order) == Some(&Refused::Order)
    }

    /// When the order was paid back; a refund that is refused is none, and one after `until` is
    /// none yet.
    fn refunded(&self, pack: &Pack, until: Utc) -> Option<Utc> {
        let refunded = match self.refunds.get(&*pack.order) {
            Some(accepted) => Some(*accepted),
            None if self.refused.contains_key(&*pack.order) => None,
            None => pack.refunded,
        };
        refunded.filter(|at| *at < until)
    }
}

/// The orders that can cover calls of the month.
pub(super) fn packs(
    service: &Service,
    (from, until): (Utc, Utc),
    states: &OrderStates,
) -> Vec<PackOrder> {
    let packs = service.packs.iter();
    let packs = packs.filter(|pack| !states.is_refused(&pack.order));
    let packs = packs.map(|pack| PackOrder {
        refunded: states.refunded(pack, until),
        ..order(pack, states.used.get(&*pack.order).copied().unwrap_or(0))
    });
    packs
        .filter(|pack| pack.delivered < until && pack.ends() > from)
        .collect()
}

/// The calls of each order that are used after the statement.
pub(super) fn used_after(statement: &Statement) -> Used {
    let packs = statement
        .groups
        .iter()
        .filter_map(|group| group.per_call.as_ref())
        .flat_map(|per_call| &per_call.packs);
    packs
        .map(|pack| (pack.order.clone(), pack.used_before + pack.used))
        .collect()
}

/// The order as the rules know it, of which so many calls were used.
pub(super) fn order(pack: &Pack, used_before: u64) -> PackOrder {
    PackOrder {
        order: pack.order.to_string(),
        calls: pack.calls,
        count: pack.count,
        delivered: pack.delivered,
        expires: pack.expires,
        refunded: pack.refunded,
        origin: pack.origin,
        paid: pack.paid.funds().collect(),
        used_before,
    }
}

/// The purchases of quota that the statement of the month lists.
pub(super) fn purchases(
    service: &Service,
    month: (Utc, Utc),
    states: &OrderStates,
) -> Vec<QpsOrder> {
    let of_the_month = service
        .qps_purchases
        .iter()
        .filter(|purchase| states.is_listed_in(&purchase.order, purchase.from, month));
    of_the_month
        .map(|purchase| QpsOrder {
            order: purchase.order.to_string(),
            qps: purchase.qps,
            from: purchase.from,
            until: purchase.until,
            paid: purchase.paid.funds().collect(),
        })
        .collect()
}

/// The licences that the statement of the month lists (R19).
pub(super) fn licences(
    account: &Account,
    month: (Utc, Utc),
    states: &OrderStates,
) -> Vec<LicenceInput> {
    let orders = account.licences.iter();
    let of_the_month = orders.filter(|order| states.is_listed_in(&order.order, order.from, month));
    of_the_month
        .map(|order| LicenceInput {
            order: order.order.to_string(),
            package: order.package.clone(),
            from: order.from,
            until: order.until,
            paid: order.paid.funds().collect(),
        })
        .collect()
}
