//! The counts of the calls, and their records.

use crate::control::admin::app::{App, problem, read};
use crate::control::admin::query::{Parameters, month, parameters};
use crate::ledger::{Cursor, ReadError};
use crate::model::{AccountId, ONE_REPLICAS_PART};
use axum::Json;
use axum::body::Body;
use axum::extract::State as Extracted;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Records in one answer when none is asked for, and the most.
const DEFAULT_RECORDS: usize = 1_000;
const MAX_RECORDS: usize = 10_000;

pub(super) async fn usage(Extracted(admin): App, query: Parameters) -> Response {
    let zone = admin.shared.policy.load().catalog.time_zone.clone();
    let now = admin.shared.clock.utc();
    let asked = parameters(query, ["month", "account"])
        .and_then(|[value, account]| Ok((month(value, now, &zone)?, account)));
    let (month, account) = match asked {
        Ok(asked) => asked,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let account = match account.as_deref().map(AccountId::new) {
        Some(None) => {
            return problem(
                StatusCode::BAD_REQUEST,
                "account: an id is 1 to 32 letters, digits, _ or -",
            );
        }
        Some(account) => account,
        None => None,
    };
    let (from, until) = month.bounds(&zone);
    let read = read(&admin, move |reader| {
        reader.usage(from, until, account.as_ref(), 0..=u64::MAX)
    })
    .await;
    match read {
        Ok(lines) => {
            let mut body = json!({"month": month.to_string(), "lines": lines});
            if admin.proxy.is_replica() {
                body["part"] = json!(ONE_REPLICAS_PART);
                body["replica"] = json!(admin.replica);
            }
            Json(body).into_response()
        }
        Err(response) => response,
    }
}

/// The cursor to ask with next, as `after`.
const NEXT_CURSOR: header::HeaderName = header::HeaderName::from_static("next-cursor");

/// By which a replica says that its records are not all.
const PART: header::HeaderName = header::HeaderName::from_static("x-tollgate-part");

pub(super) async fn records(Extracted(admin): App, query: Parameters) -> Response {
    let [after, limit] = match parameters(query, ["after", "limit"]) {
        Ok(asked) => asked,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let limit = match limit.map(|limit| limit.parse()) {
        None => DEFAULT_RECORDS,
        Some(Ok(limit)) if (1..=MAX_RECORDS).contains(&limit) => limit,
        Some(_) => {
            return problem(
                StatusCode::BAD_REQUEST,
                &format!("limit: from 1 to {MAX_RECORDS}"),
            );
        }
    };
    let after = match Cursor::parse(after.as_deref().unwrap_or("0")) {
        Ok(cursor) => cursor,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &format!("after: {why}")),
    };
    let page = read(&admin, move |reader| {
        let records = reader.records(after, limit)?;
        let last = records.last().map_or(after.seq, |record| record.seq);
        Ok::<_, ReadError>((records, reader.cursor(last)?))
    });
    let (lines, next) = match page.await {
        Ok(page) => page,
        Err(response) => return response,
    };
    let mut text = Vec::new();
    for record in lines {
        if serde_json::to_writer(&mut text, &record).is_err() {
            return problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "a record cannot be written as JSON",
            );
        }
        text.push(b'\n');
    }
    let fields = [
        (header::CONTENT_TYPE, "application/x-ndjson".to_owned()),
        (NEXT_CURSOR, next.to_string()),
    ];
    let mut answer = (fields, Body::from(text)).into_response();
    if admin.proxy.is_replica() {
        let part = HeaderValue::from_static("one-replica");
        answer.headers_mut().insert(PART, part);
    }
    answer
}
