//! What a flood of many gates costs the store.

use super::fleet::{Fleet, alone};
use crate::figure;
use crate::harness::{RETAIL_KEY, StoreServer, scrape};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// So many calls are written at once on a connection.
const BATCH: usize = 10;
const CONNECTIONS: usize = 8;

/// Calls 2,000 times a second, or as often as this machine can, until it is dropped.
fn flood(public: SocketAddr, answers: &Arc<AtomicU64>) -> JoinSet<()> {
    let call = format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nhost: gate.test\r\nx-api-key: {RETAIL_KEY}\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    let batch = Arc::new(call.repeat(BATCH));
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (batch, answers) = (batch.clone(), answers.clone());
        clients.spawn(async move {
            let mut stream = TcpStream::connect(public).await.unwrap();
            let mut tick = interval(Duration::from_secs(1) * 80 / 2_000);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                stream.write_all(batch.as_bytes()).await.unwrap();
                let mut unread = Vec::new();
                while unread.windows(9).filter(|it| it == b"HTTP/1.1 ").count() < BATCH {
                    assert!(stream.read_buf(&mut unread).await.unwrap() > 0);
                }
                answers.fetch_add(BATCH as u64, Ordering::Relaxed);
            }
        });
    }
    clients
}

/// How often the store ran the function.
fn fcalls(store: &StoreServer) -> u64 {
    let said = store.cli(&["INFO", "commandstats"]);
    let line = said
        .lines()
        .find_map(|it| it.strip_prefix("cmdstat_fcall:calls="));
    line.and_then(|it| it.split(',').next())
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_three_gates_costs_the_store_two_questions_for_each_start_at_200() {
    let _alone = alone().await;
    // Questions for each start of the quota, by a model of `store::Asks` (coalesce and calm).
    let is_long = std::env::var_os("REPLICAS_SECONDS").is_some();
    let bounds = [(200, 2.0), (20, 3.0)];
    for (quota, bound) in bounds.into_iter().take(1 + usize::from(is_long)) {
        let fleet = Fleet::start(quota).await;
        let answers = Arc::new(AtomicU64::new(0));
        let publics = fleet.replicas.iter().map(|it| it.process.public);
        let _clients: Vec<_> = publics.map(|public| flood(public, &answers)).collect();
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let questions = async || {
            let (mut asked, mut late) = (0, 0);
            for replica in &fleet.replicas {
                let samples = scrape(replica.process.admin).await;
                asked += samples.sum("tollgate_store_calls_total", &[]);
                late += samples.sum("tollgate_store_late_total", &[]);
            }
            (asked, late)
        };
        let before = (fcalls(&fleet.store), questions().await);
        let began = tokio::time::Instant::now();
        let called = answers.swap(0, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let all = fcalls(&fleet.store) - before.0;
        let (asked, late) = questions().await;
        let (asked, late) = (asked - before.1.0, late - before.1.1);
        let seconds = began.elapsed().as_secs_f64();
        let rate = |count: u64| count as f64 / seconds;
        figure!(
            "flood at {quota}/s: {:.0} calls a second, {:.0} runs of the function, of which {:.0} \
             were questions of calls: {:.2} for each start of the quota; {late} late answers",
            rate(answers.load(Ordering::Relaxed)),
            rate(all),
            rate(asked),
            rate(asked) / f64::from(quota),
        );
        assert!(called > 0);
        // A late answer is asked for again.
        let most = bound * f64::from(quota) + rate(late);
        assert!(
            !super::fleet::judges_time() || rate(asked) <= 1.05 * most,
            "{} of {most}",
            rate(asked)
        );
        // Two workers of three gates, each with a heartbeat every 100 ms at most.
        assert!(
            !super::fleet::judges_time() || rate(all) <= 1.05 * most + 66.0,
            "{} of {most}",
            rate(all)
        );
    }
}
