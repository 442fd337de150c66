//! The values that gates and the collector tell each other in buckets.
//!
//! Owns their form: JSON, so that an operator can read it (`nats kv get tollgate_watermarks ID`).
//! Must never panic on what others have written.

use crate::ledger::CollectedBy;
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
    /// All that was admitted before it .. `None` while that cannot be said of any instant.
    pub at: Option<Utc>,
    /// .. is at this seq or before.
    pub seq: u64,
    /// The newest record that is billed in that ledger itself.
    pub billed_seq: u64,
}

#[derive(Serialize, Deserialize)]
struct WrittenWatermark {
    replica: String,
    /// Microseconds since the Unix epoch; null while no instant is known.
    admitted_before_us: Option<i64>,
    seq: u64,
    billed_seq: u64,
}

/// What the collector has of a ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::control) struct CollectedValue {
    /// The newest record of it that is collected.
    pub seq: u64,
    /// Where.
    pub by: CollectedBy,
}

#[derive(Serialize, Deserialize)]
struct WrittenCollected {
    seq: u64,
    collected_in: String,
    restore_count: u64,
}

impl WatermarkValue {
    pub(in crate::control) fn encode(&self) -> Vec<u8> {
        let written = WrittenWatermark {
            replica: self.replica.clone(),
            admitted_before_us: self.at.map(|at| at.0),
            seq: self.seq,
            billed_seq: self.billed_seq,
        };
        // Numbers and a text can always be written to memory.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    pub(in crate::control) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let written: WrittenWatermark =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            replica: written.replica,
            at: written.admitted_before_us.map(Utc),
            seq: written.seq,
            billed_seq: written.billed_seq,
        })
    }
}

impl CollectedValue {
    pub(in crate::control) fn encode(&self) -> Vec<u8> {
        let written = WrittenCollected {
            seq: self.seq,
            collected_in: self.by.ledger_id.clone(),
            restore_count: self.by.restore_count,
        };
        serde_json::to_vec(&written).unwrap_or_default()
    }

    pub(in crate::control) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let written: WrittenCollected =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            seq: written.seq,
            by: CollectedBy {
                ledger_id: written.collected_in,
                restore_count: written.restore_count,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_writes_the_other_reads_and_other_bytes_are_refused() {
        let value = WatermarkValue {
            replica: "gate \"1\"".to_owned(),
            at: Some(Utc(1_800_000_000_000_001)),
            seq: u64::MAX,
            billed_seq: 3,
        };
        assert_eq!(WatermarkValue::decode(&value.encode()), Ok(value));
        let value = CollectedValue {
            seq: 7,
            by: CollectedBy {
                ledger_id: "00112233445566778899aabbccddeeff".to_owned(),
                restore_count: 1,
            },
        };
        assert_eq!(CollectedValue::decode(&value.encode()), Ok(value));
        for bytes in [&b""[..], b"7", b"{}", b"{\"seq\":-1}", b"\xff"] {
            assert!(CollectedValue::decode(bytes).is_err());
            assert!(WatermarkValue::decode(bytes).is_err());
        }
    }
}
