//! One upstream: the endpoints that do the same, as a group or an action of the catalogue names them.
//!
//! Owns how many calls it has at once, and which server takes the next. One generation of the policy
//! has one; its servers and its count outlive that.

use crate::config::UpstreamSettings;
use crate::model::{ClientTls, Clock};
use crate::proxy::upstream::balance::{choose, random};
use crate::proxy::upstream::health::{CheckRule, Failure, Others, Standing};
use crate::proxy::upstream::pool::Keep;
use crate::proxy::upstream::pools::Pools;
use crate::proxy::upstream::resolved::{ResolvedEndpoint, is_among};
use crate::proxy::upstream::server::{Lease, Server};
use crate::proxy::upstream::total::Total;
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// An upstream as one generation has it.
pub(crate) struct Upstream {
    pub(crate) name: Box<str>,
    pub(super) settings: UpstreamSettings,
    pub(super) max_in_flight: u32,
    /// With all other upstreams.
    pub(super) total: Arc<Total>,
    pub(super) lasting: Arc<Lasting>,
    pub(super) endpoints: Box<[Arc<ResolvedEndpoint>]>,
    servers: Servers,
    pub(super) clock: Clock,
    /// `host:port` of its first endpoint, for a request without a `Host`.
    pub(crate) host: String,
}

/// What outlives a generation.
#[derive(Default)]
pub(super) struct Lasting {
    in_flight: AtomicU32,
    /// A server was taken out.
    pub(super) news: Notify,
}

/// The servers of all endpoints.
enum Servers {
    /// Each endpoint is an address.
    Fixed(Box<[Arc<Server>]>),
    LookedUp(ArcSwap<Vec<Arc<Server>>>),
}

impl Upstream {
    pub(super) fn new(
        name: &str,
        settings: UpstreamSettings,
        total: Arc<Total>,
        endpoints: Box<[Arc<ResolvedEndpoint>]>,
        lasting: Arc<Lasting>,
        clock: Clock,
    ) -> Self {
        let known: Vec<Arc<Server>> = endpoints.iter().flat_map(|of| of.servers()).collect();
        let servers = match endpoints.iter().all(|of| of.is_address()) {
            true => Servers::Fixed(known.into()),
            false => Servers::LookedUp(ArcSwap::from_pointee(known)),
        };
        let most = |most| u32::try_from(most).unwrap_or(u32::MAX);
        let upstream = Self {
            name: name.into(),
            max_in_flight: settings.max_in_flight.map_or(total.most, most),
            total,
            lasting,
            servers,
            clock,
            host: endpoints
                .first()
                .map_or(String::new(), |of| of.endpoint.to_string()),
            settings,
            endpoints,
        };
        if upstream.settings.health.is_none() {
            upstream.each_server(|servers| servers.iter().for_each(|one| one.forget_checks()));
        }
        upstream
    }

    /// A server that is no upstream of the settings, for one worker.
    pub(crate) fn to(
        address: SocketAddr,
        tls: Option<ClientTls>,
        connect_timeout: Duration,
        idle_timeout: Duration,
    ) -> Arc<Self> {
        let settings = UpstreamSettings {
            endpoints: vec![address.into()],
            connect_timeout,
            response_timeout: idle_timeout,
            idle_timeout,
            max_age: None,
            max_in_flight: None,
            slow_start: Duration::ZERO,
            health: None,
            tls: None,
        };
        let clock = Clock::default();
        let pools = Pools::new(Total::new(usize::MAX), 1);
        let total = pools.total.clone();
        let endpoint = ResolvedEndpoint::new(address.into(), tls, pools, clock.clone());
        let (lasting, endpoints) = (Arc::default(), Box::from([Arc::new(endpoint)]));
        let upstream = Self::new("", settings, total, endpoints, lasting, clock);
        Arc::new(upstream)
    }

    /// How long the head of an answer may take.
    pub(crate) fn response_timeout(&self) -> Duration {
        self.settings.response_timeout
    }

    pub(super) fn keep(&self) -> Keep {
        Keep {
            idle_timeout: self.settings.idle_timeout,
            max_age: self.settings.max_age,
        }
    }

    pub(super) fn check_rule(&self) -> Option<CheckRule> {
        let health = self.settings.health.as_ref()?;
        Some(CheckRule {
            healthy_after: health.healthy_after,
            unhealthy_after: health.unhealthy_after,
        })
    }

    pub(super) fn each_server<R>(&self, look: impl FnOnce(&[Arc<Server>]) -> R) -> R {
        match &self.servers {
            Servers::Fixed(servers) => look(servers),
            Servers::LookedUp(servers) => look(&servers.load()),
        }
    }

    /// The calls that it has now.
    pub(super) fn in_flight(&self) -> u32 {
        self.lasting.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a call, unless it, or all upstreams together, have as many as they may.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<InFlight> {
        let before = self.lasting.in_flight.fetch_add(1, Ordering::Relaxed);
        if before < self.max_in_flight && self.total.enter() {
            return Some(InFlight(self.clone()));
        }
        self.lasting.in_flight.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// The server that takes the next try of a call, which was not at one of the `tried`; `None` when
    /// none is left that can be used.
    pub(super) fn lease(&self, worker: usize, tried: &[Arc<Server>]) -> Option<Lease> {
        self.each_server(|servers| {
            let chosen = match servers {
                // A try is better than a sure 502, unless its checks say no.
                [one] => (tried.is_empty() && one.standing() != Standing::Unhealthy).then_some(one),
                many => {
                    let (now, slow_start) = (self.clock.mono(), self.settings.slow_start);
                    let chance = |server: &Arc<Server>| match is_among(server, tried) {
                        true => 0,
                        false => server.chance(slow_start),
                    };
                    choose(many, chance, |server| server.load(now), random())
                }
            };
            Some(Lease::new(chosen?.clone(), worker))
        })
    }

    /// Whether a server can be given calls.
    pub(crate) fn is_one_usable(&self) -> bool {
        self.each_server(|servers| match servers {
            [one] => one.standing() != Standing::Unhealthy,
            many => many.iter().any(is_usable),
        })
    }

    /// Whether the last connection to one of the servers that can be used worked.
    pub(crate) fn is_up(&self) -> bool {
        self.each_server(|servers| {
            let mut all = servers.iter();
            all.any(|server| is_usable(server) && server.is_reached())
        })
    }

    /// A call failed at a server, by no fault of its client.
    pub(super) fn failed(&self, server: &Arc<Server>, failure: Failure) {
        let others = self.each_server(|servers| {
            let others = || servers.iter().filter(|one| !Arc::ptr_eq(one, server));
            Others {
                all: others().count(),
                usable: others().filter(|one| is_usable(one)).count(),
            }
        });
        if let Some(lasts) = server.failed(failure, others) {
            let why = match failure {
                Failure::Unreachable => "it cannot be reached",
                Failure::Failed => "its calls fail",
            };
            tracing::warn!(upstream = %self.name, endpoint = %server.endpoint, address = %server.address, "out for {lasts:?}: {why}");
            self.lasting.news.notify_one();
        }
    }

    /// Knows the servers that its endpoints have now.
    pub(super) fn refresh(&self) {
        if let Servers::LookedUp(servers) = &self.servers {
            let known = self.endpoints.iter().flat_map(|of| of.servers());
            servers.store(Arc::new(known.collect()));
        }
    }

    /// Closes the connections of this worker that wait for work and cannot be used any more. To be
    /// called once a second.
    pub(super) fn sweep(&self, worker: usize) {
        self.each_server(|servers| servers.iter().for_each(|one| one.sweep(worker)));
    }
}

fn is_usable(server: &Arc<Server>) -> bool {
    matches!(server.standing(), Standing::Usable | Standing::BackSince(_))
}

/// A call that its upstream has, from before its admission until its answer has ended.
pub(crate) struct InFlight(Arc<Upstream>);

impl InFlight {
    pub(crate) fn upstream(&self) -> &Arc<Upstream> {
        &self.0
    }

    pub(super) fn keep(&self) -> Keep {
        self.0.keep()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.lasting.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.total.leave();
    }
}
