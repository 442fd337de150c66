//! A name server that does not answer is a limit like the others (P7).

use crate::failing_disk::disk;
use crate::harness::*;
use http::StatusCode;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tollgate::testing::model::{Clock, Outcome};

/// Set in the process that has namespaces of its own.
const INSIDE: &str = "TOLLGATE_TEST_NAMESPACES";

/// Runs the calling test again in a process with a network and a mount table of its own, without
/// root where the kernel lets users have them. True in that process.
pub fn is_inside<T>(here: &T) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let name = disk::test_name(here);
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net"]);
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command
    };
    if !unshare()
        .arg("true")
        .output()
        .is_ok_and(|done| done.status.success())
    {
        // Not by `eprintln!`, which is not shown of a test that passes.
        let _ = writeln!(
            std::io::stderr(),
            "\nNOT TESTED: {name} needs root or user namespaces (kernel.unprivileged_userns_clone=1)\n"
        );
        return false;
    }
    let done = unshare()
        .arg(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let log =
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && log.contains("1 passed"), "{log}");
    false
}

pub fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "{program} {arguments:?}"
    );
}

/// Puts a file of ours over one of the system's, in this mount namespace.
pub fn cover(file: &str, dir: &Path, text: &str) {
    let own = dir.join("cover");
    std::fs::write(&own, text).unwrap();
    run("mount", &["--bind", own.to_str().unwrap(), file]);
    std::fs::remove_file(own).unwrap();
}

fn threads(process: &Process) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.child.id()));
    tasks.unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_name_server_costs_one_thread_and_does_not_hold_up_the_end() {
    if !is_inside(&|| ()) {
        return;
    }
    run("ip", &["link", "set", "lo", "up"]);
    let dir = tempfile::tempdir().unwrap();
    cover("/etc/resolv.conf", dir.path(), "nameserver 127.0.0.1\n");
    cover("/etc/nsswitch.conf", dir.path(), "hosts: files dns\n");
    let server = std::net::UdpSocket::bind("127.0.0.1:53").unwrap();
    let queries = Arc::new(AtomicU32::new(0));
    let asked = queries.clone();
    std::thread::spawn(move || {
        while server.recv(&mut [0; 512]).is_ok() {
            asked.fetch_add(1, Ordering::SeqCst);
        }
    });

    let nowhere: SocketAddr = ([127, 0, 0, 1], 9).into();
    let named = ("http://127.0.0.1:9", "http://upstream.test:8000");
    let timeout = ("connect_timeout: 1s", "connect_timeout: 300ms");
    let house = Sandbox::new(nowhere, &[named, timeout, ("workers: auto", "workers: 2")]);
    let clock = Clock::default();
    let began = clock.mono();
    let mut process = house.start().await;
    let before = threads(&process);
    let mut most = before;
    for _ in 0..2 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..25 {
            calls.spawn(try_send(house.public, segment(RETAIL_KEY)));
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        most = most.max(threads(&process));
        while let Some(call) = calls.join_next().await {
            assert_eq!(call.unwrap().unwrap().0, StatusCode::BAD_GATEWAY);
        }
        most = most.max(threads(&process));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // One look-up, and a thread that the housekeeping starts for a moment.
    assert!(most <= before + 2, "{before} threads, then {most}");
    // An A and an AAAA, asked again every 5 s.
    let rounds = clock.mono().since(began).as_secs() / 5 + 1;
    let queries = u64::from(queries.load(Ordering::SeqCst));
    assert!((1..=2 * rounds).contains(&queries), "{queries} queries");
    let log = house.log();
    assert!(
        log.contains("its name was not looked up within 300ms"),
        "{log}"
    );

    let signalled = clock.mono();
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    let ended_after = clock.mono().since(signalled);
    assert!(ended_after < Duration::from_secs(4), "{ended_after:?}");
    let records = whole_ledger(&house.ledger());
    assert_eq!(records.len(), 50);
    assert!(
        records
            .iter()
            .all(|r| r.outcome == Outcome::UpstreamFailed && !r.billable)
    );
}
