//! A collected ledger that is another one than before: put back to a backup, or new.

use crate::collect::fleet::{Fleet, Member, answered, ledger_id, sources};
use crate::harness::*;
use serde_json::Value;
use std::path::Path;

/// Some calls at one gate, all of them recorded.
async fn calls(gate: &Member, count: usize) {
    for _ in 0..count {
        answered(gate).await;
    }
}

fn run(member: &Member, args: &[&str]) {
    let done = member.sandbox.run(args);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
}

async fn waits(collector: &Member) -> Value {
    let (_, _, body) = get(collector.sandbox.admin, "/v1/sources").await;
    serde_json::from_slice::<Value>(&body).unwrap()["waits"].take()
}

/// A gate that is idle since its records were collected, and a backup that knows nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_from_before_a_gate_was_heard_gets_all_its_records_though_it_is_idle() {
    let mut fleet = Fleet::new(|upstream| Sandbox::new(upstream, &[])).await;
    fleet.gates[0].start().await;
    fleet.collector.start().await;
    calls(&fleet.gates[0], 20).await;
    let recorded = whole_ledger(&fleet.gates[0].sandbox.ledger()).len() as u64;
    eventually("collected", || collected(&fleet.collector) == [recorded]).await;
    let backup = fleet.collector.sandbox.dir.path().join("backup.db");
    run(
        &fleet.collector,
        &["backup", "--to", backup.to_str().unwrap()],
    );
    fleet.gates[1].start().await;
    fleet.gates[2].start().await;
    calls(&fleet.gates[1], 30).await;
    calls(&fleet.gates[0], 5).await;
    fleet.collected().await;
    fleet.collector.stop().await;
    // What is collected is deleted at NATS in the end.
    let stream = fleet.stream().await;
    for gate in &fleet.gates {
        stream.forget_ledger(&ledger_id(gate)).await.unwrap();
    }
    run(
        &fleet.collector,
        &["restore", "--from", backup.to_str().unwrap()],
    );
    fleet.collector.start().await;
    fleet.collected().await;
    for member in fleet.gates.iter_mut().chain([&mut fleet.collector]) {
        member.stop().await;
    }
    let mut union: Vec<Vec<u8>> = fleet.gates.iter().flat_map(ids).collect();
    union.sort();
    assert_eq!(ids(&fleet.collector), union);
    run(&fleet.collector, &["verify"]);
}

/// The ids of all records, in their order. A restored ledger has a gap in its seqs.
fn ids(member: &Member) -> Vec<Vec<u8>> {
    let ledger = rusqlite::Connection::open(member.sandbox.ledger()).unwrap();
    let mut select = ledger.prepare("SELECT id FROM raw ORDER BY id").unwrap();
    let ids = select.query_map([], |row| row.get(0)).unwrap();
    ids.collect::<Result<_, _>>().unwrap()
}

fn collected(collector: &Member) -> Vec<u64> {
    let sources = sources(&collector.sandbox.ledger());
    sources.iter().map(|source| source.seq).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ledger_does_not_collect_until_it_is_adopted_and_has_all_then() {
    let mut fleet = Fleet::new(|upstream| Sandbox::new(upstream, &[])).await;
    fleet.start().await;
    for gate in &fleet.gates {
        calls(gate, 10).await;
    }
    fleet.collected().await;
    fleet.collector.stop().await;
    // Its disk is lost: a ledger is made anew.
    let ledger = fleet.collector.sandbox.ledger();
    delete(&ledger);
    let refused = fleet.collector.sandbox.run(&["collect"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("collect adopt"), "{}", refused.err);
    assert_eq!(collected(&fleet.collector), [0; 0]);
    run(&fleet.collector, &["collect", "adopt"]);
    fleet.collector.start().await;
    fleet.collected().await;
    assert_eq!(waits(&fleet.collector).await, Value::Null);
    for member in fleet.gates.iter_mut().chain([&mut fleet.collector]) {
        member.stop().await;
    }
    fleet.assert_is_the_union();
}

fn delete(ledger: &Path) {
    for end in ["", "-wal", "-shm"] {
        let mut path = ledger.as_os_str().to_owned();
        path.push(end);
        let _ = std::fs::remove_file(path);
    }
}
