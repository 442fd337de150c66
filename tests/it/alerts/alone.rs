//! Gates in this process that decide and bill alone: packs, events, and what is wrong with a clock
//! and the past.

use crate::alerts::watch::{Watch, instance};
use crate::events::{self, Webhook};
use crate::harness::*;
use crate::{bills, trust};
use http::StatusCode;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tollgate::testing::config::Config;
use tollgate::testing::model::{Clock, Mode, Month, Reason, Utc};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// Of what an account has calls free of charge each month in the shipped catalogue.
const FREE_CALLS: i64 = 1_000;

/// One worker is enough for what a test calls.
pub fn one_worker(config: &mut Config) {
    config.settings.workers = NonZeroUsize::new(1);
}

/// A gate with a pack and a webhook, and one on an old ledger.
pub struct Alone {
    gate: Gate,
    webhook: Webhook,
    old: Gate,
    _upstream: Upstream,
}

/// The first instant of this month, and the free calls of it.
fn free_calls() -> (Utc, impl Iterator<Item = tollgate::testing::ledger::Record>) {
    let zone = jiff::tz::TimeZone::get("Asia/Shanghai").unwrap();
    let (begin, _) = Month::of(Clock::default().utc(), &zone).bounds(&zone);
    let call = move |n| {
        bills::call(
            "1250000001",
            Utc(begin.0 + n),
            Mode::PerCall,
            Reason::Billable,
        )
    };
    (begin, (0..FREE_CALLS).map(call))
}

impl Alone {
    pub async fn start() -> Self {
        let (upstream, webhook) = tokio::join!(Upstream::after(Duration::ZERO), Webhook::start());
        let gate = Gate::start_with(upstream.address, |config| {
            one_worker(config);
            webhook.posted_to()(config);
            let (begin, calls) = free_calls();
            let pack = &mut config.accounts[0].services[0].packs[0];
            (pack.calls, pack.delivered) = (10, begin);
            pack.expires = begin.plus(300 * DAY);
            bills::seed(&config.settings.ledger.path, calls);
        });
        // Its ledger does not say that the clock was in step for an hour: it is not trusted.
        let old = Gate::start_with(upstream.address, |config| {
            one_worker(config);
            let now = Clock::default().utc();
            let long_ago = Utc(now.0 - 80 * 86_400_000_000);
            let to_come = now.plus(2 * HOUR);
            trust::seed(&config.settings.ledger.path, &[long_ago, to_come], vec![]);
        });
        let (gate, old) = tokio::join!(gate, old);
        Self {
            gate,
            webhook,
            old,
            _upstream: upstream,
        }
    }

    pub fn admin(&self) -> SocketAddr {
        self.gate.admin
    }

    /// The admin address of the one on an old ledger.
    pub fn old(&self) -> SocketAddr {
        self.old.admin
    }

    pub async fn causes(&self, watch: &Watch) {
        tokio::join!(self.of_the_past(watch), async {
            self.of_a_pack(watch).await;
            self.of_events(watch).await;
        });
    }

    /// It has an unsettled month, and a record of an hour that has not come.
    async fn of_the_past(&self, watch: &Watch) {
        let here = instance(self.old());
        let alerts = [
            "TollgateSettlementLate",
            "TollgateLedgerAhead",
            "TollgateClockNotTrusted",
        ];
        watch.fires(&alerts, &here).await;
        // The other gate trusts its clock, and has nothing to settle.
        watch.quiet(&alerts, &instance(self.admin())).await;
    }

    async fn of_a_pack(&self, watch: &Watch) {
        let here = instance(self.admin());
        let account = format!("{here}, account=\"1250000001\"");
        let (low, exhausted) = (["TollgatePackLow"], ["TollgatePackExhausted"]);
        // The settler looks after who called, once in ten seconds; less often when it took long.
        let look = async || self.gate.mover.advance(Duration::from_secs(11));
        watch.quiet(&[low[0], exhausted[0]], &here).await;
        self.calls(9).await;
        watch.fires_while(&low, &account, look).await;
        watch.quiet(&exhausted, &here).await;
        self.webhook.is_down.store(true, Ordering::SeqCst);
        self.calls(1).await;
        watch.fires_while(&exhausted, &account, look).await;
    }

    /// So many calls, which are counted then.
    async fn calls(&self, count: usize) {
        for _ in 0..count {
            let (status, ..) = send(self.gate.public, segment(STUDIO_KEY)).await;
            assert_eq!(status, StatusCode::OK);
        }
        self.gate.at_rest().await;
    }

    /// That the pack is used up was not delivered.
    async fn of_events(&self, watch: &Watch) {
        let here = instance(self.admin());
        watch.fires(&["TollgateEventsNotDelivered"], &here).await;
        let passed = ["TollgateEventPassedOver"];
        watch.quiet(&passed, &here).await;
        events::pass(&self.gate, 8 * DAY, 4 * HOUR).await;
        watch.fires(&passed, &here).await;
    }
}
