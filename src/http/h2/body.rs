//! The body of a request that comes as a stream of HTTP/2.

use crate::http::h2::meter::Meter;
use bytes::Bytes;
use h2::RecvStream;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

/// A body as it comes. Its window grows as it is taken: what nobody takes is not sent.
pub(crate) struct StreamBody {
    stream: RecvStream,
    /// The number of bytes that are still to come, when the head said it.
    left: Option<u64>,
    meter: Arc<Meter>,
    /// Set when a body is asked for whose client waits for `100 Continue`.
    wanted: Option<Arc<AtomicBool>>,
    /// What is let go when the body has been taken whole, or is dropped.
    held: Option<Arc<dyn Any + Send + Sync>>,
}

impl StreamBody {
    /// `length`: as the head declares it, which the stream is held to.
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        meter: Arc<Meter>,
        wanted: Option<Arc<AtomicBool>>,
    ) -> Self {
        Self {
            stream,
            left: length,
            meter,
            wanted,
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

    /// The next piece; `None` when it has ended. Trailers are left out.
    ///
    /// # Errors
    /// When its client has taken it back, has gone, or sends another length than it said.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if let Some(wanted) = self.wanted.take() {
            wanted.store(true, Relaxed);
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
