//! The limiters and their registry, which outlives every policy generation.
//!
//! Owns which calls wait at which window. Must never refill a window because a file changed (P5).
//!
//! # Decided
//! - **The quota and the standing live in the limiter**, under the lock of its window; a reload
//!   replaces them there. So a decision has one quota, and a flood is throttled from one atomic.
//! - **A limiter is made by its first call**, since most of many accounts are idle. It remembers of
//!   which generation its terms are: a call that is late with an older policy cannot put older ones
//!   back (P5).

use crate::model::{AccountId, Action, GroupId, Mode, Mono, Stop, Utc};
use crate::proxy::admission::calls_at_store::CallsAtStore;
use crate::proxy::admission::{
    Denied, InForce, Now, Reservation, SECOND, Terms, Verdict, Window, Wish,
};
use crate::store::StoreNow;
use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The scope of one cap: an account's group, or one action of it in a free group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LimiterKey {
    /// The account that bought it.
    pub account: AccountId,
    /// The group that was bought.
    pub group: GroupId,
    /// `Some` in a free group, where each action has a cap of its own (R2).
    pub action: Option<Action>,
}

impl LimiterKey {
    /// Its name at a shared store, the same at each replica. No id has a slash.
    fn name(&self) -> Box<str> {
        let action = self.action.as_ref().map_or("", Action::as_str);
        let slash = if action.is_empty() { "" } else { "/" };
        format!("{}/{}{slash}{action}", self.account, self.group).into()
    }
}

/// Calls by decision since the limiter exists. They are counted by the request's context when it is
/// decided.
#[derive(Default, Debug)]
pub struct LimiterCounts {
    /// Calls whose start came (not those that hung up while they waited for it).
    pub admitted: AtomicU64,
    /// Calls over the cap.
    pub throttled: AtomicU64,
    /// Calls refused.
    pub refused: AtomicU64,
    /// Those of the throttled calls that [`LimiterCounts::untold`] has given.
    told: AtomicU64,
}

impl LimiterCounts {
    /// The calls that were throttled since this was asked before. One thread asks at a time.
    pub fn untold(&self) -> u64 {
        let throttled = self.throttled.load(Ordering::Relaxed);
        throttled.saturating_sub(self.told.swap(throttled, Ordering::Relaxed))
    }
}

/// One cap: a window and the terms under which it is used.
#[derive(Debug)]
pub struct Limiter {
    /// Arrivals before this instant are throttled without the lock; 0 when the lock must decide.
    not_before: AtomicU64,
    /// The content of such a throttle: the quota in the low 32 bits, the mode above it.
    published: AtomicU64,
    state: Mutex<LimiterState>,
    /// The calls that wait for the shared store, when that has the window.
    at_store: Option<Box<CallsAtStore>>,
    /// Calls by decision.
    pub counts: LimiterCounts,
}

#[derive(Debug)]
struct LimiterState {
    window: Window,
    /// The policy generation that the terms are of.
    generation: u64,
    terms: Terms,
    /// Whether the account's balance is below zero (R17): of no generation, money comes and goes
    /// between them.
    in_arrears: bool,
    /// The quota of `terms` around the last instant asked for.
    in_force: InForce,
}

impl Limiter {
    fn new(
        window: Window,
        generation: u64,
        terms: Terms,
        in_arrears: bool,
        at_store: Option<Box<CallsAtStore>>,
    ) -> Self {
        // An empty span: the first decision looks the quota up.
        let in_force = InForce {
            qps: 0,
            from: Utc(i64::MAX),
            until: Utc(i64::MIN),
        };
        Self {
            not_before: AtomicU64::new(0),
            published: AtomicU64::new(0),
            state: Mutex::new(LimiterState {
                window,
                generation,
                terms,
                in_arrears,
                in_force,
            }),
            at_store,
            counts: LimiterCounts::default(),
        }
    }

    /// Decides an arrival at `now`, which was read after this limiter was obtained. Standing and
    /// quota are those at this instant (R6, R9). Exact for every interleaving of threads (P1).
    pub fn reserve(&self, now: Now, max_delay: Duration) -> Result<Reservation, Denied> {
        self.check_flood(now, max_delay)?;
        let mut state = self.state.lock();
        let state = &mut *state;
        let (quota, mode) = state.entitled(now.utc)?;
        let verdict = state.window.decide(quota, now.mono, max_delay);
        self.publish(state, now, max_delay);
        match verdict {
            Verdict::Admit(start) => Ok(Reservation {
                start,
                decided: now,
                mode,
                quota,
                left: state.window.left(quota),
            }),
            Verdict::Throttle(retry_after) => Err(Denied::Throttled {
                quota,
                mode,
                retry_after,
            }),
            Verdict::Never => Err(state.no_quota(now.utc)),
        }
    }

    /// What a call that is decided at `now` may ask the shared store for, which has the instant
    /// `store` then. Standing and quota are those at this instant (R6, R9).
    pub(crate) fn wish(&self, now: Mono, store: StoreNow) -> Result<Wish, Denied> {
        let mut state = self.state.lock();
        let (quota, mode) = state.entitled(store.utc)?;
        match quota {
            0 => Err(state.no_quota(store.utc)),
            quota => Ok(Wish {
                now,
                quota,
                mode,
                epoch: store.epoch,
            }),
        }
    }

    /// The calls that wait for the shared store; `None` when the window is in this process.
    pub(super) fn at_store(&self) -> Option<&CallsAtStore> {
        self.at_store.as_deref()
    }

    /// Throttles a flood before anything else is done for it, and without the lock.
    pub fn check_flood(&self, now: Now, max_delay: Duration) -> Result<(), Denied> {
        // A flood costs two loads: the window cannot open for it before `not_before`, and only an
        // admission or new terms, which republish under the lock, can move that instant.
        let not_before = self.not_before.load(Ordering::Acquire);
        if now.mono.0 < not_before {
            let published = self.published.load(Ordering::Relaxed);
            return Err(Denied::Throttled {
                quota: published as u32,
                mode: Mode::ALL[(published >> 32) as usize % Mode::ALL.len()],
                retry_after: Duration::from_nanos(not_before - now.mono.0) + max_delay,
            });
        }
        Ok(())
    }

    /// Puts the terms of a policy generation in force, unless a later one's are: a call may be late
    /// with the policy that it loaded. The window stays as it is: what was spent stays spent (P5).
    pub fn set_terms(&self, generation: u64, terms: Terms) {
        let mut state = self.state.lock();
        if generation < state.generation {
            return;
        }
        state.generation = generation;
        if state.terms != terms {
            state.terms = terms;
            state.in_force = InForce {
                qps: 0,
                from: Utc(i64::MAX),
                until: Utc(i64::MIN),
            };
            self.not_before.store(0, Ordering::Release);
            drop(state);
            if let Some(calls) = &self.at_store {
                calls.terms_changed();
            }
        }
    }

    /// Stops the limiter for arrears, or lets it go on (R17), from the next call that is decided.
    fn set_arrears(&self, in_arrears: bool) {
        let mut state = self.state.lock();
        if state.in_arrears != in_arrears {
            state.in_arrears = in_arrears;
            self.not_before.store(0, Ordering::Release);
        }
    }

    /// The terms and how many calls are in use at `now`. A limiter that is stopped for arrears says
    /// so in its terms.
    pub fn snapshot(&self, now: Now) -> (Terms, usize) {
        let state = self.state.lock();
        let terms = Terms {
            stopped: state.stopped(),
            ..state.terms.clone()
        };
        let in_use = match &self.at_store {
            None => state.window.in_use(now.mono),
            Some(calls) => {
                let quota = state.terms.admits(now.utc);
                quota.saturating_sub(calls.left(now.mono, quota)) as usize
            }
        };
        (terms, in_use)
    }

    /// The calls per second that are admitted at `now`: the quota in force, or none as in
    /// [`Terms::admits`].
    pub fn admits(&self, now: Utc) -> u32 {
        let mut state = self.state.lock();
        match now < state.terms.opened || state.stopped().is_some() {
            true => 0,
            false => state.quota_at(now),
        }
    }

    /// The quota in force, and how many calls of it could start at `now`; 0 as in
    /// [`Terms::admits`].
    pub fn left(&self, now: Now) -> (u32, u32) {
        let quota = self.admits(now.utc);
        if let Some(calls) = &self.at_store {
            return (quota, calls.left(now.mono, quota));
        }
        let in_use = self.state.lock().window.in_use(now.mono);
        (
            quota,
            quota.saturating_sub(u32::try_from(in_use).unwrap_or(u32::MAX)),
        )
    }

    /// Publishes until when a flood can be throttled without the lock. Never beyond the next change
    /// of the quota, and never more than a second ahead, so a wall clock that jumps is noticed.
    fn publish(&self, state: &LimiterState, now: Now, max_delay: Duration) {
        let opens = match state.window.opens(state.in_force.qps) {
            Some(opens) => opens
                .0
                .saturating_sub(u64::try_from(max_delay.as_nanos()).unwrap_or(u64::MAX)),
            None => 0,
        };
        let change = now
            .mono
            .plus(state.in_force.until.since(now.utc).min(SECOND));
        self.published.store(
            u64::from(state.in_force.qps) | ((state.terms.mode as u64) << 32),
            Ordering::Relaxed,
        );
        self.not_before
            .store(opens.min(change.0), Ordering::Release);
    }
}

impl LimiterState {
    /// The quota and the mode at an instant, unless the account may not call (R9).
    fn entitled(&mut self, at: Utc) -> Result<(u32, Mode), Denied> {
        if at < self.terms.opened {
            return Err(Denied::NotOpened);
        }
        match self.stopped() {
            Some(stop) => Err(Denied::Stopped(stop)),
            None => Ok((self.quota_at(at), self.terms.mode)),
        }
    }

    fn no_quota(&self, at: Utc) -> Denied {
        let begins = self.terms.quota.begins_after(at);
        Denied::NoQuota {
            begins_in: begins.map(|begins| begins.since(at)),
        }
    }

    /// A violation is told before arrears: paying would not end it.
    fn stopped(&self) -> Option<Stop> {
        let arrears = self.in_arrears.then_some(Stop::Arrears);
        self.terms.stopped.or(arrears)
    }

    fn quota_at(&mut self, at: Utc) -> u32 {
        if !(self.in_force.from <= at && at < self.in_force.until) {
            self.in_force = self.terms.quota.at(at);
        }
        self.in_force.qps
    }
}

/// Every limiter that was ever asked for, by its key.
#[derive(Default, Debug)]
pub struct Limiters {
    map: DashMap<LimiterKey, Arc<Limiter>, foldhash::fast::RandomState>,
    /// The accounts whose balance is below zero. Locked after a part of the map, never before one.
    in_arrears: RwLock<HashSet<AccountId>>,
    /// The instant of the last sweep. A limiter that was removed by then had no start within the
    /// second before it.
    swept_at: AtomicU64,
    /// A shared store has the windows; a call waits so long for its start.
    store_max_delay: Option<Duration>,
}

impl Limiters {
    /// Limiters whose windows a shared store has.
    pub(crate) fn at_store(max_delay: Duration) -> Self {
        Self {
            store_max_delay: Some(max_delay),
            ..Self::default()
        }
    }

    /// The limiter of `key` under the terms of a policy generation or a later one; made when there
    /// is none.
    pub fn get_or_insert(&self, key: LimiterKey, generation: u64, terms: Terms) -> Arc<Limiter> {
        // Under the map entry, so that two threads cannot make two windows for one key.
        let entry = self.map.entry(key);
        let in_arrears = self.stops_for_arrears(entry.key());
        let at_store = self.store_max_delay;
        let at_store = at_store.map(|max_delay| (entry.key().name(), max_delay));
        let make = || {
            let calls = at_store.map(|(name, delay)| Box::new(CallsAtStore::new(name, delay)));
            // A call may come with an instant that it read before a limiter of this key was
            // removed. With the entry locked the sweep that did it is seen here (P1).
            let window = Window::after(Mono(self.swept_at.load(Ordering::Acquire)));
            let terms = terms.clone();
            Arc::new(Limiter::new(window, generation, terms, in_arrears, calls))
        };
        let limiter = entry.or_insert_with(make).clone();
        limiter.set_terms(generation, terms);
        limiter
    }

    /// The limiter of `key`, when a call has made one.
    pub fn get(&self, key: &LimiterKey) -> Option<Arc<Limiter>> {
        self.map.get(key).map(|limiter| limiter.clone())
    }

    /// Stops the paid groups of these accounts, and of no others, for arrears (R17). A free group,
    /// whose limiters have an action of their own, costs nothing and goes on (ours).
    pub fn set_arrears(&self, accounts: HashSet<AccountId>) {
        *self.in_arrears.write() = accounts;
        // A limiter that is made meanwhile either sees the new set, or stands in a part of the map
        // that comes yet.
        for entry in &self.map {
            entry.set_arrears(self.stops_for_arrears(entry.key()));
        }
    }

    /// Whether the account's paid groups are stopped because its balance is below zero (R17).
    pub fn is_in_arrears(&self, account: &AccountId) -> bool {
        self.in_arrears.read().contains(account)
    }

    fn stops_for_arrears(&self, key: &LimiterKey) -> bool {
        key.action.is_none() && self.is_in_arrears(&key.account)
    }

    /// Removes the limiters that only the registry holds and whose window is past at `now`; frees
    /// the memory of idle windows. Calls `retired` with each removed limiter, whose counts end
    /// here.
    pub fn sweep(&self, now: Mono, mut retired: impl FnMut(&LimiterKey, &Limiter)) {
        // Before the first removal: who finds a limiter gone finds the instant.
        self.swept_at.fetch_max(now.0, Ordering::AcqRel);
        self.map.retain(|key, limiter| {
            // With the shard locked nobody can take a second reference while the count is 1.
            let mut state = limiter.state.lock();
            state.window.shrink(now);
            let keep = Arc::strong_count(limiter) > 1 || !state.window.is_past(now);
            drop(state);
            if !keep {
                retired(key, limiter);
            }
            keep
        });
    }

    /// Calls `visit` with every limiter. Never call the registry from within.
    pub fn each(&self, mut visit: impl FnMut(&LimiterKey, &Arc<Limiter>)) {
        for entry in &self.map {
            visit(entry.key(), entry.value());
        }
    }

    /// The number of limiters.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}
