//! The load: what is sent, how fast, and what the answers say.
//!
//! One thread makes all calls, each whole in memory before the measurement. An answer of another
//! status, a connection that is closed, or a call that did not reach the upstream ends the
//! benchmark: a server that does something else than the case says has no figure.

use crate::accounts;
use crate::tls::{self, Stream};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::client::TlsStream;
use tollgate::testing::model::{Clock, Mono};

/// A small call, such as one that names a picture by its URL.
pub(crate) const SMALL_BODY: usize = 300;

/// Requests that are sent in turn.
pub(crate) struct Calls {
    requests: Vec<Vec<u8>>,
    next: AtomicUsize,
}

impl Calls {
    fn new(requests: Vec<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self {
            requests,
            next: AtomicUsize::new(0),
        })
    }

    /// With the API keys of these accounts.
    pub(crate) fn with_keys(accounts: Range<usize>, body_bytes: usize) -> Arc<Self> {
        let body = "x".repeat(body_bytes);
        let request = |number| {
            let headers = format!("X-Api-Key: {}\r\n", accounts::key(number));
            request("/v1/portrait/segment", &headers, &body)
        };
        Self::new(accounts.map(request).collect())
    }

    /// With a key that nobody has, each call from the next of `peers` addresses (at most 65,536).
    pub(crate) fn with_unknown_key(peers: usize) -> Arc<Self> {
        let body = "x".repeat(SMALL_BODY);
        let request = |peer: usize| {
            let address = format!("10.0.{}.{}", peer / 256, peer % 256);
            let headers =
                format!("X-Api-Key: key-of-nobody-000000000\r\nX-Forwarded-For: {address}\r\n");
            request("/v1/portrait/segment", &headers, &body)
        };
        Self::new((0..peers).map(request).collect())
    }

    /// `different` bodies signed (TC3) by account 0 now. Valid for five minutes, as often as they
    /// are sent.
    pub(crate) fn signed(clock: &Clock, different: usize, body_bytes: usize) -> Arc<Self> {
        let now = clock.utc().seconds();
        let request = |number| {
            let body = format!("{number:09}{}", "x".repeat(body_bytes - 9));
            let (id, secret) = (accounts::secret_id(0), accounts::secret_key(0));
            let authorization = tollgate::cli::demo::sign(&id, &secret, now, HOST, &body);
            let headers = format!(
                "X-TC-Action: SegmentPortraitPic\r\nX-TC-Version: 2020-03-24\r\nX-TC-Region: ap-guangzhou\r\n\
                 X-TC-Timestamp: {now}\r\nAuthorization: {authorization}\r\n"
            );
            request("/", &headers, &body)
        };
        Self::new((0..different).map(request).collect())
    }

    /// How many were taken so far.
    pub(crate) fn taken(&self) -> usize {
        self.next.load(Ordering::Relaxed)
    }

    fn next(&self) -> &[u8] {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        &self.requests[number % self.requests.len()]
    }
}

const HOST: &str = "bench";

fn request(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let mut text = String::with_capacity(512 + body.len());
    write!(
        text,
        "POST {path} HTTP/1.1\r\nHost: {HOST}\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    text.into_bytes()
}

/// How calls are spaced.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Each connection sends its next call when it has the answer to the last.
    Closed,
    /// So many are due each second, whatever the answers take; a latency counts from the instant at
    /// which its call was due, so that a stall counts for every call that it delayed.
    PerSecond(u64),
}

/// What calls are sent over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// HTTP/1.1.
    Plain,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    H2,
}

#[derive(Clone)]
pub(crate) struct Load {
    pub calls: Arc<Calls>,
    pub wire: Wire,
    pub pace: Pace,
    pub connections: usize,
    /// The status of every answer. Of 429 some may be 200: what the small quota lets in.
    pub status: u16,
    /// How many of a hundred: 1 where that is to cost nothing.
    pub let_in_percent: u64,
    /// A store decides: 503 says that it did not in time, and is counted.
    pub is_at_store: bool,
}

/// What became of a load.
pub(crate) struct Answers {
    /// In nanoseconds, ascending.
    latencies: Vec<u64>,
    /// Answers with status 200.
    pub admitted: u64,
    /// Answers with status 503.
    pub undecided: u64,
    pub took: Duration,
}

impl Answers {
    pub(crate) fn calls(&self) -> usize {
        self.latencies.len()
    }

    /// The latency in microseconds that this share of the calls kept within.
    pub(crate) fn within_us(&self, share: f64) -> f64 {
        self.latencies[((self.calls() - 1) as f64 * share) as usize] as f64 / 1e3
    }
}

impl Load {
    /// Makes calls for a while over connections that are there when it begins.
    pub(crate) async fn run(
        &self,
        name: &'static str,
        connections: Vec<Caller>,
        lasting: Duration,
    ) -> Answers {
        let clock = Clock::default();
        let began = clock.mono();
        let ends = began.plus(lasting);
        let schedule = Arc::new(Mutex::new(began));
        let mut tasks = tokio::task::JoinSet::new();
        for mut connection in connections {
            let (load, clock, schedule) = (self.clone(), clock.clone(), schedule.clone());
            tasks.spawn(async move {
                let mut latencies = Vec::with_capacity(8_192);
                let (mut admitted, mut undecided) = (0, 0);
                loop {
                    let due = load.pace.due(&clock, &schedule).await;
                    if due >= ends {
                        return (latencies, admitted, undecided);
                    }
                    let status = connection.call(load.calls.next()).await;
                    latencies.push(clock.mono().since(due).as_nanos() as u64);
                    admitted += u64::from(status == 200);
                    undecided += u64::from(status == 503);
                    let stray = match status {
                        200 => load.status == 429,
                        503 => load.is_at_store,
                        _ => false,
                    };
                    assert!(status == load.status || stray, "{name}: answered {status}");
                }
            });
        }
        let (mut latencies, mut admitted, mut undecided) = (Vec::new(), 0, 0);
        while let Some(task) = tasks.join_next().await {
            let (of_task, admitted_of_task, undecided_of_task) = task.unwrap();
            latencies.extend(of_task);
            admitted += admitted_of_task;
            undecided += undecided_of_task;
        }
        let strays = if self.status == 200 { 0 } else { admitted };
        assert!(
            strays * 100 <= self.let_in_percent * latencies.len() as u64,
            "{name}: {strays} were let in"
        );
        latencies.sort_unstable();
        Answers {
            latencies,
            admitted,
            undecided,
            took: clock.mono().since(began),
        }
    }
}

impl Pace {
    /// Waits until the next call is due.
    async fn due(self, clock: &Clock, schedule: &Mutex<Mono>) -> Mono {
        let Self::PerSecond(rate) = self else {
            return clock.mono();
        };
        let mut next = schedule.lock().await;
        let due = *next;
        *next = due.plus(Duration::from_nanos(1_000_000_000 / rate));
        // One waits and the others queue behind it. It does not sleep, since timers and the waking
        // of an idle core are coarser than what is measured; between two looks at the clock the
        // runtime looks for answers.
        while clock.mono() < due {
            tokio::task::yield_now().await;
        }
        due
    }
}

/// Who makes one call after another.
pub(crate) enum Caller {
    Http1(Connection<TcpStream>),
    Tls(Box<Connection<TlsStream<TcpStream>>>),
    Http2(Stream),
}

impl Caller {
    pub(crate) async fn open(address: SocketAddr, wire: Wire, count: usize) -> Vec<Self> {
        if wire == Wire::H2 {
            let streams = Stream::open(address, count).await;
            return streams.into_iter().map(Self::Http2).collect();
        }
        let mut callers = Vec::new();
        for _ in 0..count {
            callers.push(match wire {
                Wire::Tls => Self::Tls(Box::new(Connection::on(
                    tls::connect(address, "http/1.1").await,
                ))),
                _ => Self::Http1(Connection::open(address).await),
            });
        }
        callers
    }

    /// Sends a whole request and reads the whole answer; gives its status.
    async fn call(&mut self, request: &[u8]) -> u16 {
        match self {
            Self::Http1(connection) => connection.answer(request).await.0,
            Self::Tls(connection) => connection.answer(request).await.0,
            Self::Http2(stream) => stream.call(request).await,
        }
    }
}

pub(crate) struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl Connection<TcpStream> {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::on(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn on(stream: S) -> Self {
        Self {
            stream,
            buffer: vec![0; 4 * 1024],
        }
    }

    /// Sends a whole request and reads the whole answer: its status and body.
    pub(crate) async fn answer(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).await.unwrap();
        // TLS may keep the last of it back.
        self.stream.flush().await.unwrap();
        let mut filled = 0;
        loop {
            if filled == self.buffer.len() {
                self.buffer.resize(2 * filled, 0);
            }
            let read = self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            assert!(read > 0, "the server closed a connection that it keeps");
            filled += read;
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(head_bytes) =
                head.parse(&self.buffer[..filled]).unwrap()
            else {
                continue;
            };
            let status = head.code.unwrap();
            let end = head_bytes + content_length(head.headers).expect("a Content-Length");
            assert!(filled <= end, "more than an answer");
            if filled == end {
                return (status, &self.buffer[head_bytes..end]);
            }
        }
    }
}

/// The length of the body that a head announces.
pub(crate) fn content_length(headers: &[httparse::Header<'_>]) -> Option<usize> {
    let header = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(header.value).ok()?.parse().ok()
}
