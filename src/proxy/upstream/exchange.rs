//! One call over one connection to the upstream: its request out, the head of its answer in.
//!
//! Owns whether a request may be sent again: only when nothing of it was sent.

use crate::http::h1::{self, AnswerHead, Body, ForwardHead, Nonsense, NotSent, answer_head};
use crate::http::{ByteReader, ByteWriter};
use crate::proxy::upstream::UpstreamFailure;
use crate::proxy::upstream::answer::{Source, UpstreamAnswer, UpstreamBody};
use crate::proxy::upstream::link::Link;
use crate::proxy::upstream::pool::PooledLink;
use http::Method;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How often the body of a request that was answered early is asked whether it gives up.
const LOOK: Duration = Duration::from_millis(250);

/// A request that got no answer.
pub(super) enum NotAnswered<B> {
    /// Nothing of it was sent, and its body is sound: it may take another connection.
    Unsent(UpstreamRequest<B>, UpstreamFailure),
    /// It failed.
    Failed {
        failure: UpstreamFailure,
        /// All of it had gone, so that its client has no part in the failure.
        is_whole: bool,
        /// The connection, when it has seen nothing of the request.
        untouched: Option<PooledLink>,
    },
}

/// A request on its way out.
pub(crate) struct UpstreamRequest<B> {
    method: Method,
    /// On the heap: each future that it passes through would be larger by it.
    message: Box<h1::Outgoing<B>>,
}

impl<B: Body> UpstreamRequest<B> {
    /// The framing follows from the body: its length, or chunks when it does not know it.
    pub(crate) fn new(head: ForwardHead, body: B) -> Self {
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
    /// When the body of the request broke off, or nothing of it can be sent: no answer to it can
    /// count any more.
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

    /// Sends, and reads the head of the answer. Both go on side by side: an upstream may answer
    /// before it has read all.
    fn poll_head(
        &mut self,
        method: &Method,
        cx: &mut Context<'_>,
    ) -> Poll<Result<AnswerHead, UpstreamFailure>> {
        self.poll_send(cx)?;
        loop {
            let link = &mut self.link;
            let read = match &self.broken {
                None => ready!(link.buffer.poll_read(&mut link.stream, cx)),
                // A link that takes no more brings no more: an answer has come by now or never
                // will. The upstream may have answered and then closed with the rest of the request
                // unread, and the runtime not heard of it.
                Some(_) => link.buffer.read_now(&mut link.stream),
            };
            match read {
                Ok(0) => {
                    let closed = io::ErrorKind::UnexpectedEof.into();
                    let cause = self.broken.take().unwrap_or(closed);
                    return Poll::Ready(Err(UpstreamFailure::Cut(cause)));
                }
                Ok(_) => {
                    let input = &mut self.link.buffer.bytes;
                    if let Some(head) = answer_head(input, method)? {
                        // A body that is malformed by now makes it no answer. Later the head has
                        // been passed on, and the answer can only be cut.
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

    /// The answer, whose head has come. Its body is read from the same connection.
    fn answered(self, head: AnswerHead) -> UpstreamAnswer
    where
        B: Send + 'static,
    {
        let Self {
            mut link,
            outgoing,
            broken,
        } = self;
        link.keep_alive = head.keep_alive.or(link.keep_alive);
        let keeps_alive = head.keeps_alive && outgoing.is_none();
        let source = match (outgoing, broken) {
            (Some(rest), None) => send_rest(link, rest),
            _ => Source::Link(link),
        };
        UpstreamAnswer {
            status: head.status,
            fields: head.fields,
            body: UpstreamBody::new(head.framing, keeps_alive, source),
        }
    }

    /// Decides whether the request may take another connection: only when nothing of it was sent.
    fn not_answered(self, failure: UpstreamFailure) -> NotAnswered<B> {
        let is_whole = self.outgoing.is_none();
        let unsent = self.outgoing.filter(|outgoing| !outgoing.message.begun());
        match (failure, unsent) {
            (failure @ UpstreamFailure::Incomplete(_), unsent) => NotAnswered::Failed {
                failure,
                is_whole,
                untouched: unsent.map(|_| self.link),
            },
            (failure, Some(unsent)) => NotAnswered::Unsent(unsent, failure),
            (failure, None) => NotAnswered::Failed {
                failure,
                is_whole,
                untouched: None,
            },
        }
    }
}

/// Sends the rest of a request that was answered early, in a task of its own: the client may want
/// to send all before it reads.
fn send_rest<B>(link: PooledLink, rest: UpstreamRequest<B>) -> Source
where
    B: Body + Send + 'static,
{
    // Both halves hold the connection open.
    let open = Arc::new(link.open);
    let opened = open.clone();
    let (reader, sending): (Box<dyn ByteReader>, _) = match link.stream {
        Link::Plain(stream) => {
            let (reader, mut writer) = stream.into_split();
            let sending = tokio::spawn(async move {
                keep_sending(rest, &mut writer).await;
                // Dropped, it would say that no more comes, and some servers take that for a client
                // that has gone.
                writer.forget();
                drop(opened);
            });
            (Box::new(reader), sending)
        }
        Link::Tls(stream) => {
            let (reader, mut writer) = stream.into_split();
            let sending = tokio::spawn(async move {
                keep_sending(rest, &mut writer).await;
                drop(writer);
                drop(opened);
            });
            (Box::new(reader), sending)
        }
    };
    Source::WhileSending {
        reader,
        open,
        buffer: link.buffer,
        sending: sending.abort_handle(),
    }
}

async fn keep_sending<B: Body>(mut rest: UpstreamRequest<B>, writer: &mut impl ByteWriter) {
    let mut look = tokio::time::interval(LOOK);
    std::future::poll_fn(|cx| {
        if rest.message.poll_send(writer, cx).is_ready() {
            return Poll::Ready(());
        }
        // An upstream that has answered may never read the rest. Its sending holds the client's
        // connection, and nothing else would end it.
        while look.poll_tick(cx).is_ready() {
            if rest.message.is_given_up() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}

/// Sends the request and waits for the head of the answer. When the upstream answers before all of
/// the request was sent, the rest goes on by itself until its body gives up.
pub(super) async fn exchange<B>(
    link: PooledLink,
    outgoing: UpstreamRequest<B>,
) -> Result<UpstreamAnswer, NotAnswered<B>>
where
    B: Body + Send + 'static,
{
    let method = outgoing.method.clone();
    let mut exchange = Exchange {
        link,
        outgoing: Some(outgoing),
        broken: None,
    };
    match std::future::poll_fn(|cx| exchange.poll_head(&method, cx)).await {
        Ok(head) => Ok(exchange.answered(head)),
        Err(failure) => Err(exchange.not_answered(failure)),
    }
}
