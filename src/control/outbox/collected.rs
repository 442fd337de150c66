//! Hears what the collector has, and lets the ledger delete no more than that.
//!
//! Must never take more for collected than this ledger has.

use crate::control::outbox::gate::GateOutbox;
use crate::control::outbox::values::{COLLECTED, CollectedValue};
use crate::nats::NatsError;
use std::time::Duration;

/// The pause after something that did not work.
const PAUSE: Duration = Duration::from_secs(1);

/// Hears it for ever.
pub(super) async fn hear_collected(of: &GateOutbox) {
    loop {
        // That NATS is away is told by the sender.
        if let Err(error) = hear(of).await {
            tracing::debug!("what is collected is not heard: {error}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn hear(of: &GateOutbox) -> Result<(), NatsError> {
    let bucket = of.nats.bucket(COLLECTED, of.stream.replicas).await?;
    let mut watched = bucket.watch(&of.ledger_id);
    loop {
        let value = watched.next().await?;
        let CollectedValue { seq, by } = match CollectedValue::decode(&value.bytes) {
            Ok(value) if value.seq <= of.shared.ledger.last_seq() => value,
            Ok(CollectedValue { seq, .. }) => {
                tracing::error!(
                    "the collector says that it has record {seq} of this ledger, which ends before: it is not believed"
                );
                continue;
            }
            Err(why) => {
                tracing::error!("what the collector has cannot be read: {why}");
                continue;
            }
        };
        // Until its standing was heard, and by that whether an operator has put it there.
        if !of.known.is(&by.ledger_id) {
            return Err(NatsError::Away(format!(
                "it is told of the ledger {}",
                by.ledger_id
            )));
        }
        let shared = of.shared.clone();
        let kept = tokio::task::spawn_blocking(move || shared.ledger.collected(seq, by)).await;
        match kept {
            Ok(Ok(())) => of.progress.collected(seq),
            // It is said again with the next records.
            Ok(Err(error)) => tracing::debug!("what is collected is not kept: {error}"),
            Err(error) => tracing::error!(%error, "what is collected is not kept"),
        }
    }
}
