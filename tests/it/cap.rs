//! P1 on the wire: exact on the recorded starts, and at the upstream's door.

use crate::harness::*;
use http::StatusCode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tollgate::testing::ledger::StoredRecord;

const SECOND_NS: u64 = 1_000_000_000;

/// The most starts in any span of `span_ns` that ends with one.
pub fn most_within(mut times: Vec<u64>, span_ns: u64) -> usize {
    times.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (index, time) in times.iter().enumerate() {
        while times[first] + span_ns <= *time {
            first += 1;
        }
        most = most.max(index + 1 - first);
    }
    most
}

/// Recorded starts by account and group (action in a free group).
fn starts(records: &[StoredRecord]) -> BTreeMap<String, Vec<u64>> {
    let mut starts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in records {
        let action = if record.mode.as_str() == "free" {
            record.action.as_str()
        } else {
            ""
        };
        starts
            .entry(format!("{} {} {action}", record.account, record.group))
            .or_default()
            .push(record.start.0);
    }
    starts
}

/// Calls of `key` from `clients` connections, each sending its next call `pause` after the last
/// answer.
async fn flood(
    gate: &Gate,
    key: &'static str,
    clients: usize,
    pause: Duration,
    calls_each: usize,
) -> (u64, u64) {
    let (admitted, throttled) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let (admitted, throttled, public) = (admitted.clone(), throttled.clone(), gate.public);
        tasks.spawn(async move {
            let mut connection = Client::connect(public).await.unwrap();
            let path = ["/v1/portrait/segment", "/v1/portrait/segment-custom"][client % 2];
            for _ in 0..calls_each {
                let (status, _, _) = connection
                    .send(plain("POST", path, key, "{}"))
                    .await
                    .unwrap();
                match status {
                    StatusCode::OK => admitted.fetch_add(1, Ordering::SeqCst),
                    StatusCode::TOO_MANY_REQUESTS => throttled.fetch_add(1, Ordering::SeqCst),
                    other => panic!("unexpected answer {other}"),
                };
                tokio::time::sleep(pause).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    (
        admitted.load(Ordering::SeqCst),
        throttled.load(Ordering::SeqCst),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn both_paid_actions_together_get_20_in_any_second_at_three_times_the_cap() {
    let upstream = Upstream::after(Duration::from_millis(3)).await;
    let gate = Gate::start(upstream.address).await;

    // 12 connections, about 60 calls a second, for about 5 seconds.
    let (admitted, throttled) = flood(&gate, STUDIO_KEY, 12, Duration::from_millis(195), 25).await;

    let records = gate.records();
    assert_eq!(records.len() as u64, admitted, "answered = recorded");
    assert_eq!(admitted + throttled, 300);
    assert!(
        throttled > 0 && admitted >= 80,
        "admitted {admitted}, throttled {throttled}"
    );
    let recorded: Vec<u64> = records.iter().map(|record| record.start.0).collect();
    assert_eq!(
        most_within(recorded, SECOND_NS),
        20,
        "exactly the cap: no more, and used to the full"
    );
    let door = upstream.seen().iter().map(|seen| seen.at.0).collect();
    let at_the_door = most_within(door, 980_000_000);
    assert!(
        at_the_door <= 20,
        "{at_the_door} calls reached the upstream in 980 ms"
    );
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_on_both_sides_of_a_second_share_one_quota() {
    let upstream = Upstream::after(Duration::from_millis(1)).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.workers = std::num::NonZeroUsize::new(2)
    })
    .await;
    let mut connections = Vec::new();
    for _ in 0..40 {
        connections.push(Client::connect(gate.public).await.unwrap());
    }
    // Warm, so that the bursts are bursts: each connection is known to its worker.
    let warming = connections
        .iter_mut()
        .map(|connection| connection.send(segment("nobody's")));
    for warmed in futures_util::future::join_all(warming).await {
        warmed.unwrap();
    }
    for round in 0..3_u64 {
        for offset_ms in [980, 20] {
            let into_second = gate.clock.utc().0.rem_euclid(1_000_000) as u64;
            let wait_us = (offset_ms * 1_000 + 1_000_000 - into_second) % 1_000_000;
            tokio::time::sleep(Duration::from_micros(wait_us)).await;
            let burst = connections
                .iter_mut()
                .map(|connection| connection.send(segment(STUDIO_KEY)));
            futures_util::future::join_all(burst).await;
        }
        tokio::time::sleep(Duration::from_millis(300 * round)).await;
    }
    let records = gate.records();
    for (gate, starts) in starts(&records) {
        assert_eq!(most_within(starts, SECOND_NS), 20, "{gate}");
    }
    let door = most_within(
        upstream.seen().iter().map(|seen| seen.at.0).collect(),
        980_000_000,
    );
    assert!(door <= 20, "{door} calls reached the upstream in 980 ms");
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchased_quota_is_the_sum_of_its_purchases_and_free_actions_have_caps_of_their_own() {
    let upstream = Upstream::after(Duration::from_millis(1)).await;
    let gate = Gate::start(upstream.address).await;
    let mut connections = Vec::new();
    for _ in 0..50 {
        connections.push(Client::connect(gate.public).await.unwrap());
    }
    let paid = connections.iter_mut().map(|c| c.send(segment(RETAIL_KEY)));
    let paid = futures_util::future::join_all(paid).await;
    let create = connections
        .iter_mut()
        .map(|c| c.send(plain("POST", "/v1/video/tasks", RETAIL_KEY, "{}")));
    let create = futures_util::future::join_all(create).await;
    let describe = connections
        .iter_mut()
        .map(|c| c.send(plain("POST", "/v1/video/tasks/describe", RETAIL_KEY, "{}")));
    let describe = futures_util::future::join_all(describe).await;
    let admitted = |answers: &[Result<(StatusCode, _, _), _>]| {
        answers
            .iter()
            .filter(|answer| matches!(answer, Ok((StatusCode::OK, _, _))))
            .count()
    };
    assert_eq!(admitted(&paid), 30, "10 + 20 QPS");
    assert_eq!(admitted(&create), 20);
    assert_eq!(
        admitted(&describe),
        20,
        "not shared with the other free action"
    );
    let records = gate.records();
    let by_mode = |mode: &str| {
        records
            .iter()
            .filter(|record| record.mode.as_str() == mode)
            .count()
    };
    assert_eq!(
        (by_mode("qps"), by_mode("free"), by_mode("per_call")),
        (30, 40, 0)
    );
    assert!(
        records
            .iter()
            .all(|record| record.billable == (record.mode.as_str() == "qps"))
    );
    gate.at_rest().await.assert_conserved();
}
