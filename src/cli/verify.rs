//! `tollgate verify`: whether the ledger and the statements fit the records.
//!
//! Owns how the findings are told. Must never repair what does not fit.

use crate::billing::{self, VerifiedMonth};
use crate::cli::flags::VerifyFlags;
use crate::cli::output::{load, open_ledger, print};
use crate::cli::replica::tell_part;
use crate::ledger::Verified;
use std::io::{self, Write};

/// Recomputes all that the ledger says from the records that it keeps, and compares it with what
/// was published.
///
/// # Errors
/// When something does not fit: the first such row. Also when the configuration or the ledger
/// cannot be read, or standard output not be written.
pub fn verify(flags: &VerifyFlags) -> anyhow::Result<()> {
    let config = load(&flags.config.config)?;
    tell_part(&config.settings);
    let zone = &config.catalog.time_zone;
    let reader = open_ledger(&config.settings.ledger.path)?;
    let verified = reader.verify(flags.checkpoint)?;
    let months = billing::verify_statements(&reader, zone)?;
    let on_none = billing::calls_on_none(&reader, zone, None)?;
    billing::check_digests(&months, &flags.digest)?;
    print(|out| {
        write_records(out, &verified)?;
        for month in &months {
            write_month(out, month)?;
        }
        if on_none > 0 {
            writeln!(
                out,
                "{on_none} calls are on no statement: they came too late for the months up to which two months were the limit"
            )?;
        }
        Ok(())
    })
}

fn write_records(out: &mut dyn Write, verified: &Verified) -> io::Result<()> {
    write!(out, "{} records", verified.records)?;
    if verified.records > 0 {
        write!(out, ", {} to {}", verified.first_seq, verified.last_seq)?;
    }
    writeln!(out, ": chain, days and rollup are what these records give")?;
    // The chain follows the commits: the newest records have no link that could be compared.
    if verified.unlinked > 0 {
        writeln!(
            out,
            "{} more are younger than the last roll-up and not linked yet: nothing is said of them",
            verified.unlinked
        )?;
    }
    // Nothing is linked yet, so there is no head that would prove anything.
    if verified.last_seq == 0 {
        return Ok(());
    }
    writeln!(out, "head {}", hex::encode(verified.head))
}

fn write_month(out: &mut dyn Write, month: &VerifiedMonth) -> io::Result<()> {
    writeln!(
        out,
        "{}: {} fixed statements are what their inputs and the records give; digest {}",
        month.month,
        month.statements,
        hex::encode(month.digest)
    )
}
