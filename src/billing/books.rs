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

use crate::billing::window::SealedWindow;
use crate::billing::{
    self, Calls, GroupInputs, Inputs, Interval, KeyCalls, PackOrder, PriceTerms, QpsOrder,
    Statement, calls_on_none, first_month,
};
use crate::config::{Account, Catalog, Charging, Pack, Service};
use crate::ledger::{ReadError, Reader, StoredStatement, UsageLine};
use crate::model::{AccountId, GroupId, Month, Utc};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet, HashMap};

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
}

/// The number of calls that each order of packs has covered.
type Used = HashMap<String, u64>;

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
        Ok(Inputs {
            on_no_statement: calls_on_none(self.reader, zone, Some(sold.id))?,
            ..self.counted(sold, month)?
        })
    }

    /// The inputs without the calls that are on no statement.
    pub(super) fn counted(&self, sold: AccountRef<'_>, month: Month) -> Result<Inputs, BooksError> {
        let (before, mut used) = self.before(sold, month)?;
        // A settled month without a statement of this account had no calls of it.
        let fixed = [
            before.and_then(|statement| Month::parse(&statement.month).ok()),
            self.reader
                .last_settled()?
                .and_then(|settlement| Month::parse(&settlement.month).ok()),
        ];
        let first = match fixed.into_iter().flatten().max() {
            Some(last) => last.next(),
            None => first_month(self.reader, &self.catalog.time_zone)?.unwrap_or(month),
        };
        let mut unsettled = first;
        while unsettled < month {
            let inputs = self.inputs_of(sold, unsettled, &used)?;
            used.extend(used_after(&billing::statement(&inputs)));
            unsettled = unsettled.next();
        }
        self.inputs_of(sold, month, &used)
    }

    /// The account's newest fixed statement before the month, and the calls that each order had
    /// covered by then. An order may have been out of the files for a while, so the newest
    /// statement that lists it counts.
    fn before(
        &self,
        sold: AccountRef<'_>,
        month: Month,
    ) -> Result<(Option<Statement>, Used), BooksError> {
        let mut used = Used::new();
        let mut newest = None;
        let mut before = month.to_string();
        while let Some(stored) = self.reader.last_statement(sold.id, &before)? {
            let statement = parse(sold.id, &stored)?;
            for (order, calls) in used_after(&statement) {
                used.entry(order).or_insert(calls);
            }
            before = stored.month;
            let begins = begin_of(&before, &self.catalog.time_zone);
            newest.get_or_insert(statement);
            let packs = sold.services().iter().flat_map(|service| &service.packs);
            let mut older = packs.filter(|pack| pack.delivered < begins);
            if older.all(|pack| used.contains_key(&*pack.order)) {
                break;
            }
        }
        Ok((newest, used))
    }

    /// One month's inputs after what was `used` before it.
    fn inputs_of(
        &self,
        sold: AccountRef<'_>,
        month: Month,
        used: &Used,
    ) -> Result<Inputs, BooksError> {
        let zone = &self.catalog.time_zone;
        let window = SealedWindow::of(self.reader, month, zone)?;
        let (from, until) = (window.from, window.until);
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
                inputs.packs = packs(service, from, until, used);
                inputs.purchases = purchases(service, from, until);
            }
            groups.push(inputs);
        }

        // While the month runs there are no calls beyond now, and the rest of it needs no parts.
        let counted_until = until.min(self.now.max(from));
        count(self.reader, &window, counted_until, sold.id, &mut groups)?;
        // Also what the files do not name any more: it was called, so it is on the statement.
        groups.retain(|group| {
            sold.services().iter().any(|s| s.group == group.group)
                || !group.intervals.is_empty()
                || !group.late.is_empty()
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
            on_no_statement: 0,
        })
    }
}

impl Books<'_> {
    /// The accounts that get a statement of the month: they have calls in it, late ones included,
    /// or an order that was paid in it.
    pub(crate) fn on_the_books<'a>(
        &self,
        accounts: impl Iterator<Item = &'a Account>,
        month: Month,
    ) -> Result<BTreeSet<AccountId>, BooksError> {
        let window = SealedWindow::of(self.reader, month, &self.catalog.time_zone)?;
        let (from, until) = (window.from, window.until);
        let mut on_the_books = window.accounts(self.reader)?;
        let in_month = |at: Utc| from <= at && at < until;
        let ordered = accounts.filter(|account| {
            account.services.iter().any(|service| {
                let mut packs = service.packs.iter();
                packs.any(|p| in_month(p.delivered) || p.refunded.is_some_and(in_month))
                    || service.qps_purchases.iter().any(|q| in_month(q.from))
            })
        });
        on_the_books.extend(ordered.map(|account| account.id.clone()));
        Ok(on_the_books)
    }

    /// The order as the rules know it, with the calls that it has covered up to now.
    pub(crate) fn used(&self, account: &Account, pack: &Pack) -> Result<PackOrder, BooksError> {
        let month = Month::of(self.now, &self.catalog.time_zone);
        let statement = self.statement(account.into(), month)?;
        // An order that ended before this month is on none of its statements; whether it was used
        // decides nothing any more.
        let used = used_after(&statement).get(&*pack.order).copied();
        Ok(order(pack, used.unwrap_or(0)))
    }
}

fn begin_of(month: &str, zone: &TimeZone) -> Utc {
    Month::parse(month).map_or(Utc(i64::MIN), |month| month.bounds(zone).0)
}

pub(super) fn parse(id: &AccountId, stored: &StoredStatement) -> Result<Statement, BooksError> {
    serde_json::from_str(&stored.statement).map_err(|error| BooksError::Stored {
        account: id.clone(),
        month: stored.month.clone(),
        why: error.to_string(),
    })
}

/// Counts the account's calls of the statement into `groups`, whose packs say where the month is
/// cut.
pub(super) fn count(
    reader: &Reader,
    window: &SealedWindow,
    counted_until: Utc,
    id: &AccountId,
    groups: &mut Vec<GroupInputs>,
) -> Result<(), ReadError> {
    let all_packs: Vec<PackOrder> = groups.iter().flat_map(|g| g.packs.clone()).collect();
    // A pack covers calls only while it is valid, so no interval may reach over its begin or its
    // end.
    let mut instants = vec![window.from];
    instants.extend(billing::boundaries(&all_packs, window.from, counted_until));
    instants.push(window.until);
    for pair in instants.windows(2) {
        let [from, until] = [pair[0], pair[1]];
        let lines = window.calls(reader, id, (from, until))?;
        for (group, calls) in by_group(&lines) {
            let interval = Interval { from, until, calls };
            group_of(groups, group).intervals.push(interval);
        }
        add_by_key(groups, &lines);
    }
    let lines = window.late_calls(reader, id)?;
    for (group, calls) in by_group(&lines) {
        group_of(groups, group).late = calls;
    }
    add_by_key(groups, &lines);
    for group in groups {
        // A statement that was fixed before keys had ids is computed again as it was.
        if group.keys.iter().all(|calls| calls.key.is_none()) {
            group.keys.clear();
        }
    }
    Ok(())
}

/// Adds the lines to the calls by key of their groups.
fn add_by_key(groups: &mut Vec<GroupInputs>, lines: &[UsageLine]) {
    for line in lines {
        let keys = &mut group_of(groups, &line.group).keys;
        let at = match keys.binary_search_by(|calls| calls.key.cmp(&line.key)) {
            Ok(at) => at,
            Err(at) => {
                let key = line.key.clone();
                let none = KeyCalls {
                    key,
                    calls: 0,
                    billable: 0,
                };
                keys.insert(at, none);
                at
            }
        };
        keys[at].calls += line.calls;
        if line.billable {
            keys[at].billable += line.calls;
        }
    }
}

fn empty_group(group: &GroupId, title: &str, title_en: &str) -> GroupInputs {
    GroupInputs {
        group: group.clone(),
        title: title.to_owned(),
        title_en: title_en.to_owned(),
        terms: None,
        packs: Vec::new(),
        purchases: Vec::new(),
        intervals: Vec::new(),
        late: Vec::new(),
        keys: Vec::new(),
    }
}

/// The group's inputs. One that the catalogue does not sell any more is listed without a price.
fn group_of<'g>(groups: &'g mut Vec<GroupInputs>, id: &GroupId) -> &'g mut GroupInputs {
    let index = groups.iter().position(|group| group.group == *id);
    let index = index.unwrap_or_else(|| {
        groups.push(empty_group(id, id.as_str(), ""));
        groups.len() - 1
    });
    &mut groups[index]
}

/// The orders that can cover calls of the month.
fn packs(service: &Service, from: Utc, until: Utc, used: &Used) -> Vec<PackOrder> {
    let of_the_month = service.packs.iter().filter(|pack| {
        let ends = pack
            .refunded
            .map_or(pack.expires, |refunded| refunded.min(pack.expires));
        pack.delivered < until && ends > from
    });
    of_the_month
        .map(|pack| order(pack, used.get(&*pack.order).copied().unwrap_or(0)))
        .collect()
}

fn order(pack: &Pack, used_before: u64) -> PackOrder {
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

fn purchases(service: &Service, from: Utc, until: Utc) -> Vec<QpsOrder> {
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

/// The lines by group, those that differ only in what a bill does not ask added together.
fn by_group(lines: &[UsageLine]) -> BTreeMap<&GroupId, Vec<Calls>> {
    let mut groups: BTreeMap<&GroupId, Vec<Calls>> = BTreeMap::new();
    for line in lines {
        let calls = groups.entry(&line.group).or_default();
        let alike = calls.iter_mut().find(|calls| {
            calls.action == line.action && calls.mode == line.mode && calls.reason == line.reason
        });
        match alike {
            Some(alike) => alike.calls += line.calls,
            None => calls.push(Calls {
                action: line.action.clone(),
                mode: line.mode,
                reason: line.reason,
                calls: line.calls,
            }),
        }
    }
    groups
}

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

#[cfg(test)]
mod tests;
