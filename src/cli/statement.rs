//! `tollgate statement`: a month's bill of an account, those of all, or the list of fixed months.
//!
//! Owns the choice of their form. Must never compute an amount: [`crate::billing`] does.

use crate::billing::books::{AccountRef, Books, BooksError};
use crate::billing::{csv, fixed_sum, money, text};
use crate::cli::flags::StatementFlags;
use crate::cli::output::{Format, Progress, load, open_ledger, print};
use crate::cli::replica::{check_books, check_calls};
use crate::config::{Account, Config};
use crate::ledger::Reader;
use crate::model::{AccountId, Clock, Local, Month};
use anyhow::bail;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// By which spreadsheets know that a file is UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Prints statements, as they were fixed or as they stand.
///
/// # Errors
/// When the account is in no file and has no calls in the month, when a form is asked for that
/// there is not, when the books are kept elsewhere, when the configuration or the ledger cannot be read, or standard output not be
/// written.
pub fn statement(flags: &StatementFlags) -> anyhow::Result<()> {
    let config = load(&flags.config.config)?;
    check_books(&config.settings, "statements")?;
    let reader = open_ledger(&config.settings.ledger.path)?;
    let format = match (flags.format, &flags.account) {
        (None, None) if !flags.list => Format::Csv,
        (format, _) => format.unwrap_or(Format::Table),
    };
    if flags.bom && !matches!(format, Format::Csv) {
        bail!("--bom goes with CSV: add --format csv");
    }
    if flags.list {
        return list(&config, &reader, format, flags.bom);
    }
    let now = Clock::default().utc();
    let books = Books {
        catalog: &config.catalog,
        reader: &reader,
        now,
    };
    let current = || Month::of(now, &config.catalog.time_zone);
    let month = flags.month.unwrap_or_else(current);
    not_ahead(&books, month)?;
    // What was fixed before a gate became a replica stays as it was.
    if reader.settlement(&month.to_string())?.is_none() {
        check_calls(&reader, "statements")?;
    }
    match &flags.account {
        Some(id) => one(&books, &config, id, month, (format, flags.bom)),
        None => all(&books, &config, month, (format, flags.bom)),
    }
}

fn one(
    books: &Books<'_>,
    config: &Config,
    id: &AccountId,
    month: Month,
    (format, bom): (Format, bool),
) -> anyhow::Result<()> {
    let account = config.accounts.iter().find(|account| account.id == *id);
    let statement = books.statement(AccountRef { id, account }, month)?;
    // An account that left the files keeps the statements of its calls; a mistyped id has none.
    if account.is_none() && statement.groups.is_empty() {
        bail!("no account {id} in the files, and no calls of it in {month}");
    }
    print(|out| match format {
        Format::Table => text::table(out, &statement),
        Format::Csv => {
            mark(out, bom)?;
            csv::csv(out, &statement)
        }
        Format::Json => writeln!(out, "{}", json!(statement)),
    })
}

/// Why a list of statements ends early.
enum Ended {
    Books(BooksError),
    Written(io::Error),
}

impl From<BooksError> for Ended {
    fn from(error: BooksError) -> Self {
        Self::Books(error)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Written(error)
    }
}

/// The statements of all accounts, one in memory at a time.
fn all(
    books: &Books<'_>,
    config: &Config,
    month: Month,
    (format, bom): (Format, bool),
) -> anyhow::Result<()> {
    if let Format::Table = format {
        bail!("a table is of one account: name it by --account, or take --format csv or json");
    }
    let accounts = by_id(config);
    let mut progress = Progress::new("statements");
    let mut failure = None;
    print(|out| {
        mark(out, bom)?;
        if let Format::Csv = format {
            csv::csv_head(out)?;
        }
        let ended = books.each_statement(&accounts, month, |statement, stored| {
            progress.step();
            match (format, stored) {
                // As it was fixed, to the byte.
                (Format::Json, Some(stored)) => writeln!(out, "{}", stored.statement)?,
                (Format::Json, None) => writeln!(out, "{}", json!(statement))?,
                _ => csv::csv_rows(out, statement)?,
            }
            Ok::<(), Ended>(())
        });
        match ended {
            Err(Ended::Written(error)) => return Err(error),
            Err(Ended::Books(error)) => failure = Some(error),
            Ok(()) => {}
        }
        Ok(())
    })?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// A month that has not begun is a slip of the pen.
///
/// # Errors
/// [`MonthAhead`], unless the month was fixed by a clock that was wrong, or this one is.
pub(super) fn not_ahead(books: &Books<'_>, month: Month) -> anyhow::Result<()> {
    let running = Month::of(books.now, &books.catalog.time_zone);
    if month <= running || books.reader.settlement(&month.to_string())?.is_some() {
        return Ok(());
    }
    Err(MonthAhead { month, running }.into())
}

/// A month was asked for that has not begun.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{month} has not begun: the running month is {running}")]
pub struct MonthAhead {
    month: Month,
    running: Month,
}

/// The accounts of the files, by id.
pub(super) fn by_id(config: &Config) -> BTreeMap<&AccountId, &Account> {
    let accounts = config.accounts.iter();
    accounts.map(|account| (&account.id, account)).collect()
}

/// The fixed months, with the sums of their statements and their digests.
fn list(config: &Config, reader: &Reader, format: Format, bom: bool) -> anyhow::Result<()> {
    let mut months = Vec::new();
    for settlement in reader.settlements()? {
        let sum = fixed_sum(reader, &settlement.month)?;
        let local = |at| Local::new(at, &config.catalog.time_zone).to_string();
        months.push(json!({
            "month": settlement.month,
            "statements": sum.count,
            "due": money(sum.amount),
            "fixed_at": local(settlement.fixed_at),
            "debited_at": settlement.debited_at.map(local),
            "digest": settlement.digest.map(hex::encode),
            "seal": reader.month_seal(&settlement.month)?.map(hex::encode),
        }));
    }
    print(|out| {
        mark(out, bom)?;
        if let Format::Json = format {
            return months.iter().try_for_each(|month| writeln!(out, "{month}"));
        }
        let columns = [
            "month",
            "statements",
            "due",
            "fixed_at",
            "debited_at",
            "digest",
            "seal",
        ];
        let separator = if let Format::Csv = format { "," } else { "  " };
        writeln!(out, "{}", columns.join(separator))?;
        for month in &months {
            let cell = |column: &&str| match &month[*column] {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Null => String::new(),
                other => other.to_string(),
            };
            let cells: Vec<String> = columns.iter().map(cell).collect();
            writeln!(out, "{}", cells.join(separator))?;
        }
        Ok(())
    })
}

fn mark(out: &mut dyn Write, bom: bool) -> io::Result<()> {
    match bom {
        true => write!(out, "{BYTE_ORDER_MARK}"),
        false => Ok(()),
    }
}
