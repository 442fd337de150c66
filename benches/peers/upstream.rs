//! The server behind all servers: it costs as little as it can, and counts.
//!
//! It runs in the thread of the load, because both share one core anyway and a switch between two
//! threads would only add noise.

use crate::load::content_length;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
/// As much of a large body as is read at once; the rest of it is dropped piece by piece.
const BUFFER_BYTES: usize = 128 * 1024;

pub(crate) struct Upstream {
    pub address: SocketAddr,
    answered: Arc<AtomicU64>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            answered: Arc::default(),
        };
        let answered = upstream.answered.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, answered.clone()));
            }
        });
        upstream
    }

    /// Requests that came whole and were answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// Ends when the server that called has gone or cannot be understood; the load then sees it fail.
async fn serve(mut stream: TcpStream, answered: Arc<AtomicU64>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        filled += read(&mut stream, &mut buffer[filled..]).await?;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(head_bytes) = head.parse(&buffer[..filled]).ok()? else {
            continue;
        };
        // A body of unknown length would be a proxy that was not set up as this suite wants it.
        let mut left = (head_bytes + content_length(head.headers)?).checked_sub(filled)?;
        while left > 0 {
            left = left.checked_sub(read(&mut stream, &mut buffer).await?)?;
        }
        filled = 0;
        answered.fetch_add(1, Ordering::Relaxed);
        stream.write_all(ANSWER).await.ok()?;
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<usize> {
    let read = stream.read(buffer).await.ok()?;
    (read > 0).then_some(read)
}
