//! `tollgate serve`: the process of the gate, its control thread and its signals.
//!
//! Owns what each signal does. Must never decide about a call.

use crate::cli::config_flag::ConfigFlag;
use crate::cli::logging::log_to_stderr;
use crate::cli::output::load;
use crate::control;
use crate::control::reload::{ReloadOptions, read_files};
use crate::control::serve::Running;
use crate::control::systemd::{Inherited, Systemd};
use crate::model::Clock;
use anyhow::Context;
use futures_util::future::OptionFuture;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tracing::Level;
use tracing_appender::non_blocking::ErrorCounter;

/// A second stop signal within this time is taken for the first one. A supervisor signals the
/// process and then its group; a terminal signals the group and a wrapper passes it on.
const SAME_SIGNAL: Duration = Duration::from_secs(1);
/// How often dropped log lines are added to the metric.
const DROPPED_LINES_EVERY: Duration = Duration::from_secs(5);
/// How long threads that still read the ledger may hold up the end.
const ENDING: Duration = Duration::from_secs(1);

/// Runs the gate until a signal ends it and the drain is over.
///
/// # Errors
/// When the gate cannot start, or when the ledger was not closed whole.
pub fn serve(flags: ConfigFlag) -> anyhow::Result<()> {
    run_process(Process::Gate, flags.config)
}

/// The processes that run until a signal ends them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    /// `tollgate serve`.
    Gate,
    /// `tollgate collect`.
    Collector,
}

impl Process {
    /// What `systemctl status` says of it.
    fn at_work(self, running: &Running) -> String {
        let verb = match self {
            Self::Gate => "serving",
            Self::Collector => "collecting, and answering customers",
        };
        format!(
            "{verb} on {}, operators on {}",
            running.public, running.admin
        )
    }
}

/// Runs it until a signal ends it and the drain is over.
///
/// # Errors
/// When it cannot start, or when the ledger was not closed whole.
pub(super) fn run_process(process: Process, config: PathBuf) -> anyhow::Result<()> {
    // Before there is a second thread.
    let inherited = Inherited::take()?;
    // The guard writes what is left of the log when the process has ended.
    let (_flushed, dropped) = log_to_stderr(Level::INFO)?;
    control_thread(run(process, dropped, config, inherited))
}

/// Runs `work` on a runtime of this thread alone. Calls run on the workers' runtimes.
///
/// # Errors
/// Those of `work`, and when the system gives no runtime.
pub(crate) fn control_thread(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    // A thread that still reads the ledger must not hold up the end.
    runtime.shutdown_timeout(ENDING);
    done
}

async fn run(
    process: Process,
    dropped: ErrorCounter,
    path: PathBuf,
    inherited: Inherited,
) -> anyhow::Result<()> {
    // Listened for before the start: the default action of a signal would end the process half-way.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stop = StopSignals::listen()?;
    let mut rotated = signal(SignalKind::user_defined1())?;
    ignore_harmless_signals(false)?;
    // A file at its size limit (RLIMIT_FSIZE) is trouble of the ledger, which waits for room.
    // Unhandled, this signal would end the process instead of failing the write.
    drop(signal(SignalKind::from_raw(
        rustix::process::Signal::XFSZ.as_raw(),
    ))?);
    let systemd = Systemd::find()?;
    let asks_for_time = tokio::spawn(systemd.clone().starting());
    let clock = Clock::default();
    let start = async {
        // A file system that does not answer must not keep the process from hearing a signal.
        let config = read_files(&clock, move || load(&path)).await??;
        anyhow::Ok(match process {
            Process::Gate => control::start(config, clock.clone(), inherited).await?,
            Process::Collector => control::collect(config, clock.clone(), inherited).await?,
        })
    };
    let running = tokio::select! {
        running = start => running?,
        // No call was admitted yet. The next start goes on with what is being done to the ledger.
        signal = stop.recv() => {
            tracing::info!("{signal}: stopped before the first call was accepted");
            return Ok(());
        }
    };
    asks_for_time.abort();
    systemd.ready(process.at_work(&running));
    tokio::spawn(running.keep_alive(systemd.clone()));
    if process == Process::Gate {
        tokio::spawn(running.watch_upstreams());
    }
    let signals = (&mut hangup, &mut rotated);
    let signal = until_stopped(&running, &dropped, signals, &mut stop, &systemd).await;
    tracing::info!("{signal}: draining");
    systemd.stopping(running.drains_within());
    running
        .drain(another_signal(&mut stop))
        .await
        .context("the ledger was not closed whole")
}

/// Reloads at each SIGHUP, opens the access log again at each SIGUSR1 and counts dropped log lines,
/// until a stop signal comes. Answers its name.
async fn until_stopped(
    running: &Running,
    dropped: &ErrorCounter,
    (hangup, rotated): (&mut Signal, &mut Signal),
    stop: &mut StopSignals,
    systemd: &Systemd,
) -> &'static str {
    let mut tick = tokio::time::interval(DROPPED_LINES_EVERY);
    let mut reload = None;
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let counter = &running.proxy.shared().metrics.log_lines_dropped;
                let lines = u64::try_from(dropped.dropped_lines()).unwrap_or(u64::MAX);
                counter.inc_by(lines.saturating_sub(counter.get()));
            }
            // The log and the metrics tell the outcome; after a failure the old policy stays in
            // force. A SIGHUP that comes while the files are read is kept: they may have changed
            // since.
            _ = hangup.recv(), if reload.is_none() => {
                systemd.reloading();
                reload = Some(Box::pin(running.reload(ReloadOptions::default())));
            }
            _ = rotated.recv() => {
                if !running.reopen_access_log() {
                    tracing::info!("SIGUSR1 is ignored: there is no access log, and SIGHUP reloads");
                }
            }
            Some(outcome) = OptionFuture::from(reload.as_mut()) => {
                systemd.reloaded(outcome.as_ref());
                reload = None;
            }
            signal = stop.recv() => return signal,
        }
    }
}

/// The name of the next stop signal that is not taken for the first one. It ends the drain at once.
async fn another_signal(stop: &mut StopSignals) -> &'static str {
    let first = Instant::now();
    loop {
        let signal = stop.recv().await;
        if first.elapsed() >= SAME_SIGNAL {
            return signal;
        }
        tracing::info!("another {signal} within {SAME_SIGNAL:?} is taken for the same one");
    }
}

/// The signals that ask the process to end.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl StopSignals {
    /// Takes the signals from now on, in place of their default action.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The name of the next signal. Several of one kind that came before this wait count once.
    pub(crate) async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}

/// Takes signals that other daemons take for a request and that would end this process by default:
/// SIGUSR2 and SIGALRM, and SIGUSR1 where it means nothing either.
///
/// # Errors
/// When the system refuses a handler.
pub(crate) fn ignore_harmless_signals(and_usr1: bool) -> io::Result<()> {
    for (name, kind) in [
        ("SIGUSR1", SignalKind::user_defined1()),
        ("SIGUSR2", SignalKind::user_defined2()),
        ("SIGALRM", SignalKind::alarm()),
    ] {
        if name == "SIGUSR1" && !and_usr1 {
            continue;
        }
        let mut harmless = signal(kind)?;
        tokio::spawn(async move {
            while harmless.recv().await.is_some() {
                tracing::info!(
                    "{name} is ignored: SIGHUP reloads, and SIGUSR1 opens the access log of `serve` again"
                );
            }
        });
    }
    Ok(())
}
