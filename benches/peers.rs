//! What a call costs the gate, beside nginx and HAProxy doing the same job in the same run.
//!
//! `cargo bench --bench peers` (`-- 3` for three rounds). Each server has one worker on core 0; the load,
//! 64 keep-alive connections in a closed loop, and the upstream have core 1. The figure is processor
//! time, user and system, of the server's processes for each call: rounds are interleaved, medians shown.
//! The peers limit by the key in a header and log each admitted call into a buffer; neither keeps an
//! exact cap nor a count that survives a crash.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark reports by panicking or printing"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate::clock::Clock;

const CONNECTIONS: usize = 64;
const MEASURED: Duration = Duration::from_secs(2);
const ADMITTED_KEY: &str = "bench-key-with-a-large-quota";
const THROTTLED_KEY: &str = "demo-studio-key";
const BODY_BYTES: usize = 300;

fn main() {
    let mut arguments = std::env::args().skip(1);
    // `cargo test --all-targets` runs this too, without the flag: then it need only compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let rounds: usize = arguments
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(6);
    if Command::new("taskset").arg("--version").output().is_err() {
        panic!("taskset (util-linux) is missing");
    }
    // This process, its load and its upstream, stay off the servers' core.
    let own = std::process::id().to_string();
    Command::new("taskset")
        .args(["-a", "-cp", "1", &own])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(rounds));
}

async fn measure(rounds: usize) {
    let upstream = upstream().await;
    let strict = Server::gate("tollgate, strict", upstream, "strict").await;
    let relaxed = Server::gate("tollgate, relaxed", upstream, "relaxed").await;
    let mut servers = vec![strict, relaxed];
    servers.extend(Server::nginx(upstream).await);
    servers.extend(Server::haproxy(upstream).await);

    for (case, key, wanted) in [
        ("A admitted", ADMITTED_KEY, "2"),
        ("B throttled", THROTTLED_KEY, "4"),
    ] {
        let mut figures: Vec<Vec<Figure>> = servers.iter().map(|_| Vec::new()).collect();
        for round in 0..=rounds {
            for (server, figures) in servers.iter().zip(&mut figures) {
                let figure = server.load(key, wanted).await;
                // The first round warms caches and connections.
                if round > 0 {
                    figures.push(figure);
                }
            }
        }
        println!(
            "\n{case}, {BODY_BYTES} B POST, API key        CPU us/call   x nginx    calls/s     p50 us     p99 us"
        );
        let medians: Vec<Figure> = figures.iter().map(|figures| median(figures)).collect();
        let nginx = servers.iter().position(|server| server.name == "nginx");
        for (server, figure) in servers.iter().zip(&medians) {
            let ratio = nginx.map_or(f64::NAN, |nginx| figure.cpu_us / medians[nginx].cpu_us);
            println!(
                "{:<40} {:>11.1} {ratio:>9.2} {:>10.0} {:>10} {:>10}",
                server.name, figure.cpu_us, figure.per_second, figure.p50_us, figure.p99_us
            );
        }
    }
}

#[derive(Clone, Copy)]
struct Figure {
    cpu_us: f64,
    per_second: f64,
    p50_us: u128,
    p99_us: u128,
}

fn median(figures: &[Figure]) -> Figure {
    let mut sorted = figures.to_vec();
    sorted.sort_by(|a, b| a.cpu_us.total_cmp(&b.cpu_us));
    sorted[sorted.len() / 2]
}

struct Server {
    name: &'static str,
    address: SocketAddr,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn on_core_0(program: &str) -> Command {
    let mut command = Command::new("taskset");
    command
        .args(["-c", "0", program])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

impl Server {
    async fn started(
        name: &'static str,
        address: SocketAddr,
        child: Child,
        dir: tempfile::TempDir,
    ) -> Self {
        let server = Self {
            name,
            address,
            child,
            _dir: dir,
        };
        for _ in 0..400 {
            if TcpStream::connect(address).await.is_ok() {
                // The gate holds its first second.
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                return server;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{name} does not listen on {address}");
    }

    async fn gate(name: &'static str, upstream: SocketAddr, durability: &str) -> Self {
        use sha2::{Digest, Sha256};
        let dir = tempfile::tempdir().unwrap();
        let (address, admin) = (free_address(), free_address());
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        std::fs::copy(
            shipped.join("catalog.yaml"),
            dir.path().join("catalog.yaml"),
        )
        .unwrap();
        let mut accounts = std::fs::read_to_string(shipped.join("accounts.yaml")).unwrap();
        let hash = hex::encode(Sha256::digest(ADMITTED_KEY));
        write!(
            accounts,
            "\n  \"bench\":\n    name: Bench\n    keys: [{{api_key_sha256: {hash}}}]\n    services:\n      \
             portrait-segmentation:\n        opened: 2026-01-01T00:00:00+08:00\n        mode: qps\n        \
             qps_purchases: [{{order: B-1, qps: 1000000, from: 2026-01-01T00:00:00+08:00, months: 120, paid: {{cash: \"1\"}}}}]\n"
        )
        .unwrap();
        std::fs::write(dir.path().join("accounts.yaml"), accounts).unwrap();
        let settings = format!(
            "listen: {address}\nworkers: 1\nadmin: {{listen: \"{admin}\"}}\nupstream: {{endpoints: [\"http://{upstream}\"]}}\n\
             catalog: catalog.yaml\naccounts: accounts.yaml\nledger: {{path: ledger.db, durability: {durability}}}\n\
             limits: {{connections: 1000}}\n"
        );
        std::fs::write(dir.path().join("tollgate.yaml"), settings).unwrap();
        let child = on_core_0(env!("CARGO_BIN_EXE_tollgate"))
            .args(["serve", "--config"])
            .arg(dir.path().join("tollgate.yaml"))
            .spawn()
            .unwrap();
        Self::started(name, address, child, dir).await
    }

    /// Whether a peer can take part; says what is missing when it cannot.
    fn installed(program: &str, package: &str) -> bool {
        let found = Command::new(program).arg("-v").output().is_ok();
        if !found {
            println!("{program} is missing and left out: apt-get install {package}");
        }
        found
    }

    async fn nginx(upstream: SocketAddr) -> Option<Self> {
        if !Self::installed("nginx", "nginx-light") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (address, path) = (free_address(), dir.path().display());
        let config = format!(
            "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error.log crit;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ client_body_temp_path {path}/b; proxy_temp_path {path}/p; fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
               access_log {path}/access.log combined buffer=64k; keepalive_requests 100000000; keepalive_timeout 300;\n\
               map $http_x_api_key $few {{ default ''; {THROTTLED_KEY} $http_x_api_key; }}\n\
               limit_req_zone $http_x_api_key zone=many:10m rate=1000000r/s;\n\
               limit_req_zone $few zone=few:10m rate=20r/s; limit_req_status 429;\n\
               upstream up {{ server {upstream}; keepalive 128; keepalive_requests 100000000; }}\n\
               server {{ listen {address}; client_body_buffer_size 120k; location / {{\n\
                 limit_req zone=many burst=1000000 nodelay; limit_req zone=few burst=20 nodelay;\n\
                 proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_request_buffering off; }} }} }}\n"
        );
        std::fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let child = on_core_0("nginx")
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"))
            .spawn()
            .ok()?;
        Some(Self::started("nginx", address, child, dir).await)
    }

    async fn haproxy(upstream: SocketAddr) -> Option<Self> {
        if !Self::installed("haproxy", "haproxy") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let config = format!(
            "global\n  nbthread 1\n  log ring@calls local0\nring calls\n  format rfc5424\n  size 8388608\ndefaults\n  mode http\n  \
             timeout client 300s\n  timeout server 60s\n  timeout connect 5s\n  option http-keep-alive\n  log global\nfrontend front\n  \
             bind {address}\n  stick-table type string len 64 size 100k expire 10s store http_req_rate(1s)\n  \
             http-request track-sc0 req.hdr(x-api-key)\n  \
             http-request return status 429 if {{ req.hdr(x-api-key) {THROTTLED_KEY} }} {{ sc_http_req_rate(0) gt 20 }}\n  \
             http-request return status 429 if {{ sc_http_req_rate(0) gt 1000000 }}\n  default_backend back\nbackend back\n  \
             http-reuse always\n  server up {upstream}\n"
        );
        std::fs::write(dir.path().join("haproxy.cfg"), config).unwrap();
        let child = on_core_0("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(dir.path().join("haproxy.cfg"))
            .spawn()
            .ok()?;
        Some(Self::started("haproxy", address, child, dir).await)
    }

    /// Processor time of the process, its threads and its children so far.
    fn cpu(&self) -> Duration {
        fn of(pid: u32) -> u64 {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
                .into_iter()
                .flatten()
                .flatten();
            tasks
                .map(|task| {
                    let read =
                        |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
                    let own: u64 = read("schedstat")
                        .split(' ')
                        .next()
                        .and_then(|ns| ns.parse().ok())
                        .unwrap_or(0);
                    own + read("children")
                        .split_whitespace()
                        .filter_map(|pid| pid.parse().ok())
                        .map(of)
                        .sum::<u64>()
                })
                .sum()
        }
        Duration::from_nanos(of(self.child.id()))
    }

    /// Calls with `key` for a while; every answer's status must begin with `wanted`, save the few that the
    /// small quota lets in.
    async fn load(&self, key: &str, wanted: &'static str) -> Figure {
        let clock = Clock::default();
        let request = format!(
            "POST /v1/portrait/segment HTTP/1.1\r\nHost: bench\r\nX-Api-Key: {key}\r\nContent-Type: application/json\r\n\
             Content-Length: {BODY_BYTES}\r\n\r\n{}",
            "x".repeat(BODY_BYTES)
        );
        let mut connections = tokio::task::JoinSet::new();
        let cpu_before = self.cpu();
        let began = clock.mono();
        for _ in 0..CONNECTIONS {
            let (request, address, clock) = (request.clone(), self.address, clock.clone());
            connections.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut buffer = vec![0; 16 * 1024];
                let mut latencies = Vec::with_capacity(8_192);
                let mut as_wanted = 0;
                while clock.mono().since(began) < MEASURED {
                    let sent = clock.mono();
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let status = read_answer(&mut stream, &mut buffer).await;
                    as_wanted += usize::from(status.starts_with(wanted));
                    latencies.push(clock.mono().since(sent));
                }
                (latencies, as_wanted)
            });
        }
        let mut latencies = Vec::new();
        let mut as_wanted = 0;
        while let Some(connection) = connections.join_next().await {
            let (more, wanted) = connection.unwrap();
            latencies.extend(more);
            as_wanted += wanted;
        }
        let took = clock.mono().since(began);
        let cpu = self.cpu() - cpu_before;
        let calls = latencies.len();
        assert!(
            as_wanted * 100 >= calls * 95,
            "{}: only {as_wanted} of {calls} answers are {wanted}xx",
            self.name
        );
        latencies.sort_unstable();
        Figure {
            cpu_us: cpu.as_secs_f64() * 1e6 / calls as f64,
            per_second: calls as f64 / took.as_secs_f64(),
            p50_us: latencies[calls / 2].as_micros(),
            p99_us: latencies[calls * 99 / 100].as_micros(),
        }
    }
}

/// Reads one answer with a Content-Length to its end; gives its status.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> String {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.unwrap();
        assert!(read > 0, "the server closed a kept connection");
        filled += read;
        let Some(end) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end]).unwrap();
        let length = head
            .lines()
            .find_map(|line| {
                line.split_once(':')
                    .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            })
            .map_or(0, |(_, length)| length.trim().parse::<usize>().unwrap());
        if filled >= end + 4 + length {
            return head[9..12].to_owned();
        }
    }
}

/// An upstream that costs as little as it can: it answers each whole request with the same bytes.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                let mut filled = 0;
                while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]).await {
                    filled += read;
                    let Some(end) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n")
                    else {
                        continue;
                    };
                    if filled < end + 4 + BODY_BYTES {
                        continue;
                    }
                    filled = 0;
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
                    if stream.write_all(answer).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}
