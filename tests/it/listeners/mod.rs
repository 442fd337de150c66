//! Where the gate listens, and who its clients are there: several addresses, both families of IP, Unix
//! sockets, and what a load balancer says by the PROXY protocol.

use crate::harness::*;
use http::StatusCode;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tollgate::testing::config::{ListenAddress, Listens};
use tollgate::testing::model::{Outcome, Reason};

mod balancers;
mod health;
mod proxied;
mod unix;

/// A call whose connection may be used again.
fn call(more: &str) -> String {
    format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {RETAIL_KEY}\r\n{more}Content-Length: 2\r\n\r\n{{}}"
    )
}

/// A gate that listens on these addresses too, beside a port of its own.
async fn gate_on(
    upstream: &Upstream,
    more: &[ListenAddress],
    change: impl FnOnce(&mut tollgate::testing::config::Config),
) -> Gate {
    Gate::start_with(upstream.address, |config| {
        let own: SocketAddr = ([127, 0, 0, 1], 0).into();
        let all = [&[own.into()], more].concat();
        config.settings.listen = Listens::of(all).unwrap();
        config.settings.workers = std::num::NonZeroUsize::new(2);
        retail_unlimited(config);
        change(config);
    })
    .await
}

/// The addresses of a gate's port, as a client of this machine reaches them.
fn listens(gate: &Gate) -> Vec<SocketAddr> {
    let running = gate.running.as_ref().unwrap();
    let all = running.public.addresses().iter();
    all.filter_map(ListenAddress::tcp).collect()
}

/// What the upstream was told of the client of the last call.
fn told(upstream: &Upstream) -> String {
    let seen = upstream.seen().pop().expect("a call has come");
    let told = seen.headers.get_all("x-forwarded-for").iter();
    let told: Vec<&str> = told.map(|line| line.to_str().unwrap()).collect();
    told.join(" + ")
}

/// What a client is answered that sends these bytes and then waits for the end.
async fn exchanged(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(BOUND, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the gate closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_of_the_list_takes_calls_and_the_status_names_them() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let more: [SocketAddr; 2] = [([127, 0, 0, 7], 0).into(), "[::1]:0".parse().unwrap()];
    let gate = gate_on(&upstream, &more.map(ListenAddress::from), |_| ()).await;
    let all = listens(&gate);
    let expected = [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.7", "127.0.0.1"),
        ("::1", "::1"),
    ];
    for (at, (own, client)) in all.iter().zip(expected) {
        assert_eq!(at.ip(), own.parse::<IpAddr>().unwrap());
        // As many as it takes to meet both workers.
        for _ in 0..8 {
            let (status, ..) = send(*at, segment(RETAIL_KEY)).await;
            assert_eq!(status, StatusCode::OK, "{at}");
            assert_eq!(told(&upstream), client, "{at}");
        }
    }
    let (_, _, status) = get(gate.admin, "/status").await;
    let listed: Vec<String> = all.iter().map(ToString::to_string).collect();
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["listen"], serde_json::json!(listed));
    gate.at_rest().await.assert_conserved();
}

/// A free port of both families.
fn port_of_both() -> u16 {
    loop {
        let port = free_port();
        if std::net::TcpListener::bind(("::", port)).is_ok() {
            return port;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv4_client_of_a_dual_stack_port_is_that_ipv4_client_everywhere() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let any: SocketAddr = "[::]:0".parse().unwrap();
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.listen = any.into();
        config.settings.limits.connections = 16;
        config.settings.trusted_proxies = vec!["127.0.0.9/32".parse().unwrap()];
        retail_unlimited(config);
    })
    .await;
    let port = gate.public.port();
    for (to, client) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let at = SocketAddr::new(to.parse().unwrap(), port);
        assert_eq!(send(at, segment(RETAIL_KEY)).await.0, StatusCode::OK);
        assert_eq!(told(&upstream), client);
    }
    // It is the trusted proxy, and its places are those of the IPv4 address.
    let at = ([127, 0, 0, 1], port).into();
    let mut proxy = Wire::connect_from([127, 0, 0, 9], at).await;
    let reply = proxy
        .exchange(call("X-Forwarded-For: 203.0.113.7\r\n"))
        .await;
    assert_eq!(
        (reply.status, told(&upstream).as_str()),
        (200, "203.0.113.7, 127.0.0.9")
    );
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(Wire::connect_from([127, 0, 0, 8], at).await);
    }
    eventually_async("it has an eighth of 16 places", async || {
        gate.metrics()
            .await
            .sum("tollgate_connections_gave_way_total", &[])
            == 4
    })
    .await;
}

/// Polls until `done`, within [`BOUND`].
async fn eventually_async(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..BOUND.as_millis() / 20 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_families_may_have_a_listener_of_their_own_on_one_port() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let port = port_of_both();
    let both: [SocketAddr; 2] = ["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
    let both = both.map(|at| ListenAddress::from(SocketAddr::new(at.ip(), port)));
    for order in [[0, 1], [1, 0]] {
        let gate = gate_on(&upstream, &order.map(|nth| both[nth].clone()), |_| ()).await;
        for to in ["127.0.0.1", "::1"] {
            let at = SocketAddr::new(to.parse().unwrap(), port);
            assert_eq!(send(at, segment(RETAIL_KEY)).await.0, StatusCode::OK);
            assert_eq!(told(&upstream), to);
        }
        gate.running
            .unwrap()
            .drain(std::future::pending())
            .await
            .unwrap();
    }
}
