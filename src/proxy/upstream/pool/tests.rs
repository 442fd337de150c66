//! The kept connections that are used again, and the answers that count. The runtime hears of
//! nothing in between, as on a worker that is busy.

use super::*;
use crate::http::Pipe;
use crate::http::h1::{Body, ForwardHead, Piece};
use crate::proxy::upstream::exchange::{NotAnswered, exchange};
use crate::proxy::upstream::{Sending, Upstream, UpstreamAnswer, UpstreamRequest};
use bytes::Bytes;
use http::{Method, StatusCode};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as Peer};
use std::sync::Arc;

/// A pool, and where it connects to.
fn pool() -> (Arc<Upstream>, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (connect, idle) = (Duration::from_secs(5), Duration::from_secs(30));
    let upstream = Upstream::to(listener.local_addr().unwrap(), None, connect, idle);
    (upstream, listener)
}

/// A connection of the pool that waits for work.
fn take(upstream: &Upstream) -> Option<PooledLink> {
    upstream.lease(0, &[]).unwrap().kept_link()
}

async fn send<B: Body + Send + 'static>(
    upstream: &Arc<Upstream>,
    request: UpstreamRequest<B>,
) -> UpstreamAnswer {
    let mut sending = Sending::new(upstream.enter().unwrap(), 0);
    let answer = sending.send(request, || ()).await.unwrap();
    sending.held(answer)
}

fn head(method: Method) -> ForwardHead {
    let target = crate::http::Target::read(&Bytes::from_static(b"/"));
    ForwardHead::new(method, &target.unwrap())
}

/// A pool that keeps one connection, and that connection's other end.
async fn kept() -> (Arc<Upstream>, Peer) {
    let (upstream, listener) = pool();
    let answering = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        assert!(peer.read(&mut [0; 1024]).unwrap() > 0);
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        peer
    });
    let request = UpstreamRequest::new(head(Method::GET), Bytes::new());
    drop(send(&upstream, request).await);
    (upstream, answering.join().unwrap())
}

#[tokio::test]
async fn a_kept_connection_on_which_a_byte_came_unasked_is_not_used_again() {
    let (upstream, _peer) = kept().await;
    let used_again = take(&upstream);
    assert!(used_again.is_some());

    for came in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"[..],
        b"x",
    ] {
        let (upstream, mut peer) = kept().await;
        peer.write_all(came).unwrap();
        // Blocks the runtime, so that only the system knows.
        std::thread::sleep(Duration::from_millis(5));
        assert!(take(&upstream).is_none(), "{} bytes came", came.len());
    }

    let (upstream, peer) = kept().await;
    drop(peer);
    std::thread::sleep(Duration::from_millis(5));
    assert!(take(&upstream).is_none(), "it was closed");
}

/// A body of two pieces, between which the upstream does something.
struct Upload<F> {
    pieces: u64,
    between: Option<F>,
}

impl<F: FnOnce()> Body for Upload<F> {
    type Error = io::Error;

    fn poll_piece(
        &mut self,
        _: Option<&mut Pipe>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Piece>>> {
        // Asked for the second one, it has sent the first.
        if self.pieces == 1
            && let Some(act) = self.between.take()
        {
            act();
        }
        self.pieces -= 1;
        Poll::Ready(Some(Ok(Bytes::from_static(&[b'x'; 4_000]).into())))
    }

    fn left(&self) -> Option<u64> {
        Some(self.pieces * 4_000)
    }
}

#[tokio::test]
async fn an_answer_counts_though_the_upstream_closed_with_the_rest_of_the_request_unread() {
    // The head of the second one is more than is read at once.
    for filler in [0, 20_000] {
        let (upstream, listener) = pool();
        let between = move || {
            let (mut peer, _) = listener.accept().unwrap();
            assert!(peer.read(&mut [0; 10]).unwrap() > 0);
            let filler = "f".repeat(filler);
            write!(
                peer,
                "HTTP/1.1 413 Large\r\nX-F: {filler}\r\nContent-Length: 5\r\n\r\nlarge"
            )
            .unwrap();
            drop(peer);
            // Blocks the runtime, so that only the system knows.
            std::thread::sleep(Duration::from_millis(5));
        };
        let upload = Upload {
            pieces: 2,
            between: Some(between),
        };
        let request = UpstreamRequest::new(head(Method::POST), upload);
        let mut answer = send(&upstream, request).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        let data = std::future::poll_fn(|cx| answer.body.poll_data(cx)).await;
        assert_eq!(data.unwrap().unwrap(), "large");
        drop(answer);
        assert!(take(&upstream).is_none(), "its connection is no good");
    }
}

#[tokio::test]
async fn what_came_before_a_request_was_sent_is_no_answer_to_it() {
    let (upstream, mut peer) = kept().await;
    let link = take(&upstream).unwrap();
    // Too late to be seen: the connection has been looked at.
    peer.write_all(b"HTTP/1.1 408 Too Late\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    socket2::SockRef::from(&peer)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(peer);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let request = UpstreamRequest::new(head(Method::GET), Bytes::new());
    let sent = exchange(link, request).await;
    assert!(matches!(sent, Err(NotAnswered::Unsent(..))));
}
