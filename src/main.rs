//! The command line: flags, exit codes, signals. What a command does stands in the library.

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::future::Future;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tollgate::clock::Clock;
use tollgate::config::{self, Charging, Config, Mistakes};
use tollgate::key::NewKey;
use tollgate::reload::Wish;
use tollgate::usage::{Month, Reader, backup, usage_table};
use tollgate::words::AccountId;
use tollgate::{demo, serve};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

/// The C library's allocator keeps what a reload frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The gate in front of an API that is sold by the call or by the QPS.
///
/// It knows each customer by a verified credential, lets in what the customer has bought, refuses the
/// rest at once, forwards the admitted calls and counts each of them exactly once in a durable ledger.
#[derive(Parser)]
#[command(version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Log lines that may wait for their reader.
const LOG_LINES: usize = 16_384;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 it could not be done, and the reason is on standard error; \
                          2 the command line is wrong.";

#[derive(Subcommand)]
enum Command {
    /// Run the gate.
    ///
    /// SIGHUP reads catalogue and accounts again, whole or not at all. SIGTERM or SIGINT drains: calls
    /// finish, the ledger is closed, exit 0 (1 when an admitted call could not be recorded); a second one ends
    /// the drain at once.
    Serve(ConfigFlag),
    /// Read the configuration and say what was understood, or every mistake with its place.
    Check {
        #[command(flatten)]
        config: ConfigFlag,
        /// Say instead what would change, by account, for a gate that runs with this configuration.
        #[arg(long, value_name = "OLD.yaml")]
        against: Option<PathBuf>,
    },
    /// Make credentials.
    #[command(subcommand)]
    Key(Key),
    /// Show the gate at work: a sample upstream, sample callers in both modes and dialects, a live table.
    ///
    /// Takes free ports and a temporary ledger. Every number shown is read from the gate's own metrics
    /// and ledger. Exits 1 when a promise was broken while it ran.
    Demo {
        /// The configuration whose catalogue and accounts are served.
        #[arg(long, default_value = "config/tollgate.yaml", value_name = "FILE")]
        config: PathBuf,
        /// End after so many seconds; without it, at Ctrl-C.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "N")]
        seconds: Option<u64>,
    },
    /// A month's counts from the ledger, also while the gate runs.
    Usage {
        #[command(flatten)]
        config: ConfigFlag,
        /// The calendar month in the catalogue's time zone, as 2026-11; the current one by default.
        #[arg(long, value_name = "YYYY-MM", value_parser = Month::parse)]
        month: Option<Month>,
        /// Only this account.
        #[arg(long, value_name = "ID", value_parser = account_id)]
        account: Option<AccountId>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = UsageFormat::Table)]
        format: UsageFormat,
    },
    /// Admitted calls from the ledger, one line each, after a cursor.
    ///
    /// The last line's seq is the next cursor. A cursor older than the first kept record exits 1.
    Records {
        #[command(flatten)]
        config: ConfigFlag,
        /// Print the records after this seq.
        #[arg(long, default_value_t = 0, value_name = "SEQ")]
        after: u64,
        /// Print at most so many.
        #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// How to print them.
        #[arg(long, value_enum, default_value_t = RecordsFormat::Jsonl)]
        format: RecordsFormat,
    },
    /// Copy the ledger, also while the gate runs.
    Backup {
        #[command(flatten)]
        config: ConfigFlag,
        /// The copy; must not exist yet.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
}

#[derive(Subcommand)]
enum Key {
    /// Print a fresh credential: what the customer gets, shown this once, and the line for accounts.yaml.
    New {
        /// A TC3 pair as the vendor's SDKs sign with, or an API key for plain HTTP.
        #[arg(long, value_enum, default_value_t = KeyKind::Tc3)]
        kind: KeyKind,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum KeyKind {
    Tc3,
    ApiKey,
}

#[derive(Args)]
struct ConfigFlag {
    /// The settings; catalogue, accounts and ledger are found from there.
    #[arg(
        long,
        env = "TOLLGATE_CONFIG",
        default_value = "config/tollgate.yaml",
        value_name = "FILE"
    )]
    config: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum UsageFormat {
    Table,
    Json,
    Csv,
}

#[derive(Clone, Copy, ValueEnum)]
enum RecordsFormat {
    Jsonl,
    Csv,
}

fn account_id(text: &str) -> Result<AccountId, String> {
    AccountId::new(text).ok_or_else(|| "an id is 1 to 32 letters, digits, `_` or `-`".into())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Serve(flag) => {
            let (_flushed, dropped) = log_to_stderr("info");
            control_thread(run(dropped, flag.config))
        }
        Command::Demo { config, seconds } => {
            let _flushed = log_to_stderr("warn");
            control_thread(async {
                // Listened for from the start: the default action would leave the scratch ledger.
                let mut interrupt = signal(SignalKind::interrupt())?;
                let mut terminate = signal(SignalKind::terminate())?;
                let mut hangup = signal(SignalKind::hangup())?;
                let stop = async {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {}
                    }
                };
                let duration = seconds.map(Duration::from_secs);
                demo::run(&config, duration, std::io::stdout(), stop).await
            })
        }
        Command::Check {
            config,
            against: None,
        } => check(&config.config),
        Command::Check {
            config,
            against: Some(old),
        } => check_against(&old, &config.config),
        Command::Key(Key::New { kind }) => new_key(kind),
        Command::Usage {
            config,
            month,
            account,
            format,
        } => usage(&config.config, month, account, format),
        Command::Records {
            config,
            after,
            limit,
            format,
        } => records(&config.config, after, limit, format),
        Command::Backup { config, to } => load(&config.config).and_then(|config| {
            backup(&config.settings.ledger.path, &to)?;
            print(|out| {
                writeln!(
                    out,
                    "copied {} to {}",
                    config.settings.ledger.path.display(),
                    to.display()
                )
            })
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Mistakes carry their place already; a prefix would break the file:line:column form.
            match error.downcast_ref::<Mistakes>() {
                Some(mistakes) => eprintln!("{mistakes}"),
                None => eprintln!("tollgate: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

/// Logs until the guard is dropped, which writes what is left. A thread of its own writes: a log that
/// nobody reads must not hold up a call. Past [`LOG_LINES`] waiting lines the next are dropped, and counted.
fn log_to_stderr(default: &str) -> (WorkerGuard, ErrorCounter) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TOLLGATE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LOG_LINES)
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // Else a log that cannot be written (a full disk, a reader that ended) is told to standard
        // error with `eprintln!`, which panics when that is what cannot be written.
        .log_internal_errors(false)
        .with_writer(writer);
    if std::io::stderr().is_terminal() {
        logs.init();
    } else {
        logs.json().flatten_event(true).init();
    }
    (guard, dropped)
}

fn control_thread(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

async fn run(dropped: ErrorCounter, path: PathBuf) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A file at its size limit (RLIMIT_FSIZE) is trouble of the ledger, which waits for room. Unhandled,
    // this signal would end the process instead of failing the write.
    drop(signal(SignalKind::from_raw(
        rustix::process::Signal::XFSZ.as_raw(),
    ))?);
    let config = load(&path)?;
    let running = serve::start(config, Clock::default()).await?;
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let lines = i64::try_from(dropped.dropped_lines()).unwrap_or(i64::MAX);
                running.proxy.metrics.log_lines_dropped.set(lines);
            }
            // What came of it is in the log and the metrics; the old policy serves on if it failed.
            _ = hangup.recv() => drop(running.reload(Wish::default()).await),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    running
        .drain(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
        .context("the ledger was not closed whole")
}

/// Loads the configuration; warnings go to standard error.
fn load(path: &Path) -> anyhow::Result<Config> {
    let config = config::load(path)?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(config)
}

/// Writes to standard output; a reader that went away (`| head`) is no error.
fn print(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output")
        }
        _ => Ok(()),
    }
}

fn new_key(kind: KeyKind) -> anyhow::Result<()> {
    let made = match kind {
        KeyKind::Tc3 => NewKey::tc3(),
        KeyKind::ApiKey => NewKey::api_key(),
    };
    let made = made.context("the system's random source")?;
    print(|out| write!(out, "{made}"))
}

fn check_against(old: &Path, new: &Path) -> anyhow::Result<()> {
    let (old, new) = (load(old)?, load(new)?);
    let settings = old.written.changed_settings(&new.written);
    let now = Clock::default().utc();
    let changes = config::changes(&old.catalog, &old.accounts, &new, now);
    print(|out| {
        for (key, before, after) in &settings {
            writeln!(out, "{key}: {before} → {after} at the next restart")?;
        }
        for change in &changes {
            writeln!(out, "{change}")?;
        }
        if settings.is_empty() && changes.is_empty() {
            writeln!(out, "nothing is different")?;
        }
        Ok(())
    })
}

fn check(path: &Path) -> anyhow::Result<()> {
    let Config {
        settings,
        catalog,
        accounts,
        ..
    } = load(path)?;
    print(|out| {
        writeln!(out, "{}: ok", path.display())?;
        writeln!(
            out,
            "  listen     {}  (admin {})",
            settings.listen, settings.admin.listen
        )?;
        writeln!(out, "  upstream   {}", settings.upstream.endpoint)?;
        writeln!(
            out,
            "  ledger     {} ({})",
            settings.ledger.path.display(),
            settings.ledger.durability
        )?;
        if let Some(notices) = &settings.notices {
            writeln!(out, "  notices    {}", notices.webhook)?;
        }
        writeln!(
            out,
            "catalogue: {} group(s), months in {}",
            catalog.groups.len(),
            catalog.time_zone.iana_name().unwrap_or("UTC")
        )?;
        for group in &catalog.groups {
            let cap = match &group.charging {
                Charging::Paid { per_call, .. } => format!(
                    "{} QPS shared in per-call mode, or purchased QPS",
                    per_call.qps
                ),
                Charging::Free { qps_per_action } => {
                    format!("free, {qps_per_action} QPS for each action")
                }
            };
            let actions: Vec<&str> = group
                .actions
                .iter()
                .map(|spec| spec.action.as_str())
                .collect();
            writeln!(
                out,
                "  {:24} {cap}: {}",
                group.id.as_str(),
                actions.join(", ")
            )?;
        }
        let keys: usize = accounts
            .iter()
            .map(|account| account.credentials.len())
            .sum();
        writeln!(out, "accounts: {} with {keys} key(s)", accounts.len())?;
        for account in accounts.iter().take(20) {
            let services: Vec<String> = account
                .services
                .iter()
                .map(|service| match service.stopped {
                    Some(stop) => format!("{} (stopped: {stop})", service.group),
                    None => format!("{} ({})", service.group, service.mode),
                })
                .collect();
            writeln!(out, "  {:24} {}", account.id.as_str(), services.join(", "))?;
        }
        if accounts.len() > 20 {
            writeln!(out, "  ... and {} more", accounts.len() - 20)?;
        }
        Ok(())
    })
}

fn usage(
    path: &Path,
    month: Option<Month>,
    account: Option<AccountId>,
    format: UsageFormat,
) -> anyhow::Result<()> {
    let config = load(path)?;
    let zone = &config.catalog.time_zone;
    let month = month.unwrap_or_else(|| Month::of(Clock::default().utc(), zone));
    let (from, until) = month.bounds(zone);
    let lines = Reader::open(&config.settings.ledger.path)?.usage(from, until, account.as_ref())?;
    print(|out| match format {
        UsageFormat::Json => {
            let document = serde_json::json!({"month": month.to_string(), "lines": lines});
            writeln!(out, "{document}")
        }
        UsageFormat::Csv => {
            writeln!(
                out,
                "month,account,group,action,mode,outcome,billable,reason,calls,first_seq,last_seq"
            )?;
            for l in &lines {
                let (a, g, c) = (&l.account, &l.group, &l.action);
                write!(out, "{month},{a},{g},{c},{},{},", l.mode, l.outcome)?;
                writeln!(
                    out,
                    "{},{},{},{},{}",
                    l.billable, l.reason, l.calls, l.first_seq, l.last_seq
                )?;
            }
            Ok(())
        }
        UsageFormat::Table => usage_table(out, month, &lines),
    })
}

fn records(path: &Path, after: u64, limit: u64, format: RecordsFormat) -> anyhow::Result<()> {
    const PAGE: u64 = 10_000;
    let config = load(path)?;
    let reader = Reader::open(&config.settings.ledger.path)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut after, mut left) = (after, limit);
    if let RecordsFormat::Csv = format {
        let fields = "seq,id,account,group,action,mode,admitted_at,start_ns,run,outcome,status,billable,reason,duration_us,replica";
        writeln!(out, "{fields}")?;
    }
    while left > 0 {
        let page = reader.records(after, usize::try_from(left.min(PAGE))?)?;
        let Some(last) = page.last() else { break };
        (after, left) = (last.seq, left - page.len() as u64);
        for r in &page {
            let written = match format {
                RecordsFormat::Jsonl => serde_json::to_writer(&mut out, r)
                    .map_err(std::io::Error::from)
                    .and_then(|()| writeln!(out)),
                RecordsFormat::Csv => {
                    let status = r
                        .status
                        .map(|status| status.to_string())
                        .unwrap_or_default();
                    let (us, start, duration) = (r.admitted_at.0, r.start.0, r.duration_us);
                    write!(
                        out,
                        "{},{},{},{},{},{},{us},{start},{},",
                        r.seq, r.id, r.account, r.group, r.action, r.mode, r.run
                    )
                    .and_then(|()| {
                        writeln!(
                            out,
                            "{},{status},{},{},{duration},{}",
                            r.outcome, r.billable, r.reason, r.replica
                        )
                    })
                }
            };
            match written {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                written => written?,
            }
        }
    }
    match out.flush() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            bail!("standard output: {error}")
        }
        _ => Ok(()),
    }
}
