//! The parts that the operators' paths share: the process's state, problems, reads of the ledger.

use crate::billing::books::BooksError;
use crate::control::admin::page::Page;
use crate::control::collector::Progress;
use crate::control::outbox::GateOutbox;
use crate::control::reload::Reloader;
use crate::ledger::{LedgerError, ReadError, Reader};
use crate::model::{AccountId, Utc};
use crate::portal::LicenceDesk;
use crate::proxy::{Proxy, Shared};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extracted};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::watch;

/// The phase of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AdminState {
    /// The ledger is open; the second of hold runs.
    Starting,
    /// Calls are accepted.
    Serving,
    /// On its way out.
    Draining,
}

impl AdminState {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

pub(super) struct Admin {
    pub(super) shared: Arc<Shared>,
    /// For what the calls hold in memory.
    pub(super) proxy: Arc<Proxy>,
    pub(super) desk: Arc<LicenceDesk>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) listens: Vec<String>,
    /// The name of this process in records.
    pub(super) replica: String,
    pub(super) started_at: Utc,
    /// `None` of a gate whose records stay here.
    pub(super) outbox: Option<Arc<GateOutbox>>,
    pub(super) state: watch::Receiver<AdminState>,
    /// How far the collector is; `None` of a gate.
    pub(super) collector: Option<Arc<Progress>>,
    /// What the status page draws.
    pub(super) page: Page,
}

pub(super) type App = Extracted<Arc<Admin>>;
/// The id in a path; one that cannot be read is nobody's.
pub(super) type Named = Result<Path<String>, PathRejection>;

pub(super) fn named(id: Named) -> Option<AccountId> {
    AccountId::new(&id.ok()?)
}

pub(super) fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    (
        status,
        [(header::CONTENT_TYPE, "application/problem+json")],
        body.to_string(),
    )
        .into_response()
}

/// Asks the ledger on a blocking thread and says what went wrong.
pub(super) async fn read<T: Send + 'static, E: Into<BooksError> + Send + 'static>(
    admin: &Admin,
    ask: impl FnOnce(&Reader) -> Result<T, E> + Send + 'static,
) -> Result<T, Response> {
    let shared = admin.shared.clone();
    let failed = |why: String| {
        tracing::error!("cannot read the ledger: {why}");
        problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the ledger cannot be read; see the log",
        )
    };
    let asked = tokio::task::spawn_blocking(move || {
        let reader = shared.ledger.reader()?;
        Ok::<_, LedgerError>(ask(&reader).map_err(Into::into))
    })
    .await
    .map_err(|error| failed(error.to_string()))?;
    // 503: it is not the fault of the query, and the same one is answered when the right ledger is
    // there and sound.
    let asked = asked.map_err(|error| {
        // Of this one the writer has told.
        if !matches!(error, LedgerError::Suspect) {
            tracing::error!("cannot read the ledger: {error}");
        }
        problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
    });
    match asked? {
        Ok(answer) => Ok(answer),
        // 410: the records are gone. 400: they never were; the ledger was replaced or the cursor is
        // another's.
        Err(BooksError::Read(
            error @ (ReadError::CursorTooOld { .. } | ReadError::Pruned { .. }),
        )) => Err(problem(StatusCode::GONE, &error.to_string())),
        Err(BooksError::Read(
            error @ (ReadError::CursorAhead { .. } | ReadError::Foreign { .. }),
        )) => Err(problem(StatusCode::BAD_REQUEST, &error.to_string())),
        // 409: the cursor was good, and the ledger is another since.
        Err(BooksError::Read(error @ ReadError::Restored { .. })) => {
            Err(problem(StatusCode::CONFLICT, &error.to_string()))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}
