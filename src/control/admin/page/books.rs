//! What the ledger knows of the accounts that a page shows: the month's calls, what is left, what is
//! owed.
//!
//! Owns how long a page may be computed for. Must never be asked of all accounts.

use crate::billing::books::{AccountRef, Books, BooksError};
use crate::control::admin::app::{App, problem, read};
use crate::control::admin::page::rows::MOST_ROWS;
use crate::control::admin::query::{Parameters, parameters};
use crate::ledger::Reader;
use crate::model::{AccountId, BILLS_ELSEWHERE, Month};
use crate::proxy::Shared;
use axum::Json;
use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// After so long the rest is left out: the page asks for it again.
const PATIENCE: Duration = Duration::from_millis(500);

pub(in crate::control::admin) async fn books(Extracted(admin): App, query: Parameters) -> Response {
    let ids = match parameters(query, ["ids"]) {
        Ok([ids]) => ids.unwrap_or_default(),
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let ids: Option<Vec<AccountId>> = ids.split(',').map(AccountId::new).collect();
    let Some(ids) = ids.filter(|ids| ids.len() <= MOST_ROWS) else {
        let what = format!("ids: 1 to {MOST_ROWS} ids of accounts, parted by commas");
        return problem(StatusCode::BAD_REQUEST, &what);
    };
    let (shared, is_replica) = (admin.shared.clone(), admin.proxy.is_replica());
    let asked = read(&admin, move |reader| {
        let begun = shared.clock.mono();
        let mut books = Map::new();
        for id in ids {
            if !books.is_empty() && shared.clock.mono().since(begun) > PATIENCE {
                break;
            }
            let of = match is_replica {
                true => own_calls(&shared, reader, &id)?,
                false => balances(&shared, reader, &id)?,
            };
            books.insert(id.to_string(), of);
        }
        Ok::<_, BooksError>(books)
    });
    match asked.await {
        Ok(accounts) => {
            let elsewhere = is_replica.then_some(BILLS_ELSEWHERE);
            Json(json!({"accounts": accounts, "elsewhere": elsewhere})).into_response()
        }
        Err(response) => response,
    }
}

fn balances(shared: &Shared, reader: &Reader, id: &AccountId) -> Result<Value, BooksError> {
    let policy = shared.policy.load_full();
    let account = policy.account(id);
    let sold = AccountRef {
        id,
        account: account.map(|account| &***account),
    };
    let books = Books {
        catalog: &policy.catalog,
        reader,
        now: shared.clock.utc(),
    };
    let balances = books.balances(sold, shared.paid_by())?;
    let of = balances.services.values();
    let packs = || of.clone().flat_map(|of| &of.packs);
    let has_packs = packs().next().is_some();
    Ok(json!({
        "calls": of.clone().map(|of| of.admitted).sum::<u64>(),
        "free_left": of.clone().filter_map(|of| of.free_calls.as_ref()).map(|free| free.left).sum::<u64>(),
        "packs_left": has_packs.then(|| packs().map(|pack| pack.left).sum::<u64>()),
        "balance": balances.balance,
        "due_so_far": balances.due_so_far,
        "in_arrears": balances.in_arrears,
    }))
}

/// Of one of several replicas: the calls that it admitted itself, and what the collector says.
fn own_calls(shared: &Shared, reader: &Reader, id: &AccountId) -> Result<Value, BooksError> {
    let zone = shared.policy.load().catalog.time_zone.clone();
    let (from, until) = Month::of(shared.clock.utc(), &zone).bounds(&zone);
    let lines = reader.usage(from, until, Some(id), 0..=u64::MAX)?;
    let calls: u64 = lines.iter().map(|line| line.calls).sum();
    let heard = shared.heard();
    let balance = heard.as_ref().and_then(|heard| heard.balances.get(id));
    Ok(json!({"calls": calls, "balance": balance}))
}
