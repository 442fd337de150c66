//! `tollgate usage`: a month's counts.
//!
//! Owns their three forms. Must never count: the ledger does.

use crate::cli::flags::UsageFlags;
use crate::cli::output::{Format, load, open_ledger, print};
use crate::cli::replica::tell_part;
use crate::ledger::UsageLine;
use crate::model::{Clock, Month};
use serde_json::json;
use std::io::{self, Write};

/// Prints a month's counts, of all accounts or of one.
///
/// # Errors
/// When the configuration or the ledger cannot be read, or standard output not be written.
pub fn usage(flags: &UsageFlags) -> anyhow::Result<()> {
    let config = load(&flags.config.config)?;
    tell_part(&config.settings);
    let zone = &config.catalog.time_zone;
    let current = || Month::of(Clock::default().utc(), zone);
    let month = flags.month.unwrap_or_else(current);
    let (from, until) = month.bounds(zone);
    let lines = open_ledger(&config.settings.ledger.path)?.usage(
        from,
        until,
        flags.account.as_ref(),
        0..=u64::MAX,
    )?;
    print(|out| match flags.format {
        Format::Json => {
            let document = json!({"month": month.to_string(), "lines": lines});
            writeln!(out, "{document}")
        }
        Format::Csv => usage_csv(out, month, &lines),
        Format::Table => usage_table(out, month, &lines),
    })
}

fn usage_csv(out: &mut dyn Write, month: Month, lines: &[UsageLine]) -> io::Result<()> {
    writeln!(
        out,
        "month,account,group,action,mode,outcome,billable,reason,calls,first_seq,last_seq,key"
    )?;
    for line in lines {
        let (account, group, action) = (&line.account, &line.group, &line.action);
        let (mode, outcome) = (line.mode, line.outcome);
        write!(out, "{month},{account},{group},{action},{mode},{outcome},")?;
        writeln!(
            out,
            "{},{},{},{},{},{}",
            line.billable, line.reason, line.calls, line.first_seq, line.last_seq, line.key
        )?;
    }
    Ok(())
}

/// Writes the lines as a table with a total. Every line is one kind of call of one account.
pub(crate) fn usage_table(
    out: &mut dyn Write,
    month: Month,
    lines: &[UsageLine],
) -> io::Result<()> {
    if lines.is_empty() {
        return writeln!(out, "no calls in {month}");
    }
    writeln!(out, "calls of {month}")?;
    let head = [
        "account", "group", "action", "mode", "key", "outcome", "billable", "calls",
    ]
    .map(str::to_owned);
    let rows = lines.iter().map(|line| {
        let billable = if line.billable {
            "yes"
        } else {
            line.reason.as_str()
        };
        [
            line.account.to_string(),
            line.group.to_string(),
            line.action.to_string(),
            line.mode.to_string(),
            line.key.to_string(),
            line.outcome.to_string(),
            billable.to_owned(),
            line.calls.to_string(),
        ]
    });
    let rows: Vec<[String; 8]> = std::iter::once(head).chain(rows).collect();
    let [a, g, c, m, k, o, b, n] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    for [account, group, action, mode, key, outcome, billable, calls] in &rows {
        writeln!(
            out,
            "{account:a$}  {group:g$}  {action:c$}  {mode:m$}  {key:k$}  {outcome:o$}  {billable:b$}  {calls:>n$}"
        )?;
    }
    let total: u64 = lines.iter().map(|line| line.calls).sum();
    let billable: u64 = lines
        .iter()
        .filter(|line| line.billable)
        .map(|line| line.calls)
        .sum();
    writeln!(out, "{total} calls, {billable} of them billable")
}
