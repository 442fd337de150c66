//! The shared store at the start: whether it is fit, and the way there.
//!
//! Owns what a store must be before the first call, and the translation of its settings. Must never
//! begin with a store that may forget a window.

use crate::config::{Settings, StoreSettings, StoreTopology};
use crate::control::replica::replica_name;
use crate::metrics::Metrics;
use crate::model::Clock;
use crate::proxy::admission::SharedWindows;
use crate::store::{
    self, BadCertificates, CheckError, Checked, NodeAddress, StoreOptions, TlsOptions, Topology,
};
use std::sync::Arc;

/// Why the store cannot be used.
#[derive(thiserror::Error, Debug)]
pub enum UnfitStore {
    /// It is not fit, or not there.
    #[error("`admission.store`: {0}")]
    Unfit(CheckError),
    /// No certificate can be trusted.
    #[error("`admission.store`: {0}")]
    Certificates(BadCertificates),
}

// By hand, so that no error is its own source as well: its words would be printed twice.
impl From<CheckError> for UnfitStore {
    fn from(error: CheckError) -> Self {
        Self::Unfit(error)
    }
}

impl From<BadCertificates> for UnfitStore {
    fn from(error: BadCertificates) -> Self {
        Self::Certificates(error)
    }
}

/// The windows of the store, when the settings name one. Looks at each of its nodes first.
pub(super) async fn windows(
    settings: &Settings,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<Option<Arc<SharedWindows>>, UnfitStore> {
    let Some(written) = &settings.store else {
        return Ok(None);
    };
    let options = options(written, settings);
    let Checked { warnings, hold } = store::check(&options).await?;
    for warning in warnings {
        tracing::warn!("the store: {warning}");
    }
    tracing::info!(?hold, "a shared store decides the starts");
    let windows = SharedWindows::new(options, clock.clone(), metrics.clone())?;
    Ok(Some(Arc::new(windows)))
}

fn options(written: &StoreSettings, settings: &Settings) -> StoreOptions {
    let node = |node: &crate::config::Endpoint| NodeAddress {
        host: node.host.clone(),
        port: node.port,
    };
    let topology = match &written.topology {
        StoreTopology::Single => Topology::Single,
        StoreTopology::Sentinel {
            primary,
            username,
            password,
        } => Topology::Sentinel {
            master: primary.clone(),
            username: username.clone(),
            password: password.clone(),
        },
        StoreTopology::Cluster => Topology::Cluster,
    };
    StoreOptions {
        nodes: written.nodes.iter().map(node).collect(),
        topology,
        tls: written.tls.then(|| TlsOptions {
            ca: written.ca.clone(),
        }),
        username: written.username.clone(),
        password: written.password.clone(),
        database: written.database,
        budget: written.budget,
        max_delay: settings.max_delay,
        replica: replica_name(settings),
    }
}
