//! `tollgate completions` and `tollgate man`: what other programs read of the command line.
//!
//! Owns both forms. Must never say more than the definitions of the flags say.

use crate::cli::flags::{CompletionsFlags, ManFlags, definition};
use crate::cli::output::print;
use anyhow::Context;
use clap_complete::generate;
use clap_mangen::generate_to;

/// Prints the script with which a shell completes the commands.
///
/// # Errors
/// When standard output cannot be written.
pub fn completions(flags: &CompletionsFlags) -> anyhow::Result<()> {
    // Into memory first: the generator panics when it cannot write.
    let mut script = Vec::new();
    generate(flags.shell, &mut definition(), "tollgate", &mut script);
    print(|out| out.write_all(&script))
}

/// Writes a man page for each command into a directory.
///
/// # Errors
/// When a page cannot be written.
pub fn man(flags: &ManFlags) -> anyhow::Result<()> {
    let directory = &flags.directory;
    generate_to(definition(), directory)
        .with_context(|| format!("the pages cannot be written to {}", directory.display()))
}
