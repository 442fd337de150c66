//! The flags of `tollgate probe`.

use crate::cli::config_flag::ConfigFlag;
use clap::Args;

/// The flags of `tollgate probe`.
#[derive(Args)]
pub struct ProbeFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// Ask whether the process runs, and not whether it accepts calls: it runs also while it drains, and
    /// while its disk does not work.
    #[arg(long)]
    pub(crate) live: bool,
}
