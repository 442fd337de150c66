//! The upstream's answer, and its body as it comes.
//!
//! Owns when a connection may be used again: when the request had gone whole before its answer
//! ended.

use crate::http::h1::{Body, Piece};
use crate::http::{ByteReader, Fields, Framing, Pipe};
use crate::model::Mono;
use crate::proxy::upstream::named::InFlight;
use crate::proxy::upstream::pool::{PooledLink, ReadBuffer};
use crate::proxy::upstream::server::Lease;
use crate::proxy::upstream::total::OpenLink;
use bytes::Bytes;
use http::StatusCode;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::AbortHandle;

/// The upstream's answer.
pub(crate) struct UpstreamAnswer {
    /// Its status, as the upstream sent it.
    pub status: StatusCode,
    /// Its fields, without those that end at this hop.
    pub fields: Fields,
    /// Its body, as it comes.
    pub body: UpstreamBody,
}

/// The body of an answer. Its connection goes back to the pool when it has ended, and its request
/// had gone whole before it began, and only then; dropped before, the connection is closed.
pub struct UpstreamBody {
    framing: Framing,
    keeps_alive: bool,
    /// `None` only while it is dropped.
    source: Option<Source>,
    /// Where the call is counted until its answer has ended; `None` for a check.
    held: Option<Held>,
}

/// A call that is counted at its server and its upstream.
struct Held {
    lease: Lease,
    in_flight: InFlight,
    /// No other server was tried before.
    is_first: bool,
}

/// The connection from which an answer is read.
pub(super) enum Source {
    Link(PooledLink),
    /// The rest of the request is still being sent by this task.
    WhileSending {
        reader: Box<dyn ByteReader>,
        open: Arc<OpenLink>,
        buffer: ReadBuffer,
        sending: AbortHandle,
    },
}

impl UpstreamBody {
    pub(super) fn new(framing: Framing, keeps_alive: bool, source: Source) -> Self {
        Self {
            framing,
            keeps_alive,
            source: Some(source),
            held: None,
        }
    }

    /// The call is counted at its server and its upstream until the answer has ended, and its
    /// connection may be used again.
    pub(super) fn hold(&mut self, lease: Lease, in_flight: InFlight, is_first: bool) {
        self.held = Some(Held {
            lease,
            in_flight,
            is_first,
        });
    }

    /// The head of the answer came after so long.
    pub fn came_after(&self, took: Duration, now: Mono) {
        if let Some(held) = &self.held
            && held.is_first
        {
            held.lease.server.answered_in(took, now);
        }
    }

    /// The longest pause between two pieces that its upstream may make.
    pub fn response_timeout(&self) -> Duration {
        let held = self.held.as_ref();
        held.map_or(Duration::ZERO, |held| {
            held.in_flight.upstream().response_timeout()
        })
    }

    /// The next piece; `None` when it has ended.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let Some(source) = &mut self.source else {
            return Poll::Ready(Ok(None));
        };
        let framing = &mut self.framing;
        let (mut reader, buffer) = source.parts();
        loop {
            let taken = framing.take(&mut buffer.bytes);
            if let Some(data) = taken.map_err(io::Error::other)? {
                return Poll::Ready(Ok(Some(data)));
            }
            if framing.has_ended() {
                return Poll::Ready(Ok(None));
            }
            match (ready!(buffer.poll_read(&mut reader, cx))?, &mut *framing) {
                (0, Framing::UntilClose) => *framing = Framing::Length(0),
                (0, _) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                _ => {}
            }
        }
    }

    /// Lets the next piece pass into a pipe; `None` when it must be read instead.
    fn poll_fill(
        &mut self,
        pipe: &mut Pipe,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<usize>>> {
        let Some(source) = &mut self.source else {
            return Poll::Ready(Ok(None));
        };
        match source.parts() {
            (reader, buffer) if buffer.bytes.is_empty() => match reader.socket() {
                Some(socket) => self.framing.poll_fill(pipe, socket, cx),
                None => Poll::Ready(Ok(None)),
            },
            _ => Poll::Ready(Ok(None)),
        }
    }
}

impl Source {
    fn parts(&mut self) -> (&mut dyn ByteReader, &mut ReadBuffer) {
        match self {
            Self::Link(link) => (&mut link.stream, &mut link.buffer),
            Self::WhileSending { reader, buffer, .. } => (&mut **reader, buffer),
        }
    }
}

impl Body for UpstreamBody {
    type Error = io::Error;

    fn poll_piece(
        &mut self,
        pipe: Option<&mut Pipe>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Piece>>> {
        if let Some(pipe) = pipe {
            match ready!(self.poll_fill(pipe, cx))? {
                Some(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Some(piped) => return Poll::Ready(Some(Ok(Piece::Piped(piped)))),
                None => {}
            }
        }
        self.poll_data(cx)
            .map(|read| read.map(|data| data.map(Piece::Read)).transpose())
    }

    fn left(&self) -> Option<u64> {
        self.framing.left()
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        match self.source.take() {
            Some(Source::Link(link)) if self.keeps_alive && self.framing.has_ended() => {
                if let Some(held) = &self.held {
                    held.lease.give_back(link, held.in_flight.keep());
                }
            }
            // The answer was dropped before its end, so the rest of the request is of no use. Left
            // alone the task would send for as long as the upstream does not read. After a whole
            // answer it goes on: to stop would cut that upload.
            Some(Source::WhileSending {
                ref open,
                ref sending,
                ..
            }) => {
                open.outlives_its_call();
                if !self.framing.has_ended() {
                    sending.abort();
                }
            }
            _ => {}
        }
    }
}
