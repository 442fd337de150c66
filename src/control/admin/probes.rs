//! Whether the process runs, and whether it accepts calls.

use crate::control::admin::app::{AdminState, App};
use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// 503 asks the supervisor for another process: without the ledger's writer this one is of no use.
pub(super) async fn live(Extracted(admin): App) -> Response {
    let serving = *admin.state.borrow() == AdminState::Serving;
    if serving && admin.shared.ledger.is_closed() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the ledger's writer has ended\n",
        )
            .into_response();
    }
    "ok\n".into_response()
}

pub(super) async fn ready(Extracted(admin): App) -> Response {
    let state = *admin.state.borrow();
    if state != AdminState::Serving {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", state.as_str()),
        )
            .into_response();
    }
    if !admin.shared.ledger.healthy() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the ledger cannot be written\n",
        )
            .into_response();
    }
    "ready\n".into_response()
}
