//! Answers to a client: the first lines of heads, and the least pace at which a client must read.

use crate::http::{ByteWriter, HeadWriter, Pipe, SocketRef};
use crate::model::Utc;
use http::StatusCode;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// In each [`READER_WINDOW`] in which a client is waited for it must take so much of its answer a
/// second, on average.
pub const READER_BYTES_PER_SECOND: u64 = 1024;
/// See [`READER_BYTES_PER_SECOND`]. A client that takes less is cut off.
pub const READER_WINDOW: Duration = Duration::from_secs(30);
/// A client that is waited for is looked at this often. The system says that a socket takes bytes
/// again only when a third of its buffer is empty. That may be a megabyte: a slow reader would seem
/// to take nothing.
const LOOK: Duration = Duration::from_secs(1);
/// Each look writes this much, and again while it is taken. A larger write would count bytes as
/// taken that are not.
const LOOK_BYTES: usize = 4 * 1024;

/// The beginning of every answer, whatever its status.
pub(super) fn version(is_1_1: bool) -> &'static str {
    if is_1_1 { "HTTP/1.1 " } else { "HTTP/1.0 " }
}

/// The first line of an answer, without its first `sent` bytes.
pub(super) fn first_line(head: &mut HeadWriter, is_1_1: bool, sent: usize, status: StatusCode) {
    let version = &version(is_1_1)[sent..];
    let reason = status.canonical_reason().unwrap_or("");
    head.first([version, status.as_str(), " ", reason]);
}

/// The time of the answer (RFC 9110 §6.6.1), written anew once a second.
pub(crate) fn date(head: &mut HeadWriter, now: Utc) {
    thread_local! {
        static WRITTEN: RefCell<(i64, HeadWriter)> = RefCell::new((i64::MIN, HeadWriter::default()));
    }
    WRITTEN.with_borrow_mut(|(second, date)| {
        if *second != now.seconds() {
            *second = now.seconds();
            let at = Timestamp::from_second(*second).unwrap_or_default();
            let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&at);
            *date = HeadWriter::default();
            date.text("date", text.unwrap_or_default());
        }
        head.append(date);
    });
}

/// A stream whose reader is given up when it takes less than [`READER_BYTES_PER_SECOND`].
pub(super) struct StallTimeout<W> {
    stream: W,
    pace: ReaderPace,
    look: Option<Pin<Box<Sleep>>>,
    /// The last look found room: the next one is due at once.
    has_room: bool,
}

impl<W> StallTimeout<W> {
    pub(super) fn new(stream: W) -> Self {
        Self {
            stream,
            pace: ReaderPace::default(),
            look: None,
            has_room: false,
        }
    }

    /// Judges the result of a write. While nothing is taken, `try_again` asks the system, not the
    /// runtime.
    fn progress(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
        mut try_again: impl FnMut(&mut W) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(taken)) = polled {
            if self.pace.is_measured() {
                self.look = None;
                self.has_room = false;
                self.pace.took(taken as u64, Instant::now());
            }
            return polled;
        }
        if polled.is_ready() {
            return polled;
        }
        loop {
            let now = Instant::now();
            let left = self.pace.waits(now);
            if left.is_zero() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if !std::mem::take(&mut self.has_room) {
                let look = self
                    .look
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(left.min(LOOK))));
                ready!(look.as_mut().poll(cx));
                self.look = None;
            }
            match try_again(&mut self.stream) {
                Ok(taken) => {
                    self.has_room = true;
                    self.pace.took(taken as u64, Instant::now());
                    return Poll::Ready(Ok(taken));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// How fast a reader takes what it is given. Only the time counts in which it is waited for, and
/// not that in which there was nothing to give.
#[derive(Default)]
pub(crate) struct ReaderPace {
    waits_since: Option<Instant>,
    /// The time waited in this window, up to `waits_since`.
    waited: Duration,
    /// The bytes taken in this window.
    taken: u64,
}

impl ReaderPace {
    /// Whether a window has begun.
    fn is_measured(&self) -> bool {
        self.waits_since.is_some() || !self.waited.is_zero()
    }

    /// The client is waited for from now on: for how much longer, at most.
    pub(crate) fn waits(&mut self, now: Instant) -> Duration {
        let since = *self.waits_since.get_or_insert(now);
        READER_WINDOW.saturating_sub(self.waited + (now - since))
    }

    /// The client took so many bytes.
    pub(crate) fn took(&mut self, bytes: u64, now: Instant) {
        if let Some(since) = self.waits_since.take() {
            self.waited += now - since;
        }
        self.taken += bytes;
        if self.taken >= READER_BYTES_PER_SECOND * READER_WINDOW.as_secs() {
            *self = Self::default();
        }
    }
}

impl<W: ByteWriter> ByteWriter for StallTimeout<W> {
    fn socket(&self) -> Option<&TcpStream> {
        self.stream.socket()
    }

    fn transport(&self) -> Option<SocketRef<'_>> {
        self.stream.transport()
    }

    fn poll_pour(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let polled = self.stream.poll_pour(pipe, cx);
        self.progress(cx, polled, |stream| match stream.socket() {
            Some(socket) => pipe.pour_now(socket, LOOK_BYTES),
            None => Err(io::ErrorKind::WouldBlock.into()),
        })
    }
}

/// Writes a little. Asks the system, not the runtime.
fn write_at_once(stream: &mut impl ByteWriter, bytes: &[u8]) -> io::Result<usize> {
    stream.write_at_once(&bytes[..bytes.len().min(LOOK_BYTES)])
}

impl<W: ByteWriter> AsyncWrite for StallTimeout<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress(cx, polled, |stream| write_at_once(stream, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        let first = pieces.iter().find(|piece| !piece.is_empty());
        self.progress(cx, polled, |stream| {
            write_at_once(stream, first.map_or(&[], |piece| piece))
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let flushed = Pin::new(&mut self.stream).poll_flush(cx);
            if flushed.is_ready() {
                return flushed;
            }
            ready!(self.progress(cx, Poll::Pending, W::flush_at_once))?;
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
