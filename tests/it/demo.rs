//! `tollgate demo` as somebody sees it who has just cloned the repository.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The real binary in the repository's root, with a directory of its own for temporary files.
fn demo(scratch: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("TMPDIR", scratch)
        .arg("demo")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for its end; a demo that does not end is killed and fails the test.
fn end(mut demo: Child) -> (Option<i32>, String, String) {
    let mut streams = (demo.stdout.take().unwrap(), demo.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        let (mut out, mut err) = (String::new(), String::new());
        streams.0.read_to_string(&mut out).unwrap();
        streams.1.read_to_string(&mut err).unwrap();
        (out, err)
    });
    for _ in 0..1_200 {
        if let Some(status) = demo.try_wait().unwrap() {
            let (out, err) = reader.join().unwrap();
            return (status.code(), out, err);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    demo.kill().unwrap();
    panic!("the demo does not end: {:?}", reader.join().unwrap());
}

fn interrupt(demo: &Child) {
    signal(demo, "INT");
}

fn signal(demo: &Child, name: &str) {
    let killed = Command::new("kill")
        .args(["-s", name, &demo.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

/// The row of `account` in the last table: cap, admitted, throttled, refused, recorded, peak.
fn last_row(out: &str, account: &str) -> [u64; 6] {
    let row = out
        .lines()
        .take_while(|line| !line.starts_with("cap kept"))
        .filter(|line| line.starts_with(account))
        .last()
        .unwrap_or_else(|| panic!("no row of {account} in:\n{out}"));
    let cells: Vec<u64> = row
        .split_whitespace()
        .skip(2)
        .map(|cell| cell.parse().unwrap())
        .collect();
    cells.try_into().unwrap()
}

#[test]
fn the_demo_shows_both_modes_at_their_caps_and_ends_with_usage_and_statement() {
    let scratch = tempfile::tempdir().unwrap();

    let (code, out, err) = end(demo(scratch.path(), &["--seconds", "4"]));

    assert_eq!(code, Some(0), "{out}\n{err}");
    assert_eq!(err, "", "nothing to warn of");
    let [cap, admitted, throttled, _, recorded, peak] = last_row(&out, "1250000001");
    assert_eq!((cap, recorded), (20, admitted), "{out}");
    assert!(admitted > 0 && throttled > 0 && peak <= 20, "{out}");
    let [cap, admitted, throttled, _, recorded, peak] = last_row(&out, "1250000002");
    assert_eq!((cap, recorded), (30, admitted), "{out}");
    assert!(admitted > 0 && throttled > 0 && peak <= 30, "{out}");
    let [_, admitted, _, refused, recorded, _] = last_row(&out, "1250000003");
    assert_eq!((admitted, recorded), (0, 0), "{out}");
    assert!(refused > 0, "{out}");
    for said in [
        "  page     http://127.0.0.1:",
        "cap kept: ",
        "conserved: received ",
        "conserved: admitted ",
        "calls of ",
        " of them billable",
        "SegmentCustomizedPortraitPic",
        "DescribeSegmentationTask",
        "Example Studio",
        "how it was computed",
    ] {
        assert!(out.contains(said), "{said:?} is missing in:\n{out}");
    }
    assert!(is_empty(scratch.path()), "the scratch ledger is gone");
}

#[test]
fn ctrl_c_ends_the_demo_cleanly_whenever_it_comes() {
    // While the gate still starts, and while the clients call.
    let (starting, calling) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let early = demo(starting.path(), &[]);
    let late = demo(calling.path(), &[]);
    for scratch in [&starting, &calling] {
        for _ in 0..2_400 {
            if !is_empty(scratch.path()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    interrupt(&early);
    std::thread::sleep(Duration::from_millis(1_500));
    interrupt(&late);
    for (child, scratch) in [(early, &starting), (late, &calling)] {
        let (code, out, err) = end(child);
        assert_eq!(code, Some(0), "{out}\n{err}");
        assert!(is_empty(scratch.path()), "the scratch ledger is gone");
    }
}

/// `tollgate demo | head`, and what log rotation sends: neither breaks a promise.
#[test]
fn a_reader_that_goes_away_ends_the_demo_cleanly_and_sigusr1_does_not() {
    let scratch = tempfile::tempdir().unwrap();
    let mut demo = demo(scratch.path(), &["--seconds", "60"]);
    let mut head = [0; 8];
    let mut out = demo.stdout.take().unwrap();
    out.read_exact(&mut head).unwrap();
    for name in ["USR1", "USR2"] {
        signal(&demo, name);
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(demo.try_wait().unwrap(), None, "it goes on");
    drop(out);
    let mut err = String::new();
    let mut words = demo.stderr.take().unwrap();
    words.read_to_string(&mut err).unwrap();
    assert_eq!((demo.wait().unwrap().code(), err.as_str()), (Some(0), ""));
    assert!(is_empty(scratch.path()), "the scratch ledger is gone");
}

/// The addresses that the introduction names.
fn addresses(out: &str) -> BTreeSet<std::net::SocketAddr> {
    let words = out.split(|c: char| c.is_whitespace() || "/()".contains(c));
    words.filter_map(|word| word.parse().ok()).collect()
}

/// The ledgers of the gates, side by side with the collected one, of which the statements are.
fn assert_one_bill(out: &str, collected: u64) {
    let (_, ledgers) = out.split_once("\nledger ").expect(out);
    let row = |begins: &str| -> [u64; 2] {
        let row = ledgers.lines().find(|line| line.starts_with(begins));
        let row = row.unwrap_or_else(|| panic!("no row of {begins} in:\n{out}"));
        let cells = row.strip_prefix(begins).unwrap().split_whitespace();
        let cells: Vec<u64> = cells.map(|cell| cell.parse().unwrap()).collect();
        cells.try_into().unwrap()
    };
    let gates = ["gate-1", "gate-2", "gate-3", "gate-4"].map(row);
    let sum = [0, 1].map(|column| gates.iter().map(|gate| gate[column]).sum::<u64>());
    assert_eq!(row("sum of the gates"), sum, "{out}");
    assert_eq!(row("collected"), sum, "{out}");
    let [calls, billable] = sum;
    assert_eq!(calls, collected, "{out}");
    let total = format!("{calls} calls, {billable} of them billable");
    assert_eq!(out.matches(&total).count(), 1, "one usage of all: {out}");
}

#[test]
fn three_gates_hold_one_quota_while_one_is_killed_and_one_is_added() {
    let scratch = tempfile::tempdir().unwrap();

    let (code, out, err) = end(demo(scratch.path(), &["--replicas", "3", "--seconds", "8"]));

    assert_eq!(code, Some(0), "{out}\n{err}");
    // A busy machine may make the store late. Nothing else is to be told.
    let told: Vec<&str> = err
        .lines()
        .filter(|line| !line.contains("the store is away"))
        .collect();
    assert_eq!(told, [""; 0], "nothing to warn of");
    let last = out.rsplit("\ngate  ").next().unwrap();
    let cells = |begins: &str| -> Vec<f64> {
        let row = last.lines().find(|line| line.starts_with(begins));
        let row = row.unwrap_or_else(|| panic!("no row of {begins} in:\n{out}"));
        let cells = row.strip_prefix(begins).unwrap().split_whitespace();
        cells.map_while(|cell| cell.parse().ok()).collect()
    };
    let (mut sum, mut in_all) = (0.0, 0.0);
    for gate in ["gate-1", "gate-2 (killed)", "gate-3", "gate-4"] {
        let [.., admitted, _, _, collected] = cells(gate)[..] else {
            panic!("{out}");
        };
        assert!(admitted > 0.0, "{gate}:\n{out}");
        // Calls that a gate had admitted when it was killed may have no record, or be counted no more.
        assert!(collected > 0.0, "{gate}:\n{out}");
        assert!(gate.contains("killed") || collected == admitted, "{out}");
        sum += admitted;
        in_all += collected;
    }
    let [.., admitted, throttled, _, collected] = cells("all")[..] else {
        panic!("{out}");
    };
    assert_eq!((admitted, collected), (sum, in_all), "{out}");
    assert_one_bill(&out, collected as u64);
    assert!(throttled > 0.0, "{out}");
    for (account, sold) in [("1250000001", 20.0), ("1250000002", 30.0)] {
        let [_, _, quota, peak] = cells(account)[..] else {
            panic!("{out}");
        };
        assert_eq!(quota, sold, "{out}");
        // Each gate alone would be far below it.
        assert!(peak <= quota && peak > quota * 0.7, "{out}");
    }
    for said in [
        "gate-2 is killed (kill -9)",
        "gate-4 is ready",
        "cap kept: over all gates ",
        "gate-1: conserved: received ",
        "gate-2: killed; its ledger has ",
        "gate-4: conserved: received ",
        "gate-2 is started again: what is left in its ledger goes to the collector",
        "The month is still open",
        "SegmentCustomizedPortraitPic",
        "Example Studio",
        "how it was computed",
    ] {
        assert!(out.contains(said), "{said:?} is missing in:\n{out}");
    }
    assert!(is_empty(scratch.path()), "the ledgers are gone");
    let addresses = addresses(&out);
    assert_eq!(
        addresses.len(),
        11,
        "three gates, the store, NATS, the collector, the upstream: {out}"
    );
    for address in addresses {
        assert!(
            std::net::TcpStream::connect(address).is_err(),
            "{address} still listens"
        );
    }
}

#[test]
fn ctrl_c_ends_the_demo_of_three_gates_while_they_start() {
    let scratch = tempfile::tempdir().unwrap();
    let demo = demo(scratch.path(), &["--replicas", "3"]);
    let has_begun = || {
        let site = std::fs::read_dir(scratch.path()).unwrap().next();
        site.is_some_and(|site| site.unwrap().path().join("gate-1").exists())
    };
    for _ in 0..2_400 {
        if has_begun() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&demo);
    let (code, out, err) = end(demo);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
    assert!(is_empty(scratch.path()), "the ledgers are gone");
}

#[test]
fn without_a_redis_server_the_demo_of_three_gates_says_what_to_install() {
    let programs = tempfile::tempdir().unwrap();
    assert_says_what_to_install(programs.path(), "redis-server");
}

#[test]
fn without_a_nats_server_the_demo_of_three_gates_says_what_to_install() {
    let programs = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let redis = std::env::split_paths(&path)
        .map(|directory| directory.join("redis-server"))
        .find(|program| program.exists())
        .expect("redis-server, as tests/needs.sh installs it");
    std::os::unix::fs::symlink(redis, programs.path().join("redis-server")).unwrap();
    assert_says_what_to_install(programs.path(), "nats-server");
}

/// The programs that there are stand in `path`.
fn assert_says_what_to_install(path: &Path, missing: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let said = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("TMPDIR", scratch.path())
        .env("PATH", path)
        .args(["demo", "--replicas", "3"])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{err}");
    for words in ["there is no", "apt-get install"] {
        assert!(err.contains(&format!("{words} {missing}")), "{err}");
    }
    assert!(is_empty(scratch.path()), "nothing is left");
}
