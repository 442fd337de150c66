//! One connection with a client in memory, and time that is paused: what is said on it, when, and
//! when it ends.

use super::*;
use crate::http::Fields;
use crate::http::Pipe;
use crate::http::h1::{Broken, Piece, READER_BYTES_PER_SECOND, READER_WINDOW};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::time::Instant;

const IDLE: Duration = Duration::from_secs(75);

type Server = ClientConnection<WriteHalf<DuplexStream>>;

fn open(buffer_bytes: usize) -> (DuplexStream, Server) {
    let (client, server) = tokio::io::duplex(buffer_bytes);
    let (reader, writer): (ReadHalf<_>, _) = split(server);
    (
        client,
        ClientConnection::new(reader, writer, IDLE, Clock::default()),
    )
}

/// A body that comes piece by piece, and may know its length.
struct Pieces(VecDeque<&'static str>, Option<u64>);

impl Body for Pieces {
    type Error = Infallible;

    fn poll_piece(
        &mut self,
        _: Option<&mut Pipe>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Piece, Infallible>>> {
        let piece = self.0.pop_front();
        Poll::Ready(piece.map(|piece| Ok(Bytes::from(piece).into())))
    }

    fn left(&self) -> Option<u64> {
        self.1
    }
}

/// The fields of a head that has these lines.
fn fields(lines: &str) -> Fields {
    let head = format!("GET / HTTP/1.1\r\n{lines}\r\n");
    let head = crate::http::h1::request_head(&mut head.as_bytes().into());
    head.unwrap().unwrap().fields
}

fn passing(pieces: &[&'static str], length: Option<u64>) -> Answer<Pieces> {
    let pieces = Pieces(pieces.iter().copied().collect(), length);
    Answer::passing(
        StatusCode::OK,
        &fields("X-A: 1\r\nX-B: 2\r\n"),
        |name| name != b"x-b",
        pieces,
    )
}

fn own(status: u16, text: &'static str) -> Answer<Pieces> {
    Answer::own(StatusCode::from_u16(status).unwrap(), text.into())
}

fn full(text: &'static str) -> Answer<Pieces> {
    own(200, text)
}

/// The next request of a client that is there.
async fn next(server: &mut Server) -> (RequestTerms, RequestBody) {
    let (head, body) = server.request(|_| false, |_| ()).await.unwrap();
    (RequestTerms::from(&*head), body)
}

async fn all(body: &mut RequestBody) -> Result<Vec<u8>, Broken> {
    let mut all = Vec::new();
    while let Some(data) = std::future::poll_fn(|cx| body.poll_data(cx)).await? {
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// The bytes that have been written up to now, without the date.
async fn said(client: &mut DuplexStream) -> String {
    let mut bytes = BytesMut::new();
    while let Ok(Ok(1..)) =
        tokio::time::timeout(Duration::from_millis(1), client.read_buf(&mut bytes)).await
    {}
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let lines = text.split_inclusive("\r\n");
    lines.filter(|line| !line.starts_with("date: ")).collect()
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_as_its_request_and_its_status_have_it() {
    for (line, answer, expected, next) in [
        (
            "GET / HTTP/1.1",
            full("hello"),
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            Next::Request,
        ),
        (
            "GET / HTTP/1.1",
            full(""),
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            Next::Request,
        ),
        (
            "GET / HTTP/1.1",
            passing(&["hel", "", "lo"], None),
            "HTTP/1.1 200 OK\r\nx-a: 1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            Next::Request,
        ),
        (
            "HEAD / HTTP/1.1",
            full("hello"),
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            Next::Request,
        ),
        (
            "GET / HTTP/1.1",
            passing(&["hel", "lo"], Some(5)),
            "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello",
            Next::Request,
        ),
        (
            "CONNECT a:1 HTTP/1.1",
            full("hello"),
            "HTTP/1.1 200 OK\r\n\r\n",
            Next::Request,
        ),
        (
            "HEAD / HTTP/1.1",
            passing(&["hello"], None),
            "HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\n",
            Next::Request,
        ),
        (
            "GET / HTTP/1.1",
            own(204, "hello"),
            "HTTP/1.1 204 No Content\r\n\r\n",
            Next::Request,
        ),
        (
            "GET / HTTP/1.1",
            own(304, "hello"),
            "HTTP/1.1 304 Not Modified\r\n\r\n",
            Next::Request,
        ),
        (
            "GET / HTTP/1.1\r\nConnection: close",
            full("hello"),
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
            Next::Close,
        ),
        (
            "GET / HTTP/1.0",
            full("hello"),
            "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            Next::Close,
        ),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive",
            full("hello"),
            "HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\nhello",
            Next::Request,
        ),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive",
            passing(&["hel", "lo"], None),
            "HTTP/1.0 200 OK\r\nx-a: 1\r\n\r\nhello",
            Next::Close,
        ),
    ] {
        let (mut client, mut server) = open(4096);
        let request = format!("{line}\r\nHost: a\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let (terms, _) = self::next(&mut server).await;
        let after = server.answer(terms, answer, false).await.unwrap();
        assert_eq!(after, next, "{line}");
        assert_eq!(said(&mut client).await, expected, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_has_one_date_its_own_or_the_upstreams() {
    let (mut client, mut server) = open(4096);
    for theirs in [None, Some("Tue, 24 Nov 2026 08:00:00 GMT")] {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let (terms, _) = next(&mut server).await;
        let answer = match theirs {
            None => full(""),
            Some(date) => {
                let body = Pieces(VecDeque::new(), Some(0));
                let fields = fields(&format!("Date: {date}\r\n"));
                Answer::passing(StatusCode::OK, &fields, |_| true, body)
            }
        };
        server.answer(terms, answer, false).await.unwrap();
        let mut bytes = vec![0; 4096];
        let read = client.read(&mut bytes).await.unwrap();
        let text = String::from_utf8(bytes[..read].to_vec()).unwrap();
        let dates: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("date: "))
            .collect();
        assert_eq!(dates.len(), 1, "{text}");
        assert!(dates[0].len() == 29 && dates[0].ends_with(" GMT"), "{text}");
        assert!(theirs.is_none_or(|theirs| theirs == dates[0]), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_together_are_read_one_after_the_other_and_bodies_byte_for_byte() {
    let (mut client, mut server) = open(64);
    let one = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\n".to_owned();
    let one = one + &"x".repeat(200);
    let two = "POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;e\r\ncde\r\n0\r\nT: 1\r\n\r\n";
    let three = "POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
    let sent = [&one, two, three].concat();
    let sending = tokio::spawn(async move {
        client.write_all(sent.as_bytes()).await.unwrap();
        client
    });
    for (path, body) in [
        ("/1", "x".repeat(200)),
        ("/2", "abcde".into()),
        ("/3", "ok".into()),
    ] {
        let (head, mut read) = server.request(|_| false, |_| ()).await.unwrap();
        assert_eq!(head.target.path(), path);
        assert_eq!(all(&mut read).await.unwrap(), body.as_bytes());
        assert!(read.has_come());
    }
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_is_asked_for_when_it_is_read_and_not_before_and_not_when_it_is_there() {
    let (mut client, mut server) = open(4096);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let (terms, mut body) = next(&mut server).await;
    server
        .during(terms, tokio::time::sleep(Duration::from_secs(1)), || false)
        .await
        .unwrap();
    assert_eq!(said(&mut client).await, "");
    let reading = server.during(terms, all(&mut body), || false);
    let writing = async {
        assert_eq!(said(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"ok").await.unwrap();
    };
    let (read, ()) = tokio::join!(reading, writing);
    assert_eq!(read.unwrap().unwrap(), b"ok");
    server.answer(terms, full(""), false).await.unwrap();
    said(&mut client).await;

    let whole = format!("{head}ok");
    client.write_all(whole.as_bytes()).await.unwrap();
    let (terms, mut body) = next(&mut server).await;
    assert_eq!(
        server
            .during(terms, all(&mut body), || false)
            .await
            .unwrap()
            .unwrap(),
        b"ok"
    );
    server.answer(terms, full(""), false).await.unwrap();
    assert!(said(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_has_begun_is_waited_for_a_moment_when_the_process_ends() {
    for (after, comes) in [(LAST_HEAD / 2, true), (2 * LAST_HEAD, false)] {
        let (mut client, mut server) = open(4096);
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let began = Instant::now();
        let reading = async {
            let read = server.request(|_| true, |_| ()).await;
            (read.is_some(), began.elapsed())
        };
        let writing = async {
            tokio::time::sleep(after).await;
            let _ = client.write_all(b"Host: a\r\n\r\n").await;
        };
        let ((came, waited), ()) = tokio::join!(reading, writing);
        assert_eq!(came, comes);
        assert!(waited <= LAST_HEAD + Duration::from_millis(1), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_word_that_a_body_is_wanted_is_left_over_for_the_next_request() {
    let (mut client, mut server) = open(4096);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n";
    // In chunks, so that it has to be read; and all of it is there.
    let whole = format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    client.write_all(whole.as_bytes()).await.unwrap();
    let (terms, mut body) = next(&mut server).await;
    let read = server.during(terms, all(&mut body), || false).await;
    assert_eq!(read.unwrap().unwrap(), b"ok");
    server.answer(terms, full(""), false).await.unwrap();
    assert!(said(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));

    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let (terms, _) = next(&mut server).await;
    let call = tokio::time::sleep(Duration::from_secs(1));
    server.during(terms, call, || false).await.unwrap();
    assert_eq!(said(&mut client).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_when_its_client_hangs_up_and_not_when_it_sends_ahead() {
    let call = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
    let (mut client, mut server) = open(4096);
    client.write_all(call).await.unwrap();
    let (terms, _body) = next(&mut server).await;
    let hanging_up = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(client);
    };
    let never = std::future::pending::<()>();
    let (answer, ()) = tokio::join!(server.during(terms, never, || false), hanging_up);
    assert_eq!(answer, None);

    let (mut client, mut server) = open(4096);
    client.write_all(call).await.unwrap();
    let (terms, _) = next(&mut server).await;
    let waiting = server.during(terms, tokio::time::sleep(Duration::from_secs(2)), || false);
    let sending_ahead = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.write_all(call).await.unwrap();
    };
    let (waited, ()) = tokio::join!(waiting, sending_ahead);
    assert_eq!(waited, Some(()));
    let after = server.answer(terms, full(""), false).await.unwrap();
    assert_eq!(after, Next::Request);
    next(&mut server).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_goes_on_without_its_client_runs_to_its_end_and_gives_no_answer() {
    let (mut client, mut server) = open(4096);
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let (terms, _) = next(&mut server).await;
    drop(client);
    let (ended, asked) = (std::cell::Cell::new(false), std::cell::Cell::new(0));
    let call = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        ended.set(true);
    };
    let goes_on = || {
        asked.update(|times| times + 1);
        true
    };
    assert_eq!(server.during(terms, call, goes_on).await, None);
    assert!(ended.get());
    assert_eq!(asked.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_no_more_gets_its_answer_in_the_version_that_it_speaks() {
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let (mut client, mut server) = open(4096);
        let request = format!("GET / {version}\r\nHost: a\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let (terms, _) = next(&mut server).await;
        let call = tokio::time::sleep(Duration::from_secs(2));
        let gone = || panic!("it is still there");
        assert_eq!(server.during(terms, call, gone).await, Some(()));
        server.answer(terms, full("whole"), false).await.unwrap();
        assert!(server.request(|_| false, |_| ()).await.is_none());
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with(&format!("{version} 200 OK\r\n")),
            "{answer}"
        );
        assert!(answer.ends_with("\r\n\r\nwhole"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn empty_lines_before_a_head_are_taken_when_they_come_and_not_kept() {
    let (mut client, mut server) = open(4096);
    client.write_all(b"\r\n\r\n\r\n").await.unwrap();
    let began = Instant::now();
    // Nothing has come, so that a connection that closes does not wait.
    assert!(server.request(|_| true, |_| ()).await.is_none());
    assert_eq!(began.elapsed(), Duration::ZERO);

    for lines in ["\r\n", "\r\n\r\n\r\n"] {
        let head = format!("{lines}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        for cut in 0..lines.len() {
            client.write_all(&head.as_bytes()[..cut]).await.unwrap();
            let rest = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                client.write_all(&head.as_bytes()[cut..]).await.unwrap();
            };
            let (_, ()) = tokio::join!(next(&mut server), rest);
        }
    }

    let (mut client, mut server) = open(4096);
    let endless = tokio::spawn(async move {
        while client.write_all(b"\r\n").await.is_ok() {}
        client
    });
    assert!(server.request(|_| false, |_| ()).await.is_none());
    drop(server);
    assert!(
        said(&mut endless.await.unwrap())
            .await
            .starts_with("HTTP/1.1 431 ")
    );
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_is_idle_from_its_last_answer_on() {
    let (mut client, mut server) = open(4096);
    for _ in 0..2 {
        tokio::time::sleep(IDLE / 2).await;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let (terms, _) = next(&mut server).await;
        tokio::time::sleep(IDLE / 2).await;
        server.answer(terms, full(""), false).await.unwrap();
    }
    let began = Instant::now();
    assert!(server.request(|_| false, |_| ()).await.is_none());
    let lasted = began.elapsed();
    assert!(
        lasted >= IDLE && lasted < IDLE + Duration::from_secs(1),
        "{lasted:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_may_be_idle_for_long_has_no_longer_for_a_head_that_has_begun() {
    for (idle, begins_after) in [(900, 800), (900, 1), (20, 10)] {
        let (mut client, server) = tokio::io::duplex(4096);
        let (reader, writer): (ReadHalf<_>, _) = split(server);
        let idle = Duration::from_secs(idle);
        let mut server = ClientConnection::new(reader, writer, idle, Clock::default());
        let first = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        client.write_all(first).await.unwrap();
        let (terms, _) = next(&mut server).await;
        server.answer(terms, full(""), false).await.unwrap();
        let trickle = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(begins_after)).await;
            while client.write_all(b"G").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let began = Instant::now();
        assert!(server.request(|_| false, |_| ()).await.is_none());
        let head = began.elapsed() - Duration::from_secs(begins_after);
        trickle.abort();
        assert!(
            head >= HEAD && head < HEAD + Duration::from_secs(1),
            "{idle:?}: {head:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_closes_takes_no_further_request_but_finishes_a_head_that_has_begun() {
    let (mut client, mut server) = open(4096);
    assert!(server.request(|_| true, |_| ()).await.is_none());
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let rest = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.write_all(b"Host: a\r\n\r\n").await.unwrap();
    };
    let (request, ()) = tokio::join!(server.request(|_| true, |_| ()), rest);
    let terms = RequestTerms::from(&*request.unwrap().0);
    let after = server.answer(terms, full(""), true).await.unwrap();
    assert_eq!(after, Next::Close);
    assert!(said(&mut client).await.contains("connection: close\r\n"));
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_body_that_nobody_wants_is_thrown_away_for_two_seconds_at_most() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe";
    for (pause, after) in [(DISCARD / 2, Next::Request), (DISCARD * 3, Next::Close)] {
        let (mut client, mut server) = open(4096);
        client.write_all(head).await.unwrap();
        let (terms, _) = next(&mut server).await;
        let rest = async {
            tokio::time::sleep(pause).await;
            let _ = client
                .write_all(b"lloGET / HTTP/1.1\r\nHost: a\r\n\r\n")
                .await;
        };
        let began = Instant::now();
        let answering = async {
            let next = server.answer(terms, full("no"), false).await.unwrap();
            (next, began.elapsed())
        };
        let ((next, lasted), ()) = tokio::join!(answering, rest);
        assert_eq!(next, after);
        assert!(
            lasted <= DISCARD * 2 + Duration::from_millis(10),
            "{lasted:?}"
        );
        if next == Next::Request {
            let (head, _) = server.request(|_| false, |_| ()).await.unwrap();
            assert_eq!(head.method, Method::GET);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_request_waits_until_whoever_reads_the_body_has_read_it() {
    let (mut client, mut server) = open(4096);
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
        .await
        .unwrap();
    let (terms, mut body) = next(&mut server).await;
    // As when the upstream has answered and the rest is still sent to it.
    let reading = tokio::spawn(async move { all(&mut body).await });
    let rest = async {
        tokio::time::sleep(DISCARD * 5).await;
        client
            .write_all(b"lloGET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
    };
    let (next, ()) = tokio::join!(server.answer(terms, full("early"), false), rest);
    assert_eq!(next.unwrap(), Next::Request);
    assert_eq!(reading.await.unwrap().unwrap(), b"hello");
    let (head, _) = server.request(|_| false, |_| ()).await.unwrap();
    assert_eq!(head.method, Method::GET);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_has_ended_has_no_part_in_the_next_one_although_it_is_kept() {
    let (mut client, mut server) = open(4096);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let mut bodies = Vec::new();
    for _ in 0..2 {
        client.write_all(head).await.unwrap();
        let (terms, mut body) = next(&mut server).await;
        client.write_all(b"he").await.unwrap();
        let first = std::future::poll_fn(|cx| body.poll_data(cx)).await;
        assert_eq!(first.unwrap().unwrap(), "he");
        client.write_all(b"llo").await.unwrap();
        // The reader of the one before asks once more, and lets it go in the middle of this one.
        if let Some(mut before) = bodies.pop() {
            assert_eq!(all(&mut before).await.unwrap(), b"");
            drop(before);
        }
        assert_eq!(all(&mut body).await.unwrap(), b"llo");
        assert!(body.has_come());
        bodies.push(body);
        server.answer(terms, full(""), false).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_gets_a_bare_answer_and_the_end() {
    for (bytes, line) in [
        ("GET / HTTP/1.1\nHost: a\n\n", "HTTP/1.1 400 Bad Request"),
        ("\u{16}\u{3}\u{1}", "HTTP/1.1 400 Bad Request"),
    ] {
        let (mut client, mut server) = open(4096);
        client.write_all(bytes.as_bytes()).await.unwrap();
        assert!(server.request(|_| false, |_| ()).await.is_none());
        let expected = format!("{line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        assert_eq!(said(&mut client).await, expected);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "nothing follows");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_grows_for_ever_is_refused_at_its_limit() {
    let (mut client, mut server) = open(64 * 1024);
    let sending = tokio::spawn(async move {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ";
        client.write_all(head).await.unwrap();
        for _ in 0..crate::http::h1::HEAD_BYTES / 1024 {
            client.write_all(&[b'x'; 1024]).await.unwrap();
        }
        said(&mut client).await
    });
    assert!(server.request(|_| false, |_| ()).await.is_none());
    let answer = sending.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_takes_nothing_of_what_is_piped_to_it_is_cut_off() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pair = async || {
        let (one, other) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        (one.unwrap(), other.unwrap().0)
    };
    let ((mut upstream, from), (to, _client)) = (pair().await, pair().await);
    let mut patient = StallTimeout::new(to.into_split().1);
    let mut pipe = Pipe::default();
    let began = Instant::now();
    let failed = loop {
        if pipe.is_empty() {
            upstream.write_all(&[b'x'; 65_536]).await.unwrap();
            let filled = std::future::poll_fn(|cx| pipe.poll_fill(&from, 65_536, cx)).await;
            assert!(filled.unwrap() > Some(0));
        }
        if let Err(error) = std::future::poll_fn(|cx| patient.poll_pour(&mut pipe, cx)).await {
            break error;
        }
    };
    assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    assert!(began.elapsed() >= READER_WINDOW);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_measured_by_what_it_takes_and_not_by_when_the_system_asks_for_more() {
    // The buffer of the socket that is written to takes megabytes here. It is said to have room
    // again only when a third of it is empty: at this pace that is many minutes.
    const PACE: usize = 2 * READER_BYTES_PER_SECOND as usize;
    for (pace, lasts) in [(PACE, READER_WINDOW * 5), (PACE / 5, READER_WINDOW)] {
        for is_piped in [false, true] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let (reader, accepted) = tokio::join!(socket.connect(address), listener.accept());
            let mut reader = reader.unwrap();
            let mut patient = StallTimeout::new(accepted.unwrap().0.into_split().1);
            let reading = tokio::spawn(async move {
                let mut bytes = vec![0; pace];
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if reader.read(&mut bytes).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
            });
            let began = Instant::now();
            let writing = async {
                if !is_piped {
                    while patient.write(&[b'x'; 65_536]).await.is_ok() {}
                    return;
                }
                let source = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = source.local_addr().unwrap();
                let connecting = tokio::net::TcpStream::connect(address);
                let (upstream, from) = tokio::join!(connecting, source.accept());
                let (mut upstream, from) = (upstream.unwrap(), from.unwrap().0);
                let mut pipe = Pipe::default();
                loop {
                    if pipe.is_empty() {
                        upstream.write_all(&[b'x'; 65_536]).await.unwrap();
                        let fill = std::future::poll_fn(|cx| pipe.poll_fill(&from, 65_536, cx));
                        assert!(fill.await.unwrap() > Some(0));
                    }
                    let pour = std::future::poll_fn(|cx| patient.poll_pour(&mut pipe, cx));
                    if pour.await.is_err() {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(READER_WINDOW * 5, writing).await;
            let lasted = began.elapsed();
            // The bytes that the buffer takes beyond its size count once.
            assert!(
                lasted >= lasts && lasted < lasts + READER_WINDOW,
                "{pace} bytes a second, piped: {is_piped}: {lasted:?}"
            );
            reading.abort();
        }
    }
}

/// A request whose head announces `length` bytes of body, as it comes over a socket; the client's
/// end too.
async fn over_a_socket(length: &str) -> (tokio::net::TcpStream, RequestBody) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
    let mut client = client.unwrap();
    let (reader, writer) = server.unwrap().0.into_split();
    let mut connection = ClientConnection::new(reader, writer, IDLE, Clock::default());
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let (_, body) = connection.request(|_| false, |_| ()).await.unwrap();
    (client, body)
}

#[tokio::test]
async fn a_body_that_nobody_takes_is_cut_off_when_its_client_has_gone_and_not_before() {
    let soon = async |body: &RequestBody| {
        for _ in 0..20 {
            if body.is_cut_off() {
                return true;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        false
    };
    for length in ["Content-Length: 4", "Transfer-Encoding: chunked"] {
        let (mut client, body) = over_a_socket(length).await;
        client.write_all(b"1\r\n").await.unwrap();
        assert!(!soon(&body).await, "{length}: it may still come");
        socket2::SockRef::from(&client)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(client);
        assert!(soon(&body).await, "{length}: reset");
    }
    for (sent, is_cut_off) in [("1234", false), ("123", true)] {
        let (mut client, body) = over_a_socket("Content-Length: 4").await;
        client.write_all(sent.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(soon(&body).await, is_cut_off, "{sent} of 4 bytes have come");
    }
}
