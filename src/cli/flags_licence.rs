//! The flags of `tollgate licence`.

use crate::cli::config_flag::ConfigFlag;
use crate::cli::output::AnswerFormat;
use crate::cli::values::{account_id, package};
use crate::model::{AccountId, Package};
use clap::{Args, Subcommand};

/// What `tollgate licence` does, at the gate that runs.
#[derive(Subcommand)]
pub enum LicenceCommand {
    /// Print the licences of apps: orders, trials, and what is revoked.
    #[command(after_help = "Example:\n  tollgate licence list --account 1250000001")]
    List(LicenceListFlags),
    /// Apply for the trial of an app, as its account could.
    #[command(
        after_help = "Example:\n  tollgate licence apply --account 1250000001 --package com.example.camera"
    )]
    Apply(LicenceAppFlags),
    /// Give out no more grants by the licences that an app has.
    ///
    /// A device works on until its grant ends.
    /// A licence that is bought and begins later holds again.
    #[command(
        after_help = "Example:\n  tollgate licence revoke --account 1250000001 --package com.example.camera --why stolen"
    )]
    Revoke(LicenceRevokeFlags),
}

/// The flags of `tollgate licence list`.
#[derive(Args)]
pub struct LicenceListFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// Only this account.
    #[arg(long, value_name = "ID", value_parser = account_id)]
    pub(crate) account: Option<AccountId>,
    /// How to print them.
    #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
    pub(crate) format: AnswerFormat,
}

/// The flags of `tollgate licence apply`.
#[derive(Args)]
pub struct LicenceAppFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// The account that has the app.
    #[arg(long, value_name = "ID", value_parser = account_id)]
    pub(crate) account: AccountId,
    /// The package name of the app.
    #[arg(long, value_name = "NAME", value_parser = package)]
    pub(crate) package: Package,
}

/// The flags of `tollgate licence revoke`.
#[derive(Args)]
pub struct LicenceRevokeFlags {
    #[command(flatten)]
    pub(crate) app: LicenceAppFlags,
    /// Why, for whoever asks later.
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,
}
