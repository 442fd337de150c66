//! How many connections there can be by the limit of open files, which is raised where it may be.

use crate::config::Settings;
use crate::control::admin;
use crate::http::PIPES;
use crate::proxy::upstream::CHECKS_AT_ONCE;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors beyond those of connections: ledger, listeners, runtimes, logs; the admin
/// listener's connections; the two ends of each pipe; the connections of checks of servers.
const SPARE_FILES: u64 = 128 + admin::CONNECTIONS as u64 + 2 * PIPES as u64 + CHECKS_AT_ONCE as u64;
/// Those of a worker's runtime.
const WORKER_FILES: u64 = 4;
/// Those of a worker's listener: itself, and a connection that was accepted and waits for a place.
const LISTENER_FILES: u64 = 2;

/// Too few file descriptors.
#[derive(thiserror::Error, Debug)]
#[error(
        "limits.connections: {connections} needs {needed} open files and the system allows {allowed}; raise the limit \
         to at least {needed} (`ulimit -n {needed}`, or LimitNOFILE={needed} in the systemd unit){}",
        lower_remedy(*fits)
    )]
pub struct TooFewFiles {
    /// `limits.connections`; 1 when it adapts and not even one would fit.
    connections: usize,
    /// RLIMIT_NOFILE that it needs.
    needed: u64,
    /// The hard limit.
    allowed: u64,
    /// The number of connections that would fit; 0 when none does.
    fits: u64,
}

fn lower_remedy(fits: u64) -> String {
    match fits {
        0 => String::new(),
        fits => format!(" or lower limits.connections to {fits}"),
    }
}

/// How many files the process may have open.
pub(super) fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The number of connections that there can be: one descriptor for the client and one for the
/// upstream of each, some for each worker, and some. Raises the limit of open files as far as it
/// must.
///
/// `proxy::places` holds the clients' connections to it, and `proxy::upstream::Upstreams` those to
/// all upstreams together: however many calls HTTP/2 brings on one connection, and however many
/// upstreams there are.
pub(super) fn fit_connections(settings: &Settings, workers: usize) -> Result<usize, TooFewFiles> {
    let limits = &settings.limits;
    let connections = limits.connections;
    let of_listeners = LISTENER_FILES * settings.listen.addresses().len() as u64;
    let spare = SPARE_FILES + (WORKER_FILES + of_listeners) * workers as u64;
    let needed_for = |connections| connections as u64 * 2 + spare;
    let needed = needed_for(connections);
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let raise = |current: u64| {
        // Root may raise the hard limit too.
        let maximum = limit.maximum.map(|maximum| maximum.max(current));
        let raised = Rlimit {
            current: Some(current),
            maximum,
        };
        setrlimit(Resource::Nofile, raised).is_ok()
    };
    if current >= needed || raise(needed) {
        return Ok(connections);
    }
    let most = limit.maximum.unwrap_or(current);
    let allowed = if raise(most) { most } else { current };
    let fits = allowed.saturating_sub(spare) / 2;
    if !limits.connections_adapt || fits == 0 {
        let connections = if limits.connections_adapt {
            1
        } else {
            connections
        };
        return Err(TooFewFiles {
            connections,
            needed: needed_for(connections),
            allowed,
            fits,
        });
    }
    tracing::warn!(
        "the system allows {allowed} open files: {fits} connections instead of {connections}; raise the limit \
         (`ulimit -n {needed}`, or LimitNOFILE={needed} in the systemd unit) or write `limits: {{connections: {fits}}}`"
    );
    Ok(usize::try_from(fits).unwrap_or(usize::MAX))
}
