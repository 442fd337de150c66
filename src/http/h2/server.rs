//! A client's connection of HTTP/2: its streams as they arrive, within bounds.

use crate::http::h1::{BadHead, RequestBody, RequestHead};
use crate::http::h2::body::{Halves, StreamBody, WINDOW_BYTES};
use crate::http::h2::head::request_head;
use crate::http::h2::meter::{Meter, Metered};
use crate::http::h2::stream::ClientStream;
use crate::model::Clock;
use bytes::Bytes;
use h2::{Reason, server};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

/// The most streams of a connection at once. What is asked for beyond them is refused by the
/// protocol, unread, and may be asked for again.
const STREAMS: u32 = 100;
/// The most bytes of the fields of a request, as HTTP/2 counts them (RFC 9113 §6.5.2). A larger
/// head is answered with 431.
const HEADER_LIST_BYTES: u32 = 256 * 1024;
/// The bytes of bodies that a client may send before anybody takes them, on all streams of the
/// connection. A body that nobody takes must not stop those of other streams. Such a body is one of a
/// call that was admitted, and of these an account has its part.
const CONNECTION_WINDOW_BYTES: u32 = STREAMS * WINDOW_BYTES;
/// The bytes of an answer that wait for the connection.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that were reset before anybody saw them. More of them, and the connection ends.
const RESET_UNSEEN: usize = 20;
/// Streams that ended here by a client's mistakes. More of them, and the connection ends.
const RESET_BY_MISTAKE: usize = 1_000;
/// Streams that were reset here within a second, as after a refusal whose body still comes. The rest of
/// a body of one that is not remembered is taken for a mistake.
const RESET_REMEMBERED: usize = 2_000;

/// A client's connection.
pub(crate) struct StreamConnection<T> {
    connection: server::Connection<Metered<T>, Bytes>,
    meter: Arc<Meter>,
    clock: Clock,
}

/// A request that has come.
pub(crate) enum Arrived {
    /// It is well formed.
    Request(Box<RequestHead>, RequestBody, ClientStream),
    /// It is not.
    Bad(BadHead, ClientStream),
}

impl<T: AsyncRead + AsyncWrite + Unpin> StreamConnection<T> {
    /// Takes a connection, when the client's first bytes are those of HTTP/2.
    ///
    /// # Errors
    /// When they are not. Bound it in time.
    pub(crate) async fn accept(stream: T, clock: Clock) -> Result<Self, h2::Error> {
        let meter = Arc::new(Meter::default());
        meter.begins_turn();
        let metered = Metered {
            stream,
            meter: meter.clone(),
        };
        let accepting = server::Builder::new()
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADER_LIST_BYTES)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(RESET_UNSEEN)
            .max_local_error_reset_streams(Some(RESET_BY_MISTAKE))
            .max_concurrent_reset_streams(RESET_REMEMBERED)
            .handshake(metered);
        Ok(Self {
            connection: accepting.await?,
            meter,
            clock,
        })
    }

    /// The next request; `None` when the connection is over. It is to be polled as long as any
    /// stream lives: all bytes go through it.
    pub(crate) fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrived>> {
        self.meter.begins_turn();
        if self.meter.is_flooded() {
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
        let (request, respond) = match ready!(self.connection.poll_accept(cx)) {
            Some(Ok(arrived)) => arrived,
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection of HTTP/2 ended early");
                return Poll::Ready(None);
            }
            None => return Poll::Ready(None),
        };
        let (parts, stream) = request.into_parts();
        let method = parts.method.clone();
        let head = request_head(parts, stream.is_end_stream());
        let bytes = head.as_ref().map_or(0, |head| head.bytes);
        self.meter.begins_stream(bytes);
        let expects = head.as_ref().is_ok_and(|head| head.expects_continue);
        let halves = Arc::<Halves>::default();
        let answering = ClientStream::new(
            respond,
            &method,
            halves.clone(),
            self.meter.clone(),
            self.clock.clone(),
        );
        Poll::Ready(Some(match head {
            Err(bad) => Arrived::Bad(bad, answering),
            Ok(head) => {
                let length = head.framing.left();
                let body = StreamBody::new(stream, length, self.meter.clone(), halves, expects);
                Arrived::Request(head, RequestBody::of_stream(body), answering)
            }
        }))
    }

    /// Lets no more requests come. Those that have come are answered.
    pub(crate) fn drain(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Whether nothing waits to be sent, and no request is answered.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.connection.has_streams()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::{Answer, READER_WINDOW};
    use h2::client;
    use http::{Request, StatusCode};
    use std::future::poll_fn;
    use std::io;
    use std::time::Duration;
    use tokio::time::Instant;

    const LARGE: usize = 1_000_000;

    /// Answers each request with a large body; how each answer ended, and when.
    async fn serve(
        server: tokio::io::DuplexStream,
        ended: tokio::sync::mpsc::UnboundedSender<(io::Result<()>, Instant)>,
    ) {
        let mut connection = StreamConnection::accept(server, Clock::default())
            .await
            .unwrap();
        while let Some(arrived) = poll_fn(|cx| connection.poll_arrived(cx)).await {
            let Arrived::Request(_, _, stream) = arrived else {
                panic!("a bad head")
            };
            let ended = ended.clone();
            tokio::spawn(async move {
                let answer: Answer<Bytes> = Answer::own(StatusCode::OK, vec![7; LARGE]);
                let sent = stream.answer(answer).await;
                let _ = ended.send((sent, Instant::now()));
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_loses_its_stream_and_the_others_go_on() {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let (ended, mut heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(serve(server, ended));
        // The stream that is not read must not use up the window of the connection.
        let (mut requests, connection) = client::Builder::new()
            .initial_connection_window_size(1 << 20)
            .handshake::<_, Bytes>(client)
            .await
            .unwrap();
        tokio::spawn(connection);
        let began = Instant::now();
        let ask = || Request::get("https://gate.test/").body(()).unwrap();
        // The body is held, and no window given back.
        let (answer, _) = requests.send_request(ask(), true).unwrap();
        let stalled = answer.await.unwrap();
        let (answer, _) = requests.send_request(ask(), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let mut read = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            read += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        assert_eq!(read, LARGE);
        assert!(heard.recv().await.unwrap().0.is_ok());
        let (sent, at) = heard.recv().await.unwrap();
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let lasted = at - began;
        assert!(
            lasted >= READER_WINDOW && lasted < 2 * READER_WINDOW,
            "{lasted:?}"
        );
        let mut body = stalled.into_body();
        let broken = loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("a cut answer looks whole"),
            }
        };
        assert_eq!(broken.reason(), Some(Reason::CANCEL));
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_come_and_are_refused_are_no_flood() {
        let (client, server) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let mut connection = StreamConnection::accept(server, Clock::default())
                .await
                .unwrap();
            while let Some(arrived) = poll_fn(|cx| connection.poll_arrived(cx)).await {
                let Arrived::Request(_, body, stream) = arrived else {
                    panic!("a bad head")
                };
                tokio::spawn(async move {
                    // Until then all of it comes that may come.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    drop(body);
                    stream.refuse(StatusCode::TOO_MANY_REQUESTS);
                });
            }
        });
        let (mut requests, connection) = client::handshake(client).await.unwrap();
        tokio::spawn(connection);
        for nth in 0..400 {
            requests = requests.ready().await.unwrap();
            let request = Request::post("https://gate.test/").body(()).unwrap();
            let (answer, mut upload) = requests.send_request(request, false).unwrap();
            upload.send_data(vec![7; 100_000].into(), false).unwrap();
            let refused = answer.await.map(|it| it.status());
            assert_eq!(refused.ok(), Some(StatusCode::TOO_MANY_REQUESTS), "{nth}");
        }
    }
}
