//! The primary of the store changes under load: three servers, three sentinels, three gates.

use super::fleet::{Fleet, RETAIL, behind, beside, judges_time, sandbox_of, seconds};
use super::oracle::Starts;
use super::spray::{Spray, Told};
use crate::figure;
use crate::harness::{
    BOUND, Cut, FENCE, MASTER, RETAIL_KEY, StoreServer, Watched, eventually, said,
};
use futures_util::future::join_all;
use http::StatusCode;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate::testing::model::{Clock, Mono, Utc};

const MS: Duration = Duration::from_millis(1);
const QUOTA: u32 = 20;
/// How long a store that was promoted holds: what an old primary that is alone may still grant is
/// a second old then.
const HOLD: Duration = Duration::from_millis(4_100);
const REDUCED: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// Gates under load, and when they had the old primary.
struct Drill {
    fleet: Fleet<Watched>,
    spray: Spray,
    begun: Mono,
    /// The port of the old primary, as the sentinels say it.
    old: u16,
}

impl Drill {
    async fn begin(fleet: Fleet<Watched>) -> Self {
        let begun = Clock::default().mono();
        let mut spray = Spray::default();
        for (at, replica) in fleet.replicas.iter().enumerate() {
            spray.at(at, replica.process.public, RETAIL_KEY, QUOTA);
        }
        tokio::time::sleep(1_200 * MS).await;
        Self {
            old: fleet.store.primary(),
            fleet,
            spray,
            begun,
        }
    }

    /// Orders a failover, without the sentinels' election, which takes long on a busy machine.
    fn order(&self) {
        let said = self.fleet.store.sentinels[0].cli(&["SENTINEL", "FAILOVER", MASTER]);
        assert_eq!(said.trim(), "OK");
    }

    /// Waits until the first sentinel tells of another primary.
    async fn told(&self) {
        let port = self.fleet.store.sentinels[0].port;
        let mut sentinel = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let ask = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {MASTER}\r\n");
        let old = format!("\r\n{}\r\n", self.old);
        let until = Clock::default().mono().plus(BOUND);
        loop {
            sentinel.write_all(ask.as_bytes()).await.unwrap();
            let mut said = Vec::new();
            while said.iter().filter(|byte| **byte == b'\n').count() < 5 {
                assert!(sentinel.read_buf(&mut said).await.unwrap() > 0);
            }
            if !String::from_utf8(said).unwrap().contains(&old) {
                return;
            }
            assert!(Clock::default().mono() < until, "no failover");
            tokio::time::sleep(2 * MS).await;
        }
    }

    /// Waits until each gate admits again. Asserts that nothing was over the quota, on the clocks
    /// of both stores, over the change and at the door; that the new primary held; that calls were
    /// refused meanwhile, and those that were refused are not recorded.
    async fn judge(self, name: &str) {
        self.spray.admitted(&[0, 1, 2]).await;
        tokio::time::sleep(1_100 * MS).await;
        let told = self.spray.end().await;
        self.fleet.assert_conserved().await;
        let seen = self.fleet.upstream.seen();
        let starts = Starts::judged(&self.fleet.replicas, RETAIL, QUOTA, &seen);

        let epochs = starts.epochs();
        assert_eq!(epochs.len(), 2, "{name}: {epochs:?}");
        let of = |epoch: i64| starts.0.iter().filter(move |start| start.epoch == epoch);
        let last = of(epochs[0]).map(|it| it.store_us).max().unwrap();
        let first = of(epochs[1]).min_by_key(|it| it.store_us).unwrap();
        // The epoch is when the new primary was asked for the first time.
        let held = Utc(first.store_us).since(Utc(first.epoch));
        let left = of(epochs[0]).map(|it| it.left_ns).max().unwrap();
        let away = judge_refusals(&told, Mono(left), Mono(first.left_ns));
        figure!(
            "{name}: {away} calls refused; {:?} between the last start there and the first here, which \
             held {held:?}",
            Utc(first.store_us).since(Utc(last)),
        );
        assert!(held >= HOLD, "{name}: {held:?}");
        let admitted = told
            .iter()
            .filter(|one| one.status == StatusCode::OK)
            .count();
        let recorded = starts
            .0
            .iter()
            .filter(|it| it.left_ns >= self.begun.0)
            .count();
        assert_eq!(recorded, admitted, "{name}: recorded, answered");
    }
}

/// Asserts that calls were refused, with 503, between the last start of the old primary and the first
/// one of the new. The first ones may be throttled, as long as no start was near.
fn judge_refusals(told: &[Told], left: Mono, opened: Mono) -> usize {
    let from = left.plus(1_100 * MS);
    let is_away = |one: &&Told| one.sent >= from && one.told < opened;
    let away: Vec<&Told> = told.iter().filter(is_away).collect();
    assert!(!away.is_empty(), "no call was refused");
    for one in &away {
        assert_eq!(one.status, StatusCode::SERVICE_UNAVAILABLE, "{one:?}");
        assert_eq!(one.problem, REDUCED);
    }
    let known = [
        StatusCode::OK,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    let other = told.iter().find(|one| !known.contains(&one.status));
    assert!(other.is_none(), "{other:?}");
    away.len()
}

/// The primary is killed.
async fn killed() {
    let store = Watched::start(FENCE).await;
    let mut drill = Drill::begin(Fleet::over(store, QUOTA).await).await;
    drill.fleet.store.servers[0].kill();
    // The election has its turn where there is time for it.
    if !judges_time() {
        drill.order();
    }
    drill.told().await;
    drill.judge("kill -9").await;
}

/// The primary is frozen, and wakes when another one was promoted.
async fn frozen() {
    let store = Watched::start(FENCE).await;
    let drill = Drill::begin(Fleet::over(store, QUOTA).await).await;
    drill.fleet.store.servers[0].signal("STOP");
    drill.order();
    drill.told().await;
    drill.fleet.store.servers[0].signal("CONT");
    drill.judge("frozen and woken").await;
}

/// Three gates, of which the first reaches the sentinels by ways of its own that can be cut.
async fn with_one_apart(store: Watched) -> (Fleet<Watched>, Vec<Cut>) {
    let mut ways = Vec::new();
    for sentinel in &store.sentinels {
        ways.push(Cut::to(sentinel.port).await);
    }
    let apart = behind(ways.iter().map(|way| way.port));
    let near = behind(store.sentinels.iter().map(|it| it.port));
    let fleet = Fleet::with(store, QUOTA, [apart, near.clone(), near]).await;
    (fleet, ways)
}

/// Ends the connections of some gates to a server.
fn part(server: &StoreServer, gates: &[&str]) {
    for line in server.cli(&["CLIENT", "LIST"]).lines() {
        if gates
            .iter()
            .any(|gate| line.contains(&format!("name=tollgate-{gate} ")))
        {
            let id = line.split(' ').next().unwrap().trim_start_matches("id=");
            server.cli(&["CLIENT", "KILL", "ID", id]);
        }
    }
}

/// The primary is cut off from all but one gate, when another one was promoted.
async fn cut_off_with_a_gate() {
    let (store, cut) = Watched::with_a_cut(FENCE).await;
    assert_fence_is_needed(&store);
    let (fleet, ways) = with_one_apart(store).await;
    let drill = Drill::begin(fleet).await;
    drill.order();
    drill.told().await;
    // The other standby has not been told to leave: the old primary goes on with it, and does
    // not see it leave.
    cut.cut();
    ways.iter().for_each(Cut::cut);
    let cut_off = Clock::default().mono();
    let old = &drill.fleet.store.servers[0];
    part(old, &["gate-1", "gate-2"]);
    eventually("the old primary is without a standby", || {
        old.cli(&["SET", "x", "1"]).contains("NOREPLICAS")
    })
    .await;
    let alone = Clock::default().mono().since(cut_off);
    figure!("cut off: the old primary granted for {alone:?}");
    drill.spray.admitted(&[1, 2]).await;
    ways.iter().for_each(Cut::heal);
    drill.judge("cut off with a gate").await;
}

/// A gate does not start on servers of which one that is alone would go on.
fn assert_fence_is_needed(store: &Watched) {
    let set = |value| store.servers[0].cli(&["CONFIG", "SET", "min-replicas-to-write", value]);
    set("0");
    let nodes = behind(store.sentinels.iter().map(|it| it.port));
    let gate = sandbox_of("gate-9", QUOTA, ([127, 0, 0, 1], 1).into(), &nodes);
    // The way to the primary goes through this process.
    let serve = || said(&mut gate.command(&["timeout", "20"], &["serve"]));
    let unfit = tokio::task::block_in_place(serve);
    assert_eq!(unfit.code, Some(1), "{unfit:?}");
    assert!(unfit.err.contains("min-replicas-to-write"), "{unfit:?}");
    set("1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_primary_is_killed_frozen_or_cut_off_never_lets_more_than_the_quota_start() {
    let _turn = beside().await;
    if !judges_time() {
        let all = [
            tokio::spawn(killed()),
            tokio::spawn(frozen()),
            tokio::spawn(cut_off_with_a_gate()),
        ];
        for one in join_all(all).await {
            one.unwrap();
        }
        return;
    }
    for _ in 0..seconds(1).div_ceil(10) {
        killed().await;
        frozen().await;
        cut_off_with_a_gate().await;
    }
}
