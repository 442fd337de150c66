//! The way of a request, in both dialects.

use crate::harness::*;
use http::StatusCode;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn an_admitted_call_reaches_the_upstream_named_and_comes_back_counted() {
    let upstream = Upstream::after(Duration::from_millis(5)).await;
    let gate = Gate::start(upstream.address).await;

    let (status, headers, body) = send(gate.public, segment(STUDIO_KEY)).await;

    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        &body[..],
        b"{\"Response\":{\"RequestId\":\"from-upstream\"}}"
    );
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].headers["x-tollgate-account"], "1250000001");
    assert_eq!(seen[0].headers["x-tollgate-group"], "portrait-segmentation");
    assert_eq!(seen[0].headers["x-tollgate-action"], "SegmentPortraitPic");
    assert!(
        !seen[0].headers.contains_key("x-api-key"),
        "a secret stays at the gate"
    );
    assert_eq!(&seen[0].body[..], b"{\"Image\":\"iVBORw0KGgo=\"}");
    let records = gate.records();
    assert_eq!(records.len(), 1);
    assert_eq!(headers["x-request-id"], records[0].id.to_string());
    assert_eq!(seen[0].headers["x-request-id"], records[0].id.to_string());
    assert!(records[0].billable);
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_call_is_answered_in_the_vendors_dialect() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let call = || {
        signed(
            STUDIO_ID,
            STUDIO_SECRET,
            "SegmentPortraitPic",
            "{\"Image\":\"x\"}",
        )
    };
    let (status, headers, body) = send(gate.public, call()).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(
        &body[..],
        b"{\"Response\":{\"RequestId\":\"from-upstream\"}}"
    );
    for _ in 0..19 {
        send(gate.public, call()).await;
    }
    let (status, headers, body) = send(gate.public, call()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "application/json");
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["Response"]["Error"]["Code"], "RequestLimitExceeded");
    assert_eq!(gate.records().len(), 20);
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_whose_ledger_has_ended_says_that_it_must_be_started_again() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    assert_eq!(get(gate.admin, "/livez").await.0, StatusCode::OK);
    let ledger = &gate.running.as_ref().unwrap().proxy.shared().ledger;
    ledger.close(Duration::ZERO).unwrap();
    let (status, _, said) = get(gate.admin, "/livez").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said:?}");
    let (status, _, _) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(upstream.seen().is_empty(), "nothing is forwarded uncounted");
}
