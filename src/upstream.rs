//! Forward: one call over one connection to the upstream.
//!
//! Owns the pool of connections and the hop-by-hop rules. Must never send anything twice that may
//! have been read, and never reuse a connection before the answer on it has ended.

use crate::clock::Clock;
use crate::words::Mono;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// Idle connections older than this are closed rather than reused: the upstream may be about to
/// close them, and a call that meets that moment is lost.
const IDLE: Duration = Duration::from_secs(30);

/// Why no answer came.
#[derive(thiserror::Error, Debug)]
pub enum Failure {
    /// No connection. Nothing was sent.
    #[error("cannot connect to the upstream {endpoint}: {cause}")]
    Unreachable {
        /// `host:port`.
        endpoint: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The connection broke before the response head.
    #[error("the upstream closed the connection before it answered: {0}")]
    Cut(hyper::Error),
    /// What came is not an HTTP response.
    #[error("the upstream's answer is not HTTP: {0}")]
    Nonsense(hyper::Error),
}

/// Where to connect, and the connections that wait for work. One per worker.
pub struct Upstream<B> {
    host: String,
    port: u16,
    connect_timeout: Duration,
    clock: Clock,
    idle: Mutex<VecDeque<Idle<B>>>,
}

struct Idle<B> {
    link: Link<B>,
    since: Mono,
}

/// A connection and the task that moves its bytes. The task ends with it: left alone it would try
/// to flush a request that nobody waits for, for as long as the upstream does not read.
struct Link<B> {
    sender: SendRequest<B>,
    driver: AbortHandle,
}

impl<B> Drop for Link<B> {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A connection taken for one call.
pub struct Connection<B> {
    link: Link<B>,
    reused: bool,
    home: Arc<Upstream<B>>,
}

/// What became of a request that got no answer.
pub enum NotAnswered<B> {
    /// A kept connection had gone; nothing of the request was sent. Take another connection.
    Unsent(Request<B>),
    /// It failed.
    Failed(Failure),
}

impl<B> Upstream<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An empty pool towards `host:port`.
    pub fn new(host: String, port: u16, connect_timeout: Duration, clock: Clock) -> Self {
        Self {
            host,
            port,
            connect_timeout,
            clock,
            idle: Mutex::default(),
        }
    }

    /// A connection that waits for work, the last used first; else a new one.
    pub async fn connection(self: &Arc<Self>) -> Result<Connection<B>, Failure> {
        if let Some(link) = self.take_idle() {
            return Ok(Connection {
                link,
                reused: true,
                home: self.clone(),
            });
        }
        let link = match tokio::time::timeout(self.connect_timeout, self.connect()).await {
            Ok(Ok(link)) => link,
            Ok(Err(cause)) => return Err(self.unreachable(cause)),
            Err(_) => return Err(self.unreachable(std::io::ErrorKind::TimedOut.into())),
        };
        Ok(Connection {
            link,
            reused: false,
            home: self.clone(),
        })
    }

    async fn connect(&self) -> std::io::Result<Link<B>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        // Its errors reach the call.
        let driver = tokio::spawn(connection).abort_handle();
        Ok(Link { sender, driver })
    }

    fn unreachable(&self, cause: std::io::Error) -> Failure {
        Failure::Unreachable {
            endpoint: format!("{}:{}", self.host, self.port),
            cause,
        }
    }
}

impl<B> Upstream<B> {
    /// One that was answered before its request had gone whole is not ready and stays as it is: to
    /// take it would cut that call's upload.
    fn take_idle(&self) -> Option<Link<B>> {
        let now = self.clock.mono();
        let mut idle = self.idle.lock();
        let ready = idle
            .iter()
            .rposition(|idle| idle.link.sender.is_ready() && now.since(idle.since) < IDLE)?;
        idle.remove(ready).map(|idle| idle.link)
    }

    fn give_back(&self, link: Link<B>) {
        let now = self.clock.mono();
        let mut idle = self.idle.lock();
        while idle
            .front()
            .is_some_and(|oldest| now.since(oldest.since) >= IDLE || oldest.link.sender.is_closed())
        {
            idle.pop_front();
        }
        if !link.sender.is_closed() {
            idle.push_back(Idle { link, since: now });
        }
    }
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends the request and waits for the response head.
    pub async fn send(
        mut self,
        request: Request<B>,
    ) -> Result<Response<Answer<B>>, NotAnswered<B>> {
        match self.link.sender.try_send_request(request).await {
            Ok(response) => Ok(response.map(|body| Answer {
                body,
                ended: false,
                connection: Some((self.link, self.home)),
            })),
            Err(mut error) => match error.take_message() {
                Some(request) if self.reused => Err(NotAnswered::Unsent(request)),
                _ => {
                    let error = error.into_error();
                    Err(NotAnswered::Failed(if error.is_parse() {
                        Failure::Nonsense(error)
                    } else {
                        Failure::Cut(error)
                    }))
                }
            },
        }
    }
}

/// The body of an answer. Its connection goes back to the pool when the body has ended, and only
/// then; dropped before, the connection is closed.
pub struct Answer<B> {
    body: Incoming,
    ended: bool,
    connection: Option<(Link<B>, Arc<Upstream<B>>)>,
}

impl<B> Body for Answer<B> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.ended |= matches!(polled, Poll::Ready(None));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        if let Some((link, home)) = self.connection.take()
            && (self.ended || self.body.is_end_stream())
        {
            home.give_back(link);
        }
    }
}

/// Removes the fields that belong to one hop (RFC 9110 §7.6.1) and those that `Connection` names.
/// `Content-Length` goes too: the framing of the next hop follows from its body.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .collect();
        for name in named.into_iter().filter(|name| name != header::HOST) {
            headers.remove(name);
        }
    }
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
    ] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}
