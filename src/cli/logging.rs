//! The log of `serve` and `demo`: where it goes, how much of it, in which form.
//!
//! Owns `TOLLGATE_LOG`. Must never hold up a call: a thread of its own writes the lines.

use crate::control::EVIDENCE;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Log lines that may wait for their reader.
const WAITING_LINES: usize = 16_384;

/// Logs to standard error until the guard is dropped, which writes what is left. A log that nobody
/// reads must not hold up a call: past [`WAITING_LINES`] the next lines are dropped, and counted.
///
/// # Errors
/// When `TOLLGATE_LOG` names no level.
pub(crate) fn log_to_stderr(default: Level) -> anyhow::Result<(WorkerGuard, ErrorCounter)> {
    let level = log_level(std::env::var_os("TOLLGATE_LOG").as_deref(), default)?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .finish(io::stderr());
    let dropped = writer.error_counter();
    let is_terminal = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(is_terminal)
        // Else the layer tells a failed write to standard error with `eprintln!`, which panics
        // then.
        .log_internal_errors(false)
        .with_writer(writer);
    // Sealed days and settled months are evidence: no level silences them. What a client sends over
    // HTTP/2 is no event of ours: it could fill the disk with a line for each frame.
    let kept = Targets::new()
        .with_default(level)
        .with_target("h2", Level::ERROR)
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
