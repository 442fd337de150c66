//! One endpoint of an upstream, as the settings name it: the servers that its name leads to.
//!
//! Owns which addresses are known. Must never forget them because a name server is in trouble.
//!
//! # Decided
//! - **Each address of a name is a server of its own**: calls are spread over all of them, and one
//!   that is dead is taken out, not the name.
//! - **A name is looked up every 10 s beside the calls**, and each second while none of the
//!   upstream's servers can be used. A call waits for a look-up only before the first has succeeded.

use crate::config::Endpoint;
use crate::model::{ClientTls, Clock, Host};
use crate::proxy::upstream::pools::Pools;
use crate::proxy::upstream::server::Server;
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most servers of one name. Those beyond are passed over.
const SERVERS_OF_A_NAME: usize = 64;

/// One endpoint of the settings.
pub(crate) struct ResolvedEndpoint {
    pub(super) endpoint: Endpoint,
    tls: Option<ClientTls>,
    host: Host,
    servers: Mutex<Vec<Arc<Server>>>,
    pools: Arc<Pools>,
    /// How often one of its servers was taken out.
    ejections: Arc<AtomicU64>,
    clock: Clock,
}

impl ResolvedEndpoint {
    pub(super) fn new(
        endpoint: Endpoint,
        tls: Option<ClientTls>,
        pools: Arc<Pools>,
        clock: Clock,
    ) -> Self {
        let resolved = Self {
            host: Host::new(endpoint.host.clone(), endpoint.port),
            endpoint,
            tls,
            servers: Mutex::default(),
            pools,
            ejections: Arc::default(),
            clock,
        };
        if let Ok(ip) = resolved.endpoint.host.parse::<IpAddr>() {
            resolved.know(&[SocketAddr::new(ip, resolved.endpoint.port)]);
        }
        resolved
    }

    /// Whether the settings name this one.
    pub(super) fn is(&self, endpoint: &Endpoint, tls: Option<&ClientTls>) -> bool {
        self.endpoint == *endpoint && self.tls.as_ref() == tls
    }

    /// Whether it is an address, which is never looked up.
    pub(super) fn is_address(&self) -> bool {
        self.endpoint.host.parse::<IpAddr>().is_ok()
    }

    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        self.servers.lock().clone()
    }

    /// Looks its name up, and knows the addresses from then on. Waits as long as the system's resolver
    /// does: bound it, and drop it at will.
    ///
    /// # Errors
    /// The resolver's. What was known stays.
    pub(super) async fn look_up(&self) -> io::Result<()> {
        let found = self.host.addresses().await?;
        if found.is_empty() {
            return Err(io::Error::other("its name has no address"));
        }
        self.know(&found);
        Ok(())
    }

    /// Keeps the servers that stay, with all that is known of them.
    fn know(&self, found: &[SocketAddr]) {
        let mut servers = self.servers.lock();
        let mut wanted: Vec<SocketAddr> = Vec::new();
        for address in found {
            if wanted.len() < SERVERS_OF_A_NAME && !wanted.contains(address) {
                wanted.push(*address);
            }
        }
        let of = |address: SocketAddr| {
            let known = servers.iter().find(|server| server.address == address);
            known.cloned().unwrap_or_else(|| {
                let ejections = self.ejections.clone();
                let (endpoint, clock) = (self.endpoint.clone(), self.clock.clone());
                Arc::new(Server::new(
                    endpoint,
                    address,
                    self.tls.clone(),
                    self.pools.clone(),
                    ejections,
                    clock,
                ))
            })
        };
        let now: Vec<Arc<Server>> = wanted.into_iter().map(of).collect();
        for gone in servers.iter().filter(|old| !is_among(old, &now)) {
            gone.retire();
        }
        *servers = now;
    }

    /// How often one of its servers was taken out.
    pub(super) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// The settings name it no more.
    pub(super) fn retire(&self) {
        self.servers
            .lock()
            .iter()
            .for_each(|server| server.retire());
    }
}

pub(super) fn is_among(server: &Arc<Server>, servers: &[Arc<Server>]) -> bool {
    servers.iter().any(|one| Arc::ptr_eq(one, server))
}
