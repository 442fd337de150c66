//! A client's connection: its requests one after another, and their answers.

use crate::http::h1::answer::{Answer, AnswerBody};
use crate::http::h1::reader::{Broken, End, RequestReader};
use crate::http::h1::writer::{self, StallTimeout};
use crate::http::h1::{BadHead, Body, Coding, Outgoing, RequestBody, RequestHead};
use crate::http::{ByteReader, ByteWriter, HeadWriter, cut, reset};
use crate::model::{Clock, Timer};
use http::{Method, StatusCode};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// The first head of a connection has to be complete after this time. A client connects because it
/// has a request.
pub const FIRST_HEAD: Duration = Duration::from_secs(15);
/// A later head has to be complete this long after its first byte.
const HEAD: Duration = Duration::from_secs(75);
/// A head that has begun has to be complete this long after the drain has begun.
const LAST_HEAD: Duration = Duration::from_secs(3);
/// For this time the bytes that a client still sends are read and thrown away, or its answer would
/// be lost in a reset (PROTOCOL §7).
const DISCARD: Duration = Duration::from_secs(2);
/// A head leaves at most this much memory for the next one.
const KEPT_BYTES: usize = 4 * 1024;

/// A client's connection.
pub(crate) struct ClientConnection<W: ByteWriter> {
    reader: RequestReader,
    writer: StallTimeout<W>,
    /// For the head of the next answer.
    memory: Vec<u8>,
    /// The bytes of the next answer that have been sent already ([`ClientConnection::probe`]).
    probed: usize,
    /// An answer is on its way whose end only the end of the connection tells.
    is_open_ended: bool,
    /// No request has come yet.
    is_new: bool,
    idle_timeout: Duration,
    idle: Timer,
    clock: Clock,
}

/// The facts about a request that decide the form of its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestTerms {
    is_head: bool,
    is_connect: bool,
    /// HTTP/1.1, as opposed to 1.0.
    is_1_1: bool,
    keeps_alive: bool,
}

/// The state of a connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Another request may come.
    Request,
    /// The connection has to be closed.
    Close,
}

impl From<&RequestHead> for RequestTerms {
    fn from(head: &RequestHead) -> Self {
        Self {
            is_head: head.method == Method::HEAD,
            is_connect: head.method == Method::CONNECT,
            is_1_1: head.is_1_1,
            keeps_alive: head.keeps_alive,
        }
    }
}

/// Where an answer ends, and whether another request may follow it.
#[derive(Clone, Copy)]
struct AnswerFraming {
    /// The bytes of its body, sent or not, where they are known.
    length: Option<u64>,
    coding: Coding,
    /// Its request or its status has it that no body follows its head.
    is_bodiless: bool,
    keeps_alive: bool,
}

impl AnswerFraming {
    fn of<B: Body>(terms: RequestTerms, answer: &Answer<B>, closes: bool) -> Self {
        let status = answer.status;
        let is_bodiless = terms.is_head
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || (terms.is_connect && status.is_success());
        let length = match &answer.body {
            AnswerBody::Own(body) => Some(body.len() as u64),
            AnswerBody::Passing(body) => body.left(),
        };
        let coding = match length {
            _ if is_bodiless => Coding::Length(0),
            Some(length) => Coding::Length(length),
            None if terms.is_1_1 => Coding::Chunked,
            None => Coding::UntilClose,
        };
        let keeps_alive =
            terms.keeps_alive && !closes && !answer.closes && coding != Coding::UntilClose;
        Self {
            length,
            coding,
            is_bodiless,
            keeps_alive,
        }
    }
}

impl<W: ByteWriter> ClientConnection<W> {
    /// Serves the two halves of a stream. It ends when no request has come within [`FIRST_HEAD`],
    /// or no further one has begun for `idle_timeout`.
    pub(crate) fn new(
        reader: impl ByteReader + 'static,
        writer: W,
        idle_timeout: Duration,
        clock: Clock,
    ) -> Self {
        Self {
            reader: RequestReader::new(Box::new(reader)),
            writer: StallTimeout::new(writer),
            memory: Vec::new(),
            probed: 0,
            is_open_ended: false,
            is_new: true,
            idle_timeout,
            idle: Timer::default(),
            clock,
        }
    }

    /// The next request; `None` when no more will come. `is_closing` is asked while none has come:
    /// once it is true, only the rest of a head that has begun is waited for. `refused` is told why
    /// a head is bad, which ends the connection.
    pub(crate) async fn request(
        &mut self,
        mut is_closing: impl FnMut(&mut Context<'_>) -> bool,
        refused: impl FnOnce(BadHead),
    ) -> Option<(Box<RequestHead>, RequestBody)> {
        let read = {
            let reader = &self.reader;
            let is_new = self.is_new;
            let wait = if is_new {
                FIRST_HEAD
            } else {
                self.idle_timeout
            };
            let mut too_long = pin!(self.idle.sleep(wait));
            // Most heads come whole, so this is made when one has not.
            let mut head_too_long = None;
            let mut closing_too_long = None;
            std::future::poll_fn(|cx| {
                if let Poll::Ready(read) = reader.poll_request(cx) {
                    return Poll::Ready(Some(read));
                }
                if is_closing(cx) {
                    if !reader.is_empty() {
                        let late = || Box::pin(tokio::time::sleep(LAST_HEAD));
                        let late = closing_too_long.get_or_insert_with(late);
                        ready!(late.as_mut().poll(cx));
                    }
                    return Poll::Ready(None);
                }
                if is_new || reader.is_empty() {
                    ready!(too_long.as_mut().poll(cx));
                } else {
                    let late = || Box::pin(tokio::time::sleep(HEAD));
                    ready!(head_too_long.get_or_insert_with(late).as_mut().poll(cx));
                }
                Poll::Ready(None)
            })
            .await?
        };
        self.is_new = false;
        match read {
            Ok(request) => request,
            Err(bad) => {
                refused(bad);
                self.bare(bad.status()).await;
                None
            }
        }
    }

    /// Lets a call run. When its client hangs up before it has ended, `goes_on` is asked, once,
    /// whether the call goes on all the same: then to its end. `None`: the client has gone. That is
    /// seen only when the whole request has come. A client that merely sends no more still waits
    /// for its answer.
    pub(crate) async fn during<T>(
        &mut self,
        terms: RequestTerms,
        call: impl Future<Output = T>,
        goes_on: impl FnOnce() -> bool,
    ) -> Option<T> {
        let mut call = pin!(call);
        let mut interim = Interim::default();
        let ended = std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = call.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            if self.reader.take_wants_continue() {
                interim.begin();
            }
            if interim.poll(&mut self.writer, cx).is_err() {
                return Poll::Ready(Err(None));
            }
            self.reader.poll_end(cx).map(|end| Err(Some(end)))
        })
        .await;
        // The rest of `100 Continue` goes before the answer.
        self.memory.extend_from_slice(interim.0);
        match ended {
            Ok(answer) => Some(answer),
            Err(None) => None,
            Err(Some(end)) => Box::pin(self.after(end, terms, call, goes_on)).await,
        }
    }

    /// Lets a call run on after its client's side of the connection has ended.
    async fn after<T>(
        &mut self,
        end: End,
        terms: RequestTerms,
        mut call: Pin<&mut impl Future<Output = T>>,
        goes_on: impl FnOnce() -> bool,
    ) -> Option<T> {
        if end == End::OfStream && self.probe(terms).await.is_ok() {
            tokio::select! {
                // The reset first: the end of a call is recorded with what is known of its client
                // by then.
                biased;
                () = reset(self.writer.transport()) => {}
                answer = &mut call => return Some(answer),
            }
        }
        if goes_on() {
            call.await;
        }
        None
    }

    /// Makes a client that has gone say so: it is sent what its answer begins with in any case,
    /// upon which it resets the connection. Before, it is like one that has closed its sending side
    /// and waits. These bytes say nothing of the answer, so that its record need not be durable yet
    /// (P3).
    async fn probe(&mut self, terms: RequestTerms) -> io::Result<()> {
        if !self.memory.is_empty() {
            // The writer is stuck: bytes written now would overtake the rest of `100 Continue`.
            return Ok(());
        }
        let version = writer::version(terms.is_1_1).as_bytes();
        let sent = std::future::poll_fn(|cx| {
            Poll::Ready(match pin!(&mut self.writer).poll_write(cx, version) {
                Poll::Ready(sent) => sent,
                Poll::Pending => Ok(0),
            })
        });
        self.probed = sent.await?;
        Ok(())
    }

    /// Sends an answer, and deals with what is left of its request. `closes`: nothing may follow
    /// it.
    ///
    /// # Errors
    /// When the answer did not go whole.
    pub(crate) async fn answer<B: Body>(
        &mut self,
        terms: RequestTerms,
        answer: Answer<B>,
        closes: bool,
    ) -> io::Result<Next> {
        let framing = AnswerFraming::of(terms, &answer, closes);
        let mut head = self.answer_head(terms, &answer, framing);
        let mut message = match answer.body {
            AnswerBody::Own(body) => {
                if !framing.is_bodiless {
                    head.extend_from_slice(&body);
                }
                Outgoing::new(head, Coding::Length(0), None)
            }
            AnswerBody::Passing(body) => {
                let body = (framing.coding != Coding::Length(0)).then_some(body);
                Outgoing::new(head, framing.coding, body)
            }
        };
        self.is_open_ended = framing.coding == Coding::UntilClose;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(sent) = message.poll_send(&mut self.writer, cx) {
                return Poll::Ready(sent.map_err(io::Error::from));
            }
            match self.reader.poll_end(cx) {
                Poll::Ready(End::Reset) => {
                    Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
                }
                // Whether it still reads shows when more is written.
                Poll::Ready(End::OfStream) | Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        self.is_open_ended = false;
        self.memory = message.into_memory();
        self.memory.shrink_to(KEPT_BYTES);
        if !framing.keeps_alive {
            self.end().await;
            return Ok(Next::Close);
        }
        Ok(self.rest_of_request().await)
    }

    /// Writes the head of an answer, into the memory of the last one.
    fn answer_head<B>(
        &mut self,
        terms: RequestTerms,
        answer: &Answer<B>,
        framing: AnswerFraming,
    ) -> Vec<u8> {
        let mut head = HeadWriter::new(std::mem::take(&mut self.memory));
        let probed = std::mem::take(&mut self.probed);
        writer::first_line(&mut head, terms.is_1_1, probed, answer.status);
        head.append(&answer.lines);
        match (framing.coding, framing.length) {
            // The length that a GET would get. A body that the upstream did not send to a HEAD has
            // none.
            (_, Some(length @ 1..)) if terms.is_head => head.number("content-length", length),
            (Coding::Length(length), _) if !framing.is_bodiless => {
                head.number("content-length", length);
            }
            (Coding::Chunked, _) => head.fixed("transfer-encoding: chunked\r\n"),
            _ => {}
        }
        // Each version is told only what it does not take for granted.
        match (framing.keeps_alive, terms.is_1_1) {
            (false, true) => head.fixed("connection: close\r\n"),
            (true, false) => head.fixed("connection: keep-alive\r\n"),
            _ => {}
        }
        if !answer.has_date {
            writer::date(&mut head, self.clock.utc_at_tick());
        }
        head.end()
    }

    /// Waits until the body is released, and reads its rest.
    async fn rest_of_request(&mut self) -> Next {
        if !self.reader.is_in_body() {
            return Next::Request;
        }
        let reader = &self.reader;
        std::future::poll_fn(|cx| reader.poll_released(cx)).await;
        let discarding = std::future::poll_fn(|cx| reader.poll_discard_body(cx));
        match Box::pin(tokio::time::timeout(DISCARD, discarding)).await {
            Ok(Ok(())) => Next::Request,
            Ok(Err(Broken)) | Err(_) => {
                self.end().await;
                Next::Close
            }
        }
    }

    /// Answers a bad head with a status alone, and ends the connection.
    async fn bare(&mut self, status: StatusCode) {
        let mut head = HeadWriter::default();
        writer::first_line(&mut head, true, 0, status);
        head.fixed("content-length: 0\r\nconnection: close\r\n");
        writer::date(&mut head, self.clock.utc_at_tick());
        if self.writer.write_all(&head.end()).await.is_ok() {
            self.end().await;
        }
    }

    /// Closes the sending side once the body is released, and reads what may still come: a reset
    /// would lose the answer.
    async fn end(&mut self) {
        let reader = &self.reader;
        std::future::poll_fn(|cx| reader.poll_released(cx)).await;
        let is_over = reader.is_empty() && !reader.is_in_body();
        if self.writer.shutdown().await.is_err() || is_over {
            return;
        }
        let discarding = std::future::poll_fn(|cx| reader.poll_discard(cx));
        let _ = Box::pin(tokio::time::timeout(DISCARD, discarding)).await;
    }
}

impl<W: ByteWriter> Drop for ClientConnection<W> {
    /// A usual end would make an answer that was cut look whole.
    fn drop(&mut self) {
        if self.is_open_ended
            && let Some(socket) = self.writer.transport()
        {
            cut(socket);
        }
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
