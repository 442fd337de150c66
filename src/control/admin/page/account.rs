//! What the page of an account shows beside its balance and its statement: its quotas, its last hour,
//! its orders, its newest refusals.
//!
//! Must never ask the ledger: it is asked for again and again while somebody looks.

use crate::config::Account;
use crate::control::admin::accounts::services;
use crate::control::admin::app::{App, Named, named, problem};
use crate::control::admin::page::hours::STEP;
use crate::model::{Local, Utc, run_low_priority};
use crate::proxy::admission::Now;
use axum::Json;
use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// Refusals that are shown.
const REFUSALS: usize = 20;
/// Orders that are shown; an account may have thousands.
const ORDERS: usize = 100;

pub(in crate::control::admin) async fn account_hour(Extracted(admin): App, id: Named) -> Response {
    let Some(id) = named(id) else {
        return problem(StatusCode::NOT_FOUND, "no such account");
    };
    let told = move || {
        let policy = admin.shared.policy.load_full();
        let account = policy.account(&id);
        let (now, zone) = (admin.shared.clock.utc(), &policy.catalog.time_zone);
        let orders = account.map(|account| orders(account, zone));
        let orders = orders.unwrap_or_default();
        let limiters = &admin.shared.limiters;
        let services = account.map(|account| {
            let now = Now::read(&admin.shared.clock);
            services(&policy, account, limiters, now)
        });
        json!({
            "name": account.map(|account| &account.name),
            "services": services.unwrap_or_default(),
            "step_seconds": STEP.as_secs(),
            // Null when too many accounts have calls for each to have an hour.
            "steps": admin.page.hours.lock().of(&id),
            "at": Local::new(now, zone),
            "unix": now.seconds(),
            "orders": orders.len(),
            "newest_orders": orders.into_iter().take(ORDERS).map(|(_, order)| order).collect::<Vec<_>>(),
            "refusals": admin.shared.newest_refusals(Some(&id), REFUSALS),
        })
    };
    match tokio::task::spawn_blocking(|| run_low_priority(told)).await {
        Ok(told) => Json(told).into_response(),
        Err(error) => {
            tracing::error!(%error, "the page of an account failed in a way it never should");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "it failed; see the log")
        }
    }
}

/// All orders, payments and manual adjustments, newest first.
fn orders(account: &Account, zone: &TimeZone) -> Vec<(Utc, Value)> {
    let local = |at: Utc| Local::new(at, zone);
    let mut all = Vec::new();
    for service in &account.services {
        let packs = service.packs.iter().map(|pack| {
            let order = json!({
                "order": pack.order, "kind": "pack", "group": service.group, "calls": pack.calls, "count": pack.count,
                "from": local(pack.delivered), "until": local(pack.expires), "refunded": pack.refunded.map(local),
            });
            (pack.delivered, order)
        });
        all.extend(packs);
        let bought = service.qps_purchases.iter().map(|bought| {
            let order = json!({
                "order": bought.order, "kind": "qps", "group": service.group, "qps": bought.qps,
                "from": local(bought.from), "until": local(bought.until),
            });
            (bought.from, order)
        });
        all.extend(bought);
    }
    all.extend(account.licences.iter().map(|licence| {
        let order = json!({
            "order": licence.order, "kind": "licence", "package": licence.package,
            "from": local(licence.from), "until": local(licence.until),
        });
        (licence.from, order)
    }));
    all.extend(account.payments.iter().map(|payment| {
        let order = json!({"order": payment.order, "kind": "payment", "from": local(payment.at), "amount": payment.amount});
        (payment.at, order)
    }));
    all.extend(account.adjustments.iter().map(|by_hand| {
        let order = json!({
            "order": by_hand.id, "kind": "adjustment", "from": local(by_hand.at), "amount": by_hand.amount,
            "why": by_hand.reason,
        });
        (by_hand.at, order)
    }));
    all.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    all
}
