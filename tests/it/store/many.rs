//! Sentinels and Clusters: the primary changes.

use super::asker::Asker;
use crate::harness::{ClusterServers, FENCE, MASTER, StoreServer, Watched, eventually};
use tollgate::testing::store::Said;

#[tokio::test]
async fn a_primary_that_was_frozen_and_woke_is_left_for_the_one_that_the_sentinels_chose() {
    let store = Watched::start(FENCE).await;
    let mut asker = Asker::new(store.options());
    asker.until_granted().await;
    let old = asker.link.status().nodes[0].node.clone();
    assert_eq!(old, store.servers[0].address());

    store.servers[0].signal("STOP");
    // Without their election, which takes long on a busy machine.
    let forced = store.sentinels[0].cli(&["SENTINEL", "FAILOVER", MASTER]);
    assert_eq!(forced.trim(), "OK");
    eventually("the sentinels choose another", || {
        let said = store.sentinels[0].cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        said.lines().nth(1) != Some(&old.port.to_string())
    })
    .await;
    store.servers[0].signal("CONT");
    let seen = asker.until_granted().await;
    let nodes = asker.link.status().nodes;
    assert!(nodes.len() == 1 && nodes[0].node != old, "{nodes:?}");
    assert!(seen.contains(&"hold".to_owned()), "{seen:?}");
    let apart = asker.starts[1].1 - asker.starts[0].1;
    assert!(apart > 4_100_000, "{apart}");
}

#[tokio::test]
async fn a_slot_that_moved_is_followed_and_only_its_limiters_hold() {
    let store = ClusterServers::start(FENCE).await;
    let mut moved = Asker::new(store.options());
    moved.until_granted().await;
    moved.up().await;
    let status = moved.link.status();
    assert_eq!(status.nodes.len(), 3, "{status:?}");

    // Each shard has one limiter at least among these, and one of them moves with its shard.
    let mut others = Vec::new();
    for limiter in [
        "a/faces", "b/faces", "c/faces", "d/faces", "e/faces", "f/faces",
    ] {
        let mut other = Asker::for_limiter(store.options(), limiter);
        other.until_granted().await;
        others.push(other);
    }
    let epoch = moved.starts[0].0;
    let held = |asker: &Asker| {
        asker
            .starts
            .iter()
            .any(|start| start.0 != asker.starts[0].0)
    };

    // The standby of the shard takes over, as planned by the operator.
    let bucket = moved.link.bucket_of("acme/faces").number();
    let key = format!("{{tg:{bucket}}}:e");
    let slot = store.0[0].cli(&["CLUSTER", "KEYSLOT", &key]);
    let slot: u16 = slot.trim().parse().unwrap();
    let standby = standby_of(&store, slot);
    assert_eq!(standby.cli(&["CLUSTER", "FAILOVER"]).trim(), "OK");
    eventually("the standby is the primary", || {
        standby.cli(&["ROLE"]).starts_with("master")
    })
    .await;
    let seen = moved.until_granted().await;
    let found = moved.starts.last().unwrap();
    assert!(found.0 != epoch || seen.is_empty(), "{seen:?}");
    // Until the old primary hands over, it answers.
    while !held(&moved) {
        moved.until_granted().await;
    }
    for other in &mut others {
        other.until_granted().await;
    }
    let apart = moved
        .starts
        .windows(2)
        .find(|pair| pair[0].0 != pair[1].0)
        .unwrap();
    assert!(apart[1].1 - apart[0].1 > 4_100_000, "{apart:?}");
    let stayed = others.iter().filter(|other| !held(other)).count();
    assert!(stayed >= 2, "the other shards hold nothing: {stayed}");
    let nodes = moved.link.status().nodes;
    assert!(
        nodes.iter().any(|it| it.node == standby.address()),
        "{nodes:?}"
    );
    assert!(matches!(moved.ask().await, Ok(Said::Granted { .. })));
}

/// `CLUSTER NODES` has a node on each line: id, address, flags, primary's id, .., slots.
fn standby_of(store: &ClusterServers, slot: u16) -> &StoreServer {
    let said = store.0[0].cli(&["CLUSTER", "NODES"]);
    let nodes: Vec<Vec<&str>> = said.lines().map(|line| line.split(' ').collect()).collect();
    let holds = |slots: &&str| {
        let (first, last) = slots.split_once('-').unwrap();
        (first.parse().unwrap()..=last.parse::<u16>().unwrap()).contains(&slot)
    };
    let primary = nodes
        .iter()
        .find(|node| node.get(8).is_some_and(holds))
        .unwrap();
    let standby = nodes.iter().find(|node| node[3] == primary[0]).unwrap();
    let address = standby[1].split('@').next().unwrap();
    store
        .0
        .iter()
        .find(|it| it.address().to_string() == address)
        .unwrap()
}
