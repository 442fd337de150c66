//! A place among the records, as a reader keeps it to go on from.

use std::fmt::Display;

/// The place of a client in the list of records: after `seq`, since the newest restore. Written
/// `RESTORE_COUNT:SEQ`, or `SEQ` alone for a ledger that was never restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// How often the ledger had been restored.
    pub restore_count: u64,
    /// The last record that was read; 0 before the first.
    pub seq: u64,
}

impl Cursor {
    /// Reads what [`Display`] writes, or a bare seq.
    ///
    /// # Errors
    /// A text that is neither; the error says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (restore_count, seq) = text.split_once(':').unwrap_or(("0", text));
        // As it is written: two texts of one place would be taken for two places.
        let number = |text: &str| {
            let number = text.parse::<u64>().ok();
            number.filter(|number| number.to_string() == text)
        };
        match (number(restore_count), number(seq)) {
            (Some(restore_count), Some(seq)) => Ok(Self { restore_count, seq }),
            _ => Err(format!(
                "{text:?} is not a cursor: RESTORE_COUNT:SEQ as in 0:1234, or a seq alone"
            )),
        }
    }
}

impl Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.restore_count, self.seq)
    }
}

/// The cursor of a ledger that was never restored.
impl From<u64> for Cursor {
    fn from(seq: u64) -> Self {
        Self {
            restore_count: 0,
            seq,
        }
    }
}
