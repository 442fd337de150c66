//! The sealed days as their rows have them.

use crate::ledger::chain::Link;
use crate::ledger::seal::{self, Before};
use rusqlite::Connection;

/// A row of `days`.
pub(super) struct SealedDay {
    pub(super) day: String,
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
    pub(super) head: Vec<u8>,
    /// These three are null in one that schema 3 sealed: its head is the link.
    pub(super) link: Option<Vec<u8>>,
    pub(super) first_kept: Option<i64>,
    pub(super) hours: Option<Vec<u8>>,
    /// Null in one without a debit, and up to schema 4.
    pub(super) debits: Option<String>,
}

impl SealedDay {
    /// Its head as it must be; `None` when the row is none that was ever written.
    pub(super) fn seal(&self, floor: i64, before: &Before) -> Option<Link> {
        let head = Link::try_from(&self.head[..]).ok()?;
        let Some(link) = &self.link else {
            return Some(head);
        };
        let expected = seal::Day {
            day: self.day.clone(),
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            link: link[..].try_into().ok()?,
            hours: self.hours.as_deref()?.try_into().ok()?,
            first_kept: self.first_kept?,
            floor,
            debits: self.debits.clone(),
        }
        .seal(before);
        (expected == head).then_some(head)
    }
}

pub(super) fn sealed_days(page: &Connection) -> Result<Vec<SealedDay>, rusqlite::Error> {
    page.prepare(
        "SELECT day, first_seq, last_seq, head, link, first_kept, hours, debits FROM days ORDER BY day",
    )?
    .query_map([], |row| {
        Ok(SealedDay {
            day: row.get(0)?,
            first_seq: row.get(1)?,
            last_seq: row.get(2)?,
            head: row.get(3)?,
            link: row.get(4)?,
            first_kept: row.get(5)?,
            hours: row.get(6)?,
            debits: row.get(7)?,
        })
    })?
    .collect()
}
