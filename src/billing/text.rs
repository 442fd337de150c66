//! A statement for people's eyes (`table`) and for spreadsheets (`csv`). JSON is serde's.
//!
//! Shows what a [`Statement`] says. Must never compute an amount.

use crate::billing::statement::{ManualLine, PaymentLine, StatementBalance};
use crate::billing::{GroupStatement, PaidLine, PerCallUse, Statement, money};
use crate::model::Mode;
use std::io::{self, Write};

/// Columns aligned, titles in any script; money with two decimals, unit prices exact.
pub(crate) fn table(out: &mut dyn Write, statement: &Statement) -> io::Result<()> {
    let (currency, due) = (&statement.currency, money(statement.due).to_string());
    writeln!(
        out,
        "statement of {} for {} ({})",
        statement.month, statement.account, statement.name
    )?;
    writeln!(
        out,
        "from {} until {} ({}), amounts in {currency}",
        statement.from, statement.until, statement.time_zone
    )?;
    match &statement.fixed {
        Some(fixed) => writeln!(
            out,
            "fixed at {} on the records up to {}, chain head {}",
            fixed.at, fixed.through_seq, fixed.head
        )?,
        None => writeln!(
            out,
            "not fixed yet: calls until {}",
            statement.counted_until
        )?,
    }
    for group in &statement.groups {
        writeln!(out, "\n{} {}", group.group, group.title)?;
        group_tables(out, group)?;
    }
    if !statement.licences.is_empty() {
        writeln!(out, "\nlicences for apps (R19)")?;
        paid_table(&statement.licences).write(out, "paid when ordered")?;
    }
    if statement.on_no_statement > 0 {
        writeln!(
            out,
            "\n{} calls are on no statement: they came too late for the months up to which two months were the limit",
            statement.on_no_statement
        )?;
    }
    if let Some(balance) = &statement.balance {
        writeln!(out)?;
        balance_table(balance).write(out, "balance")?;
    }
    let paid = money(statement.paid_when_ordered).to_string();
    let width = due.len().max(paid.len());
    writeln!(out, "\ndue at settlement  {due:>width$} {currency}")?;
    writeln!(out, "paid when ordered  {paid:>width$} {currency}")
}

fn group_tables(out: &mut dyn Write, group: &GroupStatement) -> io::Result<()> {
    let mut calls = Table::new(&["<action", "<mode", "<billable", ">calls"]);
    for of in &group.calls {
        let billable = match of.mode {
            Mode::Free => "free",
            _ => "yes",
        };
        calls.row(&[&of.action, &of.mode, &billable, &of.calls]);
    }
    for of in &group.not_billable {
        calls.row(&[&of.action, &of.mode, &of.reason, &of.calls]);
    }
    calls.write(out, "calls")?;

    let mut keys = Table::new(&["<key", ">calls", ">billable"]);
    for of in &group.keys {
        let key = match of.key.is_none() {
            true => "(none)",
            false => of.key.as_str(),
        };
        keys.row(&[&key, &of.calls, &of.billable]);
    }
    keys.write(out, "calls by key")?;

    if let Some(per_call) = &group.per_call {
        covered_table(per_call).write(out, "billable calls in per-call mode")?;
    }

    amount_tables(out, group)?;
    if !group.computed.is_empty() {
        writeln!(out, "  how it was computed")?;
    }
    for said in &group.computed {
        writeln!(out, "    {said}")?;
    }
    Ok(())
}

/// What is due of the group, what is adjusted, and what was paid when ordered.
fn amount_tables(out: &mut dyn Write, group: &GroupStatement) -> io::Result<()> {
    let mut due = Table::new(&["<what", ">calls", ">unit price", ">amount"]);
    for line in &group.lines {
        due.row(&[
            &line.what,
            &line.calls,
            &line.unit_price,
            &money(line.amount),
        ]);
    }
    due.write(out, "due at settlement")?;

    let mut adjusted = Table::new(&[
        "<month",
        ">computed again",
        ">fixed",
        ">adjusted before",
        ">amount",
    ]);
    for line in group
        .adjustments
        .iter()
        .filter(|line| !line.amount.is_zero())
    {
        adjusted.row(&[
            &line.month,
            &money(line.recomputed),
            &money(line.fixed),
            &money(line.adjusted_before),
            &money(line.amount),
        ]);
    }
    adjusted.write(out, "adjustments of fixed months (R16)")?;

    paid_table(&group.paid).write(out, "paid when ordered")
}

/// What was paid when ordered, of a group or of licences.
fn paid_table(lines: &[PaidLine]) -> Table {
    let mut paid = Table::new(&["<order", "<what", "<at", "<funds", ">amount"]);
    for line in lines {
        let funds: Vec<String> = line
            .funds
            .iter()
            .map(|(fund, amount)| format!("{fund} {}", money(*amount)))
            .collect();
        paid.row(&[
            &line.order,
            &line.what,
            &line.at,
            &funds.join(", "),
            &money(line.amount),
        ]);
    }
    paid
}

/// The balance before and after, with what changed it. Reasons may be of any script, so they stand
/// last.
fn balance_table(balance: &StatementBalance) -> Table {
    let mut table = Table::new(&["<what", "<id", "<at", ">amount", "<by and why"]);
    table.row(&[&"before", &"", &"", &money(balance.before), &""]);
    for PaymentLine { order, at, amount } in &balance.payments {
        table.row(&[&"payment", order, at, &money(*amount), &""]);
    }
    for ManualLine {
        id,
        at,
        amount,
        reason,
        by,
    } in &balance.adjustments
    {
        let why = format!("{by}: {reason}");
        table.row(&[&"adjustment", id, at, &money(*amount), &why]);
    }
    table.row(&[&"debit", &"", &"", &money(-balance.debit), &""]);
    table.row(&[&"after", &"", &"", &money(balance.after), &""]);
    table
}

/// The free pack, the orders of packs and the post-paid calls, in the order in which they cover
/// calls (R12).
fn covered_table(per_call: &PerCallUse) -> Table {
    let mut covered = Table::new(&[
        "<covered by",
        ">calls",
        ">used before",
        ">used",
        ">left",
        "<from",
        "<until",
        "<state",
    ]);
    let free = &per_call.free;
    covered.row(&[
        &"free pack",
        &free.granted,
        &"",
        &free.used,
        &free.left,
        &"",
        &"",
        &"",
    ]);
    for pack in &per_call.packs {
        covered.row(&[
            &pack.order,
            &format_args!("{} x {}", pack.count, pack.calls),
            &pack.used_before,
            &pack.used,
            &pack.left,
            &pack.delivered,
            &pack.expires,
            &pack.state,
        ]);
    }
    covered.row(&[
        &"post-paid",
        &"",
        &"",
        &per_call.postpaid.calls,
        &"",
        &"",
        &"",
        &"",
    ]);
    covered
}

/// Cells in columns, each as wide as its widest cell. Cells are ASCII; what may be of any script,
/// such as titles and names, ends a line of its own.
struct Table {
    /// By column: whether its cells stand at the right.
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// `<` before a column's head: its cells stand at the left; `>`: at the right.
    fn new(heads: &[&str]) -> Self {
        Self {
            right: heads.iter().map(|head| head.starts_with('>')).collect(),
            rows: vec![
                heads
                    .iter()
                    .map(|head| head.trim_start_matches(['<', '>']).to_owned())
                    .collect(),
            ],
        }
    }

    fn row(&mut self, cells: &[&dyn std::fmt::Display]) {
        self.rows
            .push(cells.iter().map(|cell| cell.to_string()).collect());
    }

    /// Under its title; nothing when there is no row.
    fn write(&self, out: &mut dyn Write, title: &str) -> io::Result<()> {
        if self.rows.len() < 2 {
            return Ok(());
        }
        writeln!(out, "  {title}")?;
        let cell = |row: &[String], column: usize| row.get(column).map_or(0, |cell| cell.len());
        let widths: Vec<usize> = (0..self.right.len())
            .map(|column| self.rows.iter().map(|row| cell(row, column)).max())
            .map(|widest| widest.unwrap_or(0))
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, right), widest) in row.iter().zip(&self.right).zip(&widths) {
                let space = " ".repeat(widest.saturating_sub(cell.len()));
                line.push_str("  ");
                match right {
                    true => line.extend([space.as_str(), cell]),
                    false => line.extend([cell, space.as_str()]),
                }
            }
            writeln!(out, "  {}", line.trim_end())?;
        }
        Ok(())
    }
}
