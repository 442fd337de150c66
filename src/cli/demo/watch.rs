//! The live table, and the promises checked while it runs.
//!
//! Owns the reading of the gate from outside: metrics, usage, records. Must never ask the gate's
//! own memory: a client could not check such a promise.

use crate::cli::demo::cap::CapCheck;
use crate::cli::demo::exposition::{DECISIONS, Samples, ServiceKey, why_refused};
use crate::cli::demo::follower::Follower;
use crate::cli::demo::table::Table;
use anyhow::{Context, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

/// Follows the gate from outside.
pub(super) struct Watch {
    gate: Follower,
    cap: CapCheck,
    table: Table,
}

impl Watch {
    pub(super) fn new(admin: SocketAddr, terminal: bool) -> Self {
        Self {
            gate: Follower::new(admin),
            cap: CapCheck::default(),
            table: Table::new(terminal),
        }
    }

    /// Draws the table again and again, until it is dropped.
    pub(super) async fn follow(&mut self, out: &mut impl Write) -> anyhow::Result<()> {
        for second in 1_u64.. {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let metrics = self.look().await?;
            if self.table.is_due(second) {
                self.draw(out, &metrics).await?;
            }
        }
        Ok(())
    }

    /// Reads the metrics and the records since the last look. Compares their starts with the
    /// quotas of that moment.
    async fn look(&mut self) -> anyhow::Result<Samples> {
        let (metrics, records) = self.gate.look().await?;
        for record in &records {
            let start = record["start_ns"].as_u64();
            let start = start.context("a record without start_ns")?;
            self.cap.see(record, start, &metrics);
        }
        Ok(metrics)
    }

    async fn draw(&mut self, out: &mut impl Write, metrics: &Samples) -> anyhow::Result<()> {
        let usage: Value = serde_json::from_str(&self.gate.get("/v1/usage").await?)?;
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
        for service in metrics.called_services() {
            let [admitted, throttled, refused] =
                DECISIONS.map(|decision| metrics.of_service(&service, decision));
            let quota = metrics.quota(&service);
            let recorded = recorded.get(&service).copied().unwrap_or(0);
            let peak = self.cap.peak(&service);
            let [account, group] = service;
            writeln!(
                table,
                "{account:<10} {group:<21} {quota:>3} {admitted:>8} {throttled:>9} {refused:>7} {recorded:>8} {peak:>6}"
            )?;
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
        writeln!(table, "refused for: {}", why_refused([metrics]))?;
        Ok(self.table.draw(out, &table)?)
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
            if metrics.is_at_rest() {
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
        self.table.leave(out)?;
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
        let [admitted, throttled, _] = DECISIONS.map(|d| metrics.decided(d));
        let mut broken: Vec<String> = self.cap.broken().collect();
        broken.extend(metrics.not_conserved(self.gate.cursor()));
        if must_show && (admitted == 0 || throttled == 0) {
            broken.push(format!(
                "nothing was shown: admitted {admitted}, throttled {throttled}"
            ));
        }
        broken
    }
}
