//! The store is held up for a moment, again and again.

use super::fleet::{Fleet, RETAIL, beside, judges_time, seconds};
use super::oracle::Starts;
use super::paced::paced;
use super::spray::count;
use crate::figure;
use crate::harness::{RETAIL_KEY, StoreServer, cli};
use http::StatusCode;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tollgate::testing::model::Clock;

const MS: Duration = Duration::from_millis(1);
const QUOTA: u32 = 100;

/// The starts that the store has for [`RETAIL`], spent by calls or lost.
#[derive(Default)]
struct Spent {
    /// How many at each instant of the store's clock.
    all: BTreeMap<i64, usize>,
}

impl Spent {
    /// Reads the window, from which a start goes when it is a second old. The calls go on meanwhile.
    async fn read(&mut self, port: u16) {
        let read = spawn_blocking(move || {
            let keys = cli(port, &["KEYS", "{tg}:w:*"]);
            let of_retail = keys.lines().filter(|key| key.contains(RETAIL));
            let windows = of_retail.map(|key| cli(port, &["LRANGE", key, "0", "-1"]));
            windows.collect::<Vec<String>>()
        });
        for said in read.await.unwrap() {
            let mut window: BTreeMap<i64, usize> = BTreeMap::new();
            for start in said.lines() {
                *window.entry(start.parse().unwrap()).or_default() += 1;
            }
            for (start, count) in window {
                let known = self.all.entry(start).or_default();
                *known = count.max(*known);
            }
        }
    }
}

/// Stops the server for 30 ms in each second. Gives how long each stop was, and which starts the
/// store granted.
async fn stall(store: &StoreServer, times: u64) -> (Vec<Duration>, Spent) {
    let clock = Clock::default();
    let (mut took, mut spent) = (Vec::new(), Spent::default());
    let mut tick = interval(1_000 * MS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..times {
        tick.tick().await;
        spent.read(store.port).await;
        let stopped = clock.mono();
        store.signal("STOP");
        tokio::time::sleep(30 * MS).await;
        store.signal("CONT");
        took.push(clock.mono().since(stopped));
        tokio::time::sleep(450 * MS).await;
        spent.read(store.port).await;
    }
    tick.tick().await;
    spent.read(store.port).await;
    (took, spent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stops_for_30_ms_each_second_costs_a_paced_client_nothing() {
    let _turn = beside().await;
    let fleet = Fleet::start(QUOTA).await;
    // The calls that warmed them are gone.
    tokio::time::sleep(1_100 * MS).await;
    let before = fleet.late().await;
    let from = Clock::default().utc().0;
    let gates = fleet.replicas.iter().map(|it| it.process.public).collect();
    let times = seconds(3);
    let calls = QUOTA * u32::try_from(times).unwrap();
    let paced = paced(gates, RETAIL_KEY, QUOTA, calls, |nth, _| nth as usize % 3);
    let ((told, unsent), (stops, spent)) = tokio::join!(paced, stall(&fleet.store, times));
    let late = fleet.late().await - before;
    fleet.assert_conserved().await;
    let starts = Starts::judged(&fleet.replicas, RETAIL, QUOTA, &fleet.upstream.seen());
    let spent: usize = spent.all.range(from..).map(|(_, count)| count).sum();
    // A busy machine may read a window too late.
    let lost = spent.saturating_sub(starts.within(from, i64::MAX, |_| true));
    let throttled = count(&told, StatusCode::TOO_MANY_REQUESTS);
    let away = count(&told, StatusCode::SERVICE_UNAVAILABLE);
    let longest = told.iter().map(|one| one.told.since(one.sent)).max();
    figure!(
        "{} stops of up to {:?}: {} calls, {throttled} throttled, {away} unavailable, {late} late \
         answers, {lost} of {spent} starts lost, longest call {longest:?}, {unsent} not sent in time",
        stops.len(),
        stops.iter().max().unwrap(),
        told.len(),
    );
    assert_eq!(count(&told, StatusCode::OK) + throttled + away, told.len());
    // The questions of a stop come after their deadline and spend no start: if they did, each stop
    // would cost those of some five calls.
    let most = 2 * times as usize;
    // A machine that cannot send the calls, or wake the server, makes answers late by itself.
    let is_busy = unsent > calls / 10 || stops.iter().any(|stop| *stop > 45 * MS);
    if is_busy {
        figure!("the machine is too busy to judge the stops");
    }
    if is_busy || !judges_time() {
        return;
    }
    assert!(lost <= most, "{lost} starts lost");
    assert!(
        throttled + away <= most,
        "{throttled} throttled, {away} unavailable"
    );
}
