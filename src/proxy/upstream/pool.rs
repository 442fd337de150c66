//! The connections to the upstream that wait for work, and one call over one of them.

use crate::http::h1::{self, AnswerHead, Body, ForwardHead, Nonsense, NotSent, Piece, answer_head};
use crate::http::{ByteReader, Fields, Framing, Pipe, is_quiet, read_now};
use crate::proxy::upstream::Dialer;
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// What is read of an answer at once: little at first, and as much as comes when more of it comes.
const READ_BYTES: usize = 8 * 1024;
const BULK_READ_BYTES: usize = 128 * 1024;

/// How often the body of a request that was answered early is asked whether it gives up.
const LOOK: Duration = Duration::from_millis(250);

/// Why no answer came.
#[derive(thiserror::Error, Debug)]
pub enum UpstreamFailure {
    /// No connection. Nothing was sent.
    #[error("cannot connect to the upstream {endpoint}: {cause}")]
    Unreachable {
        /// `host:port`.
        endpoint: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The body of the request broke off.
    #[error("the request broke off: {0}")]
    Incomplete(Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke before the head of the answer.
    #[error("the upstream closed the connection before it answered: {0}")]
    Cut(io::Error),
    /// What came is not an HTTP response.
    #[error(transparent)]
    Nonsense(#[from] Nonsense),
}

/// Where to connect, and the connections that wait for work. One per worker.
pub struct Upstream {
    dialer: Arc<Dialer>,
    keep: Keep,
    idle: Mutex<Vec<PooledLink>>,
}

/// How long a connection is kept for the next call.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Since its last answer ended. Shorter than the upstream's own patience: a call that meets the moment at which
    /// the upstream closes is lost. An upstream that says how long it waits (`Keep-Alive: timeout=`) is heeded.
    pub idle_timeout: Duration,
    /// Since it was opened; `None` is for ever. A younger one finds the upstream's new addresses.
    pub max_age: Option<Duration>,
}

/// What was read from a connection and not yet taken.
struct Inbox {
    bytes: BytesMut,
    /// How much to read at once.
    read_bytes: usize,
}

/// A connection.
struct PooledLink {
    stream: TcpStream,
    inbox: Inbox,
    opened: Instant,
    /// How long the upstream last said that it keeps it.
    keep_alive: Option<Duration>,
    /// While it waits for work: until when.
    kept_until: Instant,
}

/// A connection taken for one call.
pub struct UpstreamConnection {
    link: PooledLink,
    reused: bool,
    home: Arc<Upstream>,
}

/// What became of a request that got no answer.
pub enum NotAnswered<B> {
    /// A kept connection had gone; nothing of the request was sent, and its body is sound. Take another connection.
    Unsent(UpstreamRequest<B>),
    /// It failed.
    Failed(UpstreamFailure),
}

impl Upstream {
    /// An empty pool.
    pub fn new(dialer: Arc<Dialer>, keep: Keep) -> Self {
        Self {
            dialer,
            keep,
            idle: Mutex::default(),
        }
    }

    /// A connection that waits for work, the last used first; else a new one.
    pub async fn connection(self: &Arc<Self>) -> Result<UpstreamConnection, UpstreamFailure> {
        if let Some(link) = self.take_idle() {
            return Ok(UpstreamConnection {
                link,
                reused: true,
                home: self.clone(),
            });
        }
        let stream = Box::pin(self.dialer.dial()).await?;
        let opened = Instant::now();
        let link = PooledLink {
            stream,
            inbox: Inbox::default(),
            opened,
            keep_alive: None,
            kept_until: opened,
        };
        Ok(UpstreamConnection {
            link,
            reused: false,
            home: self.clone(),
        })
    }

    fn take_idle(&self) -> Option<PooledLink> {
        let mut idle = self.idle.lock();
        loop {
            let link = idle.pop()?;
            let is_kept = link.kept_until > Instant::now();
            // What has come unasked would be taken for the answer to this call.
            if is_kept && link.inbox.bytes.is_empty() && is_quiet(&link.stream) {
                return Some(link);
            }
        }
    }

    fn give_back(&self, mut link: PooledLink) {
        if !link.is_quiet() {
            return;
        }
        if link.inbox.read_bytes > READ_BYTES {
            // What one bulky answer needed is not kept for the small ones.
            link.inbox = Inbox::default();
        }
        link.kept_until = self.keep.until(&link, Instant::now());
        self.idle.lock().push(link);
    }

    /// Closes the connections that have been idle for too long, or that the upstream has closed. To be
    /// called once a second.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        idle.retain(|link| link.kept_until > now && link.is_quiet());
    }
}

impl Keep {
    /// Until when a connection that is idle from `now` on may be used again.
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
    /// Open, as far as is known, and nothing has come unasked. Costs a system call only when the
    /// runtime has heard of something: enough to close what cannot be used, not to use it.
    fn is_quiet(&self) -> bool {
        let nothing = self.stream.try_read(&mut [0]);
        self.inbox.bytes.is_empty()
            && nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            bytes: BytesMut::new(),
            read_bytes: READ_BYTES,
        }
    }
}

impl Inbox {
    /// Reads what has come, at least a byte; 0 at the end of the stream.
    fn poll_read(
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

    /// Reads what has come, whatever the runtime knows of it; 0 at the end of the stream.
    fn read_now(&mut self, from: &TcpStream) -> io::Result<usize> {
        let before = self.bytes.len();
        self.bytes.resize(before + self.read_bytes, 0);
        let read = read_now(from, &mut self.bytes[before..]);
        self.bytes.truncate(before + read.as_ref().unwrap_or(&0));
        read
    }
}

/// A request on its way out.
pub struct UpstreamRequest<B> {
    method: Method,
    /// On the heap: it goes through many hands, and each future on the way would be larger by it.
    message: Box<h1::Outgoing<B>>,
}

impl<B: Body> UpstreamRequest<B> {
    /// The framing follows from the body: its length, or chunks when it does not know it.
    pub fn new(head: ForwardHead, body: B) -> Self {
        let length = body.left();
        let body = (length != Some(0)).then_some(body);
        let method = head.method().clone();
        let (head, coding) = head.end(length);
        Self {
            method,
            message: Box::new(h1::Outgoing::new(head, coding, body)),
        }
    }
}

/// A request and its answer on their way over one connection.
struct Exchange<B> {
    link: PooledLink,
    /// `None` when all of it has gone.
    outgoing: Option<UpstreamRequest<B>>,
    /// Why the upstream takes no more of it.
    broken: Option<io::Error>,
}

impl<B: Body> Exchange<B> {
    /// Sends what can be sent now.
    ///
    /// # Errors
    /// When the body of the request broke off, or nothing of it can be sent: no answer to it can count any more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), UpstreamFailure> {
        if self.broken.is_none()
            && let Some(outgoing) = &mut self.outgoing
            && let Poll::Ready(sent) = outgoing.message.poll_send(&mut self.link.stream, cx)
        {
            match sent {
                Ok(()) => self.outgoing = None,
                // Nothing of it was sent: what may have come is no answer to it.
                Err(NotSent::Link(error)) if !outgoing.message.begun() => {
                    return Err(UpstreamFailure::Cut(error));
                }
                Err(NotSent::Link(error)) => self.broken = Some(error),
                Err(NotSent::Body(error)) => return Err(UpstreamFailure::Incomplete(error)),
            }
        }
        Ok(())
    }

    /// Sends, and reads the head of the answer. Both go on side by side: an upstream may answer before
    /// it has read all.
    fn poll_head(
        &mut self,
        method: &Method,
        cx: &mut Context<'_>,
    ) -> Poll<Result<AnswerHead, UpstreamFailure>> {
        self.poll_send(cx)?;
        loop {
            let link = &mut self.link;
            let read = match &self.broken {
                None => ready!(link.inbox.poll_read(&mut link.stream, cx)),
                // A link that takes no more brings no more: an answer has come by now or never will. The upstream may
                // have answered and then closed with the rest of the request unread, and the runtime not heard of it.
                Some(_) => link.inbox.read_now(&link.stream),
            };
            match read {
                Ok(0) => {
                    let closed = io::ErrorKind::UnexpectedEof.into();
                    let cause = self.broken.take().unwrap_or(closed);
                    return Poll::Ready(Err(UpstreamFailure::Cut(cause)));
                }
                Ok(_) => {
                    let input = &mut self.link.inbox.bytes;
                    if let Some(head) = answer_head(input, method)? {
                        // What is malformed by now is no answer. Later the head has been passed on.
                        head.framing.check(input).map_err(Nonsense::from)?;
                        return Poll::Ready(Ok(head));
                    }
                }
                Err(error) => {
                    let cause = self.broken.take().unwrap_or(error);
                    return Poll::Ready(Err(UpstreamFailure::Cut(cause)));
                }
            }
        }
    }
}

impl UpstreamConnection {
    /// Sends the request and waits for the head of the answer. The rest of a request that is answered before all
    /// of it was sent goes on by itself, until its body gives up.
    pub async fn send<B>(
        self,
        outgoing: UpstreamRequest<B>,
    ) -> Result<UpstreamAnswer, NotAnswered<B>>
    where
        B: Body + Send + 'static,
    {
        let method = outgoing.method.clone();
        let mut exchange = Exchange {
            link: self.link,
            outgoing: Some(outgoing),
            broken: None,
        };
        let head = match std::future::poll_fn(|cx| exchange.poll_head(&method, cx)).await {
            Ok(head) => head,
            Err(failure) => {
                let Exchange { link, outgoing, .. } = exchange;
                let unsent = outgoing.filter(|outgoing| !outgoing.message.begun());
                return Err(match (failure, unsent) {
                    // The connection has no part in it, and has seen nothing of it.
                    (failure @ UpstreamFailure::Incomplete(_), Some(_)) => {
                        self.home.give_back(link);
                        NotAnswered::Failed(failure)
                    }
                    (failure @ UpstreamFailure::Incomplete(_), None) => {
                        NotAnswered::Failed(failure)
                    }
                    (_, Some(unsent)) if self.reused => NotAnswered::Unsent(unsent),
                    (failure, _) => NotAnswered::Failed(failure),
                });
            }
        };
        let Exchange {
            mut link,
            outgoing,
            broken,
        } = exchange;
        link.keep_alive = head.keep_alive.or(link.keep_alive);
        let keeps_alive = head.keeps_alive && outgoing.is_none();
        let from = match (outgoing, broken) {
            (Some(mut rest), None) => {
                // Answered before it had read all: the rest goes on by itself, for the caller may want to
                // send all before it reads.
                let (reader, mut writer) = link.stream.into_split();
                let sending = tokio::spawn(async move {
                    let mut look = tokio::time::interval(LOOK);
                    std::future::poll_fn(|cx| {
                        if rest.message.poll_send(&mut writer, cx).is_ready() {
                            return Poll::Ready(());
                        }
                        // An upstream that has answered may never read the rest. Its sending holds the
                        // client's connection, and nobody else would end it.
                        while look.poll_tick(cx).is_ready() {
                            if rest.message.is_given_up() {
                                return Poll::Ready(());
                            }
                        }
                        Poll::Pending
                    })
                    .await;
                    // Without saying that no more comes, which some take for a caller that has gone.
                    writer.forget();
                });
                Source::ByteReader(reader, link.inbox, sending.abort_handle())
            }
            _ => Source::PooledLink(link),
        };
        Ok(UpstreamAnswer {
            status: head.status,
            fields: head.fields,
            body: UpstreamBody {
                framing: head.framing,
                keeps_alive,
                from: Some(from),
                home: self.home,
            },
        })
    }
}

/// The upstream's answer.
pub struct UpstreamAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, without those that end at this hop.
    pub fields: Fields,
    /// Its body, as it comes.
    pub body: UpstreamBody,
}

/// The body of an answer. Its connection goes back to the pool when it has ended, and its request had
/// gone whole before it began, and only then; dropped before, the connection is closed.
pub struct UpstreamBody {
    framing: Framing,
    keeps_alive: bool,
    /// `None` only while it is dropped.
    from: Option<Source>,
    home: Arc<Upstream>,
}

/// Where an answer is read from.
enum Source {
    PooledLink(PooledLink),
    /// The rest of the request is still being sent.
    ByteReader(OwnedReadHalf, Inbox, AbortHandle),
}

impl UpstreamBody {
    /// The next piece; `None` when it has ended.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let Some(from) = &mut self.from else {
            return Poll::Ready(Ok(None));
        };
        let framing = &mut self.framing;
        let (mut reader, inbox) = from.parts();
        loop {
            let taken = framing.take(&mut inbox.bytes);
            if let Some(data) = taken.map_err(io::Error::other)? {
                return Poll::Ready(Ok(Some(data)));
            }
            if framing.has_ended() {
                return Poll::Ready(Ok(None));
            }
            match (ready!(inbox.poll_read(&mut reader, cx))?, &mut *framing) {
                (0, Framing::UntilClose) => *framing = Framing::Length(0),
                (0, _) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                _ => {}
            }
        }
    }

    /// Lets the next piece pass into a pipe; `None` when it must be read instead.
    fn poll_fill(
        &mut self,
        pipe: &mut Pipe,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<usize>>> {
        let Some(from) = &mut self.from else {
            return Poll::Ready(Ok(None));
        };
        match from.parts() {
            (reader, inbox) if inbox.bytes.is_empty() => match reader.socket() {
                Some(socket) => self.framing.poll_fill(pipe, socket, cx),
                None => Poll::Ready(Ok(None)),
            },
            _ => Poll::Ready(Ok(None)),
        }
    }
}

impl Source {
    fn parts(&mut self) -> (&mut dyn ByteReader, &mut Inbox) {
        match self {
            Self::PooledLink(link) => (&mut link.stream, &mut link.inbox),
            Self::ByteReader(reader, inbox, _) => (reader, inbox),
        }
    }
}

impl Body for UpstreamBody {
    type Error = io::Error;

    fn poll_piece(
        &mut self,
        pipe: Option<&mut Pipe>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Piece>>> {
        if let Some(pipe) = pipe {
            match ready!(self.poll_fill(pipe, cx))? {
                Some(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Some(piped) => return Poll::Ready(Some(Ok(Piece::Piped(piped)))),
                None => {}
            }
        }
        self.poll_data(cx)
            .map(|read| read.map(|data| data.map(Piece::Read)).transpose())
    }

    fn left(&self) -> Option<u64> {
        self.framing.left()
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        match self.from.take() {
            Some(Source::PooledLink(link)) if self.keeps_alive && self.framing.has_ended() => {
                self.home.give_back(link);
            }
            // Left alone it would try to send what nobody waits for, for as long as the upstream does
            // not read. Once answered, to stop would cut that upload.
            Some(Source::ByteReader(_, _, sending)) if !self.framing.has_ended() => sending.abort(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
