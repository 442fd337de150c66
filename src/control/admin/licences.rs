//! Licences for apps (R19): what an account has, to apply for a trial, to revoke.

use crate::control::admin::app::{App, problem};
use crate::control::admin::query::{Parameters, parameters};
use crate::ledger::LicenceDay;
use crate::model::{AccountId, Local, Package};
use crate::portal::{NotRevoked, described, licence_of, revoke, sold};
use crate::proxy::Refusal;
use axum::Json;
use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The most bytes of a reason.
const WHY_BYTES: usize = 1_000;

/// What the accounts have: all that have orders or trials, or the one that is named.
pub(super) async fn licences(Extracted(admin): App, query: Parameters) -> Response {
    let named = match parameters(query, ["account"]) {
        Ok([None]) => None,
        Ok([Some(id)]) => match AccountId::new(&id) {
            Some(id) => Some(id),
            None => return problem(StatusCode::NOT_FOUND, "no such account"),
        },
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let policy = admin.shared.policy.load_full();
    let terms = match sold(&policy) {
        Ok(terms) => terms,
        Err(refusal) => return refused(&refusal),
    };
    let now = admin.shared.clock.utc();
    let mut all: Vec<Value> = Vec::new();
    for account in policy.accounts() {
        if named.as_ref().is_some_and(|named| *named != account.id) {
            continue;
        }
        if named.is_some()
            && let Err(refusal) = admin.desk.look(&account.id, terms.trial_apps).await
        {
            return refused(&refusal);
        }
        let has_some =
            !account.licences.is_empty() || !admin.desk.of_account(&account.id).0.is_empty();
        if has_some || named.is_some() {
            let zone = &policy.catalog.time_zone;
            let days: Vec<LicenceDay> = Vec::new();
            let mut of = described(&admin.desk, account, terms, zone, (now, days));
            if let Some(of) = of.as_object_mut() {
                of.remove("grants");
            }
            all.push(of);
        }
    }
    match (named, all.is_empty()) {
        (Some(_), true) => problem(StatusCode::NOT_FOUND, "no such account"),
        _ => Json(all).into_response(),
    }
}

/// Applies for the trial of an app, as its account could.
pub(super) async fn apply_licence(Extracted(admin): App, query: Parameters) -> Response {
    let (account, package) = match parameters(query, ["account", "package"]) {
        Ok([account, package]) => match app(account, package) {
            Ok(app) => app,
            Err((status, why)) => return problem(status, why),
        },
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let policy = admin.shared.policy.load_full();
    let Some(known) = policy.account(&account) else {
        return problem(StatusCode::NOT_FOUND, "no such account");
    };
    match licence_of(&admin.desk, &policy, known, &package, true).await {
        Ok(licence) => Json(json!({
            "outcome": "licensed", "account": account, "package": package,
            "kind": licence.kind.as_str(),
            "until": Local::new(licence.until, &policy.catalog.time_zone),
        }))
        .into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// Revokes the licences of an app that have begun.
pub(super) async fn revoke_licence(Extracted(admin): App, query: Parameters) -> Response {
    let (account, package, why) = match parameters(query, ["account", "package", "why"]) {
        Ok([account, package, why]) => match (app(account, package), why) {
            (Ok((account, package)), Some(why))
                if !why.trim().is_empty() && why.len() <= WHY_BYTES =>
            {
                (account, package, why)
            }
            (Err((status, why)), _) => return problem(status, why),
            (Ok(_), _) => {
                let why = "why: say in at most 1000 bytes why the licence is revoked";
                return problem(StatusCode::BAD_REQUEST, why);
            }
        },
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let policy = admin.shared.policy.load_full();
    let Some(known) = policy.account(&account) else {
        return problem(StatusCode::NOT_FOUND, "no such account");
    };
    match revoke(&admin.desk, &policy, known, &package, &why).await {
        Ok(revoked) => Json(json!({
            "outcome": "revoked", "account": account, "package": package,
            "at": Local::new(revoked.at, &policy.catalog.time_zone),
            "licences": revoked.licences,
            "heard_by": if revoked.is_heard { "all_gates" } else { "this_gate" },
        }))
        .into_response(),
        Err(NotRevoked::Unknown) => {
            let why = format!("no licence of {package} is known of {account}");
            problem(StatusCode::NOT_FOUND, &why)
        }
        Err(NotRevoked::NotBegun) => {
            let why = format!(
                "nothing is revoked: by the clock of this gate the licence of {package} begins later; take its order out of the accounts file"
            );
            problem(StatusCode::CONFLICT, &why)
        }
        Err(NotRevoked::Refused(refusal)) => refused(&refusal),
    }
}

/// The app that is named, or what the operator is told.
fn app(
    account: Option<String>,
    package: Option<String>,
) -> Result<(AccountId, Package), (StatusCode, &'static str)> {
    let account = account.as_deref().and_then(AccountId::new);
    let account = account.ok_or((StatusCode::NOT_FOUND, "no such account"))?;
    let package = package.as_deref().and_then(Package::new);
    let why = "package: name an app by its package name, such as com.example.camera";
    Ok((account, package.ok_or((StatusCode::BAD_REQUEST, why))?))
}

/// As a customer is told.
fn refused(refusal: &Refusal) -> Response {
    problem(refusal.row().status, &refusal.detail())
}
