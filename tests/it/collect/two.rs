//! Two collectors at once: one of them works, and no record is lost or counted twice by that.

use crate::collect::fleet::{Fleet, Member, answered, sources};
use crate::harness::*;
use serde_json::Value;
use std::time::Duration;

/// Longer than a process that may take over waits for that.
const LONG: Duration = Duration::from_secs(6);

/// Why this process collects nothing; null when it does.
async fn waits(collector: &Member) -> Value {
    let (_, _, body) = get(collector.sandbox.admin, "/v1/sources").await;
    serde_json::from_slice::<Value>(&body).unwrap()["waits"].take()
}

async fn calls(fleet: &Fleet, count: usize) {
    for gate in &fleet.gates {
        for _ in 0..count {
            answered(gate).await;
        }
    }
}

/// How many records it has of each gate.
fn collected(collector: &Member) -> Vec<u64> {
    let sources = sources(&collector.sandbox.ledger());
    sources.iter().map(|source| source.seq).collect()
}

/// Waits until one of both works, which is `fleet.collector` then, and the other one says why it does
/// not.
async fn one_works(fleet: &mut Fleet, other: &mut Member) {
    for _ in 0..400 {
        let works = (
            waits(&fleet.collector).await.is_null(),
            waits(other).await.is_null(),
        );
        match works {
            (true, false) => return,
            (false, true) => return std::mem::swap(&mut fleet.collector, other),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!(
        "not one of two:\n{}\n{}",
        fleet.collector.sandbox.log(),
        other.sandbox.log()
    );
}

/// Starts both at the same instant.
async fn start_both(fleet: &mut Fleet, other: &mut Member) {
    for gate in &mut fleet.gates {
        gate.start().await;
    }
    tokio::join!(fleet.collector.start(), other.start());
}

async fn end(fleet: &mut Fleet, other: &mut Member) {
    let members = fleet.gates.iter_mut();
    for member in members.chain([&mut fleet.collector, other]) {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_collectors_with_a_ledger_each_one_takes_nothing_though_the_other_is_silent() {
    let mut fleet = Fleet::new(|upstream| Sandbox::new(upstream, &[])).await;
    let mut other = fleet.another_collector();
    // Both start before NATS is there: neither can know of the other.
    fleet.nats.kill();
    start_both(&mut fleet, &mut other).await;
    fleet.nats.restart();
    one_works(&mut fleet, &mut other).await;
    calls(&fleet, 10).await;
    fleet.collected().await;
    assert_eq!(collected(&other), [0; 0]);
    let mut why = waits(&other).await;
    for _ in 0..400 {
        if why.to_string().contains("collect adopt") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        why = waits(&other).await;
    }
    assert!(why.to_string().contains("collect adopt"), "{why}");

    fleet.collector.kill();
    calls(&fleet, 10).await;
    tokio::time::sleep(LONG).await;
    assert_eq!(collected(&other), [0; 0]);
    // It would know it at a start.
    other.stop().await;
    let refused = other.sandbox.run(&["collect"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("collect adopt"), "{}", refused.err);
    fleet.start().await;
    fleet.collected().await;
    end(&mut fleet, &mut other).await;
    fleet.assert_is_the_union();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_copies_of_a_ledger_one_works_and_the_other_takes_over_only_while_it_lacks_nothing()
{
    let mut fleet = Fleet::new(|upstream| Sandbox::new(upstream, &[])).await;
    let mut other = fleet.another_collector();
    fleet.start().await;
    calls(&fleet, 10).await;
    fleet.collected().await;
    fleet.collector.stop().await;
    let (from, to) = (fleet.collector.sandbox.ledger(), other.sandbox.ledger());
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
    start_both(&mut fleet, &mut other).await;
    one_works(&mut fleet, &mut other).await;
    // Neither has more than the other.
    fleet.collector.kill();
    std::mem::swap(&mut fleet.collector, &mut other);
    for _ in 0..400 {
        if waits(&fleet.collector).await.is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    other.start().await;
    wait_for_why(&other, "another process").await;

    // It lacks what is collected now: it does not take over, and says why.
    calls(&fleet, 10).await;
    fleet.collected().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    fleet.collector.kill();
    calls(&fleet, 5).await;
    let why = wait_for_why(&other, "an older copy").await;
    assert_eq!(collected(&other), [10, 10, 10], "{why}");
    fleet.collector.start().await;
    fleet.collected().await;
    end(&mut fleet, &mut other).await;
    fleet.assert_is_the_union();
}

/// Waits until it says such a reason why it collects nothing.
async fn wait_for_why(collector: &Member, what: &str) -> String {
    let mut why = String::new();
    for _ in 0..400 {
        why = waits(collector).await.to_string();
        if why.contains(what) {
            return why;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} is not said: {why}\n{}", collector.sandbox.log());
}
