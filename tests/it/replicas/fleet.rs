//! Gates of one vendor, each a process, that ask one store.

use crate::harness::{
    MASTER, Process, RETAIL_KEY, STUDIO_KEY, Sandbox, StoreServer, Upstream, Watched, at_rest,
    scrape, segment, try_send,
};
use futures_util::future::join_all;
use http::StatusCode;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// The account of [`RETAIL_KEY`], which has the quota of the drill. The one of [`STUDIO_KEY`] has
/// 20.
pub const RETAIL: &str = "1250000002";

/// A process of the gate and its directory.
pub struct Replica {
    pub sandbox: Sandbox,
    pub process: Process,
    pub name: String,
}

/// How a gate is told of a store.
pub trait Store {
    /// The keys under `redis`.
    fn settings(&self) -> String;
}

impl Store for StoreServer {
    fn settings(&self) -> String {
        format!("nodes: [\"{}\"]", self.address())
    }
}

impl Store for Watched {
    fn settings(&self) -> String {
        behind(self.sentinels.iter().map(|it| it.port))
    }
}

/// The settings of a store that the sentinels on these ports watch.
pub fn behind(sentinels: impl Iterator<Item = u16>) -> String {
    let nodes: Vec<String> = sentinels
        .map(|port| format!("\"127.0.0.1:{port}\""))
        .collect();
    format!("nodes: [{}], sentinel: {MASTER}", nodes.join(", "))
}

/// The replicas, their store and their upstream.
pub struct Fleet<S = StoreServer> {
    pub replicas: Vec<Replica>,
    pub store: S,
    pub upstream: Upstream,
    pub quota: u32,
}

/// Waits until no other drill runs.
pub async fn alone() -> MutexGuard<'static, ()> {
    static DRILL: OnceLock<Mutex<()>> = OnceLock::new();
    DRILL.get_or_init(Mutex::default).lock().await
}

/// Waits for nobody, unless time is judged: for a drill that waits most of the time itself.
pub async fn beside() -> Option<MutexGuard<'static, ()>> {
    match judges_time() {
        true => Some(alone().await),
        false => None,
    }
}

/// How long a drill is, in seconds: `short` unless `REPLICAS_SECONDS` is set.
pub fn seconds(short: u64) -> u64 {
    let long = std::env::var("REPLICAS_SECONDS").ok();
    long.map_or(short, |seconds| seconds.parse().unwrap())
}

/// Whether rates and times are asserted, and not only shown: a machine that does something else
/// beside the tests makes answers late, and each costs a start. What the cap forbids is asserted
/// always.
pub fn judges_time() -> bool {
    std::env::var_os("REPLICAS_SECONDS").is_some()
}

/// A figure of a drill, which is shown of one that passes too.
#[macro_export]
macro_rules! figure {
    ($($told:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "replicas: {}", format_args!($($told)*));
    }};
}

/// A gate that asks the server on `store`, not started yet.
pub fn sandbox(name: &str, quota: u32, upstream: SocketAddr, store: &str) -> Sandbox {
    sandbox_of(name, quota, upstream, &format!("nodes: [\"{store}\"]"))
}

/// A gate with these settings of a store, not started yet.
pub fn sandbox_of(name: &str, quota: u32, upstream: SocketAddr, store: &str) -> Sandbox {
    let admission = format!(
        "admission: {{max_delay: 50ms, store: {{redis: {{{store}, budget: 5ms}}}}}}\n\
         replica: {name}"
    );
    let edits = [
        ("admission: {max_delay: 50ms}", admission.as_str()),
        ("workers: auto", "workers: 2"),
    ];
    let sandbox = Sandbox::new(upstream, &edits);
    let second = format!("Q-2, qps: {},", quota - 10);
    sandbox.edit("accounts.yaml", "Q-2, qps: 20,", &second);
    sandbox
}

impl Fleet {
    /// Three gates under which the account of [`RETAIL_KEY`] has this quota. Each admits by now.
    pub async fn start(quota: u32) -> Self {
        let store = StoreServer::redis(&[]);
        store.ready().await;
        Self::over(store, quota).await
    }
}

impl<S: Store> Fleet<S> {
    /// The same over a store of the drill.
    pub async fn over(store: S, quota: u32) -> Self {
        let settings = store.settings();
        let all = [0, 1, 2].map(|_| settings.clone());
        Self::with(store, quota, all).await
    }

    /// The same with the settings that each gate has for the store.
    pub async fn with(store: S, quota: u32, settings: [String; 3]) -> Self {
        let upstream = Upstream::after(Duration::from_millis(1)).await;
        let mut fleet = Self {
            replicas: Vec::new(),
            store,
            upstream,
            quota,
        };
        let gates = settings.iter().enumerate();
        let gates = gates.map(|(nth, settings)| fleet.replica_of(nth, settings));
        let three = join_all(gates).await;
        fleet.replicas.extend(three);
        fleet.admits().await;
        fleet
    }

    /// Starts another gate, which holds yet.
    pub async fn add(&mut self) {
        let another = self.replica(self.replicas.len()).await;
        self.replicas.push(another);
    }

    /// Starts a gate, of which only the caller knows.
    pub async fn replica(&self, nth: usize) -> Replica {
        self.replica_of(nth, &self.store.settings()).await
    }

    async fn replica_of(&self, nth: usize, settings: &str) -> Replica {
        let name = format!("gate-{nth}");
        let sandbox = sandbox_of(&name, self.quota, self.upstream.address, settings);
        let process = sandbox.start().await;
        Replica {
            sandbox,
            process,
            name,
        }
    }

    /// Waits until each gate admits.
    pub async fn admits(&self) {
        for replica in &self.replicas {
            replica.admits().await;
        }
    }

    /// How many answers of the store came too late, over all gates.
    pub async fn late(&self) -> u64 {
        let mut late = 0;
        for replica in &self.replicas {
            late += scrape(replica.process.admin)
                .await
                .sum("tollgate_store_late_total", &[]);
        }
        late
    }

    /// Asserts P4 of each gate, at rest.
    pub async fn assert_conserved(&self) {
        for replica in &self.replicas {
            at_rest(replica.process.admin).await.assert_conserved();
        }
    }
}

impl Replica {
    /// Waits until a call of each of two accounts was admitted: the hold of the start is over.
    pub async fn admits(&self) {
        for key in [RETAIL_KEY, STUDIO_KEY] {
            let mut admitted = false;
            for _ in 0..400 {
                let said = try_send(self.process.public, segment(key)).await;
                admitted = matches!(said, Ok((StatusCode::OK, _, _)));
                if admitted {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(admitted, "{} admits:\n{}", self.name, self.sandbox.log());
        }
    }
}
