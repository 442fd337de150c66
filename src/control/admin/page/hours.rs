//! The last hour of single accounts, in steps of fifteen seconds.
//!
//! Owns the bound: a thousand accounts with calls, an hour of each, 3 MB. When all places are taken, an
//! account that was quiet for an hour gives its place away. Must never take anything from the way of a
//! call but its counts.

use crate::model::AccountId;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// From one step to the next.
pub(super) const STEP: Duration = Duration::from_secs(15);
/// So many accounts have an hour.
const ACCOUNTS: usize = 1_000;
/// An hour.
const STEPS: usize = 240;

/// The calls of a step: admitted, throttled, refused.
pub(super) type Step = [u32; 3];

/// The hours of the accounts.
#[derive(Default)]
pub(super) struct Hours {
    hours: HashMap<AccountId, Hour>,
    /// An account with calls once had no place. From then on what is counted of a new one may be old.
    left_out: bool,
}

#[derive(Default)]
struct Hour {
    /// The counts at the end of the last step.
    counted: [u64; 3],
    steps: VecDeque<Step>,
}

impl Hours {
    /// Ends a step. `each` calls what it is given with the account and the counts of each limiter.
    pub(super) fn end_step(&mut self, each: impl FnOnce(&mut dyn FnMut(&AccountId, [u64; 3]))) {
        let mut counted: HashMap<AccountId, [u64; 3]> = HashMap::new();
        each(&mut |account, counts| {
            let is_known = self.hours.contains_key(account) || counted.contains_key(account);
            let has_calls = counts.iter().any(|calls| *calls > 0);
            if is_known || (has_calls && counted.len() < 2 * ACCOUNTS) {
                let sum = counted.entry(account.clone()).or_default();
                for (sum, count) in sum.iter_mut().zip(counts) {
                    *sum += count;
                }
            } else if has_calls {
                self.left_out = true;
            }
        });
        for (id, hour) in &mut self.hours {
            hour.end_step(counted.remove(id).unwrap_or_default());
        }
        if self.hours.len() + counted.len() > ACCOUNTS {
            self.hours
                .retain(|_, hour| hour.steps.len() < STEPS || hour.has_calls());
            self.left_out = true;
        }
        for (id, counts) in counted {
            if self.hours.len() >= ACCOUNTS {
                return;
            }
            let hour = self.hours.entry(id).or_default();
            match self.left_out {
                true => hour.counted = counts,
                false => hour.end_step(counts),
            }
        }
    }

    /// The steps of an account, the oldest first; `None` when it has no place.
    pub(super) fn of(&self, id: &AccountId) -> Option<Vec<Step>> {
        Some(self.hours.get(id)?.steps.iter().copied().collect())
    }
}

impl Hour {
    fn end_step(&mut self, counts: [u64; 3]) {
        // Counts fall when an account goes and comes again.
        let before = self.counted;
        let step = std::array::from_fn(|nth| {
            let calls = counts[nth].checked_sub(before[nth]).unwrap_or(counts[nth]);
            u32::try_from(calls).unwrap_or(u32::MAX)
        });
        self.counted = counts;
        self.steps.push_back(step);
        while self.steps.len() > STEPS {
            self.steps.pop_front();
        }
    }

    fn has_calls(&self) -> bool {
        self.steps.iter().flatten().any(|calls| *calls > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(nth: usize) -> AccountId {
        AccountId::new(&format!("a{nth}")).unwrap()
    }

    fn end(hours: &mut Hours, counted: &[(usize, [u64; 3])]) {
        hours.end_step(|each| {
            for (nth, counts) in counted {
                each(&id(*nth), *counts);
            }
        });
    }

    #[test]
    fn an_account_has_what_it_did_in_each_step_with_all_its_limiters_together() {
        let mut hours = Hours::default();
        end(&mut hours, &[(1, [3, 1, 0]), (2, [0; 3]), (1, [2, 0, 5])]);
        end(
            &mut hours,
            &[(1, [4, 1, 0]), (2, [0, 9, 0]), (1, [2, 0, 5])],
        );
        // It was taken out of the files, and put in again.
        end(&mut hours, &[(2, [0, 9, 0])]);
        end(&mut hours, &[(1, [1, 0, 0]), (2, [0, 9, 0])]);
        let all = [[5, 1, 5], [1, 0, 0], [0; 3], [1, 0, 0]];
        assert_eq!(hours.of(&id(1)).unwrap(), all);
        assert_eq!(hours.of(&id(2)).unwrap(), [[0, 9, 0], [0; 3], [0; 3]]);
        assert_eq!(hours.of(&id(3)), None);
        for _ in 0..300 {
            end(&mut hours, &[(1, [1, 0, 0])]);
        }
        assert_eq!(hours.of(&id(1)).unwrap().len(), 240);
    }

    #[test]
    fn a_thousand_accounts_have_an_hour_and_a_quiet_one_gives_its_place_to_one_with_calls() {
        let mut hours = Hours::default();
        let full: Vec<_> = (0..1_000).map(|nth| (nth, [1, 0, 0])).collect();
        end(&mut hours, &full);
        let mut more = full.clone();
        more.push((5_000, [70, 0, 0]));
        end(&mut hours, &more);
        assert_eq!(hours.hours.len(), 1_000);
        assert_eq!(hours.of(&id(5_000)), None);
        // All but one of the first are quiet for an hour.
        for calls in 2..250 {
            more[0].1 = [calls, 0, 0];
            end(&mut hours, &more);
        }
        assert!(hours.hours.len() <= 1_000);
        assert!(hours.of(&id(0)).is_some(), "it has calls");
        let new = hours.of(&id(5_000)).unwrap();
        assert!(
            new.iter().all(|step| *step == [0; 3]),
            "none of old: {new:?}"
        );
    }
}
