//! The rings: of each worker one for the calls of proven accounts and one for all others.
//!
//! Owns their bounds. Must never grow, nor hold a worker up for longer than a look at a part of its
//! ring takes.
//!
//! # Decided
//! - **Rings of each worker's own**: a refusal takes a lock that only an operator's question takes
//!   beside it.
//! - **What nobody proved is kept apart**: whoever floods the gate without a key cannot push out why
//!   a customer was throttled.

use crate::model::{AccountId, RequestId, Utc};
use crate::proxy::decisions::entry::TurnedAwayCall;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// All rings of the process together have at most so many bytes.
const PROVEN_BYTES: usize = 48 << 20;
const UNPROVEN_BYTES: usize = 16 << 20;
/// A refusal is explained for so long, if it is not pushed out before.
const KEPT: Duration = Duration::from_secs(24 * 3_600);
/// So many ids are looked at under one lock: some microseconds.
const AT_ONCE: usize = 4_096;
/// For the newest calls of an account so many calls of each ring are looked at, a part of them under
/// one lock: a call is longer than an id.
const LOOKED_BACK: usize = 16_384;
const CALLS_AT_ONCE: usize = 256;

/// The refusals of one day, of all workers.
#[derive(Default)]
pub(crate) struct Decisions(Mutex<Vec<Arc<DecisionRing>>>);

/// The refusals of one worker.
pub(crate) struct DecisionRing {
    proven: Mutex<Ring>,
    unproven: Mutex<Ring>,
}

/// The newest refusals: the ids apart from the rest, so that a search reads little.
struct Ring {
    ids: Vec<u128>,
    calls: Vec<TurnedAwayCall>,
    /// Where the next one goes when all places are taken.
    next: usize,
    /// The number of places.
    places: usize,
    /// When the last one that was pushed out had been decided.
    lost: Option<Utc>,
}

impl Decisions {
    /// The ring of one more worker, of so many.
    pub(crate) fn ring(&self, workers: usize) -> Arc<DecisionRing> {
        let ring = Arc::new(DecisionRing {
            proven: Mutex::new(Ring::new(PROVEN_BYTES / workers.max(1))),
            unproven: Mutex::new(Ring::new(UNPROVEN_BYTES / workers.max(1))),
        });
        self.0.lock().push(ring.clone());
        ring
    }

    fn rings(&self) -> Vec<Arc<DecisionRing>> {
        self.0.lock().clone()
    }

    /// The refusal of this id, if it is kept.
    pub(super) fn find(&self, id: RequestId, now: Utc) -> Option<TurnedAwayCall> {
        let rings = self.rings();
        let rings = rings.iter().flat_map(|ring| [&ring.proven, &ring.unproven]);
        let found = rings
            .filter_map(|ring| find(ring, id))
            .find_map(|(is_it, call)| is_it.then_some(call));
        found.filter(|call| now.since(call.at) < KEPT)
    }

    /// The refusal of this id, if it is kept and the account's. Does the same for one of another
    /// account as for one that never was: all rings are read to their ends, and in each a call is
    /// compared.
    pub(super) fn find_own(
        &self,
        id: RequestId,
        account: &AccountId,
        now: Utc,
    ) -> Option<TurnedAwayCall> {
        let mut own = None;
        for ring in self.rings() {
            if let Some((is_it, call)) = find(&ring.proven, id) {
                let is_own = call.account.text() == Some(account.as_str());
                let is_kept = now.since(call.at) < KEPT;
                if is_it & is_own & is_kept {
                    own = Some(call);
                }
            }
        }
        own
    }

    /// The newest refusals, newest first and at most so many: all, or those of one account. Of an
    /// account only those are found that are among the newest [`LOOKED_BACK`] of their ring.
    pub(super) fn newest(
        &self,
        account: Option<&AccountId>,
        now: Utc,
        most: usize,
    ) -> Vec<(RequestId, TurnedAwayCall)> {
        let mut found = Vec::new();
        for ring in self.rings() {
            newest(&ring.proven, account, most, &mut found);
            if account.is_none() {
                newest(&ring.unproven, account, most, &mut found);
            }
        }
        found.retain(|(_, call)| now.since(call.at) < KEPT);
        found.sort_unstable_by_key(|(id, call)| std::cmp::Reverse((call.at, id.0)));
        found.truncate(most);
        found
    }

    /// Since when each refusal of a proven account is kept, at `now`; those of the calls that nobody
    /// proved may reach less far.
    pub(crate) fn reach(&self, now: Utc) -> (Utc, Utc) {
        let day = Utc(now
            .0
            .saturating_sub(i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX)));
        let rings = self.rings();
        let reach = |of: fn(&DecisionRing) -> &Mutex<Ring>| {
            let lost = rings.iter().filter_map(|ring| of(ring).lock().lost);
            lost.fold(day, Utc::max)
        };
        (reach(|ring| &ring.proven), reach(|ring| &ring.unproven))
    }
}

/// The call of this id, or another one where it is not there: whether it is it, and the call. `None`
/// of an empty ring.
fn find(ring: &Mutex<Ring>, id: RequestId) -> Option<(bool, TurnedAwayCall)> {
    let id = id.0.as_u128();
    let (mut from, mut place) = (0, None);
    loop {
        let ring = ring.lock();
        let ids = ring.ids.get(from..).unwrap_or_default();
        let ids = &ids[..ids.len().min(AT_ONCE)];
        // Read to the end in any case.
        for (at, known) in ids.iter().enumerate() {
            if *known == id {
                place = Some(from + at);
            }
        }
        from += ids.len();
        if ids.len() < AT_ONCE {
            let at = place.unwrap_or(0);
            // It may have been pushed out since it was seen.
            let is_it = ring.ids.get(at) == Some(&id);
            return Some((is_it, *ring.calls.get(at)?));
        }
    }
}

/// The newest calls of a ring, or of one account in it. What comes meanwhile is left out.
fn newest(
    ring: &Mutex<Ring>,
    account: Option<&AccountId>,
    most: usize,
    found: &mut Vec<(RequestId, TurnedAwayCall)>,
) {
    let (first, kept) = {
        let ring = ring.lock();
        (ring.next, ring.calls.len())
    };
    let (mut back, mut left) = (0, most);
    while back < LOOKED_BACK && left > 0 {
        let ring = ring.lock();
        let until = (back + CALLS_AT_ONCE).min(kept);
        if back >= until {
            return;
        }
        for nth in back..until {
            // A ring that is not full yet has its newest call at the end, and `next` is 0.
            let at = (first + kept - 1 - nth) % kept;
            let (Some(id), Some(call)) = (ring.ids.get(at), ring.calls.get(at)) else {
                return;
            };
            let is_wanted = account.is_none_or(|of| call.account.text() == Some(of.as_str()));
            if is_wanted && left > 0 {
                found.push((RequestId(uuid::Uuid::from_u128(*id)), *call));
                left -= 1;
            }
        }
        back = until;
    }
}

impl DecisionRing {
    /// Keeps a refusal.
    pub(in crate::proxy) fn keep(&self, id: RequestId, call: &TurnedAwayCall) {
        let ring = match call.account.text() {
            Some(_) => &self.proven,
            None => &self.unproven,
        };
        ring.lock().keep(id.0.as_u128(), call);
    }
}

impl Ring {
    /// Its memory is taken from the system as it fills.
    fn new(bytes: usize) -> Self {
        let places = (bytes / (size_of::<u128>() + size_of::<TurnedAwayCall>())).max(1);
        Self {
            ids: Vec::with_capacity(places),
            calls: Vec::with_capacity(places),
            next: 0,
            places,
            lost: None,
        }
    }

    fn keep(&mut self, id: u128, call: &TurnedAwayCall) {
        if self.ids.len() < self.places {
            self.ids.push(id);
            self.calls.push(*call);
            return;
        }
        if let (Some(known), Some(kept)) =
            (self.ids.get_mut(self.next), self.calls.get_mut(self.next))
        {
            self.lost = Some(kept.at);
            (*known, *kept) = (id, *call);
        }
        self.next = (self.next + 1) % self.places;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::decisions::entry::{Name, Verdict};
    use crate::proxy::refusal::Refusal;

    fn id(n: u128) -> RequestId {
        RequestId(uuid::Uuid::from_u128(n))
    }

    fn of(account: Option<&str>, at: i64) -> TurnedAwayCall {
        TurnedAwayCall {
            at: Utc(at),
            generation: 1,
            peer: [192, 0, 2, 1].into(),
            account: Name::of(account),
            key: Name::of(None),
            group: Name::of(None),
            action: Name::of(None),
            verdict: Verdict::Refused,
            row: Refusal::StoreAway.row(),
            throttle: None,
            trace: None,
        }
    }

    /// The bytes that the rings of all workers have asked for.
    fn bytes(decisions: &Decisions) -> usize {
        let rings = decisions.rings();
        let rings = rings
            .iter()
            .flat_map(|ring| [ring.proven.lock(), ring.unproven.lock()]);
        rings
            .map(|ring| {
                ring.ids.capacity() * size_of::<u128>()
                    + ring.calls.capacity() * size_of::<TurnedAwayCall>()
            })
            .sum()
    }

    #[test]
    fn a_flood_pushes_out_the_oldest_and_takes_no_more_memory_and_says_how_far_it_reaches() {
        let decisions = Decisions::default();
        let ring = decisions.ring(64);
        let places = u128::try_from(ring.proven.lock().places).unwrap();
        assert!(places > 1_000, "{places}");
        let before = bytes(&decisions);
        let calls = places * 5 / 2;
        for n in 1..=calls {
            ring.keep(id(n), &of(Some("a"), i64::try_from(n).unwrap()));
        }
        assert_eq!(bytes(&decisions), before);
        let (now, lost) = (Utc(i64::try_from(calls).unwrap()), calls - places);
        for n in [1, lost - 1, lost] {
            assert!(decisions.find(id(n), now).is_none(), "{n}");
        }
        for n in [lost + 1, lost + 2, calls] {
            let found = decisions.find(id(n), now).unwrap();
            assert_eq!(found.at, Utc(i64::try_from(n).unwrap()));
        }
        let (proven, unproven) = decisions.reach(now);
        assert_eq!(proven, Utc(i64::try_from(lost).unwrap()));
        assert!(unproven < Utc(0), "nothing of these was pushed out");
    }

    #[test]
    fn the_rings_of_many_workers_have_together_what_one_workers_have() {
        for workers in [1, 2, 7, 64] {
            let decisions = Decisions::default();
            for _ in 0..workers {
                decisions.ring(workers);
            }
            let bytes = bytes(&decisions);
            let most = PROVEN_BYTES + UNPROVEN_BYTES;
            assert!(bytes <= most, "{workers}: {bytes}");
            assert!(bytes >= most - most / 50, "{workers}: {bytes}");
        }
    }

    #[test]
    fn whoever_has_no_key_cannot_push_out_what_is_kept_of_a_customer() {
        let decisions = Decisions::default();
        let ring = decisions.ring(64);
        ring.keep(id(1), &of(Some("a"), 1));
        let flood = u128::try_from(ring.unproven.lock().places).unwrap() + 10;
        for n in 2..flood {
            ring.keep(id(n), &of(None, 2));
        }
        assert!(decisions.find(id(1), Utc(3)).is_some());
        assert!(decisions.find(id(2), Utc(3)).is_none());
        assert!(decisions.find(id(flood - 1), Utc(3)).is_some());
    }

    #[test]
    fn an_account_finds_its_own_refusals_for_a_day_and_no_others() {
        let decisions = Decisions::default();
        let rings = [decisions.ring(64), decisions.ring(64)];
        let day = 24 * 3_600 * 1_000_000;
        rings[0].keep(id(1), &of(Some("a"), 0));
        rings[1].keep(id(2), &of(Some("b"), 0));
        rings[1].keep(id(3), &of(None, 0));
        let own = |n, account, at| {
            let account = AccountId::new(account).unwrap();
            decisions.find_own(id(n), &account, Utc(at)).is_some()
        };
        assert!(own(1, "a", day - 1) && own(2, "b", day - 1));
        assert!(!own(1, "a", day) && decisions.find(id(1), Utc(day)).is_none());
        for (n, account) in [(1, "b"), (2, "a"), (3, "a"), (4, "a"), (1, "aa")] {
            assert!(!own(n, account, 1), "{n} {account}");
        }
        assert!(decisions.find(id(3), Utc(1)).is_some());
    }

    #[test]
    fn the_newest_refusals_come_first_also_of_a_ring_that_went_round_and_an_account_has_its_own() {
        let decisions = Decisions::default();
        let rings = [decisions.ring(64), decisions.ring(64)];
        let places = u128::try_from(rings[0].proven.lock().places).unwrap();
        let calls = places * 3 / 2;
        for n in 1..=calls {
            let account = if n % 100 == 0 { "b" } else { "a" };
            rings[0].keep(id(n), &of(Some(account), i64::try_from(n).unwrap()));
        }
        let last = i64::try_from(calls).unwrap();
        rings[1].keep(id(calls + 1), &of(Some("a"), last + 1));
        rings[1].keep(id(calls + 2), &of(None, last + 2));
        let newest = |account: Option<&str>, most| -> Vec<u128> {
            let account = account.map(|id| AccountId::new(id).unwrap());
            let found = decisions.newest(account.as_ref(), Utc(last + 3), most);
            found.iter().map(|(id, _)| id.0.as_u128()).collect()
        };
        assert_eq!(
            newest(None, 4),
            [calls + 2, calls + 1, calls, calls - 1],
            "across the rings"
        );
        let hundreds = calls / 100 * 100;
        assert_eq!(
            newest(Some("b"), 3),
            [hundreds, hundreds - 100, hundreds - 200]
        );
        assert_eq!(newest(Some("c"), 3), [0; 0]);
        assert!(
            decisions.newest(None, Utc(i64::MAX), 4).is_empty(),
            "after a day"
        );
    }

    #[test]
    fn a_search_finds_what_stands_in_any_part_of_a_long_ring() {
        let decisions = Decisions::default();
        let ring = decisions.ring(8);
        let calls = 3 * AT_ONCE as u128;
        for n in 1..=calls {
            ring.keep(id(n), &of(Some("a"), 0));
        }
        let at_once = AT_ONCE as u128;
        for n in [1, at_once, at_once + 1, 2 * at_once, calls] {
            assert!(decisions.find(id(n), Utc(1)).is_some(), "{n}");
        }
        assert!(decisions.find(id(calls + 1), Utc(1)).is_none());
    }
}
