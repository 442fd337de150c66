//! `tollgate collect`: the process that collects the records of many gates, and what is done with its
//! ledger while it does not run.
//!
//! Owns what is printed of a ledger that is given up. Must never write to a ledger that a process has
//! open.

use crate::cli::flags_collect::{CollectCommand, CollectFlags, RetireFlags};
use crate::cli::operators::place;
use crate::cli::output::{load, print};
use crate::cli::serve::{Process, control_thread, run_process};
use crate::config::Settings;
use crate::control::{adopt as adopt_ledger, give_up, told_lost};
use crate::ledger::{Ledger, LedgerError, LedgerOptions, is_ledger_id};
use crate::model::{Clock, Durability};
use anyhow::{Context, bail};
use std::path::Path;
use std::time::Duration;

/// How long the ledger may take to close.
const CLOSING: Duration = Duration::from_secs(30);

/// Runs the collector until a signal ends it, or the subcommand.
///
/// # Errors
/// When the collector cannot start, when the ledger was not closed whole, or when the subcommand
/// fails.
pub fn collect(flags: CollectFlags) -> anyhow::Result<()> {
    match flags.command {
        None => run_process(Process::Collector, flags.config.config),
        Some(CollectCommand::Retire(retired)) => retire(&flags.config.config, &retired),
        Some(CollectCommand::Adopt(adopted)) => adopt(&flags.config.config, &adopted.replaces),
    }
}

fn retire(path: &Path, flags: &RetireFlags) -> anyhow::Result<()> {
    if flags.why.trim().is_empty() {
        bail!("--why is empty: say why the ledger is given up, for whoever asks later");
    }
    let config = load(path)?;
    let settings = &config.settings;
    let clock = Clock::default();
    let ledger = match opened(settings, "tollgate collect retire", &clock) {
        Err(LedgerError::Locked(_)) => bail!(
            "the collector runs and has the ledger open; ask it: curl -X POST '{}?why=..'",
            place(
                &settings.admin,
                &format!("/v1/sources/{}/retire", flags.ledger)
            )
        ),
        opened => opened?,
    };
    let lost = give_up(&ledger, &flags.ledger, &flags.why, clock.utc());
    let closed = ledger.close(CLOSING);
    let lost = lost?;
    closed.context("the ledger was not closed whole")?;
    print(|out| writeln!(out, "{}", told_lost(&lost, &config.catalog.time_zone)))
}

fn adopt(path: &Path, replaces: &[String]) -> anyhow::Result<()> {
    if let Some(other) = replaces.iter().find(|id| !is_ledger_id(id)) {
        bail!(
            "--replaces {other}: the id of a ledger is 32 hex digits, as the log of a gate has it"
        );
    }
    let config = load(path)?;
    let settings = &config.settings;
    let clock = Clock::default();
    let ledger = match opened(settings, "tollgate collect adopt", &clock) {
        Err(LedgerError::Locked(_)) => {
            bail!("a collector has the ledger open: stop it first")
        }
        opened => opened?,
    };
    let adopted = control_thread(async {
        let adopted = adopt_ledger(settings, &ledger, replaces, clock).await?;
        print(|out| {
            writeln!(
                out,
                "the records of the gates are collected in the ledger {} now. Start `tollgate collect`: the gates send again what they \
                 still have",
                adopted.ledger_id
            )?;
            for before in &adopted.replaces {
                writeln!(
                    out,
                    "it is in the place of the ledger {before}. A month that this one has closed and the new one has not is closed and \
                     debited again: compare it with the statements that were sent. Until then whoever was stopped for arrears stays so"
                )?;
            }
            Ok(())
        })
    });
    let closed = ledger.close(CLOSING);
    adopted?;
    closed.context("the ledger was not closed whole").map(drop)
}

/// Opens the ledger of a collector that does not run.
fn opened(settings: &Settings, replica: &str, clock: &Clock) -> Result<Ledger, LedgerError> {
    let options = LedgerOptions {
        path: settings.ledger.path.clone(),
        durability: Durability::Strict,
        replica: replica.to_owned(),
        create: false,
        pending_limit: 1,
        stall_after: settings.ledger.stall_after,
    };
    Ledger::open(options, clock.clone(), |_| ())
}
