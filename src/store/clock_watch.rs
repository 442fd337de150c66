//! How far the clock of a node is from that of this machine.
//!
//! Owns when the log has a line of it. Decides nothing: which of the two is wrong nobody here knows.

use crate::model::Mono;
use std::time::Duration;

/// A change by so much is told.
const STEP_US: u64 = 1_000_000;
/// Not sooner after the last line.
const BETWEEN: Duration = Duration::from_secs(10);

/// The clock of one node, as its heartbeats say it.
#[derive(Default, Debug)]
pub(crate) struct ClockWatch {
    ahead_us: i64,
    /// What the log said last, and when. Before the first line it said nothing, and that they agree.
    told_us: i64,
    told: Option<Mono>,
}

impl ClockWatch {
    /// The node's clock is so far ahead now. Says whether a line is due.
    pub(crate) fn see(&mut self, now: Mono, ahead_us: i64) -> bool {
        self.ahead_us = ahead_us;
        let is_step = ahead_us.abs_diff(self.told_us) >= STEP_US;
        let is_due = is_step && self.told.is_none_or(|told| now.since(told) >= BETWEEN);
        if is_due {
            (self.told_us, self.told) = (ahead_us, Some(now));
        }
        is_due
    }

    /// What was seen last, in seconds.
    pub(crate) fn ahead_seconds(&self) -> f64 {
        self.ahead_us as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_at_once_and_what_it_came_to_ten_seconds_later() {
        let second = |at: u64| Mono(at * 1_000_000_000);
        let mut watch = ClockWatch::default();
        assert!(!watch.see(second(1), 900_000), "the two clocks agree");
        let days = 40 * 86_400_000_000;
        assert!(watch.see(second(2), days));
        // Taken back at once.
        assert!(!watch.see(second(3), 0) && !watch.see(second(11), 0));
        assert!(watch.see(second(12), 0) && !watch.see(second(40), 0));
        assert!(watch.see(second(41), -days));
        assert!((watch.ahead_seconds() + 40.0 * 86_400.0).abs() < 1e-6);
        // A store in 1970, and one that says anything.
        assert!(watch.see(second(60), i64::MIN) && watch.see(second(80), i64::MAX));
    }
}
