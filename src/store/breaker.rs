//! When to stop asking a node that does not answer.
//!
//! Owns the count of questions without an answer. Must never open in a pause of the store that the
//! calls can wait out. Pure.

use crate::model::Mono;
use std::time::Duration;

/// Fewer questions without an answer say nothing: one may have been lost.
const MISSES: u32 = 3;

/// Opens after some questions in a row that were not answered, over at least the time that a call
/// waits for its start; closes with the next answer.
#[derive(Debug)]
pub(crate) struct Breaker {
    patience: Duration,
    misses: u32,
    first: Mono,
}

impl Breaker {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            misses: 0,
            first: Mono::default(),
        }
    }

    /// A question that was sent at `sent` has no answer by `now`. Says whether the breaker is open.
    pub(crate) fn missed(&mut self, sent: Mono, now: Mono) -> bool {
        if self.misses == 0 {
            self.first = sent;
        }
        self.misses = self.misses.saturating_add(1);
        self.is_open(now)
    }

    /// A question was answered in time.
    pub(crate) fn answered(&mut self) {
        self.misses = 0;
    }

    /// Whether questions are refused at `now`.
    pub(crate) fn is_open(&self, now: Mono) -> bool {
        self.misses >= MISSES && now.since(self.first) >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const AT: Mono = Mono(1_000_000_000);

    #[test]
    fn a_store_that_pauses_for_less_than_a_call_waits_is_asked_on() {
        let mut breaker = Breaker::new(50 * MS);
        for n in 0..9 {
            let sent = AT.plus(n * 5 * MS);
            assert!(!breaker.missed(sent, sent.plus(5 * MS)), "{n}");
        }
        assert!(breaker.missed(AT.plus(45 * MS), AT.plus(50 * MS)));
        breaker.answered();
        assert!(!breaker.is_open(AT.plus(60 * MS)));
    }

    #[test]
    fn single_questions_that_are_lost_an_hour_apart_do_not_open_it() {
        let mut breaker = Breaker::new(50 * MS);
        let hour = Duration::from_secs(3_600);
        assert!(!breaker.missed(AT, AT.plus(5 * MS)));
        assert!(!breaker.missed(AT.plus(hour), AT.plus(hour + 5 * MS)));
        breaker.answered();
        let later = AT.plus(2 * hour);
        assert!(!breaker.missed(later, later.plus(5 * MS)));
    }
}
