//! What the ledgers say of themselves each second: all that was admitted before T is at seq s or
//! before.
//!
//! Must never keep an instant that has not come: a gate whose clock was ahead and is set right would
//! be silent for so long, and nobody would see it.

use crate::control::Settler;
use crate::control::collector::progress::Progress;
use crate::control::outbox::{WATERMARKS, WatermarkValue};
use crate::ledger::{Watermark, is_ledger_id};
use crate::model::Utc;
use crate::nats::{KeyValues, Nats, NatsError};
use crate::proxy::Shared;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the bucket is read.
const EVERY: Duration = Duration::from_secs(1);
/// By so much the clocks of a gate and of the collector may differ without a word.
const AHEAD: Duration = Duration::from_secs(2);

pub(super) struct Marks {
    pub shared: Arc<Shared>,
    pub nats: Nats,
    pub replicas: usize,
    pub progress: Arc<Progress>,
    /// Closes nothing before it is known whom it waits for.
    pub settler: Arc<Settler>,
    /// Whether this process is the one that collects.
    pub held: watch::Receiver<bool>,
    /// Whether the messages that were there were read once.
    pub read_once: watch::Receiver<bool>,
}

impl Marks {
    /// Reads the bucket each second. Runs until it is dropped.
    pub(super) async fn run(self) {
        let (mut seen, mut told) = (HashMap::new(), String::new());
        let mut may_close = false;
        loop {
            let held = *self.held.borrow();
            let failure = match held {
                true => self.read(&mut seen).await.err().unwrap_or_default(),
                false => String::new(),
            };
            // Once all marks and messages were read it is known whom days and months wait for: those of
            // whom nothing comes later hold them up by what is kept of them.
            let knows_all = failure.is_empty() && *self.read_once.borrow();
            let may_close_now = held && (may_close || knows_all);
            if may_close != may_close_now {
                may_close = may_close_now;
                let settler = self.settler.clone();
                let told = tokio::task::spawn_blocking(move || settler.let_close(may_close));
                if let Err(error) = told.await {
                    tracing::error!(%error, "the settler is not told whether it may close");
                }
            }
            if !failure.is_empty() && failure != told {
                tracing::warn!(
                    "the watermarks of the gates cannot be kept: {failure}; trying again"
                );
            }
            told = failure;
            self.show().await;
            self.shared.clock.sleep(EVERY).await;
        }
    }

    async fn read(&self, seen: &mut HashMap<String, u64>) -> Result<(), String> {
        let of_nats = |error: NatsError| error.to_string();
        let bucket = self
            .nats
            .bucket(WATERMARKS, self.replicas)
            .await
            .map_err(of_nats)?;
        let changed = changed(&bucket, seen).await.map_err(of_nats)?;
        let now = self.shared.clock.utc();
        let mut marks = Vec::new();
        for (ledger_id, revision, bytes) in changed {
            seen.insert(ledger_id.clone(), revision);
            match WatermarkValue::decode(&bytes) {
                Ok(mut value) => {
                    if value.at.is_some_and(|at| at.since(now) > AHEAD) {
                        // Once, and not again with a later now: its gate may have been set right since,
                        // and have admitted calls before that instant.
                        value.at = Some(now);
                        seen.remove(&ledger_id);
                        let written = bucket.put(&ledger_id, value.encode()).await;
                        seen.insert(ledger_id.clone(), written.map_err(of_nats)?);
                        tracing::warn!(
                            ledger = ledger_id,
                            replica = value.replica,
                            "the clock of a gate is ahead of the collector's: its watermark is taken as one of now. Compare both clocks with NTP"
                        );
                    }
                    marks.push(watermark(ledger_id, value, now));
                }
                Err(why) => tracing::warn!(ledger = ledger_id, "a watermark cannot be read: {why}"),
            }
        }
        if marks.is_empty() {
            return Ok(());
        }
        let shared = self.shared.clone();
        let kept = tokio::task::spawn_blocking(move || shared.ledger.watermark_of(marks)).await;
        let kept = kept
            .map_err(|error| error.to_string())
            .and_then(|kept| kept.map_err(|error| error.to_string()));
        // What was not kept is read again.
        kept.inspect_err(|_| seen.clear())
    }

    async fn show(&self) {
        let (shared, progress) = (self.shared.clone(), self.progress.clone());
        let shown = tokio::task::spawn_blocking(move || {
            if let Ok(reader) = shared.ledger.reader() {
                progress.read(&reader, shared.clock.utc());
            }
        });
        if let Err(error) = shown.await {
            tracing::error!(%error, "how far the collector is cannot be shown");
        }
    }
}

/// The values that changed since they were seen.
async fn changed(
    bucket: &KeyValues,
    seen: &HashMap<String, u64>,
) -> Result<Vec<(String, u64, bytes::Bytes)>, NatsError> {
    let mut changed = Vec::new();
    for key in bucket.keys().await? {
        if is_ledger_id(&key)
            && let Some(value) = bucket.get(&key).await?
            && seen.get(&key) != Some(&value.revision)
        {
            changed.push((key, value.revision, value.bytes));
        }
    }
    Ok(changed)
}

/// As it is kept: not beyond the collector's own now. What the gate admits once its clock is right
/// is then not before the instant either.
fn watermark(ledger_id: String, value: WatermarkValue, now: Utc) -> Watermark {
    Watermark {
        ledger_id,
        replica: value.replica,
        at: value.at.map(|at| at.min(now)),
        seq: value.seq,
        billed_seq: value.billed_seq,
    }
}
