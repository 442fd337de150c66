//! What the writer knows of the ledgers whose records it collects.
//!
//! Owns the rows of `sources`, and their own runs here. Must never be kept after an error: only the
//! file knows then.

use crate::ledger::chain::Link;
use crate::ledger::range::RangeRun;
use crate::ledger::rows::FastMap;
use rusqlite::{Connection, OptionalExtension, params};

/// Runs that are remembered of a source. A bound, not a size.
const RUNS_CACHED: usize = 1 << 12;

/// How far a source has come.
#[derive(Debug)]
pub(super) struct SourceState {
    pub(super) source: i64,
    pub(super) restore_count: i64,
    /// The first record of it that was collected; `None` before it.
    pub(super) first_seq: Option<i64>,
    pub(super) seq: i64,
    /// The link after `seq`, in its own chain.
    pub(super) link: Link,
    runs: FastMap<i64, (RangeRun, i64)>,
}

impl SourceState {
    /// The run here of a run of the source. A restore can give a number to another run, so its
    /// instant and its replica must be the same.
    pub(super) fn run(
        &mut self,
        connection: &Connection,
        run: &RangeRun,
    ) -> Result<i64, rusqlite::Error> {
        if let Some((known, here)) = self.runs.get(&run.run)
            && known == run
        {
            return Ok(*here);
        }
        let values = params![self.source, run.run, run.replica, run.opened_at];
        let found: Option<i64> = connection
            .prepare_cached(
                "SELECT run FROM runs WHERE source = ?1 AND source_run = ?2 AND replica = ?3 AND opened_at = ?4",
            )?
            .query_row(values, |row| row.get(0))
            .optional()?;
        let here = match found {
            Some(here) => here,
            None => {
                connection
                    .prepare_cached(
                        "INSERT INTO runs (source, source_run, replica, opened_at) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(values)?;
                connection.last_insert_rowid()
            }
        };
        if self.runs.len() >= RUNS_CACHED {
            self.runs.clear();
        }
        self.runs.insert(run.run, (run.clone(), here));
        Ok(here)
    }
}

/// The sources that were lately asked for.
#[derive(Default, Debug)]
pub(super) struct SourceCache(FastMap<String, SourceState>);

impl SourceCache {
    /// The source of this id; `None` when nobody has heard of it.
    pub(super) fn get(
        &mut self,
        connection: &Connection,
        ledger_id: &str,
    ) -> Result<Option<&mut SourceState>, rusqlite::Error> {
        if !self.0.contains_key(ledger_id) {
            let found = connection
                .prepare_cached(
                    "SELECT source, restore_count, first_seq, seq, link FROM sources WHERE ledger_id = ?1",
                )?
                .query_row([ledger_id], |row| {
                    Ok(SourceState {
                        source: row.get(0)?,
                        restore_count: row.get(1)?,
                        first_seq: row.get(2)?,
                        seq: row.get(3)?,
                        link: row.get::<_, Option<Link>>(4)?.unwrap_or_default(),
                        runs: FastMap::default(),
                    })
                })
                .optional()?;
            let Some(found) = found else {
                return Ok(None);
            };
            self.0.insert(ledger_id.to_owned(), found);
        }
        Ok(self.0.get_mut(ledger_id))
    }
}

/// Notes that there is a ledger of this id.
pub(super) fn first_seen(
    connection: &Connection,
    ledger_id: &str,
    replica: &str,
    at: i64,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO sources (ledger_id, replica, restore_count, seq, first_seen_at) VALUES (?1, ?2, 0, 0, ?3)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![ledger_id, replica, at])
        .map(drop)
}

/// The watermarks of a source. One that its records have not come to is waited for, even when newer
/// ones are told meanwhile: else a source that is always a second behind would never come to one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Watermarks {
    /// The newest.
    told: Option<(i64, i64)>,
    /// The one that the records come to next.
    awaited: Option<(i64, i64)>,
    /// The instant of the newest that they came to.
    reached: Option<i64>,
}

impl Watermarks {
    pub(super) fn read(connection: &Connection, source: i64) -> Result<Self, rusqlite::Error> {
        connection
            .prepare_cached(
                "SELECT told_us, told_seq, awaited_us, awaited_seq, reached_us FROM sources WHERE source = ?1",
            )?
            .query_row([source], |row| {
                let pair = |at: Option<i64>, seq: Option<i64>| at.zip(seq);
                Ok(Self {
                    told: pair(row.get(0)?, row.get(1)?),
                    awaited: pair(row.get(2)?, row.get(3)?),
                    reached: row.get(4)?,
                })
            })
    }

    pub(super) fn write(self, connection: &Connection, source: i64) -> Result<(), rusqlite::Error> {
        let (told, awaited) = (self.told, self.awaited);
        connection
            .prepare_cached(
                "UPDATE sources SET told_us = ?2, told_seq = ?3, awaited_us = ?4, awaited_seq = ?5, reached_us = ?6
                 WHERE source = ?1",
            )?
            .execute(params![
                source,
                told.map(|(at, _)| at),
                told.map(|(_, seq)| seq),
                awaited.map(|(at, _)| at),
                awaited.map(|(_, seq)| seq),
                self.reached
            ])
            .map(drop)
    }

    /// The source has told another. An older instant says that its clock went back: it admits calls
    /// from before what it told, and nothing that it told of later instants holds any more.
    pub(super) fn tell(&mut self, at: i64, seq: i64) {
        if self.told.is_some_and(|(before, _)| at < before) {
            self.awaited = None;
            self.reached = self.reached.map(|reached| reached.min(at));
        }
        self.told = Some((at, seq));
    }

    /// The records of the source are collected up to `seq`.
    pub(super) fn come_to(&mut self, seq: i64) {
        let is_reached = |mark: &Option<(i64, i64)>| mark.filter(|(_, needed)| *needed <= seq);
        if let Some((at, _)) = is_reached(&self.told) {
            (self.reached, self.awaited) = (Some(at), None);
        } else if let Some((at, _)) = is_reached(&self.awaited) {
            (self.reached, self.awaited) = (Some(at), self.told);
        } else if self.awaited.is_none() {
            self.awaited = self.told;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_always_behind_still_comes_to_watermark_after_watermark() {
        let mut marks = Watermarks::default();
        // Each second a watermark with ten records more; the records are three seconds behind.
        let mut reached = Vec::new();
        for second in 1..=20 {
            marks.tell(second, second * 10);
            marks.come_to((second - 3).max(0) * 10);
            reached.push(marks.reached.unwrap_or(0));
        }
        assert!(reached.is_sorted());
        assert!(*reached.last().unwrap() >= 20 - 2 * 3, "{reached:?}");
        for (second, reached) in (1..).zip(reached) {
            assert!(reached <= (second - 3).max(0));
        }
        marks.come_to(200);
        assert_eq!(marks.reached, Some(20));
    }

    #[test]
    fn a_watermark_that_is_older_than_one_before_takes_that_back() {
        let mut marks = Watermarks::default();
        marks.tell(5, 10);
        marks.come_to(10);
        assert_eq!(marks.reached, Some(5));
        // Records of before 5 may have come behind 10.
        marks.tell(3, 12);
        marks.come_to(11);
        assert_eq!(marks.reached, Some(3));
        marks.tell(4, 12);
        marks.come_to(11);
        assert_eq!(marks.reached, Some(3));
        marks.come_to(12);
        assert_eq!(marks.reached, Some(4));
    }
}
