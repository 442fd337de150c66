//! How much memory request bodies may take.
//!
//! Owns one budget with a share for each holder. Must never wait: what does not fit now is refused.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// No peer and no credential holds more than this part of the whole.
pub const SHARE: u64 = 8;

/// A budget in bytes.
pub struct BodyMemory {
    limit: u64,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    total: u64,
    by_holder: HashMap<Holder, u64, foldhash::fast::RandomState>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Holder {
    Peer(IpAddr),
    Credential(Box<str>),
}

/// Memory that is held until this is dropped.
pub struct Lease {
    memory: Arc<BodyMemory>,
    holders: [Holder; 2],
    bytes: u64,
}

impl BodyMemory {
    /// `limit` in bytes (`limits.body_memory`).
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: Mutex::default(),
        })
    }

    /// Holds `bytes` for a peer's call with a credential (not yet proven); `None` when the whole or
    /// either share would be crossed.
    pub fn reserve(self: &Arc<Self>, peer: IpAddr, credential: &str, bytes: u64) -> Option<Lease> {
        let holders = [
            Holder::Peer(network(peer)),
            Holder::Credential(credential.into()),
        ];
        let mut held = self.held.lock();
        let fits = held
            .total
            .checked_add(bytes)
            .is_some_and(|total| total <= self.limit)
            && holders.iter().all(|holder| {
                held.by_holder
                    .get(holder)
                    .copied()
                    .unwrap_or(0)
                    .saturating_add(bytes)
                    <= self.limit / SHARE
            });
        if !fits {
            return None;
        }
        held.total += bytes;
        // Who holds nothing gives nothing back, and would never be forgotten.
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

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.held.lock().total
    }
}

impl Lease {
    /// Gives back what is beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
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

/// One host has all of an IPv6 /64 to itself.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn peer(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    #[test]
    fn no_peer_and_no_credential_holds_more_than_an_eighth() {
        let memory = BodyMemory::new(800);
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
        let memory = BodyMemory::new(800);
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
        let memory = BodyMemory::new(800);
        for n in 0..=255 {
            drop(memory.reserve(peer(n), "a", 0).unwrap());
        }
        assert_eq!(memory.held.lock().by_holder.len(), 0);
    }
}
