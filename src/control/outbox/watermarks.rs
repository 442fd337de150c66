//! Says each second up to when this ledger is whole: months are closed by that.
//!
//! Must never say it by a clock that is not trusted, of an instant that has not come, nor of a ledger
//! that cannot be sent.

use crate::control::outbox::gate::GateOutbox;
use crate::control::outbox::values::{WATERMARKS, WatermarkValue};
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
    let Some(value) = watermark(of) else {
        return Ok(());
    };
    let bucket = match bucket {
        Some(bucket) => bucket,
        None => bucket.insert(of.nats.bucket(WATERMARKS, of.stream.replicas).await?),
    };
    bucket.put(&of.ledger_id, value.encode()).await.map(drop)
}

/// What is known of the ledger; `None` when there is nothing to be said.
fn watermark(of: &GateOutbox) -> Option<WatermarkValue> {
    let clock = &of.shared.clock;
    if !of.settler.clock_is_trusted() {
        return None;
    }
    let progress = of.progress.read();
    // Nor of a ledger that cannot be sent: it may be an older copy, whose records the collector takes
    // for others that it has.
    if progress.trouble.is_some() {
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
    let (at, seq) = of.shared.ledger.watermark(now)?;
    Some(WatermarkValue {
        replica: of.replica.clone(),
        at,
        seq,
        billed_seq: of.billed_seq,
    })
}
