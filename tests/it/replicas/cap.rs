//! P1 of many gates together.

use super::fleet::{Fleet, RETAIL, alone, seconds};
use super::oracle::Starts;
use super::spray::{Spray, count};
use crate::figure;
use crate::harness::RETAIL_KEY;
use http::StatusCode;
use std::time::Duration;
use tollgate::testing::model::Clock;

#[tokio::test(flavor = "multi_thread")]
async fn three_gates_that_are_sprayed_with_three_times_the_quota_start_the_quota_and_no_more() {
    let _alone = alone().await;
    let long = std::env::var_os("REPLICAS_SECONDS").is_some();
    let quota = if long { 200 } else { 20 };
    let fleet = Fleet::start(quota).await;
    let late_before = fleet.late().await;
    let mut spray = Spray::default();
    for (at, replica) in fleet.replicas.iter().enumerate() {
        spray.at(at, replica.process.public, RETAIL_KEY, quota);
    }
    // The first second fills the window.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let from = Clock::default().utc();
    tokio::time::sleep(Duration::from_secs(seconds(5))).await;
    let until = Clock::default().utc();
    let told = spray.end().await;
    let late = fleet.late().await - late_before;
    fleet.assert_conserved().await;

    let seen = fleet.upstream.seen();
    let starts = Starts::judged(&fleet.replicas, RETAIL, quota, &seen);
    let used = starts.used(from.0, until.0, quota);
    let away = count(&told, StatusCode::SERVICE_UNAVAILABLE);
    let by_gate = [0, 1, 2].map(|gate| starts.within(from.0, until.0, |of| of == gate));
    figure!(
        "sprayed: {used:.3} of {quota}/s used, by gate {by_gate:?}; {} calls, {} throttled, \
         {away} unavailable, {late} late answers",
        told.len(),
        count(&told, StatusCode::TOO_MANY_REQUESTS),
    );
    // The starts of a late answer are lost, as a rule one or two.
    let lost = 2.0 * late as f64 / (f64::from(quota) * seconds(5) as f64);
    assert!(
        !super::fleet::judges_time() || used >= 0.97 - lost,
        "{used}, {late} late"
    );
    assert!(by_gate.iter().all(|starts| *starts > 0), "{by_gate:?}");
    assert!(
        !super::fleet::judges_time() || away as u64 <= 8 * late,
        "{away} unavailable, {late} late"
    );
}
