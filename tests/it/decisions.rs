//! Why a call was not let through, as its customer and the operator are told.

use crate::harness::*;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Calls until one is over the cap, and gives its id.
async fn throttled(public: SocketAddr, key: &str) -> String {
    let mut client = Client::connect(public).await.unwrap();
    for _ in 0..200 {
        let mut request = segment(key);
        let fields = request.headers_mut();
        fields.insert("traceparent", TRACE.parse().unwrap());
        let (status, headers, _) = client.send(request).await.unwrap();
        if status == StatusCode::TOO_MANY_REQUESTS {
            return id(&headers);
        }
    }
    panic!("nothing is throttled");
}

fn id(headers: &HeaderMap) -> String {
    headers["x-request-id"].to_str().unwrap().to_owned()
}

async fn own(public: SocketAddr, key: &str, id: &str) -> (StatusCode, HeaderMap, String) {
    let ask = plain("GET", &format!("/v1/decisions/{id}"), key, "");
    let (status, headers, body) = send(public, ask).await;
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn by_operator(admin: SocketAddr, id: &str) -> (StatusCode, Value) {
    let (status, _, body) = get(admin, &format!("/v1/decisions/{id}")).await;
    (status, serde_json::from_slice(&body).unwrap())
}

fn instant(value: &Value) -> i64 {
    let at: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
    at.as_microsecond()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_call_is_explained_by_its_limiter_its_quota_and_the_start_that_counts() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let id = throttled(gate.public, STUDIO_KEY).await;
    let (status, _, body) = own(gate.public, STUDIO_KEY, &id).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let told: Value = serde_json::from_str(&body).unwrap();
    for (name, value) in [
        ("request_id", json!(id)),
        ("decision", json!("throttled")),
        ("reason", json!("over_quota")),
        ("status", json!(429)),
        ("code", json!("RequestLimitExceeded")),
        ("account", json!("1250000001")),
        ("key", json!("d0f64b6f")),
        ("action", json!("SegmentPortraitPic")),
        (
            "limiter",
            json!({"group": "portrait-segmentation", "action": null}),
        ),
        ("mode", json!("per_call")),
        ("quota_qps", json!(20)),
        (
            "because",
            json!([{"rule": "the group's cap in per-call mode, the same for every account"}]),
        ),
        ("files_changed", json!(false)),
        ("generation", json!(1)),
        ("peer", json!("127.0.0.1")),
        ("traceparent", json!(TRACE)),
    ] {
        if name == "key" {
            assert!(told[name].is_string(), "{told}");
            continue;
        }
        assert_eq!(told[name], value, "{name}: {told}");
    }
    // Of the starts that the upstream saw, the 20th before is the one that the next one waits for.
    let starts: Vec<i64> = gate.records().iter().map(|r| r.admitted_at.0).collect();
    let counts = starts[starts.len() - 20];
    let (nth, next) = (
        instant(&told["nth_newest_start"]),
        instant(&told["next_start"]),
    );
    assert_eq!(next - nth, 1_000_000, "{told}");
    assert!((nth - counts).abs() < 100_000, "{nth} and {counts}");
    assert!(instant(&told["at"]) < next);
    let (status, operators) = by_operator(gate.admin, &id).await;
    assert_eq!((status, operators), (StatusCode::OK, told));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refusal_of_another_customers_call_is_told_as_one_that_never_was() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let studios = throttled(gate.public, STUDIO_KEY).await;
    let (status, headers, _) = send(gate.public, segment("no-such-key")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let nobodys = id(&headers);
    let (status, headers, _) = send(gate.public, segment(RETAIL_KEY)).await;
    assert_eq!(status, StatusCode::OK);
    let admitted = id(&headers);

    let unlike = async |asked: &str| {
        // Five questions a second.
        tokio::time::sleep(Duration::from_millis(250)).await;
        let (status, headers, body) = own(gate.public, RETAIL_KEY, asked).await;
        let own_id = id(&headers);
        assert!(
            !body.contains("1250000001") && !body.contains(asked),
            "{body}"
        );
        let mut fields: Vec<(String, Vec<u8>)> = headers
            .iter()
            .filter(|(name, _)| !["x-request-id", "date", "ratelimit"].contains(&name.as_str()))
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect();
        fields.sort();
        (status, fields, body.replace(&own_id, "ID"))
    };
    let never = unlike("01980a3c-7d5e-7000-8000-000000000001").await;
    assert_eq!(never.0, StatusCode::NOT_FOUND, "{never:?}");
    for asked in [&studios, &nobodys, &admitted, "not-an-id"] {
        assert_eq!(unlike(asked).await, never, "{asked}");
    }
    let (_, told) = by_operator(gate.admin, &nobodys).await;
    assert_eq!(told["reason"], "unknown_key", "{told}");
    assert_eq!(told["account"], Value::Null);
    let (status, told) = by_operator(gate.admin, &admitted).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains("an admitted call that was answered is a record"));
    let (status, _) = by_operator(gate.admin, "not-an-id").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orders_of_a_quota_are_named_until_the_files_say_otherwise() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let _process = house.start().await;
    let id = throttled(house.public, RETAIL_KEY).await;
    let (_, told) = by_operator(house.admin, &id).await;
    assert_eq!(told["quota_qps"], 30, "{told}");
    assert_eq!(told["mode"], "qps");
    let of = |told: &Value| -> u64 {
        let orders = told["because"].as_array().unwrap().iter();
        orders.map(|order| order["qps"].as_u64().unwrap()).sum()
    };
    assert_eq!(of(&told), 30);

    house.edit("accounts.yaml", "qps: 10", "qps: 11");
    let (status, _) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK);
    let (_, told) = by_operator(house.admin, &id).await;
    assert_eq!(told["quota_qps"], 30, "{told}");
    assert_eq!(told["because"], Value::Null);
    assert_eq!(told["files_changed"], true);
    assert_eq!(
        (&told["generation"], &told["generation_now"]),
        (&json!(1), &json!(2))
    );
    let said = house.run(&["explain", &id]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(
        said.out.contains("generation 1 decided, 2 is in force"),
        "{}",
        said.out
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_every_kind_are_explained_and_an_action_asks_as_a_path_does() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let (_, headers, _) = send(gate.public, segment(ARREARS_KEY)).await;
    let (_, told) = by_operator(gate.admin, &id(&headers)).await;
    assert_eq!(
        (&told["decision"], &told["reason"]),
        (&json!("refused"), &json!("arrears"))
    );
    assert_eq!(told["quota_qps"], 0, "{told}");
    assert!(
        told["because"][0]["rule"]
            .as_str()
            .unwrap()
            .contains("in arrears")
    );

    let unknown = plain("POST", "/v1/nowhere", STUDIO_KEY, "");
    let (_, headers, _) = send(gate.public, unknown).await;
    let (_, told) = by_operator(gate.admin, &id(&headers)).await;
    assert_eq!(
        (&told["account"], &told["limiter"]),
        (&json!("1250000001"), &Value::Null)
    );

    // Admitted, and the upstream is gone.
    let lost: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let alone = Gate::start(lost).await;
    let (status, headers, _) = send(alone.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let (_, told) = by_operator(alone.admin, &id(&headers)).await;
    assert_eq!(
        (&told["decision"], &told["reason"]),
        (&json!("failed"), &json!("upstream_unreachable"))
    );

    let id = throttled(gate.public, STUDIO_KEY).await;
    let body = json!({"RequestId": id}).to_string();
    let asked = signed(STUDIO_ID, STUDIO_SECRET, "DescribeDecision", &body);
    let (_, _, body) = send(gate.public, asked).await;
    let told: Value = serde_json::from_slice(&body).unwrap();
    let decision = &told["Response"]["Decision"];
    assert_eq!(decision["request_id"], json!(id), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_explains_a_call_to_whoever_has_the_token_of_the_gate() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let edits = [("\nadmin: {", "\nadmin: {token: let-me-in, ")];
    let house = Sandbox::new(upstream.address, &edits);
    let _process = house.start().await;
    let id = throttled(house.public, STUDIO_KEY).await;
    let said = house.run(&["explain", &id]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    for line in [
        "decision            throttled",
        "account             1250000001",
        "limiter             portrait-segmentation",
        "calls per second    20",
        "because             the group's cap in per-call mode, the same for every account",
    ] {
        assert!(
            said.out.lines().any(|told| told == line),
            "{line}: {}",
            said.out
        );
    }
    let said = house.run(&["explain", &id, "--format", "json"]);
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(told["request_id"], json!(id));
    let said = house.run(&["explain", "01980a3c-7d5e-7000-8000-000000000001"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("no refusal of this id is kept"),
        "{}",
        said.err
    );
    house.edit("tollgate.yaml", "let-me-in", "another");
    let said = house.run(&["explain", &id]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.err.contains("send the admin token"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_to_the_upstream_as_it_came_and_what_is_none_does_not() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let mut client = Client::connect(gate.public).await.unwrap();
    for (sent, passed) in [
        (vec![TRACE], Some(TRACE)),
        (vec!["00-not-a-trace-01"], None),
        (vec![TRACE, TRACE], None),
        (vec![], None),
    ] {
        let mut request = segment(STUDIO_KEY);
        for value in &sent {
            request
                .headers_mut()
                .append("traceparent", value.parse().unwrap());
        }
        request
            .headers_mut()
            .insert("tracestate", "vendor=1".parse().unwrap());
        client.send(request).await.unwrap();
        let seen = upstream.seen().pop().unwrap().headers;
        let got = seen.get("traceparent").map(|value| value.to_str().unwrap());
        assert_eq!(got, passed, "{sent:?}");
        // Without a trace nobody said that it belongs to none.
        let has_state = passed.is_some() || sent.is_empty();
        assert_eq!(seen.contains_key("tracestate"), has_state, "{sent:?}");
    }
}
