//! What a settler waits for whose ledger has the records of others: until each of them has passed
//! the end of a day or a month, that is not over (R16).
//!
//! Must never let a ledger that is silent pass for one without calls.

use crate::billing::{SettleError, due, over_by};
use crate::control::Settler;
use crate::control::settler::SettlerState;
use crate::ledger::{Reader, SourceLedger};
use crate::model::{Local, Month, Utc};
use jiff::tz::TimeZone;

/// Ledgers that are named in a line of the log.
const NAMED: usize = 20;

impl Settler {
    /// The instant by which days and months are over: now, where there is one ledger. `None` when
    /// nothing is over.
    pub(super) fn over_by(
        &self,
        reader: &Reader,
        zone: &TimeZone,
        state: &mut SettlerState,
        now: Utc,
    ) -> Result<Option<Utc>, SettleError> {
        let sources = reader.sources()?;
        let waited_for = || sources.iter().filter(|source| source.retired.is_none());
        let by = over_by(now, waited_for().map(|source| source.admitted_before));
        let (_, would_be) = match due(reader, zone, now)? {
            Some(month) if by.is_none_or(|by| by < now) => (month, month.bounds(zone).1),
            _ => {
                state.held_up = None;
                return Ok(by);
            }
        };
        let behind = waited_for().filter(|of| of.admitted_before.is_none_or(|at| at < would_be));
        let behind: Vec<&SourceLedger> = behind.collect();
        let month = Month::of(Utc(would_be.0 - 1), zone);
        if !behind.is_empty() && state.held_up.replace(month) != Some(month) {
            tell_held_up(month, &behind, zone);
        }
        Ok(by)
    }
}

/// Says once of a month which ledgers it waits for.
fn tell_held_up(month: Month, behind: &[&SourceLedger], zone: &TimeZone) {
    let named = behind.iter().take(NAMED).map(|source| {
        let until = match source.admitted_before {
            Some(at) => format!("known until {}", Local::new(at, zone)),
            None => "of which no instant is known yet".to_owned(),
        };
        format!("{} of {} ({until})", source.ledger_id, source.replica)
    });
    let named: Vec<String> = named.collect();
    tracing::warn!(
        month = month.to_string(),
        ledgers = behind.len(),
        "not settled yet: calls of it may still come from {}{}. Bring these gates back, or give a ledger up that is lost: \
         `tollgate collect retire LEDGER --why TEXT`",
        named.join(", "),
        if behind.len() > NAMED { ", .." } else { "" }
    );
}
