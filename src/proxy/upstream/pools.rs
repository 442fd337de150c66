//! The pools of all servers of all upstreams.
//!
//! Owns which connection that waits for work gives way to a new one.

use crate::proxy::upstream::pool::Pool;
use crate::proxy::upstream::total::{OpenLink, Total};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// All pools, those of servers that are gone left out.
pub(super) struct Pools {
    pub(super) total: Arc<Total>,
    workers: usize,
    of_servers: Mutex<Vec<Weak<[Pool]>>>,
}

impl Pools {
    /// For so many workers.
    pub(super) fn new(total: Arc<Total>, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            workers,
            of_servers: Mutex::default(),
        })
    }

    /// Those of one more server, one for each worker.
    pub(super) fn of_server(&self) -> Arc<[Pool]> {
        let pools: Arc<[Pool]> = (0..self.workers).map(|_| Pool::default()).collect();
        let mut of_servers = self.of_servers.lock();
        of_servers.retain(|pools| pools.strong_count() > 0);
        of_servers.push(Arc::downgrade(&pools));
        pools
    }

    /// Counts a connection that is opened next. When more are open than may be, those that wait for
    /// work are closed for it: first those of this worker, on whose locks no other one waits.
    pub(super) fn open(&self, worker: Option<usize>) -> OpenLink {
        let open = self.total.open();
        while self.total.is_exceeded() && self.close_one(worker) {}
        open
    }

    /// Closes the connection that has waited longest in the fullest pool. Whether there was one.
    fn close_one(&self, worker: Option<usize>) -> bool {
        let known = self.of_servers.lock();
        let servers: Vec<Arc<[Pool]>> = known.iter().filter_map(Weak::upgrade).collect();
        drop(known);
        let own = servers.iter().filter_map(|pools| pools.get(worker?));
        let all = servers.iter().flat_map(|pools| pools.iter());
        close_in_fullest(own) || close_in_fullest(all)
    }
}

fn close_in_fullest<'p>(pools: impl Iterator<Item = &'p Pool>) -> bool {
    let fullest = pools.max_by_key(|pool| pool.len());
    fullest.is_some_and(Pool::close_oldest)
}
