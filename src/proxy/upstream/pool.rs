//! The connections to a server that wait for work.
//!
//! Owns which of them may be used again, and for how long. Must never lend one on which bytes have
//! come unasked: they would be taken for the answer to the next call.

use crate::proxy::upstream::link::Link;
use crate::proxy::upstream::total::OpenLink;
use bytes::BytesMut;
use parking_lot::Mutex;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

/// An answer is read in steps of this size at first, and in larger ones, up to the second, while
/// each step is filled.
const READ_BYTES: usize = 8 * 1024;
const BULK_READ_BYTES: usize = 128 * 1024;

/// The connections of one worker to one server that wait for work.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<PooledLink>>);

/// How long a connection is kept for the next call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// Since its last answer ended. Shorter than the upstream's own patience: a call that meets the
    /// moment at which the upstream closes is lost. An upstream that says how long it waits
    /// (`Keep-Alive: timeout=`) is heeded.
    pub idle_timeout: Duration,
    /// Since it was opened; `None` is for ever. A younger one finds the upstream's new addresses.
    pub max_age: Option<Duration>,
}

/// The bytes that were read from a connection and not yet taken.
pub(super) struct ReadBuffer {
    pub(super) bytes: BytesMut,
    /// The size of the next read, in bytes.
    read_bytes: usize,
}

/// A connection to the upstream, with the bytes that were read from it.
pub(super) struct PooledLink {
    pub(super) stream: Link,
    /// After the stream: what is counted no more is closed.
    pub(super) open: OpenLink,
    pub(super) buffer: ReadBuffer,
    opened: Instant,
    /// For how long the upstream keeps it while it is idle, as it said last.
    pub(super) keep_alive: Option<Duration>,
    /// While it waits for work: the instant from which on it may not be used.
    kept_until: Instant,
}

impl Pool {
    /// A connection that waits for work, the last used first.
    pub(super) fn take(&self) -> Option<PooledLink> {
        let mut idle = self.0.lock();
        loop {
            let mut link = idle.pop()?;
            let is_kept = link.kept_until > Instant::now();
            // Bytes that have come unasked would be taken for the answer to this call.
            if is_kept && link.buffer.bytes.is_empty() && link.stream.is_quiet() {
                return Some(link);
            }
        }
    }

    /// Takes a connection back for the next call, if it can still be used and no more are open than
    /// may be.
    pub(super) fn give_back(&self, mut link: PooledLink, keep: Keep) {
        if !link.is_quiet() {
            return;
        }
        if link.buffer.read_bytes > READ_BYTES {
            // The memory that one large answer needed is not held for the small ones.
            link.buffer = ReadBuffer::default();
        }
        link.kept_until = keep.until(&link, Instant::now());
        let mut idle = self.0.lock();
        // Asked under the lock: a new connection is counted before it looks here for one to close, so
        // that either it finds this one, or this one sees it.
        if !link.open.is_beyond() {
            idle.push(link);
        }
    }

    /// Closes the connections that have been idle for too long, or that the server has closed.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut idle = self.0.lock();
        idle.retain_mut(|link| link.kept_until > now && link.is_quiet());
    }

    /// How many wait for work.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Closes the one that has waited longest. Whether there was one.
    pub(super) fn close_oldest(&self) -> bool {
        let mut idle = self.0.lock();
        let oldest = (!idle.is_empty()).then(|| idle.remove(0));
        drop(idle);
        oldest.is_some()
    }

    /// Closes all of them.
    pub(super) fn clear(&self) {
        let idle = std::mem::take(&mut *self.0.lock());
        drop(idle);
    }
}

impl Keep {
    /// The instant until which a connection that is idle from `now` on may be used again.
    fn until(self, link: &PooledLink, now: Instant) -> Instant {
        let idle = link
            .keep_alive
            .map_or(self.idle_timeout, |said| said.min(self.idle_timeout));
        let until = now + idle;
        match self.max_age {
            Some(age) => until.min(link.opened + age),
            None => until,
        }
    }
}

impl PooledLink {
    /// A connection that was opened now.
    pub(super) fn new(stream: Link, open: OpenLink) -> Self {
        let opened = Instant::now();
        Self {
            stream,
            open,
            buffer: ReadBuffer::default(),
            opened,
            keep_alive: None,
            kept_until: opened,
        }
    }

    /// Open, as far as is known, and nothing has come unasked. Costs a system call only when the
    /// runtime has heard of something: enough to close what cannot be used, not to use it.
    fn is_quiet(&mut self) -> bool {
        self.buffer.bytes.is_empty() && self.stream.seems_quiet()
    }
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self {
            bytes: BytesMut::new(),
            read_bytes: READ_BYTES,
        }
    }
}

impl ReadBuffer {
    /// Reads what has come, at least a byte; 0 at the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.bytes.reserve(self.read_bytes);
        let room = self.bytes.capacity() - self.bytes.len();
        let read = ready!(pin!(from.read_buf(&mut self.bytes)).poll(cx))?;
        if read == room {
            self.read_bytes = (2 * self.read_bytes).min(BULK_READ_BYTES);
        }
        Poll::Ready(Ok(read))
    }

    /// Reads what has come; 0 at the end of the stream. Asks the system, not the runtime.
    pub(super) fn read_now(&mut self, from: &mut Link) -> io::Result<usize> {
        let before = self.bytes.len();
        self.bytes.resize(before + self.read_bytes, 0);
        let read = from.read_now(&mut self.bytes[before..]);
        self.bytes.truncate(before + read.as_ref().unwrap_or(&0));
        read
    }
}

#[cfg(test)]
mod tests;
