//! Reload: files -> load -> build -> swap -> report.
//!
//! Owns the order of these steps. Must never put half a configuration in force, and never touch a
//! window.

use crate::config::{self, Mistakes};
use crate::policy::Policy;
use crate::proxy::Proxy;
use std::path::Path;
use std::sync::Arc;

/// Loads the files behind `path` and puts catalogue and accounts in force, whole or not at all.
/// Settings of tollgate.yaml itself are read at start only. Returns the new generation.
pub fn reload(proxy: &Proxy, path: &Path) -> Result<u64, Mistakes> {
    let config = config::load(path).inspect_err(|_| {
        proxy.metrics.config_reload_failures.inc();
        proxy.metrics.config_last_reload_success.set(0);
    })?;
    let generation = proxy.policy.load().generation + 1;
    let policy = Policy::build(
        generation,
        Arc::new(config.catalog),
        &config.accounts,
        &proxy.gates,
        &proxy.metrics,
    );
    policy.put_in_force();
    // Calls keep what they use, so the retired generation is dropped here, off the workers.
    drop(proxy.policy.swap(Arc::new(policy)));
    proxy.metrics.config_last_reload_success.set(1);
    Ok(generation)
}
