//! What each account did and does, for the orders and filters that need it of all accounts.
//!
//! Owns that it is counted at most once a second, however many ask. Must never hold a lock of the way
//! of a call for longer than a scrape does.

use crate::model::Mono;
use crate::proxy::admission::{Limiters, Now};
use crate::proxy::policy::Policy;
use crate::proxy::{Shared, counts};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// So long a count is good.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The figures of one account, over all of its limiters.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Figures {
    /// Admitted, throttled, refused since the limiters exist.
    pub(super) counts: [u64; 3],
    /// What is in use of the fullest window, in thousandths of its quota.
    pub(super) used: u32,
}

/// The figures of all accounts of a generation, in its order.
pub(super) struct Tally {
    generation: u64,
    at: Mono,
    figures: Vec<Figures>,
}

impl Tally {
    /// Those of the nth account.
    pub(super) fn of(&self, nth: usize) -> Figures {
        self.figures.get(nth).copied().unwrap_or_default()
    }

    /// Counts them.
    pub(super) fn count(limiters: &Limiters, policy: &Policy, now: Now) -> Self {
        let accounts = policy.accounts().as_slice();
        let mut figures = vec![Figures::default(); accounts.len()];
        limiters.each(|key, limiter| {
            let nth = accounts.binary_search_by(|account| account.id.cmp(&key.account));
            let Some(of) = nth.ok().and_then(|nth| figures.get_mut(nth)) else {
                return;
            };
            for (sum, count) in of.counts.iter_mut().zip(counts(limiter)) {
                *sum += count;
            }
            let (quota, left) = limiter.left(now);
            let used = u64::from(quota - left.min(quota)) * 1_000;
            let used = used.checked_div(u64::from(quota)).unwrap_or(0);
            of.used = of.used.max(u32::try_from(used).unwrap_or(u32::MAX));
        });
        Self {
            generation: policy.generation,
            at: now.mono,
            figures,
        }
    }
}

/// The last count.
#[derive(Default)]
pub(super) struct LastTally(Mutex<Option<Arc<Tally>>>);

impl LastTally {
    /// The count of now, or of less than a second ago. May take tens of milliseconds; who asks
    /// meanwhile waits and gets the same one.
    pub(super) fn of_now(&self, shared: &Shared, policy: &Policy) -> Arc<Tally> {
        let mut last = self.0.lock();
        let now = Now::read(&shared.clock);
        let is_good = |tally: &&Arc<Tally>| {
            tally.generation == policy.generation && now.mono.since(tally.at) < GOOD_FOR
        };
        if let Some(tally) = last.as_ref().filter(is_good) {
            return tally.clone();
        }
        let tally = Arc::new(Tally::count(&shared.limiters, policy, now));
        *last = Some(tally.clone());
        tally
    }

    /// Forgets it, so that a page that nobody looks at takes no memory.
    pub(super) fn forget(&self, now: Mono) {
        // Whoever counts holds the lock, and then there is somebody who looks.
        if let Some(mut last) = self.0.try_lock() {
            last.take_if(|tally| now.since(tally.at) > GOOD_FOR * 60);
        }
    }
}
