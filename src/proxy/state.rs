//! What the whole process shares: calls, settlement, reloads and the operators' listener.

use crate::admission::Limiters;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::model::{Clock, Utc};
use crate::policy::Policy;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The state of the process.
pub struct Shared {
    /// The clocks.
    pub clock: Clock,
    /// The generation in force.
    pub policy: ArcSwap<Policy>,
    /// The limiters, which outlive each generation.
    pub limiters: Limiters,
    /// The records.
    pub ledger: Ledger,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// In microseconds; see [`Shared::vouch`].
    vouched: AtomicI64,
}

impl Shared {
    /// `policy` must have been put in force on `limiters`.
    pub fn new(
        clock: Clock,
        policy: Policy,
        limiters: Limiters,
        ledger: Ledger,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            clock,
            policy: ArcSwap::from_pointee(policy),
            limiters,
            ledger,
            metrics,
            vouched: AtomicI64::new(i64::MIN),
        }
    }

    /// `at` has come, whatever the wall clock shows now: a trusted one has shown it.
    pub fn vouch(&self, at: Utc) {
        self.vouched.fetch_max(at.0, Ordering::Relaxed);
    }

    /// By when payments count (R17): now, or the latest instant that was vouched for. A wall clock that is behind takes no
    /// payment back.
    pub fn paid_by(&self) -> Utc {
        let vouched = Utc(self.vouched.load(Ordering::Relaxed));
        self.clock.utc().max(vouched)
    }
}
