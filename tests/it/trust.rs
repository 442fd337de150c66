//! A start with a wrong clock settles nothing, deletes nothing and forgets nothing (R10, R13, R16).

use crate::bills;
use crate::harness::*;
use http::StatusCode;
use std::path::Path;
use std::time::Duration;
use tollgate::testing::billing::{self, Inputs};
use tollgate::testing::ledger::{Entry, Ledger, LedgerOptions, Reader, Record};
use tollgate::testing::model::{Clock, Month, *};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const CALLS: u64 = 20;

fn zone() -> jiff::tz::TimeZone {
    jiff::tz::TimeZone::get("Asia/Shanghai").unwrap()
}

/// Writes a ledger with calls that were admitted then, and `more`.
pub fn seed(ledger: &Path, at: &[Utc], more: Vec<Entry>) {
    std::fs::create_dir_all(ledger.parent().unwrap()).unwrap();
    let options = LedgerOptions {
        path: ledger.to_owned(),
        durability: Durability::Relaxed,
        replica: String::new(),
        pending_limit: 1_000,
        stall_after: Duration::from_secs(1 << 40),
        create: true,
    };
    let ledger = Ledger::open(options, Clock::default(), |_| ()).unwrap();
    for at in at {
        drop(ledger.reserve().unwrap().commit(Record {
            id: RequestId(uuid::Uuid::now_v7()),
            account: AccountId::new("2000000001").unwrap(),
            key: KeyId::new("k").unwrap(),
            group: GroupId::new("portrait-segmentation").unwrap(),
            action: Action::new("SegmentPortraitPic").unwrap(),
            mode: Mode::PerCall,
            admitted_at: *at,
            start: Mono(1),
            store_start: None,
            outcome: Outcome::Answered,
            status: Some(200),
            reason: Reason::Billable,
            duration: Duration::from_millis(30),
        }));
    }
    ledger.keep(more).unwrap();
    ledger.close(Duration::from_secs(60)).unwrap();
}

/// In this month.
fn calls() -> Vec<Utc> {
    let (from, _) = Month::of(Clock::default().utc(), &zone()).bounds(&zone());
    (0..CALLS).map(|n| Utc(from.0 + n as i64)).collect()
}

struct Seen {
    records: u64,
    sealed: Option<String>,
    settled: Option<Month>,
}

fn seen(gate: &Gate) -> Seen {
    let reader = Reader::open(&gate.ledger()).unwrap();
    Seen {
        records: reader.last_seq().unwrap() + 1 - reader.first_kept_seq().unwrap(),
        sealed: reader.last_day().unwrap().map(|seal| seal.day),
        settled: reader
            .last_settled()
            .unwrap()
            .map(|settled| Month::parse(&settled.month).unwrap()),
    }
}

async fn is_trusted(gate: &Gate) -> bool {
    gate.metrics().await.sum("tollgate_clock_trusted", &[]) == 1
}

/// Lets so much time pass, and a pass over days and months come after it.
async fn pass(gate: &Gate, time: Duration) {
    gate.mover.advance(time);
    tokio::time::sleep(Duration::from_millis(600)).await;
    gate.mover.advance(Duration::from_secs(301));
    tokio::time::sleep(Duration::from_millis(600)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_the_year_wrong_settles_and_deletes_nothing_and_one_month_a_day_when_it_goes_on()
 {
    let upstream = Upstream::after(Duration::ZERO).await;
    let (clock, mover) = Clock::movable();
    mover.step_utc(365 * 24 * 3_600_000_000);
    let gate = Gate::start_at(upstream.address, (clock, mover), |config| {
        config.settings.ledger.retain_records = DAY;
        seed(&config.settings.ledger.path, &calls(), Vec::new());
    })
    .await;
    let (status, ..) = send(gate.public, segment("demo-studio-key")).await;
    assert_eq!(status, StatusCode::OK);
    pass(&gate, 50 * Duration::from_secs(60)).await;
    let without_trust = seen(&gate);
    assert!(!is_trusted(&gate).await);
    assert_eq!(without_trust.records, CALLS + 1);
    assert_eq!((without_trust.sealed, without_trust.settled), (None, None));

    // The call of now is dated by the same clock: it is no sign that the months before it are over.
    let first = Month::of(Clock::default().utc(), &zone());
    pass(&gate, 10 * Duration::from_secs(60)).await;
    assert!(is_trusted(&gate).await);
    let trusted = seen(&gate);
    assert!(trusted.sealed.is_some());
    assert_eq!((trusted.records, trusted.settled), (CALLS + 1, Some(first)));
    pass(&gate, 23 * HOUR).await;
    assert_eq!(seen(&gate).settled, Some(first));
    pass(&gate, HOUR).await;
    let a_day_later = seen(&gate);
    assert_eq!(a_day_later.settled, Some(first.next()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_month_is_fixed_by_a_day_that_was_sealed_before_it_by_a_clock_that_was_set_right_since()
{
    let upstream = Upstream::after(Duration::ZERO).await;
    let year_us = 365 * 24 * 3_600_000_000;
    let (clock, mover) = Clock::movable();
    mover.step_utc(year_us);
    let gate = Gate::start_at(upstream.address, (clock, mover), |config| {
        seed(&config.settings.ledger.path, &calls(), Vec::new());
    })
    .await;
    pass(&gate, HOUR).await;
    let first = Month::of(Clock::default().utc(), &zone());
    let by_the_wrong_clock = seen(&gate);
    assert!(by_the_wrong_clock.sealed.is_some());
    assert_eq!(by_the_wrong_clock.settled, Some(first));

    gate.mover.step_utc(-year_us);
    pass(&gate, Duration::from_secs(60)).await;
    let (status, ..) = send(gate.public, segment("demo-studio-key")).await;
    assert_eq!(status, StatusCode::OK);
    pass(&gate, 64 * DAY).await;
    assert!(is_trusted(&gate).await);
    let later = seen(&gate);
    assert_eq!(later.settled, Some(first));
    assert_eq!(later.sealed, by_the_wrong_clock.sealed);
    let failures = gate
        .metrics()
        .await
        .sum("tollgate_settlement_failures_total", &[]);
    assert!(failures > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_watched_of_the_clocks_outlives_the_process_and_a_step_between_two_does_not_pass()
{
    let upstream = Upstream::after(Duration::ZERO).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    seed(&path, &[], Vec::new());
    let (clock, mover) = Clock::movable();
    let start = || {
        Gate::start_at(upstream.address, (clock.clone(), mover.clone()), |config| {
            config.settings.ledger.path = path.clone();
        })
    };
    for (passes, step_us, trusted_before, trusted) in [
        (40, 0, false, false),
        (21, 0, false, true),
        (0, 59_000_000, true, true),
        (0, 61_000_000, false, false),
        (61, 0, false, true),
        (0, -61_000_000, false, false),
    ] {
        mover.step_utc(step_us);
        let mut gate = start().await;
        assert_eq!(
            is_trusted(&gate).await,
            trusted_before,
            "{passes} {step_us}"
        );
        mover.advance(passes * Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(is_trusted(&gate).await, trusted, "{passes} {step_us}");
        let running = gate.running.take().unwrap();
        running.drain(std::future::ready("the test")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_ahead_of_the_clock_is_an_error_at_the_start_and_the_past_is_settled_all_the_same()
 {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let now = Clock::default().utc();
    let last_month = Month::of(Utc(now.0 - 3_600_000_000), &zone()).previous();
    let (past, _) = last_month.bounds(&zone());
    seed(
        &house.ledger(),
        &[past, now.plus(2 * DAY)],
        vec![trusted_clock()],
    );
    let _process = house.start().await;
    let log = house.log();
    assert!(log.contains("the ledger is ahead of the clock"), "{log}");
    assert!(log.contains("restore the backup"), "{log}");
    for _ in 0..200 {
        if house.log().contains("settled the month") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let reader = Reader::open(&house.ledger()).unwrap();
    let settled = reader.last_settled().unwrap().map(|settled| settled.month);
    assert_eq!(settled, Some(last_month.to_string()));
    let ahead = scrape(house.admin)
        .await
        .sum("tollgate_ledger_ahead_seconds", &[]);
    let two_days = DAY.as_secs() as i64 * 2;
    assert!(
        (two_days - 120..=two_days).contains(&(ahead as i64)),
        "{ahead}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn months_after_which_the_ledger_knew_of_calls_are_settled_at_once_when_the_clock_is_trusted()
{
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    // In the first hour of a month, the month before is not fixed yet.
    let this_month = bills::last_month().next();
    let (from, _) = this_month.bounds(&zone());
    let old = (0..4).fold(this_month, |month, _| month.previous());
    let mut watched = trusted_clock();
    if let Entry::Clock(watch) = &mut watched {
        watch.known = from;
    }
    seed(
        &house.ledger(),
        &[old.bounds(&zone()).0, from],
        vec![watched],
    );
    let _process = house.start().await;
    for _ in 0..200 {
        if house.log().matches("settled the month").count() == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = house.log();
    assert_eq!(log.matches("settled the month").count(), 4, "{log}");
}

/// A month that was settled and debited 10 from that account.
fn debited(account: &str, fixed_at: Utc) -> Vec<Entry> {
    let account = AccountId::new(account).unwrap();
    let month = Month::of(fixed_at, &zone()).previous();
    let (from, until) = month.bounds(&zone());
    let month = month.to_string();
    let inputs = Inputs {
        account: account.clone(),
        name: String::new(),
        month: month.clone(),
        time_zone: "Asia/Shanghai".into(),
        currency: "CNY".into(),
        from,
        until,
        counted_until: until,
        licences: Vec::new(),
        groups: Vec::new(),
        on_no_statement: 0,
        balance: None,
    };
    let statement = Entry::Statement {
        month: month.clone(),
        account,
        due: "10.00".into(),
        inputs: serde_json::json!(inputs).to_string(),
        statement: serde_json::json!(billing::statement(&inputs)).to_string(),
    };
    let settlement = Entry::Settlement {
        month: month.clone(),
        through_seq: 0,
        head: [0; 32],
        fixed_at,
    };
    let settled = Entry::Settled {
        month: month.clone(),
        at: fixed_at,
        digest: [0; 32],
    };
    let at = fixed_at;
    let debited = Entry::Debited { month, at };
    vec![settlement, statement, settled, debited]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_behind_takes_no_payment_back_and_lets_nobody_go_on() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let now = Clock::default().utc();
    let two_weeks_us = 14 * 24 * 3_600_000_000;
    let answered = async |behind: bool, boot: &str, paid_at: Utc, moved_us: i64| {
        let (clock, mover) = Clock::movable();
        if behind {
            mover.step_utc(-two_weeks_us);
        }
        let gate = Gate::start_at(upstream.address, (clock, mover), |config| {
            let account = &mut config.accounts[0];
            assert_eq!(account.id.as_str(), "1250000001");
            account.payments[0].at = paid_at;
            let mut watched = trusted_clock();
            if let Entry::Clock(watch) = &mut watched
                && !boot.is_empty()
            {
                watch.boot = boot.to_owned();
            }
            let mut entries = debited("1250000001", Utc(now.0 - 20 * 24 * 3_600_000_000));
            entries.push(watched);
            seed(&config.settings.ledger.path, &[], entries);
        })
        .await;
        gate.mover.step_utc(moved_us);
        // What looks for stops looks again.
        pass(&gate, Duration::from_secs(60)).await;
        let (status, ..) = send(gate.public, segment("demo-studio-key")).await;
        let quota = send(
            gate.public,
            plain("GET", "/v1/quota", "demo-studio-key", ""),
        )
        .await;
        let told: serde_json::Value = serde_json::from_slice(&quota.2).unwrap();
        assert_eq!(told["in_arrears"], status == StatusCode::PAYMENT_REQUIRED);
        status
    };
    let (paid, unpaid) = (Utc(now.0 - 60_000_000), now.plus(DAY));
    for boot in ["", "another"] {
        assert_eq!(
            answered(true, boot, paid, 0).await,
            StatusCode::OK,
            "{boot}"
        );
        let stopped = answered(true, boot, unpaid, 0).await;
        assert_eq!(stopped, StatusCode::PAYMENT_REQUIRED, "{boot}");
    }
    let moved = answered(false, "", paid, -two_weeks_us).await;
    assert_eq!(moved, StatusCode::OK);
    // A payment that comes to count by the clock of now counts at once.
    let ahead = answered(false, "another", unpaid, two_weeks_us).await;
    assert_eq!(ahead, StatusCode::OK);
}
