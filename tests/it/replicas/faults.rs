//! The store is emptied, killed and frozen while its replicas are sprayed.

use super::fleet::{Fleet, RETAIL, alone};
use super::oracle::Starts;
use super::spray::{Spray, Told};
use crate::figure;
use crate::harness::{RETAIL_KEY, get};
use http::StatusCode;
use std::time::Duration;
use tollgate::testing::model::{Clock, Mono, Utc};

const MS: Duration = Duration::from_millis(1);
const QUOTA: u32 = 20;
const REDUCED: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// A fault, on both clocks of the machine.
struct Fault {
    name: &'static str,
    at: (Mono, Utc),
    /// When it had happened.
    done: Utc,
    /// How long nothing starts at least.
    pause: Duration,
    /// How long until each gate admits at most.
    back: Duration,
}

impl Fault {
    /// Does it.
    fn make(name: &'static str, pause: Duration, back: Duration, fault: impl FnOnce()) -> Self {
        let at = Clock::default().both();
        fault();
        Self {
            name,
            at,
            done: Clock::default().utc(),
            pause,
            back,
        }
    }

    /// Asserts that nothing started in the pause, and that each gate admitted after it in time.
    fn judge(&self, starts: &Starts) {
        // What was granted at the fault starts within `max_delay`.
        let begin = self.done.plus(60 * MS).0;
        let opens = self.at.1.plus(self.pause).0;
        assert_eq!(starts.within(begin, opens, |_| true), 0, "{}", self.name);
        let back = [0, 1, 2].map(|gate| {
            let of_gate = |start: &&super::oracle::Start| {
                start.replica == gate && start.store_us >= opens.max(begin)
            };
            let first = starts.0.iter().find(of_gate).expect(self.name);
            Utc(first.store_us).since(self.at.1)
        });
        figure!("{}: each gate starts again after {back:?}", self.name);
        assert!(back.iter().all(|it| *it <= self.back), "{}", self.name);
    }
}

/// The answers to calls that were sent in this time.
fn sent_within(told: &[Told], from: Mono, until: Mono) -> impl Iterator<Item = &Told> {
    told.iter()
        .filter(move |one| from <= one.sent && one.sent < until)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_forgets_or_freezes_under_load_never_lets_more_than_the_quota_start() {
    let _alone = alone().await;
    let mut fleet = Fleet::start(QUOTA).await;
    let mut spray = Spray::default();
    for (at, replica) in fleet.replicas.iter().enumerate() {
        spray.at(at, replica.process.public, RETAIL_KEY, QUOTA);
    }
    tokio::time::sleep(1_200 * MS).await;

    let mut faults = Vec::new();
    let hold = 1_000 * MS;
    let made = Fault::make("FLUSHALL", hold, 2_000 * MS, || {
        assert_eq!(fleet.store.cli(&["FLUSHALL"]).trim(), "OK");
    });
    faults.push(made);
    tokio::time::sleep(2_000 * MS).await;

    let made = Fault::make("FUNCTION FLUSH", hold, 2_000 * MS, || {
        assert_eq!(fleet.store.cli(&["FUNCTION", "FLUSH"]).trim(), "OK");
    });
    faults.push(made);
    tokio::time::sleep(2_000 * MS).await;

    let made = Fault::make("kill -9 and restart", hold, 2_500 * MS, || {
        fleet.store.restart();
    });
    faults.push(made);
    tokio::time::sleep(2_300 * MS).await;

    let frozen = 3_000 * MS;
    let made = Fault::make("SIGSTOP for 3 s", frozen, frozen + 1_000 * MS, || {
        fleet.store.signal("STOP");
    });
    faults.push(made);
    let (from, _) = faults[3].at;
    tokio::time::sleep(frozen / 2).await;
    for replica in &fleet.replicas {
        let (status, _, body) = get(replica.process.admin, "/readyz").await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
    }
    tokio::time::sleep(from.plus(frozen).since(Clock::default().mono())).await;
    let thawed = Clock::default().mono();
    fleet.store.signal("CONT");
    tokio::time::sleep(1_100 * MS).await;

    let told = spray.end().await;
    fleet.assert_conserved().await;
    let starts = Starts::judged(&fleet.replicas, RETAIL, QUOTA, &fleet.upstream.seen());
    for fault in &faults {
        fault.judge(&starts);
    }
    // The first ones were throttled as long as no start was near.
    let away = sent_within(&told, from.plus(1_100 * MS), thawed);
    let away: Vec<&Told> = away.filter(|one| one.told < thawed).collect();
    assert!(away.len() >= 60, "{}", away.len());
    let mut longest = Duration::ZERO;
    for one in &away {
        assert_eq!(one.status, StatusCode::SERVICE_UNAVAILABLE, "{one:?}");
        assert_eq!(one.problem, REDUCED);
        assert!(["1", "2"].contains(&&*one.retry_after), "{one:?}");
        longest = longest.max(one.told.since(one.sent));
    }
    figure!(
        "away: {} calls refused, each within {longest:?}",
        away.len()
    );
}
