//! How far the outbox is, for metrics, the status page and the log.
//!
//! Must never be waited for: a lock here is held for an assignment.

use crate::metrics::Metrics;
use crate::model::{Clock, Mono, Utc};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// How far the outbox is.
pub(in crate::control) struct OutboxProgress {
    clock: Clock,
    metrics: Arc<Metrics>,
    stream: String,
    state: Mutex<OutboxState>,
}

/// A reading of [`OutboxProgress`].
#[derive(Clone, Debug)]
pub(in crate::control) struct OutboxState {
    /// The newest record that NATS has acknowledged, or that need not be sent.
    pub sent_seq: u64,
    /// The newest record that the collector has.
    pub collected_seq: u64,
    /// What keeps records from being sent now; `None` when nothing does.
    pub trouble: Option<String>,
    /// Since when it is so.
    pub since: Utc,
    /// Everything that was recorded before this instant was sent.
    caught_up: Mono,
}

impl OutboxProgress {
    pub(super) fn new(clock: Clock, metrics: Arc<Metrics>, stream: &str, sent_seq: u64) -> Self {
        let state = OutboxState {
            sent_seq,
            collected_seq: sent_seq,
            trouble: Some("not begun yet".to_owned()),
            since: clock.utc(),
            caught_up: clock.mono(),
        };
        metrics.set_outbox_up(stream, false);
        Self {
            clock,
            metrics,
            stream: stream.to_owned(),
            state: Mutex::new(state),
        }
    }

    pub(in crate::control) fn read(&self) -> OutboxState {
        self.state.lock().clone()
    }

    /// How long the oldest record that was not sent has waited at most, when there is one.
    pub(in crate::control) fn lag(&self, last_seq: u64) -> (u64, Duration) {
        let state = self.state.lock();
        let records = last_seq.saturating_sub(state.sent_seq);
        match records {
            0 => (0, Duration::ZERO),
            records => (records, self.clock.mono().since(state.caught_up)),
        }
    }

    /// Records up to here were sent. They are all that there were at `caught_up`, when that is told.
    pub(super) fn sent(&self, seq: u64, caught_up: Option<Mono>) {
        let mut state = self.state.lock();
        state.sent_seq = seq;
        if let Some(at) = caught_up {
            state.caught_up = at;
        }
    }

    pub(super) fn collected(&self, seq: u64) {
        self.state.lock().collected_seq = seq;
    }

    /// What keeps records from being sent, or that nothing does. A change is a line in the log.
    pub(super) fn tell(&self, trouble: Option<String>) {
        let now = self.clock.utc();
        let before = {
            let mut state = self.state.lock();
            if state.trouble.is_some() != trouble.is_some() {
                state.since = now;
            }
            std::mem::replace(&mut state.trouble, trouble.clone())
        };
        self.metrics.set_outbox_up(&self.stream, trouble.is_none());
        match (before, trouble) {
            (Some(_), None) => tracing::info!(stream = self.stream, "records are sent"),
            (before, Some(why)) if before.as_ref() != Some(&why) => {
                tracing::warn!("records are not sent and wait in the ledger, which goes on: {why}");
            }
            _ => {}
        }
    }
}
