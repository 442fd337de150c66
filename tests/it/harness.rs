//! What the tests share: a gate in this process or as the real binary, an upstream that the test
//! scripts, a client that shows every byte.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate::clock::{Clock, Mover};
use tollgate::config::{self, Config, Endpoint};
use tollgate::serve::{self, Running};
use tollgate::usage::{ClockWatch, Entry, Reader, StoredRecord};
use tollgate::words::{Mono, Utc};

/// The keys of the sample accounts in config/accounts.yaml.
pub const STUDIO_KEY: &str = "demo-studio-key"; // 1250000001, per_call
pub const RETAIL_KEY: &str = "demo-retail-key"; // 1250000002, qps: 10 + 20
pub const ARREARS_KEY: &str = "demo-arrears-key"; // 1250000003, stopped
pub const VIDEO_KEY: &str = "demo-video-key"; // 1250000004, free group only
pub const STUDIO_ID: &str = "AKIDEXAMPLESTUDIO00000000000000000001";
pub const STUDIO_SECRET: &str = "trial-secret-of-example-studio";

/// The disk of a machine that builds and tests at once may take seconds for a sync, which is no fault of the gate.
const PATIENT: Duration = Duration::from_secs(30);

/// The shipped configuration, with free ports, the test's upstream and a ledger in `dir`.
pub fn shipped_config(dir: &Path, upstream: SocketAddr) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.yaml");
    let mut config = config::load(&path).expect("the shipped configuration is sound");
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    config.settings.listen = loopback;
    config.settings.admin.listen = loopback;
    config.settings.upstream.endpoint = Endpoint {
        host: upstream.ip().to_string(),
        port: upstream.port(),
    };
    config.settings.ledger.path = dir.join("ledger.db");
    config.settings.limits.connections = 500;
    config.settings.ledger.stall_after = PATIENT;
    config
}

/// A gate in this process, with its ledger in a directory of its own.
pub struct Gate {
    pub running: Option<Running>,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub clock: Clock,
    pub mover: Mover,
    pub dir: tempfile::TempDir,
}

impl Gate {
    pub async fn start(upstream: SocketAddr) -> Self {
        Self::start_with(upstream, |_| ()).await
    }

    /// `change` edits the shipped configuration before it is served.
    pub async fn start_with(upstream: SocketAddr, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(upstream, Clock::movable(), change).await
    }

    /// The same by this clock.
    pub async fn start_at(
        upstream: SocketAddr,
        (clock, mover): (Clock, Mover),
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = shipped_config(dir.path(), upstream);
        change(&mut config);
        let running = serve::start(config, clock.clone())
            .await
            .expect("the gate starts");
        Self {
            public: running.public,
            admin: running.admin,
            running: Some(running),
            clock,
            mover,
            dir,
        }
    }

    pub fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger.db")
    }

    /// Every record, in order of seq.
    pub fn records(&self) -> Vec<StoredRecord> {
        records(&self.ledger())
    }

    /// One scrape of `/metrics`.
    pub async fn metrics(&self) -> Samples {
        scrape(self.admin).await
    }

    /// Waits until no call is pending or in flight, then scrapes.
    pub async fn at_rest(&self) -> Samples {
        at_rest(self.admin).await
    }
}

/// What an earlier process leaves in its ledger that ran on this machine for more than a day: the wall clock is trusted.
pub fn trusted_clock() -> Entry {
    let (mono, utc) = Clock::default().both();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let day = Duration::from_secs(86_400);
    Entry::Clock(ClockWatch {
        boot: boot.trim().to_owned(),
        mono,
        utc,
        in_step: 2 * day,
        trusted: day,
        known: Utc(0),
        fixed_unseen: None,
    })
}

pub fn records(ledger: &Path) -> Vec<StoredRecord> {
    let reader = Reader::open(ledger).unwrap();
    let mut all: Vec<StoredRecord> = Vec::new();
    loop {
        let page = reader
            .records(all.last().map_or(0, |r| r.seq), 10_000)
            .unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// The samples of a text exposition by name and labels as written.
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// The sum of a family's samples whose labels hold every one of `labels` (`key="value"`).
    pub fn sum(&self, family: &str, labels: &[&str]) -> u64 {
        let of_family = |name: &str| {
            name.strip_prefix(family)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        let fits = |name: &str| of_family(name) && labels.iter().all(|label| name.contains(label));
        self.0
            .iter()
            .filter(|(name, _)| fits(name))
            .map(|(_, value)| *value as u64)
            .sum()
    }

    pub fn decided(&self, decision: &str) -> u64 {
        self.sum(
            "tollgate_requests_total",
            &[&format!("decision=\"{decision}\"")],
        )
    }

    /// P4, from these samples alone. Call it at rest.
    pub fn assert_conserved(&self) {
        let received = self.sum("tollgate_requests_received_total", &[]);
        let [admitted, throttled, refused] =
            ["admitted", "throttled", "refused"].map(|d| self.decided(d));
        assert_eq!(self.sum("tollgate_pending", &[]), 0);
        assert_eq!(self.sum("tollgate_in_flight", &[]), 0);
        assert_eq!(
            received,
            admitted + throttled + refused,
            "received = admitted + throttled + refused"
        );
        assert_eq!(
            admitted,
            self.sum("tollgate_records_total", &[]),
            "admitted = recorded"
        );
        let by_account = self.sum(
            "tollgate_account_requests_total",
            &["decision=\"admitted\""],
        );
        assert_eq!(by_account, admitted, "the accounts' counts add up to all");
    }
}

pub async fn scrape(admin: SocketAddr) -> Samples {
    let (status, _, text) = get(admin, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    let text = String::from_utf8(text.to_vec()).unwrap();
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    Samples(
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(sample)
            .collect(),
    )
}

pub async fn at_rest(admin: SocketAddr) -> Samples {
    for _ in 0..400 {
        let samples = scrape(admin).await;
        if samples.sum("tollgate_pending", &[]) == 0 && samples.sum("tollgate_in_flight", &[]) == 0
        {
            return samples;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the gate does not come to rest");
}

/// One GET over a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> (StatusCode, HeaderMap, Bytes) {
    send(
        address,
        Request::get(path)
            .header("host", address.to_string())
            .body(Full::default())
            .unwrap(),
    )
    .await
}

/// One request over a connection of its own. Sets no header by itself.
pub async fn send(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> (StatusCode, HeaderMap, Bytes) {
    try_send(address, request).await.expect("an answer")
}

pub async fn try_send(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, HeaderMap, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let mut client = Client::connect(address).await?;
    client.send(request).await
}

/// A keep-alive connection to the gate.
pub struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Client {
    pub async fn connect(
        address: SocketAddr,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let response = self.head(request).await?;
        let (parts, body) = response.into_parts();
        Ok((
            parts.status,
            parts.headers,
            body.collect().await?.to_bytes(),
        ))
    }

    /// The answer as soon as its head is there: from then on the caller has been answered.
    pub async fn head(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<hyper::body::Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

/// A plain call of the group's first action with an API key.
pub fn segment(key: &str) -> Request<Full<Bytes>> {
    plain(
        "POST",
        "/v1/portrait/segment",
        key,
        "{\"Image\":\"iVBORw0KGgo=\"}",
    )
}

pub fn plain(method: &str, path: &str, key: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "gate.test")
        .header("x-api-key", key)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

/// A TC3-signed call in the vendor's dialect, signed with the machine's time.
pub fn signed(id: &str, secret: &str, action: &str, body: &str) -> Request<Full<Bytes>> {
    let now = Clock::default().utc().seconds();
    Request::builder()
        .method("POST")
        .uri("/")
        .header("host", "bda.gate.test")
        .header("content-type", "application/json")
        .header("x-tc-action", action)
        .header("x-tc-version", "2020-03-24")
        .header("x-tc-region", "ap-guangzhou")
        .header("x-tc-timestamp", now.to_string())
        .header(
            "authorization",
            tollgate::demo::sign(id, secret, now, "bda.gate.test", body),
        )
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

/// What the upstream saw of a request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When its head had arrived, on the machine's monotonic clock.
    pub at: Mono,
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An upstream whose answers the test scripts. It remembers what it saw.
pub struct Upstream {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<std::sync::atomic::AtomicUsize>,
}

impl Upstream {
    /// Answers 200 with an empty JSON object after `delay`.
    pub async fn after(delay: Duration) -> Self {
        Self::scripted(move |_| async move {
            tokio::time::sleep(delay).await;
            json(
                StatusCode::OK,
                "{\"Response\":{\"RequestId\":\"from-upstream\"}}",
            )
        })
        .await
    }

    /// Answers as `script` says, once the body has arrived whole.
    pub async fn scripted<F, A>(script: F) -> Self
    where
        F: Fn(Seen) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::scripted_at("127.0.0.1:0", script).await
    }

    /// The same on an address of its own.
    pub async fn scripted_at<F, A>(address: &str, script: F) -> Self
    where
        F: Fn(Seen) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (noted, counted) = (seen.clone(), connections.clone());
        // A thread of its own, so that a busy test does not blur the times at the door.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            listener.into_std().map(|listener| {
                runtime.block_on(async move {
                    let listener = TcpListener::from_std(listener).unwrap();
                    while let Ok((stream, _)) = listener.accept().await {
                        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        stream.set_nodelay(true).unwrap();
                        let (script, noted) = (script.clone(), noted.clone());
                        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                            let at = Clock::default().mono();
                            let (script, noted) = (script.clone(), noted.clone());
                            async move {
                                let (parts, body) = request.into_parts();
                                let body = body
                                    .collect()
                                    .await
                                    .map(|body| body.to_bytes())
                                    .unwrap_or_default();
                                let seen = Seen {
                                    at,
                                    method: parts.method.to_string(),
                                    target: parts.uri.to_string(),
                                    headers: parts.headers,
                                    body,
                                };
                                noted.lock().push(seen.clone());
                                Ok::<_, Infallible>(script(seen).await)
                            }
                        });
                        tokio::spawn(
                            hyper::server::conn::http1::Builder::new()
                                .serve_connection(TokioIo::new(stream), service),
                        );
                    }
                })
            })
        });
        Self {
            address,
            seen,
            connections,
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

pub fn json(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap()
}

/// A port that is free now, and stays so while its gate is restarted: it lies below the range from
/// which the kernel takes ports for outgoing connections.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static GIVEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    loop {
        let nth = GIVEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = FIRST + (std::process::id().wrapping_mul(131).wrapping_add(nth)) % COUNT;
        let port = u16::try_from(port).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The real binary, with the shipped configuration copied into a directory and edited there.
pub struct Process {
    pub child: Child,
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

/// The shipped configuration in `dir/config`, its ports free ones, its ledger in `dir/var`.
/// `edits` are (from, to) in tollgate.yaml. Returns the settings file.
pub fn write_config(
    dir: &Path,
    upstream: SocketAddr,
    edits: &[(&str, &str)],
) -> (PathBuf, SocketAddr, SocketAddr) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let to = dir.join("config");
    std::fs::create_dir_all(&to).unwrap();
    for file in ["tollgate.yaml", "catalog.yaml", "accounts.yaml"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let public: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let admin: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let settings = to.join("tollgate.yaml");
    let mut text = std::fs::read_to_string(&settings).unwrap();
    let ports = [
        ("127.0.0.1:8080", public.to_string()),
        ("127.0.0.1:9090", admin.to_string()),
        ("127.0.0.1:8000", upstream.to_string()),
        ("stall_after: 2s", format!("stall_after: {PATIENT:?}")),
    ];
    for (from, to) in ports
        .iter()
        .map(|(a, b)| (*a, b.as_str()))
        .chain(edits.iter().copied())
    {
        assert!(
            text.contains(from),
            "{from:?} stands in the shipped settings"
        );
        text = text.replace(from, to);
    }
    std::fs::write(&settings, text).unwrap();
    (settings, public, admin)
}

impl Process {
    /// Starts `tollgate serve` on a configuration that [`write_config`] wrote, and waits until it is ready.
    pub async fn start(settings: &Path, public: SocketAddr, admin: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(["serve", "--config"]).arg(settings);
        Self::start_by(command.stderr(Stdio::null()), public, admin).await
    }

    /// Starts it by a command of the test's own, and waits until it is ready.
    pub async fn start_by(command: &mut Command, public: SocketAddr, admin: SocketAddr) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let process = Self {
            child,
            public,
            admin,
        };
        wait_ready(admin).await;
        process
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        for _ in 0..1_200 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the gate does not end");
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `/readyz` says 200.
pub async fn wait_ready(admin: SocketAddr) {
    for _ in 0..600 {
        let request = Request::get("/readyz")
            .header("host", "x")
            .body(Full::default())
            .unwrap();
        if let Ok((StatusCode::OK, _, _)) = try_send(admin, request).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the gate does not become ready");
}

/// The shipped configuration in a directory of its own, for the real binary.
pub struct House {
    pub dir: tempfile::TempDir,
    pub settings: PathBuf,
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

/// What a command that ended said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl House {
    /// `edits` are (from, to) in tollgate.yaml.
    pub fn new(upstream: SocketAddr, edits: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (settings, public, admin) = write_config(dir.path(), upstream, edits);
        Self {
            dir,
            settings,
            public,
            admin,
        }
    }

    pub fn ledger(&self) -> PathBuf {
        self.dir.path().join("var/ledger.db")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("config").join(name)
    }

    /// Replaces `from` by `to` in one of the three files.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let path = self.file(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from:?} stands in {name}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    /// What the gates of this house wrote to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Starts `program args.. tollgate serve`, with its standard error added to [`House::log`].
    pub async fn start_under(&self, wrapper: &[&str]) -> Process {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let mut command = self.command(wrapper, &["serve"]);
        Process::start_by(command.stderr(log), self.public, self.admin).await
    }

    pub async fn start(&self) -> Process {
        self.start_under(&[]).await
    }

    /// Runs `tollgate COMMAND --config .. args..` to its end. Blocks.
    pub fn run(&self, args: &[&str]) -> Said {
        said(&mut self.command(&[], args))
    }

    pub fn command(&self, wrapper: &[&str], args: &[&str]) -> Command {
        let mut words = wrapper.to_vec();
        words.push(env!("CARGO_BIN_EXE_tollgate"));
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg(args[0])
            .arg("--config")
            .arg(&self.settings)
            .args(&args[1..])
            .env_remove("TOLLGATE_CONFIG")
            .env_remove("TOLLGATE_LOG")
            .stdin(Stdio::null());
        command
    }
}

pub fn said(command: &mut Command) -> Said {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Said {
        code: output.status.code(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

/// What callers of the real binary were told, by request id.
#[derive(Default, Debug)]
pub struct Told {
    /// The upstream's answer.
    pub answered: Vec<String>,
    /// Over the cap.
    pub throttled: Vec<String>,
    /// That the call cannot be counted.
    pub not_counted: Vec<String>,
    /// Anything else, as it came.
    pub odd: Vec<String>,
}

impl Told {
    /// Sorts one answer in. The vendor's dialect says in the body what the plain one says in the head.
    pub fn note(&mut self, status: StatusCode, headers: &HeaderMap, body: &[u8]) {
        let id = headers
            .get("x-request-id")
            .map(|id| id.to_str().unwrap().to_owned())
            .unwrap_or_default();
        let body = String::from_utf8_lossy(body);
        let code = |code: &str| body.contains(&format!("\"Code\":\"{code}\""));
        let list = match status {
            StatusCode::OK if !body.contains("\"Error\"") => &mut self.answered,
            StatusCode::OK if code("RequestLimitExceeded") => &mut self.throttled,
            StatusCode::OK if code("ServiceUnavailable") || code("InternalError") => {
                &mut self.not_counted
            }
            StatusCode::TOO_MANY_REQUESTS => &mut self.throttled,
            StatusCode::SERVICE_UNAVAILABLE => &mut self.not_counted,
            _ => {
                self.odd.push(format!("{status} {id} {body}"));
                return;
            }
        };
        list.push(id);
    }
}

/// Calls over a keep-alive connection, one every `pace`, and connects again whenever it breaks, until
/// the task is dropped.
pub async fn keep_calling(
    public: SocketAddr,
    request: impl Fn() -> Request<Full<Bytes>>,
    pace: Duration,
    told: Arc<Mutex<Told>>,
) {
    let mut tick = tokio::time::interval(pace);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let Ok(mut client) = Client::connect(public).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        loop {
            tick.tick().await;
            let request = request();
            let is_plain = !request.headers().contains_key("x-tc-action");
            let Ok(response) = client.head(request).await else {
                break;
            };
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes());
            if is_plain || body.is_ok() {
                let body = body.as_deref().unwrap_or_default();
                told.lock().note(parts.status, &parts.headers, body);
            }
            if body.is_err() {
                break;
            }
        }
    }
}

/// Asserts that the ledger is whole and agrees with itself: seq without a gap, no id twice, the rollup
/// equal to a recount of the records, SQLite's own check. Gives the records.
pub fn whole_ledger(path: &Path) -> Vec<StoredRecord> {
    let all = records(path);
    for (at, record) in all.iter().enumerate() {
        assert_eq!(record.seq, at as u64 + 1, "seq has no gap and no repeat");
    }
    let ids: std::collections::HashSet<_> = all.iter().map(|record| record.id).collect();
    assert_eq!(ids.len(), all.len(), "no id is recorded twice");

    let mut recount = BTreeMap::new();
    for r in &all {
        let key = (
            r.account.clone(),
            r.group.clone(),
            r.action.clone(),
            r.mode,
            r.outcome,
            r.billable,
            r.reason,
        );
        *recount.entry(key).or_insert(0) += 1;
    }
    let first_hour = tollgate::words::Utc(0);
    let last_hour = tollgate::words::Utc(4_000_000_000 / 3_600 * 3_600 * 1_000_000);
    let lines = Reader::open(path)
        .unwrap()
        .usage(first_hour, last_hour, None, 0..=u64::MAX)
        .unwrap();
    let rollup: BTreeMap<_, u64> = lines
        .into_iter()
        .map(|l| {
            (
                (
                    l.account, l.group, l.action, l.mode, l.outcome, l.billable, l.reason,
                ),
                l.calls,
            )
        })
        .collect();
    assert_eq!(rollup, recount, "the rollup is the recount of the records");

    let sql = rusqlite::Connection::open(path).unwrap();
    let verdict: String = sql
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
    all
}

/// Asserts P1 on recorded starts: at most `quota` of them in any trailing second.
pub fn assert_capped(mut starts: Vec<Mono>, quota: usize) {
    starts.sort();
    for pair in starts.windows(quota + 1) {
        let span = pair[quota].since(pair[0]);
        assert!(
            span >= Duration::from_secs(1),
            "{} starts within {span:?}, quota {quota}",
            quota + 1
        );
    }
}

/// The longest that a test waits for something that is due.
pub const BOUND: Duration = Duration::from_secs(20);

/// A connection on which the test writes every byte itself and reads one answer after another.
pub struct Wire {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

/// One answer as it stood on the wire.
#[derive(Debug)]
pub struct Reply {
    pub version: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The body came to the end that its framing announced.
    pub whole: bool,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The vendor's error code; empty when there is none.
    pub fn code(&self) -> String {
        let body = self.json();
        let code = body["Response"]["Error"]["Code"].as_str();
        code.unwrap_or_default().to_owned()
    }

    pub fn says_close(&self) -> bool {
        self.headers
            .get("connection")
            .is_some_and(|value| value == "close")
    }
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_from([127, 0, 0, 1], address).await
    }

    /// From an address of the loopback network: to the gate each is another peer.
    pub async fn connect_from(source: [u8; 4], address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The same, where the gate may have closed.
    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Writes and reads at once: what a client does that can be answered before it is done.
    pub async fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> Reply {
        let (mut reading, mut writing) = self.stream.split();
        let unread = &mut self.unread;
        let (_, reply) = tokio::join!(
            writing.write_all(bytes.as_ref()),
            read_reply(&mut reading, unread)
        );
        reply.expect("an answer")
    }

    /// The next answer.
    pub async fn reply(&mut self) -> Reply {
        self.try_reply().await.expect("an answer")
    }

    /// The next answer; `None` when the gate closes before its head is whole.
    pub async fn try_reply(&mut self) -> Option<Reply> {
        read_reply(&mut self.stream, &mut self.unread).await
    }

    /// Waits until the gate closes; false when anything comes before that.
    pub async fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 1];
        let read = tokio::time::timeout(BOUND, self.stream.read(&mut buffer)).await;
        self.unread.is_empty() && !matches!(read.expect("the gate closes"), Ok(1..))
    }

    /// Whether nothing comes for so long, neither a byte nor the end.
    pub async fn is_silent_for(&mut self, quiet: Duration) -> bool {
        let mut buffer = [0; 1];
        let read = tokio::time::timeout(quiet, self.stream.read(&mut buffer)).await;
        self.unread.is_empty() && read.is_err()
    }
}

async fn read_reply(
    stream: &mut (impl AsyncReadExt + Unpin),
    unread: &mut Vec<u8>,
) -> Option<Reply> {
    let head = loop {
        if let Some(end) = find(unread, b"\r\n\r\n") {
            break unread.drain(..end + 4).collect::<Vec<u8>>();
        }
        read_more(stream, unread).await.then_some(())?;
    };
    let (first, headers) = parse_head(&head);
    let (version, rest) = first.split_once(' ').unwrap();
    let status = rest[..3].parse().unwrap();
    let bodiless = status < 200 || status == 204 || status == 304;
    let (body, whole) = match bodiless {
        true => (Vec::new(), true),
        false => read_body(stream, unread, &headers, true).await,
    };
    Some(Reply {
        version: version.to_owned(),
        status,
        headers,
        body,
        whole,
    })
}

/// The body after a head, and whether it came whole. `to_close`: without a framing it ends with the connection.
async fn read_body(
    stream: &mut (impl AsyncReadExt + Unpin),
    unread: &mut Vec<u8>,
    headers: &HeaderMap,
    to_close: bool,
) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    if headers.contains_key("transfer-encoding") {
        loop {
            while find(unread, b"\r\n").is_none() {
                if !read_more(stream, unread).await {
                    return (body, false);
                }
            }
            let end = find(unread, b"\r\n").unwrap();
            let size = String::from_utf8_lossy(&unread[..end]).into_owned();
            let size = usize::from_str_radix(size.split(';').next().unwrap().trim(), 16).unwrap();
            while unread.len() < end + 2 + size + 2 {
                if !read_more(stream, unread).await {
                    body.extend_from_slice(&unread[end + 2..]);
                    return (body, false);
                }
            }
            let chunk: Vec<u8> = unread.drain(..end + 2 + size + 2).collect();
            body.extend_from_slice(&chunk[end + 2..end + 2 + size]);
            if size == 0 {
                return (body, true);
            }
        }
    }
    let length = headers
        .get("content-length")
        .map(|value| value.to_str().unwrap().parse::<usize>().unwrap());
    let wanted = length.unwrap_or(if to_close { usize::MAX } else { 0 });
    while unread.len() < wanted && read_more(stream, unread).await {}
    body.extend(unread.drain(..wanted.min(unread.len())));
    let whole = length.is_none_or(|length| length == body.len());
    (body, whole)
}

async fn read_more(stream: &mut (impl AsyncReadExt + Unpin), unread: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 64 * 1024];
    let read = tokio::time::timeout(BOUND, stream.read(&mut buffer)).await;
    match read.expect("bytes or an end") {
        Ok(0) | Err(_) => false,
        Ok(read) => {
            unread.extend_from_slice(&buffer[..read]);
            true
        }
    }
}

fn parse_head(head: &[u8]) -> (String, HeaderMap) {
    let text = String::from_utf8_lossy(head).into_owned();
    let mut lines = text.trim_end().split("\r\n");
    let first = lines.next().unwrap().to_owned();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        headers.append(
            http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.trim().parse().unwrap(),
        );
    }
    (first, headers)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|w| w == wanted)
}

/// An upstream that reads and writes bytes, for answers that no sound server would give.
pub struct RawUpstream {
    pub address: SocketAddr,
    pub connections: Arc<std::sync::atomic::AtomicUsize>,
    pub requests: Arc<Mutex<Vec<RawRequest>>>,
}

/// A request as it stood on the wire to the upstream.
#[derive(Clone, Debug)]
pub struct RawRequest {
    pub line: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub whole: bool,
}

/// A connection from the gate.
pub struct RawConnection {
    pub stream: TcpStream,
    unread: Vec<u8>,
    requests: Arc<Mutex<Vec<RawRequest>>>,
}

impl RawConnection {
    /// The head of the next request; `None` when the gate closes.
    pub async fn head(&mut self) -> Option<(String, HeaderMap)> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Some(parse_head(&head));
            }
            let mut buffer = [0; 64 * 1024];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.unread.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// The next request, read by its framing and remembered.
    pub async fn request(&mut self) -> Option<RawRequest> {
        let (line, headers) = self.head().await?;
        Some(self.rest_of_request(line, headers).await)
    }

    /// What follows a head, read by its framing and remembered.
    pub async fn rest_of_request(&mut self, line: String, headers: HeaderMap) -> RawRequest {
        let (body, whole) = read_body(&mut self.stream, &mut self.unread, &headers, false).await;
        let request = RawRequest {
            line,
            headers,
            body,
            whole,
        };
        self.requests.lock().push(request.clone());
        request
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }
}

impl RawUpstream {
    /// Runs `script` on every connection that comes.
    pub async fn scripted<F, A>(script: F) -> Self
    where
        F: Fn(RawConnection) -> A + Clone + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let requests: Arc<Mutex<Vec<RawRequest>>> = Arc::default();
        let (counted, noted) = (connections.clone(), requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::spawn(script(RawConnection {
                    stream,
                    unread: Vec::new(),
                    requests: noted.clone(),
                }));
            }
        });
        Self {
            address,
            connections,
            requests,
        }
    }

    /// Answers every request with these bytes and keeps the connection.
    pub async fn answering(bytes: &'static str) -> Self {
        Self::scripted(move |mut connection| async move {
            while connection.request().await.is_some() {
                connection.write(bytes).await;
            }
        })
        .await
    }

    pub fn requests(&self) -> Vec<RawRequest> {
        self.requests.lock().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// For [`Gate::start_with`]: the account of [`RETAIL_KEY`] may call as often as it likes.
pub fn retail_unlimited(config: &mut Config) {
    config.accounts[1].services[0].qps_purchases[0].qps = 100_000;
}

/// Polls until `done`, within [`BOUND`].
pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Clock::default().mono().plus(BOUND);
    while !done() {
        assert!(Clock::default().mono() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `POST /v1/reload` with a query such as `?force=true`, and what it answered.
pub async fn post_reload(admin: SocketAddr, query: &str) -> (StatusCode, serde_json::Value) {
    let request = Request::post(format!("/v1/reload{query}"))
        .header("host", admin.to_string())
        .body(Full::default())
        .unwrap();
    let (status, _, body) = send(admin, request).await;
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body)));
    (status, body)
}

/// A GET without a body, signed as TC3 wants it.
pub fn signed_get(id: &str, secret: &str, path: &str) -> Request<Full<Bytes>> {
    use hmac::{KeyInit, Mac};
    use sha2::Digest;
    const HOST: &str = "bda.gate.test";
    const FORM: &str = "application/x-www-form-urlencoded";
    let now = Clock::default().utc().seconds();
    let hash = |text: &str| hex::encode(sha2::Sha256::digest(text));
    let date = jiff::Timestamp::from_second(now)
        .unwrap()
        .strftime("%Y-%m-%d")
        .to_string();
    let (bare, query) = path.split_once('?').unwrap_or((path, ""));
    let names = "content-type;host";
    let canonical = format!(
        "GET\n{bare}\n{query}\ncontent-type:{FORM}\nhost:{HOST}\n\n{names}\n{}",
        hash("")
    );
    let scope = format!("{date}/bda/tc3_request");
    let to_sign = format!("TC3-HMAC-SHA256\n{now}\n{scope}\n{}", hash(&canonical));
    let mut key = format!("TC3{secret}").into_bytes();
    for step in [date.as_str(), "bda", "tc3_request", &to_sign] {
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(step.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    let signature = hex::encode(key);
    Request::get(path)
        .header("host", HOST)
        .header("content-type", FORM)
        .header("x-tc-timestamp", now.to_string())
        .header(
            "authorization",
            format!("TC3-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"),
        )
        .body(Full::default())
        .unwrap()
}
