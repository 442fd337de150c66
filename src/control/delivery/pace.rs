//! When an event is tried again.
//!
//! Pure: it takes `now`. Must never try an event before an earlier one of its account, nor hold one
//! account for another.

use crate::control::delivery::outbox::Unsent;
use crate::model::{AccountId, Mono};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// When to come back.
#[derive(Clone, Copy)]
pub(super) struct RetryPace {
    /// After the first failure, doubled by each further one.
    pub(super) first: Duration,
    /// At most.
    pub(super) most: Duration,
    /// To look for events that nobody spoke of.
    pub(super) look: Duration,
}

pub(super) const PACE: RetryPace = RetryPace {
    first: Duration::from_secs(1),
    most: Duration::from_secs(300),
    look: Duration::from_secs(60),
};

impl RetryPace {
    /// How long to wait after so many failures in a row: 1 s, 2 s, 4 s and so on to 5 minutes.
    /// `jitter` (of 2^32) takes up to a half off, so that those who failed together do not come
    /// back together.
    pub(super) fn wait(self, failed: u32, jitter: u32) -> Duration {
        let doublings = failed.saturating_sub(1);
        let whole = self
            .first
            .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(self.most);
        let half = whole / 2;
        let less = (half.as_nanos() * u128::from(jitter)) >> 32;
        whole - Duration::from_nanos(u64::try_from(less).unwrap_or(0))
    }
}

/// How the attempts at one event went.
struct Attempts {
    /// Which.
    id: String,
    /// How often in a row.
    failed: u32,
    /// It is not tried before.
    not_before: Mono,
    /// The webhook took it and this could not be stored: only the mark is tried again.
    taken: bool,
}

/// The accounts whose oldest event failed. One that cannot be delivered holds the later ones of
/// its own account, whose order would be lost, and nobody else's.
#[derive(Default)]
pub(super) struct Failing(HashMap<AccountId, Attempts>);

impl Failing {
    fn not_before(&self, account: &AccountId) -> Mono {
        self.0.get(account).map_or(Mono(0), |a| a.not_before)
    }

    /// The oldest event of each account that may be tried. First come those that have not failed,
    /// so that a webhook that hangs on some accounts does not hold the rest; then what has waited
    /// longest.
    pub(super) fn due<'a>(&self, unsent: &'a [Unsent], now: Mono) -> Vec<&'a Unsent> {
        let mut seen = HashSet::new();
        let mut due: Vec<_> = unsent
            .iter()
            .filter(|event| seen.insert(&event.account))
            .filter(|event| self.not_before(&event.account) <= now)
            .collect();
        due.sort_by_key(|event| self.not_before(&event.account));
        due
    }

    /// How long until something is due.
    pub(super) fn pause(&self, unsent: &[Unsent], now: Mono) -> Option<Duration> {
        let times = unsent.iter().map(|n| self.not_before(&n.account));
        times.min().map(|first| first.since(now))
    }

    pub(super) fn was_taken(&self, event: &Unsent) -> bool {
        let attempts = self.0.get(&event.account);
        attempts.is_some_and(|a| a.id == event.id && a.taken)
    }

    /// How often it failed in a row by now.
    pub(super) fn failed(
        &mut self,
        event: &Unsent,
        taken: bool,
        wait: impl FnOnce(u32) -> Duration,
        now: Mono,
    ) -> u32 {
        let before = self.0.get(&event.account).filter(|a| a.id == event.id);
        let failed = before.map_or(0, |a| a.failed).saturating_add(1);
        let attempts = Attempts {
            id: event.id.clone(),
            failed,
            not_before: now.plus(wait(failed)),
            taken,
        };
        self.0.insert(event.account.clone(), attempts);
        failed
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets what was delivered since.
    pub(super) fn keep(&mut self, unsent: &[Unsent]) {
        let ids: HashSet<_> = unsent.iter().map(|n| &n.id).collect();
        self.0.retain(|_, attempts| ids.contains(&attempts.id));
    }
}
