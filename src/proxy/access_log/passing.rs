//! An entry on its way with an answer.
//!
//! Must never write a line before the answer has ended, nor leave one out when it breaks off.

use crate::proxy::access_log::AccessLog;
use crate::proxy::access_log::entry::AccessEntry;
use http::StatusCode;
use std::sync::Arc;

/// An entry on its way with an answer. Its line is written when the answer has ended, however it
/// ends.
pub(crate) struct LogEntry {
    log: Arc<AccessLog>,
    /// `None` once it was handed over.
    entry: Option<Box<AccessEntry>>,
}

impl LogEntry {
    pub(in crate::proxy) fn new(log: Arc<AccessLog>, entry: Box<AccessEntry>) -> Self {
        let entry = Some(entry);
        Self { log, entry }
    }

    /// The client is sent an answer with this status.
    pub(in crate::proxy) fn answered(&mut self, status: StatusCode) {
        if let Some(entry) = &mut self.entry {
            entry.status = Some(status.as_u16());
        }
    }

    /// The client has gone before it was answered.
    pub(in crate::proxy) fn not_answered(&mut self, reason: &'static str) {
        if let Some(entry) = &mut self.entry {
            entry.reason = reason;
        }
    }

    /// So many further bytes of the answer's body were passed on.
    pub(in crate::proxy) fn passed(&mut self, bytes: usize) {
        if let Some(entry) = &mut self.entry {
            entry.bytes_out += bytes as u64;
        }
    }
}

impl Drop for LogEntry {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.log.hand_over(entry);
        }
    }
}
