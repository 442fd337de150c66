//! Gates of one vendor, each a process, that ask one store.

use crate::harness::{
    Process, RETAIL_KEY, STUDIO_KEY, Sandbox, StoreServer, Upstream, at_rest, scrape, segment,
    try_send,
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

/// The replicas, their store and their upstream.
pub struct Fleet {
    pub replicas: Vec<Replica>,
    pub store: StoreServer,
    pub upstream: Upstream,
    pub quota: u32,
}

/// Waits until no other drill runs.
pub async fn alone() -> MutexGuard<'static, ()> {
    static DRILL: OnceLock<Mutex<()>> = OnceLock::new();
    DRILL.get_or_init(Mutex::default).lock().await
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

/// A gate that asks the store on `store`, not started yet.
pub fn sandbox(name: &str, quota: u32, upstream: SocketAddr, store: &str) -> Sandbox {
    let admission = format!(
        "admission: {{max_delay: 50ms, store: {{redis: {{nodes: [\"{store}\"], budget: 5ms}}}}}}\n\
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
        let upstream = Upstream::after(Duration::from_millis(1)).await;
        let mut fleet = Self {
            replicas: Vec::new(),
            store,
            upstream,
            quota,
        };
        let three = join_all([0, 1, 2].map(|nth| fleet.replica(nth))).await;
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
        let name = format!("gate-{nth}");
        let store = self.store.address().to_string();
        let sandbox = sandbox(&name, self.quota, self.upstream.address, &store);
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
