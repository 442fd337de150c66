//! What a line tells of one call.
//!
//! Must never have a text that the client chose: a line is one line, whatever was sent.

use crate::http::TraceParent;
use crate::model::{Mono, RequestId, Utc};
use crate::proxy::policy::{KnownAccount, Operation};
use crate::proxy::progress::Progress;
use jiff::Timestamp;
use serde::Serialize;
use std::fmt::Write;
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
    at: &'e str,
    request_id: &'e str,
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

/// Spells instants. The date and the time to the second are kept for the next one, which is of the
/// same second most of the time: to spell them anew costs more than all else of its line.
#[derive(Default)]
pub(super) struct Spelling {
    /// `None` before the first.
    second: Option<i64>,
    /// With the microseconds behind it.
    text: String,
    /// How long it is without them.
    whole: usize,
}

impl Spelling {
    /// In UTC, as RFC 3339 has it.
    fn of(&mut self, at: Utc) -> &str {
        let second = at.0.div_euclid(1_000_000);
        if self.second != Some(second) {
            let at = Timestamp::from_second(second).unwrap_or_default();
            self.text = at.to_string();
            self.whole = self.text.trim_end_matches('Z').len();
            self.second = Some(second);
        }
        self.text.truncate(self.whole);
        // Writing to a text never fails.
        let _ = write!(self.text, ".{:06}Z", at.0.rem_euclid(1_000_000));
        &self.text
    }
}

impl AccessEntry {
    /// Adds its line, with the line break.
    pub(super) fn write(&self, spelling: &mut Spelling, out: &mut Vec<u8>) {
        let account = self.account.as_deref();
        let keys = account.map(|account| &account.keys);
        let key = keys.and_then(|keys| keys.get(usize::try_from(self.key).ok()?));
        let operation = self.operation.as_deref();
        let id = self.id.text();
        let line = Line {
            at: spelling.of(self.received.1),
            request_id: id.as_str(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_spelled_with_its_microseconds_whatever_was_spelled_before() {
        let mut spelling = Spelling::default();
        for (us, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_796_080_007_000_012, "2026-11-30T23:06:47.000012Z"),
            (1_796_080_007_900_000, "2026-11-30T23:06:47.900000Z"),
            (1_796_080_006_999_999, "2026-11-30T23:06:46.999999Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(spelling.of(Utc(us)), expected);
        }
    }
}
