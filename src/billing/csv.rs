//! A statement for spreadsheets and scripts.
//!
//! Shows what a [`Statement`] says. Must never compute an amount.

use crate::billing::statement::{PaymentLine, StatementBalance};
use crate::billing::{GroupStatement, PaidKind, PaidLine, Statement, money};
use rust_decimal::Decimal;
use std::io::{self, Write};

/// The columns of [`csv`]; they stay as they are.
const COLUMNS: &str = "month,account,currency,group,row,name,mode,reason,state,calls,left,unit_price,amount,from,until,title,title_en";

/// A header, then a row for each figure of the statement. `row` says what it is: `provisional`
/// first while the statement may change, `calls`, `not_billable`, `key` and `key_billable` (the
/// calls of a key, and the billable ones of them), `free_pack`, `pack`, `due`, `adjustment` (of the
/// month in `name`), `paid`, `paid_back`, `on_no_statement` where there are such calls; where the
/// balance is known, `balance_before`, `payment`, `manual_adjustment`, `debit` and `balance_after`;
/// and last `total_due` and `total_paid`.
pub(crate) fn csv(out: &mut dyn Write, statement: &Statement) -> io::Result<()> {
    csv_head(out)?;
    csv_rows(out, statement)
}

/// The header of [`csv`].
pub(crate) fn csv_head(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{COLUMNS}")
}

/// The rows of [`csv`], without its header: of many statements one after the other.
pub(crate) fn csv_rows(out: &mut dyn Write, statement: &Statement) -> io::Result<()> {
    let mut put = |group: Option<&GroupStatement>, row: &str, cells: Cells| {
        let line = cells.line(statement, group, row);
        writeln!(out, "{}", line.map(|cell| quoted(&cell)).join(","))
    };
    if statement.fixed.is_none() {
        // First, so that nobody takes the file for a bill.
        let cells = Cells {
            until: statement.counted_until.to_string(),
            ..Cells::default()
        };
        put(None, "provisional", cells)?;
    }
    for group in &statement.groups {
        let mut put = |row: &str, cells: Cells| put(Some(group), row, cells);
        call_rows(&mut put, group)?;
        amount_rows(&mut put, group)?;
    }
    paid_rows(&mut |row, cells| put(None, row, cells), &statement.licences)?;
    if statement.on_no_statement > 0 {
        let cells = Cells {
            calls: statement.on_no_statement.to_string(),
            ..Cells::default()
        };
        put(None, "on_no_statement", cells)?;
    }
    if let Some(balance) = &statement.balance {
        balance_rows(&mut |row, cells| put(None, row, cells), balance)?;
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
        put(None, row, cells)?;
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
    for of in &group.keys {
        for (row, calls) in [("key", of.calls), ("key_billable", of.billable)] {
            let cells = Cells {
                name: of.key.to_string(),
                calls: calls.to_string(),
                ..Cells::default()
            };
            put(row, cells)?;
        }
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
    paid_rows(put, &group.paid)
}

/// What was paid when ordered, of a group or of licences.
fn paid_rows(put: &mut Put<'_>, paid: &[PaidLine]) -> io::Result<()> {
    for line in paid {
        let row = match line.kind {
            PaidKind::Packs | PaidKind::Qps | PaidKind::Licence => "paid",
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

impl Cells {
    /// All cells of a row, in the order of [`COLUMNS`].
    fn line(
        self,
        statement: &Statement,
        group: Option<&GroupStatement>,
        row: &str,
    ) -> [String; 17] {
        let text = |of: fn(&GroupStatement) -> &str| group.map_or("", of).to_owned();
        [
            statement.month.clone(),
            statement.account.to_string(),
            statement.currency.clone(),
            text(|group| group.group.as_str()),
            row.to_owned(),
            self.name,
            self.mode,
            self.reason,
            self.state,
            self.calls,
            self.left,
            self.unit_price,
            self.amount,
            self.from,
            self.until,
            text(|group| &group.title),
            text(|group| &group.title_en),
        ]
    }
}

/// RFC 4180. A text that a spreadsheet would take for a formula gets an apostrophe before it; a
/// number stays what it is.
fn quoted(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '-', '@']) && cell.parse::<Decimal>().is_err();
    let cell = &match is_formula {
        true => format!("'{cell}"),
        false => cell.to_owned(),
    };
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}
