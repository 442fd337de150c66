//! One server.

use super::asker::{Asker, Nobody, timed};
use crate::harness::{Cut, StoreServer, address, eventually, store_options};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tollgate::testing::model::{Clock, Mono, Utc};
use tollgate::testing::store::{
    Bucket, Link, QuestionTerms, Said, StoreListener, StoreOptions, Topology, Unanswered,
};

const MS: Duration = Duration::from_millis(1);

fn options(server: &StoreServer) -> StoreOptions {
    store_options(vec![server.address()], Topology::Single)
}

#[tokio::test]
async fn a_store_that_was_restarted_empty_holds_for_a_second_and_grants_again() {
    for mut server in [StoreServer::redis(&[]), StoreServer::valkey(&[])] {
        let mut asker = Asker::new(options(&server));
        let seen = asker.until_granted().await;
        assert!(seen.contains(&"hold".to_owned()), "{seen:?}");
        let (first_epoch, first) = asker.starts[0];

        server.restart();
        let (took, seen) = timed(asker.until_granted()).await;
        assert!(seen.contains(&"hold".to_owned()), "{seen:?}");
        assert!(took > 1_000 * MS, "{took:?} {seen:?}");
        let (epoch, start) = asker.starts[1];
        assert_ne!(epoch, first_epoch);
        assert!(start - first > 1_000_000, "{first} {start}");
    }
}

#[tokio::test]
async fn a_store_that_forgot_the_library_gets_it_again_without_a_new_connection() {
    let server = StoreServer::redis(&[]);
    let mut asker = Asker::new(options(&server));
    asker.until_granted().await;
    let connections = || server.cli(&["INFO", "stats"]);
    let count = |info: String| {
        let line = info
            .lines()
            .find(|l| l.starts_with("total_connections"))
            .unwrap()
            .to_owned();
        line.trim()
            .rsplit(':')
            .next()
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    let before = count(connections());
    assert_eq!(server.cli(&["FUNCTION", "FLUSH"]).trim(), "OK");
    let seen = asker.until_granted().await;
    assert!(seen.iter().any(|said| said == "hold"), "{seen:?}");
    // Those of this operator: the flush and the last reading.
    assert_eq!(count(connections()), before + 2);
}

#[tokio::test]
async fn a_store_that_is_away_refuses_at_once_and_one_that_is_back_answers_within_a_second() {
    let mut server = StoreServer::redis(&[]);
    let mut asker = Asker::new(options(&server));
    asker.until_granted().await;
    assert!(asker.link.status().up);
    server.kill();
    tokio::time::sleep(50 * MS).await;
    let (took, said) = timed(asker.ask()).await;
    assert_eq!(said, Err(Unanswered::Down));
    assert!(took < 5 * MS, "{took:?}");
    assert!(!asker.link.status().up);
    let trouble = asker.link.status().nodes[0].trouble.clone().unwrap();
    assert!(
        trouble.contains("refused") || trouble.contains("lost"),
        "{trouble}"
    );
    server.restart();
    let (took, ()) = timed(asker.up()).await;
    assert!(took < 1_000 * MS, "{took:?}");
}

#[tokio::test]
async fn a_frozen_store_costs_the_budget_until_the_breaker_opens_and_a_short_pause_opens_nothing() {
    let server = StoreServer::redis(&[]);
    let mut asker = Asker::new(options(&server));
    asker.until_granted().await;
    for _ in 0..3 {
        server.signal("STOP");
        for _ in 0..2 {
            let (took, said) = timed(asker.ask()).await;
            assert_eq!(said, Err(Unanswered::Late));
            assert!(took >= 10 * MS && took < 40 * MS, "{took:?}");
        }
        server.signal("CONT");
        asker.until_granted().await;
    }
    server.signal("STOP");
    let mut late = 0;
    while asker.ask().await == Err(Unanswered::Late) {
        late += 1;
        assert!(late < 20);
    }
    assert!(late >= 3, "{late}");
    assert_eq!(asker.ask().await, Err(Unanswered::Down));
    // Long enough for a new connection, which the frozen server's kernel takes.
    tokio::time::sleep(600 * MS).await;
    assert_eq!(asker.ask().await, Err(Unanswered::Down));
    server.signal("CONT");
    let (took, seen) = timed(asker.until_granted()).await;
    assert!(
        took < 1_000 * MS && !seen.contains(&"hold".to_owned()),
        "{took:?} {seen:?}"
    );
    let counts = asker.link.counts();
    assert!(counts.unanswered[1] >= 9, "{counts:?}");
}

#[tokio::test]
async fn a_cut_that_nobody_announces_costs_no_call_the_budget_and_is_passed_when_it_is_healed() {
    let server = StoreServer::redis(&[]);
    let cut = Cut::to(server.port).await;
    let mut asker = Asker::new(store_options(vec![address(cut.port)], Topology::Single));
    asker.until_granted().await;
    cut.cut();
    // No call shows it: a heartbeat does.
    eventually("the cut is noticed", || !asker.link.status().up).await;
    tokio::time::sleep(300 * MS).await;
    let (took, said) = timed(asker.ask()).await;
    assert_eq!(said, Err(Unanswered::Down));
    assert!(took < 5 * MS, "{took:?}");
    cut.heal();
    let (took, seen) = timed(asker.until_granted()).await;
    assert!(
        took < 1_000 * MS && !seen.contains(&"hold".to_owned()),
        "{took:?} {seen:?}"
    );
}

#[test]
fn each_runtime_has_a_connection_of_its_own_which_ends_with_its_handle() {
    let server = StoreServer::redis(&[]);
    let link = Link::new(options(&server), Clock::default(), Arc::new(Nobody)).unwrap();
    let link = Arc::new(link);
    let on_a_worker = || {
        let link = link.clone();
        let (stop, stopped) = mpsc::channel::<()>();
        let worker = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                let mut asker = Asker::over(link, "acme/faces");
                asker.until_granted().await;
                while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    tokio::time::sleep(5 * MS).await;
                }
            });
        });
        (stop, worker)
    };
    let named = || {
        server
            .cli(&["CLIENT", "LIST"])
            .matches("name=tollgate-r1 ")
            .count()
    };
    let (stop, worker) = on_a_worker();
    let (stop_other, other) = on_a_worker();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(eventually("both are connected", || {
        let status = link.status();
        status.up && status.nodes.len() == 1 && status.nodes[0].up == 2
    }));
    assert_eq!(named(), 2);
    drop(stop);
    worker.join().unwrap();
    assert_eq!(link.status().nodes[0].connections, 1);
    runtime.block_on(eventually("it is closed", || named() == 1));
    drop(stop_other);
    other.join().unwrap();
    assert!(link.status().nodes.is_empty() && !link.status().up);
}

/// What the heartbeats brought.
#[derive(Default)]
struct Heard(Mutex<Vec<(Bucket, Mono, Mono, Said)>>, Mutex<Vec<Duration>>);

impl StoreListener for Heard {
    fn asked(&self, took: Duration) {
        self.1.lock().push(took);
    }

    fn terms(&self, _: Bucket) -> QuestionTerms {
        let epoch = self.0.lock().iter().rev().find_map(|heard| match &heard.3 {
            Said::Epoch { epoch, .. } | Said::Granted { epoch, .. } => Some(*epoch),
            _ => None,
        });
        QuestionTerms {
            epoch: epoch.unwrap_or(0),
            deadline: Utc(i64::MAX),
        }
    }

    fn heard(&self, bucket: Bucket, sent: Mono, received: Mono, said: &Said) {
        self.0.lock().push((bucket, sent, received, said.clone()));
    }
}

#[tokio::test]
async fn an_idle_connection_has_a_heartbeat_each_100_ms_and_its_answers_are_told() {
    let server = StoreServer::redis(&[]);
    let heard = Arc::new(Heard::default());
    let link = Link::new(options(&server), Clock::default(), heard.clone()).unwrap();
    let handle = link.on_this_runtime();
    // It is known by heartbeats alone that the hold is over and which epoch it is.
    eventually("the epoch is in force", || {
        let heard = heard.0.lock();
        matches!(heard.last(), Some((_, _, _, Said::Granted { .. })))
    })
    .await;
    let before = heard.0.lock().len();
    tokio::time::sleep(500 * MS).await;
    let heartbeats = heard.0.lock().len() - before;
    assert!((2..=6).contains(&heartbeats), "{heartbeats}");
    for (bucket, sent, received, _) in heard.0.lock().iter() {
        assert!(bucket.number() == 0 && sent <= received);
    }
    assert_eq!(
        heard.1.lock().len(),
        0,
        "heartbeats are no questions of calls"
    );
    assert!(link.counts().heartbeats >= heard.0.lock().len() as u64);
    drop(handle);
}
