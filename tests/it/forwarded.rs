//! Clients behind a trusted proxy: who they are to the gate, and what the upstream is told of them.

use crate::harness::{Gate, RETAIL_KEY, Upstream, Wire};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

fn call(key: &str, forwarded: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {key}\r\nContent-Length: 2\r\nX-Forwarded-For: "
    );
    [head.as_bytes(), forwarded, b"\r\n\r\n{}"].concat()
}

/// A gate on `listen` that trusts the whole loopback network.
async fn gate(upstream: &Upstream, listen: &str) -> Gate {
    Gate::start_with(upstream.address, |config| {
        config.settings.listen = listen.parse::<SocketAddr>().unwrap().into();
        config.settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_behind_a_proxy_that_writes_their_ports_are_told_apart() {
    let upstream = Upstream::after(Duration::ZERO).await;
    for spelled in ["203.0.113.{}:4711", "\"[2001:db8:{}::1]:4711\""] {
        let gate = gate(&upstream, "127.0.0.1:0").await;
        let mut wire = Wire::connect(gate.public).await;
        let mut failing = async |caller: &str| {
            let began = Instant::now();
            let forwarded = spelled.replace("{}", caller);
            let reply = wire.exchange(call("guessed", forwarded.as_bytes())).await;
            assert_eq!(reply.status, 401);
            began.elapsed() >= Duration::from_millis(900)
        };
        for _ in 0..10 {
            assert!(!failing("1").await, "forgiven");
        }
        assert!(failing("1").await, "held down");
        assert!(!failing("2").await, "another client");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trusted_proxy_says_of_the_hops_before_is_passed_on_as_it_came() {
    let upstream = Upstream::after(Duration::ZERO).await;
    for listen in ["127.0.0.1:0", "[::]:0"] {
        let gate = gate(&upstream, listen).await;
        let public = ([127, 0, 0, 1], gate.public.port()).into();
        for forwarded in [&b"203.0.113.7:80"[..], b"\xe9vil, 203.0.113.7", b"unknown"] {
            let mut wire = Wire::connect(public).await;
            assert_eq!(wire.exchange(call(RETAIL_KEY, forwarded)).await.status, 200);
            let seen = upstream.seen().pop().unwrap();
            let told = seen.headers["x-forwarded-for"].as_bytes().to_vec();
            assert_eq!(told, [forwarded, b", 127.0.0.1"].concat(), "{listen}");
        }
    }
}
