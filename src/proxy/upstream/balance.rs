//! Which of several servers takes a call: the less loaded of two that chance names. Pure.
//!
//! # Decided
//! - **Two choices, and not the least loaded of all.** Between two looks at the servers many calls
//!   begin. They would all take the same one.
//! - **A server that comes back passes calls on to the other of the two** until its slow start is
//!   over. A weight in the score would give it nothing while the others are idle.

use crate::proxy::upstream::health::WHOLE;
use std::cell::Cell;
use std::hash::BuildHasher;

/// What is known of a server when a call is to be given to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Load {
    pub in_flight: u32,
    /// Until the head of an answer, in microseconds; 0 when it is not known.
    pub latency_us: u32,
}

impl Load {
    fn is_less_than(self, other: Self) -> bool {
        let is_known = self.latency_us > 0 && other.latency_us > 0;
        let score = |load: Self| {
            let latency = if is_known { load.latency_us } else { 1 };
            (u64::from(load.in_flight) + 1) * u64::from(latency)
        };
        score(self) < score(other)
    }
}

/// One of the candidates; `None` when none can be used. `chance_of`: of [`WHOLE`], 0 when it cannot
/// be used. `random` has 64 bits of chance.
pub(super) fn choose<T>(
    candidates: &[T],
    chance_of: impl Fn(&T) -> u32,
    load_of: impl Fn(&T) -> Load,
    random: u64,
) -> Option<&T> {
    let usable = || {
        let chances = candidates.iter().map(|one| (one, chance_of(one)));
        chances.filter(|(_, chance)| *chance > 0)
    };
    let count = usable().count();
    let bits = |from: u32, count: usize| {
        let bits = (random >> from) & 0xffff;
        usize::try_from(bits).unwrap_or(0) % count
    };
    let first = bits(0, count.max(1));
    // Between two looks one may have become unusable: then the last look decides.
    let (one, chance) = usable().nth(first).or_else(|| usable().next())?;
    if count < 2 {
        return Some(one);
    }
    let second = bits(16, count - 1);
    let second = second + usize::from(second >= first);
    let Some((other, other_chance)) = usable().nth(second) else {
        return Some(one);
    };
    let takes = |chance: u32, from: u32| u64::from(chance) > (random >> from) % u64::from(WHOLE);
    Some(match (takes(chance, 32), takes(other_chance, 42)) {
        (true, false) => one,
        (false, true) => other,
        _ if load_of(other).is_less_than(load_of(one)) => other,
        _ => one,
    })
}

/// 64 bits of chance. Good enough to spread load, and for nothing else.
pub(super) fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(foldhash::fast::RandomState::default().hash_one(0));
    }
    // SplitMix64.
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A server: its chance and its load.
    type Sample = (u32, Load);

    fn chosen(servers: &[Sample], random: u64) -> Option<usize> {
        let numbered: Vec<(usize, Sample)> = servers.iter().copied().enumerate().collect();
        choose(&numbered, |(_, one)| one.0, |(_, one)| one.1, random).map(|(nth, _)| *nth)
    }

    fn load(in_flight: u32, latency_us: u32) -> Load {
        Load {
            in_flight,
            latency_us,
        }
    }

    fn shares(servers: &[Sample], calls: usize) -> Vec<f64> {
        let mut counts = vec![0; servers.len()];
        for _ in 0..calls {
            counts[chosen(servers, random()).unwrap()] += 1;
        }
        let share = |count: usize| count as f64 / calls as f64;
        counts.into_iter().map(share).collect()
    }

    proptest! {
        #[test]
        fn the_one_that_takes_a_call_can_be_used_and_there_is_one_if_one_can(
            servers in proptest::collection::vec((0..3_u32, 0..50_u32, 0..9_000_u32), 0..9),
            random in any::<u64>()
        ) {
            let servers: Vec<Sample> = servers
                .into_iter()
                .map(|(chance, calls, latency)| (chance * (WHOLE / 2), load(calls, latency)))
                .collect();
            let is_usable = |nth: usize| servers[nth].0 > 0;
            match chosen(&servers, random) {
                Some(nth) => prop_assert!(is_usable(nth)),
                None => prop_assert!(!(0..servers.len()).any(is_usable)),
            }
        }

        /// Against all pairs: a server that is fully back and worse than every other one takes none.
        #[test]
        fn the_worst_of_all_takes_no_call(
            calls in proptest::collection::vec((0..50_u32, 1..9_000_u32), 2..9),
            random in any::<u64>()
        ) {
            let servers: Vec<Sample> = calls.iter().map(|(n, us)| (WHOLE, load(*n, *us))).collect();
            let score = |nth: &usize| u64::from(calls[*nth].0 + 1) * u64::from(calls[*nth].1);
            let worst = (0..calls.len()).max_by_key(score).unwrap();
            let is_alone = (0..calls.len()).filter(|nth| score(nth) == score(&worst)).count() == 1;
            if is_alone {
                prop_assert_ne!(chosen(&servers, random), Some(worst));
            }
        }
    }

    #[test]
    fn equal_servers_share_evenly_and_one_that_is_back_gets_its_part() {
        let equal = [(WHOLE, load(0, 0)); 4];
        for share in shares(&equal, 40_000) {
            assert!((0.2..0.3).contains(&share), "{share}");
        }
        // It takes half of what would be its half, and the other one takes the rest.
        let back = [(WHOLE / 10, load(0, 0)), (WHOLE, load(0, 0))];
        let share = shares(&back, 40_000)[0];
        assert!((0.02..0.12).contains(&share), "{share}");
    }

    #[test]
    fn a_latency_that_is_not_known_says_nothing() {
        assert!(load(1, 9_000).is_less_than(load(2, 0)));
        assert!(load(1, 0).is_less_than(load(2, 1)));
        assert!(load(2, 100).is_less_than(load(0, 1_000)));
    }
}
