//! Where the files contradict what was fixed (R11, R16, R18), in sentences for people.
//!
//! Owns the words. Must never change a bill: what does not count is left out by [`Books`] anyway.

use crate::billing::PackOrder;
use crate::billing::books::{Books, BooksError};
use crate::billing::history::{ListedOrder, listed_once, listed_orders};
use crate::billing::orders::{OrderOnce, Refused, order};
use crate::config::{Account, Pack};
use crate::model::{Fund, Local, Utc};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

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
        changed_once(books, account, &mut said)?;
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

/// The same of orders without calls, of which each is on one statement. One that was removed is told
/// as long as that is the newest.
fn changed_once(
    books: &Books<'_>,
    account: &Account,
    said: &mut Vec<String>,
) -> Result<(), BooksError> {
    let zone = &books.catalog.time_zone;
    let files = OrderOnce::of_files(account);
    for (listed, month, is_on_newest) in listed_once(books.reader, account, zone)? {
        let what = match files.iter().find(|order| order.order == listed.order) {
            Some(order) => order_differences(&listed, order, zone),
            None if is_on_newest && listed.until > books.now => {
                "is not in the files any more".to_owned()
            }
            None => continue,
        };
        if !what.is_empty() {
            said.push(format!(
                "{} {}: order {} {what}: the statement of {month} is fixed with it, and stays as it is; put it back as it was, and \
                 correct by a new order",
                account.id, listed.place, listed.order
            ));
        }
    }
    Ok(())
}

fn order_differences(was: &OrderOnce, is: &OrderOnce, zone: &TimeZone) -> String {
    let time = |at| Local::new(at, zone).to_string();
    told_changes([
        ("", was.what.clone(), is.what.clone()),
        ("from ", time(was.from), time(is.from)),
        ("until ", time(was.until), time(is.until)),
        ("paid ", told_paid(&was.paid), told_paid(&is.paid)),
    ])
}

/// What was otherwise, in words; nothing when all is the same.
fn told_changes<const N: usize>(changes: [(&str, String, String); N]) -> String {
    let changes = changes.into_iter().filter(|(_, was, is)| was != is);
    let said: Vec<_> = changes
        .map(|(what, was, is)| format!("{what}{was} → {is}"))
        .collect();
    match said.is_empty() {
        true => String::new(),
        false => format!("was changed ({})", said.join(", ")),
    }
}

fn differences(was: &PackOrder, pack: &Pack, zone: &TimeZone) -> String {
    let is = order(pack, was.used_before);
    let time = |at| Local::new(at, zone).to_string();
    let paid = |order: &PackOrder| told_paid(&order.paid);
    // A refund that is added is an entry of its own.
    let refunded = |at: Option<Utc>| at.map_or_else(|| "none".to_owned(), time);
    let is_refunded = was.refunded.and(is.refunded);
    let of_refund = match was.refunded {
        Some(_) => (refunded(was.refunded), refunded(is_refunded)),
        None => (String::new(), String::new()),
    };
    told_changes([
        ("calls ", was.calls.to_string(), is.calls.to_string()),
        ("count ", was.count.to_string(), is.count.to_string()),
        ("delivered ", time(was.delivered), time(is.delivered)),
        ("expires ", time(was.expires), time(is.expires)),
        ("origin ", was.origin.to_string(), is.origin.to_string()),
        ("paid ", paid(was), paid(&is)),
        ("refunded ", of_refund.0, of_refund.1),
    ])
}

fn told_paid(paid: &[(Fund, Decimal)]) -> String {
    let funds = paid.iter();
    let funds = funds.map(|(fund, amount)| format!("{amount} {fund}"));
    format!("[{}]", funds.collect::<Vec<_>>().join(", "))
}
