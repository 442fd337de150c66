//! The calls of proven accounts that were turned away, until the ledger has them.
//!
//! Owns the counts since they were last taken, by account, group and reason. Must never cost a
//! throttled call anything: those are read from the limiters. A flood of refused calls, as of an
//! account that is stopped, takes a lock for one addition each.

use crate::model::{AccountId, GroupId};
use crate::proxy::admission::{Limiter, LimiterKey, Limiters};
use parking_lot::Mutex;
use std::collections::HashMap;

/// The reason under which all throttled calls are counted.
pub(crate) const THROTTLED: &str = "throttled";
/// The most kinds of calls that are counted at once. Further kinds are not counted until these were
/// taken: accounts are known by the files, so only very many of them at once come here.
const KINDS: usize = 65_536;

/// Calls that are alike in all that is told of them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TurnedAwayKind {
    /// The account, which was proven.
    pub account: AccountId,
    /// The group. `None` where none was found yet.
    pub group: Option<GroupId>,
    /// [`THROTTLED`], or the label of the refusal.
    pub reason: &'static str,
}

type Counts = HashMap<TurnedAwayKind, u64, foldhash::fast::RandomState>;

/// The calls that were turned away since they were last taken.
#[derive(Default)]
pub(crate) struct TurnedAway(Mutex<Counts>);

impl TurnedAway {
    /// Counts calls of one kind.
    pub(crate) fn add(&self, kind: TurnedAwayKind, calls: u64) {
        add(&mut self.0.lock(), kind, calls);
    }

    /// Takes over the throttled calls of a limiter that ceases to exist.
    pub(super) fn retire(&self, key: &LimiterKey, limiter: &Limiter) {
        add_throttled(&mut self.0.lock(), key, limiter);
    }

    /// All that was counted since this was asked before.
    pub(crate) fn take(&self, limiters: &Limiters) -> Vec<(TurnedAwayKind, u64)> {
        let mut counts = std::mem::take(&mut *self.0.lock());
        limiters.each(|key, limiter| add_throttled(&mut counts, key, limiter));
        counts.into_iter().collect()
    }
}

fn add_throttled(counts: &mut Counts, key: &LimiterKey, limiter: &Limiter) {
    let calls = limiter.counts.untold();
    if calls > 0 {
        let kind = TurnedAwayKind {
            account: key.account.clone(),
            group: Some(key.group.clone()),
            reason: THROTTLED,
        };
        add(counts, kind, calls);
    }
}

fn add(counts: &mut Counts, kind: TurnedAwayKind, calls: u64) {
    if let Some(count) = counts.get_mut(&kind) {
        *count += calls;
    } else if counts.len() < KINDS {
        counts.insert(kind, calls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(account: usize) -> TurnedAwayKind {
        TurnedAwayKind {
            account: AccountId::new(&account.to_string()).unwrap(),
            group: None,
            reason: "arrears",
        }
    }

    #[test]
    fn what_was_turned_away_is_taken_once_and_what_could_not_be_kept_is_taken_again() {
        let (counted, limiters) = (TurnedAway::default(), Limiters::default());
        counted.add(kind(1), 2);
        counted.add(kind(1), 3);
        counted.add(kind(2), 1);
        let mut taken = counted.take(&limiters);
        taken.sort_by_key(|(_, calls)| *calls);
        assert_eq!(taken, [(kind(2), 1), (kind(1), 5)]);
        assert_eq!(counted.take(&limiters), []);
        for (kind, calls) in taken {
            counted.add(kind, calls);
        }
        counted.add(kind(1), 1);
        let taken = counted.take(&limiters);
        assert!(taken.contains(&(kind(1), 6)), "{taken:?}");
    }

    #[test]
    fn no_more_kinds_are_held_than_the_limit_and_those_that_are_held_still_count() {
        let (counted, limiters) = (TurnedAway::default(), Limiters::default());
        for account in 0..KINDS + 10 {
            counted.add(kind(account), 1);
        }
        counted.add(kind(7), 1);
        let taken = counted.take(&limiters);
        assert_eq!(taken.len(), KINDS);
        assert!(taken.contains(&(kind(7), 2)));
    }
}
