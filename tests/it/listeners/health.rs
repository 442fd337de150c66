//! `health_path`: what load balancers ask without a key.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_the_health_path_needs_no_key_and_is_told_of_the_drain_before_it_is_over() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let mut gate = gate_on(&upstream, &[], |config| {
        config.settings.health_path = Some("/healthz".to_owned());
        config.settings.limits.drain_notice = Duration::from_secs(60);
    })
    .await;
    let mut wire = Wire::connect(gate.public).await;
    let ask = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: lb\r\n\r\n");
    let reply = wire.exchange(ask("GET", "/healthz")).await;
    assert_eq!((reply.status, &*reply.body), (200, &b"ok\n"[..]));
    let reply = wire.exchange(ask("GET", "/healthz?full")).await;
    assert_eq!(reply.status, 200, "a query is no part of the path");
    wire.write(ask("HEAD", "/healthz")).await;
    wire.write("POST /healthz HTTP/1.1\r\nHost: lb\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    // The answer to HEAD has the length of the body that it does not have.
    let mut answers = String::new();
    while !answers.contains("405") {
        let mut bytes = [0; 1024];
        let read = wire.stream.read(&mut bytes).await.unwrap();
        assert!(read > 0, "{answers}");
        answers += &String::from_utf8_lossy(&bytes[..read]);
    }
    let (head, post) = answers.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 3"),
        "{head}"
    );
    assert!(post.contains("allow: GET, HEAD"), "{post}");
    // Any other path is a call.
    assert_eq!(
        get(gate.public, "/healthz/").await.0,
        StatusCode::UNAUTHORIZED
    );
    let samples = gate.metrics().await;
    assert_eq!(samples.sum("tollgate_requests_received_total", &[]), 1);

    let running = gate.running.take().unwrap();
    let (hurry, hurried) = tokio::sync::oneshot::channel();
    let drain = tokio::spawn(running.drain(async {
        let _ = hurried.await;
        "test"
    }));
    let mut last = 0;
    eventually_async("it is told of the drain", async || {
        last = get(gate.public, "/healthz").await.0.as_u16();
        last == 503
    })
    .await;
    let (status, ..) = send(gate.public, segment(RETAIL_KEY)).await;
    assert_eq!(
        status,
        StatusCode::OK,
        "calls are accepted until load balancers have noticed"
    );
    hurry.send(()).unwrap();
    drain.await.unwrap().unwrap();
    assert_eq!(records(&gate.ledger()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_no_path_is_free_of_a_key() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    assert_eq!(
        get(gate.public, "/healthz").await.0,
        StatusCode::UNAUTHORIZED
    );
}
