//! A store that is not sound, or not any more, while it is asked.

use super::asker::Asker;
use crate::harness::{StoreServer, address, eventually, free_port, store_options};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate::testing::store::{
    CheckError, NodeFault, Said, StoreOptions, Topology, Unanswered, check,
};

const MS: Duration = Duration::from_millis(1);
const LIBRARY: &str = include_str!("../../../src/store/tollgate.lua");

fn options(server: &StoreServer) -> StoreOptions {
    store_options(vec![server.address()], Topology::Single)
}

/// Waits until the store is away, and asserts that the trouble has these words.
async fn away(asker: &Asker, words: &str) {
    let trouble = || asker.link.status().nodes[0].trouble.clone();
    eventually(words, || trouble().is_some_and(|said| said.contains(words))).await;
    assert!(!asker.link.status().up);
}

#[tokio::test]
async fn a_store_that_comes_back_and_evicts_is_away_until_it_does_not() {
    let server = StoreServer::redis(&[]);
    let mut asker = Asker::new(options(&server));
    asker.until_granted().await;
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    away(&asker, "`maxmemory-policy noeviction`").await;
    assert_eq!(asker.ask().await, Err(Unanswered::Down));
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    asker.until_granted().await;
}

#[tokio::test]
async fn a_library_of_our_name_with_other_code_is_refused_at_the_start_and_later() {
    let server = StoreServer::redis(&[]);
    let mut asker = Asker::new(options(&server));
    asker.until_granted().await;
    let other = LIBRARY.replace("start - now > max_delay", "false");
    assert_ne!(other, LIBRARY);
    server.cli(&["FUNCTION", "DELETE", "tollgate_1"]);
    assert_eq!(
        server.cli(&["FUNCTION", "LOAD", &other]).trim(),
        "tollgate_1"
    );
    let granted = asker.starts.len();
    // It holds first, as each library that is new: in that time it is found out.
    for _ in 0..40 {
        assert!(!matches!(asker.ask().await, Ok(Said::Granted { .. })));
        tokio::time::sleep(10 * MS).await;
    }
    away(&asker, "FUNCTION DELETE tollgate_1").await;
    assert_eq!(asker.starts.len(), granted);
    let said = check(&options(&server)).await.unwrap_err();
    assert!(
        matches!(said, CheckError::Unfit(_, NodeFault::OtherLibrary(_))),
        "{said}"
    );
    assert!(
        server
            .cli(&["FUNCTION", "LIST", "WITHCODE"])
            .contains("while #starts < n do"),
        "it was not replaced"
    );
    server.cli(&["FUNCTION", "DELETE", "tollgate_1"]);
    asker.until_granted().await;
    check(&options(&server)).await.unwrap();
}

#[tokio::test]
async fn a_store_that_refuses_each_call_is_away_though_it_answers_heartbeats() {
    let server = StoreServer::redis(&[]);
    let mut asker = Asker::new(options(&server));
    asker.until_granted().await;
    server.cli(&["ACL", "SETUSER", "default", "-rpush"]);
    tokio::time::sleep(1_000 * MS).await;
    assert_eq!(asker.in_time().await, Err(Unanswered::Refused));
    for _ in 0..60 {
        assert!(!asker.link.status().up);
        tokio::time::sleep(20 * MS).await;
    }
    server.cli(&["ACL", "SETUSER", "default", "+@all"]);
    asker.until_granted().await;
    assert!(asker.link.status().up, "a call was answered");
}

#[tokio::test]
async fn the_window_of_one_limiter_that_is_none_refuses_its_calls_alone() {
    let server = StoreServer::redis(&[]);
    let mut asker = Asker::new(options(&server));
    asker.until_granted().await;
    let mut other = Asker::over(asker.link.clone(), "other/faces");
    other.until_granted().await;
    let keys = server.cli(&["KEYS", "{tg}:w:acme*"]);
    let key = keys.trim();
    server.cli(&["SET", key, "none"]);
    assert_eq!(asker.in_time().await, Err(Unanswered::Refused));
    assert!(asker.link.status().up);
    other.until_granted().await;
    // A start that is an hour ahead.
    server.cli(&["DEL", key]);
    server.cli(&["RPUSH", key, "4000000000000000"]);
    assert_eq!(asker.in_time().await, Err(Unanswered::Unreadable));
    assert!(asker.link.status().up);
    server.cli(&["DEL", key]);
    asker.until_granted().await;
}

#[tokio::test]
async fn a_hold_of_an_hour_is_not_believed_and_forgotten_with_its_key() {
    let server = StoreServer::redis(&[]);
    let mut asker = Asker::new(options(&server));
    asker.until_granted().await;
    server.cli(&["HSET", "{tg}:e", "opens", "4000000000000000"]);
    assert_eq!(asker.in_time().await, Err(Unanswered::Unreadable));
    away(&asker, "a hold that is longer than any").await;
    server.cli(&["DEL", "{tg}:e"]);
    asker.until_granted().await;
}

/// Passes bytes to a store on this port; repeats the next answer so often.
async fn repeats(to: u16) -> (u16, Arc<AtomicUsize>) {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let times = Arc::new(AtomicUsize::new(0));
    let repeat = times.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let store = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_store, mut to_store) = store.into_split();
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_client, &mut to_store).await;
            });
            let repeat = repeat.clone();
            tokio::spawn(async move {
                let mut answer = [0; 65_536];
                while let Ok(read @ 1..) = from_store.read(&mut answer).await {
                    for _ in 0..=repeat.swap(0, Ordering::Relaxed) {
                        if to_client.write_all(&answer[..read]).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (port, times)
}

#[tokio::test]
async fn an_answer_that_comes_twice_grants_nothing_to_the_next_question() {
    let server = StoreServer::redis(&[]);
    server.ready().await;
    let (port, times) = repeats(server.port).await;
    let mut asker = Asker::new(store_options(vec![address(port)], Topology::Single));
    asker.until_granted().await;
    for _ in 0..5 {
        // The answer to a call, as a rule: it would grant the start to the next question too.
        times.store(1, Ordering::Relaxed);
        for _ in 0..3 {
            let _ = asker.ask().await;
        }
        asker.until_granted().await;
    }
    let mut starts = asker.starts.clone();
    let all = starts.len();
    starts.dedup();
    assert_eq!(starts.len(), all, "one start was granted twice");
}
