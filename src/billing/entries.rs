//! Which entries of the files are late, and what they change of fixed months (R16, R18).
//!
//! Owns the finding of late entries, and the refusal of those that cannot count. Must never look at
//! anything but the files, the fixed statements and the records that these count.

use crate::billing::books_error::BooksError;
use crate::billing::count::calls_between;
use crate::billing::history::{Carried, fixed_months};
use crate::billing::late::{again, used_of};
use crate::billing::orders::{OrderStates, Refused, order};
use crate::billing::window::SealedWindow;
use crate::billing::{Calls, LateEntries, MonthAgain, PackOrder};
use crate::config::{Pack, Service};
use crate::ledger::{ReadError, Reader};
use crate::model::{AccountId, GroupId, Month, Utc};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, HashMap};

/// The account whose entries are looked at, and the months that are fixed for it.
#[derive(Clone, Copy)]
pub(super) struct FixedMonths<'e> {
    pub reader: &'e Reader,
    pub zone: &'e TimeZone,
    pub id: &'e AccountId,
    /// The first fixed month of the ledger. What is dated before it is history.
    pub first: Month,
    /// The first month that is not fixed.
    pub next: Month,
}

/// What the next statement carries of late entries, and how orders stand when its month begins.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub late: BTreeMap<GroupId, LateEntries>,
    pub states: OrderStates,
}

impl FixedMonths<'_> {
    fn has(&self, at: Utc) -> bool {
        let (from, until) = (
            self.first.bounds(self.zone).0,
            self.next.bounds(self.zone).0,
        );
        from <= at && at < until
    }

    /// Finds the entries of `services` that are dated in a fixed month and that no statement knows.
    pub(super) fn find(
        &self,
        services: &[Service],
        carried: &Carried,
    ) -> Result<Found, BooksError> {
        let mut found = Found {
            late: BTreeMap::new(),
            states: OrderStates {
                late_from: Some(self.first.bounds(self.zone).0),
                ..states(carried)
            },
        };
        for service in services {
            let is_known = |pack: &&Pack| carried.orders.contains_key(&*pack.order);
            let packs = || service.packs.iter();
            found
                .states
                .refuse_history(&service.packs, self.first.bounds(self.zone).0);
            let mut orders: Vec<&Pack> = packs()
                .filter(|pack| !is_known(pack) && self.has(pack.delivered))
                .collect();
            let mut refunds: Vec<(Utc, &Pack)> = packs()
                .filter(|pack| is_known(pack) || self.has(pack.delivered))
                .filter(|pack| !found.states.refunds.contains_key(&*pack.order))
                .filter_map(|pack| Some((pack.refunded.filter(|at| self.has(*at))?, pack)))
                .collect();
            if orders.is_empty() && refunds.is_empty() {
                continue;
            }
            orders.sort_by_key(|pack| pack.delivered);
            refunds.sort_by_key(|(at, _)| *at);
            self.apply(&service.group, &orders, &refunds, &mut found)?;
        }
        Ok(found)
    }

    /// Computes the group's months again with those entries that count.
    fn apply(
        &self,
        group: &GroupId,
        orders: &[&Pack],
        refunds: &[(Utc, &Pack)],
        found: &mut Found,
    ) -> Result<(), BooksError> {
        let delivered = orders.iter().map(|pack| pack.delivered);
        let dates = delivered.chain(refunds.iter().map(|(at, _)| *at));
        let Some(first) = dates.min() else {
            return Ok(());
        };
        let first = Month::of(first, self.zone);
        let mut months = fixed_months(self.reader, self.id, first, &self.next.to_string())?;
        let mut months = months.remove(group).unwrap_or_default();
        let refused = &mut found.states.refused;
        let mut accepted = self.accept_orders(group, orders, &mut months, refused)?;
        let counted =
            self.accept_refunds(group, refunds, &mut months, &accepted, &mut found.states)?;
        let mut paid_back = Vec::new();
        for (_, pack) in refunds {
            let at = counted.get(&*pack.order);
            match accepted
                .iter_mut()
                .find(|order| *order.order == *pack.order)
            {
                Some(order) => order.refunded = at.copied(),
                None if at.is_some() => paid_back.push(order(pack, 0)),
                None => {}
            }
        }
        let delivered = accepted.iter().map(|order| order.delivered);
        let Some(first) = delivered.chain(counted.values().copied()).min() else {
            return Ok(());
        };
        // Those before the first entry that counts are as they were.
        months.retain(|month| month.until > first);
        let months = again(&months, &accepted, &counted);
        for month in &months {
            found.states.add_used(month);
        }
        found.states.refunds.extend(counted);
        let late = LateEntries {
            orders: accepted,
            refunds: paid_back,
            months,
        };
        found.late.insert(group.clone(), late);
        Ok(())
    }

    /// The late orders that count, and `months` cut where they begin and end.
    fn accept_orders(
        &self,
        group: &GroupId,
        orders: &[&Pack],
        months: &mut Vec<MonthAgain>,
        refused: &mut HashMap<String, Refused>,
    ) -> Result<Vec<PackOrder>, BooksError> {
        let mut accepted = Vec::new();
        for pack in orders {
            match self.cut(group, months, &[pack.delivered, pack.expires])? {
                Some(cut) => {
                    *months = cut;
                    let order = order(pack, 0);
                    accepted.push(PackOrder {
                        refunded: None,
                        ..order
                    });
                }
                None => drop(refused.insert(pack.order.to_string(), Refused::Order)),
            }
        }
        Ok(accepted)
    }

    /// The late refunds that count, by order, and `months` cut at them. One after the other, by
    /// time: a refund decides what is used after it alone.
    fn accept_refunds(
        &self,
        group: &GroupId,
        refunds: &[(Utc, &Pack)],
        months: &mut Vec<MonthAgain>,
        accepted: &[PackOrder],
        states: &mut OrderStates,
    ) -> Result<HashMap<String, Utc>, BooksError> {
        let mut counted = HashMap::new();
        for (at, pack) in refunds {
            let id = pack.order.to_string();
            if states.refused.contains_key(&id) {
                continue;
            }
            let Some(cut) = self.cut(group, months, &[*at])? else {
                states.refused.insert(id, Refused::Refund);
                continue;
            };
            let mut with: HashMap<String, Utc> = counted.clone();
            with.insert(id.clone(), *at);
            let shown = states.most_used.get(&id).copied().unwrap_or(0);
            let used = shown.max(used_of(&again(&cut, accepted, &with), &id));
            if used > 0 {
                states.refused.insert(id, Refused::Used(used));
                continue;
            }
            (*months, counted) = (cut, with);
        }
        Ok(counted)
    }

    /// The months cut at these instants; `None` when the records that this needs were deleted.
    fn cut(
        &self,
        group: &GroupId,
        months: &[MonthAgain],
        instants: &[Utc],
    ) -> Result<Option<Vec<MonthAgain>>, BooksError> {
        let mut months = months.to_vec();
        for month in &mut months {
            let name = Month::parse(&month.month).map_err(BooksError::Month)?;
            for at in instants {
                let count = |from: Utc, until: Utc| -> Result<Vec<Calls>, ReadError> {
                    let window = SealedWindow::of(self.reader, name, self.zone)?;
                    calls_between(self.reader, &window, (from, until), self.id, group)
                };
                match month.cut(*at, count) {
                    Err(ReadError::Pruned { .. }) => return Ok(None),
                    cut => cut?,
                }
            }
        }
        Ok(Some(months))
    }
}

/// How orders stand by what the fixed statements tell of them.
pub(super) fn states(carried: &Carried) -> OrderStates {
    let orders = || carried.orders.iter();
    OrderStates {
        used: carried.used(),
        most_used: orders()
            .map(|(order, known)| (order.clone(), known.most_used))
            .collect(),
        refunds: carried.paid_back.clone(),
        refused: HashMap::new(),
        once: carried.once.clone(),
        late_from: None,
    }
}

#[cfg(test)]
mod tests;
