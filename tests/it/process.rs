//! The real binary from outside: its command line, its signals, its end, and the operator's
//! listener.

use crate::harness::*;
use http::{Request, StatusCode};
use http_body_util::Full;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tollgate::testing::ledger::Reader;
use tollgate::testing::model::{Clock, Mono, Month, Outcome, Reason};

const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");

fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

async fn get_json(admin: SocketAddr, path: &str) -> Value {
    let (status, _, body) = get(admin, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body:?}");
    serde_json::from_slice(&body).unwrap()
}

/// Asserts an admin refusal: its status, and a problem document that says the same.
async fn refused(admin: SocketAddr, path: &str, expected: StatusCode) -> String {
    let (status, headers, body) = get(admin, path).await;
    assert_eq!(status, expected, "{path}: {body:?}");
    assert_eq!(
        headers["content-type"], "application/problem+json",
        "{path}"
    );
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["status"], expected.as_u16(), "{path}");
    problem["detail"].as_str().unwrap().to_owned()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..800 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come about: {what}");
}

async fn until_not_ready(admin: SocketAddr) {
    until("/readyz turns 503", async || {
        get(admin, "/readyz").await.0 == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
}

// The command line.

#[test]
fn every_command_says_what_it_does_and_a_wrong_command_line_exits_2() {
    let run = |args: &[&str]| said(Command::new(BINARY).args(args));
    let general = run(&["--help"]);
    assert_eq!(general.code, Some(0));
    assert!(
        general.out.contains("Exit codes: 0 done; 1")
            && general.out.contains("error, warn, info or debug"),
        "{}",
        general.out
    );
    for (command, tells) in [
        ("serve", "SIGTERM, SIGINT or SIGQUIT drains"),
        ("check", "every mistake with its place"),
        ("demo", "temporary ledger"),
        ("usage", "--month <YYYY-MM>"),
        ("records", "next cursor"),
        ("backup", "must not exist yet"),
    ] {
        assert!(general.out.contains(command), "{command} is listed");
        let help = run(&[command, "--help"]);
        assert_eq!((help.code, help.err.as_str()), (Some(0), ""), "{command}");
        assert!(help.out.contains(tells), "{}", help.out);
        assert!(help.out.contains("--config"), "{}", help.out);
    }
    assert!(run(&["--version"]).out.starts_with("tollgate 0."));

    for wrong in [
        &["serve", "--colour"][..],
        &["sell"],
        &[],
        &["records", "--limit", "0"],
        &["records", "--after", "-1"],
        &["usage", "--month", "2026-13"],
        &["usage", "--account", "a b"],
        &["usage", "--format", "xml"],
        &["backup"],
    ] {
        let refused = run(wrong);
        assert_eq!(refused.code, Some(2), "{wrong:?}: {}", refused.err);
        assert_eq!(refused.out, "", "{wrong:?}");
        assert!(refused.err.contains("--help"), "{}", refused.err);
    }
    let month = run(&["usage", "--month", "2026-13"]).err;
    assert!(month.contains("write it as 2026-11"), "{month}");
}

#[test]
fn check_says_what_the_shipped_configuration_means() {
    let check = said(
        Command::new(BINARY)
            .arg("check")
            .env_remove("TOLLGATE_CONFIG"),
    );
    assert_eq!(check.code, Some(0), "{}", check.err);
    for told in [
        "config/tollgate.yaml: ok",
        "127.0.0.1:8080",
        "kept idle for 30s at any age",
        "4000 connections, idle 75s; drain 60s after a notice of 1s",
        "20 QPS shared in per-call mode",
        "free, 20 QPS for each action",
        "accounts: 4 with 6 key(s)",
        "1250000003",
        "stopped: arrears",
    ] {
        assert!(check.out.contains(told), "{told}: {}", check.out);
    }
}

#[test]
fn an_empty_tollgate_config_is_as_if_it_were_not_set() {
    let check = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        said(
            command
                .arg("check")
                .args(arguments)
                .env("TOLLGATE_CONFIG", ""),
        )
    };
    let shipped = check(&[]);
    assert_eq!(shipped.code, Some(0), "{}", shipped.err);
    assert!(
        shipped.out.contains("config/tollgate.yaml: ok"),
        "{}",
        shipped.out
    );
    // Who writes the flag means it.
    assert_eq!(check(&["--config", ""]).code, Some(2));
}

#[test]
fn every_mistake_of_the_configuration_is_told_with_its_place_and_exits_1() {
    let house = Sandbox::new(nowhere(), &[("max_delay: 50ms", "max_delay: 50")]);
    house.edit("catalog.yaml", "qps: 20 ", "qps: 0 ");
    house.edit("accounts.yaml", "mode: qps", "mode: by_moonlight");
    for command in ["check", "serve"] {
        let said = house.run(&[command]);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{command}");
        let lines: Vec<&str> = said.err.lines().collect();
        assert_eq!(lines.len(), 3, "{}", said.err);
        for (line, file) in lines.iter().zip(["tollgate", "catalog", "accounts"]) {
            let place = format!("{}:", house.file(&format!("{file}.yaml")).display());
            let rest = line.strip_prefix(&place);
            let rest = rest.unwrap_or_else(|| panic!("{line} begins with {place}"));
            let mut parts = rest.splitn(3, ':');
            for _ in 0..2 {
                assert!(parts.next().unwrap().parse::<u32>().unwrap() > 0, "{line}");
            }
            assert!(parts.next().unwrap().len() > 10, "{line}");
        }
    }
    std::fs::remove_file(&house.settings).unwrap();
    let said = house.run(&["serve"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("tollgate.yaml:1:1: cannot be read"),
        "{}",
        said.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_a_ledger_and_a_taken_port_exit_1_and_say_what_to_do() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let first = Sandbox::new(upstream.address, &[]);
    let _process = first.start().await;

    let ledger = first.ledger().display().to_string();
    let second = Sandbox::new(upstream.address, &[("../var/ledger.db", &ledger)]);
    let said = second.run(&["serve"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("another tollgate is using this ledger"),
        "{}",
        said.err
    );
    assert!(said.err.contains(&ledger), "{}", said.err);

    for (key, address) in [("listen", first.public), ("admin.listen", first.admin)] {
        let third = Sandbox::new(upstream.address, &[]);
        let own = if key == "listen" {
            third.public
        } else {
            third.admin
        };
        third.edit("tollgate.yaml", &own.to_string(), &address.to_string());
        let said = third.run(&["serve"]);
        assert_eq!(said.code, Some(1));
        let told = format!("cannot listen on {address} (`{key}`)");
        assert!(said.err.contains(&told), "{}", said.err);
        assert!(said.err.contains("choose another port"), "{}", said.err);
    }

    let (status, ..) = send(first.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::OK, "the first goes on");
    assert_eq!(records(&first.ledger()).len(), 1);
}

/// Runs what follows with so many open files at most.
fn with_files(files: u32) -> Vec<String> {
    let shell = format!("ulimit -n {files} && exec \"$@\"");
    let mut wrapper: Vec<String> = ["sh", "-c", &shell, "sh"].map(str::to_owned).into();
    // Root may raise the hard limit, and then there is nothing to refuse.
    if rustix::process::geteuid().is_root() {
        let without = "-sys_resource";
        wrapper.push("setpriv".to_owned());
        wrapper.extend(["bounding-set", "inh-caps"].map(|set| format!("--{set}={without}")));
    }
    wrapper
}

#[test]
fn too_few_open_files_for_what_is_written_exit_1_and_name_the_remedy() {
    let run = |files, connections: &str| {
        let connections = ("  connections: 4000\n", connections);
        let house = Sandbox::new(nowhere(), &[connections, ("workers: auto", "workers: 50")]);
        let wrapper = with_files(files);
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let said = said(&mut house.command(&wrapper, &["serve"]));
        assert_eq!(said.code, Some(1), "{}", said.err);
        said.err
    };
    let few = run(64, "  connections: 4000\n");
    for told in [
        "limits.connections: 4000 needs 8780 open files",
        "allows 64",
        "ulimit -n 8780",
        "LimitNOFILE=8780",
    ] {
        assert!(few.contains(told), "{told}: {few}");
    }
    assert!(!few.contains("lower"), "to nothing: {few}");
    let more = run(1016, "  connections: 4000\n");
    assert!(
        more.contains("or lower limits.connections to 118"),
        "{more}"
    );
    // What adapts needs one connection at least.
    let none = run(781, "");
    assert!(
        none.contains("to at least 782 (") && !none.contains("lower"),
        "{none}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_nobody_wrote_adapt_to_the_open_files_with_a_warning() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(
        upstream.address,
        &[
            ("  connections: 4000\n", ""),
            ("workers: auto", "workers: 20"),
        ],
    );
    // Each worker has files of its own.
    let wrapper = with_files(480 + 6 * 20 + 2 * 6);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let _process = house.start_under(&wrapper).await;
    let log = house.log();
    assert!(
        log.contains("allows 612 open files: 6 connections instead of 10000")
            && log.contains("LimitNOFILE=20600"),
        "{log}"
    );
    // As many as it says are served; the next one waits until another closes.
    let mut clients = Vec::new();
    for key in [RETAIL_KEY, STUDIO_KEY].repeat(3) {
        let mut client = Client::connect(house.public).await.unwrap();
        let (status, ..) = client.send(segment(key)).await.unwrap();
        assert_eq!(status, StatusCode::OK);
        clients.push(client);
    }
    let mut next = tokio::spawn(try_send(house.public, segment(RETAIL_KEY)));
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut next).await;
    assert!(waited.is_err(), "a seventh was served");
    drop(clients);
    assert_eq!(next.await.unwrap().unwrap().0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_all_workers_from_accepting_is_told_once_a_second() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[("workers: auto", "workers: 8")]);
    let process = house.start().await;
    let limit = |files: &str| {
        let pid = process.child.id().to_string();
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &pid, &format!("--nofile={files}:")]);
        assert!(prlimit.status().unwrap().success());
    };
    limit("3");
    let mut clients = Vec::new();
    for _ in 0..32 {
        clients.push(Wire::connect(house.public).await);
    }
    let mut operator = Wire::connect(house.admin).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let log = house.log();
    let told = log.matches("\"cannot accept\"").count();
    assert!((1..=3).contains(&told), "{told} times: {log}");
    let told = log.matches("\"cannot accept at the admin").count();
    assert!((1..=3).contains(&told), "{told} times: {log}");
    limit("1024");
    let ask = "GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(operator.exchange(ask).await.status, 200);
    for client in &mut clients {
        let reply = client.exchange("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(reply.status, 401, "it is served after all");
    }
}

// Its end.

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_finishes_every_call_and_leaves_a_whole_ledger_in_one_file() {
    let upstream = Upstream::scripted(|seen| async move {
        let slow = &seen.body[..] == b"slow";
        tokio::time::sleep(Duration::from_millis(if slow { 1_800 } else { 60 })).await;
        json(StatusCode::OK, "{}")
    })
    .await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut process = house.start().await;
    let told: Arc<Mutex<ClientLog>> = Arc::default();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let request = || segment(RETAIL_KEY);
        let pace = Duration::from_millis(100);
        callers.spawn(keep_calling(house.public, request, pace, told.clone()));
    }
    // In flight from before the signal until after the listener has closed.
    let slow = tokio::spawn(send(
        house.public,
        plain("POST", "/v1/portrait/segment", STUDIO_KEY, "slow"),
    ));
    until("the slow call is in flight", async || {
        upstream.seen().iter().any(|seen| &seen.body[..] == b"slow")
    })
    .await;

    process.signal("TERM");
    let clock = Clock::default();
    let signalled = clock.mono();
    until_not_ready(house.admin).await;
    // Load balancers have not noticed yet, so new connections are still served.
    let late = try_send(house.public, segment(STUDIO_KEY)).await;
    match late {
        Ok((status, ..)) => assert_eq!(status, StatusCode::OK),
        Err(error) => assert!(
            clock.mono().since(signalled) > Duration::from_millis(700),
            "{error}"
        ),
    }
    let (status, headers, _) = slow.await.unwrap();
    assert_eq!(status, StatusCode::OK, "a call in flight finishes");
    assert_eq!(headers["connection"], "close");
    assert_eq!(process.ended().await.code(), Some(0));
    callers.shutdown().await;

    let wal = house.dir.path().join("var/ledger.db-wal");
    assert!(!wal.exists(), "the WAL was copied into the file");
    let records = whole_ledger(&house.ledger());
    let recorded: HashSet<String> = records.iter().map(|r| r.id.to_string()).collect();
    let told = std::mem::take(&mut *told.lock());
    assert!(told.answered.len() > 10, "{told:?}");
    assert!(told.answered.iter().all(|id| recorded.contains(id)));
    assert!(
        told.odd.is_empty() && told.not_counted.is_empty(),
        "{told:?}"
    );
    assert!(
        records
            .iter()
            .all(|r| r.outcome == Outcome::Answered && r.billable)
    );
    let log = house.log();
    assert!(
        log.contains("drained") && !log.contains("deadline"),
        "{log}"
    );
}

/// Starts a call and waits until the upstream has it.
async fn call_in_flight(house: &Sandbox, upstream: &Upstream) -> tokio::task::JoinHandle<bool> {
    let public = house.public;
    let call = tokio::spawn(async move { try_send(public, segment(RETAIL_KEY)).await.is_ok() });
    until("the call is in flight", async || {
        !upstream.seen().is_empty()
    })
    .await;
    call
}

fn assert_one_gate_failed(house: &Sandbox) {
    let records = whole_ledger(&house.ledger());
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].outcome, Outcome::GateFailed);
    assert_eq!(records[0].reason, Reason::GateFailed);
    assert!(!records[0].billable && records[0].status.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_misses_the_deadline_of_the_drain_is_recorded_as_the_gates_failure_and_not_billed() {
    let upstream = Upstream::after(Duration::from_secs(40)).await;
    let house = Sandbox::new(upstream.address, &[("drain: 60s", "drain: 200ms")]);
    let mut process = house.start().await;
    let call = call_in_flight(&house, &upstream).await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    assert!(!call.await.unwrap(), "it got no answer");
    assert_one_gate_failed(&house);
    assert!(
        house.log().contains("the drain's deadline came"),
        "{}",
        house.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_sigterm_ends_the_drain_at_once_when_it_comes_more_than_a_second_later() {
    let upstream = Upstream::after(Duration::from_secs(40)).await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut process = house.start().await;
    let call = call_in_flight(&house, &upstream).await;
    process.signal("TERM");
    until("the listener is closed", async || {
        tokio::net::TcpStream::connect(house.public).await.is_err()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0), "{}", house.log());
    assert!(!call.await.unwrap());
    assert_one_gate_failed(&house);
    let log = house.log();
    assert!(
        log.contains("SIGTERM: draining") && log.contains("another SIGTERM came; dropping"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_signals_within_a_second_are_one_and_those_of_log_rotation_are_none() {
    let upstream = Upstream::after(Duration::from_millis(1_500)).await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut process = house.start().await;
    let call = call_in_flight(&house, &upstream).await;
    for name in ["USR1", "USR2", "ALRM"] {
        process.signal(name);
        let line = format!("SIG{name} is ignored");
        until(&line, async || house.log().contains(&line)).await;
    }
    process.signal("QUIT");
    until_not_ready(house.admin).await;
    for name in ["QUIT", "TERM", "INT", "USR1"] {
        process.signal(name);
    }
    assert_eq!(process.ended().await.code(), Some(0), "{}", house.log());
    assert!(call.await.unwrap(), "the call in flight was answered");
    let log = house.log();
    assert!(
        log.contains("SIGQUIT: draining")
            && log.contains("another SIGTERM within 1s is taken for the same one")
            && !log.contains("dropping what is left"),
        "{log}"
    );
    assert_eq!(whole_ledger(&house.ledger())[0].outcome, Outcome::Answered);
}

// Reload.

async fn reload(process: &Process, generation: u64) {
    process.signal("HUP");
    until("the new generation is in force", async || {
        scrape(process.admin)
            .await
            .sum("tollgate_config_generation", &[])
            == generation
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_puts_a_changed_file_in_force_and_a_broken_one_changes_nothing() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let process = house.start().await;
    let mut client = Client::connect(house.public).await.unwrap();
    let (status, ..) = client.send(segment(STUDIO_KEY)).await.unwrap();
    assert_eq!(status, StatusCode::OK);

    let opened = "        mode: per_call";
    house.edit(
        "accounts.yaml",
        opened,
        "        mode: per_call\n        stopped: violation",
    );
    reload(&process, 2).await;
    let (status, headers, _) = client.send(segment(STUDIO_KEY)).await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN, "on the same connection");
    assert_eq!(headers["content-type"], "application/problem+json");

    let broken = "stopped: violation\n        colour: red\n        packs: 1";
    house.edit("accounts.yaml", "stopped: violation", broken);
    process.signal("HUP");
    until("the reload is refused", async || {
        let samples = scrape(house.admin).await;
        samples.sum("tollgate_config_reload_failures_total", &[]) == 1
    })
    .await;
    let samples = scrape(house.admin).await;
    assert_eq!(samples.sum("tollgate_config_last_reload_success", &[]), 0);
    assert_eq!(samples.sum("tollgate_config_generation", &[]), 2);
    let (status, ..) = client.send(segment(STUDIO_KEY)).await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN, "the old policy holds");
    let (status, ..) = client.send(segment(RETAIL_KEY)).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let place = format!("{}:", house.file("accounts.yaml").display());
    assert!(house.log().contains(&place), "{}", house.log());

    house.edit("accounts.yaml", broken, "");
    reload(&process, 3).await;
    let samples = scrape(house.admin).await;
    assert_eq!(samples.sum("tollgate_config_last_reload_success", &[]), 1);
    let (status, ..) = client.send(segment(STUDIO_KEY)).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    at_rest(house.admin).await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_bought_while_the_gate_runs_adds_to_the_window_and_does_not_refill_it() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let process = house.start().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::connect(house.public).await.unwrap());
    }
    // 30 a second, all of them spent; then 5 more are bought.
    let mut proved = false;
    let clock = Clock::default();
    for attempt in 0..6 {
        let began = clock.mono();
        let spent = burst(&mut clients, 30).await;
        let (from, to) = [("qps: 20,", "qps: 25,"), ("qps: 25,", "qps: 20,")][attempt % 2];
        if attempt % 2 == 0 {
            house.edit("accounts.yaml", from, to);
            reload(&process, attempt as u64 + 2).await;
            let more = burst(&mut clients, 30).await;
            // On a machine so busy that this took a second, it shows nothing.
            proved = spent == 30 && clock.mono().since(began) < Duration::from_millis(900);
            if proved {
                assert_eq!(more, 5);
                break;
            }
        } else {
            house.edit("accounts.yaml", from, to);
            reload(&process, attempt as u64 + 2).await;
        }
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    assert!(proved, "no attempt fitted into a second");
    let starts: Vec<Mono> = records(&house.ledger()).iter().map(|r| r.start).collect();
    assert_capped(starts, 35);
}

/// Sends `calls` calls over the clients; how many were answered by the upstream.
async fn burst(clients: &mut [Client], calls: usize) -> usize {
    let share = calls.div_ceil(clients.len());
    let sent = clients
        .iter_mut()
        .enumerate()
        .map(|(at, client)| async move {
            let mut answered = 0;
            for _ in 0..share.min(calls.saturating_sub(at * share)) {
                let (status, ..) = client.send(segment(RETAIL_KEY)).await.unwrap();
                answered += usize::from(status == StatusCode::OK);
            }
            answered
        });
    futures_util::future::join_all(sent).await.into_iter().sum()
}

// What the biller and the operator read.

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_and_the_admin_paths_tell_the_same_while_the_gate_serves() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut process = house.start().await;
    for (key, calls) in [(STUDIO_KEY, 7), (RETAIL_KEY, 12)] {
        let mut client = Client::connect(house.public).await.unwrap();
        for _ in 0..calls {
            let (status, ..) = client.send(segment(key)).await.unwrap();
            assert_eq!(status, StatusCode::OK);
        }
    }
    let (status, ..) = send(house.public, segment(ARREARS_KEY)).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    let all = whole_ledger(&house.ledger());
    assert_eq!(all.len(), 19);
    let shanghai = jiff::tz::TimeZone::get("Asia/Shanghai").unwrap();
    let month = Month::of(all[18].admitted_at, &shanghai).to_string();

    // A month's counts, in three shapes and over the wire.
    let table = house.run(&["usage", "--month", &month]).out;
    assert!(table.contains("19 calls, 19 of them billable"), "{table}");
    let text = house
        .run(&["usage", "--month", &month, "--format", "json"])
        .out;
    let by_command: Value = serde_json::from_str(&text).unwrap();
    let by_wire = get_json(house.admin, &format!("/v1/usage?month={month}")).await;
    assert_eq!(by_command, by_wire);
    assert_eq!(by_wire["month"], month.as_str());
    let calls: Vec<u64> = by_wire["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["calls"].as_u64().unwrap())
        .collect();
    assert_eq!(calls, [7, 12]);
    let csv = house
        .run(&["usage", "--month", &month, "--format", "csv"])
        .out;
    let csv: Vec<&str> = csv.lines().collect();
    assert_eq!(csv.len(), 3);
    assert!(csv[0].starts_with("month,account,group,action,mode,outcome,"));
    let line = format!(
        "{month},1250000001,portrait-segmentation,SegmentPortraitPic,per_call,answered,true,,7,"
    );
    assert!(csv[1].starts_with(&line), "{}", csv[1]);
    let one = [
        "usage",
        "--month",
        &month,
        "--account",
        "1250000002",
        "--format",
        "json",
    ];
    let one: Value = serde_json::from_str(&house.run(&one).out).unwrap();
    assert_eq!(one["lines"].as_array().unwrap().len(), 1);
    assert_eq!(one["lines"][0]["calls"], 12);
    let path = format!("/v1/usage?month={month}&account=1250000002");
    assert_eq!(get_json(house.admin, &path).await, one);
    let none = house.run(&["usage", "--month", "2001-01"]);
    assert_eq!(
        (none.code, none.out.as_str()),
        (Some(0), "no calls in 2001-01\n")
    );

    // The cursor, page by page.
    let mut after = 0;
    let mut paged = Vec::new();
    loop {
        let cursor = after.to_string();
        let page = house.run(&["records", "--after", &cursor, "--limit", "8"]);
        assert_eq!(page.code, Some(0), "{}", page.err);
        let path = format!("/v1/records?after={after}&limit=8");
        let (status, headers, body) = get(house.admin, &path).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["content-type"], "application/x-ndjson");
        assert_eq!(body, page.out.as_bytes(), "the same page, byte for byte");
        let lines: Vec<Value> = page
            .out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let Some(last) = lines.last() else { break };
        after = last["seq"].as_u64().unwrap();
        paged.extend(lines);
    }
    let expected: Vec<Value> = all
        .iter()
        .map(|record| serde_json::to_value(record).unwrap())
        .collect();
    assert_eq!(paged, expected);
    let csv = house.run(&["records", "--format", "csv"]).out;
    let csv: Vec<&str> = csv.lines().collect();
    assert_eq!(csv.len(), 20);
    let fields = csv[0].split(',').count();
    assert!(csv.iter().all(|line| line.split(',').count() == fields));
    assert!(csv[1].starts_with(&format!("1,{},1250000001,", all[0].id)));

    // A cursor of another ledger is told to both, not answered with silence.
    let ahead = house.run(&["records", "--after", "20"]);
    assert_eq!(ahead.code, Some(1));
    assert!(
        ahead.err.contains("belongs to another ledger"),
        "{}",
        ahead.err
    );
    let detail = refused(house.admin, "/v1/records?after=20", StatusCode::BAD_REQUEST).await;
    assert!(detail.contains("belongs to another ledger"), "{detail}");

    // A copy, while it serves.
    let copy = house.dir.path().join("copy.db");
    let backup = ["backup", "--to", copy.to_str().unwrap()];
    let done = house.run(&backup);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.out.contains("copy.db"), "{}", done.out);
    assert_eq!(whole_ledger(&copy), all);
    assert_eq!(house.run(&backup).code, Some(1), "it never overwrites");

    // So is a cursor whose records have been deleted; the month's counts stay whole.
    let sql = rusqlite::Connection::open(house.ledger()).unwrap();
    let rolled_up = || -> i64 {
        sql.query_row("SELECT rolled_up FROM bounds", [], |row| row.get(0))
            .unwrap()
    };
    let rested = async {
        while rolled_up() < 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(BOUND, rested).await.unwrap();
    sql.execute_batch(
        "BEGIN IMMEDIATE; DELETE FROM raw WHERE seq <= 5; UPDATE bounds SET first_kept = 6; COMMIT",
    )
    .unwrap();
    drop(sql);
    let old = house.run(&["records", "--after", "4"]);
    assert_eq!((old.code, old.out.as_str()), (Some(1), ""), "{}", old.err);
    assert!(
        old.err.contains("those before 6 have been deleted"),
        "{}",
        old.err
    );
    let detail = refused(house.admin, "/v1/records?after=4", StatusCode::GONE).await;
    assert!(
        detail.contains("those before 6 have been deleted"),
        "{detail}"
    );
    let kept = house.run(&["records", "--after", "5"]);
    assert_eq!((kept.code, kept.out.lines().count()), (Some(0), 14));

    // And all of it when nothing serves any more.
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    assert_eq!(house.run(&["usage", "--month", &month]).out, table);
    assert_eq!(
        Reader::open(&house.ledger()).unwrap().last_seq().unwrap(),
        19
    );
}

#[test]
fn a_ledger_that_was_never_written_is_an_error_that_says_who_makes_it() {
    let house = Sandbox::new(nowhere(), &[]);
    let copy = house.dir.path().join("copy.db").display().to_string();
    for command in [&["usage"][..], &["records"], &["backup", "--to", &copy]] {
        let said = house.run(command);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{command:?}");
        assert!(
            said.err.contains("write `ledger: {when_missing: create}`"),
            "{}",
            said.err
        );
    }
    assert!(!house.ledger().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_the_listing_without_a_word() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    house.edit("accounts.yaml", "qps: 20,", "qps: 900,");
    let mut process = house.start().await;
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(Client::connect(house.public).await.unwrap());
    }
    // Far more than a pipe holds, so that writing fails in the middle.
    assert_eq!(burst(&mut clients, 800).await, 800);
    process.signal("TERM");
    process.ended().await;
    for format in ["jsonl", "csv"] {
        let shell = ["sh", "-c", "{ \"$@\"; echo $? >&2; } | head -1", "sh"];
        let said = said(&mut house.command(&shell, &["records", "--format", format]));
        assert_eq!(said.out.lines().count(), 1);
        assert_eq!(said.err, "0\n", "{format}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_tells_the_state_of_the_process_and_of_each_account() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let mut client = Client::connect(gate.public).await.unwrap();
    for _ in 0..22 {
        client.send(segment(STUDIO_KEY)).await.unwrap();
    }
    send(gate.public, segment(ARREARS_KEY)).await;
    let samples = gate.at_rest().await;

    for (path, told) in [
        ("/livez", "ok"),
        ("/readyz", "ready"),
        ("/", "/v1/records?after=CURSOR"),
    ] {
        let (status, _, body) = get(gate.admin, path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(String::from_utf8_lossy(&body).contains(told), "{path}");
    }
    let status = get_json(gate.admin, "/status").await;
    assert_eq!(status["state"], "serving");
    assert_eq!(
        status["listen"],
        serde_json::json!([gate.public.to_string()])
    );
    assert_eq!(status["policy"]["accounts"], 4);
    assert_eq!(status["policy"]["last_reload_success"], true);
    assert_eq!(status["ledger"]["healthy"], true);
    assert_eq!(status["ledger"]["last_seq"], samples.decided("admitted"));
    assert_eq!(status["calls"]["in_flight"], 0);
    assert!(status["ledger"]["free_bytes"].as_u64().unwrap() > 0);

    let accounts = get_json(gate.admin, "/v1/accounts").await;
    let ids: Vec<&str> = accounts
        .as_array()
        .unwrap()
        .iter()
        .map(|account| account["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        ["1250000001", "1250000002", "1250000003", "1250000004"]
    );
    let studio = get_json(gate.admin, "/v1/accounts/1250000001").await;
    let portrait = &studio["services"]["portrait-segmentation"];
    assert_eq!(
        portrait.as_array().unwrap().len(),
        1,
        "its actions share one gate"
    );
    assert_eq!(portrait[0]["mode"], "per_call");
    assert_eq!(portrait[0]["quota_qps"], 20);
    let counted =
        portrait[0]["admitted"].as_u64().unwrap() + portrait[0]["throttled"].as_u64().unwrap();
    assert_eq!(counted, 22);
    assert_eq!(
        studio["services"]["video-segmentation"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let arrears = get_json(gate.admin, "/v1/accounts/1250000003").await;
    let arrears = &arrears["services"]["portrait-segmentation"][0];
    assert_eq!(arrears["stopped"], "arrears");
    assert_eq!(
        (&arrears["admitted"], &arrears["refused"]),
        (&0.into(), &1.into())
    );
    for secret in [STUDIO_KEY, STUDIO_SECRET, STUDIO_ID] {
        assert!(!studio.to_string().contains(secret), "no secret leaves");
    }

    for (path, expected) in [
        ("/v1/accounts/1", StatusCode::NOT_FOUND),
        ("/v1/accounts/a%20b", StatusCode::NOT_FOUND),
        ("/nothing", StatusCode::NOT_FOUND),
        ("/v1/usage?month=2026-13", StatusCode::BAD_REQUEST),
        ("/v1/usage?account=a%20b", StatusCode::BAD_REQUEST),
        ("/v1/usage?colour=red", StatusCode::BAD_REQUEST),
        ("/v1/records?limit=0", StatusCode::BAD_REQUEST),
        ("/v1/records?limit=10001", StatusCode::BAD_REQUEST),
        ("/v1/records?after=x", StatusCode::BAD_REQUEST),
        ("/v1/records?after=-1", StatusCode::BAD_REQUEST),
        ("/v1/records?before=1", StatusCode::BAD_REQUEST),
    ] {
        let detail = refused(gate.admin, path, expected).await;
        assert!(!detail.is_empty(), "{path}");
    }
    for (path, told) in [
        (
            "/v1/usage?colour=red",
            r#"no parameter "colour" is known here: there is month and account"#,
        ),
        (
            "/v1/usage?month=2026-11&month=2026-12",
            "month is given twice: give it once",
        ),
        ("/v1/records?after=x", "after: \"x\" is not a cursor"),
        ("/v1/records?limit=x", "limit: from 1 to 10000"),
        (
            "/v1/statements/1250000001?month=13",
            "month: `13` is not a month",
        ),
    ] {
        let detail = refused(gate.admin, path, StatusCode::BAD_REQUEST).await;
        assert!(detail.starts_with(told), "{path}: {detail}");
    }
    for (path, method, allowed) in [
        ("/v1/records", "POST", "GET,HEAD"),
        ("/v1/reload", "GET", "POST"),
        ("/readyz", "POST", "GET,HEAD"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost");
        let request = request.body(Default::default()).unwrap();
        let (status, headers, body) = send(gate.admin, request).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(headers["allow"], allowed, "{path}");
        assert_eq!(headers["content-type"], "application/problem+json");
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["detail"], format!("this path takes {allowed}"));
    }
    let request = Request::post("/v1/reload?dry_run=yes").header("host", "localhost");
    let (status, _, body) = send(gate.admin, request.body(Default::default()).unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["detail"], "dry_run: write true or false");
    let after = gate.at_rest().await;
    assert_eq!(
        after.sum("tollgate_requests_received_total", &[]),
        samples.sum("tollgate_requests_received_total", &[]),
        "admin requests are no calls"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_drains_as_well() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut process = house.start().await;
    let (_, headers, _) = send(process.public, segment(STUDIO_KEY)).await;
    process.signal("INT");
    assert_eq!(process.ended().await.code(), Some(0));
    let by_id: HashMap<String, u64> = whole_ledger(&house.ledger())
        .iter()
        .map(|record| (record.id.to_string(), record.seq))
        .collect();
    assert_eq!(by_id[headers["x-request-id"].to_str().unwrap()], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_soon_after_the_start_logs_no_error() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(
        upstream.address,
        &[("drain_notice: 1s", "drain_notice: 100ms")],
    );
    for _ in 0..4 {
        let mut process = house.start().await;
        process.signal("TERM");
        assert_eq!(process.ended().await.code(), Some(0));
    }
    let log = house.log();
    assert!(log.contains("drained") && !log.contains("ERROR"), "{log}");
}

/// A supervisor that stopped reading is no reason to stop serving.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_up_no_call_and_its_lost_lines_are_counted() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[("workers: auto", "workers: 1")]);
    let mut command = house.command(&[], &["serve"]);
    command.env("TOLLGATE_LOG", "debug").stderr(Stdio::piped());
    let mut process = Process::start_by(&mut command, house.public, house.admin).await;
    let mut client = Client::connect(house.public).await.unwrap();
    // A line each: far more than the pipe and the gate's own buffer hold.
    for _ in 0..20_000 {
        let nobody = Request::get("/").header("host", "gate.test");
        let (status, _, _) = client
            .send(nobody.body(Full::default()).unwrap())
            .await
            .unwrap();
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    until("the lost lines are counted", async || {
        let samples = scrape(house.admin).await;
        samples.sum("tollgate_log_lines_dropped_total", &[]) > 0
    })
    .await;
    process.kill();
}

/// `/dev/full`: a log on a full disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_warning_that_cannot_be_written_does_not_stop_a_gate_and_a_lost_cursor_exits_1() {
    let upstream = Upstream::after(Duration::ZERO).await;
    // Shorter than `request_timeout`: a warning.
    let house = Sandbox::new(upstream.address, &[("  drain: 60s", "  drain: 5s")]);
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    assert!(house.run(&["check"]).err.contains("warning: "), "it warns");
    let mut serve = house.command(&[], &["serve"]);
    let mut process = Process::start_by(serve.stderr(full()), house.public, house.admin).await;
    let exit = |args: &[&str]| {
        let mut command = house.command(&[], args);
        let command = command.stdout(Stdio::null()).stderr(full());
        command.status().unwrap().code()
    };
    assert_eq!(exit(&["check"]), Some(0));
    assert_eq!(exit(&["usage"]), Some(0));
    assert_eq!(exit(&["records"]), Some(1), "the cursor is lost");
    assert_eq!(exit(&["refund", "--order", "none"]), Some(2));
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    house.edit("tollgate.yaml", "  drain: 5s", "  drain: 5");
    assert_eq!(exit(&["serve"]), Some(1));
}
