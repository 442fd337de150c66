//! From counted calls to a statement that anybody can check, and back to the gate: with the real
//! binary, whose ledger holds last month's calls before it starts.

use crate::harness::*;
use http::StatusCode;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tollgate::testing::ledger::{Ledger, LedgerOptions, Reader, Record};
use tollgate::testing::model::{Clock, Month, *};

const PORTRAIT: &str = "portrait-segmentation";
pub const KEY: &str = "demo-studio-key";
const KEY_SHA256: &str = "57b552b937c96bc4f2ad78e065bd94c66b7bd1cfe138efe9c313f3de74d3575a";
const HOUR_US: i64 = 3_600_000_000;

fn zone() -> jiff::tz::TimeZone {
    jiff::tz::TimeZone::get("Asia/Shanghai").unwrap()
}

/// The last month that can be settled now: the one before the running one, by the provider's clock,
/// whose first hour is counted to it here.
pub fn last_month() -> Month {
    Month::of(Utc(Clock::default().utc().0 - HOUR_US), &zone()).previous()
}

pub fn rfc3339(at: Utc) -> String {
    jiff::Timestamp::from_microsecond(at.0).unwrap().to_string()
}

/// So long after the beginning of last month.
pub fn into_last_month(us: i64) -> Utc {
    Utc(last_month().bounds(&zone()).0.0 + us)
}

pub fn call(account: &str, at: Utc, mode: Mode, reason: Reason) -> Record {
    Record {
        id: RequestId(uuid::Uuid::now_v7()),
        account: AccountId::new(account).unwrap(),
        key: KeyId::new("k").unwrap(),
        group: GroupId::new(PORTRAIT).unwrap(),
        action: Action::new("SegmentPortraitPic").unwrap(),
        mode,
        admitted_at: at,
        start: Mono(1),
        store_start: None,
        outcome: match reason {
            Reason::UpstreamFailed => Outcome::UpstreamFailed,
            _ => Outcome::Answered,
        },
        status: match reason {
            Reason::UpstreamFailed => None,
            Reason::ServerError => Some(503),
            Reason::NotServed => Some(429),
            _ => Some(200),
        },
        reason,
        duration: Duration::from_millis(30),
    }
}

/// Writes a ledger before any gate has it, as a process that ran for long leaves it: the clock is
/// trusted.
pub fn seed(ledger: &Path, records: impl IntoIterator<Item = Record>) {
    std::fs::create_dir_all(ledger.parent().unwrap()).unwrap();
    let options = LedgerOptions {
        path: ledger.to_owned(),
        durability: Durability::Relaxed,
        replica: String::new(),
        create: true,
        pending_limit: 1_000_000,
        stall_after: Duration::from_secs(1 << 40),
    };
    let ledger = Ledger::open(options, Clock::default(), |_| ()).unwrap();
    for record in records {
        drop(ledger.reserve().unwrap().commit(record));
    }
    ledger.keep(vec![trusted_clock()]).unwrap();
    ledger.close(Duration::from_secs(60)).unwrap();
}

/// One account that pays by the call; `packs` and `payments` are YAML lists.
pub fn accounts(packs: &str, payments: &str) -> String {
    format!(
        "accounts:\n  \"2000000001\":\n    name: First Customer\n    keys: [{{api_key_sha256: {KEY_SHA256}}}]\n    \
         payments: {payments}\n    services:\n      {PORTRAIT}:\n        opened: 2026-01-01T00:00:00+08:00\n        \
         mode: per_call\n        packs: {packs}\n"
    )
}

pub const CUSTOMER: &str = "2000000001";

pub fn house(upstream: std::net::SocketAddr, packs: &str, payments: &str) -> Sandbox {
    let house = Sandbox::new(upstream, &[]);
    std::fs::write(house.file("accounts.yaml"), accounts(packs, payments)).unwrap();
    house
}

/// Last month: 14,000 billable calls from its first hour on, one a second, and some that are not. A
/// pack of 10,000 that was delivered in the midst of an hour, after 1,500 of them.
pub fn busy_month(house: &Sandbox) {
    let from = into_last_month(0);
    let calls = (0..14_000).map(|n| {
        let at = Utc(from.0 + n * 1_000_000);
        call(CUSTOMER, at, Mode::PerCall, Reason::Billable)
    });
    const REASONS: [Reason; 4] = [
        Reason::Vetoed,
        Reason::ServerError,
        Reason::NotServed,
        Reason::UpstreamFailed,
    ];
    let others = (0..30).map(|n| {
        let reason = REASONS[n % REASONS.len()];
        call(CUSTOMER, Utc(from.0 + 5 * HOUR_US), Mode::PerCall, reason)
    });
    seed(&house.ledger(), calls.chain(others));
}

/// Delivered 1,500 seconds into last month: in the midst of its first hour.
pub fn pack() -> String {
    let delivered = rfc3339(into_last_month(1_500_000_000));
    format!("[{{order: P-1, calls: 10000, delivered: {delivered}, paid: {{cash: \"88\"}}}}]")
}

fn statement(house: &Sandbox) -> Value {
    let month = last_month().to_string();
    let said = house.run(&[
        "statement",
        "--account",
        CUSTOMER,
        "--month",
        &month,
        "--format",
        "json",
    ]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    serde_json::from_str(&said.out).unwrap()
}

async fn admin_json(house: &Sandbox, path: &str) -> Value {
    let (status, _, body) = get(house.admin, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body:?}");
    serde_json::from_slice(&body).unwrap()
}

/// Waits until the gate has settled last month.
pub async fn settled(house: &Sandbox) -> Value {
    let path = format!("/v1/statements/{CUSTOMER}?month={}", last_month());
    for _ in 0..600 {
        let statement = admin_json(house, &path).await;
        if !statement["fixed"].is_null() {
            return statement;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the month is not settled; the log:\n{}", house.log());
}

/// The customer's own recount, from what it can export, by a program that shares nothing with this
/// one.
fn recount(house: &Sandbox) -> Output {
    let month = last_month().to_string();
    let dir = house.dir.path();
    for (command, format, file) in [
        ("statement", "json", "statement.json"),
        ("records", "jsonl", "records.jsonl"),
    ] {
        let said = house.run(&[
            command,
            "--account",
            CUSTOMER,
            "--month",
            &month,
            "--format",
            format,
        ]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        std::fs::write(dir.join(file), said.out).unwrap();
    }
    recount_files(dir)
}

fn recount_files(dir: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recount/recount.py");
    said(
        Command::new("python3")
            .arg(script)
            .arg(dir.join("statement.json"))
            .arg(dir.join("records.jsonl")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_is_settled_once_whatever_the_files_say_later_and_arrears_end_when_they_are_paid() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address, &pack(), "[]");
    busy_month(&house);

    // 1,000 free, then 500 before the pack came, 10,000 by the pack, 2,500 after it: 14,000 reach
    // the tier of 0.009.
    let open = statement(&house);
    let use_of = &open["groups"][0]["per_call"];
    assert_eq!(use_of["free"]["used"], 1_000);
    assert_eq!(use_of["packs"][0]["used"], 10_000);
    assert_eq!(use_of["postpaid"]["calls"], 3_000);
    assert_eq!(open["due"], "27.00");
    assert_eq!(open["fixed"], Value::Null);
    assert_eq!(
        open["groups"][0]["not_billable"].as_array().unwrap().len(),
        4
    );

    let process = house.start().await;
    let fixed = settled(&house).await;
    assert_eq!(fixed["due"], "27.00");
    assert_eq!(fixed["fixed"]["through_seq"], 14_030);
    assert_eq!(
        statement(&house),
        fixed,
        "the command reads what was stored"
    );

    // R17: no payment, so the balance is below zero, and the service stops at the next call.
    let (status, _, body) = send(house.public, segment(KEY)).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED, "{body:?}");
    let balances = &admin_json(&house, &format!("/v1/accounts/{CUSTOMER}")).await["balances"];
    assert_eq!(balances["balance"], "-27.00");
    assert_eq!(balances["in_arrears"], true);
    let samples = scrape(house.admin).await;
    assert_eq!(samples.sum("tollgate_accounts_in_arrears", &[]), 1);

    // A restart changes nothing of it: the first call after it is refused too. From here on the
    // clock is not trusted.
    drop(process);
    let ledger = rusqlite::Connection::open(house.ledger()).unwrap();
    let change = "UPDATE clock SET boot = 'another machine'";
    assert_eq!(ledger.execute(change, []).unwrap(), 1);
    drop(ledger);
    let _process = house.start().await;
    assert_eq!(
        send(house.public, segment(KEY)).await.0,
        StatusCode::PAYMENT_REQUIRED
    );

    // Too little, and the pack is gone from the files: the statement stays as it was fixed.
    let now = rfc3339(Clock::default().utc());
    let paid = |amount: &str| format!("[{{order: T-1, at: {now}, amount: \"{amount}\"}}]");
    std::fs::write(house.file("accounts.yaml"), accounts("[]", &paid("26.99"))).unwrap();
    let (status, told) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(
        send(house.public, segment(KEY)).await.0,
        StatusCode::PAYMENT_REQUIRED
    );
    assert_eq!(statement(&house), fixed);

    std::fs::write(house.file("accounts.yaml"), accounts("[]", &paid("27"))).unwrap();
    let (status, told) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let mut status = StatusCode::PAYMENT_REQUIRED;
    for _ in 0..100 {
        status = send(house.public, segment(KEY)).await.0;
        if status == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, StatusCode::OK, "it comes back by itself");
    let own = send(house.public, plain("GET", "/v1/quota", KEY, ""))
        .await
        .2;
    let own: Value = serde_json::from_slice(&own).unwrap();
    assert_eq!(
        (&own["balance"], &own["in_arrears"]),
        (&json!("0.00"), &json!(false))
    );
    assert_eq!(own["services"][PORTRAIT]["free_calls"]["left"], 999);
    assert_eq!(house.log().matches("settled the month").count(), 1);
    let samples = scrape(house.admin).await;
    assert_eq!(samples.sum("tollgate_clock_trusted", &[]), 0);
}

/// Waits until the customer's next call is answered so.
async fn answered(house: &Sandbox, wanted: StatusCode) {
    let mut status = StatusCode::IM_A_TEAPOT;
    for _ in 0..200 {
        status = send(house.public, segment(KEY)).await.0;
        if status == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{status} and not {wanted}; the log:\n{}", house.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credit_limit_and_a_late_order_keep_the_service_and_a_manual_adjustment_can_stop_it() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address, "[]", "[]");
    busy_month(&house);
    let _process = house.start().await;
    let fixed = settled(&house).await;
    assert_eq!(fixed["due"], "117.00");
    assert_eq!(fixed["balance"]["after"], "-117.00");
    answered(&house, StatusCode::PAYMENT_REQUIRED).await;

    // The pack is entered too late: 90.00 of the debt are taken back, and the limit bears the rest.
    let write = |packs: &str, payments: &str| {
        std::fs::write(house.file("accounts.yaml"), accounts(packs, payments)).unwrap();
    };
    let now = rfc3339(Utc(Clock::default().utc().0 - HOUR_US));
    let adjustment = |amount: &str| {
        format!(
            "[]\n    credit_limit: \"27\"\n    adjustments: [{{id: A-1, at: {now}, amount: \"{amount}\", reason: counted twice, by: Li Wei}}]"
        )
    };
    write(&pack(), "[]\n    credit_limit: \"26.99\"");
    assert_eq!(post_reload(house.admin, "").await.0, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    answered(&house, StatusCode::PAYMENT_REQUIRED).await;
    write(&pack(), "[]\n    credit_limit: \"27\"");
    assert_eq!(post_reload(house.admin, "").await.0, StatusCode::OK);
    answered(&house, StatusCode::OK).await;
    write(&pack(), &adjustment("-0.01"));
    assert_eq!(post_reload(house.admin, "").await.0, StatusCode::OK);
    answered(&house, StatusCode::PAYMENT_REQUIRED).await;
    let one = admin_json(&house, &format!("/v1/accounts/{CUSTOMER}")).await;
    assert_eq!(one["balances"]["balance"], "-117.01");
    assert_eq!(one["balances"]["in_arrears"], true);
    write(&pack(), &adjustment("0.01"));
    assert_eq!(post_reload(house.admin, "").await.0, StatusCode::OK);
    answered(&house, StatusCode::OK).await;

    // The next statement takes it back, and the fixed one stays.
    assert_eq!(statement(&house), fixed);
    let dir = house.dir.path();
    let this_month = last_month().next().to_string();
    let export = |command: &str, format: &str, month: &str, file: &str| {
        let said = house.run(&[
            command,
            "--account",
            CUSTOMER,
            "--month",
            month,
            "--format",
            format,
        ]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        std::fs::write(dir.join(file), said.out).unwrap();
    };
    export("statement", "json", &this_month, "statement.json");
    export("records", "jsonl", &this_month, "records.jsonl");
    export(
        "statement",
        "json",
        &last_month().to_string(),
        "before.json",
    );
    export(
        "records",
        "jsonl",
        &last_month().to_string(),
        "earlier.jsonl",
    );
    let text = std::fs::read_to_string(dir.join("statement.json")).unwrap();
    let next: Value = serde_json::from_str(&text).unwrap();
    let line = &next["groups"][0]["adjustments"][0];
    assert_eq!(
        (&line["month"], &line["amount"]),
        (&json!(last_month().to_string()), &json!("-90.00"))
    );
    assert_eq!(next["due"], "-90.00");
    assert_eq!(next["balance"]["adjustments"][0]["amount"], "0.01");
    assert_eq!(next["balance"]["after"], "-26.99");
    let recount = |file: &str| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recount/recount.py");
        let path = |name: &str| dir.join(name);
        said(
            Command::new("python3")
                .arg(script)
                .args([path(file), path("records.jsonl")])
                .arg("--adjusted")
                .args([path("before.json"), path("earlier.jsonl")]),
        )
    };
    let honest = recount("statement.json");
    assert_eq!(honest.code, Some(0), "{}{}", honest.out, honest.err);
    assert!(
        honest
            .out
            .contains("computed again: calls covered by P-1: 10000"),
        "{}",
        honest.out
    );
    for (from, to) in [
        ("\"amount\":\"-90.00\"", "\"amount\":\"-89.00\""),
        ("\"fixed\":\"117.00\"", "\"fixed\":\"116.00\""),
        ("\"after\":\"-26.99\"", "\"after\":\"-27.00\""),
    ] {
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(dir.join("forged.json"), text.replace(from, to)).unwrap();
        assert_eq!(recount("forged.json").code, Some(1), "{from}");
    }

    // Its refund is refused: it is used.
    let refunded = pack().replace("}}]", &format!("}}, refunded: {now}}}]"));
    write(&refunded, &adjustment("0.01"));
    let (status, told) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let warned = told["warnings"][0].as_str().unwrap();
    assert!(
        warned.contains("`refunded` of order P-1 is refused (R18): 10000 calls"),
        "{told}"
    );
    let checked = house.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    assert!(
        checked
            .err
            .contains("warning: 2000000001 portrait-segmentation: `refunded` of"),
        "{}",
        checked.err
    );
    assert!(house.log().contains("is refused (R18)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_about_an_account_in_arrears_is_told_the_same() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address, &pack(), "[]");
    busy_month(&house);
    let _process = house.start().await;
    settled(&house).await;
    // It is debited and stopped a moment after its month is fixed.
    answered(&house, StatusCode::PAYMENT_REQUIRED).await;
    let own = send(house.public, plain("GET", "/v1/quota", KEY, ""))
        .await
        .2;
    let own: Value = serde_json::from_slice(&own).unwrap();
    let one = admin_json(&house, &format!("/v1/accounts/{CUSTOMER}")).await;
    let all = admin_json(&house, "/v1/accounts").await;
    assert_eq!(own["in_arrears"], true);
    assert_eq!(all[0]["removed"], false);
    for quota in [
        &own["services"][PORTRAIT]["quotas"][0],
        &one["services"][PORTRAIT][0],
        &all[0]["services"][PORTRAIT][0],
    ] {
        assert_eq!(
            (&quota["quota_qps"], &quota["stopped"]),
            (&json!(0), &json!("arrears"))
        );
        let because = quota["because"][0]["rule"].as_str().unwrap();
        assert!(because.contains("in arrears"), "{because}");
        assert_eq!(quota["next_change"], Value::Null);
        assert_eq!(quota["opened"], "2026-01-01T00:00:00+08:00");
    }
    assert_eq!(all[0]["services"][PORTRAIT][0]["refused"], 1);
    for answer in [&own, &one, &all] {
        assert!(!answer.to_string().contains("Z\""), "one zone: {answer}");
    }
    let account = format!("account=\"{CUSTOMER}\"");
    let metric = async |name| scrape(house.admin).await.sum(name, &[&account]);
    assert_eq!(metric("tollgate_quota_qps").await, 0);

    // Its entry goes, and its debt stays to be seen.
    std::fs::write(house.file("accounts.yaml"), "accounts: {}\n").unwrap();
    let (status, told) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let gone = admin_json(&house, &format!("/v1/accounts/{CUSTOMER}")).await;
    assert_eq!(
        (&gone["removed"], &gone["balances"]["balance"]),
        (&json!(true), &json!("-27.00"))
    );
    let all = admin_json(&house, "/v1/accounts").await;
    assert_eq!(
        (&all[0]["id"], &all[0]["balance"]),
        (&json!(CUSTOMER), &json!("-27.00"))
    );
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let text = get(house.admin, "/metrics").await.2;
    let text = String::from_utf8(text.to_vec()).unwrap();
    for line in [
        format!("tollgate_account_balance{{{account}}} -27"),
        "tollgate_accounts_in_arrears 1".to_owned(),
    ] {
        assert!(text.lines().any(|told| told == line), "{line}: {text}");
    }
}

#[test]
fn a_month_before_the_opening_has_no_free_pack() {
    let house = house(([127, 0, 0, 1], 9).into(), "[]", "[]");
    seed(&house.ledger(), []);
    for (month, granted) in [("2025-12", 0), ("2026-01", 1_000)] {
        let said = house.run(&[
            "statement",
            "--account",
            CUSTOMER,
            "--month",
            month,
            "--format",
            "json",
        ]);
        let statement: Value = serde_json::from_str(&said.out).unwrap();
        let free = &statement["groups"][0]["per_call"]["free"];
        assert_eq!(free["granted"], granted, "{month}");
        assert_eq!(free["left"], granted, "{month}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_of_a_sealed_day_and_a_settled_month_are_logged_at_every_level() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address, &pack(), "[]");
    busy_month(&house);
    let process = house.start_under(&["env", "TOLLGATE_LOG=error"]).await;
    settled(&house).await;
    let logged = async {
        while !house.log().contains("settled the month") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let logged = tokio::time::timeout(BOUND, logged).await;
    let log = house.log();
    assert!(logged.is_ok() && log.contains("sealed the day"), "{log}");
    assert!(!log.contains("serving"), "{log}");
    drop(process);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_recounts_its_bill_and_a_bill_that_was_changed_does_not_pass() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address, &pack(), "[]");
    busy_month(&house);
    let process = house.start().await;
    settled(&house).await;
    drop(process);

    let honest = recount(&house);
    assert_eq!(honest.code, Some(0), "{}{}", honest.out, honest.err);

    let file = house.dir.path().join("statement.json");
    let text = std::fs::read_to_string(&file).unwrap();
    for (from, to) in [
        ("\"due\":\"27.00\"", "\"due\":\"27.01\""),
        ("\"used\":10000", "\"used\":9999"),
        ("\"unit_price\":\"0.009\"", "\"unit_price\":\"0.01\""),
        ("\"key\":\"k\"", "\"key\":\"another\""),
    ] {
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(&file, text.replace(from, to)).unwrap();
        let forged = recount_files(house.dir.path());
        assert_eq!(forged.code, Some(1), "{to}: {}{}", forged.out, forged.err);
    }
    std::fs::write(&file, &text).unwrap();
    let records = house.dir.path().join("records.jsonl");
    let lines = std::fs::read_to_string(&records).unwrap();
    let billed_for_nothing = lines.replace("\"status\":429", "\"status\":200");
    assert_ne!(billed_for_nothing, lines);
    std::fs::write(&records, billed_for_nothing).unwrap();
    let forged = recount_files(house.dir.path());
    assert_eq!(
        forged.code,
        Some(1),
        "a reason that its status does not bear out"
    );
    let (_, one_less) = lines.split_once('\n').unwrap();
    std::fs::write(&records, one_less).unwrap();
    assert_eq!(
        recount_files(house.dir.path()).code,
        Some(1),
        "a call that is not there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_by_hand_in_the_ledger_is_found_and_named() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address, &pack(), "[]");
    busy_month(&house);
    let mut process = house.start().await;
    let fixed = settled(&house).await;
    // So that all of it is in the one file that is copied below.
    process.signal("TERM");
    assert!(process.ended().await.success());
    let head = fixed["fixed"]["head"].as_str().unwrap();

    let honest = house.run(&["verify", "--checkpoint", head]);
    assert_eq!(honest.code, Some(0), "{}{}", honest.out, honest.err);
    let unknown = house.run(&["verify", "--checkpoint", &"0123456789abcdef".repeat(4)]);
    assert_eq!(unknown.code, Some(1), "a head that is not of this ledger");

    // What the log published when the month was settled.
    let log = house.log();
    let line = log.lines().find(|line| line.contains("settled the month"));
    let published: Value = serde_json::from_str(line.unwrap()).unwrap();
    let (digest, seal) = (
        published["digest"].as_str().unwrap(),
        published["seal"].as_str().unwrap(),
    );
    let month = last_month().to_string();
    let with_digest = |month: &str, digest: &str| {
        let given = format!("{month}={digest}");
        house.run(&["verify", "--checkpoint", seal, "--digest", &given])
    };
    let honest = with_digest(&month, digest);
    assert_eq!(honest.code, Some(0), "{}{}", honest.out, honest.err);
    for (month, digest, named) in [
        (&*month, seal, "its digest is"),
        ("2026-01", digest, "it is not settled"),
    ] {
        let refused = with_digest(month, digest);
        assert_eq!(refused.code, Some(1), "{}", refused.out);
        assert!(refused.err.contains(named), "{}", refused.err);
    }

    let whole = std::fs::read(house.ledger()).unwrap();
    for (change, named) in [
        (
            "UPDATE settlements SET fixed_at = fixed_at - 1",
            "settlements",
        ),
        (
            "UPDATE settlements SET settled_at = settled_at - 1",
            "settlements",
        ),
        (
            "UPDATE settlements SET digest = zeroblob(32)",
            "settlements",
        ),
        ("DELETE FROM settlements", "settlements"),
        (
            "DELETE FROM days WHERE day = (SELECT max(day) FROM days)",
            "days",
        ),
        (
            "UPDATE statements SET inputs = replace(inputs, 'First', 'Last'), statement = replace(statement, 'First', 'Last')",
            "were settled",
        ),
        ("UPDATE raw SET status = 500 WHERE seq = 777", "777"),
        ("DELETE FROM raw WHERE seq = 778", "778"),
        ("UPDATE series SET mode = 'qps' WHERE reason = ''", "raw 1"),
        (
            "UPDATE hours SET calls = calls - 1 WHERE calls > 1000",
            "hours",
        ),
        ("UPDATE statements SET due = '26.00'", "26.00"),
        ("DELETE FROM statements", "it is not there"),
        (
            "UPDATE statements SET inputs = replace(inputs, '\"used_before\":0', '\"used_before\":1')",
            "another statement",
        ),
        (
            "UPDATE statements SET statement = replace(statement, '\"due\":\"27.00\"', '\"due\":\"26.00\"'), due = '26.00'",
            CUSTOMER,
        ),
    ] {
        for file in ["-wal", "-shm"] {
            let mut path = house.ledger().into_os_string();
            path.push(file);
            let _ = std::fs::remove_file(path);
        }
        std::fs::write(house.ledger(), &whole).unwrap();
        let connection = rusqlite::Connection::open(house.ledger()).unwrap();
        assert!(connection.execute(change, []).unwrap() > 0, "{change}");
        drop(connection);
        let said = house.run(&["verify", "--checkpoint", head]);
        assert_eq!(said.code, Some(1), "{change}: {}", said.out);
        assert!(said.err.contains(named), "{change}: {}", said.err);
    }
}

/// Whoever removes a settlement wants another one made, with another file.
#[tokio::test(flavor = "multi_thread")]
async fn a_month_is_not_settled_again_with_other_orders_when_its_settlement_was_removed() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address, "[]", "[]");
    busy_month(&house);
    let mut process = house.start().await;
    assert_ne!(settled(&house).await["due"], "0.00");
    process.signal("TERM");
    assert!(process.ended().await.success());
    let log = house.log();
    let sealed = log.lines().find(|line| line.contains("sealed the day"));
    let sealed: Value = serde_json::from_str(sealed.unwrap()).unwrap();
    let head = sealed["head"].as_str().unwrap();
    let sql = rusqlite::Connection::open(house.ledger()).unwrap();
    sql.execute_batch("DELETE FROM settlements; DELETE FROM statements")
        .unwrap();
    drop(sql);
    std::fs::write(house.file("accounts.yaml"), accounts(&pack(), "[]")).unwrap();
    let named = || {
        let said = house.run(&["verify", "--checkpoint", head]);
        assert_eq!(said.code, Some(1), "{}", said.out);
        assert!(
            said.err.contains(&format!("settlements {}", last_month())),
            "{}",
            said.err
        );
    };
    named();
    let mut process = house.start().await;
    for _ in 0..200 {
        if house.log().contains("was settled before") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        house.log().contains("was settled before"),
        "{}",
        house.log()
    );
    assert_eq!(house.log().matches("settled the month").count(), 1);
    process.signal("TERM");
    assert!(process.ended().await.success());
    named();
}

/// A head says nothing of a month that is only begun. Its statements would be computed from the
/// records up to there.
#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_somebody_has_begun_by_hand_is_named_and_not_fixed() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address, "[]", "[]");
    busy_month(&house);
    let mut process = house.start().await;
    settled(&house).await;
    process.signal("TERM");
    assert!(process.ended().await.success());
    let sql = rusqlite::Connection::open(house.ledger()).unwrap();
    let end = last_month().next().bounds(&zone()).1;
    let begun = "INSERT INTO settlements (month, through_seq, head, fixed_at)
                 SELECT ?1, last_seq, head, ?2 FROM days ORDER BY day DESC LIMIT 1";
    let month = last_month().next().to_string();
    let values = rusqlite::params![month, end.0 + HOUR_US];
    sql.execute(begun, values).unwrap();
    let head: String = sql
        .query_row(
            "SELECT lower(hex(head)) FROM days ORDER BY day DESC LIMIT 1",
            [],
            |row| row.get(0),
        )
        .unwrap();
    drop(sql);
    let said = house.run(&["verify", "--checkpoint", &head]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    let named = format!("{month} was not fixed by a gate");
    assert!(said.err.contains(&named), "{}", said.err);
    let _process = house.start().await;
    for _ in 0..200 {
        if house.log().contains(&named) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is not named; the log:\n{}", house.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_is_killed_again_and_again_debits_every_account_once() {
    const ACCOUNTS: i64 = 300;
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut file = accounts("[]", "[]");
    for n in 0..ACCOUNTS {
        file += &format!(
            "  \"many-{n}\":\n    name: one of many\n    services:\n      {PORTRAIT}: {{opened: 2026-01-01T00:00:00+08:00, mode: per_call}}\n"
        );
    }
    std::fs::write(house.file("accounts.yaml"), file).unwrap();
    // 1,100 calls each would take long to write: the free pack is small instead.
    house.edit("catalog.yaml", "free_calls: 1000", "free_calls: 0");
    let at = into_last_month(HOUR_US);
    let calls = (0..ACCOUNTS * 3).map(|n| {
        let account = format!("many-{}", n % ACCOUNTS);
        call(&account, at, Mode::PerCall, Reason::Billable)
    });
    seed(&house.ledger(), calls);

    let mut kills = 0;
    let statements = || {
        let sql = "SELECT count(*), count(DISTINCT account), coalesce(sum(due = '0.03'), 0) FROM statements";
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let open = rusqlite::Connection::open_with_flags(house.ledger(), flags).unwrap();
        let counts = open.query_row(sql, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]));
        counts.unwrap_or([0_i64; 3])
    };
    for _ in 0..40 {
        let mut process = house.start().await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(900..1_600))).await;
        process.kill();
        let [count, ..] = statements();
        if count == ACCOUNTS {
            break;
        }
        kills += usize::from(count > 0);
    }
    let _process = house.start().await;
    for _ in 0..400 {
        if house.log().contains("settled the month") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!("{kills} kills in the midst of the settlement");
    assert_eq!(statements(), [ACCOUNTS; 3]);
    let verified = house.run(&["verify"]);
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_runs_out_is_told_to_the_webhook_and_not_twice() {
    let receiver = Upstream::after(Duration::ZERO).await;
    let upstream = Upstream::after(Duration::ZERO).await;
    let catalog = "catalog: catalog.yaml";
    let webhook = format!(
        "events: {{webhook: \"http://{}/events\", secret: {EVENTS_SECRET}}}\n{catalog}",
        receiver.address
    );
    let house = Sandbox::new(upstream.address, &[(catalog, &webhook)]);
    let delivered = rfc3339(into_last_month(0));
    let packs =
        format!("[{{order: P-1, calls: 10000, delivered: {delivered}, paid: {{cash: \"88\"}}}}]");
    std::fs::write(house.file("accounts.yaml"), accounts(&packs, "[]")).unwrap();
    house.edit("catalog.yaml", "free_calls: 1000", "free_calls: 0");
    // 1,501 are left: two calls more, and it is under 15 %.
    let (month, _) = last_month().next().bounds(&zone());
    let calls =
        (0..8_499).map(|n| call(CUSTOMER, Utc(month.0 + n), Mode::PerCall, Reason::Billable));
    seed(&house.ledger(), calls);

    let process = house.start().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let early: Vec<_> = receiver.seen().into_iter().map(|seen| seen.body).collect();
    assert!(early.is_empty(), "1,501 of 10,000 are left: {early:?}");
    assert_eq!(send(house.public, segment(KEY)).await.0, StatusCode::OK);
    assert_eq!(send(house.public, segment(KEY)).await.0, StatusCode::OK);
    for _ in 0..600 {
        if !receiver.seen().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seen = receiver.seen();
    assert_eq!(seen.len(), 1, "{}", house.log());
    let told: Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(told["type"], "pack.low");
    let expected = json!({
        "account": CUSTOMER, "name": "First Customer", "group": PORTRAIT, "order": "P-1", "pack": 1,
        "calls": 10_000, "left": 1_499
    });
    assert_eq!(told["data"], expected);
    let samples = scrape(house.admin).await;
    assert_eq!(
        samples.sum("tollgate_events_total", &["outcome=\"delivered\""]),
        1
    );
    drop(process);

    let _process = house.start().await;
    assert_eq!(send(house.public, segment(KEY)).await.0, StatusCode::OK);
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(receiver.seen().len(), 1, "it was told already");
}

#[test]
fn prices_and_refunds_are_quoted_with_their_rule() {
    let house = Sandbox::new(([127, 0, 0, 1], 9).into(), &[]);
    let yesterday = rfc3339(Utc(Clock::default().utc().0 - 24 * HOUR_US));
    let packs = format!(
        "[{{order: P-1, calls: 10000, delivered: {yesterday}, paid: {{cash: \"80\", voucher: \"8\"}}}}, \
          {{order: P-2, calls: 10000, delivered: 2026-01-01T00:00:00+08:00, paid: {{cash: \"88\"}}}}]"
    );
    let purchases = "        qps_purchases: [{order: Q-1, qps: 10, from: 2026-01-01T00:00:00+08:00, months: 1, paid: {cash: \"7800\"}}]\n";
    let file = accounts(&packs, "[]") + purchases;
    std::fs::write(house.file("accounts.yaml"), file).unwrap();
    seed(&house.ledger(), []);
    let price = |words: &[&str]| {
        let mut all = vec!["price", words[0], "--group", PORTRAIT];
        all.extend(&words[1..]);
        let said = house.run(&all);
        (
            said.code,
            said.out.lines().next().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(
        price(&["qps", "--qps", "10", "--months", "1"]),
        (Some(0), "7800.00 CNY".into())
    );
    assert_eq!(
        price(&["qps", "--qps", "9", "--days", "3"]),
        (Some(0), "1296.00 CNY".into())
    );
    assert_eq!(
        price(&["packs", "--calls", "10000", "--count", "3"]),
        (Some(0), "264.00 CNY".into())
    );
    assert_eq!(price(&["packs", "--calls", "123"]).0, Some(1));
    assert_eq!(price(&["qps", "--qps", "10"]).0, Some(2), "for how long?");

    // What the accounts file would not take is not quoted.
    for (words, most) in [
        (["qps", "--qps", "1000001", "--months", "1"], "1000000"),
        (["qps", "--qps", "0", "--months", "1"], "1000000"),
        (["qps", "--qps", "10", "--months", "121"], "120"),
        (["qps", "--qps", "10", "--days", "3661"], "3660"),
        (["qps", "--qps", "10", "--days", "0"], "3660"),
        (["packs", "--calls", "10000", "--count", "10001"], "10000"),
        (["packs", "--calls", "10000", "--count", "0"], "10000"),
    ] {
        let said = house.run(&[
            "price", words[0], "--group", PORTRAIT, words[1], words[2], words[3], words[4],
        ]);
        assert_eq!(said.code, Some(2), "{words:?}: {}", said.out);
        assert!(said.err.contains(&format!("1..={most}")), "{}", said.err);
    }
    assert_eq!(price(&["qps", "--qps", "1", "--days", "3660"]).0, Some(0));
    let both = price(&["qps", "--qps", "1", "--days", "1", "--months", "1"]);
    assert_eq!(both.0, Some(2), "one of the two");
    for (words, amount, ordered) in [
        (
            ["qps", "--qps", "10", "--months", "1"],
            "7800.00",
            json!({"qps": 10, "months": 1}),
        ),
        (
            ["packs", "--calls", "10000", "--count", "3"],
            "264.00",
            json!({"calls": 10_000, "count": 3}),
        ),
    ] {
        let (code, line) = price(&[&words[..], &["--format", "json"]].concat());
        let document: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((code, &document["amount"]), (Some(0), &json!(amount)));
        assert_eq!(document["currency"], "CNY");
        for (name, number) in ordered.as_object().unwrap() {
            assert_eq!(document[name], *number);
        }
    }

    let yes = house.run(&["refund", "--order", "P-1"]);
    assert_eq!(yes.code, Some(0), "{}{}", yes.out, yes.err);
    assert!(
        yes.out.starts_with("yes: 80.00 CNY")
            && yes.out.contains("\n  cash 80.00\n")
            && yes.out.contains("R18"),
        "{}",
        yes.out
    );
    let no = house.run(&["refund", "--order", "P-2"]);
    assert_eq!(no.code, Some(1));
    assert!(no.out.starts_with("no: R18"), "{}", no.out);
    let document = |order: &str| -> (Option<i32>, Value) {
        let said = house.run(&["refund", "--order", order, "--format", "json"]);
        (said.code, serde_json::from_str(&said.out).expect(&said.err))
    };
    let (code, told) = document("P-1");
    assert_eq!(code, Some(0));
    assert_eq!(
        (&told["order"], &told["account"], &told["group"]),
        (&json!("P-1"), &json!(CUSTOMER), &json!(PORTRAIT))
    );
    assert_eq!(
        (&told["paid_back"], &told["total"], &told["currency"]),
        (&json!(true), &json!("80.00"), &json!("CNY"))
    );
    assert_eq!(told["funds"], json!({"cash": "80.00"}));
    assert!(told["until"].as_str().unwrap().ends_with("T00:00:00+08:00"));
    let (code, told) = document("P-2");
    assert_eq!(code, Some(1));
    assert_eq!(
        (&told["paid_back"], &told["reason"]),
        (&json!(false), &json!("too_late"))
    );
    assert!(told["why"].as_str().unwrap().starts_with("R18: "));
    let unknown = house.run(&["refund", "--order", "P-9"]);
    // Not for a script to take for a no.
    assert_eq!((unknown.code, unknown.out.as_str()), (Some(2), ""));
    assert!(unknown.err.contains("no order P-9"), "{}", unknown.err);
    let purchase = house.run(&["refund", "--order", "Q-1"]);
    assert_eq!(purchase.code, Some(1), "{}", purchase.err);
    assert_eq!(
        purchase.out,
        "no: R18: the order is a QPS purchase, which is not paid back\n"
    );
    std::fs::remove_file(house.ledger()).unwrap();
    let blind = house.run(&["refund", "--order", "P-1"]);
    assert_eq!((blind.code, blind.out.as_str()), (Some(2), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_reaches_the_ledger_after_its_month_was_fixed_is_on_the_next_statement() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address, &pack(), "[]");
    busy_month(&house);
    let process = house.start().await;
    let fixed = settled(&house).await;
    drop(process);

    // As if it had waited somewhere: admitted last month, recorded now. And one of this month.
    let (month, _) = last_month().next().bounds(&zone());
    let late = call(
        CUSTOMER,
        into_last_month(HOUR_US),
        Mode::PerCall,
        Reason::Billable,
    );
    let in_time = call(CUSTOMER, month, Mode::PerCall, Reason::Billable);
    seed(&house.ledger(), [late, in_time]);
    assert_eq!(statement(&house), fixed);
    let next = last_month().next().to_string();
    let running = house.run(&[
        "statement",
        "--account",
        CUSTOMER,
        "--month",
        &next,
        "--format",
        "json",
    ]);
    let running: Value = serde_json::from_str(&running.out).unwrap();
    let group = &running["groups"][0];
    assert_eq!(
        (&group["late"], &group["per_call"]["billable"]),
        (&json!(1), &json!(2))
    );
    // What was used of the pack is carried over from the statement that was fixed.
    assert_eq!(group["per_call"]["packs"][0]["used_before"], 10_000);
    assert_eq!(group["per_call"]["free"]["used"], 2);
    let verified = house.run(&["verify"]);
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_settled_by_one_time_zone_is_not_settled_by_another() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address, &pack(), "[]");
    busy_month(&house);
    let process = house.start().await;
    settled(&house).await;
    house.edit("catalog.yaml", "Asia/Shanghai", "Europe/Berlin");
    let (status, told) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(told.to_string().contains("time_zone"), "{told}");
    drop(process);
    let refused = house.run(&["serve"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("Asia/Shanghai"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_without_a_call_does_not_let_another_time_zone_in() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address, "[]", "[]");
    let (before, _) = last_month().previous().bounds(&zone());
    let (_, over) = last_month().bounds(&zone());
    let called = [before, over].map(|at| call(CUSTOMER, at, Mode::PerCall, Reason::Billable));
    seed(&house.ledger(), called);
    let sql = rusqlite::Connection::open(house.ledger()).unwrap();
    sql.execute("UPDATE clock SET known_us = ?1", [over.0])
        .unwrap();
    let process = house.start().await;
    let last_settled = || {
        let reader = Reader::open(&house.ledger()).unwrap();
        reader.last_settled().unwrap().map(|settled| settled.month)
    };
    for _ in 0..600 {
        if last_settled() == Some(last_month().to_string()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(last_settled(), Some(last_month().to_string()));
    drop(process);
    house.edit("catalog.yaml", "Asia/Shanghai", "Europe/Berlin");
    for command in ["verify", "serve"] {
        let refused = house.run(&[command]);
        assert_eq!(refused.code, Some(1), "{command}");
        assert!(refused.err.contains("Asia/Shanghai"), "{}", refused.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_is_moved_forward_settles_nothing() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let (month, _) = last_month().next().bounds(&zone());
    let gate = Gate::start_with(upstream.address, |config| {
        let calls = [call(CUSTOMER, month, Mode::PerCall, Reason::Billable)];
        seed(&config.settings.ledger.path, calls);
    })
    .await;
    // Past the first pass, so that what comes next is a jump and no start.
    let sealed = || Reader::open(&gate.ledger()).unwrap().last_day().unwrap();
    for _ in 0..200 {
        if sealed().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = sealed();
    let (_, end) = Month::of(gate.clock.utc(), &zone()).bounds(&zone());
    gate.mover.set_utc(Utc(end.0 + 2 * HOUR_US));
    // A pass follows at once, for a day is over, and another one after that.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    gate.mover.advance(Duration::from_secs(301));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let reader = Reader::open(&gate.ledger()).unwrap();
    assert_eq!(reader.last_day().unwrap(), before);
    assert_eq!(reader.last_settled().unwrap(), None);
}
