//! A message on its way out: a head, then a body as it comes, in as few writes as can be.
//!
//! # Decided
//! - **A bulky body keeps its turn for a while** instead of giving way after each piece. The next
//!   piece then passes through memory that is still in the processor's cache. That saves a fifth of
//!   a large upload.

use crate::http::BULK_BYTES;
use crate::http::splice::{ByteWriter, Pipe};
use bytes::{Buf, Bytes};
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A body of at most this size is copied behind its head: one piece is cheaper to write than two.
const SMALL_BYTES: usize = 2 * 1024;
/// After this many large pieces other connections have their turn. A piece that is copied and
/// follows at once finds the memory that it passes through in the processor's cache. Together they
/// are 4 MiB, a millisecond or so.
const BULK_TURNS: usize = 16;

/// A body on its way through. Its sender asks for it piece by piece.
pub(crate) trait Body {
    /// Why it broke off.
    type Error: Into<Box<dyn std::error::Error + Send + Sync>>;

    /// The next piece, in memory or in the `pipe`, which must be empty; `None` when the body has
    /// ended.
    fn poll_piece(
        &mut self,
        pipe: Option<&mut Pipe>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Piece, Self::Error>>>;

    /// The number of bytes that are still to come; `None` while that is not known.
    fn left(&self) -> Option<u64>;

    /// Whether its rest is not to be sent any more: its time is over, or its sender has gone. To be
    /// asked only of a body that nobody takes, and not often, for it may cost a system call.
    fn is_given_up(&self) -> bool {
        false
    }
}

/// A part of a body.
#[derive(Debug)]
pub enum Piece {
    /// In memory.
    Read(Bytes),
    /// In a pipe; its length in bytes.
    Piped(usize),
}

impl Piece {
    /// In bytes.
    pub fn length(&self) -> usize {
        match self {
            Self::Read(data) => data.len(),
            Self::Piped(bytes) => *bytes,
        }
    }
}

impl From<Bytes> for Piece {
    fn from(data: Bytes) -> Self {
        Self::Read(data)
    }
}

impl Body for Bytes {
    type Error = std::convert::Infallible;

    fn poll_piece(
        &mut self,
        _: Option<&mut Pipe>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Piece, Self::Error>>> {
        let all = std::mem::take(self);
        Poll::Ready((!all.is_empty()).then(|| Ok(all.into())))
    }

    fn left(&self) -> Option<u64> {
        Some(self.len() as u64)
    }
}

/// How the end of a body is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Coding {
    /// By its length; the bytes that are still to come.
    Length(u64),
    /// By a last chunk.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// The bytes of a message that wait to be written: the head or a size line, then data.
pub struct Outbox {
    /// The head, a chunk's size line, small pieces of the body.
    lead: Vec<u8>,
    /// The bytes of `lead` that have been written.
    written: usize,
    data: Bytes,
    /// The end of a chunk.
    tail: &'static [u8],
    coding: Coding,
    begun: bool,
}

/// Why a message did not go whole.
#[derive(thiserror::Error, Debug)]
pub enum NotSent {
    /// The receiver takes no more.
    #[error(transparent)]
    Link(#[from] io::Error),
    /// Its body broke off, or is not as long as its head said. The link may be sound.
    #[error(transparent)]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

impl NotSent {
    fn body(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Body(error.into())
    }
}

impl From<NotSent> for io::Error {
    fn from(error: NotSent) -> Self {
        match error {
            NotSent::Link(error) => error,
            NotSent::Body(error) => Self::other(error),
        }
    }
}

/// The body is not what its head said.
#[derive(thiserror::Error, Debug)]
#[error("a body of another length than its head said")]
pub(crate) struct WrongLength;

impl Outbox {
    /// With a head that ends in its empty line.
    pub(crate) fn new(head: Vec<u8>, coding: Coding) -> Self {
        Self {
            lead: head,
            written: 0,
            data: Bytes::new(),
            tail: b"",
            coding,
            begun: false,
        }
    }

    /// Whether some byte may have reached the receiver.
    pub(crate) fn begun(&self) -> bool {
        self.begun
    }

    /// Whether all of it has been written.
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.lead.len() && self.has_room()
    }

    /// Whether the end of the body is told by its length, so that nothing stands between its
    /// pieces.
    fn is_sized(&self) -> bool {
        matches!(self.coding, Coding::Length(_))
    }

    /// Counts a piece of the body that goes through the pipe. Only when the body is sized.
    fn pass(&mut self, piped: usize) -> Result<(), WrongLength> {
        if let Coding::Length(left) = &mut self.coding {
            *left = left.checked_sub(piped as u64).ok_or(WrongLength)?;
        }
        Ok(())
    }

    /// Takes a piece of the body. Only when there is room.
    ///
    /// # Errors
    /// When it is more than the head said.
    pub(crate) fn push(&mut self, data: Bytes) -> Result<(), WrongLength> {
        if self.written == self.lead.len() {
            self.lead.clear();
            self.written = 0;
        }
        match &mut self.coding {
            Coding::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
            }
            // An empty chunk would be the end.
            Coding::Chunked if data.is_empty() => return Ok(()),
            Coding::Chunked => {
                // Writing to memory does not fail.
                let _ = write!(self.lead, "{:x}\r\n", data.len());
                self.tail = b"\r\n";
            }
            Coding::UntilClose => {}
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
    pub(crate) fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty()
    }

    /// The body has ended.
    ///
    /// # Errors
    /// When it is less than the head said.
    pub(crate) fn finish(&mut self) -> Result<(), WrongLength> {
        match self.coding {
            Coding::Length(0) | Coding::UntilClose => Ok(()),
            Coding::Length(_) => Err(WrongLength),
            Coding::Chunked => {
                // After the last piece, which may still be waiting.
                match self.has_room() {
                    true => self.lead.extend_from_slice(b"0\r\n\r\n"),
                    false => self.tail = b"\r\n0\r\n\r\n",
                }
                Ok(())
            }
        }
    }

    /// The bytes to write: one piece, or several.
    pub(crate) fn pieces(&self) -> Result<&[u8], [IoSlice<'_>; 3]> {
        let lead = &self.lead[self.written..];
        match (lead.is_empty(), self.has_room()) {
            (_, true) => Ok(lead),
            (true, false) if self.tail.is_empty() => Ok(&self.data),
            (_, false) => Err([lead, &*self.data, self.tail].map(IoSlice::new)),
        }
    }

    /// Notes that so many bytes were written.
    pub(crate) fn advance(&mut self, written: usize) {
        self.begun |= written > 0;
        let of_lead = written.min(self.lead.len() - self.written);
        self.written += of_lead;
        let of_data = (written - of_lead).min(self.data.len());
        self.data.advance(of_data);
        if self.data.is_empty() {
            // Lets go of the memory, so that the next piece can be read into it.
            self.data = Bytes::new();
        }
        self.tail = &self.tail[written - of_lead - of_data..];
    }

    /// The memory of its head, for another one.
    pub(crate) fn into_memory(mut self) -> Vec<u8> {
        self.lead.clear();
        self.lead
    }
}

/// A message on its way out.
pub(crate) struct Outgoing<B> {
    outbox: Outbox,
    /// Pieces of a large body on their way from socket to socket. They go after the outbox.
    pipe: Pipe,
    /// `None` when all of it is in the outbox.
    body: Option<B>,
}

impl<B: Body> Outgoing<B> {
    /// With a head that ends in its empty line; `body` is `None` when there is nothing after it.
    pub(crate) fn new(head: Vec<u8>, coding: Coding, body: Option<B>) -> Self {
        Self {
            outbox: Outbox::new(head, coding),
            pipe: Pipe::default(),
            body,
        }
    }

    /// Whether some byte may have reached the receiver: then it must not be sent a second time.
    pub(crate) fn begun(&self) -> bool {
        self.outbox.begun()
    }

    /// Whether the rest of its body is not to be sent any more ([`Body::is_given_up`]).
    pub(crate) fn is_given_up(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_given_up)
    }

    /// The memory of its head, for another one.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        self.outbox.into_memory()
    }

    /// Writes as much as there is and as the receiver takes; ready when all has gone.
    ///
    /// # Errors
    /// When the receiver takes no more, when the body breaks off, and when it is not as long as was
    /// said.
    pub(crate) fn poll_send(
        &mut self,
        stream: &mut impl ByteWriter,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), NotSent>> {
        let mut large_pieces = 0;
        loop {
            let mut body_is_late = false;
            if let Some(body) = &mut self.body
                && self.outbox.has_room()
                && self.pipe.is_empty()
            {
                let pipes = self.outbox.is_sized() && stream.socket().is_some();
                match body.poll_piece(pipes.then_some(&mut self.pipe), cx) {
                    Poll::Ready(Some(Ok(piece))) => {
                        let (is_large, pushed) = match piece {
                            Piece::Read(data) => {
                                (data.len() as u64 >= BULK_BYTES, self.outbox.push(data))
                            }
                            // However short: what comes at the pace at which it is sent on would
                            // never end the turn.
                            Piece::Piped(length) => (true, self.outbox.pass(length)),
                        };
                        pushed.map_err(NotSent::body)?;
                        large_pieces += usize::from(is_large);
                        if body.left() == Some(0) {
                            self.body = None;
                        }
                    }
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(NotSent::body(error)));
                    }
                    Poll::Ready(None) => self.body = None,
                    Poll::Pending => body_is_late = true,
                }
                if self.body.is_none() {
                    self.outbox.finish().map_err(NotSent::body)?;
                }
            }
            let written = if !self.outbox.is_empty() {
                let stream = Pin::new(&mut *stream);
                let written = ready!(match self.outbox.pieces() {
                    Ok(one) => stream.poll_write(cx, one),
                    Err(several) => stream.poll_write_vectored(cx, &several),
                })?;
                self.outbox.advance(written);
                written
            } else if !self.pipe.is_empty() {
                ready!(stream.poll_pour(&mut self.pipe, cx))?
            } else {
                match self.body {
                    Some(_) if !body_is_late => continue,
                    // What TLS has taken may wait for the socket.
                    Some(_) => {
                        let _ = Pin::new(&mut *stream).poll_flush(cx)?;
                        return Poll::Pending;
                    }
                    None => return Pin::new(&mut *stream).poll_flush(cx).map_err(NotSent::Link),
                }
            };
            if written == 0 {
                let cause = io::Error::from(io::ErrorKind::WriteZero);
                return Poll::Ready(Err(cause.into()));
            }
            if large_pieces >= BULK_TURNS {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}
