//! What an outbox adds to an admitted call: a gate that sends its records to a collector beside one
//! that keeps them, under the same load in the same run.
//!
//! NATS and the collector have the gate's core too, because the load spins on the other one. What
//! they need themselves is shown, and is none of the gate's.

use crate::cases::Bench;
use crate::load::{Calls, Load, Pace, SMALL_BODY, Wire};
use crate::servers::{self, Accounts, Figure, Gate, Server};
use crate::table::{self, Row};
use std::time::Duration;

const CONNECTIONS: usize = 32;
const ACCOUNTS: Accounts = Accounts { large: 100 };
const LASTING: Duration = Duration::from_secs(4);
pub(crate) async fn run(bench: &Bench) {
    let Some(nats) = Server::nats().await else {
        return println!("\nOutbox: left out, there is no nats-server");
    };
    let outbox = Some(nats.address);
    let collector = Gate {
        outbox,
        command: "collect",
        ..Gate::RELAXED
    };
    let collector = Server::gate("collector", collector, ACCOUNTS, &bench.upstream).await;
    println!(
        "\nOutbox: POST of 300 B, CPU us/call        all threads        x    those behind      added    x alone    NATS  collector\n\
         {:<37}   alone   outbox               alone   outbox",
        ""
    );
    for gate in [Gate::RELAXED, Gate::STRICT] {
        let start = async |name, gate| Server::gate(name, gate, ACCOUNTS, &bench.upstream).await;
        let alone = start("tollgate, alone", gate).await;
        let sending = start("tollgate, outbox", Gate { outbox, ..gate }).await;
        for per_second in [2_000, 5_000] {
            let label = format!("{}, {per_second} calls/s", gate.durability);
            compare(
                bench,
                &label,
                per_second,
                [&alone, &sending, &nats, &collector],
            )
            .await;
        }
        alone.verify().await;
        sending.verify().await;
        verify_sent(&sending).await;
    }
}

/// Measures both, round by round, and prints what the outbox added.
async fn compare(
    bench: &Bench,
    label: &str,
    per_second: u64,
    [alone, sending, nats, collector]: [&Server; 4],
) {
    let row = |label: &str| Row {
        label: label.to_owned(),
        rounds: Vec::new(),
    };
    let (mut without, mut with, mut others) = (row("alone"), row("outbox"), Vec::new());
    let load = Load {
        calls: Calls::with_keys(0..ACCOUNTS.large, SMALL_BODY),
        pace: Pace::PerSecond(per_second),
        connections: CONNECTIONS,
        status: 200,
        wire: Wire::Plain,
        let_in_percent: 1,
        is_at_store: false,
    };
    for round in 0..=bench.rounds {
        // Who goes first in a round goes second in the next.
        for nth in [round % 2, (round + 1) % 2] {
            let (gate, row) = match nth {
                0 => (alone, &mut without),
                _ => (sending, &mut with),
            };
            let before = [nats, collector].map(Server::cpu);
            let upstream = &bench.upstream;
            let figure = servers::measure(&load, gate.address, Some(gate), upstream, LASTING).await;
            let after = [nats, collector].map(Server::cpu);
            if round > 0 {
                let calls = figure.calls as f64;
                let spent = |of: usize| after[of].since(&before[of]).as_secs_f64() * 1e6 / calls;
                row.rounds.push(figure);
                others.extend((nth == 1).then(|| [spent(0), spent(1)]));
            }
        }
    }
    print(label, &without, &with, &others);
}

fn print(label: &str, without: &Row, with: &Row, others: &[[f64; 2]]) {
    let cpu = |figure: &Figure| figure.cpu_us;
    // The threads that answer calls do the same with an outbox and without, and wander by more than
    // it costs.
    let added = with.against(without, |own, alone| own.behind_us - alone.behind_us);
    let other = |nth: usize| table::median(others.iter().map(|of| of[nth]).collect());
    println!(
        "{label:<37} {:>7.1}  {:>7.1}  {:>9.3}  {:>7.1}  {:>7.1}  {:>+7.2}  {:>9.3}  {:>6.1}  {:>9.1}",
        without.median(cpu),
        with.median(cpu),
        with.ratio(without, cpu),
        without.median(|figure| figure.behind_us),
        with.median(|figure| figure.behind_us),
        added,
        1.0 + added / without.median(cpu),
        other(0),
        other(1),
    );
}

/// Ends the benchmark unless all that the gate recorded was sent.
async fn verify_sent(gate: &Server) {
    const SERIES: [&str; 2] = [
        "outbox_up{stream=\"TOLLGATE_RECORDS\"}",
        "outbox_lag_records",
    ];
    let [up, lag] = gate.series(SERIES).await;
    assert_eq!(
        (up, lag),
        (1.0, 0.0),
        "the outbox is up, and what it has not sent"
    );
}
