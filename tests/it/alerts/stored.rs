//! A gate that asks a store: the store is late, its clock is wrong, it is gone.

use crate::alerts::alone::one_worker;
use crate::alerts::watch::{Watch, instance};
use crate::collect::fleet::ALONE;
use crate::harness::*;
use std::net::SocketAddr;
use std::time::Duration;
use tollgate::testing::config;

pub struct Stored {
    gate: Gate,
    store: StoreServer,
    _upstream: Upstream,
}

impl Stored {
    pub async fn start() -> Self {
        let (upstream, store) = (
            Upstream::after(Duration::ZERO).await,
            StoreServer::with_a_clock_of_its_own(),
        );
        store.ready().await;
        let section = format!(
            "admission: {{max_delay: 50ms, store: {{redis: {{nodes: [\"{}\"]}}}}}}\nreplica: gate-0",
            store.address()
        );
        let house = Sandbox::new(upstream.address, &[(ALONE, &section)]);
        let settings = config::load(&house.settings).unwrap().settings;
        let gate = Gate::start_with(upstream.address, |config| {
            one_worker(config);
            config.settings.store = settings.store;
            config.settings.replica = settings.replica;
            retail_unlimited(config);
        })
        .await;
        Self {
            gate,
            store,
            _upstream: upstream,
        }
    }

    pub fn admin(&self) -> SocketAddr {
        self.gate.admin
    }

    async fn call(&self) {
        let _ = try_send(self.gate.public, segment(RETAIL_KEY)).await;
    }

    pub async fn causes(&mut self, watch: &Watch) {
        let here = instance(self.admin());
        let late = ["TollgateStoreLate"];
        watch.quiet(&late, &here).await;
        let store = &self.store;
        // Longer than the budget, and shorter than what makes a store count as gone.
        watch
            .fires_while(&late, &here, async || {
                store.signal("STOP");
                tokio::join!(self.call(), async {
                    tokio::time::sleep(Duration::from_millis(25)).await;
                    store.signal("CONT");
                });
            })
            .await;

        let clock = ["TollgateStoreClock"];
        watch.quiet(&clock, &here).await;
        store.set_clock("+120");
        watch.fires(&clock, &here).await;
        // Each time that it jumps, nothing may start for a while.
        watch.fires(&["TollgateStoreHolds"], &here).await;

        let gone = ["TollgateStoreNodeDown", "TollgateStoreAway"];
        // Some calls may have been refused when it was late.
        watch.clears(&gone, &here).await;
        self.store.kill();
        watch
            .fires_while(&gone, &here, async || self.call().await)
            .await;
    }
}
