//! Receivers that fail in every way, and what must come of it.

use crate::config::{EventSettings, SigningKey, WebhookUrl};
use crate::control::delivery::client::{NotDelivered, Webhook, distrust};
use crate::control::delivery::outbox::{NotTaken, Outbox, Unsent};
use crate::control::delivery::pace::{Failing, PACE, RetryPace};
use crate::control::delivery::post::{Post, deliver};
use crate::metrics::Metrics;
use crate::model::{AccountId, Clock, EventType, Mono, Utc};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// The secret of the specification's own example.
const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "b3RoZXItc2VjcmV0LW9mLXRoZS1nYXRlLTMwYnl0ZXM=";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// What a receiver does when it has read an event.
enum Act {
    /// Writes this and closes.
    Say(String),
    /// Writes this and reads on.
    Keep(String),
    /// Writes this and never anything more.
    Hang(String),
    /// Writes bytes of a body for as long as they are taken.
    Flood,
}

fn say(text: &str) -> Act {
    Act::Say(text.to_owned())
}

/// A event as it came.
#[derive(Clone, Debug)]
struct Seen {
    head: String,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn id(&self) -> &str {
        self.header("Webhook-Id").unwrap()
    }
}

struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// What was written to it before it closed, of a [`Act::Flood`].
    flooded: Arc<Mutex<Option<usize>>>,
    /// That were accepted.
    connections: Arc<AtomicUsize>,
    task: JoinSet<()>,
}

impl Receiver {
    async fn start(act: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static) -> Self {
        Self::listen("127.0.0.1:0".parse().unwrap(), None, act).await
    }

    async fn listen(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        act: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let flooded = Arc::new(Mutex::new(None));
        let mut task = JoinSet::new();
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = connections.clone();
        let (seen_too, flooded_too, act) = (seen.clone(), flooded.clone(), Arc::new(act));
        task.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let (tls, act) = (tls.clone(), act.clone());
                let (seen, flooded) = (seen_too.clone(), flooded_too.clone());
                open.spawn(async move {
                    match tls {
                        None => receive(stream, &seen, &flooded, &*act).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                receive(stream, &seen, &flooded, &*act).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            seen,
            flooded,
            connections,
            task,
        }
    }

    async fn stop(mut self) {
        self.task.shutdown().await;
    }

    fn ids(&self) -> Vec<String> {
        self.seen.lock().iter().map(|s| s.id().to_owned()).collect()
    }

    fn webhook(&self) -> Webhook {
        webhook(self.address)
    }
}

async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    seen: &Mutex<Vec<Seen>>,
    flooded: &Mutex<Option<usize>>,
    act: &(dyn Fn(&Seen, usize) -> Act + Send + Sync),
) {
    let mut bytes = Vec::new();
    loop {
        let event = loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let event = Seen {
                    head: head.to_owned(),
                    body: body.to_owned(),
                };
                let length: usize = event.header("Content-Length").unwrap().parse().unwrap();
                if body.len() >= length {
                    break event;
                }
            }
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await {
                Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
                _ => return,
            }
        };
        bytes.clear();
        let count = {
            let mut seen = seen.lock();
            seen.push(event.clone());
            seen.len()
        };
        match act(&event, count) {
            Act::Say(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
                return;
            }
            Act::Keep(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.flush().await;
            }
            Act::Hang(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.flush().await;
                std::future::pending::<()>().await;
            }
            Act::Flood => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
                let mut written = 0;
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(&[b' '; 4096]).await.is_ok() {
                    written += 4096;
                }
                *flooded.lock() = Some(written);
                return;
            }
        }
    }
}

impl Webhook {
    async fn post(&self, body: &str, id: &str) -> Result<(), NotDelivered> {
        let event = Unsent {
            id: id.to_owned(),
            account: AccountId::new("1").unwrap(),
            r#type: "pack.low".to_owned(),
            body: body.to_owned(),
            failing_since: None,
        };
        self.send(&event, Utc(1_614_265_330_999_999)).await
    }
}

/// `secrets`: in base64.
fn settings(url: &str, secrets: &[&str]) -> EventSettings {
    let uri: http::Uri = url.parse().unwrap();
    let tls = uri.scheme_str() == Some("https");
    let key = |secret: &&str| SigningKey::from(STANDARD.decode(secret).unwrap());
    EventSettings {
        webhook: WebhookUrl {
            tls,
            host: uri.host().unwrap().to_owned(),
            port: uri.port_u16().unwrap(),
            path: uri.path_and_query().unwrap().to_string(),
        },
        secrets: secrets.iter().map(key).collect(),
        balance_below: None,
        pack_expiring: None,
        quota_ending: Duration::from_secs(1),
    }
}

fn webhook(address: SocketAddr) -> Webhook {
    Webhook::new(&settings(&format!("http://{address}/n"), &[SECRET]))
}

#[tokio::test]
async fn an_event_is_posted_as_json_with_its_id_the_instant_and_a_signature_by_each_secret() {
    let receiver = Receiver::start(|_, _| say(OK)).await;
    let url = format!("http://{}/hooks/a?key=b%20c", receiver.address);
    // The example of the specification; the second signature is by Python.
    let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", r#"{"test": 2432232314}"#);
    let first = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let second = "v1,Wd08qfHgAKrpT7vg+q6VpOIHYEFDjV0KAb+odHDUr6U=";
    for (secrets, signature) in [
        (&[SECRET][..], first.to_owned()),
        (&[SECRET, OTHER], format!("{first} {second}")),
        (&[OTHER], second.to_owned()),
    ] {
        let webhook = Webhook::new(&settings(&url, secrets));
        webhook.post(body, id).await.unwrap();
        let seen = receiver.seen.lock().last().unwrap().clone();
        assert_eq!(
            seen.head.lines().next(),
            Some("POST /hooks/a?key=b%20c HTTP/1.1")
        );
        assert_eq!(seen.body, body);
        for (name, value) in [
            ("host", receiver.address.to_string().as_str()),
            ("content-type", "application/json"),
            ("webhook-id", id),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", &signature),
            (
                "user-agent",
                concat!("tollgate/", env!("CARGO_PKG_VERSION")),
            ),
            ("content-length", body.len().to_string().as_str()),
        ] {
            assert_eq!(seen.header(name), Some(value), "{name}");
        }
    }
}

#[tokio::test]
async fn a_connection_is_used_again_until_the_receiver_closes_it_or_nothing_is_left_to_send() {
    let receiver = Receiver::start(|_, count| match count {
        // After the head of the fifth it is gone without an answer, on a connection that was kept.
        5 => say(""),
        _ => Act::Keep(OK.to_owned()),
    })
    .await;
    let webhook = receiver.webhook();
    for _ in 0..4 {
        webhook.post("{}", "i").await.unwrap();
    }
    assert_eq!(receiver.connections.load(Ordering::Relaxed), 1);
    // Sent twice: the receiver may not have read it.
    webhook.post("{}", "i").await.unwrap();
    assert_eq!(receiver.ids().len(), 6);
    assert_eq!(receiver.connections.load(Ordering::Relaxed), 2);
    webhook.rest();
    webhook.post("{}", "i").await.unwrap();
    assert_eq!(receiver.connections.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn any_2xx_is_delivered_and_every_other_status_is_an_error_that_says_it() {
    for status in [200, 201, 202, 204, 206, 299] {
        let receiver =
            Receiver::start(move |_, _| say(&format!("HTTP/1.1 {status} X\r\n\r\n"))).await;
        receiver.webhook().post("{}", "i").await.unwrap();
    }
    let early =
        Receiver::start(|_, _| say(&format!("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{OK}")))
            .await;
    early.webhook().post("{}", "i").await.unwrap();
    for status in [
        101, 300, 301, 302, 304, 307, 308, 400, 401, 404, 410, 429, 500, 503, 599,
    ] {
        let elsewhere = Receiver::start(|_, _| say(OK)).await;
        let location = format!("http://{}/", elsewhere.address);
        let receiver = Receiver::start(move |_, _| {
            say(&format!(
                "HTTP/1.1 {status} X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
            ))
        })
        .await;
        let failure = receiver.webhook().post("{}", "i").await.unwrap_err();
        let said = failure.to_string();
        assert!(said.starts_with(&status.to_string()), "{said}");
        assert_eq!(
            said.contains("redirects are not followed"),
            (300..400).contains(&status),
            "{said}"
        );
        // A redirect is not followed: nobody was asked elsewhere, nor asked twice.
        assert_eq!(elsewhere.ids().len(), 0);
        assert_eq!(receiver.ids().len(), 1);
    }
}

#[tokio::test]
async fn whatever_else_comes_instead_of_an_answer_is_an_error_with_a_sentence() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let failure = webhook(nobody).post("{}", "i").await.unwrap_err();
    assert!(
        failure.to_string().starts_with("cannot connect: "),
        "{failure}"
    );

    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(1 << 20));
    for answer in [
        "",
        "HT",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nx: y",
        "nonsense\r\n\r\n",
        &endless,
    ] {
        let answer = answer.to_owned();
        let receiver = Receiver::start(move |_, _| say(&answer)).await;
        let failure = receiver.webhook().post("{}", "i").await.unwrap_err();
        assert!(failure.to_string().starts_with("no answer: "), "{failure}");
    }

    // Connected and silent; silent in mid-head; not even accepted.
    let full = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Receiver::start(|_, _| Act::Hang(String::new())).await;
    let stuck = Receiver::start(|_, _| Act::Hang("HTTP/1.1 200 OK\r\nx:".to_owned())).await;
    for address in [full.local_addr().unwrap(), silent.address, stuck.address] {
        let mut webhook = webhook(address);
        webhook.timeout = Duration::from_millis(50);
        let failure = webhook.post("{}", "i").await.unwrap_err();
        assert_eq!(failure.to_string(), "no answer within 50ms");
    }

    let failure = silent.webhook().post("{}", "a\r\nb").await.unwrap_err();
    assert!(matches!(failure, NotDelivered::Unwritable(_)), "{failure}");
}

#[tokio::test]
async fn after_a_2xx_the_rest_of_the_answer_decides_nothing_and_is_read_up_to_64_kib() {
    let cut = Receiver::start(|_, _| say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")).await;
    cut.webhook().post("{}", "i").await.unwrap();

    let wrong = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense";
    let wrong = Receiver::start(move |_, _| say(wrong)).await;
    wrong.webhook().post("{}", "i").await.unwrap();

    let hangs = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{";
    let hangs = Receiver::start(move |_, _| Act::Hang(hangs.to_owned())).await;
    let mut webhook = hangs.webhook();
    webhook.timeout = Duration::from_millis(200);
    webhook.post("{}", "i").await.unwrap();

    let floods = Receiver::start(|_, _| Act::Flood).await;
    floods.webhook().post("{}", "i").await.unwrap();
    let written = loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if let Some(written) = *floods.flooded.lock() {
            break written;
        }
    };
    // What the system's buffers took besides is a few megabytes at most.
    assert!(written < 50_000_000, "{written}");
}

fn certified(name: &str) -> (RootCertStore, TlsAcceptor) {
    let certified = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    (roots, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn over_https_only_a_receiver_that_proves_its_name_gets_the_event() {
    let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (roots, tls) = certified("localhost");
    let receiver = Receiver::listen(local, Some(tls), |_, _| say(OK)).await;
    let port = receiver.address.port();
    let right = settings(&format!("https://localhost:{port}/n"), &[SECRET]);
    Webhook::trusting(&right, roots.clone())
        .post("{}", "i")
        .await
        .unwrap();

    let plain = Receiver::start(|_, _| say(OK)).await;
    let to = |host: &str, port: u16| settings(&format!("https://{host}:{port}/n"), &[SECRET]);
    for (what, settings, roots) in [
        ("another name", to("127.0.0.1", port), roots.clone()),
        (
            "an unknown authority",
            right.clone(),
            certified("localhost").0,
        ),
        ("no authority", right.clone(), RootCertStore::empty()),
        (
            "no TLS",
            to("localhost", plain.address.port()),
            roots.clone(),
        ),
        ("no name", to("a..b", port), roots),
    ] {
        let mut webhook = Webhook::trusting(&settings, roots);
        webhook.timeout = Duration::from_secs(2);
        let failure = webhook.post("{}", "i").await.unwrap_err().to_string();
        assert!(
            !failure.contains(SECRET) && !failure.contains("/n"),
            "{failure}"
        );
        let unheard = what == "no TLS" && failure.starts_with("no answer within")
            || what == "no name" && failure.starts_with("cannot connect");
        assert!(
            unheard || failure.starts_with("no TLS: "),
            "{what}: {failure}"
        );
    }
    assert_eq!((receiver.ids().len(), plain.ids().len()), (1, 0));
}

#[test]
fn a_machine_without_trusted_certificates_is_told_so_with_the_remedy() {
    let none: [&str; 0] = [];
    assert_eq!(distrust(140, &none), None);
    let said = distrust(0, &none).unwrap();
    assert!(said.contains("install ca-certificates") && said.contains("(none was found)"));
    let said = distrust(0, &["no such file"]).unwrap();
    assert!(said.contains("no event can be delivered") && said.contains("(no such file)"));
    let said = distrust(139, &["one is damaged"]).unwrap();
    assert_eq!(
        said,
        "some trusted certificates cannot be read: one is damaged"
    );
}

#[test]
fn an_event_is_tried_again_after_1_s_and_then_ever_later_up_to_5_minutes() {
    for (failed, seconds) in [
        (1, 1),
        (2, 2),
        (3, 4),
        (8, 128),
        (9, 256),
        (10, 300),
        (11, 300),
        (33, 300),
        (34, 300),
        (u32::MAX, 300),
    ] {
        let whole = Duration::from_secs(seconds);
        assert_eq!(PACE.wait(failed, 0), whole, "{failed}");
        assert_eq!(PACE.wait(failed, 1 << 31), whole * 3 / 4, "{failed}");
        let least = PACE.wait(failed, u32::MAX);
        assert!(least > whole / 2 - Duration::from_micros(1) && least < whole);
    }
}

fn event(account: &str, number: usize) -> Unsent {
    let r#type = [EventType::PackLow, EventType::PackExhausted][(number + 1) % 2].as_str();
    let id = format!("{account}/{number}/{type}");
    Unsent {
        body: format!(r#"{{"id":"{id}"}}"#),
        account: AccountId::new(account).unwrap(),
        r#type: r#type.to_owned(),
        id,
        failing_since: None,
    }
}

/// A ledger of events, as far as these tests need one.
#[derive(Clone, Default)]
struct Book {
    unsent: Arc<Mutex<Vec<Unsent>>>,
    sent: Arc<Mutex<Vec<String>>>,
    /// What was given up: at the failure of this number, or never.
    passed: Arc<Mutex<Vec<String>>>,
    gives_up_at: Option<u32>,
    /// It cannot store that an event was sent.
    stuck: Arc<AtomicBool>,
    /// So many readings fail.
    unreadable: Arc<AtomicUsize>,
    /// How often it was asked to mark events.
    marks: Arc<AtomicUsize>,
}

impl Book {
    fn of(events: impl IntoIterator<Item = Unsent>) -> Self {
        let book = Self::default();
        book.unsent.lock().extend(events);
        book
    }

    fn sent(&self) -> Vec<String> {
        self.sent.lock().clone()
    }
}

impl Outbox for Book {
    type Error = &'static str;

    fn unsent(&self) -> Result<Vec<Unsent>, &'static str> {
        let less = |left: usize| left.checked_sub(1);
        match self
            .unreadable
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        {
            Ok(_) => Err("unreadable"),
            Err(_) => Ok(self.unsent.lock().clone()),
        }
    }

    fn sent(&self, ids: &[String]) -> Result<(), &'static str> {
        if self.stuck.load(Ordering::Relaxed) {
            return Err("stuck");
        }
        self.marks.fetch_add(1, Ordering::Relaxed);
        self.unsent.lock().retain(|n| !ids.contains(&n.id));
        self.sent.lock().extend(ids.iter().cloned());
        Ok(())
    }

    fn failed(&self, events: &[NotTaken]) -> Result<Vec<String>, &'static str> {
        let is_over = |n: &&NotTaken| self.gives_up_at.is_some_and(|at| n.failed >= at);
        let over = events.iter().filter(is_over);
        let over: Vec<_> = over.map(|n| n.event.id.clone()).collect();
        self.unsent.lock().retain(|n| !over.contains(&n.id));
        self.passed.lock().extend(over.iter().cloned());
        Ok(over)
    }
}

/// One life of the process, as far as it delivers events.
struct Life {
    metrics: Arc<Metrics>,
    raised: Arc<Notify>,
    _task: JoinSet<()>,
}

impl Life {
    /// So long as nobody says that there is a new event, none is found.
    fn begin(webhook: Webhook, book: &Book) -> Self {
        Self::looking(webhook, book, Duration::from_secs(3_600))
    }

    fn looking(mut webhook: Webhook, book: &Book, look: Duration) -> Self {
        webhook.timeout = Duration::from_millis(100);
        let metrics = Arc::new(Metrics::new(10));
        let raised = Arc::new(Notify::new());
        let post = Post {
            webhook,
            metrics: metrics.clone(),
            clock: Clock::default(),
            pace: RetryPace {
                first: Duration::from_millis(1),
                most: Duration::from_millis(20),
                look,
            },
        };
        let (book, wake) = (Arc::new(book.clone()), raised.clone());
        let mut task = JoinSet::new();
        task.spawn(async move { post.run(wake, book).await });
        Self {
            metrics,
            raised,
            _task: task,
        }
    }

    fn shows(&self, line: &str) -> bool {
        let text = String::from_utf8(self.metrics.expose(Vec::new())).unwrap();
        text.lines().any(|l| l == line)
    }
}

/// Waits for it, and fails when it does not come in a time that no machine needs.
async fn until(condition: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it did not come");
}

fn position(ids: &[String], id: &str) -> usize {
    ids.iter().position(|i| i == id).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_arrives_in_order_however_the_receiver_fails_before() {
    // The port refuses until the receiver is there.
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let events = ["a", "b"].map(|account| [1, 2, 3, 4].map(|n| event(account, n)));
    let book = Book::of(events.into_iter().flatten());
    let life = Life::begin(webhook(address), &book);
    let failed_0 = r#"tollgate_events_total{outcome="failed",type="pack.low"} 0"#;
    until(|| life.shows("tollgate_events_pending 8") && !life.shows(failed_0)).await;
    assert_eq!(book.sent(), [""; 0]);

    let receiver = Receiver::listen(address, None, |_, count| match count % 7 {
        1 => say("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"),
        2 => say("HTTP/1.1 302 X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
        3 => Act::Hang(String::new()),
        4 => say("HTTP/1.1 20"),
        5 => say(""),
        // 200, but late: what it says is not heard any more.
        6 => {
            std::thread::sleep(Duration::from_millis(300));
            say(OK)
        }
        _ => say(OK),
    })
    .await;
    until(|| book.sent().len() == 8).await;
    until(|| life.shows("tollgate_events_pending 0")).await;
    let sent = book.sent();
    for account in ["a", "b"] {
        let own: Vec<_> = sent.iter().filter(|id| id.starts_with(account)).collect();
        let expected: Vec<_> = [1, 2, 3, 4].map(|n| event(account, n).id).into();
        assert_eq!(own, expected.iter().collect::<Vec<_>>());
        // Not even tried before the earlier one was taken.
        let tried = receiver.ids();
        for pair in expected.windows(2) {
            let last = tried.iter().rposition(|id| *id == pair[0]).unwrap();
            assert!(last < position(&tried, &pair[1]), "{pair:?} in {tried:?}");
        }
    }
    for seen in receiver.seen.lock().iter() {
        assert_eq!(seen.body, format!(r#"{{"id":"{}"}}"#, seen.id()));
    }
    assert!(life.shows(r#"tollgate_events_total{outcome="delivered",type="pack.low"} 4"#));
    assert!(life.shows(r#"tollgate_events_total{outcome="delivered",type="pack.exhausted"} 4"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_never_taken_holds_its_own_account_and_no_other() {
    let receiver = Receiver::start(|seen, _| {
        let status = if seen.id() == "a/1/pack.low" {
            400
        } else {
            200
        };
        say(&format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"))
    })
    .await;
    let book = Book::of([event("a", 1), event("a", 2), event("b", 1), event("b", 2)]);
    let life = Life::begin(receiver.webhook(), &book);
    until(|| book.sent().len() == 2).await;
    // Never given up, and news of others goes out meanwhile.
    let tries = || {
        receiver
            .ids()
            .iter()
            .filter(|id| id.starts_with("a/"))
            .count()
    };
    until(|| tries() > 20).await;
    book.unsent.lock().push(event("c", 1));
    life.raised.notify_one();
    until(|| book.sent().len() == 3).await;
    assert_eq!(
        book.sent(),
        ["b/1/pack.low", "b/2/pack.exhausted", "c/1/pack.low"]
    );
    assert!(!receiver.ids().contains(&event("a", 2).id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_between_the_2xx_and_the_mark_sends_the_same_id_again() {
    let receiver = Receiver::start(|_, _| say(OK)).await;
    let book = Book::of([event("a", 1), event("a", 2)]);
    book.stuck.store(true, Ordering::Relaxed);
    let life = Life::begin(receiver.webhook(), &book);
    until(|| receiver.ids().len() == 1).await;
    drop(life);
    // What the first life still tries to mark stays unmarked.
    let book = Book {
        stuck: Arc::default(),
        ..book
    };
    let _life = Life::begin(receiver.webhook(), &book);
    until(|| book.sent().len() == 2).await;
    let (first, second) = (event("a", 1).id, event("a", 2).id);
    assert_eq!(receiver.ids(), [&*first, &*first, &*second]);
    assert_eq!(book.sent(), [first, second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_cannot_be_stored_is_tried_again_without_sending_again() {
    let receiver = Receiver::start(|_, _| say(OK)).await;
    let book = Book::of([event("a", 1), event("a", 2), event("b", 1)]);
    book.stuck.store(true, Ordering::Relaxed);
    let life = Life::begin(receiver.webhook(), &book);
    until(|| receiver.ids().len() == 2).await;
    // Time for many a try.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(life.shows("tollgate_events_pending 3"));
    book.stuck.store(false, Ordering::Relaxed);
    until(|| book.sent().len() == 3).await;
    let mut ids = receiver.ids();
    ids.sort();
    assert_eq!(ids, [event("a", 1).id, event("a", 2).id, event("b", 1).id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_book_that_cannot_be_read_is_read_again() {
    let receiver = Receiver::start(|_, _| say(OK)).await;
    let book = Book::of([event("a", 1)]);
    book.unreadable.store(3, Ordering::Relaxed);
    let look = Duration::from_millis(20);
    let life = Life::looking(receiver.webhook(), &book, look);
    // With no word of it: it is looked for all the same.
    until(|| book.sent().len() == 1).await;
    until(|| life.shows("tollgate_events_pending 0")).await;
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_just_raised_is_delivered_by_a_task_of_its_own() {
    let receiver = Receiver::start(|_, _| say(OK)).await;
    let (book, raised) = (Book::default(), Arc::new(Notify::new()));
    let task = tokio::spawn(deliver(
        receiver.webhook(),
        Arc::new(Metrics::new(10)),
        Clock::default(),
        raised.clone(),
        Arc::new(book.clone()),
    ));
    book.unsent.lock().push(event("a", 1));
    raised.notify_one();
    until(|| book.sent() == [event("a", 1).id]).await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_given_up_lets_the_later_ones_of_its_account_go_on_and_is_counted() {
    let receiver = Receiver::start(|seen, _| {
        let status = if seen.id() == "a/1/pack.low" {
            400
        } else {
            200
        };
        say(&format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"))
    })
    .await;
    let book = Book {
        gives_up_at: Some(4),
        ..Book::of([event("a", 1), event("a", 2)])
    };
    let life = Life::begin(receiver.webhook(), &book);
    until(|| book.sent().len() == 1).await;
    let (first, second) = (event("a", 1).id, event("a", 2).id);
    assert_eq!(*book.passed.lock(), [&*first]);
    assert_eq!(book.sent(), [&*second]);
    assert_eq!(receiver.ids(), [&*first, &first, &first, &first, &second]);
    let passed = r#"tollgate_events_total{outcome="passed",type="pack.low"} 1"#;
    until(|| life.shows(passed)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_statements_goes_out_over_a_few_connections_and_is_marked_in_batches() {
    const ACCOUNTS: usize = 2_000;
    let receiver = Receiver::start(|_, _| Act::Keep(OK.to_owned())).await;
    let book = Book::of((0..ACCOUNTS).map(|n| event(&format!("a{n}"), 1)));
    let _life = Life::begin(receiver.webhook(), &book);
    until(|| book.sent().len() == ACCOUNTS).await;
    assert_eq!(receiver.ids().len(), ACCOUNTS);
    assert!(receiver.connections.load(Ordering::Relaxed) <= 8);
    assert!(book.marks.load(Ordering::Relaxed) < ACCOUNTS);
}

proptest! {
    /// A webhook that takes what it likes when it likes, over hours, against the rule.
    #[test]
    fn whatever_fails_nothing_is_given_up_reordered_tried_too_early_or_held_by_another_account(
        accounts in prop::collection::vec(0_u8..4, 1..12),
        luck in prop::collection::vec(0_u8..3, 0..120),
        jitter in any::<u32>(),
    ) {
        let mut unsent: Vec<Unsent> = accounts
            .iter()
            .enumerate()
            .map(|(n, account)| event(&format!("a{account}"), n))
            .collect();
        let raised = unsent.clone();
        // Numbers differ, so ids do; each begins anew when it fails.
        let (mut failing, mut now, mut taken) = (Failing::default(), Mono(1), Vec::new());
        // The oracle: when each account's last failure was and how many it had in a row.
        let mut failures: HashMap<AccountId, (u32, Mono)> = HashMap::new();
        let mut luck = luck.into_iter();
        while !unsent.is_empty() {
            failing.keep(&unsent);
            let due: Vec<Unsent> = failing.due(&unsent, now).into_iter().cloned().collect();
            for n in &unsent {
                let held = failures.get(&n.account).is_some_and(|(failed, at)| {
                    now < at.plus(PACE.wait(*failed, jitter))
                });
                let oldest = unsent.iter().find(|u| u.account == n.account).unwrap();
                prop_assert_eq!(!held && oldest == n, due.contains(n), "{:?}", n);
            }
            if due.is_empty() {
                let pause = failing.pause(&unsent, now).unwrap();
                prop_assert!(pause > Duration::ZERO && pause <= PACE.most);
                now = now.plus(pause);
                continue;
            }
            for n in &due {
                now = now.plus(Duration::from_millis(7));
                let oldest = unsent.iter().find(|u| u.account == n.account).unwrap();
                prop_assert_eq!(oldest, n, "an earlier one of its account is not sent");
                if luck.next() == Some(0) {
                    let failed = failing.failed(n, false, |f| PACE.wait(f, jitter), now);
                    let entry = failures.entry(n.account.clone()).or_insert((0, now));
                    *entry = (entry.0 + 1, now);
                    prop_assert_eq!(failed, entry.0);
                } else {
                    failures.remove(&n.account);
                    unsent.retain(|u| u != n);
                    taken.push(n.clone());
                }
            }
        }
        prop_assert!(failing.pause(&unsent, now).is_none());
        failing.keep(&unsent);
        prop_assert!(failing.is_empty());
        for account in raised.iter().map(|n| &n.account) {
            let of = |list: &[Unsent]| -> Vec<Unsent> {
                list.iter().filter(|n| n.account == *account).cloned().collect()
            };
            prop_assert_eq!(of(&raised), of(&taken));
        }
    }
}
