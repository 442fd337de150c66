//! The collected ledger is lost, or what NATS says of it is: nothing closes too early, nobody who is
//! stopped goes on, and no ledger takes its place by itself.

use crate::bills::{self, seed};
use crate::collect::fleet::{Fleet, Member, answered, ledger_id, sources};
use crate::collect::months::{admin, calls, comparable, knows, knows_at, of_one_gate, statement};
use crate::harness::*;
use http::StatusCode;
use serde_json::Value;
use std::time::Duration;
use tollgate::testing::model::Clock;

fn lose_ledger(collector: &Member) {
    for end in ["", "-wal", "-shm"] {
        let mut path = collector.sandbox.ledger().into_os_string();
        path.push(end);
        let _ = std::fs::remove_file(path);
    }
}

/// The backup knows one gate, which has passed the month. Two more were heard later, and do not run now.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_put_back_to_before_a_gate_was_heard_closes_no_month_without_it() {
    let mut fleet = Fleet::new(|upstream| bills::house(upstream, "[]", "[]")).await;
    for (nth, gate) in (0..).zip(&fleet.gates) {
        seed(&gate.sandbox.ledger(), calls(|n| n % 3 == nth));
    }
    fleet.start().await;
    fleet.collected().await;
    fleet.collector.stop().await;
    for gate in &mut fleet.gates[1..] {
        gate.stop().await;
    }
    lose_ledger(&fleet.collector);
    // What is collected is deleted at NATS in the end.
    let stream = fleet.stream().await;
    for gate in &fleet.gates {
        stream.forget_ledger(&ledger_id(gate)).await.unwrap();
    }
    let now = Clock::default().utc();
    knows_at(&fleet.collector, &ledger_id(&fleet.gates[0]), "gate-0", now);
    let adopted = fleet.collector.sandbox.run(&["collect", "adopt"]);
    assert_eq!(adopted.code, Some(0), "{}", adopted.err);
    fleet.collector.start().await;
    let (waits_for, sandbox) = (ledger_id(&fleet.gates[2]), &fleet.collector.sandbox);
    let waits = |line: &str| line.contains("not settled yet") && line.contains(&waits_for);
    eventually("the month waits", || sandbox.log().lines().any(waits)).await;
    assert_eq!(statement(&fleet.collector).await["fixed"], Value::Null);

    fleet.start().await;
    fleet.collected().await;
    let fixed = bills::settled(&fleet.collector.sandbox).await;
    assert_eq!(comparable(fixed), comparable(of_one_gate().await));
    is_billed_nowhere_else(&mut fleet.gates[1]).await;
}

/// A gate whose outbox is taken away has calls that are on the statement of the collected ledger.
async fn is_billed_nowhere_else(gate: &mut Member) {
    gate.stop().await;
    let settings = std::fs::read_to_string(gate.sandbox.file("tollgate.yaml")).unwrap();
    let line = settings
        .lines()
        .find(|line| line.starts_with("outbox:"))
        .unwrap();
    gate.sandbox.edit("tollgate.yaml", line, "");
    let refused = gate.sandbox.run(&["serve"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    let refused = gate
        .sandbox
        .run(&["statement", "--account", bills::CUSTOMER]);
    assert_eq!(refused.code, Some(3), "{}{}", refused.out, refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_stopped_stays_so_under_a_new_collected_ledger_until_it_has_debited_that_month() {
    let mut fleet = Fleet::new(|upstream| bills::house(upstream, "[]", "[]")).await;
    let mut new = fleet.gates.pop().unwrap();
    fleet.gates.truncate(1);
    let gate = &fleet.gates[0];
    seed(&gate.sandbox.ledger(), calls(|_| true));
    knows(&fleet.collector, &ledger_id(gate), "gate-0");
    fleet.start().await;
    let gate = &fleet.gates[0];
    eventually_stopped(gate).await;
    // One that has never heard of it stops it from its first call on.
    new.start().await;
    assert_eq!(answered(&new).await, StatusCode::PAYMENT_REQUIRED);
    new.stop().await;

    // The new one does not trust its clock for an hour, so it debits nothing.
    fleet.collector.stop().await;
    lose_ledger(&fleet.collector);
    let refused = fleet.collector.sandbox.run(&["collect"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    let adopted = fleet.collector.sandbox.run(&["collect", "adopt"]);
    assert_eq!(adopted.code, Some(0), "{}", adopted.err);
    assert!(adopted.out.contains("stays so"), "{}", adopted.out);
    fleet.collector.start().await;
    let own = ledger_id(&fleet.collector);
    let mut heard = Value::Null;
    for _ in 0..400 {
        heard = admin(&fleet.gates[0], "/status").await["standing"].take();
        if heard["is_current"] == true && heard["collected_in"] == own {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(heard["collected_in"], own, "{heard}");
    let status = admin(
        &fleet.collector,
        &format!("/v1/accounts/{}", bills::CUSTOMER),
    )
    .await;
    assert_eq!(status["balances"]["in_arrears"], false, "{status}");
    assert_eq!(
        answered(&fleet.gates[0]).await,
        StatusCode::PAYMENT_REQUIRED
    );
    fleet.gates[0].start().await;
    assert_eq!(
        answered(&fleet.gates[0]).await,
        StatusCode::PAYMENT_REQUIRED
    );
}

async fn eventually_stopped(gate: &Member) {
    for _ in 0..600 {
        if answered(gate).await == StatusCode::PAYMENT_REQUIRED {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{}", gate.sandbox.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_ledger_becomes_the_collected_one_because_what_nats_says_of_it_is_lost_or_damaged() {
    let mut fleet = Fleet::new(|upstream| Sandbox::new(upstream, &[])).await;
    let other = fleet.another_collector();
    fleet.gates.truncate(1);
    fleet.start().await;
    answered(&fleet.gates[0]).await;
    fleet.collected().await;
    fleet.collector.stop().await;
    let nats = connected(&fleet.nats).await;
    let bucket = nats.bucket("tollgate_collected", 1).await.unwrap();

    bucket
        .put("collector", b"{\"ledger_id\"".to_vec())
        .await
        .unwrap();
    for member in [&fleet.collector, &other] {
        let refused = member.sandbox.run(&["collect"]);
        assert_eq!(refused.code, Some(1), "{}", refused.err);
        assert!(refused.err.contains("collect adopt"), "{}", refused.err);
    }
    delete_key(&fleet.nats, "$KV.tollgate_collected.collector").await;
    let cursor = ledger_id(&fleet.gates[0]);
    let sound = bucket.get(&cursor).await.unwrap().unwrap();
    bucket.put(&cursor, b"{".to_vec()).await.unwrap();
    for member in [&fleet.collector, &other] {
        let refused = member.sandbox.run(&["collect"]);
        assert_eq!(refused.code, Some(1), "{}", refused.err);
        assert!(refused.err.contains("cannot be read"), "{}", refused.err);
    }
    bucket.put(&cursor, sound.bytes.to_vec()).await.unwrap();
    let refused = other.sandbox.run(&["collect"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    let own = ledger_id(&fleet.collector);
    assert!(refused.err.contains(&own), "{}", refused.err);
    // The ledger that the gates are told of goes on.
    fleet.start().await;
    answered(&fleet.gates[0]).await;
    fleet.collected().await;
    assert_eq!(sources(&other.sandbox.ledger()).len(), 0);

    // Another copy of it with the same records, and without what was closed since.
    fleet.gates[0].stop().await;
    fleet.collector.stop().await;
    let (ledger, copy) = (
        fleet.collector.sandbox.ledger(),
        fleet.collector.sandbox.dir.path().join("copy.db"),
    );
    std::fs::copy(&ledger, &copy).unwrap();
    let retire = ["collect", "retire", &cursor, "--why", "out of service"];
    assert_eq!(fleet.collector.sandbox.run(&retire).code, Some(0));
    fleet.collector.start().await;
    let (is_told, sandbox) = ("\"closings\":1", &fleet.collector.sandbox);
    for _ in 0..400 {
        let told = bucket.get("collector").await.unwrap().unwrap();
        if String::from_utf8_lossy(&told.bytes).contains(is_told) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(sources(&sandbox.ledger()).len(), 1);
    fleet.collector.stop().await;
    lose_ledger(&fleet.collector);
    std::fs::copy(&copy, &ledger).unwrap();
    let refused = fleet.collector.sandbox.run(&["collect"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("an older copy"), "{}", refused.err);
}

/// As an operator does it: `nats kv del`.
async fn delete_key(nats: &NatsServer, subject: &'static str) {
    let client = async_nats::connect(format!("127.0.0.1:{}", nats.port))
        .await
        .unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    let stream = async_nats::jetstream::new(client);
    let put = stream.publish_with_headers(subject, headers, "".into());
    put.await.unwrap().await.unwrap();
}
