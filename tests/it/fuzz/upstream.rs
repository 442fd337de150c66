//! An upstream that reads strictly, remembers what it read, and keeps so many connections and no
//! more.

use super::strict::{self, Bad, End, Request};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;

/// A call with this field is answered when as many of them have come as connections are kept.
pub const WARM: &str = "X-Fuzz-Warm: 1";
/// A call with this field gets the answer that was prepared.
pub const PREPARED: &str = "X-Fuzz-Prepared: 1";

/// What was read from a connection.
#[derive(Debug)]
pub enum Seen {
    /// A request, whole or not.
    Request(Request, End),
    /// No request.
    Wrong(Vec<u8>),
}

/// What to say to a call with [`PREPARED`].
pub struct Prepared {
    pub pieces: Vec<Vec<u8>>,
    /// Nothing more comes on the connection.
    pub closes: bool,
}

pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    keeps: usize,
    open: AtomicUsize,
    warm: Barrier,
    seen: Mutex<Vec<Seen>>,
    prepared: Mutex<Option<Prepared>>,
}

impl Upstream {
    pub async fn keeping(keeps: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            keeps,
            open: AtomicUsize::new(0),
            warm: Barrier::new(keeps.max(1)),
            seen: Mutex::default(),
            prepared: Mutex::default(),
        });
        let accepting = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = accepting.clone();
                tokio::spawn(async move {
                    shared.open.fetch_add(1, Ordering::SeqCst);
                    let _ = shared.serve(stream).await;
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, shared }
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    pub fn prepare(&self, prepared: Prepared) {
        *self.shared.prepared.lock() = Some(prepared);
    }

    /// What was seen since it was asked for the last time.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.shared.seen.lock())
    }
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut unread = Vec::new();
        while let Some(request) = self.request(&mut stream, &mut unread).await? {
            if !strict::values(&request.fields, "x-fuzz-prepared").is_empty() {
                let prepared = self.prepared.lock().take();
                let prepared = prepared.expect("an answer is prepared for each such call");
                for (nth, piece) in prepared.pieces.iter().enumerate() {
                    if nth > 0 {
                        tokio::time::sleep(Duration::from_micros(300)).await;
                    }
                    stream.write_all(piece).await?;
                }
                if prepared.closes {
                    return stream.shutdown().await;
                }
                continue;
            }
            if !strict::values(&request.fields, "x-fuzz-warm").is_empty() {
                self.warm.wait().await;
            }
            let id = strict::values(&request.fields, "x-request-id").concat();
            let body = format!("{{\"id\":\"{}\"}}", String::from_utf8_lossy(&id));
            let closes = self.open.load(Ordering::SeqCst) > self.keeps;
            let last = if closes { "Connection: close\r\n" } else { "" };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{last}Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await?;
            if closes {
                return stream.shutdown().await;
            }
        }
        Ok(())
    }

    /// The next request, remembered; `None` at the end.
    async fn request(
        &self,
        stream: &mut TcpStream,
        unread: &mut Vec<u8>,
    ) -> std::io::Result<Option<Request>> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = strict::request(unread);
            match read {
                Ok((request, End::Whole, rest)) => {
                    let rest = rest.to_vec();
                    *unread = rest;
                    let seen = Seen::Request(request.clone(), End::Whole);
                    self.seen.lock().push(seen);
                    return Ok(Some(request));
                }
                Ok((_, End::Wrong, _)) | Err(Bad::Wrong) => {
                    self.seen.lock().push(Seen::Wrong(unread.clone()));
                    return Ok(None);
                }
                Ok((_, End::Short, _)) | Err(Bad::Short) => {}
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => {
                    let seen = match strict::request(unread) {
                        _ if unread.is_empty() => return Ok(None),
                        Ok((request, end, _)) => Seen::Request(request, end),
                        Err(_) => Seen::Wrong(unread.clone()),
                    };
                    self.seen.lock().push(seen);
                    return Ok(None);
                }
                Ok(read) => unread.extend_from_slice(&buffer[..read]),
            }
        }
    }
}
