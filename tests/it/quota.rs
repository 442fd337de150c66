//! The quota in force: when a purchase begins and ends, and what a customer sees of its own.

use crate::harness::*;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tollgate::testing::config::Config;
use tollgate::testing::model::Utc;

const RETAIL: &str = "1250000002";
const PORTRAIT: &str = "portrait-segmentation";

async fn admin_json(gate: &Gate, path: &str) -> Value {
    let (status, _, body) = get(gate.admin, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body:?}");
    serde_json::from_slice(&body).unwrap()
}

fn own_quota(key: &str) -> Request<Full<Bytes>> {
    plain("GET", "/v1/quota", key, "")
}

async fn asked(
    public: SocketAddr,
    request: Request<Full<Bytes>>,
) -> (StatusCode, HeaderMap, Value) {
    let (status, headers, body) = send(public, request).await;
    (status, headers, serde_json::from_slice(&body).unwrap())
}

/// In the catalogue's zone.
fn rfc3339(at: Utc) -> String {
    let at = jiff::Timestamp::from_microsecond(at.0).unwrap();
    at.display_with_offset(jiff::tz::offset(8)).to_string()
}

/// Waits until the wall clock has passed `at`.
async fn until(gate: &Gate, at: Utc) {
    while gate.clock.utc() < at {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_begins_and_ends_to_the_second_without_a_reload() {
    const QPS: u32 = 7;
    let upstream = Upstream::after(Duration::ZERO).await;
    let mut begins = Utc(0);
    let mut ends = Utc(0);
    let gate = Gate::start_with(upstream.address, |config: &mut Config| {
        // On a whole second, past the hold of the start and the first look below.
        let now = tollgate::testing::model::Clock::default().utc();
        begins = Utc((now.seconds() + 6) * 1_000_000);
        ends = Utc(begins.0 + 2_000_000);
        let service = &mut config.accounts[1].services[0];
        let mut purchase = service.qps_purchases[0].clone();
        (purchase.qps, purchase.from, purchase.until) = (QPS, begins, ends);
        service.qps_purchases = Box::new([purchase]);
    })
    .await;

    let before = admin_json(&gate, &format!("/v1/accounts/{RETAIL}")).await;
    let (status, headers, _) = send(gate.public, segment(RETAIL_KEY)).await;
    assert!(
        gate.clock.utc() < begins,
        "the machine is too busy to look before it begins"
    );
    let before = &before["services"][PORTRAIT][0];
    assert_eq!(before["quota_qps"], 0);
    assert_eq!(before["because"], json!([]));
    assert_eq!(
        before["next_change"],
        json!({"at": rfc3339(begins), "quota_qps": QPS})
    );
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    let retry_after: i64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=6).contains(&retry_after), "when it begins");

    // Clients above the quota from before it begins until after it ends.
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (public, clock) = (gate.public, gate.clock.clone());
        callers.spawn(async move {
            let mut client = Client::connect(public).await.unwrap();
            while clock.utc() < Utc(ends.0 + 500_000) {
                client.send(segment(RETAIL_KEY)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        });
    }
    until(&gate, Utc(begins.0 + 100_000)).await;
    let during = admin_json(&gate, &format!("/v1/accounts/{RETAIL}")).await;
    if gate.clock.utc() < ends {
        let during = &during["services"][PORTRAIT][0];
        assert_eq!(during["quota_qps"], QPS);
        assert_eq!(
            during["because"],
            json!([{"order": "Q-1", "qps": QPS, "from": rfc3339(begins), "until": rfc3339(ends)}])
        );
        assert_eq!(
            during["next_change"],
            json!({"at": rfc3339(ends), "quota_qps": 0})
        );
    }
    callers.join_all().await;
    let after = admin_json(&gate, &format!("/v1/accounts/{RETAIL}")).await;
    let after = &after["services"][PORTRAIT][0];
    assert_eq!(after["quota_qps"], 0);
    assert_eq!(after["next_change"], Value::Null);

    let samples = gate.at_rest().await;
    samples.assert_conserved();
    assert_eq!(samples.sum("tollgate_config_generation", &[]), 1);
    let mut admitted: Vec<i64> = gate.records().iter().map(|r| r.admitted_at.0).collect();
    admitted.sort_unstable();
    // A start is decided up to max_delay earlier.
    let (first, last) = (admitted[0], *admitted.last().unwrap());
    assert!(
        first >= begins.0 && last < ends.0 + 60_000,
        "admitted from {first} to {last}, bought from {begins:?} to {ends:?}"
    );
    assert!(
        first < begins.0 + 900_000 && last > ends.0 - 1_500_000,
        "used from its first moment"
    );
    // Two seconds, [begins, ends): two full quotas, and what two clients waited for at the end.
    let quota = QPS as usize;
    assert!((quota..=2 * quota + 2).contains(&admitted.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_sees_its_own_quota_why_it_holds_its_live_use_and_this_months_calls() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let mut client = Client::connect(gate.public).await.unwrap();
    for _ in 0..5 {
        client.send(segment(RETAIL_KEY)).await.unwrap();
    }
    client
        .send(plain("POST", "/v1/video/tasks", RETAIL_KEY, "{}"))
        .await
        .unwrap();
    // Another account's calls are none of its business.
    client.send(segment(STUDIO_KEY)).await.unwrap();
    let before = gate.at_rest().await;
    let records = gate.records().len();

    let (status, headers, told) = asked(gate.public, own_quota(RETAIL_KEY)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["cache-control"], "no-store");
    assert!(headers.contains_key("x-request-id"));
    assert_eq!(
        (&told["account"], &told["name"]),
        (&json!(RETAIL), &json!("Example Retail"))
    );
    let portrait = &told["services"][PORTRAIT];
    assert_eq!(portrait["quotas"].as_array().unwrap().len(), 1);
    let quota = &portrait["quotas"][0];
    assert_eq!(
        (&quota["mode"], &quota["quota_qps"], &quota["stopped"]),
        (&json!("qps"), &json!(30), &Value::Null)
    );
    let orders: Vec<_> = quota["because"]
        .as_array()
        .unwrap()
        .iter()
        .map(|why| (why["order"].as_str().unwrap(), why["qps"].as_u64().unwrap()))
        .collect();
    assert_eq!(orders, [("Q-1", 10), ("Q-2", 20)]);
    assert_eq!(quota["next_change"]["quota_qps"], 0);
    assert!(quota["in_use"].as_u64().unwrap() <= 5);
    assert_eq!(
        (
            &portrait["month"]["admitted"],
            &portrait["month"]["billable"]
        ),
        (&json!(5), &json!(5))
    );
    let video = &told["services"]["video-segmentation"];
    let actions: Vec<_> = video["quotas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|quota| quota["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "CreateSegmentationTask",
            "DescribeSegmentationTask",
            "TerminateSegmentationTask"
        ]
    );
    assert_eq!(
        (&video["month"]["admitted"], &video["month"]["billable"]),
        (&json!(1), &json!(0))
    );

    let (status, _, studio) = asked(gate.public, own_quota(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        studio["services"][PORTRAIT]["quotas"][0]["mode"],
        "per_call"
    );
    assert_eq!(studio["services"][PORTRAIT]["quotas"][0]["quota_qps"], 20);
    assert_eq!(studio["services"][PORTRAIT]["month"]["admitted"], 1);
    let (status, _, arrears) = asked(gate.public, own_quota(ARREARS_KEY)).await;
    assert_eq!(status, StatusCode::OK, "a stopped account may look");
    let stopped = &arrears["services"][PORTRAIT]["quotas"][0];
    assert_eq!(
        (&stopped["stopped"], &stopped["quota_qps"]),
        (&json!("arrears"), &json!(0))
    );
    // By the files, whatever the balance is.
    assert_eq!(
        (&arrears["in_arrears"], &arrears["balance"]),
        (&json!(true), &json!("0.00"))
    );
    let samples = gate.metrics().await;
    assert_eq!(samples.sum("tollgate_accounts_in_arrears", &[]), 1);
    let own = ["account=\"1250000003\"", "group=\"portrait-segmentation\""];
    assert_eq!(samples.sum("tollgate_quota_qps", &own), 0);
    for (seen, others) in [(&told, "1250000001"), (&studio, RETAIL)] {
        assert!(!seen.to_string().contains(others), "nobody sees another");
    }
    for secret in ["demo-retail-key", "trial-secret"] {
        assert!(!told.to_string().contains(secret));
    }

    let after = gate.at_rest().await;
    after.assert_conserved();
    for family in [
        "tollgate_requests_received_total",
        "tollgate_requests_total",
        "tollgate_records_total",
        "tollgate_account_requests_total",
    ] {
        assert_eq!(after.sum(family, &[]), before.sum(family, &[]), "{family}");
    }
    assert_eq!(gate.records().len(), records);
    assert_eq!(upstream.seen().len(), records, "the upstream is not asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_a_quota_takes_none_of_it_and_shows_the_window_as_it_is() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let mut client = Client::connect(gate.public).await.unwrap();
    let mut proved = false;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let began = gate.clock.mono();
        let mut admitted = 0;
        let mut in_use = Vec::new();
        for call in 1..=22 {
            let (status, ..) = client.send(segment(STUDIO_KEY)).await.unwrap();
            admitted += u64::from(status == StatusCode::OK);
            // An account may ask five times a second.
            if call % 5 != 0 && call != 22 {
                continue;
            }
            let (.., body) = client.send(own_quota(STUDIO_KEY)).await.unwrap();
            let told: Value = serde_json::from_slice(&body).unwrap();
            in_use.push(
                told["services"][PORTRAIT]["quotas"][0]["in_use"]
                    .as_u64()
                    .unwrap(),
            );
        }
        // On a machine so busy that this took a second, it shows nothing.
        if gate.clock.mono().since(began) < Duration::from_millis(900) {
            assert_eq!(admitted, 20);
            assert_eq!(in_use, [5, 10, 15, 20, 20]);
            proved = true;
            break;
        }
    }
    assert!(proved, "no attempt fitted into a second");
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_get_sees_the_same_as_an_api_key() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let (_, _, mut by_key) = asked(gate.public, own_quota(STUDIO_KEY)).await;
    by_key["now"].take();
    let bearer = Request::get("/v1/quota")
        .header("host", "gate.test")
        .header("authorization", format!("Bearer {STUDIO_KEY}"))
        .body(Full::default())
        .unwrap();
    for request in [bearer, signed_get(STUDIO_ID, STUDIO_SECRET, "/v1/quota")] {
        let (status, headers, mut told) = asked(gate.public, request).await;
        assert_eq!(status, StatusCode::OK, "{told}");
        assert_eq!(headers["content-type"], "application/json");
        assert!(told["now"].take().as_str().unwrap().ends_with("+08:00"));
        assert_eq!(told, by_key);
    }
    // A signature covers the parameters too, and one that is not known is refused.
    let unknown = signed_get(STUDIO_ID, STUDIO_SECRET, "/v1/quota?verbose=1");
    let (_, _, told) = asked(gate.public, unknown).await;
    assert_eq!(told["Response"]["Error"]["Code"], "UnknownParameter");
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_credential_sees_nothing_in_either_dialect_and_is_held_down_like_any_other() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let mut unsigned = signed_get(STUDIO_ID, STUDIO_SECRET, "/v1/quota");
    unsigned.headers_mut().remove("authorization");
    let mut with_body = signed_get(STUDIO_ID, STUDIO_SECRET, "/v1/quota");
    *with_body.uri_mut() = "/v1/quota?x=1".parse().unwrap();
    for (request, plain_status, code) in [
        (own_quota("nobody's"), StatusCode::UNAUTHORIZED, ""),
        (own_quota(STUDIO_ID), StatusCode::UNAUTHORIZED, ""),
        (unsigned, StatusCode::UNAUTHORIZED, ""),
        (
            signed_get(STUDIO_ID, "a-guess", "/v1/quota"),
            StatusCode::OK,
            "AuthFailure.SignatureFailure",
        ),
        (with_body, StatusCode::OK, "AuthFailure.SignatureFailure"),
        (
            signed_get("AKIDNOBODY", STUDIO_SECRET, "/v1/quota"),
            StatusCode::OK,
            "AuthFailure.SecretIdNotFound",
        ),
    ] {
        let (status, headers, told) = asked(gate.public, request).await;
        assert_eq!(status, plain_status, "{told}");
        assert!(headers.contains_key("x-request-id"));
        assert!(!told.to_string().contains("1250000001"));
        if code.is_empty() {
            assert_eq!(headers["content-type"], "application/problem+json");
        } else {
            assert_eq!(told["Response"]["Error"]["Code"], code);
            assert_eq!(headers["content-type"], "application/json");
        }
    }
    // Five of these failed a check of a secret; ten are forgiven, and one more each second.
    let mut client = Client::connect(gate.public).await.unwrap();
    let mut latest = Duration::ZERO;
    for _ in 0..20 {
        let began = gate.clock.mono();
        client.send(own_quota("another guess")).await.unwrap();
        latest = latest.max(gate.clock.mono().since(began));
        if gate.metrics().await.sum("tollgate_held_down_total", &[]) > 0 {
            break;
        }
    }
    assert!(latest >= Duration::from_millis(900), "{latest:?}");
    let (status, ..) = asked(gate.public, own_quota(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::OK, "a valid credential is not held");
    let samples = gate.at_rest().await;
    assert_eq!(samples.sum("tollgate_held_down_total", &[]), 1);
    assert_eq!(
        samples.sum("tollgate_requests_received_total", &[]),
        0,
        "none of it is a call"
    );
    samples.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_of_the_quota_knows_its_methods_and_keeps_the_limits_of_a_head() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let (status, headers, _) =
            send(gate.public, plain(method, "/v1/quota", STUDIO_KEY, "")).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(headers["allow"], "GET, HEAD", "{method}");
    }
    let mut named = signed(STUDIO_ID, STUDIO_SECRET, "SegmentPortraitPic", "{}");
    *named.uri_mut() = "/v1/quota".parse().unwrap();
    let (status, _, told) = asked(gate.public, named).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(told["Response"]["Error"]["Code"], "UnsupportedProtocol");

    let mut large = own_quota(STUDIO_KEY);
    let padding = "x".repeat(33 << 10).parse().unwrap();
    large.headers_mut().insert("x-padding", padding);
    let (status, ..) = send(gate.public, large).await;
    assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);

    let (status, ..) = send(gate.public, plain("GET", "/v1/quota/", STUDIO_KEY, "")).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "another path is a call");
    let samples = gate.at_rest().await;
    assert_eq!(samples.sum("tollgate_requests_received_total", &[]), 1);
    samples.assert_conserved();
    assert_eq!((gate.records().len(), upstream.seen().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_questions_than_the_ledger_can_bear_are_answered_or_told_to_come_back() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let mut asking = tokio::task::JoinSet::new();
    // No account asks too often by itself.
    for key in [STUDIO_KEY, RETAIL_KEY, ARREARS_KEY, VIDEO_KEY] {
        for _ in 0..5 {
            asking.spawn(asked(gate.public, own_quota(key)));
        }
    }
    let mut answered = 0;
    for (status, _, told) in asking.join_all().await {
        match status {
            StatusCode::OK => answered += 1,
            StatusCode::SERVICE_UNAVAILABLE => {}
            other => panic!("{other}: {told}"),
        }
    }
    assert!(answered >= 8);
    gate.mover.advance(Duration::from_millis(1_100));
    let (status, ..) = asked(gate.public, own_quota(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::OK, "every place was given back");
}

/// Makes the ledger of `gate` take seconds to answer, as one of many accounts may.
fn slow_down(gate: &Gate) {
    let ledger = rusqlite::Connection::open(gate.ledger()).unwrap();
    let slow = r#"DROP VIEW rollup;
        CREATE VIEW rollup AS
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000)
        SELECT '' || i AS account, '' AS "group", '' AS action, '' AS mode, '' AS outcome, 0 AS billable, '' AS reason,
               i AS hour, 1 AS calls, 1 AS first_seq, 1 AS last_seq FROM n;
        ALTER TABLE series RENAME TO kept;
        CREATE VIEW series AS SELECT hour AS id, account, "group", action, mode, outcome, billable, reason FROM rollup;
        ALTER TABLE hours RENAME TO kept_hours;
        CREATE VIEW hours AS SELECT hour, hour AS series, calls, first_seq, last_seq FROM rollup;"#;
    ledger.execute_batch(slow).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_on_the_admin_listener_keeps_its_place_though_its_client_hung_up() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    slow_down(&gate);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..8 {
        asking.spawn(get(gate.admin, "/v1/usage"));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    asking.shutdown().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (status, ..) = get(gate.admin, "/v1/usage").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_keeps_its_place_until_the_ledger_has_answered_though_its_client_hung_up() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    slow_down(&gate);
    let mut asking = tokio::task::JoinSet::new();
    for key in [STUDIO_KEY, RETAIL_KEY] {
        for _ in 0..4 {
            asking.spawn(asked(gate.public, own_quota(key)));
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    asking.shutdown().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (status, ..) = asked(gate.public, own_quota(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[test]
fn a_route_or_an_action_of_the_gates_own_is_refused_with_its_place() {
    for path in [
        "GET /v1/quota",
        "POST /v1/usage",
        "GET /v1/statements",
        "PUT /v1/statements/2026-11",
        "GET /v1/records",
    ] {
        let house = Sandbox::new(([127, 0, 0, 1], 9).into(), &[]);
        let route = format!("{path}}}");
        house.edit("catalog.yaml", "POST /v1/portrait/segment}", &route);
        let said = house.run(&["check"]);
        assert_eq!(said.code, Some(1));
        let (_, path) = path.split_once(' ').unwrap();
        let place = format!("catalog.yaml:19:35: route: {path} is the gate's own");
        assert!(said.err.contains(&place), "{}", said.err);
    }
    for action in [
        "DescribeQuota",
        "DescribeUsage",
        "DescribeStatements",
        "DescribeStatement",
        "DescribeRecords",
    ] {
        let house = Sandbox::new(([127, 0, 0, 1], 9).into(), &[]);
        house.edit("catalog.yaml", "SegmentPortraitPic:", &format!("{action}:"));
        let said = house.run(&["check"]);
        assert_eq!(said.code, Some(1));
        let place = format!("catalog.yaml:19:7: {action} is the gate's own action");
        assert!(said.err.contains(&place), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_opened_yet_has_no_quota_before_and_says_when_it_has() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let mut opens = Utc(0);
    let gate = Gate::start_with(upstream.address, |config: &mut Config| {
        let now = tollgate::testing::model::Clock::default().utc();
        opens = Utc((now.seconds() + 3_600) * 1_000_000);
        config.accounts[1].services[0].opened = opens;
    })
    .await;
    let account = admin_json(&gate, &format!("/v1/accounts/{RETAIL}")).await;
    let quota = &account["services"][PORTRAIT][0];
    assert_eq!(quota["quota_qps"], 0);
    assert_eq!(quota["opened"], rfc3339(opens));
    assert_eq!(
        quota["next_change"],
        json!({"at": rfc3339(opens), "quota_qps": 30})
    );
    let why = quota["because"][0]["rule"].as_str().unwrap();
    assert!(why.contains("not opened yet"), "{why}");
    let own = [
        format!("account=\"{RETAIL}\""),
        format!("group=\"{PORTRAIT}\""),
    ];
    let samples = gate.metrics().await;
    let shown = samples.sum("tollgate_quota_qps", &own.each_ref().map(String::as_str));
    assert_eq!(shown, 0);
}
