//! The chain: what makes a change of a record show.
//!
//! Owns what a link is made of. Pure. Must never change for a schema that has ledgers: whoever verifies makes the same
//! links from the same records.
//!
//! The link of a record is the SHA-256 of the link before it and of the record's 74 bytes, all numbers big endian:
//!
//! | bytes | |
//! | --- | --- |
//! | 8 | `seq` |
//! | 16 | `id` |
//! | 16 | the first half of the SHA-256 of the texts `account`, `group`, `action`, `mode`, `outcome`, `reason`, `billable` (`1` or `0`) and `replica`, each followed by a zero byte |
//! | 8 | `admitted_at` |
//! | 8 | `start_ns` |
//! | 8 | `run` |
//! | 2 | `status`, 0 when there is none |
//! | 8 | `duration_us` |
//!
//! The link before the first record is 32 zero bytes. With the link before it a record is two blocks of SHA-256, some
//! 150 ns, and the half hash, which is the same for all calls of a kind, is computed once for many.

use sha2::{Digest, Sha256};

/// What stands for all records up to one.
pub type Link = [u8; 32];

/// Before the first record.
pub(super) const GENESIS: Link = [0; 32];

/// So much of a record's link is kept beside it, so that a change can be put down to the very record.
pub(super) const MARK_BYTES: usize = 8;

/// A row of `raw` as it goes into the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) id: [u8; 16],
    /// Of [`kind`].
    pub(super) kind: [u8; 16],
    pub(super) admitted_at: i64,
    pub(super) start_ns: i64,
    pub(super) run: i64,
    pub(super) status: Option<u16>,
    pub(super) duration_us: i64,
}

impl Row {
    /// The link of this record after `before`.
    pub(super) fn link(&self, before: &Link) -> Link {
        let mut hash = Sha256::new();
        hash.update(before);
        hash.update(self.seq.to_be_bytes());
        hash.update(self.id);
        hash.update(self.kind);
        hash.update(self.admitted_at.to_be_bytes());
        hash.update(self.start_ns.to_be_bytes());
        hash.update(self.run.to_be_bytes());
        hash.update(self.status.unwrap_or(0).to_be_bytes());
        hash.update(self.duration_us.to_be_bytes());
        hash.finalize().into()
    }
}

/// The half hash of what the calls of a series and a run have in common.
pub(super) fn kind(texts: [&str; 6], billable: bool, replica: &str) -> [u8; 16] {
    let mut hash = Sha256::new();
    let billable = if billable { "1" } else { "0" };
    for text in texts.iter().copied().chain([billable, replica]) {
        hash.update(text);
        hash.update([0]);
    }
    let whole: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    half
}
