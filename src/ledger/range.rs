//! A range of a ledger's records as it is sent to another ledger.
//!
//! Owns the bytes of such a message, and what can be told of them without a ledger. Must never
//! panic on bytes that others have sent, nor take in more records than the bytes can hold.
//!
//! # The bytes
//! One byte, [`FORMAT`], and the [`Range`] behind it as `postcard` writes it. A range that is read
//! has passed [`Range::decode`]: its seqs follow each other, and each row names a series and a run
//! of the range.

use crate::ledger::schema::LINK_VERSION;
use serde::{Deserialize, Serialize};

/// The format that this program writes and reads.
const FORMAT: u8 = 1;

/// Half of all seqs: to count on from one is no overflow.
const MOST_SEQ: u64 = i64::MAX as u64 / 2;

/// The end of the year 9999, in microseconds since the Unix epoch.
const MOST_US: i64 = 253_402_300_800_000_000;

/// The most bytes of a message: the most that a server of NATS takes by default.
const MOST_BYTES: usize = 1 << 20;

/// Records of one ledger with seqs that follow each other, and the links before and after them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Range {
    /// The ledger that wrote them: 32 hex digits.
    pub ledger_id: String,
    /// The name of the replica that sends them.
    pub replica: String,
    /// How often the ledger had been restored when they were written.
    pub restore_count: u64,
    /// The seq of the first.
    pub first_seq: u64,
    /// The seq of the last.
    pub last_seq: u64,
    /// The newest record that was billed in its ledger itself: see
    /// [`OutboxCursor`](crate::ledger::OutboxCursor).
    pub billed_seq: u64,
    /// The link before the first.
    pub link_before: [u8; 32],
    /// The link after the last.
    pub link_after: [u8; 32],
    pub(super) link_version: u8,
    /// What lies before the first record, where it is the first since a restore.
    pub restored: Option<Gap>,
    pub(super) runs: Vec<RangeRun>,
    pub(super) series: Vec<RangeSeries>,
    pub(super) rows: Vec<RangeRow>,
}

/// The seqs that a restore left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gap {
    /// The newest record before it.
    pub last_seq: u64,
    /// The first seq after it.
    pub next_seq: u64,
    /// When the ledger was restored, in microseconds since the Unix epoch.
    pub restored_at: i64,
}

/// A start of the process that wrote records.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct RangeRun {
    pub(super) run: i64,
    pub(super) replica: String,
    pub(super) opened_at: i64,
}

/// What the records of a series have in common, as the ledger has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct RangeSeries {
    pub(super) account: String,
    pub(super) group: String,
    pub(super) action: String,
    pub(super) mode: String,
    pub(super) outcome: String,
    pub(super) reason: String,
    pub(super) key: String,
    pub(super) billable: bool,
}

/// A record: what it does not share with others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct RangeRow {
    pub(super) id: [u8; 16],
    /// Its place in the series of the range.
    pub(super) series: u32,
    /// Its place in the runs of the range.
    pub(super) run: u32,
    pub(super) admitted_at: i64,
    pub(super) start_ns: i64,
    pub(super) status: Option<u16>,
    pub(super) duration_us: i64,
    pub(super) store_epoch: Option<i64>,
    pub(super) store_start_us: Option<i64>,
}

impl RangeSeries {
    /// The length of its texts.
    pub(super) fn bytes(&self) -> usize {
        let texts = [
            &self.account,
            &self.group,
            &self.action,
            &self.mode,
            &self.outcome,
            &self.reason,
            &self.key,
        ];
        texts.iter().map(|text| text.len() + 1).sum()
    }
}

impl RangeRow {
    fn is_one(&self, series: usize, runs: usize) -> bool {
        (self.series as usize) < series
            && (self.run as usize) < runs
            && (0..MOST_US).contains(&self.admitted_at)
            && self.start_ns >= 0
            && self.duration_us >= 0
    }
}

/// Why bytes are no range of records.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RangeError {
    /// It is of another version of tollgate.
    #[error(
        "a range of records in format {0}, and this tollgate reads format {FORMAT}: bring the collector to the version of the gates"
    )]
    Format(u8),
    /// It is more than a message may be.
    #[error("a range of records of {0} bytes, and none has more than {MOST_BYTES}")]
    TooLong(usize),
    /// It is something else, or damaged.
    #[error("no range of records: {0}")]
    Malformed(String),
}

impl Range {
    /// The number of records.
    pub fn records(&self) -> usize {
        self.rows.len()
    }

    /// The bytes of the message.
    pub fn encode(&self) -> Vec<u8> {
        // A range that is read from a ledger can always be written to memory.
        let mut bytes = vec![FORMAT];
        bytes.extend(postcard::to_allocvec(self).unwrap_or_default());
        bytes
    }

    /// Reads the bytes of a message.
    pub fn decode(bytes: &[u8]) -> Result<Self, RangeError> {
        if bytes.len() > MOST_BYTES {
            return Err(RangeError::TooLong(bytes.len()));
        }
        let malformed = |why: String| Err(RangeError::Malformed(why));
        let (format, rest) = match bytes.split_first() {
            Some(parts) => parts,
            None => return malformed("it is empty".to_owned()),
        };
        if *format != FORMAT {
            return Err(RangeError::Format(*format));
        }
        match postcard::take_from_bytes::<Self>(rest) {
            Err(error) => malformed(error.to_string()),
            Ok((_, rest)) if !rest.is_empty() => {
                malformed(format!("{} bytes follow its end", rest.len()))
            }
            Ok((range, _)) => match range.fault() {
                Some(why) => malformed(why),
                None => Ok(range),
            },
        }
    }

    /// What no range can say that a ledger gives out.
    fn fault(&self) -> Option<String> {
        if !is_ledger_id(&self.ledger_id) {
            return Some(format!("{:?} is the id of no ledger", self.ledger_id));
        }
        let (first, last) = (self.first_seq, self.last_seq);
        let records = last.checked_sub(first).and_then(|more| more.checked_add(1));
        if first == 0 || records != Some(self.rows.len() as u64) {
            let rows = self.rows.len();
            return Some(format!("it has {rows} records, and says {first} to {last}"));
        }
        if last > MOST_SEQ || self.restore_count > MOST_SEQ || self.billed_seq > MOST_SEQ {
            return Some("a number of it is beyond all that there can be".to_owned());
        }
        if !(1..=LINK_VERSION).contains(&self.link_version.into()) {
            let version = self.link_version;
            return Some(format!(
                "its records are linked in version {version}: bring the collector to the version of the gates"
            ));
        }
        if self
            .restored
            .is_some_and(|gap| gap.next_seq != first || gap.last_seq >= first)
        {
            return Some("it is not the first since the restore that it names".to_owned());
        }
        let rows = (first..).zip(&self.rows);
        let mut strange = rows.filter(|(_, row)| !row.is_one(self.series.len(), self.runs.len()));
        strange
            .next()
            .map(|(seq, _)| format!("record {seq} has a value that no record has"))
    }
}

/// Whether a ledger can have this id: 32 hex digits.
pub(crate) fn is_ledger_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() == 32 && bytes.all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
