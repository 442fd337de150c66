//! A mistake in the framing of a body is final: what follows it is nobody's, and it costs nobody
//! but its sender.

use crate::harness::*;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tollgate::testing::model::{Outcome, Reason};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

fn head() -> String {
    format!("POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {RETAIL_KEY}\r\n")
}

/// A whole call of another path, to be hidden in the body of a call.
fn hidden() -> String {
    format!(
        "POST /v1/portrait/segment-custom HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {RETAIL_KEY}\r\nContent-Length: 0\r\n\r\n"
    )
}

/// Chunked bodies with a mistake, most of them before what a lenient reader takes for a whole body
/// or another call.
fn mistakes() -> Vec<String> {
    let hidden = hidden();
    let as_data = hidden.len() + 5;
    vec![
        "zz\r\n0\r\n\r\n".into(),
        "zz\r\n".repeat(30),
        "-1\r\nhello\r\n0\r\n\r\n".into(),
        "0x5\r\nhello\r\n0\r\n\r\n".into(),
        "\r\n0\r\n\r\n".into(),
        "5\nhello\r\n0\r\n\r\n".into(),
        "5\rhello\r\n0\r\n\r\n".into(),
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n".into(),
        "0\r\nGET /x HTTP/1.1\r\n\r\n".into(),
        format!("{as_data:x} x\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n"),
        format!("zz\r\n0\r\n\r\n{hidden}"),
        format!("5\r\nhello!\r\n0\r\n\r\n{hidden}"),
    ]
}

/// An upstream that counts the open connections, and takes its time over a call with the field
/// `X-Slow`.
async fn keeping_upstream() -> (RawUpstream, Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let count = open.clone();
    let upstream = RawUpstream::scripted(move |mut connection| {
        let count = count.clone();
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            while let Some(request) = connection.request().await {
                if request.headers.contains_key("x-slow") {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                connection.write(OK).await;
            }
            count.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    (upstream, open)
}

async fn one_worker(upstream: &RawUpstream) -> Gate {
    Gate::start_with(upstream.address, |config| {
        retail_unlimited(config);
        config.settings.workers = NonZeroUsize::new(1);
    })
    .await
}

/// Makes the gate keep at least so many upstream connections, by as many calls at once.
async fn keep(gate: &Gate, open: &AtomicUsize, wanted: usize) -> usize {
    while open.load(Ordering::SeqCst) < wanted {
        let calls = (0..wanted).map(|_| async {
            let mut wire = Wire::connect(gate.public).await;
            let slow = format!("{}X-Slow: 1\r\nContent-Length: 0\r\n\r\n", head());
            assert_eq!(wire.exchange(slow).await.status, 200);
        });
        futures_util::future::join_all(calls).await;
    }
    open.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_framing_error_is_final_and_not_billed_however_many_upstream_connections_are_kept() {
    for kept in [0, 1, 2, 8] {
        let (upstream, open) = keeping_upstream().await;
        let gate = one_worker(&upstream).await;
        for body in mistakes() {
            let before = keep(&gate, &open, kept).await;
            gate.at_rest().await;
            let (seen, records) = (upstream.requests().len(), gate.records().len());
            let mut wire = Wire::connect(gate.public).await;
            let chunked = format!("{}Transfer-Encoding: chunked\r\n\r\n", head());
            let reply = wire.exchange(chunked + &body).await;
            assert_eq!(reply.status, 400, "{kept} kept, {body:?}: {reply:?}");
            assert!(reply.says_close() && wire.is_closed().await);
            gate.at_rest().await.assert_conserved();
            let records = &gate.records()[records..];
            assert_eq!(records.len(), 1, "{kept} kept, {body:?}: {records:?}");
            assert_eq!(
                (records[0].outcome, records[0].reason, records[0].billable),
                (Outcome::ClientIncomplete, Reason::ClientIncomplete, false)
            );
            eventually("a request that broke off is seen to end", || {
                open.load(Ordering::SeqCst) + 1 >= before
            })
            .await;
            let lost = before.saturating_sub(open.load(Ordering::SeqCst));
            assert!(lost <= 1, "{kept} kept, {body:?}: {lost} closed");
            for request in &upstream.requests()[seen..] {
                assert!(!request.whole, "{kept} kept, {body:?}: {request:?}");
            }
        }
        gate.at_rest().await.assert_conserved();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_body_breaks_costs_at_most_its_own_upstream_connection() {
    let (upstream, open) = keeping_upstream().await;
    let gate = one_worker(&upstream).await;
    assert_eq!(keep(&gate, &open, 10).await, 10);
    let mut refused = 0;
    for body in [
        "Content-Length: 5\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(head() + body).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut wire.stream).await;
        refused += usize::from(wire.reply().await.status == 400);
    }
    assert_eq!(refused, 2);
    // What broke off after its head had gone takes its connection with it.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        open.load(Ordering::SeqCst) >= 8,
        "{open:?} of 10 connections are left after two calls"
    );
    let opened = upstream.connections();
    for _ in 0..3 {
        let (status, _, _) = send(gate.public, segment(RETAIL_KEY)).await;
        assert_eq!(status, 200);
    }
    assert_eq!(upstream.connections(), opened, "what is left is used");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_broken_body_is_not_read_after_an_early_answer_either() {
    let upstream = RawUpstream::scripted(|mut connection| async move {
        while let Some((line, headers)) = connection.head().await {
            connection.write(OK).await;
            connection.rest_of_request(line, headers).await;
        }
    })
    .await;
    let gate = one_worker(&upstream).await;
    let mut wire = Wire::connect(gate.public).await;
    wire.write(format!(
        "{}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        head()
    ))
    .await;
    assert_eq!(wire.reply().await.status, 200);
    wire.write(format!("zz\r\n0\r\n\r\n{}", hidden())).await;
    assert!(wire.is_closed().await, "nothing more is answered");
    gate.at_rest().await.assert_conserved();
    assert_eq!(gate.records().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_malformed_before_its_head_was_passed_on_is_a_502_and_not_billed() {
    const ANSWERS: [&str; 6] = [
        "zz\r\n{}\r\n0\r\n\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "2\r\n{}}\r\n0\r\n\r\n",
        "2\r\n{}\r\nzz\r\n\r\n",
        "2\r\n{}\r\n0\r\nno field\r\n\r\n",
        "2\r\n{}\r\n0\r\n\r\n",
    ];
    let upstream = RawUpstream::scripted(|mut connection| async move {
        while let Some(request) = connection.request().await {
            let nth: usize = String::from_utf8(request.body).unwrap().parse().unwrap();
            let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            connection.write(format!("{chunked}{}", ANSWERS[nth])).await;
        }
    })
    .await;
    let gate = one_worker(&upstream).await;
    for (nth, answer) in ANSWERS.iter().enumerate() {
        let is_sound = nth + 1 == ANSWERS.len();
        let call = plain("POST", "/v1/portrait/segment", RETAIL_KEY, &nth.to_string());
        let (status, _, _) = send(gate.public, call).await;
        assert_eq!(status, if is_sound { 200 } else { 502 }, "{answer:?}");
        gate.at_rest().await.assert_conserved();
        let records = gate.records();
        assert_eq!(records.len(), nth + 1);
        let record = &records[nth];
        let wanted = match is_sound {
            true => (Outcome::Answered, Some(200), true),
            false => (Outcome::UpstreamFailed, None, false),
        };
        assert_eq!(
            (record.outcome, record.status, record.billable),
            wanted,
            "{answer:?}"
        );
    }
    assert_eq!(
        upstream.requests().len(),
        ANSWERS.len(),
        "nothing is sent twice"
    );
}
