//! Files of the configuration that cannot be opened for as long as a file system does not answer.

use crate::harness::*;
use http::{Request, StatusCode};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tollgate::testing::model::Clock;

/// Whoever opens the file waits until this is dropped: the lease of another process is in the way.
struct Hung(Child);

impl Hung {
    fn new(file: &Path) -> Self {
        const LEASE: &str = "\
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open(sys.argv[1], 'r+')
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
sys.stdin.read()
";
        let mut child = Command::new("python3")
            .args(["-c", LEASE])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Sends the signal and expects an end soon.
async fn ends_at(mut process: Process, signal: &str) {
    let clock = Clock::default();
    let began = clock.mono();
    process.signal(signal);
    assert_eq!(process.ended().await.code(), Some(0), "{signal}");
    let took = clock.mono().since(began);
    assert!(took < Duration::from_secs(8), "{signal}: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_signals_are_heard_while_the_first_load_or_a_reload_waits_for_a_file() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    for signal in ["TERM", "INT", "QUIT"] {
        let hung = Hung::new(&house.file("accounts.yaml"));
        let mut command = house.command(&[], &["serve"]);
        command.env("TOLLGATE_LOG", "debug").stderr(Stdio::null());
        let starting = Process {
            child: command.spawn().unwrap(),
            public: house.public,
            admin: house.admin,
        };
        // Long enough that it listens for signals, and has come to the file.
        tokio::time::sleep(Duration::from_millis(400)).await;
        ends_at(starting, signal).await;
        drop(hung);

        let process = house.start().await;
        let hung = Hung::new(&house.file("accounts.yaml"));
        process.signal("HUP");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (status, ..) = send(house.public, segment(STUDIO_KEY)).await;
        assert_eq!(status, StatusCode::OK, "calls go on");
        ends_at(process, signal).await;
        drop(hung);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_waits_for_a_file_is_told_and_a_sighup_that_comes_meanwhile_is_kept() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let process = house.start().await;
    let hung = Hung::new(&house.file("accounts.yaml"));
    process.signal("HUP");
    tokio::time::sleep(Duration::from_millis(200)).await;
    process.signal("HUP");
    let told = "take longer than 10s to read";
    for _ in 0..120 {
        if house.log().contains(told) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(house.log().contains(told), "{}", house.log());
    drop(hung);
    let reloads = || house.log().matches("reload: nothing is different").count();
    eventually("both reloads are done", || reloads() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn impatient_clients_of_a_reload_pile_up_nothing_and_do_not_hold_up_the_end() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let process = house.start().await;
    let hung = Hung::new(&house.file("accounts.yaml"));
    let ask = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    // More than the pool has threads; each hangs up when the gate has had the time to read it.
    for _ in 0..600 {
        let mut impatient = Wire::connect(house.admin).await;
        impatient.write(ask).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let threads = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"));
    let threads: u32 = threads.unwrap().trim().parse().unwrap();
    assert!(threads < 40, "{threads} threads");
    let (status, headers, _) = send(
        house.admin,
        Request::post("/v1/reload?dry_run=true")
            .header("host", "localhost")
            .body(Default::default())
            .unwrap(),
    )
    .await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["retry-after"], "1");
    let (status, ..) = get(house.admin, "/v1/usage").await;
    assert_eq!(status, StatusCode::OK, "queries go on");
    ends_at(process, "TERM").await;
    drop(hung);

    let _process = house.start().await;
    let (status, told) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
}
