//! P4: whoever hangs up, and whenever, each call is decided once and each admitted call recorded
//! once.

use crate::harness::*;
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tollgate::testing::model::{Outcome, Reason};

/// The head of a plain call that announces `length` bytes of body.
fn head(length: usize) -> String {
    format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {STUDIO_KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

async fn hang_up_after(gate: &Gate, bytes: &[u8], pause: Duration) {
    let mut stream = TcpStream::connect(gate.public).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    tokio::time::sleep(pause).await;
    drop(stream);
}

async fn wait_for_records(gate: &Gate, count: usize) {
    for _ in 0..200 {
        if gate.records().len() >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{} records, not {count}", gate.records().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_in_mid_upload_is_recorded_once_and_not_billed() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    hang_up_after(
        &gate,
        format!("{}{{\"Image\":", head(1_000)).as_bytes(),
        Duration::from_millis(50),
    )
    .await;
    wait_for_records(&gate, 1).await;
    let records = gate.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].outcome, Outcome::ClientIncomplete);
    assert_eq!(records[0].reason, Reason::ClientIncomplete);
    assert!(!records[0].billable);
    gate.at_rest().await.assert_conserved();
}

/// Does what the body of the request says, half a second after it has come.
async fn as_told() -> RawUpstream {
    RawUpstream::scripted(|mut connection| async move {
        while let Some(request) = connection.request().await {
            tokio::time::sleep(Duration::from_millis(500)).await;
            connection
                .write(match &*request.body {
                    b"served" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
                    b"vetoed" => {
                        "HTTP/1.1 200 OK\r\nX-Tollgate-Billable: false\r\nContent-Length: 2\r\n\r\n{}"
                    }
                    b"failed" => "HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}",
                    b"closes" => return,
                    _ => std::future::pending().await,
                })
                .await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_pays_for_the_answer_that_comes_and_nothing_when_none_comes() {
    let upstream = as_told().await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.upstream.response_timeout = Duration::from_millis(1_500);
    })
    .await;
    let (closed, failed) = (Outcome::ClientClosed, Outcome::UpstreamFailed);
    let calls = [
        ("served", closed, Some(200), Reason::Billable),
        ("vetoed", closed, Some(200), Reason::Vetoed),
        ("failed", closed, Some(500), Reason::ServerError),
        ("closes", failed, None, Reason::UpstreamFailed),
        ("silent", failed, None, Reason::UpstreamFailed),
    ];
    // A close says only that no more is sent; a reset says that nobody reads.
    for resets in [false, true] {
        for (body, ..) in calls {
            let mut stream = TcpStream::connect(gate.public).await.unwrap();
            let call = format!("{}{body}", head(body.len()));
            stream.write_all(call.as_bytes()).await.unwrap();
            // Not before it was sent on.
            tokio::time::sleep(Duration::from_millis(100)).await;
            if resets {
                let socket = socket2::SockRef::from(&stream);
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
    }
    wait_for_records(&gate, 2 * calls.len()).await;
    let mut records = gate.records();
    for (body, outcome, status, reason) in calls.iter().chain(&calls) {
        let found = records
            .iter()
            .position(|r| (r.outcome, r.status, r.reason) == (*outcome, *status, *reason));
        let found = found.unwrap_or_else(|| panic!("no call was {body}: {records:?}"));
        let record = records.swap_remove(found);
        assert_eq!(record.billable, *reason == Reason::Billable);
    }
    assert_eq!(upstream.requests().len(), 2 * calls.len());
    let samples = gate.at_rest().await;
    samples.assert_conserved();
    assert_eq!(samples.sum("tollgate_answers_cut_total", &[]), 0);
}

/// Sends a call and says at once that no more comes: all that comes back.
async fn sent_and_half_closed(gate: &Gate, body: &str) -> String {
    let mut stream = TcpStream::connect(gate.public).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let sending = async {
        let call = format!("{}{body}", head(body.len()));
        writing.write_all(call.as_bytes()).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let mut answer = String::new();
    let all = tokio::io::AsyncReadExt::read_to_string(&mut reading, &mut answer);
    let ((), read) = tokio::join!(sending, all);
    read.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_no_more_after_its_whole_request_gets_its_answer() {
    let upstream = Upstream::scripted(|seen| async move {
        if seen.body.starts_with(b"slow") {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        http::Response::new(http_body_util::Full::new(seen.body))
    })
    .await;
    let gate = Gate::start(upstream.address).await;
    let bodies = ["quick", "slow", &"slow".repeat(500_000)];
    for body in bodies {
        let answer = sent_and_half_closed(&gate, body).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:.99}");
        let end = format!("\r\n\r\n{body}");
        assert!(answer.ends_with(&end), "{body:.9}: {} bytes", answer.len());
    }
    let records = gate.records();
    assert_eq!(records.len(), bodies.len());
    for record in records {
        assert!(record.outcome == Outcome::Answered && record.billable);
    }
    // What the gate itself says reaches such a client, too.
    let mut throttled = 0;
    for _ in 0..25 {
        let answer = sent_and_half_closed(&gate, "quick").await;
        throttled += usize::from(answer.starts_with("HTTP/1.1 429 "));
    }
    assert!(throttled > 0);
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_while_the_gate_cannot_reach_the_upstream_is_not_billed() {
    // A listener whose backlog is full: connections to it neither succeed nor fail.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let loopback: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    full.bind(&loopback.into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut fill = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100))
    {
        fill.push(stream);
        assert!(fill.len() < 16, "a backlog of 0 is full soon");
    }
    let gate = Gate::start_with(address, |config| {
        config.settings.upstream.connect_timeout = Duration::from_secs(20);
    })
    .await;
    hang_up_after(
        &gate,
        format!("{}{{}}", head(2)).as_bytes(),
        Duration::from_millis(200),
    )
    .await;
    wait_for_records(&gate, 1).await;
    let records = gate.records();
    assert!(
        !records[0].billable,
        "nothing was sent to anybody: {:?}",
        records[0]
    );
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_while_it_waits_for_its_start_makes_no_record_and_spends_its_place()
{
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.max_delay = Duration::from_millis(200);
    })
    .await;
    for _ in 0..20 {
        send(gate.public, segment(STUDIO_KEY)).await;
    }
    let opens = gate.records()[0].start.plus(Duration::from_millis(1_000));
    gate.clock
        .sleep_until(tollgate::testing::model::Mono(opens.0 - 120_000_000))
        .await;
    hang_up_after(
        &gate,
        format!("{}{{}}", head(2)).as_bytes(),
        Duration::from_millis(30),
    )
    .await;
    let samples = gate.at_rest().await;
    samples.assert_conserved();
    assert_eq!(
        samples.sum("tollgate_requests_total", &["reason=\"client_closed\""]),
        1
    );
    assert_eq!(gate.records().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_in_a_signed_upload_takes_no_quota() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let whole = signed(
        STUDIO_ID,
        STUDIO_SECRET,
        "SegmentPortraitPic",
        "{\"Image\":\"0123456789\"}",
    );
    let mut text = String::from("POST / HTTP/1.1\r\n");
    for (name, value) in whole.headers() {
        text += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    text += "content-length: 22\r\n\r\n{\"Image\":";
    for _ in 0..30 {
        hang_up_after(&gate, text.as_bytes(), Duration::from_millis(1)).await;
    }
    let samples = gate.at_rest().await;
    samples.assert_conserved();
    assert_eq!(samples.decided("admitted"), 0);
    assert!(samples.decided("refused") >= 1);
    let body = whole.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), 22, "the announced length is the whole body's");
    let mut admitted = 0;
    for _ in 0..20 {
        let (_, _, body) = send(
            gate.public,
            signed(
                STUDIO_ID,
                STUDIO_SECRET,
                "SegmentPortraitPic",
                "{\"Image\":\"x\"}",
            ),
        )
        .await;
        admitted += usize::from(!String::from_utf8_lossy(&body).contains("Error"));
    }
    assert_eq!(admitted, 20, "the owner's quota is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_in_the_middle_of_its_answer_changes_no_record() {
    let upstream = Upstream::scripted(|_| async {
        http::Response::new(http_body_util::Full::new(bytes::Bytes::from(
            vec![b'x'; 32 * 1024 * 1024],
        )))
    })
    .await;
    let gate = Gate::start(upstream.address).await;
    let mut stream = TcpStream::connect(gate.public).await.unwrap();
    stream
        .write_all(format!("{}{{}}", head(2)).as_bytes())
        .await
        .unwrap();
    let mut first = [0; 1024];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first)
        .await
        .unwrap();
    drop(stream);
    for _ in 0..200 {
        if gate.metrics().await.sum("tollgate_answers_cut_total", &[]) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let samples = gate.at_rest().await;
    assert_eq!(samples.sum("tollgate_answers_cut_total", &[]), 1);
    samples.assert_conserved();
    let records = gate.records();
    assert_eq!(records.len(), 1);
    assert_eq!(
        (records[0].outcome, records[0].status, records[0].billable),
        (Outcome::Answered, Some(200), true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_hangs_up_at_every_stage_leaves_the_books_balanced() {
    let upstream = Upstream::after(Duration::from_millis(20)).await;
    let gate = Gate::start(upstream.address).await;
    let full = format!("{}{}", head(64), "x".repeat(64));
    let mut random = fastrand::Rng::with_seed(4);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let cut = random.usize(1..=full.len());
        let pause = Duration::from_millis(random.u64(0..40));
        let (public, bytes) = (gate.public, full.as_bytes()[..cut].to_vec());
        let after = Duration::from_millis(random.u64(0..1_500));
        tasks.spawn(async move {
            tokio::time::sleep(after).await;
            let mut stream = TcpStream::connect(public).await.unwrap();
            let _ = stream.write_all(&bytes).await;
            tokio::time::sleep(pause).await;
        });
    }
    while tasks.join_next().await.is_some() {}
    let samples = gate.at_rest().await;
    samples.assert_conserved();
    assert_eq!(gate.records().len() as u64, samples.decided("admitted"));
    assert!(samples.decided("admitted") > 10 && samples.decided("throttled") > 0);
}
