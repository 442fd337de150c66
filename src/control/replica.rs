//! The name of this gate among others, and what one of several does not do.
//!
//! Owns what it is called when the settings do not say. Must never fail: a name is a convenience.

use crate::config::Settings;

/// The setting `replica`, or the machine's host name; never empty.
pub(in crate::control) fn replica_name(settings: &Settings) -> String {
    settings.replica.clone().unwrap_or_else(|| {
        let told = rustix::system::uname();
        match told.nodename().to_string_lossy().trim() {
            "" => "unnamed".to_owned(),
            name => name.to_owned(),
        }
    })
}

/// Says at the start what is not done here by one of several gates.
pub(super) fn tell_replica(settings: &Settings) {
    if settings.outbox.is_some() {
        tracing::info!(
            replica = replica_name(settings),
            "the books are kept by the collector: days are sealed here; no month is fixed or debited, and no event is raised"
        );
        return;
    }
    if settings.store.is_none() {
        return;
    }
    tracing::warn!(
        replica = replica_name(settings),
        ledger = %settings.ledger.path.display(),
        "a store without an outbox: this gate is one of several replicas, and the records of the calls that it admits stay in its \
         own ledger. Nobody collects them for the bills, so none is deleted: the ledger grows. Days are sealed here; no month is \
         fixed or debited, no event is raised, and only `stopped:` in the accounts stops a customer"
    );
}
