//! What people ask for on the command line: a file for each command, with what it prints.
//!
//! Owns flags, help, output, logs and signals. Must never compute what it prints, nor write to a
//! ledger that a process serves.

mod backup;
mod check;
mod collect;
mod completions;
mod config_flag;
mod dumps;
mod events;
mod explain;
mod fetch;
mod flags;
mod flags_collect;
mod flags_explain;
mod flags_key;
mod flags_licence;
mod flags_price;
mod flags_probe;
mod key;
mod key_licence;
mod key_tls;
mod licence;
mod logging;
mod operators;
mod output;
mod price;
mod probe;
mod records;
mod refund;
mod replica;
mod report;
mod restore;
mod serve;
mod statement;
mod usage;
mod values;
mod verify;

pub mod demo;

pub use crate::config::Mistakes;
pub use backup::backup;
pub use check::check;
pub use collect::collect;
pub use completions::{completions, man};
pub use config_flag::ConfigFlag;
pub use dumps::forbid_core_dumps;
pub use events::events;
pub use explain::explain;
pub use flags::{
    BackupFlags, CheckFlags, Command, CompletionsFlags, DemoFlags, EventsFlags, ManFlags,
    RecordsFlags, RefundFlags, ReportFlags, RestoreFlags, StatementFlags, UsageFlags, VerifyFlags,
    parse,
};
pub use flags_collect::{CollectCommand, CollectFlags, RetireFlags};
pub use flags_explain::ExplainFlags;
pub use flags_key::{KeyCommand, KeyKind, RotateFlags};
pub use flags_licence::{LicenceAppFlags, LicenceCommand, LicenceListFlags, LicenceRevokeFlags};
pub use flags_price::PriceFlags;
pub use flags_probe::ProbeFlags;
pub use key::key;
pub use licence::licence;
pub use output::tell;
pub use price::price;
pub use probe::probe;
pub use records::records;
pub use refund::refund;
pub use replica::BooksElsewhere;
pub use report::report;
pub use restore::restore;
pub use serve::serve;
pub use statement::{MonthAhead, statement};
pub use usage::usage;
pub use verify::verify;
