//! Peers whose credentials fail too often are held down, so that guessing is slow and floods of it
//! are cheap.
//!
//! Owns the count of failures per peer. Must never hear of a credential that was accepted, nor
//! stand in its way: many honest clients share an address.
//!
//! # Decided
//! - **Failing credentials are held back, never locked out.** Refusing a peer would refuse its
//!   neighbours behind the same address; a delayed answer makes guessing slow all the same.

use crate::model::{Clock, network};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Failures at once that a peer is forgiven: a deployment with a wrong key tries several times.
const BURST: NonZeroU32 = NonZeroU32::new(10).expect("10 is not 0");
/// One further failure is forgiven in each of these spans.
const REFILL: Duration = Duration::from_secs(1);
/// At most one warning about a peer is due in this time.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Peers that are told apart, for each table.
const MAX_PEERS: usize = 65_536;

/// The verdict on a peer whose credential has just failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HoldVerdict {
    /// Answer as usual.
    NotHeld,
    /// Too many failures: answer as cheaply as can be.
    Held {
        /// No warning about this peer was due in the last minute, so that this one is worth a line
        /// in the log.
        first: bool,
    },
}

/// Counts failed credentials per peer: 10 at once and one a second are forgiven.
pub(crate) struct HoldDown {
    failures: FailureTable,
    warnings: Warnings,
}

/// At most one warning a minute about each peer.
pub(crate) struct Warnings(FailureTable);

/// Our clock as governor reads it.
#[derive(Clone)]
struct Monotonic(Clock);

impl governor::clock::Clock for Monotonic {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.mono().0)
    }
}

/// Counts per peer, of at most so many peers.
struct FailureTable {
    counts: RateLimiter<Peer, DashMapStateStore<Peer>, Monotonic, NoOpMiddleware<Nanos>>,
    max_peers: usize,
    /// At least so many more peers fit. How many there are is not asked at every failure, for that
    /// takes a lock on each of the table's many parts.
    room: AtomicUsize,
}

/// Whom failures are counted for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Peer {
    V4(Ipv4Addr),
    /// The first 64 bits: one host has all the rest to itself.
    V6(u64),
    /// Everybody, while a table is full: memory is bounded and guessing stays slow.
    Overflow,
}

impl Peer {
    fn of(address: IpAddr) -> Self {
        match network(address) {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl HoldDown {
    /// Holds nobody.
    pub(crate) fn new(clock: Clock) -> Self {
        Self::of_peers(clock, MAX_PEERS)
    }

    fn of_peers(clock: Clock, max_peers: usize) -> Self {
        let forgiven = Quota::with_period(REFILL)
            .expect("the period is not zero")
            .allow_burst(BURST);
        Self {
            failures: FailureTable::new(forgiven, clock.clone(), max_peers),
            warnings: Warnings::of_peers(clock, max_peers),
        }
    }

    /// Counts a failed credential of `peer`. An IPv6 peer is its /64, an IPv4-mapped one is its
    /// IPv4 address.
    pub(crate) fn failed(&self, peer: IpAddr) -> HoldVerdict {
        let peer = Peer::of(peer);
        if self.failures.passes(peer) {
            return HoldVerdict::NotHeld;
        }
        HoldVerdict::Held {
            first: self.warnings.0.passes(peer),
        }
    }

    /// Forgets the peers that are forgiven in full, and gives back the memory. For a timer, every
    /// few seconds, off the threads that serve calls: it passes over the whole table.
    pub(crate) fn sweep(&self) {
        self.failures.sweep();
        self.warnings.sweep();
    }
}

impl Warnings {
    /// None was given.
    pub(crate) fn new(clock: Clock) -> Self {
        Self::of_peers(clock, MAX_PEERS)
    }

    fn of_peers(clock: Clock, max_peers: usize) -> Self {
        let warned = Quota::with_period(WARN_EVERY).expect("the period is not zero");
        Self(FailureTable::new(warned, clock, max_peers))
    }

    /// Whether no warning about this peer was due in the last minute. Then this one is.
    pub(crate) fn is_due(&self, peer: IpAddr) -> bool {
        self.0.passes(Peer::of(peer))
    }

    /// As [`HoldDown::sweep`].
    pub(crate) fn sweep(&self) {
        self.0.sweep();
    }
}

impl FailureTable {
    fn new(quota: Quota, clock: Clock, max_peers: usize) -> Self {
        Self {
            counts: RateLimiter::dashmap_with_clock(quota, Monotonic(clock)),
            max_peers,
            room: AtomicUsize::new(max_peers),
        }
    }

    fn sweep(&self) {
        self.counts.retain_recent();
        self.counts.shrink_to_fit();
    }

    /// Counts once for this peer, and says whether that is still forgiven. While the table is full
    /// everybody shares one count, those it holds included: it cannot be asked whom it holds, and
    /// nobody whose credential is good is ever counted.
    fn passes(&self, peer: Peer) -> bool {
        let counted = if self.has_room() {
            peer
        } else {
            Peer::Overflow
        };
        self.counts.check_key(&counted).is_ok()
    }

    /// Takes a place for one more peer, needed or not. Threads that ask at once may each find the
    /// last places free, so that the table may hold a few peers more.
    fn has_room(&self) -> bool {
        let take = |room: usize| room.checked_sub(1);
        if self.room.fetch_update(Relaxed, Relaxed, take).is_ok() {
            return true;
        }
        let free = self.max_peers.saturating_sub(self.counts.len());
        if let Some(rest) = free.checked_sub(1) {
            // Another thread may have asked meanwhile: what it found stands.
            let _ = self.room.compare_exchange(0, rest, Relaxed, Relaxed);
        }
        free > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mover;

    const A: &str = "192.0.2.1";
    const B: &str = "192.0.2.2";

    fn hold_down(max_peers: usize) -> (HoldDown, Mover) {
        let (clock, mover) = Clock::stopped();
        (HoldDown::of_peers(clock, max_peers), mover)
    }

    fn fail(hold_down: &HoldDown, peer: &str) -> HoldVerdict {
        hold_down.failed(peer.parse().unwrap())
    }

    fn exhaust(hold_down: &HoldDown, peer: &str) {
        for _ in 0..10 {
            assert_eq!(fail(hold_down, peer), HoldVerdict::NotHeld);
        }
    }

    #[test]
    fn ten_failures_at_once_are_forgiven_and_the_eleventh_is_held() {
        let (hold_down, _) = hold_down(8);
        exhaust(&hold_down, A);
        assert_eq!(fail(&hold_down, A), HoldVerdict::Held { first: true });
    }

    #[test]
    fn a_peer_does_not_pay_for_another() {
        let (hold_down, _) = hold_down(8);
        exhaust(&hold_down, A);
        assert_eq!(fail(&hold_down, A), HoldVerdict::Held { first: true });
        exhaust(&hold_down, B);
    }

    #[test]
    fn one_failure_a_second_is_forgiven_for_ever() {
        let (hold_down, clock) = hold_down(8);
        exhaust(&hold_down, A);
        for _ in 0..100 {
            clock.advance(Duration::from_secs(1));
            assert_eq!(fail(&hold_down, A), HoldVerdict::NotHeld);
            assert!(matches!(fail(&hold_down, A), HoldVerdict::Held { .. }));
        }
    }

    #[test]
    fn only_one_warning_a_minute_is_due_for_a_peer() {
        let (hold_down, clock) = hold_down(8);
        exhaust(&hold_down, A);
        assert_eq!(fail(&hold_down, A), HoldVerdict::Held { first: true });
        assert_eq!(fail(&hold_down, A), HoldVerdict::Held { first: false });
        clock.advance(Duration::from_secs(59));
        exhaust(&hold_down, A);
        assert_eq!(fail(&hold_down, A), HoldVerdict::Held { first: false });
        hold_down.sweep();
        assert_eq!(fail(&hold_down, A), HoldVerdict::Held { first: false });
        clock.advance(Duration::from_secs(1));
        assert_eq!(fail(&hold_down, A), HoldVerdict::NotHeld);
        assert_eq!(fail(&hold_down, A), HoldVerdict::Held { first: true });
    }

    #[test]
    fn an_ipv6_peer_is_its_64_and_a_mapped_one_is_its_ipv4_address() {
        let (hold_down, _) = hold_down(8);
        exhaust(&hold_down, "2001:db8:1:2::1");
        assert_eq!(
            fail(&hold_down, "2001:db8:1:2:ffff::9"),
            HoldVerdict::Held { first: true }
        );
        exhaust(&hold_down, "2001:db8:1:3::1");
        exhaust(&hold_down, A);
        assert_eq!(
            fail(&hold_down, "::ffff:192.0.2.1"),
            HoldVerdict::Held { first: true }
        );
    }

    #[test]
    fn a_full_table_grows_by_one_shared_count_only_and_opens_again_after_a_sweep() {
        let (hold_down, clock) = hold_down(4);
        for last in 1..=200 {
            fail(&hold_down, &format!("198.51.100.{last}"));
        }
        assert_eq!(hold_down.failures.counts.len(), 5);
        assert!(hold_down.warnings.0.counts.len() <= 5);
        assert!(matches!(fail(&hold_down, A), HoldVerdict::Held { .. }));

        clock.advance(Duration::from_secs(300));
        hold_down.sweep();
        assert_eq!(hold_down.failures.counts.len(), 0);
        assert_eq!(hold_down.warnings.0.counts.len(), 0);
        exhaust(&hold_down, A);
    }

    #[test]
    fn one_peer_fills_no_table_however_often_it_fails() {
        let (hold_down, _) = hold_down(4);
        for _ in 0..100 {
            fail(&hold_down, A);
        }
        fail(&hold_down, B);
        let knows = |peer: &str| {
            let before = hold_down.failures.counts.len();
            fail(&hold_down, peer);
            hold_down.failures.counts.len() == before
        };
        assert!(knows(A) && knows(B));
        assert!(!knows("192.0.2.3"));
        assert!(matches!(fail(&hold_down, A), HoldVerdict::Held { .. }));
    }

    #[test]
    fn a_sweep_forgives_nobody_early() {
        let (hold_down, clock) = hold_down(8);
        exhaust(&hold_down, A);
        clock.advance(Duration::from_millis(999));
        hold_down.sweep();
        assert!(matches!(fail(&hold_down, A), HoldVerdict::Held { .. }));
    }
}
