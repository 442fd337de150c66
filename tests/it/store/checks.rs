//! What a store must have, and what is said when it has not.

use super::asker::Asker;
use crate::harness::{
    ClusterServers, FENCE, MASTER, StoreServer, Watched, eventually, store_options,
};
use tollgate::testing::store::{
    CheckError, CheckWarning, NoConnection, NodeFault, StoreOptions, Topology, check,
};

fn options(server: &StoreServer) -> StoreOptions {
    store_options(vec![server.address()], Topology::Single)
}

/// The fault of the one node.
async fn fault(options: &StoreOptions) -> NodeFault {
    match check(options).await {
        Err(CheckError::Unfit(_, fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_redis_and_a_valkey_as_they_should_be_are_fit() {
    for server in [StoreServer::redis(&[]), StoreServer::valkey(&[])] {
        server.ready().await;
        let checked = check(&options(&server)).await.unwrap();
        assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
        assert_eq!(checked.hold.as_millis(), 1_215);
        assert!(server.cli(&["FUNCTION", "LIST"]).contains("tollgate_1"));
        // Again, with the library there.
        check(&options(&server)).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_evicts_is_refused_and_one_that_writes_to_disk_is_warned_of() {
    let server = StoreServer::redis(&["--save", "60 1"]);
    server.ready().await;
    let checked = check(&options(&server)).await.unwrap();
    assert!(matches!(
        checked.warnings[..],
        [CheckWarning::Persistent(_)]
    ));
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let fault = fault(&options(&server)).await;
    assert!(
        fault.to_string().contains("`maxmemory-policy noeviction`"),
        "{fault}"
    );
}

#[tokio::test]
async fn each_right_that_a_user_lacks_is_named() {
    let server = StoreServer::redis(&[]);
    server.ready().await;
    let mut options = options(&server);
    options.username = Some("gate".to_owned());
    options.password = Some("secret".into());
    let rights = |rules: &[&str]| {
        let user = ["ACL", "SETUSER", "gate", "reset", "on", ">secret"];
        assert_eq!(server.cli(&[&user, rules].concat()).trim(), "OK");
    };
    rights(&[]);
    let said = fault(&options).await;
    assert!(matches!(said, NodeFault::MayNotReadConfig(_)), "{said}");
    assert!(said.to_string().contains("`+config|get`"), "{said}");
    rights(&["+config|get"]);
    let said = fault(&options).await;
    assert!(
        matches!(said, NodeFault::MayNot("FUNCTION LIST", _)),
        "{said}"
    );
    rights(&["+config|get", "+function|list"]);
    let said = fault(&options).await;
    assert!(
        matches!(said, NodeFault::MayNot("FUNCTION LOAD", _)),
        "{said}"
    );
    rights(&["+config|get", "+function|list", "+function|load"]);
    let said = fault(&options).await;
    assert!(matches!(said, NodeFault::MayNot("FCALL", _)), "{said}");
    let loads = ["+config|get", "+function|list", "+function|load"];
    rights(&[&loads[..], &["+fcall", "~other*"]].concat());
    let said = fault(&options).await;
    assert!(matches!(said, NodeFault::MayNot("FCALL", _)), "{said}");
    assert!(said.to_string().contains("`~{tg*`"), "{said}");
    // What the function runs is run by the user too, for a heartbeat and for a start.
    let mut all = [&loads[..], &["+fcall", "~{tg*"]].concat();
    for (right, lacks) in [
        ("+time", "FCALL"),
        ("+hmget", "FCALL"),
        ("+hset", "FCALL"),
        ("+rpush", "RPUSH"),
        ("+llen", "LLEN"),
    ] {
        rights(&all);
        let said = fault(&options).await;
        assert!(
            matches!(said, NodeFault::MayNot(what, _) if what == lacks),
            "{right}: {said}"
        );
        all.push(right);
    }
    let said = fault(&options).await;
    // Those that the message names.
    let named = said.to_string();
    let named = named.split('`').nth(1).unwrap();
    let mut all = vec!["+config|get", "~{tg*"];
    all.extend(named.split(' '));
    rights(&all);
    check(&options).await.unwrap();
    assert_eq!(server.cli(&["KEYS", "*"]).trim(), "{tg}:e");
    let mut asker = Asker::new(options.clone());
    asker.until_granted().await;

    options.password = Some("wrong".into());
    let said = check(&options).await.unwrap_err();
    assert!(
        matches!(
            said,
            CheckError::NoConnection(_, NoConnection::WrongPassword(_))
        ),
        "{said}"
    );
    assert!(!said.to_string().contains("wrong-"), "{said}");
}

#[tokio::test]
async fn a_password_that_is_missing_or_too_much_is_told_from_a_wrong_one() {
    let server = StoreServer::redis(&["--requirepass", "secret"]);
    let plain = StoreServer::redis(&[]);
    server.ready().await;
    plain.ready().await;
    let mut wrong = options(&server);
    let said = check(&wrong).await.unwrap_err();
    assert!(
        matches!(
            said,
            CheckError::NoConnection(_, NoConnection::PasswordWanted)
        ),
        "{said}"
    );
    wrong.password = Some("other".into());
    let said = check(&wrong).await.unwrap_err();
    assert!(
        matches!(
            said,
            CheckError::NoConnection(_, NoConnection::WrongPassword(_))
        ),
        "{said}"
    );
    wrong.nodes = vec![plain.address()];
    let said = check(&wrong).await.unwrap_err();
    assert!(
        matches!(said, CheckError::NoConnection(_, NoConnection::NoPassword)),
        "{said}"
    );
    let mut right = options(&server);
    right.password = Some("secret".into());
    check(&right).await.unwrap();
    right.database = 99;
    let said = check(&right).await.unwrap_err();
    assert!(
        matches!(
            said,
            CheckError::NoConnection(_, NoConnection::NoDatabase(99, _))
        ),
        "{said}"
    );
    right.database = 3;
    check(&right).await.unwrap();
    let keys = ["-a", "secret", "-n", "3", "KEYS", "*"];
    assert_eq!(server.cli(&keys).trim(), "{tg}:e");
}

#[tokio::test]
async fn a_store_that_is_not_there_or_a_standby_or_no_node_of_a_cluster_says_so() {
    let mut gone = StoreServer::redis(&[]);
    gone.ready().await;
    let mut wrong = options(&gone);
    wrong.topology = Topology::Cluster;
    let said = check(&wrong).await.unwrap_err();
    assert!(matches!(said, CheckError::NoCluster(_)), "{said}");
    wrong.database = 1;
    let said = check(&wrong).await.unwrap_err();
    assert!(matches!(said, CheckError::DatabaseOfCluster(1)), "{said}");

    let port = gone.port.to_string();
    let standby = StoreServer::redis(&["--replicaof", "127.0.0.1", &port]);
    standby.ready().await;
    eventually("the standby follows", || {
        standby
            .cli(&["INFO", "replication"])
            .contains("link_status:up")
    })
    .await;
    let said = fault(&options(&standby)).await;
    assert!(matches!(said, NodeFault::Standby(_)), "{said}");
    gone.kill();
    let said = check(&options(&gone)).await.unwrap_err();
    assert!(
        matches!(said, CheckError::NoConnection(_, NoConnection::Closed(_))),
        "{said}"
    );
}

#[tokio::test]
async fn without_the_fence_or_with_two_nodes_or_a_wrong_name_sentinels_do_not_help() {
    let mut store = Watched::start(FENCE).await;
    let mut options = store.options();
    let checked = check(&options).await.unwrap();
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
    assert_eq!(checked.hold.as_millis(), 4_255);

    for (name, value, right) in [
        ("min-replicas-to-write", "0", "1"),
        ("min-replicas-max-lag", "10", "1"),
    ] {
        // On a standby: it may be the primary tomorrow.
        store.servers[2].cli(&["CONFIG", "SET", name, value]);
        let said = check(&options).await.unwrap_err();
        let is_fence = matches!(said, CheckError::Unfit(_, NodeFault::NoFence(..)));
        assert!(is_fence && said.to_string().contains(name), "{said}");
        store.servers[2].cli(&["CONFIG", "SET", name, right]);
    }
    // A store that lost one of three goes on.
    store.servers[2].kill();
    let checked = check(&options).await.unwrap();
    assert!(matches!(
        checked.warnings[..],
        [CheckWarning::StandbyAway(..)]
    ));
    // One that never had three does not.
    for sentinel in &store.sentinels {
        sentinel.cli(&["SENTINEL", "RESET", MASTER]);
    }
    eventually("the sentinels forget it", || {
        let said = store.sentinels[0].cli(&["SENTINEL", "MASTER", MASTER]);
        said.contains("num-slaves\n1\n")
    })
    .await;
    options.nodes.truncate(1);
    let said = check(&options).await.unwrap_err();
    assert!(matches!(said, CheckError::TooFewNodes(2)), "{said}");

    options.topology = Topology::Sentinel {
        master: "mymaster".to_owned(),
        username: None,
        password: None,
    };
    let said = check(&options).await.unwrap_err();
    assert!(matches!(said, CheckError::UnknownMaster(_)), "{said}");
    assert!(said.to_string().contains("\"mymaster\""), "{said}");
}

#[tokio::test]
async fn a_cluster_is_fit_with_the_fence_on_each_node() {
    let store = ClusterServers::start(FENCE).await;
    let checked = check(&store.options()).await.unwrap();
    // One standby each.
    assert_eq!(checked.warnings.len(), 3);
    assert!(
        checked
            .warnings
            .iter()
            .all(|it| matches!(it, CheckWarning::FewStandbys(_)))
    );
    store.0[5].cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    let said = check(&store.options()).await.unwrap_err();
    assert!(
        matches!(said, CheckError::Unfit(_, NodeFault::NoFence(..))),
        "{said}"
    );
}

#[tokio::test]
async fn a_store_that_is_no_sentinel_or_full_or_anothers_says_what_to_do() {
    let server = StoreServer::redis(&[]);
    server.ready().await;
    let mut no_sentinel = options(&server);
    no_sentinel.topology = Topology::Sentinel {
        master: MASTER.to_owned(),
        username: None,
        password: None,
    };
    let said = check(&no_sentinel).await.unwrap_err().to_string();
    assert!(
        said.contains("with `sentinel` the nodes are sentinels"),
        "{said}"
    );

    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let said = fault(&options(&server)).await;
    assert!(matches!(said, NodeFault::NoMemory(_)), "{said}");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);

    let other = "#!lua name=tollgate_1\nredis.register_function('other', function() return 1 end)";
    server.cli(&["FUNCTION", "LOAD", "REPLACE", other]);
    let said = fault(&options(&server)).await;
    assert!(matches!(said, NodeFault::OtherLibrary(_)), "{said}");
    assert!(
        said.to_string().contains("`FUNCTION DELETE tollgate_1`"),
        "{said}"
    );
}

#[tokio::test]
async fn a_sentinel_has_a_password_of_its_own() {
    let server = StoreServer::redis(&[]);
    let sentinel = StoreServer::sentinel(MASTER, server.port, "requirepass watch");
    sentinel.ready().await;
    let with = |password: Option<&str>| {
        let topology = Topology::Sentinel {
            master: MASTER.to_owned(),
            username: None,
            password: password.map(Into::into),
        };
        store_options(vec![sentinel.address()], topology)
    };
    let said = check(&with(None)).await.unwrap_err();
    assert!(
        matches!(
            said,
            CheckError::NoSentinel(_, NoConnection::PasswordWanted)
        ),
        "{said}"
    );
    let said = check(&with(Some("wrong"))).await.unwrap_err();
    assert!(
        matches!(
            said,
            CheckError::NoSentinel(_, NoConnection::WrongPassword(_))
        ),
        "{said}"
    );
    let said = check(&with(Some("watch"))).await.unwrap_err();
    assert!(matches!(said, CheckError::TooFewNodes(1)), "{said}");
}
