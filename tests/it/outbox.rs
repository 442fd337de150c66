//! The records of a gate on their way to the collector: a real gate, a real NATS, and their faults.

use crate::bills::{CUSTOMER, call, into_last_month, seed};
use crate::harness::*;
use http::StatusCode;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tollgate::testing::ledger::{Collected, Ledger, LedgerOptions, Range, Reader};
use tollgate::testing::model::{Clock, Durability, Mode, Reason};
use tollgate::testing::nats::{Nats, StreamOptions};

const MIB: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(20);

/// The line of the settings that sends records by this server.
fn with_outbox(nats: &NatsServer, more: &str) -> String {
    format!(
        "outbox: {{nats: {{servers: [\"nats://127.0.0.1:{}\"]{more}}}}}\ncatalog: catalog.yaml",
        nats.port
    )
}

/// A gate with an outbox, whose second customer may call as often as it likes.
fn sandbox(upstream: &Upstream, nats: &NatsServer, more: &str) -> Sandbox {
    let section = with_outbox(nats, more);
    let house = Sandbox::new(upstream.address, &[("catalog: catalog.yaml", &section)]);
    house.edit("accounts.yaml", "qps: 20,", "qps: 900,");
    house
}

async fn nats() -> NatsServer {
    let server = NatsServer::chosen(NatsServer::wheel);
    server.ready().await;
    server
}

fn stream(max_bytes: i64) -> StreamOptions {
    stream_options(max_bytes)
}

const TEN_GIB: i64 = 10 << 30;

/// What collects in these tests: it takes what is there into a ledger of its own, and says so.
struct Collecting {
    nats: Nats,
    stream: StreamOptions,
    ledger: Ledger,
    dir: tempfile::TempDir,
    /// The first and the last seq of each range that came, in order.
    came: Vec<(u64, u64)>,
}

impl Collecting {
    async fn new(server: &NatsServer, max_bytes: i64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LedgerOptions {
            path: dir.path().join("collected.db"),
            durability: Durability::Relaxed,
            replica: "collector".to_owned(),
            create: true,
            pending_limit: 1,
            stall_after: SOON,
        };
        let nats = Nats::connect(&server.options()).await.unwrap();
        assert!(nats.connected(SOON).await);
        Self {
            nats,
            stream: stream(max_bytes),
            ledger: Ledger::open(options, Clock::default(), |_| ()).unwrap(),
            dir,
            came: Vec::new(),
        }
    }

    /// Takes what is there, and makes room for more.
    async fn pull(&mut self) {
        assert!(self.nats.connected(SOON).await);
        let records = self.nats.records(&self.stream).await.unwrap();
        let cursors = self.nats.bucket("tollgate_collected", 1).await.unwrap();
        let mut feed = records.feed("tollgate-collector").await.unwrap();
        loop {
            let found = feed.fetch(64, 16 * MIB, Duration::ZERO).await.unwrap();
            let Some(last) = found.last() else {
                return;
            };
            let ranges: Vec<Range> = found
                .iter()
                .map(|it| Range::decode(&it.bytes).unwrap())
                .collect();
            for (range, message) in ranges.iter().zip(&found) {
                assert_eq!(range.ledger_id, message.ledger_id);
                self.came.push((range.first_seq, range.last_seq));
            }
            for collected in self.ledger.collect(ranges).unwrap() {
                let Collected::Taken { ledger_id, seq, .. } = collected else {
                    panic!("{collected:?} of {:?}", self.came);
                };
                let value = format!(
                    r#"{{"seq":{seq},"collected_in":"00112233445566778899aabbccddeeff","restore_count":0}}"#
                );
                cursors.put(&ledger_id, value.into()).await.unwrap();
            }
            last.done().await.unwrap();
            records.forget_before(last.sequence + 1).await.unwrap();
        }
    }

    /// Pulls until all records of this ledger are here, and compares them one by one.
    async fn until_all_of(&mut self, ledger: &Path) {
        let theirs = records(ledger);
        for _ in 0..200 {
            self.pull().await;
            if records(&self.path()).len() >= theirs.len() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let ours = records(&self.path());
        let ids = |of: &[tollgate::testing::ledger::StoredRecord]| {
            of.iter().map(|it| it.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(ours.len(), theirs.len(), "{:?}", self.came);
        assert_eq!(ids(&ours), ids(&theirs));
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("collected.db")
    }

    /// No record was sent twice, and none was left out.
    fn assert_each_was_sent_once(&self) {
        let mut next = 1;
        for (first, last) in &self.came {
            assert_eq!(*first, next, "{:?}", self.came);
            next = last + 1;
        }
    }
}

/// The part of `/status` about the outbox.
async fn status(house: &Sandbox) -> Value {
    let (_, _, body) = get(house.admin, "/status").await;
    let status: Value = serde_json::from_slice(&body).unwrap();
    status["outbox"].clone()
}

async fn lag(house: &Sandbox) -> i64 {
    let metrics = scrape(house.admin).await;
    metrics.sum("tollgate_outbox_lag_records", &[]) as i64
}

async fn is_up(house: &Sandbox) -> bool {
    let metrics = scrape(house.admin).await;
    metrics.sum("tollgate_outbox_up", &[]) as i64 == 1
}

async fn until_sent(house: &Sandbox) {
    for _ in 0..400 {
        if is_up(house).await && lag(house).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never sent: {}", status(house).await);
}

/// Calls one after the other, all of which must be served.
async fn calls(house: &Sandbox, count: usize) {
    let mut client = Client::connect(house.public).await.unwrap();
    for _ in 0..count {
        let (code, _, body) = client.send(segment(RETAIL_KEY)).await.unwrap();
        assert_eq!(code, StatusCode::OK, "{body:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nats_is_killed_under_load_calls_go_on_and_every_record_arrives_once() {
    for server in NatsServer::each(&[]) {
        server.ready().await;
        is_killed_under_load(server).await;
    }
}

async fn is_killed_under_load(mut server: NatsServer) {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = sandbox(&upstream, &server, "");
    let mut gate = house.start().await;
    let mut collector = Collecting::new(&server, TEN_GIB).await;
    calls(&house, 700).await;
    until_sent(&house).await;
    collector.pull().await;
    server.kill();
    for _ in 0..6 {
        calls(&house, 300).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(!is_up(&house).await);
    assert_eq!(lag(&house).await, 1_800);
    let told = status(&house).await;
    assert_eq!(told["nats"]["up"], false);
    assert!(told["trouble"].is_string(), "{told}");
    server.restart();
    calls(&house, 100).await;
    until_sent(&house).await;
    collector.until_all_of(&house.ledger()).await;
    collector.assert_each_was_sent_once();
    gate.signal("TERM");
    assert_eq!(gate.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_store_of_nats_is_deleted_all_that_was_not_collected_is_sent_again() {
    let (upstream, mut server) = (Upstream::after(Duration::ZERO).await, nats().await);
    let house = sandbox(&upstream, &server, "");
    let _gate = house.start().await;
    let mut collector = Collecting::new(&server, TEN_GIB).await;
    calls(&house, 300).await;
    until_sent(&house).await;
    collector.until_all_of(&house.ledger()).await;
    for _ in 0..400 {
        if status(&house).await["collected_seq"] == 300 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(status(&house).await["collected_seq"], 300);
    // Sent, acknowledged, and not collected.
    calls(&house, 250).await;
    until_sent(&house).await;
    server.kill();
    server.delete_store();
    server.restart();
    // Nobody calls: it is seen all the same.
    let before = collector.came.len();
    collector.until_all_of(&house.ledger()).await;
    assert_eq!(collector.came[before].0, 301, "no more than that");
    calls(&house, 50).await;
    collector.until_all_of(&house.ledger()).await;
    collector.assert_each_was_sent_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_is_killed_at_any_moment_leaves_out_no_record_and_sends_none_twice() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (upstream, server) = (Upstream::after(Duration::ZERO).await, nats().await);
    let house = sandbox(&upstream, &server, "");
    let mut collector = Collecting::new(&server, TEN_GIB).await;
    let public = house.public;
    let load = tokio::spawn(async move {
        loop {
            // The gate may be dead.
            if let Ok(mut client) = Client::connect(public).await {
                while client.send(segment(RETAIL_KEY)).await.is_ok() {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    for round in 0..8 {
        let mut gate = house.start().await;
        tokio::time::sleep(Duration::from_millis(random.u64(50..900))).await;
        gate.kill();
        if round % 3 == 0 {
            collector.pull().await;
        }
    }
    load.abort();
    let mut gate = house.start().await;
    until_sent(&house).await;
    gate.signal("TERM");
    assert_eq!(gate.ended().await.code(), Some(0));
    collector.until_all_of(&house.ledger()).await;
    collector.assert_each_was_sent_once();
    assert!(collector.came.len() > 8, "{:?}", collector.came);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_stream_is_full_calls_go_on_and_the_rest_follows_as_there_is_room() {
    let (upstream, server) = (Upstream::after(Duration::ZERO).await, nats().await);
    let house = sandbox(&upstream, &server, ", max_bytes: 1MiB");
    // More than the stream holds.
    let before = (0..40_000).map(|n| {
        let at = into_last_month(n * 1_000);
        call(CUSTOMER, at, Mode::PerCall, Reason::Billable)
    });
    seed(&house.ledger(), before);
    let _gate = house.start().await;
    for _ in 0..400 {
        if status(&house).await["trouble"]
            .as_str()
            .is_some_and(|why| why.contains("full"))
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = status(&house).await;
    let trouble = told["trouble"].as_str().unwrap();
    assert!(trouble.contains("TOLLGATE_RECORDS is full"), "{trouble}");
    assert!(!is_up(&house).await);
    let waiting = lag(&house).await;
    calls(&house, 100).await;
    assert_eq!(lag(&house).await, waiting + 100, "it grows");
    let mut collector = Collecting::new(&server, MIB as i64).await;
    collector.until_all_of(&house.ledger()).await;
    collector.assert_each_was_sent_once();
    until_sent(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_otherwise_is_a_start_error_that_names_what_differs() {
    let (upstream, server) = (Upstream::after(Duration::ZERO).await, nats().await);
    let nats = Nats::connect(&server.options()).await.unwrap();
    assert!(nats.connected(SOON).await);
    nats.records(&stream(64 << 20)).await.unwrap();
    let house = sandbox(&upstream, &server, ", replicas: 3");
    let said = house.run(&["serve"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    for part in [
        "`outbox.nats`: the stream TOLLGATE_RECORDS is not as the settings say",
        "max_bytes is 67108864 and must be 10737418240",
        "replicas is 1 and must be 3",
        "nats stream edit TOLLGATE_RECORDS",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_starts_without_nats_and_sends_all_when_it_comes() {
    let (upstream, mut server) = (Upstream::after(Duration::ZERO).await, nats().await);
    server.kill();
    let house = sandbox(&upstream, &server, "");
    let _gate = house.start().await;
    calls(&house, 20).await;
    assert!(!is_up(&house).await);
    server.restart();
    until_sent(&house).await;
    let mut collector = Collecting::new(&server, TEN_GIB).await;
    collector.until_all_of(&house.ledger()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_says_each_second_up_to_when_its_ledger_is_whole_and_once_more_at_its_end() {
    let (upstream, server) = (Upstream::after(Duration::ZERO).await, nats().await);
    let house = sandbox(&upstream, &server, "");
    let nats = Nats::connect(&server.options()).await.unwrap();
    assert!(nats.connected(SOON).await);
    let bucket = nats.bucket("tollgate_watermarks", 1).await.unwrap();

    // Its clock is not trusted: it says that it is there, and no instant.
    let mut gate = house.start().await;
    calls(&house, 5).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let id = Reader::open(&house.ledger()).unwrap().ledger_id().unwrap();
    let told = async || {
        let value = bucket.get(&id).await.unwrap().unwrap();
        serde_json::from_slice::<Value>(&value.bytes).unwrap()
    };
    let there = told().await;
    assert_eq!(
        (&there["admitted_before_us"], &there["seq"]),
        (&Value::Null, &5.into())
    );
    gate.signal("TERM");
    assert_eq!(gate.ended().await.code(), Some(0));
    assert_eq!(told().await, there);

    trust(&house.ledger());
    let mut gate = house.start().await;
    let begin = Clock::default().utc();
    calls(&house, 5).await;
    let said = async || {
        let value = told().await;
        let at = value["admitted_before_us"].as_i64()?;
        Some((at, value["seq"].as_u64().unwrap()))
    };
    let mut last = None;
    for _ in 0..400 {
        last = said().await;
        if last.is_some_and(|(at, seq)| at > begin.0 && seq == 10) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(
        last.is_some_and(|(at, seq)| at > begin.0 && seq == 10),
        "{last:?}"
    );
    calls(&house, 7).await;
    let end = Clock::default().utc();
    gate.signal("TERM");
    assert_eq!(gate.ended().await.code(), Some(0));
    let (at, seq) = said().await.unwrap();
    assert!(at >= end.0 && seq == 17, "{at} {seq}: all of it");
    let collector = &mut Collecting::new(&server, TEN_GIB).await;
    collector.pull().await;
    assert_eq!(collector.came.last().unwrap().1, 17, "sent before its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_with_an_outbox_keeps_no_books_and_says_who_does() {
    let (upstream, server) = (Upstream::after(Duration::ZERO).await, nats().await);
    let house = sandbox(&upstream, &server, "");
    let gate = house.start().await;
    calls(&house, 3).await;
    let (code, _, body) = get_as(&house, "/v1/statements", RETAIL_KEY).await;
    let body = String::from_utf8_lossy(&body).into_owned();
    assert_ne!(code, StatusCode::OK, "{body}");
    assert!(body.contains("The bills are made elsewhere"), "{body}");
    drop(gate);
    for command in [
        ["statement", "--account", "1250000002"].as_slice(),
        &["report", "--month", "2026-10"],
    ] {
        let said = house.run(command);
        assert_eq!(said.code, Some(3), "{said:?}");
        assert!(
            said.err
                .contains("`outbox` sends the records of this ledger to the collector"),
            "{said:?}"
        );
    }
    let said = house.run(&["usage"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("(`outbox`)"), "{said:?}");
}

async fn get_as(
    house: &Sandbox,
    path: &str,
    key: &str,
) -> (StatusCode, http::HeaderMap, bytes::Bytes) {
    let request = plain("GET", path, key, "");
    let _ = house;
    send(house.public, request).await
}

/// Has the ledger remember a clock that was trusted for a day.
fn trust(ledger: &Path) {
    let options = LedgerOptions {
        path: ledger.to_owned(),
        durability: Durability::Strict,
        replica: "test".to_owned(),
        create: false,
        pending_limit: 1,
        stall_after: SOON,
    };
    let ledger = Ledger::open(options, Clock::default(), |_| ()).unwrap();
    ledger.keep(vec![trusted_clock()]).unwrap();
    ledger.close(SOON).unwrap();
}
