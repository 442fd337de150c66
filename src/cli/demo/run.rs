//! The demo from its start to its end.

use crate::billing::books::Books;
use crate::billing::text;
use crate::cli::demo::sample::{CALLERS, WORK, sample_upstream, send_calls};
use crate::cli::demo::watch::Watch;
use crate::cli::usage_table;
use crate::config::{self, Endpoint};
use crate::control;
use crate::control::reload::read_files;
use crate::http::Target;
use crate::http::h1::ForwardHead;
use crate::ledger::{self, Reader};
use crate::model::{Clock, Month};
use crate::proxy::upstream::{Dialer, Keep, NotAnswered, Upstream, UpstreamRequest};
use anyhow::Context;
use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use std::future::poll_fn;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Connections that the callers may need; the configured number would need more open files than a
/// stock machine may allow.
const CONNECTIONS: usize = 400;
/// How long the callers may wait for their last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// After so long an admitted and a throttled call must have been seen, or the demo shows nothing.
const SHOWN_AFTER: Duration = Duration::from_secs(3);

/// Runs the demo until `duration` is over, `stop` resolves, or the reader of `out` went away. An error when a promise was
/// broken.
pub async fn run(
    config_path: &Path,
    duration: Option<Duration>,
    out: impl Write + IsTerminal,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    match show(config_path, duration, out, stop).await {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        shown => shown,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn show(
    config_path: &Path,
    duration: Option<Duration>,
    mut out: impl Write + IsTerminal,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tokio::pin!(stop);
    let scratch = Scratch::new()?;
    let ledger = scratch.0.join("ledger.db");
    let clock = Clock::default();
    let path = config_path.to_owned();
    let mut config = tokio::select! {
        config = read_files(&clock, move || config::load(&path)) => config??,
        () = &mut stop => return Ok(()),
    };
    let upstream = sample_upstream().await?;
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    config.settings.listen = loopback;
    config.settings.admin.listen = loopback;
    config.settings.admin.token = None;
    config.settings.upstream.endpoint = Endpoint {
        host: upstream.ip().to_string(),
        port: upstream.port(),
    };
    config.settings.ledger.path = ledger.clone();
    // Beforehand: that `serve` has to make one is a warning, and here it is meant.
    ledger::create(&ledger)?;
    config.settings.limits.connections = CONNECTIONS;
    let (catalog, accounts) = (config.catalog.clone(), config.accounts.clone());
    let mut starting = std::pin::pin!(control::start(config, clock.clone()));
    let running = tokio::select! {
        started = &mut starting => started?,
        () = &mut stop => {
            // To its end: the ledger is opened on a thread of its own, and would be left in the scratch directory.
            starting.await?.drain(std::future::ready("Ctrl-C")).await?;
            return Ok(());
        }
    };

    let (public, admin) = (running.public, running.admin);
    let shown = async {
        let served = config_path.display();
        writeln!(out, "tollgate serves {served} on http://{public}")?;
        writeln!(out, "  upstream http://{upstream} (answers after {WORK:?})")?;
        writeln!(out, "  metrics  http://{admin}/metrics")?;
        writeln!(out, "  ledger   {}", ledger.display())?;
        for caller in CALLERS.iter().filter(|caller| !caller.about.is_empty()) {
            writeln!(out, "  caller   {}", caller.about)?;
        }
        writeln!(
            out,
            "cap: calls a second that the account may make; peak: the most starts in any one\n\
         second; recorded and peak are read from the ledger. Ctrl-C ends the demo.\n"
        )?;

        let began = clock.mono();
        let (stop_calling, calling) = tokio::sync::watch::channel(());
        let mut callers = JoinSet::new();
        for caller in CALLERS {
            callers.spawn(send_calls(public, caller, calling.clone()));
        }
        let mut watch = Watch::new(admin, out.is_terminal());
        let end = async { tokio::time::sleep(duration.unwrap_or(Duration::MAX / 4)).await };
        tokio::select! {
            watched = watch.follow(&mut out) => watched?,
            () = end => {}
            () = stop => {}
        }
        let must_show = clock.mono().since(began) >= SHOWN_AFTER;
        // A caller that just vanished would leave calls on the wire behind the back of the last look.
        drop(stop_calling);
        let last_answers = async { while callers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_ANSWERS, last_answers).await;
        callers.shutdown().await;
        anyhow::Ok(watch.wait_until_idle(&mut out, must_show).await)
    };
    // Also when it could not be shown: what was dropped under its calls would complain.
    let shown = shown.await;
    running.drain(std::future::pending()).await?;
    let kept = shown?;

    let month = Month::of(clock.utc(), &catalog.time_zone);
    let (from, until) = month.bounds(&catalog.time_zone);
    let lines = Reader::open(&ledger)?.usage(from, until, None, 0..=u64::MAX)?;
    writeln!(out)?;
    usage_table(&mut out, month, &lines)?;
    let reader = Reader::open(&ledger)?;
    let now = clock.utc();
    let books = Books {
        catalog: &catalog,
        reader: &reader,
        now,
    };
    for account in &accounts {
        let statement = books.statement(account.into(), month)?;
        // The one whose calls are charged is the one with something to show.
        let mut charged = statement.groups.iter().filter_map(|g| g.per_call.as_ref());
        if charged.any(|per_call| per_call.billable > 0) {
            writeln!(out)?;
            text::table(&mut out, &statement)?;
        }
    }
    kept
}

/// A directory of the demo's own, gone when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let name = format!("tollgate-demo-{}", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn client(to: SocketAddr) -> Arc<Upstream> {
    let timeout = Duration::from_secs(2);
    let dialer = Dialer::new(to.ip().to_string(), to.port(), timeout, |_| ());
    let keep = Keep {
        idle_timeout: Duration::from_secs(30),
        max_age: None,
    };
    Arc::new(Upstream::new(Arc::new(dialer), keep))
}

pub(super) async fn fetch(
    client: &Arc<Upstream>,
    request: Request<Bytes>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (parts, body) = request.into_parts();
    let target = Target::read(&parts.uri.to_string().into()).context("a target that is none")?;
    let mut head = ForwardHead::new(parts.method, &target);
    for field in &parts.headers {
        head.field(field.into());
    }
    let mut outgoing = UpstreamRequest::new(head, body);
    loop {
        match client.connection().await?.send(outgoing).await {
            Ok(mut answer) => {
                let mut read = BytesMut::new();
                while let Some(data) = poll_fn(|cx| answer.body.poll_data(cx)).await? {
                    read.extend_from_slice(&data);
                }
                return Ok((answer.status, read.freeze()));
            }
            Err(NotAnswered::Unsent(back)) => outgoing = back,
            Err(NotAnswered::Failed(failure)) => return Err(failure.into()),
        }
    }
}
