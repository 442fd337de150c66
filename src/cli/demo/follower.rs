//! A gate as its operator sees it: metrics, usage and records over HTTP.
//!
//! Owns the reading of one gate from outside. Must never ask the gate's own memory: a client could
//! not check such a promise.

use crate::cli::demo::exposition::Samples;
use crate::cli::fetch::{connections_to, fetch};
use crate::proxy::upstream::Upstream;
use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;

/// Follows one gate.
pub(super) struct Follower {
    /// Connections to the operators' listener.
    admin: Arc<Upstream>,
    host: String,
    /// The seq of the last record that was read.
    cursor: u64,
}

impl Follower {
    pub(super) fn new(admin: SocketAddr) -> Self {
        Self {
            admin: connections_to(admin, None),
            host: admin.to_string(),
            cursor: 0,
        }
    }

    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<String> {
        let request = Request::get(path)
            .header("host", &self.host)
            .body(Bytes::new())?;
        let (status, body) = fetch(&self.admin, request).await?;
        ensure!(status == StatusCode::OK, "GET {path}: {status}");
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// The metrics, and the records since the last look. One that is dropped half-way was none.
    pub(super) async fn look(&mut self) -> anyhow::Result<(Samples, Vec<Value>)> {
        let metrics = Samples::parse(&self.get("/metrics").await?);
        let (mut cursor, mut records) = (self.cursor, Vec::new());
        loop {
            let page = format!("/v1/records?after={cursor}&limit=10000");
            let page = read_records(&self.get(&page).await?)?;
            let Some(last) = page.last() else { break };
            cursor = seq(last)?;
            records.extend(page);
        }
        self.cursor = cursor;
        Ok((metrics, records))
    }

    /// Takes these records for the next ones of the ledger.
    pub(super) fn go_on_after(&mut self, records: &[Value]) -> anyhow::Result<()> {
        if let Some(last) = records.last() {
            self.cursor = seq(last)?;
        }
        Ok(())
    }
}

/// The records of JSON lines.
pub(super) fn read_records(lines: &str) -> anyhow::Result<Vec<Value>> {
    let records = lines.lines().map(serde_json::from_str);
    Ok(records.collect::<Result<_, _>>()?)
}

fn seq(record: &Value) -> anyhow::Result<u64> {
    record["seq"].as_u64().context("a record without seq")
}
