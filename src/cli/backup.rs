//! `tollgate backup`: a copy of the ledger.
//!
//! Owns what is said of it. Must never replace a file.

use crate::cli::flags::BackupFlags;
use crate::cli::output::{load, print};
use crate::ledger;

/// Copies the ledger, also while the gate runs.
///
/// # Errors
/// When the copy exists already or cannot be made, when the configuration has mistakes, or standard
/// output cannot be written.
pub fn backup(flags: &BackupFlags) -> anyhow::Result<()> {
    let config = load(&flags.config.config)?;
    let from = &config.settings.ledger.path;
    ledger::backup(from, &flags.to)?;
    print(|out| {
        let (from, to) = (from.display(), flags.to.display());
        writeln!(out, "copied {from} to {to}")
    })
}
