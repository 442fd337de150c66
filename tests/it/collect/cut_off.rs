//! A gate that is cut off from NATS over the end of a month, while the others go on.

use crate::bills::{self, last_month, seed};
use crate::collect::fleet::{Fleet, answered, sources};
use crate::collect::months::{calls, comparable, knows, of_one_gate, statement};
use crate::harness::*;
use http::StatusCode;
use serde_json::Value;
use tollgate::testing::ledger::Reader;

#[tokio::test(flavor = "multi_thread")]
async fn a_month_waits_for_a_gate_that_is_cut_off_from_nats_and_has_all_its_calls_afterwards() {
    let mut fleet = Fleet::new(|upstream| bills::house(upstream, "[]", "[]")).await;
    for (nth, gate) in (0..).zip(&fleet.gates) {
        seed(&gate.sandbox.ledger(), calls(|n| n % 3 == nth));
    }
    let way = Cut::to(fleet.nats.port).await;
    let cut_off = &fleet.gates[2].sandbox;
    let (direct, by_way) = (
        format!("nats://127.0.0.1:{}", fleet.nats.port),
        format!("nats://127.0.0.1:{}", way.port),
    );
    cut_off.edit("tollgate.yaml", &direct, &by_way);
    let reader = Reader::open(&cut_off.ledger()).unwrap();
    let id = reader.ledger_id().unwrap();
    // It was heard in the midst of the month, and not since.
    knows(&fleet.collector, &id, "gate-2");
    way.cut();
    fleet.start().await;

    let seq_of = |fleet: &Fleet, replica: &str| {
        let sources = sources(&fleet.collector.sandbox.ledger());
        let source = sources.into_iter().find(|of| of.replica == replica);
        source.map_or(0, |source| source.seq)
    };
    let held_up = "not settled yet: calls of it may still come from";
    eventually("the month waits, and the others are collected", || {
        fleet.collector.sandbox.log().contains(held_up)
            && ["gate-0", "gate-1"].map(|of| seq_of(&fleet, of)) == [800, 800]
    })
    .await;
    let log = fleet.collector.sandbox.log();
    let waits_for = log.lines().find(|line| line.contains(held_up)).unwrap();
    assert!(waits_for.contains(&id), "{waits_for}");
    // Its calls go on.
    for gate in &fleet.gates {
        assert_eq!(answered(gate).await, StatusCode::OK);
    }
    assert_eq!(seq_of(&fleet, "gate-2"), 0);
    assert_eq!(statement(&fleet.collector).await["fixed"], Value::Null);
    let settled = Reader::open(&fleet.collector.sandbox.ledger()).unwrap();
    assert!(settled.last_settlement().unwrap().is_none());

    way.heal();
    fleet.collected().await;
    assert_eq!(seq_of(&fleet, "gate-2"), 801);
    let fixed = bills::settled(&fleet.collector.sandbox).await;
    assert_eq!(fixed["month"], last_month().to_string());
    assert_eq!(comparable(fixed), comparable(of_one_gate().await));
    for member in fleet.gates.iter_mut().chain([&mut fleet.collector]) {
        member.stop().await;
    }
    fleet.assert_is_the_union();
}
