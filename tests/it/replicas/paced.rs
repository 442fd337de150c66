//! P2 of many gates together.

use super::fleet::{Fleet, RETAIL, alone, seconds};
use super::oracle::Starts;
use super::spray::{Told, call, count};
use crate::figure;
use crate::harness::{Client, RETAIL_KEY, STUDIO_KEY};
use http::StatusCode;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Within which P2 lets a paced client be early or late.
const JITTER: Duration = Duration::from_millis(10);

/// Calls at exactly `quota`, each within the jitter of its instant, each at the gate that `pick`
/// says. A call that this machine cannot send in time is not sent, and counted.
pub async fn paced(
    gates: Vec<SocketAddr>,
    key: &'static str,
    quota: u32,
    calls: u32,
    pick: impl Fn(u32, &mut fastrand::Rng) -> usize,
) -> (Vec<Told>, u32) {
    let mut random = fastrand::Rng::new();
    let begin = Instant::now() + Duration::from_millis(50);
    let mut running = JoinSet::new();
    let mut unsent = 0;
    for nth in 0..calls {
        let at = begin + Duration::from_secs(1) * nth / quota;
        let gate = pick(nth, &mut random);
        let public = gates[gate];
        let early = at - Duration::from_millis(40);
        sleep_until(early.max(Instant::now())).await;
        let jitter = JITTER.mul_f64(2.0 * random.f64());
        running.spawn(async move {
            let mut client = Client::connect(public).await.unwrap();
            sleep_until(at - JITTER + jitter).await;
            if Instant::now() > at + JITTER {
                return None;
            }
            let told = call(&mut client, gate, key).await;
            Some(told.expect("the gate is there"))
        });
    }
    let mut all = Vec::new();
    while let Some(done) = running.join_next().await {
        match done.unwrap() {
            Some(told) => all.push(told),
            None => unsent += 1,
        }
    }
    (all, unsent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_paced_at_its_quota_over_three_gates_in_turn_or_at_random_loses_nothing() {
    let _alone = alone().await;
    let quota = 30;
    let fleet = Fleet::start(quota).await;
    // The calls that warmed them are gone.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let before = fleet.late().await;
    let gates: Vec<SocketAddr> = fleet.replicas.iter().map(|it| it.process.public).collect();
    let calls = |quota: u32| quota * u32::try_from(seconds(5)).unwrap();
    let in_turn = paced(gates.clone(), STUDIO_KEY, 20, calls(20), |nth, _| {
        nth as usize % 3
    });
    let at_random = paced(gates, RETAIL_KEY, quota, calls(quota), |_, random| {
        random.usize(0..3)
    });
    let (in_turn, at_random) = tokio::join!(in_turn, at_random);
    let late = fleet.late().await - before;
    let mut refused = 0;
    for (how, (told, unsent)) in [("in turn", in_turn), ("at random", at_random)] {
        let throttled = count(&told, StatusCode::TOO_MANY_REQUESTS);
        let away = count(&told, StatusCode::SERVICE_UNAVAILABLE);
        let longest = told.iter().map(|one| one.told.since(one.sent)).max();
        figure!(
            "paced {how}: {} calls, {throttled} throttled, {away} unavailable, {late} late answers \
             at all gates, longest call {longest:?}, {unsent} not sent in time",
            told.len()
        );
        let admitted = count(&told, StatusCode::OK);
        assert_eq!(admitted + throttled + away, told.len(), "{how}");
        refused += (throttled + away) as u64;
    }
    // The start of a late answer stays spent: one call of the next second finds none.
    assert!(
        !super::fleet::judges_time() || refused <= late,
        "{refused} refused, {late} late answers"
    );
    fleet.assert_conserved().await;
    Starts::judged(&fleet.replicas, RETAIL, quota, &fleet.upstream.seen());
}
