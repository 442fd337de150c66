//! Recomputing what the ledger says from the records that it keeps.
//!
//! Owns what is compared and in which order. Must never write to a ledger, nor hold more of it in memory than a few hours'
//! counts.
//!
//! The records are read once, in the order of their seqs, in one read transaction. Each record's link is compared with its mark,
//! each step's last with its whole link, each sealed day's head with the link at its end; the counts of an hour with the
//! rows of `hours`, as soon as records have gone two days beyond it. What is left open then (a record that came
//! later still) is compared at the end.

use super::chain::{Link, MARK_BYTES};
use super::read::{ReadError, Reader, first_kept};
use super::store::{Kinds, chained};
use crate::words::Utc;
use rusqlite::{Connection, OptionalExtension};
use std::collections::BTreeMap;
use std::fmt;

/// An hour is compared when a record of so many hours later was read.
const SETTLES_AFTER_HOURS: i64 = 48;

/// What was found to be what it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The oldest record that is kept and was verified.
    pub first_seq: u64,
    /// The newest that is linked; one below `first_seq` when there is none.
    pub last_seq: u64,
    /// How many.
    pub records: u64,
    /// The link of the newest.
    pub head: Link,
}

/// The first row that does not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Misfit {
    /// The row, as one would look for it.
    pub row: String,
    /// What does not fit.
    pub why: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not fit: {}", self.row, self.why)
    }
}

fn misfit<T>(row: String, why: impl Into<String>) -> Result<T, ReadError> {
    Err(ReadError::Misfit(Misfit {
        row,
        why: why.into(),
    }))
}

/// A count of `hours`: calls, first and last seq.
type Count = (i64, i64, i64);

impl Reader {
    /// Recomputes chain, sealed days and rollup from the records that are kept. `checkpoint`: a head that was published,
    /// which must be in the chain; without it a ledger whose chain was written anew as a whole passes.
    pub fn verify(&self, checkpoint: Option<Link>) -> Result<Verified, ReadError> {
        // One state of the file, whatever is written meanwhile.
        let read = self.0.unchecked_transaction()?;
        let mut walk = Walk::begin(&read, checkpoint)?;
        let mut steps =
            read.prepare("SELECT last_seq, link, marks FROM links ORDER BY last_seq")?;
        let mut steps = steps.query([])?;
        while let Some(step) = steps.next()? {
            let (until, link): (i64, Link) = (step.get(0)?, step.get(1)?);
            walk.step(
                until,
                link,
                step.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?,
            )?;
        }
        walk.end()
    }
}

struct Walk<'c> {
    read: &'c Connection,
    kinds: Kinds,
    /// The oldest record that can be verified.
    first: i64,
    /// The newest record that was, and its link; `None` before the link that it all begins with.
    at: Option<(i64, Link)>,
    records: u64,
    checkpoint: Option<Link>,
    hours: BTreeMap<(i64, i64), Count>,
    /// All hours below were compared and fitted, but for those that are still in `hours`.
    compared: i64,
    newest_hour: i64,
}

impl<'c> Walk<'c> {
    fn begin(read: &'c Connection, checkpoint: Option<Link>) -> Result<Self, ReadError> {
        Ok(Self {
            read,
            kinds: Kinds::default(),
            first: i64::try_from(first_kept(read)?).unwrap_or(i64::MAX),
            at: None,
            records: 0,
            checkpoint,
            hours: BTreeMap::new(),
            compared: i64::MIN,
            newest_hour: i64::MIN,
        })
    }

    /// The records up to `until`, which one step of the roll-up linked.
    fn step(&mut self, until: i64, link: Link, marks: &[u8]) -> Result<(), ReadError> {
        let Some((mut at, mut known)) = self.at else {
            // What was before is not kept, or not in part: the first whole step begins here.
            if until + 1 >= self.first {
                self.first = until + 1;
                self.at = Some((until, link));
                self.seen(link);
            }
            return Ok(());
        };
        let mut marks = marks.chunks_exact(MARK_BYTES);
        let mut select = self.read.prepare_cached(
            "SELECT seq, id, series, admitted_at, start_ns, run, status, duration_us FROM raw
             WHERE seq > ?1 AND seq <= ?2 ORDER BY seq",
        )?;
        let mut rows = select.query([at, until])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            if seq != at + 1 {
                return misfit(format!("record {}", at + 1), "it is not there");
            }
            let (series, row) = match chained(self.read, &mut self.kinds, row) {
                Err(rusqlite::Error::QueryReturnedNoRows) => {
                    return misfit(
                        format!("record {seq}"),
                        "its series or its run is not there",
                    );
                }
                chained => chained?,
            };
            let next = row.link(&known);
            if marks.next() != Some(&next[..MARK_BYTES]) {
                return misfit(
                    format!("record {seq}"),
                    "it, or what its series and run say, is not what was linked",
                );
            }
            (at, known) = (seq, next);
            self.seen(known);
            self.count(series, Utc(row.admitted_at).hour(), seq)?;
            self.records += 1;
        }
        if at != until {
            return misfit(format!("record {}", at + 1), "it is not there");
        }
        if known != link || marks.next().is_some() {
            return misfit(
                format!("the row of links that ends with record {until}"),
                "its link is not that of its records",
            );
        }
        self.at = Some((at, known));
        Ok(())
    }

    fn seen(&mut self, link: Link) {
        if self.checkpoint == Some(link) {
            self.checkpoint = None;
        }
    }

    fn count(&mut self, series: i64, hour: i64, seq: i64) -> Result<(), ReadError> {
        let (calls, _, last) = self.hours.entry((hour, series)).or_insert((0, seq, seq));
        (*calls, *last) = (*calls + 1, seq);
        if hour > self.newest_hour {
            self.newest_hour = hour;
            let settled = hour - SETTLES_AFTER_HOURS;
            if settled > self.compared {
                self.compare(settled)?;
            }
        }
        Ok(())
    }

    /// Compares the hours below `until`, and lets go of the counts that fit.
    fn compare(&mut self, until: i64) -> Result<(), ReadError> {
        let open: Vec<(i64, i64)> = self
            .hours
            .range(..(until, i64::MIN))
            .map(|(k, _)| *k)
            .collect();
        let mut select = self.read.prepare_cached(
            "SELECT calls, first_seq, last_seq FROM hours WHERE hour = ?1 AND series = ?2",
        )?;
        for key in open {
            let stored: Option<Count> = select
                .query_row([key.0, key.1], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()?;
            if stored == self.hours.get(&key).copied() {
                self.hours.remove(&key);
            }
        }
        self.compared = until;
        Ok(())
    }

    fn end(mut self) -> Result<Verified, ReadError> {
        let (last, head) = self.at.unwrap_or((0, super::chain::GENESIS));
        self.compare(i64::MAX)?;
        for ((hour, series), counted) in &self.hours {
            let stored: Option<Count> = self
                .read
                .prepare_cached(
                    "SELECT calls, first_seq, last_seq FROM hours WHERE hour = ?1 AND series = ?2",
                )?
                .query_row([hour, series], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()?;
            let row = format!("the row of hours with hour {hour} and series {series}");
            // An hour that was recorded in part before the oldest record that is kept cannot be recounted.
            if stored.is_some_and(|(_, first, _)| first < self.first) {
                continue;
            }
            let (calls, first, last) = counted;
            return match stored {
                None => misfit(
                    row,
                    format!("it is not there, and the records have {calls} calls of it"),
                ),
                Some(stored) => misfit(
                    row,
                    format!(
                        "it says {stored:?} (calls, first and last seq), and the records say ({calls}, {first}, {last})"
                    ),
                ),
            };
        }
        self.hours_count_all(last)?;
        self.days(last)?;
        if let Some(checkpoint) = self.checkpoint
            && !self.sealed(checkpoint)?
        {
            return misfit(
                "the checkpoint".to_owned(),
                "no record that is kept has this link, and no day this head: the chain is not the one that was published",
            );
        }
        let unsigned = |seq: i64| u64::try_from(seq).unwrap_or(0);
        Ok(Verified {
            first_seq: unsigned(self.first),
            last_seq: unsigned(last),
            records: self.records,
            head,
        })
    }

    /// Whether the rows of `hours` count anything that no record is of.
    fn hours_count_all(&self, last: i64) -> Result<(), ReadError> {
        // A seq is never left out, so all rows together count up to the newest that is rolled up. Each row that could be
        // recounted was; so if there is one too many, the sum is.
        let counted: i64 =
            self.read
                .query_row("SELECT coalesce(sum(calls), 0) FROM hours", [], |row| {
                    row.get(0)
                })?;
        if counted != last {
            let why =
                format!("they count {counted} calls, and there were {last} up to record {last}");
            return misfit("the rows of hours".to_owned(), why);
        }
        Ok(())
    }

    fn days(&self, last: i64) -> Result<(), ReadError> {
        let mut days = self
            .read
            .prepare("SELECT day, first_seq, last_seq, head FROM days ORDER BY last_seq, day")?;
        let mut days = days.query([])?;
        let mut next: Option<i64> = None;
        while let Some(row) = days.next()? {
            let (day, from, until, head): (String, i64, i64, Link) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let row = format!("the row of days with day {day}");
            if next.is_some_and(|next| next != from) {
                return misfit(row, "it does not begin where the day before ends");
            }
            next = Some(until + 1);
            if until > last {
                return misfit(
                    row,
                    format!("it ends with record {until}, and the last is {last}"),
                );
            }
            if until >= self.first - 1 && self.link_at(until)? != Some(head) {
                return misfit(row, "its head is not the link of its last record");
            }
        }
        Ok(())
    }

    /// A day ends with a step of the roll-up.
    fn link_at(&self, seq: i64) -> Result<Option<Link>, ReadError> {
        let mut select = self
            .read
            .prepare_cached("SELECT link FROM links WHERE last_seq = ?1")?;
        Ok(select.query_row([seq], |row| row.get(0)).optional()?)
    }

    fn sealed(&self, head: Link) -> Result<bool, ReadError> {
        let mut select = self
            .read
            .prepare_cached("SELECT 1 FROM days WHERE head = ?1")?;
        Ok(select.exists([head])?)
    }
}
