//! The flags of `tollgate key`.

use crate::cli::config_flag::ConfigFlag;
use crate::cli::values::{account_id, key_name, overlap};
use crate::model::{AccountId, KeyId};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// The kinds of credential.
#[derive(Clone, Copy, ValueEnum)]
pub enum KeyKind {
    // No doc comments here: clap would show them, in a longer form of help.
    #[allow(missing_docs, reason = "the flag's help explains both")]
    Tc3,
    #[allow(missing_docs, reason = "the flag's help explains both")]
    ApiKey,
    #[allow(missing_docs, reason = "the flag's help explains both")]
    App,
}

/// What `tollgate key` makes.
#[derive(Subcommand)]
pub enum KeyCommand {
    /// Print a fresh credential: what the customer gets, shown this once, and the line for
    /// accounts.yaml.
    #[command(
        after_help = "Examples:\n  tollgate key new --kind api-key\n  tollgate key new --tls config/tls --host gate.example --host 192.0.2.7"
    )]
    New {
        /// A TC3 pair as the vendor's SDKs sign with, an API key for plain HTTP, or a licence key
        /// that stands in an app.
        #[arg(long, value_enum, default_value_t = KeyKind::Tc3)]
        kind: KeyKind,
        /// Instead make a key that signs grants of licences, in this new file.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "name"])]
        licence: Option<PathBuf>,
        /// Instead make a certificate for trials, signed by itself, and its key, in this directory.
        #[arg(long, value_name = "DIR", conflicts_with_all = ["kind", "name", "licence"])]
        tls: Option<PathBuf>,
        /// A name or an address that the certificate is for; may be given again. Without one, this
        /// machine's own (localhost).
        #[arg(long, value_name = "HOST", requires = "tls")]
        host: Vec<String>,
        /// The name of the key, which its calls are counted under.
        #[arg(long, value_name = "NAME", value_parser = key_name)]
        name: Option<KeyId>,
    },
    /// Print the lines for a new secret beside the old one, which holds for a while yet.
    ///
    /// Both lines have one name, so that nothing changes in records and bills. No file is written:
    /// put the lines in the place of the key's line.
    #[command(
        after_help = "Examples:\n  tollgate key rotate --account 1250000001 --key AKIDEXAM\n  tollgate key rotate --account 1250000001 --key main --overlap 24h"
    )]
    Rotate(RotateFlags),
}

/// The flags of `tollgate key rotate`.
#[derive(Args)]
pub struct RotateFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// The account that has the key.
    #[arg(long, value_name = "ID", value_parser = account_id)]
    pub(crate) account: AccountId,
    /// The key's name; without one, the first 8 characters of its secret id or hash.
    #[arg(long, value_name = "NAME", value_parser = key_name)]
    pub(crate) key: KeyId,
    /// For so long the old secret still holds: a number and d, h or m.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = overlap)]
    pub(crate) overlap: Duration,
}
