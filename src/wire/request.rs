//! The head of a request, read: the part of HTTP that whoever calls may write as he likes.

use super::host::is_host;
use super::{Fields, Framing, Place, length_of, tokens};
use bytes::BytesMut;
use http::{Method, StatusCode, Uri};
use std::mem::MaybeUninit;

/// The largest head that is read, in bytes, and the most fields in it.
pub const HEAD_BYTES: usize = 256 * 1024;
const HEAD_FIELDS: usize = 100;

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead {
    /// What is to be done.
    pub method: Method,
    /// To what.
    pub uri: Uri,
    /// HTTP/1.1, as opposed to 1.0.
    pub is_1_1: bool,
    /// What else is said.
    pub fields: Fields,
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
pub fn request_head(input: &mut BytesMut) -> Result<Option<Box<RequestHead>>, BadHead> {
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
    let is_1_1 = parsed.version == Some(1);
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(BadHead::MALFORMED);
    };
    let head = &input[..whole];
    if !begins_with_empty_lines(head, method) || !lines_end_in_crlf(head, parsed.headers) {
        return Err(BadHead::MALFORMED);
    }
    if target.len() >= usize::from(u16::MAX) {
        return Err(BadHead::TARGET_TOO_LONG);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| BadHead::MALFORMED)?;
    let framed = Framed::read(parsed.headers, is_1_1)?;
    let places = Place::of(parsed.headers, input);
    let begin = target.as_ptr() as usize - input.as_ptr() as usize;
    let target = begin..begin + target.len();
    let fields = Fields::take(input, whole, places);
    let uri = Uri::from_maybe_shared(fields.head().slice(target));
    let uri = uri.map_err(|_| BadHead::MALFORMED)?;
    let is_sound = match (uri.scheme_str(), uri.authority()) {
        (None, None) => true,
        // An authority alone names a tunnel.
        (None, Some(_)) => method == Method::CONNECT,
        // Whoever stands behind us would obey one of the two; which, we do not know (RFC 9112 §3.2.2).
        (Some(scheme), Some(authority)) => default_port(scheme).is_some_and(|port| {
            let named = without_port(authority.as_str().as_bytes(), port);
            let is_named = |host| without_port(host, port).eq_ignore_ascii_case(named);
            !named.contains(&b'@') && fields.get_all("host").all(is_named)
        }),
        (Some(_), None) => false,
    };
    if !is_sound {
        return Err(BadHead::MALFORMED);
    }
    Ok(Some(Box::new(RequestHead {
        method,
        uri,
        is_1_1,
        fields,
        bytes: whole - 2,
        framing: framed.framing,
        keeps_alive: framed.keeps_alive,
        expects_continue: framed.expects_continue && is_1_1,
    })))
}

/// The port of a target's scheme; `None` of a scheme that is not HTTP.
fn default_port(scheme: &str) -> Option<&'static [u8]> {
    match scheme {
        "http" => Some(b":80"),
        "https" => Some(b":443"),
        _ => None,
    }
}

/// An authority without the port that is meant when none is named (RFC 9110 §4.2.3).
fn without_port<'a>(authority: &'a [u8], default: &[u8]) -> &'a [u8] {
    let named = authority.strip_suffix(default);
    named.or(authority.strip_suffix(b":")).unwrap_or(authority)
}

/// Whether only empty lines come before the first line of a request, each with its CR (RFC 9112 §2.2).
fn begins_with_empty_lines(head: &[u8], method: &str) -> bool {
    let before = &head[..method.as_ptr() as usize - head.as_ptr() as usize];
    before.chunks(2).all(|line| line == b"\r\n")
}

/// Whether no line of a parsed head ends without CR: that is a line to us and may be a part of a value to who stands
/// before or behind us. Lines are looked at where they begin, after the end of the one before.
pub(crate) fn lines_end_in_crlf(head: &[u8], fields: &[httparse::Header<'_>]) -> bool {
    let before = |part: &str| &head[..part.as_ptr() as usize - head.as_ptr() as usize];
    fields
        .iter()
        .all(|field| before(field.name).ends_with(b"\r\n"))
        && head.ends_with(b"\r\n\r\n")
}

/// What the fields say about where the request ends and what follows it, if they are what they must be.
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
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let value = length_of(field.value).ok_or(BadHead::MALFORMED)?;
                if length.replace(value).is_some() {
                    return Err(BadHead::MALFORMED);
                }
            } else if is("transfer-encoding") {
                // Another coding, or this one twice, is one that the next hop may read in another way.
                if !is_1_1 || is_chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadHead::MALFORMED);
                }
                is_chunked = true;
            } else if is("connection") {
                for token in tokens(field.value) {
                    close |= token.eq_ignore_ascii_case(b"close");
                    keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if is("host") {
                // One that is none may be read as another by whoever stands behind us.
                if !is_host(field.value) {
                    return Err(BadHead::MALFORMED);
                }
            } else if is("expect") {
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
