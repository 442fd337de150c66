//! Whether the workers work: each beats once a second.
//!
//! Owns the instant of each worker's last beat. Must never be asked on the way of a call.

use crate::model::{Clock, Mono};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The last beat of each worker.
pub(in crate::control) struct Pulse {
    clock: Clock,
    last: Vec<AtomicU64>,
}

impl Pulse {
    /// Of so many workers, each of which has just beaten.
    pub(in crate::control) fn of(workers: usize, clock: Clock) -> Self {
        let now = clock.mono().0;
        let last = (0..workers).map(|_| AtomicU64::new(now)).collect();
        Self { clock, last }
    }

    /// The worker is at work.
    pub(in crate::control) fn beat(&self, worker: usize) {
        if let Some(last) = self.last.get(worker) {
            last.store(self.clock.mono().0, Ordering::Relaxed);
        }
    }

    /// The first worker that has not beaten for longer than that.
    pub(in crate::control) fn silent(&self, longer_than: Duration) -> Option<usize> {
        let now = self.clock.mono();
        let is_silent =
            |last: &AtomicU64| now.since(Mono(last.load(Ordering::Relaxed))) > longer_than;
        self.last.iter().position(is_silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stops_to_beat_is_named_and_one_that_goes_on_is_not() {
        let (clock, mover) = Clock::stopped();
        let (pulse, patience) = (Pulse::of(3, clock), Duration::from_secs(3));
        for _ in 0..5 {
            assert_eq!(pulse.silent(patience), None);
            mover.advance(Duration::from_secs(3));
            for worker in 0..3 {
                pulse.beat(worker);
            }
        }
        mover.advance(Duration::from_secs(3));
        pulse.beat(0);
        pulse.beat(2);
        assert_eq!(pulse.silent(patience), None);
        mover.advance(Duration::from_secs(1));
        assert_eq!(pulse.silent(patience), Some(1));
        pulse.beat(1);
        assert_eq!(pulse.silent(patience), None);
    }
}
