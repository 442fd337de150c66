//! `tollgate check`: what the configuration means, and what it would change.
//!
//! Owns the layout of both. Must never show a secret.

use crate::billing::books::Books;
use crate::billing::{conflicts, off_the_list};
use crate::cli::flags::CheckFlags;
use crate::cli::output::{load, print, tell};
use crate::cli::replica::part_without_store;
use crate::config::{self, Account, Catalog, Charging, Config, Key, Settings, UpstreamSettings};
use crate::ledger::{LedgerError, Reader};
use crate::model::{Clock, Local, Utc};
use jiff::tz::TimeZone;
use std::io::{self, Write};
use std::path::Path;

/// Accounts that are listed; of the rest only the number is said.
const LISTED_ACCOUNTS: usize = 20;
/// Keys near their end that are listed.
const LISTED_KEYS: usize = 100;

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
    let mut changes = old.written.changed_upstreams(&new.written);
    changes.extend(config::changes(&old.catalog, &old.accounts, &new, now));
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
        write_accounts(out, &config.accounts)?;
        let zone = &config.catalog.time_zone;
        write_ends(out, &config.accounts, Clock::default().utc(), zone)
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
            match part_without_store(&config.settings, &reader) {
                Ok(refused) => warnings.extend(refused),
                Err(error) => warnings.push(not_compared(&error)),
            }
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
    let named = settings.upstreams.iter().map(|(name, of)| (&**name, of));
    for (name, of) in [("", &settings.upstream)].into_iter().chain(named) {
        write_upstream(out, name, of)?;
    }
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
    if let Some(outbox) = &settings.outbox {
        let servers: Vec<String> = outbox.servers.iter().map(ToString::to_string).collect();
        writeln!(
            out,
            "  outbox     {}, stream {}: `tollgate collect` keeps the books",
            servers.join(", "),
            outbox.stream
        )?;
    }
    if let Some(store) = &settings.store {
        let nodes: Vec<String> = store.nodes.iter().map(ToString::to_string).collect();
        writeln!(
            out,
            "  store      {}: one of several replicas; days are sealed here, and the books are kept elsewhere",
            nodes.join(", ")
        )?;
        if settings.outbox.is_none() {
            writeln!(
                out,
                "             no outbox: the records stay at this replica, and nobody collects them for the bills"
            )?;
        }
    }
    if let Some(events) = &settings.events {
        writeln!(out, "  events     {}", events.webhook)?;
    }
    Ok(())
}

/// `name` is empty of the default one.
fn write_upstream(out: &mut dyn Write, name: &str, of: &UpstreamSettings) -> io::Result<()> {
    let UpstreamSettings {
        endpoints,
        connect_timeout,
        response_timeout,
        idle_timeout,
        max_age,
        max_in_flight,
        slow_start,
        health,
        tls,
    } = of;
    let age = max_age.map_or("at any age".to_owned(), |age| {
        format!("to an age of {age:?}")
    });
    let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    let name = if name.is_empty() {
        ""
    } else {
        &*format!("{name}: ")
    };
    writeln!(
        out,
        "  upstream   {name}{}  (connect {connect_timeout:?}, response {response_timeout:?}, kept idle for \
         {idle_timeout:?} {age})",
        endpoints.join(", ")
    )?;
    if let Some(most) = max_in_flight {
        writeln!(out, "             at most {most} calls at once")?;
    }
    if endpoints.len() > 1 {
        writeln!(out, "             slow start {slow_start:?}")?;
    }
    if tls.is_some() {
        writeln!(out, "             over TLS")?;
    }
    if let Some(health) = health {
        writeln!(
            out,
            "             asked for {} every {:?}",
            health.path, health.interval
        )?;
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
    let keys: usize = accounts.iter().map(|account| account.keys.len()).sum();
    writeln!(out, "accounts: {} with {keys} key(s)", accounts.len())?;
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

/// The keys that have expired or will soon.
fn write_ends(
    out: &mut dyn Write,
    accounts: &[Account],
    now: Utc,
    zone: &TimeZone,
) -> io::Result<()> {
    let keys = accounts
        .iter()
        .flat_map(|account| account.keys.iter().map(move |key| (account, key)));
    let ending: Vec<(&Account, &Key)> = keys
        .filter(|(_, key)| key.is_expired(now) || key.expires_soon(now))
        .collect();
    if ending.is_empty() {
        return Ok(());
    }
    writeln!(out, "keys that have expired, or will within 14 days:")?;
    for (account, key) in ending.iter().take(LISTED_KEYS) {
        let expires = key.expires.unwrap_or(now);
        let verb = match key.is_expired(now) {
            true => "expired",
            false => "expires",
        };
        let followed = match account.is_followed(key) {
            true => "; another one has its name",
            false => "",
        };
        let (id, key, at) = (&account.id, &key.id, Local::new(expires, zone));
        writeln!(out, "  {:24} {key} {verb} at {at}{followed}", id.as_str())?;
    }
    let rest = ending.len().saturating_sub(LISTED_KEYS);
    if rest > 0 {
        writeln!(out, "  ... and {rest} more")?;
    }
    Ok(())
}
