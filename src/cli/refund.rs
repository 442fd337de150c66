//! `tollgate refund`: whether an order is paid back.
//!
//! Owns the forms of the answer. Must never decide it: the rule of [`crate::billing`] does (R18).

use crate::billing::books::Books;
use crate::billing::{self, NotRefundable, Refund, RefundRule, Standing, balances};
use crate::cli::flags::RefundFlags;
use crate::cli::output::{AnswerFormat, load, open_ledger, print};
use crate::cli::replica::{check_books, check_calls};
use crate::config::{Account, Catalog, Config, Pack, Service};
use crate::model::{Clock, Local, Stop, Utc};
use anyhow::bail;
use serde_json::{Value, json};
use std::io::{self, Write};

/// An order of the accounts file, with its account and service.
struct FoundOrder<'c> {
    account: &'c Account,
    service: &'c Service,
    /// The packs that were ordered; `None` for a purchase of QPS.
    pack: Option<&'c Pack>,
}

/// Prints whether an order is paid back (R18), with the rule and the amount. Answers `false` when
/// it is not.
///
/// # Errors
/// When it cannot be told: the order is in no file, the books are kept elsewhere, the configuration or the ledger cannot be read,
/// or standard output not be written.
pub fn refund(flags: &RefundFlags) -> anyhow::Result<bool> {
    let config = load(&flags.config.config)?;
    let order = flags.order.as_str();
    let Some(found) = find_order(&config.accounts, order) else {
        bail!("no order {order} in the files");
    };
    let now = Clock::default().utc();
    let answer = decide(&config, &found, now)?;
    print(|out| match flags.format {
        AnswerFormat::Json => {
            let (account, group) = (&found.account.id, &found.service.group);
            let mut document = json!({"order": order, "account": account, "group": group});
            add_answer(&mut document, &answer, &config.catalog);
            writeln!(out, "{document}")
        }
        AnswerFormat::Table => write_answer(out, &answer, &config.catalog, now),
    })?;
    Ok(matches!(answer, Refund::Yes { .. }))
}

fn decide(config: &Config, found: &FoundOrder<'_>, now: Utc) -> anyhow::Result<Refund> {
    let FoundOrder {
        account, service, ..
    } = found;
    // QPS is never paid back: the ledger need not be asked.
    let Some(pack) = found.pack else {
        let reason = NotRefundable::QpsPurchase;
        return Ok(Refund::No { reason });
    };
    check_books(&config.settings, "whether packs are unused")?;
    let reader = open_ledger(&config.settings.ledger.path)?;
    check_calls(&reader, "whether packs are unused")?;
    let orders = Books {
        catalog: &config.catalog,
        reader: &reader,
        now,
    };
    let ordered = orders.used(account, pack)?;
    let debited = balances::debited(&reader, &account.id)?;
    let balance = balances::balance(Some(account), debited, now);
    let credits = || orders.credits((*account).into());
    let arrears = balances::in_arrears(Some(account), balance, credits)?;
    let mut stops = account.services.iter().map(|service| service.stopped);
    let standing = Standing {
        // The file's stop comes first: arrears are a stop that the file does not have.
        stopped: service.stopped.or(arrears.then_some(Stop::Arrears)),
        violation: stops.any(|stop| stop == Some(Stop::Violation)),
    };
    let refused = pack.refund_refused.as_deref();
    let rule = RefundRule {
        excluded: !pack.refundable,
        days: pack.refund_days,
        refused: refused.map(|refused| (&*refused.reason, &*refused.by)),
    };
    Ok(billing::refund(
        &ordered,
        ordered.used_before,
        standing,
        rule,
        &config.catalog.time_zone,
        now,
    ))
}

fn add_answer(document: &mut Value, answer: &Refund, catalog: &Catalog) {
    match answer {
        Refund::Yes {
            back,
            total,
            until,
            days,
        } => {
            document["days"] = json!(days);
            document["paid_back"] = json!(true);
            document["currency"] = json!(catalog.currency);
            document["total"] = json!(total);
            document["funds"] = back
                .iter()
                .map(|(fund, amount)| (fund.as_str(), json!(amount)))
                .collect();
            document["until"] = json!(Local::new(*until, &catalog.time_zone));
        }
        Refund::No { reason } => {
            document["paid_back"] = json!(false);
            document["reason"] = json!(reason.as_str());
            document["why"] = json!(reason.to_string());
        }
    }
}

fn write_answer(
    out: &mut dyn Write,
    answer: &Refund,
    catalog: &Catalog,
    now: Utc,
) -> io::Result<()> {
    let (back, total, until, days) = match answer {
        Refund::Yes {
            back,
            total,
            until,
            days,
        } => (back, total, until, days),
        Refund::No { reason } => return writeln!(out, "no: {reason}"),
    };
    let zone = &catalog.time_zone;
    writeln!(
        out,
        "yes: {total} {} are paid back, if it is asked for before {}",
        catalog.currency,
        Local::new(*until, zone)
    )?;
    for (fund, amount) in back {
        writeln!(out, "  {fund} {amount}")?;
    }
    writeln!(
        out,
        "R18: bought, unused, within {days} days of its delivery. The provider may still refuse suspected abuse: enter \
         `refund_refused: {{reason: .., by: .., at: ..}}` at the order then."
    )?;
    writeln!(
        out,
        "Enter `refunded: {}` at the order when it is done.",
        Local::new(now, zone)
    )
}

/// The order with this id: packs, or a purchase of QPS.
fn find_order<'c>(accounts: &'c [Account], order: &str) -> Option<FoundOrder<'c>> {
    let services = accounts.iter().flat_map(|account| {
        let services = account.services.iter();
        services.map(move |service| (account, service))
    });
    for (account, service) in services {
        let pack = service.packs.iter().find(|pack| &*pack.order == order);
        let mut purchases = service.qps_purchases.iter();
        if pack.is_some() || purchases.any(|purchase| &*purchase.order == order) {
            return Some(FoundOrder {
                account,
                service,
                pack,
            });
        }
    }
    None
}
