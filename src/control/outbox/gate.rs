//! What the parts of an outbox share.

use crate::control::Settler;
use crate::control::outbox::status::OutboxProgress;
use crate::control::standing::KnownCollector;
use crate::nats::{Nats, StreamOptions};
use crate::proxy::Shared;
use std::sync::Arc;

/// What the parts of an outbox share.
pub(in crate::control) struct GateOutbox {
    pub shared: Arc<Shared>,
    /// Knows whether the wall clock is trusted.
    pub settler: Arc<Settler>,
    pub nats: Nats,
    pub stream: StreamOptions,
    pub ledger_id: String,
    pub replica: String,
    /// The newest record that is billed in this ledger itself, and never sent.
    pub billed_seq: u64,
    pub progress: Arc<OutboxProgress>,
    /// Whose word on what is collected is believed.
    pub known: Arc<KnownCollector>,
}

impl GateOutbox {
    /// The connection, and how many servers keep a bucket.
    pub(in crate::control) fn nats(&self) -> (Nats, usize) {
        (self.nats.clone(), self.stream.replicas)
    }
}
