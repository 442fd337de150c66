//! The way of records, on the server that Debian has and on the one of today.

use crate::harness::*;
use std::time::Duration;
use tollgate::testing::nats::{
    LastRange, Nats, NatsError, NatsLogin, NatsOptions, Published, Records,
};

const LEDGER: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";
const MIB: i64 = 1 << 20;
const SOON: Duration = Duration::from_secs(10);

async fn connected(options: &NatsOptions) -> Nats {
    let nats = Nats::connect(options).await.unwrap();
    assert!(nats.connected(SOON).await, "{:?}", nats.status());
    nats
}

async fn stream(server: &NatsServer, max_bytes: i64) -> (Nats, Records) {
    server.ready().await;
    let nats = connected(&server.options()).await;
    let records = nats.records(&stream_options(max_bytes)).await.unwrap();
    (nats, records)
}

/// Stores a message behind `after`, and gives its sequence.
async fn store(records: &Records, ledger: &str, after: u64, bytes: &[u8]) -> u64 {
    match records.publish(ledger, after, bytes.to_vec()).await {
        Ok(Published::Stored(sequence)) => sequence,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_stored_behind_the_one_its_sender_knows_and_never_twice() {
    for server in NatsServer::each(&[]) {
        let (_nats, records) = stream(&server, 64 * MIB).await;
        assert_eq!(records.last(LEDGER).await.unwrap(), None);
        let first = store(&records, LEDGER, 0, b"1-500").await;
        let other = store(&records, OTHER, 0, b"1-9").await;
        // The answer was lost: it is sent again.
        let again = records.publish(LEDGER, 0, b"1-500".to_vec()).await;
        assert_eq!(again.unwrap(), Published::WrongLast);
        let last = records.last(LEDGER).await.unwrap().unwrap();
        assert_eq!((last.sequence, &last.bytes[..]), (first, &b"1-500"[..]));
        // The last of the ledger counts, not the last of the stream.
        let second = store(&records, LEDGER, first, b"501-510").await;
        assert!(first < other && other < second);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_purged_is_stored_again_and_not_taken_for_a_repeat() {
    for server in NatsServer::each(&[]) {
        let (_nats, records) = stream(&server, 64 * MIB).await;
        let first = store(&records, LEDGER, 0, b"1-500").await;
        let second = store(&records, LEDGER, first, b"501-510").await;
        records.forget_before(second).await.unwrap();
        let last = records.last(LEDGER).await.unwrap().unwrap();
        assert_eq!(&last.bytes[..], b"501-510", "the rest stays");
        records.forget_before(second + 1).await.unwrap();
        assert_eq!(records.last(LEDGER).await.unwrap(), None);
        let again = store(&records, LEDGER, 0, b"501-510").await;
        let last = records.last(LEDGER).await.unwrap();
        let bytes = b"501-510".as_slice().into();
        assert_eq!(
            last,
            Some(LastRange {
                sequence: again,
                bytes
            })
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_room_takes_nothing_and_loses_nothing() {
    for server in NatsServer::each(&[]) {
        let (_nats, records) = stream(&server, MIB).await;
        let (mut stored, mut last) = (0, 0);
        let full = loop {
            match records
                .publish(LEDGER, last, vec![7; 200_000])
                .await
                .unwrap()
            {
                Published::Stored(sequence) => (stored, last) = (stored + 1, sequence),
                other => break other,
            }
        };
        assert!(matches!(full, Published::Full(_)), "{full:?}");
        assert_eq!(stored, 5);
        let feed = records.feed("collector").await.unwrap();
        let mut feed = feed;
        let found = feed.fetch(100, 10_000_000, Duration::ZERO).await.unwrap();
        assert_eq!(found.len(), 5, "none made room for another");
        // Room is made by whoever has collected.
        records.forget_before(3).await.unwrap();
        store(&records, LEDGER, last, &[7; 200_000]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_otherwise_is_refused_and_all_that_differs_is_named() {
    for server in NatsServer::each(&[]) {
        let (nats, _) = stream(&server, 64 * MIB).await;
        let mut other = stream_options(32 * MIB);
        // Equal ones are no trouble.
        nats.records(&stream_options(64 * MIB)).await.unwrap();
        let Err(error) = nats.records(&other).await else {
            panic!("it is fit");
        };
        assert!(matches!(&error, NatsError::Unfit { differences, .. } if differences.len() == 1));
        assert_eq!(
            error.to_string(),
            "the stream TOLLGATE_RECORDS is not as the settings say: max_bytes is 67108864 and must be 33554432; change it \
             (`nats stream edit TOLLGATE_RECORDS`) or the settings, or delete it: it is made again, and what was not collected is \
             sent again"
        );
        other.stream = "OTHER".to_owned();
        let Err(error) = nats.records(&other).await else {
            panic!("two streams have the same subjects");
        };
        assert!(
            matches!(error, NatsError::Refused { code: 10_065, .. }),
            "{error}"
        );
        let mut three = stream_options(64 * MIB);
        (three.stream, three.replicas) = ("THREE".to_owned(), 3);
        let Err(error) = nats.records(&three).await else {
            panic!("three replicas of one server");
        };
        assert!(matches!(error, NatsError::Refused { .. }), "{error}");
        // A stream that somebody made by hand, with what tools write by default.
        let by_hand = r#"{"name":"KV_by_hand","subjects":["$KV.by_hand.>"],"retention":"workqueue","discard":"old",
            "storage":"memory","max_age":3600000000000,"num_replicas":1,"max_bytes":-1,"max_msgs":7,"max_consumers":-1}"#;
        request(server.port, "$JS.API.STREAM.CREATE.KV_by_hand", by_hand);
        let error = nats.bucket("by_hand", 1).await.err().unwrap();
        assert!(error.to_string().contains("or delete it"), "{error}");
        let error = nats.only_bucket("by_hand", 1).await.err().unwrap();
        assert!(error.to_string().contains("do not delete it"), "{error}");
        let NatsError::Unfit { differences, .. } = error else {
            panic!("it is fit");
        };
        let named: Vec<&str> = differences.iter().map(|it| it.what).collect();
        assert_eq!(
            named,
            [
                "storage",
                "retention",
                "discard",
                "max_msgs",
                "max_msgs_per_subject",
                "max_age",
                "allow_direct"
            ]
        );
    }
}

/// Asks the server as its tools do, and waits for the answer. Blocks.
fn request(port: u16, subject: &str, body: &str) -> String {
    use std::io::{BufRead, BufReader, Write};
    let socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
    let ask = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{body}\r\n",
        body.len()
    );
    (&socket).write_all(ask.as_bytes()).unwrap();
    lines.find(|line| line.as_ref().unwrap().starts_with("MSG answer"));
    lines.next().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_begins_again_gets_all_that_was_not_deleted_the_first_first() {
    for server in NatsServer::each(&[]) {
        let (nats, records) = stream(&server, 64 * MIB).await;
        let mut feed = records.feed("collector").await.unwrap();
        assert!(
            feed.fetch(10, 1 << 20, Duration::ZERO)
                .await
                .unwrap()
                .is_empty()
        );
        let mut last = 0;
        for n in 0_u8..7 {
            last = store(&records, LEDGER, last, &[n]).await;
        }
        let found = feed.fetch(3, 1 << 20, SOON).await.unwrap();
        let bytes: Vec<u8> = found.iter().map(|it| it.bytes[0]).collect();
        assert_eq!(bytes, [0, 1, 2]);
        assert_eq!((&*found[0].ledger_id, found[0].sequence), (LEDGER, 1));
        assert_eq!((found[2].pending, found[2].delivered), (4, 1));
        found[2].done().await.unwrap();
        assert_eq!(feed.fetch(2, 1 << 20, SOON).await.unwrap()[0].bytes[0], 3);
        // The reader ends without a word, and another one of its name comes.
        drop((feed, nats));
        let nats = connected(&server.options()).await;
        let records = nats.records(&stream_options(64 * MIB)).await.unwrap();
        let mut feed = records.feed("collector").await.unwrap();
        // Also what was given, and what was acknowledged: it may have been lost by the reader.
        let found = feed.fetch(10, 1 << 20, SOON).await.unwrap();
        let bytes: Vec<u8> = found.iter().map(|it| it.bytes[0]).collect();
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 6]);
        records.forget_before(3).await.unwrap();
        let mut feed = records.feed("collector").await.unwrap();
        assert_eq!(feed.fetch(1, 1 << 20, SOON).await.unwrap()[0].sequence, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_tells_the_last_value_and_each_that_follows() {
    for server in NatsServer::each(&[]) {
        server.ready().await;
        let nats = connected(&server.options()).await;
        let bucket = nats.bucket("tollgate_collected", 1).await.unwrap();
        assert_eq!(bucket.get("a").await.unwrap(), None);
        let first = bucket.put("a", b"1".to_vec()).await.unwrap();
        bucket.put("b", b"9".to_vec()).await.unwrap();
        let mut watched = bucket.watch("a");
        let told = watched.next().await.unwrap();
        assert_eq!((told.revision, &told.bytes[..]), (first, &b"1"[..]));
        bucket.put("a", b"2".to_vec()).await.unwrap();
        assert_eq!(&watched.next().await.unwrap().bytes[..], b"2");
        assert_eq!(&bucket.get("a").await.unwrap().unwrap().bytes[..], b"2");
        let mut keys = bucket.keys().await.unwrap();
        keys.sort();
        assert_eq!(keys, ["a", "b"]);
        // Opened again it is the same.
        let again = nats.bucket("tollgate_collected", 1).await.unwrap();
        assert_eq!(&again.get("b").await.unwrap().unwrap().bytes[..], b"9");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_bucket_is_created_once_however_many_try_at_once() {
    for server in NatsServer::each(&[]) {
        server.ready().await;
        let nats = connected(&server.options()).await;
        let bucket = nats.bucket("tollgate_licence_trials", 1).await.unwrap();
        let mut tries = tokio::task::JoinSet::new();
        for n in 0..20_u8 {
            let bucket = bucket.clone();
            tries.spawn(async move { (n, bucket.create("trial.a.1", vec![n]).await.unwrap()) });
        }
        let tries = tries.join_all().await;
        let made: Vec<u8> = tries
            .iter()
            .filter(|(_, made)| *made)
            .map(|(n, _)| *n)
            .collect();
        let kept = bucket.get("trial.a.1").await.unwrap().unwrap();
        assert_eq!(kept.bytes[..], made);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_and_the_stream_live_on_when_the_server_was_killed() {
    for mut server in NatsServer::each(&[]) {
        let (nats, records) = stream(&server, 64 * MIB).await;
        let bucket = nats.bucket("tollgate_standing", 1).await.unwrap();
        bucket.put("standing", b"1".to_vec()).await.unwrap();
        let mut watched = bucket.watch("standing");
        assert_eq!(&watched.next().await.unwrap().bytes[..], b"1");
        let first = store(&records, LEDGER, 0, b"1-500").await;
        server.kill();
        eventually("the connection is seen to be away", || !nats.status().up).await;
        assert!(nats.status().trouble.is_some());
        let away = records.publish(LEDGER, first, b"501-510".to_vec()).await;
        assert!(matches!(away, Err(NatsError::Away(_))), "{away:?}");
        assert!(matches!(
            bucket.get("standing").await,
            Err(NatsError::Away(_))
        ));
        server.restart();
        assert!(nats.connected(SOON).await);
        // What was not sent while it was away is not sent later behind its sender's back.
        let second = store(&records, LEDGER, first, b"501-510").await;
        assert_eq!(second, first + 1);
        bucket.put("standing", b"2".to_vec()).await.unwrap();
        let told = tokio::time::timeout(3 * SOON, watched.next()).await;
        assert_eq!(&told.expect("told").unwrap().bytes[..], b"2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_all_says_so_and_the_stream_is_made_again() {
    for mut server in NatsServer::each(&[]) {
        let (nats, records) = stream(&server, 64 * MIB).await;
        let bucket = nats.bucket("tollgate_collected", 1).await.unwrap();
        bucket.put("a", b"1".to_vec()).await.unwrap();
        let mut watched = bucket.watch("a");
        watched.next().await.unwrap();
        let first = store(&records, LEDGER, 0, b"1-500").await;
        server.kill();
        server.delete_store();
        server.restart();
        eventually("it is seen to be away", || !nats.status().up).await;
        assert!(nats.connected(SOON).await);
        let gone = records.publish(LEDGER, first, b"501-510".to_vec()).await;
        assert!(matches!(gone, Err(NatsError::Gone(_))), "{gone:?}");
        let gone = records.last(LEDGER).await;
        assert!(matches!(gone, Err(NatsError::Gone(_))), "{gone:?}");
        let gone = bucket.put("a", b"1".to_vec()).await;
        assert!(matches!(gone, Err(NatsError::Gone(_))), "{gone:?}");
        let told = tokio::time::timeout(3 * SOON, watched.next()).await;
        assert!(matches!(told, Ok(Err(NatsError::Gone(_)))), "{told:?}");
        let records = nats.records(&stream_options(64 * MIB)).await.unwrap();
        assert_eq!(records.last(LEDGER).await.unwrap(), None);
        store(&records, LEDGER, 0, b"1-500").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_its_password_is_told_so_and_comes_in_with_it() {
    for server in NatsServer::each(&["--user", "tollgate", "--pass", "s3cret"]) {
        server.ready().await;
        let mut options = server.options();
        let user = |password: &str| NatsLogin::User {
            username: "tollgate".to_owned(),
            password: password.to_owned().into(),
        };
        options.login = user("wrong");
        let nats = Nats::connect(&options).await.unwrap();
        assert!(!nats.connected(Duration::from_millis(500)).await);
        let trouble = nats.status().trouble.unwrap();
        assert!(trouble.contains("authorization"), "{trouble}");
        let refused = nats.records(&stream_options(MIB)).await.map(drop);
        assert!(matches!(refused, Err(NatsError::Away(_))), "{refused:?}");
        options.login = user("s3cret");
        let nats = connected(&options).await;
        nats.records(&stream_options(MIB)).await.unwrap();
    }
}
