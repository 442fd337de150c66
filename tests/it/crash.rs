//! kill -9 on the real binary at any moment, and the disk that is synced before an answer leaves.

use crate::harness::*;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tollgate::testing::model::{Clock, Mono, Outcome};

const KILLS: usize = 20;
const STUDIO_QUOTA: usize = 20;
const RETAIL_QUOTA: usize = 120;

/// P3 and P1 over one ledger and many lives. The clients go some way over their caps, spread over
/// the second, so that calls are in every stage when the kill comes.
#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_at_any_moment_every_answered_call_is_in_the_ledger_once_and_the_cap_held() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let upstream = Upstream::scripted(|_| async {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..40))).await;
        json(http::StatusCode::OK, "{\"Response\":{\"RequestId\":\"u\"}}")
    })
    .await;
    let house = Sandbox::new(upstream.address, &[]);
    house.edit("accounts.yaml", "qps: 20,", "qps: 110,");
    let told: Arc<Mutex<ClientLog>> = Arc::default();

    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let pace = Duration::from_millis(64);
        callers.spawn(keep_calling(
            house.public,
            || segment(RETAIL_KEY),
            pace,
            told.clone(),
        ));
    }
    for _ in 0..2 {
        let tc3 = || {
            signed(
                STUDIO_ID,
                STUDIO_SECRET,
                "SegmentPortraitPic",
                "{\"Image\":\"x\"}",
            )
        };
        let pace = Duration::from_millis(76);
        callers.spawn(keep_calling(house.public, tc3, pace, told.clone()));
    }

    let clock = Clock::default();
    let mut deaths = Vec::new();
    for _ in 0..KILLS {
        let mut process = house.start().await;
        tokio::time::sleep(Duration::from_millis(random.u64(100..900))).await;
        process.kill();
        deaths.push(clock.mono());
    }
    // Once more, to an orderly end.
    let mut process = house.start().await;
    let before = told.lock().answered.len();
    for _ in 0..400 {
        if told.lock().answered.len() > before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    callers.shutdown().await;
    let told = std::mem::take(&mut *told.lock());
    assert!(
        told.answered.len() > before,
        "it serves after {KILLS} kills"
    );
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));

    let records = whole_ledger(&house.ledger());
    let recorded: HashMap<String, _> = records.iter().map(|r| (r.id.to_string(), r)).collect();
    for id in &told.answered {
        let record = recorded.get(id);
        let record = record.unwrap_or_else(|| panic!("{id} was answered and is not recorded"));
        assert_eq!(record.outcome, Outcome::Answered);
        assert!(record.billable);
    }
    for id in &told.throttled {
        assert!(
            !recorded.contains_key(id),
            "{id} was throttled and recorded"
        );
    }
    assert_eq!(told.odd, Vec::<String>::new());
    assert_eq!(told.not_counted, Vec::<String>::new());

    let seen = upstream.seen();
    let id_of = |seen: &Seen| seen.headers["x-request-id"].to_str().unwrap().to_owned();
    let forwarded: HashSet<String> = seen.iter().map(id_of).collect();
    assert_eq!(forwarded.len(), seen.len(), "nothing is sent twice");
    for record in records.iter().filter(|r| r.outcome == Outcome::Answered) {
        assert!(forwarded.contains(&record.id.to_string()));
    }

    // P1 on the starts, which compare across the lives of the process.
    let mut starts: BTreeMap<&str, Vec<Mono>> = BTreeMap::new();
    for record in &records {
        starts
            .entry(record.account.as_str())
            .or_default()
            .push(record.start);
    }
    assert_capped(starts["1250000001"].clone(), STUDIO_QUOTA);
    assert_capped(starts["1250000002"].clone(), RETAIL_QUOTA);
    for (death, run) in deaths.iter().zip(2..) {
        let first = records.iter().filter(|r| r.run == run).map(|r| r.start);
        if let Some(first) = first.min() {
            let apart = first.since(*death);
            assert!(
                apart >= Duration::from_secs(1),
                "run {run} starts a call {apart:?} after the kill"
            );
        }
    }

    // P1 at the upstream's door, killed calls included: no call is seen before its start, and what
    // the machine's scheduling delayed it by is the only blur (20 ms where it is not busy).
    let mut blur = Duration::from_millis(20);
    for seen in &seen {
        if let Some(record) = recorded.get(&id_of(seen)) {
            assert!(seen.at >= record.start, "forwarded before its start");
            blur = blur.max(seen.at.since(record.start));
        }
    }
    for (account, quota) in [("1250000001", STUDIO_QUOTA), ("1250000002", RETAIL_QUOTA)] {
        let mut at: Vec<Mono> = seen
            .iter()
            .filter(|seen| seen.headers["x-tollgate-account"] == account)
            .map(|seen| seen.at)
            .collect();
        at.sort();
        for window in at.windows(quota + 1) {
            let span = window[quota].since(window[0]) + blur;
            assert!(span >= Duration::from_secs(1), "{account} at the door");
        }
    }

    // It proves something only if the kills met calls, and the clients met the cap.
    let killed = seen.len() - records.len();
    eprintln!(
        "{} answered, {} throttled, {} recorded, {killed} forwarded and killed before their record, blur {blur:?}",
        told.answered.len(),
        told.throttled.len(),
        records.len(),
    );
    assert!(told.answered.len() > 300 && told.throttled.len() > 3 && killed > 0);
}

/// For each call of a trace, whether its record was on the disk when its answer left: between the
/// head of the request and the first byte of the answer, the WAL is written and then synced.
fn synced_before_answered(trace: &str) -> Vec<bool> {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Step {
        Asked,
        Written,
        Synced,
    }
    let mut step = None;
    let mut calls = Vec::new();
    // By process id: a sync that has been entered but not left, with whether it covers what was
    // written.
    let mut syncing: HashMap<&str, bool> = HashMap::new();
    for line in trace.lines() {
        let Some((pid, event)) = line.split_once(' ') else {
            continue;
        };
        let event = event.trim_start();
        let is_sync = ["fdatasync(", "fsync("]
            .iter()
            .any(|name| event.starts_with(name));
        if event.contains("\"POST /v1/portrait/segment ") && event.contains("x-api-key") {
            step = Some(Step::Asked);
        } else if event.contains("-wal>") && event.starts_with("pwrite64(") && step.is_some() {
            step = Some(Step::Written);
        } else if event.contains("-wal>") && is_sync {
            let covers = step == Some(Step::Written);
            if event.contains("<unfinished") {
                syncing.insert(pid, covers);
            } else if covers {
                assert!(event.ends_with("= 0"), "{line}");
                step = Some(Step::Synced);
            }
        } else if event.contains("sync resumed>") {
            if syncing.remove(pid) == Some(true) && step == Some(Step::Written) {
                assert!(event.ends_with("= 0"), "{line}");
                step = Some(Step::Synced);
            }
        } else if event.contains("\"HTTP/1.1 200 OK")
            && event.contains("x-request-id")
            && let Some(step) = step.take()
        {
            calls.push(step == Step::Synced);
        }
    }
    calls
}

/// Runs lone calls through the binary under strace and judges the trace.
async fn traced(durability: &str, calls: usize) -> Vec<bool> {
    let upstream = Upstream::after(Duration::ZERO).await;
    let setting = format!("durability: {durability}");
    let house = Sandbox::new(upstream.address, &[("durability: strict", &setting)]);
    let trace = house.dir.path().join("trace");
    let found = std::process::Command::new("strace").arg("-V").output();
    assert!(
        found.is_ok_and(|found| found.status.success()),
        "this test needs strace: apt-get install strace"
    );
    // -D: the gate stays this test's child. -y: descriptors are shown with their paths.
    let calls_traced =
        "trace=fdatasync,fsync,pwrite64,write,writev,sendto,sendmsg,recvfrom,recvmsg,read,readv";
    let strace = [
        "strace",
        "-f",
        "-D",
        "-y",
        "-s",
        "400",
        "-e",
        calls_traced,
        "-o",
    ];
    let mut wrapper = strace.to_vec();
    wrapper.push(trace.to_str().unwrap());
    let mut process = house.start_under(&wrapper).await;
    let mut client = Client::connect(house.public).await.unwrap();
    for _ in 0..calls {
        let (status, ..) = client.send(segment(RETAIL_KEY)).await.unwrap();
        assert_eq!(status, http::StatusCode::OK);
    }
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    // strace writes on while the gate ends, and says when it has.
    for _ in 0..400 {
        let text = read(&trace);
        if text.contains("+++ exited with 0 +++")
            && text.matches("\"HTTP/1.1 200 OK").count() >= calls
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let text = read(&trace);
    let judged = synced_before_answered(&text);
    assert_eq!(
        judged.len(),
        calls,
        "strace shows every call; in a container it needs the capability SYS_PTRACE\n{}",
        house.log()
    );
    judged
}

fn read(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_written_and_synced_before_the_first_byte_of_its_answer() {
    assert_eq!(traced("strict", 5).await, [true; 5]);
}

/// The same eye on a relaxed ledger, which promises less: it sees the difference.
#[tokio::test(flavor = "multi_thread")]
async fn a_relaxed_ledger_answers_before_it_syncs() {
    assert!(traced("relaxed", 10).await.contains(&false));
}
