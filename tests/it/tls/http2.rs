//! HTTP/2 where it differs: streams that are taken back, drains, floods.

use super::client::{Http2, answered, send_all};
use super::*;
use bytes::Bytes;
use h2::Reason;
use std::time::Duration;
use tollgate::testing::model::Outcome;

fn call(gate: &TlsGate, key: &str) -> http::Request<()> {
    http::Request::post(gate.url("/v1/portrait/segment"))
        .header("x-api-key", key)
        .body(())
        .unwrap()
}

/// Waits for so many records, and gives them.
async fn recorded(gate: &TlsGate, count: usize) -> Vec<Outcome> {
    let ledger = gate.house.ledger();
    eventually("the records are there", || records(&ledger).len() >= count).await;
    records(&ledger)
        .iter()
        .map(|record| record.outcome)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_taken_back_after_it_was_sent_goes_on_and_is_counted() {
    let upstream = Upstream::after(Duration::from_millis(700)).await;
    let gate = TlsGate::start(&upstream).await;
    let mut http2 = Http2::connect(gate.house.public, &gate.cert).await;
    let (answer, mut stream) = http2.begin(call(&gate, STUDIO_KEY), true).await;
    eventually("it was sent", || {
        upstream
            .connections
            .load(std::sync::atomic::Ordering::SeqCst)
            > 0
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    assert_eq!(recorded(&gate, 1).await, [Outcome::ClientClosed]);
    assert!(records(&gate.house.ledger())[0].billable, "it was served");
    // The connection is as good as before.
    let (answer, _) = http2.begin(call(&gate, STUDIO_KEY), true).await;
    assert_eq!(answered(answer).await.unwrap().status, 200);
    at_rest(gate.house.admin).await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_taken_back_is_incomplete_and_not_billed() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let mut http2 = Http2::connect(gate.house.public, &gate.cert).await;
    let (answer, mut stream) = http2.begin(call(&gate, STUDIO_KEY), false).await;
    send_all(&mut stream, Bytes::from_static(b"{\"Image\":"), false).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    assert_eq!(recorded(&gate, 1).await, [Outcome::ClientIncomplete]);
    assert!(!records(&gate.house.ledger())[0].billable);
    at_rest(gate.house.admin).await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_ends_all_its_streams_and_each_is_counted_once() {
    let upstream = Upstream::after(Duration::from_millis(500)).await;
    let gate = TlsGate::start(&upstream).await;
    let mut http2 = Http2::connect(gate.house.public, &gate.cert).await;
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(http2.begin(call(&gate, STUDIO_KEY), true).await);
    }
    eventually("all were sent", || {
        upstream
            .connections
            .load(std::sync::atomic::Ordering::SeqCst)
            >= 10
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    http2.driver.abort();
    drop((http2, answers));
    assert_eq!(recorded(&gate, 10).await, [Outcome::ClientClosed; 10]);
    at_rest(gate.house.admin).await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_the_streams_end_and_then_closes_the_connection() {
    let upstream = Upstream::after(Duration::from_millis(1_500)).await;
    // Longer than a drain may take, and shorter than the time that a first head has.
    let edit = ("  drain: 60s", "  drain: 8s");
    let mut gate = TlsGate::start_with(&upstream, &[edit]).await;
    let mut busy = Http2::connect(gate.house.public, &gate.cert).await;
    let mut idle = Http2::connect(gate.house.public, &gate.cert).await;
    let quota = http::Request::get(gate.url("/v1/quota")).header("x-api-key", STUDIO_KEY);
    let asked = idle.send(quota.body(Bytes::new()).unwrap()).await;
    assert_eq!(asked.status, 200);
    let (answer, _) = busy.begin(call(&gate, STUDIO_KEY), true).await;
    // Nobody waits for those who have not begun: with a byte of TLS, and with all of it.
    let mut hello = tokio::net::TcpStream::connect(gate.house.public)
        .await
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut hello, &[0x16])
        .await
        .unwrap();
    let config = super::client::trusting(&[&gate.cert], &["h2"]);
    let silent = super::client::connect(gate.house.public, &config, "localhost")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    gate.process.signal("TERM");
    assert_eq!(answered(answer).await.unwrap().status, 200);
    for ended in [busy.driver, idle.driver] {
        let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
        // A last acknowledgement may meet the end of the connection.
        let _ = ended.expect("the connection is closed").unwrap();
    }
    assert!(gate.process.ended().await.success());
    assert!(
        !gate.house.log().contains("deadline"),
        "no second of the drain was lost"
    );
    drop((hello, silent));
    assert_eq!(recorded(&gate, 1).await, [Outcome::Answered]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_continue_hears_it() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let mut http2 = Http2::connect(gate.house.public, &gate.cert).await;
    let mut request = call(&gate, STUDIO_KEY);
    request
        .headers_mut()
        .insert("expect", "100-continue".parse().unwrap());
    let (mut answer, mut stream) = http2.begin(request, false).await;
    let told = std::future::poll_fn(|cx| answer.poll_informational(cx));
    let told = tokio::time::timeout(Duration::from_secs(10), told)
        .await
        .unwrap();
    assert_eq!(told.unwrap().unwrap().status(), 100);
    send_all(&mut stream, Bytes::from_static(b"{}"), true).await;
    assert_eq!(answered(answer).await.unwrap().status, 200);
    assert_eq!(upstream.seen.lock()[0].body, "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_only_takes_requests_back_is_cut_off_and_others_are_served() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let flood = Http2::connect(gate.house.public, &gate.cert).await;
    let mut other = Http2::connect(gate.house.public, &gate.cert).await;
    let mut sent = 0;
    let ended = loop {
        let Ok(mut ready) = flood.requests.clone().ready().await else {
            break true;
        };
        let Ok((_, mut stream)) = ready.send_request(call(&gate, "no-such-key"), true) else {
            break true;
        };
        stream.send_reset(Reason::CANCEL);
        sent += 1;
        if sent > 20_000 {
            break false;
        }
    };
    assert!(ended, "{sent} requests were taken back");
    let (answer, _) = other.begin(call(&gate, STUDIO_KEY), true).await;
    assert_eq!(answered(answer).await.unwrap().status, 200);
    at_rest(gate.house.admin).await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed_after_its_time_and_not_in_mid_call() {
    let upstream = Upstream::after(Duration::from_millis(3_000)).await;
    let edit = ("idle_timeout: 75s", "idle_timeout: 1s");
    let gate = TlsGate::start_with(&upstream, &[edit]).await;
    let mut http2 = Http2::connect(gate.house.public, &gate.cert).await;
    let (answer, _) = http2.begin(call(&gate, STUDIO_KEY), true).await;
    assert_eq!(answered(answer).await.unwrap().status, 200);
    let closed = tokio::time::timeout(Duration::from_secs(20), http2.driver).await;
    // A last acknowledgement may meet the end of the connection.
    let _ = closed.expect("the connection is closed").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_has_half_of_the_calls_at_once_however_they_come() {
    half_of_the_calls("trusted_proxies: []").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_has_half_of_the_calls_at_once_also_behind_a_trusted_proxy() {
    half_of_the_calls("trusted_proxies: [127.0.0.0/8]").await;
}

async fn half_of_the_calls(trusted: &str) {
    let upstream = Upstream::after(Duration::from_secs(3)).await;
    let edits = [
        ("  connections: 4000", "  connections: 40"),
        ("trusted_proxies: []", trusted),
    ];
    let gate = TlsGate::start_with(&upstream, &edits).await;
    gate.house.edit("accounts.yaml", "qps: 10,", "qps: 1000,");
    let (reloaded, told) = post_reload(gate.house.admin, "").await;
    assert_eq!(reloaded, http::StatusCode::OK, "{told}");
    let mut greedy = Http2::connect(gate.house.public, &gate.cert).await;
    let mut answers = Vec::new();
    for _ in 0..60 {
        answers.push(greedy.begin(call(&gate, RETAIL_KEY), true).await.0);
    }
    let mut other = Http2::connect(gate.house.public, &gate.cert).await;
    let (answer, _) = other.begin(call(&gate, STUDIO_KEY), true).await;
    assert_eq!(answered(answer).await.unwrap().status, 200);
    let (mut served, mut refused) = (0, 0);
    for answer in answers {
        match answered(answer).await.unwrap() {
            answer if answer.status == 200 => served += 1,
            answer => {
                assert_eq!(answer.status, 503, "{answer:?}");
                let why = String::from_utf8_lossy(&answer.body).into_owned();
                assert!(why.contains("too many connections open, or calls"), "{why}");
                refused += 1;
            }
        }
    }
    assert_eq!((served, refused), (20, 40));
    // The shares came back, on the same connection.
    let (answer, _) = greedy.begin(call(&gate, RETAIL_KEY), true).await;
    assert_eq!(answered(answer).await.unwrap().status, 200);
    at_rest(gate.house.admin).await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_of_requests_that_wait_are_bounded_and_others_are_served() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let edits = [
        ("body_bytes: 10MiB", "body_bytes: 1MiB"),
        ("body_memory: 512MiB", "body_memory: 8MiB"),
    ];
    let gate = TlsGate::start_with(&upstream, &edits).await;
    let mut greedy = Http2::connect(gate.house.public, &gate.cert).await;
    // A key that is no secret, and a body that never comes.
    let claim = format!(
        "TC3-HMAC-SHA256 Credential={STUDIO_ID}/2026-01-01/bda/tc3_request, \
         SignedHeaders=content-type;host, Signature={}",
        "0".repeat(64)
    );
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    let mut waiting = Vec::new();
    for _ in 0..60 {
        let request = http::Request::post(gate.url("/"))
            .header("x-large", "x".repeat(30_000))
            .header("authorization", &claim)
            .header("x-tc-action", "SegmentPortraitPic")
            .header("x-tc-version", "2020-03-24")
            .header("x-tc-timestamp", now)
            .header("content-type", "application/json")
            .header("content-length", 1000)
            .body(())
            .unwrap();
        waiting.push(greedy.begin(request, false).await);
    }
    let refused = || async {
        let reason = &["reason=\"no_memory\""];
        scrape(gate.house.admin)
            .await
            .sum("tollgate_heads_refused_total", reason)
    };
    for _ in 0..200 {
        if refused().await >= 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // An eighth of 8 MiB holds 26 of them.
    let refused = refused().await;
    assert!((20..=60).contains(&refused), "{refused} were refused");
    drop(waiting);
    let mut other = Http2::connect(gate.house.public, &gate.cert).await;
    let (answer, _) = other.begin(call(&gate, STUDIO_KEY), true).await;
    assert_eq!(answered(answer).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_after_its_head_has_its_head_and_no_usual_end() {
    let upstream = RawUpstream::scripted(|mut connection| async move {
        if connection.request().await.is_some() {
            connection
                .write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                .await;
        }
    })
    .await;
    let gate = TlsGate::start_to(upstream.address, &[]).await;
    let mut http2 = Http2::connect(gate.house.public, &gate.cert).await;
    for _ in 0..5 {
        let (answer, _) = http2.begin(call(&gate, STUDIO_KEY), true).await;
        let head = answer.await.unwrap();
        assert_eq!(head.status(), 200);
        assert!(head.headers().contains_key("x-request-id"));
        let mut body = head.into_body();
        let broken = loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("a cut answer looks whole"),
            }
        };
        assert_eq!(broken.reason(), Some(Reason::INTERNAL_ERROR));
    }
    assert_eq!(recorded(&gate, 5).await, [Outcome::Answered; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_the_upstream_does_not_take_ends_its_stream_alone() {
    let nobody = ([127, 0, 0, 1], free_port()).into();
    let gate = TlsGate::start_to(nobody, &[]).await;
    let mut http2 = Http2::connect(gate.house.public, &gate.cert).await;
    for _ in 0..3 {
        let (answer, mut stream) = http2.begin(call(&gate, STUDIO_KEY), false).await;
        send_all(&mut stream, Bytes::from_static(b"{\"Image\":"), false).await;
        assert_eq!(answered(answer).await.unwrap().status, 502);
    }
    assert!(
        !http2.driver.is_finished(),
        "the connection is as good as before"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_the_upstream_does_not_read_stop_no_other_of_their_connection() {
    // Takes a connection and never reads, but for a small call.
    let upstream = RawUpstream::scripted(|mut connection| async move {
        while let Some((line, headers)) = connection.head().await {
            if line.contains("?slow") {
                std::future::pending::<()>().await;
            }
            connection.rest_of_request(line, headers).await;
            connection
                .write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .await;
        }
    })
    .await;
    let gate = TlsGate::start_to(upstream.address, &[]).await;
    let mut http2 = Http2::connect(gate.house.public, &gate.cert).await;
    let mut stuck = Vec::new();
    for _ in 0..6 {
        let request = http::Request::post(gate.url("/v1/portrait/segment?slow"))
            .header("x-api-key", STUDIO_KEY)
            .body(())
            .unwrap();
        let (answer, mut stream) = http2.begin(request, false).await;
        let sending = tokio::spawn(async move {
            send_all(&mut stream, vec![7; 9_000_000].into(), true).await;
        });
        stuck.push((answer, sending));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let request = call(&gate, STUDIO_KEY);
    let (answer, mut stream) = http2.begin(request, false).await;
    send_all(&mut stream, vec![7; 100_000].into(), true).await;
    let answer = tokio::time::timeout(Duration::from_secs(20), answered(answer)).await;
    assert_eq!(answer.expect("it is not stopped").unwrap().status, 200);
}

/// Room for 40 calls, half of it for each account. The upstream answers at the head and takes nothing
/// of a body, so that the way there is soon full.
async fn gate_of_a_deaf_upstream() -> TlsGate {
    let upstream = RawUpstream::scripted(|mut connection| async move {
        if connection.head().await.is_some() {
            connection
                .write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .await;
            std::future::pending::<()>().await;
        }
    })
    .await;
    let gate = TlsGate::start_to(
        upstream.address,
        &[("  connections: 4000", "  connections: 40")],
    )
    .await;
    gate.house.edit("accounts.yaml", "qps: 10,", "qps: 1000,");
    let (reloaded, told) = post_reload(gate.house.admin, "").await;
    assert_eq!(reloaded, http::StatusCode::OK, "{told}");
    gate
}

/// The status of a call that is tried for ten seconds, until it is answered 200.
async fn soon_again(gate: &TlsGate, client: &mut Http2) -> u16 {
    let mut status = 0;
    for _ in 0..100 {
        let (answer, _) = client.begin(call(gate, RETAIL_KEY), true).await;
        status = answered(answer).await.unwrap().status;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_goes_on_after_its_answer_is_a_call_of_its_account() {
    let gate = gate_of_a_deaf_upstream().await;
    let mut greedy = Http2::connect(gate.house.public, &gate.cert).await;
    let (mut uploads, mut statuses) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        let mut request = call(&gate, RETAIL_KEY);
        let length = http::HeaderValue::from_static("100000");
        request.headers_mut().insert("content-length", length);
        let (answer, mut stream) = greedy.begin(request, false).await;
        send_all(&mut stream, vec![7; 1_000].into(), false).await;
        statuses.push(answered(answer).await.unwrap().status);
        uploads.push(stream);
    }
    assert_eq!(
        statuses,
        [[200; 20].as_slice(), [503; 10].as_slice()].concat()
    );
    let mut other = Http2::connect(gate.house.public, &gate.cert).await;
    let (answer, _) = other.begin(call(&gate, STUDIO_KEY), true).await;
    assert_eq!(answered(answer).await.unwrap().status, 200);
    // Given up, they are none any more.
    uploads
        .into_iter()
        .for_each(|mut upload| upload.send_reset(Reason::CANCEL));
    assert_eq!(soon_again(&gate, &mut greedy).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_large_bodies_end_no_connection() {
    let upstream = RawUpstream::scripted(|mut connection| async move {
        while connection.head().await.is_some() {
            tokio::time::sleep(Duration::from_secs(6)).await;
            connection
                .write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .await;
        }
    })
    .await;
    let gate = TlsGate::start_to(upstream.address, &[]).await;
    let mut client = Http2::connect(gate.house.public, &gate.cert).await;
    let (waiting, _) = client.begin(call(&gate, STUDIO_KEY), true).await;
    let body = Bytes::from(vec![7; 100_000]);
    for nth in 0..500 {
        let mut request = call(&gate, RETAIL_KEY);
        // Far more than `body_bytes`.
        let length = http::HeaderValue::from_static("900000000");
        request.headers_mut().insert("content-length", length);
        let (answer, mut stream) = client.begin(request, false).await;
        send_all(&mut stream, body.clone(), false).await;
        let refused = answered(answer).await;
        assert_eq!(refused.map(|it| it.status).ok(), Some(413), "{nth}");
    }
    assert_eq!(answered(waiting).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_taken_back_after_its_answer_is_no_call_any_more() {
    for taken_back in [true, false] {
        let gate = gate_of_a_deaf_upstream().await;
        let mut client = Http2::connect(gate.house.public, &gate.cert).await;
        let body = Bytes::from(vec![7; 9_000_000]);
        let (mut answers, mut uploads) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let (answer, stream) = client.begin(call(&gate, RETAIL_KEY), false).await;
            answers.push(answer);
            uploads.push(stream);
        }
        // As much as there is room for.
        let sends = uploads
            .iter_mut()
            .map(|upload| send_all(upload, body.clone(), false));
        let sends = futures_util::future::join_all(sends);
        let _ = tokio::time::timeout(Duration::from_secs(2), sends).await;
        for answer in answers {
            assert_eq!(answered(answer).await.unwrap().status, 200);
        }
        match taken_back {
            true => uploads
                .iter_mut()
                .for_each(|upload| upload.send_reset(Reason::CANCEL)),
            false => drop((client, uploads)),
        }
        let mut other = Http2::connect(gate.house.public, &gate.cert).await;
        let again = soon_again(&gate, &mut other).await;
        assert_eq!(again, 200, "{taken_back}");
    }
}
