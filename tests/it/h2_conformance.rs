//! HTTP/2 frame by frame: what a client may send and what it may not, and attacks by it, from
//! `tests/h2/`.

use crate::harness::*;
use crate::tls::TlsGate;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What the h2 crate does otherwise than RFC 9113 says. Neither lets a call through that another
/// client could not have made: the first is served by nginx too, the second drops the trailers.
const KNOWN: [&str; 2] = [
    "a client preface without SETTINGS is an error",
    "a pseudo-header in the trailers is malformed",
];
/// An answer on a machine that builds and tests at once.
const PATIENT_SECONDS: &str = "--seconds=30";

async fn started(edits: &[(&str, &str)]) -> (Upstream, TlsGate) {
    let upstream = Upstream::after(Duration::ZERO).await;
    let one_worker = [("workers: auto", "workers: 1")];
    let gate = TlsGate::start_with(&upstream, &[&one_worker, edits].concat()).await;
    (upstream, gate)
}

/// Runs a script against the gate, as a customer that may call without a limit that matters.
async fn run(script: &str, gate: &TlsGate, more: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("target/venv/bin/python"));
    command
        .arg(root.join("tests/h2").join(script))
        .args(["--address", &gate.house.public.to_string()])
        .args([
            "--get",
            "/v1/portrait/segment",
            "--post",
            "/v1/portrait/segment",
        ])
        .args(["--header", &format!("x-api-key:{RETAIL_KEY}")])
        .args(more)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    tokio::task::spawn_blocking(move || said(&mut command))
        .await
        .unwrap()
}

fn unlimited(gate: &TlsGate) {
    gate.house.edit(
        "accounts.yaml",
        "order: Q-1, qps: 10,",
        "order: Q-1, qps: 100000,",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_http2_are_kept_frame_by_frame() {
    let (_upstream, gate) = started(&[]).await;
    unlimited(&gate);
    post_reload(gate.house.admin, "").await;
    let told = run("conformance.py", &gate, &[PATIENT_SECONDS]).await;
    let failed: Vec<&str> = told
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("FAIL  "))
        .collect();
    let known = |line: &str| KNOWN.iter().any(|known| line.ends_with(known));
    assert!(
        failed.len() == KNOWN.len() && failed.iter().copied().all(known),
        "{}{}",
        told.out,
        told.err
    );
    at_rest(gate.house.admin).await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_by_http2_are_bounded_and_others_are_answered_meanwhile() {
    let (_upstream, gate) = started(&[]).await;
    unlimited(&gate);
    post_reload(gate.house.admin, "").await;
    let pid = gate.process.child.id().to_string();
    let more = [PATIENT_SECONDS, "--pid", &pid, "--mebibytes", "32"];
    let told = run("attacks.py", &gate, &more).await;
    assert_eq!(told.code, Some(0), "{}{}", told.out, told.err);
    at_rest(gate.house.admin).await.assert_conserved();
    // Nobody without a key writes the log.
    let log = gate.house.log();
    assert!(log.lines().count() < 100, "{} lines", log.lines().count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stalls_before_its_first_request_is_closed_in_time() {
    let (_upstream, gate) = started(&[]).await;
    let more = [PATIENT_SECONDS, "--only", "stall: ", "--stall", "45"];
    let told = run("attacks.py", &gate, &more).await;
    assert_eq!(told.code, Some(0), "{}{}", told.out, told.err);
    assert!(told.out.contains("7 attacks, 7 bounded"), "{}", told.out);
}
