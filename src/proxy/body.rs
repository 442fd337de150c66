//! The two bodies that pass through the gate.
//!
//! Owns the limits on a body: its size, its pace, its idle time. Must never hold more of a streamed
//! body than the piece that is passing, and never lose sight of whether it arrived whole.

use crate::http::Pipe;
use crate::http::h1::{Body, Broken, Piece, RequestBody};
use crate::metrics::IntCounter;
use crate::model::{Clock, Mono};
use crate::proxy::access_log::LogEntry;
use crate::proxy::body_memory::Lease;
use crate::proxy::identity::tc3::BodyHash;
use crate::proxy::places::Sign;
use crate::proxy::progress::{Progress, UploadFailure};
use crate::proxy::upstream::UpstreamBody;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Sleep;

/// A client may be slower than the minimum rate for this long, in sum.
pub const UPLOAD_GRACE: Duration = Duration::from_secs(10);
/// Bytes per second that an upload makes on average, beyond the grace. 16 KiB/s is below any link
/// that sends images, and frees what a stalled client holds.
pub const UPLOAD_BYTES_PER_SECOND: u64 = 16 * 1024;
/// A rest of at most this many bytes of a refused body is read at once and the connection kept, if
/// it comes in time.
const DRAIN_BYTES: u64 = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// After this many pieces other calls have their turn.
const HASHED_AT_ONCE: usize = 16;
/// Frames smaller than this are copied together: a frame costs more than its bytes.
const SMALL_FRAME: usize = 4 * 1024;

/// The time after the head by which more than `received` bytes must have come.
pub(super) fn due(received: u64) -> Duration {
    UPLOAD_GRACE + earned(received)
}

/// The time that these bytes take at the minimum rate.
fn earned(received: u64) -> Duration {
    Duration::from_millis(received.saturating_mul(1_000) / UPLOAD_BYTES_PER_SECOND)
}

/// A client's body on its way in.
pub(crate) struct Upload {
    body: RequestBody,
    progress: Arc<Progress>,
    limit: u64,
    expects_continue: bool,
    clock: Clock,
    began: Mono,
    deadline: Mono,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    /// `limit` in bytes; `deadline` for the last byte.
    pub(crate) fn new(
        body: RequestBody,
        limit: u64,
        expects_continue: bool,
        clock: &Clock,
        began: Mono,
        deadline: Mono,
    ) -> Self {
        let progress = Arc::new(Progress::default());
        if body.has_come() {
            progress.end(None, began);
            progress.has_received(body.left().unwrap_or(0));
        }
        Self {
            body,
            progress,
            limit,
            expects_continue,
            clock: clock.clone(),
            began,
            deadline,
            sleep: None,
        }
    }

    /// How far it has come.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// All of it, if it came with its head: then it is in memory already, where it can be hashed
    /// and forwarded from.
    pub(crate) fn came_whole(&self) -> Option<&[u8]> {
        self.body.whole().filter(|_| self.body.taken() == 0)
    }

    /// The declared length; `None` when chunked.
    pub(crate) fn declared(&self) -> Option<u64> {
        self.body.left().map(|left| left + self.body.taken())
    }

    /// Takes the next piece of the body as `take` does, within what it is allowed in bytes and in
    /// time.
    fn poll_next<P>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut RequestBody, &mut Context<'_>) -> Poll<Result<Option<P>, Broken>>,
    ) -> Poll<Option<Result<P, UploadFailure>>> {
        // A failure is final: after it nothing tells what the next bytes are.
        if let Some(failure) = self.progress.failure() {
            return Poll::Ready(Some(Err(failure)));
        }
        let failure = loop {
            let polled = take(&mut self.body, cx);
            let pending = polled.is_pending();
            self.progress.awaits(pending);
            match polled {
                Poll::Ready(Ok(Some(piece))) => {
                    self.progress.has_received(self.body.taken());
                    if self.body.taken() > self.limit {
                        break UploadFailure::TooLarge;
                    }
                    if self.body.has_come() {
                        self.note_whole();
                    }
                    return Poll::Ready(Some(Ok(piece)));
                }
                Poll::Ready(Ok(None)) => {
                    self.note_whole();
                    return Poll::Ready(None);
                }
                Poll::Ready(Err(Broken)) => break UploadFailure::Incomplete,
                Poll::Pending => {
                    let (began, deadline, received) =
                        (self.began, self.deadline, self.body.taken());
                    let clock = &self.clock;
                    let left = || began.plus(due(received)).min(deadline).since(clock.mono());
                    let sleep = self
                        .sleep
                        .get_or_insert_with(|| Box::pin(tokio::time::sleep(left())));
                    ready!(sleep.as_mut().poll(cx));
                    if left() == Duration::ZERO {
                        break UploadFailure::TooSlow;
                    }
                    // Bytes came since the timer was set: it is due later now.
                    self.sleep = None;
                }
            }
        };
        self.progress.end(Some(failure), self.clock.mono());
        Poll::Ready(Some(Err(failure)))
    }

    fn note_whole(&self) {
        if self.progress.whole_at().is_none() {
            self.progress.end(None, self.clock.mono());
        }
    }

    /// The whole body in one piece. `None` when it has more than `most` bytes.
    pub(super) async fn whole(&mut self, most: u64) -> Result<Option<Bytes>, UploadFailure> {
        let mut whole = BytesMut::new();
        while let Some(data) = self.next().await {
            whole.extend_from_slice(&data?);
            if whole.len() as u64 > most {
                return Ok(None);
            }
        }
        Ok(Some(whole.freeze()))
    }

    async fn next(&mut self) -> Option<Result<Bytes, UploadFailure>> {
        std::future::poll_fn(|cx| self.poll_next(cx, RequestBody::poll_data)).await
    }

    /// Reads the body into memory and hashes it while it arrives. `sign` shows by when more of it
    /// is due.
    pub(crate) async fn buffer(
        mut self,
        lease: Lease,
        sign: &Sign,
    ) -> (Self, Result<(Buffered, [u8; 32]), UploadFailure>) {
        let mut hash = BodyHash::new();
        let is_chunked = self.declared().is_none();
        let (mut frames, mut small, mut bytes) = (VecDeque::new(), BytesMut::new(), 0);
        let mut hashed = 0;
        let (clock, deadline) = (self.clock.clone(), self.deadline);
        loop {
            // Only bytes of the body count. A head costs nothing: with a grace for it, a client
            // that knows a secret id could hold places that a newcomer then cannot get.
            sign.is_due(self.began.plus(earned(self.body.taken())));
            let data = match self.next().await {
                Some(Ok(data)) => data,
                Some(Err(failure)) => return (self, Err(failure)),
                None => break,
            };
            hash.update(&data);
            bytes += data.len() as u64;
            let is_small = data.len() < SMALL_FRAME;
            // A chunk is copied: it would hold the whole read that it came in, at worst six times
            // its own bytes.
            let data = match is_chunked && !is_small {
                true => Bytes::copy_from_slice(&data),
                false => data,
            };
            if is_small {
                small.extend_from_slice(&data);
            } else {
                if !small.is_empty() {
                    frames.push_back(small.split().freeze());
                }
                frames.push_back(data);
                hashed += 1;
                if hashed % HASHED_AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
        if !small.is_empty() {
            frames.push_back(small.freeze());
        }
        (
            self,
            Ok((
                Buffered {
                    frames,
                    left: bytes,
                    lease,
                    clock,
                    deadline,
                },
                hash.finish(),
            )),
        )
    }

    /// After a refusal, when the answer follows at once: whether the connection can be kept. A
    /// short rest is read to its end.
    pub(crate) async fn drain(&mut self) -> bool {
        if self.progress.whole_at().is_some() {
            return true;
        }
        // Nothing follows on the same stream. A short rest is read all the same: without a reset
        // after the answer every client understands it.
        let keeps = self.body.is_of_stream();
        let short = self
            .declared()
            .is_some_and(|declared| declared - self.body.taken() <= DRAIN_BYTES);
        if !short || self.expects_continue || self.progress.failure().is_some() {
            return keeps;
        }
        let read = async { while let Some(Ok(_)) = self.next().await {} };
        let _ = Box::pin(tokio::time::timeout(DRAIN_TIME, read)).await;
        keeps || self.progress.whole_at().is_some()
    }
}

/// A body in memory, with the memory reserved for it.
pub(crate) struct Buffered {
    frames: VecDeque<Bytes>,
    left: u64,
    lease: Lease,
    clock: Clock,
    /// The instant by which the upstream must have taken the last byte.
    deadline: Mono,
}

impl Buffered {
    /// All of it in one piece. `None` when it has more than `most` bytes.
    pub(super) fn whole(self, most: u64) -> Option<Bytes> {
        let frames: Vec<Bytes> = self.frames.into();
        (self.left <= most).then(|| frames.concat().into())
    }
}

/// The request body that goes to the upstream.
pub(crate) enum ForwardBody {
    /// Piece by piece as it arrives.
    Streamed(Upload),
    /// Read before, because the signature covers it.
    Buffered(Buffered),
}

impl Body for ForwardBody {
    type Error = UploadFailure;

    fn poll_piece(
        &mut self,
        mut pipe: Option<&mut Pipe>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Piece, UploadFailure>>> {
        match self {
            Self::Streamed(upload) => {
                upload.poll_next(cx, |body, cx| body.poll_piece(pipe.as_deref_mut(), cx))
            }
            Self::Buffered(Buffered {
                frames,
                left,
                lease,
                ..
            }) => {
                let frame = frames.pop_front();
                if let Some(data) = &frame {
                    *left -= data.len() as u64;
                    lease.shrink_to(*left);
                }
                Poll::Ready(frame.map(|data| Ok(data.into())))
            }
        }
    }

    fn left(&self) -> Option<u64> {
        match self {
            Self::Streamed(upload) => upload.body.left(),
            Self::Buffered(buffered) => Some(buffered.left),
        }
    }

    fn is_given_up(&self) -> bool {
        match self {
            Self::Streamed(upload) => {
                upload.clock.mono() >= upload.deadline || upload.body.is_cut_off()
            }
            // The body is here whole: its client is not needed any more.
            Self::Buffered(buffered) => buffered.clock.mono() >= buffered.deadline,
        }
    }
}

/// The body of an answer on its way out, piece by piece.
pub enum Relay {
    /// An upstream's. Boxed, because an answer is moved a dozen times on its way, which costs more
    /// than one allocation.
    Upstream(Box<Relayed>),
    /// One of the gate's own.
    Own(OwnBody),
}

/// A body that is made here while it is sent. An error cuts it off.
pub(crate) type OwnBody = mpsc::Receiver<std::io::Result<Bytes>>;

/// An upstream's answer on its way out. Counts it as cut when it breaks off after its head.
pub struct Relayed {
    answer: UpstreamBody,
    idle_timeout: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    ended: bool,
    cut: IntCounter,
    /// The line of its call in the access log.
    pub(super) log: Option<LogEntry>,
}

impl Relay {
    /// `idle_timeout`: the longest pause between two pieces; `cut`: where to count a broken answer.
    pub fn new(answer: UpstreamBody, idle_timeout: Duration, cut: IntCounter) -> Self {
        let ended = answer.left() == Some(0);
        Self::Upstream(Box::new(Relayed {
            answer,
            idle_timeout,
            sleep: None,
            ended,
            cut,
            log: None,
        }))
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        if !self.ended && self.answer.left() != Some(0) {
            self.cut.inc();
        }
    }
}

impl Body for Relay {
    type Error = std::io::Error;

    fn poll_piece(
        &mut self,
        pipe: Option<&mut Pipe>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Piece>>> {
        match self {
            Self::Upstream(relayed) => relayed.poll_piece(pipe, cx),
            Self::Own(body) => body
                .poll_recv(cx)
                .map(|piece| Some(piece?.map(Piece::from))),
        }
    }

    fn left(&self) -> Option<u64> {
        match self {
            Self::Upstream(relayed) => relayed.answer.left(),
            Self::Own(_) => None,
        }
    }
}

impl Relayed {
    fn poll_piece(
        &mut self,
        pipe: Option<&mut Pipe>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Piece>>> {
        match self.answer.poll_piece(pipe, cx) {
            Poll::Ready(piece) => {
                self.sleep = None;
                self.ended |= piece.is_none();
                if let (Some(log), Some(Ok(piece))) = (&mut self.log, &piece) {
                    log.passed(piece.length());
                }
                Poll::Ready(piece)
            }
            Poll::Pending => {
                let timeout = self.idle_timeout;
                let sleep = self
                    .sleep
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(sleep.as_mut().poll(cx));
                Poll::Ready(Some(Err(std::io::ErrorKind::TimedOut.into())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::ClientConnection;
    use crate::proxy::body_memory::BodyMemory;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_body_in_tiny_chunks_takes_no_more_memory_than_twice_its_bytes() {
        let mut sent = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        sent.extend_from_slice(&b"1\r\nx\r\n".repeat(200_000));
        sent.extend_from_slice(b"0\r\n\r\n");
        let (mut client, server) = tokio::io::duplex(sent.len());
        client.write_all(&sent).await.unwrap();
        let (reader, writer) = tokio::io::split(server);
        let (clock, patience) = (Clock::default(), Duration::from_secs(60));
        let mut connection = ClientConnection::new(reader, writer, patience, clock.clone());
        let (_, body) = connection.request(|_| false, |_| ()).await.unwrap();
        let now = clock.mono();
        let upload = Upload::new(body, 1 << 20, false, &clock, now, now.plus(patience));
        let lease = BodyMemory::new(1 << 30).reserve([192, 0, 2, 1].into(), "a", 1 << 20);
        let (_, read) = upload.buffer(lease.unwrap(), &Sign::default()).await;
        let (buffered, _) = read.unwrap();
        assert_eq!(buffered.left, 200_000);
        let held = buffered
            .frames
            .into_iter()
            .map(|frame| match frame.try_into_mut() {
                Ok(alone) => alone.capacity(),
                Err(shared) => shared.len(),
            });
        let held: usize = held.sum();
        assert!(held <= 400_000, "{held} bytes are held");
    }

    #[test]
    fn an_upload_has_its_grace_and_then_the_minimum_rate() {
        assert_eq!(due(0), UPLOAD_GRACE);
        assert_eq!(
            due(UPLOAD_BYTES_PER_SECOND),
            UPLOAD_GRACE + Duration::from_secs(1)
        );
        assert_eq!(
            due(10 * 1024 * 1024),
            UPLOAD_GRACE + Duration::from_secs(640)
        );
        assert!(due(u64::MAX) > UPLOAD_GRACE);
    }
}
