//! The outbox at the start of a gate.
//!
//! Owns what of NATS must be so before the first call. Must never keep a gate from starting because
//! NATS is away.

use crate::config::{OutboxSettings, Settings};
use crate::control::Settler;
use crate::control::outbox::gate::GateOutbox;
use crate::control::outbox::options::{nats_options, stream_options};
use crate::control::outbox::status::OutboxProgress;
use crate::control::replica::replica_name;
use crate::control::standing::KnownCollector;
use crate::ledger::{LedgerError, ReadError, StoreError};
use crate::model::ONE_NATS_SERVER;
use crate::nats::{BadNatsOptions, Nats, NatsError, StreamOptions};
use crate::proxy::Shared;
use std::sync::Arc;
use std::time::Duration;

/// How long the start waits for NATS, to look at what is there.
const LOOK_AT: Duration = Duration::from_secs(3);

/// Why the outbox cannot be used.
#[derive(thiserror::Error, Debug)]
pub enum UnfitOutbox {
    /// The settings cannot be used.
    #[error("`outbox.nats`: {0}")]
    Options(#[from] BadNatsOptions),
    /// The stream is not what it must be, or NATS refuses it.
    #[error("`outbox.nats`: {0}")]
    Unfit(NatsError),
    /// The ledger cannot be opened.
    #[error("the outbox: {0}")]
    Open(#[from] LedgerError),
    /// The ledger cannot be read.
    #[error("the outbox: {0}")]
    Read(#[from] ReadError),
    /// The ledger cannot be written.
    #[error("the outbox: {0}")]
    Store(#[from] StoreError),
    /// The thread that reads it ended.
    #[error("the outbox: {0}")]
    System(#[from] tokio::task::JoinError),
}

/// The connection, for a gate and for the collector. Where NATS answers in time the stream is looked
/// at: one that does not fit is told at once, and not found in the log a day later. `waits`: what
/// becomes of the records until it is there.
pub(in crate::control) async fn connected(
    written: &OutboxSettings,
    settings: &Settings,
    waits: &str,
) -> Result<(Nats, StreamOptions), UnfitOutbox> {
    let stream = stream_options(written);
    let nats = Nats::connect(&nats_options(written, settings)).await?;
    if !nats.connected(LOOK_AT).await {
        let trouble = nats.status().trouble.unwrap_or_default();
        tracing::warn!("NATS is not there yet ({trouble}): {waits}");
        return Ok((nats, stream));
    }
    match nats.records(&stream).await {
        Ok(_) => {}
        Err(error @ (NatsError::Unfit { .. } | NatsError::Refused { .. })) => {
            return Err(UnfitOutbox::Unfit(error));
        }
        Err(error) => tracing::warn!("the stream of records cannot be looked at: {error}"),
    }
    Ok((nats, stream))
}

/// The outbox, when the settings have one.
pub(in crate::control) async fn outbox(
    settings: &Settings,
    shared: &Arc<Shared>,
    settler: &Arc<Settler>,
) -> Result<Option<Arc<GateOutbox>>, UnfitOutbox> {
    let Some(written) = &settings.outbox else {
        return Ok(None);
    };
    let (nats, stream) = connected(written, settings, "records wait in the ledger").await?;
    if stream.replicas == 1 {
        tracing::warn!(
            "{ONE_NATS_SERVER} (`outbox.nats.replicas: 1`), and by default it syncs its disk every two minutes: \
             after a power cut there, what was not collected is sent again from this ledger. `sync_interval: always` or a cluster \
             avoids that"
        );
    }
    let of = shared.clone();
    let read = tokio::task::spawn_blocking(move || {
        // Before the first is sent: who takes the outbox out later must know.
        of.ledger.sends()?;
        let reader = of.ledger.reader()?;
        Ok::<_, UnfitOutbox>((reader.ledger_id()?, reader.outbox()?))
    });
    let (ledger_id, cursor) = read.await??;
    let collected = cursor.collected_seq;
    let (clock, metrics) = (shared.clock.clone(), shared.metrics.clone());
    let progress = OutboxProgress::new(clock, metrics, &stream.stream, collected);
    tracing::info!(
        stream = stream.stream,
        ledger = ledger_id,
        after = collected,
        "records are sent to the collector, which keeps the books"
    );
    let heard = shared.heard();
    let books = heard.as_deref().map(|heard| &heard.books);
    Ok(Some(Arc::new(GateOutbox {
        shared: shared.clone(),
        settler: settler.clone(),
        nats,
        stream,
        ledger_id,
        replica: replica_name(settings),
        billed_seq: cursor.billed_seq,
        progress: Arc::new(progress),
        known: Arc::new(KnownCollector::new(books, cursor.collected_in)),
    })))
}
