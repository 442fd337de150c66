//! What the commands share: the configuration they read, standard output and standard error.
//!
//! Owns how a line leaves the process. Must never panic when a line cannot be written.

use crate::config::{self, Config};
use crate::ledger::{LedgerError, Reader, uncorrected_note};
use crate::model::{Clock, Mono};
use anyhow::Context;
use clap::ValueEnum;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

/// How counts and statements are printed.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One document.
    Json,
    /// A row each, with a head.
    Csv,
}

/// How records are printed.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum RecordsFormat {
    /// A JSON document in each line.
    Jsonl,
    /// A row each, with a head.
    Csv,
}

/// How a price, or the answer to a refund, is printed.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum AnswerFormat {
    /// For people.
    Table,
    /// One document.
    Json,
}

/// Loads the configuration; warnings go to standard error.
///
/// # Errors
/// When the configuration has mistakes: all of them, each with its place.
pub(crate) fn load(path: &Path) -> anyhow::Result<Config> {
    let config = config::load(path)?;
    for warning in config::told(&config.warnings) {
        tell(format_args!("warning: {warning}"));
    }
    Ok(config)
}

/// Opens the ledger for reading. A note beside it, of calls that may still be corrected, goes to
/// standard error: what is printed then may change.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub(crate) fn open_ledger(path: &Path) -> anyhow::Result<Reader> {
    let reader = Reader::open(path)?;
    match uncorrected_note(path) {
        Ok(None) => {}
        Ok(Some(note)) => tell(format_args!("warning: {}", LedgerError::Uncorrected(note))),
        // The note is no part of the answer: one that cannot be read hinders nothing.
        Err(error) => tell(format_args!(
            "warning: calls of this ledger may still have to be corrected: {error}"
        )),
    }
    Ok(reader)
}

/// Writes to standard output; a reader that went away (`| head`) is no error.
///
/// # Errors
/// When standard output cannot be written for any other reason.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("standard output")
        }
        _ => Ok(()),
    }
}

/// Says on standard error how far a long command has come.
pub(crate) struct Progress {
    what: &'static str,
    done: u64,
    clock: Clock,
    told: Mono,
}

impl Progress {
    /// How often it is told.
    const EVERY: Duration = Duration::from_secs(5);

    /// Nothing is done yet.
    pub(crate) fn new(what: &'static str) -> Self {
        let clock = Clock::default();
        Self {
            what,
            done: 0,
            told: clock.mono(),
            clock,
        }
    }

    /// One more is done.
    pub(crate) fn step(&mut self) {
        self.done += 1;
        // The clock is not asked each time.
        if !self.done.is_multiple_of(256) {
            return;
        }
        let now = self.clock.mono();
        if now.since(self.told) >= Self::EVERY {
            self.told = now;
            tell(format_args!("{} {} so far", self.done, self.what));
        }
    }
}

/// Writes a line to standard error. A line that cannot be written (a full disk, a reader that
/// ended) is dropped: it must not end a gate, as `eprintln!` does.
pub fn tell(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
