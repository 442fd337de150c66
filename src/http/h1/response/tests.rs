//! Answers that an upstream may send and nonsense, and the heads that it gets.

use super::*;
use http::header::{self, HeaderValue};
use proptest::prelude::*;

fn head_of(text: &str) -> Result<Option<AnswerHead>, Nonsense> {
    head_to(&Method::POST, text)
}

fn head_to(method: &Method, text: &str) -> Result<Option<AnswerHead>, Nonsense> {
    answer_head(&mut BytesMut::from(text), method)
}

fn framing_of(fields: &str) -> Result<(Framing, bool), &'static str> {
    let head = head_of(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
    match head {
        Ok(Some(head)) => Ok((head.framing, head.keeps_alive)),
        Ok(None) => Err("not whole"),
        Err(Nonsense(why)) => Err(why),
    }
}

const CHUNKED: Framing = Framing::CHUNKED;

#[test]
fn where_an_answer_ends_follows_from_its_fields_or_is_nonsense() {
    let ambiguous = Err("its framing is ambiguous");
    for (fields, expected) in [
        ("Content-Length: 5\r\n", Ok((Framing::Length(5), true))),
        ("content-length: 0\r\n", Ok((Framing::Length(0), true))),
        ("", Ok((Framing::UntilClose, false))),
        (
            "Connection: keep-alive\r\n",
            Ok((Framing::UntilClose, false)),
        ),
        ("Transfer-Encoding: chunked\r\n", Ok((CHUNKED, true))),
        ("transfer-encoding:  Chunked \r\n", Ok((CHUNKED, true))),
        (
            "Connection: close\r\nContent-Length: 5\r\n",
            Ok((Framing::Length(5), false)),
        ),
        (
            "Connection: x, Close\r\nTransfer-Encoding: chunked\r\n",
            Ok((CHUNKED, false)),
        ),
        (
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            Ok((Framing::Length(5), true)),
        ),
        ("Content-Length: 5, 5\r\n", Ok((Framing::Length(5), true))),
        (
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            Err("it has two lengths"),
        ),
        ("Content-Length: 5, 6\r\n", Err("it has two lengths")),
        ("Content-Length: +5\r\n", Err("its length is no number")),
        ("Content-Length: -5\r\n", Err("its length is no number")),
        ("Content-Length: 0x5\r\n", Err("its length is no number")),
        ("Content-Length: 5 5\r\n", Err("its length is no number")),
        ("Content-Length:\r\n", Err("its length is no number")),
        (
            "Content-Length: 18446744073709551616\r\n",
            Err("its length is no number"),
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            ambiguous,
        ),
        ("Transfer-Encoding: gzip\r\n", ambiguous),
        ("Transfer-Encoding: gzip, chunked\r\n", ambiguous),
        ("Transfer-Encoding: chunked, chunked\r\n", ambiguous),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            ambiguous,
        ),
        ("Transfer-Encoding:\r\n", ambiguous),
        ("Content-Length : 5\r\n", Err("its head is malformed")),
        (
            "X-Folded: a\r\n b\r\nContent-Length: 5\r\n",
            Err("its head is malformed"),
        ),
        ("Not a field\r\n", Err("its head is malformed")),
        ("X-Nul: a\0b\r\n", Err("its head is malformed")),
    ] {
        assert_eq!(framing_of(fields), expected, "{fields:?}");
    }
}

#[test]
fn a_head_with_a_line_that_ends_without_cr_is_no_answer() {
    let sound = "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 0\r\n\r\n";
    assert!(head_of(sound).is_ok_and(|head| head.is_some()));
    for (at, _) in sound.match_indices('\r') {
        let mut bare = sound.to_owned();
        bare.remove(at);
        assert!(head_of(&bare).is_err(), "{bare:?}");
    }
    for before in ["\r\n", "\n", "HTTP/1.1 100 Continue\r\n\n"] {
        assert!(head_of(&format!("{before}{sound}")).is_err(), "{before:?}");
    }
}

#[test]
fn an_answer_of_http_1_0_keeps_its_connection_only_when_it_says_so() {
    for (fields, framing, keeps_alive) in [
        ("Content-Length: 5\r\n", Framing::Length(5), false),
        (
            "Connection: Keep-Alive\r\nContent-Length: 5\r\n",
            Framing::Length(5),
            true,
        ),
        ("Connection: keep-alive\r\n", Framing::UntilClose, false),
    ] {
        let head = head_of(&format!("HTTP/1.0 200 OK\r\n{fields}\r\n"))
            .unwrap()
            .unwrap();
        assert_eq!(
            (head.framing, head.keeps_alive),
            (framing, keeps_alive),
            "{fields:?}"
        );
    }
    assert!(head_of("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
}

#[test]
fn an_answer_that_has_no_body_by_its_status_or_its_request_ends_with_its_head() {
    for (method, status) in [
        (Method::HEAD, "200 OK"),
        (Method::POST, "204 No Content"),
        (Method::GET, "304 Not Modified"),
    ] {
        for framing in [
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "",
        ] {
            let text = format!("HTTP/1.1 {status}\r\n{framing}\r\n");
            let head = head_to(&method, &text).unwrap().unwrap();
            assert!(head.framing.has_ended() && head.keeps_alive, "{text:?}");
        }
    }
}

#[test]
fn interim_answers_are_skipped_and_a_switch_of_protocols_is_nonsense() {
    let mut input = BytesMut::from(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 \r\ncontent-length: 2\r\n\r\nhi+",
    );
    let head = answer_head(&mut input, &Method::POST).unwrap().unwrap();
    assert_eq!(head.status, 201);
    assert!(!head.fields.contains("link"));
    assert_eq!(&input[..], b"hi+");
    assert!(head_of("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n").is_err());
}

#[test]
fn what_ends_at_this_hop_is_not_passed_on() {
    let head = head_of(
        "HTTP/1.1 200 OK\r\nconnection: x-hop, keep-alive, host\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nUpgrade: x\r\n\
         TE: x\r\nTrailer: x\r\nProxy-Authenticate: x\r\nX-End: 1\r\nx-end: 2\r\ncontent-length: 0\r\n\r\n",
    )
    .unwrap()
    .unwrap();
    let fields = head.fields.iter();
    let passed: Vec<(&[u8], &[u8])> = fields.map(|field| (field.name(), field.value())).collect();
    assert_eq!(passed, [(&b"x-end"[..], &b"1"[..]), (b"x-end", b"2")]);
}

#[test]
fn a_head_that_is_not_whole_is_waited_for_up_to_its_limit() {
    let whole = "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 1\r\n\r\n";
    for end in 0..whole.len() {
        assert!(head_of(&whole[..end]).unwrap().is_none(), "{end}");
    }
    assert!(head_of(whole).unwrap().is_some());
    let endless = format!("HTTP/1.1 200 OK\r\nX-A: {}", "b".repeat(HEAD_BYTES));
    assert!(head_of(&endless).is_err());
    let many: String = (0..=HEAD_FIELDS).map(|n| format!("X-{n}: a\r\n")).collect();
    assert!(head_of(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).is_err());
}

proptest! {
    /// Whatever an upstream sends, it is an answer, not yet one, or nonsense.
    #[test]
    fn no_bytes_make_the_reader_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        starts_well in any::<bool>(),
    ) {
        if starts_well {
            bytes.splice(0..0, *b"HTTP/1.1 200 OK\r\n");
        }
        let _ = answer_head(&mut BytesMut::from(&bytes[..]), &Method::GET);
    }
}

#[test]
fn what_an_answer_says_to_the_gate_is_heard_also_when_connection_names_it() {
    let head = head_of(
        "HTTP/1.1 200 OK\r\nConnection: x-hop, X-Tollgate-Billable\r\nX-Hop: 1\r\n\
         X-Tollgate-Billable: false\r\nContent-Length: 0\r\n\r\n",
    );
    let fields = head.unwrap().unwrap().fields;
    assert!(!fields.contains("x-hop"));
    assert_eq!(fields.get("x-tollgate-billable"), Some(&b"false"[..]));
}

fn target(text: &'static str) -> Target {
    Target::read(&bytes::Bytes::from_static(text.as_bytes())).unwrap()
}

#[test]
fn the_head_of_a_request_is_its_line_its_fields_and_its_framing() {
    for (length, coding, framing) in [
        (Some(7), Coding::Length(7), "content-length: 7"),
        (None, Coding::Chunked, "transfer-encoding: chunked"),
    ] {
        let target = target("http://ignored.test/a?b=c");
        let mut head = ForwardHead::new(Method::POST, &target);
        head.field((&header::ACCEPT, &HeaderValue::from_static("x")).into());
        head.text("x-ours", "a b");
        head.text("x-odd", "a\r\nb");
        let (head, said) = head.end(length);
        let expected =
            format!("POST /a?b=c HTTP/1.1\r\naccept: x\r\nx-ours: a b\r\n{framing}\r\n\r\n");
        assert_eq!((String::from_utf8(head).unwrap(), said), (expected, coding));
    }
}

#[test]
fn a_method_that_usually_has_no_body_says_nothing_of_an_empty_one() {
    for (method, says) in [
        (Method::GET, false),
        (Method::HEAD, false),
        (Method::DELETE, false),
        (Method::POST, true),
        (Method::PUT, true),
    ] {
        let (head, _) = ForwardHead::new(method.clone(), &target("/")).end(Some(0));
        let text = String::from_utf8(head).unwrap();
        assert_eq!(text.contains("content-length: 0\r\n"), says, "{method}");
        assert!(text.ends_with("\r\n\r\n"), "{text:?}");
    }
}

#[test]
fn what_an_upstream_says_of_its_patience_is_taken_with_a_margin() {
    let seconds = |s| Some(Duration::from_secs(s));
    for (field, kept) in [
        ("Keep-Alive: timeout=5", seconds(4)),
        ("keep-alive: Timeout=5, max=100", seconds(4)),
        ("Keep-Alive: max=100,timeout=75", seconds(74)),
        ("Keep-Alive: timeout=2", seconds(1)),
        ("Keep-Alive: timeout=1", Some(Duration::from_millis(500))),
        ("Keep-Alive: timeout=0", seconds(0)),
        ("Keep-Alive: max=100\r\nKeep-Alive: timeout=3", seconds(2)),
        (
            "Keep-Alive: timeout=18446744073709551615",
            seconds(u64::MAX - 1),
        ),
        // A value that is no number is not guessed at.
        ("Keep-Alive: timeout=18446744073709551616", None),
        ("Keep-Alive: timeout=-1", None),
        ("Keep-Alive: timeout=5s", None),
        ("Keep-Alive: timeout=", None),
        ("Keep-Alive: timeout", None),
        ("Keep-Alive: 5", None),
        ("Connection: keep-alive", None),
    ] {
        let head = head_of(&format!(
            "HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(head.unwrap().unwrap().keep_alive, kept, "{field}");
    }
}
