//! Why a call of any account was not let through.

use crate::control::admin::app::{App, problem};
use crate::model::{Local, RequestId};
use axum::Json;
use axum::extract::Path;
use axum::extract::State as Extracted;
use axum::extract::rejection::PathRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

pub(super) async fn decision(
    Extracted(admin): App,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let id = id.ok().and_then(|Path(id)| RequestId::parse(&id));
    let Some(id) = id else {
        let what = "a request id is a UUID, as the answer has it in X-Request-Id";
        return problem(StatusCode::BAD_REQUEST, what);
    };
    let shared = admin.shared.clone();
    let found = tokio::task::spawn_blocking(move || shared.explain(id)).await;
    match found {
        Ok(Some(decision)) => Json(decision).into_response(),
        Ok(None) => {
            let zone = &admin.shared.policy.load().catalog.time_zone;
            let (proven, unproven) = admin.shared.decisions.reach(admin.shared.clock.utc());
            // Nothing outlives the process.
            let began = admin.started_at;
            let (proven, unproven) = (proven.max(began), unproven.max(began));
            let [proven, unproven] = [proven, unproven].map(|at| Local::new(at, zone));
            let what = format!(
                "no refusal of this id is kept: refusals of this process are, of proven accounts since {proven} and of \
                 others since {unproven}; an admitted call that was answered is a record"
            );
            problem(StatusCode::NOT_FOUND, &what)
        }
        Err(error) => {
            tracing::error!(%error, "an explanation failed in a way it never should");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "it failed; see the log")
        }
    }
}
