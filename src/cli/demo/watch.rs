//! The live table, and the promises checked while it runs.
//!
//! Owns the reading of the gate from outside: metrics, usage, records. Must never ask the gate's
//! own memory: a client could not check such a promise.

use crate::cli::demo::exposition::{Samples, ServiceKey};
use crate::cli::demo::fetch::{connections_to, fetch};
use crate::proxy::upstream::Upstream;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const SECOND_NS: u64 = 1_000_000_000;
/// The ways in which a request is decided, in the order of the table.
const DECISIONS: [&str; 3] = ["admitted", "throttled", "refused"];
/// Without a terminal the table is not drawn over itself, so it is drawn less often.
const SECONDS_BETWEEN_TABLES: u64 = 5;

/// Follows the gate from outside.
pub(super) struct Watch {
    /// Connections to the operators' listener.
    admin: Arc<Upstream>,
    host: String,
    terminal: bool,
    /// The lines of the last table, over which the next one is drawn.
    drawn_lines: usize,
    /// The seq of the last record that was read.
    cursor: u64,
    /// The starts of the last seconds of each limiter, by account, group and action (empty in a
    /// paid group).
    windows: HashMap<[String; 3], VecDeque<u64>>,
    /// The most starts seen in any trailing second of a service's limiters.
    peaks: BTreeMap<ServiceKey, usize>,
    /// The starts in the worst second of each limiter that broke its cap, and the cap.
    over_the_cap: BTreeMap<[String; 3], (usize, usize)>,
}

impl Watch {
    pub(super) fn new(admin: SocketAddr, terminal: bool) -> Self {
        Self {
            admin: connections_to(admin),
            host: admin.to_string(),
            terminal,
            drawn_lines: 0,
            cursor: 0,
            windows: HashMap::new(),
            peaks: BTreeMap::new(),
            over_the_cap: BTreeMap::new(),
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let request = Request::get(path)
            .header("host", &self.host)
            .body(Bytes::new())?;
        let (status, body) = fetch(&self.admin, request).await?;
        ensure!(status == StatusCode::OK, "GET {path}: {status}");
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Draws the table again and again, until it is dropped.
    pub(super) async fn follow(&mut self, out: &mut impl Write) -> anyhow::Result<()> {
        for second in 1_u64.. {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let metrics = self.look().await?;
            if self.terminal || second.is_multiple_of(SECONDS_BETWEEN_TABLES) {
                self.draw(out, &metrics).await?;
            }
        }
        Ok(())
    }

    /// Reads the metrics and the records since the last look. Compares their starts with the
    /// quotas of that moment.
    async fn look(&mut self) -> anyhow::Result<Samples> {
        let metrics = Samples::parse(&self.get("/metrics").await?);
        loop {
            let page = self
                .get(&format!("/v1/records?after={}&limit=10000", self.cursor))
                .await?;
            if page.is_empty() {
                return Ok(metrics);
            }
            for line in page.lines() {
                self.check_cap(&serde_json::from_str(line)?, &metrics)?;
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
        let service = [text("account"), text("group")];
        let action = if text("mode") == "free" {
            text("action")
        } else {
            String::new()
        };
        let quota = metrics.quota(&service);
        // A paid group has one limiter, a free one a limiter for each action (P1).
        let limiter = [service[0].clone(), service[1].clone(), action];
        let window = self.windows.entry(limiter.clone()).or_default();
        // Records come in the order of their ends, and starts nearly so: the window is kept sorted,
        // and two seconds deep.
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
        let peak = self.peaks.entry(service).or_default();
        *peak = most.max(*peak);
        if most > quota {
            let worst = self.over_the_cap.entry(limiter).or_default();
            *worst = (most, quota).max(*worst);
        }
        Ok(())
    }

    async fn draw(&mut self, out: &mut impl Write, metrics: &Samples) -> anyhow::Result<()> {
        let usage: Value = serde_json::from_str(&self.get("/v1/usage").await?)?;
        let mut recorded: BTreeMap<ServiceKey, u64> = BTreeMap::new();
        for line in usage["lines"].as_array().into_iter().flatten() {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            *recorded
                .entry([text("account"), text("group")])
                .or_default() += line["calls"].as_u64().unwrap_or(0);
        }
        let mut table = format!(
            "{:<10} {:<21} {:>3} {:>8} {:>9} {:>7} {:>8} {:>6}\n",
            "account", "group", "cap", "admitted", "throttled", "refused", "recorded", "peak"
        );
        let mut lines = 3;
        for service in metrics.called_services() {
            let [admitted, throttled, refused] =
                DECISIONS.map(|decision| metrics.of_service(&service, decision));
            let quota = metrics.quota(&service);
            let recorded = recorded.get(&service).copied().unwrap_or(0);
            let peak = self.peaks.get(&service).copied().unwrap_or(0);
            let [account, group] = service;
            writeln!(
                table,
                "{account:<10} {group:<21} {quota:>3} {admitted:>8} {throttled:>9} {refused:>7} {recorded:>8} {peak:>6}"
            )?;
            lines += 1;
        }
        writeln!(
            table,
            "all: received {}, admitted {}, throttled {}, refused {}, recorded {}",
            metrics.get("tollgate_requests_received_total"),
            metrics.decided("admitted"),
            metrics.decided("throttled"),
            metrics.decided("refused"),
            metrics.sum("tollgate_records_total"),
        )?;
        let why: Vec<String> = metrics
            .refusals()
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        writeln!(table, "refused for: {}", why.join(", "))?;
        if self.terminal {
            // The table is drawn over the last one. A line that is too long for the terminal is
            // cut, not wrapped: the next table would be drawn in the wrong place.
            if self.drawn_lines > 0 {
                write!(out, "\r\x1b[{}A\x1b[J", self.drawn_lines)?;
            }
            write!(out, "\x1b[?7l{table}\x1b[?7h")?;
        } else {
            writeln!(out, "{table}")?;
        }
        self.drawn_lines = lines;
        out.flush()?;
        Ok(())
    }

    /// Waits until the gate is at rest, then checks P1 and P4 from what it says of itself.
    /// With `must_show` it is an error too when nothing was admitted or nothing throttled.
    pub(super) async fn check_promises(
        &mut self,
        out: &mut impl Write,
        must_show: bool,
    ) -> anyhow::Result<()> {
        let mut metrics = self.look().await?;
        for _ in 0..100 {
            if metrics.get("tollgate_pending") == 0 && metrics.get("tollgate_in_flight") == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            metrics = self.look().await?;
        }
        self.draw(out, &metrics).await?;
        let broken = self.broken_promises(&metrics, must_show);
        if !broken.is_empty() {
            bail!("a promise was broken:\n  {}", broken.join("\n  "));
        }
        if self.terminal {
            writeln!(out)?;
        }
        let received = metrics.get("tollgate_requests_received_total");
        let [admitted, throttled, refused] = DECISIONS.map(|d| metrics.decided(d));
        let recorded = metrics.sum("tollgate_records_total");
        writeln!(
            out,
            "cap kept: no account has more starts in any one second than its cap\n\
             conserved: received {received} = admitted {admitted} + throttled {throttled} + refused {refused}\n\
             conserved: admitted {admitted} = recorded {recorded}"
        )?;
        Ok(())
    }

    /// A line for each promise that was not kept.
    fn broken_promises(&self, metrics: &Samples, must_show: bool) -> Vec<String> {
        let received = metrics.get("tollgate_requests_received_total");
        let [admitted, throttled, refused] = DECISIONS.map(|d| metrics.decided(d));
        let recorded = metrics.sum("tollgate_records_total");
        let over_the_cap = self.over_the_cap.iter().map(|(limiter, (most, cap))| {
            // The action is empty in a paid group.
            let limiter = limiter.join(" ");
            let limiter = limiter.trim_end();
            format!("cap: {limiter}: {most} starts in one second, sold are {cap}")
        });
        let mut broken: Vec<String> = over_the_cap.collect();
        if received != admitted + throttled + refused {
            broken.push(format!(
                "conservation: received {received}, admitted {admitted} + throttled {throttled} + refused {refused}"
            ));
        }
        if admitted != recorded || recorded != self.cursor {
            broken.push(format!(
                "count: admitted {admitted}, counted as recorded {recorded}, in the ledger {}",
                self.cursor
            ));
        }
        if must_show && (admitted == 0 || throttled == 0) {
            broken.push(format!(
                "nothing was shown: admitted {admitted}, throttled {throttled}"
            ));
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_start_too_many_in_any_trailing_second_is_seen_whatever_the_order_of_the_records() {
        let metrics = Samples::parse("tollgate_quota_qps{account=\"a\",group=\"g\"} 3\n");
        let seen = |starts_ms: &[u64]| {
            let mut watch = Watch::new(([127, 0, 0, 1], 1).into(), false);
            for (seq, ms) in starts_ms.iter().enumerate() {
                let record = serde_json::json!({
                    "seq": seq + 1, "account": "a", "group": "g", "mode": "qps", "start_ns": ms * 1_000_000,
                });
                watch.check_cap(&record, &metrics).unwrap();
            }
            watch.over_the_cap.into_values().next()
        };
        assert_eq!(seen(&[5_000, 5_400, 5_900, 6_000, 6_400]), None);
        assert_eq!(seen(&[5_000, 5_400, 5_900, 5_999]), Some((4, 3)));
        assert_eq!(seen(&[5_999, 5_400, 5_900, 6_500, 5_000]), Some((4, 3)));
        assert_eq!(seen(&[5_999, 5_400, 5_900, 6_500, 4_999]), None);
    }
}
