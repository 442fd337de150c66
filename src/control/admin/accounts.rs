//! Accounts: what is in force, what is left and owed, and the statements.

use crate::billing::balances::{self, Balances};
use crate::billing::books::{AccountRef, Books, BooksError};
use crate::control::admin::app::{App, Named, named, problem, read};
use crate::control::admin::query::{Parameters, month, parameters};
use crate::model::BILLS_ELSEWHERE;
use crate::proxy::admission::{Limiters, Now};
use crate::proxy::counts;
use crate::proxy::policy::{Described, KnownAccount, Policy};
use axum::Json;
use axum::extract::State as Extracted;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// Every account, by id; behind them those that the files do not name any more and that owe
/// something.
pub(super) async fn accounts(Extracted(admin): App) -> Response {
    let shared = admin.shared.clone();
    let policy = shared.policy.load_full();
    let is_replica = admin.proxy.is_replica();
    let listed = read(&admin, move |reader| {
        let debits = match is_replica {
            true => HashMap::new(),
            false => balances::debits(reader)?,
        };
        let now = Now::read(&shared.clock);
        // One after the other into the text: as values they would take several times the room.
        let mut text = b"[".to_vec();
        let mut put = |account: &Value| {
            if text.len() > 1 {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, account)
        };
        let list = || {
            for account in policy.accounts() {
                let services = services(&policy, account, &shared.limiters, now);
                put(
                    &json!({"id": account.id, "name": account.name, "removed": false, "services": services}),
                )?;
            }
            for (id, debited) in BTreeMap::from_iter(debits) {
                let balance = balances::balance(None, debited, now.utc);
                if policy.account(&id).is_none() && balances::is_debt(balance) {
                    put(
                        &json!({"id": id, "name": null, "removed": true, "services": {}, "balance": balance}),
                    )?;
                }
            }
            Ok::<_, serde_json::Error>(())
        };
        let listed = list();
        text.push(b']');
        Ok::<_, BooksError>(listed.map(|()| text))
    });
    match listed.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(_)) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "an account cannot be written as JSON",
        ),
        Err(response) => response,
    }
}

pub(super) async fn account(Extracted(admin): App, id: Named) -> Response {
    let Some(id) = named(id) else {
        return problem(StatusCode::NOT_FOUND, "no such account");
    };
    let policy = admin.shared.policy.load_full();
    let account = policy.account(&id).cloned();
    let (now, paid_by) = (admin.shared.clock.utc(), admin.shared.paid_by());
    let (catalog, sold, sold_id) = (policy.catalog.clone(), account.clone(), id.clone());
    let is_replica = admin.proxy.is_replica();
    let asked = read(&admin, move |reader| {
        let catalog = &catalog;
        let sold = AccountRef {
            id: &sold_id,
            account: sold.as_ref().map(|account| &***account),
        };
        let books = Books {
            catalog,
            reader,
            now,
        };
        let balances = match is_replica {
            true => None,
            false => Some(books.balances(sold, paid_by)?),
        };
        Ok::<_, BooksError>((balances, reader.keys_used(&sold_id, now)?))
    });
    let (balances, keys_used) = match asked.await {
        Ok(answer) => answer,
        Err(response) => return response,
    };
    let Some(account) = account else {
        // An account that the files do not name any more may have called, and may owe.
        let is_known = |of: &Balances| !of.services.is_empty() || of.in_arrears;
        if !balances.as_ref().is_some_and(is_known) {
            return problem(StatusCode::NOT_FOUND, "no such account");
        }
        let described = json!({"id": id, "name": null, "removed": true, "keys": [], "services": {}, "balances": balances});
        return Json(described).into_response();
    };
    let now = Now::read(&admin.shared.clock);
    let services = services(&policy, &account, &admin.shared.limiters, now);
    let mut described = json!({
        "id": id,
        "name": account.name,
        "removed": false,
        "keys": policy.describe_keys(&account, &keys_used),
        "services": services,
        "balances": balances,
    });
    if is_replica {
        described["books"] = json!(BILLS_ELSEWHERE);
    }
    Json(described).into_response()
}

/// By group what an account may do now and why, and what it did since the gate knows it.
pub(super) fn services<'p>(
    policy: &'p Policy,
    account: &KnownAccount,
    limiters: &Limiters,
    now: Now,
) -> BTreeMap<&'p str, Vec<Value>> {
    let with_counts = |(limiter, mut described): Described| {
        let [admitted, throttled, refused] = limiter.map_or([0; 3], |limiter| counts(&limiter));
        described["admitted"] = json!(admitted);
        described["throttled"] = json!(throttled);
        described["refused"] = json!(refused);
        described
    };
    let described = policy.describe(account, limiters, now).into_iter();
    described
        .map(|(group, limiters)| (group, limiters.into_iter().map(with_counts).collect()))
        .collect()
}

pub(super) async fn statement(Extracted(admin): App, id: Named, query: Parameters) -> Response {
    // 409, as a customer is told: 404 would say that nothing was called.
    if admin.proxy.is_replica() {
        return problem(StatusCode::CONFLICT, BILLS_ELSEWHERE);
    }
    let policy = admin.shared.policy.load_full();
    let now = admin.shared.clock.utc();
    let month = parameters(query, ["month"])
        .and_then(|[value]| month(value, now, &policy.catalog.time_zone));
    let month = match month {
        Ok(month) => month,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let Some(id) = named(id) else {
        return problem(StatusCode::NOT_FOUND, "no such account");
    };
    let asked = read(&admin, move |reader| {
        let account = policy.account(&id);
        let catalog = &policy.catalog;
        let sold = AccountRef {
            id: &id,
            account: account.map(|account| &***account),
        };
        let statement = Books {
            catalog,
            reader,
            now,
        }
        .statement(sold, month)?;
        // An account that the files do not name any more has statements if it called.
        let is_known = account.is_some() || !statement.groups.is_empty();
        Ok::<_, BooksError>(is_known.then_some(statement))
    });
    match asked.await {
        Ok(Some(statement)) => Json(statement).into_response(),
        Ok(None) => problem(StatusCode::NOT_FOUND, "no such account"),
        Err(response) => response,
    }
}
