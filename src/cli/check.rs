//! `tollgate check`: what the configuration means, and what it would change.
//!
//! Owns the layout of both. Must never show a secret.

use crate::billing::books::Books;
use crate::billing::{conflicts, off_the_list};
use crate::cli::flags::CheckFlags;
use crate::cli::output::{load, print, tell};
use crate::config::{self, Account, Catalog, Charging, Config, Settings, UpstreamSettings};
use crate::ledger::{LedgerError, Reader};
use crate::model::Clock;
use std::io::{self, Write};
use std::path::Path;

/// Accounts that are listed; of the rest only the number is said.
const LISTED_ACCOUNTS: usize = 20;

/// Prints what the configuration means or, with `--against`, what it would change.
///
/// # Errors
/// When a configuration has mistakes, or standard output cannot be written.
pub fn check(flags: &CheckFlags) -> anyhow::Result<()> {
    let new = &flags.config.config;
    match &flags.against {
        Some(old) => print_changes(old, new),
        None => print_meaning(new),
    }
}

fn print_changes(old: &Path, new: &Path) -> anyhow::Result<()> {
    let (old, new) = (load(old)?, load(new)?);
    warn_of_conflicts(&new);
    let settings = old.written.changed_settings(&new.written);
    let now = Clock::default().utc();
    let changes = config::changes(&old.catalog, &old.accounts, &new, now);
    print(|out| {
        for (key, before, after) in &settings {
            writeln!(out, "{key}: {before} → {after} at the next restart")?;
        }
        for change in &changes {
            writeln!(out, "{change}")?;
        }
        if settings.is_empty() && changes.is_empty() {
            writeln!(out, "nothing is different")?;
        }
        Ok(())
    })
}

fn print_meaning(path: &Path) -> anyhow::Result<()> {
    let config = load(path)?;
    warn_of_conflicts(&config);
    print(|out| {
        writeln!(out, "{}: ok", path.display())?;
        write_settings(out, &config.settings)?;
        write_catalog(out, &config.catalog)?;
        write_accounts(out, &config.accounts)
    })
}

/// Orders that were not paid by the price list and, when the ledger can be read, what contradicts
/// it. They go to standard error.
fn warn_of_conflicts(config: &Config) {
    let (catalog, accounts) = (&config.catalog, &config.accounts);
    let mut warnings: Vec<String> = accounts
        .iter()
        .flat_map(|account| off_the_list(catalog, account))
        .collect();
    match Reader::open(&config.settings.ledger.path) {
        Ok(reader) => {
            let books = Books {
                catalog,
                reader: &reader,
                now: Clock::default().utc(),
            };
            match conflicts(&books, accounts) {
                Ok(found) => warnings.extend(found),
                Err(error) => warnings.push(not_compared(&error)),
            }
        }
        Err(LedgerError::Missing(_)) => {}
        Err(error) => warnings.push(not_compared(&error)),
    }
    for warning in warnings {
        tell(format_args!("warning: {warning}"));
    }
}

fn not_compared(error: &dyn std::error::Error) -> String {
    format!("orders are not compared with the ledger: {error}")
}

fn write_settings(out: &mut dyn Write, settings: &Settings) -> io::Result<()> {
    writeln!(
        out,
        "  listen     {}  (admin {})",
        settings.listen, settings.admin.listen
    )?;
    let UpstreamSettings {
        endpoint,
        connect_timeout,
        response_timeout,
        idle_timeout,
        max_age,
    } = &settings.upstream;
    let age = max_age.map_or("at any age".to_owned(), |age| {
        format!("to an age of {age:?}")
    });
    writeln!(
        out,
        "  upstream   {endpoint}  (connect {connect_timeout:?}, response {response_timeout:?}, kept idle for \
         {idle_timeout:?} {age})"
    )?;
    let limits = &settings.limits;
    writeln!(
        out,
        "  limits     {} connections{}, idle {:?}; drain {:?} after a notice of {:?}",
        limits.connections,
        if limits.connections_adapt {
            " or what the open files suffice for"
        } else {
            ""
        },
        limits.idle_timeout,
        limits.drain,
        limits.drain_notice
    )?;
    writeln!(
        out,
        "  ledger     {} ({})",
        settings.ledger.path.display(),
        settings.ledger.durability
    )?;
    if let Some(notices) = &settings.notices {
        writeln!(out, "  notices    {}", notices.webhook)?;
    }
    Ok(())
}

fn write_catalog(out: &mut dyn Write, catalog: &Catalog) -> io::Result<()> {
    writeln!(
        out,
        "catalogue: {} group(s), months in {}",
        catalog.groups.len(),
        catalog.time_zone.iana_name().unwrap_or("UTC")
    )?;
    for group in &catalog.groups {
        let cap = match &group.charging {
            Charging::Paid { per_call, .. } => format!(
                "{} QPS shared in per-call mode, or purchased QPS",
                per_call.qps
            ),
            Charging::Free { qps_per_action } => {
                format!("free, {qps_per_action} QPS for each action")
            }
        };
        let actions: Vec<&str> = group
            .actions
            .iter()
            .map(|spec| spec.action.as_str())
            .collect();
        let actions = actions.join(", ");
        writeln!(out, "  {:24} {cap}: {actions}", group.id.as_str())?;
    }
    Ok(())
}

fn write_accounts(out: &mut dyn Write, accounts: &[Account]) -> io::Result<()> {
    let credentials: usize = accounts
        .iter()
        .map(|account| account.credentials.len())
        .sum();
    writeln!(
        out,
        "accounts: {} with {credentials} key(s)",
        accounts.len()
    )?;
    for account in accounts.iter().take(LISTED_ACCOUNTS) {
        let services: Vec<String> = account
            .services
            .iter()
            .map(|service| match service.stopped {
                Some(stop) => format!("{} (stopped: {stop})", service.group),
                None => format!("{} ({})", service.group, service.mode),
            })
            .collect();
        writeln!(out, "  {:24} {}", account.id.as_str(), services.join(", "))?;
    }
    let rest = accounts.len().saturating_sub(LISTED_ACCOUNTS);
    if rest > 0 {
        writeln!(out, "  ... and {rest} more")?;
    }
    Ok(())
}
