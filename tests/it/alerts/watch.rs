//! Which alerts fire.

use crate::harness::Prometheus;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often a cause goes on, or an alert is looked for, before it is given up: two hundred
/// milliseconds lie between.
const TRIES: u32 = 600;
const PAUSE: Duration = Duration::from_millis(200);

/// A Prometheus, and the alerts that were seen to fire.
pub struct Watch {
    pub prometheus: Prometheus,
    fired: Mutex<BTreeSet<String>>,
}

impl Watch {
    pub fn new(prometheus: Prometheus) -> Self {
        Self {
            prometheus,
            fired: Mutex::default(),
        }
    }

    /// The alerts that fired, in the order of their names.
    pub fn fired(&self) -> Vec<String> {
        self.fired.lock().iter().cloned().collect()
    }

    /// Asserts that none of these fires with these labels (`name="value"`), of which something is
    /// scraped already.
    pub async fn quiet(&self, alerts: &[&str], labels: &str) {
        let mut up = Vec::new();
        for _ in 0..TRIES {
            up = self.series("up", labels).await;
            if !up.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        assert!(!up.is_empty(), "{labels} is never scraped");
        for alert in alerts {
            let firing = self.firing(alert, labels).await;
            assert!(firing.is_empty(), "before its cause: {firing:?}");
        }
    }

    /// Waits until none of these fires with these labels any more.
    pub async fn clears(&self, alerts: &[&str], labels: &str) {
        for alert in alerts {
            let mut firing = Vec::new();
            for _ in 0..TRIES {
                firing = self.firing(alert, labels).await;
                if firing.is_empty() {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
            assert!(firing.is_empty(), "never over: {firing:?}");
        }
    }

    /// Waits until each of these fires with these labels.
    pub async fn fires(&self, alerts: &[&str], labels: &str) {
        self.fires_while(alerts, labels, async || ()).await;
    }

    /// The same, while the cause is brought about again and again.
    pub async fn fires_while(&self, alerts: &[&str], labels: &str, mut cause: impl AsyncFnMut()) {
        let mut missing: Vec<&str> = alerts.to_vec();
        for _ in 0..TRIES {
            cause().await;
            let mut still = Vec::new();
            for alert in missing {
                match self.firing(alert, labels).await.is_empty() {
                    true => still.push(alert),
                    false => drop(self.fired.lock().insert(alert.to_owned())),
                }
            }
            missing = still;
            if missing.is_empty() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let all = self.prometheus.query("ALERTS").await;
        panic!("{missing:?} never fire with {labels}: {all:?}");
    }

    async fn firing(&self, alert: &str, labels: &str) -> Vec<serde_json::Value> {
        let labels = format!("alertname=\"{alert}\", alertstate=\"firing\", {labels}");
        self.series("ALERTS", &labels).await
    }

    async fn series(&self, metric: &str, labels: &str) -> Vec<serde_json::Value> {
        let expression = format!("{metric}{{{labels}}}");
        // Prometheus may not have started yet.
        self.prometheus.query(&expression).await.unwrap_or_default()
    }
}

/// The label of what is scraped there.
pub fn instance(of: std::net::SocketAddr) -> String {
    format!("instance=\"{of}\"")
}
