//! The settings of time: how long connections are kept, on both sides, and how long a stopping gate
//! still takes new ones.

use crate::harness::*;
use http::StatusCode;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tollgate::testing::model::Clock;

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_connection_is_kept_for_the_idle_timeout_after_its_last_answer() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.idle_timeout = Duration::from_secs(1);
    })
    .await;
    let clock = Clock::default();
    let mut wire = Wire::connect(gate.public).await;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let request = "GET /nothing HTTP/1.1\r\nHost: gate.test\r\n\r\n";
        let reply = wire.exchange(request).await;
        assert_ne!(reply.status, 0);
    }
    let answered = clock.mono();
    let end = tokio::time::timeout(BOUND, wire.stream.read(&mut [0; 1])).await;
    assert_eq!(end.unwrap().unwrap(), 0, "it is closed");
    let idle = clock.mono().since(answered);
    assert!(idle > Duration::from_millis(900), "{idle:?}");
    assert!(idle < Duration::from_secs(4), "{idle:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_gate_takes_new_connections_for_as_long_as_the_notice_lasts() {
    const NOTICE: Duration = Duration::from_millis(2_500);
    let upstream = Upstream::after(Duration::ZERO).await;
    let mut gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.drain_notice = NOTICE;
    })
    .await;
    let running = gate.running.take().unwrap();
    let clock = Clock::default();
    let began = clock.mono();
    let drain = tokio::spawn(running.drain(std::future::pending()));
    while clock.mono().since(began) < NOTICE - Duration::from_millis(700) {
        let (status, ..) = send(gate.public, segment(RETAIL_KEY)).await;
        assert_eq!(
            status,
            StatusCode::OK,
            "after {:?}",
            clock.mono().since(began)
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    drain.await.unwrap().unwrap();
    assert!(clock.mono().since(began) >= NOTICE);
    assert!(try_send(gate.public, segment(RETAIL_KEY)).await.is_err());
}

/// One worker, so that there is one pool.
async fn gate_that_keeps(
    upstream: &Upstream,
    idle_timeout: Duration,
    max_age: Option<Duration>,
) -> Gate {
    Gate::start_with(upstream.address, |config| {
        config.settings.workers = std::num::NonZeroUsize::new(1);
        config.settings.upstream.idle_timeout = idle_timeout;
        config.settings.upstream.max_age = max_age;
    })
    .await
}

fn opened(upstream: &Upstream) -> usize {
    upstream.connections.load(Ordering::SeqCst)
}

async fn call(gate: &Gate) {
    let (status, ..) = send(gate.public, segment(RETAIL_KEY)).await;
    assert_eq!(status, StatusCode::OK);
    // The connection goes back to its pool just after the answer has gone.
    tokio::time::sleep(Duration::from_millis(30)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_the_upstream_is_used_again_until_its_idle_timeout_and_its_max_age() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate_that_keeps(&upstream, Duration::from_millis(800), None).await;
    for _ in 0..6 {
        call(&gate).await;
    }
    assert_eq!(opened(&upstream), 1);
    tokio::time::sleep(Duration::from_millis(900)).await;
    call(&gate).await;
    assert_eq!(opened(&upstream), 2, "it had been idle for too long");

    let upstream = Upstream::after(Duration::ZERO).await;
    let age = Duration::from_secs(1);
    let gate = gate_that_keeps(&upstream, Duration::from_secs(30), Some(age)).await;
    let clock = Clock::default();
    let began = clock.mono();
    let since = || clock.mono().since(began);
    while opened(&upstream) < 2 && since() < Duration::from_secs(20) {
        call(&gate).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(opened(&upstream), 2, "the first one became too old");
    assert!(since() >= age, "it was used again before");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_says_how_long_it_keeps_a_connection_is_not_called_on_it_after_that() {
    for (said, connections) in [("timeout=1, max=100", 2), ("timeout=600", 1), ("max=5", 1)] {
        let upstream = Upstream::scripted(move |_| async move {
            let mut answer = json(StatusCode::OK, "{}");
            let said = http::HeaderValue::from_static(said);
            answer.headers_mut().insert("keep-alive", said);
            answer
        })
        .await;
        let gate = gate_that_keeps(&upstream, Duration::from_secs(30), None).await;
        call(&gate).await;
        call(&gate).await;
        assert_eq!(opened(&upstream), 1, "{said}");
        tokio::time::sleep(Duration::from_millis(650)).await;
        call(&gate).await;
        assert_eq!(opened(&upstream), connections, "{said}");
    }
}
