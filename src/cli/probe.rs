//! `tollgate probe`: whether the process on this machine works, for a health check.
//!
//! Owns the sentence and the deadline. Must never need more of the files than where to ask: a
//! mistake in the catalogue does not make a process that runs unwell.

use crate::cli::flags_probe::ProbeFlags;
use crate::cli::operators::{ask_operators, place};
use crate::cli::output::print;
use crate::cli::serve::control_thread;
use crate::config::load_admin;
use anyhow::{Context, bail};
use http::{Method, StatusCode};
use std::time::Duration;

/// Shorter than the time that a health check is given.
const DEADLINE: Duration = Duration::from_secs(4);

/// Asks the admin listener of these settings.
///
/// # Errors
/// When the process does not answer, or answers that it is not ready (with `--live`: that only
/// another process can help).
pub fn probe(flags: &ProbeFlags) -> anyhow::Result<()> {
    let admin = load_admin(&flags.config.config)?;
    let (path, well) = match flags.live {
        true => ("/livez", "the process runs"),
        false => ("/readyz", "calls are accepted"),
    };
    let place = place(&admin, path);
    control_thread(async {
        let asked = tokio::time::timeout(DEADLINE, ask_operators(&admin, &Method::GET, path));
        let asked = asked
            .await
            .with_context(|| format!("{place} does not answer within {DEADLINE:?}"))?;
        let (status, body) =
            asked.with_context(|| format!("{place} cannot be asked: does tollgate run?"))?;
        if status == StatusCode::OK {
            return print(|out| writeln!(out, "{well}: {place} says so"));
        }
        let said = String::from_utf8_lossy(&body);
        bail!("{} ({place}, {})", said.trim(), status.as_u16())
    })
}
