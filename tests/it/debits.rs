//! From a fixed month to money: when it is debited, and who is stopped by it (R16, R17).

use crate::harness::*;
use http::StatusCode;
use std::path::Path;
use std::time::Duration;
use tollgate::testing::ledger::{Ledger, LedgerOptions, Reader, Record};
use tollgate::testing::model::{Clock, Month, *};

const HOUR_US: i64 = 3_600_000_000;
const HOUR: Duration = Duration::from_secs(3_600);
const CUSTOMER: &str = "1250000001";

fn zone() -> jiff::tz::TimeZone {
    jiff::tz::TimeZone::get("Asia/Shanghai").unwrap()
}

/// Writes a ledger with so many billable calls of [`CUSTOMER`] from that instant on.
fn seed(ledger: &Path, calls: i64, from: Utc) {
    let options = LedgerOptions {
        path: ledger.to_owned(),
        durability: Durability::Relaxed,
        replica: String::new(),
        pending_limit: 100_000,
        stall_after: Duration::from_secs(1 << 40),
        create: true,
    };
    let ledger = Ledger::open(options, Clock::default(), |_| ()).unwrap();
    for call in 0..calls {
        drop(ledger.reserve().unwrap().commit(Record {
            id: RequestId(uuid::Uuid::now_v7()),
            account: AccountId::new(CUSTOMER).unwrap(),
            key: KeyId::new("k").unwrap(),
            group: GroupId::new("portrait-segmentation").unwrap(),
            action: Action::new("SegmentPortraitPic").unwrap(),
            mode: Mode::PerCall,
            admitted_at: Utc(from.0 + call),
            start: Mono(1),
            store_start: None,
            outcome: Outcome::Answered,
            status: Some(200),
            reason: Reason::Billable,
            duration: Duration::from_millis(30),
        }));
    }
    ledger.close(Duration::from_secs(60)).unwrap();
}

/// Lets so much time pass, and a pass over days and months come after it.
async fn pass(gate: &Gate, time: Duration) {
    gate.mover.advance(time);
    tokio::time::sleep(Duration::from_millis(600)).await;
    gate.mover.advance(Duration::from_secs(301));
    tokio::time::sleep(Duration::from_millis(600)).await;
}

/// The settlement of the month: whether it is settled, and when it was debited.
fn settlement(gate: &Gate, month: Month) -> Option<(bool, Option<Utc>)> {
    let reader = Reader::open(&gate.ledger()).unwrap();
    let found = reader.settlement(&month.to_string()).unwrap();
    found.map(|found| (found.settled_at.is_some(), found.debited_at))
}

/// A gate whose clock was stepped to so long after the end of this month, and which has calls for
/// 1.00 in it.
async fn gate_after_the_month(upstream: std::net::SocketAddr, after_us: i64) -> (Gate, Month) {
    let now = Clock::default().utc();
    let month = Month::of(now, &zone());
    let (from, until) = month.bounds(&zone());
    let (clock, mover) = Clock::movable();
    mover.step_utc(until.0 + after_us - now.0);
    let gate = Gate::start_at(upstream, (clock, mover), |config| {
        config.catalog.settle_day = 3;
        let account = &mut config.accounts[0];
        assert_eq!(account.id.as_str(), CUSTOMER);
        account.payments = Box::default();
        account.services[0].packs = Box::default();
        seed(&config.settings.ledger.path, 1_100, from);
    })
    .await;
    (gate, month)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_month_is_debited_once_when_its_settle_day_begins_and_stops_nobody_before() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let (gate, month) = gate_after_the_month(upstream.address, HOUR_US).await;
    let status = async || send(gate.public, segment(STUDIO_KEY)).await.0;
    pass(&gate, HOUR).await;
    assert_eq!(settlement(&gate, month), Some((true, None)));
    assert_eq!(status().await, StatusCode::OK);

    // The last hour before the third.
    pass(&gate, 45 * HOUR).await;
    assert_eq!(settlement(&gate, month), Some((true, None)));
    assert_eq!(status().await, StatusCode::OK);
    pass(&gate, HOUR).await;
    let (_, debited) = settlement(&gate, month).unwrap();
    let third = Utc(month.bounds(&zone()).1.0 + 48 * HOUR_US);
    assert!(debited.is_some_and(|at| at >= third), "{debited:?}");
    assert_eq!(status().await, StatusCode::PAYMENT_REQUIRED);

    // It is debited once, and the seal of the day has it.
    pass(&gate, 26 * HOUR).await;
    assert_eq!(settlement(&gate, month), Some((true, debited)));
    let sql = rusqlite::Connection::open(gate.ledger()).unwrap();
    let sealed: String = sql
        .query_row(
            "SELECT debits FROM days WHERE debits IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(sealed, format!("{month} {}", debited.unwrap().0));

    // Who kept the head of that day finds a debit that was changed or taken out.
    let head: Vec<u8> = sql
        .query_row(
            "SELECT head FROM days WHERE debits IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let house = Sandbox::new(upstream.address, &[]);
    std::fs::create_dir_all(house.ledger().parent().unwrap()).unwrap();
    let copy = house.ledger().display().to_string();
    sql.execute("VACUUM INTO ?1", [&copy]).unwrap();
    let verify = || house.run(&["verify", "--checkpoint", &hex::encode(&head)]);
    let honest = verify();
    assert_eq!(honest.code, Some(0), "{}{}", honest.out, honest.err);
    for value in ["NULL", "debited_at + 1", "debited_at"] {
        let change = format!("UPDATE settlements SET debited_at = {value}");
        let copied = rusqlite::Connection::open(house.ledger()).unwrap();
        let at = debited.unwrap().0;
        copied
            .execute("UPDATE settlements SET debited_at = ?1", [at])
            .unwrap();
        copied.execute(&change, []).unwrap();
        drop(copied);
        let said = verify();
        let is_honest = value == "debited_at";
        assert_eq!(said.code == Some(0), is_honest, "{change}: {}", said.err);
        let named = format!("settlements {month}: debited_at");
        assert_eq!(said.err.contains(&named), !is_honest, "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_moved_debits_nothing_before_it_is_trusted_again() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let (gate, month) = gate_after_the_month(upstream.address, HOUR_US).await;
    pass(&gate, HOUR).await;
    assert_eq!(settlement(&gate, month), Some((true, None)));
    gate.mover.step_utc(60 * HOUR_US);
    pass(&gate, HOUR / 4).await;
    assert_eq!(settlement(&gate, month), Some((true, None)));
    let (status, ..) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::OK);
    pass(&gate, HOUR).await;
    let (_, debited) = settlement(&gate, month).unwrap();
    assert!(debited.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_is_fixed_after_its_settle_day_is_debited_at_once() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let (gate, month) = gate_after_the_month(upstream.address, 100 * HOUR_US).await;
    pass(&gate, HOUR).await;
    let (settled, debited) = settlement(&gate, month).unwrap();
    assert!(settled && debited.is_some());
    let (status, ..) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
}
