//! P7: everything has a limit, and what happens at it. Each at the limit and one past it, and
//! whatever else no well-behaved client or upstream would send.

use crate::harness::*;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tollgate::testing::ledger::StoredRecord;
use tollgate::testing::model::{Clock, Outcome, Reason};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// The start of a plain call with a key; fields and the blank line follow.
fn head(key: &str) -> String {
    format!("POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {key}\r\n")
}

/// A whole plain call.
fn call(key: &str, body: &str) -> String {
    format!("{}Content-Length: {}\r\n\r\n{body}", head(key), body.len())
}

/// A whole plain call with its body in one chunk.
fn chunked_call(key: &str, body: &str) -> String {
    format!(
        "{}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        head(key),
        body.len()
    )
}

/// The head of a signed call whose body is `body`; the framing's field and the blank line follow.
fn signed_head(id: &str, secret: &str, body: &str) -> String {
    let at = Clock::default().utc().seconds();
    let authorization = tollgate::cli::demo::sign(id, secret, at, "bda.gate.test", body);
    format!(
        "POST / HTTP/1.1\r\nHost: bda.gate.test\r\nContent-Type: application/json\r\n\
         X-TC-Action: SegmentPortraitPic\r\nX-TC-Version: 2020-03-24\r\nX-TC-Region: ap-guangzhou\r\n\
         X-TC-Timestamp: {at}\r\nAuthorization: {authorization}\r\n"
    )
}

fn echo(seen: Seen) -> std::future::Ready<Response<Full<Bytes>>> {
    std::future::ready(Response::new(Full::new(seen.body)))
}

async fn one_record(gate: &Gate) -> StoredRecord {
    gate.at_rest().await.assert_conserved();
    let mut records = gate.records();
    assert_eq!(records.len(), 1, "{records:?}");
    records.remove(0)
}

/// The gate answers the next client.
async fn assert_alive(gate: &Gate) {
    let (status, _, _) = send(gate.public, segment(RETAIL_KEY)).await;
    assert_eq!(status, StatusCode::OK, "the gate lives on");
}

// ---- Heads ----

#[tokio::test(flavor = "multi_thread")]
async fn a_head_at_the_limit_passes_and_one_byte_over_it_is_refused_on_a_connection_that_stays() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.header_bytes = 8 * 1024;
    })
    .await;
    // Request line and fields with their line ends, without the blank line.
    let of_size = |head: String, bytes: usize| {
        let frame = "X-Pad: \r\nContent-Length: 2\r\n";
        let pad = "p".repeat(bytes - head.len() - frame.len());
        format!("{head}X-Pad: {pad}\r\nContent-Length: 2\r\n\r\n{{}}")
    };
    let mut wire = Wire::connect(gate.public).await;
    for (bytes, status) in [(8_192, 200), (8_193, 431), (8_191, 200), (100_000, 431)] {
        wire.write(of_size(head(STUDIO_KEY), bytes)).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, status, "{bytes}");
        assert!(!reply.says_close());
    }
    for (bytes, code) in [(8_192, ""), (8_193, "RequestSizeLimitExceeded")] {
        wire.write(of_size(signed_head(STUDIO_ID, STUDIO_SECRET, "{}"), bytes))
            .await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, 200);
        match code {
            "" => assert_eq!(reply.body, b"{}"),
            code => assert_eq!(reply.code(), code, "{bytes}"),
        }
    }
    assert_eq!(gate.records().len(), 3);
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    assert_eq!(metrics.decided("refused"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_the_parser_does_not_take_gets_a_bare_431_and_is_not_counted() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    let fields: String = (0..200).map(|n| format!("X-Field-{n}: 1\r\n")).collect();
    let many = format!("{}{fields}Content-Length: 2\r\n\r\n{{}}", head(STUDIO_KEY));
    let endless = format!("{}X-Pad: {}", head(STUDIO_KEY), "p".repeat(300 * 1024));
    for bytes in [many, endless] {
        let mut wire = Wire::connect(gate.public).await;
        // What is not read any more is reset, which may overtake the answer.
        let _ = wire.stream.write_all(bytes.as_bytes()).await;
        if let Some(reply) = wire.try_reply().await {
            assert_eq!(reply.status, 431);
            assert!(reply.body.is_empty());
        }
        assert!(wire.is_closed().await);
    }
    assert_alive(&gate).await;
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    assert_eq!(metrics.sum("tollgate_requests_received_total", &[]), 1);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_gets_400_or_a_closed_connection_and_never_reaches_the_upstream() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    let key = format!("X-Api-Key: {STUDIO_KEY}");
    let path = "/v1/portrait/segment";
    let cases: Vec<Vec<u8>> = [
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nX-Nul: a\0b\r\nContent-Length: 2\r\n\r\n{{}}"),
        format!("POST {path}\0 HTTP/1.1\r\nHost: a\r\n{key}\r\nContent-Length: 2\r\n\r\n{{}}"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nX\0Nul: 1\r\nContent-Length: 2\r\n\r\n{{}}"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}x"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nContent-Length: 2, 3\r\n\r\n{{}}x"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nContent-Length: -2\r\n\r\n{{}}"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nContent-Length: +2\r\n\r\n{{}}"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nContent-Length: 0x2\r\n\r\n{{}}"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nContent-Length: 99999999999999999999\r\n\r\n{{}}"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nContent-Length : 2\r\n\r\n{{}}"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nTransfer-Encoding: identity\r\n\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        format!("POST {path} HTTP/1.0\r\nHost: a\r\n{key}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{key}\r\n folded: 1\r\nContent-Length: 2\r\n\r\n{{}}"),
        format!("POST {path} HTTP/9.9\r\nHost: a\r\n{key}\r\n\r\n"),
        format!("POST  {path} HTTP/1.1\r\nHost: a\r\n{key}\r\n\r\n"),
        format!("POST {path}\r\nHost: a\r\n{key}\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
        "\r\n\r\n\r\n\x16\x03\x01\x02\x00\x01\x00".into(),
        "\u{1}\u{2}\u{3}".repeat(1_000),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect();
    for bytes in cases {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let mut wire = Wire::connect(gate.public).await;
        let _ = wire.stream.write_all(&bytes).await;
        if let Some(reply) = wire.try_reply().await {
            assert_eq!(reply.status, 400, "{shown:?}");
            assert!(wire.is_closed().await, "{shown:?}");
        }
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    assert!(gate.records().is_empty());
    assert_alive(&gate).await;
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_targets_are_answered_and_an_absolute_one_reaches_the_upstream_as_a_path() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    let fields =
        format!("Host: gate.test\r\nX-Api-Key: {STUDIO_KEY}\r\nContent-Length: 2\r\n\r\n{{}}");
    for (line, status) in [
        (
            "POST http://gate.test/v1/portrait/segment?a=1 HTTP/1.1",
            200,
        ),
        (
            "POST http://elsewhere.test/v1/portrait/segment?a=1 HTTP/1.1",
            400,
        ),
        ("OPTIONS * HTTP/1.1", 404),
        ("POST * HTTP/1.1", 404),
        ("POST /v1/portrait/segment?b=%00%zz&c= HTTP/1.1", 200),
        ("POST /v1/portrait/../portrait/segment HTTP/1.1", 404),
        ("POST //v1/portrait/segment HTTP/1.1", 404),
        ("TRACE /v1/portrait/segment HTTP/1.1", 405),
        ("BREW /v1/portrait/segment HTTP/1.1", 405),
    ] {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(format!("{line}\r\n{fields}")).await;
        assert_eq!(wire.reply().await.status, status, "{line}");
    }
    let targets: Vec<String> = upstream
        .seen()
        .into_iter()
        .map(|seen| seen.target)
        .collect();
    assert_eq!(
        targets,
        [
            "/v1/portrait/segment?a=1",
            "/v1/portrait/segment?b=%00%zz&c="
        ]
    );
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_a_path_reaches_the_upstream_with_one() {
    let upstream = RawUpstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    let gate = Gate::start(upstream.address).await;
    for (target, version) in [
        ("http://gate.test?a=1", "1.1"),
        ("http://gate.test", "1.1"),
        ("http://gate.test/?a=1", "1.0"),
    ] {
        let mut wire = Wire::connect(gate.public).await;
        let host = if version == "1.1" {
            "Host: gate.test\r\n"
        } else {
            ""
        };
        wire.write(format!(
            "POST {target} HTTP/{version}\r\n{host}X-Api-Key: {STUDIO_KEY}\r\n\
             X-TC-Action: SegmentPortraitPic\r\nX-TC-Version: 2020-03-24\r\n\
             X-TC-Region: ap-guangzhou\r\nContent-Length: 2\r\n\r\n{{}}"
        ))
        .await;
        let reply = wire.reply().await;
        assert_eq!(reply.body, b"{}", "{target}");
    }
    let requests = upstream.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.headers["host"] == "gate.test")
    );
    let lines: Vec<&str> = requests.iter().map(|request| &*request.line).collect();
    let expected = [
        "POST /?a=1 HTTP/1.1",
        "POST / HTTP/1.1",
        "POST /?a=1 HTTP/1.1",
    ];
    assert_eq!(lines, expected);
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_none_is_a_bare_400_and_reaches_nobody() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    let call = |host: &[u8], action: &str| {
        let start = b"POST /v1/portrait/segment HTTP/1.1\r\nHost: ";
        let rest = format!("\r\nX-Api-Key: {RETAIL_KEY}\r\n{action}Content-Length: 2\r\n\r\n{{}}");
        [start, host, rest.as_bytes()].concat()
    };
    for host in [
        &b"a b"[..],
        b"gate.test, evil.test",
        b"gate.test/evil",
        b"user@gate.test",
        b"gate.test:80:80",
        b"http://gate.test",
        b"[::1",
        b"::1",
        b"\xff",
        b"<script>",
    ] {
        for action in ["", "X-TC-Action: SegmentPortraitPic\r\n"] {
            let mut wire = Wire::connect(gate.public).await;
            let reply = wire.exchange(call(host, action)).await;
            assert_eq!((reply.status, reply.body.len()), (400, 0), "{host:?}");
            assert!(wire.is_closed().await);
        }
    }
    assert!(upstream.seen().is_empty());
    for host in ["GATE.test:8080", "[::1]:8080", "10.0.0.1", "a_b.test", ""] {
        let mut wire = Wire::connect(gate.public).await;
        let reply = wire.exchange(call(host.as_bytes(), "")).await;
        assert_eq!(reply.status, 200, "{host}");
        assert_eq!(upstream.seen().pop().unwrap().headers["host"], *host);
    }
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_no_uri_and_a_later_minor_version_pass_as_other_servers_let_them() {
    let upstream = RawUpstream::answering(OK).await;
    let gate = Gate::start(upstream.address).await;
    let calls = [
        ("?q=\"<b>\"[]{}|\\^`'", "1.1"),
        ("?", "1.1"),
        ("?a=%zz&b=人", "1.1"),
        ("", "1.2"),
        ("?a=1", "1.9"),
    ];
    let mut wire = Wire::connect(gate.public).await;
    for (query, version) in calls {
        let call = call(RETAIL_KEY, "{}");
        let line = format!("/segment{query} HTTP/{version}\r\n");
        let call = call.replacen("/segment HTTP/1.1\r\n", &line, 1);
        let reply = wire.exchange(call).await;
        assert_eq!((reply.status, &*reply.version), (200, "HTTP/1.1"), "{line}");
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(
            seen.line,
            format!("POST /v1/portrait/segment{query} HTTP/1.1")
        );
    }
    for version in ["1.10", "2.0", "1.x", "0.9"] {
        let mut wire = Wire::connect(gate.public).await;
        let call = call(RETAIL_KEY, "{}").replacen("HTTP/1.1", &format!("HTTP/{version}"), 1);
        assert_eq!(wire.exchange(call).await.status, 400, "{version}");
    }
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_gets_a_hundred_fields_at_most_those_of_the_gate_among_them() {
    let upstream = RawUpstream::answering(OK).await;
    let gate = Gate::start(upstream.address).await;
    // Host passes; the key and the length are the gate's, which adds six.
    for (own, status) in [(93, 200), (94, 431), (97, 431)] {
        let fields: String = (0..own).map(|n| format!("X-{n}: 1\r\n")).collect();
        let call = format!("{}{fields}Content-Length: 2\r\n\r\n{{}}", head(RETAIL_KEY));
        let mut wire = Wire::connect(gate.public).await;
        assert_eq!(wire.exchange(call).await.status, status, "{own}");
    }
    let seen = upstream.requests();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].headers.len(), 100);
    let samples = gate.at_rest().await;
    samples.assert_conserved();
    let refused = ["decision=\"refused\"", "reason=\"too_many_fields\""];
    assert_eq!(samples.sum("tollgate_requests_total", &refused), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_opens_no_tunnel_in_either_dialect() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    for fields in ["", "X-TC-Action: SegmentPortraitPic\r\n"] {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(format!(
            "CONNECT elsewhere.test:443 HTTP/1.1\r\nHost: elsewhere.test:443\r\nX-Api-Key: {STUDIO_KEY}\r\n{fields}\r\n"
        ))
        .await;
        let reply = wire.reply().await;
        assert!(reply.status >= 400, "{reply:?}");
    }
    assert!(upstream.seen().is_empty());
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_is_answered_in_kind_and_the_upstream_gets_a_host() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    )
    .await;
    let gate = Gate::start(upstream.address).await;
    for host in ["", "Host: gate.test\r\n"] {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(format!(
            "POST /v1/portrait/segment HTTP/1.0\r\n{host}X-Api-Key: {STUDIO_KEY}\r\nContent-Length: 2\r\n\r\n{{}}"
        ))
        .await;
        let reply = wire.reply().await;
        assert_eq!((reply.version.as_str(), reply.status), ("HTTP/1.0", 200));
        assert!(!reply.headers.contains_key("transfer-encoding"));
        assert_eq!(reply.body, b"{}");
        assert!(wire.is_closed().await);
    }
    let hosts: Vec<_> = upstream
        .requests()
        .iter()
        .map(|request| {
            assert_eq!(request.line, "POST /v1/portrait/segment HTTP/1.1");
            let hosts: Vec<_> = request.headers.get_all("host").iter().cloned().collect();
            assert_eq!(hosts.len(), 1, "one Host, or it is no HTTP/1.1 request");
            hosts[0].to_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(
        hosts,
        [upstream.address.to_string(), "gate.test".to_owned()]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_and_those_that_connection_names_are_dropped_but_never_host() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    let mut wire = Wire::connect(gate.public).await;
    wire.write(format!(
        "{}Connection: x-hop, host\r\nConnection: X-Other-Hop , x-tollgate-account\r\nX-Hop: 1\r\nX-Other-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\n\
         Trailer: x-late\r\nUpgrade: h2c\r\nX-End-To-End: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\n{{}}\r\n0\r\nX-Late: 1\r\nX-Tollgate-Account: 1250000002\r\n\r\n",
        head(STUDIO_KEY)
    ))
    .await;
    assert_eq!(wire.reply().await.status, 200);
    let seen = upstream.seen().remove(0);
    for name in [
        "x-hop",
        "x-other-hop",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "trailer",
        "upgrade",
        "x-late",
    ] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
    assert_eq!(seen.headers["host"], "gate.test");
    assert_eq!(seen.headers["x-end-to-end"], "1");
    assert_eq!(seen.headers["x-tollgate-account"], "1250000001");
    assert_eq!(seen.headers.get_all("x-tollgate-account").iter().count(), 1);
    assert_eq!(&seen.body[..], b"{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_takes_away_no_field_that_was_judged() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    let vendor = "X-TC-Action: DescribeSegmentationTask\r\nX-TC-Version: 2020-03-24\r\nX-TC-Region: ap-guangzhou\r\n\
                  Content-Type: application/json\r\n";
    let call = |start: &str, connection: &str| {
        format!("{start}Connection: {connection}\r\nContent-Length: 2\r\n\r\n{{}}")
    };
    let with_key = format!(
        "POST /?Action=SegmentPortraitPic HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {STUDIO_KEY}\r\n{vendor}"
    );
    // The signature of the sample covers content-type and host.
    let signed = signed_head(STUDIO_ID, STUDIO_SECRET, "{}");
    for (start, connection) in [
        (
            &*with_key,
            "x-tc-action, x-tc-version, x-tc-region, content-type",
        ),
        (&*with_key, "keep-alive, X-TC-Action"),
        (&*head(STUDIO_KEY), "x-api-key"),
        (&*head(STUDIO_KEY), "close,authorization"),
        (&*signed, "Content-Type"),
        (&*signed, "x-tc-timestamp"),
    ] {
        let mut wire = Wire::connect(gate.public).await;
        let reply = wire.exchange(call(start, connection)).await;
        assert_eq!(reply.status, 400, "{connection}");
    }
    assert!(upstream.seen().is_empty());
    for (start, connection) in [(&*with_key, "x-other"), (&*signed, "keep-alive, host")] {
        let mut wire = Wire::connect(gate.public).await;
        let reply = wire.exchange(call(start, connection)).await;
        assert_eq!(
            (reply.status, &*reply.body),
            (200, &b"{}"[..]),
            "{connection}"
        );
    }
    let samples = gate.at_rest().await;
    samples.assert_conserved();
    let refused = ["decision=\"refused\"", "reason=\"connection_option\""];
    assert_eq!(samples.sum("tollgate_requests_total", &refused), 6);
}

// ---- Framing ----

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_calls_are_answered_in_order_and_counted_once_each() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    let mut wire = Wire::connect(gate.public).await;
    let mut all = String::new();
    for n in 0..5 {
        all += &call(STUDIO_KEY, &format!("call-{n}"));
        all += &chunked_call(STUDIO_KEY, &format!("chunked-{n}"));
        all += &call("nobodys", "refused");
    }
    wire.write(all).await;
    for n in 0..5 {
        assert_eq!(wire.reply().await.body, format!("call-{n}").into_bytes());
        assert_eq!(wire.reply().await.body, format!("chunked-{n}").into_bytes());
        assert_eq!(wire.reply().await.status, 401);
    }
    assert_eq!(gate.records().len(), 10);
    assert_eq!(upstream.seen().len(), 10);
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    assert_eq!(metrics.sum("tollgate_requests_received_total", &[]), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_framing_makes_the_upstream_see_another_number_of_requests_than_were_counted() {
    let upstream = RawUpstream::answering(OK).await;
    let gate = Gate::start_with(upstream.address, retail_unlimited).await;
    let hidden =
        call(RETAIL_KEY, "hidden").replace("/v1/portrait/segment", "/v1/portrait/segment-custom");
    let cases: Vec<(&str, String)> = vec![
        (
            "CL.TE",
            format!("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX{hidden}"),
        ),
        (
            "CL.TE whole",
            format!(
                "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
                hidden.len() + 5
            ),
        ),
        (
            "TE.CL",
            format!(
                "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n",
                hidden.len()
            ),
        ),
        (
            "TE in capitals",
            format!(
                "Content-Length: 4\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n",
                hidden.len()
            ),
        ),
        (
            "TE twice",
            format!(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "TE then nonsense",
            format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "TE xchunked",
            format!("Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "TE tab",
            format!("Content-Length: 5\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "TE with a vertical tab",
            format!("Content-Length: 5\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "TE folded",
            format!("Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "TE after a bare CR",
            format!(
                "Content-Length: 5\r\nX-A: 1\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "TE after a bare LF",
            format!(
                "Content-Length: 5\r\nX-A: 1\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "bare LF heads",
            format!("Content-Length: 2\n\n{{}}{hidden}"),
        ),
        (
            "CL twice, equal",
            format!("Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}{hidden}"),
        ),
        (
            "CL listed, equal",
            format!("Content-Length: 2, 2\r\n\r\n{{}}{hidden}"),
        ),
        (
            "CL with zeros",
            format!("Content-Length: 0002\r\n\r\n{{}}{hidden}"),
        ),
        (
            "CL named by Connection",
            format!(
                "Connection: content-length\r\nContent-Length: {}\r\n\r\n{hidden}",
                hidden.len()
            ),
        ),
        (
            "TE named by Connection",
            format!(
                "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n",
                hidden.len()
            ),
        ),
        (
            "chunk size over 64 bits",
            format!(
                "Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{{}}\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "chunk size with a sign",
            format!("Transfer-Encoding: chunked\r\n\r\n+2\r\n{{}}\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunk size with 0x",
            format!("Transfer-Encoding: chunked\r\n\r\n0x2\r\n{{}}\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunk with a bare LF",
            format!("Transfer-Encoding: chunked\r\n\r\n2\n{{}}\n0\n\n{hidden}"),
        ),
        (
            "chunk extension",
            format!("Transfer-Encoding: chunked\r\n\r\n2;a=\"\r\n{{}}\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunk extension with a bare LF",
            format!("Transfer-Encoding: chunked\r\n\r\n2;\n{{}}\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunk longer than said",
            format!("Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}xx\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "a request in the trailers",
            format!("Transfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\n{hidden}"),
        ),
        ("a body of GET", format!("\r\n{hidden}")),
        (
            "an upgrade",
            format!(
                "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n{hidden}"
            ),
        ),
    ];
    let (mut answered, mut both) = (0, 0);
    for (what, rest) in &cases {
        let mut wire = Wire::connect(gate.public).await;
        // The last word closes the connection, wherever the framing has put it.
        let end = "GET /end HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n";
        let request = format!("{}{rest}{end}", head(RETAIL_KEY));
        let _ = wire.stream.write_all(request.as_bytes()).await;
        let before = answered;
        while let Some(reply) = wire.try_reply().await {
            assert!(matches!(reply.status, 200 | 400 | 401), "{what}: {reply:?}");
            answered += usize::from(reply.status == 200);
        }
        // A call that broke off is in the records, and may have begun at the upstream.
        gate.at_rest().await;
        let records = gate.records();
        let done = records
            .iter()
            .filter(|r| r.outcome == Outcome::Answered)
            .count();
        assert_eq!(done, answered, "{what}: as many records as answers");
        let requests = upstream.requests();
        let whole = requests.iter().filter(|r| r.whole).count();
        assert_eq!(
            whole, answered,
            "{what}: as many at the upstream as records"
        );
        both += usize::from(answered - before == 2);
        for request in &requests {
            let framings = ["content-length", "transfer-encoding"]
                .map(|name| request.headers.get_all(name).iter().count());
            assert!(framings.iter().sum::<usize>() <= 1, "{what}: {request:?}");
            assert_eq!(request.headers["x-tollgate-account"], "1250000002");
        }
    }
    assert!(both > 0, "a second call that is really one is served too");
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_framings_one_reaches_the_upstream_and_the_connection_closes_after() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    for framings in [
        "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 7\r\n",
    ] {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(format!(
            "{}{framings}\r\n2\r\n{{}}\r\n0\r\n\r\n{}",
            head(STUDIO_KEY),
            call(STUDIO_KEY, "next")
        ))
        .await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, &reply.body[..]), (200, &b"{}"[..]));
        assert!(reply.says_close(), "{reply:?}");
        assert!(wire.is_closed().await);
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2, "nothing after it is read");
    for seen in seen {
        assert_eq!(seen.headers["transfer-encoding"], "chunked");
        assert!(!seen.headers.contains_key("content-length"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_or_is_no_chunks_is_not_billed() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    let bodies = [
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}--not-a-chunk\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "Content-Length: 5\r\n\r\n{}",
    ];
    for body in bodies {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(head(STUDIO_KEY) + body).await;
        let _ = wire.stream.shutdown().await;
        if let Some(reply) = wire.try_reply().await {
            assert_eq!(reply.status, 400, "{body:?}: {reply:?}");
            assert!(wire.is_closed().await);
        }
    }
    gate.at_rest().await.assert_conserved();
    let records = gate.records();
    assert_eq!(records.len(), bodies.len());
    for record in records {
        assert_eq!(
            (record.outcome, record.reason, record.status),
            (Outcome::ClientIncomplete, Reason::ClientIncomplete, None)
        );
        assert!(!record.billable);
    }
    // A signed one is not even admitted: what was signed never arrived.
    for body in bodies {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(signed_head(STUDIO_ID, STUDIO_SECRET, "{}") + body)
            .await;
        let _ = wire.stream.shutdown().await;
        if let Some(reply) = wire.try_reply().await {
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (200, "InvalidParameter")
            );
        }
    }
    assert_alive(&gate).await;
    gate.at_rest().await.assert_conserved();
    assert_eq!(gate.records().len(), bodies.len() + 1);
    let proxy = &gate.running.as_ref().unwrap().proxy;
    assert_eq!(proxy.body_memory_held(), 0);
}

// ---- Bodies ----

#[tokio::test(flavor = "multi_thread")]
async fn a_body_at_the_limit_passes_and_a_declared_one_over_it_is_refused_before_it_is_read() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.body_bytes = 100_000;
    })
    .await;
    let limit = "x".repeat(100_000);
    let mut wire = Wire::connect(gate.public).await;
    let reply = wire.exchange(call(STUDIO_KEY, &limit)).await;
    assert_eq!((reply.status, reply.body.len()), (200, 100_000));
    let signed = signed_head(STUDIO_ID, STUDIO_SECRET, &limit);
    let reply = wire
        .exchange(format!("{signed}Content-Length: 100000\r\n\r\n{limit}"))
        .await;
    assert_eq!((reply.status, reply.body.len()), (200, 100_000));

    // Only the head of it: the answer does not wait for a body that nobody wants.
    wire.write(format!(
        "{}Content-Length: 100001\r\n\r\n",
        head(STUDIO_KEY)
    ))
    .await;
    let reply = wire.reply().await;
    assert_eq!(reply.status, 413);
    assert!(reply.says_close(), "the rest is too long to wait for");
    let mut wire = Wire::connect(gate.public).await;
    wire.write(format!("{signed}Content-Length: 100001\r\n\r\n"))
        .await;
    assert_eq!(wire.reply().await.code(), "RequestSizeLimitExceeded");
    assert_eq!(gate.records().len(), 2);
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    let refused = ["decision=\"refused\"", "reason=\"body_too_large\""];
    assert_eq!(metrics.sum("tollgate_requests_total", &refused), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_over_the_limit_is_cut_off_in_the_middle_and_not_billed() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.body_bytes = 100_000;
    })
    .await;
    let mut wire = Wire::connect(gate.public).await;
    let reply = wire
        .exchange(chunked_call(STUDIO_KEY, &"x".repeat(100_000)))
        .await;
    assert_eq!((reply.status, reply.body.len()), (200, 100_000));
    let reply = wire
        .exchange(chunked_call(STUDIO_KEY, &"x".repeat(100_001)))
        .await;
    assert_eq!(reply.status, 413);
    assert!(reply.says_close());
    gate.at_rest().await.assert_conserved();
    let records = gate.records();
    assert_eq!(records.len(), 2);
    assert_eq!(
        (records[1].outcome, records[1].reason, records[1].status),
        (Outcome::ClientIncomplete, Reason::ClientIncomplete, None),
        "it is the client that sent too much"
    );

    // Signed, it is read before it is admitted.
    for (bytes, code) in [(100_000, ""), (100_001, "RequestSizeLimitExceeded")] {
        let body = "x".repeat(bytes);
        let signed = signed_head(STUDIO_ID, STUDIO_SECRET, &body);
        let mut wire = Wire::connect(gate.public).await;
        let reply = wire
            .exchange(format!(
                "{signed}Transfer-Encoding: chunked\r\n\r\n{bytes:x}\r\n{body}\r\n0\r\n\r\n"
            ))
            .await;
        assert_eq!(reply.status, 200);
        match code {
            "" => assert_eq!(reply.body.len(), bytes),
            code => assert_eq!(reply.code(), code),
        }
    }
    assert_eq!(gate.records().len(), 3);
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_rest_of_a_refused_body_is_read_and_the_connection_kept() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    let mut wire = Wire::connect(gate.public).await;
    for bytes in [0, 1, 10_000, 64 * 1024] {
        let reply = wire.exchange(call("nobodys", &"x".repeat(bytes))).await;
        assert_eq!(reply.status, 401, "{bytes}");
        assert!(!reply.says_close(), "{bytes}");
    }
    let reply = wire.exchange(call(STUDIO_KEY, "{}")).await;
    assert_eq!((reply.status, &reply.body[..]), (200, &b"{}"[..]));
    // One byte more is not waited for, nor is a rest of unknown length.
    let reply = wire
        .exchange(call("nobodys", &"x".repeat(64 * 1024 + 1)))
        .await;
    assert_eq!(reply.status, 401);
    assert!(reply.says_close());
    assert!(wire.is_closed().await);
    let mut wire = Wire::connect(gate.public).await;
    wire.write(format!(
        "{}Transfer-Encoding: chunked\r\n\r\n",
        head("nobodys")
    ))
    .await;
    let reply = wire.reply().await;
    assert_eq!(reply.status, 401);
    assert!(reply.says_close());
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_refused_upload_arrives_whole_although_the_client_sends_on() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    let body = "x".repeat(4 * 1024 * 1024);
    for head in [head("nobodys"), signed_head("AKIDNOBODY", "x", "")] {
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let mut wire = Wire::connect(gate.public).await;
        // A client that reads only after it has sent everything: the worst case.
        wire.write(request).await;
        let reply = wire.reply().await;
        assert!(reply.whole);
        assert!(reply.says_close());
        match reply.status {
            401 => assert_eq!(reply.json()["status"], 401),
            _ => assert_eq!(reply.code(), "AuthFailure.SecretIdNotFound"),
        }
        assert!(wire.is_closed().await);
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_that_waits_for_100_continue_is_never_told_to_continue() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.body_bytes = 100_000;
    })
    .await;
    let expect = "Expect: 100-continue\r\n";
    let cases = [
        (
            "unknown key",
            format!("{}{expect}Content-Length: 2\r\n\r\n", head("nobodys")),
            401,
        ),
        (
            "too large",
            format!("{}{expect}Content-Length: 100001\r\n\r\n", head(STUDIO_KEY)),
            413,
        ),
        (
            "arrears",
            format!("{}{expect}Content-Length: 2\r\n\r\n", head(ARREARS_KEY)),
            402,
        ),
        (
            "chunked",
            format!(
                "{}{expect}Transfer-Encoding: chunked\r\n\r\n",
                head("nobodys")
            ),
            401,
        ),
        (
            "signed",
            format!(
                "{}{expect}Content-Length: 2\r\n\r\n",
                signed_head("AKIDNOBODY", "x", "{}")
            ),
            200,
        ),
    ];
    // At once, since each is listened to for the two seconds in which it might send on.
    let calls = cases.into_iter().map(async |(what, request, status)| {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(request).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, status, "{what}: the first answer is the last");
        assert!(
            reply.says_close(),
            "{what}: whether a body follows cannot be known"
        );
        assert!(wire.is_closed().await, "{what}");
    });
    futures_util::future::join_all(calls).await;
    assert!(upstream.seen().is_empty());
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_that_does_not_wait_for_100_continue_loses_nothing_of_the_answer() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    let mut wire = Wire::connect(gate.public).await;
    let body = "x".repeat(4 * 1024 * 1024);
    wire.write(format!(
        "{}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n{body}",
        head("nobodys"),
        body.len()
    ))
    .await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.whole), (401, true));
    assert!(reply.says_close());
    assert!(wire.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_client_that_waits_for_100_continue_gets_it_and_its_body_passes() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start(upstream.address).await;
    for head in [
        head(STUDIO_KEY),
        signed_head(STUDIO_ID, STUDIO_SECRET, "{\"a\":1}"),
    ] {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(format!(
            "{head}Expect: 100-continue\r\nContent-Length: 7\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.reply().await.status, 100);
        wire.write("{\"a\":1}").await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, &reply.body[..]), (200, &b"{\"a\":1}"[..]));
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert!(
            !seen.headers.contains_key("expect"),
            "the gate has dealt with it"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn body_memory_beyond_a_peers_share_is_refused_at_once_and_comes_back() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.body_bytes = 100_000;
        config.settings.limits.body_memory = 800_000;
    })
    .await;
    let proxy = gate.running.as_ref().unwrap().proxy.clone();
    let body = "x".repeat(100_000);
    let upload = |id: &str, secret: &str| {
        format!(
            "{}Content-Length: 100000\r\n\r\n{body}",
            signed_head(id, secret, &body)
        )
    };
    let (first, rest) = upload(STUDIO_ID, STUDIO_SECRET)
        .split_at(1_000)
        .to_owned_pair();
    let mut slow = Wire::connect(gate.public).await;
    slow.write(first).await;
    eventually("the share is taken", || proxy.body_memory_held() == 100_000).await;

    let retail = (
        "AKIDEXAMPLERETAIL00000000000000000002",
        "trial-secret-of-example-retail",
    );
    let signed = |(id, secret): (&str, &str), body: &str| {
        let length = body.len();
        format!(
            "{}Content-Length: {length}\r\n\r\n{body}",
            signed_head(id, secret, body)
        )
    };
    // Too large to come with its head.
    let bulky = "x".repeat(10_000);
    let studio_bulky = signed((STUDIO_ID, STUDIO_SECRET), &bulky);
    let retail_bulky = signed(retail, &bulky);
    for (what, source, request) in [
        (
            "the same peer with another credential",
            [127, 0, 0, 1],
            &retail_bulky,
        ),
        (
            "the same credential from another peer",
            [127, 0, 4, 1],
            &studio_bulky,
        ),
    ] {
        let mut wire = Wire::connect_from(source, gate.public).await;
        let reply = wire.exchange(request).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (200, "ServiceUnavailable"),
            "{what}"
        );
    }
    let mut wire = Wire::connect_from([127, 0, 4, 1], gate.public).await;
    let reply = wire.exchange(&retail_bulky).await;
    assert_eq!(
        (reply.status, &reply.body[..]),
        (200, bulky.as_bytes()),
        "others have their own share"
    );
    let mut wire = Wire::connect(gate.public).await;
    let reply = wire.exchange(&signed(retail, "{}")).await;
    assert_eq!(
        (reply.status, &reply.body[..]),
        (200, &b"{}"[..]),
        "what came with its head is in memory already"
    );
    // A body that is not kept in memory needs none of it.
    let (status, _, _) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::OK);

    let reply = slow.exchange(rest).await;
    assert_eq!((reply.status, reply.body.len()), (200, 100_000));
    assert_eq!(proxy.body_memory_held(), 0);
    let mut wire = Wire::connect(gate.public).await;
    let reply = wire.exchange(upload(STUDIO_ID, STUDIO_SECRET)).await;
    assert_eq!(
        (reply.status, reply.body.len()),
        (200, 100_000),
        "the share is back"
    );

    // Hanging up gives it back too.
    let mut gone = Wire::connect(gate.public).await;
    gone.write(&upload(STUDIO_ID, STUDIO_SECRET)[..1_000]).await;
    eventually("the share is taken", || proxy.body_memory_held() == 100_000).await;
    drop(gone);
    eventually("the share is back", || proxy.body_memory_held() == 0).await;
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    let refused = ["decision=\"refused\"", "reason=\"body_memory\""];
    assert_eq!(metrics.sum("tollgate_requests_total", &refused), 2);
}

/// Two owned halves of a text.
trait OwnedPair {
    fn to_owned_pair(self) -> (String, String);
}

impl OwnedPair for (&str, &str) {
    fn to_owned_pair(self) -> (String, String) {
        (self.0.to_owned(), self.1.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_not_done_by_the_deadline_is_told_so_and_not_billed() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.request_timeout = Duration::from_secs(1);
        config.settings.upstream.response_timeout = Duration::from_millis(900);
    })
    .await;
    let mut by_key = Wire::connect(gate.public).await;
    by_key
        .write(format!(
            "{}Content-Length: 10\r\n\r\n12345",
            head(STUDIO_KEY)
        ))
        .await;
    let mut by_signature = Wire::connect(gate.public).await;
    let signed = signed_head(STUDIO_ID, STUDIO_SECRET, "1234567890");
    by_signature
        .write(format!("{signed}Content-Length: 10\r\n\r\n12345"))
        .await;

    let reply = by_key.reply().await;
    assert_eq!(
        reply.status,
        408,
        "{:?}",
        String::from_utf8_lossy(&reply.body)
    );
    assert!(reply.says_close());
    let reply = by_signature.reply().await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (200, "FailedOperation.RequestTimeout")
    );
    assert!(reply.says_close());
    // The first was admitted when its head had come, the second never.
    let record = one_record(&gate).await;
    assert_eq!(
        (record.outcome, record.reason, record.status),
        (Outcome::ClientIncomplete, Reason::ClientIncomplete, None)
    );
    let proxy = &gate.running.as_ref().unwrap().proxy;
    assert_eq!(proxy.body_memory_held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_take_the_body_is_what_was_too_slow_at_the_deadline() {
    let upstream = RawUpstream::scripted(|connection| async move {
        let _open = connection;
        std::future::pending::<()>().await;
    })
    .await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.request_timeout = Duration::from_secs(1);
        config.settings.upstream.response_timeout = Duration::from_millis(900);
        config.settings.limits.body_bytes = 64 * 1024 * 1024;
    })
    .await;
    // More than the buffers on the way hold.
    let mut wire = Wire::connect(gate.public).await;
    let request = call(STUDIO_KEY, &"x".repeat(32 * 1024 * 1024));
    let reply = tokio::time::timeout(BOUND, wire.exchange(request))
        .await
        .expect("the rest of the body is discarded, whatever the upstream does");
    assert_eq!(reply.status, 504);
    assert!(reply.says_close());
    assert!(wire.is_closed().await);
    let record = one_record(&gate).await;
    assert_eq!(
        (record.outcome, record.reason, record.status),
        (Outcome::UpstreamFailed, Reason::UpstreamFailed, None)
    );
}

// ---- Connections ----

#[tokio::test(flavor = "multi_thread")]
async fn so_many_proven_connections_are_served_and_the_next_one_waits_until_one_closes() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.connections = 4;
        config.settings.workers = NonZeroUsize::new(2);
    })
    .await;
    let mut open = Vec::new();
    let keys = [STUDIO_KEY, RETAIL_KEY, STUDIO_KEY, RETAIL_KEY];
    for key in keys {
        let mut wire = Wire::connect(gate.public).await;
        let reply = wire.exchange(call(key, "{}")).await;
        assert_eq!(reply.status, 200, "one of four");
        open.push(wire);
    }
    let mut fifth = Wire::connect(gate.public).await;
    fifth.write(call(RETAIL_KEY, "{}")).await;
    assert!(
        fifth.is_silent_for(Duration::from_millis(300)).await,
        "neither served nor refused"
    );
    for (wire, key) in open.iter_mut().zip(keys) {
        assert_eq!(wire.exchange(call(key, "{}")).await.status, 200);
    }
    open.pop();
    assert_eq!(fifth.reply().await.status, 200);
    drop((open, fifth));
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_enough_for_two_workers() {
    let upstream = Upstream::scripted(echo).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.connections = 1;
        config.settings.workers = NonZeroUsize::new(2);
    })
    .await;
    // Enough of them that the kernel gives some to either worker.
    for _ in 0..16 {
        let (status, _, _) = tokio::time::timeout(BOUND, send(gate.public, segment(STUDIO_KEY)))
            .await
            .expect("no worker keeps the only place to itself");
        assert_eq!(status, StatusCode::OK);
    }
}

// ---- The upstream ----

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_costs_the_client_an_error_and_no_money() {
    let nobody = ([127, 0, 0, 1], free_port()).into();
    let gate = Gate::start(nobody).await;
    let (status, headers, body) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(headers["content-type"], "application/problem+json");
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["type"], "urn:tollgate:problem:upstream_unreachable");
    let (status, _, body) = send(
        gate.public,
        signed(STUDIO_ID, STUDIO_SECRET, "SegmentPortraitPic", "{}"),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["Response"]["Error"]["Code"], "FailedOperation.RpcFail");
    // A body that nobody can take is not asked for.
    let mut wire = Wire::connect(gate.public).await;
    let expect = "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    wire.write(head(STUDIO_KEY) + expect).await;
    assert_eq!(wire.reply().await.status, 502);
    gate.at_rest().await.assert_conserved();
    let records = gate.records();
    assert_eq!(records.len(), 3);
    for record in records {
        assert_eq!(
            (record.outcome, record.reason, record.status),
            (Outcome::UpstreamFailed, Reason::UpstreamFailed, None)
        );
        assert!(!record.billable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_answers_wrongly_or_not_at_all_is_a_502_or_504_and_not_billed() {
    // The body says what the upstream does.
    let upstream = RawUpstream::scripted(|mut connection| async move {
        let Some(request) = connection.request().await else {
            return;
        };
        match &request.body[..] {
            b"close" => {}
            b"mid-head" => connection.write("HTTP/1.1 200 OK\r\nContent-Le").await,
            b"garbage" => connection.write("\x16\x03\x01 no such protocol\r\n\r\n").await,
            b"two lengths" => {
                connection
                    .write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x")
                    .await
            }
            b"switch" => {
                connection
                    .write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
                    .await;
                tokio::time::sleep(BOUND).await;
            }
            b"endless head" => {
                let field = format!("X-Pad: {}\r\n", "p".repeat(10_000));
                connection.write("HTTP/1.1 200 OK\r\n").await;
                for _ in 0..200 {
                    connection.write(&field).await;
                }
            }
            _ => tokio::time::sleep(BOUND).await,
        }
    })
    .await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.upstream.response_timeout = Duration::from_millis(300);
    })
    .await;
    let cases = [
        ("close", 502, "upstream_cut", "FailedOperation.RpcFail"),
        ("mid-head", 502, "upstream_cut", "FailedOperation.RpcFail"),
        (
            "garbage",
            502,
            "upstream_nonsense",
            "FailedOperation.ServerError",
        ),
        (
            "two lengths",
            502,
            "upstream_nonsense",
            "FailedOperation.ServerError",
        ),
        (
            "switch",
            502,
            "upstream_nonsense",
            "FailedOperation.ServerError",
        ),
        (
            "endless head",
            502,
            "upstream_nonsense",
            "FailedOperation.ServerError",
        ),
        (
            "silence",
            504,
            "upstream_timeout",
            "FailedOperation.RequestTimeout",
        ),
    ];
    for (body, status, reason, code) in cases {
        let (got, headers, answer) = send(
            gate.public,
            plain("POST", "/v1/portrait/segment", STUDIO_KEY, body),
        )
        .await;
        assert_eq!(got.as_u16(), status, "{body}");
        assert_eq!(headers["content-type"], "application/problem+json");
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(
            answer["type"],
            format!("urn:tollgate:problem:{reason}"),
            "{body}"
        );
        let (got, _, answer) = send(
            gate.public,
            signed(STUDIO_ID, STUDIO_SECRET, "SegmentPortraitPic", body),
        )
        .await;
        assert_eq!(got, StatusCode::OK, "{body}");
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["Response"]["Error"]["Code"], code, "{body}");
    }
    gate.at_rest().await.assert_conserved();
    let records = gate.records();
    assert_eq!(records.len(), cases.len() * 2);
    for record in records {
        assert_eq!(
            (record.outcome, record.reason, record.status),
            (Outcome::UpstreamFailed, Reason::UpstreamFailed, None)
        );
    }
    assert_eq!(
        upstream.requests().len(),
        cases.len() * 2,
        "nothing is sent twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_not_made_to_look_whole_and_its_record_stays() {
    let upstream = RawUpstream::scripted(|mut connection| async move {
        let Some(request) = connection.request().await else {
            return;
        };
        let framing = match &request.body[..] {
            b"length" => "Content-Length: 1000\r\n\r\nthe first half",
            _ => "Transfer-Encoding: chunked\r\n\r\ne\r\nthe first half\r\n",
        };
        connection
            .write(format!("HTTP/1.1 200 OK\r\n{framing}"))
            .await;
    })
    .await;
    let gate = Gate::start(upstream.address).await;
    for (n, body) in ["length", "chunked"].iter().enumerate() {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(call(STUDIO_KEY, body)).await;
        // The head may not have left when the body broke: then the connection just ends.
        if let Some(reply) = wire.try_reply().await {
            assert_eq!(reply.status, 200);
            assert!(!reply.whole, "{body}: {reply:?}");
        }
        assert!(wire.is_closed().await);
        let metrics = gate.at_rest().await;
        metrics.assert_conserved();
        assert_eq!(metrics.sum("tollgate_answers_cut_total", &[]), n as u64 + 1);
    }
    let records = gate.records();
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!(
            (record.outcome, record.status),
            (Outcome::Answered, Some(200))
        );
        assert!(record.billable);
    }
}

/// Whole answers in every framing that keeps a connection.
const WHOLE: [&str; 5] = [
    OK,
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_the_upstream_has_closed_does_not_cost_the_next_call() {
    let closed = Arc::new(AtomicUsize::new(0));
    let count = closed.clone();
    let upstream = RawUpstream::scripted(move |mut connection| {
        let count = count.clone();
        async move {
            // One answer each, and no word of closing; the gate keeps the connection for a while.
            if connection.request().await.is_some() {
                connection.write(OK).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            drop(connection);
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.workers = NonZeroUsize::new(1);
    })
    .await;
    let mut client = Client::connect(gate.public).await.unwrap();
    for n in 1..=3 {
        let (status, _, _) = client.send(segment(STUDIO_KEY)).await.unwrap();
        assert_eq!(status, StatusCode::OK);
        assert_eq!(upstream.connections(), n);
        eventually("it closes", || closed.load(Ordering::SeqCst) == n).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(upstream.requests().len(), 3);
    assert_eq!(gate.records().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_may_have_been_read_is_sent_once_only_on_a_new_connection_and_on_a_kept_one() {
    let upstream = RawUpstream::scripted(|mut connection| async move {
        while let Some(request) = connection.request().await {
            if request.body == b"die" {
                return;
            }
            connection.write(OK).await;
        }
    })
    .await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.workers = NonZeroUsize::new(1);
    })
    .await;
    let die = || plain("POST", "/v1/portrait/segment", STUDIO_KEY, "die");
    let (status, _, _) = send(gate.public, die()).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(upstream.requests().len(), 1, "on a new connection");
    let (status, _, _) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _, _) = send(gate.public, die()).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(upstream.requests().len(), 3, "on a kept connection");
    assert_eq!(upstream.connections(), 2, "it was a kept one");
    gate.at_rest().await.assert_conserved();
    assert_eq!(gate.records().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_one_after_another_share_one_upstream_connection_however_the_answer_is_framed() {
    let upstream = RawUpstream::scripted(|mut connection| async move {
        while let Some(request) = connection.request().await {
            let n: usize = String::from_utf8(request.body).unwrap().parse().unwrap();
            connection.write(WHOLE[n % WHOLE.len()]).await;
        }
    })
    .await;
    let gate = Gate::start_with(upstream.address, |config| {
        retail_unlimited(config);
        config.settings.workers = NonZeroUsize::new(1);
    })
    .await;
    let mut wire = Wire::connect(gate.public).await;
    for n in 0..50 {
        let request = match n % 2 {
            0 => call(RETAIL_KEY, &n.to_string()),
            _ => chunked_call(RETAIL_KEY, &n.to_string()),
        };
        wire.write(request).await;
        assert!(wire.reply().await.whole);
        assert_eq!(upstream.connections(), 1, "after call {n}");
    }
    assert_eq!(upstream.requests().len(), 50);
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    assert_eq!(
        metrics.sum("tollgate_answers_cut_total", &[]),
        0,
        "whole answers"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_answered_early_is_not_cut_by_the_next_call() {
    let upstream = RawUpstream::scripted(|mut connection| async move {
        while let Some((_, headers)) = connection.head().await {
            connection.write(OK).await;
            connection
                .rest_of_request("answered early".to_owned(), headers)
                .await;
        }
    })
    .await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.workers = NonZeroUsize::new(1);
    })
    .await;
    let mut slow = Wire::connect(gate.public).await;
    slow.write(format!(
        "{}Content-Length: 10\r\n\r\n12345",
        head(STUDIO_KEY)
    ))
    .await;
    let reply = slow.reply().await;
    assert_eq!((reply.status, reply.whole), (200, true));
    for _ in 0..2 {
        let (status, _, _) = send(gate.public, segment(STUDIO_KEY)).await;
        assert_eq!(status, StatusCode::OK);
    }
    slow.write("67890").await;
    eventually("all three come whole", || upstream.requests().len() == 3).await;
    let bodies: Vec<_> = upstream
        .requests()
        .into_iter()
        .map(|request| request.body)
        .collect();
    assert_eq!(bodies[2], b"1234567890");
    assert!(upstream.requests().iter().all(|request| request.whole));
    assert_eq!(
        upstream.connections(),
        2,
        "the slow one's is not taken, the other one is used again"
    );
    let reply = slow.exchange(call(STUDIO_KEY, "{}")).await;
    assert_eq!(reply.status, 200, "its connection stays");
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_each_have_an_upstream_connection_and_leave_them_for_later() {
    let upstream = Upstream::after(Duration::from_millis(100)).await;
    let gate = Gate::start_with(upstream.address, |config| {
        retail_unlimited(config);
        config.settings.workers = NonZeroUsize::new(1);
    })
    .await;
    for _ in 0..3 {
        let calls = (0..8).map(|_| send(gate.public, segment(RETAIL_KEY)));
        for (status, _, _) in futures_util::future::join_all(calls).await {
            assert_eq!(status, StatusCode::OK);
        }
    }
    let connections = upstream
        .connections
        .load(std::sync::atomic::Ordering::SeqCst);
    assert!(
        connections <= 8,
        "{connections} connections for 8 calls at once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_connections_are_bounded_and_the_next_one_waits_until_one_closes() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let mut silent = Vec::new();
    for _ in 0..tollgate::testing::control::admin::CONNECTIONS {
        silent.push(Wire::connect(gate.admin).await);
    }
    let mut next = Wire::connect(gate.admin).await;
    next.write("GET /livez HTTP/1.1\r\nHost: gate.test\r\n\r\n")
        .await;
    let waited = tokio::time::timeout(Duration::from_millis(300), next.reply()).await;
    assert!(waited.is_err(), "one past the limit is not read");
    let (status, _, _) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::OK, "calls do not wait for it");
    silent.pop();
    assert_eq!(next.reply().await.status, 200);
}
