//! The state of the machine's two clocks, as the ledger keeps it.
//!
//! Owns the table `clock`, the only one of the biller's whose row is replaced. Must never decide
//! what may be believed.

use crate::model::{Mono, Utc};
use rusqlite::{Connection, params};
use std::time::Duration;

/// The newest reading of the wall clock and of the monotonic clock. The next start goes on with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClockWatch {
    /// Names the machine's boot, with which its monotonic clock began; empty when that cannot be
    /// told.
    pub boot: String,
    /// The monotonic clock when it was last looked at.
    pub mono: Mono,
    /// The wall clock at the same instant.
    pub utc: Utc,
    /// How long the two clocks had kept step by then.
    pub in_step: Duration,
    /// How long the wall clock has been trusted in all.
    pub trusted: Duration,
    /// The latest instant that the ledger knew of when they began to keep step, and by a clock that
    /// was trusted for a day.
    pub known: Utc,
    /// The value of `trusted` when a month was last fixed although the ledger knew of no instant
    /// after its end.
    pub fixed_unseen: Option<Duration>,
}

pub(super) fn replace(connection: &Connection, watch: &ClockWatch) -> Result<(), rusqlite::Error> {
    let us = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    connection
        .prepare_cached("INSERT OR REPLACE INTO clock VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            watch.boot,
            i64::try_from(watch.mono.0).unwrap_or(i64::MAX),
            watch.utc.0,
            us(watch.in_step),
            us(watch.trusted),
            watch.known.0,
            watch.fixed_unseen.map(us),
        ])?;
    Ok(())
}
