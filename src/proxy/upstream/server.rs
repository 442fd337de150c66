//! One server of an upstream: an address that takes connections, shared by all workers.
//!
//! Owns what is known of it, and the connections to it that wait for work. Outlives a reload that
//! still names it.

use crate::config::Endpoint;
use crate::http::TlsConnection;
use crate::model::{ClientTls, Clock, Mono};
use crate::proxy::upstream::UpstreamFailure;
use crate::proxy::upstream::balance::Load;
use crate::proxy::upstream::health::{CheckRule, Failure, Health, Others, Standing, WHOLE, chance};
use crate::proxy::upstream::link::Link;
use crate::proxy::upstream::pool::{Keep, Pool, PooledLink};
use crate::proxy::upstream::pools::Pools;
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;

/// The part of a new latency in the mean: an eighth, as in the mean of TCP (RFC 6298).
const SHARE: i64 = 8;
/// What is known of a latency counts half after so many seconds without an answer, so that a server
/// that was slow is tried again.
const HALVED_AFTER_SECONDS: u32 = 10;

/// [`Standing`] as one number: that of a server that is back is the instant.
const USABLE: u64 = 0;
const EJECTED: u64 = u64::MAX - 1;
const UNHEALTHY: u64 = u64::MAX;

/// One address of an endpoint.
pub(crate) struct Server {
    /// As the settings have it.
    pub(super) endpoint: Endpoint,
    pub(super) address: SocketAddr,
    tls: Option<ClientTls>,
    /// One for each worker.
    pools: Arc<[Pool]>,
    pools_of_all: Arc<Pools>,
    in_flight: AtomicU32,
    /// Microseconds, and the second of the last answer on the monotonic clock.
    latency: AtomicU64,
    standing: AtomicU64,
    is_failing: AtomicBool,
    is_reached: AtomicBool,
    is_retired: AtomicBool,
    health: Mutex<Health>,
    checked_at: AtomicU64,
    ejections: Arc<AtomicU64>,
    clock: Clock,
}

impl Server {
    pub(super) fn new(
        endpoint: Endpoint,
        address: SocketAddr,
        tls: Option<ClientTls>,
        pools_of_all: Arc<Pools>,
        ejections: Arc<AtomicU64>,
        clock: Clock,
    ) -> Self {
        Self {
            endpoint,
            address,
            tls,
            pools: pools_of_all.of_server(),
            pools_of_all,
            in_flight: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            standing: AtomicU64::new(USABLE),
            is_failing: AtomicBool::new(false),
            is_reached: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
            health: Mutex::default(),
            checked_at: AtomicU64::new(0),
            ejections,
            clock,
        }
    }

    /// Closes the connections of this worker that wait for work and cannot be used any more.
    pub(super) fn sweep(&self, worker: usize) {
        if let Some(pool) = self.pools.get(worker) {
            pool.sweep();
        }
    }

    /// A new connection, within the time to connect. When as many are open as may be, it takes the
    /// place of one that waits for work: of this worker, or else of any.
    pub(super) async fn dial(
        &self,
        timeout: Duration,
        worker: Option<usize>,
    ) -> Result<PooledLink, UpstreamFailure> {
        let open = self.pools_of_all.open(worker);
        let connected = tokio::time::timeout(timeout, self.connect()).await;
        let connected = connected.unwrap_or_else(|_| {
            let why = format!("no connection within {timeout:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        });
        self.is_reached.store(connected.is_ok(), Ordering::Relaxed);
        let stream = connected.map_err(|cause| UpstreamFailure::Unreachable {
            endpoint: self.endpoint.to_string(),
            cause,
        })?;
        Ok(PooledLink::new(stream, open))
    }

    async fn connect(&self) -> io::Result<Link> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Link::Plain(stream));
        };
        let name = tls.name_of(&self.endpoint.host);
        let name = name.ok_or_else(|| io::Error::other("no certificate can have its name"))?;
        let stream = TlsConnection::connect(tls.connector(), name, stream).await?;
        Ok(Link::Tls(Box::new(stream)))
    }

    /// Whether the last connection to it worked.
    pub(super) fn is_reached(&self) -> bool {
        self.is_reached.load(Ordering::Relaxed)
    }

    /// The settings or its name have it no more: no connection to it is kept any longer.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
        self.close_idle();
    }

    fn close_idle(&self) {
        self.pools.iter().for_each(Pool::clear);
    }

    pub(super) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Relaxed) {
            USABLE => Standing::Usable,
            EJECTED => Standing::Ejected,
            UNHEALTHY => Standing::Unhealthy,
            back_at => Standing::BackSince(Mono(back_at)),
        }
    }

    /// The chance, of [`WHOLE`], with which it takes a call that is meant for it; 0 when it is out.
    pub(super) fn chance(&self, slow_start: Duration) -> u32 {
        match self.standing() {
            Standing::Usable => WHOLE,
            Standing::BackSince(at) => chance(at, slow_start, self.clock.mono()),
            Standing::Ejected | Standing::Unhealthy => 0,
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn load(&self, now: Mono) -> Load {
        Load {
            in_flight: self.in_flight(),
            latency_us: latency_at(self.latency.load(Ordering::Relaxed), second(now)),
        }
    }

    /// A call was answered after so long.
    pub(super) fn answered_in(&self, took: Duration, now: Mono) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let before = self.latency.load(Ordering::Relaxed);
        // Two workers may lose one of two answers here, which a mean can bear.
        let after = mean(before, took, second(now));
        self.latency.store(after, Ordering::Relaxed);
    }

    /// A call was answered.
    pub(super) fn succeeded(&self) {
        if self.is_failing.load(Ordering::Relaxed) {
            let mut health = self.health.lock();
            health.succeeded();
            self.show(&health);
        }
    }

    /// A call failed. For how long the server is out, if that took it out.
    pub(super) fn failed(&self, failure: Failure, others: Others) -> Option<Duration> {
        let mut health = self.health.lock();
        let ejected = health.failed(failure, others, self.clock.mono());
        self.show(&health);
        drop(health);
        if ejected.is_some() {
            self.ejections.fetch_add(1, Ordering::Relaxed);
            self.close_idle();
        }
        ejected
    }

    /// When it is to be tried, if it is out by its calls.
    pub(super) fn try_at(&self, is_one_usable: bool) -> Option<Mono> {
        self.health.lock().try_at(is_one_usable)
    }

    /// It was tried. Whether it is back.
    pub(super) fn tried(&self, worked: bool) -> bool {
        let mut health = self.health.lock();
        let is_back = health.tried(worked, self.clock.mono());
        self.show(&health);
        is_back
    }

    /// When it was checked last; the begin of time when it never was.
    pub(super) fn checked_at(&self) -> Mono {
        Mono(self.checked_at.load(Ordering::Relaxed))
    }

    /// It was checked. Whether that changed its standing.
    pub(super) fn checked(&self, worked: bool, rule: CheckRule) -> bool {
        let now = self.clock.mono();
        self.checked_at.store(now.0, Ordering::Relaxed);
        let mut health = self.health.lock();
        let has_changed = health.checked(worked, rule, now);
        self.show(&health);
        drop(health);
        if has_changed && self.standing() == Standing::Unhealthy {
            self.ejections.fetch_add(1, Ordering::Relaxed);
            self.close_idle();
        }
        has_changed
    }

    pub(super) fn forget_checks(&self) {
        let mut health = self.health.lock();
        health.forget_checks();
        self.show(&health);
    }

    fn show(&self, health: &Health) {
        let standing = match health.standing() {
            Standing::Usable => USABLE,
            Standing::BackSince(at) => at.0.clamp(1, EJECTED - 1),
            Standing::Ejected => EJECTED,
            Standing::Unhealthy => UNHEALTHY,
        };
        self.standing.store(standing, Ordering::Relaxed);
        self.is_failing
            .store(health.is_failing(), Ordering::Relaxed);
    }
}

/// A call that is at a server, counted there until this is dropped.
pub(super) struct Lease {
    pub(super) server: Arc<Server>,
    pub(super) worker: usize,
}

impl Lease {
    pub(super) fn new(server: Arc<Server>, worker: usize) -> Self {
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { server, worker }
    }

    /// A connection to the server that waits for work.
    pub(super) fn kept_link(&self) -> Option<PooledLink> {
        self.server.pools.get(self.worker)?.take()
    }

    /// A new connection to the server.
    pub(super) async fn dial(&self, timeout: Duration) -> Result<PooledLink, UpstreamFailure> {
        self.server.dial(timeout, Some(self.worker)).await
    }

    /// The connection may be used again, unless the server is out or gone.
    pub(super) fn give_back(&self, link: PooledLink, keep: Keep) {
        let Server {
            pools, is_retired, ..
        } = &*self.server;
        let is_out = matches!(
            self.server.standing(),
            Standing::Ejected | Standing::Unhealthy
        );
        if let Some(pool) = pools.get(self.worker)
            && !is_out
            && !is_retired.load(Ordering::Relaxed)
        {
            pool.give_back(link, keep);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn second(at: Mono) -> u32 {
    // Wraps after 136 years.
    (at.0 / 1_000_000_000) as u32
}

/// The latency that counts now.
fn latency_at(known: u64, second: u32) -> u32 {
    let (latency, of) = ((known >> 32) as u32, known as u32);
    let halvings = second.wrapping_sub(of) / HALVED_AFTER_SECONDS;
    latency.checked_shr(halvings).unwrap_or(0)
}

/// The mean with another latency in it.
fn mean(known: u64, took: u32, second: u32) -> u64 {
    let before = i64::from(latency_at(known, second));
    let took = i64::from(took);
    let latency = match before {
        0 => took,
        _ => before + (took - before) / SHARE,
    };
    (latency.clamp(1, i64::from(u32::MAX)) as u64) << 32 | u64::from(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_a_mean_that_fades_while_nothing_is_answered() {
        let mut known = mean(0, 1_000, 50);
        assert_eq!(latency_at(known, 50), 1_000);
        for _ in 0..100 {
            known = mean(known, 9_000, 51);
        }
        let near = latency_at(known, 51);
        assert!((8_900..=9_000).contains(&near), "{near}");
        assert_eq!(latency_at(known, 61), near / 2);
        assert_eq!(latency_at(known, 91), near / 16);
        assert_eq!(latency_at(known, 5_000), 0);
        let again = mean(known, 100, 5_000);
        assert_eq!(latency_at(again, 5_000), 100);
    }
}
