//! Licences (R19) in the process: where trials are taken, and when their desk hears and tells what
//! is new.
//!
//! Must never let a gate that is one of several give out trials by its own ledger.

use crate::licence::SharedTrials;
use crate::nats::Nats;
use crate::portal::{LicenceDesk, Portal, TrialPlaces, UnreadLicences};
use crate::proxy::Proxy;
use std::sync::Arc;
use std::time::Duration;

/// Between two times that other gates are heard and the ledger is told. What was revoked at another
/// gate is heard after this and the time of the answer.
const EVERY: Duration = Duration::from_secs(5);

/// The front of a gate, or of a collector, which takes no calls. `nats`: by which trials are shared
/// with other gates, and how many servers keep a bucket.
pub(in crate::control) async fn portal(
    proxy: &Arc<Proxy>,
    nats: Option<(Nats, usize)>,
    takes_calls: bool,
) -> Result<Arc<Portal>, UnreadLicences> {
    let shared = proxy.shared().clone();
    let places = match nats {
        Some((nats, replicas)) => TrialPlaces::Shared(Box::new(SharedTrials::new(nats, replicas))),
        None if shared.windows.is_some() => TrialPlaces::Nowhere,
        None => TrialPlaces::Ledger,
    };
    let patience = proxy.response_timeout();
    let opened = tokio::task::spawn_blocking(move || LicenceDesk::open(shared, places, patience));
    let desk = Arc::new(opened.await??);
    let portal = match takes_calls {
        true => Portal::new(proxy.clone(), desk),
        false => Portal::without_calls(proxy.clone(), desk),
    };
    Ok(Arc::new(portal))
}

/// Keeps the desk up to date for ever.
pub(in crate::control) async fn settle_licences(desk: Arc<LicenceDesk>) {
    loop {
        desk.settle().await;
        tokio::time::sleep(EVERY).await;
    }
}
