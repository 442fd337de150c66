//! `tollgate restore`: a backup in the place of the ledger.
//!
//! Owns what is said of what follows. Must never delete the ledger that was there.

use crate::cli::flags::RestoreFlags;
use crate::cli::output::{load, print};
use crate::ledger;
use crate::model::Clock;

/// Puts a backup in the place of the ledger, and says what follows from it.
///
/// # Errors
/// When a gate runs, when the backup cannot be used, when the configuration has mistakes, or
/// standard output cannot be written.
pub fn restore(flags: &RestoreFlags) -> anyhow::Result<()> {
    let config = load(&flags.config.config)?;
    let to = &config.settings.ledger.path;
    let restored = ledger::restore(&flags.from, to, Clock::default().utc())?;
    print(|out| {
        writeln!(
            out,
            "restored {} to {}: ledger {}, restored {} times",
            flags.from.display(),
            restored.path.display(),
            restored.ledger_id,
            restored.restore_count
        )?;
        if let Some(moved) = &restored.moved {
            writeln!(out, "the ledger that was there is at {}", moved.display())?;
        }
        writeln!(
            out,
            "its records end with {}; the next one is {}",
            restored.last_seq, restored.next_seq
        )?;
        writeln!(
            out,
            "who reads records goes on after {}:SEQ, at most {0}:{}, and forgets what it has beyond",
            restored.restore_count, restored.last_seq
        )?;
        writeln!(out, "seal {}", hex::encode(restored.seal))
    })
}
