//! The PROXY protocol, byte by byte.

use super::*;

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 80\r\n";

/// Version 2, of this IPv4 client.
fn v2(command: u8, client: [u8; 4]) -> Vec<u8> {
    let ports = [0x12, 0x67, 0, 80];
    [
        &b"\r\n\r\n\0\r\nQUIT\n"[..],
        &[command, 0x11, 0, 12],
        &client,
        &[192, 0, 2, 1],
        &ports,
    ]
    .concat()
}

/// A gate behind proxies with addresses from 127.0.0.0 to 127.0.0.63.
async fn gate(upstream: &Upstream, connections: usize) -> Gate {
    gate_on(upstream, &[], |config| {
        config.settings.proxy_protocol = true;
        config.settings.trusted_proxies = vec!["127.0.0.0/26".parse().unwrap()];
        config.settings.limits.connections = connections;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_that_a_trusted_proxy_names_is_the_client_and_its_own_word_is_not_believed() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate(&upstream, 500).await;
    let own = "127.0.0.1";
    let v6 = b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".to_vec();
    let of_a_proxy = b"PROXY TCP4 127.0.0.5 127.0.0.1 4711 80\r\n".to_vec();
    for (header, expected) in [
        (V1.to_vec(), "203.0.113.7"),
        (v2(0x21, [203, 0, 113, 7]), "203.0.113.7"),
        (v6, "2001:db8::7"),
        // The proxy's own connection, and of a client that it does not name: whose word is it?
        (v2(0x20, [203, 0, 113, 7]), own),
        (b"PROXY UNKNOWN\r\n".to_vec(), own),
        // A client that is a trusted proxy itself is believed.
        (of_a_proxy, "198.51.100.1, 127.0.0.5"),
    ] {
        let mut wire = Wire::connect(gate.public).await;
        let first = call("X-Forwarded-For: 198.51.100.1\r\n");
        let reply = wire.exchange([&header, first.as_bytes()].concat()).await;
        assert_eq!((reply.status, told(&upstream).as_str()), (200, expected));
        let reply = wire.exchange(call("")).await;
        assert_eq!(reply.status, 200, "one header is for the whole connection");
    }
    // Byte by byte.
    let mut wire = Wire::connect(gate.public).await;
    for byte in [&v2(0x21, [203, 0, 113, 8])[..], call("").as_bytes()].concat() {
        wire.write([byte]).await;
    }
    assert_eq!(wire.reply().await.status, 200);
    assert_eq!(told(&upstream), "203.0.113.8");
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_no_trusted_proxy_is_served_as_itself_and_names_nobody_else() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate(&upstream, 500).await;
    let mut wire = Wire::connect_from([127, 0, 1, 1], gate.public).await;
    assert_eq!(wire.exchange(call("")).await.status, 200);
    assert_eq!(told(&upstream), "127.0.1.1");
    for header in [V1.to_vec(), v2(0x21, [203, 0, 113, 7])] {
        let mut wire = Wire::connect_from([127, 0, 1, 1], gate.public).await;
        wire.write([&header, call("").as_bytes()].concat()).await;
        assert_eq!(wire.reply().await.status, 400);
    }
    let samples = gate.metrics().await;
    let refused = samples.sum(
        "tollgate_heads_refused_total",
        &["reason=\"proxy_protocol\""],
    );
    assert_eq!(refused, 2);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_without_a_whole_header_is_closed_in_time_and_counted() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate(&upstream, 500).await;
    let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
    let huge = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; 100]].concat();
    let (plain, tls) = (call("").into_bytes(), b"\x16\x03\x01\x02\0\x01".to_vec());
    let wrong = [plain, tls, endless, huge];
    for bytes in wrong {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(bytes).await;
        assert!(wire.is_closed().await, "without an answer");
    }
    // Whatever comes slowly, or not at all.
    let (mut slow, mut silent) = (
        Wire::connect(gate.public).await,
        Wire::connect(gate.public).await,
    );
    slow.write(&V1[..20]).await;
    assert!(slow.is_closed().await && silent.is_closed().await);
    // One that only looks whether somebody listens.
    drop(Wire::connect(gate.public).await);
    let mut good = Wire::connect(gate.public).await;
    assert_eq!(
        good.exchange([V1, call("").as_bytes()].concat())
            .await
            .status,
        200
    );
    let samples = gate.metrics().await;
    let refused = samples.sum(
        "tollgate_heads_refused_total",
        &["reason=\"no_proxy_header\""],
    );
    assert_eq!(refused, 6);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connections_of_a_client_behind_a_proxy_count_as_its_own() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate(&upstream, 40).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(v2(0x21, [203, 0, 113, 7])).await;
        silent.push(wire);
    }
    // An eighth of the places.
    eventually_async("three give way", async || {
        gate.metrics()
            .await
            .sum("tollgate_connections_gave_way_total", &[])
            == 3
    })
    .await;
    // Another client behind the same proxy has its own eighth.
    let mut others = Vec::new();
    for _ in 0..5 {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(v2(0x21, [203, 0, 113, 8])).await;
        others.push(wire);
    }
    let mut caller = Wire::connect(gate.public).await;
    let called = [v2(0x21, [203, 0, 113, 9]), call("").into_bytes()].concat();
    assert_eq!(caller.exchange(called).await.status, 200);
    let samples = gate.metrics().await;
    assert_eq!(samples.sum("tollgate_connections_gave_way_total", &[]), 3);
    assert_eq!(samples.sum("tollgate_connections", &[]), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_is_read_on_a_unix_socket_whose_peer_is_trusted() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calls.sock");
    let _gate = gate_on(&upstream, &[ListenAddress::Unix(path.clone())], |config| {
        config.settings.proxy_protocol = true;
        config.settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let stream = UnixStream::connect(&path).await.unwrap();
    let sent = [V1, call("Connection: close\r\n").as_bytes()].concat();
    let answer = exchanged(stream, &sent).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(told(&upstream), "203.0.113.7");
}
