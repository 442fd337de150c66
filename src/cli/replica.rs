//! What the commands say of the ledger of one of several replicas (`admission.store`).
//!
//! Owns which of them are refused. Must never refuse one that only counts or copies.

use crate::cli::output::tell;
use crate::config::Settings;
use crate::model::ONE_REPLICAS_PART;

/// The configuration has `admission.store`, and what was asked follows from the calls of all
/// replicas.
#[derive(thiserror::Error, Debug)]
#[error(
    "{what} cannot be told here: `admission.store` makes this gate one of several replicas, and its ledger has only the calls that it \
     admitted itself. The books are kept elsewhere; `tollgate usage` and `tollgate records` print this replica's part. Months that \
     were fixed here before stay in the ledger: to read them, use a copy of the configuration without `admission.store`"
)]
pub struct BooksElsewhere {
    what: &'static str,
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
        Some(_) => Err(BooksElsewhere { what }),
    }
}

/// Says on standard error that the ledger is a part.
pub(super) fn tell_part(settings: &Settings) {
    if settings.store.is_some() {
        tell(format_args!(
            "note: {ONE_REPLICAS_PART} (`admission.store`)"
        ));
    }
}
