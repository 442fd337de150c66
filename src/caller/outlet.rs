//! What goes to a caller: the lines of heads, at the pace of a reader who reads at all.

use crate::wire::{Lines, Pipe, Writer};
use crate::words::Utc;
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
use tokio::time::Sleep;

/// A client that takes no byte of its answer for so long is cut off.
pub const STALLED_READER: Duration = Duration::from_secs(60);

/// What every answer begins with, whatever it says.
pub(super) fn version(is_1_1: bool) -> &'static str {
    if is_1_1 { "HTTP/1.1 " } else { "HTTP/1.0 " }
}

/// The first line of an answer, without so many bytes of it that have been sent.
pub(super) fn first_line(head: &mut Lines, is_1_1: bool, sent: usize, status: StatusCode) {
    let version = &version(is_1_1)[sent..];
    let reason = status.canonical_reason().unwrap_or("");
    head.first([version, status.as_str(), " ", reason]);
}

/// The time of the answer (RFC 9110 §6.6.1), written anew once a second.
pub(super) fn date(head: &mut Lines, now: Utc) {
    thread_local! {
        static WRITTEN: RefCell<(i64, Lines)> = RefCell::new((i64::MIN, Lines::default()));
    }
    WRITTEN.with_borrow_mut(|(second, date)| {
        if *second != now.seconds() {
            *second = now.seconds();
            let at = Timestamp::from_second(*second).unwrap_or_default();
            let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&at);
            *date = Lines::default();
            date.text("date", &text.unwrap_or_default());
        }
        head.append(date);
    });
}

/// A stream whose reader is given up when it takes nothing for [`STALLED_READER`].
pub(super) struct Patient<W> {
    stream: W,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<W> Patient<W> {
    pub(super) fn new(stream: W) -> Self {
        Self {
            stream,
            stalled: None,
        }
    }

    fn progress<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED_READER)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<W: Writer> Writer for Patient<W> {
    fn socket(&self) -> Option<&TcpStream> {
        self.stream.socket()
    }

    fn poll_pour(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let polled = self.stream.poll_pour(pipe, cx);
        self.progress(cx, polled)
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Patient<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.progress(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
