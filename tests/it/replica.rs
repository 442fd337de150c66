//! One of several replicas: it admits and counts, and the books are kept elsewhere.

use crate::bills::{self, CUSTOMER, KEY, busy_month, call, into_last_month, last_month, seed};
use crate::harness::*;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tollgate::testing::config::{self, Config};
use tollgate::testing::ledger::{Reader, Record};
use tollgate::testing::model::{Clock, Mode, Month, Reason, Utc};

const PORTRAIT: &str = "portrait-segmentation";
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const ALONE: &str = "admission: {max_delay: 50ms}";
const NOTE: &str = "note: one of several gates: these are the calls that this one admitted";
const NO_BOOKS: &str = "the bills, the balance and what is left of packs are kept elsewhere, from the calls of all gates; ask the provider";
const PART: &str = "one of several gates: these are the calls that this one admitted";

fn zone() -> jiff::tz::TimeZone {
    jiff::tz::TimeZone::get("Asia/Shanghai").unwrap()
}

/// The line of a gate that shares this store.
fn shared(port: u16) -> String {
    format!("admission: {{max_delay: 50ms, store: {{redis: {{nodes: [\"127.0.0.1:{port}\"]}}}}}}")
}

/// The same of a store that no command asks.
fn shared_with_nobody() -> String {
    shared(1)
}

async fn store() -> StoreServer {
    let store = StoreServer::redis(&[]);
    store.ready().await;
    store
}

fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], 9).into()
}

/// Makes a gate of this process a replica, with a webhook that it must not post to.
fn make_replica(config: &mut Config, store: &StoreServer, webhook: SocketAddr) {
    let section = format!(
        "events: {{webhook: \"http://{webhook}/events\", secret: {EVENTS_SECRET}, balance_below: \"1000\"}}\ncatalog: catalog.yaml"
    );
    let of = |edits: &[(&str, &str)]| {
        let house = Sandbox::new(nowhere(), edits);
        config::load(&house.settings).unwrap().settings
    };
    config.settings.store = of(&[(ALONE, &shared(store.port))]).store;
    config.settings.events = of(&[("catalog: catalog.yaml", &section)]).events;
    assert!(config.settings.store.is_some() && config.settings.events.is_some());
}

/// Lets so much time pass, and a pass over days and months come after it.
async fn pass(gate: &Gate, time: Duration) {
    gate.mover.advance(time);
    tokio::time::sleep(Duration::from_millis(600)).await;
    gate.mover.advance(Duration::from_secs(301));
    tokio::time::sleep(Duration::from_millis(600)).await;
}

/// Rows of a table of the ledger.
fn rows(ledger: &Path, table: &str) -> i64 {
    let sql = rusqlite::Connection::open(ledger).unwrap();
    let count = format!("SELECT count(*) FROM {table}");
    sql.query_row(&count, [], |row| row.get(0)).unwrap()
}

fn calls_of_last_month(count: i64) -> impl Iterator<Item = Record> {
    (0..count).map(|n| {
        let at = into_last_month(n * 1_000_000);
        call(CUSTOMER, at, Mode::PerCall, Reason::Billable)
    })
}

/// What the ledger has of bills: months with their debits, and the number of statements and events.
fn books(ledger: &Path) -> (Vec<(String, Option<Utc>)>, [i64; 2]) {
    let settlements = Reader::open(ledger).unwrap().settlements().unwrap();
    let months = settlements.into_iter().map(|of| (of.month, of.debited_at));
    (
        months.collect(),
        ["statements", "events"].map(|table| rows(ledger, table)),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_seals_days_and_fixes_debits_and_tells_nothing_and_deletes_what_is_on_a_statement()
 {
    let (upstream, store) = (Upstream::after(Duration::ZERO).await, store().await);
    let webhook = Upstream::after(Duration::ZERO).await;
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger.db");
    let of_this_month = {
        let a_minute_ago = Utc(Clock::default().utc().0 - 60_000_000);
        let begin = last_month().next().bounds(&zone()).0.max(a_minute_ago);
        (0..5).map(move |n| call(CUSTOMER, Utc(begin.0 + n), Mode::PerCall, Reason::Billable))
    };
    seed(&ledger, calls_of_last_month(1_100));
    // Alone it keeps all: what is settled may be deleted at once.
    let mut alone = Gate::start_with(upstream.address, |config| {
        config.settings.ledger.path.clone_from(&ledger);
    })
    .await;
    eventually("last month is settled", || {
        let last = Reader::open(&ledger).unwrap().last_settlement().unwrap();
        last.is_some_and(|last| last.settled_at.is_some())
    })
    .await;
    let running = alone.running.take().unwrap();
    running.drain(std::future::pending()).await.unwrap();
    assert_eq!(rows(&ledger, "records"), 1_100);
    // After the seal of last month.
    seed(&ledger, of_this_month);

    let before = books(&ledger);
    let sealed = Reader::open(&ledger).unwrap().last_day().unwrap().unwrap();
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.ledger.path.clone_from(&ledger);
        config.settings.ledger.retain_records = DAY;
        make_replica(config, &store, webhook.address);
    })
    .await;
    pass(&gate, HOUR).await;
    // In this time a gate that is alone settles two months, debits them and tells of them.
    pass(&gate, 35 * DAY).await;
    pass(&gate, 35 * DAY).await;
    eventually("what is on a statement is deleted", || {
        rows(&ledger, "records") == 5
    })
    .await;
    let reader = Reader::open(&ledger).unwrap();
    assert!(
        reader.last_day().unwrap().unwrap().day > sealed.day,
        "days are sealed"
    );
    assert_eq!(books(&ledger), before);
    assert_eq!(webhook.seen().len(), 0);
    let metrics = gate.metrics().await;
    let in_arrears = metrics.sum("tollgate_accounts_in_arrears", &[]);
    assert_eq!(in_arrears, 1, "as the files say");
    let settled_until = "tollgate_settlement_last_month_timestamp_seconds";
    assert_eq!(
        metrics.sum(settled_until, &[]),
        0,
        "so no alert waits for a month"
    );
}

/// How the customer's next call is answered, once the store has been asked: until then, and when it is slow on
/// a busy machine, a replica answers 503.
async fn answered(house: &Sandbox) -> StatusCode {
    for _ in 0..200 {
        let (status, ..) = send(house.public, segment(KEY)).await;
        if status != StatusCode::SERVICE_UNAVAILABLE {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the store lets nobody start; the log:\n{}", house.log());
}

/// A manual adjustment that leaves an account far below zero.
fn owing(house: &Sandbox) {
    let now = bills::rfc3339(Clock::default().utc());
    let adjusted = format!(
        "[]\n    adjustments: [{{id: A-1, at: {now}, amount: \"-1000\", reason: an old debt, by: Li Wei}}]"
    );
    std::fs::write(
        house.file("accounts.yaml"),
        bills::accounts("[]", &adjusted),
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_files_stop_a_customer_of_a_replica_for_arrears() {
    let (upstream, store) = (Upstream::after(Duration::ZERO).await, store().await);
    let house = bills::house(upstream.address, "[]", "[]");
    owing(&house);
    seed(&house.ledger(), []);
    let alone = house.start().await;
    assert_eq!(answered(&house).await, StatusCode::PAYMENT_REQUIRED);
    drop(alone);
    house.edit("tollgate.yaml", ALONE, &shared(store.port));
    let _replica = house.start().await;
    assert_eq!(answered(&house).await, StatusCode::OK);
    house.edit("accounts.yaml", "mode: per_call", "stopped: arrears");
    let (done, told) = post_reload(house.admin, "").await;
    assert_eq!(done, StatusCode::OK, "{told}");
    assert_eq!(answered(&house).await, StatusCode::PAYMENT_REQUIRED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_settled_before_stays_and_the_start_says_what_does_not_go_on() {
    let (upstream, store) = (Upstream::after(Duration::ZERO).await, store().await);
    let house = bills::house(upstream.address, &bills::pack(), "[]");
    busy_month(&house);
    let mut alone = house.start().await;
    bills::settled(&house).await;
    eventually("the month is debited", || {
        Reader::open(&house.ledger())
            .unwrap()
            .debits(None)
            .unwrap()
            .len()
            == 1
    })
    .await;
    alone.signal("TERM");
    assert!(alone.ended().await.success());
    assert!(
        !house.log().contains("a store without an outbox"),
        "{}",
        house.log()
    );
    let sql = rusqlite::Connection::open(house.ledger()).unwrap();
    let raised = "INSERT INTO events (id, account, type, raised_at, body) VALUES ('evt_1', '2000000001', 'pack.low', 1, '{}')";
    assert_eq!(sql.execute(raised, []).unwrap(), 1);
    drop(sql);
    let (before, log_before) = (books(&house.ledger()), house.log().len());

    let was_alone = std::fs::read_to_string(&house.settings).unwrap();
    house.edit("tollgate.yaml", ALONE, &shared(store.port));
    let _replica = house.start().await;
    let log = house.log().split_off(log_before);
    let month = last_month();
    for said in [
        "a store without an outbox: this gate is one of several replicas, and the records of the calls that it admits stay in its own ledger"
            .to_owned(),
        format!("this ledger has fixed months, the last is {month}: this gate settled them when it was alone"),
        format!("served again unless the accounts say `stopped: arrears`: {CUSTOMER}"),
        "1 events of this ledger were not delivered, and are not: a replica posts none".to_owned(),
    ] {
        assert_eq!(log.matches(&said).count(), 1, "{said}; the log:\n{log}");
    }
    assert!(!log.contains("not debited here any more"), "{log}");
    assert_eq!(
        answered(&house).await,
        StatusCode::OK,
        "it owes, and this ledger stops nobody"
    );
    assert_eq!(books(&house.ledger()), before);

    // What was fixed is read with the settings of before.
    let refused = house.run(&["statement", "--list"]);
    assert_eq!(refused.code, Some(3), "{}", refused.err);
    std::fs::write(house.file("alone.yaml"), was_alone).unwrap();
    let mut list = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let listed = said(
        list.args(["statement", "--list", "--config"])
            .arg(house.file("alone.yaml")),
    );
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    assert!(listed.out.contains(&month.to_string()), "{}", listed.out);
}

#[test]
fn the_commands_of_money_exit_3_and_those_that_count_say_that_it_is_a_part() {
    let house = bills::house(nowhere(), &bills::pack(), "[]");
    house.edit("tollgate.yaml", ALONE, &shared_with_nobody());
    seed(&house.ledger(), calls_of_last_month(3));
    let month = last_month().to_string();
    for (command, what) in [
        (&["statement", "--month", &month][..], "statements"),
        (&["statement", "--account", CUSTOMER], "statements"),
        (&["statement", "--list"], "statements"),
        (&["report", "--month", &month], "the closing report"),
        (&["refund", "--order", "P-1"], "whether packs are unused"),
    ] {
        let said = house.run(command);
        assert_eq!(
            (said.code, &*said.out),
            (Some(3), ""),
            "{command:?}: {}",
            said.err
        );
        let told = format!(
            "tollgate: {what} cannot be told here: `admission.store` makes this gate one of several replicas"
        );
        assert!(said.err.starts_with(&told), "{command:?}: {}", said.err);
    }
    for command in [
        &["usage", "--month", &month][..],
        &["records"],
        &["verify"],
        &["events"],
    ] {
        let said = house.run(command);
        assert_eq!(said.code, Some(0), "{command:?}: {}", said.err);
        assert!(said.err.contains(NOTE), "{command:?}: {}", said.err);
    }
    let usage = house.run(&["usage", "--month", &month, "--format", "json"]);
    let lines: Value = serde_json::from_str(&usage.out).unwrap();
    assert_eq!(lines["lines"][0]["calls"], 3);
    let price = ["price", "packs", "--group", PORTRAIT, "--calls", "10000"];
    assert_eq!(
        house.run(&price).code,
        Some(0),
        "a list price needs no books"
    );
    let check = house.run(&["check"]);
    assert_eq!(check.code, Some(0), "{}", check.err);
    assert!(
        check.out.contains("127.0.0.1:1: one of several replicas; days are sealed here, and the books are kept elsewhere")
            && check.out.contains("no outbox: the records stay at this replica"),
        "{}",
        check.out
    );
}

/// An action of the vendor's dialect, with an API key.
fn action(name: &str) -> Request<Full<Bytes>> {
    let mut request = plain("POST", "/", STUDIO_KEY, "");
    for (header, value) in [("x-tc-action", name), ("x-tc-version", "2020-03-24")] {
        request.headers_mut().insert(header, value.parse().unwrap());
    }
    request
}

async fn ask(gate: &Gate, request: Request<Full<Bytes>>) -> (StatusCode, HeaderMap, Value) {
    // 5 a second are answered.
    tokio::time::sleep(Duration::from_millis(250)).await;
    let (status, headers, body) = send(gate.public, request).await;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    (status, headers, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_of_a_replica_sees_its_part_of_the_calls_and_is_sent_elsewhere_for_the_bills() {
    let (upstream, store) = (Upstream::after(Duration::ZERO).await, store().await);
    let gate = Gate::start_with(upstream.address, |config| {
        make_replica(config, &store, nowhere());
        let begin = Month::of(Clock::default().utc(), &zone()).bounds(&zone()).0;
        let calls = (0..5).map(|n| {
            let reason = [Reason::Billable, Reason::ServerError][usize::from(n == 4)];
            call("1250000001", Utc(begin.0 + n), Mode::PerCall, reason)
        });
        seed(&config.settings.ledger.path, calls);
    })
    .await;
    let path = |path: &str| plain("GET", path, STUDIO_KEY, "");

    let (status, headers, quota) = ask(&gate, path("/v1/quota")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["x-tollgate-part"], "one-replica");
    for unknown in ["balance", "in_arrears", "due_so_far"] {
        assert_eq!(quota.get(unknown), Some(&Value::Null), "{unknown}");
    }
    assert_eq!(
        (&quota["books"], &quota["part"]),
        (&json!(NO_BOOKS), &json!(PART))
    );
    let service = &quota["services"][PORTRAIT];
    assert_eq!(service["month"]["admitted"], 5);
    assert_eq!(service["month"]["billable"], 4);
    assert_eq!(service["quotas"][0]["quota_qps"], 20);
    for unknown in ["free_calls", "packs", "notices"] {
        assert_eq!(service.get(unknown), Some(&Value::Null), "{unknown}");
    }

    let (status, headers, usage) = ask(&gate, path("/v1/usage")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["x-tollgate-part"], "one-replica");
    assert_eq!(
        (&usage["part"], &usage["admitted"]),
        (&json!(PART), &json!(5))
    );
    let (status, headers, _) = ask(&gate, path("/v1/records?format=csv")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["x-tollgate-part"], "one-replica");
    let (_, _, records) = ask(&gate, action("DescribeRecords")).await;
    assert_eq!(records["Response"]["Records"]["part"], PART);

    let month = last_month();
    for of in [
        "/v1/statements".to_owned(),
        format!("/v1/statements/{month}?format=html"),
    ] {
        let (status, _, problem) = ask(&gate, path(&of)).await;
        assert_eq!(status, StatusCode::CONFLICT, "{of}");
        assert_eq!(
            problem["type"], "urn:tollgate:problem:bills_elsewhere",
            "{problem}"
        );
        let sentence = problem["detail"].as_str().unwrap();
        assert!(
            sentence.contains("The bills are made elsewhere"),
            "{sentence}"
        );
    }
    for name in ["DescribeStatements", "DescribeStatement"] {
        let (status, _, answer) = ask(&gate, action(name)).await;
        assert_eq!(status, StatusCode::OK, "{name}");
        assert_eq!(
            answer["Response"]["Error"]["Code"], "UnsupportedOperation",
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_of_a_replica_are_told_the_same() {
    let (upstream, store) = (Upstream::after(Duration::ZERO).await, store().await);
    let gate = Gate::start_with(upstream.address, |config| {
        make_replica(config, &store, nowhere());
        config.settings.replica = Some("gate-a".to_owned());
        seed(&config.settings.ledger.path, calls_of_last_month(3));
    })
    .await;
    let json_at = async |path: &str| {
        let (status, headers, body) = get(gate.admin, path).await;
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        (status, headers, body)
    };
    let month = last_month();
    let (status, _, told) = json_at(&format!("/v1/statements/1250000001?month={month}")).await;
    assert_eq!(
        (status, &told["detail"]),
        (StatusCode::CONFLICT, &json!(NO_BOOKS))
    );
    let (status, _, account) = json_at("/v1/accounts/1250000001").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(account.get("balances"), Some(&Value::Null));
    assert_eq!(account["books"], NO_BOOKS);
    let (status, _, gone) = json_at(&format!("/v1/accounts/{CUSTOMER}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "it is in no file: {gone}");
    let (_, _, usage) = json_at(&format!("/v1/usage?month={month}")).await;
    assert_eq!(
        (&usage["part"], &usage["replica"]),
        (&json!(PART), &json!("gate-a"))
    );
    let (_, headers, _) = json_at("/v1/records").await;
    assert_eq!(headers["x-tollgate-part"], "one-replica");
    let (_, _, status) = json_at("/status").await;
    assert_eq!(status["replica"], "gate-a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_names_its_replica_by_the_setting_or_by_the_machine() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let named = Gate::start_with(upstream.address, |config| {
        config.settings.replica = Some("gate-a".to_owned());
    })
    .await;
    let unnamed = Gate::start(upstream.address).await;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for (gate, expected) in [(named, "gate-a"), (unnamed, host.trim())] {
        let (status, ..) = send(gate.public, segment(STUDIO_KEY)).await;
        assert_eq!(status, StatusCode::OK);
        let (_, _, body) = get(gate.admin, "/status").await;
        let told: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(gate.records()[0].replica, expected);
        assert_eq!(told["replica"], expected);
    }
}

/// The digest that a gate shows in `/status`, which is the only one in its metrics.
async fn digest(house: &Sandbox) -> String {
    let (_, _, body) = get(house.admin, "/status").await;
    let told: Value = serde_json::from_slice(&body).unwrap();
    let digest = told["policy"]["digest"].as_str().unwrap().to_owned();
    let (_, _, page) = get(house.admin, "/metrics").await;
    let page = String::from_utf8(page.to_vec()).unwrap();
    let series = page
        .lines()
        .filter(|line| line.starts_with("tollgate_config_digest_info{"));
    let expected = format!("tollgate_config_digest_info{{digest=\"{digest}\"}} 1");
    assert_eq!(series.collect::<Vec<_>>(), [expected]);
    digest
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_serve_the_same_show_one_digest_and_a_reload_of_one_alone_shows() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let replicas = [(); 2].map(|()| Sandbox::new(upstream.address, &[]));
    let mut processes = Vec::new();
    for house in &replicas {
        processes.push(house.start().await);
    }
    let [a, b] = &replicas;
    let first = digest(a).await;
    assert_eq!(first.len(), 16);
    // Other ports, another directory.
    assert_eq!(digest(b).await, first);
    let (name, renamed) = ("name: Example Studio", "name: Example Studios");
    a.edit("accounts.yaml", name, renamed);
    assert_eq!(post_reload(a.admin, "").await.1["generation"], 2);
    let second = digest(a).await;
    assert_ne!(second, first);
    assert_eq!(digest(b).await, first);
    b.edit("accounts.yaml", name, renamed);
    assert_eq!(post_reload(b.admin, "").await.1["generation"], 2);
    assert_eq!(digest(b).await, second);
    // A file with mistakes is not in force.
    a.edit("accounts.yaml", renamed, "nam: x");
    assert_eq!(
        post_reload(a.admin, "").await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(digest(a).await, second);
}
