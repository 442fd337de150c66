//! The live table over many gates, and the promises checked over all of them.
//!
//! Owns the reading of the gates from outside. Must never ask the store: what it granted is in the
//! ledgers.

use crate::cli::demo::cap::CapCheck;
use crate::cli::demo::exposition::{DECISIONS, Samples, ServiceKey, why_refused};
use crate::cli::demo::follower::{Follower, read_records};
use crate::cli::demo::servers::GateServer;
use crate::cli::demo::table::Table;
use anyhow::{Context, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked, 50 ms apart, whether the last calls have ended.
const LOOKS_AT_REST: u32 = 100;
/// How often it is looked, 50 ms apart, whether all records are collected: 20 seconds.
const LOOKS_AT_COLLECTED: u32 = 400;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Follows the gates from outside.
pub(super) struct Fleet {
    gates: Vec<Followed>,
    collector: Follower,
    /// Over the ledgers of all gates, by the store's clock.
    cap: CapCheck,
    table: Table,
    /// When the table was drawn last.
    drawn_at: Instant,
}

/// A gate, perhaps one that was killed.
struct Followed {
    name: String,
    follower: Follower,
    /// What it said last.
    metrics: Samples,
    /// What it said when the table was drawn last.
    drawn: Samples,
    /// How many of its records the collector has.
    collected: u64,
    is_killed: bool,
}

impl Fleet {
    /// `collector` is where the collector answers operators.
    pub(super) fn new(terminal: bool, collector: SocketAddr) -> Self {
        Self {
            gates: Vec::new(),
            collector: Follower::new(collector),
            cap: CapCheck::default(),
            table: Table::new(terminal),
            drawn_at: Instant::now(),
        }
    }

    pub(super) fn add(&mut self, gate: &GateServer) {
        self.gates.push(Followed {
            name: gate.name.clone(),
            follower: Follower::new(gate.admin),
            metrics: Samples::default(),
            drawn: Samples::default(),
            collected: 0,
            is_killed: false,
        });
    }

    /// Takes the rest of a gate's records from the ledger that it left.
    pub(super) async fn take_ledger(&mut self, of: &GateServer) -> anyhow::Result<()> {
        let gate = self.gates.iter_mut().find(|gate| gate.name == of.name);
        let gate = gate.context("a gate that nobody follows")?;
        gate.is_killed = true;
        let records = of.records_after(gate.follower.cursor()).await?;
        let records = read_records(&records)?;
        gate.follower.go_on_after(&records)?;
        see(&mut self.cap, &records, &gate.metrics)
    }

    /// Draws the table again and again, until it is dropped.
    pub(super) async fn follow(&mut self, out: &mut impl Write) -> anyhow::Result<()> {
        for second in 1_u64.. {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.look().await?;
            if self.table.is_due(second) {
                self.draw(out)?;
            }
        }
        Ok(())
    }

    /// Says what happens, below the table.
    pub(super) fn say(&mut self, out: &mut impl Write, what: &str) -> anyhow::Result<()> {
        self.table.leave(out)?;
        writeln!(out, "{what}\n")?;
        Ok(out.flush()?)
    }

    /// Asks all that run.
    pub(super) async fn look(&mut self) -> anyhow::Result<()> {
        for gate in self.gates.iter_mut().filter(|gate| !gate.is_killed) {
            let seen = gate.follower.look().await;
            let (metrics, records) = seen.with_context(|| format!("{} is away", gate.name))?;
            gate.metrics = metrics;
            see(&mut self.cap, &records, &gate.metrics)?;
        }
        self.look_at_collected().await
    }

    async fn look_at_collected(&mut self) -> anyhow::Result<()> {
        let told = self.collector.get("/v1/sources").await;
        let told: Value = serde_json::from_str(&told.context("the collector is away")?)?;
        let sources: BTreeMap<&str, u64> = told["sources"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|source| Some((source["replica"].as_str()?, source["seq"].as_u64()?)))
            .collect();
        for gate in &mut self.gates {
            // The ledgers of the demo are new: the newest seq is the number of records.
            gate.collected = sources.get(gate.name.as_str()).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn draw(&mut self, out: &mut impl Write) -> anyhow::Result<()> {
        let seconds = self.drawn_at.elapsed().as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let mut lines = format!(
            "{:<16} {:>10} {:>11} {:>9} {:>9} {:>9} {:>8} {:>9}\n",
            "gate",
            "admitted/s",
            "throttled/s",
            "refused/s",
            "admitted",
            "throttled",
            "refused",
            "collected"
        );
        let mut all = ([0.0; 3], [0; 4]);
        for gate in &self.gates {
            let [admitted, throttled, refused] = DECISIONS.map(|it| gate.metrics.decided(it));
            let counts = [admitted, throttled, refused, gate.collected];
            let rates = DECISIONS.map(|it| rate(gate.metrics.decided(it), gate.drawn.decided(it)));
            let name = match gate.is_killed {
                true => format!("{} (killed)", gate.name),
                false => gate.name.clone(),
            };
            write_row(&mut lines, &name, rates, counts)?;
            for (sum, rate) in all.0.iter_mut().zip(rates) {
                *sum += rate;
            }
            for (sum, count) in all.1.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        write_row(&mut lines, "all", all.0, all.1)?;
        writeln!(
            lines,
            "{:<16} {:>10} {:>11} {:>9} {:>9}  over all gates",
            "account", "admitted/s", "throttled/s", "quota", "peak"
        )?;
        for service in self.services() {
            let rates = ["admitted", "throttled"].map(|decision| {
                let count = |of: &Samples| of.of_service(&service, decision);
                let now = self.gates.iter().map(|gate| count(&gate.metrics)).sum();
                rate(now, self.gates.iter().map(|gate| count(&gate.drawn)).sum())
            });
            let quotas = self.gates.iter().map(|gate| gate.metrics.quota(&service));
            let (quota, peak) = (quotas.max().unwrap_or(0), self.cap.peak(&service));
            let ([account, group], [admitted, throttled]) = (service, rates);
            writeln!(
                lines,
                "{account:<16} {admitted:>10.1} {throttled:>11.1} {quota:>9} {peak:>9}  {group}"
            )?;
        }
        let why = why_refused(self.gates.iter().map(|gate| &gate.metrics));
        writeln!(lines, "refused for: {why}")?;
        for gate in &mut self.gates {
            gate.drawn = gate.metrics.clone();
        }
        self.drawn_at = Instant::now();
        Ok(self.table.draw(out, &lines)?)
    }

    /// The services that were called at any gate.
    fn services(&self) -> Vec<ServiceKey> {
        let mut services: Vec<ServiceKey> = self
            .gates
            .iter()
            .flat_map(|gate| gate.metrics.called_services())
            .collect();
        services.sort();
        services.dedup();
        services
    }

    /// Waits until the gates are at rest.
    pub(super) async fn rest(&mut self) -> anyhow::Result<()> {
        self.look().await?;
        for _ in 0..LOOKS_AT_REST {
            let mut running = self.gates.iter().filter(|gate| !gate.is_killed);
            if running.all(|gate| gate.metrics.is_at_rest()) {
                break;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
            self.look().await?;
        }
        Ok(())
    }

    /// Waits until the collector has the records of all gates, or much longer than that takes.
    pub(super) async fn until_collected(&mut self) -> anyhow::Result<()> {
        for _ in 0..LOOKS_AT_COLLECTED {
            self.look_at_collected().await?;
            let mut gates = self.gates.iter();
            if gates.all(|gate| gate.collected >= gate.follower.cursor()) {
                break;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Ok(())
    }

    /// Checks of gates at rest P1 over all ledgers, P4 at each gate that runs, that a killed one left
    /// no record out, and that all records are collected. With `must_show` it is an error too when
    /// nothing was admitted or nothing throttled.
    pub(super) fn check_promises(
        &mut self,
        out: &mut impl Write,
        must_show: bool,
    ) -> anyhow::Result<()> {
        self.draw(out)?;
        let broken = self.broken_promises(must_show);
        if !broken.is_empty() {
            bail!("a promise was broken:\n  {}", broken.join("\n  "));
        }
        self.table.leave(out)?;
        writeln!(
            out,
            "cap kept: over all gates no account has more starts in any one second than its quota"
        )?;
        for gate in &self.gates {
            let records = gate.follower.cursor();
            match gate.is_killed {
                true => writeln!(
                    out,
                    "{}: killed; its ledger has {records} records, and lost none that it had counted",
                    gate.name
                )?,
                false => writeln!(
                    out,
                    "{}: conserved: received {} = admitted {} + throttled {} + refused {}; recorded {records}",
                    gate.name,
                    gate.metrics.get("tollgate_requests_received_total"),
                    gate.metrics.decided("admitted"),
                    gate.metrics.decided("throttled"),
                    gate.metrics.decided("refused"),
                )?,
            }
        }
        let of_each: Vec<String> = self
            .gates
            .iter()
            .map(|gate| format!("{} {}", gate.name, gate.collected))
            .collect();
        let all: u64 = self.gates.iter().map(|gate| gate.collected).sum();
        let of_each = of_each.join(", ");
        writeln!(out, "collected: all {all} records: {of_each}")?;
        Ok(())
    }

    /// A line for each promise that was not kept.
    fn broken_promises(&self, must_show: bool) -> Vec<String> {
        let mut broken: Vec<String> = self.cap.broken().collect();
        for gate in &self.gates {
            let (name, in_ledger) = (&gate.name, gate.follower.cursor());
            let recorded = gate.metrics.sum("tollgate_records_total");
            if gate.collected != in_ledger {
                broken.push(format!(
                    "{name}: collected {}, in the ledger {in_ledger}",
                    gate.collected
                ));
            }
            if !gate.is_killed {
                let not_conserved = gate.metrics.not_conserved(in_ledger);
                broken.extend(not_conserved.into_iter().map(|it| format!("{name}: {it}")));
            } else if in_ledger < recorded {
                broken.push(format!(
                    "{name}: count: recorded {recorded}, in the ledger that it left {in_ledger}"
                ));
            }
        }
        let sum = |decision| -> u64 {
            let decided = self.gates.iter().map(|gate| gate.metrics.decided(decision));
            decided.sum()
        };
        let (admitted, throttled) = (sum("admitted"), sum("throttled"));
        if must_show && (admitted == 0 || throttled == 0) {
            broken.push(format!(
                "nothing was shown: admitted {admitted}, throttled {throttled}"
            ));
        }
        broken
    }
}

fn write_row(
    lines: &mut String,
    name: &str,
    [admitted_rate, throttled_rate, refused_rate]: [f64; 3],
    [admitted, throttled, refused, collected]: [u64; 4],
) -> std::fmt::Result {
    writeln!(
        lines,
        "{name:<16} {admitted_rate:>10.1} {throttled_rate:>11.1} {refused_rate:>9.1} {admitted:>9} {throttled:>9} {refused:>8} {collected:>9}"
    )
}

fn see(cap: &mut CapCheck, records: &[Value], metrics: &Samples) -> anyhow::Result<()> {
    for record in records {
        let start = record["store_start_us"].as_u64();
        let start = start.context("a record of a call that the store did not start")?;
        cap.see(record, start * 1_000, metrics);
    }
    Ok(())
}
