//! Every alert of `deploy/tollgate.rules.yml` fires once for its cause: a real Prometheus, with the
//! rules as they are but for their times, scrapes gates, a collector, and what they need, and each
//! cause is brought about. A rule without a cause here fails the test.
//!
//! Two processes are gates; other gates and the collector run in this one, where their clocks can be
//! moved. Three causes are no real ones: that counts do not add up would be a fault of the
//! program, and a disk with less than 2 GB left, or a write-ahead log of more than 512 MiB, would take
//! much of the machine. Their figures are written into the page of a real gate ([`altered`]), and the
//! log is a file with a hole.
//!
//! The queries of the dashboards are put to the same Prometheus when all is over.

mod alone;
mod altered;
mod collected;
mod dashboards;
mod one_gate;
mod shortened;
mod stored;
mod watch;

use crate::deploy::{alerts, deploy};
use crate::harness::Prometheus;
use std::net::SocketAddr;
use tollgate::testing::model::Clock;
use watch::Watch;

/// Each job and its targets.
fn scraped(jobs: &[(&str, &[SocketAddr])]) -> String {
    let mut config =
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n\
                      rule_files: [RULES]\nscrape_configs:\n"
            .to_owned();
    for (job, targets) in jobs {
        let targets: Vec<String> = targets.iter().map(|it| format!("\"{it}\"")).collect();
        let targets = targets.join(", ");
        config += &format!("  - {{job_name: {job}, static_configs: [{{targets: [{targets}]}}]}}\n");
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_fires_for_its_cause_and_every_query_of_the_dashboards_has_an_answer() {
    let rules = std::fs::read_to_string(deploy("tollgate.rules.yml")).unwrap();
    let mut gates = one_gate::Gates::start().await;
    let mut stored = stored::Stored::start().await;
    let mut collected = collected::Collected::start().await;
    let alone = alone::Alone::start().await;
    let altered = altered::Altered::start(alone.admin()).await;
    let config = scraped(&[
        ("tollgate", &gates.admin()),
        ("stored", &[stored.admin()]),
        ("collected", &collected.admin()),
        ("alone", &[alone.admin(), alone.old()]),
        ("altered", &[altered.address()]),
    ]);
    let from = Clock::default().utc().seconds();
    let prometheus = Prometheus::start(&config, &shortened::shortened(&rules));
    let watch = Watch::new(prometheus);

    tokio::join!(
        gates.causes(&watch),
        stored.causes(&watch),
        collected.causes(&watch),
        alone.causes(&watch),
        altered.causes(&watch),
    );

    let mut expected = alerts(&rules);
    expected.sort_unstable();
    assert_eq!(watch.fired(), expected, "each alert has its cause here");
    let until = Clock::default().utc().seconds();
    dashboards::check_queries(&watch.prometheus, (from, until)).await;
}
