//! What the commands say of the ledger of one of several replicas: by the configuration
//! (`admission.store`), or by the calls that are in it.
//!
//! Owns which of them are refused. Must never refuse one that only counts or copies.

use crate::cli::output::tell;
use crate::config::Settings;
use crate::ledger::{ReadError, Reader};
use crate::model::{ONE_REPLICAS_PART, PART_WITHOUT_STORE};

/// What was asked follows from the calls of all replicas, and this ledger has those of one.
#[derive(thiserror::Error, Debug)]
pub enum BooksElsewhere {
    /// The configuration has `admission.store`.
    #[error(
        "{0} cannot be told here: `admission.store` makes this gate one of several replicas, and its ledger has only the calls that it \
         admitted itself. The books are kept elsewhere; `tollgate usage` and `tollgate records` print this replica's part. Months that \
         were fixed here before stay in the ledger: to read their statements, use a copy of the configuration without `admission.store`"
    )]
    Configured(&'static str),
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
/// When the configuration makes the gate a replica.
pub(super) fn check_books(settings: &Settings, what: &'static str) -> Result<(), BooksElsewhere> {
    match settings.store {
        None => Ok(()),
        Some(_) => Err(BooksElsewhere::Configured(what)),
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
    let is_refused = settings.store.is_none() && reader.is_one_replicas_part()?;
    Ok(is_refused.then(|| {
        format!(
            "`serve` will not start: ledger {}: {PART_WITHOUT_STORE}",
            settings.ledger.path.display()
        )
    }))
}

/// Says on standard error that the ledger is a part.
pub(super) fn tell_part(settings: &Settings) {
    if settings.store.is_some() {
        tell(format_args!(
            "note: {ONE_REPLICAS_PART} (`admission.store`)"
        ));
    }
}
