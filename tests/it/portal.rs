//! The customer's own view: each endpoint by path and by action, and that nobody sees another.

use crate::bills::{call, into_last_month, last_month, seed};
use crate::harness::*;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use sha2::Digest;
use std::net::SocketAddr;
use std::time::Duration;
use tollgate::testing::config::Config;
use tollgate::testing::ledger::{Reader, Record};
use tollgate::testing::model::{AccountId, Clock, Mode, Month, Reason, Utc};

/// A customer, and what only it may see.
#[derive(Clone, Copy)]
pub struct Customer {
    pub id: &'static str,
    name: &'static str,
    pub key: &'static str,
    secret_id: &'static str,
    secret: &'static str,
    orders: &'static [&'static str],
    /// Calls in the ledger of last month and of this one.
    calls: [u64; 2],
    pub mode: Mode,
}

pub const STUDIO: Customer = Customer {
    id: "1250000001",
    name: "Example Studio",
    key: STUDIO_KEY,
    secret_id: STUDIO_ID,
    secret: STUDIO_SECRET,
    orders: &["P-1", "T-1"],
    calls: [41, 13],
    mode: Mode::PerCall,
};

pub const RETAIL: Customer = Customer {
    id: "1250000002",
    name: "Example Retail",
    key: RETAIL_KEY,
    secret_id: "AKIDEXAMPLERETAIL00000000000000000002",
    secret: "trial-secret-of-example-retail",
    orders: &["Q-1", "Q-2"],
    calls: [29, 7],
    mode: Mode::Qps,
};

/// The month that runs. In the first hours of a month the one before is not settled yet.
fn running_month() -> Month {
    let zone = jiff::tz::TimeZone::get("Asia/Shanghai").unwrap();
    Month::of(Clock::default().utc(), &zone)
}

/// The calls of both, last month and this month, one after the other.
fn calls_of_both() -> Vec<Record> {
    let zone = jiff::tz::TimeZone::get("Asia/Shanghai").unwrap();
    let a_minute_ago = Utc(Clock::default().utc().0 - 60_000_000);
    let begins = [
        into_last_month(0),
        a_minute_ago.max(running_month().bounds(&zone).0),
    ];
    let mut calls = Vec::new();
    for (month, begin) in begins.into_iter().enumerate() {
        for n in 0..STUDIO.calls[month].max(RETAIL.calls[month]) {
            let at = Utc(begin.0 + i64::try_from(n).unwrap() * 1_000_000);
            for of in [STUDIO, RETAIL].iter().filter(|of| n < of.calls[month]) {
                let reason = match n % 5 {
                    4 => Reason::ServerError,
                    _ => Reason::Billable,
                };
                calls.push(call(of.id, at, of.mode, reason));
            }
        }
    }
    calls
}

/// A gate on a ledger that both have called through, whose last month is settled.
async fn settled_gate(upstream: &Upstream) -> Gate {
    gate_with(upstream, calls_of_both()).await
}

async fn gate_with(upstream: &Upstream, calls: Vec<Record>) -> Gate {
    settled_with(upstream, calls, |_| ()).await
}

/// The same with these calls, and with changes to the shipped configuration.
pub async fn settled_with(
    upstream: &Upstream,
    calls: Vec<Record>,
    change: impl FnOnce(&mut Config),
) -> Gate {
    let gate = Gate::start_with(upstream.address, |config: &mut Config| {
        change(config);
        seed(&config.settings.ledger.path, calls);
    })
    .await;
    let path = format!("/v1/statements/{}?month={}", STUDIO.id, last_month());
    for _ in 0..600 {
        let (_, _, body) = get(gate.admin, &path).await;
        let statement: Value = serde_json::from_slice(&body).unwrap();
        if !statement["fixed"].is_null() {
            return gate;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the month is not settled");
}

pub type Answered = (StatusCode, HeaderMap, Bytes);

/// Asks when a second's questions of before are forgotten.
pub async fn ask(gate: &Gate, request: Request<Full<Bytes>>) -> Answered {
    gate.mover.advance(Duration::from_millis(250));
    send(gate.public, request).await
}

pub async fn own(gate: &Gate, of: Customer, path: &str) -> Answered {
    ask(gate, plain("GET", path, of.key, "")).await
}

fn json_of(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {body:?}"))
}

async fn own_json(gate: &Gate, of: Customer, path: &str) -> Value {
    let (status, headers, body) = own(gate, of, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body:?}");
    assert_eq!(headers["content-type"], "application/json");
    json_of(&body)
}

fn action(of: Customer, name: &str, body: &str) -> Request<Full<Bytes>> {
    let mut request = signed(of.secret_id, of.secret, name, body);
    // Any region, also none.
    request.headers_mut().remove("x-tc-region");
    request
}

pub async fn envelope(gate: &Gate, of: Customer, name: &str, body: &str) -> Value {
    let (status, headers, body) = ask(gate, action(of, name, body)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "application/json");
    let mut answer = json_of(&body);
    assert_eq!(
        answer["Response"]["RequestId"],
        headers["x-request-id"].to_str().unwrap()
    );
    answer["Response"].take()
}

/// Every question that somebody may think of who has the credential of `of` and wants to see
/// `other`.
fn questions(of: Customer, other: Customer, cursor: &str) -> Vec<Request<Full<Bytes>>> {
    let (last, id) = (last_month(), other.id);
    let mut paths = vec![
        "/v1/quota".to_owned(),
        format!("/v1/quota?account={id}"),
        "/v1/statements".to_owned(),
        format!("/v1/statements?account={id}"),
        format!("/v1/statements/{id}"),
        format!("/v1/statements/{id}/{last}"),
        format!("/v1/statements/{last}?account={id}"),
        format!("/v1/usage?month={last}&account={id}"),
        format!("/v1/records?month={last}&account={id}"),
        format!("/v1/records?month={last}&after={cursor}"),
        format!("/v1/records?after={cursor}"),
        "/v1/records?after=0:1".to_owned(),
        format!("/v1/records?after={}:0:1", of.id),
        format!("/v1/accounts/{id}"),
        "/v1/accounts".to_owned(),
    ];
    for month in [last.to_string(), running_month().to_string()] {
        for format in ["json", "csv", "html"] {
            paths.push(format!("/v1/statements/{month}?format={format}"));
        }
        for by in ["day", "hour", "action", "key"] {
            paths.push(format!("/v1/usage?month={month}&by={by}"));
        }
        for format in ["jsonl", "csv"] {
            paths.push(format!("/v1/records?month={month}&format={format}"));
        }
    }
    let mut all = Vec::new();
    for path in &paths {
        all.push(plain("GET", path, of.key, ""));
        all.push(signed_get(of.secret_id, of.secret, path));
        let mut named = plain("GET", path, of.key, "");
        for header in ["x-tollgate-account", "x-account", "account"] {
            named.headers_mut().insert(header, id.parse().unwrap());
        }
        all.push(named);
        // Two credentials, and the id of one with the secret of the other.
        let mut both = plain("GET", path, of.key, "");
        let bearer = format!("Bearer {}", other.key);
        both.headers_mut()
            .insert("authorization", bearer.parse().unwrap());
        all.push(both);
    }
    let bodies = [
        "".to_owned(),
        "{}".to_owned(),
        format!("{{\"Month\":\"{last}\"}}"),
        format!("{{\"Account\":\"{id}\"}}"),
        format!("{{\"Month\":\"{last}\",\"Account\":\"{id}\"}}"),
        format!("{{\"After\":\"{cursor}\"}}"),
        format!("{{\"Month\":\"{last}\",\"After\":\"{cursor}\"}}"),
    ];
    for name in [
        "DescribeQuota",
        "DescribeUsage",
        "DescribeStatements",
        "DescribeStatement",
        "DescribeRecords",
    ] {
        for body in &bodies {
            all.push(action(of, name, body));
            let mut by_key = plain("POST", "/", of.key, body);
            for (header, value) in [("x-tc-action", name), ("x-tc-version", "2020-03-24")] {
                by_key.headers_mut().insert(header, value.parse().unwrap());
            }
            all.push(by_key);
        }
        all.push(signed(other.secret_id, of.secret, name, "{}"));
    }
    all
}

/// What of a customer nobody else may see: its id, its name, its orders, its calls.
fn secrets(gate: &Gate, of: Customer) -> Vec<String> {
    let own = gate.records().into_iter();
    let own = own.filter(|record| record.account.as_str() == of.id);
    let mut secrets: Vec<String> = own.map(|record| record.id.to_string()).collect();
    assert_eq!(secrets.len() as u64, of.calls.iter().sum::<u64>());
    secrets.extend([of.id, of.name].map(str::to_owned));
    let reader = Reader::open(&gate.ledger()).unwrap();
    let id = AccountId::new(of.id).unwrap();
    let stored = reader.stored_statement(&last_month().to_string(), &id);
    let stored = stored.unwrap().unwrap().statement;
    secrets.push(hex::encode(sha2::Sha256::digest(stored)));
    let quoted = of.orders.iter().map(|order| format!("\"{order}\""));
    secrets.extend(quoted);
    let in_cells = of.orders.iter().map(|order| format!(">{order}<"));
    secrets.extend(in_cells);
    secrets.extend(of.orders.iter().map(|order| format!(",{order},")));
    secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn no_question_with_any_parameter_or_cursor_shows_anything_of_another_account() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = settled_gate(&upstream).await;
    let month = last_month();
    for (of, other) in [(STUDIO, RETAIL), (RETAIL, STUDIO)] {
        let (_, _, exported) = own(&gate, other, &format!("/v1/records?month={month}")).await;
        let first = exported.split(|byte| *byte == b'\n').next().unwrap();
        let first: Value = serde_json::from_slice(first).unwrap();
        let cursor = first["cursor"].as_str().unwrap();
        assert!(cursor.starts_with(other.id), "{cursor}");
        let secrets = secrets(&gate, other);
        let (mut answered, mut asked) = (0, 0);
        for request in questions(of, other, cursor) {
            let what = format!(
                "{} {:?}",
                request.uri(),
                request.headers().get("x-tc-action")
            );
            let (status, headers, body) = ask(&gate, request).await;
            assert_ne!(status, StatusCode::TOO_MANY_REQUESTS, "{what}");
            let body = String::from_utf8_lossy(&body);
            let told = format!("{headers:?}{body}");
            for secret in &secrets {
                assert!(
                    !told.contains(secret.as_str()),
                    "{what} shows {secret}: {told}"
                );
            }
            asked += 1;
            let is_good = status == StatusCode::OK && !body.contains("\"Error\"");
            answered += u64::from(is_good && body.contains(of.id));
        }
        // Not for want of answers.
        assert!(answered > 60, "{answered} of {asked}");
    }
    assert_eq!(upstream.seen().len(), 0, "nothing of it is a call");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_and_its_action_answer_the_same() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = settled_gate(&upstream).await;
    let month = last_month();
    let body = format!("{{\"Month\":\"{month}\"}}");
    for (path, name, body) in [
        (format!("/v1/usage?month={month}"), "Usage", body.as_str()),
        (
            format!("/v1/usage?month={month}&by=day"),
            "Usage",
            &body.replace('}', ",\"By\":\"day\"}"),
        ),
        ("/v1/statements".to_owned(), "Statements", ""),
        (format!("/v1/statements/{month}"), "Statement", &body),
    ] {
        let by_path = own_json(&gate, STUDIO, &path).await;
        let answer = envelope(&gate, STUDIO, &format!("Describe{name}"), body).await;
        assert_eq!(answer[name], by_path, "{name}");
    }
    let quota = envelope(&gate, STUDIO, "DescribeQuota", "{}").await;
    assert_eq!(quota["Quota"]["account"], STUDIO.id);
    let records = envelope(&gate, STUDIO, "DescribeRecords", &body).await;
    let listed = records["Records"]["records"].as_array().unwrap();
    assert_eq!(listed.len() as u64, STUDIO.calls[0]);
    assert_eq!(records["Records"]["complete"], true);
    assert_eq!(
        records["Records"]["next_cursor"],
        listed.last().unwrap()["cursor"]
    );
    // A GET has its parameters in the query, as the vendor's SDKs send them.
    let mut by_query = plain("GET", &format!("/?Month={month}"), STUDIO_KEY, "");
    for (header, value) in [
        ("x-tc-action", "DescribeUsage"),
        ("x-tc-version", "2020-03-24"),
    ] {
        by_query
            .headers_mut()
            .insert(header, value.parse().unwrap());
    }
    let (_, _, answer) = ask(&gate, by_query).await;
    let by_path = own_json(&gate, STUDIO, &format!("/v1/usage?month={month}")).await;
    assert_eq!(json_of(&answer)["Response"]["Usage"], by_path);
    // The version is the one of the vendor's actions.
    for (version, code) in [
        (None, "MissingParameter"),
        (Some("2019-01-01"), "NoSuchVersion"),
    ] {
        let mut request = action(STUDIO, "DescribeQuota", "{}");
        request.headers_mut().remove("x-tc-version");
        if let Some(version) = version {
            request
                .headers_mut()
                .insert("x-tc-version", version.parse().unwrap());
        }
        let (_, _, body) = ask(&gate, request).await;
        assert_eq!(json_of(&body)["Response"]["Error"]["Code"], code);
    }
    // A body that the signature does not cover is not read.
    let mut forged = action(STUDIO, "DescribeUsage", "{}");
    *forged.body_mut() = Full::from(body.clone());
    let (_, _, answer) = ask(&gate, forged).await;
    let code = &json_of(&answer)["Response"]["Error"]["Code"];
    assert_eq!(code, "AuthFailure.SignatureFailure");
    let large = format!("{{\"Month\":\"{}\"}}", " ".repeat(20_000));
    let (_, _, answer) = ask(&gate, action(STUDIO, "DescribeUsage", &large)).await;
    let code = &json_of(&answer)["Response"]["Error"]["Code"];
    assert_eq!(code, "RequestSizeLimitExceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_by_each_split_adds_up_to_the_records_of_the_month() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = settled_gate(&upstream).await;
    for (place, month) in [last_month(), running_month()].into_iter().enumerate() {
        let expected = STUDIO.calls[place];
        for by in ["day", "hour", "action", "key"] {
            let usage = own_json(&gate, STUDIO, &format!("/v1/usage?month={month}&by={by}")).await;
            assert_eq!(usage["by"], by);
            assert_eq!(usage["admitted"], expected, "{usage}");
            assert_eq!(usage["billable"], expected - expected / 5);
            assert_eq!(usage["provisional"], place == 1);
            let lines = usage["lines"].as_array().unwrap();
            let sum: u64 = lines.iter().map(|l| l["calls"].as_u64().unwrap()).sum();
            assert_eq!(sum, expected);
            let part = lines[0][by].as_str().unwrap();
            match by {
                "day" => assert!(part.starts_with(&month.to_string()) && part.len() == 10),
                "hour" => assert!(part.ends_with(":00:00+08:00"), "{part}"),
                "action" => assert_eq!(part, "SegmentPortraitPic"),
                _ => assert_eq!(part, "k"),
            }
        }
    }
    for wrong in [
        "month=2026-13",
        "by=year",
        "moth=2026-11",
        "month=2026-11&month=2026-11",
    ] {
        let (status, headers, body) = own(&gate, STUDIO, &format!("/v1/usage?{wrong}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
        assert_eq!(headers["content-type"], "application/problem+json");
        let told = json_of(&body);
        assert_eq!(told["type"], "urn:tollgate:problem:bad_parameter");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_statement_is_the_stored_text_whose_sum_the_list_has_and_the_running_month_is_provisional()
 {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = settled_gate(&upstream).await;
    let month = last_month().to_string();
    let list = own_json(&gate, STUDIO, "/v1/statements").await;
    let listed = list["statements"].as_array().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0]["month"], &listed[0]["due"]),
        (&json!(month), &json!("0.00"))
    );
    assert!(["fixed", "debited"].contains(&listed[0]["state"].as_str().unwrap()));
    let (_, headers, body) = own(&gate, STUDIO, &format!("/v1/statements/{month}")).await;
    assert_eq!(
        listed[0]["sha256"],
        hex::encode(sha2::Sha256::digest(&body))
    );
    let id = AccountId::new(STUDIO.id).unwrap();
    let stored = Reader::open(&gate.ledger())
        .unwrap()
        .stored_statement(&month, &id);
    assert_eq!(stored.unwrap().unwrap().statement.as_bytes(), body);
    let fixed = json_of(&body);
    assert!(fixed["fixed"].is_object() && fixed.get("provisional").is_none());
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("vary", "accept, accept-language"),
    ] {
        assert_eq!(headers[name], value);
    }

    let running = list["running"].as_str().unwrap();
    let provisional = own_json(&gate, STUDIO, &format!("/v1/statements/{running}")).await;
    assert_eq!(provisional["provisional"], true);
    assert_eq!(provisional["fixed"], Value::Null);
    let (_, _, csv) = own(
        &gate,
        STUDIO,
        &format!("/v1/statements/{running}?format=csv"),
    )
    .await;
    let csv = String::from_utf8(csv.to_vec()).unwrap();
    assert!(
        csv.lines().nth(1).unwrap().contains(",provisional,"),
        "{csv}"
    );
    let (_, headers, csv) = own(&gate, STUDIO, &format!("/v1/statements/{month}?format=csv")).await;
    assert_eq!(headers["content-type"], "text/csv; charset=utf-8");
    assert!(!String::from_utf8_lossy(&csv).contains("provisional"));

    // Nothing was called in these, or they have not begun.
    for none in ["2026-01", "2100-12"] {
        let (status, _, body) = own(&gate, STUDIO, &format!("/v1/statements/{none}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{none}: {body:?}");
    }
    // Also where nothing is settled yet. The running month may still get something.
    let unsettled = Gate::start(upstream.address).await;
    for (month, expected) in [
        ("2025-12".to_owned(), StatusCode::NOT_FOUND),
        (running.to_owned(), StatusCode::OK),
    ] {
        let (status, _, body) = own(&unsettled, RETAIL, &format!("/v1/statements/{month}")).await;
        assert_eq!(status, expected, "{month}: {body:?}");
    }
    let (status, ..) = own(&gate, STUDIO, "/v1/statements/last").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_a_page_without_script_in_the_readers_language() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = settled_gate(&upstream).await;
    let path = format!("/v1/statements/{}", running_month());
    for (accept, tag, provisional) in [
        ("zh-CN,zh;q=0.9,en;q=0.5", "zh-CN", "暂估"),
        ("en-GB", "en", "Provisional"),
        ("de", "en", "Provisional"),
    ] {
        let mut request = plain("GET", &path, STUDIO_KEY, "");
        for (name, value) in [
            ("accept", "text/html,*/*;q=0.8"),
            ("accept-language", accept),
        ] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let (status, headers, body) = ask(&gate, request).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["content-type"], "text/html; charset=utf-8");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'unsafe-inline'"));
        let page = String::from_utf8(body.to_vec()).unwrap();
        assert!(page.contains(&format!("<html lang=\"{tag}\">")), "{page}");
        let title = if tag == "en" {
            "Portrait segmentation"
        } else {
            "人像分割"
        };
        assert!(page.contains(provisional) && page.contains(title));
        for never in ["<script", "http://", "https://", "onload", "src=", "href="] {
            assert!(!page.contains(never), "{never}");
        }
        for head in page
            .split("<th")
            .skip(1)
            .filter(|rest| !rest.starts_with("ead"))
        {
            assert!(head.starts_with(" scope=\""), "{head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_answers_like_a_get_without_a_body() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = settled_gate(&upstream).await;
    let month = last_month();
    for path in [
        "/v1/statements".to_owned(),
        format!("/v1/statements/{month}?format=html"),
        format!("/v1/usage?month={month}"),
        format!("/v1/records?month={month}"),
    ] {
        // Between two answers the month may be debited.
        let (headers, body, head) = loop {
            let (status, headers, body) = own(&gate, STUDIO, &path).await;
            assert_eq!(status, StatusCode::OK);
            let head = ask(&gate, plain("HEAD", &path, STUDIO_KEY, "")).await;
            let (_, _, again) = own(&gate, STUDIO, &path).await;
            if path.contains("usage") || again == body {
                break (headers, body, head);
            }
        };
        assert_eq!((head.0, head.2.len()), (StatusCode::OK, 0), "{path}");
        assert_eq!(head.1["content-type"], headers["content-type"]);
        let length = head.1["content-length"].to_str().unwrap();
        // The instants of two answers may differ in their digits.
        if !path.contains("usage") {
            assert_eq!(length.parse::<usize>().unwrap(), body.len(), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_five_questions_a_second_are_refused_and_take_nothing_of_the_quota() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let mut client = Client::connect(gate.public).await.unwrap();
    let ask = || plain("GET", "/v1/statements", STUDIO_KEY, "");
    let (mut answered, mut refused) = (0, None);
    for _ in 0..60 {
        let (status, headers, body) = client.send(ask()).await.unwrap();
        match status {
            StatusCode::OK => answered += 1,
            _ => {
                refused = Some((status, headers, body));
                break;
            }
        }
    }
    let (status, headers, body) = refused.expect("a question too many");
    assert!(answered >= 5);
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        json_of(&body)["type"],
        "urn:tollgate:problem:too_many_questions"
    );
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(headers["ratelimit-policy"], "\"own_endpoints\";q=5;w=1");
    assert_eq!(headers["ratelimit"], "\"own_endpoints\";r=0;t=1");
    let by_action = action(STUDIO, "DescribeQuota", "{}");
    let (_, _, body) = send(gate.public, by_action).await;
    let code = &json_of(&body)["Response"]["Error"]["Code"];
    if !code.is_null() {
        assert_eq!(code, "RequestLimitExceeded");
    }
    // Another account is not held up, and neither are calls.
    let (status, ..) = send(gate.public, plain("GET", "/v1/statements", RETAIL_KEY, "")).await;
    assert_eq!(status, StatusCode::OK);
    let (status, headers, _) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["ratelimit"], "\"portrait-segmentation\";r=19;t=1");
    let samples = gate.at_rest().await;
    samples.assert_conserved();
    assert_eq!(samples.decided("throttled"), 0);
    assert_eq!(samples.sum("tollgate_requests_received_total", &[]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_plain_answer_of_an_identified_account_tells_what_is_left_of_its_quota() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let group = "\"portrait-segmentation\"";
    let mut client = Client::connect(gate.public).await.unwrap();
    let mut proved = false;
    for _ in 0..6 {
        gate.mover.advance(Duration::from_millis(1_500));
        let began = gate.clock.mono();
        let mut told = Vec::new();
        for _ in 0..21 {
            let (status, headers, _) = client.send(segment(STUDIO_KEY)).await.unwrap();
            assert_eq!(headers["ratelimit-policy"], format!("{group};q=20;w=1"));
            told.push((
                status.as_u16(),
                headers["ratelimit"].to_str().unwrap().to_owned(),
            ));
        }
        if gate.clock.mono().since(began) < Duration::from_millis(900) {
            let admitted = (0..20)
                .rev()
                .map(|left| (200, format!("{group};r={left};t=1")));
            let expected: Vec<_> = admitted
                .chain([(429, format!("{group};r=0;t=1"))])
                .collect();
            assert_eq!(told, expected);
            proved = true;
            break;
        }
    }
    assert!(proved, "no attempt fitted into a second");
    // Who is not identified, or speaks the vendor's dialect, is told nothing.
    gate.mover.advance(Duration::from_millis(1_500));
    for request in [
        segment("nobody's"),
        signed(STUDIO_ID, STUDIO_SECRET, "SegmentPortraitPic", "{}"),
        action(STUDIO, "DescribeQuota", "{}"),
    ] {
        let (_, headers, _) = send(gate.public, request).await;
        assert!(!headers.contains_key("ratelimit") && !headers.contains_key("ratelimit-policy"));
    }
    // An upstream's failure, too.
    let dead: SocketAddr = ([127, 0, 0, 1], 9).into();
    let gate = Gate::start(dead).await;
    let (status, headers, _) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(headers["ratelimit"], format!("{group};r=19;t=1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_turned_away_is_told_to_its_account_within_ten_seconds_and_at_an_orderly_end() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let mut gate = Gate::start(upstream.address).await;
    let mut client = Client::connect(gate.public).await.unwrap();
    let mut throttled = 0_i64;
    for _ in 0..60 {
        let (status, ..) = client.send(segment(STUDIO_KEY)).await.unwrap();
        throttled += i64::from(status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(throttled > 0);
    for _ in 0..3 {
        client.send(segment(ARREARS_KEY)).await.unwrap();
    }
    let unknown = plain("POST", "/v1/nowhere", STUDIO_KEY, "");
    client.send(unknown).await.unwrap();
    gate.mover.advance(Duration::from_secs(11));
    let mut told = Value::Null;
    for _ in 0..100 {
        told = own_json(&gate, STUDIO, "/v1/quota").await;
        if told["turned_away"]["month"]["throttled"] == throttled {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // By a whole hour less one moment the day is the same one.
    let month = &told["turned_away"]["month"];
    assert_eq!(
        (&month["throttled"], &month["refused"]),
        (&json!(throttled), &json!(1)),
        "{told}"
    );
    let kinds = month["kinds"].as_array().unwrap();
    let group = "portrait-segmentation";
    for kind in [
        json!({"group": group, "reason": "throttled", "calls": throttled}),
        json!({"group": null, "reason": "action_unknown", "calls": 1}),
    ] {
        assert!(kinds.contains(&kind), "{kind}: {month}");
    }
    let arrears = ask(&gate, plain("GET", "/v1/quota", ARREARS_KEY, "")).await;
    let kind = &json_of(&arrears.2)["turned_away"]["month"]["kinds"];
    assert_eq!(
        *kind,
        json!([{"group": group, "reason": "arrears", "calls": 3}])
    );
    gate.at_rest().await.assert_conserved();

    // The last ten seconds are not lost by an orderly end, and nothing is told twice.
    client.send(segment(ARREARS_KEY)).await.unwrap();
    let running = gate.running.take().unwrap();
    running.drain(std::future::pending()).await.unwrap();
    let ledger = rusqlite::Connection::open(gate.ledger()).unwrap();
    let sum = |reason: &str| {
        let sql = "SELECT coalesce(sum(calls), 0) FROM turned_away WHERE reason = ?1";
        ledger
            .query_row(sql, [reason], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!((sum("arrears"), sum("throttled")), (4, throttled));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_says_since_when_it_holds_and_what_to_do_in_one_time_zone() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = settled_gate(&upstream).await;
    for (key, since, to_do) in [
        (
            STUDIO_KEY,
            json!("2026-01-01T00:00:00+08:00"),
            "change to QPS billing",
        ),
        (
            RETAIL_KEY,
            json!("2026-01-01T00:00:00+08:00"),
            "buy more quota",
        ),
        (ARREARS_KEY, Value::Null, "pay what is owed"),
    ] {
        let (_, _, body) = ask(&gate, plain("GET", "/v1/quota", key, "")).await;
        let told = json_of(&body);
        assert_eq!(told["time_zone"], "Asia/Shanghai");
        let quota = &told["services"]["portrait-segmentation"]["quotas"][0];
        assert_eq!(quota["since"], since);
        assert!(quota["to_do"].as_str().unwrap().contains(to_do), "{quota}");
        let text = told.to_string();
        assert!(!text.contains("Z\""), "{text}");
        assert!(text.contains("+08:00"));
    }
}

/// An export of `path`, and its lines.
async fn export(gate: &Gate, of: Customer, path: &str) -> (HeaderMap, Vec<String>) {
    let (status, headers, body) = own(gate, of, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body:?}");
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    (headers, text.lines().map(str::to_owned).collect())
}

/// Calls of last month: more than the pages of an export that the sockets hold.
pub fn many_calls(count: i64) -> Vec<Record> {
    let call_at = |n: i64| {
        let at = into_last_month(n * 1_000_000);
        let of = if n % 10 == 9 { RETAIL } else { STUDIO };
        call(of.id, at, of.mode, Reason::Billable)
    };
    (0..count).map(call_at).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_many_pages_is_whole_and_goes_on_behind_any_of_its_lines() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate_with(&upstream, many_calls(7_000)).await;
    let path = format!("/v1/records?month={}", last_month());
    let (headers, lines) = export(&gate, STUDIO, &path).await;
    assert_eq!(headers["content-type"], "application/x-ndjson");
    assert_eq!(headers["transfer-encoding"], "chunked");
    let of_studio = |line: &Value| line["account"] == STUDIO.id;
    let records: Vec<Value> = lines
        .iter()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(records.iter().all(of_studio));
    // The same as the ledger has, and as the command prints.
    let stored: Vec<_> = gate
        .records()
        .into_iter()
        .filter(|r| r.account.as_str() == STUDIO.id)
        .collect();
    assert_eq!(records.len(), 6_300);
    for (told, stored) in records.iter().zip(&stored) {
        let mut told = told.clone();
        let cursor = told.as_object_mut().unwrap().remove("cursor").unwrap();
        assert_eq!(cursor, format!("{}:0:{}", STUDIO.id, stored.seq));
        assert_eq!(told, serde_json::to_value(stored).unwrap());
    }
    for resumed_behind in [0, 999, 1_000, 4_321, 6_298, 6_299] {
        let cursor = records[resumed_behind]["cursor"].as_str().unwrap();
        let (_, rest) = export(&gate, STUDIO, &format!("{path}&after={cursor}")).await;
        assert_eq!(rest, lines[resumed_behind + 1..], "{resumed_behind}");
    }
    let (headers, csv) = export(&gate, STUDIO, &format!("{path}&format=csv")).await;
    assert_eq!(headers["content-type"], "text/csv; charset=utf-8");
    assert_eq!(csv.len(), 6_301);
    assert!(csv[0].starts_with("seq,id,account,") && csv[0].ends_with(",cursor"));
    for (line, record) in csv[1..].iter().zip(&records) {
        assert!(line.ends_with(&format!(",{}", record["cursor"].as_str().unwrap())));
        assert!(line.starts_with(&format!(
            "{},{}",
            record["seq"],
            record["id"].as_str().unwrap()
        )));
    }
    // An action gets a page and the cursor behind it, until there is no more.
    let (mut after, mut listed) = (String::new(), 0);
    loop {
        let after_it = match after.is_empty() {
            true => String::new(),
            false => format!(",\"After\":\"{after}\""),
        };
        let body = format!("{{\"Month\":\"{}\"{after_it}}}", last_month());
        let answer = envelope(&gate, STUDIO, "DescribeRecords", &body).await;
        let page = &answer["Records"];
        listed += page["records"].as_array().unwrap().len();
        after = page["next_cursor"].as_str().unwrap().to_owned();
        if page["complete"] == true {
            break;
        }
    }
    assert_eq!(listed, 6_300);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_export_of_an_account_runs_at_a_time_and_its_end_or_its_clients_makes_room() {
    let upstream = Upstream::after(Duration::ZERO).await;
    // Far more than the sockets hold while nobody reads.
    let gate = gate_with(&upstream, many_calls(60_000)).await;
    let path = format!("/v1/records?month={}", last_month());
    let mut slow = Wire::connect(gate.public).await;
    let ask_slowly = format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-api-key: {STUDIO_KEY}\r\n\r\n");
    slow.write(ask_slowly).await;
    slow.stream.readable().await.unwrap();
    let (status, _, body) = own(&gate, STUDIO, &path).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(json_of(&body)["type"], "urn:tollgate:problem:export_runs");
    let answer = envelope(&gate, STUDIO, "DescribeRecords", "{}").await;
    assert_eq!(answer["Error"]["Code"], "RequestLimitExceeded");
    // Nothing else of the account is held up, nor another account's export, nor a call.
    let (status, ..) = own(&gate, STUDIO, "/v1/quota").await;
    assert_eq!(status, StatusCode::OK);
    let (_, lines) = export(&gate, RETAIL, &path).await;
    assert_eq!(lines.len(), 6_000);
    let (status, ..) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::OK);
    drop(slow);
    let mut status = StatusCode::TOO_MANY_REQUESTS;
    for _ in 0..100 {
        status = ask(&gate, plain("HEAD", &path, STUDIO_KEY, "")).await.0;
        if status == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, StatusCode::OK);
    let samples = gate.at_rest().await;
    samples.assert_conserved();
    assert_eq!(samples.decided("throttled"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_restore_or_another_ledger_is_refused_with_the_remedy() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, |config: &mut Config| {
        let path = &config.settings.ledger.path;
        seed(path, calls_of_both());
        let ledger = rusqlite::Connection::open(path).unwrap();
        // As after a restore from a backup that ended with the 20th record.
        let restored =
            "UPDATE identity SET restore_count = 1; INSERT INTO restores VALUES (1, 20, 21, 0)";
        ledger.execute_batch(restored).unwrap();
    })
    .await;
    let path = format!("/v1/records?month={}", last_month());
    let (_, lines) = export(&gate, STUDIO, &path).await;
    let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert!(
        last["cursor"]
            .as_str()
            .unwrap()
            .starts_with("1250000001:1:")
    );
    for (cursor, expected, status, remedy) in [
        (
            "1250000001:0:33",
            "cursor_restored",
            409,
            "go on after that",
        ),
        (
            "1250000001:2:33",
            "bad_cursor",
            400,
            "leave it out to begin anew",
        ),
        ("1250000002:1:33", "bad_cursor", 400, "of another account"),
        ("33", "bad_cursor", 400, "as it came"),
    ] {
        let (got, _, body) = own(&gate, STUDIO, &format!("{path}&after={cursor}")).await;
        let told = json_of(&body);
        assert_eq!(got.as_u16(), status, "{cursor}: {told}");
        assert_eq!(told["type"], format!("urn:tollgate:problem:{expected}"));
        let detail = told["detail"].as_str().unwrap();
        assert!(detail.contains(remedy), "{detail}");
        if expected == "cursor_restored" {
            assert!(detail.contains("1250000001:1:19"), "{detail}");
            let (_, rest) = export(&gate, STUDIO, &format!("{path}&after=1250000001:1:19")).await;
            assert!(!rest.is_empty());
        }
    }
}

/// What a customer runs who has nothing but its key.
fn recount_by(house: &Sandbox) -> Output {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recount/customer.py");
    let mut command = std::process::Command::new("timeout");
    command.arg("120").arg("python3").arg(script);
    command.arg(format!("http://{}", house.public));
    command.args(["--month", &last_month().to_string()]);
    said(command.env("KEY", crate::bills::KEY))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_recounts_its_bill_from_what_its_own_key_fetches() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = crate::bills::house(upstream.address, &crate::bills::pack(), "[]");
    crate::bills::busy_month(&house);
    let process = house.start().await;
    crate::bills::settled(&house).await;
    let honest = recount_by(&house);
    assert_eq!(honest.code, Some(0), "{}{}", honest.out, honest.err);
    for expected in [
        "ok  digest of the statement",
        "ok  calls of the month, as counted: 14030",
        "ok  due at settlement, CNY: 27.00",
        "the statement agrees with the records",
    ] {
        assert!(honest.out.contains(expected), "{expected}: {}", honest.out);
    }
    drop(process);

    // A statement that was changed in the file.
    let ledger = rusqlite::Connection::open(house.ledger()).unwrap();
    let forge =
        r#"UPDATE statements SET statement = replace(statement, '"used":10000', '"used":9999')"#;
    assert_eq!(ledger.execute(forge, []).unwrap(), 1);
    drop(ledger);
    let _process = house.start().await;
    let forged = recount_by(&house);
    assert_eq!(forged.code, Some(1), "{}{}", forged.out, forged.err);
}

/// The examples of the page: the path after which each stands, and the example.
fn examples(page: &str) -> Vec<(&str, Value)> {
    let blocks = page.split("<!-- ").skip(1);
    blocks
        .filter_map(|block| {
            let (head, rest) = block.split_once(" -->\n\n```json\n")?;
            let (_, path) = head.split_once(": ")?;
            let (example, _) = rest.split_once("\n```")?;
            Some((path, serde_json::from_str(example).unwrap()))
        })
        .collect()
}

/// Where an answer and its example differ in the names of their parts or in the kinds of values. A
/// part that is a list is compared by what stands in both.
fn differences(place: &str, example: &Value, answer: &Value, found: &mut Vec<String>) {
    match (example, answer) {
        (Value::Object(example), Value::Object(answer)) => {
            let names =
                |of: &serde_json::Map<String, Value>| of.keys().cloned().collect::<Vec<_>>();
            let (mut known, mut told) = (names(example), names(answer));
            known.sort();
            told.sort();
            if known != told {
                found.push(format!("{place}: {known:?} and {told:?}"));
            }
            for (name, value) in example {
                differences(&format!("{place}.{name}"), value, &answer[name], found);
            }
        }
        (Value::Array(example), Value::Array(answer)) => {
            for (example, answer) in example.iter().zip(answer) {
                differences(&format!("{place}[]"), example, answer, found);
            }
        }
        (example, answer) => {
            if std::mem::discriminant(example) != std::mem::discriminant(answer) {
                found.push(format!("{place}: {example} and {answer}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_are_those_of_the_examples_on_the_page_for_customers() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let mut calls = many_calls(2_000);
    calls.extend(calls_of_both());
    let gate = gate_with(&upstream, calls).await;
    let mut client = Client::connect(gate.public).await.unwrap();
    let mut throttled = String::new();
    for _ in 0..40 {
        let (status, headers, _) = client.send(segment(STUDIO_KEY)).await.unwrap();
        if status == StatusCode::TOO_MANY_REQUESTS {
            throttled = headers["x-request-id"].to_str().unwrap().to_owned();
        }
    }
    let unknown = plain("POST", "/v1/nowhere", STUDIO_KEY, "");
    client.send(unknown).await.unwrap();
    gate.mover.advance(Duration::from_secs(11));
    let ledger = rusqlite::Connection::open(gate.ledger()).unwrap();
    eventually("what was turned away is kept", || {
        let sql = "SELECT count(*) FROM turned_away";
        let count: i64 = ledger.query_row(sql, [], |row| row.get(0)).unwrap();
        count >= 2
    })
    .await;

    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/CUSTOMERS.md");
    let page = std::fs::read_to_string(path).unwrap();
    let examples = examples(&page);
    assert_eq!(examples.len(), 6);
    let mut found = Vec::new();
    for (path, example) in examples {
        let asked = path.replace("2026-10", &last_month().to_string());
        let asked = asked.replace("ID", &throttled);
        let (status, _, body) = own(&gate, STUDIO, &asked).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        // Of lines the first.
        let line = body.split(|byte| *byte == b'\n').next().unwrap();
        let answer: Value = serde_json::from_slice(line).unwrap();
        differences(path, &example, &answer, &mut found);
    }
    assert!(found.is_empty(), "example and answer: {found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_while_the_questions_of_its_only_worker_wait_for_the_ledger() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, |config: &mut Config| {
        config.settings.workers = std::num::NonZeroUsize::new(1);
    })
    .await;
    // The list of statements takes seconds; what a call needs is as it was.
    let slow = "ALTER TABLE statements RENAME TO kept; ALTER TABLE settlements RENAME TO settled;
        CREATE VIEW settlements AS SELECT * FROM settled;
        CREATE VIEW statements AS
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000000)
        SELECT 'm' || max(i) AS month, '' AS account, '' AS due, '' AS inputs, '' AS statement FROM n;";
    let ledger = rusqlite::Connection::open(gate.ledger()).unwrap();
    ledger.execute_batch(slow).unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for key in [STUDIO_KEY, RETAIL_KEY, ARREARS_KEY, VIDEO_KEY] {
        let ask = plain("GET", "/v1/statements", key, "");
        asking.spawn(send(gate.public, ask));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..3 {
        let (status, ..) = send(gate.public, segment(STUDIO_KEY)).await;
        assert_eq!(status, StatusCode::OK);
    }
    assert!(asking.try_join_next().is_none(), "the questions wait still");
    for (status, ..) in asking.join_all().await {
        assert_eq!(status, StatusCode::OK);
    }
}
