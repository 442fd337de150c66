//! Which kept connections are used again. The runtime hears of nothing in between, as a worker that is busy.

use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as Peer};

/// A pool that keeps one connection, and that connection's other end.
async fn kept() -> (Arc<Upstream>, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let timeout = Duration::from_secs(5);
    let dialer = Dialer::new("127.0.0.1".to_owned(), port, timeout, |_| ());
    let keep = Keep {
        idle_timeout: Duration::from_secs(30),
        max_age: None,
    };
    let upstream = Arc::new(Upstream::new(Arc::new(dialer), keep));
    let connection = upstream.connection().await.unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let head = ForwardHead::new(
        Method::GET,
        &crate::wire::Target::read(&Bytes::from_static(b"/")).unwrap(),
    );
    let answering = std::thread::spawn(move || {
        assert!(peer.read(&mut [0; 1024]).unwrap() > 0);
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        peer
    });
    let answer = connection.send(Outgoing::new(head, Bytes::new())).await;
    drop(answer.ok().unwrap());
    (upstream, answering.join().unwrap())
}

#[tokio::test]
async fn a_kept_connection_on_which_a_byte_came_unasked_is_not_used_again() {
    let (upstream, _peer) = kept().await;
    let used_again = upstream.take_idle();
    assert!(used_again.is_some_and(|link| link.stream.peer_addr().is_ok()));

    for came in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"[..],
        b"x",
    ] {
        let (upstream, mut peer) = kept().await;
        peer.write_all(came).unwrap();
        // Blocks the runtime, so that only the system knows.
        std::thread::sleep(Duration::from_millis(5));
        assert!(upstream.take_idle().is_none(), "{} bytes came", came.len());
    }

    let (upstream, peer) = kept().await;
    drop(peer);
    std::thread::sleep(Duration::from_millis(5));
    assert!(upstream.take_idle().is_none(), "it was closed");
}
