//! The state that the whole process shares ([`Shared`]), and the state that all calls share
//! ([`Proxy`]).

use crate::config::{Limits, Settings};
use crate::http::h1::BadHead;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::model::{Bill, Clock, ServerTls, Utc, is_in};
use crate::proxy::access_log::AccessLog;
use crate::proxy::admission::{Limiter, Limiters, SharedWindows};
use crate::proxy::body_memory::BodyMemory;
use crate::proxy::decisions::Decisions;
use crate::proxy::identity::hold_down::{HoldDown, Warnings};
use crate::proxy::places::{Place, Places};
use crate::proxy::policy::Policy;
use crate::proxy::standing::{CollectedStanding, HeardStanding};
use crate::proxy::turned_away::TurnedAway;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// The state of the process.
pub struct Shared {
    /// The monotonic and the wall clock.
    pub clock: Clock,
    /// The generation of the policy that is in force.
    pub policy: ArcSwap<Policy>,
    /// The limiters, which outlive each generation.
    pub limiters: Limiters,
    /// The windows of the shared store; `None` when this process decides alone.
    pub(crate) windows: Option<Arc<SharedWindows>>,
    /// The bills are made elsewhere, from the calls of all gates.
    books_elsewhere: bool,
    /// The records of all admitted calls.
    pub ledger: Ledger,
    /// The figures for the metrics page.
    pub metrics: Arc<Metrics>,
    /// The calls that were turned away since the ledger was last told.
    pub(crate) turned_away: TurnedAway,
    /// Why calls were not let through.
    pub(crate) decisions: Decisions,
    /// What the collector last said of the accounts.
    standing: HeardStanding,
    /// Unix time in microseconds; see [`Shared::vouch`].
    vouched: AtomicI64,
}

impl Shared {
    /// `policy` must have been put in force on `limiters`.
    pub fn new(
        clock: Clock,
        policy: Policy,
        limiters: Limiters,
        ledger: Ledger,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            clock,
            policy: ArcSwap::from_pointee(policy),
            limiters,
            windows: None,
            books_elsewhere: false,
            ledger,
            metrics,
            turned_away: TurnedAway::default(),
            decisions: Decisions::default(),
            standing: HeardStanding::default(),
            vouched: AtomicI64::new(i64::MIN),
        }
    }

    /// The shared store decides: `limiters` must have been made for it.
    pub(crate) fn with_store(self, windows: Arc<SharedWindows>) -> Self {
        Self {
            windows: Some(windows),
            ..self
        }
    }

    /// The records of this process are collected elsewhere, and the bills made there.
    pub(crate) fn with_books_elsewhere(self) -> Self {
        Self {
            books_elsewhere: true,
            ..self
        }
    }

    /// `at` has come, because a trusted clock has shown it. The wall clock may show less now.
    pub fn vouch(&self, at: Utc) {
        self.vouched.fetch_max(at.0, Ordering::Relaxed);
    }

    /// Puts in force what the collector says of the accounts, from the next call that is decided.
    pub(crate) fn hear(&self, said: Arc<CollectedStanding>) {
        self.standing.hear(&self.limiters, said);
    }

    /// Whether the collector is heard now.
    pub(crate) fn hears_standing(&self) -> bool {
        self.standing.is_current.load(Ordering::Relaxed)
    }

    /// Says whether the collector is heard now.
    pub(crate) fn set_hears_standing(&self, is_current: bool) {
        self.standing
            .is_current
            .store(is_current, Ordering::Relaxed);
        self.metrics.set_standing_current(is_current);
    }

    /// Puts in force again what the collector said last, and gives it.
    pub(crate) fn stop_as_heard(&self) -> Option<Arc<CollectedStanding>> {
        self.standing.again(&self.limiters)
    }

    /// What the collector last said of the accounts.
    pub(crate) fn heard(&self) -> Option<Arc<CollectedStanding>> {
        self.standing.last()
    }

    /// The instant up to which payments count (R17): now, or the latest that was vouched for. A
    /// wall clock that is behind takes no payment back.
    pub fn paid_by(&self) -> Utc {
        let vouched = Utc(self.vouched.load(Ordering::Relaxed));
        self.clock.utc().max(vouched)
    }
}

/// The way of a call and what it needs; all workers share it.
pub struct Proxy {
    pub(super) shared: Arc<Shared>,
    /// The places of the connections.
    pub places: Arc<Places>,
    pub(super) hold_down: HoldDown,
    pub(super) bad_heads: Warnings,
    pub(super) body_memory: Arc<BodyMemory>,
    pub(super) limits: Limits,
    pub(super) max_delay: Duration,
    pub(super) trusted_proxies: Vec<IpNet>,
    /// Connections of trusted proxies begin with a header of the PROXY protocol.
    pub(super) proxy_protocol: bool,
    health_path: Option<Box<str>>,
    draining: AtomicBool,
    pub(super) abandoning: AtomicBool,
    /// The access log, when there is one.
    pub(super) access_log: Option<Arc<AccessLog>>,
    /// How the public listener speaks TLS, when it does.
    tls: Option<ServerTls>,
}

impl Proxy {
    /// A proxy of this state, with places and memory of its own.
    pub fn new(settings: &Settings, shared: Arc<Shared>) -> Self {
        let (clock, metrics) = (&shared.clock, &shared.metrics);
        let whole = |limit: u64| i64::try_from(limit).unwrap_or(i64::MAX);
        let connections = settings.limits.connections as u64;
        metrics.connections_limit.set(whole(connections));
        let memory = settings.limits.body_memory;
        metrics.body_memory_limit.set(whole(memory));
        // A counter that is there from the start shows its first step.
        for bad in BadHead::ALL {
            metrics.head_refused(bad.label());
        }
        Self {
            hold_down: HoldDown::new(clock.clone()),
            bad_heads: Warnings::new(clock.clone()),
            places: Places::new(settings.limits.connections, clock.clone(), metrics.clone()),
            body_memory: BodyMemory::new(settings.limits.body_memory),
            limits: settings.limits.clone(),
            max_delay: settings.max_delay,
            trusted_proxies: settings.trusted_proxies.clone(),
            proxy_protocol: settings.proxy_protocol,
            health_path: settings.health_path.as_deref().map(Into::into),
            draining: AtomicBool::new(false),
            abandoning: AtomicBool::new(false),
            access_log: None,
            tls: None,
            shared,
        }
    }

    /// Each call has a line in this log.
    pub(crate) fn with_access_log(self, access_log: Option<Arc<AccessLog>>) -> Self {
        Self { access_log, ..self }
    }

    /// Its clients speak TLS.
    pub(crate) fn with_tls(self, tls: Option<ServerTls>) -> Self {
        Self { tls, ..self }
    }

    /// How the public listener speaks TLS, when it does.
    pub(crate) fn tls(&self) -> Option<&ServerTls> {
        self.tls.as_ref()
    }

    /// The access log, when there is one.
    pub(crate) fn access_log(&self) -> Option<&Arc<AccessLog>> {
        self.access_log.as_ref()
    }

    /// The state that the whole process shares.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How long a client waits for what this process itself waits for.
    pub(crate) fn response_timeout(&self) -> Duration {
        let policy = self.shared.policy.load();
        policy.upstreams.of(None).response_timeout()
    }

    /// Whether this process is one of several replicas (`admission.store`, `outbox`): its ledger has
    /// a part of the calls, and the bills are made elsewhere.
    pub fn is_replica(&self) -> bool {
        self.shared.windows.is_some() || self.shared.books_elsewhere
    }

    /// How long a client's connection may stay without a request.
    pub fn idle_timeout(&self) -> Duration {
        self.limits.idle_timeout
    }

    /// Whether this is the path at which anybody may ask whether calls are accepted.
    pub(crate) fn is_health_path(&self, path: &str) -> bool {
        self.health_path.as_deref() == Some(path)
    }

    /// Whether load balancers should send calls here: the drain has not begun, and the ledger can
    /// be written.
    pub(crate) fn accepts_calls(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.shared.ledger.healthy()
    }

    /// The drain begins: load balancers are told, calls are still accepted.
    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The drain's deadline has come: calls that are dropped from now on are recorded as failed by
    /// the gate.
    pub fn abandon(&self) {
        self.abandoning.store(true, Ordering::Release);
    }

    pub(super) fn is_abandoning(&self) -> bool {
        self.abandoning.load(Ordering::Acquire)
    }

    /// A place for a connection from `address`, when there is one.
    pub async fn place(&self, address: IpAddr) -> Place {
        self.places.take(self.counted(address)).await
    }

    /// A place for a connection from `address`, if one is free now.
    pub fn free_place(&self, address: IpAddr) -> Option<Place> {
        self.places.try_take(self.counted(address))
    }

    /// The address that connections are counted by; `None` for a trusted proxy, which has many
    /// clients.
    pub(super) fn counted(&self, address: IpAddr) -> Option<IpAddr> {
        (!self.is_trusted(address)).then_some(address)
    }

    /// Whether the address is one of a trusted proxy.
    pub(super) fn is_trusted(&self, address: IpAddr) -> bool {
        is_in(&self.trusted_proxies, address)
    }

    pub(super) fn bill(&self) -> Bill {
        self.shared.policy.load().catalog.bill
    }

    /// Housekeeping, once a second or so: forgets what is past, publishes what is only sampled.
    pub fn sweep(&self) {
        self.shared
            .limiters
            .sweep(self.shared.clock.mono(), |key, limiter| {
                self.shared.turned_away.retire(key, limiter);
                self.shared
                    .metrics
                    .retire_limiter(&key.account, &key.group, counts(limiter));
            });
        self.hold_down.sweep();
        self.bad_heads.sweep();
        if let Some(windows) = &self.shared.windows {
            let nodes = windows.status().nodes.into_iter();
            let metrics = &self.shared.metrics;
            let told = nodes.map(|n| (n.node.to_string(), n.up == n.connections, n.clock_ahead));
            metrics.set_store_nodes(told);
        }
    }

    /// Bytes of request bodies held in memory now.
    pub fn body_memory_held(&self) -> u64 {
        self.body_memory.held()
    }

    /// Counts a head that was refused, and warns the operator once a minute for each peer.
    pub fn head_refused(&self, peer: IpAddr, bad: BadHead) {
        self.shared.metrics.head_refused(bad.label()).inc();
        if self.bad_heads.is_due(peer) {
            tracing::warn!(%peer, reason = bad.label(), "a head was refused: {}", bad.likely_cause());
        }
    }
}

/// A limiter's counts in the order of the metric's decisions.
pub(crate) fn counts(limiter: &Limiter) -> [u64; 3] {
    let counts = &limiter.counts;
    [&counts.admitted, &counts.throttled, &counts.refused]
        .map(|count: &AtomicU64| count.load(Ordering::Relaxed))
}
