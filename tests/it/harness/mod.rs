//! What the tests share: a gate in this process or as the real binary, an upstream that the test
//! scripts, a client that shows every byte.

mod backend;
mod cut;
mod gate;
mod nats;
mod process;
mod prometheus;
mod requests;
mod samples;
mod sandbox;
mod store;
mod upstream;
mod wire;

pub use backend::*;
pub use cut::*;
pub use gate::*;
pub use nats::*;
pub use process::*;
pub use prometheus::*;
pub use requests::*;
pub use samples::*;
pub use sandbox::*;
pub use store::*;
pub use upstream::*;
pub use wire::*;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate::testing::config::{self, Config};
use tollgate::testing::control;
use tollgate::testing::control::serve::Running;
use tollgate::testing::ledger::{ClockWatch, Entry, Reader, StoredRecord};
use tollgate::testing::model::{Clock, Mono, Mover, Utc};

pub fn records(ledger: &Path) -> Vec<StoredRecord> {
    let reader = Reader::open(ledger).unwrap();
    let mut all: Vec<StoredRecord> = Vec::new();
    loop {
        let page = reader
            .records(all.last().map_or(0, |r| r.seq), 10_000)
            .unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// Asserts that the ledger is whole and agrees with itself: seq without a gap, no id twice, the
/// rollup equal to a recount of the records, SQLite's own check. Gives the records.
pub fn whole_ledger(path: &Path) -> Vec<StoredRecord> {
    let all = records(path);
    for (at, record) in all.iter().enumerate() {
        assert_eq!(record.seq, at as u64 + 1, "seq has no gap and no repeat");
    }
    let ids: std::collections::HashSet<_> = all.iter().map(|record| record.id).collect();
    assert_eq!(ids.len(), all.len(), "no id is recorded twice");

    let mut recount = BTreeMap::new();
    for r in &all {
        let key = (
            r.account.clone(),
            r.group.clone(),
            r.action.clone(),
            r.mode,
            r.outcome,
            r.billable,
            r.reason,
            r.key.clone(),
        );
        *recount.entry(key).or_insert(0) += 1;
    }
    let first_hour = tollgate::testing::model::Utc(0);
    let last_hour = tollgate::testing::model::Utc(4_000_000_000 / 3_600 * 3_600 * 1_000_000);
    let lines = Reader::open(path)
        .unwrap()
        .usage(first_hour, last_hour, None, 0..=u64::MAX)
        .unwrap();
    let rollup: BTreeMap<_, u64> = lines
        .into_iter()
        .map(|l| {
            (
                (
                    l.account, l.group, l.action, l.mode, l.outcome, l.billable, l.reason, l.key,
                ),
                l.calls,
            )
        })
        .collect();
    assert_eq!(rollup, recount, "the rollup is the recount of the records");

    let sql = rusqlite::Connection::open(path).unwrap();
    let verdict: String = sql
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
    all
}

/// Asserts P1 on recorded starts: at most `quota` of them in any trailing second.
pub fn assert_capped(mut starts: Vec<Mono>, quota: usize) {
    starts.sort();
    for pair in starts.windows(quota + 1) {
        let span = pair[quota].since(pair[0]);
        assert!(
            span >= Duration::from_secs(1),
            "{} starts within {span:?}, quota {quota}",
            quota + 1
        );
    }
}

/// The longest that a test waits for something that is due.
pub const BOUND: Duration = Duration::from_secs(20);

/// Polls until `done`, within [`BOUND`].
pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Clock::default().mono().plus(BOUND);
    while !done() {
        assert!(Clock::default().mono() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
