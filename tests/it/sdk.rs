//! The vendor's own Python SDK as the client (PROTOCOL §4 and §9): what it makes of our answers is
//! what a customer sees.

use crate::harness::*;
use http::Response;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use tollgate::testing::config::{Config, Credential};

/// An upstream with the vendor's schemas (PROTOCOL §8), which names the call as the gate does.
async fn portrait_upstream() -> Upstream {
    Upstream::scripted(|seen| async move {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let id = seen.headers["x-request-id"].to_str().unwrap();
        let fields = match seen.headers["x-tollgate-action"].to_str().unwrap() {
            "SegmentPortraitPic" => {
                r#""ResultImage":null,"ResultMask":"iVBORw0KGgo=","HasForeground":true"#
            }
            "SegmentCustomizedPortraitPic" => {
                r#""PortraitImage":"iVBORw0KGgo=","MaskImage":null,
                   "ImageRects":[{"X":1,"Y":2,"Width":3,"Height":4,"Label":"人像"}]"#
            }
            _ => r#""TaskStatus":"PROCESSING","ResultVideoUrl":null,"ErrorMsg":null"#,
        };
        let fields = match String::from_utf8_lossy(&seen.body).contains("too large") {
            true => r#""Error":{"Code":"FailedOperation.ImageSizeExceed","Message":"too large"}"#,
            false => fields,
        };
        let body = format!(r#"{{"Response":{{{fields},"RequestId":"{id}"}}}}"#);
        // With this charset the SDK takes an error for a success (PROTOCOL §4).
        Response::builder()
            .header("content-type", "application/json; charset=utf-8")
            .body(body.into())
            .unwrap()
    })
    .await
}

/// Gives the accounts that the shipped files give API keys only a key pair too.
fn with_key_pairs(config: &mut Config) {
    for (account, id, secret) in [
        ("1250000003", "AKIDARREARS", "secret-of-arrears"),
        ("1250000004", "AKIDVIDEO", "secret-of-video"),
    ] {
        let account = config
            .accounts
            .iter_mut()
            .find(|known| known.id.as_str() == account)
            .unwrap();
        let pair = Credential::Tc3 {
            secret_id: id.into(),
            secret_key: secret.into(),
        };
        account.keys = [&account.keys[..], &[pair.into()]].concat().into();
    }
}

/// Runs `tests/sdk/portrait.py` against the gate; what it wrote.
async fn python(gate: &Gate, kind: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run `make test`, which makes it",
        python.display()
    );
    let mut command = Command::new("timeout");
    command
        .arg("120")
        .arg(python)
        .arg(root.join("tests/sdk/portrait.py"))
        .args([&gate.public.port().to_string(), kind]);
    // The SDK would send even loopback calls to a proxy (PROTOCOL §9).
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        command
            .env_remove(name)
            .env_remove(name.to_ascii_uppercase());
    }
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The most starts of `starts` in any trailing second.
fn most_in_a_second(mut starts: Vec<u64>) -> usize {
    starts.sort_unstable();
    let in_second = |end: &u64| {
        starts
            .iter()
            .filter(|start| *start <= end && *start + 1_000_000_000 > *end)
            .count()
    };
    starts.iter().map(in_second).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_at_three_times_the_cap_sees_successes_and_throttles_and_the_ledger_has_the_successes()
 {
    let upstream = portrait_upstream().await;
    let gate = Gate::start(upstream.address).await;

    let answers = python(&gate, "flood").await;

    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 300);
    let succeeded: Vec<&str> = answers
        .iter()
        .filter_map(|answer| answer["ok"].as_str())
        .collect();
    let throttled = answers
        .iter()
        .filter(|answer| answer["code"] == "RequestLimitExceeded")
        .count();
    assert_eq!(
        succeeded.len() + throttled,
        300,
        "every answer is a success or a throttle: {answers:?}"
    );
    assert!(
        succeeded.len() >= 40 && throttled >= 40,
        "the test shows nothing: {} successes, {throttled} throttles",
        succeeded.len()
    );
    let samples = gate.at_rest().await;
    samples.assert_conserved();
    assert_eq!(samples.decided("throttled"), throttled as u64);
    let records = gate.records();
    let recorded: BTreeSet<String> = records.iter().map(|record| record.id.to_string()).collect();
    let ids: BTreeSet<String> = succeeded.iter().map(|id| (*id).to_owned()).collect();
    assert_eq!(
        records.len(),
        succeeded.len(),
        "each success is recorded once"
    );
    assert_eq!(recorded, ids, "under the RequestId that the SDK shows");
    assert!(
        records
            .iter()
            .all(|record| record.billable && record.account.as_str() == "1250000001")
    );
    let most = most_in_a_second(records.iter().map(|record| record.start.0).collect());
    assert!(most <= 20, "{most} starts in one second");
    assert_eq!(
        upstream.seen().len(),
        records.len(),
        "what was throttled never left the gate"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_gets_its_answers_and_its_own_code_for_each_refusal() {
    let upstream = portrait_upstream().await;
    let gate = Gate::start_with(upstream.address, with_key_pairs).await;

    let answers = python(&gate, "each").await;

    for (call, code) in [
        ("wrong secret", "AuthFailure.SignatureFailure"),
        ("unknown id", "AuthFailure.SecretIdNotFound"),
        ("in arrears", "ResourceUnavailable.InArrears"),
        ("never opened", "ResourceUnavailable.NotExist"),
        ("another region", "UnsupportedRegion"),
        ("no region", "MissingParameter"),
        ("image too large", "FailedOperation.ImageSizeExceed"),
    ] {
        assert_eq!(answers[call]["code"], code, "{call}: {}", answers[call]);
        let named = |field: &str| answers[call][field].as_str().is_some_and(|t| !t.is_empty());
        assert!(named("message") && named("id"), "{call}: {}", answers[call]);
    }
    let own = &answers["own account"];
    assert_eq!(own["Quota"]["account"], "1250000001", "{own}");
    let admitted = own["Usage"]["admitted"].as_u64().unwrap();
    let listed = own["Records"]["records"].as_array().unwrap();
    assert!(admitted > 3 && listed.len() as u64 == admitted, "{own}");
    assert_eq!(own["Statements"]["statements"], serde_json::json!([]));
    assert_eq!(own["no statement"], "ResourceNotFound");
    let records = gate.records();
    let recorded: Vec<(String, &str, &str)> = records
        .iter()
        .map(|record| {
            (
                record.id.to_string(),
                record.action.as_str(),
                record.mode.as_str(),
            )
        })
        .collect();
    let made: Vec<(String, &str, &str)> = [
        ("SegmentPortraitPic", "SegmentPortraitPic", "per_call"),
        (
            "SegmentCustomizedPortraitPic",
            "SegmentCustomizedPortraitPic",
            "per_call",
        ),
        ("parameters in the query", "SegmentPortraitPic", "per_call"),
        ("unsigned payload", "SegmentPortraitPic", "per_call"),
        (
            "DescribeSegmentationTask",
            "DescribeSegmentationTask",
            "free",
        ),
        ("free of charge", "DescribeSegmentationTask", "free"),
        // The upstream's own error on HTTP 200 is an answer like any other.
        ("image too large", "SegmentPortraitPic", "per_call"),
    ]
    .map(|(call, action, mode)| {
        let answer = &answers[call];
        let id = answer["ok"].as_str().or(answer["id"].as_str());
        (id.unwrap_or_default().to_owned(), action, mode)
    })
    .into();
    assert_eq!(
        recorded, made,
        "what reached the upstream, in its order, and no refusal"
    );
    gate.at_rest().await.assert_conserved();
}

/// A customer that is billed for answers which its SDK has thrown away will ask why
/// (`deploy/SDKS.md`). When the SDK mends this, the page is to be changed.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_own_retryer_throws_away_billed_answers_after_one_throttled_try() {
    let upstream = portrait_upstream().await;
    let gate = Gate::start(upstream.address).await;

    let answers = python(&gate, "retry").await;

    let answers = answers.as_array().unwrap();
    let seen = answers.iter().filter(|answer| answer["ok"].is_string());
    let raised = answers
        .iter()
        .filter(|answer| answer["code"] == "RequestLimitExceeded");
    assert_eq!((seen.count(), raised.count()), (20, 20), "{answers:?}");
    // The 20 that were throttled succeeded at their second try, and again at their third.
    let records = gate.records();
    assert_eq!(records.iter().filter(|record| record.billable).count(), 60);
}
