//! The head of a request, read. Anybody may send one, so nothing in it is believed.

use crate::http::h1::hop::{HopByHop, names_a_field};
use crate::http::host::is_host;
use crate::http::{FieldSpan, Fields, Framing, Target, length_of, tokens};
use bytes::BytesMut;
use http::{Method, StatusCode};
use std::mem::MaybeUninit;

/// The largest head that is read, in bytes, and the most fields in it.
pub(crate) const HEAD_BYTES: usize = 256 * 1024;
const HEAD_FIELDS: usize = 100;

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead {
    /// The method, as it came.
    pub method: Method,
    /// The path, the query, and perhaps the host.
    pub target: Target,
    /// HTTP/1.1, as opposed to 1.0.
    pub is_1_1: bool,
    /// The fields, in their order.
    pub fields: Fields,
    /// Whether there is a `Host` among them. It is asked on the way of every call.
    pub has_host: bool,
    /// Whether `Connection` names fields that end at this hop; of most requests it does not.
    pub(super) names_hop_fields: bool,
    /// Its size without the empty line.
    pub bytes: usize,
    /// The rule by which its body ends.
    pub framing: Framing,
    /// Whether another request may follow on the connection.
    pub keeps_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends its body.
    pub expects_continue: bool,
}

impl RequestHead {
    /// A head that came as a stream of HTTP/2, where the connection is nobody's to speak of.
    pub(crate) fn of_stream(
        method: Method,
        target: Target,
        fields: Fields,
        framing: Framing,
        expects_continue: bool,
    ) -> Self {
        Self {
            bytes: fields.head().len() + target.path().len() + target.query().map_or(0, str::len),
            has_host: fields.contains("host"),
            method,
            target,
            is_1_1: true,
            fields,
            names_hop_fields: false,
            framing,
            keeps_alive: true,
            expects_continue,
        }
    }

    /// The fields that end at this hop.
    pub(crate) fn hop_by_hop(&self) -> HopByHop<'_> {
        match self.names_hop_fields {
            true => HopByHop::of(&self.fields),
            false => HopByHop::default(),
        }
    }
}

/// Why a head is not read. The status is all that is said to the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadHead {
    /// A client begins TLS.
    Tls,
    /// A client speaks plain HTTP where TLS is spoken.
    PlainHttp,
    /// The heads of the peer's streams take all the memory that it may have.
    NoMemory,
    /// A load balancer begins with the PROXY protocol where nobody expects it.
    ProxyProtocol,
    /// A trusted proxy begins without the PROXY protocol, which is expected of it.
    NoProxyHeader,
    /// A client speaks HTTP/2 without having asked.
    Http2,
    /// A line ends without CR.
    LineEnd,
    /// The end of the request could be read in two ways.
    Framing,
    /// `Host` is no host, or another than the target's.
    Host,
    /// It is not HTTP/1.1 in some other way.
    Malformed,
    /// Too large, or too many fields.
    TooLarge,
    /// The target is too long.
    TargetTooLong,
}

impl BadHead {
    /// All reasons.
    pub const ALL: [Self; 12] = [
        Self::Tls,
        Self::PlainHttp,
        Self::NoMemory,
        Self::ProxyProtocol,
        Self::NoProxyHeader,
        Self::Http2,
        Self::LineEnd,
        Self::Framing,
        Self::Host,
        Self::Malformed,
        Self::TooLarge,
        Self::TargetTooLong,
    ];

    /// The status that the client gets.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::NoMemory => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The label in metrics and logs. Stable: dashboards depend on it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::PlainHttp => "plain_http",
            Self::NoMemory => "no_memory",
            Self::ProxyProtocol => "proxy_protocol",
            Self::NoProxyHeader => "no_proxy_header",
            Self::Http2 => "http2",
            Self::LineEnd => "line_end",
            Self::Framing => "framing",
            Self::Host => "host",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::TargetTooLong => "target_too_long",
        }
    }

    /// For the operator: the likely cause, and what to do about it.
    pub fn likely_cause(self) -> &'static str {
        match self {
            Self::Tls => {
                "it begins TLS, and this listener speaks plain HTTP: call it with http://, write `tls`, or end TLS in front of the gate"
            }
            Self::NoMemory => {
                "its requests by HTTP/2 that wait take an eighth of limits.body_memory, all peers' together half of it, or those of connections without a proven key a quarter"
            }
            Self::PlainHttp => {
                "it speaks plain HTTP, and this listener speaks TLS: call it with https://"
            }
            Self::ProxyProtocol => {
                "a load balancer sends the PROXY protocol: name it in trusted_proxies and write `proxy_protocol: true`, or switch it \
                 off there and let it set X-Forwarded-For"
            }
            Self::NoProxyHeader => {
                "it is in trusted_proxies and sends no whole header of the PROXY protocol first: switch that on there (send-proxy-v2, \
                 proxy_protocol on), or write `proxy_protocol: false`"
            }
            Self::Http2 => {
                "it speaks HTTP/2 without TLS: give the gate `tls`, or have it speak HTTP/1.1"
            }
            Self::LineEnd => "it ends lines with LF alone: HTTP wants CR LF",
            Self::Framing => {
                "its Content-Length or Transfer-Encoding can be read in two ways: a broken client, or a try to smuggle a request"
            }
            Self::Host => "its Host is no host, or another than its target's",
            Self::Malformed => "what it sends is not HTTP/1.1",
            Self::TooLarge => "its heads have more than 256 KiB or 100 fields",
            Self::TargetTooLong => "its targets have 64 KiB or more",
        }
    }

    /// The reason for bytes that no parser takes, by their beginning.
    fn of(input: &[u8]) -> Self {
        // The second version of the PROXY protocol begins with lines that HTTP skips.
        let blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let rest = &input[input.iter().take_while(blank).count()..];
        match rest {
            [0x16, 0x03, ..] => Self::Tls,
            rest if rest.starts_with(b"PROXY ") || rest.starts_with(b"\0\r\nQUIT") => {
                Self::ProxyProtocol
            }
            rest if rest.starts_with(b"PRI * HTTP/2") => Self::Http2,
            _ => Self::Malformed,
        }
    }
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
            return Err(BadHead::TooLarge);
        }
        Err(httparse::Error::Version) if reads_as_1_1(input) => return request_head(input),
        Err(_) => return Err(BadHead::of(input)),
    };
    let is_1_1 = parsed.version == Some(1);
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(BadHead::Malformed);
    };
    let head = &input[..whole];
    if !begins_with_empty_lines(head, method) || !lines_end_in_crlf(head, parsed.headers) {
        return Err(BadHead::LineEnd);
    }
    if target.len() >= usize::from(u16::MAX) {
        return Err(BadHead::TargetTooLong);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| BadHead::Malformed)?;
    let framed = RequestFraming::read(parsed.headers, is_1_1)?;
    let places = FieldSpan::of(parsed.headers, input);
    let begin = target.as_ptr() as usize - input.as_ptr() as usize;
    let target = begin..begin + target.len();
    let fields = Fields::take(input, whole, places);
    let target = Target::read(&fields.head().slice(target)).ok_or(BadHead::Malformed)?;
    match (target.scheme(), target.authority()) {
        (None, None) => {}
        // An authority alone names a tunnel.
        (None, Some(_)) if method == Method::CONNECT => {}
        // The upstream would obey one of the two, and tollgate cannot know which (RFC 9112 §3.2.2).
        (Some(scheme), Some(authority)) => {
            let port = default_port(scheme).ok_or(BadHead::Malformed)?;
            let named = without_port(authority.as_bytes(), port);
            let is_named = |host| without_port(host, port).eq_ignore_ascii_case(named);
            if named.contains(&b'@') || !fields.get_all("host").all(is_named) {
                return Err(BadHead::Host);
            }
        }
        _ => return Err(BadHead::Malformed),
    }
    Ok(Some(Box::new(RequestHead {
        method,
        target,
        is_1_1,
        fields,
        has_host: framed.has_host,
        names_hop_fields: framed.names_hop_fields,
        bytes: whole - 2,
        framing: framed.framing,
        keeps_alive: framed.keeps_alive,
        expects_continue: framed.expects_continue && is_1_1,
    })))
}

/// Makes a request of a later minor version one of HTTP/1.1, which is how it is to be read (RFC
/// 9110 §2.5). False when it is none.
fn reads_as_1_1(input: &mut BytesMut) -> bool {
    let blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
    let begin = input.iter().take_while(blank).count();
    let line = input[begin..].iter().take_while(|byte| !blank(byte));
    let end = begin + line.count();
    match &mut input[begin..end] {
        [
            ..,
            b' ',
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            minor @ b'2'..=b'9',
        ] => {
            *minor = b'1';
            true
        }
        _ => false,
    }
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

/// Whether only empty lines come before the first line of a request, each with its CR (RFC 9112
/// §2.2).
fn begins_with_empty_lines(head: &[u8], method: &str) -> bool {
    let before = &head[..method.as_ptr() as usize - head.as_ptr() as usize];
    before.chunks(2).all(|line| line == b"\r\n")
}

/// Whether no line of a parsed head ends without CR: that is a line here and may be a part of a
/// value to a proxy or the upstream. Lines are looked at where they begin, after the end of the one
/// before.
pub(crate) fn lines_end_in_crlf(head: &[u8], fields: &[httparse::Header<'_>]) -> bool {
    let before = |part: &str| &head[..part.as_ptr() as usize - head.as_ptr() as usize];
    fields
        .iter()
        .all(|field| before(field.name).ends_with(b"\r\n"))
        && head.ends_with(b"\r\n\r\n")
}

/// The fields that say where the request ends and what follows it, checked.
struct RequestFraming {
    framing: Framing,
    keeps_alive: bool,
    expects_continue: bool,
    has_host: bool,
    names_hop_fields: bool,
}

impl RequestFraming {
    fn read(fields: &[httparse::Header<'_>], is_1_1: bool) -> Result<Self, BadHead> {
        let (mut length, mut is_chunked) = (None, false);
        let (mut close, mut keep_alive, mut expects_continue) = (false, false, false);
        let (mut has_host, mut names_hop_fields) = (false, false);
        for field in fields {
            // Nearly every other field ends here.
            if !matches!(field.name.len(), 4 | 6 | 10 | 14 | 17) {
                continue;
            }
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let value = length_of(field.value).ok_or(BadHead::Framing)?;
                if length.replace(value).is_some() {
                    return Err(BadHead::Framing);
                }
            } else if is("transfer-encoding") {
                // Another coding, or this one twice, is one that the next hop may read in another
                // way.
                if !is_1_1 || is_chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadHead::Framing);
                }
                is_chunked = true;
            } else if is("connection") {
                for token in tokens(field.value) {
                    close |= token.eq_ignore_ascii_case(b"close");
                    keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                    names_hop_fields |= names_a_field(token);
                }
            } else if is("host") {
                // A bad one may be read as another host by the upstream.
                if !is_host(field.value) {
                    return Err(BadHead::Host);
                }
                has_host = true;
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
            has_host,
            names_hop_fields,
        })
    }
}
