//! A ledger that cannot be written, seen from the clients' side: full, held, taken away, and killed
//! on top.

use crate::harness::*;
use http::StatusCode;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tollgate::testing::ledger::StoredRecord;
use tollgate::testing::model::{Outcome, Reason};

/// Lets no file of the process grow, or lets them grow again: what a full disk is to the ledger,
/// its log and all.
fn fill_disk(process: &Process, full: bool) {
    let size = if full {
        "--fsize=1:unlimited"
    } else {
        "--fsize=unlimited"
    };
    let pid = process.child.id().to_string();
    let done = Command::new("prlimit").args(["--pid", &pid, size]).output();
    let done = done.expect("this test needs prlimit: apt-get install util-linux");
    assert!(done.status.success(), "{done:?}");
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..800 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it does not come about: {what}");
}

async fn ready(house: &Sandbox) -> bool {
    get(house.admin, "/readyz").await.0 == StatusCode::OK
}

async fn call(house: &Sandbox, told: &mut ClientLog) {
    let (status, headers, body) = send(house.public, segment(RETAIL_KEY)).await;
    told.note(status, &headers, &body);
}

fn tc3() -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let action = "SegmentPortraitPic";
    signed(STUDIO_ID, STUDIO_SECRET, action, "{\"Image\":\"x\"}")
}

/// P3 and the promise of "not billed": an answered call is recorded once and as answered; one that
/// was told that it cannot be counted is not billable, if it is recorded at all; throttled ones are
/// not.
pub fn assert_kept_its_word(told: &ClientLog, records: &[StoredRecord]) {
    let recorded: HashMap<String, &StoredRecord> =
        records.iter().map(|r| (r.id.to_string(), r)).collect();
    assert_eq!(told.odd, Vec::<String>::new());
    for id in &told.answered {
        let record = recorded.get(id);
        let record = record.unwrap_or_else(|| panic!("{id} was answered and is not recorded"));
        assert_eq!(record.outcome, Outcome::Answered, "{id}");
        assert!(record.billable, "{id}");
    }
    for id in &told.not_counted {
        if let Some(record) = recorded.get(id) {
            assert_eq!(record.outcome, Outcome::GateFailed, "{id}");
            assert_eq!(record.reason, Reason::GateFailed, "{id}");
            assert!(!record.billable && record.status.is_none(), "{id}");
        }
    }
    for id in &told.throttled {
        assert!(
            !recorded.contains_key(id),
            "{id} was throttled and recorded"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_what_it_cannot_count_refuses_the_rest_and_recovers_by_itself() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut process = house.start().await;
    let mut told = ClientLog::default();
    call(&house, &mut told).await;
    assert_eq!(told.answered.len(), 1);
    assert!(ready(&house).await);

    fill_disk(&process, true);
    let (status, headers, body) = send(house.public, segment(RETAIL_KEY)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["content-type"], "application/problem+json");
    assert!(String::from_utf8_lossy(&body).contains("not billed"));
    told.note(status, &headers, &body);
    assert_eq!(upstream.seen().len(), 2, "the upstream had answered it");
    assert!(!ready(&house).await);
    let samples = scrape(house.admin).await;
    assert_eq!(samples.sum("tollgate_ledger_healthy", &[]), 0);
    assert_eq!(samples.sum("tollgate_ledger_pending", &[]), 1);

    // From here on nothing reaches the upstream, in either dialect.
    for _ in 0..3 {
        call(&house, &mut told).await;
    }
    let (status, headers, body) = send(house.public, tc3()).await;
    assert_eq!(status, StatusCode::OK);
    assert!(String::from_utf8_lossy(&body).contains("\"ServiceUnavailable\""));
    told.note(status, &headers, &body);
    assert_eq!(told.not_counted.len(), 5);
    assert_eq!(upstream.seen().len(), 2);

    fill_disk(&process, false);
    until("the ledger can be written again", async || {
        ready(&house).await
    })
    .await;
    call(&house, &mut told).await;
    assert_eq!(told.answered.len(), 2);
    let samples = at_rest(house.admin).await;
    samples.assert_conserved();
    assert_eq!(samples.sum("tollgate_ledger_healthy", &[]), 1);
    assert_eq!(samples.sum("tollgate_ledger_pending", &[]), 0);
    assert_eq!(samples.sum("tollgate_records_total", &["gate_failed"]), 1);

    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    let records = whole_ledger(&house.ledger());
    let outcomes: Vec<Outcome> = records.iter().map(|r| r.outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::Answered, Outcome::GateFailed, Outcome::Answered]
    );
    assert_kept_its_word(&told, &records);
}

/// Calls of both dialects that come all the time, and what they were told.
fn callers(house: &Sandbox) -> (tokio::task::JoinSet<()>, Arc<Mutex<ClientLog>>) {
    let told: Arc<Mutex<ClientLog>> = Arc::default();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let pace = Duration::from_millis(60);
        callers.spawn(keep_calling(
            house.public,
            || segment(RETAIL_KEY),
            pace,
            told.clone(),
        ));
    }
    callers.spawn(keep_calling(
        house.public,
        tc3,
        Duration::from_millis(40),
        told.clone(),
    ));
    (callers, told)
}

fn upstream_of_a_few_ms() -> impl Future<Output = Upstream> {
    Upstream::scripted(|_| async {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..30))).await;
        json(StatusCode::OK, "{\"Response\":{\"RequestId\":\"u\"}}")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_again_and_again_under_load_loses_and_doubles_nothing() {
    let upstream = upstream_of_a_few_ms().await;
    let house = Sandbox::new(upstream.address, &[]);
    house.edit("accounts.yaml", "qps: 20,", "qps: 60,");
    let mut process = house.start().await;
    let (mut callers, told) = callers(&house);
    for _ in 0..3 {
        let before = told.lock().answered.len();
        until("calls are answered", async || {
            told.lock().answered.len() > before + 20
        })
        .await;
        fill_disk(&process, true);
        until("the gate notices", async || !ready(&house).await).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        fill_disk(&process, false);
        until("the gate recovers", async || ready(&house).await).await;
    }
    let before = told.lock().answered.len();
    until("calls are answered", async || {
        told.lock().answered.len() > before
    })
    .await;
    callers.shutdown().await;
    at_rest(house.admin).await.assert_conserved();
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));

    let records = whole_ledger(&house.ledger());
    let told = told.lock();
    assert!(told.not_counted.len() > 10, "{told:?}");
    assert!(records.iter().any(|r| r.outcome == Outcome::GateFailed));
    assert_kept_its_word(&told, &records);
    // Everything that reached the upstream was admitted, and so recorded, in trouble or not.
    let seen: HashSet<String> = upstream
        .seen()
        .iter()
        .map(|seen| seen.headers["x-request-id"].to_str().unwrap().to_owned())
        .collect();
    let unseen: Vec<_> = records
        .iter()
        .filter(|r| !seen.contains(&r.id.to_string()))
        .collect();
    // A client that goes at the end may go before the upstream has its call.
    let goes_first = unseen
        .iter()
        .all(|r| r.outcome == Outcome::ClientIncomplete);
    assert!(goes_first, "{unseen:?}");
    assert_eq!(seen.len() + unseen.len(), records.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_is_killed_while_its_disk_is_full_keeps_every_answered_call() {
    let upstream = upstream_of_a_few_ms().await;
    let house = Sandbox::new(upstream.address, &[]);
    house.edit("accounts.yaml", "qps: 20,", "qps: 60,");
    let (mut callers, told) = callers(&house);
    for _ in 0..3 {
        let mut process = house.start().await;
        let before = told.lock().answered.len();
        until("calls are answered", async || {
            told.lock().answered.len() > before + 20
        })
        .await;
        fill_disk(&process, true);
        let before = told.lock().not_counted.len();
        until("calls fail", async || {
            told.lock().not_counted.len() > before + 3
        })
        .await;
        process.kill();
    }
    let mut process = house.start().await;
    let before = told.lock().answered.len();
    until("calls are answered", async || {
        told.lock().answered.len() > before
    })
    .await;
    callers.shutdown().await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    let records = whole_ledger(&house.ledger());
    assert_kept_its_word(&told.lock(), &records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_while_the_disk_is_full_ends_and_says_what_is_not_in_the_ledger() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut process = house.start().await;
    let mut told = ClientLog::default();
    call(&house, &mut told).await;
    // The log stays writable here: it is what this is about.
    std::fs::write(house.dir.path().join("log"), "").unwrap();
    fill_disk(&process, true);
    let pid = process.child.id().to_string();
    call(&house, &mut told).await;
    assert_eq!(told.not_counted.len(), 1);
    let lifted = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=4096:unlimited"])
        .status();
    assert!(lifted.unwrap().success());
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(1));
    let log = house.log();
    assert!(log.contains("1 calls are not in the ledger"), "{log}");
    assert_kept_its_word(&told, &whole_ledger(&house.ledger()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_transaction_that_holds_the_ledger_is_trouble_that_passes() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut process = house.start().await;
    let mut told = ClientLog::default();
    call(&house, &mut told).await;
    let other = rusqlite::Connection::open(house.ledger()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    call(&house, &mut told).await;
    assert_eq!(told.not_counted.len(), 1);
    assert!(!ready(&house).await);
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    until("the ledger can be written again", async || {
        ready(&house).await
    })
    .await;
    call(&house, &mut told).await;
    assert_eq!(told.answered.len(), 2);
    at_rest(house.admin).await.assert_conserved();
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    let records = whole_ledger(&house.ledger());
    assert_eq!(records.len(), 3);
    assert_kept_its_word(&told, &records);
}

/// A file that was unlinked takes writes and forgets them with the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_taken_away_is_trouble_until_it_is_put_back() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut process = house.start().await;
    let mut told = ClientLog::default();
    call(&house, &mut told).await;
    let var = house.dir.path().join("var");
    let aside = house.dir.path().join("aside");
    std::fs::rename(&var, &aside).unwrap();
    call(&house, &mut told).await;
    assert_eq!(
        told.not_counted.len(),
        1,
        "no answer for a call that nobody will find"
    );
    assert!(!ready(&house).await);
    let seen = upstream.seen().len();
    call(&house, &mut told).await;
    assert_eq!(upstream.seen().len(), seen);
    assert!(house.log().contains("ledger.db"), "{}", house.log());

    std::fs::rename(&aside, &var).unwrap();
    until("the ledger can be written again", async || {
        ready(&house).await
    })
    .await;
    call(&house, &mut told).await;
    assert_eq!(told.answered.len(), 2);
    at_rest(house.admin).await.assert_conserved();
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    let records = whole_ledger(&house.ledger());
    assert_eq!(records.len(), 3);
    assert_kept_its_word(&told, &records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_deleted_or_put_back_to_an_older_state_is_not_written() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut process = house.start().await;
    let mut told = ClientLog::default();
    call(&house, &mut told).await;
    let old = house.dir.path().join("old.db");
    let backup = ["backup", "--to", old.to_str().unwrap()];
    assert_eq!(house.run(&backup).code, Some(0));
    call(&house, &mut told).await;
    assert_eq!(told.answered.len(), 2);

    let ledger = house.ledger();
    for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let _ = std::fs::remove_file(ledger.with_file_name(file));
    }
    call(&house, &mut told).await;
    assert_eq!(told.not_counted.len(), 1);
    assert!(!ready(&house).await);
    assert!(
        !ledger.exists(),
        "no empty ledger takes the place of the one that is gone"
    );

    // Its seqs would be given a second time, and a biller's cursor would pass over the new calls.
    std::fs::copy(&old, &ledger).unwrap();
    until("the older ledger is noticed", async || {
        house.log().contains("it is an older one")
    })
    .await;
    assert!(!ready(&house).await);
    call(&house, &mut told).await;
    assert_eq!(told.not_counted.len(), 2);
    assert_eq!(whole_ledger(&ledger).len(), 1);
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(1));
    let log = house.log();
    assert!(log.contains("1 calls are not in the ledger"), "{log}");
    assert_eq!(whole_ledger(&ledger).len(), 1);
}

/// The one mistake that SQLite's documents warn of: what the WAL held is in no file any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_wal_that_was_deleted_under_the_gate_loses_no_answered_call() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut process = house.start().await;
    let mut told = ClientLog::default();
    for _ in 0..5 {
        call(&house, &mut told).await;
    }
    std::fs::remove_file(house.ledger().with_file_name("ledger.db-wal")).unwrap();
    for _ in 0..3 {
        call(&house, &mut told).await;
    }
    until("the ledger can be written", async || ready(&house).await).await;
    call(&house, &mut told).await;
    assert!(told.answered.len() >= 6, "{told:?}");
    at_rest(house.admin).await.assert_conserved();
    process.kill();
    let mut process = house.start().await;
    call(&house, &mut told).await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    assert_kept_its_word(&told, &whole_ledger(&house.ledger()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_became_read_only_hurts_no_running_gate_and_stops_the_next_with_a_reason()
{
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    // Root passes over permissions unless this capability is taken from it.
    let as_others = [
        "setpriv",
        "--bounding-set=-dac_override",
        "--inh-caps=-dac_override",
    ];
    let wrapper = match rustix::process::geteuid().is_root() {
        true => &as_others[..],
        false => &[],
    };
    let mut process = house.start_under(wrapper).await;
    let mut told = ClientLog::default();
    call(&house, &mut told).await;
    let var = house.dir.path().join("var");
    let allow = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&var, mode).unwrap();
    };
    allow(0o500);
    call(&house, &mut told).await;
    assert_eq!(told.answered.len(), 2);
    assert!(ready(&house).await);
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));

    for file in std::fs::read_dir(&var).unwrap() {
        let path = file.unwrap().path();
        if path != house.ledger() {
            allow(0o700);
            std::fs::remove_file(path).unwrap();
            allow(0o500);
        }
    }
    let refused = said(&mut house.command(wrapper, &["serve"]));
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    let ledger = house.ledger().display().to_string();
    assert!(refused.err.contains(&ledger), "{}", refused.err);
    assert!(refused.err.contains("Permission denied"), "{}", refused.err);
    allow(0o700);
    let records = whole_ledger(&house.ledger());
    assert_eq!(records.len(), 2);
    assert_kept_its_word(&told, &records);
}
