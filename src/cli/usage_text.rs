//! A month's counts, laid out for people.

use crate::ledger::UsageLine;
use crate::model::Month;
use std::io::{self, Write};

/// Writes the lines as a table with a total. Every line is one kind of call of one account.
pub fn usage_table(out: &mut dyn Write, month: Month, lines: &[UsageLine]) -> io::Result<()> {
    if lines.is_empty() {
        return writeln!(out, "no calls in {month}");
    }
    writeln!(out, "calls of {month}")?;
    let head = [
        "account", "group", "action", "mode", "outcome", "billable", "calls",
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
            line.outcome.to_string(),
            billable.to_owned(),
            line.calls.to_string(),
        ]
    });
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    let [a, g, c, m, o, b, n] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    for [account, group, action, mode, outcome, billable, calls] in &rows {
        writeln!(
            out,
            "{account:a$}  {group:g$}  {action:c$}  {mode:m$}  {outcome:o$}  {billable:b$}  {calls:>n$}"
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
