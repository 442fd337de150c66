//! The one clock. Everything that decides takes `now`; only the edges ask here.
//!
//! Owns the two sources of time. Must never be read inside a rule.

use crate::words::{Mono, Utc};
use rustix::time::{ClockId, clock_gettime};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

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
            // On the heap: it is rarely needed, and would make every call's future larger.
            Box::pin(tokio::time::sleep(left)).await;
        }
    }
}

/// A timer that is set again for each wait rather than made anew. Setting it to a later time than
/// before takes no lock, and nearly every call sets one that never fires.
#[derive(Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Waits so long, or a little longer.
    pub async fn sleep(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        match &mut self.0 {
            Some(sleep) => {
                sleep.as_mut().reset(at);
                sleep.as_mut().await;
            }
            none => {
                none.insert(Box::pin(tokio::time::sleep_until(at)))
                    .as_mut()
                    .await
            }
        }
    }
}
