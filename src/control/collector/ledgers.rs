//! Which ledger a process may use, and the ledgers that are given up.
//!
//! Owns what is said of what is lost by it. Must never mix the calls that a gate admits with the
//! records of others.

use crate::ledger::{Ledger, LedgerError, ReadError, SourceLedger, StoreError};
use crate::model::{Local, Utc};
use jiff::tz::TimeZone;
use std::path::PathBuf;

/// The ledger is not one for this process.
#[derive(thiserror::Error, Debug)]
pub enum WrongLedger {
    /// A gate's.
    #[error(
        "the ledger {0} has calls that a gate admitted itself, and `tollgate collect` needs one with the records of others alone: \
         give the collector a ledger of its own (`ledger: {{path: .., when_missing: create}}`)"
    )]
    OfAGate(PathBuf),
    /// The collector's.
    #[error(
        "the ledger {0} has the records of other ledgers, which `tollgate collect` has put there: give this gate a ledger of its \
         own (`ledger: {{path: .., when_missing: create}}`)"
    )]
    OfACollector(PathBuf),
    /// It cannot be read.
    #[error(transparent)]
    Open(#[from] LedgerError),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Refuses a ledger in which a gate wrote.
pub(in crate::control) fn check_collected(ledger: &Ledger) -> Result<(), WrongLedger> {
    let reader = ledger.reader()?;
    match reader.has_own_calls()? {
        true => Err(WrongLedger::OfAGate(ledger.path().to_owned())),
        false => Ok(()),
    }
}

/// Refuses a ledger in which a collector wrote.
pub(in crate::control) fn check_gate(ledger: &Ledger) -> Result<(), WrongLedger> {
    match ledger.reader()?.sources()?.is_empty() {
        true => Ok(()),
        false => Err(WrongLedger::OfACollector(ledger.path().to_owned())),
    }
}

/// Why a ledger cannot be given up.
#[derive(thiserror::Error, Debug)]
pub(crate) enum GiveUpError {
    /// There is none of this id.
    #[error("no ledger {0} is known here: GET /v1/sources of the collector lists them")]
    Unknown(String),
    /// It was given up before.
    #[error("the ledger {0} was given up before")]
    Retired(String),
    /// The ledger cannot be opened.
    #[error(transparent)]
    Open(#[from] LedgerError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The ledger cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is given up with a ledger.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    /// The ledger as it was known.
    pub source: SourceLedger,
    /// Records that it has told of and that are not collected.
    pub records: u64,
}

/// Gives up a ledger: nothing waits for it any more. Blocks.
pub(crate) fn give_up(
    ledger: &Ledger,
    ledger_id: &str,
    why: &str,
    at: Utc,
) -> Result<Lost, GiveUpError> {
    let sources = ledger.reader()?.sources()?;
    let found = sources
        .into_iter()
        .find(|source| source.ledger_id == ledger_id);
    let source = found.ok_or_else(|| GiveUpError::Unknown(ledger_id.to_owned()))?;
    if source.retired.is_some() {
        return Err(GiveUpError::Retired(ledger_id.to_owned()));
    }
    ledger.retire(ledger_id, why, at)?;
    let records = missing(&source);
    tracing::warn!(
        ledger = ledger_id,
        replica = source.replica,
        why,
        records,
        "the ledger is given up: days and months do not wait for it any more"
    );
    Ok(Lost { source, records })
}

/// The records that a ledger has told of and that are not collected.
pub(super) fn missing(source: &SourceLedger) -> u64 {
    let told = source.watermark.map_or(0, |(_, seq)| seq);
    told.saturating_sub(source.seq)
}

/// What is given up, in a sentence.
pub(crate) fn told_lost(lost: &Lost, zone: &TimeZone) -> String {
    let Lost { source, records } = lost;
    let known = match source.admitted_before {
        Some(at) => format!(
            "every call that it admitted before {} is collected",
            Local::new(at, zone)
        ),
        None => "of no instant it is known that the calls before it are collected".to_owned(),
    };
    format!(
        "the ledger {} of {} is given up: its records up to {} are collected, {known}, and {records} records more were told of. Months \
         close without what is missing. If it comes back with all of these, they are billed as late calls of the next statement",
        source.ledger_id, source.replica, source.seq
    )
}
