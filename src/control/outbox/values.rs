//! The values that gates and the collector tell each other in buckets.
//!
//! Owns their form: JSON, so that an operator can read it (`nats kv get tollgate_watermarks ID`).
//! Must never panic on what others have written.

use crate::model::Utc;
use serde::{Deserialize, Serialize};

/// The bucket of the gates' watermarks, by the id of the ledger.
pub(in crate::control) const WATERMARKS: &str = "tollgate_watermarks";
/// The bucket of what the collector has of each ledger, by its id.
pub(in crate::control) const COLLECTED: &str = "tollgate_collected";

/// What a gate says of its ledger: all that was admitted before an instant is at a seq or before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::control) struct WatermarkValue {
    /// The name of the replica.
    pub replica: String,
    /// All that was admitted before it ..
    pub at: Utc,
    /// .. is at this seq or before.
    pub seq: u64,
    /// The newest record that need not be sent.
    pub collected_seq: u64,
}

#[derive(Serialize, Deserialize)]
struct WrittenWatermark {
    replica: String,
    /// Microseconds since the Unix epoch.
    admitted_before_us: i64,
    seq: u64,
    collected_seq: u64,
}

#[derive(Serialize, Deserialize)]
struct WrittenCollected {
    seq: u64,
}

impl WatermarkValue {
    pub(in crate::control) fn encode(&self) -> Vec<u8> {
        let written = WrittenWatermark {
            replica: self.replica.clone(),
            admitted_before_us: self.at.0,
            seq: self.seq,
            collected_seq: self.collected_seq,
        };
        // Numbers and a text can always be written to memory.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    pub(in crate::control) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let written: WrittenWatermark =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            replica: written.replica,
            at: Utc(written.admitted_before_us),
            seq: written.seq,
            collected_seq: written.collected_seq,
        })
    }
}

/// The newest record of a ledger that is collected.
pub(in crate::control) fn collected_value(seq: u64) -> Vec<u8> {
    serde_json::to_vec(&WrittenCollected { seq }).unwrap_or_default()
}

/// Reads a [`collected_value`].
pub(super) fn collected_seq(bytes: &[u8]) -> Result<u64, String> {
    let written: Result<WrittenCollected, _> = serde_json::from_slice(bytes);
    Ok(written.map_err(|error| error.to_string())?.seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_writes_the_other_reads_and_other_bytes_are_refused() {
        let value = WatermarkValue {
            replica: "gate \"1\"".to_owned(),
            at: Utc(1_800_000_000_000_001),
            seq: u64::MAX,
            collected_seq: 3,
        };
        assert_eq!(WatermarkValue::decode(&value.encode()), Ok(value));
        assert_eq!(collected_seq(&collected_value(7)), Ok(7));
        for bytes in [&b""[..], b"7", b"{}", b"{\"seq\":-1}", b"\xff"] {
            assert!(collected_seq(bytes).is_err());
            assert!(WatermarkValue::decode(bytes).is_err());
        }
    }
}
