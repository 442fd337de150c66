//! What the commands say of the ledger of one of several gates: by the configuration
//! (`admission.store`, `outbox`), or by the calls that are in it.
//!
//! Owns which of them are refused. Must never refuse one that only counts or copies.

use crate::cli::output::tell;
use crate::config::Settings;
use crate::ledger::{ReadError, Reader};
use crate::model::{ONE_REPLICAS_PART, PART_WITHOUT_STORE};

/// The ledger has a part of the calls, and what was asked follows from those of all gates.
#[derive(thiserror::Error, Debug)]
pub enum BooksElsewhere {
    /// The records stay at each replica.
    #[error(
        "{0} cannot be told here: `admission.store` makes this gate one of several replicas, and its ledger has only the calls that it \
         admitted itself. The books are kept elsewhere; `tollgate usage` and `tollgate records` print this replica's part. Months that \
         were fixed here before stay in the ledger: to read their statements, use a copy of the configuration without `admission.store`"
    )]
    Nowhere(&'static str),
    /// They are collected.
    #[error(
        "{0} cannot be told here: `outbox` sends the records of this ledger to the collector, which keeps the books of all gates. Ask \
         there, where `tollgate collect` runs; `tollgate usage` and `tollgate records` print this gate's part. Months that were fixed \
         here before stay in the ledger: to read their statements, use a copy of the configuration without `outbox`"
    )]
    Collected(&'static str),
    /// The configuration does not have it, and a gate that had it wrote the ledger.
    #[error(
        "{0} cannot be told here: the newest calls of this ledger were admitted with a shared store (`admission.store`) by one of \
         several replicas, and the calls of the others are not in it. The books are kept elsewhere; `tollgate usage` and `tollgate \
         records` print this replica's part, and `tollgate statement` the statements of months that were fixed here before \
         (`--list`)"
    )]
    Recorded(&'static str),
}

impl BooksElsewhere {
    /// The exit code of a command that ends with it.
    pub const EXIT_CODE: u8 = 3;
}

/// Ends a command that tells `what` of all calls.
///
/// # Errors
/// When the ledger of the configuration has a part of them.
pub(super) fn check_books(settings: &Settings, what: &'static str) -> Result<(), BooksElsewhere> {
    match (&settings.outbox, &settings.store) {
        _ if !has_part(settings) => Ok(()),
        (Some(_), _) => Err(BooksElsewhere::Collected(what)),
        (None, _) => Err(BooksElsewhere::Nowhere(what)),
    }
}

/// Ends a command that tells `what` of the calls behind the last fixed month.
///
/// # Errors
/// When a replica wrote them, or the ledger cannot be read.
pub(super) fn check_calls(reader: &Reader, what: &'static str) -> anyhow::Result<()> {
    match reader.is_one_replicas_part()? {
        false => Ok(()),
        true => Err(BooksElsewhere::Recorded(what).into()),
    }
}

/// What `check` warns of when the gate would not start with this ledger.
pub(super) fn part_without_store(
    settings: &Settings,
    reader: &Reader,
) -> Result<Option<String>, ReadError> {
    let is_refused = !settings.books_are_elsewhere() && reader.is_one_replicas_part()?;
    Ok(is_refused.then(|| {
        format!(
            "`serve` will not start: ledger {}: {PART_WITHOUT_STORE}",
            settings.ledger.path.display()
        )
    }))
}

/// Says on standard error that the ledger is a part.
pub(super) fn tell_part(settings: &Settings) {
    if has_part(settings) {
        let by = match settings.outbox {
            Some(_) => "outbox",
            None => "admission.store",
        };
        tell(format_args!("note: {ONE_REPLICAS_PART} (`{by}`)"));
    }
}

/// The collector has the same settings as the gates, and all the calls.
fn has_part(settings: &Settings) -> bool {
    let is_collected = || {
        let sources = Reader::open(&settings.ledger.path).map(|reader| reader.sources());
        matches!(sources, Ok(Ok(sources)) if !sources.is_empty())
    };
    settings.books_are_elsewhere() && !(settings.outbox.is_some() && is_collected())
}
