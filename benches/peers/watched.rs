//! What it costs to be watched: a gate with an access log of all calls, and one whose status page is
//! open in ten browsers besides, beside a gate with neither, under the same load in the same run.
//!
//! Threads that answer calls make a line ready in less than they wander by from round to round. What is
//! done behind them, writing the lines and telling the pages, is shown apart.

use crate::cases::Bench;
use crate::load::{Calls, Load, Pace, SMALL_BODY, Wire};
use crate::servers::{self, Accounts, Figure, Gate, Server};
use crate::table::Row;
use std::time::Duration;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 64;
const ACCOUNTS: Accounts = Accounts { large: 100 };
const LASTING: Duration = Duration::from_secs(2);
const PAGES: usize = 10;

pub(crate) async fn run(bench: &Bench) {
    println!(
        "\nWatched: POST of 300 B, CPU us/call    all threads   x (quartiles)        those behind    added    x alone"
    );
    for gate in [Gate::STRICT, Gate::RELAXED] {
        let logged = Gate {
            has_access_log: true,
            ..gate
        };
        let start = async |name, gate| Server::gate(name, gate, ACCOUNTS, &bench.upstream).await;
        let mut gates = vec![
            start("neither", gate).await,
            start("access log", logged).await,
        ];
        let (watched, mut pages) = (start("access log, ten pages", logged).await, JoinSet::new());
        while pages.len() < PAGES
            && let Some(page) = watched.open_page().await
        {
            pages.spawn(page);
        }
        match pages.len() {
            PAGES => gates.push(watched),
            _ => println!("left out: a gate with a status page that is open"),
        }
        for (pace, named) in [
            (Pace::Closed, "as many calls as it can"),
            (Pace::PerSecond(2_000), "2,000 calls/s"),
        ] {
            println!("{}, {named}", gate.durability);
            compare(bench, pace, &gates).await;
        }
        for (nth, gate) in gates.iter().enumerate() {
            gate.verify().await;
            if nth > 0 {
                gate.verify_log().await;
            }
        }
        assert!(pages.try_join_next().is_none(), "a page was closed");
    }
}

/// Measures all, round by round, and prints what was added to the first.
async fn compare(bench: &Bench, pace: Pace, gates: &[Server]) {
    let row = |gate: &Server| Row {
        label: gate.name.to_owned(),
        rounds: Vec::new(),
    };
    let mut rows: Vec<Row> = gates.iter().map(row).collect();
    let load = Load {
        calls: Calls::with_keys(0..ACCOUNTS.large, SMALL_BODY),
        pace,
        connections: CONNECTIONS,
        status: 200,
        wire: Wire::Plain,
        let_in_percent: 1,
        is_at_store: false,
    };
    for round in 0..=bench.rounds {
        // Each is the first of a round in turn.
        for nth in 0..gates.len() {
            let nth = (nth + round) % gates.len();
            let (gate, upstream) = (&gates[nth], &bench.upstream);
            let figure = servers::measure(&load, gate.address, Some(gate), upstream, LASTING).await;
            if round > 0 {
                rows[nth].rounds.push(figure);
            }
        }
    }
    let cpu = |figure: &Figure| figure.cpu_us;
    let behind = |figure: &Figure| figure.behind_us;
    for row in &rows {
        let added = row.against(&rows[0], |own, alone| own.behind_us - alone.behind_us);
        let [low, high] = quartiles(row, &rows[0]);
        println!(
            "  {:<34} {:>13.1}   {:>5.3} ({low:.3}, {high:.3}) {:>14.2} {:>+9.2} {:>9.3}",
            row.label,
            row.median(cpu),
            row.ratio(&rows[0], cpu),
            row.median(behind),
            added,
            1.0 + added / rows[0].median(cpu),
        );
    }
}

/// Of each round's ratio to the other row.
fn quartiles(row: &Row, to: &Row) -> [f64; 2] {
    let pairs = row.rounds.iter().zip(&to.rounds);
    let mut ratios: Vec<f64> = pairs.map(|(own, to)| own.cpu_us / to.cpu_us).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |share: usize| ratios[(ratios.len() - 1) * share / 4];
    [at(1), at(3)]
}
