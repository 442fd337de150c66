//! Whatever is killed, each record is collected once.

use crate::collect::fleet::Fleet;
use crate::harness::*;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// How often something is killed: few times unless `COLLECT_KILLS` is set.
fn kills_in_all() -> usize {
    let many = std::env::var("COLLECT_KILLS").ok();
    many.map_or(20, |kills| kills.parse().unwrap())
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
    let mut kills = [0; 3];
    for _ in 0..kills_in_all() {
        tokio::time::sleep(Duration::from_millis(random.u64(20..700))).await;
        let victim = random.usize(0..6);
        match victim {
            0..3 => fleet.gates[victim].kill(),
            3 | 4 => fleet.collector.kill(),
            _ => fleet.nats.kill(),
        }
        kills[[0, 0, 0, 1, 1, 2][victim]] += 1;
        // Others may be killed before it is back.
        if random.bool() {
            tokio::time::sleep(Duration::from_millis(random.u64(0..500))).await;
            fleet.nats.start_again();
            fleet.start().await;
        }
    }
    fleet.nats.start_again();
    fleet.start().await;
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
    for nats in NatsServer::each(&[]) {
        stream_is_deleted(nats).await;
    }
}

async fn stream_is_deleted(nats: NatsServer) {
    let mut fleet = Fleet::on(nats, |upstream| Sandbox::new(upstream, &[])).await;
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
