//! Of a collector: the ledgers that it collects, and to give one up.

use crate::control::admin::app::{App, problem};
use crate::control::admin::query::{Parameters, parameters};
use crate::control::collector::{GiveUpError, Progress, give_up, told_lost};
use crate::ledger::SourceLedger;
use crate::model::{Local, Utc};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extracted};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// The most bytes of a reason.
const WHY_BYTES: usize = 1_000;

pub(super) async fn sources(Extracted(admin): App) -> Response {
    let Some(collector) = &admin.collector else {
        return problem(StatusCode::NOT_FOUND, "this is no collector");
    };
    let zone = &admin.shared.policy.load().catalog.time_zone;
    Json(described(collector, zone)).into_response()
}

/// How far the collector is.
pub(super) fn described(collector: &Progress, zone: &TimeZone) -> Value {
    let shown = collector.shown();
    let told = |at: Utc| Local::new(at, zone);
    let source = |of: &SourceLedger| {
        json!({
            "ledger": of.ledger_id,
            "replica": of.replica,
            "restore_count": of.restore_count,
            "seq": of.seq,
            "told_seq": of.watermark.map(|(_, seq)| seq),
            "lag_records": of.watermark.map_or(0, |(_, seq)| seq.saturating_sub(of.seq)),
            "watermark": of.watermark.map(|(at, _)| told(at)),
            "admitted_before": of.admitted_before.map(told),
            "first_seen_at": told(of.first_seen_at),
            "retired": of.retired.as_ref().map(|(at, why)| json!({"at": told(*at), "why": why})),
            "broken": shown.broken.get(&of.ledger_id),
        })
    };
    let sources: Vec<Value> = shown.sources.iter().map(source).collect();
    json!({
        "nats": {"up": shown.nats.up, "server": shown.nats.server, "trouble": shown.nats.trouble},
        // Why nothing is collected here: another process does, or NATS is away.
        "waits": shown.waits,
        "records": shown.records,
        "messages_waiting": shown.waiting,
        "broken": shown.broken,
        "sources": sources,
    })
}

pub(super) async fn retire(
    Extracted(admin): App,
    id: Result<Path<String>, PathRejection>,
    query: Parameters,
) -> Response {
    if admin.collector.is_none() {
        return problem(StatusCode::NOT_FOUND, "this is no collector");
    }
    let why = match parameters(query, ["why"]) {
        Ok([Some(why)]) if !why.trim().is_empty() && why.len() <= WHY_BYTES => why,
        Ok(_) => {
            let why = "why: say in at most 1000 bytes why the ledger is given up";
            return problem(StatusCode::BAD_REQUEST, why);
        }
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let Ok(Path(id)) = id else {
        return problem(StatusCode::NOT_FOUND, "no such ledger");
    };
    let shared = admin.shared.clone();
    let done =
        tokio::task::spawn_blocking(move || give_up(&shared.ledger, &id, &why, shared.clock.utc()));
    let done = done.await;
    let zone = &admin.shared.policy.load().catalog.time_zone;
    match done {
        Ok(Ok(lost)) => Json(json!({
            "outcome": "retired",
            "ledger": lost.source.ledger_id,
            "records_given_up": lost.records,
            "detail": told_lost(&lost, zone),
        }))
        .into_response(),
        Ok(Err(error @ GiveUpError::Unknown(_))) => {
            problem(StatusCode::NOT_FOUND, &error.to_string())
        }
        Ok(Err(error @ GiveUpError::Retired(_))) => {
            problem(StatusCode::CONFLICT, &error.to_string())
        }
        Ok(Err(error)) => {
            tracing::error!("a ledger cannot be given up: {error}");
            problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
        Err(error) => {
            tracing::error!(%error, "giving up a ledger failed in a way it never should");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "it failed; see the log")
        }
    }
}
