//! Requests that a client may send and malformed ones, where a body ends, and that what is written
//! is read back.

use super::*;
use crate::http::h1::{BadHead, Coding, HEAD_BYTES, Outbox, RequestHead, request_head};
use crate::http::*;
use http::{Method, StatusCode};
use proptest::prelude::*;

fn head_of(text: &str) -> Result<Option<Box<RequestHead>>, BadHead> {
    request_head(&mut BytesMut::from(text))
}

#[test]
fn where_a_request_ends_follows_from_its_fields_or_it_is_malformed() {
    let closes = |framing| Ok((framing, false));
    let keeps = |framing| Ok((framing, true));
    let malformed = Err(StatusCode::BAD_REQUEST);
    for (fields, expected) in [
        ("", keeps(Framing::Length(0))),
        ("Content-Length: 5\r\n", keeps(Framing::Length(5))),
        ("content-length:5\r\n", keeps(Framing::Length(5))),
        ("CONTENT-LENGTH:  005 \r\n", keeps(Framing::Length(5))),
        ("Transfer-Encoding: chunked\r\n", keeps(Framing::CHUNKED)),
        ("TRANSFER-ENCODING:\tChunked \r\n", keeps(Framing::CHUNKED)),
        ("Connection: close\r\n", closes(Framing::Length(0))),
        (
            "Connection: x, CLOSE\r\nConnection: keep-alive\r\n",
            closes(Framing::Length(0)),
        ),
        ("Connection: keep-alive\r\n", keeps(Framing::Length(0))),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            closes(Framing::CHUNKED),
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            closes(Framing::CHUNKED),
        ),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", malformed),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", malformed),
        ("Content-Length: 5, 5\r\n", malformed),
        ("Content-Length: +5\r\n", malformed),
        ("Content-Length: -5\r\n", malformed),
        ("Content-Length: 0x5\r\n", malformed),
        ("Content-Length: 5 5\r\n", malformed),
        ("Content-Length:\r\n", malformed),
        ("Content-Length: 18446744073709551616\r\n", malformed),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
            malformed,
        ),
        ("Content-Length : 5\r\n", malformed),
        ("Transfer-Encoding : chunked\r\n", malformed),
        ("Transfer-Encoding: identity\r\n", malformed),
        ("Transfer-Encoding: gzip, chunked\r\n", malformed),
        ("Transfer-Encoding: chunked, gzip\r\n", malformed),
        ("Transfer-Encoding: chunked, chunked\r\n", malformed),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            malformed,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
            malformed,
        ),
        ("Transfer-Encoding: \x0bchunked\r\n", malformed),
        ("Transfer-Encoding:\r\n", malformed),
        ("Transfer-Encoding:\r\n chunked\r\n", malformed),
        ("X-Folded: a\r\n b\r\n", malformed),
        (" X-First: a\r\n", malformed),
        ("X-A: a\rContent-Length: 5\r\n", malformed),
        ("X-A: a\nContent-Length: 5\r\n", malformed),
        ("X-A: a\n\r\n", malformed),
        ("X-Nul: a\0b\r\n", malformed),
        ("X\0Nul: a\r\n", malformed),
        ("X Y: a\r\n", malformed),
        ("Not a field\r\n", malformed),
        (": a\r\n", malformed),
    ] {
        let head = head_of(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let read = head.map(|head| {
            let head = head.expect("a whole head");
            (head.framing, head.keeps_alive)
        });
        assert_eq!(read.map_err(BadHead::status), expected, "{fields:?}");
    }
}

#[test]
fn a_request_of_http_1_0_closes_unless_it_says_otherwise_and_has_no_chunks() {
    for (fields, keeps_alive) in [
        ("", false),
        ("Connection: Keep-Alive\r\n", true),
        ("Connection: keep-alive, close\r\n", false),
    ] {
        let head = head_of(&format!("GET / HTTP/1.0\r\n{fields}\r\n"));
        let head = head.unwrap().unwrap();
        assert_eq!(head.keeps_alive, keeps_alive, "{fields:?}");
        assert!(!head.is_1_1);
    }
    let chunked = head_of("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(chunked.unwrap_err(), BadHead::Framing);
}

#[test]
fn only_a_client_of_http_1_1_waits_for_100_continue() {
    for (version, expect, waits) in [
        ("1.1", "100-continue", true),
        ("1.1", "100-Continue", true),
        ("1.1", "x", false),
        ("1.0", "100-continue", false),
    ] {
        let text =
            format!("POST / HTTP/{version}\r\nExpect: {expect}\r\nContent-Length: 1\r\n\r\n");
        let head = head_of(&text).unwrap().unwrap();
        assert_eq!(head.expects_continue, waits, "{text:?}");
    }
}

#[test]
fn a_line_that_is_no_request_is_malformed() {
    for line in [
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / http/1.1",
        "GET /\0 HTTP/1.1",
        "GET /a b HTTP/1.1",
        "G(T / HTTP/1.1",
        "GET HTTP/1.1",
        " GET / HTTP/1.1",
        "GET example HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET ftp://else.test/ HTTP/1.1",
        "GET else.test:80 HTTP/1.1",
        "PRI * HTTP/2.0",
        "\u{16}\u{3}\u{1}",
    ] {
        let bad = head_of(&format!("{line}\r\n\r\n")).unwrap_err();
        assert_eq!(bad.status(), StatusCode::BAD_REQUEST, "{line:?}");
    }
    for wrong in [
        "\nGET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\r\n\n",
    ] {
        let bad = head_of(wrong).unwrap_err();
        assert_eq!(bad.status(), StatusCode::BAD_REQUEST, "{wrong:?}");
    }
}

#[test]
fn how_a_client_that_speaks_no_http_begins_tells_what_it_speaks() {
    for (begin, expected) in [
        (&b"\x16\x03\x01\x02\0\x01"[..], BadHead::Tls),
        (b"\x16\x03", BadHead::Tls),
        (
            b"PROXY TCP4 203.0.113.1 127.0.0.1 4711 80\r\n",
            BadHead::ProxyProtocol,
        ),
        (b"PROXY UNKNOWN\r\n", BadHead::ProxyProtocol),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
            BadHead::ProxyProtocol,
        ),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadHead::Http2),
        (b"\x16 GET / HTTP/1.1\r\n\r\n", BadHead::Malformed),
        (b"GET / HTTP/2.0\r\n\r\n", BadHead::Malformed),
    ] {
        let bad = request_head(&mut begin.into()).unwrap_err();
        assert_eq!(bad, expected, "{begin:?}");
    }
}

#[test]
fn every_reason_for_which_a_head_is_refused_has_a_label_of_its_own() {
    let labels: std::collections::HashSet<&str> = BadHead::ALL.map(BadHead::label).into();
    assert_eq!(labels.len(), BadHead::ALL.len());
    for (nth, bad) in BadHead::ALL.into_iter().enumerate() {
        assert_eq!(bad as usize, nth, "metrics find it by its place");
    }
}

#[test]
fn a_head_is_malformed_as_soon_as_one_of_its_lines_ends_without_cr() {
    let lines = ["", "POST /a HTTP/1.1", "Host: a", "Empty:", "X-A:  b\t", ""];
    for bare in 0_u32..1 << lines.len() {
        let end = |nth: usize| if bare >> nth & 1 == 1 { "\n" } else { "\r\n" };
        let text: String = (lines.iter().enumerate())
            .map(|(nth, line)| format!("{line}{}", end(nth)))
            .collect();
        assert_eq!(head_of(&text).is_ok(), bare == 0, "{text:?}");
    }
}

#[test]
fn a_target_is_read_in_each_of_its_forms() {
    for (line, path, query) in [
        ("GET /a?b=c?d#e HTTP/1.1", "/a", Some("b=c?d")),
        ("GET http://else.test/a%00?b HTTP/1.1", "/a%00", Some("b")),
        ("GET http://else.test HTTP/1.1", "/", None),
        ("OPTIONS * HTTP/1.1", "*", None),
        ("CONNECT else.test:443 HTTP/1.1", "", None),
        ("BREW / HTTP/1.1", "/", None),
    ] {
        let head = head_of(&format!("{line}\r\n\r\n")).unwrap().unwrap();
        assert_eq!(
            (head.target.path(), head.target.query()),
            (path, query),
            "{line}"
        );
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    assert_eq!(head_of(&long).err(), Some(BadHead::TargetTooLong));
}

#[test]
fn a_target_that_names_another_host_than_the_host_field_is_malformed() {
    for (target, hosts, is_sound) in [
        ("http://else.test/a", &["else.test"][..], true),
        ("http://ELSE.test/a", &["else.TEST:80"], true),
        ("http://else.test:80?a=1", &["else.test"], true),
        ("http://else.test:/a", &["else.test"], true),
        ("https://else.test:443/a", &["else.test"], true),
        ("http://[::1]:8080/a", &["[::1]:8080"], true),
        ("http://else.test/a", &[], true),
        ("http://else.test/a", &["other.test"], false),
        ("http://else.test/a", &[""], false),
        ("http://else.test:81/a", &["else.test"], false),
        ("http://else.test:443/a", &["else.test"], false),
        ("http://else.test/a", &["else.test:443"], false),
        ("http://me@else.test/a", &["me@else.test"], false),
        ("http://else.test/a", &["else.test", "other.test"], false),
        ("/a", &["anything"], true),
    ] {
        let hosts: String = hosts
            .iter()
            .map(|host| format!("Host: {host}\r\n"))
            .collect();
        let head = head_of(&format!("GET {target} HTTP/1.1\r\n{hosts}\r\n"));
        assert_eq!(head.is_ok(), is_sound, "{target} beside {hosts:?}");
    }
}

/// The pieces in which a chunked body is taken from what has come of it, and what is wrong with it.
fn pieces_of(mut input: BytesMut) -> (Vec<Bytes>, Option<Malformed>) {
    let (mut framing, mut pieces) = (Framing::CHUNKED, Vec::new());
    loop {
        match framing.take(&mut input) {
            Ok(Some(piece)) => pieces.push(piece),
            Ok(None) => return (pieces, None),
            Err(malformed) => return (pieces, Some(malformed)),
        }
    }
}

#[test]
fn small_chunks_come_in_one_piece_large_ones_by_themselves_and_a_mistake_after_both() {
    let small = "1\r\nx\r\n".repeat(1_000);
    let large = format!("{:x}\r\n{}\r\n", 9_000, "y".repeat(9_000));
    let lengths = |text: String| {
        let (pieces, malformed) = pieces_of(BytesMut::from(&*text));
        let lengths: Vec<usize> = pieces.iter().map(Bytes::len).collect();
        (lengths, malformed.is_some())
    };
    assert_eq!(lengths(format!("{small}0\r\n\r\n")), (vec![1_000], false));
    assert_eq!(lengths(format!("{small}5\r\nab")), (vec![1_002], false));
    assert_eq!(lengths(format!("{small}zz\r\n")), (vec![1_000], true));
    assert_eq!(lengths(format!("{small}1\r\nxy\r\n")), (vec![1_001], true));
    assert_eq!(
        lengths(format!("{small}{large}{small}{large}0\r\nA: b\r\n\r\n")),
        (vec![1_000, 9_000, 1_000, 9_000], false)
    );
    let (pieces, _) = pieces_of(BytesMut::from(
        "1\r\na\r\n2;e\r\nbc\r\n03\r\ndef\r\n0\r\n\r\n",
    ));
    assert_eq!(pieces, [&b"abcdef"[..]]);
}

#[test]
fn a_head_that_is_not_whole_is_waited_for_up_to_its_limit() {
    let whole = "\r\nPOST /a HTTP/1.1\r\nHost: a\r\nX-A: b\r\nContent-Length: 1\r\n\r\n";
    for end in 0..whole.len() {
        assert!(head_of(&whole[..end]).unwrap().is_none(), "{end}");
    }
    let mut input = BytesMut::from(whole);
    input.extend_from_slice(b"rest");
    let head = request_head(&mut input).unwrap().unwrap();
    assert_eq!((head.bytes, &input[..]), (whole.len() - 2, &b"rest"[..]));
    let endless = format!("GET / HTTP/1.1\r\nX-A: {}", "b".repeat(HEAD_BYTES));
    assert_eq!(head_of(&endless).err(), Some(BadHead::TooLarge));
    for (count, fits) in [(100, true), (101, false)] {
        let many: String = (0..count).map(|n| format!("X-{n}: a\r\n")).collect();
        let head = head_of(&format!("GET / HTTP/1.1\r\n{many}\r\n"));
        match fits {
            true => assert_eq!(head.unwrap().unwrap().fields.iter().count(), 100),
            false => assert_eq!(head.err(), Some(BadHead::TooLarge)),
        }
    }
}

#[test]
fn fields_are_found_by_their_lowercase_names_and_have_no_blanks_around_their_values() {
    let head =
        head_of("GET / HTTP/1.1\r\nX-A:  b c\t\r\nEmpty:\r\nBlank:  \r\nx-a: d\r\nX-AB: e\r\n\r\n");
    let mut fields = head.unwrap().unwrap().fields;
    assert_eq!(fields.get("x-a"), Some(&b"b c"[..]));
    assert_eq!(
        fields.get_all("x-a").collect::<Vec<_>>(),
        [&b"b c"[..], b"d"]
    );
    assert_eq!(
        (fields.get("empty"), fields.get("blank")),
        (Some(&b""[..]), Some(&b""[..]))
    );
    assert!(!fields.contains("x") && !fields.contains("x-abc"));
    assert!(fields.has_repeated());
    fields.retain(|name| name != b"x-a");
    assert!(!fields.has_repeated());
    let names: Vec<_> = fields.iter().map(Field::name).collect();
    assert_eq!(names, [&b"empty"[..], b"blank", b"x-ab"]);
}

#[test]
fn no_text_ends_a_line_that_it_stands_in() {
    let mut lines = HeadWriter::default();
    for text in ["a\r\nb", "a\nb", "a\rb", "\0", "\u{7f}", "\u{e4}", "\t"] {
        lines.text("x", text);
        lines.text("x", ["fine", text].concat());
    }
    lines.text("y", "a b");
    lines.number("z", 7);
    assert_eq!(lines.end(), b"y: a b\r\nz: 7\r\n\r\n");
}

/// A request as somebody has read it.
type Read = (Method, String, Vec<(String, Vec<u8>)>, Vec<u8>);

/// The requests that tollgate reads from a connection's bytes: those that came whole.
fn read_by_us(bytes: &[u8]) -> Vec<Read> {
    let (mut input, mut requests) = (BytesMut::from(bytes), Vec::new());
    while let Ok(Some(head)) = request_head(&mut input) {
        let (mut framing, mut body) = (head.framing, Vec::new());
        while let Ok(Some(data)) = framing.take(&mut input) {
            body.extend_from_slice(&data);
        }
        if !framing.has_ended() {
            break;
        }
        let fields = head
            .fields
            .iter()
            .map(|field| (field.name(), field.value()));
        let target = &head.target;
        let named = target.scheme().zip(target.authority());
        let origin = named.map(|(scheme, authority)| format!("{scheme}://{authority}"));
        let query = target.query().map(|query| format!("?{query}"));
        let (origin, query) = (origin.unwrap_or_default(), query.unwrap_or_default());
        let uri = format!("{origin}{}{query}", target.path());
        requests.push(read(&head.method, uri, fields, body));
        if !head.keeps_alive {
            break;
        }
    }
    requests
}

fn read<'h>(
    method: &Method,
    uri: String,
    fields: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    body: Vec<u8>,
) -> Read {
    let mut fields: Vec<(String, Vec<u8>)> = fields
        .map(|(name, value)| (String::from_utf8(name.to_vec()).unwrap(), value.to_vec()))
        // Beside a coding it says nothing; hyper takes it away, and so does tollgate when it
        // forwards.
        .filter(|(name, _)| name != "content-length")
        .collect();
    fields.sort();
    (method.clone(), uri, fields, body)
}

/// The requests that hyper reads from them.
fn read_by_hyper(bytes: &[u8]) -> Vec<Read> {
    use http_body_util::{BodyExt, Empty};
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let requests: Arc<Mutex<Vec<Read>>> = Arc::default();
    let noted = requests.clone();
    let service =
        hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let noted = noted.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes().to_vec();
                let fields = parts.headers.iter();
                let fields = fields.map(|(name, value)| (name.as_ref(), value.as_bytes()));
                let read = read(&parts.method, parts.uri.to_string(), fields, body);
                noted.lock().unwrap().push(read);
                Ok::<_, hyper::Error>(http::Response::new(Empty::<Bytes>::new()))
            }
        });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let served = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(hyper_util::rt::TokioIo::new(server), service);
        let mut answers = Vec::new();
        let _ = tokio::join!(served, client.read_to_end(&mut answers));
    });
    let requests = requests.lock().unwrap();
    requests.clone()
}

/// Requests of all kinds, and what is nearly one.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "POST /a HTTP/1.1\r\n",
        "POST /a HTTP/1.1\r\n",
        "GET /a?b=c#d HTTP/1.1\r\n",
        "GET http://a/a HTTP/1.1\r\n",
        "POST /a HTTP/1.0\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "\r\nBREW / HTTP/1.1\r\n",
    ]);
    let field = prop::sample::select(vec![
        "Content-Length: 5\r\n",
        "Content-Length: 5\r\n",
        "content-length: 05\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding:CHUNKED \r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "Host: a\r\n",
        "X-A: b\n",
        "X-A: b\r\n c\r\n",
        "X-B: \u{e4}\tx\r\n",
        "X-C:\r\n",
    ]);
    let body = prop::sample::select(vec![
        "",
        "hello",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "00005 \r\nhello\r\n000\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\t;a=\"\r\nhello\r\n0;x\r\nX-T:\r\nY: \t z\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-T : 1\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-T: 1\r\n 2\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-T\r\n\r\n",
        "05\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n",
        "5\x0c\r\nhello\r\n0\r\n\r\n",
    ]);
    let odd = (line, prop::collection::vec(field, 0..4), body)
        .prop_map(|(line, fields, body)| [line, &fields.concat(), "\r\n", body].concat());
    // Mostly sound ones, or hardly any would be let in, and what is not let in is not compared.
    let chunk = prop::sample::select(vec![
        "5\r\nhello\r\n",
        "1;a=b\r\nx\r\n",
        "a\t \r\n0123456789\r\n",
        "0A ; c=\"d\"\r\n0\r\n\r\n0\r\n\r\n\r\n",
    ]);
    let last = prop::sample::select(vec!["0\r\n", "000;a\r\n", "0 \r\n"]);
    let trailer = prop::sample::select(vec!["X-T: 1\r\n", "Y:\r\n", "Host: b\r\n"]);
    let chunked = (
        prop::collection::vec(chunk, 0..3),
        last,
        prop::collection::vec(trailer, 0..3),
    )
        .prop_map(|(chunks, last, trailers)| {
            let head = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            [head, &chunks.concat(), last, &trailers.concat(), "\r\n"].concat()
        });
    let sized = prop::sample::select(vec![
        "POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "GET /n?q HTTP/1.1\r\nHost: a\r\nX-A:  b c \r\n\r\n",
        "PUT http://a/l HTTP/1.1\r\nhost:a\r\ncontent-length:2\r\n\r\n\r\n",
    ]);
    let request = prop_oneof![
        3 => chunked,
        2 => sized.prop_map(str::to_owned),
        1 => odd,
    ];
    let change = (
        any::<prop::sample::Index>(),
        prop::sample::select(b"\0\r\n\t\x0b\x0c\x7f :;,\"(/0-x\xff".to_vec()),
    );
    (
        prop::collection::vec(request, 1..4),
        prop::collection::vec(change, 0..3),
    )
        .prop_map(|(requests, changes)| {
            let mut bytes = requests.concat().into_bytes();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
}

/// A query with a quote we let pass, as other servers do; hyper does not.
fn take_quotes_out_of_queries(bytes: &mut [u8]) {
    let mut is_in_query = false;
    for byte in bytes {
        match byte {
            b'?' => is_in_query = true,
            b' ' | b'\r' | b'\n' => is_in_query = false,
            b'"' if is_in_query => *byte = b'q',
            _ => {}
        }
    }
}

/// Takes the whole body out of `parts` as they arrive; what is left over, and whether it ended.
fn taken(mut framing: Framing, parts: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), Malformed> {
    let (mut input, mut body) = (BytesMut::new(), Vec::new());
    for part in parts {
        input.extend_from_slice(part);
        while let Some(data) = framing.take(&mut input)? {
            assert!(!data.is_empty(), "a frame of nothing");
            body.extend_from_slice(&data);
        }
    }
    Ok((body, input.to_vec(), framing.has_ended()))
}

#[test]
fn a_chunk_that_is_not_what_it_says_is_nonsense() {
    for wrong in [
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "5;\x0b\r\nhello\r\n0\r\n\r\n",
        "5 ;a\x7f\r\nhello\r\n0\r\n\r\n",
        // As soon as it can be seen.
        "5\r\nhello!",
        "5\r\nhello\r!",
        "5\r!",
        "0\r\n\r!",
        "0\r\nA: b\rc\r\n\r\n",
        "0\r\n\tA: b\r\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\nA: b\r\n c\r\n\r\n",
        "0\r\nA: b\0c\r\n\r\n",
        "0\r\n: b\r\n\r\n",
        "0\r\nno field\r\n\r\n",
        "0\r\nGET / HTTP/1.1\r\n\r\n",
        "5\x0c\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "x\r\nhello\r\n",
        "\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "5 5\r\nhello\r\n",
        "5,\r\nhello\r\n",
        "10000000000000000\r\nhello\r\n",
    ] {
        assert!(
            taken(Framing::CHUNKED, &[wrong.as_bytes()]).is_err(),
            "{wrong:?}"
        );
    }
    let long = format!("5;{}", "x".repeat(LINE_BYTES));
    assert!(taken(Framing::CHUNKED, &[long.as_bytes()]).is_err());
    let trailer = format!("A: {}\r\n", "x".repeat(4_000));
    let trailers = format!("0\r\n{}", trailer.repeat(5));
    assert!(taken(Framing::CHUNKED, &[trailers.as_bytes()]).is_err());
    for (count, fits) in [(100, true), (101, false)] {
        let many = format!("0\r\n{}\r\n", "A: b\r\n".repeat(count));
        let taken = taken(Framing::CHUNKED, &[many.as_bytes()]);
        assert_eq!(taken.is_ok(), fits, "{count} trailers");
    }
    let extended = format!("1;{}\r\nx\r\n", "x".repeat(4_000));
    let extensions = extended.repeat(5);
    assert!(taken(Framing::CHUNKED, &[extensions.as_bytes()]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Bytes that are a request here are the same request to hyper, byte for byte: so nothing that
    /// we let in hides another one.
    #[test]
    fn hyper_reads_the_same_requests_that_we_read(mut bytes in requests()) {
        take_quotes_out_of_queries(&mut bytes);
        let ours = read_by_us(&bytes);
        let theirs = read_by_hyper(&bytes);
        prop_assert!(theirs.starts_with(&ours), "ours {ours:?}\ntheirs {theirs:?}");
    }
}

proptest! {
    /// Whatever a client sends, it is requests, not yet one, or malformed.
    #[test]
    fn no_bytes_make_the_reader_of_requests_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        starts_well in any::<bool>(),
        chunked in any::<bool>(),
    ) {
        if starts_well {
            bytes.splice(0..0, *b"GET / HTTP/1.1\r\n");
        }
        let _ = read_by_us(&bytes);
        let mut input = BytesMut::from(&bytes[..]);
        let mut framing = if chunked { Framing::CHUNKED } else { Framing::UntilClose };
        while let Ok(Some(_)) = framing.take(&mut input) {}
    }

    /// Cut anywhere, the body is the same, its end is where it is, and what follows is left alone.
    #[test]
    fn a_body_ends_where_its_framing_says_however_it_is_cut(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        extension in prop::sample::select(vec!["", ";a=b", " ;a", ";"]),
        trailers in prop::sample::select(vec!["", "X-T: 1\r\n", "A: b\r\nC: d\r\n"]),
        after in prop::collection::vec(any::<u8>(), 0..5),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        chunked in any::<bool>(),
    ) {
        let body: Vec<u8> = chunks.concat();
        let (framing, mut wire) = if chunked {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(format!("0{extension}\r\n{trailers}\r\n").as_bytes());
            (Framing::CHUNKED, wire)
        } else {
            (Framing::Length(body.len() as u64), body.clone())
        };
        let length = wire.len();
        wire.extend_from_slice(&after);
        let mut cuts: Vec<usize> = cuts.drain(..).map(|cut| cut.index(wire.len() + 1)).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect();
        prop_assert_eq!(taken(framing, &parts).unwrap(), (body, after, true));
        // One byte short of its end it has not ended.
        if length > 0 {
            let (_, _, ended) = taken(framing, &[&wire[..length - 1]]).unwrap();
            prop_assert!(!ended);
        }
    }

    /// A body that is written is read back as it was, however little of it is taken at a time.
    #[test]
    fn a_message_is_written_whole_and_once_however_the_other_end_takes_it(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                prop::collection::vec(any::<u8>(), 2 * 1024 - 2..2 * 1024 + 40),
            ],
            0..6,
        ),
        steps in prop::collection::vec(prop_oneof![1_usize..50, 1_000..3_000_usize], 1..10),
        chunked in any::<bool>(),
        ends_at_once in any::<bool>(),
    ) {
        let body: Vec<u8> = pieces.concat();
        let head = b"a head\r\n\r\n";
        let coding = match chunked {
            true => Coding::Chunked,
            false => Coding::Length(body.len() as u64),
        };
        let mut outbox = Outbox::new(head.to_vec(), coding);
        let mut steps = steps.iter().cycle();
        let mut written = Vec::new();
        let mut flush = |outbox: &mut Outbox| {
            while !outbox.is_empty() {
                let bytes = match outbox.pieces() {
                    Ok(one) => one.to_vec(),
                    Err(several) => several.iter().flat_map(|piece| piece.to_vec()).collect(),
                };
                let step = (*steps.next().unwrap()).min(bytes.len());
                written.extend_from_slice(&bytes[..step]);
                outbox.advance(step);
            }
        };
        prop_assert!(!outbox.begun());
        for (nth, piece) in pieces.iter().enumerate() {
            outbox.push(Bytes::from(piece.clone())).unwrap();
            // That it was the last one may be known at once, or later.
            if ends_at_once && nth + 1 == pieces.len() {
                outbox.finish().unwrap();
            }
            flush(&mut outbox);
        }
        if !ends_at_once || pieces.is_empty() {
            outbox.finish().unwrap();
        }
        flush(&mut outbox);
        prop_assert!(outbox.begun());

        prop_assert_eq!(&written[..head.len()], head);
        let framing = if chunked { Framing::CHUNKED } else { Framing::Length(body.len() as u64) };
        prop_assert_eq!(taken(framing, &[&written[head.len()..]]).unwrap(), (body, Vec::new(), true));
    }
}

#[test]
fn a_body_must_be_as_long_as_its_head_said() {
    let outbox = |length| Outbox::new(Vec::new(), Coding::Length(length));
    let longer = outbox(4).push(Bytes::from_static(b"hello"));
    assert!(longer.is_err());
    let mut shorter = outbox(6);
    shorter.push(Bytes::from_static(b"hello")).unwrap();
    assert!(shorter.finish().is_err());
}

proptest! {
    /// The bytes after a mistake are not read, and a look ahead finds each mistake that is there.
    #[test]
    fn a_mistake_in_a_chunked_body_is_final_and_seen_ahead(
        before in proptest::collection::vec(1_usize..9, 0..3),
        mistake in prop_oneof![
            Just("zz\r\n"), Just("-1\r\n"), Just("5 x\r\n"), Just("5\n"), Just("\r\n"), Just("0\r\nno field\r\n"),
            Just("1\r\nab\r\n"), Just("\x000\r\n"), Just("0x1\r\n"), Just("10000000000000000\r\n"),
        ],
        cut in 0_usize..200,
    ) {
        let mut bytes = Vec::new();
        for length in before {
            bytes.extend_from_slice(format!("{length:x}\r\n{}\r\n", "d".repeat(length)).as_bytes());
        }
        let sound = bytes.len();
        bytes.extend_from_slice(mistake.as_bytes());
        let until = bytes.len();
        bytes.extend_from_slice(b"5\r\nhello\r\n0\r\n\r\n");
        prop_assert!(Framing::CHUNKED.check(&bytes).is_err());
        prop_assert!(Framing::CHUNKED.check(&bytes[..sound]).is_ok());

        let cut = cut.min(until);
        let (mut framing, mut input) = (Framing::CHUNKED, BytesMut::new());
        let mut failed = false;
        for part in [&bytes[..cut], &bytes[cut..until], &bytes[until..], b"0\r\n\r\n"] {
            input.extend_from_slice(part);
            loop {
                match framing.take(&mut input) {
                    Ok(Some(_)) => prop_assert!(!failed, "data after a mistake"),
                    Ok(None) => {
                        prop_assert!(!failed && !framing.has_ended());
                        break;
                    }
                    Err(_) => {
                        failed = true;
                        prop_assert!(framing.take(&mut input).is_err());
                        break;
                    }
                }
            }
        }
        prop_assert!(failed && !framing.has_ended() && framing.left().is_none());
    }
}
