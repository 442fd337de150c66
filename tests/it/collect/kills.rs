//! Whatever is killed, each record is collected once.

use crate::collect::fleet::Fleet;
use crate::harness::*;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the drill is: short unless `COLLECT_SECONDS` is set.
fn length() -> Duration {
    let long = std::env::var("COLLECT_SECONDS").ok();
    Duration::from_secs(long.map_or(12, |seconds| seconds.parse().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_of_gates_collector_and_nats_the_collected_records_are_those_of_the_gates() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut fleet = Fleet::new(|upstream| {
        let sandbox = Sandbox::new(upstream, &[]);
        sandbox.edit("accounts.yaml", "qps: 20,", "qps: 110,");
        sandbox
    })
    .await;
    fleet.start().await;
    let told: Arc<Mutex<ClientLog>> = Arc::default();
    let mut callers = tokio::task::JoinSet::new();
    for gate in &fleet.gates {
        for _ in 0..3 {
            let (public, told) = (gate.sandbox.public, told.clone());
            let pace = Duration::from_millis(40);
            callers.spawn(keep_calling(public, || segment(RETAIL_KEY), pace, told));
        }
    }
    let (until, mut kills) = (Instant::now() + length(), [0; 3]);
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(random.u64(50..700))).await;
        let victim = random.usize(0..5);
        match victim {
            0..3 => {
                fleet.gates[victim].start().await;
                kills[0] += 1;
            }
            3 => {
                fleet.collector.start().await;
                kills[1] += 1;
            }
            _ => {
                fleet.nats.restart();
                kills[2] += 1;
            }
        }
    }
    callers.shutdown().await;
    fleet.nats.ready().await;
    fleet.collected().await;
    let told = std::mem::take(&mut *told.lock());
    eprintln!("{kills:?} kills, {} answered calls", told.answered.len());
    assert!(told.answered.len() > 100);
    for member in fleet.gates.iter_mut().chain([&mut fleet.collector]) {
        member.stop().await;
    }
    fleet.assert_is_the_union();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_a_stream_that_is_deleted_while_gates_and_collector_run_is_sent_again() {
    let mut fleet = Fleet::new(|upstream| Sandbox::new(upstream, &[])).await;
    for gate in &mut fleet.gates {
        gate.start().await;
    }
    for round in 0..3 {
        for gate in &fleet.gates {
            for _ in 0..10 {
                drop(try_send(gate.sandbox.public, segment(RETAIL_KEY)).await);
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        if round == 1 {
            // What the second round sent waits at NATS, and is lost there.
            fleet.collector.kill();
        }
        if round < 2 {
            fleet.nats.kill();
            fleet.nats.delete_store();
            fleet.nats.restart();
            fleet.nats.ready().await;
        }
        fleet.start().await;
    }
    fleet.collected().await;
    for member in fleet.gates.iter_mut().chain([&mut fleet.collector]) {
        member.stop().await;
    }
    fleet.assert_is_the_union();
}
