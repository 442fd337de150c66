//! A record as a line of CSV.

use crate::ledger::StoredRecord;
use std::io::{self, Write};

/// The columns of [`StoredRecord::write_csv`], as a header line has them.
pub(crate) const RECORD_COLUMNS: &str = "seq,id,account,group,action,mode,admitted_at,start_ns,run,outcome,status,\
                       billable,reason,duration_us,replica,\
                       key,store_epoch,store_start_us";

impl StoredRecord {
    /// Writes the cells of [`RECORD_COLUMNS`], without an end of line. None needs a quotation mark.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_csv(&self, mut out: impl Write) -> io::Result<()> {
        let StoredRecord {
            seq,
            id,
            account,
            group,
            action,
            mode,
            admitted_at,
            start,
            run,
            outcome,
            status,
            billable,
            reason,
            duration_us,
            replica,
            key,
            store_epoch,
            store_start_us,
        } = self;
        let number = |value: &Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
        let (store_epoch, store_start_us) = (number(store_epoch), number(store_start_us));
        let status = status.map(|status| status.to_string()).unwrap_or_default();
        let (admitted_at, start) = (admitted_at.0, start.0);
        write!(out, "{seq},{id},{account},{group},{action},{mode},")?;
        write!(out, "{admitted_at},{start},{run},{outcome},{status},")?;
        write!(out, "{billable},{reason},{duration_us},{replica},")?;
        write!(out, "{key},{store_epoch},{store_start_us}")
    }
}
