//! `tollgate report`: the closing report of a month.
//!
//! Owns its form. Must never compute an amount: [`crate::billing`] does.

use crate::billing::books::Books;
use crate::billing::{Report, money};
use crate::cli::flags::ReportFlags;
use crate::cli::output::{AnswerFormat, Progress, load, open_ledger, print};
use crate::cli::replica::{check_books, check_calls};
use crate::cli::statement::{by_id, not_ahead};
use crate::model::Clock;
use serde_json::json;
use std::io::{self, Write};

/// Entries that differ from the fixed statements and are listed; of the rest only the number is
/// said.
const LISTED_ENTRIES: usize = 100;

/// Prints the closing report of a month, as it was fixed or as it stands.
///
/// # Errors
/// When the books are kept elsewhere, when the configuration or the ledger cannot be read, or standard output not be written.
pub fn report(flags: &ReportFlags) -> anyhow::Result<()> {
    let config = load(&flags.config.config)?;
    check_books(&config.settings, "the closing report")?;
    let reader = open_ledger(&config.settings.ledger.path)?;
    // Of a fixed month too: arrears and balances are of now.
    check_calls(&reader, "the closing report")?;
    let books = Books {
        catalog: &config.catalog,
        reader: &reader,
        now: Clock::default().utc(),
    };
    not_ahead(&books, flags.month)?;
    let mut progress = Progress::new("accounts");
    let report = books.report(&by_id(&config), flags.month, || progress.step())?;
    print(|out| match flags.format {
        AnswerFormat::Table => table(out, &report),
        AnswerFormat::Json => writeln!(out, "{}", json!(report)),
    })
}

fn table(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let currency = &report.currency;
    writeln!(
        out,
        "closing report of {} ({}), amounts in {currency}, as of {}",
        report.month, report.time_zone, report.as_of
    )?;
    match (&report.fixed_at, &report.debited_at) {
        (None, _) => writeln!(out, "not fixed yet: all of it may change")?,
        (Some(fixed), None) => writeln!(out, "fixed at {fixed}, not debited yet")?,
        (Some(fixed), Some(debited)) => writeln!(out, "fixed at {fixed}, debited at {debited}")?,
    }
    if let Some(digest) = &report.digest {
        writeln!(out, "digest {digest}")?;
    }
    let due = money(report.due);
    writeln!(out, "\nstatements {}, due {due}", report.statements)?;
    groups(out, report)?;
    writeln!(out)?;
    for (kind, funds) in &report.paid {
        for (fund, amount) in funds {
            writeln!(
                out,
                "paid when ordered: {kind} by {fund} {}",
                money(*amount)
            )?;
        }
    }
    let payments = &report.payments;
    let amount = money(payments.amount);
    writeln!(out, "payments {}, in all {amount}", payments.count)?;
    if report.adjustments.count > 0 {
        let amount = money(report.adjustments.amount);
        let count = report.adjustments.count;
        writeln!(out, "manual adjustments {count}, in all {amount}")?;
    }
    late(out, report)?;
    for arrears in &report.arrears {
        let amount = money(arrears.amount);
        writeln!(
            out,
            "arrears of {}: {} accounts, {amount}",
            arrears.age, arrears.accounts
        )?;
    }
    let unearned = &report.unearned;
    writeln!(
        out,
        "not earned yet: {} calls of {} orders of packs, {}",
        unearned.calls,
        unearned.orders,
        money(unearned.amount)
    )?;
    writeln!(
        out,
        "void: {} calls of packs that expired, {} of free packs",
        report.void.pack_calls, report.void.free_calls
    )?;
    writeln!(out, "calls on no statement {}", report.on_no_statement)
}

/// Where the files and the fixed statements differ.
fn late(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let entries = report.entered_late.iter().map(ToString::to_string);
    let before = report.entered_before.iter().map(ToString::to_string);
    for said in entries.chain(before).take(LISTED_ENTRIES) {
        writeln!(out, "  {said}")?;
    }
    let differ = report.entered_late.len() + report.entered_before.len();
    match differ.saturating_sub(LISTED_ENTRIES) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more: --format json has all"),
    }
}

fn groups(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    for (group, figures) in &report.groups {
        writeln!(out, "\n{group} {} {}", figures.title, figures.title_en)?;
        writeln!(out, "  calls {}, due {}", figures.calls, money(figures.due))?;
        if !figures.adjusted.is_zero() {
            let adjusted = money(figures.adjusted);
            writeln!(out, "  adjustments of fixed months in it {adjusted}")?;
        }
        for (reason, calls) in &figures.not_billable {
            writeln!(out, "  not billed: {reason} {calls}")?;
        }
        if figures.late > 0 {
            writeln!(
                out,
                "  late calls of earlier months among them {}",
                figures.late
            )?;
        }
    }
    Ok(())
}
