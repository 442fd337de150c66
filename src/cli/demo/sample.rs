//! The sample upstream and the sample clients, on both sides of the gate.
//!
//! Owns what is called how often, and its signature. Must never look into the gate: to the gate
//! these are clients and an upstream like any other.

use crate::cli::fetch::{connections_to, fetch};
use crate::model::Clock;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long the sample upstream works on a call.
pub(super) const WORK: Duration = Duration::from_millis(30);

/// Connections that the clients may need. The configured number would need more open files than a
/// stock machine may allow.
pub(super) const CONNECTIONS: usize = 400;
/// A demo that ran so long must have seen an admitted and a throttled call.
pub(super) const SHOWN_AFTER: Duration = Duration::from_secs(3);
/// How long the clients may wait for their last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The bundled accounts' credentials, as config/accounts.yaml has them (keys of trial accounts).
const STUDIO_ID: &str = "AKIDEXAMPLESTUDIO00000000000000000001";
const STUDIO_SECRET: &str = "trial-secret-of-example-studio";

/// One sample client: what it sends, and how often.
struct DemoClient {
    /// The line that presents the client to people; empty where the line before does.
    about: &'static str,
    calls_per_second: u32,
    credential: DemoCredential,
    action: &'static str,
    path: &'static str,
    region: &'static str,
}

#[derive(Clone, Copy)]
enum DemoCredential {
    Tc3 {
        id: &'static str,
        secret: &'static str,
    },
    ApiKey(&'static str),
}

const SEGMENT: (&str, &str) = ("SegmentPortraitPic", "/v1/portrait/segment");
const CUSTOM: (&str, &str) = (
    "SegmentCustomizedPortraitPic",
    "/v1/portrait/segment-custom",
);
const DESCRIBE: (&str, &str) = ("DescribeSegmentationTask", "/v1/video/tasks/describe");

const fn demo_client(
    about: &'static str,
    calls_per_second: u32,
    credential: DemoCredential,
    (action, path): (&'static str, &'static str),
) -> DemoClient {
    DemoClient {
        about,
        calls_per_second,
        credential,
        action,
        path,
        region: "ap-guangzhou",
    }
}

const STUDIO: DemoCredential = DemoCredential::Tc3 {
    id: STUDIO_ID,
    secret: STUDIO_SECRET,
};
const CLIENTS: &[DemoClient] = &[
    demo_client(
        "1250000001 pays by the call (cap 20), signs TC3, makes 30 calls/s",
        18,
        STUDIO,
        SEGMENT,
    ),
    demo_client("", 12, STUDIO, CUSTOM),
    demo_client(
        "1250000002 bought 30 QPS, sends an API key, makes 45 calls/s",
        45,
        DemoCredential::ApiKey("demo-retail-key"),
        SEGMENT,
    ),
    demo_client(
        "1250000003 is in arrears",
        2,
        DemoCredential::ApiKey("demo-arrears-key"),
        SEGMENT,
    ),
    demo_client(
        "1250000004 opened only the free video service, tries both",
        10,
        DemoCredential::ApiKey("demo-video-key"),
        DESCRIBE,
    ),
    demo_client("", 1, DemoCredential::ApiKey("demo-video-key"), SEGMENT),
    demo_client(
        "somebody without an account guesses keys",
        1,
        DemoCredential::ApiKey("guessed"),
        SEGMENT,
    ),
];

/// An upstream that answers every action with the vendor's fields.
pub(super) async fn sample_upstream() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(
                http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(sample_answer)),
            );
        }
    });
    Ok(address)
}

async fn sample_answer(
    request: Request<Incoming>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let (action, id) = (header("x-tollgate-action"), header("x-request-id"));
    let _ = request.into_body().collect().await;
    tokio::time::sleep(WORK).await;
    let body = match action.as_str() {
        "SegmentPortraitPic" => {
            json!({"ResultMask": "iVBORw0KGgo=", "HasForeground": true, "RequestId": id})
        }
        "SegmentCustomizedPortraitPic" => {
            json!({"PortraitImage": "iVBORw0KGgo=", "ImageRects": [], "RequestId": id})
        }
        _ => json!({"TaskStatus": "PROCESSING", "RequestId": id}),
    };
    let response = http::Response::builder().header(http::header::CONTENT_TYPE, "application/json");
    let body = Full::new(Bytes::from(json!({"Response": body}).to_string()));
    Ok(response.body(body).unwrap_or_default())
}

/// The lines that present the clients to people.
pub(super) fn about() -> impl Iterator<Item = &'static str> {
    let about = CLIENTS.iter().map(|client| client.about);
    about.filter(|about| !about.is_empty())
}

/// The sample clients while they call.
pub(super) struct Calling {
    gates: watch::Sender<Vec<SocketAddr>>,
    clients: JoinSet<()>,
}

/// Lets each client call these gates in turn.
pub(super) fn start_calling(gates: Vec<SocketAddr>) -> Calling {
    let (gates, called) = watch::channel(gates);
    let mut clients = JoinSet::new();
    for client in CLIENTS {
        clients.spawn(send_calls(client, called.clone()));
    }
    Calling { gates, clients }
}

impl Calling {
    /// The gates that are called from now on.
    pub(super) fn go_to(&self, gates: Vec<SocketAddr>) {
        self.gates.send_replace(gates);
    }

    /// Lets the last calls end: clients that just vanished would leave calls under way, which a
    /// last look would miss.
    pub(super) async fn end(mut self) {
        drop(self.gates);
        let last_answers = async { while self.clients.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_ANSWERS, last_answers).await;
        self.clients.shutdown().await;
    }
}

/// Sends one client's calls at an even pace, each on its own: a slow one delays none. Ends when the
/// sender of `gates` is gone and the last call is answered.
async fn send_calls(client: &'static DemoClient, mut gates: watch::Receiver<Vec<SocketAddr>>) {
    let mut connections = HashMap::new();
    let mut calls = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / client.calls_per_second);
    for turn in 0_usize.. {
        tokio::select! {
            _ = tick.tick() => {}
            changed = gates.changed() => match changed {
                Ok(()) => continue,
                Err(_) => break,
            },
        }
        while calls.try_join_next().is_some() {}
        let gate = {
            let gates = gates.borrow();
            gates
                .get(turn.checked_rem(gates.len()).unwrap_or(0))
                .copied()
        };
        let Some(gate) = gate else { continue };
        let connections = connections
            .entry(gate)
            .or_insert_with(|| connections_to(gate, None));
        let connections = connections.clone();
        calls.spawn(async move {
            fetch(&connections, sample_call(gate, client))
                .await
                .map(drop)
        });
    }
    while calls.join_next().await.is_some() {}
}

fn sample_call(gate: SocketAddr, client: &DemoClient) -> Request<Bytes> {
    let body = json!({"Image": "iVBORw0KGgo=", "TaskID": "t-1"}).to_string();
    let mut headers = HeaderMap::new();
    let host = gate.to_string();
    let path = match client.credential {
        DemoCredential::ApiKey(key) => {
            insert(&mut headers, "x-api-key", key);
            client.path
        }
        DemoCredential::Tc3 { id, secret } => {
            let now = Clock::default().utc().seconds();
            insert(&mut headers, "x-tc-action", client.action);
            insert(&mut headers, "x-tc-version", "2020-03-24");
            insert(&mut headers, "x-tc-region", client.region);
            insert(&mut headers, "x-tc-timestamp", &now.to_string());
            insert(
                &mut headers,
                "authorization",
                &sign(id, secret, now, &host, &body),
            );
            "/"
        }
    };
    insert(&mut headers, "host", &host);
    insert(&mut headers, "content-type", "application/json");
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    *request.headers_mut() = headers;
    request
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = http::HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The `Authorization` of a JSON POST to `/`, as the vendor's SDKs sign it (PROTOCOL §2).
pub fn sign(secret_id: &str, secret_key: &str, now_seconds: i64, host: &str, body: &str) -> String {
    let date = jiff::Timestamp::from_second(now_seconds)
        .unwrap_or_default()
        .strftime("%Y-%m-%d")
        .to_string();
    let hash = |text: &str| hex::encode(Sha256::digest(text));
    let canonical = format!(
        "POST\n/\n\ncontent-type:application/json\nhost:{host}\n\ncontent-type;host\n{}",
        hash(body)
    );
    let scope = format!("{date}/bda/tc3_request");
    let to_sign = format!(
        "TC3-HMAC-SHA256\n{now_seconds}\n{scope}\n{}",
        hash(&canonical)
    );
    let mut key = format!("TC3{secret_key}").into_bytes();
    for step in [date.as_str(), "bda", "tc3_request", &to_sign] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else {
            return String::new();
        };
        mac.update(step.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    let signature = hex::encode(key);
    format!(
        "TC3-HMAC-SHA256 Credential={secret_id}/{scope}, SignedHeaders=content-type;host, Signature={signature}"
    )
}
