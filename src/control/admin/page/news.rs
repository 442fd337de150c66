//! What happened and may need a person: the last reloads, events that were not delivered, the newest
//! calls that were not let through.

use crate::control::admin::app::{App, read};
use crate::model::{Local, Utc};
use axum::Json;
use axum::extract::State as Extracted;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Events that are shown.
const EVENTS: usize = 20;
/// Refusals that are shown.
const REFUSALS: usize = 20;

pub(in crate::control::admin) async fn news(Extracted(admin): App) -> Response {
    let shared = admin.shared.clone();
    let asked = read(&admin, move |reader| {
        let refusals = shared.newest_refusals(None, REFUSALS);
        reader
            .unsent_events(EVENTS)
            .map(|events| (events, refusals))
    });
    // Reloads and refusals are told also while the ledger cannot be read.
    let (events, refusals) = match asked.await {
        Ok((events, refusals)) => (Some(events), refusals),
        Err(_) => (None, admin.shared.newest_refusals(None, REFUSALS)),
    };
    let zone = admin.shared.policy.load().catalog.time_zone.clone();
    let local = |at: Utc| Local::new(at, &zone);
    let events = events.map(|events| {
        let event = |event: &crate::ledger::StoredEvent| {
            json!({
                "id": event.id,
                "account": event.account,
                "type": event.r#type,
                "raised_at": local(event.raised_at),
                "failing_since": event.failing_since.map(local),
            })
        };
        events.iter().map(event).collect::<Vec<Value>>()
    });
    let reloads = admin.reloader.notes.last().into_iter().map(|note| {
        json!({
            "at": local(note.at),
            "outcome": note.outcome,
            "generation": note.generation,
            "lines": note.lines,
            "all_lines": note.all_lines,
        })
    });
    Json(json!({
        "reloads": reloads.collect::<Vec<Value>>(),
        // Null while the ledger cannot be read.
        "events": events,
        "refusals": refusals,
    }))
    .into_response()
}
