//! A statement for people's eyes (`table`) and for spreadsheets (`csv`). JSON is serde's.
//!
//! Shows what a [`Statement`] says. Must never compute an amount.

use crate::billing::statement::{ManualLine, PaymentLine, StatementBalance};
use crate::billing::{GroupStatement, PaidKind, PerCallUse, Statement, money};
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

    let mut paid = Table::new(&["<order", "<what", "<at", "<funds", ">amount"]);
    for line in &group.paid {
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
    paid.write(out, "paid when ordered")
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

/// The columns of [`csv`]; they stay as they are.
const COLUMNS: &str = "month,account,currency,group,row,name,mode,reason,state,calls,left,unit_price,amount,from,until";

/// A header, then a row for each figure of the statement. `row` says what it is: `calls`,
/// `not_billable`, `free_pack`, `pack`, `due`, `adjustment` (of the month in `name`), `paid`,
/// `paid_back`, `on_no_statement` where there are such calls; where the balance is known,
/// `balance_before`, `payment`, `manual_adjustment`, `debit` and `balance_after`; and last
/// `total_due` and `total_paid`.
pub(crate) fn csv(out: &mut dyn Write, statement: &Statement) -> io::Result<()> {
    writeln!(out, "{COLUMNS}")?;
    let mut put = |group: &str, row: &str, cells: Cells| {
        let Cells {
            name,
            mode,
            reason,
            state,
            calls,
            left,
            unit_price,
            amount,
            from,
            until,
        } = cells;
        let cells = [
            statement.month.clone(),
            statement.account.to_string(),
            statement.currency.clone(),
            group.to_owned(),
            row.to_owned(),
            name,
            mode,
            reason,
            state,
            calls,
            left,
            unit_price,
            amount,
            from,
            until,
        ];
        writeln!(out, "{}", cells.map(|cell| quoted(&cell)).join(","))
    };
    for group in &statement.groups {
        let mut put = |row: &str, cells: Cells| put(group.group.as_str(), row, cells);
        call_rows(&mut put, group)?;
        amount_rows(&mut put, group)?;
    }
    if statement.on_no_statement > 0 {
        let cells = Cells {
            calls: statement.on_no_statement.to_string(),
            ..Cells::default()
        };
        put("", "on_no_statement", cells)?;
    }
    if let Some(balance) = &statement.balance {
        balance_rows(&mut |row, cells| put("", row, cells), balance)?;
    }
    // Last, so that a script finds them at the end of the file.
    for (row, amount) in [
        ("total_due", statement.due),
        ("total_paid", statement.paid_when_ordered),
    ] {
        let cells = Cells {
            amount: money(amount).to_string(),
            ..Cells::default()
        };
        put("", row, cells)?;
    }
    Ok(())
}

/// Writes one row: its kind, and its cells.
type Put<'p> = dyn FnMut(&str, Cells) -> io::Result<()> + 'p;

/// The group's calls, and what covered them.
fn call_rows(put: &mut Put<'_>, group: &GroupStatement) -> io::Result<()> {
    for of in &group.calls {
        let cells = Cells {
            name: of.action.to_string(),
            mode: of.mode.to_string(),
            calls: of.calls.to_string(),
            ..Cells::default()
        };
        put("calls", cells)?;
    }
    for of in &group.not_billable {
        let cells = Cells {
            name: of.action.to_string(),
            mode: of.mode.to_string(),
            reason: of.reason.to_string(),
            calls: of.calls.to_string(),
            ..Cells::default()
        };
        put("not_billable", cells)?;
    }
    if let Some(per_call) = &group.per_call {
        let cells = Cells {
            calls: per_call.free.used.to_string(),
            left: per_call.free.left.to_string(),
            ..Cells::default()
        };
        put("free_pack", cells)?;
        for pack in &per_call.packs {
            let cells = Cells {
                name: pack.order.clone(),
                state: pack.state.to_string(),
                calls: pack.used.to_string(),
                left: pack.left.to_string(),
                from: pack.delivered.to_string(),
                until: pack.expires.to_string(),
                ..Cells::default()
            };
            put("pack", cells)?;
        }
    }
    Ok(())
}

/// The group's amounts: due at settlement, and paid when ordered.
fn amount_rows(put: &mut Put<'_>, group: &GroupStatement) -> io::Result<()> {
    for line in &group.lines {
        let cells = Cells {
            name: line.what.clone(),
            calls: line.calls.to_string(),
            unit_price: line.unit_price.to_string(),
            amount: money(line.amount).to_string(),
            ..Cells::default()
        };
        put("due", cells)?;
    }
    for line in &group.adjustments {
        let cells = Cells {
            name: line.month.clone(),
            calls: line.per_call.postpaid.calls.to_string(),
            unit_price: line.per_call.postpaid.unit_price.to_string(),
            amount: money(line.amount).to_string(),
            ..Cells::default()
        };
        put("adjustment", cells)?;
    }
    for line in &group.paid {
        let row = match line.kind {
            PaidKind::Packs | PaidKind::Qps => "paid",
            PaidKind::PaidBack => "paid_back",
        };
        let cells = Cells {
            name: line.order.clone(),
            amount: money(line.amount).to_string(),
            from: line.at.to_string(),
            ..Cells::default()
        };
        put(row, cells)?;
    }
    Ok(())
}

/// The balance before and after the statement, and what changed it.
fn balance_rows(put: &mut Put<'_>, balance: &StatementBalance) -> io::Result<()> {
    let cells = |name: &str, amount, from: &str| Cells {
        name: name.to_owned(),
        amount: money(amount).to_string(),
        from: from.to_owned(),
        ..Cells::default()
    };
    put("balance_before", cells("", balance.before, ""))?;
    for PaymentLine { order, at, amount } in &balance.payments {
        put("payment", cells(order, *amount, &at.to_string()))?;
    }
    for line in &balance.adjustments {
        let of = Cells {
            reason: format!("{}: {}", line.by, line.reason),
            ..cells(&line.id, line.amount, &line.at.to_string())
        };
        put("manual_adjustment", of)?;
    }
    put("debit", cells("", -balance.debit, ""))?;
    put("balance_after", cells("", balance.after, ""))
}

/// The cells of a row that differ by its kind.
#[derive(Default)]
struct Cells {
    name: String,
    mode: String,
    reason: String,
    state: String,
    calls: String,
    left: String,
    unit_price: String,
    amount: String,
    from: String,
    until: String,
}

/// RFC 4180.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
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
