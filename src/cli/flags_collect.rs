//! The flags of `tollgate collect`.

use crate::cli::config_flag::ConfigFlag;
use clap::{Args, Subcommand};

/// The flags of `tollgate collect`.
#[derive(Args)]
pub struct CollectFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    #[command(subcommand)]
    pub(crate) command: Option<CollectCommand>,
}

/// What can be done with a collected ledger while the collector does not run.
#[derive(Subcommand)]
pub enum CollectCommand {
    /// Give up a ledger that is lost: days and months do not wait for it any more.
    ///
    /// Says what is given up. While the collector runs, ask it instead: POST /v1/sources/LEDGER/retire?why=TEXT
    /// at its admin address.
    #[command(
        after_help = "Example:\n  tollgate collect retire 00112233445566778899aabbccddeeff --why disk-lost"
    )]
    Retire(RetireFlags),
    /// Put this ledger in the place of the one that the gates' records were collected in.
    ///
    /// For a collected ledger that is lost for good: begin with its newest backup (`tollgate restore`), or with an empty
    /// ledger. Months that the lost one has closed and this one has not are closed and debited again, of the records
    /// that the gates still have; until then whoever was stopped for arrears stays so. The collector that is replaced
    /// must not run.
    #[command(after_help = "Example:\n  tollgate collect adopt --config config/tollgate.yaml")]
    Adopt(AdoptFlags),
}

/// The flags of `tollgate collect adopt`.
#[derive(Args)]
pub struct AdoptFlags {
    /// The id of a lost ledger, beside the one that NATS names: the gates tell it in their logs when NATS has lost it, too.
    #[arg(long, value_name = "LEDGER")]
    pub(crate) replaces: Vec<String>,
}

/// The flags of `tollgate collect retire`.
#[derive(Args)]
pub struct RetireFlags {
    /// The id of the ledger: 32 hex digits, as the log and GET /v1/sources have it.
    #[arg(value_name = "LEDGER")]
    pub(crate) ledger: String,
    /// Why, for whoever asks later.
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,
}
