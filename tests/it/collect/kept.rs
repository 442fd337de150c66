//! What a gate keeps of its records, and when it deletes them.

use crate::bills;
use crate::collect::clocks::collected_over;
use crate::harness::*;
use std::path::Path;
use std::time::Duration;
use tollgate::testing::ledger::Reader;
use tollgate::testing::model::{Mode, Reason};

const DAY: Duration = Duration::from_secs(86_400);
const CALLS: i64 = 1_100;

fn kept(ledger: &Path) -> i64 {
    let reader = Reader::open(ledger).unwrap();
    let first = reader.first_kept_seq().unwrap();
    (reader.last_seq().unwrap() + 1 - first).try_into().unwrap()
}

async fn pass(gate: &Gate, time: Duration) {
    gate.mover.advance(time);
    tokio::time::sleep(Duration::from_millis(600)).await;
    gate.mover.advance(Duration::from_secs(301));
    tokio::time::sleep(Duration::from_millis(600)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_deletes_old_records_that_are_collected_and_no_others() {
    let nats = NatsServer::chosen(NatsServer::debian);
    nats.ready().await;
    let upstream = Upstream::after(Duration::ZERO).await;
    let mut ledger = None;
    let gate = Gate::start_with(upstream.address, |config| {
        collected_over(&nats, "gate-0")(config);
        config.settings.ledger.retain_records = DAY;
        let path = ledger.insert(config.settings.ledger.path.clone());
        let calls = (0..CALLS).map(|n| {
            let at = bills::into_last_month(n * 1_000_000);
            bills::call(bills::CUSTOMER, at, Mode::PerCall, Reason::Billable)
        });
        bills::seed(path, calls);
    })
    .await;
    let ledger = ledger.unwrap();
    // A gate alone settles the month in this time, and deletes its records.
    for _ in 0..2 {
        pass(&gate, 35 * DAY).await;
    }
    assert_eq!(kept(&ledger), CALLS, "nobody has collected them");
    let id = Reader::open(&ledger).unwrap().ledger_id().unwrap();
    let bucket = connected(&nats).await.bucket("tollgate_collected", 1).await;
    let collected = format!(
        r#"{{"seq":{CALLS},"collected_in":"00112233445566778899aabbccddeeff","restore_count":0}}"#
    );
    bucket.unwrap().put(&id, collected.into()).await.unwrap();
    eventually("it is heard", || {
        let reader = Reader::open(&ledger).unwrap();
        reader.outbox().unwrap().collected_seq == CALLS.unsigned_abs()
    })
    .await;
    pass(&gate, Duration::from_secs(3_700)).await;
    eventually("what is collected is deleted", || kept(&ledger) == 0).await;
}
