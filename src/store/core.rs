//! What the connections of all runtimes share.
//!
//! Owns nothing that belongs to a runtime.

use crate::model::Clock;
use crate::store::dial::{BadCertificates, Dialer, Login};
use crate::store::options::StoreOptions;
use crate::store::status::{Board, Counters, StoreListener};
use std::sync::Arc;
use std::time::Duration;

/// What the connections of all runtimes share.
pub(crate) struct Core {
    pub(crate) options: StoreOptions,
    pub(crate) dialer: Dialer,
    pub(crate) login: Login,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) board: Board,
    pub(crate) listener: Arc<dyn StoreListener>,
}

impl Core {
    pub(crate) fn new(
        options: StoreOptions,
        clock: Clock,
        listener: Arc<dyn StoreListener>,
    ) -> Result<Self, BadCertificates> {
        Ok(Self {
            dialer: Dialer::new(&options)?,
            login: Login::to_nodes(&options),
            counters: Counters::default(),
            board: Board::new(clock.clone()),
            options,
            clock,
            listener,
        })
    }
}

/// A pause before the next attempt: replicas that lost a store together do not come back together.
pub(crate) fn jitter() -> Duration {
    // Without random bits the pauses are equal, which is no harm to this one.
    let random = getrandom::u32().unwrap_or_default();
    Duration::from_millis(50 + u64::from(random % 201))
}

/// A name that no other connection has, to be a part of the name of a store's process.
pub(crate) fn nonce(replica: &str) -> String {
    format!("{replica}-{:016x}-", getrandom::u64().unwrap_or_default())
}
