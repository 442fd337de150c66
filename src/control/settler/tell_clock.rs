//! What is said of the clock.
//!
//! Must never decide anything by it.

use crate::billing::{SettleError, furthest};
use crate::ledger::Reader;
use crate::model::{Local, Utc};
use jiff::tz::TimeZone;

/// A ledger that ends so much later than now was written by a clock that was wrong, or this one is.
const AHEAD_SECONDS: i64 = 3_600;

/// Whether the wall clock is trusted, when that changes.
pub(super) fn tell_trust(is_trusted: bool) {
    if is_trusted {
        tracing::info!(
            "the wall clock is trusted: it has kept step with the monotonic clock for an hour"
        );
    } else {
        tracing::info!(
            "the wall clock is not trusted yet: nothing is sealed, settled or deleted before it has kept step with the monotonic clock for an hour"
        );
    }
}

/// Says so when the ledger ends later than now by more than an hour. It hinders nothing of what
/// lies in the past.
pub(super) fn tell_ahead(reader: &Reader, zone: &TimeZone, now: Utc) -> Result<(), SettleError> {
    if let Some((what, at)) = furthest(reader, zone)?
        && seconds_ahead(at, now) > AHEAD_SECONDS
    {
        tracing::error!(
            seconds = seconds_ahead(at, now),
            "the ledger is ahead of the clock: it has {what}, which ends at {}. If the clock is wrong now, set it. If it was wrong \
             when that was written, stop the limiter and restore the backup from before; what was settled by it stays so",
            Local::new(at, zone)
        );
    }
    Ok(())
}

/// By how many seconds `at` is later than now.
pub(super) fn seconds_ahead(at: Utc, now: Utc) -> i64 {
    at.0.saturating_sub(now.0) / 1_000_000
}
