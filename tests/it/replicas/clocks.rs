//! The clock of the store jumps, and runs fast.

use super::fleet::{Fleet, RETAIL, beside, seconds};
use super::oracle::Starts;
use super::spray::Spray;
use crate::figure;
use crate::harness::{RETAIL_KEY, StoreServer};
use std::ops::Range;
use std::time::Duration;
use tollgate::testing::model::{Clock, Mono};

const MS: Duration = Duration::from_millis(1);
const QUOTA: u32 = 20;

/// A change of the store's clock.
struct Change {
    name: &'static str,
    /// When it had happened.
    at: Mono,
    /// When each gate had admitted again.
    back: Mono,
}

/// By how many milliseconds the store's clock is ahead of the machine's.
fn ahead(store: &StoreServer) -> i64 {
    (store.clock().0 - Clock::default().utc().0) / 1_000
}

impl Change {
    /// Sets the clock and waits until each gate admits again. Asserts that the server sees it:
    /// `ahead` is by how many milliseconds it is ahead then.
    async fn make(
        (fleet, spray): (&Fleet, &Spray),
        name: &'static str,
        to: &str,
        is_ahead: Range<i64>,
    ) -> Self {
        fleet.store.set_clock(to);
        let at = Clock::default().mono();
        let seen = ahead(&fleet.store);
        assert!(is_ahead.contains(&seen), "{name}: {seen} ms ahead");
        spray.admitted(&[0, 1, 2]).await;
        let back = Clock::default().mono();
        tokio::time::sleep(1_100 * MS).await;
        Self { name, at, back }
    }

    /// Asserts that nothing started for a second. What was granted before it has left by then.
    fn assert_silence(&self, starts: &Starts) {
        let silence = self.at.plus(150 * MS).0..self.at.plus(1_000 * MS).0;
        let within = starts.0.iter().filter(|it| silence.contains(&it.left_ns));
        assert_eq!(within.count(), 0, "{}", self.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_clock_jumps_or_runs_fast_never_lets_more_than_the_quota_start() {
    let _turn = beside().await;
    let store = StoreServer::with_a_clock_of_its_own();
    store.ready().await;
    let fleet = Fleet::over(store, QUOTA).await;
    let mut spray = Spray::default();
    for (at, replica) in fleet.replicas.iter().enumerate() {
        spray.at(at, replica.process.public, RETAIL_KEY, QUOTA);
    }
    tokio::time::sleep(1_200 * MS).await;
    let on = (&fleet, &spray);
    let mut forward = Vec::new();
    for _ in 0..seconds(1).div_ceil(10) {
        forward.push(Change::make(on, "10 s forward", "+10", 9_900..10_100).await);
        let back = Change::make(on, "10 s back", "+0", -100..100).await;
        let took = back.back.since(back.at);
        figure!("{}: each gate starts again within {took:?}", back.name);
        // A clock that ran back would refuse until it has caught up.
        assert!(took < 5_000 * MS, "{}: {took:?}", back.name);
    }

    let fast = Clock::default().mono();
    let before = ahead(&fleet.store);
    // Since the start of the server, so that this is a jump too.
    fleet.store.set_clock("+0 x1.05");
    tokio::time::sleep(2_500 * MS).await;
    let gained = ahead(&fleet.store) - before;
    assert!((200..2_000).contains(&gained), "5 % fast: {gained} ms");
    let right = Clock::default().mono();
    let after = Change::make(on, "right again", "+0 x1", -100..100).await;
    spray.end().await;

    fleet.assert_conserved().await;
    let starts = Starts::judged(&fleet.replicas, RETAIL, QUOTA, &fleet.upstream.seen());
    for jump in &forward {
        jump.assert_silence(&starts);
        let took = jump.back.since(jump.at);
        figure!("{}: each gate starts again within {took:?}", jump.name);
    }
    let fast = fast.0..right.0;
    let started = starts.0.iter().filter(|it| fast.contains(&it.left_ns));
    figure!(
        "5 % fast: {} starts in 2.5 s, again within {:?} of the right clock",
        started.count(),
        after.back.since(after.at)
    );
}
