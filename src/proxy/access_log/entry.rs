//! What a line tells of one call.
//!
//! Must never have a text that the client chose: a line is one line, whatever was sent.

use crate::http::TraceParent;
use crate::model::{Mono, RequestId, Utc};
use crate::proxy::policy::{KnownAccount, Operation};
use crate::proxy::progress::Progress;
use jiff::Timestamp;
use serde::Serialize;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What is known of a call, until its answer has ended.
pub(crate) struct AccessEntry {
    /// Its name.
    pub id: RequestId,
    /// When its head had come.
    pub received: (Mono, Utc),
    /// The address that sent it.
    pub peer: IpAddr,
    /// The account, if it was proven.
    pub account: Option<Arc<KnownAccount>>,
    /// The place of the proven key in the account's list.
    pub key: u32,
    /// What was called, if that is known.
    pub operation: Option<Arc<Operation>>,
    /// `admitted`, `throttled`, or `refused`.
    pub decision: &'static str,
    /// Why it was not let in, or not served; empty when it was.
    pub reason: &'static str,
    /// The status that the client was sent; `None` when it was gone before.
    pub status: Option<u16>,
    /// How much of its body came.
    pub progress: Arc<Progress>,
    /// The bytes of the answer's body that were passed on.
    pub bytes_out: u64,
    /// From the start to the head of the upstream's answer, or to giving up.
    pub upstream: Option<Duration>,
    /// In the gate itself.
    pub overhead: Option<Duration>,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
    /// From its head to the end of its answer.
    pub took: Duration,
}

/// A line as it is written.
#[derive(Serialize)]
struct Line<'e> {
    at: String,
    request_id: String,
    account: Option<&'e str>,
    key: Option<&'e str>,
    peer: IpAddr,
    group: Option<&'e str>,
    action: Option<&'e str>,
    decision: &'static str,
    reason: &'static str,
    status: Option<u16>,
    bytes_in: u64,
    bytes_out: u64,
    upstream_us: Option<u64>,
    overhead_us: Option<u64>,
    total_us: u64,
    traceparent: Option<String>,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl AccessEntry {
    /// Adds its line, with the line break.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let account = self.account.as_deref();
        let keys = account.map(|account| &account.keys);
        let key = keys.and_then(|keys| keys.get(usize::try_from(self.key).ok()?));
        let operation = self.operation.as_deref();
        let at = Timestamp::from_microsecond(self.received.1.0).unwrap_or_default();
        let line = Line {
            at: at.to_string(),
            request_id: self.id.to_string(),
            account: account.map(|account| account.id.as_str()),
            key: key.map(|key| key.id.as_str()),
            peer: self.peer.to_canonical(),
            group: operation.map(|operation| operation.group.as_str()),
            action: operation.map(|operation| operation.action.as_str()),
            decision: self.decision,
            reason: self.reason,
            status: self.status,
            bytes_in: self.progress.received(),
            bytes_out: self.bytes_out,
            upstream_us: self.upstream.map(micros),
            overhead_us: self.overhead.map(micros),
            total_us: micros(self.took),
            traceparent: self.trace.map(|trace| trace.to_string()),
        };
        let begins = out.len();
        match serde_json::to_writer(&mut *out, &line) {
            Ok(()) => out.push(b'\n'),
            // Of these types there is none; half a line would be worse than none.
            Err(_) => out.truncate(begins),
        }
    }
}
