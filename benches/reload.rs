//! 100,000 accounts: how long a cold load and a reload take, what an account weighs, what a reload
//! costs the calls that go on meanwhile, and whether a lookup gets slower.
//!
//! `cargo bench --bench reload`, with `-- 10000` for another number of accounts. The gate is the
//! real binary, so that its memory and its processor time are its own.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark reports by panicking or printing"
)]

#[path = "shared/accounts.rs"]
mod accounts;
#[path = "shared/binary.rs"]
mod binary;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tollgate::testing::model::{Clock, Mono};

/// Calls a second while it is measured, from one open loop.
const RATE: u64 = 500;
const MEASURED: Duration = Duration::from_secs(10);

fn main() {
    // `cargo test --all-targets` runs this too, without the flag: then it need only compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let accounts = std::env::args()
        .skip(1)
        .find_map(|a| a.parse().ok())
        .unwrap_or(100_000);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(accounts));
}

async fn measure(accounts: usize) {
    let clock = Clock::default();
    let few = Gate::start(8).await;
    let (few_calls, _) = few.calls(&clock, async { 0.0 }).await;
    let base = few.memory_bytes();
    drop(few);

    let began = clock.mono();
    let gate = Gate::start(accounts).await;
    let ready = clock.mono().since(began);
    println!("{}", binary::version());
    println!(
        "{accounts} accounts, {} keys, {:.1} MiB of YAML",
        accounts * 2,
        gate.yaml_bytes() as f64 / 1_048_576.0
    );
    println!(
        "cold start until ready (1 s of hold in it)   {:>8.2} s",
        ready.as_secs_f64()
    );
    let (quiet, _) = gate.calls(&clock, async { 0.0 }).await;
    println!(
        "texts and digests of the YAML, a account     {:>8} B",
        accounts::texts(accounts) / accounts as u64
    );
    println!("memory a account, with these, 8 accounts' off");
    let report = |when: &str| {
        // What was freed is given back within ten seconds and some.
        std::thread::sleep(Duration::from_secs(12));
        let each = gate.memory_bytes().saturating_sub(base) / accounts as u64;
        println!("  {when:<43}{each:>8} B");
    };
    report("after the start");
    let (busy, reload) = gate.calls(&clock, gate.reload(&clock)).await;
    report("after a reload");
    gate.call_each(accounts).await;
    report("after a call of each");
    println!(
        "most at once, in all                         {:>8} MiB",
        gate.most_memory_bytes() >> 20
    );
    println!("reload of a changed file                     {reload:>8.2} s");
    println!("\ncalls at {RATE}/s                    p50       p99     p99.9 (us)");
    for (what, latencies) in [
        ("8 accounts", few_calls),
        ("all accounts", quiet),
        ("during the reload", busy),
    ] {
        let at =
            |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_micros();
        println!("{what:<28} {:>9} {:>9} {:>9}", at(0.5), at(0.99), at(0.999));
    }
}

struct Gate {
    child: Child,
    public: SocketAddr,
    admin: SocketAddr,
    dir: tempfile::TempDir,
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gate {
    async fn start(accounts: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let upstream = upstream().await;
        let (public, admin) = (free_address(), free_address());
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        std::fs::copy(config.join("catalog.yaml"), dir.path().join("catalog.yaml")).unwrap();
        let settings = format!(
            "listen: {public}\nadmin: {{listen: \"{admin}\"}}\nupstream: {{endpoints: [\"http://{upstream}\"]}}\n\
             catalog: catalog.yaml\naccounts: accounts.yaml\nledger: {{path: ledger.db, when_missing: create}}\nlimits: {{connections: 1000}}\n"
        );
        std::fs::write(dir.path().join("tollgate.yaml"), settings).unwrap();
        for (name, of_the_first) in [("accounts.yaml", 3_000), ("next", 4_000)] {
            let qps = |number| if number == 0 { of_the_first } else { 30 };
            std::fs::write(dir.path().join(name), accounts::yaml(accounts, qps)).unwrap();
        }
        let child = Command::new(binary::path())
            .args(["serve", "--config"])
            .arg(dir.path().join("tollgate.yaml"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let gate = Self {
            child,
            public,
            admin,
            dir,
        };
        while get(admin, "GET", "/readyz", None)
            .await
            .is_none_or(|status| status != 200)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        gate
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("accounts.yaml")
    }

    /// The same with one quota changed. Written before the measurement: this process makes the
    /// calls.
    fn next_file(&self) -> PathBuf {
        self.dir.path().join("next")
    }

    fn yaml_bytes(&self) -> u64 {
        std::fs::metadata(self.file()).unwrap().len()
    }

    fn memory_bytes(&self) -> u64 {
        accounts::resident_bytes(self.child.id())
    }

    fn most_memory_bytes(&self) -> u64 {
        accounts::most_resident_bytes(self.child.id())
    }

    /// Changes the quota of one account and reloads; gives the seconds that the POST took.
    async fn reload(&self, clock: &Clock) -> f64 {
        tokio::time::sleep(MEASURED / 10).await;
        std::fs::rename(self.next_file(), self.file()).unwrap();
        let began = clock.mono();
        assert_eq!(get(self.admin, "POST", "/v1/reload", None).await, Some(200));
        clock.mono().since(began).as_secs_f64()
    }

    /// One call of each account, over a few connections.
    async fn call_each(&self, accounts: usize) {
        const CONNECTIONS: usize = 16;
        let mut tasks = tokio::task::JoinSet::new();
        for first in 0..CONNECTIONS {
            let address = self.public;
            tasks.spawn(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream))
                        .await
                        .unwrap();
                tokio::spawn(connection);
                for number in (first..accounts).step_by(CONNECTIONS) {
                    let request = Request::post("/v1/portrait/segment")
                        .header("host", "bench")
                        .header("x-api-key", accounts::key(number))
                        .body(Full::new(Bytes::from_static(b"{}")))
                        .unwrap();
                    let response = sender.send_request(request).await.unwrap();
                    assert_eq!(response.status(), 200);
                    response.into_body().collect().await.unwrap();
                }
            });
        }
        tasks.join_all().await;
    }

    /// Calls at an even pace while `meanwhile` runs, for at least [`MEASURED`]; sorted latencies
    /// from the instant at which each call was due, so that a stall counts for every call that it
    /// delayed.
    async fn calls(
        &self,
        clock: &Clock,
        meanwhile: impl Future<Output = f64>,
    ) -> (Vec<Duration>, f64) {
        let public = self.public;
        let began = clock.mono();
        let calls = async {
            let mut tasks = tokio::task::JoinSet::new();
            let key = accounts::key(0);
            for number in 0..RATE * MEASURED.as_secs() {
                let due = Mono(began.0 + number * 1_000_000_000 / RATE);
                clock.sleep_until(due).await;
                let (clock, key) = (clock.clone(), key.clone());
                tasks.spawn(async move {
                    assert!(
                        get(public, "POST", "/v1/portrait/segment", Some(&key))
                            .await
                            .is_some()
                    );
                    clock.mono().since(due)
                });
            }
            tasks.join_all().await
        };
        let (mut latencies, other) = tokio::join!(calls, meanwhile);
        latencies.sort_unstable();
        (latencies, other)
    }
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// An upstream that answers at once.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let service =
                hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
                    request.into_body().collect().await?;
                    Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from_static(b"{}"))))
                });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

/// The status of one request over a connection of its own.
async fn get(address: SocketAddr, method: &str, path: &str, key: Option<&str>) -> Option<u16> {
    let stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string());
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    let request = request.body(Full::new(Bytes::from_static(b"{}"))).unwrap();
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    response.into_body().collect().await.ok()?;
    Some(status)
}
