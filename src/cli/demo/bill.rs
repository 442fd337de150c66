//! What the demo ends with: the month's counts and statements of a ledger, and ledgers side by side.
//!
//! Owns the comparison of a collected ledger with those of the gates. Must never count or compute an
//! amount: ledger and billing do.

use crate::billing::books::Books;
use crate::billing::text;
use crate::cli::usage::usage_table;
use crate::config::{Account, Catalog};
use crate::ledger::{Reader, UsageLine};
use crate::model::{Month, Utc};
use anyhow::bail;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The month's counts, and the statements of the accounts that pay by the call.
pub(super) fn write_ledger(
    out: &mut impl Write,
    ledger: &Path,
    catalog: &Catalog,
    accounts: &[Account],
    now: Utc,
) -> anyhow::Result<()> {
    let month = Month::of(now, &catalog.time_zone);
    let (from, until) = month.bounds(&catalog.time_zone);
    let reader = Reader::open(ledger)?;
    let lines = reader.usage(from, until, None, 0..=u64::MAX)?;
    writeln!(out)?;
    usage_table(out, month, &lines)?;
    let orders = Books {
        catalog,
        reader: &reader,
        now,
    };
    for account in accounts {
        let statement = orders.statement(account.into(), month)?;
        // A statement without charged calls has nothing to show.
        let mut charged = statement.groups.iter().filter_map(|g| g.per_call.as_ref());
        if charged.any(|per_call| per_call.billable > 0) {
            writeln!(out)?;
            text::table(out, &statement)?;
        }
    }
    Ok(())
}

/// Calls by all that the biller tells apart.
#[derive(Default)]
struct Counted {
    kinds: BTreeMap<String, u64>,
    calls: u64,
    billable: u64,
}

impl Counted {
    fn add(&mut self, lines: &[UsageLine]) {
        for line in lines {
            let UsageLine {
                account,
                group,
                action,
                mode,
                key,
                outcome,
                reason,
                billable,
                calls,
                ..
            } = line;
            let kind = format!("{account} {group} {action} {mode} {key} {outcome} {reason}");
            *self.kinds.entry(kind).or_default() += calls;
            self.calls += calls;
            self.billable += if *billable { *calls } else { 0 };
        }
    }

    fn write(&self, out: &mut impl Write, name: &str) -> std::io::Result<()> {
        let Self {
            calls, billable, ..
        } = self;
        writeln!(out, "{name:<20} {calls:>8} {billable:>9}")
    }
}

/// Writes the month's counts of each gate's ledger, their sum, and beside it those of the collected
/// one.
///
/// # Errors
/// When they differ in any kind of call, or a ledger cannot be read.
pub(super) fn compare_ledgers(
    out: &mut impl Write,
    gates: &[(String, PathBuf)],
    collected: &Path,
    catalog: &Catalog,
    now: Utc,
) -> anyhow::Result<()> {
    let (from, until) = Month::of(now, &catalog.time_zone).bounds(&catalog.time_zone);
    let usage = |ledger: &Path| -> anyhow::Result<Vec<UsageLine>> {
        Ok(Reader::open(ledger)?.usage(from, until, None, 0..=u64::MAX)?)
    };
    writeln!(out, "\n{:<20} {:>8} {:>9}", "ledger", "calls", "billable")?;
    let mut sum = Counted::default();
    for (name, ledger) in gates {
        let lines = usage(ledger)?;
        let mut gate = Counted::default();
        gate.add(&lines);
        gate.write(out, name)?;
        sum.add(&lines);
    }
    sum.write(out, "sum of the gates")?;
    let mut all = Counted::default();
    all.add(&usage(collected)?);
    all.write(out, "collected")?;
    if sum.kinds != all.kinds {
        bail!("a promise was broken:\n  collected: the counts are not those of the gates' ledgers");
    }
    writeln!(
        out,
        "equal: of each account, action, key and outcome the collected ledger has the calls of all gates"
    )?;
    Ok(())
}
