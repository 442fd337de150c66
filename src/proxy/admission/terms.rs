//! The terms that an account has bought in one limiter, and the answers of the window.

use crate::model::{Clock, Mode, Mono, Stop, StoreStart, Utc};
use std::time::Duration;

/// One instant on both clocks: the cap uses `mono`, purchases use `utc`. Read it after the limiter
/// was obtained, so that no limiter can forget a start that this instant still needs.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Decides in the window.
    pub mono: Mono,
    /// Decides which purchases are in force.
    pub utc: Utc,
}

impl Now {
    /// Reads both clocks.
    pub fn read(clock: &Clock) -> Self {
        Self {
            mono: clock.mono(),
            utc: clock.utc(),
        }
    }

    /// Reads the monotonic clock and counts on from `self` on the other, which is a clock read less
    /// for each call.
    pub fn later(self, clock: &Clock) -> Self {
        let mono = clock.mono();
        Self {
            mono,
            utc: self.utc.plus(mono.since(self.mono)),
        }
    }
}

/// The terms that an account has bought in one limiter. Replaced as a whole at a reload; the window
/// stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Before this instant the service is not opened (R9).
    pub opened: Utc,
    /// Why it admits nothing, if it does not (R9).
    pub stopped: Option<Stop>,
    /// How calls admitted under these terms are charged (R3).
    pub mode: Mode,
    /// The cap, in calls per second.
    pub quota: Quota,
}

impl Terms {
    /// The calls per second that are admitted at `at`: the quota in force, or none before the
    /// opening and while the service is stopped (R9).
    pub fn admits(&self, at: Utc) -> u32 {
        match at < self.opened || self.stopped.is_some() {
            true => 0,
            false => self.quota.at(at).qps,
        }
    }
}

/// A cap in calls per second.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Quota {
    /// The same at all times (R2, R4).
    Fixed(u32),
    /// The sum of the purchases in force (R6).
    Purchased(Vec<Purchase>),
}

/// A bought quota, in force in `[from, until)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Purchase {
    /// The order that bought it.
    pub order: Box<str>,
    /// Calls per second.
    pub qps: u32,
    /// First instant.
    pub from: Utc,
    /// First instant after.
    pub until: Utc,
}

/// A quota and the span of wall-clock time, `[from, until)`, over which it does not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InForce {
    /// Calls per second.
    pub qps: u32,
    /// First instant.
    pub from: Utc,
    /// The next change.
    pub until: Utc,
}

impl Quota {
    /// The quota in force at `at`, with the span around `at` in which it holds.
    pub fn at(&self, at: Utc) -> InForce {
        let purchases: &[Purchase] = match self {
            Self::Fixed(qps) => {
                return InForce {
                    qps: *qps,
                    from: Utc(i64::MIN),
                    until: Utc(i64::MAX),
                };
            }
            Self::Purchased(purchases) => purchases,
        };
        let mut now = InForce {
            qps: 0,
            from: Utc(i64::MIN),
            until: Utc(i64::MAX),
        };
        for purchase in purchases {
            if purchase.from <= at && at < purchase.until {
                now.qps = now.qps.saturating_add(purchase.qps);
            }
            for edge in [purchase.from, purchase.until] {
                if edge <= at {
                    now.from = now.from.max(edge);
                } else {
                    now.until = now.until.min(edge);
                }
            }
        }
        now
    }

    /// The next quota after `at` that is another one: a purchase that takes the place of an equal
    /// one changes nothing.
    pub fn next_change(&self, at: Utc) -> Option<InForce> {
        let now = self.at(at);
        let mut next = now;
        while next.until != Utc(i64::MAX) {
            next = self.at(next.until);
            if next.qps != now.qps {
                return Some(next);
            }
        }
        None
    }

    /// The purchases in force at `at`; none when the quota was not bought.
    pub fn purchases_at(&self, at: Utc) -> impl Iterator<Item = &Purchase> {
        let purchases: &[Purchase] = match self {
            Self::Fixed(_) => &[],
            Self::Purchased(purchases) => purchases,
        };
        purchases
            .iter()
            .filter(move |p| p.from <= at && at < p.until)
    }

    /// When the next purchase begins after `at`, if one is known.
    pub(super) fn begins_after(&self, at: Utc) -> Option<Utc> {
        match self {
            Self::Fixed(_) => None,
            Self::Purchased(purchases) => purchases
                .iter()
                .map(|p| p.from)
                .filter(|from| *from > at)
                .min(),
        }
    }
}

/// A place in the window: the call may leave at its start, which is now or at most `max_delay`
/// ahead. Dropped before that, the place stays spent.
#[must_use = "a place in the window is spent"]
#[derive(Debug)]
pub struct Reservation {
    pub(super) start: Mono,
    pub(super) decided: Now,
    pub(super) mode: Mode,
    pub(super) quota: u32,
    pub(super) left: u32,
}

/// A call whose start has come. Only [`Reservation::wait`] makes one.
#[derive(Debug)]
pub struct Started {
    /// The instant that the window holds.
    pub start: Mono,
    /// The same instant on the wall clock; on that of the store's machine when the store decided.
    pub at: Utc,
    /// The mode in force at admission (R3).
    pub mode: Mode,
    /// The start as the shared store keeps it; `None` when this process decided.
    pub(crate) store_start: Option<StoreStart>,
}

impl Reservation {
    /// The instant that the window holds.
    pub fn start(&self) -> Mono {
        self.start
    }

    /// The quota under which it was decided: at most so many starts share its trailing second (P1).
    pub fn quota(&self) -> u32 {
        self.quota
    }

    /// The number of further calls that could start with it.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Waits for the start.
    pub async fn wait(self, clock: &Clock) -> Started {
        let ahead = self.start.since(self.decided.mono);
        if !ahead.is_zero() {
            clock.sleep_until(self.start).await;
        }
        Started {
            start: self.start,
            at: self.decided.utc.plus(ahead),
            mode: self.mode,
            store_start: None,
        }
    }
}

/// Why a limiter did not admit. The first two are refusals of standing, the others throttles: none
/// of them takes quota, makes a record or is billed (R7, R9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// The service was never opened, or opens later.
    NotOpened,
    /// The service is stopped.
    Stopped(Stop),
    /// Qps mode with no purchase in force; `begins_in` when one is known to begin.
    NoQuota {
        /// Time until the next purchase begins.
        begins_in: Option<Duration>,
    },
    /// Over the cap.
    Throttled {
        /// The cap, in calls per second.
        quota: u32,
        /// The mode in force.
        mode: Mode,
        /// The time after which a client that calls alone would be admitted.
        retry_after: Duration,
    },
}

#[cfg(test)]
mod tests;
