//! The orders of the files as the rules know them.
//!
//! Owns which of them belong to a month. Must never say what they cover.

use crate::billing::late::Used;
use crate::billing::{LicenceInput, MonthAgain, PackOrder, QpsOrder, Statement};
use crate::config::{Account, Pack, Service};
use crate::model::Utc;
use std::collections::HashMap;

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

/// The purchases of quota that begin in the month.
pub(super) fn purchases(service: &Service, from: Utc, until: Utc) -> Vec<QpsOrder> {
    let of_the_month = service
        .qps_purchases
        .iter()
        .filter(|purchase| from <= purchase.from && purchase.from < until);
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

/// The licences that begin in the month (R19).
pub(super) fn licences(account: &Account, from: Utc, until: Utc) -> Vec<LicenceInput> {
    let orders = account.licences.iter();
    let of_the_month = orders.filter(|order| from <= order.from && order.from < until);
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
