//! One stream of HTTP/2: a call that runs for it, and its answer.
//!
//! Owns what becomes of a call whose client takes it back, and the least pace at which a client
//! must read.

use crate::http::h1::{Answer, AnswerBody, Body, Piece, ReaderPace, date};
use crate::http::h2::body::Halves;
use crate::http::h2::head::answer_head;
use crate::http::h2::meter::Meter;
use crate::model::Clock;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{Method, Response, StatusCode};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use tokio::time::Instant;

/// A last piece of at most this size goes without waiting for room in the client's windows: it is
/// kept for the client, and there is one for each stream.
const SMALL_BYTES: usize = 16 * 1024;
/// The bytes that are handed over at once.
const STEP_BYTES: usize = 32 * 1024;

/// A stream whose request has come.
pub(crate) struct ClientStream {
    respond: SendResponse<Bytes>,
    is_head: bool,
    is_connect: bool,
    halves: Arc<Halves>,
    meter: Arc<Meter>,
    clock: Clock,
}

impl ClientStream {
    pub(super) fn new(
        respond: SendResponse<Bytes>,
        method: &Method,
        halves: Arc<Halves>,
        meter: Arc<Meter>,
        clock: Clock,
    ) -> Self {
        Self {
            respond,
            is_head: method == Method::HEAD,
            is_connect: method == Method::CONNECT,
            halves,
            meter,
            clock,
        }
    }

    /// Lets a call run. When its client takes it back, or hangs up, before it has ended, `goes_on`
    /// is asked, once, whether the call goes on all the same: then to its end. `None`: nobody waits
    /// for the answer.
    pub(crate) async fn during<T>(
        &mut self,
        call: impl Future<Output = T>,
        goes_on: impl FnOnce() -> bool,
    ) -> Option<T> {
        let mut call = pin!(call);
        let mut is_first = true;
        let ended = std::future::poll_fn(|cx| {
            // A request that was taken back at once costs nothing more.
            if std::mem::take(&mut is_first) && self.respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(answer) = call.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            if self.respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            if self.halves.is_wanted.swap(false, Relaxed) {
                let mut go_on = Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                // Its error is that the stream is gone, which the next poll finds.
                let _ = self.respond.send_informational(go_on);
            }
            Poll::Pending
        })
        .await;
        if ended.is_none() {
            self.meter.was_reset();
            if goes_on() {
                call.await;
            }
        }
        ended
    }

    /// Answers with a status alone.
    pub(crate) fn refuse(mut self, status: StatusCode) {
        let mut head = Response::new(());
        *head.status_mut() = status;
        let _ = self.respond.send_response(head, true);
    }

    /// Sends an answer.
    ///
    /// # Errors
    /// When the answer did not go whole. Its client is told by a reset.
    pub(crate) async fn answer<B: Body>(mut self, answer: Answer<B>) -> io::Result<()> {
        let (status, mut lines, has_date, body) = answer.into_parts();
        let is_bodiless = self.is_head
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || (self.is_connect && status.is_success());
        let length = match &body {
            AnswerBody::Own(body) => Some(body.len() as u64),
            AnswerBody::Passing(body) => body.left(),
        };
        match length {
            Some(length @ 1..) if self.is_head => lines.number("content-length", length),
            Some(length) if !is_bodiless => lines.number("content-length", length),
            _ => {}
        }
        if !has_date {
            date(&mut lines, self.clock.utc_at_tick());
        }
        let ends = is_bodiless || length == Some(0);
        let sent = self.respond.send_response(answer_head(status, lines), ends);
        let mut sending = Sending {
            stream: sent.map_err(io::Error::other)?,
            pace: ReaderPace::default(),
            meter: self.meter,
        };
        let answered = match body {
            _ if ends => Ok(()),
            AnswerBody::Own(body) => sending.send(body.into(), true).await,
            AnswerBody::Passing(body) => sending.pass(body, length).await,
        };
        *self.halves.answered.lock() = Some(sending.stream);
        answered
    }
}

/// The body of an answer on its way out.
struct Sending {
    stream: SendStream<Bytes>,
    pace: ReaderPace,
    meter: Arc<Meter>,
}

impl Sending {
    /// Sends a body piece by piece. A `length` that was told is kept.
    async fn pass<B: Body>(&mut self, mut body: B, length: Option<u64>) -> io::Result<()> {
        let mut left = length;
        loop {
            let next = std::future::poll_fn(|cx| {
                if let Poll::Ready(next) = body.poll_piece(None, cx) {
                    return Poll::Ready(Ok(next));
                }
                match self.stream.poll_reset(cx) {
                    Poll::Ready(_) => {
                        Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionAborted)))
                    }
                    Poll::Pending => Poll::Pending,
                }
            });
            let data = match next.await? {
                Some(Ok(Piece::Read(data))) => data,
                None if left.unwrap_or(0) == 0 => return self.send(Bytes::new(), true).await,
                Some(Err(error)) => return self.break_off(error.into()).await,
                Some(Ok(Piece::Piped(_))) | None => {
                    return self.break_off("its length".into()).await;
                }
            };
            if let Some(known) = &mut left {
                let Some(rest) = known.checked_sub(data.len() as u64) else {
                    return self.break_off("its length".into()).await;
                };
                *known = rest;
            }
            let is_last = left == Some(0);
            self.send(data, is_last).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// The client must not take what has come for the whole.
    async fn break_off(&mut self, why: Box<dyn std::error::Error + Send + Sync>) -> io::Result<()> {
        // A reset throws away what waits: the head of the answer goes first.
        tokio::task::yield_now().await;
        self.stream.send_reset(Reason::INTERNAL_ERROR);
        Err(io::Error::other(why))
    }

    async fn send(&mut self, mut data: Bytes, is_last: bool) -> io::Result<()> {
        loop {
            let room = match is_last && data.len() <= SMALL_BYTES {
                true => data.len(),
                false => self.room(data.len().min(STEP_BYTES)).await?,
            };
            let part = data.split_to(room.min(data.len()));
            self.meter.passed(part.len());
            self.pace.took(part.len() as u64, Instant::now());
            let ends = is_last && data.is_empty();
            let sent = self.stream.send_data(part, ends);
            sent.map_err(io::Error::other)?;
            if data.is_empty() {
                return Ok(());
            }
        }
    }

    /// Waits until the client takes more. One that takes less than the least pace loses the stream.
    async fn room(&mut self, wanted: usize) -> io::Result<usize> {
        self.stream.reserve_capacity(wanted);
        let left = self.pace.waits(Instant::now());
        let room = std::future::poll_fn(|cx| self.stream.poll_capacity(cx));
        match tokio::time::timeout(left, room).await {
            Ok(Some(room)) => room.map_err(io::Error::other),
            Ok(None) => Err(io::ErrorKind::ConnectionAborted.into()),
            Err(_) => {
                self.stream.send_reset(Reason::CANCEL);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }
}
