//! The places of all workers, and the one of each connection.

use crate::metrics::Metrics;
use crate::model::{AccountId, Clock, network};
use crate::proxy::places::rule::{
    Connections, NOBODYS, Proven, Rule, Sign, UNPROVEN, of_an_account, try_add,
};
use parking_lot::Mutex;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// The places of all workers together.
pub struct Places {
    free: Arc<Semaphore>,
    of_an_account: usize,
    rule: Mutex<Rule>,
    hasher: foldhash::quality::RandomState,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// A call beside others on one connection of HTTP/2, until this is dropped: it counts for its
/// account as a connection would. One of them is counted with the connection itself.
pub struct CallShare {
    place: Arc<Place>,
    /// `None` when it is the one of the connection.
    counted: Option<Counted>,
}

struct Counted {
    owner: u64,
    connections: Connections,
}

/// A connection's place, until this is dropped.
pub struct Place {
    places: Arc<Places>,
    id: u64,
    sign: Arc<Sign>,
    /// A trusted proxy shares the connection among many clients.
    is_shared: AtomicBool,
    /// A call runs that is counted with the connection itself.
    is_used: AtomicBool,
    /// The account of the last call that proved one. Only this connection locks it.
    proven: Mutex<Option<Proven>>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// `limit` places (`limits.connections`).
    pub fn new(limit: usize, clock: Clock, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(limit)),
            of_an_account: of_an_account(limit),
            rule: Mutex::new(Rule::new(limit)),
            hasher: foldhash::quality::RandomState::default(),
            clock,
            metrics,
        })
    }

    /// A place for a connection that has come. At the limit another one gives way first. When all
    /// are proven the newcomer waits until one of them closes. `peer` is `None` for a trusted
    /// proxy, whose connections count for nobody.
    pub async fn take(self: &Arc<Self>, peer: Option<IpAddr>) -> Place {
        let peer = peer.map(network);
        let is_crowded = self.free.available_permits() == 0 || self.rule.lock().is_full(peer);
        if is_crowded {
            // A connection that has sent its request is read before it could give way. This worker
            // may have accepted several in one go and not read them since.
            tokio::task::yield_now().await;
        }
        let mut permit = pin!(self.free.clone().acquire_owned());
        // In the queue first: what is given up for this newcomer must not go to a later one.
        let permit = match poll_fn(|cx| Poll::Ready(permit.as_mut().poll(cx))).await {
            Poll::Ready(permit) => permit,
            Poll::Pending => {
                let gives_way = self.rule.lock().give_way(peer);
                self.end(gives_way);
                permit.await
            }
        };
        match permit {
            Ok(permit) => self.enter(peer, permit),
            Err(_) => std::future::pending().await,
        }
    }

    /// A place that is free; `None` when there is none. `peer` as for [`take`](Self::take).
    pub fn try_take(self: &Arc<Self>, peer: Option<IpAddr>) -> Option<Place> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(self.enter(peer.map(network), permit))
    }

    fn enter(self: &Arc<Self>, peer: Option<IpAddr>, permit: OwnedSemaphorePermit) -> Place {
        let sign = Arc::new(Sign::default());
        sign.is_due(self.clock.mono());
        let (id, gives_way) = self.rule.lock().enter(peer, sign.clone());
        self.end(gives_way);
        self.metrics.connections.inc();
        Place {
            places: self.clone(),
            id,
            sign,
            is_shared: AtomicBool::new(peer.is_none()),
            is_used: AtomicBool::new(false),
            proven: Mutex::default(),
            _permit: permit,
        }
    }

    fn end(&self, gives_way: Option<Arc<Sign>>) {
        let Some(sign) = gives_way else {
            return;
        };
        self.metrics.connections_gave_way.inc();
        if let Some(task) = sign.task.get() {
            task.abort();
        }
    }
}

impl Place {
    /// The state that the rule reads.
    pub(in crate::proxy) fn sign(&self) -> &Sign {
        &self.sign
    }

    /// The connection is this peer's, as the proxy says that it came from: it counts for it from now
    /// on. Where the peer has its part of the places already, another one of its own gives way.
    /// `None` is another trusted proxy.
    pub(in crate::proxy) fn is_from(&self, peer: Option<IpAddr>) {
        self.is_shared.store(peer.is_none(), Ordering::Relaxed);
        let gives_way = self.places.rule.lock().is_from(self.id, peer.map(network));
        self.places.end(gives_way);
    }

    /// Its first head is whole: from now on the rest is waited for.
    pub fn has_head(&self) {
        self.sign.is_due(self.places.clock.mono());
    }

    /// `task` serves the connection, and is ended when it gives way.
    pub fn is_served_by(&self, task: AbortHandle) {
        // Under the lock: a newcomer that chooses this connection finds the task, or has chosen it
        // before and is seen here.
        let rule = self.places.rule.lock();
        if rule.held.contains_key(&self.id) {
            let _ = self.sign.task.set(task);
        } else {
            task.abort();
        }
    }

    fn owner_of(&self, account: &AccountId) -> u64 {
        let owner = self.places.hasher.hash_one(account.as_str());
        owner.max(NOBODYS + 1)
    }

    /// A call on the connection has proven a credential of this account. False when it must not go
    /// on: the account holds its part of the places already, or the connection has just given way.
    pub fn prove(&self, account: &AccountId) -> bool {
        let mut proven = self.proven.lock();
        if let Some(proven) = &*proven
            && proven.account == *account
        {
            match self.sign.owner() {
                owner if owner == proven.owner => return true,
                NOBODYS => {
                    let most = self.places.of_an_account;
                    return self.sign.own(proven.owner, &proven.connections, most);
                }
                _ => {}
            }
        }
        let owner = self.owner_of(account);
        let mut rule = self.places.rule.lock();
        let Some(connections) = rule.prove(self.id, owner) else {
            return false;
        };
        let before = proven.replace(Proven {
            account: account.clone(),
            owner,
            connections,
        });
        rule.forget(before);
        true
    }

    /// A call beside others on the connection has proven this account: its share of the account's
    /// part. `None` when that is taken already, or the connection has just given way.
    pub fn share(self: &Arc<Self>, account: &AccountId) -> Option<CallShare> {
        if self.is_shared.load(Ordering::Relaxed) {
            let owner = self.owner_of(account);
            let connections = self.places.rule.lock().share(self.id, owner)?;
            return Some(CallShare {
                place: self.clone(),
                counted: Some(Counted { owner, connections }),
            });
        }
        if !self.prove(account) {
            return None;
        }
        if !self.is_used.swap(true, Ordering::Relaxed) {
            return Some(CallShare {
                place: self.clone(),
                counted: None,
            });
        }
        let proven = self.proven.lock();
        let proven = proven
            .as_ref()
            .filter(|proven| proven.account == *account)?;
        try_add(&proven.connections, self.places.of_an_account).then(|| CallShare {
            place: self.clone(),
            counted: Some(Counted {
                owner: proven.owner,
                connections: proven.connections.clone(),
            }),
        })
    }

    /// Whether a credential has been proven on the connection.
    pub(in crate::proxy) fn is_proven(&self) -> bool {
        self.sign.owner() != UNPROVEN
    }

    /// The body that a call waited for has come, or will not: what it had ahead of its pace counts
    /// no longer.
    pub(in crate::proxy) fn has_uploaded(&self) {
        if self.sign.owner() == UNPROVEN {
            let now = self.places.clock.mono();
            self.places.rule.lock().has_uploaded(self.id, now);
        }
    }

    /// The answer to a call has ended.
    pub fn call_ended(&self) {
        if self.is_shared.load(Ordering::Relaxed)
            && let Some(proven) = &*self.proven.lock()
            && self.sign.owner() == proven.owner
        {
            self.sign.disown(&proven.connections);
        }
    }

    /// Whether the connection ends because it gave way.
    pub fn gave_way(&self) -> bool {
        !self.places.rule.lock().held.contains_key(&self.id)
    }
}

impl Drop for CallShare {
    fn drop(&mut self) {
        match self.counted.take() {
            None => self.place.is_used.store(false, Ordering::Relaxed),
            Some(Counted { owner, connections }) => {
                connections.fetch_sub(1, Ordering::Relaxed);
                // The connection may know another account by now.
                let mut rule = self.place.places.rule.lock();
                drop(connections);
                rule.tidy(owner);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut rule = self.places.rule.lock();
        rule.leave(self.id);
        rule.forget(self.proven.get_mut().take());
        drop(rule);
        self.places.metrics.connections.dec();
    }
}
