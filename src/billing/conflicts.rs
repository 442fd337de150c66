//! Where the files contradict what was fixed (R11, R16, R18), in sentences for people.
//!
//! Owns the words. Must never change a bill: what does not count is left out by [`Books`] anyway.

use crate::billing::PackOrder;
use crate::billing::books::{Books, BooksError};
use crate::billing::history::{ListedOrder, listed_orders};
use crate::billing::orders::{Refused, order};
use crate::config::{Account, Pack};
use crate::model::Local;
use jiff::tz::TimeZone;

/// Payments and manual adjustments that are told one by one.
const TOLD_ENTRIES: usize = 100;

/// Entries of the accounts that do not count, and orders, payments and manual adjustments that fixed
/// statements have otherwise. A sentence each.
pub(crate) fn conflicts<'a>(
    books: &Books<'_>,
    accounts: impl IntoIterator<Item = &'a Account>,
) -> Result<Vec<String>, BooksError> {
    let (mut said, mut entries) = (Vec::new(), 0_usize);
    let settled = books.settled_months()?;
    for account in accounts {
        if account.services.iter().any(|of| !of.packs.is_empty()) {
            refused(books, account, &mut said)?;
        }
        changed(books, account, &mut said)?;
        let late = books.entered_late(account, &settled, None)?;
        let room = TOLD_ENTRIES.saturating_sub(entries);
        let told = late.entries.iter().map(ToString::to_string);
        let told = told.chain(late.before.iter().map(ToString::to_string));
        said.extend(told.take(room));
        entries += late.entries.len() + usize::from(late.before.is_some());
    }
    if let more @ 1.. = entries.saturating_sub(TOLD_ENTRIES) {
        said.push(format!(
            "and {more} more payments and adjustments that fixed statements have otherwise: `tollgate report --month MONTH \
             --format json` names all of a month"
        ));
    }
    Ok(said)
}

fn refused(books: &Books<'_>, account: &Account, said: &mut Vec<String>) -> Result<(), BooksError> {
    let refused = books.refused(account.into())?;
    for service in &account.services {
        for pack in &service.packs {
            let Some(refused) = refused.get(&*pack.order) else {
                continue;
            };
            let (id, group, order) = (&account.id, &service.group, &pack.order);
            let remedy = "remove it, and write a manual adjustment under `adjustments` of the account instead";
            said.push(match refused {
                Refused::Order => format!(
                    "{id} {group}: order {order} is refused (R16): it is dated in a month that is fixed, and the records that \
                     it would cover were deleted: {remedy}"
                ),
                Refused::Refund => format!(
                    "{id} {group}: `refunded` of order {order} is refused (R16): it is dated in a month that is fixed, and the \
                     records around it were deleted: {remedy}"
                ),
                Refused::Used(used) => format!(
                    "{id} {group}: `refunded` of order {order} is refused (R18): {used} calls of it are used, and only an unused \
                     order is paid back: remove `refunded`"
                ),
            });
        }
    }
    Ok(())
}

/// Orders that a fixed month lists, and that the files have otherwise, or not any more.
fn changed(books: &Books<'_>, account: &Account, said: &mut Vec<String>) -> Result<(), BooksError> {
    let zone = &books.catalog.time_zone;
    let services = &account.services;
    let listed = listed_orders(books.reader, &account.id, services, zone)?;
    for (id, was) in &listed {
        let packs = services.iter().flat_map(|service| &service.packs);
        let mut packs = packs.filter(|pack| *pack.order == **id);
        let ListedOrder { month, group, .. } = was;
        let what = match packs.next() {
            Some(pack) => differences(&was.order, pack, zone),
            // An order that has ended may be tidied away.
            None if was.is_on_newest && was.order.ends() > books.now => {
                "is not in the files any more".to_owned()
            }
            None => continue,
        };
        if !what.is_empty() {
            said.push(format!(
                "{} {group}: order {id} {what}: the statement of {month} is fixed with it, and stays as it is; put it back as it \
                 was, and correct by a new order or a manual adjustment",
                account.id
            ));
        }
    }
    Ok(())
}

fn differences(was: &PackOrder, pack: &Pack, zone: &TimeZone) -> String {
    let is = order(pack, was.used_before);
    let mut said = Vec::new();
    let mut compare = |what: &str, was: String, is: String| {
        if was != is {
            said.push(format!("{what} {was} → {is}"));
        }
    };
    compare("calls", was.calls.to_string(), is.calls.to_string());
    compare("count", was.count.to_string(), is.count.to_string());
    let time = |at| Local::new(at, zone).to_string();
    compare("delivered", time(was.delivered), time(is.delivered));
    compare("expires", time(was.expires), time(is.expires));
    compare("origin", was.origin.to_string(), is.origin.to_string());
    let paid = |order: &PackOrder| {
        let funds = order.paid.iter();
        let funds = funds.map(|(fund, amount)| format!("{amount} {fund}"));
        format!("[{}]", funds.collect::<Vec<_>>().join(", "))
    };
    compare("paid", paid(was), paid(&is));
    // A refund that is added is an entry of its own.
    if let Some(refunded) = was.refunded {
        let now = is.refunded.map_or_else(|| "none".to_owned(), time);
        compare("refunded", time(refunded), now);
    }
    match said.is_empty() {
        true => String::new(),
        false => format!("was changed ({})", said.join(", ")),
    }
}
