//! What the calls on one connection say of the node, beside its heartbeats.
//!
//! Owns whether a node that answers heartbeats is away all the same: a heartbeat starts nothing, so
//! it may be answered while each call is refused. Must never take a node for away because of the
//! window of one limiter.

use crate::model::Mono;
use crate::store::failure::{Failure, Fault};
use crate::store::options::NodeAddress;
use crate::store::question::Said;
use crate::store::unanswered::Unanswered;
use std::time::Duration;

/// A failure counts for so long after the last one. Where no calls come heartbeats must do.
const COUNTS: Duration = Duration::from_secs(10);

/// The failures that calls may meet and heartbeats not.
const CALLS_ALONE: [Unanswered; 2] = [Unanswered::Refused, Unanswered::Unreadable];

/// Who asked.
#[derive(Clone, Copy)]
pub(crate) enum By<'a> {
    Heartbeat,
    /// Calls of this limiter.
    Calls(&'a str),
}

/// The failures that calls met since the last one that was answered.
#[derive(Default, Debug)]
pub(crate) struct CallFaults {
    /// The last one that is the node's.
    node: Option<Mono>,
    /// The last one of a window, and the limiter of it.
    window: Option<(Mono, Box<str>)>,
    told: Option<Mono>,
}

impl CallFaults {
    /// Whether a result says what is to be known of the node. A heartbeat starts nothing, so it may
    /// be answered while each call fails; and the window of one limiter is not the node.
    pub(crate) fn is_news(
        &mut self,
        now: Mono,
        node: &NodeAddress,
        by: By<'_>,
        result: &Result<Said, Failure>,
    ) -> bool {
        match (by, result) {
            (By::Heartbeat, Ok(_)) => !self.stands(now),
            (By::Heartbeat, Err(failure)) => {
                // Calls are not alone with it: it is over when heartbeats are answered again.
                if CALLS_ALONE.contains(&failure.reason) {
                    self.answered();
                }
                true
            }
            (By::Calls(_), Ok(_)) => {
                self.answered();
                true
            }
            (By::Calls(limiter), Err(failure)) if failure.fault == Fault::Window => {
                if self.tells(now) {
                    let words = &failure.words;
                    tracing::warn!(%node, limiter, "a window in the store cannot be used: {words}");
                }
                self.failed_in_window(now, limiter)
            }
            (By::Calls(_), Err(failure)) => {
                if CALLS_ALONE.contains(&failure.reason) {
                    self.failed(now);
                }
                true
            }
        }
    }

    /// A call was answered.
    fn answered(&mut self) {
        (self.node, self.window) = (None, None);
    }

    /// The node refused a call, or answered nonsense.
    fn failed(&mut self, now: Mono) {
        self.node = Some(now);
    }

    /// The window of one limiter cannot be used. Says whether that is the node's failure: two
    /// limiters met it, and no call was answered between them.
    fn failed_in_window(&mut self, now: Mono, limiter: &str) -> bool {
        let met = self.window.replace((now, limiter.into()));
        let is_nodes = met.is_some_and(|(at, of)| *of != *limiter && now.since(at) < COUNTS);
        if is_nodes || self.stands(now) {
            self.node = Some(now);
        }
        self.node.is_some()
    }

    /// Whether the node is away for calls, whatever a heartbeat was told.
    fn stands(&self, now: Mono) -> bool {
        self.node.is_some_and(|at| now.since(at) < COUNTS)
    }

    /// Whether a line about a window is due in the log.
    fn tells(&mut self, now: Mono) -> bool {
        let is_due = self.told.is_none_or(|told| now.since(told) >= COUNTS);
        if is_due {
            self.told = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at: u64) -> Mono {
        Mono(at * 1_000_000_000)
    }

    #[test]
    fn a_failure_that_calls_meet_stands_for_ten_seconds_or_until_a_call_is_answered() {
        let mut faults = CallFaults::default();
        assert!(!faults.stands(second(1)));
        faults.failed(second(1));
        assert!(faults.stands(second(10)) && !faults.stands(second(11)));
        faults.failed(second(12));
        faults.answered();
        assert!(!faults.stands(second(12)));
    }

    #[test]
    fn the_window_of_one_limiter_is_not_the_nodes_failure_and_those_of_two_are() {
        let mut faults = CallFaults::default();
        assert!(!faults.failed_in_window(second(1), "a/g"));
        assert!(!faults.failed_in_window(second(2), "a/g"));
        faults.answered();
        assert!(!faults.failed_in_window(second(3), "b/g"));
        assert!(!faults.stands(second(3)));
        assert!(faults.failed_in_window(second(4), "a/g"));
        assert!(faults.failed_in_window(second(5), "a/g") && faults.stands(second(14)));
        assert!(faults.tells(second(5)) && !faults.tells(second(14)) && faults.tells(second(15)));
    }
}
