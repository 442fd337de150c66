//! What operators see of heads that are no requests: TLS on a plain listener, a load balancer's own
//! protocol, broken clients.

use crate::harness::{Sandbox, Upstream, Wire, eventually, scrape};
use crate::reload::FEW_FILES;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_head_is_counted_and_its_likely_cause_logged_once_a_minute_for_each_peer() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[FEW_FILES]);
    let mut gate = house.start().await;
    let bare_lf = "GET / HTTP/1.1\nHost: a\n\n";
    let lengths = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n";
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(200));
    let cases: [(&[u8], u16, &str, &str); 8] = [
        (
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
            400,
            "tls",
            "it begins TLS",
        ),
        (
            b"PROXY TCP4 203.0.113.1 127.0.0.1 4711 80\r\nGET / HTTP/1.1\r\n\r\n",
            400,
            "proxy_protocol",
            "a load balancer sends the PROXY protocol",
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
            400,
            "proxy_protocol",
            "a load balancer sends the PROXY protocol",
        ),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            400,
            "http2",
            "it speaks HTTP/2 without TLS",
        ),
        (
            bare_lf.as_bytes(),
            400,
            "line_end",
            "it ends lines with LF alone",
        ),
        (
            lengths.as_bytes(),
            400,
            "framing",
            "can be read in two ways",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            400,
            "host",
            "its Host is no host",
        ),
        (many.as_bytes(), 431, "too_large", "100 fields"),
    ];
    for (nth, (bytes, status, reason, cause)) in (1..).zip(cases) {
        let label = format!("reason=\"{reason}\"");
        let counted = async || {
            let samples = scrape(gate.admin).await;
            samples.sum("tollgate_heads_refused_total", &[&label])
        };
        let before = counted().await;
        let source = [127, 0, 4, nth];
        for _ in 0..3 {
            let mut wire = Wire::connect_from(source, gate.public).await;
            wire.write(bytes).await;
            assert_eq!(wire.reply().await.status, status, "{reason}");
        }
        assert_eq!(counted().await, before + 3, "{reason}");
        let peer = format!("127.0.4.{nth}");
        let logged = || house.log().contains(&peer);
        eventually("it is logged", logged).await;
        let log = house.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&peer)).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let told = ["WARN", cause, reason].map(|word| lines[0].contains(word));
        assert_eq!(told, [true; 3], "{}", lines[0]);
    }
    let samples = scrape(gate.admin).await;
    assert_eq!(samples.sum("tollgate_requests_received_total", &[]), 0);
    gate.kill();
}
