//! P5: changed files take effect soon, whole or not at all, and what was spent stays spent.

use crate::harness::*;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tollgate::testing::model::Clock;

const PORTRAIT: &str = "portrait-segmentation";
pub const SECOND_NS: u64 = 1_000_000_000;
pub const FEW_FILES: (&str, &str) = ("connections: 4000", "connections: 300");

async fn house() -> (Upstream, Sandbox, Process) {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[FEW_FILES]);
    let process = house.start().await;
    (upstream, house, process)
}

/// Keeps a watched file from being quiet, so that only what the test asks for reads it: its content
/// stays, its date moves.
struct Restless(Arc<AtomicBool>);

impl Restless {
    fn new(path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(file) = std::fs::File::options().append(true).open(&path) {
                    let _ = file.set_modified(std::time::UNIX_EPOCH);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self(stop)
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn figure(house: &Sandbox, family: &str) -> u64 {
    scrape(house.admin)
        .await
        .sum(&format!("tollgate_config_{family}"), &[])
}

async fn generation_is(house: &Sandbox, generation: u64) {
    figure_is(house, "generation", generation).await;
}

async fn figure_is(house: &Sandbox, name: &str, wanted: u64) {
    let until = Clock::default().mono().plus(BOUND);
    while figure(house, name).await != wanted {
        assert!(
            Clock::default().mono() < until,
            "{name} never came to {wanted}\n{}",
            house.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn call(house: &Sandbox, key: &str) -> StatusCode {
    send(house.public, segment(key)).await.0
}

async fn gate_of(house: &Sandbox, account: &str) -> Value {
    let (status, _, body) = get(house.admin, &format!("/v1/accounts/{account}")).await;
    assert_eq!(status, StatusCode::OK);
    let told: Value = serde_json::from_slice(&body).unwrap();
    told["services"][PORTRAIT][0].clone()
}

/// The mistakes that a refused reload lists.
pub fn mistakes((status, told): &(StatusCode, Value)) -> Vec<String> {
    assert_eq!(*status, StatusCode::UNPROCESSABLE_ENTITY, "{told}");
    assert_eq!(told["type"], "urn:tollgate:problem:reload_refused");
    let listed = told["mistakes"].as_array().unwrap();
    listed
        .iter()
        .map(|mistake| mistake.as_str().unwrap().to_owned())
        .collect()
}

// Three ways.

#[tokio::test(flavor = "multi_thread")]
async fn a_post_says_what_would_change_changes_it_and_is_in_force_when_it_returns() {
    let (_upstream, house, _process) = house().await;
    let _restless = Restless::new(house.file("catalog.yaml"));
    let (status, told) = post_reload(house.admin, "").await;
    assert_eq!(
        (status, &told),
        (StatusCode::OK, &json!({"outcome": "unchanged"}))
    );

    std::fs::copy(house.file("tollgate.yaml"), house.file("old.yaml")).unwrap();
    std::fs::copy(house.file("accounts.yaml"), house.file("old-accounts.yaml")).unwrap();
    house.edit(
        "old.yaml",
        "accounts: accounts.yaml",
        "accounts: old-accounts.yaml",
    );
    house.edit(
        "accounts.yaml",
        "order: Q-1, qps: 10,",
        "order: Q-1, qps: 15,",
    );
    let old = house.file("old.yaml");
    let checked = house.run(&["check", "--against", old.to_str().unwrap()]);
    let told_by_check: Vec<&str> = checked.out.lines().collect();
    assert_eq!(
        told_by_check[0],
        "1250000002 portrait-segmentation: quota 30 → 35 from now"
    );

    let (status, told) = post_reload(house.admin, "?dry_run=true").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        told,
        json!({"outcome": "planned", "changes": told_by_check, "restart_pending": [], "warnings": []})
    );
    assert_eq!(figure(&house, "generation").await, 1, "only said, not done");
    assert_eq!(gate_of(&house, "1250000002").await["quota_qps"], 30);

    let (status, told) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        told,
        json!({"outcome": "reloaded", "generation": 2, "changes": told_by_check, "restart_pending": [], "warnings": []})
    );
    assert_eq!(gate_of(&house, "1250000002").await["quota_qps"], 35);
    assert_eq!(figure(&house, "generation").await, 2);
    let (_, told) = post_reload(house.admin, "?force=true&dry_run=false").await;
    assert_eq!(told, json!({"outcome": "unchanged"}));

    // The very next call on a kept connection, whichever way the standing moved.
    let mut client = Client::connect(house.public).await.unwrap();
    for (stop, status) in [
        ("violation", StatusCode::FORBIDDEN),
        ("arrears", StatusCode::PAYMENT_REQUIRED),
        ("violation", StatusCode::FORBIDDEN),
    ] {
        let stopped = format!("mode: per_call\n        stopped: {stop}");
        house.edit("accounts.yaml", "mode: per_call", &stopped);
        let (_, told) = post_reload(house.admin, "").await;
        assert_eq!(
            told["changes"],
            json!([format!(
                "1250000001 portrait-segmentation: stopped ({stop}) from now"
            )])
        );
        let (answer, ..) = client.send(segment(STUDIO_KEY)).await.unwrap();
        assert_eq!(answer, status, "{stop}");
        house.edit("accounts.yaml", &stopped, "mode: per_call");
        post_reload(house.admin, "").await;
        let (answer, ..) = client.send(segment(STUDIO_KEY)).await.unwrap();
        assert_eq!(answer, StatusCode::OK);
    }

    for query in ["?force=maybe", "?forse=true", "?dry_run="] {
        let (status, told) = post_reload(house.admin, query).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert!(!told["detail"].as_str().unwrap().is_empty());
    }
    let (status, ..) = get(house.admin, "/v1/reload").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    at_rest(house.admin).await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_show_every_accounts_quota_whether_it_called_or_not_and_a_new_one_from_its_reload_on()
 {
    let (_upstream, house, _process) = house().await;
    let shown = async || {
        let samples = scrape(house.admin).await;
        let of = |account: &str, group: &str| {
            let labels = [
                format!("account=\"{account}\""),
                format!("group=\"{group}\""),
            ];
            samples.sum("tollgate_quota_qps", &labels.each_ref().map(String::as_str))
        };
        let video = "video-segmentation";
        let quotas = [
            of("1250000001", PORTRAIT),
            of("1250000002", PORTRAIT),
            // A free group's actions have a quota each, and are shown once.
            of("1250000004", video),
        ];
        (quotas, samples)
    };
    assert_eq!(shown().await.0, [20, 30, 20]);
    for _ in 0..3 {
        assert_eq!(call(&house, RETAIL_KEY).await, StatusCode::OK);
    }
    assert_eq!(shown().await.0, [20, 30, 20]);
    house.edit(
        "accounts.yaml",
        "order: Q-1, qps: 10,",
        "order: Q-1, qps: 15,",
    );
    let (status, told) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let (quotas, samples) = shown().await;
    assert_eq!(quotas, [20, 35, 20]);
    let admitted = ["account=\"1250000002\"", "decision=\"admitted\""];
    assert_eq!(samples.sum("tollgate_account_requests_total", &admitted), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_by_itself_when_it_is_quiet_and_not_while_it_is_written() {
    let (_upstream, house, process) = house().await;
    let clock = Clock::default();
    let path = house.file("accounts.yaml");
    let good = std::fs::read_to_string(&path).unwrap();

    // Written piece by piece, for longer than a file must be quiet; each state on the way is a
    // mistake.
    let changed = good.replace("order: Q-1, qps: 10,", "order: Q-1, qps: 15,");
    let mut longest = Duration::ZERO;
    let mut wrote = clock.mono();
    let begin = wrote;
    for piece in 1.. {
        let text = format!("accounts: {{not yet: {piece}");
        std::fs::write(&path, text).unwrap();
        longest = longest.max(clock.mono().since(wrote));
        wrote = clock.mono();
        if wrote.since(begin) > Duration::from_millis(1_800) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = figure(&house, "reload_failures_total").await;
    std::fs::write(&path, &changed).unwrap();
    let quiet = clock.mono();
    generation_is(&house, 2).await;
    let took = clock.mono().since(quiet);
    // On a machine so busy that the writer paused for a look, a piece may have been read.
    if longest < Duration::from_millis(300) {
        assert_eq!(refused, 0, "a half-written file was read");
    }
    assert!(took < Duration::from_secs(5), "in force after {took:?}");
    assert_eq!(gate_of(&house, "1250000002").await["quota_qps"], 35);

    // By signal, at once.
    let _restless = Restless::new(house.file("catalog.yaml"));
    house.edit(
        "accounts.yaml",
        "order: Q-1, qps: 15,",
        "order: Q-1, qps: 5,",
    );
    process.signal("HUP");
    generation_is(&house, 3).await;
    assert_eq!(gate_of(&house, "1250000002").await["quota_qps"], 25);
    drop(_restless);

    // A broken file that is quiet is refused once, and the next good one is taken by itself.
    let before = figure(&house, "reload_failures_total").await;
    std::fs::write(&path, "accounts: [").unwrap();
    eventually("the broken file is refused", || {
        house.log().contains("accounts.yaml:")
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(figure(&house, "reload_failures_total").await, before + 1);
    assert_eq!(figure(&house, "last_reload_success").await, 0);
    std::fs::write(&path, &good).unwrap();
    generation_is(&house, 4).await;
    // It is told after it is in force.
    figure_is(&house, "last_reload_success", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_swapped_links_of_a_kubernetes_volume_are_a_change_and_so_is_a_secret_file() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let mut house = Sandbox::new(upstream.address, &[FEW_FILES]);
    // As kubelet lays a ConfigMap out: tollgate.yaml -> ..data/tollgate.yaml, ..data -> ..2026_1.
    let plain = house.dir.path().join("config");
    let volume = house.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let link = |to: &str, at: &Path| std::os::unix::fs::symlink(to, at).unwrap();
    let version = |name: &str, edits: &[(&str, &str, &str)]| {
        let to = volume.join(name);
        std::fs::create_dir(&to).unwrap();
        for file in ["tollgate.yaml", "catalog.yaml", "accounts.yaml"] {
            let mut text = std::fs::read_to_string(plain.join(file)).unwrap();
            for (_, a, b) in edits.iter().filter(|(of, ..)| *of == file) {
                assert!(text.contains(a), "{a} in {file}");
                text = text.replace(a, b);
            }
            std::fs::write(to.join(file), text).unwrap();
        }
    };
    let secrets = house.dir.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("studio.key"), "the-first-secret\n").unwrap();
    let in_file = (
        "accounts.yaml",
        "secret_key: trial-secret-of-example-studio",
        "secret_key: {file: ../secrets/studio.key}",
    );
    let ledger = ("tollgate.yaml", "../var/ledger.db", "../var/ledger.db");
    version("..2026_1", &[in_file, ledger]);
    link("..2026_1", &volume.join("..data"));
    for file in ["tollgate.yaml", "catalog.yaml", "accounts.yaml"] {
        link(&format!("..data/{file}"), &volume.join(file));
    }
    house.settings = volume.join("tollgate.yaml");
    let _process = house.start().await;
    let swap = |to: &str, old: &str| {
        link(to, &volume.join("..data_tmp"));
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        std::fs::remove_dir_all(volume.join(old)).unwrap();
    };

    let raise = (
        "accounts.yaml",
        "order: Q-1, qps: 10,",
        "order: Q-1, qps: 15,",
    );
    version("..2026_2", &[in_file, raise]);
    swap("..2026_2", "..2026_1");
    generation_is(&house, 2).await;
    assert_eq!(gate_of(&house, "1250000002").await["quota_qps"], 35);
    let cap = ("catalog.yaml", "qps_per_action: 20", "qps_per_action: 25");
    version("..2026_3", &[in_file, cap]);
    swap("..2026_3", "..2026_2");
    generation_is(&house, 3).await;
    assert_eq!(gate_of(&house, "1250000002").await["quota_qps"], 30);

    let sign = |secret: &str| signed(STUDIO_ID, secret, "SegmentPortraitPic", "{}");
    let code = async |secret: &str| {
        let (_, _, body) = send(house.public, sign(secret)).await;
        let told: Value = serde_json::from_slice(&body).unwrap();
        told["Response"]["Error"]["Code"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(code("the-first-secret").await, None);
    std::fs::write(secrets.join("studio.key"), "the-second-secret\n").unwrap();
    generation_is(&house, 4).await;
    assert_eq!(code("the-second-secret").await, None);
    let refused = code("the-first-secret").await;
    assert_eq!(refused.as_deref(), Some("AuthFailure.SignatureFailure"));
    assert!(house.log().contains("has another secret"));
    assert!(!house.log().contains("the second"), "no secret is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_accounts_is_watched_as_a_whole() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(
        upstream.address,
        &[FEW_FILES, ("accounts.yaml", "accounts.d")],
    );
    let directory = house.file("accounts.d");
    std::fs::create_dir(&directory).unwrap();
    std::fs::rename(house.file("accounts.yaml"), directory.join("a.yaml")).unwrap();
    let _process = house.start().await;

    let key_of = |name: &str| {
        use sha2::Digest;
        hex::encode(sha2::Sha256::digest(name))
    };
    let one = |id: &str, key: &str| {
        format!(
            "accounts:\n  \"{id}\":\n    name: N\n    keys: [{{api_key_sha256: {}}}]\n    services: \
             {{portrait-segmentation: {{opened: 2026-01-01T00:00:00+08:00}}}}\n",
            key_of(key)
        )
    };
    assert_eq!(call(&house, "added").await, StatusCode::UNAUTHORIZED);
    std::fs::write(directory.join("b.yaml"), one("b", "added")).unwrap();
    generation_is(&house, 2).await;
    assert_eq!(call(&house, "added").await, StatusCode::OK);
    std::fs::write(directory.join("b.yaml"), one("b", "changed")).unwrap();
    generation_is(&house, 3).await;
    assert_eq!(call(&house, "added").await, StatusCode::UNAUTHORIZED);
    assert_eq!(call(&house, "changed").await, StatusCode::OK);

    // The same credential in two files: both places are named and nothing changes.
    let _restless = Restless::new(house.file("catalog.yaml"));
    std::fs::write(directory.join("c.yaml"), one("c", "changed")).unwrap();
    let listed = mistakes(&post_reload(house.admin, "").await);
    assert_eq!(listed.len(), 1);
    for part in [
        "accounts.d/c.yaml:4:29: api_key_sha256: this API key is in use already, at ",
        "accounts.d/b.yaml:4:29: a credential names one account; issue another",
    ] {
        assert!(listed[0].contains(part), "{part}: {listed:?}");
    }
    drop(_restless);
    std::fs::remove_file(directory.join("c.yaml")).unwrap();
    std::fs::remove_file(directory.join("b.yaml")).unwrap();
    generation_is(&house, 4).await;
    assert_eq!(call(&house, "changed").await, StatusCode::UNAUTHORIZED);
    assert_eq!(call(&house, STUDIO_KEY).await, StatusCode::OK);
}

// What is refused.

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_wait_for_a_restart_hold_nothing_back_and_are_named_until_then() {
    let (upstream, house, process) = house().await;
    let restless = Restless::new(house.file("catalog.yaml"));
    house.edit("tollgate.yaml", "ledger.db", "other.db");
    house.edit("tollgate.yaml", "body_bytes: 10MiB", "body_bytes: 11MiB");
    house.edit("tollgate.yaml", "drain: 60s", "drain: 61s");
    house.edit(
        "accounts.yaml",
        "order: Q-1, qps: 10,",
        "order: Q-1, qps: 15,",
    );
    // A dry run says the same and changes nothing.
    let (status, planned) = post_reload(house.admin, "?dry_run=true").await;
    assert_eq!(status, StatusCode::OK, "{planned}");
    assert_eq!(planned["outcome"], "planned");
    assert_eq!(figure(&house, "restart_pending").await, 0);
    assert_eq!(gate_of(&house, "1250000002").await["quota_qps"], 30);

    let (status, told) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_eq!(told["outcome"], "reloaded");
    assert_eq!(told["restart_pending"], planned["restart_pending"]);
    let pending = told["restart_pending"].as_array().unwrap();
    let text = std::fs::read_to_string(house.file("tollgate.yaml")).unwrap();
    let line = |key: &str| 1 + text.lines().position(|line| line.starts_with(key)).unwrap();
    let file = house.file("tollgate.yaml");
    for (key, top, change) in [
        ("ledger.path", "ledger", "ledger.db → "),
        ("limits.body_bytes", "limits", "10485760 → 11534336"),
        ("limits.drain", "limits", "60s → 61s"),
    ] {
        let place = format!("{}:{}:1: {key}: ", file.display(), line(top));
        let named = pending.iter().any(|setting| {
            let setting = setting.as_str().unwrap();
            setting.starts_with(&place)
                && setting.contains(change)
                && setting.ends_with("takes effect at the next restart")
        });
        assert!(named, "{place}{change}: {told:#}");
    }
    assert_eq!(pending.len(), 3);
    assert_eq!(gate_of(&house, "1250000002").await["quota_qps"], 35);
    assert_eq!(figure(&house, "restart_pending").await, 1);
    assert_eq!(figure(&house, "last_reload_success").await, 1);
    assert_eq!(figure(&house, "reload_failures_total").await, 0);
    assert!(
        house.log().contains("limits.drain: 60s → 61s"),
        "{}",
        house.log()
    );

    // They wait through later reloads, and until they are set back.
    house.edit(
        "accounts.yaml",
        "order: Q-1, qps: 15,",
        "order: Q-1, qps: 16,",
    );
    house.edit("tollgate.yaml", "other.db", "ledger.db");
    let (_, told) = post_reload(house.admin, "").await;
    assert_eq!(
        told["restart_pending"].as_array().unwrap().len(),
        2,
        "{told}"
    );
    assert_eq!(figure(&house, "restart_pending").await, 1);
    house.edit("tollgate.yaml", "drain: 61s", "drain: 60s");
    house.edit("tollgate.yaml", "body_bytes: 11MiB", "body_bytes: 10MiB");
    let (_, told) = post_reload(house.admin, "").await;
    assert_eq!(told["restart_pending"], json!([]), "{told}");
    assert_eq!(figure(&house, "restart_pending").await, 0);

    // Or until the restart has come.
    house.edit("tollgate.yaml", "drain: 60s", "drain: 61s");
    post_reload(house.admin, "").await;
    assert_eq!(figure(&house, "restart_pending").await, 1);
    assert_eq!(gate_of(&house, "1250000002").await["quota_qps"], 36);
    drop((restless, process));
    let _process = house.start().await;
    assert_eq!(figure(&house, "restart_pending").await, 0);
    drop(upstream);
}

/// The line of the shipped settings on which a key stands.
fn line_of(key: &str) -> usize {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/tollgate.yaml");
    let text = std::fs::read_to_string(shipped).unwrap();
    let found = text.lines().position(|line| line.starts_with(key));
    found.unwrap() + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_of_any_kind_changes_nothing_and_is_told_with_its_place_and_remedy() {
    let of_catalog = format!("tollgate.yaml:{}:10: catalog: ", line_of("catalog:"));
    let (_upstream, house, _process) = house().await;
    let _restless = Restless::new(house.file("tollgate.yaml"));
    let mut client = Client::connect(house.public).await.unwrap();
    let good: HashMap<&str, String> = ["catalog.yaml", "accounts.yaml"]
        .map(|name| (name, std::fs::read_to_string(house.file(name)).unwrap()))
        .into();
    let rewritten = |name: &str, from: &str, to: &str| {
        assert!(good[name].contains(from), "{from} in {name}");
        good[name].replacen(from, to, 1)
    };
    let second_key = "      - {api_key_sha256: 57b552b937c96bc4f2ad78e065bd94c66b7bd1cfe138efe9c313f3de74d3575a}";
    let accounts = |from, to| ("accounts.yaml", Some(rewritten("accounts.yaml", from, to)));
    let cases = [
        (
            "syntax error",
            accounts("keys:\n", "keys: [\n"),
            "accounts.yaml:",
            "",
        ),
        (
            "unknown key",
            accounts("        mode: per_call", "        modes: per_call"),
            "accounts.yaml:23:9: unknown key \"modes\"",
            "did you mean \"mode\"?",
        ),
        (
            "duplicate key",
            accounts(
                "        mode: per_call",
                "        mode: per_call\n        mode: qps",
            ),
            "accounts.yaml:24:9: duplicate key \"mode\": first given at ",
            "accounts.yaml:23:9; keep one",
        ),
        (
            "duplicate credential",
            accounts(second_key, &format!("{second_key}\n{second_key}")),
            "accounts.yaml:18:26: api_key_sha256: this API key is in use already, at ",
            "accounts.yaml:17:26: a credential names one account; issue another",
        ),
        (
            "bad number",
            accounts("qps: 10,", "qps: ten,"),
            "accounts.yaml:39:31: qps: expected a whole number from 1 to 1000000",
            "found \"ten\"",
        ),
        (
            "a price that is a number",
            (
                "catalog.yaml",
                Some(rewritten("catalog.yaml", "price: \"0.01\"", "price: 0.01")),
            ),
            "catalog.yaml:28:28: price: an amount is text",
            "write it in quotes, \"0.01\"",
        ),
        (
            "a missing secret",
            accounts(
                "secret_key: trial-secret-of-example-studio",
                "secret_key: {file: nowhere.key}",
            ),
            "accounts.yaml:",
            "nowhere.key cannot be read: No such file or directory",
        ),
        (
            "empty file",
            ("accounts.yaml", Some(String::new())),
            "accounts.yaml:1:1: the file is empty, or not a map of keys",
            "see the shipped example",
        ),
        (
            "missing file",
            ("catalog.yaml", None),
            &of_catalog,
            "catalog.yaml cannot be read: No such file or directory",
        ),
    ];
    let put_back = |name: &str| {
        let _ = std::fs::remove_dir(house.file(name));
        std::fs::write(house.file(name), &good[name]).unwrap();
    };
    let mut failures = 0;
    let refused = async |client: &mut Client, what: &str, place: &str, remedy: &str, failures| {
        let listed = mistakes(&post_reload(house.admin, "").await);
        let named = house
            .dir
            .path()
            .join("config")
            .join(place)
            .display()
            .to_string();
        assert!(
            listed
                .iter()
                .any(|mistake| mistake.starts_with(&named) && mistake.contains(remedy)),
            "{what}: {named} .. {remedy}: {listed:#?}"
        );
        for mistake in &listed {
            let line = &json!(mistake).to_string()[1..60];
            // The log is written by a thread of its own.
            let until = Clock::default().mono().plus(BOUND);
            while !house.log().contains(line) {
                assert!(Clock::default().mono() < until, "{line} is logged");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert_eq!(figure(&house, "last_reload_success").await, 0, "{what}");
        assert_eq!(
            figure(&house, "reload_failures_total").await,
            failures,
            "{what}"
        );
        let (status, ..) = client.send(segment(RETAIL_KEY)).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{what}: the old policy serves");
    };
    for (what, (name, text), place, remedy) in cases {
        match text {
            Some(text) => std::fs::write(house.file(name), text).unwrap(),
            None => std::fs::remove_file(house.file(name)).unwrap(),
        }
        failures += 1;
        refused(&mut client, what, place, remedy, failures).await;
        put_back(name);
        let (_, told) = post_reload(house.admin, "").await;
        assert_eq!(told, json!({"outcome": "unchanged"}), "{what}");
        assert_eq!(figure(&house, "last_reload_success").await, 1, "{what}");
    }
    // A file that cannot be read, also by root: a directory in its place.
    std::fs::remove_file(house.file("catalog.yaml")).unwrap();
    std::fs::create_dir(house.file("catalog.yaml")).unwrap();
    let place = &*of_catalog;
    let remedy = "catalog.yaml cannot be read: it is not a file";
    refused(&mut client, "unreadable file", place, remedy, failures + 1).await;
    put_back("catalog.yaml");
    house.edit(
        "accounts.yaml",
        "order: Q-1, qps: 10,",
        "order: Q-1, qps: 15,",
    );
    let (_, told) = post_reload(house.admin, "").await;
    assert_eq!(told["generation"], 2, "what was refused is no generation");
    assert_eq!(figure(&house, "last_reload_success").await, 1);
    at_rest(house.admin).await.assert_conserved();
}

/// A file of as many accounts, which opened both groups. Their keys are their ids with `key-`
/// before.
fn many(accounts: std::ops::Range<usize>) -> String {
    use sha2::Digest;
    let one = |n| {
        let key = hex::encode(sha2::Sha256::digest(format!("key-{n}")));
        format!(
            "  \"{n}\":\n    name: Number {n}\n    keys: [{{api_key_sha256: {key}}}]\n    services:\n      \
             portrait-segmentation: {{opened: 2026-01-01T00:00:00+08:00}}\n      \
             video-segmentation: {{opened: 2026-01-01T00:00:00+08:00}}\n"
        )
    };
    format!("accounts:\n{}", accounts.map(one).collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_drops_many_accounts_needs_force_and_what_is_gone_frees_its_memory() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[FEW_FILES]);
    std::fs::write(house.file("accounts.yaml"), many(0..60)).unwrap();
    let _process = house.start().await;
    let status = async || {
        let (_, _, body) = get(house.admin, "/status").await;
        let told: Value = serde_json::from_slice(&body).unwrap();
        let policy = &told["policy"];
        (
            policy["accounts"].as_u64().unwrap(),
            policy["gates"].as_u64().unwrap(),
        )
    };
    assert_eq!(status().await, (60, 0), "who never called has no window");
    for key in ["key-3", "key-10"] {
        assert_eq!(call(&house, key).await, StatusCode::OK);
    }

    let restless = Restless::new(house.file("catalog.yaml"));
    // 7 of 60 are more than 10 % and more than 5.
    std::fs::write(house.file("accounts.yaml"), many(7..60)).unwrap();
    for query in ["", "?dry_run=true", "?force=false"] {
        let listed = mistakes(&post_reload(house.admin, query).await);
        assert_eq!(listed.len(), 1);
        let line = line_of("accounts:");
        let place = format!("{}:{line}:1: ", house.file("tollgate.yaml").display());
        assert!(
            listed[0].starts_with(&place)
                && listed[0].contains("7 of 60 accounts are gone (0, 1, 2, ..)")
                && listed[0].ends_with("POST /v1/reload?force=true"),
            "{place}: {listed:?}"
        );
    }
    drop(restless);
    // The watcher has no force either.
    std::fs::write(house.file("accounts.yaml"), many(7..60)).unwrap();
    eventually("the watcher refuses it too", || {
        house.log().matches("7 of 60 accounts are gone").count() > 2
    })
    .await;
    assert_eq!(figure(&house, "generation").await, 1);
    assert_eq!(call(&house, "key-3").await, StatusCode::OK);
    assert_eq!(status().await, (60, 2));

    let (_, told) = post_reload(house.admin, "?force=true").await;
    assert_eq!(told["outcome"], "reloaded");
    assert_eq!(told["changes"].as_array().unwrap().len(), 7);
    assert_eq!(call(&house, "key-3").await, StatusCode::UNAUTHORIZED);
    let until = Clock::default().mono().plus(BOUND);
    while status().await != (53, 1) {
        assert!(Clock::default().mono() < until, "{:?}", status().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // 5 of 53 are not more than 10 %, and few.
    std::fs::write(house.file("accounts.yaml"), many(12..60)).unwrap();
    post_reload(house.admin, "").await;
    assert_eq!(status().await.0, 48);
    let samples = at_rest(house.admin).await;
    samples.assert_conserved();
    assert_eq!(samples.sum("tollgate_records_total", &[]), 3);
}

// What was spent.

/// The most starts in any second that ends with one.
pub fn most_within_a_second(mut starts: Vec<u64>) -> usize {
    starts.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (index, start) in starts.iter().enumerate() {
        while starts[first] + SECOND_NS <= *start {
            first += 1;
        }
        most = most.max(index + 1 - first);
    }
    most
}

/// Sends `calls` calls over the clients at once; how many were let in.
async fn burst(clients: &mut [Client], calls: usize) -> usize {
    let share = calls.div_ceil(clients.len());
    let sent = clients.iter_mut().map(|client| async move {
        let mut answered = 0;
        for _ in 0..share {
            let (status, ..) = client.send(segment(RETAIL_KEY)).await.unwrap();
            answered += usize::from(status == StatusCode::OK);
        }
        answered
    });
    futures_util::future::join_all(sent).await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_editing_an_account_gives_back_what_it_spent() {
    let (_upstream, house, _process) = house().await;
    let clock = Clock::default();
    let good = std::fs::read_to_string(house.file("accounts.yaml")).unwrap();
    let (before, rest) = good.split_once("  \"1250000002\"").unwrap();
    let (account, after) = rest.split_once("  \"1250000003\"").unwrap();
    let with = |from: &str, to: &str| {
        let edited = account.replacen(from, to, 1);
        assert_ne!(edited, account, "{from}");
        format!("{before}  \"1250000002\"{edited}  \"1250000003\"{after}")
    };
    let without = format!("{before}  \"1250000003\"{after}");
    let moved = format!("{before}  \"1250000003\"{after}\n  \"1250000002\"{account}");
    // What the file says in between and at the end, and how much is left of 30 spent.
    let manoeuvres = [
        ("raised", vec![with("qps: 10,", "qps: 15,")], 5),
        ("cut", vec![with("qps: 20,", "qps: 2,")], 0),
        (
            "cut and raised",
            vec![with("qps: 20,", "qps: 2,"), good.clone()],
            0,
        ),
        ("removed and added", vec![without.clone(), good.clone()], 0),
        (
            "removed for a while",
            vec![without.clone(), good.clone()],
            0,
        ),
        ("moved in the file", vec![moved, good.clone()], 0),
        ("by the call", vec![with("mode: qps", "mode: per_call")], 0),
        (
            "by the call and back",
            vec![with("mode: qps", "mode: per_call"), good.clone()],
            0,
        ),
        (
            "stopped and resumed",
            vec![
                with("mode: qps", "mode: qps\n        stopped: violation"),
                good.clone(),
            ],
            0,
        ),
    ];
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(Client::connect(house.public).await.unwrap());
    }
    for (what, files, left) in manoeuvres {
        // Gone for so long that the gates are swept in between, most of the times; shorter when the
        // machine is too busy.
        let (pause_ms, proofs) = match what {
            "removed for a while" => (500, 3),
            _ => (0, 1),
        };
        let mut proved = 0;
        for attempt in 0..12 {
            std::fs::write(house.file("accounts.yaml"), &good).unwrap();
            post_reload(house.admin, "").await;
            tokio::time::sleep(Duration::from_millis(1_060)).await;
            let began = clock.mono();
            let spent = burst(&mut clients, 30).await;
            for file in &files {
                std::fs::write(house.file("accounts.yaml"), file).unwrap();
                let (status, told) = post_reload(house.admin, "").await;
                assert_eq!(status, StatusCode::OK, "{what}: {told}");
                if *file == without {
                    tokio::time::sleep(Duration::from_millis(pause_ms >> (attempt / 2))).await;
                }
            }
            let more = burst(&mut clients, 6).await;
            // Within a second of the first call all that was spent still counts. On a machine so
            // busy that this took longer, it shows nothing.
            if spent == 30 && clock.mono().since(began) < Duration::from_secs(1) {
                assert_eq!(more, left, "{what}");
                proved += 1;
            }
            if proved == proofs {
                break;
            }
        }
        assert!(proved > 0, "{what}: no attempt fitted into a second");
    }
    // However busy: never more than the highest quota that was ever in force.
    let starts = records(&house.ledger()).iter().map(|r| r.start.0).collect();
    assert_eq!(most_within_a_second(starts), 35);
    at_rest(house.admin).await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_calls_in_flight_finish_and_records_them() {
    let (release, held) = tokio::sync::watch::channel(false);
    let upstream = Upstream::scripted(move |_| {
        let mut held = held.clone();
        async move {
            let _ = held.wait_for(|released| *released).await;
            json(StatusCode::OK, "{}")
        }
    })
    .await;
    let house = Sandbox::new(upstream.address, &[FEW_FILES]);
    let _process = house.start().await;
    let mut kept = Client::connect(house.public).await.unwrap();
    let public = house.public;
    let in_flight: Vec<_> = (0..3)
        .map(|_| tokio::spawn(async move { send(public, segment(STUDIO_KEY)).await }))
        .collect();
    eventually("three calls are in flight", || upstream.seen().len() == 3).await;
    house.edit(
        "accounts.yaml",
        "mode: per_call",
        "mode: per_call\n        stopped: arrears",
    );
    post_reload(house.admin, "").await;
    let (status, ..) = kept.send(segment(STUDIO_KEY)).await.unwrap();
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    // Gone altogether: they finish all the same.
    let text = std::fs::read_to_string(house.file("accounts.yaml")).unwrap();
    let (before, rest) = text.split_once("  \"1250000001\"").unwrap();
    let (_, after) = rest.split_once("  \"1250000002\"").unwrap();
    std::fs::write(
        house.file("accounts.yaml"),
        format!("{before}  \"1250000002\"{after}"),
    )
    .unwrap();
    post_reload(house.admin, "").await;
    let (status, ..) = kept.send(segment(STUDIO_KEY)).await.unwrap();
    assert_eq!(status, StatusCode::UNAUTHORIZED);

    release.send(true).unwrap();
    let mut answered = HashSet::new();
    for call in in_flight {
        let (status, headers, _) = call.await.unwrap();
        assert_eq!(status, StatusCode::OK);
        answered.insert(headers["x-request-id"].to_str().unwrap().to_owned());
    }
    at_rest(house.admin).await.assert_conserved();
    let recorded = records(&house.ledger());
    assert_eq!(
        recorded
            .iter()
            .map(|r| r.id.to_string())
            .collect::<HashSet<_>>(),
        answered
    );
    assert!(
        recorded
            .iter()
            .all(|r| r.billable && r.account.as_str() == "1250000001")
    );
}

// The commands that go with it.

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_pasted_as_it_is_printed_and_opens_the_gate() {
    let (_upstream, house, _process) = house().await;
    let mut callers: Vec<Request<Full<Bytes>>> = Vec::new();
    let mut pasted = String::new();
    for kind in ["api-key", "tc3"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
        let said = said(command.args(["key", "new", "--kind", kind]));
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        let line = said.out.lines().last().unwrap();
        pasted.push_str(&format!("      {line}\n"));
        callers.push(if kind == "tc3" {
            let fields = line
                .trim_start_matches("- {secret_id: ")
                .trim_end_matches('}');
            let (id, secret) = fields.split_once(", secret_key: ").unwrap();
            signed(id, secret, "SegmentPortraitPic", "{}")
        } else {
            let key = said
                .out
                .lines()
                .find_map(|line| line.strip_prefix("#   "))
                .unwrap();
            assert!(!line.contains(key), "the file gets the hash only");
            segment(key)
        });
    }
    house.edit(
        "accounts.yaml",
        "    keys:\n      - {secret_id: AKIDEXAMPLESTUDIO",
        &format!("    keys:\n{pasted}      - {{secret_id: AKIDEXAMPLESTUDIO"),
    );
    assert_eq!(house.run(&["check"]).code, Some(0));
    post_reload(house.admin, "").await;
    for caller in callers {
        let (status, _, body) = send(house.public, caller).await;
        assert_eq!(
            (status, &body[..]),
            (
                StatusCode::OK,
                &b"{\"Response\":{\"RequestId\":\"from-upstream\"}}"[..]
            )
        );
    }
    let recorded = records(&house.ledger());
    assert_eq!(recorded.len(), 2);
    assert!(recorded.iter().all(|r| r.account.as_str() == "1250000001"));
}
