//! What goes on beside the calls for the upstreams in force: checks, look-ups, tries of servers that
//! are out; and the word for the operator when one cannot be reached.
//!
//! Owns that it goes on for one generation at a time.

use crate::control::reload::Reloader;
use crate::proxy::Shared;
use crate::proxy::upstream::Upstream;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How often an upstream that cannot be reached is dialled beside the calls.
const DIAL_EVERY: Duration = Duration::from_secs(5);

/// Attends the upstreams of the generation in force. Runs until it is dropped.
pub(in crate::control) async fn attend_upstreams(shared: Arc<Shared>, reloader: Arc<Reloader>) {
    let mut reloaded = reloader.reloaded();
    loop {
        reloaded.mark_unchanged();
        let mut attending = JoinSet::new();
        let policy = shared.policy.load_full();
        for upstream in policy.upstreams.iter() {
            attending.spawn(upstream.clone().attend());
            attending.spawn(upstream.clone().look_up_names());
        }
        // An idle gate must not keep a generation that is gone.
        drop(policy);
        if reloaded.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Says in the log when an upstream cannot be reached, from now on and whether or not there are
/// calls, and when it can be reached again. While it cannot, it is dialled every few seconds. Runs
/// until it is dropped.
pub(in crate::control) async fn tell_of_upstreams(shared: Arc<Shared>) {
    let mut told: HashSet<Box<str>> = HashSet::new();
    loop {
        let upstreams: Vec<Arc<Upstream>> = {
            let policy = shared.policy.load();
            policy.upstreams.iter().cloned().collect()
        };
        told.retain(|name| upstreams.iter().any(|upstream| upstream.name == *name));
        for upstream in upstreams {
            // The calls' own findings are known there too.
            let reached = match upstream.is_up() {
                true => Ok(()),
                false => upstream.reach().await,
            };
            match reached {
                Err(failure) if told.insert(upstream.name.clone()) => {
                    let upstream = &upstream.name;
                    tracing::warn!(%upstream, "{failure}: calls get 502 until it can be reached");
                }
                Ok(()) if told.remove(&upstream.name) => {
                    let upstream = &upstream.name;
                    tracing::info!(%upstream, "the upstream can be reached");
                }
                _ => {}
            }
        }
        shared.clock.sleep(DIAL_EVERY).await;
    }
}
