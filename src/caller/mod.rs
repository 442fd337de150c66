//! The callers' side of HTTP/1.1: one connection, its requests one after another, and their answers.
//!
//! Owns what is read from and written to a caller, and how long is waited for either. Must never read a request
//! before the one ahead of it has been read and answered whole, nor say `100 Continue` for a body that nobody
//! wants.

mod inlet;
mod outlet;

pub use inlet::{Broken, RequestBody};
pub use outlet::STALLED_READER;

use crate::clock::{Clock, Timer};
use crate::wire::{BadHead, Coding, Outgoing, RequestHead};
use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body::Body;
use inlet::Inlet;
use outlet::Patient;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// A connection that sends no complete head for so long is closed, idle or not. Longer than the
/// SDKs keep theirs, so that it is they who close (PROTOCOL §7).
pub const IDLE: Duration = Duration::from_secs(75);
/// For so long what a caller still sends is read and thrown away, so that an answer is not lost in a reset
/// (PROTOCOL §7).
const DISCARD: Duration = Duration::from_secs(2);
/// The memory of a head that is kept for the next one.
const KEPT_BYTES: usize = 4 * 1024;

/// A caller's connection.
pub struct Connection<W> {
    inlet: Inlet,
    writer: Patient<W>,
    /// For the head of the next answer.
    memory: Vec<u8>,
    idle: Timer,
    clock: Clock,
}

/// What an answer has to know of its request.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    is_head: bool,
    is_connect: bool,
    /// HTTP/1.1, as opposed to 1.0.
    is_1_1: bool,
    keeps_alive: bool,
}

/// What comes after an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Another request may come.
    Request,
    /// The connection has to be closed.
    Close,
}

impl From<&RequestHead> for Terms {
    fn from(head: &RequestHead) -> Self {
        Self {
            is_head: head.parts.method == Method::HEAD,
            is_connect: head.parts.method == Method::CONNECT,
            is_1_1: head.parts.version == http::Version::HTTP_11,
            keeps_alive: head.keeps_alive,
        }
    }
}

impl<W: AsyncWrite + Unpin> Connection<W> {
    /// Of the two halves of a stream.
    pub fn new(reader: impl AsyncRead + Send + Unpin + 'static, writer: W, clock: Clock) -> Self {
        Self {
            inlet: Inlet::new(Box::new(reader)),
            writer: Patient::new(writer),
            memory: Vec::new(),
            idle: Timer::default(),
            clock,
        }
    }

    /// The next request; `None` when no more will come. `is_closing` is asked whenever nothing has come yet: if it
    /// says so, nothing more is waited for.
    pub async fn request(
        &mut self,
        mut is_closing: impl FnMut(&mut Context<'_>) -> bool,
    ) -> Option<(RequestHead, RequestBody)> {
        let read = {
            let inlet = &self.inlet;
            let mut too_long = pin!(self.idle.sleep(IDLE));
            std::future::poll_fn(|cx| {
                if let Poll::Ready(read) = inlet.poll_request(cx) {
                    return Poll::Ready(Some(read));
                }
                if is_closing(cx) && inlet.is_empty() {
                    return Poll::Ready(None);
                }
                ready!(too_long.as_mut().poll(cx));
                Poll::Ready(None)
            })
            .await?
        };
        match read {
            Ok(request) => request,
            Err(BadHead(status)) => {
                self.bare(status).await;
                None
            }
        }
    }

    /// Lets a call run; `None` when its caller hangs up before it has ended, which is seen only when the
    /// whole request has come.
    pub async fn during<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        let mut call = pin!(call);
        let mut interim = Interim::default();
        let answer = std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = call.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            if self.inlet.take_wants_continue() {
                interim.begin();
            }
            if interim.poll(&mut self.writer, cx).is_err() {
                return Poll::Ready(None);
            }
            self.inlet.poll_hang_up(cx).map(|()| None)
        })
        .await;
        // What has not gone of it goes before the answer.
        self.memory.extend_from_slice(interim.0);
        answer
    }

    /// Sends an answer, and deals with what is left of its request. `closes`: nothing may follow it.
    ///
    /// # Errors
    /// When the answer did not go whole.
    pub async fn answer<B>(
        &mut self,
        terms: Terms,
        response: Response<B>,
        closes: bool,
    ) -> io::Result<Next>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = response.into_parts();
        let mut memory = std::mem::take(&mut self.memory);
        let says_close = head.headers.get(header::CONNECTION).is_some();
        let keeps = terms.keeps_alive && !closes && !says_close;
        let bodiless = terms.is_head
            || matches!(
                head.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let length = body.size_hint().exact();
        outlet::line(&mut memory, terms.is_1_1, head.status);
        let mut dated = false;
        for (name, value) in &head.headers {
            dated |= name == header::DATE;
            outlet::field(&mut memory, name.as_str(), value.as_bytes());
        }
        let coding = match length {
            _ if bodiless || (terms.is_connect && head.status.is_success()) => {
                if let (true, Some(length @ 1..)) = (terms.is_head, length) {
                    outlet::length(&mut memory, length);
                }
                Coding::Length(0)
            }
            Some(length) => {
                outlet::length(&mut memory, length);
                Coding::Length(length)
            }
            None if terms.is_1_1 => {
                outlet::field(&mut memory, "transfer-encoding", b"chunked");
                Coding::Chunked
            }
            None => Coding::UntilClose,
        };
        let keeps = keeps && coding != Coding::UntilClose;
        match (keeps, terms.is_1_1) {
            (false, true) if !says_close => outlet::field(&mut memory, "connection", b"close"),
            (true, false) => outlet::field(&mut memory, "connection", b"keep-alive"),
            _ => {}
        }
        if !dated {
            outlet::date(&mut memory, self.clock.utc());
        }
        memory.extend_from_slice(b"\r\n");

        let body = (coding != Coding::Length(0)).then_some(body);
        let mut message = Outgoing::new(memory, coding, body);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(sent) = message.poll_send(&mut self.writer, cx) {
                return Poll::Ready(sent);
            }
            match self.inlet.poll_hang_up(cx) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        self.memory = message.into_memory();
        self.memory.shrink_to(KEPT_BYTES);
        if !keeps {
            self.end().await;
            return Ok(Next::Close);
        }
        Ok(self.rest_of_request().await)
    }

    /// Waits until whoever reads the body has done so, and reads what nobody wants.
    async fn rest_of_request(&mut self) -> Next {
        if !self.inlet.is_in_body() {
            return Next::Request;
        }
        let inlet = &self.inlet;
        std::future::poll_fn(|cx| inlet.poll_let_go(cx)).await;
        let discarding = std::future::poll_fn(|cx| inlet.poll_discard_body(cx));
        match Box::pin(tokio::time::timeout(DISCARD, discarding)).await {
            Ok(Ok(())) => Next::Request,
            Ok(Err(Broken)) | Err(_) => {
                self.end().await;
                Next::Close
            }
        }
    }

    /// The answer to what is not understood, and the end.
    async fn bare(&mut self, status: StatusCode) {
        let mut memory = std::mem::take(&mut self.memory);
        outlet::line(&mut memory, true, status);
        outlet::length(&mut memory, 0);
        outlet::field(&mut memory, "connection", b"close");
        outlet::date(&mut memory, self.clock.utc());
        memory.extend_from_slice(b"\r\n");
        if self.writer.write_all(&memory).await.is_ok() {
            self.end().await;
        }
    }

    /// Says that no more comes, once whoever reads the body has done so, and reads what may still be coming, so that
    /// the answer is not lost in a reset.
    async fn end(&mut self) {
        let inlet = &self.inlet;
        std::future::poll_fn(|cx| inlet.poll_let_go(cx)).await;
        let is_over = inlet.is_empty() && !inlet.is_in_body();
        if self.writer.shutdown().await.is_err() || is_over {
            return;
        }
        let discarding = std::future::poll_fn(|cx| inlet.poll_discard(cx));
        let _ = Box::pin(tokio::time::timeout(DISCARD, discarding)).await;
    }
}

/// `100 Continue`, as far as it has been sent.
#[derive(Default)]
struct Interim(&'static [u8]);

impl Interim {
    fn begin(&mut self) {
        self.0 = b"HTTP/1.1 100 Continue\r\n\r\n";
    }

    fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        while !self.0.is_empty() {
            match pin!(&mut *writer).poll_write(cx, self.0) {
                Poll::Ready(Ok(written @ 1..)) => self.0 = &self.0[written..],
                Poll::Ready(Ok(_)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
