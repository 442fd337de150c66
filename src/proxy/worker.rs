//! What a worker has of its own.

use crate::proxy::decisions::DecisionRing;
use crate::proxy::handshakes::Handshakes;
use crate::store::LinkHandle;
use std::sync::Arc;

/// What belongs to the worker's runtime.
pub struct Worker {
    /// Its number, by which it finds its connections to the upstreams.
    pub index: usize,
    /// Those to the shared store; `None` when this process decides alone.
    pub store: Option<Arc<LinkHandle>>,
    /// Where it keeps why calls were not let through.
    pub(crate) decisions: Arc<DecisionRing>,
    /// The turns of its connections that begin TLS.
    pub(crate) handshakes: Handshakes,
}
