//! A month of many gates closes when each of them has passed it, and what follows from it comes back
//! to the gates.

use crate::bills::{self, CUSTOMER, KEY, call, into_last_month, last_month, seed};
use crate::collect::fleet::{Fleet, Member, answered, sources};
use crate::harness::*;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;
use tollgate::testing::ledger::{Ledger, LedgerOptions, Watermark};
use tollgate::testing::model::{Clock, Durability, Mode, Reason, Utc};

/// A ledger that nobody hears any more.
const LOST: &str = "0123456789abcdef0123456789abcdef";
pub(super) const CALLS: i64 = 2_400;

/// The nth call of last month, one a second.
pub(super) fn calls(
    nth: impl Fn(i64) -> bool,
) -> impl Iterator<Item = tollgate::testing::ledger::Record> {
    (0..CALLS).filter(move |n| nth(*n)).map(|n| {
        let at = into_last_month(n * 1_000_000);
        call(CUSTOMER, at, Mode::PerCall, Reason::Billable)
    })
}

/// The collector's ledger, as a process leaves it that has run here for days: it trusts its clock, and
/// knows of this ledger, which was heard last in the midst of last month.
pub(super) fn knows(collector: &Member, ledger_id: &str, replica: &str) {
    let at = into_last_month(9 * 86_400_000_000);
    knows_at(collector, ledger_id, replica, at);
}

/// The same, heard at this instant.
pub(super) fn knows_at(collector: &Member, ledger_id: &str, replica: &str, at: Utc) {
    seed(&collector.sandbox.ledger(), []);
    let ledger = open(collector);
    ledger
        .watermark_of(vec![Watermark {
            ledger_id: ledger_id.to_owned(),
            replica: replica.to_owned(),
            at: Some(at),
            seq: 0,
            billed_seq: 0,
        }])
        .unwrap();
    ledger.close(Duration::from_secs(60)).unwrap();
}

fn open(member: &Member) -> Ledger {
    let options = LedgerOptions {
        path: member.sandbox.ledger(),
        durability: Durability::Strict,
        replica: String::new(),
        create: false,
        pending_limit: 10,
        stall_after: Duration::from_secs(1 << 40),
    };
    Ledger::open(options, Clock::default(), |_| ()).unwrap()
}

async fn post(member: &Member, path: &str) -> (StatusCode, Value) {
    let request = Request::post(path)
        .header("host", "localhost")
        .body(Full::default())
        .unwrap();
    let (status, _, body) = send(member.sandbox.admin, request).await;
    (status, serde_json::from_slice(&body).unwrap())
}

pub(super) async fn admin(member: &Member, path: &str) -> Value {
    let (status, _, body) = get(member.sandbox.admin, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body:?}");
    serde_json::from_slice(&body).unwrap()
}

/// The statement of last month at the collector's admin address.
pub(super) async fn statement(collector: &Member) -> Value {
    let path = format!("/v1/statements/{CUSTOMER}?month={}", last_month());
    admin(collector, &path).await
}

/// What one gate bills that saw all calls.
pub(super) async fn of_one_gate() -> Value {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = bills::house(upstream.address, "[]", "[]");
    seed(&house.ledger(), calls(|_| true));
    let _process = house.start().await;
    bills::settled(&house).await
}

/// A statement without what differs by the ledger that it was fixed in.
pub(super) fn comparable(mut statement: Value) -> Value {
    statement["fixed"] = Value::Null;
    statement
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_closes_when_each_ledger_has_passed_it_and_who_owes_by_it_is_stopped_at_each_gate()
{
    let mut fleet = Fleet::new(|upstream| bills::house(upstream, "[]", "[]")).await;
    for (nth, gate) in (0..).zip(&fleet.gates) {
        seed(&gate.sandbox.ledger(), calls(|n| n % 3 == nth));
    }
    knows(&fleet.collector, LOST, "gate-lost");
    fleet.start().await;
    fleet.collected().await;
    for gate in &fleet.gates {
        assert_eq!(answered(gate).await, StatusCode::OK);
    }

    // Longer than between two passes of the settler.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let collector = &fleet.collector;
    assert_eq!(statement(collector).await["fixed"], Value::Null);
    let log = collector.sandbox.log();
    assert!(
        log.contains("not settled yet: calls of it may still come from"),
        "{log}"
    );
    assert!(log.contains(LOST), "{log}");
    let told = admin(collector, "/status").await;
    let listed = told["collector"]["sources"].as_array().unwrap();
    assert_eq!(listed.len(), 4, "{told}");
    let lag = scrape(collector.sandbox.admin).await;
    assert!(lag.sum("tollgate_collector_lag_seconds", &[LOST]) > 86_400);
    // What is collected are no calls of its own.
    assert_eq!(lag.sum("tollgate_records_total", &[]), 0);
    assert_eq!(lag.sum("tollgate_in_flight", &[]), 0);

    let (status, told) = post(collector, "/v1/sources/ffff/retire?why=lost").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{told}");
    let (status, told) = post(collector, &format!("/v1/sources/{LOST}/retire?why=")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
    let (status, told) = post(
        collector,
        &format!("/v1/sources/{LOST}/retire?why=its%20disk"),
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_eq!(told["records_given_up"], 0);
    let (again, _) = post(
        collector,
        &format!("/v1/sources/{LOST}/retire?why=its%20disk"),
    )
    .await;
    assert_eq!(again, StatusCode::CONFLICT);

    // No payment: by the debit the account is in arrears (R17).
    let debited = loop {
        let path = format!("/v1/accounts/{CUSTOMER}");
        if admin(collector, &path).await["balances"]["in_arrears"] == true {
            break Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for gate in &fleet.gates {
        while answered(gate).await != StatusCode::PAYMENT_REQUIRED {
            let since = debited.elapsed();
            assert!(since < Duration::from_secs(2), "{}", gate.sandbox.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let fixed = statement(collector).await;
    assert!(!fixed["fixed"].is_null());
    assert_eq!(comparable(fixed.clone()), comparable(of_one_gate().await));
    tells_the_customer(&fleet, &fixed).await;
    stays_stopped(&mut fleet).await;
}

/// What the customer asks at a gate and at the collector.
async fn tells_the_customer(fleet: &Fleet, fixed: &Value) {
    let own = |address, path: &'static str| async move {
        let (status, _, body) = send(address, plain("GET", path, KEY, "")).await;
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let balance = format!("-{}", fixed["due"].as_str().unwrap());
    let (gate, collector) = (&fleet.gates[0].sandbox, &fleet.collector.sandbox);
    let (status, of_gate) = own(gate.public, "/v1/quota").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&of_gate["balance"], &of_gate["in_arrears"]),
        (&balance.clone().into(), &true.into())
    );
    let (status, of_collector) = own(collector.public, "/v1/quota").await;
    assert_eq!(
        (status, &of_collector["balance"]),
        (StatusCode::OK, &balance.into())
    );
    let (status, listed) = own(collector.public, "/v1/statements").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        listed.to_string().contains(&last_month().to_string()),
        "{listed}"
    );
    let (status, _, body) = send(collector.public, segment(KEY)).await;
    let told = String::from_utf8_lossy(&body);
    assert_eq!(status, StatusCode::NOT_FOUND, "{told}");
    assert!(told.contains("send them to a gate"), "{told}");
    let status = admin(&fleet.gates[0], "/status").await;
    assert_eq!(status["standing"]["stopped"], 1);
    assert_eq!(status["standing"]["is_current"], true);
}

/// Neither a restart without NATS lets an account go on, nor a collector that is silent; a payment
/// does.
async fn stays_stopped(fleet: &mut Fleet) {
    fleet.nats.kill();
    fleet.gates[0].start().await;
    assert_eq!(
        answered(&fleet.gates[0]).await,
        StatusCode::PAYMENT_REQUIRED
    );
    let status = admin(&fleet.gates[0], "/status").await;
    assert_eq!(status["standing"]["is_current"], false);
    let heard = scrape(fleet.gates[0].sandbox.admin).await;
    assert_eq!(heard.sum("tollgate_standing_current", &[]), 0);

    // Nor does a start from a damaged file.
    fleet.gates[1].kill();
    let mut kept = fleet.gates[1].sandbox.ledger().into_os_string();
    kept.push("-standing");
    let whole = std::fs::read(&kept).unwrap();
    std::fs::write(&kept, &whole[..whole.len() / 2]).unwrap();
    let refused = fleet.gates[1].sandbox.run(&["serve"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(
        refused.err.contains("who is stopped for arrears"),
        "{}",
        refused.err
    );
    std::fs::remove_file(&kept).unwrap();
    fleet.gates[1].start().await;

    fleet.nats.restart();
    fleet.nats.ready().await;
    let paid = bills::rfc3339(Utc(Clock::default().utc().0 - 60_000_000));
    let payment = format!("[{{order: T-1, at: {paid}, amount: \"1000\"}}]");
    let files = bills::accounts("[]", &payment);
    std::fs::write(fleet.collector.sandbox.file("accounts.yaml"), files).unwrap();
    let (done, told) = post_reload(fleet.collector.sandbox.admin, "").await;
    assert_eq!(done, StatusCode::OK, "{told}");
    for gate in &fleet.gates {
        for _ in 0..400 {
            if answered(gate).await == StatusCode::OK {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(
            answered(gate).await,
            StatusCode::OK,
            "{}",
            gate.sandbox.log()
        );
    }
    assert_eq!(sources(&fleet.collector.sandbox.ledger()).len(), 4);
}
