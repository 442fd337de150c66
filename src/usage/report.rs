//! A month's counts, laid out for people.

use super::{Month, UsageLine};
use std::io::{self, Write};

/// Writes the lines as a table with a total. Every line is one kind of call of one account.
pub fn usage_table(out: &mut dyn Write, month: Month, lines: &[UsageLine]) -> io::Result<()> {
    if lines.is_empty() {
        return writeln!(out, "no calls in {month}");
    }
    writeln!(out, "calls of {month}")?;
    writeln!(
        out,
        "{:<16} {:<22} {:<30} {:<9} {:<18} {:<10} {:>10}",
        "account", "group", "action", "mode", "outcome", "billable", "calls"
    )?;
    for line in lines {
        let billable = if line.billable {
            "yes"
        } else {
            line.reason.as_str()
        };
        writeln!(
            out,
            "{:<16} {:<22} {:<30} {:<9} {:<18} {:<10} {:>10}",
            line.account.as_str(),
            line.group.as_str(),
            line.action.as_str(),
            line.mode.as_str(),
            line.outcome.as_str(),
            billable,
            line.calls
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
