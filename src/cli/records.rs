//! `tollgate records`: admitted calls from the ledger, one line each.
//!
//! Owns which records are printed. Must never read all of them into memory.

use crate::cli::flags::RecordsFlags;
use crate::cli::output::{RecordsFormat, load, open_ledger};
use crate::cli::replica::tell_part;
use crate::config::Config;
use crate::ledger::{Cursor, RECORD_COLUMNS, RecordsOf, StoredRecord};
use crate::model::{AccountId, Month};
use anyhow::Context;
use std::io::{self, ErrorKind, Write};

/// Records that are in memory at a time.
const PAGE: u64 = 10_000;
/// Rows that are looked at in one transaction, so that a running gate can copy its WAL.
const ROWS: u64 = 1_000_000;

/// The records that are asked for.
enum Selection<'f> {
    /// Those of all accounts after a cursor, at most so many.
    After(Cursor, u64),
    /// All of an account's month: its statement can be recounted from them.
    Month(&'f AccountId, Month),
}

impl<'f> Selection<'f> {
    fn new(flags: &'f RecordsFlags) -> Self {
        match (&flags.account, flags.month) {
            (Some(account), Some(month)) => Self::Month(account, month),
            // The definition of the flags lets in both or none.
            _ => Self::After(flags.after, flags.limit),
        }
    }
}

/// Prints admitted calls, one line each. The next cursor goes to standard error: standard output
/// has the records alone, which a program reads.
///
/// # Errors
/// When the cursor leads to no record any more, the configuration or the ledger cannot be read, or
/// standard output or the cursor not be written.
pub fn records(flags: &RecordsFlags) -> anyhow::Result<()> {
    let config = load(&flags.config.config)?;
    tell_part(&config.settings);
    let selection = Selection::new(flags);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let next = match print_records(&mut out, &config, &selection, flags.format)? {
        Some(next) => next,
        // A reader that went away (`| head`) is no error, and wants no cursor.
        None => return Ok(()),
    };
    if let Selection::After(..) = selection {
        match writeln!(io::stderr(), "next cursor: {next}") {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            // A program goes on from the cursor, and must know that it is missing.
            written => written.context("standard error")?,
        }
    }
    Ok(())
}

/// The cursor after the last record; `None` when the reader of `out` went away.
fn print_records(
    out: &mut impl Write,
    config: &Config,
    selection: &Selection<'_>,
    format: RecordsFormat,
) -> anyhow::Result<Option<Cursor>> {
    let reader = open_ledger(&config.settings.ledger.path)?;
    let (mut after, mut left) = match selection {
        Selection::After(after, limit) => (*after, *limit),
        Selection::Month(..) => (Cursor::from(0), u64::MAX),
    };
    if let RecordsFormat::Csv = format {
        writeln!(out, "{RECORD_COLUMNS}")?;
    }
    while left > 0 {
        let most = usize::try_from(left.min(PAGE))?;
        let (page, is_last) = match selection {
            Selection::After(..) => {
                let page = reader.records(after, most)?;
                if let Some(last) = page.last() {
                    after = reader.cursor(last.seq)?;
                }
                let is_last = page.is_empty();
                (page, is_last)
            }
            Selection::Month(account, month) => {
                let (from, until) = month.bounds(&config.catalog.time_zone);
                let asked = RecordsOf {
                    account,
                    from,
                    until,
                    through: u64::MAX,
                    records: most,
                    rows: ROWS,
                };
                let page = reader.records_of(&asked, after)?;
                after = page.next;
                (page.records, page.is_last)
            }
        };
        left -= page.len() as u64;
        for record in &page {
            match write_record(out, record, format) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(None),
                written => written.context("standard output")?,
            }
        }
        if is_last {
            break;
        }
    }
    match out.flush() {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(None),
        flushed => flushed.context("standard output").map(|()| Some(after)),
    }
}

fn write_record(
    out: &mut impl Write,
    record: &StoredRecord,
    format: RecordsFormat,
) -> io::Result<()> {
    match format {
        RecordsFormat::Jsonl => {
            serde_json::to_writer(&mut *out, record)?;
            writeln!(out)
        }
        RecordsFormat::Csv => {
            record.write_csv(&mut *out)?;
            writeln!(out)
        }
    }
}
