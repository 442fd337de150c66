//! One server.

use super::asker::{Asker, timed};
use crate::harness::{StoreServer, store_options};
use std::time::Duration;
use tollgate::testing::store::{StoreOptions, Topology, Unanswered};

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
