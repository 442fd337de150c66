//! A ledger that is not there, and one that is not the gate's own: neither is taken for an empty
//! beginning.

use crate::harness::*;
use http::StatusCode;
use std::path::Path;
use std::time::Duration;
use tollgate::testing::ledger::{Ledger, LedgerOptions};
use tollgate::testing::model::{Clock, Durability};

const MAY_CREATE: &str = "when_missing: create";

fn files_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with("-shm")).collect();
    names.sort();
    names
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

async fn ready(house: &Sandbox) -> bool {
    get(house.admin, "/readyz").await.0 == StatusCode::OK
}

async fn call(house: &Sandbox) -> StatusCode {
    send(house.public, segment(STUDIO_KEY)).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_without_a_ledger_exits_1_with_the_remedy_unless_it_may_create_one() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[(MAY_CREATE, "when_missing: refuse")]);
    let var = house.dir.path().join("var");
    let refused = || {
        let said = house.run(&["serve"]);
        assert_eq!(said.code, Some(1), "{}", said.err);
        for remedy in ["mount its disk", "tollgate restore --from", MAY_CREATE] {
            assert!(said.err.contains(remedy), "{remedy}: {}", said.err);
        }
    };
    refused();
    assert!(!var.exists(), "nothing is made that hides the mount point");
    // What a start that was killed at its first step leaves is no ledger either.
    std::fs::create_dir_all(&var).unwrap();
    std::fs::write(house.ledger(), "").unwrap();
    refused();
    assert_eq!(files_in(&var), ["ledger.db"]);
    std::fs::remove_file(house.ledger()).unwrap();
    house.edit("tollgate.yaml", "when_missing: refuse", "# not written");
    refused();

    house.edit("tollgate.yaml", "# not written", MAY_CREATE);
    let mut process = house.start().await;
    let created = |log: &str| log.matches("an empty one is created").count();
    let log = house.log();
    assert_eq!(created(&log), 1, "{log}");
    let line = log.lines().find(|line| created(line) == 1).unwrap();
    assert!(line.contains("WARN"), "{line}");
    let at = async || {
        let samples = scrape(house.admin).await;
        samples.sum("tollgate_ledger_created_timestamp_seconds", &[])
    };
    let created_at = at().await;
    let now = tollgate::testing::model::Clock::default().utc().seconds();
    let ago = now - i64::try_from(created_at).unwrap();
    assert!((0..60).contains(&ago), "{created_at}, {now}");
    assert_eq!(call(&house).await, StatusCode::OK);
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));

    house.edit("tollgate.yaml", MAY_CREATE, "when_missing: refuse");
    let _process = house.start().await;
    assert_eq!(call(&house).await, StatusCode::OK);
    assert_eq!(created(&house.log()), 1);
    assert_eq!(at().await, created_at);
    assert_eq!(whole_ledger(&house.ledger()).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_gates_ledger_put_in_the_place_of_ones_own_is_neither_recorded_in_nor_served() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let (house, other) = (
        Sandbox::new(upstream.address, &[]),
        Sandbox::new(upstream.address, &[]),
    );
    // The other one is longer: by its last seq it could be ours.
    let mut process = other.start().await;
    for _ in 0..5 {
        assert_eq!(call(&other).await, StatusCode::OK);
    }
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));

    let mut process = house.start().await;
    assert_eq!(call(&house).await, StatusCode::OK);
    let (ours, kept) = (house.ledger(), house.dir.path().join("kept"));
    std::fs::create_dir(&kept).unwrap();
    let swap = |from: &Path, to: &Path| {
        for name in files_in(from) {
            if !name.ends_with(".lock") {
                std::fs::rename(from.join(&name), to.join(&name)).unwrap();
            }
        }
    };
    let var = ours.parent().unwrap();
    let queries = [
        "/v1/records?after=0:1",
        "/v1/usage?month=2026-11",
        "/v1/accounts/1250000001",
    ];
    for path in queries {
        assert_eq!(get(house.admin, path).await.0, StatusCode::OK, "{path}");
    }
    swap(var, &kept);
    let _ = std::fs::remove_file(ours.with_file_name("ledger.db-shm"));
    swap(other.ledger().parent().unwrap(), var);

    assert_ne!(call(&house).await, StatusCode::OK);
    for path in queries {
        let (status, _, said) = get(house.admin, path).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("another ledger is at"), "{said}");
    }
    let quota = send(house.public, plain("GET", "/v1/quota", STUDIO_KEY, "")).await;
    assert_eq!(quota.0, StatusCode::SERVICE_UNAVAILABLE);
    until("the other ledger is noticed", async || {
        house.log().contains("another ledger is at")
    })
    .await;
    assert!(!ready(&house).await);
    assert_ne!(call(&house).await, StatusCode::OK);

    let theirs = house.dir.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    swap(var, &theirs);
    let _ = std::fs::remove_file(ours.with_file_name("ledger.db-shm"));
    assert_eq!(
        whole_ledger(&theirs.join("ledger.db")).len(),
        5,
        "untouched"
    );
    swap(&kept, var);
    until("ours is back", async || ready(&house).await).await;
    assert_eq!(call(&house).await, StatusCode::OK);
    for path in queries {
        assert_eq!(get(house.admin, path).await.0, StatusCode::OK, "{path}");
    }
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    // Two that were answered, and the one between that was told an error.
    assert_eq!(whole_ledger(&ours).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledger_is_put_back_from_its_backup_and_no_reader_of_records_misses_one() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let backup = house.dir.path().join("backup.db");
    let backup = backup.to_str().unwrap();
    let mut process = house.start().await;
    for _ in 0..3 {
        assert_eq!(call(&house).await, StatusCode::OK);
    }
    assert_eq!(house.run(&["backup", "--to", backup]).code, Some(0));
    for _ in 0..2 {
        assert_eq!(call(&house).await, StatusCode::OK);
    }
    let read = async |after: &str| {
        let path = format!("/v1/records?limit=100&after={after}");
        let (status, head, body) = get(house.admin, &path).await;
        let next = head
            .get("next-cursor")
            .map(|next| next.to_str().unwrap().to_owned());
        let body = String::from_utf8(body.to_vec()).unwrap();
        (status, next, body)
    };
    let (status, next, lines) = read("0").await;
    assert_eq!(
        (status, next.as_deref(), lines.lines().count()),
        (StatusCode::OK, Some("0:5"), 5)
    );
    let (_, next, lines) = read("0:5").await;
    assert_eq!((next.as_deref(), &*lines), (Some("0:5"), ""));
    let said = house.run(&["records", "--after", "0:2", "--limit", "2"]);
    assert_eq!(said.out.lines().count(), 2);
    assert!(said.err.ends_with("next cursor: 0:4\n"), "{}", said.err);

    let refused = house.run(&["restore", "--from", backup]);
    assert_eq!(refused.code, Some(1), "a gate runs");
    assert!(
        refused
            .err
            .contains("another tollgate is using this ledger"),
        "{}",
        refused.err
    );
    process.kill();
    let restored = house.run(&["restore", "--from", backup]);
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    for said in ["restored 1 times", "before-restore-1", "1:SEQ, at most 1:3"] {
        assert!(restored.out.contains(said), "{said}: {}", restored.out);
    }
    let seal = restored
        .out
        .lines()
        .find_map(|line| line.strip_prefix("seal "));
    // As killed, with its WAL: all five are in it.
    let aside = house.ledger().with_file_name("ledger.db.before-restore-1");
    assert_eq!(whole_ledger(&aside).len(), 5);

    let mut process = house.start().await;
    assert_eq!(call(&house).await, StatusCode::OK);
    for (after, on) in [("5", "1:3"), ("0:2", "1:2")] {
        let (status, next, why) = read(after).await;
        assert_eq!((status, next), (StatusCode::CONFLICT, None));
        assert!(why.contains(&format!("go on after {on}")), "{why}");
        let said = house.run(&["records", "--after", after]);
        assert_eq!(said.code, Some(1));
        assert!(
            said.err.contains(&format!("go on after {on}")),
            "{}",
            said.err
        );
    }
    let (_, next, lines) = read("1:3").await;
    assert_eq!(
        (next.as_deref(), lines.lines().count()),
        (Some("1:1000000000004"), 1)
    );
    assert_eq!(read("2:3").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(read("1:x").await.0, StatusCode::BAD_REQUEST);
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    let verified = house.run(&["verify", "--checkpoint", seal.unwrap()]);
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_of_uncertain_records_beside_a_ledger_is_a_warning_of_the_commands_that_read() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    Ledger::open(
        LedgerOptions {
            path: house.ledger(),
            durability: Durability::Strict,
            replica: String::new(),
            create: true,
            pending_limit: 10,
            stall_after: Duration::from_secs(3_600),
        },
        Clock::default(),
        |_| (),
    )
    .unwrap()
    .close(Duration::from_secs(10))
    .unwrap();
    let usage = || house.run(&["usage", "--format", "csv"]);
    let plain = usage();
    assert_eq!((plain.code, &*plain.err), (Some(0), ""));
    let note = house.dir.path().join("var/ledger.db-uncertain");
    for text in [&b"zzz"[..], b"\xff\xfe"] {
        std::fs::write(&note, text).unwrap();
        let warned = usage();
        assert_eq!((warned.code, &warned.out), (Some(0), &plain.out));
        assert!(warned.err.starts_with("warning: "), "{}", warned.err);
        assert!(warned.err.contains("ledger.db-uncertain"), "{}", warned.err);
    }
}
