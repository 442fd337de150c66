//! How often an account may ask about itself.
//!
//! Owns the limits of questions and exports. Must never touch the account's quota. Bounded: an
//! account that has not asked for a second is forgotten.

use crate::model::{AccountId, Clock, network};
use crate::proxy::admission::{Verdict, Window};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// The most questions of one account in a second. The refusal names the number.
pub(super) const QUESTIONS_A_SECOND: u32 = 5;
/// At so many accounts those that are past are forgotten, and again at twice what is left.
const SWEEP_AT: usize = 1_024;

/// The accounts that asked in the last second, or whose export runs.
#[derive(Default)]
pub(super) struct Limits(Mutex<Accounts>);

#[derive(Default)]
struct Accounts {
    asked: HashMap<AccountId, Asked>,
    sweep_at: usize,
}

#[derive(Default)]
struct Asked {
    window: Window,
    exports: bool,
}

/// The most requests for grants from one address in a second. The refusal names the number.
const GRANTS_A_SECOND: u32 = 50;
/// Addresses that are told apart. While there are more in a second, the others share one place.
const PEERS: usize = 65_536;

/// The addresses that asked for grants in the last second: a licence key is public, so the account
/// is no measure of who asks.
#[derive(Default)]
pub(super) struct PeerLimits(Mutex<Peers>);

#[derive(Default)]
struct Peers {
    asked: HashMap<IpAddr, Window>,
    sweep_at: usize,
}

impl PeerLimits {
    /// Whether another request may come from the address now; an IPv6 /64 is one.
    pub(super) fn ask(&self, peer: IpAddr, clock: &Clock) -> bool {
        let mut peers = self.0.lock();
        let now = clock.mono();
        let Peers { asked, sweep_at } = &mut *peers;
        if asked.len() >= (*sweep_at).max(SWEEP_AT) {
            asked.retain(|_, window| !window.is_past(now));
            *sweep_at = asked.len() * 2;
        }
        let mut peer = network(peer);
        if asked.len() >= PEERS && !asked.contains_key(&peer) {
            peer = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        }
        let window = asked.entry(peer).or_default();
        let verdict = window.decide(GRANTS_A_SECOND, now, Duration::ZERO);
        matches!(verdict, Verdict::Admit(_))
    }
}

/// An export that runs. Another one of its account may begin when it is dropped.
pub(super) struct Export {
    limits: Arc<Limits>,
    account: AccountId,
}

impl Limits {
    /// Lets in a question, and says how many more may come in this second. `None`: too many came.
    pub(super) fn ask(&self, account: &AccountId, clock: &Clock) -> Option<u32> {
        let mut accounts = self.0.lock();
        // Read under the lock, so that no question is before another.
        let now = clock.mono();
        let Accounts { asked, sweep_at } = &mut *accounts;
        if asked.len() >= (*sweep_at).max(SWEEP_AT) {
            asked.retain(|_, of| of.exports || !of.window.is_past(now));
            *sweep_at = asked.len() * 2;
        }
        let of = asked.entry(account.clone()).or_default();
        match of.window.decide(QUESTIONS_A_SECOND, now, Duration::ZERO) {
            Verdict::Admit(_) => Some(of.window.left(QUESTIONS_A_SECOND)),
            Verdict::Throttle(_) | Verdict::Never => None,
        }
    }

    /// Begins an export. `None`: another one of the account runs.
    pub(super) fn export(self: &Arc<Self>, account: &AccountId) -> Option<Export> {
        let mut accounts = self.0.lock();
        let of = accounts.asked.entry(account.clone()).or_default();
        let is_first = !std::mem::replace(&mut of.exports, true);
        is_first.then(|| Export {
            limits: self.clone(),
            account: account.clone(),
        })
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Some(of) = self.limits.0.lock().asked.get_mut(&self.account) {
            of.exports = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(n: usize) -> AccountId {
        AccountId::new(&n.to_string()).unwrap()
    }

    #[test]
    fn five_questions_a_second_are_let_in_and_another_account_is_not_held_up() {
        let (clock, mover) = Clock::movable();
        let limits = Limits::default();
        let left: Vec<_> = (0..6).map(|_| limits.ask(&account(1), &clock)).collect();
        assert_eq!(left, [Some(4), Some(3), Some(2), Some(1), Some(0), None]);
        assert_eq!(limits.ask(&account(2), &clock), Some(4));
        mover.advance(Duration::from_millis(1_100));
        assert_eq!(limits.ask(&account(1), &clock), Some(4));
    }

    #[test]
    fn fifty_requests_a_second_for_grants_are_let_in_from_one_address_and_another_is_not_held_up() {
        let (clock, mover) = Clock::movable();
        let limits = PeerLimits::default();
        let peer = |text: &str| text.parse().unwrap();
        let let_in = (0..60).filter(|_| limits.ask(peer("2001:db8::1"), &clock));
        assert_eq!(let_in.count(), 50);
        assert!(!limits.ask(peer("2001:db8::2"), &clock), "the same /64");
        assert!(limits.ask(peer("192.0.2.1"), &clock));
        mover.advance(Duration::from_millis(1_100));
        assert!(limits.ask(peer("2001:db8::2"), &clock));
    }

    #[test]
    fn one_export_of_an_account_runs_at_a_time_and_gives_way_to_the_next_when_it_ends() {
        let limits = Arc::new(Limits::default());
        let first = limits.export(&account(1)).unwrap();
        assert!(limits.export(&account(1)).is_none());
        assert!(limits.export(&account(2)).is_some());
        drop(first);
        assert!(limits.export(&account(1)).is_some());
    }

    #[test]
    fn accounts_that_no_longer_ask_are_forgotten_and_exports_that_run_are_not() {
        let (clock, mover) = Clock::movable();
        let limits = Arc::new(Limits::default());
        let export = limits.export(&account(0));
        for n in 0..SWEEP_AT {
            limits.ask(&account(n), &clock);
        }
        mover.advance(Duration::from_secs(2));
        limits.ask(&account(SWEEP_AT), &clock);
        assert_eq!(limits.0.lock().asked.len(), 2);
        assert!(limits.export(&account(0)).is_none());
        drop(export);
    }
}
