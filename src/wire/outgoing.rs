//! A message on its way out: a head, then a body as it comes, in as few writes as can be.

use bytes::{Buf, Bytes};
use http_body::Body;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// So little data is copied to its head: a write of one piece is cheaper than one of two.
const SMALL_BYTES: usize = 2 * 1024;
/// A piece this large is one of many.
const BULK_BYTES: usize = 32 * 1024;
/// So many large pieces pass before others have their turn: a piece that follows at once finds the memory that it
/// passes through in the processor's cache. 4 MiB, a millisecond or so.
const BULK_TURNS: usize = 16;

/// How the end of a body is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// By its length, of which so many bytes are still to come.
    Length(u64),
    /// By a last chunk.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// The bytes of a message that wait to be written: what frames, then what is framed.
pub struct Outbox {
    /// The head, a chunk's size line, small pieces of the body.
    lead: Vec<u8>,
    /// How much of it has been written.
    written: usize,
    data: Bytes,
    /// The end of a chunk.
    tail: &'static [u8],
    coding: Coding,
    begun: bool,
}

/// The body is not what its head said.
#[derive(thiserror::Error, Debug)]
#[error("a body of another length than its head said")]
pub struct WrongLength;

impl Outbox {
    /// With a head that ends in its empty line.
    pub fn new(head: Vec<u8>, coding: Coding) -> Self {
        Self {
            lead: head,
            written: 0,
            data: Bytes::new(),
            tail: b"",
            coding,
            begun: false,
        }
    }

    /// Whether some byte may have reached the other end.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Whether all of it has been written.
    pub fn is_empty(&self) -> bool {
        self.written == self.lead.len() && self.has_room()
    }

    /// Takes a piece of the body. Only when there is room.
    ///
    /// # Errors
    /// When it is more than the head said.
    pub fn push(&mut self, data: Bytes) -> Result<(), WrongLength> {
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
    pub fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty()
    }

    /// The body has ended.
    ///
    /// # Errors
    /// When it is less than the head said.
    pub fn finish(&mut self) -> Result<(), WrongLength> {
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

    /// What there is to write: one piece, or several.
    pub fn pieces(&self) -> Result<&[u8], [IoSlice<'_>; 3]> {
        let lead = &self.lead[self.written..];
        match (lead.is_empty(), self.has_room()) {
            (_, true) => Ok(lead),
            (true, false) if self.tail.is_empty() => Ok(&self.data),
            (_, false) => Err([lead, &*self.data, self.tail].map(IoSlice::new)),
        }
    }

    /// So many bytes were written.
    pub fn advance(&mut self, written: usize) {
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
    pub fn into_memory(mut self) -> Vec<u8> {
        self.lead.clear();
        self.lead
    }
}

/// A message on its way out.
pub struct Outgoing<B> {
    outbox: Outbox,
    /// `None` when all of it is in the outbox.
    body: Option<B>,
}

impl<B> Outgoing<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// With a head that ends in its empty line; `body` is `None` when there is nothing after it.
    pub fn new(head: Vec<u8>, coding: Coding, body: Option<B>) -> Self {
        Self {
            outbox: Outbox::new(head, coding),
            body,
        }
    }

    /// Whether some byte may have reached the other end: then it must not be sent a second time.
    pub fn begun(&self) -> bool {
        self.outbox.begun()
    }

    /// The memory of its head, for another one.
    pub fn into_memory(self) -> Vec<u8> {
        self.outbox.into_memory()
    }

    /// Writes as much as there is and as the other end takes; ready when all has gone.
    ///
    /// # Errors
    /// When the other end takes no more, when the body breaks off, and when it is not as long as was said.
    pub fn poll_send(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut large_pieces = 0;
        loop {
            let mut body_is_late = false;
            if let Some(body) = &mut self.body
                && self.outbox.has_room()
            {
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Ok(data) = frame.into_data() {
                            large_pieces += usize::from(data.len() >= BULK_BYTES);
                            self.outbox.push(data).map_err(io::Error::other)?;
                        }
                        if body.is_end_stream() {
                            self.body = None;
                        }
                    }
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(io::Error::other(error)));
                    }
                    Poll::Ready(None) => self.body = None,
                    Poll::Pending => body_is_late = true,
                }
                if self.body.is_none() {
                    self.outbox.finish().map_err(io::Error::other)?;
                }
            }
            if self.outbox.is_empty() {
                return match self.body {
                    None => Poll::Ready(Ok(())),
                    Some(_) if body_is_late => Poll::Pending,
                    Some(_) => continue,
                };
            }
            let stream = Pin::new(&mut *stream);
            let written = ready!(match self.outbox.pieces() {
                Ok(one) => stream.poll_write(cx, one),
                Err(several) => stream.poll_write_vectored(cx, &several),
            })?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.advance(written);
            if large_pieces >= BULK_TURNS {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}
