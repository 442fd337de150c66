//! The rule by which a connection gives way when all places are taken. Pure: the signs tell it the
//! time.
//!
//! # Decided
//! - **At `limits.connections` the connection gives way that is waited for longest and never proved
//!   a credential.** It is waited for since it came, or since its first head; an upload that is
//!   ahead of the minimum pace goes last. Bytes of a head count for nothing, for they cost nothing.
//!   Only when all are proven does the next one wait, unread. A wait alone would let one peer
//!   without a key hold every place. A 503 would have to be given to clients who did nothing wrong,
//!   in a dialect that is not known yet.

use crate::model::{AccountId, Mono};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::task::AbortHandle;

/// One peer holds at most this part of the places with connections that have not proven a
/// credential.
const PEER_SHARE: usize = 8;
/// One account holds at most this part of the places with its connections.
const ACCOUNT_SHARE: usize = 2;

/// The owner of a connection that has not proven a credential.
pub(super) const UNPROVEN: u64 = 0;
/// The owner of a proven connection that is no account's now.
pub(super) const NOBODYS: u64 = 1;

/// The state of a connection that the rule reads when it looks for one to give way. Written without
/// a lock.
#[derive(Default)]
pub(crate) struct Sign {
    /// The instant since which it is waited for; while it uploads ahead of its pace, an instant to
    /// come. Not kept up once the connection is proven.
    due: AtomicU64,
    /// The owner: [`UNPROVEN`], [`NOBODYS`] or an account's hash.
    account: AtomicU64,
    /// The task that serves the connection; aborted when it gives way.
    pub(super) task: OnceLock<AbortHandle>,
}

/// An account as a connection knows it that has proven it: enough to own the connection again
/// without the rule's lock.
pub(super) struct Proven {
    pub(super) account: AccountId,
    /// By its hash.
    pub(super) owner: u64,
    pub(super) connections: Connections,
}

/// The number of connections of an account.
pub(super) type Connections = Arc<AtomicUsize>;

/// One connection more, unless the account has `most` of them.
pub(super) fn try_add(connections: &AtomicUsize, most: usize) -> bool {
    let one_more = |held| (held < most).then_some(held + 1);
    connections
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
        .is_ok()
}

impl Sign {
    /// The proven connection, which is nobody's now, is this account's again. False when the
    /// account has `most` already.
    pub(super) fn own(&self, account: u64, connections: &AtomicUsize, most: usize) -> bool {
        let fits = try_add(connections, most);
        if fits {
            self.account.store(account, Ordering::Relaxed);
        }
        fits
    }

    /// The connection is no account's any more, but proven.
    pub(super) fn disown(&self, connections: &AtomicUsize) {
        self.account.store(NOBODYS, Ordering::Relaxed);
        connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes since when it is waited for. An instant to come means: not before.
    pub(in crate::proxy) fn is_due(&self, at: Mono) {
        if self.owner() == UNPROVEN {
            self.due.fetch_max(at.0, Ordering::Relaxed);
        }
    }

    pub(super) fn owner(&self) -> u64 {
        self.account.load(Ordering::Relaxed)
    }

    fn due(&self) -> Mono {
        Mono(self.due.load(Ordering::Relaxed))
    }
}

/// The number of places, out of `limit`, that one account may hold.
pub(super) fn of_an_account(limit: usize) -> usize {
    (limit / ACCOUNT_SHARE).max(1)
}

/// The rule by which a connection gives way. Pure: the signs tell it the time.
pub(super) struct Rule {
    /// The number of unproven connections that one peer may have.
    of_a_peer: usize,
    /// The number of connections that one account may have.
    of_an_account: usize,
    next: u64,
    pub(super) held: HashMap<u64, HeldPlace, foldhash::fast::RandomState>,
    unproven: UnprovenQueue,
    /// The unproven connections of each peer.
    peers: HashMap<IpAddr, UnprovenQueue, foldhash::fast::RandomState>,
    /// The number of connections of each account, by its hash: of those that have some, or whose
    /// connections know it.
    accounts: HashMap<u64, Connections, foldhash::fast::RandomState>,
}

/// Unproven connections by since when they are waited for, as far as is known: a sign may have
/// moved on since. It can only have become later, so the first one whose sign has not moved is the
/// one that has been waited for longest.
type UnprovenQueue = BTreeSet<(Mono, u64)>;

pub(super) struct HeldPlace {
    sign: Arc<Sign>,
    known: Mono,
    peer: Option<IpAddr>,
}

impl Rule {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            of_a_peer: (limit / PEER_SHARE).max(1),
            of_an_account: of_an_account(limit),
            next: 0,
            held: HashMap::default(),
            unproven: UnprovenQueue::new(),
            peers: HashMap::default(),
            accounts: HashMap::default(),
        }
    }

    /// Whether another unproven connection of this peer would be one too many.
    pub(super) fn is_full(&self, peer: Option<IpAddr>) -> bool {
        let of_peer = peer.and_then(|peer| self.peers.get(&peer));
        of_peer.is_some_and(|of_peer| of_peer.len() >= self.of_a_peer)
    }

    /// A connection begins. Of a peer with its part full, another one gives way.
    pub(super) fn enter(
        &mut self,
        peer: Option<IpAddr>,
        sign: Arc<Sign>,
    ) -> (u64, Option<Arc<Sign>>) {
        let gives_way = match self.is_full(peer) {
            true => self.give_way(peer),
            false => None,
        };
        let id = self.next;
        self.next += 1;
        let known = sign.due();
        self.held.insert(id, HeldPlace { sign, known, peer });
        self.list(id, known, peer);
        (id, gives_way)
    }

    /// A connection that no credential has proven yet is another peer's than it seemed. Of a peer
    /// with its part full, another one gives way.
    pub(super) fn is_from(&mut self, id: u64, peer: Option<IpAddr>) -> Option<Arc<Sign>> {
        let held = self.held.get(&id)?;
        let (known, before) = (held.known, held.peer);
        if held.sign.owner() != UNPROVEN || before == peer {
            return None;
        }
        let gives_way = match self.is_full(peer) {
            true => self.give_way(peer),
            false => None,
        };
        self.unlist(id, known, before);
        self.list(id, known, peer);
        if let Some(held) = self.held.get_mut(&id) {
            held.peer = peer;
        }
        gives_way
    }

    /// Takes away the place of the unproven connection that has been waited for longest: of this
    /// peer if its part is full, else of all. `None` when all are proven.
    pub(super) fn give_way(&mut self, peer: Option<IpAddr>) -> Option<Arc<Sign>> {
        let peer = peer.filter(|_| self.is_full(peer));
        loop {
            let queue = match &peer {
                Some(peer) => self.peers.get(peer)?,
                None => &self.unproven,
            };
            let (known, id) = *queue.first()?;
            let held = self.held.get_mut(&id)?;
            let due = held.sign.due();
            let of = held.peer;
            held.known = due;
            self.unlist(id, known, of);
            if due == known {
                return self.held.remove(&id).map(|held| held.sign);
            }
            self.list(id, due, of);
        }
    }

    /// A call on the connection has proven a credential of an account: how many connections the
    /// account has, this one among them. `None` when the account has its part of the places, or the
    /// connection has given way.
    pub(super) fn prove(&mut self, id: u64, account: u64) -> Option<Connections> {
        let held = self.held.get(&id)?;
        let (sign, known, peer) = (held.sign.clone(), held.known, held.peer);
        let connections = self.accounts.entry(account).or_default().clone();
        if !try_add(&connections, self.of_an_account) {
            return None;
        }
        match sign.account.swap(account, Ordering::Relaxed) {
            UNPROVEN => self.unlist(id, known, peer),
            before => self.release(before),
        }
        Some(connections)
    }

    /// A call beside others, on a connection that a trusted proxy shares among many clients, has
    /// proven this account: the call counts for it, and the connection is nobody's.
    pub(super) fn share(&mut self, id: u64, account: u64) -> Option<Connections> {
        let held = self.held.get(&id)?;
        let (sign, known, peer) = (held.sign.clone(), held.known, held.peer);
        let connections = self.accounts.entry(account).or_default().clone();
        if !try_add(&connections, self.of_an_account) {
            return None;
        }
        let first =
            sign.account
                .compare_exchange(UNPROVEN, NOBODYS, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_ok() {
            self.unlist(id, known, peer);
        }
        Some(connections)
    }

    /// A connection knows the account no more.
    pub(super) fn forget(&mut self, proven: Option<Proven>) {
        if let Some(Proven {
            owner, connections, ..
        }) = proven
        {
            drop(connections);
            self.tidy(owner);
        }
    }

    /// An upload has ended without a proof so far: its connection is waited for again.
    pub(super) fn has_uploaded(&mut self, id: u64, now: Mono) {
        if let Some(held) = self.held.get_mut(&id) {
            let (known, peer) = (held.known, held.peer);
            held.known = now;
            held.sign.due.store(now.0, Ordering::Relaxed);
            self.unlist(id, known, peer);
            self.list(id, now, peer);
        }
    }

    /// A connection has ended.
    pub(super) fn leave(&mut self, id: u64) {
        if let Some(HeldPlace { sign, known, peer }) = self.held.remove(&id) {
            match sign.owner() {
                UNPROVEN => self.unlist(id, known, peer),
                account => self.release(account),
            }
        }
    }

    fn release(&mut self, account: u64) {
        if let Some(connections) = self.accounts.get(&account) {
            connections.fetch_sub(1, Ordering::Relaxed);
            self.tidy(account);
        }
    }

    /// An account that has no connection and that none knows takes no memory. A connection learns
    /// its account under the lock, so none can learn it meanwhile.
    pub(super) fn tidy(&mut self, account: u64) {
        let is_unused = |connections: &mut Connections| {
            Arc::get_mut(connections).is_some_and(|held| *held.get_mut() == 0)
        };
        if self.accounts.get_mut(&account).is_some_and(is_unused) {
            self.accounts.remove(&account);
        }
    }

    fn list(&mut self, id: u64, known: Mono, peer: Option<IpAddr>) {
        self.unproven.insert((known, id));
        if let Some(peer) = peer {
            self.peers.entry(peer).or_default().insert((known, id));
        }
    }

    fn unlist(&mut self, id: u64, known: Mono, peer: Option<IpAddr>) {
        self.unproven.remove(&(known, id));
        if let Some(peer) = peer
            && let Some(of_peer) = self.peers.get_mut(&peer)
        {
            of_peer.remove(&(known, id));
            if of_peer.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(n: u8) -> Option<IpAddr> {
        Some([192, 0, 2, n].into())
    }

    /// A connection of `peer` that comes at `at`, and the one that gives way to it.
    fn enter(
        rule: &mut Rule,
        peer: Option<IpAddr>,
        at: u64,
    ) -> (u64, Arc<Sign>, Option<Arc<Sign>>) {
        let sign = Arc::new(Sign::default());
        sign.is_due(Mono(at));
        let (id, gives_way) = rule.enter(peer, sign.clone());
        (id, sign, gives_way)
    }

    #[test]
    fn the_connection_that_is_waited_for_longest_gives_way_and_a_proven_one_never() {
        let mut rule = Rule::new(80);
        let (first, _, _) = enter(&mut rule, peer(1), 1);
        let (_, second, _) = enter(&mut rule, peer(2), 2);
        let (_, third, _) = enter(&mut rule, peer(3), 3);
        assert!(rule.prove(first, 7).is_some());
        second.is_due(Mono(9));
        assert!(Arc::ptr_eq(&rule.give_way(peer(4)).unwrap(), &third));
        assert!(Arc::ptr_eq(&rule.give_way(peer(4)).unwrap(), &second));
        assert!(
            rule.give_way(peer(4)).is_none(),
            "only a proven one is left"
        );
        rule.leave(first);
        assert!(rule.held.is_empty() && rule.accounts.is_empty() && rule.peers.is_empty());
    }

    #[test]
    fn a_peer_beyond_its_eighth_gives_way_to_itself_and_to_nobody_who_is_older() {
        let mut rule = Rule::new(16);
        let (_, other, _) = enter(&mut rule, peer(9), 1);
        let (_, one, _) = enter(&mut rule, peer(1), 2);
        let (proven, _, _) = enter(&mut rule, peer(1), 3);
        assert!(
            rule.prove(proven, 7).is_some(),
            "counts against nobody's share"
        );
        let (_, _, none) = enter(&mut rule, peer(1), 4);
        assert!(none.is_none());
        let (_, _, gives_way) = enter(&mut rule, peer(1), 5);
        assert!(Arc::ptr_eq(&gives_way.unwrap(), &one));
        for at in 6..20 {
            let (_, _, none) = enter(&mut rule, None, at);
            assert!(none.is_none(), "a trusted proxy has no share");
        }
        assert!(Arc::ptr_eq(&rule.give_way(peer(2)).unwrap(), &other));
    }

    #[test]
    fn an_account_holds_half_of_the_places_and_gives_them_back() {
        let mut rule = Rule::new(8);
        let mut ids: Vec<u64> = (0..6).map(|at| enter(&mut rule, None, at).0).collect();
        for id in &ids[..4] {
            assert!(rule.prove(*id, 7).is_some());
        }
        assert!(rule.prove(ids[4], 7).is_none(), "one beyond half");
        assert!(
            rule.prove(ids[4], 8).is_some(),
            "another account is not concerned"
        );
        assert!(
            rule.prove(ids[4], 7).is_none(),
            "nor does a change of account help"
        );
        rule.leave(ids.remove(0));
        assert!(rule.prove(ids[3], 7).is_some(), "now there is room");
        assert!(rule.prove(ids[4], 7).is_none());
        for id in ids {
            rule.leave(id);
        }
        assert!(rule.accounts.is_empty() && rule.unproven.is_empty());
    }

    #[test]
    fn who_has_given_way_can_prove_nothing_any_more() {
        let mut rule = Rule::new(8);
        let (id, _, _) = enter(&mut rule, peer(1), 1);
        assert!(rule.give_way(None).is_some());
        assert!(rule.prove(id, 7).is_none());
        rule.leave(id);
        assert!(rule.accounts.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Enter(u8),
        Due(usize, u64),
        Uploaded(usize),
        Prove(usize, u64),
        Disown(usize),
        Leave(usize),
        From(usize, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..5_u8).prop_map(Step::Enter),
            4 => (any::<usize>(), 0..40_u64).prop_map(|(nth, later)| Step::Due(nth, later)),
            1 => any::<usize>().prop_map(Step::Uploaded),
            1 => any::<usize>().prop_map(Step::Disown),
            2 => (any::<usize>(), 2..5_u64).prop_map(|(nth, account)| Step::Prove(nth, account)),
            1 => any::<usize>().prop_map(Step::Leave),
            2 => (any::<usize>(), 0..5_u8).prop_map(|(nth, peer)| Step::From(nth, peer)),
        ]
    }

    /// One connection as a list of all of them has it.
    #[derive(Clone, Copy, Debug)]
    struct Known {
        id: u64,
        peer: Option<IpAddr>,
        due: u64,
        account: u64,
    }

    proptest! {
        #[test]
        fn the_rule_chooses_as_a_search_through_all_connections_would(
            limit in 1..40_usize,
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let mut rule = Rule::new(limit);
            let mut signs: HashMap<u64, Arc<Sign>> = HashMap::new();
            let mut proven: HashMap<u64, Proven> = HashMap::new();
            let mut all: Vec<Known> = Vec::new();
            let longest = |all: &[Known], peer: Option<IpAddr>| {
                let unproven = all.iter().filter(|known| known.account == 0);
                let of_peer = unproven.filter(|known| peer.is_none() || known.peer == peer);
                of_peer.min_by_key(|known| (known.due, known.id)).map(|known| known.id)
            };
            let count = |all: &[Known], peer: Option<IpAddr>| {
                all.iter().filter(|known| known.account == 0 && known.peer == peer).count()
            };
            for (at, step) in (1_u64..).zip(steps) {
                let nth = |nth: usize| (!all.is_empty()).then(|| nth % all.len());
                match step {
                    Step::Enter(n) => {
                        // The fifth is a trusted proxy.
                        let peer = peer(n).filter(|_| n < 4);
                        let is_full = peer.is_some() && count(&all, peer) >= (limit / 8).max(1);
                        let mut expected = is_full.then(|| longest(&all, peer)).flatten();
                        let mut gave_way = None;
                        if expected.is_none() && all.len() >= limit {
                            expected = longest(&all, None);
                            gave_way = rule.give_way(peer);
                            if expected.is_none() {
                                prop_assert!(gave_way.is_none());
                                continue;
                            }
                        }
                        let (id, sign, by_share) = enter(&mut rule, peer, at);
                        let gave_way = gave_way.or(by_share);
                        let expected_sign = expected.map(|id| signs[&id].clone());
                        prop_assert_eq!(
                            gave_way.map(|sign| Arc::as_ptr(&sign)),
                            expected_sign.map(|sign| Arc::as_ptr(&sign))
                        );
                        all.retain(|known| Some(known.id) != expected);
                        signs.insert(id, sign);
                        all.push(Known { id, peer, due: at, account: 0 });
                        prop_assert!(all.len() <= limit);
                    }
                    Step::Due(n, later) => if let Some(nth) = nth(n) {
                        signs[&all[nth].id].is_due(Mono(at + later));
                        all[nth].due = all[nth].due.max(at + later);
                    },
                    Step::Uploaded(n) => if let Some(nth) = nth(n) && all[nth].account == 0 {
                        rule.has_uploaded(all[nth].id, Mono(at));
                        all[nth].due = at;
                    },
                    Step::Prove(n, account) => if let Some(nth) = nth(n) {
                        let known = all[nth];
                        if known.account != account {
                            let held = all.iter().filter(|known| known.account == account).count();
                            let fits = held < (limit / 2).max(1);
                            // As `Place::prove` does: of the last account without the rule.
                            let last = proven.get(&known.id).filter(|last| last.owner == account);
                            let proved = match last {
                                Some(last) if known.account == NOBODYS => signs[&known.id].own(
                                    account,
                                    &last.connections,
                                    of_an_account(limit),
                                ),
                                _ => match rule.prove(known.id, account) {
                                    None => false,
                                    Some(connections) => {
                                        let last = Proven {
                                            account: AccountId::new("any").unwrap(),
                                            owner: account,
                                            connections,
                                        };
                                        rule.forget(proven.insert(known.id, last));
                                        true
                                    }
                                },
                            };
                            prop_assert_eq!(proved, fits);
                            if fits {
                                all[nth].account = account;
                            }
                        }
                    },
                    Step::Disown(n) => if let Some(nth) = nth(n) {
                        let known = &mut all[nth];
                        if known.account > NOBODYS {
                            signs[&known.id].disown(&proven[&known.id].connections);
                            known.account = NOBODYS;
                        }
                    },
                    Step::From(n, to) => if let Some(nth) = nth(n) {
                        let to = peer(to).filter(|_| to < 4);
                        let known = all[nth];
                        if known.account == 0 && known.peer != to {
                            let is_full = to.is_some() && count(&all, to) >= (limit / 8).max(1);
                            let expected = is_full.then(|| longest(&all, to)).flatten();
                            let gave_way = rule.is_from(known.id, to);
                            prop_assert_eq!(
                                gave_way.map(|sign| Arc::as_ptr(&sign)),
                                expected.map(|id| Arc::as_ptr(&signs[&id]))
                            );
                            all[nth].peer = to;
                            all.retain(|known| Some(known.id) != expected);
                        } else {
                            prop_assert!(rule.is_from(known.id, to).is_none());
                        }
                    },
                    Step::Leave(n) => if let Some(nth) = nth(n) {
                        let id = all.remove(nth).id;
                        rule.leave(id);
                        rule.forget(proven.remove(&id));
                    },
                }
                prop_assert_eq!(rule.held.len(), all.len());
            }
            for known in all {
                rule.leave(known.id);
                rule.forget(proven.remove(&known.id));
            }
            prop_assert!(rule.unproven.is_empty() && rule.peers.is_empty() && rule.accounts.is_empty());
        }
    }
}
