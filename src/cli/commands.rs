//! What the commands that only read print: counts, records, statements, prices.
//!
//! Owns the shapes of their output. Must never write to the ledger, nor decide what a rule of [`crate::billing`] decides.

use crate::billing::books::{self, AccountRef, Books};
use crate::billing::{self, Goods, NotRefundable, Period, Quote, Refund};
use crate::cli::usage_table;
use crate::config::{self, Account, Charging, Config, Pack, Service};
use crate::ledger::{Cursor, Reader, StoredRecord, restore};
use crate::model::{AccountId, Clock, GroupId, Local, Month, Stop};
use anyhow::{Context, bail};
use clap::ValueEnum;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// How counts and statements are printed.
#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One document.
    Json,
    /// A row each, with a head.
    Csv,
}

/// How records are printed.
#[derive(Clone, Copy, ValueEnum)]
pub enum RecordsFormat {
    /// A JSON document in each line.
    Jsonl,
    /// A row each, with a head.
    Csv,
}

/// How a price, or the answer to a refund, is printed.
#[derive(Clone, Copy, ValueEnum)]
pub enum AnswerFormat {
    /// For people.
    Table,
    /// One document.
    Json,
}

/// Loads the configuration; warnings go to standard error.
pub fn load(path: &Path) -> anyhow::Result<Config> {
    let config = config::load(path)?;
    for warning in config::told(&config.warnings) {
        tell(format_args!("warning: {warning}"));
    }
    Ok(config)
}

/// Writes to standard output; a reader that went away (`| head`) is no error.
pub fn print(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output")
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error. When that cannot be written (a full disk, a reader that ended) there is nobody to
/// tell: it must not end a gate, as `eprintln!` does.
pub fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A month's counts.
pub fn usage(
    path: &Path,
    month: Option<Month>,
    account: Option<AccountId>,
    format: Format,
) -> anyhow::Result<()> {
    let config = load(path)?;
    let zone = &config.catalog.time_zone;
    let month = month.unwrap_or_else(|| Month::of(Clock::default().utc(), zone));
    let (from, until) = month.bounds(zone);
    let lines = Reader::open(&config.settings.ledger.path)?.usage(
        from,
        until,
        account.as_ref(),
        0..=u64::MAX,
    )?;
    print(|out| match format {
        Format::Json => {
            let document = serde_json::json!({"month": month.to_string(), "lines": lines});
            writeln!(out, "{document}")
        }
        Format::Csv => {
            writeln!(
                out,
                "month,account,group,action,mode,outcome,billable,reason,calls,first_seq,last_seq"
            )?;
            for l in &lines {
                let (a, g, c) = (&l.account, &l.group, &l.action);
                write!(out, "{month},{a},{g},{c},{},{},", l.mode, l.outcome)?;
                writeln!(
                    out,
                    "{},{},{},{},{}",
                    l.billable, l.reason, l.calls, l.first_seq, l.last_seq
                )?;
            }
            Ok(())
        }
        Format::Table => usage_table(out, month, &lines),
    })
}

/// Which records.
pub enum Which {
    /// Everybody's after a cursor.
    After(Cursor),
    /// One account's of a month: what it needs to recount its bill.
    Of(AccountId, Month),
}

/// Admitted calls, one line each; at most `limit`.
pub fn records(path: &Path, which: Which, limit: u64, format: RecordsFormat) -> anyhow::Result<()> {
    const PAGE: u64 = 10_000;
    let config = load(path)?;
    let reader = Reader::open(&config.settings.ledger.path)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut left = limit;
    let mut after = match &which {
        Which::After(after) => *after,
        Which::Of(..) => Cursor::from(0),
    };
    if let RecordsFormat::Csv = format {
        let fields = "seq,id,account,group,action,mode,admitted_at,start_ns,run,outcome,status,billable,reason,duration_us,replica";
        writeln!(out, "{fields}")?;
    }
    while left > 0 {
        let most = usize::try_from(left.min(PAGE))?;
        let page = match &which {
            Which::After(_) => reader.records(after, most)?,
            Which::Of(account, month) => {
                let (from, until) = month.bounds(&config.catalog.time_zone);
                reader.records_of(account, from, until, after.seq, most)?
            }
        };
        let Some(last) = page.last() else { break };
        (after, left) = (reader.cursor(last.seq)?, left - page.len() as u64);
        for record in &page {
            match write_record(&mut out, record, format) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                written => written?,
            }
        }
    }
    match out.flush() {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
        flushed => flushed.context("standard output")?,
    }
    // Beside the records, which are what a program reads.
    if let Which::After(_) = which {
        match writeln!(std::io::stderr(), "next cursor: {after}") {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            // A program goes on from it, and must know that it is missing.
            written => written.context("standard error")?,
        }
    }
    Ok(())
}

fn write_record(
    out: &mut impl Write,
    r: &StoredRecord,
    format: RecordsFormat,
) -> std::io::Result<()> {
    match format {
        RecordsFormat::Jsonl => {
            serde_json::to_writer(&mut *out, r)?;
            writeln!(out)
        }
        RecordsFormat::Csv => {
            let status = r
                .status
                .map(|status| status.to_string())
                .unwrap_or_default();
            let (us, start, duration) = (r.admitted_at.0, r.start.0, r.duration_us);
            write!(
                out,
                "{},{},{},{},{},{},{us},{start},{},",
                r.seq, r.id, r.account, r.group, r.action, r.mode, r.run
            )?;
            writeln!(
                out,
                "{},{status},{},{},{duration},{}",
                r.outcome, r.billable, r.reason, r.replica
            )
        }
    }
}

/// A month's statement: as it was fixed, or as it stands.
pub fn statement(
    path: &Path,
    id: &AccountId,
    month: Option<Month>,
    format: Format,
) -> anyhow::Result<()> {
    let config = load(path)?;
    let reader = Reader::open(&config.settings.ledger.path)?;
    let now = Clock::default().utc();
    let books = books(&config, &reader, now);
    let month = month.unwrap_or_else(|| Month::of(now, &config.catalog.time_zone));
    let account = config.accounts.iter().find(|account| account.id == *id);
    let sold = AccountRef { id, account };
    let statement = books.statement(sold, month)?;
    if account.is_none() && statement.groups.is_empty() {
        bail!("no account {id} in the files, and no calls of it in {month}");
    }
    print(|out| match format {
        Format::Table => billing::text::table(out, &statement),
        Format::Csv => billing::text::csv(out, &statement),
        Format::Json => writeln!(out, "{}", serde_json::json!(statement)),
    })
}

fn books<'b>(config: &'b Config, reader: &'b Reader, now: crate::model::Utc) -> Books<'b> {
    Books {
        catalog: &config.catalog,
        reader,
        now,
    }
}

/// What an order costs by the catalogue (R11, R15).
pub fn price(
    path: &Path,
    group: &GroupId,
    goods: Goods,
    format: AnswerFormat,
) -> anyhow::Result<()> {
    let config = load(path)?;
    let known = config
        .catalog
        .groups
        .iter()
        .find(|known| known.id == *group);
    let Some(known) = known else {
        let ids: Vec<&str> = config
            .catalog
            .groups
            .iter()
            .map(|g| g.id.as_str())
            .collect();
        bail!(
            "no group {group} in the catalogue: it has {}",
            ids.join(", ")
        );
    };
    let Charging::Paid { per_call, qps } = &known.charging else {
        bail!("{group} is free: there is nothing to buy (R2)");
    };
    let Quote {
        unit_price,
        amount,
        how,
        ..
    } = match goods {
        Goods::Packs { calls, count } => {
            let on_sale: Vec<_> = per_call.packs.iter().map(|p| (p.calls, p.price)).collect();
            billing::pack_price(&on_sale, calls, count)?
        }
        Goods::Qps { qps: quota, period } => {
            let ladder: Vec<_> = qps.iter().map(|q| (q.from, q.month, q.day)).collect();
            billing::qps_price(&ladder, quota, period)?
        }
    };
    let currency = &config.catalog.currency;
    let mut document = json!({
        "group": group, "amount": amount, "currency": currency, "unit_price": unit_price, "how": how,
    });
    let ordered = match goods {
        Goods::Packs { calls, count } => vec![("calls", calls), ("count", u64::from(count))],
        Goods::Qps { qps, period } => {
            let lasting = match period {
                Period::Months(months) => ("months", months),
                Period::Days(days) => ("days", days),
            };
            vec![("qps", u64::from(qps)), (lasting.0, u64::from(lasting.1))]
        }
    };
    for (name, number) in ordered {
        document[name] = json!(number);
    }
    print(|out| match format {
        AnswerFormat::Json => writeln!(out, "{document}"),
        AnswerFormat::Table => {
            writeln!(out, "{amount} {currency}")?;
            writeln!(out, "{how} (unit price {unit_price})")
        }
    })
}

/// Whether an order of packs is paid back (R18), with the rule and the amount; `false` when it is not.
pub fn refund(path: &Path, order: &str, format: AnswerFormat) -> anyhow::Result<bool> {
    let config = load(path)?;
    let Some((account, service, pack)) = find_order(&config.accounts, order) else {
        bail!("no order {order} in the files");
    };
    let now = Clock::default().utc();
    let zone = &config.catalog.time_zone;
    let answer = match pack {
        None => Refund::No {
            reason: NotRefundable::QpsPurchase,
        },
        Some(pack) => {
            let reader = Reader::open(&config.settings.ledger.path)?;
            let books = books(&config, &reader, now);
            let ordered = books.used(account, pack)?;
            let debited = books::debited(&reader, &account.id)?;
            let arrears = billing::in_arrears(books::balance(Some(account), debited, now));
            let standing = service.stopped.or(arrears.then_some(Stop::Arrears));
            let mut stops = account.services.iter().map(|service| service.stopped);
            let violation = stops.any(|stop| stop == Some(Stop::Violation));
            let used = ordered.used_before;
            let refundable = pack.refundable;
            billing::refund(&ordered, used, standing, violation, refundable, zone, now)
        }
    };
    let currency = &config.catalog.currency;
    print(|out| match (format, &answer) {
        (AnswerFormat::Json, answer) => {
            let mut document =
                json!({"order": order, "account": account.id, "group": service.group});
            match answer {
                Refund::Yes { back, total, until } => {
                    document["paid_back"] = json!(true);
                    document["currency"] = json!(currency);
                    document["total"] = json!(total);
                    document["funds"] = back
                        .iter()
                        .map(|(fund, amount)| (fund.as_str(), json!(amount)))
                        .collect();
                    document["until"] = json!(Local::new(*until, zone));
                }
                Refund::No { reason } => {
                    document["paid_back"] = json!(false);
                    document["reason"] = json!(reason.as_str());
                    document["why"] = json!(reason.to_string());
                }
            }
            writeln!(out, "{document}")
        }
        (AnswerFormat::Table, Refund::Yes { back, total, until }) => {
            writeln!(
                out,
                "yes: {total} {currency} are paid back, if it is asked for before {}",
                Local::new(*until, zone)
            )?;
            for (fund, amount) in back {
                writeln!(out, "  {fund} {amount}")?;
            }
            writeln!(
                out,
                "R18: bought, unused, within seven days of its delivery. The provider may still refuse suspected abuse."
            )?;
            writeln!(
                out,
                "Enter `refunded: {}` at the order when it is done.",
                Local::new(now, zone)
            )
        }
        (AnswerFormat::Table, Refund::No { reason }) => writeln!(out, "no: {reason}"),
    })?;
    Ok(matches!(answer, Refund::Yes { .. }))
}

/// Whose order it is and for what; the packs of it, or `None` for a QPS purchase.
fn find_order<'c>(
    accounts: &'c [Account],
    order: &str,
) -> Option<(&'c Account, &'c Service, Option<&'c Pack>)> {
    let services = accounts.iter().flat_map(|account| {
        let services = account.services.iter();
        services.map(move |service| (account, service))
    });
    for (account, service) in services {
        let pack = service.packs.iter().find(|pack| &*pack.order == order);
        let mut purchases = service.qps_purchases.iter();
        if pack.is_some() || purchases.any(|purchase| &*purchase.order == order) {
            return Some((account, service, pack));
        }
    }
    None
}

/// Puts a backup in the place of the ledger, and says what follows from it.
pub fn put_back(path: &Path, from: &Path) -> anyhow::Result<()> {
    let config = load(path)?;
    let restored = restore(from, &config.settings.ledger.path, Clock::default().utc())?;
    print(|out| {
        writeln!(
            out,
            "restored {} to {}: ledger {}, restored {} times",
            from.display(),
            restored.path.display(),
            restored.ledger_id,
            restored.restore_count
        )?;
        if let Some(moved) = &restored.moved {
            writeln!(out, "the ledger that was there is at {}", moved.display())?;
        }
        writeln!(
            out,
            "its records end with {}; the next one is {}",
            restored.last_seq, restored.next_seq
        )?;
        writeln!(
            out,
            "who reads records goes on after {}:SEQ, at most {0}:{}, and forgets what it has beyond",
            restored.restore_count, restored.last_seq
        )?;
        writeln!(out, "seal {}", hex::encode(restored.seal))
    })
}

/// Recomputes all that the ledger says from the records that it keeps, and compares it with what was published.
pub fn verify(
    path: &Path,
    checkpoint: Option<[u8; 32]>,
    digests: &[(Month, [u8; 32])],
) -> anyhow::Result<()> {
    let config = load(path)?;
    let reader = Reader::open(&config.settings.ledger.path)?;
    let verified = reader.verify(checkpoint)?;
    let months = billing::verify_statements(&reader, &config.catalog.time_zone)?;
    let on_none = billing::calls_on_none(&reader, &config.catalog.time_zone, None)?;
    billing::check_digests(&months, digests)?;
    print(|out| {
        write!(out, "{} records", verified.records)?;
        if verified.records > 0 {
            write!(out, ", {} to {}", verified.first_seq, verified.last_seq)?;
        }
        writeln!(out, ": chain, days and rollup are what these records give")?;
        if verified.unlinked > 0 {
            writeln!(
                out,
                "{} more are younger than the last roll-up and not linked yet: nothing is said of them",
                verified.unlinked
            )?;
        }
        writeln!(out, "head {}", hex::encode(verified.head))?;
        for month in &months {
            writeln!(
                out,
                "{}: {} fixed statements are what their inputs and the records give; digest {}",
                month.month,
                month.statements,
                hex::encode(month.digest)
            )?;
        }
        if on_none > 0 {
            writeln!(
                out,
                "{on_none} calls are on no statement: they came too late for the months up to which two months were the limit"
            )?;
        }
        Ok(())
    })
}
