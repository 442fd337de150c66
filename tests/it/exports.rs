//! Exports of records: what they may take from others, and when they end.

use crate::bills::{call, into_last_month, last_month, seed};
use crate::harness::*;
use crate::portal::{RETAIL, STUDIO, ask, envelope, many_calls, own};
use http::StatusCode;
use serde_json::Value;
use sha2::Digest;
use std::time::Duration;
use tollgate::testing::config::{Config, Credential};
use tollgate::testing::ledger::Record;
use tollgate::testing::model::{AccountId, Reason, Utc};

/// A gate on a ledger with these calls.
async fn gate_with(upstream: &Upstream, calls: Vec<Record>) -> Gate {
    Gate::start_with(upstream.address, |config: &mut Config| {
        seed(&config.settings.ledger.path, calls);
    })
    .await
}

fn path() -> String {
    format!("/v1/records?month={}", last_month())
}

fn get_text(path: &str, key: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n")
}

/// An export of the studio's whose client has begun to read it and reads no more.
async fn slow_export(gate: &Gate, path: &str) -> Wire {
    let mut slow = Wire::connect(gate.public).await;
    slow.write(get_text(path, STUDIO.key)).await;
    slow.stream.readable().await.unwrap();
    slow
}

/// Each read of records takes a second or more.
fn slow_down_records(gate: &Gate) {
    let ledger = rusqlite::Connection::open(gate.ledger()).unwrap();
    let sql = "SELECT sql FROM sqlite_schema WHERE name = 'records'";
    let view: String = ledger.query_row(sql, [], |row| row.get(0)).unwrap();
    let (_, select) = view.split_once(" AS").unwrap();
    let slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000) SELECT max(i) FROM n";
    let slowed = format!(
        "DROP VIEW records; CREATE VIEW records AS SELECT * FROM ({select}) WHERE ({slow}) > 0"
    );
    ledger.execute_batch(&slowed).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_whose_clients_hang_up_hold_up_no_question_and_count_until_their_reads_end() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate_with(&upstream, many_calls(100)).await;
    slow_down_records(&gate);
    for _ in 0..12 {
        gate.mover.advance(Duration::from_millis(250));
        let mut hasty = Wire::connect(gate.public).await;
        hasty.write(get_text(&path(), STUDIO.key)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The first read of the hasty client still runs, and it is the only one.
    let (status, _, body) = own(&gate, STUDIO, &path()).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{body:?}");
    for of in [STUDIO, RETAIL] {
        let (status, _, body) = own(&gate, of, "/v1/quota").await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
    }
    // It ends, and makes room.
    let mut status = StatusCode::TOO_MANY_REQUESTS;
    for _ in 0..400 {
        status = own(&gate, STUDIO, &path()).await.0;
        if status == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_of_many_accounts_at_once_take_no_place_of_the_questions() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, |config: &mut Config| {
        // Twelve more accounts, with the keys more-0 to more-11.
        for n in 0..12 {
            let mut more = config.accounts[0].clone();
            more.id = AccountId::new(&format!("20000000{n:02}")).unwrap();
            let sha256 = sha2::Sha256::digest(format!("more-{n}")).into();
            let mut key = more.keys[0].clone();
            key.credential = Credential::ApiKey { sha256 };
            more.keys = [key].into();
            config.accounts.push(more);
        }
        seed(&config.settings.ledger.path, many_calls(100));
    })
    .await;
    slow_down_records(&gate);
    let mut exports = tokio::task::JoinSet::new();
    for n in 0..12 {
        let ask = plain("GET", &path(), &format!("more-{n}"), "");
        exports.spawn(send(gate.public, ask));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..5 {
        let (status, _, body) = own(&gate, STUDIO, "/v1/quota").await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
    }
    for (status, ..) in exports.join_all().await {
        assert_eq!(status, StatusCode::OK, "each comes to its turn");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_ends_after_so_many_rows_of_others_and_the_next_goes_on_from_there() {
    let upstream = Upstream::after(Duration::ZERO).await;
    // In one hour: a call of the retailer, 55,000 of the studio, and one of the retailer again.
    let from = into_last_month(0).0;
    let calls = (0..55_002).map(|n| {
        let of = if n % 55_001 == 0 { RETAIL } else { STUDIO };
        call(of.id, Utc(from + n * 1_000), of.mode, Reason::Billable)
    });
    let gate = gate_with(&upstream, calls.collect()).await;
    let (mut after, mut pages) = (String::new(), Vec::new());
    while pages.len() < 4 {
        let after_it = match after.is_empty() {
            true => String::new(),
            false => format!(",\"After\":\"{after}\""),
        };
        let body = format!("{{\"Month\":\"{}\"{after_it}}}", last_month());
        let answer = envelope(&gate, RETAIL, "DescribeRecords", &body).await;
        let page = &answer["Records"];
        pages.push(page["records"].as_array().unwrap().len());
        after = page["next_cursor"].as_str().unwrap().to_owned();
        if page["complete"] == true {
            break;
        }
    }
    assert_eq!(
        pages,
        [1, 1],
        "after the first page there is more to look at"
    );
    assert_eq!(after, format!("{}:0:55002", RETAIL.id));
    // An export has them all, and a HEAD claims no length that a GET does not have.
    let (_, headers, body) = own(&gate, RETAIL, &path()).await;
    assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 2);
    assert_eq!(headers["transfer-encoding"], "chunked");
    let head = ask(&gate, plain("HEAD", &path(), RETAIL.key, "")).await;
    assert_eq!((head.0, head.2.len()), (StatusCode::OK, 0));
    assert!(!head.1.contains_key("content-length"), "{:?}", head.1);
    let again = ask(&gate, plain("HEAD", &path(), RETAIL.key, "")).await;
    assert_eq!(again.0, StatusCode::OK, "a HEAD leaves no export behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_beyond_the_accounts_newest_record_is_answered_as_one_at_it_whatever_it_names() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = gate_with(&upstream, many_calls(100)).await;
    let newest = |records: &[_], of: &str| -> u64 {
        let of_account =
            |record: &&tollgate::testing::ledger::StoredRecord| record.account.as_str() == of;
        records.iter().rfind(of_account).unwrap().seq
    };
    let records = gate.records();
    let own_newest = newest(&records, STUDIO.id);
    assert!(own_newest < 100, "another account called last");
    let mut answers = Vec::new();
    for beyond in [own_newest, own_newest + 1, 100, 101, 5_000, u64::MAX] {
        let body = format!(
            "{{\"Month\":\"{}\",\"After\":\"{}:0:{beyond}\"}}",
            last_month(),
            STUDIO.id
        );
        let answer = envelope(&gate, STUDIO, "DescribeRecords", &body).await;
        answers.push(answer["Records"].clone());
    }
    let expected = serde_json::json!({
        "records": [], "complete": true, "next_cursor": format!("{}:0:{own_newest}", STUDIO.id)
    });
    assert!(answers.iter().all(|told| *told == expected), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_cut_at_the_drain_and_goes_on_by_its_cursor_after_it() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let mut gate = gate_with(&upstream, many_calls(60_000)).await;
    let mut slow = slow_export(&gate, &path()).await;
    let running = gate.running.take().unwrap();
    // The deadline of the drain does not come before the test's.
    let drained = running.drain(std::future::pending());
    let drained = tokio::time::timeout(Duration::from_secs(10), drained).await;
    drained.expect("no slow reader holds up the end").unwrap();
    let reply = slow.reply().await;
    assert!(!reply.whole);
    let cut = reply.body.iter().rposition(|byte| *byte == b'\n').unwrap();
    let line = reply.body[..cut]
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap();
    let line: Value = serde_json::from_slice(line).unwrap();
    assert!(line["cursor"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_with_its_key_and_at_the_newest_record_that_there_was() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let ends = Utc(tollgate::testing::model::Clock::default().utc().0 + 3_600_000_000);
    let gate = Gate::start_with(upstream.address, |config: &mut Config| {
        let mut keys = config.accounts[0].keys.to_vec();
        keys.iter_mut().for_each(|key| key.expires = Some(ends));
        config.accounts[0].keys = keys.into();
        seed(&config.settings.ledger.path, many_calls(60_000));
    })
    .await;
    // Records that come while it runs are not in it.
    let ledger = rusqlite::Connection::open(gate.ledger()).unwrap();
    let mut slow = slow_export(&gate, &path()).await;
    let sql = "INSERT INTO raw SELECT seq + 60000, id, series, admitted_at, start_ns, run, status, duration_us, store_epoch, store_start_us
        FROM raw WHERE seq <= 9";
    ledger.execute(sql, []).unwrap();
    let whole = slow.reply().await;
    assert!(whole.whole);
    let mut lines = whole.body.split(|byte| *byte == b'\n');
    let last = lines.rfind(|line| !line.is_empty()).unwrap();
    let last: Value = serde_json::from_slice(last).unwrap();
    assert_eq!(last["seq"], 59_999);

    let mut slow = slow_export(&gate, &path()).await;
    gate.mover.advance(Duration::from_secs(2 * 3_600));
    let cut = slow.reply().await;
    assert!(!cut.whole, "it is cut off when the key has expired");
    assert!(cut.body.len() < whole.body.len());
    let (status, ..) = own(&gate, STUDIO, &path()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}
