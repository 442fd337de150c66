//! A client's connection of HTTP/2: its calls side by side.
//!
//! Owns how long such a connection stays, and what becomes of it when the process ends. Must never
//! drop a call that the drain still has time for.
//!
//! # Decided
//! - **The calls of a connection run in its own task.** An answer goes out in the same turn in which
//!   it is made; with a task for each call it would wait for two more.

use crate::http::TlsConnection;
use crate::http::h1::{BadHead, FIRST_HEAD, READER_WINDOW, RequestBody, RequestHead};
use crate::http::h2::{Arrived, ClientStream, StreamConnection};
use crate::proxy::body_memory::Lease;
use crate::proxy::front::{Front, Phase, begun, reached, until_drain};
use crate::proxy::worker::Worker;
use crate::proxy::{Client, Proxy, Relay};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep};

/// A connection that was told to end has so long for it when nothing is left to do.
const LAST: Duration = Duration::from_secs(3);

/// So many requests at once of a connection, with heads of so many bytes, and one with any head are
/// not counted in the memory of bodies.
const FREE_STREAMS: usize = 8;
const FREE_HEAD_BYTES: usize = 4 * 1024;
/// What a request takes beside its head.
const STREAM_BYTES: usize = 8 * 1024;

/// Serves a connection: takes its requests, and lets each run by itself.
pub(super) async fn serve_http2(
    stream: TlsConnection,
    client: Arc<Client>,
    front: Arc<dyn Front>,
    worker: Arc<Worker>,
    phase: watch::Receiver<Phase>,
) {
    let proxy = front.proxy();
    let accepting = StreamConnection::accept(stream, proxy.shared().clock.clone());
    let connection = match begun(accepting, FIRST_HEAD, phase.clone()).await {
        Some(Ok(connection)) => connection,
        Some(Err(error)) => {
            tracing::debug!(peer = %client.address(), %error, "the client does not speak HTTP/2");
            return;
        }
        None => return,
    };
    let mut serving = Serving {
        connection,
        calls: FuturesUnordered::new(),
        is_draining: false,
        quiet_since: Instant::now(),
        quiet_timeout: FIRST_HEAD,
        look: Box::pin(sleep(FIRST_HEAD)),
    };
    let mut waited_phase = phase.clone();
    let mut drain = pin!(reached(&mut waited_phase, Phase::Drain));
    while let Some(arrived) = poll_fn(|cx| serving.poll(drain.as_mut(), cx)).await {
        // Until its first head is whole a connection gives way first.
        if serving.quiet_timeout == FIRST_HEAD {
            client.place().has_head();
            serving.quiet_timeout = proxy.idle_timeout();
        }
        let taken = match arrived {
            Arrived::Bad(bad, stream) => Err((bad, stream)),
            Arrived::Request(head, body, stream) => {
                match memory_of_head(proxy, &client, head.bytes, serving.calls.len()) {
                    Some(held) => Ok(((head, body, held), stream)),
                    None => Err((BadHead::NoMemory, stream)),
                }
            }
        };
        match taken {
            Ok((mut request, stream)) => {
                let client = Arc::new(client.on_stream());
                // An upload may go on after its answer: until then it is a call of its account.
                request.1.hold(client.clone());
                let (front, worker, phase) = (front.clone(), worker.clone(), phase.clone());
                let call = serve_stream(request, stream, client, front, worker, phase);
                serving.calls.push(call);
            }
            Err((bad, stream)) => {
                proxy.head_refused(client.address(), bad);
                stream.refuse(bad.status());
            }
        }
    }
    let Serving {
        mut calls,
        connection,
        ..
    } = serving;
    // Whoever still waits hears that the connection is over.
    drop(connection);
    while calls.next().await.is_some() {}
}

/// The memory of a request, which is held until it is answered: `Some(None)` when it is one of a
/// few that have little of it, as with HTTP/1.1. References into the table of HPACK make a large head
/// of few bytes.
fn memory_of_head(
    proxy: &Proxy,
    client: &Client,
    head_bytes: usize,
    others: usize,
) -> Option<Option<Lease>> {
    if others == 0 || (others < FREE_STREAMS && head_bytes <= FREE_HEAD_BYTES) {
        return Some(None);
    }
    let bytes = (head_bytes + STREAM_BYTES) as u64;
    let peer = (!client.is_trusted).then_some(client.address());
    let is_proven = client.place().is_proven();
    let lease = proxy.body_memory.reserve_head(peer, is_proven, bytes);
    lease.map(Some)
}

/// A connection that is being served.
struct Serving<F> {
    connection: StreamConnection<TlsConnection>,
    /// Each gives whether the connection has to end after it.
    calls: FuturesUnordered<F>,
    is_draining: bool,
    /// Since when no call runs.
    quiet_since: Instant,
    quiet_timeout: Duration,
    /// When it is looked at whether it is quiet for too long. Set again only when it has come.
    look: Pin<Box<Sleep>>,
}

impl<F: Future<Output = bool>> Serving<F> {
    /// The next request; `None` when the connection is over.
    fn poll(
        &mut self,
        drain: Pin<&mut impl Future<Output = ()>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Arrived>> {
        if !self.is_draining && drain.poll(cx).is_ready() {
            self.drain();
        }
        loop {
            while let Poll::Ready(Some(closes)) = self.calls.poll_next_unpin(cx) {
                self.quiet_since = Instant::now();
                if closes {
                    self.drain();
                }
            }
            if let Poll::Ready(arrived) = self.connection.poll_arrived(cx) {
                return Poll::Ready(arrived);
            }
            if self.look.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            let since = match self.calls.is_empty() {
                true => self.quiet_since,
                false => now,
            };
            let left = (since + self.longest_quiet()).saturating_duration_since(now);
            if left.is_zero() {
                if self.is_draining {
                    return Poll::Ready(None);
                }
                self.quiet_since = now;
                self.drain();
                continue;
            }
            self.look.as_mut().reset(now + left);
        }
    }

    /// How long it may be without a call.
    fn longest_quiet(&self) -> Duration {
        match (self.is_draining, self.connection.is_quiet()) {
            (false, _) => self.quiet_timeout,
            (true, true) => LAST,
            // The last bytes of answers are with a slow reader.
            (true, false) => READER_WINDOW,
        }
    }

    /// Lets no more requests come.
    fn drain(&mut self) {
        if !std::mem::replace(&mut self.is_draining, true) {
            self.connection.drain();
            self.look.as_mut().reset(Instant::now() + LAST);
        }
    }
}

/// Answers one request, and gives back the memory that it held. Gives whether the connection has to
/// end after it.
async fn serve_stream(
    (head, body, _held): (Box<RequestHead>, RequestBody, Option<Lease>),
    mut stream: ClientStream,
    client: Arc<Client>,
    front: Arc<dyn Front>,
    worker: Arc<Worker>,
    phase: watch::Receiver<Phase>,
) -> bool {
    let call = front.answer(&worker, &client, head, body);
    let Some(answer) = stream.during(call, || client.hung_up()).await else {
        tracing::debug!(peer = %client.address(), "the client took its request back");
        return false;
    };
    let closes = answer.closes();
    let is_export = answer.is_passing(|body| matches!(body, Relay::Own(_)));
    let answered = Box::pin(stream.answer(answer));
    let answered = match is_export {
        false => answered.await,
        true => until_drain(answered, phase).await.unwrap_or(Ok(())),
    };
    if let Err(error) = answered {
        tracing::debug!(peer = %client.address(), %error, "an answer ended early");
    }
    closes
}
