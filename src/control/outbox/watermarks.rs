//! Says each second that this ledger is there, and up to when it is whole: months are closed by that.
//!
//! Must never say an instant by a clock that is not trusted, one that has not come, nor one of a ledger
//! that cannot be sent.

use crate::control::outbox::gate::GateOutbox;
use crate::control::outbox::values::{WATERMARKS, WatermarkValue};
use crate::model::Utc;
use crate::nats::{KeyValues, NatsError};
use std::time::Duration;

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// Says it for ever.
pub(super) async fn say_watermarks(of: &GateOutbox) {
    let (mut bucket, mut told) = (None, false);
    loop {
        if let Err(error) = say(of, &mut bucket).await {
            bucket = None;
            if !std::mem::replace(&mut told, true) {
                tracing::debug!("no watermark is said: {error}");
            }
        } else {
            told = false;
        }
        of.shared.clock.sleep(EVERY).await;
    }
}

/// Says it once.
pub(super) async fn say(of: &GateOutbox, bucket: &mut Option<KeyValues>) -> Result<(), NatsError> {
    let value = watermark(of);
    let bucket = match bucket {
        Some(bucket) => bucket,
        None => bucket.insert(of.nats.bucket(WATERMARKS, of.stream.replicas).await?),
    };
    bucket.put(&of.ledger_id, value.encode()).await.map(drop)
}

/// What is known of the ledger. The collector waits for one that can say nothing more than its name.
fn watermark(of: &GateOutbox) -> WatermarkValue {
    let known = instant(of);
    WatermarkValue {
        replica: of.replica.clone(),
        at: known.map(|(at, _)| at),
        seq: known.map_or_else(|| of.shared.ledger.last_seq(), |(_, seq)| seq),
        billed_seq: of.billed_seq,
    }
}

/// All that was admitted before the instant is at this seq or before; `None` when nothing can be said.
fn instant(of: &GateOutbox) -> Option<(Utc, u64)> {
    let clock = &of.shared.clock;
    // A ledger that cannot be sent may be an older copy, whose records the collector takes for others
    // that it has.
    if !of.settler.clock_is_trusted() || of.progress.read().trouble.is_some() {
        return None;
    }
    // Records carry the start by the store's clock where there is a store.
    let reached = match &of.shared.windows {
        Some(windows) => windows.reached()?.min(clock.utc()),
        None => clock.utc(),
    };
    let now = || match &of.shared.windows {
        Some(_) => reached,
        None => clock.utc(),
    };
    of.shared.ledger.watermark(now)
}
