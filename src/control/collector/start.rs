//! Starts the collector.
//!
//! Owns the order: the ledger's lock, the settler, then what comes from NATS. NATS need not be there:
//! customers and operators are answered without it.

use crate::config::{Config, Settings};
use crate::control::Settler;
use crate::control::admin::{self, AdminState};
use crate::control::collector::claim::{Claim, Holding, Reached};
use crate::control::collector::intake::Intake;
use crate::control::collector::marks::Marks;
use crate::control::collector::publish::Publisher;
use crate::control::collector::{ClaimError, Progress, WrongLedger, check_collected};
use crate::control::licences::portal;
use crate::control::listeners::bind;
use crate::control::open_files::fit_connections;
use crate::control::outbox::connected;
use crate::control::reload::Reloader;
use crate::control::replica::replica_name;
use crate::control::serve::Running;
use crate::control::start::{
    StartError, delivery_of_events, housekeeping, off_thread, opened, proxy, serve_operators,
    spawn_workers, started_settler, workers_of,
};
use crate::control::systemd::Inherited;
use crate::ledger::Ledger;
use crate::model::{Clock, Utc};
use crate::nats::{Nats, StreamOptions};
use crate::proxy::Shared;
use crate::proxy::admission::Limiters;
use crate::proxy::front::Phase;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Starts the collector on the calling runtime, which becomes its control thread. Returns when it
/// works.
///
/// `on`: where it listens in place of sockets of its own.
pub async fn collect(config: Config, clock: Clock, on: Inherited) -> Result<Running, StartError> {
    let mut settings = config.settings;
    let outbox = settings.outbox.clone().ok_or(StartError::NoOutbox)?;
    let workers = workers_of(&settings);
    settings.limits.connections = fit_connections(&settings, workers)?;
    let sold = (config.catalog, config.accounts);
    let written = config.written;
    let (ledger, policy, metrics) =
        opened(&settings, &clock, sold, &written, check_collected).await?;
    let shared = Shared::new(clock, policy, Limiters::default(), ledger, metrics);
    let shared = Arc::new(shared);
    let listeners = bind(&settings, workers, on).await?;
    let (public, admin) = (listeners.public, listeners.admin.local_addr()?);
    let (proxy, tls) = proxy(&settings, &shared, None);
    let operators = admin::Bounded::new(listeners.admin, tls.admin.clone());
    let raised = Arc::new(Notify::new());
    let settler = started_settler(&settings, &shared, true, &raised).await?;
    // Until it is known whom days and months wait for.
    settler.let_close(false);
    let (nats, stream) = connected(&outbox, &settings, "nothing is collected until it is").await?;
    let holding = claimed(&settings, &shared, &nats, &stream).await?;
    let progress = holding.progress.clone();
    let portal = portal(&proxy, Some((nats.clone(), stream.replicas)), false).await?;
    let (state, state_seen) = watch::channel(AdminState::Starting);
    let reloader = Arc::new(Reloader::new(shared.clone(), settler.clone(), tls, written));
    let router = {
        let (portal, reloader, of) = (portal.clone(), reloader.clone(), progress.clone());
        admin::router(
            portal,
            reloader,
            &settings,
            &public,
            state_seen,
            Some(of),
            None,
        )
    };
    let mut control = vec![tokio::spawn(serve_operators(operators, router))];
    let (phase, _) = watch::channel(Phase::Serve);
    let (threads, pulse) = spawn_workers(listeners.workers, &portal, &phase)?;
    control.push(tokio::spawn(housekeeping(portal.clone())));
    control.push(tokio::spawn(settler.clone().run()));
    control.extend(delivery_of_events(&settings, &shared, &settler, raised));
    control.push(tokio::spawn(reloader.clone().watch()));
    control.extend(work(&settler, &stream, holding));
    state.send_replace(AdminState::Serving);
    tracing::info!(%public, %admin, "collecting");
    Ok(Running {
        public,
        admin,
        socket_files: listeners.files,
        proxy,
        desk: portal.desk().clone(),
        reloader,
        settler,
        sending: None,
        phase,
        state,
        pulse,
        workers: threads,
        control,
        drain_notice: settings.limits.drain_notice,
        drain: settings.limits.drain,
    })
}

/// The claim of this ledger. Where NATS is there, whether it may be the collected one: else the process
/// ends at once with the reason, and is not found idle a day later.
async fn claimed(
    settings: &Settings,
    shared: &Arc<Shared>,
    nats: &Nats,
    stream: &StreamOptions,
) -> Result<Holding, StartError> {
    let of = shared.clone();
    let read = off_thread(move || {
        let reader = of.ledger.reader()?;
        Ok::<_, WrongLedger>((reader.collected_by()?, reader.adopted()?.1))
    });
    let (by, adopted_at) = read.await??;
    let of = shared.clone();
    let reached = off_thread(move || Reached::of(&of.ledger)).await??;
    let (replica, path) = (replica_name(settings), settings.ledger.path.as_path());
    let clock = shared.clock.clone();
    let (ours, place) = ((&by, adopted_at), (&*replica, path));
    let claim = Claim::new(nats.clone(), stream.replicas, clock, ours, place);
    match claim.look(reached).await {
        Ok(()) | Err(ClaimError::Nats(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Holding {
        claim,
        shared: shared.clone(),
        by,
        progress: Arc::new(Progress::new(nats.clone(), shared.metrics.clone())),
        held: watch::Sender::new(false),
    })
}

/// Makes the ledger of these settings, which this process has open, the collected one, whichever was it
/// before, and says which.
///
/// # Errors
/// NATS does not answer, or another process collects now.
///
/// `replaces`: ids of ledgers that are lost, beside those that NATS names.
pub(crate) async fn adopt(
    settings: &Settings,
    ledger: &Ledger,
    replaces: &[String],
    clock: Clock,
) -> Result<Adopted, StartError> {
    let outbox = settings.outbox.clone().ok_or(StartError::NoOutbox)?;
    check_collected(ledger)?;
    let reader = ledger.reader().map_err(WrongLedger::from)?;
    let by = reader.collected_by().map_err(WrongLedger::from)?;
    let (_, adopted_at) = reader.adopted().map_err(WrongLedger::from)?;
    let (nats, stream) = connected(&outbox, settings, "nothing can be adopted without it").await?;
    let (replica, path) = (replica_name(settings), settings.ledger.path.as_path());
    let now = clock.utc();
    let (ours, place) = ((&by, adopted_at), (&*replica, path));
    let mut claim = Claim::new(nats, stream.replicas, clock, ours, place);
    let mut replaced = Vec::new();
    let last = adopted_at.0.saturating_add(1);
    let note = |mut before: BTreeSet<String>, at: Utc| {
        before.extend(replaces.iter().cloned());
        before.remove(&by.ledger_id);
        replaced = before.into_iter().collect();
        ledger.adopt(replaced.clone(), at)?;
        Reached::of(ledger)
    };
    claim.adopt(now.max(Utc(last)), note).await?;
    Ok(Adopted {
        replaces: replaced,
        ledger_id: by.ledger_id,
    })
}

/// What was adopted.
pub(crate) struct Adopted {
    /// The id of the ledger that is the collected one now.
    pub ledger_id: String,
    /// The ids of those in whose place it is.
    pub replaces: Vec<String>,
}

/// Begins what comes from NATS and goes there.
fn work(settler: &Arc<Settler>, stream: &StreamOptions, holding: Holding) -> [JoinHandle<()>; 4] {
    let Holding {
        shared,
        progress,
        by,
        ..
    } = &holding;
    let (nats, held) = (holding.claim.nats(), holding.held.subscribe());
    let (read_once, is_read_once) = watch::channel(false);
    let intake = Intake {
        shared: shared.clone(),
        nats: nats.clone(),
        stream: stream.clone(),
        progress: progress.clone(),
        by: by.clone(),
        held: held.clone(),
        read_once,
    };
    let marks = Marks {
        shared: shared.clone(),
        nats: nats.clone(),
        replicas: stream.replicas,
        progress: progress.clone(),
        settler: settler.clone(),
        held: held.clone(),
        read_once: is_read_once,
    };
    let publisher = Publisher {
        settler: settler.clone(),
        shared: shared.clone(),
        by: by.clone(),
        clock: shared.clock.clone(),
        nats: nats.clone(),
        replicas: stream.replicas,
        held: held.clone(),
    };
    [
        tokio::spawn(holding.run()),
        tokio::spawn(intake.run()),
        tokio::spawn(marks.run()),
        tokio::spawn(publisher.run()),
    ]
}
