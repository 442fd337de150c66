//! Requests from a client: their heads, and their bodies, which others read.

use crate::http::h1::{BadHead, HEAD_BYTES, Piece, RequestHead, request_head};
use crate::http::h2::StreamBody;
use crate::http::{ByteReader, Framing, Pipe, ends_before, is_reset};
use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use std::any::Any;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::AsyncReadExt;

/// A request is read in steps of this size at first, and in larger ones, up to the second, while
/// each step is filled.
const READ_BYTES: usize = 8 * 1024;
const BULK_READ_BYTES: usize = 256 * 1024;
/// With less room than this a read first asks for more memory: between bodies, and within one. The
/// old memory may still be in use.
const ENOUGH_ROOM: usize = 1024;
const ENOUGH_BODY_ROOM: usize = 16 * 1024;

/// The reading half of a connection. Shared with the body that is being read.
pub(super) struct RequestReader(Arc<Mutex<ReaderState>>);

struct ReaderState {
    reader: Box<dyn ByteReader>,
    bytes: BytesMut,
    /// How much to read at once.
    read_bytes: usize,
    /// The bytes of empty lines before the next head.
    empty: usize,
    /// The bytes of an incomplete head that have been looked at.
    parsed: usize,
    /// The framing of the body that comes; ended when none does.
    framing: Framing,
    /// The bytes of that body that have been taken.
    taken: u64,
    /// A [`RequestBody`] reads it.
    is_held: bool,
    /// Wakes the task that waits until it is not.
    waiting: Option<Waker>,
    wants_continue: bool,
}

/// How a client's side of a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// It sends no more. It may have gone, or wait for its answer: TCP says the same of both.
    OfStream,
    /// It has gone.
    Reset,
}

/// The body broke off: its client hung up, or its framing is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

/// The body of a request, as it comes. Dropped unfinished, the rest is for the connection to deal
/// with.
pub struct RequestBody {
    source: BodySource,
    /// The number of bytes that have been taken.
    taken: u64,
}

enum BodySource {
    /// It came with its head.
    Whole(Bytes),
    /// It comes as a stream of HTTP/2.
    Stream(Box<StreamBody>),
    Coming {
        reader: Arc<Mutex<ReaderState>>,
        left: Option<u64>,
        /// Its client waits for `100 Continue` before it sends it.
        expects_continue: bool,
    },
}

impl RequestReader {
    pub(super) fn new(reader: Box<dyn ByteReader>) -> Self {
        Self(Arc::new(Mutex::new(ReaderState {
            reader,
            bytes: BytesMut::new(),
            read_bytes: READ_BYTES,
            empty: 0,
            parsed: 0,
            framing: Framing::Length(0),
            taken: 0,
            is_held: false,
            waiting: None,
            wants_continue: false,
        })))
    }

    /// Whether nothing has been read that was not taken.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().bytes.is_empty()
    }

    /// Whether the body of the last request has not been read to its end.
    pub(super) fn is_in_body(&self) -> bool {
        !self.0.lock().framing.has_ended()
    }

    /// The next request, `None` at the end of the stream. Only when the body of the one before has
    /// ended.
    #[allow(clippy::type_complexity)]
    pub(super) fn poll_request(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<(Box<RequestHead>, RequestBody)>, BadHead>> {
        let mut state = self.0.lock();
        loop {
            state.skip_empty_lines();
            if state.empty >= HEAD_BYTES {
                return Poll::Ready(Err(BadHead::TooLarge));
            }
            // Only a new line can make the head whole, or bad.
            if state.parsed == 0 || state.bytes[state.parsed..].contains(&b'\n') {
                if !state.bytes.is_empty()
                    && let Some(head) = request_head(&mut state.bytes)?
                {
                    let body = self.body_of(&mut state, &head);
                    return Poll::Ready(Ok(Some((head, body))));
                }
            } else if state.bytes.len() >= HEAD_BYTES {
                return Poll::Ready(Err(BadHead::TooLarge));
            }
            state.parsed = state.bytes.len();
            match ready!(state.poll_read(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Ok(None)),
            }
        }
    }

    fn body_of(&self, state: &mut ReaderState, head: &RequestHead) -> RequestBody {
        (state.empty, state.parsed) = (0, 0);
        if let Some(left) = head.framing.left()
            && let Ok(length) = usize::try_from(left)
            && length <= state.bytes.len()
        {
            let whole = match length {
                0 => Bytes::new(),
                length => state.bytes.split_to(length).freeze(),
            };
            state.shrink();
            return RequestBody::from(BodySource::Whole(whole));
        }
        state.framing = head.framing;
        state.taken = 0;
        state.is_held = true;
        RequestBody::from(BodySource::Coming {
            reader: self.0.clone(),
            left: head.framing.left(),
            expects_continue: head.expects_continue,
        })
    }

    /// Whether somebody has asked for a body whose client waits for `100 Continue`; once.
    pub(super) fn take_wants_continue(&self) -> bool {
        std::mem::take(&mut self.0.lock().wants_continue)
    }

    /// Ready when nothing more comes of the client. Looked for only between a whole request and the
    /// next one.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<End> {
        let mut state = self.0.lock();
        if !state.framing.has_ended() || !state.bytes.is_empty() {
            return Poll::Pending;
        }
        match ready!(state.poll_read(cx)) {
            Ok(1..) => Poll::Pending,
            Ok(0) => Poll::Ready(End::OfStream),
            Err(_) => Poll::Ready(End::Reset),
        }
    }

    /// Ready when nobody else reads the body any more.
    pub(super) fn poll_released(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if !state.is_held {
            return Poll::Ready(());
        }
        state.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Throws the rest of the body away. Only when nobody else reads it.
    pub(super) fn poll_discard_body(&self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let mut state = self.0.lock();
        while ready!(state.poll_data(cx))?.is_some() {}
        Poll::Ready(Ok(()))
    }

    /// Throws away whatever comes; ready at the end of the stream.
    pub(super) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        loop {
            state.bytes.clear();
            match ready!(state.poll_read(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl ReaderState {
    /// Reads what has come, at least a byte; 0 at the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (wanted, enough) = match self.framing.left() {
            Some(0) => (self.read_bytes, ENOUGH_ROOM),
            // No more room than the rest of the body needs, nor less than for a head. Pages that
            // are not written to take no memory.
            Some(left) => {
                let left = usize::try_from(left).unwrap_or(BULK_READ_BYTES);
                (left.clamp(READ_BYTES, BULK_READ_BYTES), ENOUGH_BODY_ROOM)
            }
            None => (self.read_bytes, ENOUGH_BODY_ROOM),
        };
        let mut room = self.bytes.capacity() - self.bytes.len();
        // The same memory again, if it is free, for it is in the processor's cache.
        if !self.bytes.try_reclaim(wanted) && room < wanted.min(enough) {
            self.bytes.reserve(wanted);
        }
        room = room.max(self.bytes.capacity() - self.bytes.len());
        let read = ready!(pin!(self.reader.read_buf(&mut self.bytes)).poll(cx))?;
        if read == room {
            self.read_bytes = (2 * self.read_bytes).min(BULK_READ_BYTES);
        }
        Poll::Ready(Ok(read))
    }

    /// Takes the empty lines that may come before a head (RFC 9112 §2.2), so that none is looked at
    /// twice. A line that ends without CR is left for the parser of the head to refuse.
    fn skip_empty_lines(&mut self) {
        let lines = self
            .bytes
            .chunks_exact(2)
            .take_while(|line| *line == b"\r\n");
        let length = 2 * lines.count();
        if length > 0 {
            self.bytes.advance(length);
            self.empty += length;
            self.parsed = 0;
        }
    }

    /// The next piece of the body; `None` when it has ended.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        loop {
            let taken = self.framing.take(&mut self.bytes);
            if let Some(data) = taken.map_err(|_| Broken)? {
                self.taken += data.len() as u64;
                return Poll::Ready(Ok(Some(data)));
            }
            if self.framing.has_ended() {
                return Poll::Ready(Ok(None));
            }
            match ready!(self.poll_read(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(Broken)),
            }
        }
    }

    /// The next piece of the body, in the pipe where it can be.
    fn poll_piece(
        &mut self,
        pipe: Option<&mut Pipe>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        if self.bytes.is_empty()
            && let (Some(pipe), Some(socket)) = (pipe, self.reader.socket())
        {
            match ready!(self.framing.poll_fill(pipe, socket, cx)) {
                Ok(None) => {}
                Ok(Some(piped @ 1..)) => {
                    self.taken += piped as u64;
                    return Poll::Ready(Ok(Some(Piece::Piped(piped))));
                }
                Ok(Some(0)) | Err(_) => return Poll::Ready(Err(Broken)),
            }
        }
        self.poll_data(cx).map_ok(|data| data.map(Piece::Read))
    }

    /// Whether the rest of the body can never come: the connection was reset, or its sender has
    /// said that no more comes, and what has come is too little. Of a chunked body the latter is
    /// not told without reading it.
    fn is_cut_off(&self) -> bool {
        let Some(socket) = self.reader.transport() else {
            return false;
        };
        match self.framing {
            // Of what is under TLS the lengths tell nothing.
            Framing::Length(left) if self.reader.is_plain() => {
                ends_before(socket, left.saturating_sub(self.bytes.len() as u64))
            }
            _ => is_reset(socket),
        }
    }

    /// The memory that one large request needed is not held for the small ones.
    fn shrink(&mut self) {
        self.read_bytes = READ_BYTES;
        if self.bytes.is_empty() && self.bytes.capacity() > 2 * READ_BYTES {
            self.bytes = BytesMut::new();
        }
    }

    fn release(&mut self) {
        self.is_held = false;
        // A body that nothing reads needs no `100 Continue`, and the next request is another one.
        self.wants_continue = false;
        self.shrink();
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

impl From<BodySource> for RequestBody {
    fn from(source: BodySource) -> Self {
        Self { source, taken: 0 }
    }
}

impl RequestBody {
    /// The body of a request of HTTP/2.
    pub(crate) fn of_stream(body: StreamBody) -> Self {
        Self::from(match body.left() {
            Some(0) => BodySource::Whole(Bytes::new()),
            _ => BodySource::Stream(Box::new(body)),
        })
    }

    /// Keeps this for as long as a body of HTTP/2 is read. The body of a call of HTTP/1.1 needs it
    /// not: its connection does not end before it.
    pub(crate) fn hold(&mut self, held: Arc<dyn Any + Send + Sync>) {
        if let BodySource::Stream(body) = &mut self.source {
            body.hold(held);
        }
    }

    /// Whether what is left of it is in nobody's way: no other request follows on the same stream.
    pub(crate) fn is_of_stream(&self) -> bool {
        matches!(self.source, BodySource::Stream(_))
    }

    /// Whether all of it has come, taken or not.
    pub fn has_come(&self) -> bool {
        match &self.source {
            BodySource::Whole(_) => true,
            BodySource::Stream(body) => body.left() == Some(0),
            BodySource::Coming { left, .. } => *left == Some(0),
        }
    }

    /// All of it, if it came with its head and nothing of it was taken.
    pub fn whole(&self) -> Option<&[u8]> {
        match &self.source {
            BodySource::Whole(data) => Some(data),
            BodySource::Stream(_) | BodySource::Coming { .. } => None,
        }
    }

    /// The number of bytes that have been taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The number of bytes that have not been taken; `None` while that is not known.
    pub fn left(&self) -> Option<u64> {
        match &self.source {
            BodySource::Whole(data) => Some(data.len() as u64),
            BodySource::Stream(body) => body.left(),
            BodySource::Coming { left, .. } => *left,
        }
    }

    /// Whether its rest can never come, because its client has gone: told without reading it.
    pub fn is_cut_off(&self) -> bool {
        match &self.source {
            BodySource::Whole(_) => false,
            BodySource::Stream(body) => body.is_cut_off(),
            BodySource::Coming { reader, .. } => reader.lock().is_cut_off(),
        }
    }

    /// Takes the next piece into memory; `None` when it has ended.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        self.poll_next(cx, ReaderState::poll_data)
    }

    /// Takes the next piece, into `pipe` if that can be; `None` when it has ended.
    pub fn poll_piece(
        &mut self,
        pipe: Option<&mut Pipe>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        self.poll_next(cx, |state, cx| state.poll_piece(pipe, cx))
    }

    fn poll_next<P: From<Bytes>>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut ReaderState, &mut Context<'_>) -> Poll<Result<Option<P>, Broken>>,
    ) -> Poll<Result<Option<P>, Broken>> {
        let (reader, left, expects_continue) = match &mut self.source {
            BodySource::Whole(data) => {
                let data = std::mem::take(data);
                self.taken += data.len() as u64;
                return Poll::Ready(Ok((!data.is_empty()).then(|| data.into())));
            }
            BodySource::Stream(body) => {
                let data = ready!(body.poll_data(cx)).transpose().map_err(|_| Broken)?;
                self.taken += data.as_ref().map_or(0, |data| data.len() as u64);
                if data.is_none() || body.left() == Some(0) {
                    self.source = BodySource::Whole(Bytes::new());
                }
                return Poll::Ready(Ok(data.map(P::from)));
            }
            BodySource::Coming {
                reader,
                left,
                expects_continue,
            } => (reader, left, expects_continue),
        };
        let mut state = reader.lock();
        state.wants_continue |= std::mem::take(expects_continue);
        let polled = poll(&mut state, cx);
        *left = state.framing.left();
        self.taken = state.taken;
        if state.framing.has_ended() {
            state.release();
            drop(state);
            // The bytes from here on belong to the next request.
            self.source = BodySource::Whole(Bytes::new());
        }
        polled
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let BodySource::Coming { reader, .. } = &self.source {
            reader.lock().release();
        }
    }
}
