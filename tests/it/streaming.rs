//! Bodies pass through; they do not stay.

use crate::harness::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BYTES: usize = 256 * 1024 * 1024;

/// Reads a request of `BYTES`, then answers with as many.
async fn bulk_upstream() -> (std::net::SocketAddr, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        // A gate dials once at its start, to see whether the upstream is there, and sends nothing.
        let mut stream = loop {
            let (stream, _) = listener.accept().await.unwrap();
            if stream.peek(&mut [0]).await.unwrap() > 0 {
                break stream;
            }
        };
        let mut buffer = vec![0; 256 * 1024];
        let (mut head, mut body) = (Vec::new(), 0);
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the request broke off after {body} bytes");
            if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
                let _ = end;
                body += read;
            } else {
                head.extend_from_slice(&buffer[..read]);
                if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
                    body = head.len() - end - 4;
                }
            }
            if body >= BYTES {
                break;
            }
        }
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let chunk = vec![b'y'; 64 * 1024];
        for _ in 0..BYTES / chunk.len() {
            stream.write_all(&chunk).await.unwrap();
        }
        body
    });
    (address, served)
}

/// The most memory that a process ever had, in MiB.
fn peak_memory_mib(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_call_streams_both_ways_and_never_stands_in_memory_whole() {
    let (upstream, served) = bulk_upstream().await;
    let dir = tempfile::tempdir().unwrap();
    let edits = [
        ("body_bytes: 10MiB", "body_bytes: 300MiB"),
        ("body_memory: 512MiB", "body_memory: 4GiB"),
    ];
    let (settings, public, admin) = write_config(dir.path(), upstream, &edits);
    let process = Process::start(&settings, public, admin).await;
    let before = peak_memory_mib(&process);

    let mut stream = TcpStream::connect(public).await.unwrap();
    let head = format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {STUDIO_KEY}\r\n\
         Content-Length: {BYTES}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![b'x'; 64 * 1024];
    for _ in 0..BYTES / chunk.len() {
        stream.write_all(&chunk).await.unwrap();
    }
    let mut received = 0;
    let mut buffer = vec![0; 256 * 1024];
    while received < BYTES {
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert!(read > 0, "the answer broke off after {received} bytes");
        received += read;
    }
    assert_eq!(served.await.unwrap(), BYTES);
    let grown = peak_memory_mib(&process) - before;
    assert!(
        grown < 32,
        "a body of {} MiB made the gate grow by {grown} MiB",
        BYTES >> 20
    );
}

/// The number of ends of pipes that a process has open. Only root may see them: the memory and the
/// files of a gate are its own.
fn open_pipes(process: &Process) -> usize {
    let Ok(open) = std::fs::read_dir(format!("/proc/{}/fd", process.child.id())) else {
        assert!(!rustix::process::geteuid().is_root());
        eprintln!("NOT TESTED: to see the pipes of a gate needs root");
        return 0;
    };
    open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_size_come_through_unchanged_and_no_pipe_stays_open() {
    let upstream = Upstream::scripted(|seen| async move {
        http::Response::new(http_body_util::Full::new(seen.body))
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let (settings, public, admin) = write_config(dir.path(), upstream.address, &[]);
    let process = Process::start(&settings, public, admin).await;
    let before = open_pipes(&process);

    let mut client = Client::connect(public).await.unwrap();
    for bytes in [
        0, 1, 7_000, 8_192, 9_000, 32_767, 32_768, 41_000, 262_144, 262_145, 1_000_003, 5_000_000,
        10,
    ] {
        let body: Vec<u8> = (0..bytes).map(|at| (at * 31 + at / 253) as u8).collect();
        let mut request = segment(RETAIL_KEY);
        *request.body_mut() = http_body_util::Full::new(body.clone().into());
        let (status, _, echoed) = client.send(request).await.unwrap();
        assert_eq!(status, http::StatusCode::OK, "{bytes} bytes");
        assert!(
            echoed == body,
            "{bytes} bytes came back as {}",
            echoed.len()
        );
    }

    // A client that goes in the middle of one, and one that takes only a part of its answer.
    let head = |length: usize| {
        format!(
            "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {RETAIL_KEY}\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    for sent in [2_000_000, 8_000_000] {
        let mut stream = TcpStream::connect(public).await.unwrap();
        stream.write_all(head(8_000_000).as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; sent]).await.unwrap();
        if sent == 8_000_000 {
            stream.read_exact(&mut [0; 100_000]).await.unwrap();
        }
    }
    at_rest(admin).await.assert_conserved();
    eventually("what they needed is closed", || {
        open_pipes(&process) == before
    })
    .await;
}

/// More than what the sockets between the two ends hold.
const BULKY: usize = 48 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_send_all_before_it_reads_an_answer_that_came_early() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut first = [0; 64];
        stream.read_exact(&mut first).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let answering = async {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BULKY}\r\n\r\n");
            writer.write_all(head.as_bytes()).await.unwrap();
            writer.write_all(&vec![b'y'; BULKY]).await.unwrap();
        };
        let reading = async {
            let (mut buffer, mut read) = (vec![0; 256 * 1024], 0);
            while read < BULKY {
                let more = reader.read(&mut buffer).await.unwrap();
                assert!(more > 0, "the request broke off after {read} bytes");
                read += more;
            }
        };
        tokio::join!(answering, reading);
    });
    let gate = Gate::start_with(upstream, |config| {
        config.settings.limits.body_bytes = 1 << 30;
    })
    .await;
    let mut stream = TcpStream::connect(gate.public).await.unwrap();
    let head = format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {STUDIO_KEY}\r\n\
         Connection: close\r\nContent-Length: {BULKY}\r\n\r\n"
    );
    let bound = Duration::from_secs(40);
    let sending = async {
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; BULKY]).await.unwrap();
    };
    tokio::time::timeout(bound, sending).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    tokio::time::timeout(bound, reading).await.unwrap().unwrap();
    assert!(answer.len() > BULKY, "{} bytes came back", answer.len());
    served.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_never_looks_whole_not_even_to_a_client_of_http_1_0() {
    let upstream = RawUpstream::scripted(|mut connection| async move {
        while let Some(request) = connection.request().await {
            let begin = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
            connection.write(begin).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            match request.headers.contains_key("x-cut") {
                true => return,
                false => connection.write("0\r\n\r\n").await,
            }
        }
    })
    .await;
    let gate = Gate::start(upstream.address).await;
    for (version, field, is_whole) in [
        ("1.0", "", true),
        ("1.0", "X-Cut: 1\r\n", false),
        ("1.1", "X-Cut: 1\r\n", false),
    ] {
        let mut stream = TcpStream::connect(gate.public).await.unwrap();
        let call = format!(
            "POST /v1/portrait/segment HTTP/{version}\r\nHost: gate.test\r\nX-Api-Key: {STUDIO_KEY}\r\n{field}\
             Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        stream.write_all(call.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8(answer).unwrap();
        assert!(text.contains("hello"), "{text}");
        match version {
            "1.0" => assert_eq!(end.is_ok(), is_whole, "{field}: {end:?}"),
            _ => assert_eq!(text.ends_with("0\r\n\r\n"), is_whole),
        }
    }
    let samples = gate.at_rest().await;
    assert_eq!(samples.sum("tollgate_answers_cut_total", &[]), 2);
}

/// An upstream that answers each request at its head, reads nothing more of it, and keeps the
/// connection.
async fn answers_and_reads_no_more() -> RawUpstream {
    RawUpstream::scripted(|mut connection| async move {
        connection.head().await;
        connection
            .write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nearly")
            .await;
        std::future::pending::<()>().await;
    })
    .await
}

/// Sends as much of a long body as is taken, while it reads the answer; the connection, still open.
async fn answered_early(gate: &Gate) -> TcpStream {
    let mut stream = TcpStream::connect(gate.public).await.unwrap();
    let head = format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {STUDIO_KEY}\r\n\
         Content-Length: {BULKY}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let body = vec![b'x'; BULKY];
    let mut seen = Vec::new();
    let reading = async {
        while !seen.ends_with(b"early") {
            assert!(reader.read_buf(&mut seen).await.unwrap() > 0);
        }
        // Until all that lies between the two ends is full.
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    tokio::select! {
        _ = writer.write_all(&body) => panic!("nobody reads it"),
        () = reading => {}
    }
    assert!(seen.starts_with(b"HTTP/1.1 413 "));
    stream
}

/// How long it takes until no connection holds a place.
async fn until_all_are_closed(gate: &Gate, bound: Duration) -> Duration {
    let began = gate.clock.mono();
    while gate.metrics().await.sum("tollgate_connections", &[]) > 0 {
        let waited = gate.clock.mono().since(began);
        assert!(
            waited < bound,
            "a connection holds its place for {waited:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gate.clock.mono().since(began)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_answered_and_is_not_read_ends_with_its_request_timeout() {
    let upstream = answers_and_reads_no_more().await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.body_bytes = 1 << 30;
        config.settings.limits.request_timeout = Duration::from_secs(2);
    })
    .await;
    let _still_there = answered_early(&gate).await;
    // What its client sends beyond that is read for a while, lest the answer be lost.
    until_all_are_closed(&gate, Duration::from_secs(10)).await;
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_answered_and_is_not_read_ends_at_once_when_its_client_has_gone() {
    let upstream = answers_and_reads_no_more().await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.limits.body_bytes = 1 << 30;
    })
    .await;
    let client = answered_early(&gate).await;
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    until_all_are_closed(&gate, Duration::from_secs(3)).await;
    gate.at_rest().await.assert_conserved();
}

/// Sends a call of `total` bytes at `bytes_per_second`; gives what came back.
async fn trickle(gate: &Gate, total: usize, bytes_per_second: usize) -> String {
    let mut stream = TcpStream::connect(gate.public).await.unwrap();
    let head = format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {STUDIO_KEY}\r\n\
         Content-Length: {total}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let writing = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let step = vec![b'x'; bytes_per_second / 10];
        for _ in 0..total / step.len() {
            tick.tick().await;
            if writer.write_all(&step).await.is_err() {
                return;
            }
        }
        let _ = writer.write_all(&vec![b'x'; total % step.len()]).await;
        std::future::pending::<()>().await;
    });
    let mut seen = vec![0; 64 * 1024];
    let read = tokio::time::timeout(Duration::from_secs(40), reader.read(&mut seen))
        .await
        .unwrap()
        .unwrap_or(0);
    writing.abort();
    String::from_utf8_lossy(&seen[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_at_the_minimum_rate_passes_and_a_slower_one_is_given_up_unbilled() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let rate = usize::try_from(tollgate::testing::proxy::UPLOAD_BYTES_PER_SECOND).unwrap();
    let seconds = usize::try_from(tollgate::testing::proxy::UPLOAD_GRACE.as_secs()).unwrap() + 2;
    let (at_rate, slower) = tokio::join!(
        trickle(&gate, rate * seconds, rate),
        trickle(&gate, rate * seconds, rate / 100)
    );
    assert!(at_rate.starts_with("HTTP/1.1 200 "), "{at_rate}");
    assert!(slower.starts_with("HTTP/1.1 408 "), "{slower}");
    let samples = gate.at_rest().await;
    samples.assert_conserved();
    let records = gate.records();
    assert_eq!(records.len(), 2);
    assert_eq!(records.iter().filter(|record| record.billable).count(), 1);
}
