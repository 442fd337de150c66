//! Builds the gate and starts it.
//!
//! Owns the order of the start: the ledger's lock before anything is admitted, one second of hold
//! before the first call.
//!
//! # Decided
//! - **One second of hold after the ledger's lock.** What an earlier process admitted is not in our
//!   windows; after a second it no longer matters.

use crate::billing::SettleError;
use crate::config::{Account, Catalog, Config, Settings, Written};
use crate::control::admin::{self, AdminState};
use crate::control::certificates::ListenerTls;
use crate::control::collector::{ClaimError, WrongLedger, check_gate};
use crate::control::delivery::Webhook;
use crate::control::licences::{portal, settle_licences};
use crate::control::listeners::{ListenError, bind};
use crate::control::open_files::{TooFewFiles, fit_connections};
use crate::control::outbox::{self, GateOutbox, UnfitOutbox};
use crate::control::pulse::Pulse;
use crate::control::reload::Reloader;
use crate::control::replica::{replica_name, tell_replica};
use crate::control::serve::Running;
use crate::control::standing::{UnreadStanding, hear_kept};
use crate::control::store::{self, UnfitStore};
use crate::control::systemd::Inherited;
use crate::control::turned_away::keep_turned_away;
use crate::control::upstreams::attend_upstreams;
use crate::control::{Settler, delivery};
use crate::ledger::{Committed, Ledger, LedgerError, LedgerOptions};
use crate::metrics::Metrics;
use crate::model::{Clock, Durability, Mono, Outcome, PART_WITHOUT_STORE};
use crate::portal::{Portal, UnreadLicences};
use crate::proxy::admission::{Limiters, SECOND};
use crate::proxy::front::{Front, Phase};
use crate::proxy::listener;
use crate::proxy::policy::Policy;
use crate::proxy::sockets::ListeningSocket;
use crate::proxy::upstream::Upstreams;
use crate::proxy::{AccessLog, Handshakes, Proxy, Shared, Worker};
use futures_util::future::join_all;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Room in the ledger's queue beyond the calls that are connected: records of clients that hung up.
const PENDING_BEYOND_CONNECTIONS: usize = 65_536;
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
    /// A replica wrote the ledger, and this gate would bill it as if it were alone.
    #[error("ledger {path}: {PART_WITHOUT_STORE}", path = .0.display())]
    OneReplicasPart(PathBuf),
    /// A listener cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The access log cannot be written.
    #[error("access_log.to: {0}")]
    AccessLog(io::Error),
    /// Too few file descriptors.
    #[error(transparent)]
    Files(#[from] TooFewFiles),
    /// The shared store cannot be used.
    #[error(transparent)]
    Store(#[from] UnfitStore),
    /// The ledger is not one for this process.
    #[error(transparent)]
    WrongLedger(#[from] WrongLedger),
    /// A collector has nothing to collect from.
    #[error(
        "`tollgate collect` takes records from NATS, and the settings name none: write `outbox: {{nats: {{servers: [..]}}}}` as the gates have it"
    )]
    NoOutbox,
    /// The outbox cannot be used.
    #[error(transparent)]
    Outbox(#[from] UnfitOutbox),
    /// Who is stopped cannot be known.
    #[error(transparent)]
    Standing(#[from] UnreadStanding),
    /// The records are collected elsewhere.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// What the ledger has of licences cannot be read.
    #[error("the licences cannot be read: {0}")]
    Licences(UnreadLicences),
    /// The settled months cannot be read.
    #[error("the books cannot be read: {0}")]
    Books(SettleError),
    /// The system refused a thread or a runtime.
    #[error("cannot start: {0}")]
    System(io::Error),
}

// By hand, so that no error is its own source as well: its words would be printed twice.
impl From<SettleError> for StartError {
    fn from(error: SettleError) -> Self {
        Self::Books(error)
    }
}

impl From<UnreadLicences> for StartError {
    fn from(error: UnreadLicences) -> Self {
        Self::Licences(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Starts the gate on the calling runtime, which becomes its control thread; calls run on threads
/// of their own. Returns when the first call can be accepted.
/// `on`: where it listens in place of sockets of its own.
pub async fn start(config: Config, clock: Clock, on: Inherited) -> Result<Running, StartError> {
    let (mut settings, written) = (config.settings, config.written);
    let workers = workers_of(&settings);
    settings.limits.connections = fit_connections(&settings, workers)?;
    tell_replica(&settings);
    if settings.outbox.is_some() {
        // The section is the collector's, which has the same file.
        settings.events = None;
    }

    let sold = (config.catalog, config.accounts);
    let opened = opened(&settings, &clock, sold, &written, check_gate).await?;
    let locked_at = clock.mono();
    let listeners = bind(&settings, workers, on).await?;
    let (public, admin) = (listeners.public, listeners.admin.local_addr()?);

    let shared = share(&settings, &clock, opened).await?;
    let (proxy, tls) = proxy(&settings, &shared, access_log(&settings, &shared)?);
    let operators = admin::Bounded::new(listeners.admin, tls.admin.clone());
    let raised = Arc::new(Notify::new());
    let settles = !settings.books_are_elsewhere();
    let settler = started_settler(&settings, &shared, settles, &raised).await?;
    let outbox = outbox::outbox(&settings, &shared, &settler).await?;
    let nats = outbox.as_deref().map(GateOutbox::nats);
    let portal = portal(&proxy, nats, true).await?;
    let (state, state_seen) = watch::channel(AdminState::Starting);
    let reloader = Arc::new(Reloader::new(shared.clone(), settler.clone(), tls, written));
    let router = {
        let (portal, reloader, outbox) = (portal.clone(), reloader.clone(), outbox.clone());
        admin::router(
            portal, reloader, &settings, &public, state_seen, None, outbox,
        )
    };
    let mut control = vec![tokio::spawn(serve_operators(operators, router))];

    outbox::Sending::hear_first(outbox.as_deref()).await;
    hold(&shared, locked_at).await;

    let (phase, _) = watch::channel(Phase::Serve);
    let (threads, pulse) = spawn_workers(listeners.workers, &portal, &phase)?;
    control.push(tokio::spawn(housekeeping(portal.clone())));
    control.push(tokio::spawn(settler.clone().run()));
    control.extend(delivery_of_events(&settings, &shared, &settler, raised));
    control.push(tokio::spawn(reloader.clone().watch()));
    let attending = attend_upstreams(shared.clone(), reloader.clone());
    control.push(tokio::spawn(attending));
    let sending = outbox.map(|outbox| outbox::Sending::start(outbox, &mut control));
    state.send_replace(AdminState::Serving);
    tracing::info!(%public, %admin, workers, generation = 1, "serving");
    Ok(Running {
        public,
        admin,
        socket_files: listeners.files,
        proxy,
        desk: portal.desk().clone(),
        reloader,
        settler,
        sending,
        phase,
        state,
        pulse,
        workers: threads,
        control,
        drain_notice: settings.limits.drain_notice,
        drain: settings.limits.drain,
    })
}

/// The ledger, which is locked and passes the check, and what is sold.
pub(in crate::control) async fn opened(
    settings: &Settings,
    clock: &Clock,
    (catalog, accounts): (Catalog, Vec<Account>),
    written: &Written,
    check: fn(&Ledger) -> Result<(), WrongLedger>,
) -> Result<(Ledger, Policy, Arc<Metrics>), StartError> {
    let metrics = Arc::new(Metrics::new(settings.metric_accounts));
    let ledger = {
        let (settings, clock, metrics) = (settings.clone(), clock.clone(), metrics.clone());
        off_thread(move || open_ledger(&settings, &clock, metrics)).await??
    };
    check(&ledger)?;
    let upstreams = Upstreams::new(settings, workers_of(settings), clock);
    let policy = first_policy(catalog, accounts, upstreams, written, &metrics);
    Ok((ledger, policy, metrics))
}

/// The state of the process, with the windows of the shared store when there is one.
async fn share(
    settings: &Settings,
    clock: &Clock,
    (ledger, policy, metrics): (Ledger, Policy, Arc<Metrics>),
) -> Result<Arc<Shared>, StartError> {
    let windows = store::windows(settings, clock, &metrics).await?;
    let limiters = match &windows {
        Some(_) => Limiters::at_store(settings.max_delay),
        None => Limiters::default(),
    };
    let shared = Shared::new(clock.clone(), policy, limiters, ledger, metrics);
    let shared = match windows {
        Some(windows) => shared.with_store(windows),
        None => shared,
    };
    if settings.outbox.is_none() {
        return Ok(Arc::new(shared));
    }
    let (shared, path) = (shared.with_books_elsewhere(), settings.ledger.path.clone());
    // Before the first call: who was stopped when the collector was last heard stays so.
    let heard = off_thread(move || {
        hear_kept(&shared, &path)?;
        Ok::<_, UnreadStanding>(shared)
    });
    Ok(Arc::new(heard.await??))
}

/// The proxy, and how its listener and the operators' one speak TLS.
pub(in crate::control) fn proxy(
    settings: &Settings,
    shared: &Arc<Shared>,
    access_log: Option<Arc<AccessLog>>,
) -> (Arc<Proxy>, ListenerTls) {
    let tls = ListenerTls::of(settings, &shared.metrics);
    let proxy = Proxy::new(settings, shared.clone()).with_access_log(access_log);
    (Arc::new(proxy.with_tls(tls.calls.clone())), tls)
}

fn access_log(settings: &Settings, shared: &Shared) -> Result<Option<Arc<AccessLog>>, StartError> {
    let Some(settings) = &settings.access_log else {
        return Ok(None);
    };
    let dropped = shared.metrics.access_log_dropped.clone();
    let log = AccessLog::start(settings, shared.clock.clone(), dropped);
    log.map(Some).map_err(StartError::AccessLog)
}

fn first_policy(
    catalog: Catalog,
    accounts: Vec<Account>,
    upstreams: Upstreams,
    written: &Written,
    metrics: &Metrics,
) -> Policy {
    let mut policy = Policy::build(1, Arc::new(catalog), accounts, upstreams, metrics);
    policy.digest.clone_from(&written.sold_digest);
    metrics.set_config_digest(&policy.digest);
    policy
}

/// Waits until a start cannot meet one of a time that is not known here.
async fn hold(shared: &Shared, locked_at: Mono) {
    // Calls that an earlier process admitted in its last second are not in our windows. It ended
    // before the lock was ours: after one second of hold no two seconds overlap (P1).
    shared.clock.sleep_until(locked_at.plus(SECOND)).await;
    if let Some(windows) = &shared.windows
        && !windows.opened().await
    {
        tracing::warn!("the store grants no start yet: calls are refused until it does");
    }
}

pub(in crate::control) async fn serve_operators(listener: admin::Bounded, router: axum::Router) {
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin listener ended");
    }
}

/// Before the first call: an account in arrears must not be admitted again by a restart.
pub(in crate::control) async fn started_settler(
    settings: &Settings,
    shared: &Arc<Shared>,
    settles: bool,
    raised: &Arc<Notify>,
) -> Result<Arc<Settler>, StartError> {
    let (shared, raised) = (shared.clone(), raised.clone());
    let (retain, events) = (settings.ledger.retain_records, settings.events.clone());
    let start = move || Settler::start(shared, settles, retain, events, raised);
    let settler = off_thread(start).await??;
    Ok(Arc::new(settler))
}

/// A disk that does not answer must not keep the control thread from hearing a signal.
pub(in crate::control) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(io::Error::other)?)
}

/// The workers, each a thread with a runtime, its listeners and pools of upstream connections of its
/// own.
pub(in crate::control) fn spawn_workers(
    listeners: Vec<Vec<ListeningSocket>>,
    portal: &Arc<Portal>,
    phase: &watch::Sender<Phase>,
) -> Result<(Vec<std::thread::JoinHandle<()>>, Arc<Pulse>), StartError> {
    let (mut threads, workers) = (Vec::new(), listeners.len());
    let pulse = Arc::new(Pulse::of(workers, portal.shared().clock.clone()));
    for (index, sockets) in listeners.into_iter().enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (portal, phase, pulse) = (portal.clone(), phase.subscribe(), pulse.clone());
        let windows = portal.windows();
        let decisions = portal.shared().decisions.ring(workers);
        let work = move || {
            runtime.block_on(async move {
                tokio::spawn(each_second(portal.shared().clone(), pulse, index));
                let store = windows.map(|windows| Arc::new(windows.on_this_runtime()));
                let worker = Arc::new(Worker {
                    index,
                    store,
                    decisions,
                    handshakes: Handshakes::default(),
                });
                let portal: Arc<dyn Front> = portal;
                let accepting = sockets.into_iter().map(|socket| async {
                    let (portal, worker) = (portal.clone(), worker.clone());
                    match socket.on_this_runtime() {
                        Ok(listener) => {
                            listener::run(listener, portal, worker, phase.clone()).await;
                        }
                        Err(error) => tracing::error!(%error, "a worker cannot use its listener"),
                    }
                });
                join_all(accepting).await;
            });
        };
        threads.push(
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(work)?,
        );
    }
    Ok((threads, pulse))
}

fn open_ledger(
    settings: &Settings,
    clock: &Clock,
    metrics: Arc<Metrics>,
) -> Result<Ledger, StartError> {
    if settings.ledger.durability == Durability::Relaxed {
        tracing::warn!(
            "ledger.durability is relaxed: a crash may lose the records of the last 100 ms, or of as long as the disk has not answered by then"
        );
    }
    let options = LedgerOptions {
        path: settings.ledger.path.clone(),
        durability: settings.ledger.durability,
        replica: replica_name(settings),
        create: settings.ledger.create,
        pending_limit: settings.limits.connections + PENDING_BEYOND_CONNECTIONS,
        // Calls that wait must have their error before their time is up.
        stall_after: settings
            .ledger
            .stall_after
            .min(settings.limits.request_timeout / 2),
    };
    let pending_limit = i64::try_from(options.pending_limit).unwrap_or(i64::MAX);
    metrics.ledger_pending_limit.set(pending_limit);
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
    check_whole(settings, &ledger)?;
    Ok(ledger)
}

/// A gate without a store and an outbox settles the months of its ledger, so the ledger must not be a
/// part.
fn check_whole(settings: &Settings, ledger: &Ledger) -> Result<(), StartError> {
    if settings.books_are_elsewhere() {
        return Ok(());
    }
    let reader = ledger.reader().map_err(SettleError::from)?;
    match reader.is_one_replicas_part().map_err(SettleError::from)? {
        // It had an outbox and nothing to send: what it admits from here on is billed here.
        false => Ok(ledger.sends_not().map_err(SettleError::from)?),
        true => Err(StartError::OneReplicasPart(settings.ledger.path.clone())),
    }
}

pub(in crate::control) async fn housekeeping(portal: Arc<Portal>) {
    let (proxy, desk) = (portal.proxy().clone(), portal.desk().clone());
    let turned_away = keep_turned_away(proxy.shared().clone());
    tokio::join!(turned_away, sweep(proxy), settle_licences(desk));
}

/// Once a second: what is past is forgotten.
async fn sweep(proxy: Arc<Proxy>) {
    for second in 0_u64.. {
        proxy.shared().clock.sleep(SECOND).await;
        proxy.sweep();
        if second % 10 == 0 {
            // The allocator gives back what was freed a second ago when a thread ends, and without
            // calls none does: an idle gate would keep the room of its last generation.
            std::thread::spawn(|| drop(std::hint::black_box(Box::new(0))));
        }
    }
}

/// Delivers the events that the ledger has, when there is a webhook.
pub(in crate::control) fn delivery_of_events(
    settings: &Settings,
    shared: &Shared,
    settler: &Arc<Settler>,
    raised: Arc<Notify>,
) -> Option<JoinHandle<()>> {
    let webhook = Webhook::new(settings.events.as_ref()?);
    let (metrics, clock) = (shared.metrics.clone(), shared.clock.clone());
    let deliver = delivery::deliver(webhook, metrics, clock, raised, settler.clone());
    Some(tokio::spawn(deliver))
}

/// A worker's own housekeeping, which shows that it works.
async fn each_second(shared: Arc<Shared>, pulse: Arc<Pulse>, worker: usize) {
    loop {
        pulse.beat(worker);
        tokio::time::sleep(SECOND).await;
        shared.policy.load().upstreams.sweep(worker);
    }
}

/// As the settings say; by default one a core.
pub(in crate::control) fn workers_of(settings: &Settings) -> usize {
    let written = settings.workers.map(NonZeroUsize::get);
    written.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZeroUsize::get))
}
