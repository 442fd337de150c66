//! The heads of HTTP/2, as the rest of the gate reads and writes them.
//!
//! Owns the mapping of a request to the head that HTTP/1.1 has (RFC 9113 §8.3), so that nothing
//! behind it knows how a request came. Must never let through what HTTP/1.1 would read otherwise.

use crate::http::h1::{BadHead, RequestHead};
use crate::http::{Fields, Framing, HeadWriter, Target, is_host, length_of};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// The most fields of a request, as with HTTP/1.1.
const MOST_FIELDS: usize = 100;

/// The head of a request. `has_ended`: no body follows.
///
/// # Errors
/// When HTTP/1.1 would refuse it, or read it in two ways.
pub(super) fn request_head(parts: Parts, has_ended: bool) -> Result<Box<RequestHead>, BadHead> {
    let Parts {
        method,
        uri,
        headers,
        ..
    } = parts;
    if headers.len() >= MOST_FIELDS {
        return Err(BadHead::TooLarge);
    }
    let text = match (&method, uri.path_and_query(), uri.authority()) {
        (&Method::CONNECT, _, Some(authority)) => authority.as_str(),
        (_, Some(target), _) => target.as_str(),
        _ => return Err(BadHead::Malformed),
    };
    if text.len() >= usize::from(u16::MAX) {
        return Err(BadHead::TargetTooLong);
    }
    let target = Target::read(&Bytes::copy_from_slice(text.as_bytes()));
    let target = target.ok_or(BadHead::Malformed)?;
    let host = host(&headers, uri.authority().map(http::uri::Authority::as_str))?;
    let framing = match (length(&headers)?, has_ended) {
        (Some(length @ 1..), false) => Framing::Length(length),
        (Some(1..), true) => return Err(BadHead::Framing),
        (_, true) | (Some(0), false) => Framing::Length(0),
        (None, false) => Framing::CHUNKED,
    };
    let expects_continue = headers.get_all(EXPECT).iter().next_back();
    let expects_continue = expects_continue
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let pairs = headers
        .iter()
        .filter(|(name, _)| **name != HOST && **name != COOKIE);
    let pairs = pairs.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let cookie = cookie(&headers);
    let cookie = cookie.as_deref().map(|crumbs| (&b"cookie"[..], crumbs));
    let host = host.map(|host| (&b"host"[..], host));
    let fields = Fields::of_pairs(host.into_iter().chain(pairs).chain(cookie));
    let head = RequestHead::of_stream(method, target, fields, framing, expects_continue);
    Ok(Box::new(head))
}

/// The host that is asked for. `Host` may stand beside `:authority` when both say the same
/// (RFC 9113 §8.3.1).
fn host<'h>(
    headers: &'h HeaderMap,
    authority: Option<&'h str>,
) -> Result<Option<&'h [u8]>, BadHead> {
    let authority = authority.map(str::as_bytes);
    let mut hosts = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BadHead::Host);
    }
    match (authority, host) {
        (Some(one), Some(other)) if !one.eq_ignore_ascii_case(other) => Err(BadHead::Host),
        (one, other) => match one.or(other) {
            Some(host) if !is_host(host) || host.contains(&b'@') => Err(BadHead::Host),
            host => Ok(host),
        },
    }
}

/// The declared length of the body.
fn length(headers: &HeaderMap) -> Result<Option<u64>, BadHead> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(None);
    };
    match (length_of(first.as_bytes()), lengths.next()) {
        (Some(length), None) => Ok(Some(length)),
        _ => Err(BadHead::Framing),
    }
}

/// The crumbs of a cookie as one field (RFC 9113 §8.2.3).
fn cookie(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let mut cookie = crumbs.next()?.as_bytes().to_vec();
    for crumb in crumbs {
        cookie.extend_from_slice(b"; ");
        cookie.extend_from_slice(crumb.as_bytes());
    }
    Some(cookie)
}

/// The head of an answer with these lines. A field that HTTP/2 cannot carry is left out.
pub(super) fn answer_head(status: StatusCode, lines: HeadWriter) -> http::Response<()> {
    let mut head = http::Response::new(());
    *head.status_mut() = status;
    let fields = head.headers_mut();
    let lines = Bytes::from(lines.end());
    let mut begin = 0;
    for line in lines.split(|byte| *byte == b'\n') {
        let end = begin + line.len();
        let name_ends = line.iter().position(|byte| *byte == b':');
        if let Some(name_ends) = name_ends
            && let Ok(name) = HeaderName::from_bytes(&line[..name_ends])
        {
            // Between `: ` and the CR.
            let value = (begin + name_ends + 2).min(end)..end.saturating_sub(1).max(begin);
            let value = lines.get(value.clone()).map(|_| lines.slice(value));
            let value = value.and_then(|value| HeaderValue::from_maybe_shared(value).ok());
            if let Some(value) = value {
                fields.append(name, value);
            }
        }
        begin = end + 1;
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1;
    use bytes::BytesMut;
    use http::Request;
    use proptest::prelude::*;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn read(request: http::request::Builder, has_ended: bool) -> Result<Box<RequestHead>, BadHead> {
        request_head(parts(request), has_ended)
    }

    fn told(head: &RequestHead) -> Vec<(String, String)> {
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        let fields = head.fields.iter();
        fields
            .map(|field| (text(field.name()), text(field.value())))
            .collect()
    }

    proptest! {
        /// The oracle is the parser of HTTP/1.1.
        #[test]
        fn a_head_of_http_2_is_the_head_that_http_1_1_would_have(
            path in "/[a-z0-9/%.]{0,12}",
            query in proptest::option::of("[a-z0-9=&+?/%]{0,12}"),
            host in "[a-z]{1,8}(\\.test)?(:[1-9][0-9]{0,3})?",
            fields in proptest::collection::vec(("x-[a-z0-9-]{1,8}", "[!-~]([ -~]{0,12}[!-~])?"), 0..8),
            length in proptest::option::of(0..1000_u64),
        ) {
            let target = query.map_or(path.clone(), |query| format!("{path}?{query}"));
            let mut text = format!("POST {target} HTTP/1.1\r\nhost: {host}\r\n");
            let mut request = Request::post(format!("https://{host}{target}"));
            // Names that stand twice are grouped by HTTP/2's map, in the order of their values.
            let mut fields = fields;
            fields.sort_by(|one, other| one.0.cmp(&other.0));
            for (name, value) in &fields {
                text += &format!("{name}: {value}\r\n");
                request = request.header(name, value);
            }
            if let Some(length) = length {
                text += &format!("content-length: {length}\r\n");
                request = request.header("content-length", length);
            }
            text += "\r\n";
            let mapped = read(request, false).unwrap();
            let parsed = h1::request_head(&mut BytesMut::from(&*text)).unwrap().unwrap();
            let sorted = |head: &RequestHead| {
                let mut fields = told(head);
                fields.sort();
                fields
            };
            prop_assert_eq!(sorted(&mapped), sorted(&parsed));
            prop_assert_eq!(told(&mapped)[0].clone(), ("host".to_owned(), host));
            prop_assert_eq!(mapped.target.path(), parsed.target.path());
            prop_assert_eq!(mapped.target.query(), parsed.target.query());
            prop_assert_eq!(mapped.framing.left(), length);
            prop_assert!(mapped.has_host && mapped.is_1_1 && mapped.keeps_alive);
        }
    }

    #[test]
    fn a_head_that_can_be_read_in_two_ways_is_refused() {
        let post = || Request::post("https://gate.test/a");
        for (request, has_ended, expected) in [
            (post().header("host", "other.test"), true, BadHead::Host),
            (
                post()
                    .header("host", "gate.test")
                    .header("host", "gate.test"),
                true,
                BadHead::Host,
            ),
            (
                Request::post("/a").header("host", "a b"),
                true,
                BadHead::Host,
            ),
            (
                Request::post("https://user@gate.test/a"),
                true,
                BadHead::Host,
            ),
            (post().header("content-length", "5"), true, BadHead::Framing),
            (
                post().header("content-length", "+5"),
                false,
                BadHead::Framing,
            ),
            (
                post()
                    .header("content-length", "5")
                    .header("content-length", "5"),
                false,
                BadHead::Framing,
            ),
        ] {
            assert_eq!(read(request, has_ended).unwrap_err(), expected);
        }
        let many = (0..100).fold(post(), |request, nth| {
            request.header(format!("x-{nth}"), "1")
        });
        assert_eq!(read(many, true).unwrap_err(), BadHead::TooLarge);
        let same = read(post().header("host", "GATE.test"), true).unwrap();
        assert_eq!(same.fields.get_all("host").count(), 1);
    }

    #[test]
    fn the_crumbs_of_a_cookie_are_one_field() {
        let request = Request::get("https://gate.test/");
        let request = request.header("cookie", "a=1").header("cookie", "b=2");
        let head = read(request, true).unwrap();
        let cookies: Vec<_> = head.fields.get_all("cookie").collect();
        assert_eq!(cookies, [b"a=1; b=2"]);
    }

    #[test]
    fn the_lines_of_an_answer_are_its_fields() {
        let mut lines = HeadWriter::default();
        lines.fixed("content-type: text/plain\r\n");
        lines.text("x-empty", "");
        lines.text("x-colon", "a: b");
        lines.number("content-length", 12);
        let head = answer_head(StatusCode::ACCEPTED, lines);
        let fields: Vec<_> = head
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        assert_eq!(head.status(), StatusCode::ACCEPTED);
        assert_eq!(
            fields,
            [
                ("content-type", &b"text/plain"[..]),
                ("x-empty", b""),
                ("x-colon", b"a: b"),
                ("content-length", b"12"),
            ]
        );
    }
}
