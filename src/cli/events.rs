//! `tollgate events`: what was raised for the webhook, and what became of it.
//!
//! Owns their two forms. Must never read all of them into memory.

use crate::cli::flags::EventsFlags;
use crate::cli::output::{AnswerFormat, load, open_ledger, print};
use crate::cli::replica::tell_part;
use crate::ledger::{EventState, Reader, StoredEvent};
use crate::model::{EventType, Local};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::io::{self, Write};

/// Events that are in memory at a time.
const PAGE: usize = 1_000;

/// Prints events, oldest first.
///
/// # Errors
/// When the configuration or the ledger cannot be read, or standard output not be written.
pub fn events(flags: &EventsFlags) -> anyhow::Result<()> {
    let config = load(&flags.config.config)?;
    tell_part(&config.settings);
    let zone = &config.catalog.time_zone;
    let reader = open_ledger(&config.settings.ledger.path)?;
    print(|out| match flags.format {
        AnswerFormat::Table => table(out, &reader, flags, zone),
        AnswerFormat::Json => document(out, &reader, flags, zone),
    })
}

fn each(
    reader: &Reader,
    flags: &EventsFlags,
    mut write: impl FnMut(StoredEvent) -> io::Result<()>,
) -> io::Result<()> {
    let mut after = 0;
    loop {
        let page = reader.events(flags.account.as_ref(), flags.state, after, PAGE);
        let page = page.map_err(io::Error::other)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = last.place;
        page.into_iter().try_for_each(&mut write)?;
    }
}

/// The longest of some words that a column holds.
fn width<'a>(words: impl Iterator<Item = &'a str>) -> usize {
    words.map(str::len).max().unwrap_or(0)
}

fn table(
    out: &mut dyn Write,
    reader: &Reader,
    flags: &EventsFlags,
    zone: &TimeZone,
) -> io::Result<()> {
    let s = width(EventState::ALL.iter().map(|state| state.as_str()));
    let t = width(EventType::ALL.iter().map(|r#type| r#type.as_str()));
    writeln!(
        out,
        "{:36}  {:s$}  {:t$}  {:32}  raised, since or when",
        "id", "state", "type", "account"
    )?;
    each(reader, flags, |event| {
        let state = event.state();
        let raised = Local::new(event.raised_at, zone);
        let at = event.sent_at.or(event.passed_at).or(event.failing_since);
        let at = at.map_or(String::new(), |at| {
            format!("  {state} {}", Local::new(at, zone), state = state.as_str())
        });
        let (id, r#type, account) = (&event.id, &event.r#type, &event.account);
        let state = state.as_str();
        writeln!(
            out,
            "{id:36}  {state:s$}  {type:t$}  {account:32}  {raised}{at}",
            r#type = r#type,
            account = account.as_str()
        )
    })
}

fn document(
    out: &mut dyn Write,
    reader: &Reader,
    flags: &EventsFlags,
    zone: &TimeZone,
) -> io::Result<()> {
    let mut before = "{\"events\":[\n";
    each(reader, flags, |event| {
        let local = |at| Local::new(at, zone);
        let body: Value = serde_json::from_str(&event.body).unwrap_or(Value::Null);
        let row = json!({
            "id": event.id,
            "state": event.state().as_str(),
            "type": event.r#type,
            "account": event.account,
            "raised_at": local(event.raised_at),
            "failing_since": event.failing_since.map(local),
            "sent_at": event.sent_at.map(local),
            "passed_at": event.passed_at.map(local),
            "body": body,
        });
        write!(out, "{before}{row}")?;
        before = ",\n";
        Ok(())
    })?;
    let begin = if before.starts_with('{') { before } else { "" };
    writeln!(out, "{begin}\n]}}")
}
