//! What `tollgate demo` adds: a sample upstream, sample callers, a live table.
//!
//! Owns nothing that the gate uses. Must never compute a figure apart: what it shows is read from
//! the gate's metrics and ledger over HTTP, as an operator would.

use crate::clock::Clock;
use crate::config::{self, Endpoint};
use crate::serve::{self, Running};
use crate::upstream::{NotAnswered, Upstream};
use crate::usage::{Month, Reader, usage_table};
use crate::words::AccountId;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// How long the sample upstream works on a call.
const WORK: Duration = Duration::from_millis(30);
const SECOND_NS: u64 = 1_000_000_000;

/// The bundled accounts' credentials, as config/accounts.yaml has them (keys of trial accounts).
const STUDIO_ID: &str = "AKIDEXAMPLESTUDIO00000000000000000001";
const STUDIO_SECRET: &str = "trial-secret-of-example-studio";

/// One sample caller: what it sends, and how often.
struct Caller {
    about: &'static str,
    calls_per_second: u32,
    credential: Credential,
    action: &'static str,
    path: &'static str,
    region: &'static str,
}

#[derive(Clone, Copy)]
enum Credential {
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

const fn caller(
    about: &'static str,
    calls_per_second: u32,
    credential: Credential,
    (action, path): (&'static str, &'static str),
) -> Caller {
    Caller {
        about,
        calls_per_second,
        credential,
        action,
        path,
        region: "ap-guangzhou",
    }
}

const STUDIO: Credential = Credential::Tc3 {
    id: STUDIO_ID,
    secret: STUDIO_SECRET,
};
const CALLERS: &[Caller] = &[
    caller(
        "1250000001 signs (TC3), both paid actions: 30/s against its 20",
        18,
        STUDIO,
        SEGMENT,
    ),
    caller("", 12, STUDIO, CUSTOM),
    caller(
        "1250000002 bought 30 QPS, calls 45/s with an API key",
        45,
        Credential::ApiKey("demo-retail-key"),
        SEGMENT,
    ),
    caller(
        "1250000003 is in arrears",
        2,
        Credential::ApiKey("demo-arrears-key"),
        SEGMENT,
    ),
    caller(
        "1250000004 opened the free video service only",
        10,
        Credential::ApiKey("demo-video-key"),
        DESCRIBE,
    ),
    caller("", 1, Credential::ApiKey("demo-video-key"), SEGMENT),
    caller(
        "somebody guesses keys",
        1,
        Credential::ApiKey("guessed"),
        SEGMENT,
    ),
];

/// Runs the demo until `duration` is over or `stop` resolves. An error when a promise was broken.
pub async fn run(
    config_path: &Path,
    duration: Option<Duration>,
    mut out: impl Write + IsTerminal,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let mut config = config::load(config_path)?;
    let upstream = sample_upstream().await?;
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    config.settings.listen = loopback;
    config.settings.admin.listen = loopback;
    config.settings.admin.token = None;
    config.settings.upstream.endpoint = Endpoint {
        host: upstream.ip().to_string(),
        port: upstream.port(),
    };
    config.settings.ledger.path = scratch.0.join("ledger.db");
    let month = Month::of(Clock::default().utc(), &config.catalog.time_zone);
    let (from, until) = month.bounds(&config.catalog.time_zone);
    let running = serve::start(config, Clock::default()).await?;

    writeln!(
        out,
        "tollgate serves {} on http://{}",
        config_path.display(),
        running.public
    )?;
    writeln!(out, "  metrics  http://{}/metrics", running.admin)?;
    writeln!(out, "  ledger   {}", scratch.0.join("ledger.db").display())?;
    writeln!(
        out,
        "  upstream http://{upstream} (sample, answers after {WORK:?})"
    )?;
    for caller in CALLERS.iter().filter(|caller| !caller.about.is_empty()) {
        writeln!(out, "  caller   {}", caller.about)?;
    }
    writeln!(out, "Ctrl-C ends it.\n")?;

    let mut callers = JoinSet::new();
    for caller in CALLERS {
        callers.spawn(send_calls(running.public, caller));
    }
    let mut watch = Watch::new(running.admin, out.is_terminal());
    let end = async { tokio::time::sleep(duration.unwrap_or(Duration::MAX / 4)).await };
    tokio::select! {
        watched = watch.follow(&mut out) => watched?,
        () = end => {}
        () = stop => {}
    }
    callers.shutdown().await;
    let broken = watch.settle(&mut out, &running).await;
    running.drain(std::future::pending()).await;

    let lines = Reader::open(&scratch.0.join("ledger.db"))?.usage(from, until, None)?;
    writeln!(out)?;
    usage_table(&mut out, month, &lines)?;
    broken
}

/// A directory of the demo's own, gone when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("tollgate-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An upstream that answers every action with the vendor's fields.
async fn sample_upstream() -> anyhow::Result<SocketAddr> {
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

/// Sends one caller's calls at an even pace, each on its own so that a slow one delays none.
async fn send_calls(gate: SocketAddr, caller: &'static Caller) {
    let client = Arc::new(client(gate));
    let mut calls = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / caller.calls_per_second);
    loop {
        tick.tick().await;
        while calls.try_join_next().is_some() {}
        let client = client.clone();
        calls.spawn(async move { fetch(&client, sample_call(gate, caller)).await.map(drop) });
    }
}

type Client = Upstream<Full<Bytes>>;

fn client(to: SocketAddr) -> Client {
    Upstream::new(
        to.ip().to_string(),
        to.port(),
        Duration::from_secs(2),
        Clock::default(),
    )
}

async fn fetch(
    client: &Arc<Client>,
    mut request: Request<Full<Bytes>>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    loop {
        match client.connection().await?.send(request).await {
            Ok(answer) => {
                let status = answer.status();
                return Ok((status, answer.into_body().collect().await?.to_bytes()));
            }
            Err(NotAnswered::Unsent(back)) => request = back,
            Err(NotAnswered::Failed(failure)) => return Err(failure.into()),
        }
    }
}

fn sample_call(gate: SocketAddr, caller: &Caller) -> Request<Full<Bytes>> {
    let body = json!({"Image": "iVBORw0KGgo=", "TaskID": "t-1"}).to_string();
    let mut headers = HeaderMap::new();
    let host = gate.to_string();
    let path = match caller.credential {
        Credential::ApiKey(key) => {
            insert(&mut headers, "x-api-key", key);
            caller.path
        }
        Credential::Tc3 { id, secret } => {
            let now = Clock::default().utc().seconds();
            insert(&mut headers, "x-tc-action", caller.action);
            insert(&mut headers, "x-tc-version", "2020-03-24");
            insert(&mut headers, "x-tc-region", caller.region);
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
    let mut request = Request::new(Full::new(Bytes::from(body)));
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

/// Follows the gate from outside: its metrics, its usage, its records.
struct Watch {
    admin: Arc<Client>,
    host: String,
    terminal: bool,
    drawn_lines: usize,
    cursor: u64,
    /// The starts of the last second of each gate, by account, group and action (empty in a paid group).
    windows: HashMap<[String; 3], VecDeque<u64>>,
    /// The most starts seen in any trailing second, by account and group, and the quota then.
    peaks: BTreeMap<[String; 2], (usize, usize)>,
    over_the_cap: Vec<String>,
}

impl Watch {
    fn new(admin: SocketAddr, terminal: bool) -> Self {
        Self {
            admin: Arc::new(client(admin)),
            host: admin.to_string(),
            terminal,
            drawn_lines: 0,
            cursor: 0,
            windows: HashMap::new(),
            peaks: BTreeMap::new(),
            over_the_cap: Vec::new(),
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let request = Request::get(path)
            .header("host", &self.host)
            .body(Full::default())?;
        let (status, body) = fetch(&self.admin, request).await?;
        ensure!(status == StatusCode::OK, "GET {path}: {status}");
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn follow(&mut self, out: &mut impl Write) -> anyhow::Result<()> {
        for second in 1_u64.. {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let metrics = self.look().await?;
            if self.terminal || second.is_multiple_of(5) {
                self.draw(out, &metrics).await?;
            }
        }
        Ok(())
    }

    /// Reads the metrics, and the records since the last look, against the quotas of that moment.
    async fn look(&mut self) -> anyhow::Result<Samples> {
        let metrics = Samples::parse(&self.get("/metrics").await?);
        loop {
            let page = self
                .get(&format!("/v1/records?after={}&limit=10000", self.cursor))
                .await?;
            let mut empty = true;
            for line in page.lines() {
                empty = false;
                self.check_cap(&serde_json::from_str(line)?, &metrics)?;
            }
            if empty {
                return Ok(metrics);
            }
        }
    }

    /// P1 on the recorded starts: at most the quota in any trailing second.
    fn check_cap(&mut self, record: &Value, metrics: &Samples) -> anyhow::Result<()> {
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        self.cursor = record["seq"].as_u64().context("a record without seq")?;
        let start = record["start_ns"]
            .as_u64()
            .context("a record without start_ns")?;
        let (account, group) = (text("account"), text("group"));
        let action = if text("mode") == "free" {
            text("action")
        } else {
            String::new()
        };
        let quota = metrics.get(&format!(
            "tollgate_quota_qps{{account=\"{account}\",group=\"{group}\"}}"
        )) as usize;
        let window = self
            .windows
            .entry([account.clone(), group.clone(), action])
            .or_default();
        // Records are in order of their ends, starts nearly so: kept sorted, and two seconds deep.
        let place = window.partition_point(|earlier| *earlier <= start);
        window.insert(place, start);
        let newest = window.back().copied().unwrap_or(start);
        while window
            .front()
            .is_some_and(|oldest| oldest + 2 * SECOND_NS < newest)
        {
            window.pop_front();
        }
        let ends_within = window
            .iter()
            .filter(|end| (start..start + SECOND_NS).contains(*end));
        let in_a_second = |end: &u64| {
            window
                .iter()
                .filter(|s| **s <= *end && **s + SECOND_NS > *end)
                .count()
        };
        let most = ends_within.map(in_a_second).max().unwrap_or(0);
        let peak = self
            .peaks
            .entry([account.clone(), group.clone()])
            .or_default();
        *peak = (peak.0.max(most), quota);
        if most > quota {
            self.over_the_cap.push(format!(
                "{account} {group}: {most} starts in one second, the cap is {quota}"
            ));
        }
        Ok(())
    }

    async fn draw(&mut self, out: &mut impl Write, metrics: &Samples) -> anyhow::Result<()> {
        let usage: Value = serde_json::from_str(&self.get("/v1/usage").await?)?;
        let mut recorded: BTreeMap<[String; 2], u64> = BTreeMap::new();
        for line in usage["lines"].as_array().into_iter().flatten() {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            *recorded
                .entry([text("account"), text("group")])
                .or_default() += line["calls"].as_u64().unwrap_or(0);
        }
        let mut rows = vec![format!(
            "{:<12} {:<22} {:>6} {:>9} {:>10} {:>8} {:>9} {:>14}",
            "account",
            "group",
            "quota",
            "admitted",
            "throttled",
            "refused",
            "recorded",
            "most in 1 s"
        )];
        for [account, group] in metrics.accounts() {
            let count = |decision: &str| {
                metrics.get(&format!(
                    "tollgate_account_requests_total{{account=\"{account}\",decision=\"{decision}\",group=\"{group}\"}}"
                ))
            };
            let quota = metrics.get(&format!(
                "tollgate_quota_qps{{account=\"{account}\",group=\"{group}\"}}"
            ));
            let key = [account.clone(), group.clone()];
            let (most, _) = self.peaks.get(&key).copied().unwrap_or_default();
            rows.push(format!(
                "{account:<12} {group:<22} {quota:>6} {:>9} {:>10} {:>8} {:>9} {most:>14}",
                count("admitted"),
                count("throttled"),
                count("refused"),
                recorded.get(&key).copied().unwrap_or(0),
            ));
        }
        rows.push(format!(
            "received {}  admitted {}  throttled {}  refused {}  recorded {}  in flight {}",
            metrics.get("tollgate_requests_received_total"),
            metrics.decided("admitted"),
            metrics.decided("throttled"),
            metrics.decided("refused"),
            metrics.sum("tollgate_records_total"),
            metrics.get("tollgate_in_flight"),
        ));
        if self.terminal && self.drawn_lines > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.drawn_lines)?;
        }
        self.drawn_lines = rows.len();
        for row in rows {
            writeln!(out, "{row}")?;
        }
        out.flush()?;
        Ok(())
    }

    /// Waits until the gate is at rest, then checks P1 and P4 from what it says of itself.
    async fn settle(&mut self, out: &mut impl Write, running: &Running) -> anyhow::Result<()> {
        let mut metrics = self.look().await?;
        for _ in 0..100 {
            if metrics.get("tollgate_pending") == 0 && metrics.get("tollgate_in_flight") == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            metrics = self.look().await?;
        }
        self.draw(out, &metrics).await?;
        let received = metrics.get("tollgate_requests_received_total");
        let [admitted, throttled, refused] =
            ["admitted", "throttled", "refused"].map(|d| metrics.decided(d));
        let recorded = metrics.sum("tollgate_records_total");
        let mut broken = std::mem::take(&mut self.over_the_cap);
        if received != admitted + throttled + refused {
            broken.push(format!(
                "received {received}, decided {}",
                admitted + throttled + refused
            ));
        }
        if admitted != recorded || recorded != self.cursor {
            broken.push(format!(
                "admitted {admitted}, counted as recorded {recorded}, in the ledger {}",
                self.cursor
            ));
        }
        if admitted == 0 || throttled == 0 {
            broken.push(format!(
                "nothing was shown: admitted {admitted}, throttled {throttled} on {}",
                running.public
            ));
        }
        writeln!(out)?;
        if broken.is_empty() {
            writeln!(
                out,
                "cap kept: no second of any account holds more starts than its quota"
            )?;
            writeln!(
                out,
                "conserved: received {received} = admitted {admitted} + throttled {throttled} + refused {refused}; admitted = recorded"
            )?;
            return Ok(());
        }
        bail!("a promise was broken:\n  {}", broken.join("\n  "))
    }
}

/// Samples of a text exposition.
struct Samples(BTreeMap<String, u64>);

impl Samples {
    fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse::<f64>().ok()? as u64))
        };
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(sample)
                .collect(),
        )
    }

    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn sum(&self, family: &str) -> u64 {
        self.0
            .iter()
            .filter(|(name, _)| name.starts_with(&format!("{family}{{")))
            .map(|(_, value)| value)
            .sum()
    }

    fn decided(&self, decision: &str) -> u64 {
        let label = format!("decision=\"{decision}\"");
        self.0
            .iter()
            .filter(|(name, _)| {
                name.starts_with("tollgate_requests_total{") && name.contains(&label)
            })
            .map(|(_, value)| value)
            .sum()
    }

    /// Account and group of each pair that has series.
    fn accounts(&self) -> Vec<[String; 2]> {
        let label = |name: &str, label: &str| {
            let rest = name.split_once(&format!("{label}=\""))?.1;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let mut pairs: Vec<[String; 2]> = self
            .0
            .keys()
            .filter(|name| name.starts_with("tollgate_account_requests_total{"))
            .filter_map(|name| Some([label(name, "account")?, label(name, "group")?]))
            .filter(|[account, _]| AccountId::new(account).is_some())
            .collect();
        pairs.sort();
        pairs.dedup();
        pairs
    }
}
