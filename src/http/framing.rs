//! The framing of bodies: where one begins and ends (RFC 9112 §6, §7). Pure.

use crate::http::Pipe;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use std::io;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// The most bytes of a chunk's size line, and of all extensions and trailers of a body together.
const LINE_BYTES: usize = 4 * 1024;
const EXTRA_BYTES: usize = 16 * 1024;
/// A piece or a rest this large is part of a large body.
pub(crate) const BULK_BYTES: u64 = 32 * 1024;
/// A chunk smaller than this is moved to the one before it.
const SMALL_CHUNK_BYTES: usize = 4 * 1024;
/// The most trailers.
const TRAILERS: u8 = 100;

/// The bytes are not HTTP, or their end cannot be told.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// The elements of a list.
pub(crate) fn tokens(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Digits only: no sign, no space.
pub(crate) fn length_of(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// The rule by which a body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// After so many more bytes.
    Length(u64),
    /// After the last chunk.
    Chunked(Chunked),
    /// With the connection.
    UntilClose,
}

/// How far a chunked body has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunked {
    next: Chunk,
    /// The bytes of extensions and trailers that have come.
    extra: usize,
}

/// The part of a chunked body that comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chunk {
    /// A size line.
    Size,
    /// Data; the bytes of it that are still to come.
    Data(u64),
    /// The end of the line after the data.
    DataEnd,
    /// A trailer or the empty line; so many trailers have come.
    Trailers(u8),
    /// Nothing: it has ended.
    Ended,
    /// Nothing: it was malformed, and the bytes after a mistake are not read.
    Broken(Malformed),
}

impl Framing {
    /// Chunked, before its first byte.
    pub const CHUNKED: Self = Self::Chunked(Chunked {
        next: Chunk::Size,
        extra: 0,
    });

    /// Whether the whole body has been taken.
    pub fn has_ended(self) -> bool {
        match self {
            Self::Length(left) => left == 0,
            Self::Chunked(chunked) => chunked.next == Chunk::Ended,
            Self::UntilClose => false,
        }
    }

    /// The number of bytes that are still to come, if the framing tells.
    pub fn left(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            _ => self.has_ended().then_some(0),
        }
    }

    /// Lets the next piece of a large body pass from its socket into a pipe, and says how long it
    /// is; 0 when the stream has ended before the body. `None` when it must be read instead: a
    /// short rest, a body of unknown length, no pipe.
    pub fn poll_fill(
        &mut self,
        pipe: &mut Pipe,
        from: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<usize>>> {
        let Self::Length(left @ BULK_BYTES..) = self else {
            return Poll::Ready(Ok(None));
        };
        pipe.poll_fill(from, *left, cx).map_ok(|moved| {
            *left -= moved.unwrap_or_default() as u64;
            moved
        })
    }

    /// Takes the next piece of the body off the front of `input`; `None` when more bytes are needed
    /// or the body has ended. Bytes after the body stay.
    ///
    /// # Errors
    /// When it is not chunked as it should be. The error is final: it comes again whenever more is
    /// asked for.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        match self {
            Self::Length(left) => Ok(piece(left, input)),
            Self::UntilClose => Ok((!input.is_empty()).then(|| input.split().freeze())),
            Self::Chunked(chunked) => chunked.take(input),
        }
    }

    /// Looks through what has come of the body and takes nothing.
    ///
    /// # Errors
    /// When [`take`](Self::take) would come to a mistake in `input`.
    pub fn check(self, mut input: &[u8]) -> Result<(), Malformed> {
        let Self::Chunked(mut chunked) = self else {
            return Ok(());
        };
        loop {
            let (framing, data) = chunked.step(input)?;
            if data == 0 {
                return Ok(());
            }
            input = &input[framing + data..];
        }
    }
}

/// At most `left` bytes off the front.
fn piece(left: &mut u64, input: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= length as u64;
    (length > 0).then(|| input.split_to(length).freeze())
}

impl Chunked {
    fn take(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        let (framing, data) = self.step(input)?;
        input.advance(framing);
        if data == 0 || data >= SMALL_CHUNK_BYTES {
            return Ok((data > 0).then(|| input.split_to(data).freeze()));
        }
        // Small chunks that follow are moved up to this one: each piece costs more than its bytes.
        let (mut gathered, mut read) = (data, data);
        loop {
            let before = *self;
            match self.step(&input[read..]) {
                Ok((framing, data)) if data < SMALL_CHUNK_BYTES => {
                    read += framing;
                    input.copy_within(read..read + data, gathered);
                    (gathered, read) = (gathered + data, read + data);
                    if data == 0 {
                        break;
                    }
                }
                // It comes by itself: a large chunk is not copied, and a mistake follows what was
                // right.
                _ => {
                    *self = before;
                    break;
                }
            }
        }
        let data = input.split_to(gathered).freeze();
        input.advance(read - gathered);
        Ok(Some(data))
    }

    /// Reads on to the next data: how many bytes of `input` come before it, and how many it has. No
    /// data when more bytes are needed or the body has ended.
    fn step(&mut self, input: &[u8]) -> Result<(usize, usize), Malformed> {
        let mut framing = 0;
        loop {
            let input = &input[framing..];
            match &mut self.next {
                Chunk::Data(left) => {
                    let data =
                        usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                    *left -= data as u64;
                    if *left == 0 {
                        self.next = Chunk::DataEnd;
                    }
                    return Ok((framing, data));
                }
                Chunk::Ended => return Ok((framing, 0)),
                Chunk::Broken(malformed) => return Err(*malformed),
                Chunk::Size | Chunk::DataEnd | Chunk::Trailers(_) => {}
            }
            let read = match self.next {
                Chunk::DataEnd => line_end(input),
                _ => line(input),
            };
            match read.and_then(|line| line.map(|line| self.read(line)).transpose()) {
                Ok(Some(length)) => framing += length,
                Ok(None) => return Ok((framing, 0)),
                Err(malformed) => {
                    self.next = Chunk::Broken(malformed);
                    return Err(malformed);
                }
            }
        }
    }

    /// Reads a line that frames: how many bytes it has with its end.
    fn read(&mut self, line: &[u8]) -> Result<usize, Malformed> {
        self.next = match self.next {
            Chunk::Size => {
                let (size, extension) = chunk_size(line)?;
                self.count(extension)?;
                match size {
                    0 => Chunk::Trailers(0),
                    size => Chunk::Data(size),
                }
            }
            Chunk::DataEnd => Chunk::Size,
            Chunk::Trailers(_) if line.is_empty() => Chunk::Ended,
            Chunk::Trailers(come) if come < TRAILERS && is_field(line) => {
                self.count(line.len())?;
                Chunk::Trailers(come + 1)
            }
            Chunk::Trailers(_) => {
                return Err(Malformed("its trailers are no fields, or too many"));
            }
            next @ (Chunk::Data(_) | Chunk::Ended | Chunk::Broken(_)) => next,
        };
        Ok(line.len() + 2)
    }

    /// Bounds extensions and trailers, which no other limit counts.
    fn count(&mut self, extra: usize) -> Result<(), Malformed> {
        self.extra += extra;
        match self.extra <= EXTRA_BYTES {
            true => Ok(()),
            false => Err(Malformed("its extensions and trailers are too long")),
        }
    }
}

/// The end of the line after the data of a chunk; `None` while it is not whole. A wrong end is seen
/// at its first byte: the second may never come.
fn line_end(input: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    match input {
        [b'\r', b'\n', ..] => Ok(Some(b"")),
        [] | [b'\r'] => Ok(None),
        _ => Err(Malformed("a chunk is longer than its size")),
    }
}

/// The line at the front of `input`, without its CRLF; `None` while it is not whole.
fn line(input: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let input = &input[..input.len().min(LINE_BYTES)];
    match input.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(end) => match input[end..] {
            [b'\r', b'\n', ..] => Ok(Some(&input[..end])),
            [b'\n', ..] => Err(Malformed("a line of its chunks ends without CR")),
            [b'\r'] if input.len() < LINE_BYTES => Ok(None),
            [b'\r'] => Err(Malformed("a line of its chunks is too long")),
            _ => Err(Malformed("a line of its chunks holds a bare CR")),
        },
        None if input.len() < LINE_BYTES => Ok(None),
        None => Err(Malformed("a line of its chunks is too long")),
    }
}

/// Whether a trailer could be a field of a head. It is dropped, but a line that is no field may be
/// another message to another server.
fn is_field(line: &[u8]) -> bool {
    let mut parts = line.splitn(2, |byte| *byte == b':');
    let name = parts.next().map(HeaderName::from_bytes);
    let value = parts.next().map(HeaderValue::from_bytes);
    matches!((name, value), (Some(Ok(_)), Some(Ok(_))))
}

/// Hexadecimal digits, then perhaps an extension, which is dropped (RFC 9112 §7.1): the size, and
/// the length of the extension.
fn chunk_size(line: &[u8]) -> Result<(u64, usize), Malformed> {
    let no_number = Malformed("the size of a chunk is no number");
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let digits = &line[..digits.count()];
    let extension = &line[digits.len()..];
    let mut rest = extension.iter();
    let after = rest.find(|byte| !matches!(byte, b' ' | b'\t'));
    if after.is_some_and(|byte| *byte != b';') {
        return Err(no_number);
    }
    // A server that takes NUL for the end of a text, or VT for a blank, reads another line.
    let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if extension.iter().any(is_control) {
        return Err(Malformed("the extension of a chunk holds a control byte"));
    }
    let size = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or(no_number)?;
    Ok((size, line.len() - digits.len()))
}

#[cfg(test)]
mod tests;
