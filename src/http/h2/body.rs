//! The body of a request that comes as a stream of HTTP/2.

use crate::http::h2::meter::Meter;
use bytes::Bytes;
use h2::{RecvStream, SendStream};
use parking_lot::Mutex;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};

/// So much of a body may come before anybody takes it.
pub(super) const WINDOW_BYTES: u32 = 128 * 1024;

/// What the two halves of a stream tell each other.
#[derive(Default)]
pub(super) struct Halves {
    /// A body is asked for whose client waits for `100 Continue`.
    pub(super) is_wanted: AtomicBool,
    /// The other half, when the answer has gone: it alone is told that the client takes back a
    /// request whose body still comes.
    pub(super) answered: Mutex<Option<SendStream<Bytes>>>,
}

impl Halves {
    /// Whether the client has taken the request back, or has gone, since it was answered.
    fn is_taken_back(&self) -> bool {
        let mut answered = self.answered.lock();
        // Nobody waits for it: whoever asks will ask again.
        let mut cx = Context::from_waker(Waker::noop());
        answered
            .as_mut()
            .is_some_and(|stream| stream.poll_reset(&mut cx).is_ready())
    }
}

/// A body as it comes. Its window grows as it is taken: what nobody takes is not sent.
pub(crate) struct StreamBody {
    stream: RecvStream,
    /// The number of bytes that are still to come, when the head said it.
    left: Option<u64>,
    meter: Arc<Meter>,
    halves: Arc<Halves>,
    /// Its client waits for `100 Continue`.
    awaits_continue: bool,
    /// What is let go when the body has been taken whole, or is dropped.
    held: Option<Arc<dyn Any + Send + Sync>>,
}

impl StreamBody {
    /// `length`: as the head declares it, which the stream is held to.
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        meter: Arc<Meter>,
        halves: Arc<Halves>,
        awaits_continue: bool,
    ) -> Self {
        Self {
            stream,
            left: length,
            meter,
            halves,
            awaits_continue,
            held: None,
        }
    }

    /// Keeps this for as long as the body is read.
    pub(crate) fn hold(&mut self, held: Arc<dyn Any + Send + Sync>) {
        self.held = Some(held);
    }

    /// The number of bytes that are still to come; `None` while that is not known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.stream.is_end_stream() {
            true => Some(0),
            false => self.left,
        }
    }

    /// Whether its rest can never come, as far as that is known without reading it: a request that was
    /// taken back before its answer is told of when it is read.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.halves.is_taken_back()
    }

    /// The next piece; `None` when it has ended. Trailers are left out.
    ///
    /// # Errors
    /// When its client has taken it back, has gone, or sends another length than it said.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if std::mem::take(&mut self.awaits_continue) {
            self.halves.is_wanted.store(true, Relaxed);
        }
        let data = match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => data,
            other => return Poll::Ready(other),
        };
        // It was just taken, so that so much may be given back.
        let _ = self.stream.flow_control().release_capacity(data.len());
        self.meter.passed(data.len());
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(data.len() as u64);
        }
        Poll::Ready(Some(Ok(data)))
    }
}

impl Drop for StreamBody {
    /// What still comes of it is thrown away. Its client was allowed to send so much.
    fn drop(&mut self) {
        let window = u64::from(WINDOW_BYTES);
        let rest = self.left().map_or(window, |left| left.min(window));
        self.meter.left_unread(rest);
    }
}
