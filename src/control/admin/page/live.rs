//! The figures of now and of the last hour, once or as they come.

use crate::control::admin::app::{Admin, App, problem};
use crate::control::admin::page::history::{Point, STEP};
use crate::control::admin::page::now::figures;
use axum::Json;
use axum::extract::State as Extracted;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::Arc;

/// The figures of now each second, as server-sent events. 503 when too many listen: then ask for
/// [`now`] from time to time.
pub(in crate::control::admin) async fn live(Extracted(admin): App) -> Response {
    let Ok(place) = admin.page.listeners.clone().try_acquire_owned() else {
        let why = "too many pages are told each second: ask GET /v1/status/now now and then";
        let mut refused = problem(StatusCode::SERVICE_UNAVAILABLE, why);
        let soon = HeaderValue::from_static("5");
        let fields = refused.headers_mut();
        fields.insert(header::RETRY_AFTER, soon);
        // Pages that are too many leave the listener's places to Prometheus and health checks.
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        return refused;
    };
    let told = admin.page.told.subscribe();
    let first = now_of(&admin).await.map(|now| now.to_string());
    // The admin's state is not held: a stream ends with the listener, and must not keep it.
    drop(admin);
    let events = stream::unfold(
        (first, told, place),
        |(first, mut told, place)| async move {
            let text = match first {
                Some(first) => first,
                None => {
                    told.changed().await.ok()?;
                    told.borrow_and_update().to_string()
                }
            };
            Some((
                Ok::<_, Infallible>(Event::default().data(text)),
                (None, told, place),
            ))
        },
    );
    Sse::new(events).into_response()
}

/// The figures of now.
pub(in crate::control::admin) async fn now(Extracted(admin): App) -> Response {
    match now_of(&admin).await {
        Some(now) => Json(now).into_response(),
        None => problem(StatusCode::INTERNAL_SERVER_ERROR, "it failed; see the log"),
    }
}

/// By what the disk said last: one that does not answer holds up no page.
async fn now_of(admin: &Arc<Admin>) -> Option<Value> {
    let known = *admin.page.disk.lock();
    if let Some(stats) = known {
        return Some(figures(admin, &stats));
    }
    let of = admin.clone();
    let asked = tokio::task::spawn_blocking(move || figures(&of, &of.shared.ledger.stats())).await;
    asked
        .inspect_err(|error| {
            tracing::error!(%error, "the figures of now failed in a way they never should");
        })
        .ok()
}

/// The last hour.
pub(in crate::control::admin) async fn history(Extracted(admin): App) -> Response {
    let history = admin.page.history.lock();
    let (points, newest) = (history.points(), history.newest());
    drop(history);
    Json(Hour {
        step_seconds: STEP.as_secs(),
        number: newest.map_or(0, |(number, _)| number),
        points,
    })
    .into_response()
}

/// Not a value of JSON: that would spell each figure with twice the digits.
#[derive(Serialize)]
struct Hour {
    step_seconds: u64,
    /// Of the newest point.
    number: u64,
    points: Vec<Point>,
}
