//! The one clock. Everything that decides takes `now`; only the edges ask here.
//!
//! Owns the two sources of time. Must never be read inside a rule.

use crate::words::{Mono, Utc};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Reads the machine's clocks. The wall clock can be shifted, which is how tests replay signatures
/// of another day and show that the cap does not care.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    shift_us: Arc<AtomicI64>,
}

impl Clock {
    /// The monotonic clock, for caps and durations.
    pub fn mono(&self) -> Mono {
        let t = clock_gettime(ClockId::Monotonic);
        Mono(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
    }

    /// The wall clock, for purchases, signatures and records.
    pub fn utc(&self) -> Utc {
        let t = clock_gettime(ClockId::Realtime);
        let real = t.tv_sec * 1_000_000 + t.tv_nsec / 1_000;
        Utc(real + self.shift_us.load(Ordering::Relaxed))
    }

    /// Makes the wall clock show `at` now and run on from there.
    pub fn set_utc(&self, at: Utc) {
        let real = self.utc().0 - self.shift_us.load(Ordering::Relaxed);
        self.shift_us.store(at.0 - real, Ordering::Relaxed);
    }

    /// Sleeps until `at` has come on the monotonic clock; never returns before it.
    pub async fn sleep_until(&self, at: Mono) {
        loop {
            let left = at.since(self.mono());
            if left == Duration::ZERO {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}
