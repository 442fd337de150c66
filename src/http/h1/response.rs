//! The heads of HTTP/1.1 towards the upstream: that of a request written, that of an answer read
//! (RFC 9112).
//!
//! Pure. Must never guess: an ambiguous answer is nonsense.

use crate::http::h1::Coding;
use crate::http::h1::hop::{HopByHop, is_of_one_hop};
use crate::http::h1::request::lines_end_in_crlf;
use crate::http::names::X_BILLABLE;
use crate::http::{
    Field, FieldSpan, Fields, Framing, HeadWriter, Malformed, Target, length_of, tokens,
};
use bytes::{Buf, BytesMut};
use http::{Method, StatusCode};
use std::mem::MaybeUninit;
use std::time::Duration;

/// The largest head of an answer, in bytes, and the most fields in it.
const HEAD_BYTES: usize = 64 * 1024;
const HEAD_FIELDS: usize = 100;

/// The bytes are not HTTP, or their end cannot be told.
#[derive(thiserror::Error, Clone, Copy, Debug)]
#[error("the upstream's answer is not HTTP: {0}")]
pub(crate) struct Nonsense(&'static str);

impl From<Malformed> for Nonsense {
    fn from(Malformed(why): Malformed) -> Self {
        Self(why)
    }
}

/// The head of a request as it goes out: its line and the fields written so far. Types check each
/// part, so that no value can end a line early.
pub(crate) struct ForwardHead {
    lines: HeadWriter,
    method: Method,
}

impl ForwardHead {
    /// `target` is written in origin form.
    pub(crate) fn new(method: Method, target: &Target) -> Self {
        let mut lines = HeadWriter::new(Vec::with_capacity(1024));
        let path = match target.path() {
            "" => "/",
            path => path,
        };
        let (mark, query) = match target.query() {
            Some(query) => ("?", query),
            None => ("", ""),
        };
        lines.first([method.as_str(), " ", path, mark, query, " HTTP/1.1"]);
        Self { lines, method }
    }

    /// A field as it came.
    pub(crate) fn field(&mut self, field: Field<'_>) {
        self.lines.field(field);
    }

    /// A field of our own. Left out when the text is anything but visible ASCII and spaces.
    pub(crate) fn text(&mut self, name: &'static str, text: impl AsRef<[u8]>) {
        self.lines.text(name, text);
    }

    /// A list of our own, which goes on where the fields of this name in the head that was read
    /// end.
    pub(crate) fn list(&mut self, name: &'static str, before: &Fields, last: &str) {
        self.lines.list(name, before, last);
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// Ends the head with the framing of a body: `length` in bytes, or chunked when it is not
    /// known.
    pub(crate) fn end(mut self, length: Option<u64>) -> (Vec<u8>, Coding) {
        let usually_none = !matches!(self.method, Method::POST | Method::PUT | Method::PATCH);
        let coding = match length {
            Some(0) if usually_none => Coding::Length(0),
            Some(length) => {
                self.lines.number("content-length", length);
                Coding::Length(length)
            }
            None => {
                self.lines.fixed("transfer-encoding: chunked\r\n");
                Coding::Chunked
            }
        };
        (self.lines.end(), coding)
    }
}

/// The head of an answer, read.
#[derive(Debug)]
pub(crate) struct AnswerHead {
    pub(crate) status: StatusCode,
    /// Without those that end here.
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    /// Whether another request may follow on the connection once the answer has ended.
    pub(crate) keeps_alive: bool,
    /// How long it may wait for that request, when the upstream says so.
    pub(crate) keep_alive: Option<Duration>,
}

/// Takes the head of the final answer to a `method` request off the front of `input`; `None` while
/// it is not whole. Interim answers before it are skipped.
pub(crate) fn answer_head(
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
        // A part that the parser skips or forgives may be a line to another reader.
        if !input.starts_with(b"HTTP/") || !lines_end_in_crlf(&input[..whole], parsed.headers) {
            return Err(Nonsense("its head is malformed"));
        }
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
        let AnswerFraming {
            length,
            codings,
            close,
            keep_alive,
            timeout,
        } = AnswerFraming::read(parsed.headers)?;
        let bodiless = *method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        // RFC 9112 §6.3
        let framing = match (codings, length) {
            _ if bodiless => Framing::Length(0),
            (Codings::None, Some(length)) => Framing::Length(length),
            (Codings::None, None) => Framing::UntilClose,
            (Codings::Chunked, None) if !is_1_0 => Framing::CHUNKED,
            // Two framings, a coding that nobody asked for, or one in HTTP/1.0: not to be guessed
            // at.
            _ => return Err(Nonsense("its framing is ambiguous")),
        };
        let places = FieldSpan::of(parsed.headers, input);
        let mut fields = Fields::take(input, whole, places);
        drop_hop_fields(&mut fields);
        return Ok(Some(AnswerHead {
            status,
            fields,
            framing,
            keeps_alive: framing != Framing::UntilClose && if is_1_0 { keep_alive } else { !close },
            keep_alive: timeout.map(before_the_end_of),
        }));
    }
}

/// Drops the fields of an answer that end at this hop.
fn drop_hop_fields(fields: &mut Fields) {
    let hop = HopByHop::of(fields);
    // Mostly nothing is named, and then nothing is copied.
    let named: Vec<Vec<u8>> = hop
        .named
        .into_iter()
        .map(<[u8]>::to_ascii_lowercase)
        .collect();
    // The veto ends here in any case. That `Connection` names it too must not take the veto back.
    let is_for_us = |name: &[u8]| name == X_BILLABLE.as_bytes();
    let is_named = |name: &[u8]| named.iter().any(|named| named == name);
    fields.retain(|name| !is_of_one_hop(name) && (is_for_us(name) || !is_named(name)));
}

/// The fields that say where an answer ends and whether another may follow.
struct AnswerFraming {
    length: Option<u64>,
    codings: Codings,
    close: bool,
    keep_alive: bool,
    timeout: Option<Duration>,
}

#[derive(Clone, Copy)]
enum Codings {
    None,
    Chunked,
    Others,
}

impl AnswerFraming {
    fn read(fields: &[httparse::Header<'_>]) -> Result<Self, Nonsense> {
        let mut read = Self {
            length: None,
            codings: Codings::None,
            close: false,
            keep_alive: false,
            timeout: None,
        };
        for field in fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("connection") {
                for token in tokens(field.value) {
                    read.close |= token.eq_ignore_ascii_case(b"close");
                    read.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if is("content-length") {
                for value in tokens(field.value) {
                    let value = length_of(value).ok_or(Nonsense("its length is no number"))?;
                    if read.length.is_some_and(|known| known != value) {
                        return Err(Nonsense("it has two lengths"));
                    }
                    read.length = Some(value);
                }
            } else if is("keep-alive") {
                read.timeout = tokens(field.value).find_map(timeout_of).or(read.timeout);
            } else if is("transfer-encoding") {
                let is_first = matches!(read.codings, Codings::None);
                let is_chunked = field.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                read.codings = match is_first && is_chunked {
                    true => Codings::Chunked,
                    false => Codings::Others,
                };
            }
        }
        Ok(read)
    }
}

/// The seconds of a parameter `timeout=N` of `Keep-Alive`, a field that many servers send and no
/// RFC defines any more (RFC 2068 §19.7.1.1 did).
fn timeout_of(parameter: &[u8]) -> Option<Duration> {
    let (name, value) = parameter.split_at_checked(b"timeout=".len())?;
    let seconds = name
        .eq_ignore_ascii_case(b"timeout=")
        .then(|| length_of(value))??;
    Some(Duration::from_secs(seconds))
}

/// How long a connection is held that the upstream closes after `timeout`: a second less, or half
/// of a short one. The upstream counts from when it sent its answer, and a call has to arrive
/// before the end.
fn before_the_end_of(timeout: Duration) -> Duration {
    timeout
        .saturating_sub(Duration::from_secs(1))
        .max(timeout / 2)
}

#[cfg(test)]
mod tests;
