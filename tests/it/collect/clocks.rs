//! A wrong clock, at the collector or at a gate, closes no month.

use crate::bills;
use crate::collect::fleet::{ALONE, outbox, sources};
use crate::harness::*;
use std::path::Path;
use std::time::Duration;
use tollgate::testing::config::{self, Config};
use tollgate::testing::control;
use tollgate::testing::control::serve::Running;
use tollgate::testing::ledger::Reader;
use tollgate::testing::model::{Clock, Mode, Month, Mover, Reason, Utc};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR_US: i64 = 365 * 86_400_000_000;

/// The settings of a gate with an outbox to this server, in this process.
pub fn collected_over(nats: &NatsServer, name: &str) -> impl FnOnce(&mut Config) {
    let house = Sandbox::new(
        ([127, 0, 0, 1], 9).into(),
        &[(ALONE, &outbox(nats.port, name))],
    );
    let settings = config::load(&house.settings).unwrap().settings;
    move |config| {
        config.settings.outbox = settings.outbox;
        config.settings.replica = settings.replica;
    }
}

/// A collector in this process.
struct Collector {
    _running: Running,
    mover: Mover,
    dir: tempfile::TempDir,
}

impl Collector {
    async fn start(nats: &NatsServer, (clock, mover): (Clock, Mover)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = shipped_config(dir.path(), ([127, 0, 0, 1], 9).into());
        collected_over(nats, "collector")(&mut config);
        let running = control::collect(config, clock, Default::default())
            .await
            .unwrap();
        Self {
            _running: running,
            mover,
            dir,
        }
    }

    fn ledger(&self) -> std::path::PathBuf {
        self.dir.path().join("ledger.db")
    }

    /// Lets so much time pass at the collector, and a pass over days and months come after it.
    async fn pass(&self, time: Duration) {
        self.mover.advance(time);
        tokio::time::sleep(Duration::from_millis(700)).await;
        self.mover.advance(Duration::from_secs(301));
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

fn zone() -> jiff::tz::TimeZone {
    jiff::tz::TimeZone::get("Asia/Shanghai").unwrap()
}

/// The days and months that are closed.
fn closed(ledger: &Path) -> (Option<String>, Option<String>) {
    let reader = Reader::open(ledger).unwrap();
    let day = reader.last_day().unwrap().map(|seal| seal.day);
    (day, reader.last_settlement().unwrap().map(|of| of.month))
}

/// A call of this month, so early that the day after it is over.
fn seeded(ledger: &Path) {
    let now = Clock::default().utc();
    let (begin, _) = Month::of(now, &zone()).bounds(&zone());
    let at = Utc(begin.0 + 1);
    bills::seed(
        ledger,
        [bills::call(
            "1250000001",
            at,
            Mode::PerCall,
            Reason::Billable,
        )],
    );
}

async fn known(collector: &Collector, gates: usize) {
    eventually("each gate says how far it is", || {
        let sources = sources(&collector.ledger());
        sources.len() == gates && sources.iter().all(|of| of.admitted_before.is_some())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_whose_clock_is_a_year_ahead_closes_no_month() {
    let nats = NatsServer::chosen(NatsServer::debian);
    nats.ready().await;
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, |config| {
        collected_over(&nats, "gate-0")(config);
        seeded(&config.settings.ledger.path);
    })
    .await;
    let (clock, mover) = Clock::movable();
    mover.step_utc(YEAR_US);
    let collector = Collector::start(&nats, (clock, mover)).await;
    known(&collector, 1).await;
    // Trusted after an hour in step, however wrong it is.
    collector.pass(HOUR).await;
    collector.pass(3 * DAY).await;
    collector.pass(64 * DAY).await;
    let (day, month) = closed(&collector.ledger());
    assert_eq!(month, None);
    let today = Clock::default().utc();
    let today = jiff::Timestamp::from_microsecond(today.0).unwrap();
    let today = today.to_zoned_datetime(zone()).date().to_string();
    assert!(
        day.is_none_or(|day| day < today),
        "no day is sealed that is not over"
    );
    drop(gate);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_whose_clock_is_a_year_ahead_closes_no_month() {
    let nats = NatsServer::chosen(NatsServer::debian);
    nats.ready().await;
    let upstream = Upstream::after(Duration::ZERO).await;
    let (clock, mover) = Clock::movable();
    mover.step_utc(YEAR_US);
    let gate = Gate::start_at(upstream.address, (clock, mover), |config| {
        collected_over(&nats, "gate-0")(config);
    })
    .await;
    // Its clock is trusted, so it says that a year has passed.
    gate.mover.advance(HOUR + Duration::from_secs(60));
    let (status, ..) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, http::StatusCode::OK);
    let collector = Collector::start(&nats, Clock::movable()).await;
    known(&collector, 1).await;
    let now = Clock::default().utc();
    let source = &sources(&collector.ledger())[0];
    let (at, _) = source.watermark.unwrap();
    assert!(
        at <= now.plus(Duration::from_secs(5)),
        "kept is no instant that has not come"
    );
    collector.pass(HOUR).await;
    let (_, month) = closed(&collector.ledger());
    assert_eq!(month, None);
}
