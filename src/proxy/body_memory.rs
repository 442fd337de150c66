//! How much memory request bodies may take.
//!
//! Owns one budget with a share for each holder. Must never wait: what does not fit now is refused.
//!
//! A signed body is read before its signature can be proven, so a client that knows a secret id can
//! have bodies charged to it. Unproven bodies therefore get half of the whole and half of the
//! credential's share; a peer that has proven the credential before has the rest to itself (P6).

use crate::model::network;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

/// No peer and no credential holds more than this part of the whole.
pub(crate) const SHARE: u64 = 8;
/// Pairs of peer and credential that are remembered as proven; beyond it all prove themselves anew.
const PROVEN: usize = 65_536;

/// A budget in bytes.
pub(super) struct BodyMemory {
    limit: u64,
    held: Mutex<HeldBytes>,
    hasher: foldhash::quality::RandomState,
}

#[derive(Default)]
struct HeldBytes {
    total: u64,
    by_holder: HashMap<Holder, u64, foldhash::fast::RandomState>,
    /// Hashes of pairs, with a seed that nobody outside knows.
    proven: HashSet<u64, foldhash::fast::RandomState>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Holder {
    Peer(IpAddr),
    Credential(Box<str>),
    /// The heads of streams of HTTP/2.
    Heads,
    /// Those on connections on which no credential has been proven.
    UnprovenHeads,
    /// All peers that have not proven the credential that they name.
    Unproven,
    UnprovenOf(Box<str>),
}

/// Memory that is held until this is dropped.
pub(crate) struct Lease {
    memory: Arc<BodyMemory>,
    holders: Vec<Holder>,
    bytes: u64,
}

impl BodyMemory {
    /// `limit` in bytes (`limits.body_memory`).
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: Mutex::default(),
            hasher: foldhash::quality::RandomState::default(),
        })
    }

    /// Holds `bytes` for a peer's call with a credential that this call has not proven yet; `None`
    /// when the whole or a share would be crossed.
    pub(super) fn reserve(
        self: &Arc<Self>,
        peer: IpAddr,
        credential: &str,
        bytes: u64,
    ) -> Option<Lease> {
        let mut holders = vec![
            Holder::Peer(network(peer)),
            Holder::Credential(credential.into()),
        ];
        let held = self.held.lock();
        if !held.proven.contains(&self.pair(peer, credential)) {
            holders.extend([Holder::Unproven, Holder::UnprovenOf(credential.into())]);
        }
        self.hold(held, holders, bytes)
    }

    /// Holds `bytes` for the head of a request whose client has others on the same connection;
    /// `None` when the whole or a share would be crossed. `peer` is `None` for a trusted proxy,
    /// whose requests are many clients'. `is_proven`: a credential has been proven on the connection;
    /// half of what heads may take is for such ones alone.
    pub(super) fn reserve_head(
        self: &Arc<Self>,
        peer: Option<IpAddr>,
        is_proven: bool,
        bytes: u64,
    ) -> Option<Lease> {
        let peer = peer.map(|peer| Holder::Peer(network(peer)));
        let mut holders = vec![Holder::Heads];
        holders.extend(peer);
        if !is_proven {
            // Bodies and heads of clients without a proof are together at most half of the whole.
            holders.extend([Holder::Unproven, Holder::UnprovenHeads]);
        }
        self.hold(self.held.lock(), holders, bytes)
    }

    fn hold(
        self: &Arc<Self>,
        mut held: MutexGuard<'_, HeldBytes>,
        holders: Vec<Holder>,
        bytes: u64,
    ) -> Option<Lease> {
        let total = held.total.checked_add(bytes)?;
        let fits = |holder: &Holder| {
            let before = held.by_holder.get(holder).copied().unwrap_or(0);
            let after = before.saturating_add(bytes);
            match holder {
                Holder::Peer(_) | Holder::Credential(_) => after <= self.limit / SHARE,
                Holder::Unproven | Holder::Heads => after <= self.limit / 2,
                Holder::UnprovenHeads => after <= self.limit / 4,
                // The first body of a newcomer may be as large as any.
                Holder::UnprovenOf(_) => before == 0 || after <= self.limit / SHARE / 2,
            }
        };
        if total > self.limit || !holders.iter().all(fits) {
            return None;
        }
        held.total = total;
        // A holder of nothing gives nothing back, and its entry would never be removed.
        for holder in holders.iter().filter(|_| bytes > 0) {
            *held.by_holder.entry(holder.clone()).or_default() += bytes;
        }
        drop(held);
        Some(Lease {
            memory: self.clone(),
            holders,
            bytes,
        })
    }

    /// Remembers that this peer has proven the credential.
    pub(super) fn proved(&self, peer: IpAddr, credential: &str) {
        let pair = self.pair(peer, credential);
        let mut held = self.held.lock();
        if held.proven.len() >= PROVEN && !held.proven.contains(&pair) {
            held.proven.clear();
        }
        held.proven.insert(pair);
    }

    fn pair(&self, peer: IpAddr, credential: &str) -> u64 {
        self.hasher.hash_one((network(peer), credential))
    }

    /// Bytes held now.
    pub(super) fn held(&self) -> u64 {
        self.held.lock().total
    }
}

impl Lease {
    /// Gives back what is beyond `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        let back = self.bytes.saturating_sub(bytes);
        if back == 0 {
            return;
        }
        self.bytes -= back;
        let mut held = self.memory.held.lock();
        held.total -= back;
        for holder in &self.holders {
            if let Some(bytes) = held.by_holder.get_mut(holder) {
                *bytes -= back;
                if *bytes == 0 {
                    held.by_holder.remove(holder);
                }
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn peer(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    /// Where every pair of the first nine peers and these credentials is proven.
    fn proven(limit: u64) -> Arc<BodyMemory> {
        let memory = BodyMemory::new(limit);
        for n in 1..=9 {
            for credential in ["a", "b", &n.to_string()] {
                memory.proved(peer(n), credential);
            }
        }
        memory
    }

    #[test]
    fn heads_of_clients_without_a_key_leave_half_of_their_part_to_those_with_one() {
        let memory = BodyMemory::new(800);
        let peer = |nth: u8| Some(IpAddr::from([192, 0, 2, nth]));
        let mut held = Vec::new();
        for nth in 0..20 {
            held.extend(memory.reserve_head(peer(nth), false, 50));
        }
        assert_eq!(memory.held(), 200, "a quarter of the whole");
        let body = memory.reserve([192, 0, 2, 99].into(), "a", 100);
        let other = memory.reserve([192, 0, 2, 98].into(), "b", 100);
        assert!(body.is_some() && other.is_some());
        let third = memory.reserve([192, 0, 2, 97].into(), "c", 1);
        assert!(third.is_none(), "all without a proof have half");
        drop((body, other));
        // A trusted proxy is no peer, and holds no more than all of them.
        assert!(memory.reserve_head(None, false, 1).is_none());
        for nth in 20..40 {
            held.extend(memory.reserve_head(peer(nth), true, 50));
        }
        assert_eq!(memory.held(), 400, "half of the whole");
        drop(held);
        assert_eq!(memory.held(), 0);
        assert!(
            memory.reserve_head(peer(1), true, 101).is_none(),
            "an eighth"
        );
    }

    #[test]
    fn who_only_knows_a_secret_id_cannot_take_its_owners_memory() {
        let memory = BodyMemory::new(1_600);
        memory.proved(peer(1), "victim");
        let mut taken = Vec::new();
        for attacker in 100..200 {
            taken.extend(memory.reserve(peer(attacker), "victim", 10));
        }
        assert_eq!(memory.held(), 100, "half of the credential's eighth");
        let own = memory.reserve(peer(1), "victim", 100);
        assert!(own.is_some(), "the other half is the owner's");
        for attacker in 100..200 {
            for id in 0..20 {
                taken.extend(memory.reserve(peer(attacker), &format!("id-{id}"), 10));
            }
        }
        assert_eq!(memory.held(), 900, "half of the whole, and the owner's");
        assert!(memory.reserve(peer(1), "victim", 1).is_none());
        drop(own);
        assert!(memory.reserve(peer(1), "victim", 100).is_some());
    }

    #[test]
    fn a_newcomers_first_body_may_be_as_large_as_any() {
        let memory = BodyMemory::new(800);
        let first = memory.reserve(peer(1), "a", 100);
        assert!(first.is_some());
        assert!(memory.reserve(peer(2), "a", 1).is_none());
    }

    #[test]
    fn the_memory_of_who_proved_what_is_bounded() {
        let memory = BodyMemory::new(800);
        for n in 0..=PROVEN {
            memory.proved(peer(1), &n.to_string());
        }
        assert_eq!(memory.held.lock().proven.len(), 1);
    }

    #[test]
    fn no_peer_and_no_credential_holds_more_than_an_eighth() {
        let memory = proven(800);
        let lease = memory.reserve(peer(1), "a", 100).unwrap();
        assert!(
            memory.reserve(peer(1), "b", 1).is_none(),
            "the peer's share is taken"
        );
        assert!(
            memory.reserve(peer(2), "a", 1).is_none(),
            "the credential's share is taken"
        );
        assert!(
            memory.reserve(peer(2), "b", 101).is_none(),
            "one past the share"
        );
        assert!(
            memory.reserve(peer(2), "b", 100).is_some(),
            "the share exactly"
        );
        drop(lease);
        assert!(memory.reserve(peer(1), "a", 100).is_some());
    }

    #[test]
    fn the_whole_is_never_crossed_and_comes_back_whole() {
        let memory = proven(800);
        let mut leases: Vec<Lease> = (1..=8)
            .map(|n| memory.reserve(peer(n), &n.to_string(), 100).unwrap())
            .collect();
        assert!(
            memory.reserve(peer(9), "9", 1).is_none(),
            "one past the whole"
        );
        leases[0].shrink_to(40);
        assert!(memory.reserve(peer(9), "9", 61).is_none());
        let small = memory.reserve(peer(9), "9", 60).unwrap();
        drop((small, leases));
        assert_eq!(memory.held(), 0);
        assert!(
            memory.held.lock().by_holder.is_empty(),
            "holders are forgotten"
        );
    }

    #[test]
    fn a_call_without_a_body_leaves_no_trace_of_its_peer() {
        let memory = proven(800);
        for n in 0..=255 {
            drop(memory.reserve(peer(n), "a", 0).unwrap());
        }
        assert_eq!(memory.held.lock().by_holder.len(), 0);
    }
}
