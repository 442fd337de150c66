//! The servers that are compared: the gate and two peers, each with one worker on core 0 if nothing
//! else is said, each told to do the same job as well as it can; and the store that replicas share.
//!
//! The job: know the client by the key in a header (401 if nobody has it), let through what its
//! rate allows (429 beyond), keep the connection in every case, and note each admitted call. The
//! peers note it in a buffer, which a crash loses, and keep no exact cap; the gate keeps both
//! promises.

use crate::accounts;
use crate::binary;
use crate::load::{Caller, Connection, Load};
use crate::tls::CERTIFICATE;
use crate::upstream::Upstream;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The quota of the one account that every server throttles.
pub(crate) const SMALL_QUOTA: u32 = 20;
/// The quota of all others: the largest that can be sold.
pub(crate) const LARGE_QUOTA: u32 = 1_000_000;
/// What is done behind a call's answer (a relaxed commit, a log buffer) is done after this.
const SETTLED: Duration = Duration::from_millis(250);

/// Who makes calls: accounts `0..large` without a limit that matters, account `large` with a small
/// one.
#[derive(Clone, Copy)]
pub(crate) struct Accounts {
    pub large: usize,
}

impl Accounts {
    pub(crate) fn throttled(self) -> usize {
        self.large
    }

    fn yaml(self, large_quota: u32) -> String {
        accounts::yaml(self.large + 1, |number| {
            if number < self.large {
                large_quota
            } else {
                SMALL_QUOTA
            }
        })
    }
}

/// How a gate is started.
#[derive(Clone, Copy)]
pub(crate) struct Gate {
    pub durability: &'static str,
    pub workers: usize,
    pub cores: &'static str,
    /// The store that decides; without one the gate does.
    pub store: Option<SocketAddr>,
    /// The NATS server that records are sent by.
    pub outbox: Option<SocketAddr>,
    /// Each call has a line in a file.
    pub has_access_log: bool,
    /// Calls come over TLS.
    pub has_tls: bool,
    /// `serve`, or `collect`.
    pub command: &'static str,
}

impl Gate {
    pub(crate) const STRICT: Self = Self {
        durability: "strict",
        workers: 1,
        cores: "0",
        store: None,
        outbox: None,
        has_access_log: false,
        has_tls: false,
        command: "serve",
    };
    pub(crate) const RELAXED: Self = Self {
        durability: "relaxed",
        ..Self::STRICT
    };
}

pub(crate) struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    /// Of the gate only.
    admin: Option<SocketAddr>,
    /// Calls that it let in so far.
    admitted: Cell<u64>,
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// One load on one server.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    pub cpu_us: f64,
    /// Of it, what a gate's threads spent that do not answer calls.
    pub behind_us: f64,
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub calls: usize,
    /// Of them, those that the store did not decide in time.
    pub undecided: u64,
}

/// Processor time of threads so far, in nanoseconds, by their ids.
#[derive(Default)]
pub(crate) struct Spent(HashMap<u32, ThreadSpent>);

/// What one thread has spent.
#[derive(Clone, Copy)]
struct ThreadSpent {
    nanoseconds: u64,
    /// It is one of a gate's that answer calls.
    is_worker: bool,
}

impl Spent {
    /// What was spent since then. Threads that ended meanwhile are left out: the gate's have had
    /// nothing to do for ten seconds by then.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        self.sum_since(before, |_| true)
    }

    /// The same without the threads of a gate that answer calls: the ledger's, and what is done behind
    /// it.
    pub(crate) fn behind_since(&self, before: &Self) -> Duration {
        self.sum_since(before, |thread| !thread.is_worker)
    }

    fn sum_since(&self, before: &Self, counts: impl Fn(&ThreadSpent) -> bool) -> Duration {
        let counted = self.0.iter().filter(|(_, thread)| counts(thread));
        let spent = counted.map(|(id, thread)| {
            let earlier = before.0.get(id).map_or(0, |thread| thread.nanoseconds);
            thread.nanoseconds - earlier
        });
        Duration::from_nanos(spent.sum())
    }
}

/// Runs a load on `address`, which leads to `upstream`; `server` is whose processor time it costs.
pub(crate) async fn measure(
    load: &Load,
    address: SocketAddr,
    server: Option<&Server>,
    upstream: &Upstream,
    lasting: Duration,
) -> Figure {
    let connections = Caller::open(address, load.wire, load.connections).await;
    tokio::time::sleep(SETTLED).await;
    let name = server.map_or("directly", |server| server.name);
    let (cpu_before, reached_before) = (server.map(Server::cpu), upstream.answered());
    let answers = load.run(name, connections, lasting).await;
    tokio::time::sleep(SETTLED).await;
    let cpu_after = server.map(Server::cpu).unwrap_or_default();
    let cpu_before = cpu_before.unwrap_or_default();
    let cpu = cpu_after.since(&cpu_before);
    let behind = cpu_after.behind_since(&cpu_before);
    assert_eq!(
        upstream.answered() - reached_before,
        answers.admitted,
        "{name}: the upstream answered another number of calls than was let in"
    );
    if let Some(server) = server {
        server.admitted.update(|before| before + answers.admitted);
    }
    Figure {
        cpu_us: cpu.as_secs_f64() * 1e6 / answers.calls() as f64,
        behind_us: behind.as_secs_f64() * 1e6 / answers.calls() as f64,
        per_second: answers.calls() as f64 / answers.took.as_secs_f64(),
        p50_us: answers.within_us(0.5),
        p99_us: answers.within_us(0.99),
        p999_us: answers.within_us(0.999),
        calls: answers.calls(),
        undecided: answers.undecided,
    }
}

impl Server {
    /// The gate.
    pub(crate) async fn gate(
        name: &'static str,
        gate: Gate,
        accounts: Accounts,
        upstream: &Upstream,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (address, admin) = (free_address(), free_address());
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/catalog.yaml");
        std::fs::copy(shipped, dir.path().join("catalog.yaml")).unwrap();
        std::fs::write(dir.path().join("accounts.yaml"), accounts.yaml(LARGE_QUOTA)).unwrap();
        // Every client may say by X-Forwarded-For who it is, for clients that are refused (see
        // `cases::refused`). Body memory: 64 connections send signed bodies of 2 MiB, which one
        // account may hold at once.
        let store = gate.store.map_or(String::new(), |store| {
            format!("admission: {{store: {{redis: {{nodes: [\"{store}\"]}}}}}}\n")
        });
        let outbox = gate.outbox.map_or(String::new(), |nats| {
            format!("outbox: {{nats: {{servers: [\"nats://{nats}\"], max_bytes: 1GiB}}}}\n")
        });
        let access_log = match gate.has_access_log {
            true => "access_log: {to: access.log}\n",
            false => "",
        };
        let tls = match gate.has_tls {
            true => format!(
                "tls: {{certificates: [{{cert: \"{}\", key: {{file: \"{}\"}}}}]}}\n",
                CERTIFICATE.file("cert.pem").display(),
                CERTIFICATE.file("key.pem").display()
            ),
            false => String::new(),
        };
        let settings = format!(
            "{tls}{store}{outbox}{access_log}listen: {address}\nworkers: {}\nadmin: {{listen: \"{admin}\"}}\n\
             upstream: {{endpoints: [\"http://{}\"]}}\ncatalog: catalog.yaml\naccounts: accounts.yaml\n\
             ledger: {{path: ledger.db, when_missing: create, durability: {}}}\ntrusted_proxies: [127.0.0.0/8]\n\
             limits: {{connections: 1000, body_memory: 2GiB}}\n",
            gate.workers, upstream.address, gate.durability
        );
        let file = dir.path().join("tollgate.yaml");
        std::fs::write(&file, settings).unwrap();
        let mut command = pinned(binary::path(), gate.cores);
        command.args([gate.command, "--config"]).arg(file);
        Self::started(name, address, Some(admin), &mut command, dir).await
    }

    /// nginx tuned as far as its manual goes: refusals without a line in the log, bodies passed on
    /// while they arrive, and a C library that keeps the memory it has (else each large body maps
    /// it anew).
    pub(crate) async fn nginx(
        accounts: Accounts,
        upstream: &Upstream,
        has_tls: bool,
    ) -> Option<Self> {
        version("nginx")?;
        let dir = tempfile::tempdir().unwrap();
        let (address, path) = (free_address(), dir.path().display());
        let known: String = (0..=accounts.large)
            .map(|number| format!("{} 1;\n", accounts::key(number)))
            .collect();
        std::fs::write(dir.path().join("keys.map"), known).unwrap();
        let config = format!(
            "daemon off; worker_processes 1; pid {path}/pid; error_log stderr crit;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ client_body_temp_path {path}/b; proxy_temp_path {path}/p; fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
               map_hash_max_size 262144; map_hash_bucket_size 128;\n\
               map $status $admitted {{ default 1; ~^4 0; }}\n\
               access_log {path}/access.log combined buffer=64k if=$admitted; keepalive_requests 100000000; keepalive_timeout 300;\n\
               map $http_x_api_key $known {{ default 0; include {path}/keys.map; }}\n\
               map $http_x_api_key $few {{ default ''; {throttled} $http_x_api_key; }}\n\
               limit_req_zone $http_x_api_key zone=many:32m rate={LARGE_QUOTA}r/s;\n\
               limit_req_zone $few zone=few:1m rate={SMALL_QUOTA}r/s; limit_req_status 429;\n\
               upstream up {{ server {upstream}; keepalive 128; keepalive_requests 100000000; }}\n\
               server {{ listen {address}{tls}; client_max_body_size 10m; client_body_buffer_size 120k; location / {{\n\
                 if ($known = 0) {{ return 401; }}\n\
                 limit_req zone=many burst={LARGE_QUOTA} nodelay; limit_req zone=few burst={SMALL_QUOTA} nodelay;\n\
                 proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_request_buffering off; }} }} }}\n",
            throttled = accounts::key(accounts.throttled()),
            upstream = upstream.address,
            tls = match has_tls {
                true => format!(
                    " ssl http2; ssl_protocols TLSv1.3; ssl_certificate {}; ssl_certificate_key {}",
                    CERTIFICATE.file("cert.pem").display(),
                    CERTIFICATE.file("key.pem").display()
                ),
                false => String::new(),
            },
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = pinned("nginx", "0");
        command
            .env(
                "GLIBC_TUNABLES",
                "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=1073741824:glibc.malloc.top_pad=1048576",
            )
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(file);
        Some(Self::started("nginx", address, None, &mut command, dir).await)
    }

    /// HAProxy with its log in a ring in memory and refusals without a line in it. Its buffers are
    /// what a case wants: 64 KiB make large bodies cheaper and small calls dearer.
    pub(crate) async fn haproxy(
        accounts: Accounts,
        upstream: &Upstream,
        buffer_bytes: usize,
        has_tls: bool,
    ) -> Option<Self> {
        version("haproxy")?;
        let dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let known: String = (0..=accounts.large)
            .map(|number| accounts::key(number) + "\n")
            .collect();
        let keys = dir.path().join("keys");
        std::fs::write(&keys, known).unwrap();
        let config = format!(
            "global\n  nbthread 1\n  tune.bufsize {buffer_bytes}\n  log ring@calls local0\nring calls\n  format rfc5424\n  size 8388608\n\
             defaults\n  mode http\n  timeout client 300s\n  timeout server 60s\n  timeout connect 5s\n  \
             option http-keep-alive\n  log global\nfrontend front\n  bind {address}{tls}\n  \
             acl known req.hdr(x-api-key) -m str -f {keys}\n  acl few req.hdr(x-api-key) -m str {throttled}\n  \
             stick-table type string len 64 size 200k expire 10s store http_req_rate(1s)\n  \
             http-request set-log-level silent unless known\n  \
             http-request return status 401 unless known\n  \
             http-request track-sc0 req.hdr(x-api-key)\n  \
             http-request set-log-level silent if few {{ sc_http_req_rate(0) gt {SMALL_QUOTA} }}\n  \
             http-request return status 429 if few {{ sc_http_req_rate(0) gt {SMALL_QUOTA} }}\n  \
             http-request return status 429 if {{ sc_http_req_rate(0) gt {LARGE_QUOTA} }}\n  \
             default_backend back\nbackend back\n  http-reuse always\n  server up {upstream}\n",
            keys = keys.display(),
            throttled = accounts::key(accounts.throttled()),
            upstream = upstream.address,
            tls = match has_tls {
                true => format!(
                    " ssl crt {} alpn h2,http/1.1",
                    CERTIFICATE.file("both.pem").display()
                ),
                false => String::new(),
            },
        );
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let mut command = pinned("haproxy", "0");
        command.arg("-db").arg("-f").arg(file);
        Some(Self::started("haproxy", address, None, &mut command, dir).await)
    }

    /// What keeps the windows of replicas, with the settings that `deploy/` asks for.
    pub(crate) async fn redis() -> Option<Self> {
        version("redis-server")?;
        let dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut command = pinned("redis-server", "0");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &address.port().to_string(), "--dir"])
            .arg(dir.path());
        Some(Self::started("redis", address, None, &mut command, dir).await)
    }

    /// What carries the records of gates to their collector.
    pub(crate) async fn nats() -> Option<Self> {
        version("nats-server")?;
        let dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut command = pinned("nats-server", "0");
        command
            .args(["-a", "127.0.0.1", "-p", &address.port().to_string(), "-js"])
            .arg("-sd")
            .arg(dir.path());
        Some(Self::started("nats", address, None, &mut command, dir).await)
    }

    pub(crate) async fn started(
        name: &'static str,
        address: SocketAddr,
        admin: Option<SocketAddr>,
        command: &mut Command,
        dir: tempfile::TempDir,
    ) -> Self {
        let errors = dir.path().join("stderr");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let listens = async || tokio::net::TcpStream::connect(address).await.is_ok();
        for _ in 0..1_200 {
            if listens().await {
                // The gate holds its first second.
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                return Self {
                    name,
                    address,
                    admin,
                    admitted: Cell::new(0),
                    child,
                    dir,
                };
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let said = std::fs::read_to_string(errors).unwrap();
        panic!("{name} does not listen on {address}: {said}");
    }

    /// Processor time of the process, its threads and its children so far.
    pub(crate) fn cpu(&self) -> Spent {
        let own = self.child.id();
        let all = std::iter::once(own).chain(children(own));
        Spent(all.flat_map(threads).collect())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory in use now: nginx's is its worker's.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let own = self.child.id();
        let worker = children(own).first().copied().unwrap_or(own);
        accounts::resident_bytes(worker)
    }

    /// The bytes of a file of the gate's, such as its ledger.
    pub(crate) fn file_bytes(&self, name: &str) -> u64 {
        std::fs::metadata(self.dir.path().join(name)).map_or(0, |file| file.len())
    }

    /// Changes the quota of every account and waits until it is in force.
    pub(crate) async fn reload(&self, accounts: Accounts) {
        let next = self.dir.path().join("next");
        std::fs::write(&next, accounts.yaml(LARGE_QUOTA - 1)).unwrap();
        std::fs::rename(next, self.path("accounts.yaml")).unwrap();
        let (status, answer) = self.ask("POST", "/v1/reload").await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Asks for the metrics, as a Prometheus does each minute or so.
    pub(crate) async fn scrape(&self) {
        let (status, answer) = self.ask("GET", "/metrics").await;
        assert_eq!(status, 200, "{answer}");
    }

    /// The series of a gate that have these names, without `tollgate_`, and no label.
    pub(crate) async fn series<const N: usize>(&self, names: [&str; N]) -> [f64; N] {
        let (_, metrics) = self.ask("GET", "/metrics").await;
        names.map(|name| {
            let start = format!("tollgate_{name} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&start));
            value.unwrap().parse().unwrap()
        })
    }

    /// Ends the benchmark unless the gate's ledger holds exactly the calls that were let in, and
    /// nobody's refusals were slowed down.
    pub(crate) async fn verify(&self) {
        if self.admin.is_none() {
            return;
        }
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let ledger = rusqlite::Connection::open_with_flags(self.path("ledger.db"), flags).unwrap();
        let recorded: i64 = ledger
            .query_row("SELECT count(*) FROM raw", [], |row| row.get(0))
            .unwrap();
        assert_eq!(
            recorded as u64,
            self.admitted.get(),
            "{}: records, and calls that were let in",
            self.name
        );
        let (_, metrics) = self.ask("GET", "/metrics").await;
        assert!(
            metrics.contains("\ntollgate_held_down_total 0\n"),
            "answers were held back: too few peers for so many refusals"
        );
    }

    /// Ends the benchmark unless each call that was let in has its line.
    pub(crate) async fn verify_log(&self) {
        let mut lines = 0;
        for _ in 0..100 {
            let log = std::fs::read(self.path("access.log")).unwrap();
            lines = log.iter().filter(|byte| **byte == b'\n').count() as u64;
            if lines == self.admitted.get() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "{}: {lines} lines, and {:?} calls",
            self.name, self.admitted
        );
    }

    /// Opens the status page as a browser does that stays on it, and reads its events for as long as
    /// what is given is polled. `None` when the gate has no such page.
    pub(crate) async fn open_page(&self) -> Option<impl Future<Output = ()> + use<>> {
        let mut page = tokio::net::TcpStream::connect(self.admin.unwrap())
            .await
            .unwrap();
        let request =
            "GET /v1/status/live HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
        page.write_all(request.as_bytes()).await.unwrap();
        let mut events = vec![0; 16 << 10];
        let read = page.read(&mut events).await.unwrap();
        let is_there = events[..read].starts_with(b"HTTP/1.1 200 ");
        is_there.then_some(async move {
            while page.read(&mut events).await.is_ok_and(|read| read > 0) {}
        })
    }

    async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let mut connection = Connection::open(self.admin.unwrap()).await;
        let (status, body) = connection.answer(request.as_bytes()).await;
        (status, String::from_utf8_lossy(body).into_owned())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// What a peer says of its version; `None` when it is not installed.
pub(crate) fn version(program: &str) -> Option<String> {
    let flag = if program == "envoy" {
        "--version"
    } else {
        "-v"
    };
    let output = Command::new(program).arg(flag).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().find(|line| !line.trim().is_empty());
    line.map(str::to_owned)
}

/// Puts this process, and with it the load and the upstream, on these cores.
pub(crate) fn pin_load(cores: &str) {
    let own = std::process::id().to_string();
    let status = Command::new("taskset")
        .args(["-a", "-cp", cores, &own])
        .stdout(Stdio::null())
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "taskset (Debian: util-linux) is missing, or there are not two cores"
    );
}

pub(crate) fn pinned(program: impl AsRef<OsStr>, cores: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program);
    command
}

fn threads(pid: u32) -> Vec<(u32, ThreadSpent)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let of_task = |task: std::fs::DirEntry| {
        let spent = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let thread = ThreadSpent {
            nanoseconds: spent.split(' ').next()?.parse().ok()?,
            is_worker: name.starts_with("worker"),
        };
        Some((task.file_name().to_str()?.parse().ok()?, thread))
    };
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(of_task)
        .collect()
}

fn children(pid: u32) -> Vec<u32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}
