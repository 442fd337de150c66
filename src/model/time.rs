//! The kinds of instant: of the machine's monotonic clock, of the wall clock, and of the clock of a
//! store that replicas share. Pure.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Nanoseconds on the machine's monotonic clock. Comparable between processes of one boot, never
/// moved by anybody: the clock of the cap (P1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// This instant moved by `by`, saturating at the end of time.
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this instant is; zero when it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Microseconds since the Unix epoch on the wall clock: the clock of purchases, signatures and
/// bills.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize,
)]
pub struct Utc(pub i64);

impl Utc {
    /// This instant moved by `by`, saturating at the end of time.
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// The instant so long before, saturating at the begin of time.
    pub(crate) fn before(self, by: Duration) -> Self {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Hours since the epoch, rounded down: the ledger's bucket.
    pub fn hour(self) -> i64 {
        self.0.div_euclid(3_600_000_000)
    }

    /// How long after `earlier` this instant is; zero when it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// The longest that any gate lets a call wait for its start (`admission.max_delay`). What gates must
/// agree about for the cap is reckoned with this, since each may have another setting.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_millis(200);
/// The latest that any gate takes an answer of the store (`budget`); for the same use.
pub(crate) const LONGEST_BUDGET: Duration = Duration::from_millis(10);

/// The start of a call on the clock of the store that holds the windows of many replicas: the clock
/// of the cap (P1) when there is one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StoreStart {
    /// The epoch of the store. Instants of two epochs cannot be compared.
    pub epoch: i64,
    /// The instant that the window holds.
    pub at: Utc,
}
