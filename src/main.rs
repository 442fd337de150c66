//! The command line: flags, exit codes, signals. What a command does stands in the library.

use anyhow::Context;
use clap::builder::{RangedI64ValueParser, Resettable};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use futures_util::future::OptionFuture;
use std::ffi::OsStr;
use std::future::Future;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tollgate::billing::{Goods, Period};
use tollgate::cli::commands::{
    self, AnswerFormat, Format, RecordsFormat, Which, load, print, tell,
};
use tollgate::cli::demo;
use tollgate::cli::key::NewKey;
use tollgate::config::{self, Charging, Config, Mistakes, UpstreamSettings};
use tollgate::control;
use tollgate::control::EVIDENCE;
use tollgate::control::reload::{ReloadOptions, read_files};
use tollgate::ledger::{Cursor, backup};
use tollgate::model::{AccountId, Clock, GroupId, Month, VERSION};
use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The C library's allocator keeps what a reload frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The gate in front of an API that is sold by the call or by the QPS.
///
/// It knows each customer by a verified credential, lets in what the customer has bought, refuses the
/// rest at once, forwards the admitted calls and counts each of them exactly once in a durable ledger.
#[derive(Parser)]
#[command(version = VERSION, propagate_version = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Log lines that may wait for their reader.
const LOG_LINES: usize = 16_384;

const AFTER_HELP: &str = "\
Environment:
  TOLLGATE_CONFIG  the settings, as --config names them; when empty, as if it were not set
  TOLLGATE_LOG     how much `serve` and `demo` log: error, warn, info or debug; when empty or not set, `serve` \
logs info and `demo` warn. Sealed days and settled months are logged at every level: they are evidence.

Exit codes: 0 done; 1 it could not be done, and the reason is on standard error; \
2 the command line is wrong.";

#[derive(Subcommand)]
enum Command {
    /// Run the gate.
    ///
    /// SIGHUP reads catalogue and accounts again, whole or not at all. SIGTERM, SIGINT or SIGQUIT drains: calls
    /// finish, the ledger is closed, exit 0 (1 when an admitted call could not be recorded); another one that comes
    /// more than a second later ends the drain at once. SIGUSR1, SIGUSR2 and SIGALRM are ignored, with a line in the log.
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
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// A month's statement of an account, as it was fixed or as it stands, and how it was computed.
    Statement {
        #[command(flatten)]
        config: ConfigFlag,
        /// Whose.
        #[arg(long, value_name = "ID", value_parser = account_id)]
        account: AccountId,
        /// The calendar month in the catalogue's time zone, as 2026-11; the current one by default.
        #[arg(long, value_name = "YYYY-MM", value_parser = Month::parse)]
        month: Option<Month>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Quote what an order costs by the catalogue.
    Price {
        #[command(flatten)]
        config: ConfigFlag,
        #[command(subcommand)]
        order: Order,
    },
    /// Whether an order of packs is paid back, why, and how much by which fund.
    ///
    /// Exits 0 when it is, 1 when it is not, 2 when it cannot be told.
    Refund {
        #[command(flatten)]
        config: ConfigFlag,
        /// The order's id in the accounts file.
        #[arg(long, value_name = "ORDER")]
        order: String,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
        format: AnswerFormat,
    },
    /// Recompute chain, days, rollup and fixed statements from the records that the ledger keeps.
    ///
    /// Exits 1 and names the first row that does not fit. The chain proves that nothing was changed before a head that
    /// was published: give one from the log or a statement as --checkpoint, or all rows could have been written anew.
    Verify {
        #[command(flatten)]
        config: ConfigFlag,
        /// A head that must be in the chain: 64 hex digits.
        #[arg(long, value_name = "HEAD", value_parser = head)]
        checkpoint: Option<[u8; 32]>,
        /// The digest that a month's statements must have, as the log has it (`settled the month`); may be given for several.
        #[arg(long, value_name = "YYYY-MM=HEX", value_parser = month_digest)]
        digest: Vec<(Month, [u8; 32])>,
    },
    /// Admitted calls from the ledger, one line each: everybody's after a cursor, or one account's of a month.
    ///
    /// The next cursor is the last line's on standard error. A cursor older than the first kept record, or given out before
    /// a restore, exits 1. A month of an account
    /// is all that it takes to recount its statement.
    Records {
        #[command(flatten)]
        config: ConfigFlag,
        /// Print the records after this cursor: RESTORE_COUNT:SEQ, or SEQ of a ledger that was never restored.
        #[arg(long, default_value = "0", value_name = "CURSOR", value_parser = Cursor::parse, conflicts_with_all = ["account", "month"])]
        after: Cursor,
        /// Print this account's records of `--month`, all of them.
        #[arg(long, value_name = "ID", value_parser = account_id, requires = "month", conflicts_with = "limit")]
        account: Option<AccountId>,
        /// The calendar month in the catalogue's time zone, as 2026-11.
        #[arg(long, value_name = "YYYY-MM", value_parser = Month::parse, requires = "account")]
        month: Option<Month>,
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
    /// Print a script with which a shell completes the commands of tollgate.
    ///
    /// For bash: tollgate completions bash > /etc/bash_completion.d/tollgate
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory.
    #[command(hide = true)]
    Man {
        /// The directory; it must be there.
        directory: PathBuf,
    },
    /// Put a backup in the place of the ledger, while no gate runs.
    ///
    /// The ledger that is there is moved aside. Records get seqs far beyond those of the backup, so that none is given twice, and
    /// cursors that were given out before are refused with the way on. deploy/BACKUP.md has the steps.
    Restore {
        #[command(flatten)]
        config: ConfigFlag,
        /// The backup: a copy that `tollgate backup` made.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
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
        global = true,
        env = "TOLLGATE_CONFIG",
        default_value = "config/tollgate.yaml",
        value_name = "FILE"
    )]
    config: PathBuf,
}

/// What is to be priced.
#[derive(Subcommand)]
enum Order {
    /// Quote prepaid packs of calls (R11).
    #[command(
        after_help = "Example:\n  tollgate price packs --group portrait-segmentation --calls 10000 --count 2"
    )]
    Packs {
        /// The group.
        #[arg(long, value_name = "GROUP", value_parser = group_id)]
        group: GroupId,
        /// The size of a pack.
        #[arg(long, value_name = "N")]
        calls: u64,
        /// How many packs.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = up_to(config::MAX_PACKS))]
        count: u32,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
        format: AnswerFormat,
    },
    /// Quote a quota in calls per second, for months or for days (R15).
    #[command(
        after_help = "Examples:\n  tollgate price qps --group portrait-segmentation --qps 10 --months 1\n  tollgate price qps --group portrait-segmentation --qps 50 --days 3 --format json"
    )]
    Qps {
        /// The group.
        #[arg(long, value_name = "GROUP", value_parser = group_id)]
        group: GroupId,
        /// The quota.
        #[arg(long, value_name = "N", value_parser = up_to(config::MAX_QPS))]
        qps: u32,
        #[command(flatten)]
        period: Lasting,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
        format: AnswerFormat,
    },
}

/// For how long a quota is bought.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Lasting {
    /// For so many calendar months.
    #[arg(long, value_name = "N", value_parser = up_to(config::MAX_MONTHS))]
    months: Option<u32>,
    /// For so many days.
    #[arg(long, value_name = "N", value_parser = up_to(config::MAX_DAYS))]
    days: Option<u32>,
}

impl Order {
    fn goods(self) -> (GroupId, Goods, AnswerFormat) {
        match self {
            Self::Packs {
                group,
                calls,
                count,
                format,
            } => (group, Goods::Packs { calls, count }, format),
            Self::Qps {
                group,
                qps,
                period,
                format,
            } => {
                let period = match period.months {
                    Some(months) => Period::Months(months),
                    None => Period::Days(period.days.unwrap_or(0)),
                };
                (group, Goods::Qps { qps, period }, format)
            }
        }
    }
}

/// From 1 on: the bounds of the accounts file, into which the order would go.
fn up_to(most: u32) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(most))
}

fn group_id(text: &str) -> Result<GroupId, String> {
    GroupId::new(text).ok_or_else(|| "a group is 1 to 64 of a-z, 0-9 and -".into())
}

fn head(text: &str) -> Result<[u8; 32], String> {
    let mut head = [0; 32];
    hex::decode_to_slice(text, &mut head)
        .map_err(|_| "a head is 64 hex digits, as the log and statements have them")?;
    Ok(head)
}

fn month_digest(text: &str) -> Result<(Month, [u8; 32]), String> {
    let (month, digest) = text
        .split_once('=')
        .ok_or("write YYYY-MM=HEX, as in 2026-11=0123..ef")?;
    Ok((Month::parse(month)?, head(digest)?))
}

fn account_id(text: &str) -> Result<AccountId, String> {
    AccountId::new(text).ok_or_else(|| "an id is 1 to 32 letters, digits, `_` or `-`".into())
}

/// With an empty `TOLLGATE_CONFIG` as if it were not set: compose files and units pass on a variable that nobody set as
/// an empty one.
fn command_line() -> clap::Command {
    let as_if_not_set = |arg: clap::Arg| match arg.get_env() {
        Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => {
            arg.env(Resettable::Reset)
        }
        _ => arg,
    };
    Cli::command().mut_subcommands(|command| command.mut_args(as_if_not_set))
}

fn main() -> ExitCode {
    let matches = command_line().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // A script must not take "cannot be told" for "no".
    let unable = match cli.command {
        Command::Refund { .. } => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    };
    let done = match cli.command {
        Command::Serve(flag) => log_to_stderr(Level::INFO)
            .and_then(|(_flushed, dropped)| control_thread(run(dropped, flag.config))),
        Command::Demo { config, seconds } => {
            let serve = async {
                // Listened for from the start: the default action would leave the scratch ledger.
                let mut stop_signals = StopSignals::listen()?;
                let mut hangup = signal(SignalKind::hangup())?;
                ignore_harmless_signals()?;
                let stop = async {
                    tokio::select! {
                        _ = stop_signals.recv() => {}
                        _ = hangup.recv() => {}
                    }
                };
                let duration = seconds.map(Duration::from_secs);
                demo::run(&config, duration, std::io::stdout(), stop).await
            };
            log_to_stderr(Level::WARN).and_then(|_flushed| control_thread(serve))
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
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut script);
            print(|out| out.write_all(&script))
        }
        Command::Man { directory } => {
            clap_mangen::generate_to(Cli::command(), directory).map_err(Into::into)
        }
        Command::Usage {
            config,
            month,
            account,
            format,
        } => commands::usage(&config.config, month, account, format),
        Command::Statement {
            config,
            account,
            month,
            format,
        } => commands::statement(&config.config, &account, month, format),
        Command::Price { config, order } => {
            let (group, goods, format) = order.goods();
            commands::price(&config.config, &group, goods, format)
        }
        Command::Refund {
            config,
            order,
            format,
        } => {
            match commands::refund(&config.config, &order, format) {
                Ok(true) => Ok(()),
                // The answer is on standard output.
                Ok(false) => return ExitCode::FAILURE,
                Err(error) => Err(error),
            }
        }
        Command::Verify {
            config,
            checkpoint,
            digest,
        } => commands::verify(&config.config, checkpoint, &digest),
        Command::Records {
            config,
            after,
            account,
            month,
            limit,
            format,
        } => {
            let (which, limit) = match (account, month) {
                (Some(account), Some(month)) => (Which::Of(account, month), u64::MAX),
                _ => (Which::After(after), limit),
            };
            commands::records(&config.config, which, limit, format)
        }
        Command::Restore { config, from } => commands::put_back(&config.config, &from),
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
                Some(mistakes) => tell(mistakes),
                None => tell(format_args!("tollgate: {error:#}")),
            }
            unable
        }
    }
}

/// Logs until the guard is dropped, which writes what is left. A thread of its own writes: a log that
/// nobody reads must not hold up a call. Past [`LOG_LINES`] waiting lines the next are dropped, and counted.
///
/// # Errors
/// When `TOLLGATE_LOG` names no level.
fn log_to_stderr(default: Level) -> anyhow::Result<(WorkerGuard, ErrorCounter)> {
    let level = log_level(std::env::var_os("TOLLGATE_LOG").as_deref(), default)?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LOG_LINES)
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(is_terminal)
        // Else a log that cannot be written is told to standard error with `eprintln!`, which panics then.
        .log_internal_errors(false)
        .with_writer(writer);
    let kept = Targets::new()
        .with_default(level)
        .with_target(EVIDENCE, Level::INFO);
    let logs = tracing_subscriber::registry().with(kept);
    if is_terminal {
        logs.with(lines).init();
    } else {
        logs.with(lines.json().flatten_event(true)).init();
    }
    Ok((guard, dropped))
}

/// The level that `TOLLGATE_LOG` names, in capitals or not. Empty is the default: compose files and
/// units pass on a variable that nobody set as an empty one.
fn log_level(named: Option<&OsStr>, default: Level) -> anyhow::Result<Level> {
    let named = named.unwrap_or_default().to_string_lossy();
    match named.trim().to_ascii_lowercase().as_str() {
        "" => Ok(default),
        "error" => Ok(Level::ERROR),
        "warn" => Ok(Level::WARN),
        "info" => Ok(Level::INFO),
        "debug" => Ok(Level::DEBUG),
        _ => anyhow::bail!(
            "TOLLGATE_LOG: {named:?} is no level: write error, warn, info or debug, or leave it empty"
        ),
    }
}

fn control_thread(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    // What still reads the ledger on a thread of its own must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

async fn run(dropped: ErrorCounter, path: PathBuf) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stop = StopSignals::listen()?;
    ignore_harmless_signals()?;
    // A file at its size limit (RLIMIT_FSIZE) is trouble of the ledger, which waits for room. Unhandled,
    // this signal would end the process instead of failing the write.
    drop(signal(SignalKind::from_raw(
        rustix::process::Signal::XFSZ.as_raw(),
    ))?);
    let clock = Clock::default();
    let start = async {
        // A file system that does not answer must not keep the process from hearing a signal.
        let config = read_files(&clock, move || load(&path)).await??;
        anyhow::Ok(control::start(config, clock.clone()).await?)
    };
    let running = tokio::select! {
        running = start => running?,
        // No call was admitted yet; what is being done to the ledger goes on with the next start.
        signal = stop.recv() => {
            tracing::info!("{signal}: stopped before the first call was accepted");
            return Ok(());
        }
    };
    tokio::spawn(running.watch_upstream());
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    let mut reload = None;
    let signal = loop {
        tokio::select! {
            _ = tick.tick() => {
                let counter = &running.proxy.shared().metrics.log_lines_dropped;
                let lines = u64::try_from(dropped.dropped_lines()).unwrap_or(u64::MAX);
                counter.inc_by(lines.saturating_sub(counter.get()));
            }
            // What came of it is in the log and the metrics; the old policy serves on if it failed. One that
            // comes while the files are read is kept: they may have changed since.
            _ = hangup.recv(), if reload.is_none() => reload = Some(Box::pin(running.reload(ReloadOptions::default()))),
            Some(_) = OptionFuture::from(reload.as_mut()) => reload = None,
            signal = stop.recv() => break signal,
        }
    };
    tracing::info!("{signal}: draining");
    let first = Instant::now();
    let another = async {
        loop {
            let signal = stop.recv().await;
            if first.elapsed() >= SAME_SIGNAL {
                return signal;
            }
            tracing::info!("another {signal} within {SAME_SIGNAL:?} is taken for the same one");
        }
    };
    running
        .drain(another)
        .await
        .context("the ledger was not closed whole")
}

/// Whoever means the end often says it twice: a supervisor signals the process and then its group, a
/// terminal signals the group and a wrapper passes it on.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// The signals that ask the process to end.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl StopSignals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The next one's name. Those that come before they are waited for count once.
    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}

/// Takes the signals that other daemons take for a request (log rotation sends SIGUSR1) and that would end
/// this process by default.
fn ignore_harmless_signals() -> std::io::Result<()> {
    for (name, kind) in [
        ("SIGUSR1", SignalKind::user_defined1()),
        ("SIGUSR2", SignalKind::user_defined2()),
        ("SIGALRM", SignalKind::alarm()),
    ] {
        let mut harmless = signal(kind)?;
        tokio::spawn(async move {
            while harmless.recv().await.is_some() {
                tracing::info!(
                    "{name} is ignored: the log has no file to reopen, and SIGHUP reloads"
                );
            }
        });
    }
    Ok(())
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
        let UpstreamSettings {
            endpoint,
            connect_timeout,
            response_timeout,
            idle_timeout,
            max_age,
        } = &settings.upstream;
        let age = max_age.map_or("at any age".to_owned(), |age| {
            format!("to an age of {age:?}")
        });
        writeln!(
            out,
            "  upstream   {endpoint}  (connect {connect_timeout:?}, response {response_timeout:?}, kept idle for \
             {idle_timeout:?} {age})"
        )?;
        let limits = &settings.limits;
        writeln!(
            out,
            "  limits     {} connections{}, idle {:?}; drain {:?} after a notice of {:?}",
            limits.connections,
            if limits.connections_adapt {
                " or what the open files suffice for"
            } else {
                ""
            },
            limits.idle_timeout,
            limits.drain,
            limits.drain_notice
        )?;
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
