//! A client's connection: its requests one after another, and their answers.
//!
//! Owns what becomes of a connection when the process ends. Must never read a request itself, nor
//! drop a call that the drain still has time for.

use crate::http::h1::{self, BadHead, Next};
use crate::http::{ByteReader, ByteWriter, TlsConnection};
use crate::model::ServerTls;
use crate::proxy::front::{Front, Phase, begun, has_reached, reached, until_drain};
use crate::proxy::handshakes::NoHandshake;
use crate::proxy::sockets::ClientStream;
use crate::proxy::streams::serve_http2;
use crate::proxy::worker::Worker;
use crate::proxy::{Client, Proxy, Relay};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// TLS has to be agreed on within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves one connection, to its end.
pub(super) async fn serve(
    stream: ClientStream,
    client: Arc<Client>,
    front: Arc<dyn Front>,
    worker: Arc<Worker>,
    phase: watch::Receiver<Phase>,
) {
    let stream = match stream {
        ClientStream::Tcp(stream) => stream,
        // It does not leave the machine: never under TLS.
        ClientStream::Unix(stream) => {
            let halves = stream.into_split();
            return Box::pin(serve_http1(halves, client, front, worker, phase)).await;
        }
    };
    let Some(tls) = front.proxy().tls() else {
        return serve_http1(stream.into_split(), client, front, worker, phase).await;
    };
    // On the heap: a plain connection has no room for what only these need.
    let of = (&**front.proxy(), &*worker, phase.clone());
    let handshake = Box::pin(handshake(tls, stream, &client, of));
    match handshake.await {
        None => {}
        Some(stream) if stream.speaks_http2() => {
            Box::pin(serve_http2(stream, client, front, worker, phase)).await;
        }
        Some(stream) => {
            Box::pin(serve_http1(
                stream.into_split(),
                client,
                front,
                worker,
                phase,
            ))
            .await;
        }
    }
}

/// Waits until TLS is agreed on; `None` when it is not.
async fn handshake(
    tls: &ServerTls,
    stream: TcpStream,
    client: &Client,
    (proxy, worker, phase): (&Proxy, &Worker, watch::Receiver<Phase>),
) -> Option<TlsConnection> {
    let metrics = &proxy.shared().metrics;
    let accepting = worker.handshakes.accept(client.address(), tls, stream);
    let error = match begun(accepting, HANDSHAKE, phase).await {
        Some(Ok(stream)) => {
            metrics.tls_handshake("done").inc();
            return Some(stream);
        }
        Some(Err(NoHandshake::Plain)) => {
            proxy.head_refused(client.address(), BadHead::PlainHttp);
            return None;
        }
        Some(Err(NoHandshake::Failed(error))) => error,
        None => io::ErrorKind::TimedOut.into(),
    };
    metrics.tls_handshake("failed").inc();
    tracing::debug!(peer = %client.address(), %error, "no TLS was agreed on");
    None
}

/// Reads the requests of a connection one after another and answers them.
async fn serve_http1<R, W>(
    (reader, writer): (R, W),
    client: Arc<Client>,
    front: Arc<dyn Front>,
    worker: Arc<Worker>,
    phase: watch::Receiver<Phase>,
) where
    R: ByteReader + 'static,
    W: ByteWriter,
{
    let proxy = front.proxy();
    let mut requests = h1::ClientConnection::new(
        reader,
        writer,
        proxy.idle_timeout(),
        proxy.shared().clock.clone(),
    );
    let mut waited_phase = phase.clone();
    let mut drain = pin!(reached(&mut waited_phase, Phase::Drain));
    let (mut is_polled, mut has_begun) = (false, false);
    // Once polled, the wait wakes this task by itself, so it is not polled again until the phase
    // changes.
    let mut is_draining = |cx: &mut Context<'_>| {
        if !has_begun && (!is_polled || has_reached(&phase, Phase::Drain)) {
            is_polled = true;
            has_begun = drain.as_mut().poll(cx).is_ready();
        }
        has_begun
    };
    let refused = |bad| proxy.head_refused(client.address(), bad);
    let mut is_new = true;
    while let Some((head, body)) = requests.request(&mut is_draining, refused).await {
        // Until its first head is whole a connection gives way first.
        if std::mem::take(&mut is_new) {
            client.place().has_head();
        }
        let terms = h1::RequestTerms::from(&*head);
        // Whatever the request is for: an earlier call on the connection may have been forwarded.
        client.has_request();
        let call = front.answer(&worker, &client, head, body);
        let goes_on = || client.hung_up();
        let Some(answer) = requests.during(terms, call, goes_on).await else {
            tracing::debug!(peer = %client.address(), "the client hung up");
            return;
        };
        // Read after the call: an answer during the drain must say that it is the last.
        let closes = has_reached(&phase, Phase::Drain);
        let is_export = answer.is_passing(|body| matches!(body, Relay::Own(_)));
        let answered = requests.answer(terms, answer, closes);
        let answered = match is_export {
            false => answered.await,
            true => match Box::pin(until_drain(answered, phase.clone())).await {
                Some(answered) => answered,
                None => return,
            },
        };
        client.place().call_ended();
        match answered {
            Ok(Next::Request) => {}
            Ok(Next::Close) => return,
            Err(error) => {
                tracing::debug!(peer = %client.address(), %error, "the connection ended early");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::http::h1::{FIRST_HEAD, READER_BYTES_PER_SECOND, READER_WINDOW};
    use crate::http::h1::{RequestBody, RequestHead};
    use crate::ledger::{Ledger, LedgerOptions};
    use crate::metrics::Metrics;
    use crate::model::{Clock, Durability};
    use crate::proxy::Shared;
    use crate::proxy::admission::Limiters;
    use crate::proxy::front::BoxedAnswer;
    use crate::proxy::handshakes::Handshakes;
    use crate::proxy::policy::Policy;
    use crate::proxy::upstream::Upstreams;
    use std::sync::atomic::Ordering::Relaxed;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::Instant;

    /// `limits.idle_timeout` of the shipped settings.
    const IDLE: Duration = Duration::from_secs(75);

    /// The parts that a connection needs, with a ledger of its own in the directory.
    async fn parts() -> (Arc<Client>, Arc<Proxy>, Arc<Worker>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.yaml");
        let config = config::load(&path).unwrap();
        let clock = Clock::default();
        let metrics = Arc::new(Metrics::new(10));
        let options = LedgerOptions {
            path: dir.path().join("ledger.db"),
            durability: Durability::Strict,
            replica: String::new(),
            create: true,
            pending_limit: 10,
            stall_after: Duration::from_secs(1 << 40),
        };
        let ledger = Ledger::open(options, clock.clone(), |_| ()).unwrap();
        let limiters = Limiters::default();
        let upstreams = Upstreams::new(&config.settings, 1, &clock);
        let (catalog, accounts) = (Arc::new(config.catalog), config.accounts);
        let policy = Policy::build(1, catalog, accounts, upstreams, &metrics);
        let shared = Shared::new(clock.clone(), policy, limiters, ledger, metrics);
        let proxy = Arc::new(Proxy::new(&config.settings, Arc::new(shared)));
        let worker = Arc::new(Worker {
            index: 0,
            store: None,
            decisions: proxy.shared().decisions.ring(1),
            handshakes: Handshakes::default(),
        });
        let address = [127, 0, 0, 1].into();
        let place = Arc::new(proxy.place(address).await);
        let client = Arc::new(Client::new(address, false, place));
        (client, proxy, worker, dir)
    }

    /// A connection in memory, so that time can be paused: nothing here waits for another thread.
    async fn open(
        buffer_bytes: usize,
    ) -> (DuplexStream, tokio::task::JoinHandle<()>, tempfile::TempDir) {
        let (client, proxy, worker, dir) = parts().await;
        let (end, server) = tokio::io::duplex(buffer_bytes);
        let (phase, seen) = watch::channel(Phase::Serve);
        let connection = tokio::spawn(async move {
            let halves = tokio::io::split(server);
            serve_http1(halves, client, Arc::new(proxy), worker, seen).await;
            drop(phase);
        });
        (end, connection, dir)
    }

    /// Each connection has room for it, and it is moved when it is boxed: what only some calls need
    /// stands on the heap.
    #[tokio::test]
    async fn the_future_of_a_call_does_not_grow_unnoticed() {
        const MOST_BYTES: usize = 1_336;
        let (client, proxy, worker, _dir) = parts().await;
        let (mut end, server) = tokio::io::duplex(1024);
        end.write_all(b"GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n")
            .await
            .unwrap();
        let (reader, writer) = tokio::io::split(server);
        let mut requests = h1::ClientConnection::new(reader, writer, IDLE, Clock::default());
        let (head, body) = requests.request(|_| false, |_| ()).await.unwrap();
        let call = Proxy::answer(proxy, worker, client, head, body);
        let bytes = size_of_val(&call);
        assert!(bytes <= MOST_BYTES, "{bytes}");
    }

    /// A front whose requests are all forwarded. It tells of each whether the upstream had been asked
    /// for it before it came.
    struct Forwarding(Arc<Proxy>, parking_lot::Mutex<Vec<bool>>);

    impl Front for Forwarding {
        fn proxy(&self) -> &Arc<Proxy> {
            &self.0
        }

        fn answer(
            &self,
            _: &Arc<Worker>,
            client: &Arc<Client>,
            _: Box<RequestHead>,
            _: RequestBody,
        ) -> BoxedAnswer {
            let asked = client.is_forwarded.swap(true, Relaxed);
            self.1.lock().push(asked);
            Box::pin(async { h1::Answer::own(http::StatusCode::OK, Vec::new()) })
        }
    }

    #[tokio::test]
    async fn the_upstream_of_an_earlier_request_says_nothing_of_whether_the_next_one_goes_on() {
        let (client, proxy, worker, _dir) = parts().await;
        let front = Arc::new(Forwarding(proxy, parking_lot::Mutex::default()));
        let (mut end, server) = tokio::io::duplex(1024);
        let (_phase, seen) = watch::channel(Phase::Serve);
        let halves = tokio::io::split(server);
        let serving = tokio::spawn(serve_http1(halves, client, front.clone(), worker, seen));
        for _ in 0..2 {
            end.write_all(b"GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n")
                .await
                .unwrap();
            let mut answer = [0; 1024];
            assert!(end.read(&mut answer).await.unwrap() > 0);
        }
        drop(end);
        serving.await.unwrap();
        assert_eq!(*front.1.lock(), [false, false]);
    }

    async fn lasts(connection: tokio::task::JoinHandle<()>) -> Duration {
        let began = Instant::now();
        connection.await.unwrap();
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_sends_nothing_is_closed_after_the_time_of_a_first_head() {
        let (_client, connection, _dir) = open(1024).await;
        let lasted = lasts(connection).await;
        assert!(
            lasted >= FIRST_HEAD && lasted < FIRST_HEAD + Duration::from_secs(1),
            "{lasted:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_answered_is_closed_when_it_was_idle_for_its_time() {
        let (mut client, connection, _dir) = open(4096).await;
        tokio::time::sleep(FIRST_HEAD - Duration::from_secs(1)).await;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'H');
        let lasted = lasts(connection).await;
        assert!(
            lasted >= IDLE && lasted < IDLE + Duration::from_secs(1),
            "{lasted:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_in_does_not_hold_a_connection_longer() {
        let (mut client, connection, _dir) = open(1024).await;
        let trickle = tokio::spawn(async move {
            for byte in b"GET / HTTP/1.1\r\nHost: gate.test\r\nX-Slow: "
                .iter()
                .chain(std::iter::repeat(&b'x'))
            {
                if client.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let lasted = lasts(connection).await;
        trickle.abort();
        assert!(
            lasted >= FIRST_HEAD && lasted < FIRST_HEAD + Duration::from_secs(2),
            "{lasted:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_of_its_answer_is_cut_off() {
        let (mut client, connection, _dir) = open(64).await;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n")
            .await
            .unwrap();
        let lasted = lasts(connection).await;
        assert!(
            lasted >= READER_WINDOW && lasted < READER_WINDOW + Duration::from_secs(1),
            "{lasted:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_less_than_a_kibibyte_a_second_is_cut_off() {
        let (mut client, connection, _dir) = open(64).await;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n")
            .await
            .unwrap();
        let trickle = tokio::spawn(async move {
            while let Ok(1..) = client.read(&mut [0; 4]).await {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let lasted = lasts(connection).await;
        assert!(
            lasted >= READER_WINDOW && lasted < READER_WINDOW + Duration::from_secs(1),
            "{lasted:?}"
        );
        trickle.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_that_keeps_the_pace_gets_its_whole_answer() {
        let (mut client, connection, _dir) = open(64).await;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        let mut step = [0; 16];
        loop {
            tokio::time::sleep(Duration::from_secs(16) / READER_BYTES_PER_SECOND as u32).await;
            match client.read(&mut step).await.unwrap() {
                0 => break,
                read => answer.extend_from_slice(&step[..read]),
            }
        }
        connection.await.unwrap();
        let text = String::from_utf8(answer).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 401 ") && text.ends_with('}'),
            "{text}"
        );
    }
}
