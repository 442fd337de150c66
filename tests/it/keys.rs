//! Keys with an end, with networks and with a name: who may use one, and where its calls count.

use crate::harness::*;
use http::StatusCode;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tollgate::testing::config::Config;
use tollgate::testing::model::{Clock, Utc};

const STUDIO: &str = "1250000001";
/// The ids of the sample accounts' API keys, which have no name.
const STUDIO_API_KEY: &str = "57b552b9";
const BODY: &str = "{\"Image\":\"iVBORw0KGgo=\"}";

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

async fn admin_json(gate: std::net::SocketAddr, path: &str) -> Value {
    json(&get(gate, path).await.2)
}

/// A plain call; `more` are further lines of its head.
fn call(key: &str, more: &str) -> String {
    format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {key}\r\n{more}Content-Length: 2\r\n\r\n{{}}"
    )
}

/// The same call as the vendor's SDKs ask for it.
const VENDOR: &str =
    "X-TC-Action: SegmentPortraitPic\r\nX-TC-Version: 2020-03-24\r\nX-TC-Region: ap-guangzhou\r\n";

/// A gate whose first two accounts' keys end at the instant that it gives.
async fn gate_with_ends(upstream: &Upstream) -> (Gate, Utc) {
    let ends = Utc((Clock::default().utc().seconds() + 100) * 1_000_000);
    let gate = Gate::start_with(upstream.address, |config: &mut Config| {
        let accounts = &mut config.accounts[..2];
        let keys = accounts.iter_mut().flat_map(|account| &mut account.keys);
        keys.for_each(|key| key.expires = Some(ends));
    })
    .await;
    (gate, ends)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_to_the_second_and_says_so_to_whoever_has_proven_it() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let (gate, ends) = gate_with_ends(&upstream).await;
    let signed_call = |secret: &str| signed(STUDIO_ID, secret, "SegmentPortraitPic", BODY);

    gate.mover.set_utc(Utc(ends.0 - 20_000_000));
    let mut wire = Wire::connect(gate.public).await;
    assert_eq!(wire.exchange(call(RETAIL_KEY, "")).await.status, 200);
    let (_, _, body) = send(gate.public, signed_call(STUDIO_SECRET)).await;
    assert_eq!(json(&body)["Response"].get("Error"), None);
    assert!(gate.clock.utc() < ends);

    gate.mover.set_utc(ends);
    // More than a guesser may try: nobody who has the key is held back.
    for _ in 0..15 {
        let reply = wire.exchange(call(RETAIL_KEY, "")).await;
        assert_eq!(reply.status, 401);
        assert_eq!(reply.headers["www-authenticate"], "Bearer");
        let problem = json(&reply.body);
        assert_eq!(problem["type"], "urn:tollgate:problem:key_expired");
        assert_eq!(problem["title"], "Key expired");
    }
    let reply = wire.exchange(call(RETAIL_KEY, VENDOR)).await;
    let code = "AuthFailure.SecretIdNotFound";
    assert_eq!((reply.status, reply.code().as_str()), (200, code));
    let (_, _, body) = send(gate.public, signed_call(STUDIO_SECRET)).await;
    assert_eq!(json(&body)["Response"]["Error"]["Code"], code);
    let (status, ..) = send(gate.public, plain("GET", "/v1/quota", RETAIL_KEY, "")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    // Who has not proven the key learns nothing of its end.
    let (_, _, body) = send(gate.public, signed_call("a-guess")).await;
    let error = json(&body)["Response"]["Error"]["Code"].clone();
    assert_eq!(error, "AuthFailure.SignatureFailure");

    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    let reason = ["reason=\"key_expired\""];
    assert_eq!(metrics.sum("tollgate_requests_total", &reason), 17);
    assert_eq!(metrics.sum("tollgate_held_down_total", &[]), 0);
    assert_eq!(gate.records().len(), 2);
    assert_eq!(upstream.seen().len(), 2);

    // Before its end it holds again, whatever was refused.
    gate.mover.set_utc(Utc(ends.0 - 20_000_000));
    assert_eq!(wire.exchange(call(RETAIL_KEY, "")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_ends_while_the_body_arrives_is_refused() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let (gate, ends) = gate_with_ends(&upstream).await;
    for (passes, code) in [(false, ""), (true, "AuthFailure.SecretIdNotFound")] {
        gate.mover.set_utc(Utc(ends.0 - 5_000_000));
        let at = gate.clock.utc().seconds();
        let authorization =
            tollgate::cli::demo::sign(STUDIO_ID, STUDIO_SECRET, at, "bda.gate.test", BODY);
        let mut wire = Wire::connect(gate.public).await;
        wire.write(format!(
            "POST / HTTP/1.1\r\nHost: bda.gate.test\r\nContent-Type: application/json\r\n{VENDOR}\
             X-TC-Timestamp: {at}\r\nAuthorization: {authorization}\r\nContent-Length: {}\r\n\r\n{}",
            BODY.len(),
            &BODY[..7]
        ))
        .await;
        let proxy = gate.running.as_ref().unwrap().proxy.clone();
        eventually("the first half arrives", || proxy.body_memory_held() > 0).await;
        if passes {
            gate.mover.advance(Duration::from_secs(5));
        }
        wire.write(&BODY[7..]).await;
        assert_eq!(wire.reply().await.code(), code);
    }
    assert_eq!(gate.records().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_networks_is_known_by_the_address_that_a_trusted_proxy_names() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let start = |trusted: bool| {
        let address = upstream.address;
        Gate::start_with(address, move |config: &mut Config| {
            if trusted {
                config.settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
            }
            let networks = ["203.0.113.0/24", "127.0.0.5/32"].map(|net| net.parse().unwrap());
            for account in &mut config.accounts[..2] {
                for key in &mut account.keys {
                    key.allowed_addresses = networks.into();
                }
            }
        })
    };
    let gate = start(true).await;
    for (peer, forwarded, status) in [
        ([127, 0, 0, 1], "X-Forwarded-For: 203.0.113.7\r\n", 200),
        (
            [127, 0, 0, 1],
            "X-Forwarded-For: \"203.0.113.7:4711\"\r\n",
            200,
        ),
        (
            [127, 0, 0, 1],
            "X-Forwarded-For: ::ffff:203.0.113.7\r\n",
            200,
        ),
        ([127, 0, 0, 1], "X-Forwarded-For: 198.51.100.1\r\n", 403),
        // What stands left of an address that no proxy vouches for was written by the client.
        (
            [127, 0, 0, 1],
            "X-Forwarded-For: 203.0.113.7, 198.51.100.1\r\n",
            403,
        ),
        // The proxy itself.
        ([127, 0, 0, 1], "", 403),
        ([127, 0, 0, 5], "", 200),
        ([127, 0, 0, 6], "X-Forwarded-For: 203.0.113.7\r\n", 403),
    ] {
        let mut wire = Wire::connect_from(peer, gate.public).await;
        let reply = wire.exchange(call(RETAIL_KEY, forwarded)).await;
        assert_eq!(reply.status, status, "{peer:?} {forwarded}");
        if status == 403 {
            let problem = json(&reply.body);
            assert_eq!(problem["type"], "urn:tollgate:problem:address_not_allowed");
        }
    }
    let gate = start(false).await;
    let mut wire = Wire::connect(gate.public).await;
    let forwarded = "X-Forwarded-For: 203.0.113.7\r\n";
    assert_eq!(wire.exchange(call(RETAIL_KEY, forwarded)).await.status, 403);
    let reply = wire.exchange(call(RETAIL_KEY, VENDOR)).await;
    let code = "UnauthorizedOperation";
    assert_eq!((reply.status, reply.code().as_str()), (200, code));
    for (secret, code) in [
        (STUDIO_SECRET, code),
        ("a-guess", "AuthFailure.SignatureFailure"),
    ] {
        let call = signed(STUDIO_ID, secret, "SegmentPortraitPic", BODY);
        let (_, _, body) = send(gate.public, call).await;
        assert_eq!(json(&body)["Response"]["Error"]["Code"], code);
    }
    let (status, ..) = send(gate.public, plain("GET", "/v1/quota", RETAIL_KEY, "")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    let reason = ["reason=\"address_not_allowed\""];
    assert_eq!(metrics.sum("tollgate_requests_total", &reason), 3);
    assert_eq!(gate.records(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_beyond_the_bound_of_the_metrics_are_one_sum() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.metric_accounts = 1;
    })
    .await;
    for key in [STUDIO_KEY, RETAIL_KEY, STUDIO_KEY, RETAIL_KEY, RETAIL_KEY] {
        assert_eq!(send(gate.public, segment(key)).await.0, StatusCode::OK);
    }
    let video = plain("POST", "/v1/video/tasks", VIDEO_KEY, "{}");
    drop(send(gate.public, video).await);
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    let calls = |labels: &[&str]| metrics.sum("tollgate_key_calls_total", labels);
    let studio = format!("key=\"{STUDIO_API_KEY}\"");
    assert_eq!(calls(&["account=\"1250000001\"", &studio]), 2);
    let other = calls(&["account=\"other\"", "key=\"other\""]);
    assert_eq!(other, metrics.decided("admitted") - 2);
    assert!(other >= 3);
}

async fn stop(mut process: Process) {
    process.signal("TERM");
    assert!(process.ended().await.success());
}

/// Runs `tollgate key args..` with the files of the house.
fn key_command(house: &Sandbox, args: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let command = command.arg("key").args(args);
    said(command.env("TOLLGATE_CONFIG", &house.settings))
}

/// The printed lines of YAML.
fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("- ")).collect()
}

/// What each key of the account did, by the records.
fn by_key(house: &Sandbox, account: &str) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for record in whole_ledger(&house.ledger()) {
        if record.account.as_str() == account {
            *calls.entry(record.key.to_string()).or_insert(0) += 1;
        }
    }
    calls
}

async fn called(house: &Sandbox, key: &str) {
    let (status, _, body) = send(house.public, segment(key)).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_counts_as_one_in_records_usage_statement_and_metrics() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let rotate = key_command(
        &house,
        &["rotate", "--account", STUDIO, "--key", STUDIO_API_KEY],
    );
    assert_eq!(rotate.code, Some(0), "{rotate:?}");
    let new_key = rotate
        .out
        .lines()
        .find_map(|line| line.strip_prefix("#   "));
    let new_key = new_key.unwrap().to_owned();
    let [old_line, new_line] = lines(&rotate.out)[..] else {
        panic!("{rotate:?}")
    };
    let accounts = std::fs::read_to_string(house.file("accounts.yaml")).unwrap();
    let line = accounts
        .lines()
        .find(|line| line.contains("demo-studio-key"));
    let line = line.unwrap();
    let both = format!("      {old_line}\n      {new_line}");

    let process = house.start().await;
    called(&house, STUDIO_KEY).await;
    house.edit("accounts.yaml", line, &both);
    let (status, told) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    called(&house, STUDIO_KEY).await;
    for _ in 0..3 {
        called(&house, &new_key).await;
    }
    let pair = signed(STUDIO_ID, STUDIO_SECRET, "SegmentPortraitPic", BODY);
    let (_, _, body) = send(house.public, pair).await;
    assert_eq!(json(&body)["Response"].get("Error"), None);

    let metrics = at_rest(house.admin).await;
    metrics.assert_conserved();
    let expected = [("57b552b9", 5), ("AKIDEXAM", 1)];
    for (key, calls) in expected {
        let labels = [format!("account=\"{STUDIO}\""), format!("key=\"{key}\"")];
        let labels = labels.each_ref().map(String::as_str);
        assert_eq!(metrics.sum("tollgate_key_calls_total", &labels), calls);
    }
    // Each of the two secrets has its own last use; the old one has an end.
    let (_, _, body) = send(house.public, plain("GET", "/v1/quota", &new_key, "")).await;
    let keys = json(&body)["keys"].clone();
    assert_eq!(
        keys,
        admin_json(house.admin, "/v1/accounts/1250000001").await["keys"]
    );
    let ids: Vec<&str> = keys
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["key"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["AKIDEXAM", "57b552b9", "57b552b9"]);
    assert!(keys[1]["expires"].is_string() && keys[2]["expires"].is_null());
    assert!((0..3).all(|n| keys[n]["last_used"].is_string()), "{keys}");

    let usage = admin_json(house.admin, "/v1/usage").await;
    let shown = usage["lines"].as_array().unwrap().iter();
    let sum = shown
        .clone()
        .filter(|line| line["key"] == "57b552b9")
        .map(|line| line["calls"].as_u64().unwrap());
    assert_eq!(sum.sum::<u64>(), 5);
    stop(process).await;

    assert_eq!(
        by_key(&house, STUDIO),
        expected.map(|(key, calls)| (key.to_owned(), calls)).into()
    );
    let csv = house.run(&["usage", "--format", "csv"]).out;
    assert!(
        csv.lines().next().unwrap().ends_with(",last_seq,key"),
        "{csv}"
    );
    let sum = csv.lines().filter(|line| line.ends_with(",57b552b9"));
    let sum = sum.map(|line| line.split(',').nth(8).unwrap().parse::<u64>().unwrap());
    assert_eq!(sum.sum::<u64>(), 5, "{csv}");
    assert!(house.run(&["usage"]).out.contains("57b552b9"));

    let statement = house
        .run(&["statement", "--account", STUDIO, "--format", "json"])
        .out;
    let statement: Value = serde_json::from_str(&statement).unwrap();
    let group = &statement["groups"][0];
    assert_eq!(
        group["keys"],
        serde_json::json!([
            {"key": "57b552b9", "calls": 5, "billable": 5},
            {"key": "AKIDEXAM", "calls": 1, "billable": 1},
        ])
    );
    assert_eq!(group["per_call"]["billable"], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_of_a_key_outlives_a_restart_and_none_is_made_up() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let process = house.start().await;
    let path = "/v1/accounts/1250000001";
    let keys = admin_json(house.admin, path).await["keys"].clone();
    assert!((0..2).all(|n| keys[n]["last_used"].is_null()), "{keys}");
    called(&house, STUDIO_KEY).await;
    // Another generation of the files.
    house.edit("accounts.yaml", "name: Example Video", "name: Another Name");
    let (_, reloaded) = post_reload(house.admin, "").await;
    assert_eq!(reloaded["generation"], 2, "{reloaded}");
    let keys = admin_json(house.admin, path).await["keys"].clone();
    assert!(keys[0]["last_used"].is_null() && keys[1]["last_used"].is_string());
    stop(process).await;
    let _process = house.start().await;
    assert_eq!(admin_json(house.admin, path).await["keys"], keys);
}

#[test]
fn a_rotation_of_a_pair_takes_effect_only_with_the_secret_that_stands_in_the_file() {
    let house = Sandbox::new(([127, 0, 0, 1], 9).into(), &[]);
    let rotate = |key: &str| {
        key_command(
            &house,
            &[
                "rotate",
                "--account",
                STUDIO,
                "--key",
                key,
                "--overlap",
                "24h",
            ],
        )
    };
    let first = rotate("AKIDEXAM");
    assert!(!first.out.contains(STUDIO_SECRET), "no secret is shown");
    let two = lines(&first.out).join("\n      ");
    let line = format!("- {{secret_id: {STUDIO_ID}, secret_key: {STUDIO_SECRET}}}");
    house.edit("accounts.yaml", &line, &two);
    let refused = house.run(&["check"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("secret_key: the text has a blank"),
        "{}",
        refused.err
    );
    house.edit("accounts.yaml", "WHAT STANDS THERE NOW", STUDIO_SECRET);
    let checked = house.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    assert!(
        checked
            .out
            .contains("  1250000001               AKIDEXAM expires at "),
        "{}",
        checked.out
    );
    assert!(
        checked.out.contains("; another one has its name"),
        "{}",
        checked.out
    );

    let second = rotate("AKIDEXAM");
    assert_eq!(second.code, Some(1));
    assert!(
        second.err.contains("has two keys AKIDEXAM"),
        "{}",
        second.err
    );
    let unknown = rotate("nobody");
    assert!(
        unknown
            .err
            .contains("its keys are: AKIDEXAM, AKIDEXAM, 57b552b9"),
        "{}",
        unknown.err
    );
}

#[test]
fn a_check_names_the_keys_that_have_expired_or_will_soon() {
    let house = Sandbox::new(([127, 0, 0, 1], 9).into(), &[]);
    assert!(!house.run(&["check"]).out.contains("keys that have expired"));
    let named = key_command(&house, &["new", "--kind", "api-key", "--name", "ci"]);
    let [line] = lines(&named.out)[..] else {
        panic!("{named:?}")
    };
    let line = line.replace('}', ", expires: 2026-01-01T00:00:00+08:00}");
    let first = "      - {api_key_sha256: bb4ae60a";
    house.edit("accounts.yaml", first, &format!("      {line}\n{first}"));
    let checked = house.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    let said = "keys that have expired, or will within 14 days:\n  \
                1250000002               ci expired at 2026-01-01T00:00:00+08:00\n";
    assert!(checked.out.ends_with(said), "{}", checked.out);
}
