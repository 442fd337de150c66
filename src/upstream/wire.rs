//! HTTP/1.1 as the upstream speaks it: heads and framings, bytes in and bytes out (RFC 9112).
//!
//! Pure. Must never guess where a message ends: what is ambiguous is nonsense, and what follows an
//! answer unasked is never taken for the next one.

use super::Nonsense;
use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode, Uri};
use std::io::IoSlice;
use std::mem::MaybeUninit;

/// The largest head of an answer, in bytes, and the most fields in it.
const HEAD_BYTES: usize = 64 * 1024;
const HEAD_FIELDS: usize = 100;
/// So little data is copied to its head: a write of one piece is cheaper than one of two.
const SMALL_BYTES: usize = 2 * 1024;
/// The most bytes of a chunk's size line, and of all trailers together.
const LINE_BYTES: usize = 4 * 1024;
const TRAILER_BYTES: usize = 16 * 1024;

/// The fields that end at this hop (RFC 9110 §7.6.1): the usual ones, and those that `Connection` of
/// this head names.
pub struct HopByHop<'h> {
    named: Vec<&'h [u8]>,
}

impl<'h> HopByHop<'h> {
    /// Reads what `Connection` names.
    pub fn of(headers: &'h HeaderMap) -> Self {
        let lines = headers.get_all(header::CONNECTION).iter();
        let named = lines.flat_map(|line| tokens(line.as_bytes()));
        Self {
            named: named.filter(|token| is_a_name(token)).collect(),
        }
    }

    /// Whether the field must not be passed on. `Content-Length` is one of them: the framing of the
    /// next hop follows from its body.
    pub fn contains(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        is_of_one_hop(name)
            || self
                .named
                .iter()
                .any(|named| named.eq_ignore_ascii_case(name.as_bytes()))
    }
}

fn is_of_one_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// The words of a list.
fn tokens(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether a word of `Connection` is a field's name that ends here. What everybody says costs no
/// memory, and a `Host` must not be lost.
fn is_a_name(token: &[u8]) -> bool {
    !["", "keep-alive", "close", "host"]
        .iter()
        .any(|usual| token.eq_ignore_ascii_case(usual.as_bytes()))
}

/// The head of a request as it goes out: its line and the fields written so far. What goes in was
/// checked by its type, so that no value can end a line early.
pub struct RequestHead {
    bytes: BytesMut,
    method: Method,
}

impl RequestHead {
    /// `target` is written in origin form.
    pub fn new(method: Method, target: &Uri) -> Self {
        let mut bytes = BytesMut::with_capacity(1024);
        let target = target.path_and_query().map_or("/", PathAndQuery::as_str);
        for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
        Self { bytes, method }
    }

    /// A field as it came.
    pub fn field(&mut self, name: &HeaderName, value: &HeaderValue) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            self.bytes.extend_from_slice(part);
        }
    }

    /// A field of our own. Left out when the text is anything but visible ASCII and spaces.
    pub fn text(&mut self, name: &'static str, text: &str) {
        // Every byte is looked at, which is quicker than stopping at the first bad one.
        let odd = text.bytes().fold(0, |odd, byte| {
            odd | u8::from(byte < b' ') | u8::from(byte > b'~')
        });
        if odd == 0 {
            for part in [name, ": ", text, "\r\n"] {
                self.bytes.extend_from_slice(part.as_bytes());
            }
        }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// Ends the head with the framing of a body: `length` in bytes, or chunked when it is not known.
    fn end(&mut self, length: Option<u64>) {
        let usually_none = !matches!(self.method, Method::POST | Method::PUT | Method::PATCH);
        match length {
            Some(0) if usually_none => self.bytes.extend_from_slice(b"\r\n"),
            Some(length) => {
                let mut number = itoa::Buffer::new();
                self.bytes.extend_from_slice(b"content-length: ");
                self.bytes
                    .extend_from_slice(number.format(length).as_bytes());
                self.bytes.extend_from_slice(b"\r\n\r\n");
            }
            None => self
                .bytes
                .extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
        }
    }
}

/// The bytes of a request that wait to be written: what frames, then what is framed.
pub(super) struct Outbox {
    /// The head, a chunk's size line.
    lead: BytesMut,
    data: Bytes,
    /// The end of a chunk.
    tail: &'static [u8],
    /// How many bytes of the body are still to come; `None` when chunked.
    left: Option<u64>,
    begun: bool,
}

/// The body is not what its head said.
#[derive(Debug)]
pub(super) struct WrongLength;

impl Outbox {
    /// With a body of `length` bytes, or of nobody knows how many.
    pub(super) fn new(mut head: RequestHead, length: Option<u64>) -> Self {
        head.end(length);
        Self {
            lead: head.bytes,
            data: Bytes::new(),
            tail: b"",
            left: length,
            begun: false,
        }
    }

    /// Whether some byte may have reached the upstream: then the request must not be sent a second time.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lead.is_empty() && self.has_room()
    }

    /// Takes a piece of the body. Only when there is room.
    pub(super) fn push(&mut self, data: Bytes) -> Result<(), WrongLength> {
        match &mut self.left {
            Some(left) => *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?,
            // An empty chunk would be the end.
            None if data.is_empty() => return Ok(()),
            None => {
                let line = format!("{:x}\r\n", data.len());
                self.lead.extend_from_slice(line.as_bytes());
                self.tail = b"\r\n";
            }
        }
        if data.len() <= SMALL_BYTES {
            self.lead.extend_from_slice(&data);
            self.lead.extend_from_slice(std::mem::take(&mut self.tail));
        } else {
            self.data = data;
        }
        Ok(())
    }

    /// Whether the last piece has gone.
    pub(super) fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty()
    }

    /// The body has ended.
    pub(super) fn finish(&mut self) -> Result<(), WrongLength> {
        match self.left {
            Some(0) => Ok(()),
            Some(_) => Err(WrongLength),
            None => {
                self.lead.extend_from_slice(b"0\r\n\r\n");
                Ok(())
            }
        }
    }

    /// What there is to write: one piece, or several.
    pub(super) fn pieces(&self) -> Result<&[u8], [IoSlice<'_>; 3]> {
        match self.has_room() {
            true => Ok(&self.lead),
            false => Err([&*self.lead, &*self.data, self.tail].map(IoSlice::new)),
        }
    }

    /// So many bytes were written.
    pub(super) fn advance(&mut self, written: usize) {
        self.begun |= written > 0;
        let of_lead = written.min(self.lead.len());
        self.lead.advance(of_lead);
        let of_data = (written - of_lead).min(self.data.len());
        self.data.advance(of_data);
        self.tail = &self.tail[written - of_lead - of_data..];
    }
}

/// The head of an answer, read.
#[derive(Debug)]
pub(super) struct AnswerHead {
    /// Without the fields that end here.
    pub(super) response: Response<()>,
    pub(super) framing: Framing,
    /// Whether another request may follow on the connection once the answer has ended.
    pub(super) keeps_alive: bool,
}

/// Takes the head of the final answer to a `method` request off the front of `input`; `None` while it is not whole.
/// Interim answers before it are skipped.
pub(super) fn answer_head(
    input: &mut BytesMut,
    method: &Method,
) -> Result<Option<AnswerHead>, Nonsense> {
    loop {
        let mut fields = [const { MaybeUninit::uninit() }; HEAD_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let whole = match httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            input,
            &mut fields,
        ) {
            Ok(httparse::Status::Complete(whole)) => whole,
            Ok(httparse::Status::Partial) if input.len() <= HEAD_BYTES => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(Nonsense("its head is too long")),
            Err(httparse::Error::TooManyHeaders) => return Err(Nonsense("its head is too long")),
            Err(_) => return Err(Nonsense("its head is malformed")),
        };
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Nonsense("its status is none"))?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Nonsense("it switches protocols unasked"));
        }
        if status.is_informational() {
            input.advance(whole);
            continue;
        }
        let is_1_0 = parsed.version == Some(0);
        let Fields {
            headers,
            length,
            codings,
            close,
            keep_alive,
        } = Fields::read(parsed.headers)?;
        let bodiless = *method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        // RFC 9112 §6.3
        let framing = match (codings, length) {
            _ if bodiless => Framing::Length(0),
            (Codings::None, Some(length)) => Framing::Length(length),
            (Codings::None, None) => Framing::UntilClose,
            (Codings::Chunked, None) if !is_1_0 => Framing::Chunked(Chunk::Size),
            // Two framings, a coding that nobody asked for, or one in HTTP/1.0: not to be guessed at.
            _ => return Err(Nonsense("its framing is ambiguous")),
        };
        input.advance(whole);
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        return Ok(Some(AnswerHead {
            response,
            framing,
            keeps_alive: framing != Framing::UntilClose && if is_1_0 { keep_alive } else { !close },
        }));
    }
}

/// The fields of a head: those that are passed on, and what the others say.
struct Fields {
    headers: HeaderMap,
    length: Option<u64>,
    codings: Codings,
    close: bool,
    keep_alive: bool,
}

#[derive(Clone, Copy)]
enum Codings {
    None,
    Chunked,
    Others,
}

impl Fields {
    fn read(fields: &[httparse::Header<'_>]) -> Result<Self, Nonsense> {
        let malformed = Nonsense("a field of its head is malformed");
        let mut read = Self {
            headers: HeaderMap::with_capacity(fields.len() + 2),
            length: None,
            codings: Codings::None,
            close: false,
            keep_alive: false,
        };
        let mut named = Vec::new();
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed)?;
            match name.as_str() {
                "connection" => {
                    for token in tokens(field.value) {
                        read.close |= token.eq_ignore_ascii_case(b"close");
                        read.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                        if is_a_name(token) {
                            named.extend(HeaderName::from_bytes(token));
                        }
                    }
                }
                "content-length" => {
                    for value in tokens(field.value) {
                        let value = length_of(value).ok_or(Nonsense("its length is no number"))?;
                        if read.length.is_some_and(|known| known != value) {
                            return Err(Nonsense("it has two lengths"));
                        }
                        read.length = Some(value);
                    }
                }
                "transfer-encoding" => {
                    let is_first = matches!(read.codings, Codings::None);
                    let is_chunked = field.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                    read.codings = match is_first && is_chunked {
                        true => Codings::Chunked,
                        false => Codings::Others,
                    };
                }
                name if is_of_one_hop(name) => {}
                _ => {
                    let value = HeaderValue::from_bytes(field.value).map_err(|_| malformed)?;
                    read.headers.append(name, value);
                }
            }
        }
        for name in named {
            read.headers.remove(name);
        }
        Ok(read)
    }
}

/// Digits only: no sign, no space.
fn length_of(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Where a body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// After so many more bytes.
    Length(u64),
    /// After the last chunk.
    Chunked(Chunk),
    /// With the connection.
    UntilClose,
}

/// What comes next in a chunked body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Chunk {
    /// A size line.
    Size,
    /// So many bytes of data.
    Data(u64),
    /// The end of the line after the data.
    DataEnd,
    /// A trailer or the empty line; so many bytes of trailers have come.
    Trailers(usize),
    /// Nothing: it has ended.
    Ended,
}

impl Framing {
    /// Whether the whole body has been taken.
    pub(super) fn has_ended(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Ended))
    }

    /// How many bytes are still to come, if the framing tells.
    pub(super) fn left(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            Self::Chunked(Chunk::Ended) => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes the next piece of the body off the front of `input`; `None` when more bytes are needed or
    /// the body has ended. What follows the body stays.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Nonsense> {
        match self {
            Self::Length(left) => Ok(piece(left, input)),
            Self::UntilClose => Ok((!input.is_empty()).then(|| input.split().freeze())),
            Self::Chunked(chunk) => chunk.take(input),
        }
    }
}

/// At most `left` bytes off the front.
fn piece(left: &mut u64, input: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= length as u64;
    (length > 0).then(|| input.split_to(length).freeze())
}

impl Chunk {
    fn take(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Nonsense> {
        loop {
            *self = match self {
                Self::Size => match line(input)? {
                    None => return Ok(None),
                    Some(line) => match chunk_size(&line)? {
                        0 => Self::Trailers(0),
                        size => Self::Data(size),
                    },
                },
                Self::Data(0) => Self::DataEnd,
                Self::Data(left) => return Ok(piece(left, input)),
                Self::DataEnd => match line(input)? {
                    None => return Ok(None),
                    Some(line) if line.is_empty() => Self::Size,
                    Some(_) => return Err(Nonsense("a chunk is longer than its size")),
                },
                Self::Trailers(bytes) => match line(input)? {
                    None => return Ok(None),
                    Some(line) if line.is_empty() => Self::Ended,
                    Some(line) if *bytes + line.len() <= TRAILER_BYTES => {
                        Self::Trailers(*bytes + line.len())
                    }
                    Some(_) => return Err(Nonsense("its trailers are too long")),
                },
                Self::Ended => return Ok(None),
            }
        }
    }
}

/// Takes a line off the front of `input`, without its CRLF; `None` while it is not whole.
fn line(input: &mut BytesMut) -> Result<Option<Bytes>, Nonsense> {
    match input
        .iter()
        .take(LINE_BYTES)
        .position(|byte| *byte == b'\n')
    {
        Some(end) if end > 0 && input[end - 1] == b'\r' => {
            let line = input.split_to(end + 1).freeze();
            Ok(Some(line.slice(..end - 1)))
        }
        Some(_) => Err(Nonsense("a line of its chunks ends without CR")),
        None if input.len() < LINE_BYTES => Ok(None),
        None => Err(Nonsense("a line of its chunks is too long")),
    }
}

/// Hexadecimal digits, then perhaps an extension, which nobody has use for (RFC 9112 §7.1).
fn chunk_size(line: &[u8]) -> Result<u64, Nonsense> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let digits = &line[..digits.count()];
    let rest = line[digits.len()..].trim_ascii_start();
    if rest.first().is_some_and(|byte| *byte != b';') {
        return Err(Nonsense("the size of a chunk is no number"));
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or(Nonsense("the size of a chunk is no number"))
}

#[cfg(test)]
mod tests;
