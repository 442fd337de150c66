//! The upstreams of one generation of the policy.
//!
//! Owns which servers, and what is known of them, pass from one generation to the next: those of an
//! endpoint that an upstream of the same name still has.

use crate::config::{DEFAULT_UPSTREAM, Endpoint, Settings, UpstreamSettings};
use crate::model::{Clock, Mono};
use crate::proxy::upstream::health::{Standing, WHOLE};
use crate::proxy::upstream::named::Upstream;
use crate::proxy::upstream::pools::Pools;
use crate::proxy::upstream::resolved::ResolvedEndpoint;
use crate::proxy::upstream::server::Server;
use crate::proxy::upstream::total::Total;
use std::sync::Arc;
use std::time::Duration;

/// The upstreams of one generation.
#[derive(Clone)]
pub struct Upstreams {
    /// The first one is that of groups and actions that name none.
    all: Box<[Arc<Upstream>]>,
    context: Context,
}

/// What each generation needs.
#[derive(Clone)]
struct Context {
    clock: Clock,
    pools: Arc<Pools>,
}

/// What is told of one server.
pub(crate) struct ToldServer {
    pub address: String,
    /// `usable`, `slow_start`, `ejected` or `unhealthy`.
    pub state: &'static str,
    /// The last connection to it worked.
    pub reached: bool,
    pub in_flight: u32,
    /// Until the head of an answer; `None` while it is not known.
    pub latency: Option<Duration>,
}

/// What is told of one endpoint.
pub(crate) struct ToldEndpoint {
    pub endpoint: String,
    pub ejections: u64,
    pub servers: Vec<ToldServer>,
}

/// What is told of one upstream.
pub(crate) struct ToldUpstream {
    pub name: String,
    pub up: bool,
    pub in_flight: u32,
    pub max_in_flight: u32,
    pub endpoints: Vec<ToldEndpoint>,
}

impl ToldEndpoint {
    /// Whether a connection to one of its servers worked that is not out.
    pub(crate) fn is_up(&self) -> bool {
        let is_up = |server: &ToldServer| {
            server.reached && !matches!(server.state, "ejected" | "unhealthy")
        };
        self.servers.iter().any(is_up)
    }

    /// The calls that are there.
    pub(crate) fn in_flight(&self) -> u32 {
        self.servers.iter().map(|server| server.in_flight).sum()
    }
}

impl Upstreams {
    /// Those of the settings, for so many workers. All of them, and those that [follow](Self::follow),
    /// have at most `limits.connections` calls at once, and so many connections.
    pub fn new(settings: &Settings, workers: usize, clock: &Clock) -> Self {
        let context = Context {
            clock: clock.clone(),
            pools: Pools::new(Total::new(settings.limits.connections), workers),
        };
        Self::built(settings, context, None)
    }

    /// Those of other settings. What both have keeps its servers.
    pub(crate) fn follow(&self, settings: &Settings) -> Self {
        Self::built(settings, self.context.clone(), Some(self))
    }

    fn built(settings: &Settings, context: Context, before: Option<&Self>) -> Self {
        let default = [(DEFAULT_UPSTREAM, &settings.upstream)];
        let named = settings.upstreams.iter();
        let all = default
            .into_iter()
            .chain(named.map(|(name, of)| (&**name, of)))
            .map(|(name, of)| {
                let before = before.and_then(|before| before.find(name));
                Arc::new(context.upstream(name, of, before))
            })
            .collect();
        Self { all, context }
    }

    fn find(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.all.iter().find(|upstream| &*upstream.name == name)
    }

    /// The one that a group or an action names, or else the default one. Whether there is one of the
    /// name was checked when the files were read.
    pub(crate) fn of(&self, name: Option<&str>) -> &Arc<Upstream> {
        let named = name.and_then(|name| self.find(name));
        named.unwrap_or(&self.all[0])
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Arc<Upstream>> {
        self.all.iter()
    }

    /// These take the place of `before`: what is in those alone keeps no connection any longer.
    pub(crate) fn retire(&self, before: &Self) {
        let stays = |of: &Arc<ResolvedEndpoint>| {
            let all = self.all.iter().flat_map(|upstream| &upstream.endpoints);
            all.into_iter().any(|one| Arc::ptr_eq(one, of))
        };
        for upstream in &before.all {
            let gone = upstream.endpoints.iter().filter(|of| !stays(of));
            gone.for_each(|of| of.retire());
        }
    }

    /// Closes the connections of this worker that wait for work and cannot be used any more. To be
    /// called once a second.
    pub(crate) fn sweep(&self, worker: usize) {
        self.all.iter().for_each(|upstream| upstream.sweep(worker));
    }

    /// What is known of each.
    pub(crate) fn told(&self) -> Vec<ToldUpstream> {
        let now = self.context.clock.mono();
        self.all
            .iter()
            .map(|upstream| ToldUpstream {
                name: upstream.name.to_string(),
                up: upstream.is_up(),
                in_flight: upstream.in_flight(),
                max_in_flight: upstream.max_in_flight,
                endpoints: upstream
                    .endpoints
                    .iter()
                    .map(|of| ToldEndpoint {
                        endpoint: of.endpoint.to_string(),
                        ejections: of.ejections(),
                        servers: told_of(of, upstream, now),
                    })
                    .collect(),
            })
            .collect()
    }
}

fn told_of(of: &ResolvedEndpoint, upstream: &Upstream, now: Mono) -> Vec<ToldServer> {
    let slow_start = upstream.settings.slow_start;
    let servers = of.servers();
    servers
        .iter()
        .map(|one| told(one, slow_start, now))
        .collect()
}

fn told(server: &Server, slow_start: Duration, now: Mono) -> ToldServer {
    let load = server.load(now);
    ToldServer {
        address: server.address.to_string(),
        state: match server.standing() {
            Standing::BackSince(_) if server.chance(slow_start) < WHOLE => "slow_start",
            Standing::Usable | Standing::BackSince(_) => "usable",
            Standing::Ejected => "ejected",
            Standing::Unhealthy => "unhealthy",
        },
        reached: server.is_reached(),
        in_flight: load.in_flight,
        latency: (load.latency_us > 0).then(|| Duration::from_micros(load.latency_us.into())),
    }
}

impl Context {
    fn upstream(
        &self,
        name: &str,
        settings: &UpstreamSettings,
        before: Option<&Arc<Upstream>>,
    ) -> Upstream {
        let known = |endpoint: &Endpoint| {
            let mut known = before?.endpoints.iter();
            known
                .find(|of| of.is(endpoint, settings.tls.as_ref()))
                .cloned()
        };
        let endpoint = |endpoint: &Endpoint| {
            known(endpoint).unwrap_or_else(|| {
                let (endpoint, clock) = (endpoint.clone(), self.clock.clone());
                let tls = settings.tls.clone();
                Arc::new(ResolvedEndpoint::new(
                    endpoint,
                    tls,
                    self.pools.clone(),
                    clock,
                ))
            })
        };
        let endpoints = settings.endpoints.iter().map(endpoint).collect();
        let lasting = before.map_or_else(Arc::default, |before| before.lasting.clone());
        let (settings, clock) = (settings.clone(), self.clock.clone());
        let total = self.pools.total.clone();
        Upstream::new(name, settings, total, endpoints, lasting, clock)
    }
}
