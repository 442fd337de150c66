//! The orders of an account, from the files, and its calls, from the ledger, brought to the rules
//! of [`billing`].
//!
//! Owns which records belong to which month's statement, and what is carried from one month to the
//! next. Must never decide a rule itself, nor compute a statement anew that was fixed: it is read
//! as it was stored.
//!
//! # Decided
//! - **The newest seq at a settlement decides which statement a record is on.** Neither the time at
//!   which the statement was computed decides it, nor the record's age. So every record is on
//!   exactly one. One that comes late is billed in the next month, as a call of its first instant.
//!   To bill it by its own month would change what was fixed.

use crate::billing::count::{count, empty_group};
use crate::billing::entries::{FixedMonths, Found, states};
use crate::billing::history::{Carried, amount, parse};
use crate::billing::late::{Used, refuse_used};
use crate::billing::orders::{OrderStates, OrdersOnce, Refused, licences, order, packs, purchases};
use crate::billing::window::SealedWindow;
use crate::billing::{
    self, BalanceInputs, GroupInputs, Inputs, LateEntries, ManualAdjustment, PackOrder,
    PaymentInput, PriceTerms, Statement, calls_on_none, first_month,
};
use crate::config::{Account, Catalog, Charging, Pack, Service};
use crate::ledger::Reader;
use crate::model::{AccountId, GroupId, Month, Utc};
use rust_decimal::Decimal;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

pub(crate) use crate::billing::books_error::BooksError;

/// How long after its end a day is sealed, and a month can be settled, in microseconds. Calls that
/// began in it have been recorded by then (R16; the contract's earliest is an hour).
pub(crate) const GRACE_US: i64 = 3_600_000_000;

/// The files in force and the ledger, at one instant.
pub(crate) struct Books<'b> {
    /// The catalogue of what is sold.
    pub catalog: &'b Catalog,
    /// The ledger of the calls.
    pub reader: &'b Reader,
    /// The instant by which packs and months are judged.
    pub now: Utc,
}

/// An account as the files have it; the files may not know it any more.
#[derive(Clone, Copy)]
pub(crate) struct AccountRef<'b> {
    /// The id of the account.
    pub id: &'b AccountId,
    /// The account in the files. `None` when they do not have it any more.
    pub account: Option<&'b Account>,
}

impl<'b> From<&'b Account> for AccountRef<'b> {
    fn from(account: &'b Account) -> Self {
        Self {
            id: &account.id,
            account: Some(account),
        }
    }
}

impl<'b> AccountRef<'b> {
    pub(super) fn services(self) -> &'b [Service] {
        self.account.map_or(&[], |account| &account.services)
    }

    fn once(self) -> OrdersOnce<'b> {
        let licences = self.account.map_or(&[][..], |account| &account.licences);
        OrdersOnce::new(self.services(), licences)
    }
}

/// The first month that is not fixed for an account, and what its statement starts from.
struct Opening {
    next: Month,
    found: Found,
    /// What the account's statements before `next` charge.
    charged: Decimal,
}

/// A month's inputs.
struct Counted {
    inputs: Inputs,
    /// What all statements before this one charge.
    charged: Decimal,
    /// How orders stand.
    states: OrderStates,
}

impl Books<'_> {
    /// The month's statement: as it was fixed, or as it stands now.
    pub(crate) fn statement(
        &self,
        sold: AccountRef<'_>,
        month: Month,
    ) -> Result<Statement, BooksError> {
        match self.stored(sold.id, month)? {
            Some(fixed) => Ok(fixed),
            None => Ok(billing::statement(&self.inputs(sold, month)?)),
        }
    }

    /// The fixed statement of the month. `None` when it is not fixed, or there was nothing to fix.
    pub(crate) fn stored(
        &self,
        id: &AccountId,
        month: Month,
    ) -> Result<Option<Statement>, BooksError> {
        let stored = self.reader.stored_statement(&month.to_string(), id)?;
        stored.map(|stored| parse(id, &stored)).transpose()
    }

    /// The inputs of the month's statement, whether or not it is fixed. A fixed month has the
    /// records that its settlement counted; any other has all records so far.
    pub(crate) fn inputs(&self, sold: AccountRef<'_>, month: Month) -> Result<Inputs, BooksError> {
        let zone = &self.catalog.time_zone;
        let Counted {
            inputs, charged, ..
        } = self.counted_after(sold, month)?;
        Ok(Inputs {
            on_no_statement: calls_on_none(self.reader, zone, Some(sold.id))?,
            balance: sold
                .account
                .map(|account| balance_inputs(account, charged, &inputs)),
            ..inputs
        })
    }

    /// The inputs without the balance and the calls that are on no statement.
    pub(super) fn counted(&self, sold: AccountRef<'_>, month: Month) -> Result<Inputs, BooksError> {
        Ok(self.counted_after(sold, month)?.inputs)
    }

    /// The entries of the files that do not count, by order: see [`Refused`].
    pub(super) fn refused(
        &self,
        sold: AccountRef<'_>,
    ) -> Result<HashMap<String, Refused>, BooksError> {
        let zone = &self.catalog.time_zone;
        let mut packs = sold.services().iter().flat_map(|service| &service.packs);
        let month = Month::of(self.now, zone);
        let opening = self.opening(sold, month)?;
        let (begins, _) = opening.next.bounds(zone);
        // Only a refund of a month that is not fixed needs the calls since.
        if packs.any(|pack| pack.refunded.is_some_and(|at| at >= begins)) {
            return Ok(self.counted_after(sold, month)?.states.refused);
        }
        Ok(opening.found.states.refused)
    }

    fn counted_after(&self, sold: AccountRef<'_>, month: Month) -> Result<Counted, BooksError> {
        let Opening {
            next: mut unsettled,
            found,
            mut charged,
        } = self.opening(sold, month)?;
        let Found {
            mut late,
            mut states,
        } = found;
        loop {
            let inputs = self.inputs_of(sold, unsettled, &mut states, &late)?;
            if unsettled >= month {
                return Ok(Counted {
                    inputs,
                    charged,
                    states,
                });
            }
            let statement = billing::statement(&inputs);
            states.add_statement(&statement);
            charged = charged.saturating_add(statement.due);
            // They are on the first statement that is not fixed, and on no other.
            late.clear();
            states.late_from = None;
            unsettled = unsettled.next();
        }
    }

    /// The first statement of the account that is not fixed, up to `month`. It carries what late
    /// entries change. `None` when all are fixed.
    pub(super) fn next_statement(
        &self,
        sold: AccountRef<'_>,
        month: Month,
    ) -> Result<Option<Statement>, BooksError> {
        let opening = self.opening(sold, month)?;
        if opening.found.late.is_empty() || self.stored(sold.id, opening.next)?.is_some() {
            return Ok(None);
        }
        Ok(Some(billing::statement(&self.counted(sold, opening.next)?)))
    }

    /// What the account's fixed statements before `month` leave, and the late entries that the
    /// first month after them carries.
    fn opening(&self, sold: AccountRef<'_>, month: Month) -> Result<Opening, BooksError> {
        let (reader, zone) = (self.reader, &self.catalog.time_zone);
        let before = month.to_string();
        let first = reader.first_settlement()?;
        let first = first.and_then(|first| Month::parse(&first.month).ok());
        let services = sold.services();
        // What is dated before the first fixed month is on no statement.
        let once = sold.once().since(first.map(|first| first.bounds(zone).0));
        let carried = Carried::before(reader, sold.id, services, &once, &before, zone)?;
        // A settled month without a statement of this account had no calls of it.
        let settled = reader.last_settled()?;
        let settled = settled.and_then(|settlement| Month::parse(&settlement.month).ok());
        let next = match carried.newest.max(settled) {
            Some(last) => last.next(),
            None => first_month(reader, zone)?.unwrap_or(month),
        };
        // A month that is fixed, or older than all that are, takes nothing that is late.
        let is_next = next <= month;
        let next = next.min(month);
        let found = match first {
            Some(first) if is_next => {
                let id = sold.id;
                let fixed = FixedMonths {
                    reader,
                    zone,
                    id,
                    first,
                    next,
                };
                fixed.find(services, &carried)?
            }
            _ => Found {
                late: BTreeMap::new(),
                states: states(&carried),
            },
        };
        Ok(Opening {
            next,
            found,
            charged: self.charged_before(sold.id, next)?,
        })
    }

    /// What the account's fixed statements before the month charge, debited or not.
    pub(super) fn charged_before(
        &self,
        id: &AccountId,
        month: Month,
    ) -> Result<Decimal, BooksError> {
        let mut charged = Decimal::ZERO;
        for stored in self.reader.charges(id)? {
            if stored.month < month.to_string() {
                charged = charged.saturating_add(amount(&stored)?);
            }
        }
        Ok(charged)
    }

    /// One month's inputs, when orders stand so before it. Refunds of the month that cannot be are
    /// refused in `states`.
    fn inputs_of(
        &self,
        sold: AccountRef<'_>,
        month: Month,
        states: &mut OrderStates,
        late: &BTreeMap<GroupId, LateEntries>,
    ) -> Result<Inputs, BooksError> {
        let zone = &self.catalog.time_zone;
        let window = SealedWindow::of(self.reader, month, zone)?;
        let (from, until) = (window.from, window.until);
        // While the month runs there are no calls beyond now, and the rest of it needs no parts.
        let counted_until = until.min(self.now.max(from));
        let count_with = |states: &OrderStates| {
            let mut groups = self.groups(sold, (from, until), states, late);
            count(self.reader, &window, counted_until, sold.id, &mut groups)?;
            Ok::<_, BooksError>(groups)
        };
        let mut groups = count_with(states)?;
        let refused = refuse(&mut groups, (from, until), &states.most_used);
        if !refused.is_empty() {
            let refused = refused.into_iter();
            let refused = refused.map(|(order, used)| (order, Refused::Used(used)));
            states.refused.extend(refused);
            // What goes on is no end of an interval any more.
            groups = count_with(states)?;
        }
        // Also what the files do not name any more: it was called, so it is on the statement.
        groups.retain(|group| {
            sold.services().iter().any(|s| s.group == group.group)
                || !group.intervals.is_empty()
                || !group.late.is_empty()
                || !group.late_entries.is_empty()
        });
        Ok(Inputs {
            account: sold.id.clone(),
            name: sold
                .account
                .map_or_else(String::new, |account| account.name.clone()),
            month: month.to_string(),
            time_zone: zone.iana_name().unwrap_or("UTC").to_owned(),
            currency: self.catalog.currency.clone(),
            from,
            until,
            counted_until,
            groups,
            licences: sold
                .account
                .map_or_else(Vec::new, |account| licences(account, (from, until), states)),
            on_no_statement: 0,
            balance: None,
        })
    }

    /// The catalogue's groups with the account's orders of the month, without its calls.
    fn groups(
        &self,
        sold: AccountRef<'_>,
        (from, until): (Utc, Utc),
        states: &OrderStates,
        late: &BTreeMap<GroupId, LateEntries>,
    ) -> Vec<GroupInputs> {
        let mut groups: Vec<GroupInputs> = Vec::new();
        for group in &self.catalog.groups {
            let service = sold.services().iter().find(|s| s.group == group.id);
            let mut inputs = empty_group(&group.id, &group.title, &group.title_en);
            if let Charging::Paid { per_call, .. } = &group.charging {
                // R10: the free pack comes with the service, so a month before the opening has
                // none.
                let is_later = service.is_some_and(|service| service.opened >= until);
                inputs.terms = Some(PriceTerms {
                    free_calls: if is_later { 0 } else { per_call.free_calls },
                    tier_basis: per_call.tier_basis,
                    tiers: per_call.tiers.iter().map(|t| (t.from, t.price)).collect(),
                });
            }
            if let Some(service) = service {
                inputs.packs = packs(service, (from, until), states);
                inputs.purchases = purchases(service, (from, until), states);
            }
            inputs.late_entries = late.get(&group.id).cloned().unwrap_or_default();
            groups.push(inputs);
        }
        groups
    }
}

impl Books<'_> {
    /// The accounts that get a statement of the month: they have calls in it, late ones included,
    /// or an order that was paid in it, or a payment or a manual adjustment.
    pub(crate) fn on_the_books<'a>(
        &self,
        accounts: impl Iterator<Item = &'a Account>,
        month: Month,
    ) -> Result<BTreeSet<AccountId>, BooksError> {
        let window = SealedWindow::of(self.reader, month, &self.catalog.time_zone)?;
        let (from, until) = (window.from, window.until);
        let mut on_the_books = window.accounts(self.reader)?;
        let in_month = |at: Utc| from <= at && at < until;
        let has_entry = |account: &Account| {
            account.services.iter().any(|service| {
                let mut packs = service.packs.iter();
                packs.any(|p| in_month(p.delivered) || p.refunded.is_some_and(in_month))
                    || service.qps_purchases.iter().any(|q| in_month(q.from))
            }) || account.licences.iter().any(|l| in_month(l.from))
                || account.adjustments.iter().any(|a| in_month(a.at))
                || account.payments.iter().any(|p| in_month(p.at))
        };
        for account in accounts {
            let sold = AccountRef::from(account);
            let once = sold.once();
            let has_no_older = account.services.iter().all(|s| s.packs.is_empty())
                && once.are_all_in(&HashSet::new(), from);
            if has_no_older && !has_entry(account) {
                continue;
            }
            // Late entries get a line even where nothing was called.
            let has_late = || {
                let found = self.opening(sold, month)?.found;
                Ok::<_, BooksError>(!found.late.is_empty() || once.has_late(&found.states, from))
            };
            if has_entry(account) || has_late()? {
                on_the_books.insert(account.id.clone());
            }
        }
        Ok(on_the_books)
    }

    /// The order as the rules know it, with the most calls of it that any statement shows as used,
    /// up to now.
    pub(crate) fn used(&self, account: &Account, pack: &Pack) -> Result<PackOrder, BooksError> {
        let month = Month::of(self.now, &self.catalog.time_zone);
        let mut states = self.opening(account.into(), month)?.found.states;
        states.add_statement(&self.statement(account.into(), month)?);
        // An order that ended before this month is on none of its statements; whether it was used
        // decides nothing any more.
        let used = states.most_used.get(&*pack.order).copied();
        Ok(order(pack, used.unwrap_or(0)))
    }
}

/// Refuses refunds of the month in each group; see [`refuse_used`].
fn refuse(groups: &mut [GroupInputs], month: (Utc, Utc), most_used: &Used) -> Used {
    let mut refused = Used::new();
    for group in groups {
        let free_calls = group.terms.as_ref().map_or(0, |terms| terms.free_calls);
        let calls = (&*group.late, &*group.intervals);
        let packs = &mut group.packs;
        refused.extend(refuse_used(free_calls, packs, month, calls, most_used));
    }
    refused
}

/// What the statement shows of the balance: after all that earlier statements charge.
fn balance_inputs(account: &Account, charged: Decimal, inputs: &Inputs) -> BalanceInputs {
    let entries = account.payments.iter().map(|p| (p.at, p.amount));
    let adjusted = account.adjustments.iter().map(|a| (a.at, a.amount));
    let before = Utc(inputs.from.0.saturating_sub(1));
    let in_month = |at: Utc| inputs.from <= at && at < inputs.counted_until;
    let payments = account.payments.iter().filter(|p| in_month(p.at));
    let mut payments: Vec<PaymentInput> = payments
        .map(|payment| PaymentInput {
            order: payment.order.to_string(),
            at: payment.at,
            amount: payment.amount,
        })
        .collect();
    payments.sort_by_key(|payment| payment.at);
    let adjustments = account.adjustments.iter().filter(|a| in_month(a.at));
    let mut adjustments: Vec<ManualAdjustment> = adjustments
        .map(|adjustment| ManualAdjustment {
            id: adjustment.id.to_string(),
            at: adjustment.at,
            amount: adjustment.amount,
            reason: adjustment.reason.to_string(),
            by: adjustment.by.to_string(),
        })
        .collect();
    adjustments.sort_by_key(|adjustment| adjustment.at);
    BalanceInputs {
        before: billing::balance(entries.chain(adjusted), charged, before),
        payments,
        adjustments,
    }
}

#[cfg(test)]
mod tests;
