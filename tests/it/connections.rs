//! The places of `limits.connections`: who gets one, who gives way, and who keeps one whatever
//! happens.

use crate::harness::{
    Gate, RETAIL_KEY, STUDIO_ID, STUDIO_KEY, STUDIO_SECRET, Upstream, Wire, eventually, json,
    retail_unlimited, signed,
};
use http::StatusCode;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

fn call(key: &str) -> String {
    format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {key}\r\nContent-Length: 2\r\n\r\n{{}}"
    )
}

async fn gate(upstream: &Upstream, connections: usize) -> Gate {
    Gate::start_with(upstream.address, |config| {
        config.settings.limits.connections = connections;
        config.settings.workers = NonZeroUsize::new(2);
        retail_unlimited(config);
    })
    .await
}

/// The number of connections that the gate has.
async fn open(gate: &Gate) -> u64 {
    gate.metrics().await.sum("tollgate_connections", &[])
}

/// Waits until the gate has accepted so many connections that are still open.
async fn wait_for_open(gate: &Gate, expected: u64) {
    for _ in 0..200 {
        if open(gate).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} connections instead of {expected}", open(gate).await);
}

/// An honest call on a new connection from `source`, answered within a second.
async fn honest_call(source: [u8; 4], gate: &Gate, key: &str) -> Wire {
    let calling = async {
        let mut wire = Wire::connect_from(source, gate.public).await;
        assert_eq!(wire.exchange(call(key)).await.status, 200);
        wire
    };
    let answered = tokio::time::timeout(Duration::from_secs(1), Box::pin(calling)).await;
    answered.expect("an honest call is answered within a second")
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_of_one_peer_hold_an_eighth_and_keep_nobody_waiting() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate(&upstream, 40).await;
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(Wire::connect(gate.public).await);
    }
    wait_for_open(&gate, 5).await;
    let one = honest_call([127, 0, 0, 1], &gate, STUDIO_KEY).await;
    let other = honest_call([127, 0, 0, 2], &gate, STUDIO_KEY).await;
    let mut kept = 0;
    for wire in &mut silent {
        kept += usize::from(wire.is_silent_for(Duration::from_millis(5)).await);
    }
    assert_eq!(
        kept, 4,
        "the neighbour took a place of theirs, and keeps it as its own"
    );
    assert_eq!(open(&gate).await, 4 + 2);
    let gave_way = gate.metrics().await;
    assert_eq!(gave_way.sum("tollgate_connections_gave_way_total", &[]), 56);
    drop((one, other));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_peers_the_connection_waited_for_longest_gives_way_and_a_proven_one_never() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate(&upstream, 16).await;
    let mut proven = Vec::new();
    for _ in 0..4 {
        proven.push(honest_call([127, 0, 0, 1], &gate, RETAIL_KEY).await);
    }
    let mut silent = Vec::new();
    for n in 0..12 {
        silent.push(Wire::connect_from([127, 0, 1, n / 2], gate.public).await);
        wait_for_open(&gate, 5 + u64::from(n)).await;
    }
    // The oldest says something, if it is no call. Of the next two nothing whole comes.
    silent[0].exchange(call("nobodys")).await;
    silent[1].write("G").await;
    silent[2].write("POST / HTTP/1.1\r\n").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let newcomer = honest_call([127, 0, 0, 9], &gate, STUDIO_KEY).await;
    assert!(silent[1].is_closed().await, "waited for longest");
    let another = honest_call([127, 0, 0, 9], &gate, STUDIO_KEY).await;
    assert!(silent[2].is_closed().await);
    assert!(silent[0].is_silent_for(Duration::from_millis(20)).await);

    // A crowd of peers that come and say nothing.
    let mut crowd = Vec::new();
    for n in 0..60 {
        crowd.push(Wire::connect_from([127, 0, 2, n], gate.public).await);
    }
    proven.extend([newcomer, another]);
    for wire in &mut proven {
        assert_eq!(wire.exchange(call(RETAIL_KEY)).await.status, 200);
    }
    wait_for_open(&gate, 16).await;
    drop((crowd, silent));
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trusted_proxy_holds_counts_for_no_peer_and_for_an_account_only_while_a_call_lasts()
{
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.connections = 16;
        config.settings.trusted_proxies = vec!["127.0.3.0/24".parse().unwrap()];
        retail_unlimited(config);
    })
    .await;
    let mut kept = Vec::new();
    for _ in 0..16 {
        kept.push(Wire::connect_from([127, 0, 3, 1], gate.public).await);
    }
    wait_for_open(&gate, 16).await;
    for key in [RETAIL_KEY, STUDIO_KEY, RETAIL_KEY] {
        for wire in &mut kept[..15] {
            assert_eq!(wire.exchange(call(key)).await.status, 200);
        }
    }
    // The one that has proven nothing gives way as any other.
    let direct = honest_call([127, 0, 0, 1], &gate, RETAIL_KEY).await;
    assert!(kept[15].is_closed().await);
    drop(direct);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_with_a_slow_upstream_holds_half_of_the_connections() {
    let done = Arc::new(Semaphore::new(0));
    let waiting = done.clone();
    let upstream = Upstream::scripted(move |seen| {
        let waiting = waiting.clone();
        async move {
            if seen.headers["x-tollgate-account"] == "1250000002" {
                waiting.acquire().await.unwrap().forget();
            }
            json(StatusCode::OK, "{}")
        }
    })
    .await;
    let gate = gate(&upstream, 8).await;
    let mut slow = Vec::new();
    for n in 1..=4 {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(call(RETAIL_KEY)).await;
        eventually("the upstream has it", || upstream.seen().len() == n).await;
        slow.push(wire);
    }
    for _ in 0..6 {
        let mut wire = Wire::connect(gate.public).await;
        let reply = wire.exchange(call(RETAIL_KEY)).await;
        assert_eq!(reply.status, 503);
        assert!(reply.says_close() && reply.headers.contains_key("retry-after"));
        assert!(wire.is_closed().await, "its place is for others");
    }
    let others = [
        honest_call([127, 0, 0, 1], &gate, STUDIO_KEY).await,
        honest_call([127, 0, 0, 2], &gate, STUDIO_KEY).await,
    ];
    done.add_permits(4);
    for mut wire in slow {
        assert_eq!(wire.reply().await.status, 200);
        // The places that it has stay its own.
        done.add_permits(1);
        assert_eq!(wire.exchange(call(RETAIL_KEY)).await.status, 200);
    }
    done.add_permits(1);
    let again = Box::pin(honest_call([127, 0, 0, 1], &gate, RETAIL_KEY)).await;
    drop((others, again));
    let samples = gate.at_rest().await;
    samples.assert_conserved();
    let refused = ["decision=\"refused\"", "reason=\"account_connections\""];
    assert_eq!(samples.sum("tollgate_requests_total", &refused), 6);
}

/// The head of a call that is signed for `body`.
fn signed_head(body: &str, length: usize) -> String {
    let whole = signed(STUDIO_ID, STUDIO_SECRET, "SegmentPortraitPic", body);
    let mut head = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n");
    for (name, value) in whole.headers() {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    head + "\r\n"
}

/// Waits until a call has begun.
async fn wait_for_pending(gate: &Gate) {
    for _ in 0..200 {
        if gate.metrics().await.sum("tollgate_pending", &[]) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing is pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_pauses_is_not_displaced_by_heads_that_trickle_nor_by_refused_calls() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate(&upstream, 16).await;
    // What has come of it would take a minute at the slowest pace.
    let body = format!("{{\"Image\":\"{}\"}}", "A".repeat(2 << 20));
    let (first, rest) = body.split_at(1 << 20);
    let mut upload = Wire::connect_from([127, 0, 0, 2], gate.public).await;
    upload.write(signed_head(&body, body.len())).await;
    upload.write(first).await;
    wait_for_pending(&gate).await;
    while gate.metrics().await.sum("tollgate_body_memory_bytes", &[]) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut crowd = Vec::new();
    for n in 0..60 {
        let mut wire = Wire::connect_from([127, 0, 2, n], gate.public).await;
        match n % 3 {
            0 => drop(wire.exchange(call("nobodys")).await),
            _ => wire.write("POST / HTTP/1.1\r\nX-Slow: ").await,
        }
        crowd.push(wire);
        for wire in crowd.iter_mut().rev().take(16) {
            // It may have given way.
            wire.try_write("x").await;
        }
    }
    assert_eq!(upload.exchange(rest).await.status, 200);
    drop(crowd);
    gate.at_rest().await.assert_conserved();
}

/// A secret id is no secret: a head that names one costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_bring_nothing_keep_no_newcomer_out() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate(&upstream, 16).await;
    let mut forged = Vec::new();
    for n in 0..16 {
        let mut wire = Wire::connect_from([127, 0, 2, n], gate.public).await;
        wire.write(signed_head("{}", 100) + "{").await;
        forged.push(wire);
    }
    while gate.metrics().await.sum("tollgate_pending", &[]) < 16 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut honest = Wire::connect_from([127, 0, 0, 9], gate.public).await;
    for n in 16..24 {
        let mut wire = Wire::connect_from([127, 0, 2, n], gate.public).await;
        wire.write(signed_head("{}", 100) + "{").await;
        forged.push(wire);
    }
    assert_eq!(honest.exchange(call(RETAIL_KEY)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_gives_way_is_refused_and_makes_no_record() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate(&upstream, 8).await;
    let mut upload = Wire::connect(gate.public).await;
    upload.write(signed_head("{}", 100) + "{").await;
    wait_for_pending(&gate).await;
    // A peer has one place of these eight, and takes it from itself.
    let silent = Wire::connect(gate.public).await;
    assert!(upload.is_closed().await);
    let samples = gate.at_rest().await;
    let refused = ["decision=\"refused\"", "reason=\"gave_way\""];
    assert_eq!(samples.sum("tollgate_requests_total", &refused), 1);
    samples.assert_conserved();
    assert!(gate.records().is_empty());
    drop(silent);
}
