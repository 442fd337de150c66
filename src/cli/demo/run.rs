//! `tollgate demo` from its start to its end.

use crate::cli::demo::bill::write_ledger;
use crate::cli::demo::replicas::show_replicas;
use crate::cli::demo::sample::{
    CONNECTIONS, SHOWN_AFTER, WORK, about, sample_upstream, start_calling,
};
use crate::cli::demo::scratch::Scratch;
use crate::cli::demo::watch::Watch;
use crate::cli::flags::DemoFlags;
use crate::cli::logging::log_to_stderr;
use crate::cli::serve::{StopSignals, control_thread, ignore_harmless_signals};
use crate::config::{self, Config};
use crate::control;
use crate::control::reload::read_files;
use crate::control::serve::Running;
use crate::ledger;
use crate::model::Clock;
use std::io::{ErrorKind, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;

/// Runs the demo until its time is over, a signal ends it, or the reader of standard output goes
/// away.
///
/// # Errors
/// When a promise was broken while it ran, or when it could not run.
pub fn demo(flags: DemoFlags) -> anyhow::Result<()> {
    let _flushed = log_to_stderr(Level::WARN)?;
    control_thread(async {
        // Listened for from the start: the default action would leave the scratch ledger.
        let mut stop_signals = StopSignals::listen()?;
        let mut hangup = signal(SignalKind::hangup())?;
        ignore_harmless_signals(true)?;
        let stop = async {
            tokio::select! {
                _ = stop_signals.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        let duration = flags.seconds.map(Duration::from_secs);
        let out = std::io::stdout();
        let shown = match flags.replicas {
            Some(count) => show_replicas(&flags.config, count, duration, out, stop).await,
            None => show(&flags.config, duration, out, stop).await,
        };
        match shown {
            Err(error) if is_broken_pipe(&error) => Ok(()),
            shown => shown,
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

async fn show(
    config_path: &Path,
    duration: Option<Duration>,
    mut out: impl Write + IsTerminal,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tokio::pin!(stop);
    let scratch = Scratch::new()?;
    let ledger = scratch.path().join("ledger.db");
    let clock = Clock::default();
    let path = config_path.to_owned();
    let mut config = tokio::select! {
        config = read_files(&clock, move || config::load(&path)) => config??,
        () = &mut stop => return Ok(()),
    };
    let upstream = sample_upstream().await?;
    adapt(&mut config, upstream, &ledger);
    // `serve` warns when it has to make a ledger. Here it is meant, so the demo makes one first.
    ledger::create(&ledger)?;
    let (catalog, accounts) = (config.catalog.clone(), config.accounts.clone());
    let mut starting = std::pin::pin!(control::start(config, clock.clone(), Default::default()));
    let running = tokio::select! {
        started = &mut starting => started?,
        () = &mut stop => {
            // To its end: a thread of its own opens the ledger, and would leave it in the scratch
            // directory.
            starting.await?.drain(std::future::ready("Ctrl-C")).await?;
            return Ok(());
        }
    };

    let shown = async {
        write_introduction(&mut out, config_path, &running, upstream, &ledger)?;
        let end = async {
            let duration =
                async { tokio::time::sleep(duration.unwrap_or(Duration::MAX / 4)).await };
            tokio::select! {
                () = duration => {}
                () = stop => {}
            }
        };
        watch_calls(&mut out, &running, &clock, end).await
    };
    // The gate drains also when nothing could be shown: dropped under its calls, it would complain.
    let shown = shown.await;
    running.drain(std::future::pending()).await?;
    let promises = shown?;
    write_ledger(&mut out, &ledger, &catalog, &accounts, clock.utc())?;
    promises
}

/// Turns the configuration to free ports, the sample upstream and the scratch ledger.
fn adapt(config: &mut Config, upstream: SocketAddr, ledger: &Path) {
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    let settings = &mut config.settings;
    settings.listen = loopback.into();
    settings.admin.listen = loopback;
    settings.admin.token = None;
    settings.upstream.endpoints = vec![upstream.into()];
    settings.upstreams.clear();
    settings.ledger.path = ledger.to_owned();
    settings.limits.connections = CONNECTIONS;
}

fn write_introduction(
    out: &mut impl Write,
    config_path: &Path,
    running: &Running,
    upstream: SocketAddr,
    ledger: &Path,
) -> std::io::Result<()> {
    let (served, public, admin) = (config_path.display(), &running.public, running.admin);
    writeln!(out, "tollgate serves {served} on http://{public}")?;
    writeln!(out, "  upstream http://{upstream} (answers after {WORK:?})")?;
    writeln!(out, "  page     http://{admin}/ (open it in a browser)")?;
    writeln!(out, "  metrics  http://{admin}/metrics")?;
    writeln!(out, "  ledger   {}", ledger.display())?;
    for client in about() {
        writeln!(out, "  client   {client}")?;
    }
    writeln!(
        out,
        "cap: calls a second that the account may make; peak: the most starts in any one\n\
         second; recorded and peak are read from the ledger. Ctrl-C ends the demo.\n"
    )
}

/// Sends the sample clients' calls and draws the table until `end`. Answers whether the promises
/// were kept; an error of its own says that this could not be seen.
async fn watch_calls(
    out: &mut (impl Write + IsTerminal),
    running: &Running,
    clock: &Clock,
    end: impl Future<Output = ()>,
) -> anyhow::Result<anyhow::Result<()>> {
    let began = clock.mono();
    let calling = start_calling(running.public.first_tcp().into_iter().collect());
    let mut watch = Watch::new(running.admin, out.is_terminal());
    tokio::select! {
        watched = watch.follow(out) => watched?,
        () = end => {}
    }
    let must_show = clock.mono().since(began) >= SHOWN_AFTER;
    calling.end().await;
    Ok(watch.check_promises(out, must_show).await)
}
