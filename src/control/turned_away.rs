//! The ledger is told of the calls that were turned away.
//!
//! Owns when: once in ten seconds, and at the end of each hour, behind the commits. Must never hold
//! up a call. A crash loses the last ten seconds, and after an error of the disk some may be counted
//! twice: no bill reads them.

use crate::ledger::Entry;
use crate::model::Utc;
use crate::proxy::Shared;
use std::sync::Arc;
use std::time::Duration;

/// Between two times that the ledger is told.
const EVERY: Duration = Duration::from_secs(10);
const HOUR_US: i64 = 3_600_000_000;

/// Tells the ledger for ever.
pub(super) async fn keep_turned_away(shared: Arc<Shared>) {
    loop {
        let now = shared.clock.utc();
        shared.clock.sleep(until_next(now)).await;
        let of = shared.clone();
        // On another thread: the disk may be slow.
        let kept = tokio::task::spawn_blocking(move || keep(&of, now)).await;
        if let Err(error) = kept {
            tracing::error!(%error, "the ledger was not told of the calls that were turned away");
        }
    }
}

/// How long to wait from `now` on, so that nothing of two hours is told together.
fn until_next(now: Utc) -> Duration {
    let next_hour = Utc((now.hour() + 1).saturating_mul(HOUR_US));
    EVERY.min(next_hour.since(now))
}

/// Tells the ledger what was counted since `since`, all of whose hour. What it does not take is
/// told again the next time. Blocks.
pub(super) fn keep(shared: &Shared, since: Utc) {
    let counted = shared.turned_away.take(&shared.limiters);
    if counted.is_empty() {
        return;
    }
    let entries = counted.iter().map(|(kind, calls)| Entry::TurnedAway {
        account: kind.account.clone(),
        hour: since.hour(),
        group: kind.group.clone(),
        reason: kind.reason.to_owned(),
        calls: *calls,
    });
    if let Err(error) = shared.ledger.keep(entries.collect()) {
        tracing::debug!(%error, "the ledger was not told of the calls that were turned away");
        for (kind, calls) in counted {
            shared.turned_away.add(kind, calls);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_is_told_each_ten_seconds_and_at_the_end_of_each_hour() {
        let hour = 500_000 * HOUR_US;
        assert_eq!(until_next(Utc(hour)), EVERY);
        assert_eq!(until_next(Utc(hour + HOUR_US - 3_000_000)).as_secs(), 3);
        assert_eq!(until_next(Utc(hour + HOUR_US)), EVERY);
        assert_eq!(until_next(Utc(hour - 1)).as_micros(), 1);
    }
}
