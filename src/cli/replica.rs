//! What the commands say of the ledger of one of several gates (`admission.store`, `outbox`).
//!
//! Owns which of them are refused. Must never refuse one that only counts or copies.

use crate::cli::output::tell;
use crate::config::Settings;
use crate::ledger::Reader;
use crate::model::ONE_REPLICAS_PART;

/// The ledger has a part of the calls, and what was asked follows from those of all gates.
#[derive(thiserror::Error, Debug)]
pub enum BooksElsewhere {
    /// The records stay at each replica.
    #[error(
        "{0} cannot be told here: `admission.store` makes this gate one of several replicas, and its ledger has only the calls that it \
         admitted itself. The books are kept elsewhere; `tollgate usage` and `tollgate records` print this replica's part. Months that \
         were fixed here before stay in the ledger: to read them, use a copy of the configuration without `admission.store`"
    )]
    Nowhere(&'static str),
    /// They are collected.
    #[error(
        "{0} cannot be told here: `outbox` sends the records of this ledger to the collector, which keeps the books of all gates. Ask \
         there, where `tollgate collect` runs; `tollgate usage` and `tollgate records` print this gate's part. Months that were fixed \
         here before stay in the ledger: to read them, use a copy of the configuration without `outbox`"
    )]
    Collected(&'static str),
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
