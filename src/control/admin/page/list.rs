//! One page of the list of accounts.

use crate::control::admin::accounts::services;
use crate::control::admin::app::{Admin, App, problem};
use crate::control::admin::page::rows::{MOST_ROWS, Only, ROWS, SEARCHED, Sort, Wanted, rows};
use crate::control::admin::query::{Parameters, flag, parameters};
use crate::model::{Stop, run_low_priority};
use crate::proxy::admission::Now;
use crate::proxy::policy::{KnownAccount, Policy};
use axum::Json;
use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What a row tells of a limiter: not why, which the page of the account tells.
const SHOWN: [&str; 9] = [
    "action",
    "mode",
    "quota_qps",
    "in_use",
    "stopped",
    "opened",
    "admitted",
    "throttled",
    "refused",
];

pub(in crate::control::admin) async fn list(Extracted(admin): App, query: Parameters) -> Response {
    let wanted = match wanted(query) {
        Ok(wanted) => wanted,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    // Behind the calls: a search looks at all accounts.
    let listed = move || run_low_priority(|| listed(&admin, &wanted));
    match tokio::task::spawn_blocking(listed).await {
        Ok(listed) => Json(listed).into_response(),
        Err(error) => {
            tracing::error!(%error, "the list of accounts failed in a way it never should");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "it failed; see the log")
        }
    }
}

fn listed(admin: &Admin, wanted: &Wanted) -> Value {
    let shared = &admin.shared;
    let policy = shared.policy.load_full();
    let tally = wanted
        .needs_tally()
        .then(|| admin.page.tally.of_now(shared, &policy));
    let page = rows(&policy, &shared.limiters, tally.as_deref(), wanted);
    let now = Now::read(&shared.clock);
    let row = |account: &std::sync::Arc<KnownAccount>| row(admin, &policy, account, now);
    let shown: Vec<Value> = page.shown.into_iter().map(row).collect();
    json!({
        "accounts": policy.accounts().len(),
        "found": page.found,
        "looked_at": page.looked_at,
        "offset": wanted.offset,
        "rows": shown,
    })
}

fn row(admin: &Admin, policy: &Policy, account: &KnownAccount, now: Now) -> Value {
    let limiters = &admin.shared.limiters;
    let mut by_group = services(policy, account, limiters, now);
    for described in by_group.values_mut().flatten() {
        if let Some(described) = described.as_object_mut() {
            described.retain(|name, _| SHOWN.contains(&name.as_str()));
        }
    }
    let by_files = account
        .services
        .iter()
        .any(|of| of.stopped == Some(Stop::Arrears));
    json!({
        "id": account.id,
        "name": account.name,
        "in_arrears": by_files || limiters.is_in_arrears(&account.id),
        "services": by_group,
    })
}

fn wanted(query: Parameters) -> Result<Wanted, String> {
    let names = ["search", "only", "sort", "descending", "offset", "rows"];
    let [search, only, sort, descending, offset, most] = parameters(query, names)?;
    let search = search.unwrap_or_default().trim().to_lowercase();
    if search.chars().count() > SEARCHED {
        return Err(format!("search: at most {SEARCHED} characters"));
    }
    let number = |name: &str, value: Option<String>, or: usize| match value {
        None => Ok(or),
        Some(value) => value.parse().map_err(|_| format!("{name}: write a number")),
    };
    let most = number("rows", most, ROWS)?;
    if !(1..=MOST_ROWS).contains(&most) {
        return Err(format!("rows: from 1 to {MOST_ROWS}"));
    }
    Ok(Wanted {
        search,
        only: Only::parse(only.as_deref().unwrap_or_default())
            .ok_or("only: all, called, throttled, stopped, arrears, per_call, qps or free")?,
        sort: match sort.as_deref() {
            None => Sort::default(),
            Some(sort) => {
                Sort::parse(sort).ok_or("sort: id, name, admitted, throttled, refused or used")?
            }
        },
        is_descending: flag("descending", descending)?,
        offset: number("offset", offset, 0)?,
        rows: most,
    })
}
