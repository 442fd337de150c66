//! `tollgate statement`: a month's bill of an account.
//!
//! Owns the choice of its form. Must never compute an amount: [`crate::billing`] does.

use crate::billing::books::{AccountRef, Books};
use crate::billing::text;
use crate::cli::flags::StatementFlags;
use crate::cli::output::{Format, load, open_ledger, print};
use crate::model::{Clock, Month};
use anyhow::bail;
use serde_json::json;

/// Prints a month's statement, as it was fixed or as it stands.
///
/// # Errors
/// When the account is in no file and has no calls in the month, when the configuration or the
/// ledger cannot be read, or standard output not be written.
pub fn statement(flags: &StatementFlags) -> anyhow::Result<()> {
    let config = load(&flags.config.config)?;
    let reader = open_ledger(&config.settings.ledger.path)?;
    let now = Clock::default().utc();
    let orders = Books {
        catalog: &config.catalog,
        reader: &reader,
        now,
    };
    let current = || Month::of(now, &config.catalog.time_zone);
    let month = flags.month.unwrap_or_else(current);
    let id = &flags.account;
    let account = config.accounts.iter().find(|account| account.id == *id);
    let statement = orders.statement(AccountRef { id, account }, month)?;
    // An account that left the files keeps the statements of its calls; a mistyped id has none.
    if account.is_none() && statement.groups.is_empty() {
        bail!("no account {id} in the files, and no calls of it in {month}");
    }
    print(|out| match flags.format {
        Format::Table => text::table(out, &statement),
        Format::Csv => text::csv(out, &statement),
        Format::Json => writeln!(out, "{}", json!(statement)),
    })
}
