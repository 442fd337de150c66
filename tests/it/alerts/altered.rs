//! The page of a gate with figures that cannot be brought about in a test.

use crate::alerts::watch::{Watch, instance};
use crate::harness::{Upstream, get};
use http::Response;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Serves the metrics of a gate: as they are, or altered.
pub struct Altered {
    page: Upstream,
    is_altered: Arc<AtomicBool>,
}

impl Altered {
    pub async fn start(gate: SocketAddr) -> Self {
        let is_altered = Arc::new(AtomicBool::new(false));
        let altered = is_altered.clone();
        let page = Upstream::scripted(move |_| {
            let altered = altered.clone();
            async move {
                let (_, _, page) = get(gate, "/metrics").await;
                let mut page = String::from_utf8(page.to_vec()).unwrap();
                if altered.load(Ordering::SeqCst) {
                    page = with(&page, "tollgate_requests_received_total", "1000000");
                    page = with(&page, "tollgate_ledger_free_bytes", "1500000000");
                }
                Response::builder()
                    .header("content-type", "text/plain; version=0.0.4")
                    .body(page.into())
                    .unwrap()
            }
        });
        Self {
            page: page.await,
            is_altered,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.page.address
    }

    pub async fn causes(&self, watch: &Watch) {
        let here = instance(self.address());
        let alerts = ["TollgateCallsNotConserved", "TollgateLedgerDiskFills"];
        watch.quiet(&alerts, &here).await;
        self.is_altered.store(true, Ordering::SeqCst);
        watch.fires(&alerts, &here).await;
    }
}

/// The page with another value of this metric, which has one series.
fn with(page: &str, metric: &str, value: &str) -> String {
    let line = page
        .lines()
        .find(|line| line.split(' ').next() == Some(metric));
    let line = line.unwrap_or_else(|| panic!("no {metric} in {page}"));
    page.replace(line, &format!("{metric} {value}"))
}
