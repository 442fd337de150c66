//! The definitions of the command line: commands, flags, their help and their values.
//!
//! Owns every help text. Must never run a command.

use crate::cli::config_flag::ConfigFlag;
use crate::cli::flags_collect::CollectFlags;
use crate::cli::flags_explain::ExplainFlags;
use crate::cli::flags_key::KeyCommand;
use crate::cli::flags_licence::LicenceCommand;
use crate::cli::flags_price::PriceFlags;
use crate::cli::flags_probe::ProbeFlags;
use crate::cli::output::{AnswerFormat, Format, RecordsFormat};
use crate::cli::values::{account_id, event_state, head, month_digest};
use crate::ledger::{Cursor, EventState};
use crate::model::{AccountId, Month, VERSION};
use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::path::PathBuf;

/// Guard an API that is sold by the call or by the QPS.
///
/// The gate knows each customer by a verified credential and admits the calls that the customer
/// has bought. It refuses the rest at once. It forwards the admitted calls and counts each of them
/// exactly once in a durable ledger.
#[derive(Parser)]
#[command(name = "tollgate", version = VERSION, propagate_version = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Environment:
  TOLLGATE_CONFIG  the path of the settings when --config is not given; an empty one counts as not set
  TOLLGATE_LOG     how much `serve` and `demo` log: error, warn, info or debug; when empty or not set, `serve` \
logs info and `demo` warn. Sealed days and settled months are logged at every level: they are evidence.

Exit codes: 0 done; 1 it could not be done, and the reason is on standard error; \
2 the command line is wrong; 3 `statement`, `report` or `refund` of one of several replicas (`admission.store`), or of a \
ledger that one wrote: the books are kept elsewhere.

Examples:
  tollgate check
  tollgate serve --config config/tollgate.yaml";

/// The command that the command line names, with its flags.
#[derive(Subcommand)]
pub enum Command {
    /// Run the gate.
    ///
    /// SIGHUP reads catalogue and accounts again, whole or not at all. SIGTERM, SIGINT or SIGQUIT
    /// drains: calls finish, the ledger is closed, and the exit code is 0. It is 1 when an admitted
    /// call could not be recorded. Another of these signals, more than a second later, ends the
    /// drain at once. SIGUSR1 opens the file of the access log again. SIGUSR2 and SIGALRM are ignored,
    /// with a line in the log.
    #[command(after_help = "Example:\n  tollgate serve --config config/tollgate.yaml")]
    Serve(ConfigFlag),
    /// Collect the records of many gates in one ledger, settle them, and tell the gates who is
    /// stopped.
    ///
    /// The gates send their records over NATS (`outbox` in the settings). The collector has the same
    /// settings, catalogue and accounts, and a ledger of its own. Its public listener answers the
    /// customers' own endpoints and takes no calls. Signals are those of `serve`.
    #[command(
        after_help = "Examples:\n  tollgate collect --config config/tollgate.yaml\n  tollgate collect retire 00112233445566778899aabbccddeeff --why disk-lost"
    )]
    Collect(CollectFlags),
    /// Read the configuration and say what was understood, or every mistake with its place.
    #[command(
        after_help = "Examples:\n  tollgate check\n  tollgate check --config new/tollgate.yaml --against config/tollgate.yaml"
    )]
    Check(CheckFlags),
    /// Make credentials, and replace them.
    #[command(
        subcommand,
        after_help = "Examples:\n  tollgate key new --kind api-key\n  tollgate key rotate --account 1250000001 --key main"
    )]
    Key(KeyCommand),
    /// Print, apply for and revoke licences for client apps, at the gate that runs.
    #[command(
        subcommand,
        after_help = "Examples:\n  tollgate licence list\n  tollgate licence apply --account 1250000001 --package com.example.camera"
    )]
    Licence(LicenceCommand),
    /// Show the gate at work: a sample upstream, sample clients in both modes and dialects, a live
    /// table.
    ///
    /// The demo takes free ports and temporary ledgers. Every number shown is read from the gates'
    /// own metrics and ledgers. Exits 1 when a promise was broken while it ran.
    #[command(after_help = "Examples:\n  tollgate demo --seconds 20\n  tollgate demo --replicas 3")]
    Demo(DemoFlags),
    /// Print a month's counts from the ledger, also while the gate runs.
    #[command(
        after_help = "Examples:\n  tollgate usage\n  tollgate usage --month 2026-11 --account 1250000001 --format csv"
    )]
    Usage(UsageFlags),
    /// Print the statement of an account for a month, or those of all accounts: as they were fixed or
    /// as they stand, with how they were computed.
    #[command(
        after_help = "Examples:\n  tollgate statement --account 1250000001 --month 2026-11 --format json\n  tollgate statement --month 2026-11 --bom > all.csv"
    )]
    Statement(StatementFlags),
    /// Print the closing report of a month: debits, arrears, payments, sales, what is not earned
    /// yet, and what was not billed.
    #[command(
        after_help = "Examples:\n  tollgate report --month 2026-11\n  tollgate report --month 2026-11 --format json"
    )]
    Report(ReportFlags),
    /// Quote what an order costs by the catalogue.
    #[command(
        after_help = "Examples:\n  tollgate price packs --group portrait-segmentation --calls 10000\n  tollgate price qps --group portrait-segmentation --qps 10 --months 1"
    )]
    Price(PriceFlags),
    /// Tell whether an order of packs is paid back, why, and how much by which fund.
    ///
    /// Exits 0 when it is, 1 when it is not, 2 when it cannot be told, 3 when the books are kept
    /// elsewhere.
    #[command(after_help = "Example:\n  tollgate refund --order P-1 --format json")]
    Refund(RefundFlags),
    /// Recompute chain, days, rollup and fixed statements from the records that the ledger keeps.
    ///
    /// Exits 1 and names the first row that does not fit. The chain proves that nothing was changed
    /// before a head that was published. Give such a head, from the log or a statement, as
    /// --checkpoint: without one all rows could have been written anew.
    #[command(
        after_help = "Examples:\n  tollgate verify\n  tollgate verify --checkpoint c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
    )]
    Verify(VerifyFlags),
    /// Print admitted calls from the ledger, one line each: of all accounts after a cursor, or
    /// of one account in a month.
    ///
    /// The last line on standard error is the next cursor. A cursor older than the first kept
    /// record, or given out before a restore, exits 1. An account's month suffices to recount its
    /// statement.
    #[command(
        after_help = "Examples:\n  tollgate records --after 0 --limit 100\n  tollgate records --account 1250000001 --month 2026-11 --format csv"
    )]
    Records(RecordsFlags),
    /// Print the events for the webhook from the ledger, oldest first, and what became of each.
    ///
    /// An event is `unsent` until it is tried, `failing` until the webhook takes it, then `sent`; or
    /// `passed` when it was not taken for seven days and is not tried any more.
    #[command(
        after_help = "Examples:\n  tollgate events --state passed\n  tollgate events --account 1250000001 --format json"
    )]
    Events(EventsFlags),
    /// Ask the process on this machine whether it accepts calls, for a health check.
    ///
    /// Exits 0 when it does, and 1 with the reason when it does not. Of the configuration `admin` alone is read.
    #[command(after_help = "Examples:\n  tollgate probe\n  tollgate probe --live")]
    Probe(ProbeFlags),
    /// Tell why a call was not let through: ask the running gate by the call's request id.
    #[command(
        after_help = "Example:\n  tollgate explain 01980a3c-7d5e-7000-8000-000000000001 --format json"
    )]
    Explain(ExplainFlags),
    /// Copy the ledger, also while the gate runs.
    #[command(after_help = "Example:\n  tollgate backup --to copy.db")]
    Backup(BackupFlags),
    /// Print a script with which a shell completes the commands of tollgate.
    #[command(
        after_help = "Example:\n  tollgate completions bash > /etc/bash_completion.d/tollgate"
    )]
    Completions(CompletionsFlags),
    /// Write the man pages into a directory.
    #[command(hide = true, after_help = "Example:\n  tollgate man target/man")]
    Man(ManFlags),
    /// Put a backup in the place of the ledger, while no gate runs.
    ///
    /// The present ledger is moved aside. New records get seqs far beyond those of the backup,
    /// so that none is given twice. Cursors that were given out before are refused with the way on.
    /// deploy/BACKUP.md has the steps.
    #[command(after_help = "Example:\n  tollgate restore --from copy.db")]
    Restore(RestoreFlags),
}

/// The flags of `tollgate check`.
#[derive(Args)]
pub struct CheckFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// Say instead what would change, by account, for a gate that runs with this configuration.
    #[arg(long, value_name = "OLD.yaml")]
    pub(crate) against: Option<PathBuf>,
}

/// The flags of `tollgate demo`.
#[derive(Args)]
pub struct DemoFlags {
    /// The configuration whose catalogue and accounts are served.
    #[arg(long, default_value = "config/tollgate.yaml", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// End after so many seconds; without it, at Ctrl-C.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "N")]
    pub(crate) seconds: Option<u64>,
    /// Run so many gates as processes beside one store and one collector, with a redis-server and a
    /// nats-server of the demo's own. One gate is killed on the way, and another one is added.
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=9), value_name = "N")]
    pub(crate) replicas: Option<u8>,
}

/// The flags of `tollgate usage`.
#[derive(Args)]
pub struct UsageFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// The calendar month in the catalogue's time zone, as 2026-11; the current one by default.
    #[arg(long, value_name = "YYYY-MM", value_parser = Month::parse)]
    pub(crate) month: Option<Month>,
    /// Only this account.
    #[arg(long, value_name = "ID", value_parser = account_id)]
    pub(crate) account: Option<AccountId>,
    /// How to print the counts.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// The flags of `tollgate statement`.
#[derive(Args)]
pub struct StatementFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// The account that the statement bills; all accounts of the month without it.
    #[arg(long, value_name = "ID", value_parser = account_id)]
    pub(crate) account: Option<AccountId>,
    /// The calendar month in the catalogue's time zone, as 2026-11; the current one by default.
    #[arg(long, value_name = "YYYY-MM", value_parser = Month::parse)]
    pub(crate) month: Option<Month>,
    /// List the fixed months instead, with their sums and digests.
    #[arg(long, conflicts_with_all = ["account", "month"])]
    pub(crate) list: bool,
    /// How to print it. By default a table; of all accounts CSV. JSON of all accounts is a line
    /// for each.
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// Begin CSV with a byte-order mark, by which spreadsheets know that it is UTF-8.
    #[arg(long)]
    pub(crate) bom: bool,
}

/// The flags of `tollgate report`.
#[derive(Args)]
pub struct ReportFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// The calendar month in the catalogue's time zone, as 2026-11.
    #[arg(long, value_name = "YYYY-MM", value_parser = Month::parse)]
    pub(crate) month: Month,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
    pub(crate) format: AnswerFormat,
}

/// The flags of `tollgate refund`.
#[derive(Args)]
pub struct RefundFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// The order's id in the accounts file.
    #[arg(long, value_name = "ORDER")]
    pub(crate) order: String,
    /// How to print the answer.
    #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
    pub(crate) format: AnswerFormat,
}

/// The flags of `tollgate verify`.
#[derive(Args)]
pub struct VerifyFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// A head that must be in the chain: 64 hex digits.
    #[arg(long, value_name = "HEAD", value_parser = head)]
    pub(crate) checkpoint: Option<[u8; 32]>,
    /// The digest that a month's statements must have, as the log has it (`settled the month`); may
    /// be given for several months.
    #[arg(long, value_name = "YYYY-MM=HEX", value_parser = month_digest)]
    pub(crate) digest: Vec<(Month, [u8; 32])>,
}

/// The flags of `tollgate records`.
#[derive(Args)]
pub struct RecordsFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// Print the records after this cursor: RESTORE_COUNT:SEQ, or SEQ of a ledger that was never
    /// restored.
    #[arg(
        long,
        default_value = "0",
        value_name = "CURSOR",
        value_parser = Cursor::parse,
        conflicts_with_all = ["account", "month"]
    )]
    pub(crate) after: Cursor,
    /// Print this account's records of `--month`, all of them.
    #[arg(
        long,
        value_name = "ID",
        value_parser = account_id,
        requires = "month",
        conflicts_with = "limit"
    )]
    pub(crate) account: Option<AccountId>,
    /// The calendar month in the catalogue's time zone, as 2026-11.
    #[arg(long, value_name = "YYYY-MM", value_parser = Month::parse, requires = "account")]
    pub(crate) month: Option<Month>,
    /// Print at most so many records.
    #[arg(
        long,
        default_value_t = 1_000,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub(crate) limit: u64,
    /// How to print the records.
    #[arg(long, value_enum, default_value_t = RecordsFormat::Jsonl)]
    pub(crate) format: RecordsFormat,
}

/// The flags of `tollgate events`.
#[derive(Args)]
pub struct EventsFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// Only this account.
    #[arg(long, value_name = "ID", value_parser = account_id)]
    pub(crate) account: Option<AccountId>,
    /// Only events in this state.
    #[arg(long, value_name = "STATE", value_parser = event_state())]
    pub(crate) state: Option<EventState>,
    /// How to print the events.
    #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
    pub(crate) format: AnswerFormat,
}

/// The flags of `tollgate backup`.
#[derive(Args)]
pub struct BackupFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// The copy; must not exist yet.
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
}

/// The flags of `tollgate restore`.
#[derive(Args)]
pub struct RestoreFlags {
    #[command(flatten)]
    pub(crate) config: ConfigFlag,
    /// The backup: a copy that `tollgate backup` made.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: PathBuf,
}

/// The argument of `tollgate completions`.
#[derive(Args)]
pub struct CompletionsFlags {
    /// The shell that reads the script.
    pub(crate) shell: clap_complete::Shell,
}

/// The argument of `tollgate man`.
#[derive(Args)]
pub struct ManFlags {
    /// The directory; it must be there.
    pub(crate) directory: PathBuf,
}

/// Reads the command line of this process. Ends the process when it is wrong or asks for help.
pub fn parse() -> Command {
    let matches = with_environment(definition()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.command
}

/// The whole command line, for completions and man pages.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

/// An empty `TOLLGATE_CONFIG` counts as not set: compose files and units pass on a variable that
/// nobody set as an empty one.
fn with_environment(definition: clap::Command) -> clap::Command {
    let as_if_not_set = |arg: clap::Arg| match arg.get_env() {
        Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => {
            arg.env(Resettable::Reset)
        }
        _ => arg,
    };
    definition.mut_subcommands(|command| command.mut_args(as_if_not_set))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(command: &clap::Command, found: &mut Vec<String>) {
        let after = command.get_after_help().map(ToString::to_string);
        let after = after.unwrap_or_default();
        let lines = after.lines().filter_map(|line| line.strip_prefix("  "));
        found.extend(
            lines
                .filter(|line| line.starts_with("tollgate "))
                .map(str::to_owned),
        );
        for command in command.get_subcommands() {
            examples(command, found);
        }
    }

    #[test]
    fn every_example_of_a_help_is_a_command_line_that_is_understood() {
        let mut found = Vec::new();
        examples(&definition(), &mut found);
        assert!(found.len() >= 20, "{found:?}");
        for example in found {
            // The shell takes what follows `>`.
            let words = example.split(" > ").next().unwrap().split(' ');
            let understood = definition().try_get_matches_from(words);
            assert!(understood.is_ok(), "{example}: {:?}", understood.err());
        }
    }

    #[test]
    fn no_flag_contradicts_another() {
        definition().debug_assert();
    }
}
