//! What an upstream may send and what is nonsense, and that what is written is read back.

use super::*;
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

const CHUNKED: Framing = Framing::Chunked(Chunk::Size);

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
    assert_eq!(head.response.status(), 201);
    assert!(!head.response.headers().contains_key("link"));
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
    let passed: Vec<(&str, &[u8])> = head
        .response
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    assert_eq!(passed, [("x-end", &b"1"[..]), ("x-end", b"2")]);
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

/// Takes the whole body out of `parts` as they arrive; what is left over, and whether it ended.
fn taken(mut framing: Framing, parts: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), Nonsense> {
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
        assert!(taken(CHUNKED, &[wrong.as_bytes()]).is_err(), "{wrong:?}");
    }
    let long = format!("5;{}", "x".repeat(LINE_BYTES));
    assert!(taken(CHUNKED, &[long.as_bytes()]).is_err());
    let trailer = format!("A: {}\r\n", "x".repeat(4_000));
    let trailers = format!("0\r\n{}", trailer.repeat(5));
    assert!(taken(CHUNKED, &[trailers.as_bytes()]).is_err());
}

proptest! {
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
            (CHUNKED, wire)
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

    /// What is written is what a reader of HTTP gets back, however little of it is taken at a time.
    #[test]
    fn a_request_is_written_whole_and_once_however_the_upstream_takes_it(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                prop::collection::vec(any::<u8>(), SMALL_BYTES - 2..SMALL_BYTES + 40),
            ],
            0..6,
        ),
        steps in prop::collection::vec(prop_oneof![1_usize..50, 1_000..3_000_usize], 1..10),
        chunked in any::<bool>(),
    ) {
        let body: Vec<u8> = pieces.concat();
        let mut head = RequestHead::new(Method::POST, &Uri::from_static("http://ignored.test/a?b=c"));
        head.field(&header::ACCEPT, &HeaderValue::from_static("x"));
        head.text("x-ours", "a b");
        head.text("x-odd", "a\r\nb");
        let mut outbox = Outbox::new(head, (!chunked).then_some(body.len() as u64));
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
        for piece in &pieces {
            outbox.push(Bytes::from(piece.clone())).unwrap();
            flush(&mut outbox);
        }
        outbox.finish().unwrap();
        flush(&mut outbox);
        prop_assert!(outbox.begun());

        let mut fields = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Request::new(&mut fields);
        let head = parsed.parse(&written).unwrap().unwrap();
        prop_assert_eq!((parsed.method, parsed.path), (Some("POST"), Some("/a?b=c")));
        let names: Vec<&str> = parsed.headers.iter().map(|field| field.name).collect();
        let framing = if chunked { "transfer-encoding" } else { "content-length" };
        prop_assert_eq!(names, ["accept", "x-ours", framing]);
        let framing = if chunked { CHUNKED } else { Framing::Length(body.len() as u64) };
        prop_assert_eq!(taken(framing, &[&written[head..]]).unwrap(), (body, Vec::new(), true));
    }

    /// Whatever an upstream sends, it is an answer, not yet one, or nonsense.
    #[test]
    fn no_bytes_make_the_reader_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        starts_well in any::<bool>(),
        chunked in any::<bool>(),
    ) {
        if starts_well {
            bytes.splice(0..0, *b"HTTP/1.1 200 OK\r\n");
        }
        let _ = answer_head(&mut BytesMut::from(&bytes[..]), &Method::GET);
        let mut input = BytesMut::from(&bytes[..]);
        let mut framing = if chunked { CHUNKED } else { Framing::UntilClose };
        while let Ok(Some(_)) = framing.take(&mut input) {}
    }
}

#[test]
fn a_body_must_be_as_long_as_its_head_said() {
    let outbox = |length| {
        Outbox::new(
            RequestHead::new(Method::POST, &Uri::from_static("/")),
            Some(length),
        )
    };
    let longer = outbox(4).push(Bytes::from_static(b"hello"));
    assert!(longer.is_err());
    let mut shorter = outbox(6);
    shorter.push(Bytes::from_static(b"hello")).unwrap();
    assert!(shorter.finish().is_err());
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
        let outbox = Outbox::new(
            RequestHead::new(method.clone(), &Uri::from_static("/")),
            Some(0),
        );
        let text = String::from_utf8(outbox.pieces().unwrap().to_vec()).unwrap();
        assert_eq!(text.contains("content-length: 0\r\n"), says, "{method}");
        assert!(text.ends_with("\r\n\r\n"), "{text:?}");
    }
}
