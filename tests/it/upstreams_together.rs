//! The one bound of all upstreams: calls and connections, whatever the clients speak.

use crate::harness::*;
use crate::tls::client::{Answered, Http2, answered, connect, trusting};
use crate::tls::{certificate, section};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// `limits.connections` of the gate.
const CONNECTIONS: usize = 40;

const CUSTOM: &str = "/v1/portrait/segment-custom";
const TASKS: &str = "/v1/video/tasks";
const DESCRIBE: &str = "/v1/video/tasks/describe";

/// Upstreams that answer when they are told to, and the calls that they have together.
struct Slow {
    all: Vec<Upstream>,
    calls: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    answers: watch::Sender<bool>,
}

impl Slow {
    async fn start(count: usize) -> Self {
        let (calls, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let answers = watch::Sender::new(false);
        let mut all = Vec::new();
        for _ in 0..count {
            let (calls, most, answers) = (calls.clone(), most.clone(), answers.subscribe());
            let script = move |_| {
                let (calls, most, mut answers) = (calls.clone(), most.clone(), answers.clone());
                async move {
                    let now = calls.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    let _ = answers.wait_for(|told| *told).await;
                    calls.fetch_sub(1, Ordering::SeqCst);
                    json(StatusCode::OK, "{}")
                }
            };
            all.push(Upstream::scripted(script).await);
        }
        Self {
            all,
            calls,
            most,
            answers,
        }
    }

    /// Waits until they have so many calls.
    async fn have(&self, calls: usize) {
        let has = || self.calls.load(Ordering::SeqCst) == calls;
        eventually("the upstreams have the calls", has).await;
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|one| one.address).collect()
    }
}

/// The open connections to these addresses, as the kernel knows them.
fn connections_to(addresses: &[SocketAddr]) -> usize {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let is_to = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = fields[2].rsplit(':').next().unwrap();
        let port = u16::from_str_radix(port, 16).unwrap();
        fields[3] == ESTABLISHED && addresses.iter().any(|one| one.port() == port)
    };
    table.lines().skip(1).filter(is_to).count()
}

/// The gate before these upstreams, under TLS, and its certificate.
async fn gate(upstreams: &[SocketAddr]) -> (Sandbox, Process, PathBuf) {
    let [default, custom, tasks, describe] = upstreams else {
        panic!("one for each action")
    };
    let tls = format!("behind_tls: false\ntls: {}", section(&["tls"]));
    let named = format!(
        "\nupstreams:\n  custom: {{endpoints: [http://{custom}]}}\n  tasks: {{endpoints: [http://{tasks}]}}\n  \
         describe: {{endpoints: [http://{describe}]}}\n\n# The other two files"
    );
    let house = Sandbox::new(
        *default,
        &[
            ("behind_tls: false", &tls),
            ("connections: 4000", &format!("connections: {CONNECTIONS}")),
            ("\n# The other two files", &named),
        ],
    );
    let (cert, _) = certificate(&house.file("tls"), &[]);
    for (from, to) in [
        ("segment-custom}", "segment-custom, upstream: custom}"),
        ("/v1/video/tasks}", "/v1/video/tasks, upstream: tasks}"),
        ("tasks/describe}", "tasks/describe, upstream: describe}"),
        ("qps_per_action: 20", "qps_per_action: 1000"),
    ] {
        house.edit("catalog.yaml", from, to);
    }
    let (from, to) = ("order: Q-1, qps: 10,", "order: Q-1, qps: 9000,");
    house.edit("accounts.yaml", from, to);
    let process = house.start().await;
    (house, process, cert)
}

/// Calls of one connection of HTTP/2, which are answered later.
async fn begin(
    calls: &mut JoinSet<u16>,
    client: &mut Http2,
    count: usize,
    (path, key): (&str, &str),
) {
    for _ in 0..count {
        let (answer, _) = client.begin(request(path, key, ()), true).await;
        calls.spawn(async move { answered(answer).await.unwrap().status });
    }
}

fn request<B>(path: &str, key: &str, body: B) -> http::Request<B> {
    let url = format!("https://localhost{path}");
    let request = http::Request::post(url).header("x-api-key", key);
    request.body(body).unwrap()
}

async fn call_http2(client: &mut Http2, path: &str, key: &str) -> Answered {
    let (answer, _) = client.begin(request(path, key, ()), true).await;
    answered(answer).await.unwrap()
}

/// A call over a connection of HTTP/1.1 of its own.
async fn call_http1(to: SocketAddr, cert: PathBuf, path: &str, key: &str) -> (u16, Bytes) {
    let stream = connect(to, &trusting(&[&cert], &[]), "localhost").await;
    let io = TokioIo::new(stream.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut request = request(path, key, Full::<Bytes>::default());
    *request.uri_mut() = path.parse().unwrap();
    let headers = request.headers_mut();
    headers.insert("host", "localhost".parse().unwrap());
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), body)
}

/// Asserts that every upstream is full for both protocols, and that the admin listener answers.
async fn assert_full(house: &Sandbox, cert: &Path, client: &mut Http2) {
    for path in [CUSTOM, TASKS, DESCRIBE] {
        let refused = call_http2(client, path, STUDIO_KEY).await;
        let body = String::from_utf8_lossy(&refused.body).into_owned();
        assert_eq!(refused.status, 503, "{path}: {body}");
        assert!(body.contains("upstream_busy"), "{path}: {body}");
        assert_eq!(refused.headers["retry-after"], "1");
        let (status, body) = call_http1(house.public, cert.to_owned(), path, STUDIO_KEY).await;
        let body = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, 503, "{path}: {body}");
        assert!(body.contains("upstream_busy"), "{path}: {body}");
    }
    let (status, ..) = get(house.admin, "/readyz").await;
    assert_eq!(status, StatusCode::OK);
}

async fn assert_answered(calls: &mut JoinSet<u16>) {
    while let Some(status) = calls.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_upstreams_together_have_at_most_limits_connections_calls_and_connections() {
    let slow = Slow::start(4).await;
    let addresses = slow.addresses();
    let (house, _process, cert) = gate(&addresses).await;
    // No account may have more than half of them.
    let mut retail = Http2::connect(house.public, &cert).await;
    let mut calls = JoinSet::new();
    begin(&mut calls, &mut retail, 18, (CUSTOM, RETAIL_KEY)).await;
    slow.have(18).await;
    for nth in 1..=8 {
        let (to, cert) = (house.public, cert.clone());
        calls.spawn(async move { call_http1(to, cert, TASKS, VIDEO_KEY).await.0 });
        // One after the other: few connections of a peer may be without a proven credential.
        slow.have(18 + nth).await;
    }
    let mut video = Http2::connect(house.public, &cert).await;
    begin(&mut calls, &mut video, 8, (TASKS, VIDEO_KEY)).await;
    let mut studio = Http2::connect(house.public, &cert).await;
    begin(&mut calls, &mut studio, 6, (CUSTOM, STUDIO_KEY)).await;
    slow.have(CONNECTIONS).await;
    assert_full(&house, &cert, &mut studio).await;
    let are_bounded = || connections_to(&addresses) <= CONNECTIONS;
    eventually("connections are bounded", are_bounded).await;
    slow.answers.send_replace(true);
    assert_answered(&mut calls).await;

    // The load moves to an upstream to which no connection is kept.
    slow.answers.send_replace(false);
    assert!(
        connections_to(&addresses) > CONNECTIONS / 2,
        "they are kept"
    );
    begin(&mut calls, &mut retail, 18, (DESCRIBE, RETAIL_KEY)).await;
    begin(&mut calls, &mut video, 10, (DESCRIBE, VIDEO_KEY)).await;
    begin(&mut calls, &mut studio, 12, (DESCRIBE, STUDIO_KEY)).await;
    slow.have(CONNECTIONS).await;
    assert_full(&house, &cert, &mut studio).await;
    eventually("connections are bounded", are_bounded).await;
    assert_eq!(connections_to(&addresses[3..]), CONNECTIONS);
    slow.answers.send_replace(true);
    assert_answered(&mut calls).await;
    assert_eq!(slow.most.load(Ordering::SeqCst), CONNECTIONS);
    at_rest(house.admin).await.assert_conserved();
}
