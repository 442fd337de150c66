//! A gate that sends its records to a collector: records are lost or changed on their way, the gate
//! says nothing, NATS is gone.

use crate::alerts::alone::one_worker;
use crate::alerts::watch::{Watch, instance};
use crate::collect::clocks::collected_over;
use crate::harness::*;
use http::StatusCode;
use std::net::SocketAddr;
use std::time::Duration;
use tollgate::testing::control;
use tollgate::testing::control::serve::Running;
use tollgate::testing::ledger::{RangeReader, Reader};
use tollgate::testing::model::{Clock, Mover};
use tollgate::testing::nats::{Published, Records};

const HOUR: Duration = Duration::from_secs(3_600);

pub struct Collected {
    gate: Gate,
    nats: NatsServer,
    /// Those of the collector.
    collector: Running,
    mover: Mover,
    _upstream: Upstream,
    _dir: tempfile::TempDir,
}

impl Collected {
    pub async fn start() -> Self {
        let (upstream, nats) = (
            Upstream::after(Duration::ZERO).await,
            NatsServer::debian(&[]),
        );
        nats.ready().await;
        let gate = Gate::start_with(upstream.address, |config| {
            one_worker(config);
            collected_over(&nats, "gate-0")(config);
        });
        let dir = tempfile::tempdir().unwrap();
        let mut config = shipped_config(dir.path(), ([127, 0, 0, 1], 9).into());
        one_worker(&mut config);
        collected_over(&nats, "collector")(&mut config);
        let (clock, mover) = Clock::movable();
        let (gate, collector) =
            tokio::join!(gate, control::collect(config, clock, Default::default()));
        Self {
            gate,
            nats,
            collector: collector.unwrap(),
            mover,
            _upstream: upstream,
            _dir: dir,
        }
    }

    /// Of the gate, and of the collector.
    pub fn admin(&self) -> [SocketAddr; 2] {
        [self.gate.admin, self.collector.admin]
    }

    async fn call(&self) {
        let (status, ..) = send(self.gate.public, segment(STUDIO_KEY)).await;
        assert_eq!(status, StatusCode::OK);
    }

    /// Waits until the collector has every record of the gate.
    async fn all_is_collected(&self) {
        let last = Reader::open(&self.gate.ledger())
            .unwrap()
            .last_seq()
            .unwrap();
        for _ in 0..400 {
            let taken = scrape(self.collector.admin).await;
            if taken.sum("tollgate_collector_records_total", &[]) >= last {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the collector does not get {last} records");
    }

    pub async fn causes(&mut self, watch: &Watch) {
        let [gate, collector] = self.admin().map(instance);
        self.call().await;
        self.all_is_collected().await;
        let lost = ["TollgateRecordsMissing", "TollgateLedgerNotTaken"];
        watch.quiet(&lost, &collector).await;
        watch
            .quiet(
                &["TollgateLedgerSilent", "TollgateCollectorAway"],
                &collector,
            )
            .await;
        self.lose_and_change().await;
        watch.fires(&lost, &collector).await;

        // The gate does not trust its clock, and so does not say how far its ledger is.
        self.mover.advance(2 * HOUR);
        watch.fires(&["TollgateLedgerSilent"], &collector).await;

        watch.quiet(&["TollgateOutboxBehind"], &gate).await;
        self.until_heard().await;
        watch.quiet(&["TollgateStandingNotHeard"], &gate).await;
        self.nats.kill();
        self.call().await;
        self.gate.mover.advance(Duration::from_secs(400));
        let (at_gate, at_collector) = (
            ["TollgateOutboxBehind", "TollgateStandingNotHeard"],
            ["TollgateCollectorAway"],
        );
        tokio::join!(
            watch.fires(&at_gate, &gate),
            watch.fires(&at_collector, &collector)
        );
    }

    /// Waits until the gate hears who is stopped.
    async fn until_heard(&self) {
        for _ in 0..600 {
            let samples = self.gate.metrics().await;
            if samples.sum("tollgate_standing_current", &[]) == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the gate never hears the collector");
    }

    /// Of some ledgers the first records are missing, and what follows those of the gate does not fit
    /// to them.
    async fn lose_and_change(&self) {
        let nats = connected(&self.nats).await;
        let records: Records = nats.records(&stream_options(64 << 20)).await.unwrap();
        let mut reader = RangeReader::open(&self.gate.ledger()).unwrap();
        let range = reader.next(0, 1).unwrap().unwrap();
        let mut next = range.clone();
        (next.first_seq, next.last_seq) = (2, 2);
        next.link_before = [7; 32];
        // The collector may have deleted the last one since.
        let mut stored = Published::WrongLast;
        while stored == Published::WrongLast {
            let last = records.last(&range.ledger_id).await.unwrap();
            let behind = last.map_or(0, |last| last.sequence);
            let published = records.publish(&range.ledger_id, behind, next.encode());
            stored = published.await.unwrap();
        }
        for nth in 0..8 {
            let mut late = range.clone();
            late.ledger_id = format!("{nth:032x}");
            (late.first_seq, late.last_seq) = (101, 101);
            let published = records.publish(&late.ledger_id, 0, late.encode());
            published.await.unwrap();
        }
    }
}
