//! How much a connection costs, and how much of that is of use.
//!
//! Owns when a peer is cut off that makes work and asks for nothing: settings, pings, window
//! updates, priorities, resets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// After so many bytes read in one go the other connections of the worker have their turn.
const TURN_BYTES: usize = 64 * 1024;
/// Of the bytes that are read at least one in so many must be of use ..
const USEFUL_SHARE: u64 = 8;
/// .. but for so many: bodies that have come and that nobody has taken yet are no waste, and a
/// connection may have 12.5 MiB of them.
const FREE_BYTES: u64 = 3 * 1024 * 1024;
/// Requests that are looked at before a peer is judged by its resets.
const JUDGED_STREAMS: u64 = 500;

/// The figures of one connection.
#[derive(Default)]
pub(super) struct Meter {
    read: AtomicU64,
    useful: AtomicU64,
    /// The bytes that may have come of bodies that nobody read to their ends.
    unread: AtomicU64,
    /// The bytes that may still be read in this turn.
    turn: AtomicUsize,
    streams: AtomicU64,
    reset: AtomicU64,
}

impl Meter {
    /// The connection's turn begins.
    pub(super) fn begins_turn(&self) {
        self.turn.store(TURN_BYTES, Relaxed);
    }

    /// So many bytes of requests or answers have passed.
    pub(super) fn passed(&self, bytes: usize) {
        self.useful.fetch_add(bytes as u64, Relaxed);
    }

    /// So many bytes of a body may come, or have come, that nobody reads. They are neither of use nor
    /// wasted; perhaps other bytes come in their place, so they let no more of those pass.
    pub(super) fn left_unread(&self, bytes: u64) {
        self.unread.fetch_add(bytes, Relaxed);
    }

    /// A request has come whose head has so many bytes.
    pub(super) fn begins_stream(&self, head_bytes: usize) {
        self.streams.fetch_add(1, Relaxed);
        self.passed(head_bytes);
    }

    /// Its peer has taken a request back before it was answered.
    pub(super) fn was_reset(&self) {
        self.reset.fetch_add(1, Relaxed);
    }

    /// Whether the peer makes work and asks for nothing.
    pub(super) fn is_flooded(&self) -> bool {
        let unread = self.unread.load(Relaxed);
        let wasted = self.read.load(Relaxed).saturating_sub(unread) / USEFUL_SHARE;
        let streams = self.streams.load(Relaxed);
        wasted > self.useful.load(Relaxed) + FREE_BYTES
            || (streams >= JUDGED_STREAMS && 2 * self.reset.load(Relaxed) > streams)
    }
}

/// A connection whose bytes are counted.
pub(super) struct Metered<T> {
    pub(super) stream: T,
    pub(super) meter: Arc<Meter>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.meter.turn.load(Relaxed);
        if left == 0 {
            // A peer whose bytes never end would else be read for ever.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let read = into.filled().len() - before;
        self.meter.turn.store(left.saturating_sub(read), Relaxed);
        self.meter.read.fetch_add(read as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn after(read: u64, useful: usize, streams: u64, reset: u64) -> bool {
        let meter = Meter::default();
        meter.read.store(read, Relaxed);
        meter.passed(useful);
        meter.streams.store(streams, Relaxed);
        meter.reset.store(reset, Relaxed);
        meter.is_flooded()
    }

    #[test]
    fn a_peer_is_cut_off_when_less_than_an_eighth_of_its_bytes_is_of_use() {
        assert!(!after(0, 0, 0, 0));
        assert!(!after(8 * FREE_BYTES, 0, 0, 0), "an ordinary beginning");
        assert!(!after(13 << 20, 0, 0, 0), "bodies that wait are no waste");
        assert!(after(8 * FREE_BYTES + 8, 0, 0, 0));
        assert!(!after(800 << 20, 100 << 20, 0, 0));
        assert!(after(824 << 20, 99 << 20, 0, 0));
    }

    #[test]
    fn what_nobody_reads_of_a_body_lets_as_many_bytes_pass_and_no_more() {
        let meter = Meter::default();
        meter.left_unread(1 << 30);
        meter.read.store((1 << 30) + 8 * FREE_BYTES, Relaxed);
        assert!(!meter.is_flooded());
        meter.read.fetch_add(8, Relaxed);
        assert!(meter.is_flooded());
    }

    #[test]
    fn a_peer_is_cut_off_when_it_takes_back_more_than_half_of_many_requests() {
        assert!(!after(0, 0, 499, 499), "few are no pattern");
        assert!(!after(0, 0, 500, 250));
        assert!(after(0, 0, 500, 251));
    }

    #[tokio::test]
    async fn a_turn_ends_after_its_bytes_and_the_rest_is_read_in_the_next() {
        let meter = Arc::new(Meter::default());
        let endless = tokio::io::repeat(7);
        let mut metered = Metered {
            stream: endless,
            meter: meter.clone(),
        };
        let mut room = vec![0; 4 * TURN_BYTES];
        for _ in 0..2 {
            meter.begins_turn();
            let mut read = 0;
            let turn = std::future::poll_fn(|cx| {
                loop {
                    let mut into = ReadBuf::new(&mut room[..10_000]);
                    match Pin::new(&mut metered).poll_read(cx, &mut into) {
                        Poll::Ready(_) => read += into.filled().len(),
                        Poll::Pending => return Poll::Ready(()),
                    }
                }
            });
            turn.await;
            assert!((TURN_BYTES..TURN_BYTES + 10_000).contains(&read), "{read}");
        }
    }
}
