//! The state of the process, and reloads.

use crate::model::Local;

use crate::config::told;
use crate::control::admin::app::{Admin, App, problem};
use crate::control::admin::query::{Parameters, flag, parameters};
use crate::control::admin::sources::described;
use crate::control::outbox::GateOutbox;
use crate::control::reload::{Outcome, ReloadOptions};
use crate::ledger::LedgerStats;
use crate::model::COMMIT;
use crate::proxy::upstream::{ToldEndpoint, ToldServer, ToldUpstream};
use crate::store::NodeStatus;
use axum::Json;
use axum::extract::State as Extracted;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

pub(super) async fn status(Extracted(admin): App) -> Json<Value> {
    Json(state_of(&admin, &admin.shared.ledger.stats()))
}

/// What the process is doing; of the ledger what was read just now.
pub(super) fn state_of(admin: &Admin, ledger: &LedgerStats) -> Value {
    let shared = &admin.shared;
    let policy = shared.policy.load();
    let reach = shared.decisions.reach(shared.clock.utc());
    let reach = (reach.0.max(admin.started_at), reach.1.max(admin.started_at));
    let told = |at| Local::new(at, &policy.catalog.time_zone);
    let store = shared.windows.as_ref().map(|windows| {
        let status = windows.status();
        let node = |node: NodeStatus| {
            json!({
                "node": node.node.to_string(),
                "connections": node.connections,
                "up": node.up,
                "since": told(node.since),
                "trouble": node.trouble,
                "clock_ahead_seconds": node.clock_ahead,
            })
        };
        let nodes: Vec<Value> = status.nodes.into_iter().map(node).collect();
        json!({"up": status.up, "since": told(status.since), "nodes": nodes})
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": COMMIT,
        "state": admin.state.borrow().as_str(),
        "listen": admin.listens,
        "replica": admin.replica,
        "started_at": told(admin.started_at),
        "policy": {
            "generation": policy.generation,
            "digest": policy.digest,
            "accounts": policy.accounts().count(),
            "gates": shared.limiters.len(),
            "last_reload_success": shared.metrics.config_last_reload_success.get() == 1,
            "restart_pending": shared.metrics.config_restart_pending.get() == 1,
        },
        "calls": {"pending": shared.metrics.pending.get(), "in_flight": shared.metrics.in_flight.get()},
        // Since when each refusal can be explained.
        "decisions": {"since": told(reach.0), "unproven_since": told(reach.1)},
        "connections": shared.metrics.connections.get(),
        // How far the records of the gates are collected; null of a gate.
        "collector": admin.collector.as_ref().map(|of| described(of, &policy.catalog.time_zone)),
        // Who is stopped, as the collector says it; null when it never said anything.
        "standing": shared.heard().map(|heard| json!({
            "generation": heard.generation,
            "as_of": told(heard.as_of),
            // The ledger whose word it is.
            "collected_in": heard.books.collected_in,
            "stopped": heard.stopped.len(),
            "balances": heard.balances.len(),
            "is_current": shared.hears_standing(),
        })),
        "upstreams": policy.upstreams.told().iter().map(upstream).collect::<Vec<_>>(),
        // The shared store; null when this gate decides alone.
        "store": store,
        // How far the records are on their way to the collector; null when they stay here.
        "outbox": admin.outbox.as_ref().map(|outbox| sending(outbox, &policy.catalog.time_zone)),
        "ledger": {
            "path": shared.ledger.path().display().to_string(),
            "healthy": shared.ledger.healthy(),
            "last_seq": ledger.last_seq,
            "last_commit_at": ledger.last_commit_at.map(told),
            "pending": ledger.pending,
            "bytes": ledger.bytes,
            "wal_bytes": ledger.wal_bytes,
            "free_bytes": ledger.free_bytes,
        },
    })
}

fn upstream(told: &ToldUpstream) -> Value {
    let server = |server: &ToldServer| {
        json!({
            "address": server.address,
            "state": server.state,
            "reached": server.reached,
            "in_flight": server.in_flight,
            "latency_seconds": server.latency.map(|latency| latency.as_secs_f64()),
        })
    };
    let endpoint = |of: &ToldEndpoint| {
        json!({
            "endpoint": of.endpoint,
            "ejections": of.ejections,
            "servers": of.servers.iter().map(server).collect::<Vec<_>>(),
        })
    };
    json!({
        "name": told.name,
        "up": told.up,
        "in_flight": told.in_flight,
        "max_in_flight": told.max_in_flight,
        "endpoints": told.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

fn sending(outbox: &GateOutbox, zone: &TimeZone) -> Value {
    let (nats, state) = (outbox.nats.status(), outbox.progress.read());
    let (records, waited) = outbox.progress.lag(outbox.shared.ledger.last_seq());
    json!({
        "up": state.trouble.is_none(),
        "since": Local::new(state.since, zone),
        "trouble": state.trouble,
        "nats": {"up": nats.up, "server": nats.server, "trouble": nats.trouble},
        "stream": outbox.stream.stream,
        "ledger_id": outbox.ledger_id,
        "sent_seq": state.sent_seq,
        "collected_seq": state.collected_seq,
        "lag_records": records,
        "lag_seconds": waited.as_secs(),
    })
}

pub(super) async fn reload(Extracted(admin): App, query: Parameters) -> Response {
    let wish = parameters(query, ["force", "dry_run"]).and_then(|[force, dry_run]| {
        Ok(ReloadOptions {
            force: flag("force", force)?,
            dry_run: flag("dry_run", dry_run)?,
        })
    });
    let wish = match wish {
        Ok(wish) => wish,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    match admin.reloader.clone().reload(wish).await {
        Ok(Outcome::Reloaded {
            generation,
            changes,
            pending,
            warnings,
        }) => Json(json!({
            "outcome": "reloaded",
            "generation": generation,
            "changes": changes,
            "restart_pending": pending,
            "warnings": warnings,
        }))
        .into_response(),
        Ok(Outcome::Planned {
            changes,
            pending,
            warnings,
        }) => Json(json!({
            "outcome": "planned",
            "changes": changes,
            "restart_pending": pending,
            "warnings": warnings,
        }))
        .into_response(),
        Ok(Outcome::Unchanged) => Json(json!({"outcome": "unchanged"})).into_response(),
        Ok(Outcome::Refused(mistakes)) => {
            let listed: Vec<String> = told(&mistakes.0).collect();
            let body = json!({
                "type": "urn:tollgate:problem:reload_refused",
                "title": "Reload refused",
                "status": 422,
                "detail": "Nothing was changed; correct the mistakes and reload again.",
                "mistakes": listed,
            });
            let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
            (
                StatusCode::UNPROCESSABLE_ENTITY,
                content_type,
                body.to_string(),
            )
                .into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a reload failed in a way it never should; what was in force stays");
            problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the reload failed; see the log",
            )
        }
    }
}
