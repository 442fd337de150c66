//! The flag that names the configuration; nearly every command has it.

use clap::Args;
use std::path::PathBuf;

/// Where the settings are.
#[derive(Args)]
pub struct ConfigFlag {
    /// The settings; catalogue, accounts and ledger are found from there.
    #[arg(
        long,
        global = true,
        env = "TOLLGATE_CONFIG",
        default_value = "config/tollgate.yaml",
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,
}
