//! Gates that end and begin.

use super::fleet::{Fleet, RETAIL, alone};
use super::oracle::Starts;
use super::spray::{Spray, count};
use crate::figure;
use crate::harness::RETAIL_KEY;
use http::StatusCode;
use std::time::Duration;
use tollgate::testing::model::Clock;

const MS: Duration = Duration::from_millis(1);
const QUOTA: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_is_killed_and_one_that_is_added_change_nothing_of_the_total() {
    let _alone = alone().await;
    let mut fleet = Fleet::start(QUOTA).await;
    let before = fleet.late().await;
    let mut spray = Spray::default();
    for (at, replica) in fleet.replicas.iter().enumerate() {
        spray.at(at, replica.process.public, RETAIL_KEY, QUOTA);
    }
    tokio::time::sleep(1_100 * MS).await;
    let clock = Clock::default();
    let from = clock.utc();
    tokio::time::sleep(1_000 * MS).await;
    fleet.replicas[2].process.kill();
    let killed = clock.utc();
    tokio::time::sleep(1_000 * MS).await;
    fleet.add().await;
    fleet.replicas[3].admits().await;
    spray.at(3, fleet.replicas[3].process.public, RETAIL_KEY, QUOTA);
    tokio::time::sleep(1_000 * MS).await;
    let until = clock.utc();
    let told = spray.end().await;

    let starts = Starts::judged(&fleet.replicas, RETAIL, QUOTA, &fleet.upstream.seen());
    let used = starts.used(from.0, until.0, QUOTA);
    let by_gate = [0, 1, 2, 3].map(|gate| starts.within(killed.0, until.0, |of| of == gate));
    let lives: Vec<_> = told.iter().filter(|one| one.replica < 2).cloned().collect();
    let away = count(&lives, StatusCode::SERVICE_UNAVAILABLE);
    fleet.replicas.remove(2);
    let late = fleet.late().await.saturating_sub(before);
    figure!(
        "one killed, one added: {used:.3} of {QUOTA}/s used, since the kill by gate {by_gate:?}, \
         {away} unavailable at the others, {late} late answers"
    );
    fleet.assert_conserved().await;
    let seconds = until.since(from).as_secs_f64();
    let lost = 2.0 * late as f64 / (f64::from(QUOTA) * seconds);
    assert!(
        !super::fleet::judges_time() || used >= 0.95 - lost,
        "{used}, {late} late"
    );
    assert!(by_gate[2] <= 2, "{by_gate:?}");
    assert!(
        [0, 1, 3].iter().all(|gate| by_gate[*gate] > 0),
        "{by_gate:?}"
    );
    assert!(
        !super::fleet::judges_time() || away as u64 <= 8 * late,
        "{away} unavailable, {late} late"
    );
}
