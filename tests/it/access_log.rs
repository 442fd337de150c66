//! The access log: a line of each call, in a file that may be moved away, full or gone.

use crate::failing_disk::disk::{Disk, ENOSPC};
use crate::harness::*;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tollgate::testing::model::Clock;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A gate with this section.
fn house(upstream: &Upstream, section: &str) -> Sandbox {
    let with = format!("trusted_proxies: []\naccess_log: {section}\n");
    Sandbox::new(upstream.address, &[("trusted_proxies: []", &with)])
}

/// The lines of a log, once there are so many.
async fn lines(path: &Path, count: usize) -> Vec<Value> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    eventually("the lines are written", || read().lines().count() >= count).await;
    let text = read();
    let lines = text.lines().map(serde_json::from_str);
    lines.map(Result::unwrap).collect()
}

async fn dropped(house: &Sandbox) -> u64 {
    let samples = scrape(house.admin).await;
    samples.sum("tollgate_access_log_dropped_total", &[]) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_has_a_line_with_what_became_of_it() {
    let upstream = Upstream::scripted(|_| async {
        let answer = Response::builder().status(StatusCode::CREATED);
        answer
            .body(bytes::Bytes::from(vec![b'x'; 300_000]).into())
            .unwrap()
    })
    .await;
    let house = house(&upstream, "{to: access.log}");
    let _process = house.start().await;
    let mut client = Client::connect(house.public).await.unwrap();
    let mut request = plain(
        "POST",
        "/v1/portrait/segment",
        STUDIO_KEY,
        &"y".repeat(200_000),
    );
    request
        .headers_mut()
        .insert("traceparent", TRACE.parse().unwrap());
    let (status, headers, body) = client.send(request).await.unwrap();
    assert_eq!((status, body.len()), (StatusCode::CREATED, 300_000));
    let (_, refused, _) = client.send(segment("no-such-key")).await.unwrap();
    let (status, _, told) = client.send(segment(ARREARS_KEY)).await.unwrap();
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);

    let lines = lines(&house.file("access.log"), 3).await;
    assert_eq!(lines.len(), 3);
    let line = &lines[0];
    for (name, value) in [
        (
            "request_id",
            json!(headers["x-request-id"].to_str().unwrap()),
        ),
        ("account", json!("1250000001")),
        ("peer", json!("127.0.0.1")),
        ("group", json!("portrait-segmentation")),
        ("action", json!("SegmentPortraitPic")),
        ("decision", json!("admitted")),
        ("reason", json!("")),
        ("status", json!(201)),
        ("bytes_in", json!(200_000)),
        ("bytes_out", json!(300_000)),
        ("traceparent", json!(TRACE)),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    assert!(line["key"].is_string());
    let us = |name: &str| line[name].as_u64().unwrap();
    assert!(
        us("total_us") >= us("upstream_us") && us("overhead_us") > 0,
        "{line}"
    );
    let at: jiff::Timestamp = line["at"].as_str().unwrap().parse().unwrap();
    assert!((Clock::default().utc().seconds() - at.as_second()).abs() < 60);
    let line = &lines[1];
    assert_eq!(
        line["request_id"],
        json!(refused["x-request-id"].to_str().unwrap())
    );
    for (name, value) in [
        ("decision", json!("refused")),
        ("reason", json!("unknown_key")),
        ("account", Value::Null),
        ("status", json!(401)),
        ("upstream_us", Value::Null),
        ("traceparent", Value::Null),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    let line = &lines[2];
    assert_eq!(
        (&line["reason"], &line["account"]),
        (&json!("arrears"), &json!("1250000003"))
    );
    assert_eq!(line["bytes_out"], json!(told.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_calls_that_the_settings_name_have_a_line() {
    let upstream = Upstream::after(Duration::ZERO).await;
    for (section, expected) in [
        ("{to: access.log, of: admitted}", &["admitted"][..]),
        ("{to: access.log, of: refused}", &["throttled", "refused"]),
        ("{to: access.log, sample: 0}", &[]),
    ] {
        let house = house(&upstream, section);
        let process = house.start().await;
        let mut client = Client::connect(house.public).await.unwrap();
        let mut is_throttled = false;
        while !is_throttled {
            let (status, ..) = client.send(segment(STUDIO_KEY)).await.unwrap();
            is_throttled = status == StatusCode::TOO_MANY_REQUESTS;
        }
        client.send(segment("no-such-key")).await.unwrap();
        // What is written at the end is written.
        let mut process = process;
        process.signal("TERM");
        assert!(process.ended().await.success());
        let lines = lines(&house.file("access.log"), 0).await;
        let mut seen: Vec<&str> = lines
            .iter()
            .map(|line| line["decision"].as_str().unwrap())
            .collect();
        seen.dedup();
        assert_eq!(seen, expected, "{section}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_calls_has_a_line_when_a_part_is_wanted() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(&upstream, "{to: access.log, sample: 0.5}");
    let mut process = house.start().await;
    let mut client = Client::connect(house.public).await.unwrap();
    for _ in 0..400 {
        client.send(segment(VIDEO_KEY)).await.unwrap();
    }
    process.signal("TERM");
    assert!(process.ended().await.success());
    let lines = lines(&house.file("access.log"), 1).await.len();
    assert!((120..280).contains(&lines), "{lines} of 400");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_moved_away_is_opened_again_at_a_signal_and_no_line_is_lost() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(&upstream, "{to: access.log}");
    let process = house.start().await;
    let (now, before) = (house.file("access.log"), house.file("access.log.1"));
    let mut client = Client::connect(house.public).await.unwrap();
    let mut ids = Vec::new();
    let mut call = async |count: usize| {
        for _ in 0..count {
            let (_, headers, _) = client.send(segment(VIDEO_KEY)).await.unwrap();
            ids.push(headers["x-request-id"].to_str().unwrap().to_owned());
        }
    };
    call(5).await;
    lines(&now, 5).await;
    std::fs::rename(&now, &before).unwrap();
    // Those that come before the signal go to where the file is now.
    call(5).await;
    lines(&before, 10).await;
    process.signal("USR1");
    eventually("the file is opened again", || now.exists()).await;
    call(5).await;
    let new = lines(&now, 5).await;
    let written: Vec<Value> = [lines(&before, 10).await, new].concat();
    let written: Vec<&str> = written
        .iter()
        .map(|line| line["request_id"].as_str().unwrap())
        .collect();
    assert_eq!(written, ids);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&now).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}: it names clients");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_when_the_disk_of_the_log_is_full_and_the_lines_that_are_lost_are_counted() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let home = tempfile::tempdir().unwrap();
    // The log's disk alone; the ledger lies elsewhere.
    let disk = Disk::new(home.path());
    let path = disk.root().join("access.log");
    let house = house(&upstream, &format!("{{to: {}}}", path.display()));
    let mut command = house.command(&[], &["serve"]);
    command.envs(disk.environment()).stderr(Stdio::null());
    let _process = Process::start_by(&mut command, house.public, house.admin).await;
    let mut client = Client::connect(house.public).await.unwrap();
    let mut call = async || {
        let (status, ..) = client.send(segment(STUDIO_KEY)).await.unwrap();
        assert_eq!(status, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(60)).await;
    };
    call().await;
    lines(&path, 1).await;
    assert_eq!(dropped(&house).await, 0);
    disk.refuse_writes(ENOSPC);
    for _ in 0..3 {
        call().await;
    }
    for _ in 0..200 {
        if dropped(&house).await == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(dropped(&house).await, 3);
    disk.refuse_writes(0);
    call().await;
    assert_eq!(lines(&path, 2).await.len(), 2);
    assert_eq!(dropped(&house).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_go_to_standard_output_when_they_shall() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(&upstream, "{to: stdout}");
    let out = house.dir.path().join("out");
    let to = format!("exec \"$@\" > {}", out.display());
    let wrapper = ["sh", "-c", to.as_str(), "sh"];
    let mut command = house.command(&wrapper, &["serve"]);
    let mut process =
        Process::start_by(command.stderr(Stdio::null()), house.public, house.admin).await;
    send(house.public, segment(STUDIO_KEY)).await;
    let lines = lines(&out, 1).await;
    assert_eq!(lines[0]["account"], "1250000001");
    process.signal("USR1");
    send(house.public, segment(STUDIO_KEY)).await;
    process.signal("TERM");
    assert!(process.ended().await.success());
    assert_eq!(self::lines(&out, 2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_client_hangs_up_has_a_line_too() {
    let upstream = Upstream::after(Duration::from_millis(300)).await;
    let house = house(&upstream, "{to: access.log}");
    let _process = house.start().await;
    let wait = async |head: &str| {
        use tokio::io::AsyncWriteExt;
        let mut stream = tokio::net::TcpStream::connect(house.public).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    // Its call goes on: the upstream's answer decides whether it is billed.
    let head = format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nhost: a\r\nx-api-key: {STUDIO_KEY}\r\ncontent-length: 2\r\n\r\n12"
    );
    wait(&head).await;
    let path = house.file("access.log");
    let line = lines(&path, 1).await.remove(0);
    for (name, value) in [
        ("decision", json!("admitted")),
        ("reason", json!("client_closed")),
        ("status", Value::Null),
        ("bytes_in", json!(2)),
        ("bytes_out", json!(0)),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    // The upstream never has it whole.
    wait(&head.replace("content-length: 2", "content-length: 9")).await;
    let line = lines(&path, 2).await.remove(1);
    assert_eq!(line["reason"], "client_incomplete", "{line}");
}

/// What no line may show. Each part of a head that a client chooses has it once.
const SECRET: &str = "s3cr3t-of-a-customer";

/// A head that is nearly one, with the secret wherever the dice put it.
fn odd_head(dice: &mut fastrand::Rng) -> Vec<u8> {
    const NAMES: [&str; 17] = [
        "x-api-key",
        "authorization",
        "x-tc-action",
        "x-tc-version",
        "x-tc-region",
        "x-tc-timestamp",
        "x-tc-token",
        "x-tc-traceid",
        "traceparent",
        "tracestate",
        "x-forwarded-for",
        "x-request-id",
        "cookie",
        "content-type",
        "user-agent",
        "x-tollgate-account",
        "referer",
    ];
    let value = |dice: &mut fastrand::Rng| match dice.usize(..10) {
        0 => SECRET.to_owned(),
        1 => format!("Bearer {SECRET}"),
        2 => format!(
            "TC3-HMAC-SHA256 Credential={SECRET}/2026-11-30/bda/tc3_request, SignedHeaders=content-type;host, Signature={SECRET}"
        ),
        3 => format!("{SECRET}\", \"account\": \"{SECRET}"),
        4 => format!("\\u0022{SECRET}\x01\x7f"),
        5 => STUDIO_KEY.to_owned(),
        6 => TRACE.to_owned(),
        7 => format!("{TRACE}-{SECRET}"),
        8 => "SegmentPortraitPic".to_owned(),
        _ => "1".to_owned(),
    };
    let method = ["GET", "POST", "PUT", "HEAD", SECRET][dice.usize(..5)];
    let target = match dice.usize(..5) {
        0 => "/v1/portrait/segment".to_owned(),
        1 => format!("/v1/portrait/segment?key={SECRET}"),
        2 => format!("/{SECRET}"),
        3 => format!("/v1/decisions/{SECRET}"),
        _ => "/".to_owned(),
    };
    let host = ["gate.test", SECRET][dice.usize(..2)];
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n");
    for _ in 0..dice.usize(..6) {
        let name = NAMES[dice.usize(..NAMES.len())];
        head += &format!("{name}: {}\r\n", value(dice));
    }
    head += "connection: close\r\n\r\n";
    head.into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_has_a_secret_or_any_text_of_a_client_whatever_the_head() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(&upstream, "{to: access.log}");
    let mut process = house.start().await;
    let seed = 7;
    let mut dice = fastrand::Rng::with_seed(seed);
    for nth in 0..400 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        // From many addresses, so that failing credentials are not held down.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let from = [127, 0, 1, u8::try_from(nth % 200).unwrap() + 1];
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(house.public).await.unwrap();
        let _ = stream.write_all(&odd_head(&mut dice)).await;
        let mut told = Vec::new();
        let read = tokio::time::timeout(BOUND, stream.read_to_end(&mut told));
        let _ = read.await.expect("an answer or an end");
    }
    let asked = format!("/v1/portrait/segment?key={SECRET}");
    send(house.public, plain("POST", &asked, STUDIO_KEY, SECRET)).await;
    process.signal("TERM");
    assert!(process.ended().await.success());
    let lines = lines(&house.file("access.log"), 100).await;
    let text = std::fs::read_to_string(house.file("access.log")).unwrap();
    for secret in [SECRET, STUDIO_KEY, STUDIO_SECRET] {
        assert!(!text.contains(secret), "seed {seed}: {secret}");
    }
    let names = lines[0].as_object().unwrap();
    assert!(
        lines
            .iter()
            .all(|line| line.as_object().unwrap().len() == names.len())
    );
    // Heads of every kind came through.
    let decided = |decision: &str| lines.iter().any(|line| line["decision"] == decision);
    assert!(
        decided("refused") && decided("admitted"),
        "{} lines",
        lines.len()
    );
}
