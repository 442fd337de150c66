//! Messages that were changed on their way, and others' messages.

use crate::collect::fleet::{Fleet, answered, ledger_id};
use crate::harness::*;
use std::time::Duration;
use tollgate::testing::ledger::Range;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_changed_or_is_no_range_is_asked_for_again_of_a_gate_that_is_idle() {
    let mut fleet = Fleet::new(|upstream| Sandbox::new(upstream, &[])).await;
    for gate in &mut fleet.gates {
        gate.start().await;
        answered(gate).await;
    }
    let records = fleet.stream().await;
    let ids: Vec<String> = fleet.gates.iter().map(ledger_id).collect();
    // Each gate has sent its record, and calls no more. Of the first the message is changed, the
    // second's is no range, and behind the third's comes one.
    for (nth, id) in ids.iter().enumerate() {
        let mut last = None;
        for _ in 0..100 {
            last = records.last(id).await.unwrap();
            if last.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let last = last.unwrap();
        let (behind, bytes) = match nth {
            0 => {
                let mut range = Range::decode(&last.bytes).unwrap();
                range.link_after[0] ^= 1;
                (0, range.encode())
            }
            1 => (0, b"no range".to_vec()),
            _ => (last.sequence, b"no range".to_vec()),
        };
        if behind == 0 {
            records.forget_ledger(id).await.unwrap();
        }
        records.publish(id, behind, bytes).await.unwrap();
    }
    records
        .publish("not-a-ledger", 0, b"?".to_vec())
        .await
        .unwrap();
    fleet.collector.start().await;
    fleet.collected().await;
    // And they go on.
    for gate in &fleet.gates {
        answered(gate).await;
    }
    fleet.collected().await;
    let (_, _, body) = get(fleet.collector.sandbox.admin, "/v1/sources").await;
    let sources: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(sources["broken"], serde_json::json!({}), "{sources}");
    for member in fleet.gates.iter_mut().chain([&mut fleet.collector]) {
        member.stop().await;
    }
    fleet.assert_is_the_union();
}
