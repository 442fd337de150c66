//! The gate as it runs: reloads, and the drain.
//!
//! Owns the order of the end: calls finish, then the ledger is closed. Must never decide about a
//! call.

use crate::config::Listens;
use crate::control::Settler;
use crate::control::admin::AdminState;
use crate::control::outbox::Sending;
use crate::control::pulse::Pulse;
use crate::control::reload::{self, ReloadOptions, Reloader};
use crate::control::systemd::{Systemd, keep_alive};
use crate::control::turned_away;
use crate::control::unix_socket::SocketFile;
use crate::control::upstreams::tell_of_upstreams;
use crate::ledger::CloseError;
use crate::portal::LicenceDesk;
use crate::proxy::Proxy;
use crate::proxy::front::Phase;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long workers may take to end once their calls were dropped.
const ABANDONING: Duration = Duration::from_secs(1);
/// How long it may take to keep what was seen of the clocks.
const KEEPING: Duration = Duration::from_secs(1);
/// How long the ledger may take to write what is left. A process ends within `limits.drain_notice`,
/// `limits.drain` and 9 s. These are this wait, the end of the workers, what is kept of the clocks,
/// the grace of a silent disk and the end of the runtime.
const CLOSING: Duration = Duration::from_secs(5);
/// What a drain takes beside `limits.drain_notice` and `limits.drain`.
const ENDING: Duration = Duration::from_secs(9);

/// A gate that runs. Dropping it ends the process's part in it without a drain; use
/// [`Running::drain`].
pub struct Running {
    /// The public listener's addresses.
    pub public: Listens,
    /// The admin listener's address.
    pub admin: SocketAddr,
    pub(super) socket_files: Vec<SocketFile>,
    /// The state that the workers share.
    pub proxy: Arc<Proxy>,
    pub(super) desk: Arc<LicenceDesk>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) settler: Arc<Settler>,
    pub(super) sending: Option<Sending>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) state: watch::Sender<AdminState>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) workers: Vec<std::thread::JoinHandle<()>>,
    pub(super) control: Vec<JoinHandle<()>>,
    pub(super) drain_notice: Duration,
    pub(super) drain: Duration,
}

impl Running {
    /// Reads the files again and puts them in force, whole or not at all. What came of it is in the
    /// log and the metrics too.
    pub fn reload(
        &self,
        wish: ReloadOptions,
    ) -> impl Future<Output = Option<reload::Outcome>> + use<> {
        let reload = self.reloader.clone().reload(wish);
        async { reload.await.ok() }
    }

    /// Says in the log when an upstream cannot be reached, from now on and whether or not there
    /// are calls, and when it can be reached again. While it cannot, it is dialled every few
    /// seconds. Runs until it is dropped.
    pub fn watch_upstreams(&self) -> impl Future<Output = ()> + use<> {
        tell_of_upstreams(self.proxy.shared().clone())
    }

    /// Tells systemd that the process lives, as often as its watchdog wants it and as long as each
    /// worker works and the ledger has its writer. A disk that fails or does not answer is no reason
    /// to end the process. Runs until it is dropped.
    pub(crate) fn keep_alive(&self, systemd: Systemd) -> impl Future<Output = ()> + use<> {
        let (proxy, pulse) = (self.proxy.clone(), self.pulse.clone());
        let state = self.state.subscribe();
        let clock = proxy.shared().clock.clone();
        let hangs = move |longer_than| {
            // The drain has deadlines of its own, and workers end in it.
            if *state.borrow() != AdminState::Serving {
                return None;
            }
            if proxy.shared().ledger.is_closed() {
                return Some("the ledger's writer has ended".to_owned());
            }
            let worker = pulse.silent(longer_than)?;
            Some(format!("worker-{worker} hangs"))
        };
        keep_alive(systemd, clock, hangs)
    }

    /// The longest that a drain takes.
    pub(crate) fn drains_within(&self) -> Duration {
        self.drain_notice + self.drain + ENDING
    }

    /// Opens the file of the access log again; whether there is an access log.
    pub fn reopen_access_log(&self) -> bool {
        let log = self.proxy.access_log();
        log.inspect(|log| log.reopen()).is_some()
    }

    /// Lets calls finish, then ends. `/readyz` says 503, calls are accepted for
    /// `limits.drain_notice`, and the backlog is emptied. Calls have at most `limits.drain` to
    /// finish, or until `hurry` resolves to the name of what hurries. The rest is settled as
    /// `gate_failed`, and the ledger is closed. What ended the drain before the calls did is a
    /// warning.
    ///
    /// # Errors
    /// When admitted calls could not be written to the ledger: none of them was answered as served
    /// (strict), and the log says how many.
    pub async fn drain(self, hurry: impl Future<Output = &'static str>) -> Result<(), CloseError> {
        let Self {
            proxy,
            socket_files,
            desk,
            settler,
            sending,
            phase,
            state,
            workers,
            control,
            drain_notice,
            drain,
            ..
        } = self;
        state.send_replace(AdminState::Draining);
        proxy.begin_drain();
        tokio::pin!(hurry);
        // Asked once only: a future that has resolved must not be polled again.
        let mut ended_by = tokio::select! {
            () = proxy.shared().clock.sleep(drain_notice) => None,
            signal = hurry.as_mut() => Some(format!("another {signal} came")),
        };
        // Another process may have the paths from here on; who has connected is served.
        drop(socket_files);
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
            // Not for ever: a worker ends after the queries of the ledger that it began, and these
            // may be in a call to the disk.
            let _ = tokio::time::timeout(ABANDONING, ended).await;
        }
        keep_the_last(&proxy, &desk, settler, sending).await;
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

/// What was turned away, and what was seen of the clocks, for the next start. Without it that goes on
/// from what was kept a minute ago. Beside it the last records are sent.
async fn keep_the_last(
    proxy: &Proxy,
    desk: &LicenceDesk,
    settler: Arc<Settler>,
    sending: Option<Sending>,
) {
    let told = proxy.shared().clone();
    let kept = tokio::task::spawn_blocking(move || {
        let ended = settler.end();
        turned_away::keep(&told, told.clock.utc());
        ended
    });
    let log = proxy.access_log().cloned();
    let logged = tokio::task::spawn_blocking(move || {
        if let Some(log) = log {
            log.close(KEEPING);
        }
    });
    let finish = async {
        if let Some(sending) = sending {
            sending.finish(KEEPING).await;
        }
    };
    let kept = tokio::time::timeout(KEEPING, kept);
    let logged = tokio::time::timeout(KEEPING, logged);
    let counts = tokio::time::timeout(KEEPING, desk.settle());
    let (kept, (), _, _) = tokio::join!(kept, finish, counts, logged);
    match kept {
        Ok(Ok(Ok(()))) => {}
        _ => tracing::warn!("what was seen of the clocks could not be kept at the end"),
    }
}
