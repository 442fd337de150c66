//! Long running: does memory or latency creep up?

use crate::load::{Calls, Load, Pace, SMALL_BODY, Wire};
use crate::servers::{self, Accounts, Gate, Server};
use crate::table;
use crate::upstream::Upstream;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
/// Memory of the last quarter over that of the second; the first one fills pools and caches.
const ALLOWED_GROWTH: f64 = 1.05;

/// Half of what one worker can do, spread over 1,000 accounts, for so many minutes. Every minute's
/// connections are new ones. Ends the process with 1 when memory grew.
pub(crate) async fn run(minutes: usize) {
    assert!(
        minutes >= 4,
        "a soak is told by its quarters: at least 4 minutes"
    );
    let upstream = Upstream::start().await;
    let sold = Accounts { large: 1_000 };
    let gate = Server::gate("tollgate, strict", Gate::STRICT, sold, &upstream).await;
    let mut load = Load {
        calls: Calls::with_keys(0..sold.large, SMALL_BODY),
        pace: Pace::Closed,
        connections: 64,
        status: 200,
        wire: Wire::Plain,
        let_in_percent: 1,
        is_at_store: false,
    };
    let most = servers::measure(&load, gate.address, Some(&gate), &upstream, MINUTE / 10).await;
    let rate = (most.per_second / 2.0) as u64;
    load.pace = Pace::PerSecond(rate);
    println!("\nH soak: {minutes} minutes at {rate} calls/s, half of what one worker did\n");
    println!("minute   RSS MiB  ledger MiB    p50 us    p99 us  p99.9 us  CPU us/call   stolen");

    let (mut resident, mut p99) = (Vec::new(), Vec::new());
    for minute in 1..=minutes {
        // A page of 1,000 accounts takes some memory, from the first on.
        gate.scrape().await;
        let before = ticks();
        let figure = servers::measure(&load, gate.address, Some(&gate), &upstream, MINUTE).await;
        let (stolen, all) = ticks();
        let stolen = (stolen - before.0) as f64 / (all - before.1).max(1) as f64;
        let rss = gate.resident_bytes() as f64 / 1_048_576.0;
        println!(
            "{minute:>6} {rss:>9.1} {:>11.0} {:>9.0} {:>9.0} {:>9.0} {:>12.1} {:>7.1}%",
            gate.file_bytes("ledger.db") as f64 / 1_048_576.0,
            figure.p50_us,
            figure.p99_us,
            figure.p999_us,
            figure.cpu_us,
            stolen * 100.0
        );
        resident.push(rss);
        p99.push(figure.p99_us);
    }
    gate.verify().await;

    let growth = |of: &[f64]| {
        let quarter = of.len() / 4;
        let second = table::median(of[quarter..2 * quarter].to_vec());
        let last = table::median(of[of.len() - quarter..].to_vec());
        last / second
    };
    let (memory, latency) = (growth(&resident), growth(&p99));
    println!("\nlast quarter over the second: RSS x {memory:.3}, p99 x {latency:.3}");
    if memory > ALLOWED_GROWTH {
        println!("memory is not flat");
        // The gate is stopped by its drop, which an exit would skip.
        drop(gate);
        std::process::exit(1);
    }
    println!("memory is flat");
}

/// Of the gate's core and the load's: the ticks that a virtual machine's host gave to others, and
/// all. A minute in which much was stolen says little of the gate.
fn ticks() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let (mut stolen, mut all) = (0, 0);
    for line in stat.lines() {
        if line.starts_with("cpu0 ") || line.starts_with("cpu1 ") {
            // user nice system idle iowait irq softirq steal; what follows is counted in these
            // already.
            let ticks = line.split_whitespace().skip(1).take(8);
            let ticks: Vec<u64> = ticks.filter_map(|ticks| ticks.parse().ok()).collect();
            stolen += ticks.get(7).copied().unwrap_or_default();
            all += ticks.iter().sum::<u64>();
        }
    }
    (stolen, all)
}
