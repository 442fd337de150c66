//! Builds the house, runs it and drains it.
//!
//! Owns the order of start and end: the ledger's lock before anything is admitted, one second of
//! hold before the first call, the ledger closed after the last. Must never decide about a call.

use crate::billing::SettleError;
use crate::config::{Config, Endpoint, Limits, NoticeSettings, Settings};
use crate::control;
use crate::control::Settler;
use crate::control::admin::{self, AdminState};
use crate::control::delivery;
use crate::control::delivery::Webhook;
use crate::control::reload::{self, ReloadOptions, Reloader};
use crate::http::PIPES;
use crate::ledger::{CloseError, Committed, Ledger, LedgerError, LedgerOptions};
use crate::metrics::Metrics;
use crate::model::{Clock, Durability, Outcome};
use crate::portal::Portal;
use crate::proxy::admission::{Limiters, SECOND};
use crate::proxy::listener::{self, Phase};
use crate::proxy::policy::Policy;
use crate::proxy::upstream::{Dialer, Keep, Upstream};
use crate::proxy::{Proxy, Shared};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Room in the ledger's queue beyond the calls that are connected: records of clients that hung up.
const PENDING_BEYOND_CONNECTIONS: usize = 65_536;
/// File descriptors beyond those of connections: ledger, listeners, runtimes, logs; the admin
/// listener's connections; the two ends of each pipe.
const SPARE_FILES: u64 = 128 + admin::CONNECTIONS as u64 + 2 * PIPES as u64;
/// Those of a worker: its listener, four of its runtime, and a connection that it has accepted and that waits for a place.
const WORKER_FILES: u64 = 6;
/// How long workers may take to end once their calls were dropped.
const ABANDONING: Duration = Duration::from_secs(1);
/// How long it may take to keep what was seen of the clocks.
const KEEPING: Duration = Duration::from_secs(1);
/// How often an upstream that cannot be reached is dialled beside the calls.
const DIAL_EVERY: Duration = Duration::from_secs(5);
/// How long the ledger may take to write what is left. With the end of the workers, what is kept of the clocks, the grace of a
/// disk that does not answer and the end of the runtime, a process ends within `limits.drain_notice`, `limits.drain` and 9 s.
const CLOSING: Duration = Duration::from_secs(5);

/// Why the gate did not start.
#[derive(thiserror::Error, Debug)]
pub enum StartError {
    /// The ledger cannot be used.
    #[error("ledger {path}: {cause}")]
    Ledger {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: LedgerError,
    },
    /// A listener cannot be had.
    #[error(
        "cannot listen on {address} (`{key}`): {cause}{}",
        listen_remedy(cause)
    )]
    Listen {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// Too few file descriptors.
    #[error(
        "limits.connections: {connections} needs {needed} open files and the system allows {allowed}; raise the limit \
         to at least {needed} (`ulimit -n {needed}`, or LimitNOFILE={needed} in the systemd unit){}",
        lower_remedy(*fits)
    )]
    Files {
        /// `limits.connections`; 1 when it adapts and not even one would fit.
        connections: usize,
        /// RLIMIT_NOFILE that it needs.
        needed: u64,
        /// The hard limit.
        allowed: u64,
        /// What would fit; 0 when nothing does.
        fits: u64,
    },
    /// What was settled cannot be read.
    #[error("the books cannot be read: {0}")]
    Books(#[from] SettleError),
    /// The system refused a thread or a runtime.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

fn lower_remedy(fits: u64) -> String {
    match fits {
        0 => String::new(),
        fits => format!(" or lower limits.connections to {fits}"),
    }
}

fn listen_remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has this port: stop it or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// A gate that runs. Dropping it ends the process's part in it without a drain; use [`Running::drain`].
pub struct Running {
    /// The public listener's address.
    pub public: SocketAddr,
    /// The admin listener's address.
    pub admin: SocketAddr,
    /// What the workers share.
    pub proxy: Arc<Proxy>,
    reloader: Arc<Reloader>,
    settler: Arc<Settler>,
    dialer: Arc<Dialer>,
    phase: watch::Sender<Phase>,
    state: watch::Sender<AdminState>,
    workers: Vec<std::thread::JoinHandle<()>>,
    control: Vec<JoinHandle<()>>,
    drain_notice: Duration,
    drain: Duration,
}

/// Starts the gate on the calling runtime, which becomes its control thread; calls run on threads of
/// their own. Returns when the first call can be accepted.
pub async fn start(config: Config, clock: Clock) -> Result<Running, StartError> {
    let Config {
        mut settings,
        catalog,
        accounts,
        written,
        ..
    } = config;
    let workers = settings
        .workers
        .map_or_else(default_workers, std::num::NonZeroUsize::get);
    settings.limits.connections = fit_connections(&settings.limits, workers)?;

    let metrics = Arc::new(Metrics::new(settings.metric_accounts));
    // A disk that does not answer must not keep the control thread from hearing a signal.
    let ledger = {
        let (settings, clock, metrics) = (settings.clone(), clock.clone(), metrics.clone());
        tokio::task::spawn_blocking(move || open_ledger(&settings, &clock, metrics))
            .await
            .map_err(io::Error::other)??
    };
    let locked_at = clock.mono();
    let policy = Policy::build(1, Arc::new(catalog), accounts, &metrics);

    let listeners =
        listener::bind(settings.listen, workers).map_err(|cause| StartError::Listen {
            key: "listen",
            address: settings.listen,
            cause,
        })?;
    let public = listeners[0].local_addr()?;
    let admin_error = |cause| StartError::Listen {
        key: "admin.listen",
        address: settings.admin.listen,
        cause,
    };
    let admin_listener = tokio::net::TcpListener::bind(settings.admin.listen)
        .await
        .map_err(admin_error)?;
    let admin = admin_listener.local_addr()?;

    let shared = Shared::new(clock.clone(), policy, Limiters::default(), ledger, metrics);
    let shared = Arc::new(shared);
    let proxy = Arc::new(Proxy::new(&settings, shared.clone()));
    let raised = Arc::new(Notify::new());
    let settler = {
        let (shared, raised) = (shared.clone(), raised.clone());
        let retain = settings.ledger.retain_records;
        // Before the first call: who is in arrears must not be admitted again by a restart.
        tokio::task::spawn_blocking(move || Settler::start(shared, retain, raised))
            .await
            .map_err(io::Error::other)?
    };
    let settler = Arc::new(settler?);
    let (state, state_seen) = watch::channel(AdminState::Starting);
    let reloader = Arc::new(Reloader::new(shared.clone(), written));
    let router = admin::router(
        proxy.clone(),
        reloader.clone(),
        &settings,
        public,
        state_seen,
    );
    let mut control = vec![tokio::spawn(async move {
        if let Err(error) = axum::serve(admin::Bounded::new(admin_listener), router).await {
            tracing::error!(%error, "the admin listener ended");
        }
    })];

    // What an earlier process admitted in its last second is not in our windows. It ended before
    // the lock was ours: after one second of hold no two seconds overlap (P1).
    clock.sleep_until(locked_at.plus(SECOND)).await;

    let dialer = Arc::new(dialer(&settings, &shared.metrics));
    let keep = Keep {
        idle_timeout: settings.upstream.idle_timeout,
        max_age: settings.upstream.max_age,
    };
    let (phase, _) = watch::channel(Phase::Serve);
    let portal = Arc::new(Portal::new(proxy.clone()));
    let mut threads = Vec::new();
    for (index, listener) in listeners.into_iter().enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (portal, phase) = (portal.clone(), phase.subscribe());
        let dialer = dialer.clone();
        let work = move || {
            runtime.block_on(async move {
                let upstream = Arc::new(Upstream::new(dialer, keep));
                tokio::spawn(sweep_connections(upstream.clone()));
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener::run(listener, portal, upstream, phase).await,
                    Err(error) => tracing::error!(%error, "a worker cannot use its listener"),
                }
            });
        };
        threads.push(
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(work)?,
        );
    }
    control.push(tokio::spawn(housekeeping(proxy.clone())));
    control.push(tokio::spawn(settler.clone().run()));
    if let Some(notices) = &settings.notices {
        control.push(tokio::spawn(deliver(shared.clone(), notices, raised)));
    }
    control.push(tokio::spawn(reloader.clone().watch()));
    state.send_replace(AdminState::Serving);
    tracing::info!(%public, %admin, workers, generation = 1, "serving");
    let Limits {
        drain_notice,
        drain,
        ..
    } = settings.limits;
    Ok(Running {
        public,
        admin,
        proxy,
        reloader,
        settler,
        dialer,
        phase,
        state,
        workers: threads,
        control,
        drain_notice,
        drain,
    })
}

impl Running {
    /// Reads the files again and puts them in force, whole or not at all. What came of it is in the log
    /// and the metrics too.
    pub fn reload(
        &self,
        wish: ReloadOptions,
    ) -> impl Future<Output = Option<reload::Outcome>> + use<> {
        let reload = self.reloader.clone().reload(wish);
        async { reload.await.ok() }
    }

    /// Says in the log when the upstream cannot be reached, from now on and whether or not there are calls, and when
    /// it can be reached again. While it cannot, it is dialled every few seconds. Runs until it is dropped.
    pub fn watch_upstream(&self) -> impl Future<Output = ()> + use<> {
        let (dialer, proxy) = (self.dialer.clone(), self.proxy.clone());
        async move {
            let mut is_told = false;
            loop {
                // What calls find out is known there too.
                let dialled = match proxy.shared().metrics.upstream_up.get() {
                    0 => dialer.dial().await.map(drop),
                    _ => Ok(()),
                };
                match dialled {
                    Err(failure) if !is_told => {
                        tracing::warn!("{failure}: calls get 502 until it can be reached");
                        is_told = true;
                    }
                    Ok(()) if is_told => {
                        tracing::info!("the upstream can be reached");
                        is_told = false;
                    }
                    _ => {}
                }
                proxy.shared().clock.sleep(DIAL_EVERY).await;
            }
        }
    }

    /// Lets calls finish, then ends: `/readyz` 503, accept for `limits.drain_notice`, empty the backlog, finish
    /// calls for at most `limits.drain` (or until `hurry` resolves to the name of what hurries), settle the
    /// rest as `gate_failed`, close the ledger. What ended the drain before the calls did is a warning.
    ///
    /// # Errors
    /// When admitted calls could not be written to the ledger: none of them was answered as served
    /// (strict), and the log says how many.
    pub async fn drain(self, hurry: impl Future<Output = &'static str>) -> Result<(), CloseError> {
        let Self {
            proxy,
            settler,
            phase,
            state,
            workers,
            control,
            drain_notice,
            drain,
            ..
        } = self;
        state.send_replace(AdminState::Draining);
        tokio::pin!(hurry);
        // Asked once only: a future that has resolved must not be polled again.
        let mut ended_by = tokio::select! {
            () = proxy.shared().clock.sleep(drain_notice) => None,
            signal = hurry.as_mut() => Some(format!("another {signal} came")),
        };
        phase.send_replace(Phase::Drain);
        let (all_ended, mut ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            for worker in workers {
                let _ = worker.join();
            }
            let _ = all_ended.send(());
        });
        if ended_by.is_none() {
            ended_by = tokio::select! {
                _ = &mut ended => None,
                () = proxy.shared().clock.sleep(drain) => Some(format!("the drain's deadline came (limits.drain, {drain:?})")),
                signal = hurry.as_mut() => Some(format!("another {signal} came")),
            };
        }
        if let Some(ended_by) = ended_by {
            tracing::warn!(
                in_flight = proxy.shared().metrics.in_flight.get(),
                "{ended_by}; dropping what is left"
            );
            proxy.abandon();
            phase.send_replace(Phase::Abandon);
            // Not for ever: a worker ends after the queries of the ledger that it began, and these may be in a call to the disk.
            let _ = tokio::time::timeout(ABANDONING, ended).await;
        }
        // What was seen of the clocks, for the next start. Without it that goes on from what was kept a minute ago.
        let kept = tokio::task::spawn_blocking(move || settler.end());
        match tokio::time::timeout(KEEPING, kept).await {
            Ok(Ok(Ok(()))) => {}
            _ => tracing::warn!("what was seen of the clocks could not be kept at the end"),
        }
        let (is_closed, closed) = tokio::sync::oneshot::channel();
        let closing = proxy.clone();
        // Not on the pool, whose threads may all wait for a disk: there it would never begin.
        std::thread::spawn(move || is_closed.send(closing.shared().ledger.close(CLOSING)));
        let closed = closed.await;
        for task in control {
            task.abort();
        }
        closed.unwrap_or(Err(CloseError::WriterDied))?;
        tracing::info!("drained");
        Ok(())
    }
}

fn open_ledger(
    settings: &Settings,
    clock: &Clock,
    metrics: Arc<Metrics>,
) -> Result<Ledger, StartError> {
    if settings.ledger.durability == Durability::Relaxed {
        tracing::warn!(
            "ledger.durability is relaxed: a crash may lose the records of the last 100 ms"
        );
    }
    let options = LedgerOptions {
        path: settings.ledger.path.clone(),
        durability: settings.ledger.durability,
        replica: String::new(),
        create: settings.ledger.create,
        pending_limit: settings.limits.connections + PENDING_BEYOND_CONNECTIONS,
        // Calls that wait must have their error before their time is up.
        stall_after: settings
            .ledger
            .stall_after
            .min(settings.limits.request_timeout / 2),
    };
    let records: Vec<_> = Outcome::ALL
        .iter()
        .map(|outcome| metrics.records(*outcome))
        .collect();
    let created = metrics.ledger_created.clone();
    let on_commit = move |committed: &Committed| {
        metrics
            .ledger_commit
            .observe(committed.duration.as_secs_f64());
        for (counter, count) in records.iter().zip(committed.records) {
            counter.inc_by(count);
        }
        metrics
            .in_flight
            .sub(i64::try_from(committed.records.iter().sum::<u64>()).unwrap_or(i64::MAX));
    };
    let ledger =
        Ledger::open(options, clock.clone(), on_commit).map_err(|cause| StartError::Ledger {
            path: settings.ledger.path.clone(),
            cause,
        })?;
    created.set(ledger.created_at().seconds());
    Ok(ledger)
}

/// Once a second: what is past is forgotten.
async fn housekeeping(proxy: Arc<Proxy>) {
    for second in 0_u64.. {
        proxy.shared().clock.sleep(SECOND).await;
        proxy.sweep();
        if second % 10 == 0 {
            // The allocator gives back what was freed a second ago when a thread ends, and without calls none
            // does: an idle gate would keep the room of its last generation.
            std::thread::spawn(|| drop(std::hint::black_box(Box::new(0))));
        }
    }
}

/// Delivers the notices that the ledger has, each until it was taken.
fn deliver(
    shared: Arc<Shared>,
    settings: &NoticeSettings,
    raised: Arc<Notify>,
) -> impl Future<Output = ()> + use<> {
    let webhook = Webhook::new(settings);
    let (metrics, clock) = (shared.metrics.clone(), shared.clock.clone());
    let of = shared.clone();
    let unsent = move || control::unsent(&of);
    let sent = move |id: &str| control::sent(&shared, id);
    delivery::deliver(webhook, metrics, clock, raised, unsent, sent)
}

fn dialer(settings: &Settings, metrics: &Metrics) -> Dialer {
    let Endpoint { host, port } = settings.upstream.endpoint.clone();
    let up = metrics.upstream_up.clone();
    let timeout = settings.upstream.connect_timeout;
    Dialer::new(host, port, timeout, move |works| up.set(i64::from(works)))
}

async fn sweep_connections(upstream: Arc<Upstream>) {
    loop {
        tokio::time::sleep(SECOND).await;
        upstream.sweep();
    }
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// How many connections there can be: one descriptor for the client and one for the upstream of each, some for each
/// worker, and some. Raises the limit of open files as far as it must.
fn fit_connections(limits: &Limits, workers: usize) -> Result<usize, StartError> {
    let connections = limits.connections;
    let spare = SPARE_FILES + WORKER_FILES * workers as u64;
    let needed_for = |connections| connections as u64 * 2 + spare;
    let needed = needed_for(connections);
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let raise = |current: u64| {
        // Root may raise the hard limit too.
        let maximum = limit.maximum.map(|maximum| maximum.max(current));
        let raised = Rlimit {
            current: Some(current),
            maximum,
        };
        setrlimit(Resource::Nofile, raised).is_ok()
    };
    if current >= needed || raise(needed) {
        return Ok(connections);
    }
    let most = limit.maximum.unwrap_or(current);
    let allowed = if raise(most) { most } else { current };
    let fits = allowed.saturating_sub(spare) / 2;
    if !limits.connections_adapt || fits == 0 {
        let connections = if limits.connections_adapt {
            1
        } else {
            connections
        };
        return Err(StartError::Files {
            connections,
            needed: needed_for(connections),
            allowed,
            fits,
        });
    }
    tracing::warn!(
        "the system allows {allowed} open files: {fits} connections instead of {connections}; raise the limit \
         (`ulimit -n {needed}`, or LimitNOFILE={needed} in the systemd unit) or write `limits: {{connections: {fits}}}`"
    );
    Ok(usize::try_from(fits).unwrap_or(usize::MAX))
}
