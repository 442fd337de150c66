//! How far the collector is: for `/status`, the metrics and the log.
//!
//! Must never be what anything is decided by.

use crate::control::collector::ledgers::missing;
use crate::ledger::{Reader, SourceLedger};
use crate::metrics::{Metrics, SourceFigures};
use crate::model::Utc;
use crate::nats::{Nats, NatsStatus};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The log is told of a ledger's troubles so often at most.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// What is known of the work.
pub(in crate::control) struct Progress {
    nats: Nats,
    metrics: Arc<Metrics>,
    state: Mutex<ProgressState>,
}

#[derive(Default)]
struct ProgressState {
    sources: Vec<SourceLedger>,
    /// The ledgers whose records are not taken, and why.
    broken: BTreeMap<String, String>,
    /// Those of them of which messages were damaged, and nothing else is known.
    damaged: BTreeSet<String>,
    /// When the log was last told of a ledger's trouble, and whether of the one that it has now.
    told: BTreeMap<String, (Instant, bool)>,
    /// Records taken since the start.
    records: u64,
    /// The messages that wait at NATS.
    waiting: u64,
    /// Why this process takes nothing; `None` while it does.
    waits: Option<String>,
}

/// What is shown.
pub(in crate::control) struct Shown {
    pub nats: NatsStatus,
    pub sources: Vec<SourceLedger>,
    pub broken: BTreeMap<String, String>,
    pub records: u64,
    pub waiting: u64,
    pub waits: Option<String>,
}

impl Progress {
    pub(super) fn new(nats: Nats, metrics: Arc<Metrics>) -> Self {
        Self {
            nats,
            metrics,
            state: Mutex::new(ProgressState {
                waits: Some("whether another process collects is not known yet".to_owned()),
                ..ProgressState::default()
            }),
        }
    }

    pub(in crate::control) fn shown(&self) -> Shown {
        let state = self.state.lock();
        Shown {
            nats: self.nats.status(),
            sources: state.sources.clone(),
            broken: state.broken.clone(),
            records: state.records,
            waiting: state.waiting,
            waits: state.waits.clone(),
        }
    }

    /// Why this process takes nothing, or that it does.
    pub(super) fn waits(&self, why: Option<String>) {
        self.state.lock().waits = why;
    }

    pub(super) fn took(&self, records: u64, waiting: u64) {
        let mut state = self.state.lock();
        state.records += records;
        state.waiting = waiting;
        self.metrics.collector_records.inc_by(records);
    }

    /// A message of this ledger is none, and is asked for again.
    pub(super) fn came_damaged(&self, ledger_id: &str, why: &str) {
        self.state.lock().damaged.insert(ledger_id.to_owned());
        self.broke(ledger_id, why);
    }

    /// The records of this ledger are not taken. Says so once, and of a new reason once a minute.
    pub(super) fn broke(&self, ledger_id: &str, why: &str) {
        let is_told = {
            let mut state = self.state.lock();
            let before = state.broken.insert(ledger_id.to_owned(), why.to_owned());
            let told = state.told.get(ledger_id);
            let is_late = told.is_none_or(|(at, _)| at.elapsed() >= TELL_AGAIN);
            let is_told = before.as_deref() != Some(why) && is_late;
            if is_told {
                let now = (Instant::now(), true);
                state.told.insert(ledger_id.to_owned(), now);
            }
            is_told
        };
        if is_told {
            tracing::error!(
                ledger = ledger_id,
                "the records of a ledger are not taken: {why}"
            );
        }
    }

    /// The records of this ledger are taken again.
    pub(super) fn healed(&self, ledger_id: &str) {
        let (was_broken, is_told) = {
            let mut state = self.state.lock();
            state.damaged.remove(ledger_id);
            let told = state.told.get_mut(ledger_id);
            let is_told = told.is_some_and(|(_, is_told)| std::mem::take(is_told));
            (state.broken.remove(ledger_id).is_some(), is_told)
        };
        if was_broken && is_told {
            tracing::info!(
                ledger = ledger_id,
                "the records of the ledger are taken again"
            );
        }
    }

    /// Reads what the ledger has of its sources. Blocks.
    pub(super) fn read(&self, reader: &Reader, now: Utc) {
        let sources = match reader.sources() {
            Ok(sources) => sources,
            Err(error) => {
                tracing::warn!("how far the ledgers are collected cannot be read: {error}");
                return;
            }
        };
        let figures = sources.iter().filter(|source| source.retired.is_none());
        let figures = figures.map(|source| SourceFigures {
            ledger: source.ledger_id.clone(),
            replica: source.replica.clone(),
            lag_records: missing(source),
            // One of which nothing is known yet is silent since it was heard of.
            lag_seconds: now
                .since(source.admitted_before.unwrap_or(source.first_seen_at))
                .as_secs_f64(),
        });
        let figures: Vec<SourceFigures> = figures.collect();
        let mut state = self.state.lock();
        // Damaged messages of a ledger of which nothing is missing: there is nothing to come.
        for source in &sources {
            if missing(source) == 0 && source.watermark.is_some() {
                let id = &source.ledger_id;
                if state.damaged.remove(id) {
                    state.broken.remove(id);
                }
            }
        }
        self.metrics.set_sources(figures, state.broken.len());
        let works = self.nats.status().up && state.waits.is_none();
        self.metrics.set_collector_up(works);
        state.sources = sources;
    }
}
