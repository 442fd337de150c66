//! The public listener under TLS as clients of all kinds meet it.

use super::client::{Http2, connect, trusting};
use super::*;
use bytes::Bytes;
use http::StatusCode;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate::testing::model::Outcome;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_the_same_by_http_1_1_and_by_http_2_under_tls() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let url = gate.url("/v1/portrait/segment?scale=2");
    for version in ["--http1.1", "--http2"] {
        let told = gate.curl(&[
            version,
            "-w",
            " %{http_code} %{http_version}",
            "-H",
            &format!("x-api-key: {STUDIO_KEY}"),
            "-H",
            "cookie: a=1",
            "-H",
            "X-Odd: \u{e9}",
            "-d",
            "{\"Image\":\"x\"}",
            &url,
        ]);
        let spoken = version.trim_start_matches("--http").trim_end_matches(".0");
        assert!(
            told.out.ends_with(&format!(" 200 {spoken}")),
            "{version}: {} {}",
            told.out,
            told.err
        );
    }
    let seen = upstream.seen.lock().clone();
    assert_eq!(seen.len(), 2);
    let of = |nth: usize| {
        let mut headers = seen[nth].headers.clone();
        assert!(headers.remove("x-request-id").is_some());
        (
            seen[nth].method.clone(),
            seen[nth].target.clone(),
            headers,
            seen[nth].body.clone(),
        )
    };
    assert_eq!(of(0), of(1), "the upstream cannot tell them apart");
    assert_eq!(seen[1].headers["x-tollgate-account"], "1250000001");
    let port = gate.house.public.port();
    assert_eq!(seen[1].headers["host"], format!("localhost:{port}"));
    at_rest(gate.house.admin).await.assert_conserved();
    let records = whole_ledger(&gate.house.ledger());
    assert!(records.len() == 2 && records.iter().all(|r| r.outcome == Outcome::Answered));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refusals_of_http_2_are_those_of_http_1_1() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let cases: [&[&str]; 5] = [
        &["/v1/portrait/segment", "-H", "x-api-key: wrong", "-d", "{}"],
        &["/v1/portrait/segment", "-d", "{}"],
        &["/no/such/route", "-H", "x-api-key: demo-studio-key"],
        &["/v1/quota", "-H", "x-api-key: demo-studio-key"],
        &["/", "-H", "X-TC-Action: Nothing", "-X", "PUT"],
    ];
    for case in cases {
        let url = gate.url(case[0]);
        let ask = |version| {
            let mut args = vec![version, "-D", "-"];
            args.extend(&case[1..]);
            args.push(&url);
            let told = gate.curl(&args);
            let (head, body) = told
                .out
                .split_once("\r\n\r\n")
                .unwrap_or_else(|| panic!("{case:?} {version} {told:?}"));
            let status = head.split(' ').nth(1).unwrap().to_owned();
            // Each has an id of its own, which is 32 digits.
            let own = |text: &str| text.len() < 30;
            let words = body.split('"').filter(|text| own(text));
            let body: Vec<String> = words.map(str::to_owned).collect();
            let mut fields: Vec<String> = head
                .lines()
                .skip(1)
                .filter_map(|line| Some(line.split_once(':')?.0.to_ascii_lowercase()))
                .filter(|name| name != "connection")
                .collect();
            fields.sort();
            (status, fields, body)
        };
        assert_eq!(ask("--http1.1"), ask("--http2"), "{case:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_any_size_pass_both_ways_under_tls() {
    let upstream = Upstream::scripted(|seen| async move {
        http::Response::new(Bytes::from(seen.body.to_vec()).into())
    })
    .await;
    let gate = TlsGate::start(&upstream).await;
    let mut http2 = Http2::connect(gate.house.public, &gate.cert).await;
    for length in [0_usize, 1, 16_384, 16_385, 200_000, 5_000_000] {
        let body: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251) as u8).collect();
        let body = Bytes::from(body);
        let request = |body: Bytes| {
            http::Request::post(gate.url("/v1/portrait/segment"))
                .header("x-api-key", RETAIL_KEY)
                .body(body)
                .unwrap()
        };
        let answer = http2.send(request(body.clone())).await;
        assert!(
            answer.status == 200 && answer.body == body,
            "{length} by HTTP/2"
        );

        let config = trusting(&[&gate.cert], &["http/1.1"]);
        let stream = connect(gate.house.public, &config, "localhost")
            .await
            .unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let head = format!(
            "POST /v1/portrait/segment HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {RETAIL_KEY}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        let sent = body.clone();
        let sending = tokio::spawn(async move {
            writer.write_all(head.as_bytes()).await.unwrap();
            writer.write_all(&sent).await.unwrap();
            writer
        });
        let mut read = Vec::new();
        reader.read_to_end(&mut read).await.unwrap();
        drop(sending.await.unwrap());
        assert!(read.starts_with(b"HTTP/1.1 200 "), "{length}");
        assert!(read.ends_with(&body), "{length} by HTTP/1.1");
    }
    at_rest(gate.house.admin).await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_plain_http_to_a_listener_of_tls_is_told() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let mut stream = tokio::net::TcpStream::connect(gate.house.public)
        .await
        .unwrap();
    let head = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).await.unwrap();
    assert!(
        told.starts_with("HTTP/1.1 400 ") && told.contains("https"),
        "{told}"
    );
    eventually("the operator is told", || {
        gate.house.log().contains("call it with https://")
    })
    .await;
    let refused = scrape(gate.house.admin).await;
    let reason = &["reason=\"plain_http\""];
    assert_eq!(refused.sum("tollgate_heads_refused_total", reason), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_tls_before_1_2_are_not_spoken() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let to = format!("localhost:{}", gate.house.public.port());
    for (version, speaks) in [
        ("-tls1", false),
        ("-tls1_1", false),
        ("-tls1_2", true),
        ("-tls1_3", true),
    ] {
        let mut command = Command::new("openssl");
        // Debian's own configuration offers none of the old versions.
        command.args([
            "s_client",
            "-cipher",
            "DEFAULT:@SECLEVEL=0",
            "-brief",
            version,
        ]);
        command.args(["-connect", &to, "-CAfile"]).arg(&gate.cert);
        let told = said(command.stdin(std::process::Stdio::null()));
        assert_eq!(told.code == Some(0), speaks, "{version}: {}", told.err);
    }
    let handshakes = scrape(gate.house.admin).await;
    let of = |result: &str| {
        let result = format!("result=\"{result}\"");
        handshakes.sum("tollgate_tls_handshakes_total", &[&result])
    };
    assert_eq!((of("done"), of("failed")), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_speaks_tls_too() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    house.edit(
        "tollgate.yaml",
        "admin: {listen",
        &format!("admin: {{tls: {}, listen", section(&["tls"])),
    );
    let (cert, _) = certificate(&house.file("tls"), &[]);
    let mut command = house.command(&[], &["serve"]);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let url = format!("https://localhost:{}/readyz", house.admin.port());
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--retry",
        "40",
        "--retry-delay",
        "1",
        "--retry-all-errors",
        "--cacert",
    ]);
    let told = said(curl.arg(&cert).args(["-w", " %{http_code}", &url]));
    assert!(told.out.ends_with(" 200"), "{} {}", told.out, told.err);
    // Commands ask it in TLS too.
    let probed = house.run(&["probe"]);
    assert!(
        probed.code == Some(0) && probed.out.contains("https://"),
        "{probed:?}"
    );
    let (status, _) = refused_plain(house.admin).await;
    assert!(!status, "nothing is answered in clear");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Whether plain HTTP is answered there, and the first bytes.
async fn refused_plain(to: std::net::SocketAddr) -> (bool, Vec<u8>) {
    let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    (read.starts_with(b"HTTP/1.1 200"), read)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_2_is_held_to_its_quota_and_told_so() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let mut http2 = Http2::connect(gate.house.public, &gate.cert).await;
    let mut statuses = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..60 {
        let request = http::Request::get(gate.url("/v1/portrait/segment"))
            .method("POST")
            .header("x-api-key", STUDIO_KEY)
            .body(())
            .unwrap();
        answers.push(http2.begin(request, true).await.0);
    }
    for answer in answers {
        let answer = super::client::answered(answer).await.unwrap();
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.headers.contains_key("retry-after"));
        }
        statuses.push(answer.status);
    }
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    assert!((20..=40).contains(&admitted), "{statuses:?}");
    assert_eq!(upstream.seen.lock().len(), admitted);
    at_rest(gate.house.admin).await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_speaks_http_2_with_the_gate() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let home = tempfile::tempdir().unwrap();
    let noted = home.path().join("net.json");
    let mut command = Command::new("timeout");
    command
        .args([
            "60",
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
        ])
        .arg(format!("--user-data-dir={}", home.path().display()))
        .arg(format!("--log-net-log={}", noted.display()))
        // Nobody has signed the certificate but itself.
        .args(["--ignore-certificate-errors", "--dump-dom"])
        .arg(gate.url("/v1/quota"));
    let told = said(&mut command);
    assert!(told.out.contains("Not identified"), "{told:?}");
    let noted = std::fs::read_to_string(noted).unwrap();
    assert!(noted.contains("\"next_proto\":\"h2\""));
}
