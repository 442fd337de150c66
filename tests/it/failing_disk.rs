//! The real gate on a disk that fails, or does not answer: what its clients are told, and what a
//! power cut leaves.

#[path = "../disk/mod.rs"]
pub mod disk;

use crate::harness::{
    ClientLog, Process, RETAIL_KEY, Sandbox, Upstream, at_rest, get, records, segment, send,
};
use crate::ledger_trouble::assert_kept_its_word;
use disk::{Disk, Word};
use http::StatusCode;
use std::time::Duration;

struct DiskSandbox {
    house: Sandbox,
    disk: Disk,
    _upstream: Upstream,
    _home: tempfile::TempDir,
}

impl DiskSandbox {
    async fn new(edits: &[(&str, &str)]) -> Self {
        let upstream = Upstream::after(Duration::ZERO).await;
        let home = tempfile::tempdir().unwrap();
        let disk = Disk::new(home.path());
        let ledger = disk.root().join("ledger.db");
        let mut edits = edits.to_vec();
        edits.push(("../var/ledger.db", ledger.to_str().unwrap()));
        Self {
            house: Sandbox::new(upstream.address, &edits),
            disk,
            _upstream: upstream,
            _home: home,
        }
    }

    async fn start(&self) -> Process {
        let house = &self.house;
        let mut command = house.command(&[], &["serve"]);
        command.envs(self.disk.environment());
        Process::start_by(
            command.stderr(std::process::Stdio::null()),
            house.public,
            house.admin,
        )
        .await
    }

    async fn is_ready(&self) -> bool {
        get(self.house.admin, "/readyz").await.0 == StatusCode::OK
    }

    async fn call(&self, told: &mut ClientLog) -> StatusCode {
        let (status, headers, body) = send(self.house.public, segment(RETAIL_KEY)).await;
        told.note(status, &headers, &body);
        status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_every_sync_fails_no_call_is_answered_and_afterwards_nothing_is_missing() {
    let sandbox = DiskSandbox::new(&[]).await;
    let disk = &sandbox.disk;
    let mut process = sandbox.start().await;
    let mut told = ClientLog::default();
    for _ in 0..5 {
        assert_eq!(sandbox.call(&mut told).await, StatusCode::OK);
    }
    disk.set(Word::FailWal, disk::ALL);
    disk.set(Word::FailDb, disk::ALL);
    for _ in 0..20 {
        assert_eq!(
            sandbox.call(&mut told).await,
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert!(!sandbox.is_ready().await);
    }
    // The first call found it out; the repairs have failed since.
    assert!(disk.get(Word::Failed) >= 1);
    disk.set(Word::FailWal, 0);
    disk.set(Word::FailDb, 0);
    while !sandbox.is_ready().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..5 {
        assert_eq!(sandbox.call(&mut told).await, StatusCode::OK);
    }
    at_rest(sandbox.house.admin).await.assert_conserved();
    process.kill();
    let cut = disk.root().with_file_name("cut");
    disk.power_cut(disk.root(), &cut, 7);
    assert_kept_its_word(&told, &records(&cut.join("ledger.db")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_waits_for_its_disk_can_be_ended() {
    let sandbox = DiskSandbox::new(&[]).await;
    let house = &sandbox.house;
    sandbox.disk.set(Word::Hang, 1);
    let mut command = house.command(&[], &["serve"]);
    command
        .envs(sandbox.disk.environment())
        .stderr(std::process::Stdio::null());
    let mut process = Process {
        child: command.spawn().unwrap(),
        public: house.public,
        admin: house.admin,
    };
    disk::eventually("it hangs", || sandbox.disk.get(Word::Hanging) > 0);
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_answer_is_told_to_clients_and_does_not_hold_up_the_end() {
    let sandbox = DiskSandbox::new(&[
        ("stall_after: 30s", "stall_after: 300ms"),
        ("  drain: 60s", "  drain: 1s"),
    ])
    .await;
    let disk = &sandbox.disk;
    let mut process = sandbox.start().await;
    let mut told = ClientLog::default();
    assert_eq!(sandbox.call(&mut told).await, StatusCode::OK);
    disk.set(Word::Hang, 1);
    // It was forwarded, and waits for its record.
    assert_eq!(
        sandbox.call(&mut told).await,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert!(!sandbox.is_ready().await);
    let metrics = at_rest_but_for_the_disk(&sandbox).await;
    assert_eq!(metrics, 0, "`ledger_healthy`");
    assert_eq!(
        sandbox.call(&mut told).await,
        StatusCode::SERVICE_UNAVAILABLE
    );
    disk.set(Word::Hang, 0);
    while !sandbox.is_ready().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sandbox.call(&mut told).await, StatusCode::OK);
    at_rest(sandbox.house.admin).await.assert_conserved();
    assert_kept_its_word(&told, &records(&disk.root().join("ledger.db")));

    // And for ever.
    disk.set(Word::Hang, 1);
    assert_eq!(
        sandbox.call(&mut told).await,
        StatusCode::SERVICE_UNAVAILABLE
    );
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(1));
    // What the process could not correct any more, the next one does.
    disk.set(Word::Hang, 0);
    let _process = sandbox.start().await;
    assert_kept_its_word(&told, &records(&disk.root().join("ledger.db")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_told_an_error_is_not_billed_though_the_gate_is_killed_at_once() {
    let sandbox = DiskSandbox::new(&[]).await;
    let disk = &sandbox.disk;
    let mut process = sandbox.start().await;
    let mut told = ClientLog::default();
    assert_eq!(sandbox.call(&mut told).await, StatusCode::OK);
    disk.set(Word::FailWal, disk::ALL);
    assert_eq!(
        sandbox.call(&mut told).await,
        StatusCode::SERVICE_UNAVAILABLE
    );
    process.kill();
    disk.set(Word::FailWal, 0);
    // A copy would keep the row as it is.
    let copy = disk.root().join("copy.db");
    let backup = || {
        sandbox
            .house
            .run(&["backup", "--to", copy.to_str().unwrap()])
    };
    let refused = backup();
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("Start the gate on it once"),
        "{}",
        refused.err
    );
    let _process = sandbox.start().await;
    assert_eq!(sandbox.call(&mut told).await, StatusCode::OK);
    let copied = backup();
    assert_eq!(copied.code, Some(0), "{}", copied.err);
    let records = records(&disk.root().join("ledger.db"));
    // Its row had reached the page cache, or this would show nothing.
    assert_eq!(records.len(), 3);
    assert_kept_its_word(&told, &records);
    let left = std::fs::read_dir(disk.root()).unwrap();
    let mut names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.all(|name| !name.ends_with("-uncertain")));
}

async fn at_rest_but_for_the_disk(sandbox: &DiskSandbox) -> u64 {
    let samples = crate::harness::scrape(sandbox.house.admin).await;
    samples.sum("tollgate_ledger_healthy", &[])
}
