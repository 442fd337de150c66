//! The head of a request, read: the part of HTTP that whoever calls may write as he likes.

use super::{Framing, length_of, tokens};
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, StatusCode, Uri, Version};
use std::mem::MaybeUninit;

/// The largest head that is read, in bytes, and the most fields in it.
pub const HEAD_BYTES: usize = 256 * 1024;
const HEAD_FIELDS: usize = 100;

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead {
    /// Its line and its fields.
    pub parts: Parts,
    /// Its size without the empty line.
    pub bytes: usize,
    /// Where its body ends.
    pub framing: Framing,
    /// Whether another request may follow on the connection.
    pub keeps_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends its body.
    pub expects_continue: bool,
}

/// A head that is not read: the status is all that can be said about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadHead(pub StatusCode);

impl BadHead {
    const MALFORMED: Self = Self(StatusCode::BAD_REQUEST);
    /// Too large, or too many fields.
    pub const TOO_LARGE: Self = Self(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    const TARGET_TOO_LONG: Self = Self(StatusCode::URI_TOO_LONG);
}

/// Takes a head off the front of `input`; `None` while it is not whole.
///
/// # Errors
/// When it is not HTTP/1.1, or where the request ends could be read in two ways.
pub fn request_head(input: &mut BytesMut) -> Result<Option<RequestHead>, BadHead> {
    let mut fields = [const { MaybeUninit::uninit() }; HEAD_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let whole = match httparse::ParserConfig::default().parse_request_with_uninit_headers(
        &mut parsed,
        input,
        &mut fields,
    ) {
        Ok(httparse::Status::Complete(whole)) => whole,
        Ok(httparse::Status::Partial) if input.len() < HEAD_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(BadHead::TOO_LARGE);
        }
        Err(_) => return Err(BadHead::MALFORMED),
    };
    // A line that ends without CR is a line to us and may be a part of a value to who stands before us.
    let ends = |end: &&[u8]| end.len() == 2 && end[1] == b'\n' && end[0] != b'\r';
    if input[..whole].windows(2).filter(ends).count() > 0 || input[0] == b'\n' {
        return Err(BadHead::MALFORMED);
    }
    let is_1_1 = parsed.version == Some(1);
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(BadHead::MALFORMED);
    };
    if target.len() >= usize::from(u16::MAX) {
        return Err(BadHead::TARGET_TOO_LONG);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| BadHead::MALFORMED)?;
    let framed = Framed::read(parsed.headers, is_1_1)?;
    // The fields refer to the bytes of the head, which are taken as a whole and shared.
    let at = |part: &[u8]| {
        let begin = part.as_ptr() as usize - input.as_ptr() as usize;
        begin..begin + part.len()
    };
    let target = at(target.as_bytes());
    let mut places = [const { (0..0, 0..0) }; HEAD_FIELDS];
    let count = parsed.headers.len();
    for (place, field) in places.iter_mut().zip(parsed.headers.iter()) {
        *place = (at(field.name.as_bytes()), at(field.value));
    }
    let head: Bytes = input.split_to(whole).freeze();
    let uri = Uri::from_maybe_shared(head.slice(target)).map_err(|_| BadHead::MALFORMED)?;
    if uri.path().is_empty() && method != Method::CONNECT {
        // An authority alone names a tunnel.
        return Err(BadHead::MALFORMED);
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.version = match is_1_1 {
        true => Version::HTTP_11,
        false => Version::HTTP_10,
    };
    parts.headers.reserve(count);
    for (name, value) in &places[..count] {
        let name = HeaderName::from_bytes(&head[name.clone()]).map_err(|_| BadHead::MALFORMED)?;
        let value = HeaderValue::from_maybe_shared(head.slice(value.clone()))
            .map_err(|_| BadHead::MALFORMED)?;
        parts.headers.append(name, value);
    }
    Ok(Some(RequestHead {
        expects_continue: framed.expects_continue && is_1_1,
        parts,
        bytes: whole - 2,
        framing: framed.framing,
        keeps_alive: framed.keeps_alive,
    }))
}

/// What the fields say about where the request ends and what follows it.
struct Framed {
    framing: Framing,
    keeps_alive: bool,
    expects_continue: bool,
}

impl Framed {
    fn read(fields: &[httparse::Header<'_>], is_1_1: bool) -> Result<Self, BadHead> {
        let (mut length, mut is_chunked) = (None, false);
        let (mut close, mut keep_alive, mut expects_continue) = (false, false, false);
        for field in fields {
            let is = |name: &HeaderName| field.name.eq_ignore_ascii_case(name.as_str());
            if is(&header::CONTENT_LENGTH) {
                let value = length_of(field.value).ok_or(BadHead::MALFORMED)?;
                if length.replace(value).is_some() {
                    return Err(BadHead::MALFORMED);
                }
            } else if is(&header::TRANSFER_ENCODING) {
                // Another coding, or this one twice, is one that the next hop may read in another way.
                if !is_1_1 || is_chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadHead::MALFORMED);
                }
                is_chunked = true;
            } else if is(&header::CONNECTION) {
                for token in tokens(field.value) {
                    close |= token.eq_ignore_ascii_case(b"close");
                    keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if is(&header::EXPECT) {
                expects_continue = field.value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        let asked = !close && (is_1_1 || keep_alive);
        Ok(Self {
            framing: match is_chunked {
                true => Framing::CHUNKED,
                false => Framing::Length(length.unwrap_or(0)),
            },
            // Of two framings the coding counts, and nothing after it is read (RFC 9112 §6.1).
            keeps_alive: asked && !(is_chunked && length.is_some()),
            expects_continue,
        })
    }
}
