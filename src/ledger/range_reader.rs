//! Reading a ledger's records in ranges, to be sent to another ledger.
//!
//! Owns what it keeps from one range to the next: its connection, the texts of series and runs, and
//! the newest link. Must never give out a record before it is durable, nor hold the file while it
//! is made sound after an error of the disk.

use crate::ledger::chain::{self, Digests, Link, Linked};
use crate::ledger::queue::HoldsFile;
use crate::ledger::range::{RangeRow, RangeRun, RangeSeries};
use crate::ledger::restores;
use crate::ledger::rows::{FastMap, signed};
use crate::ledger::schema::LINK_VERSION;
use crate::ledger::sources::outbox;
use crate::ledger::{LedgerError, Range, ReadError, Reader};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension};
use std::path::Path;
use std::sync::Arc;

/// Series and runs whose texts are remembered. A bound, not a size.
const TEXTS_CACHED: usize = 1 << 16;

/// About how many bytes a range may have: a quarter of what a message may.
const MOST_BYTES: usize = 240 << 10;

/// About how many bytes a record has besides its texts.
const ROW_BYTES: usize = 56;

/// Reads the records of a ledger in ranges. It keeps its connection and what it has read for the
/// range before.
#[derive(Debug)]
pub struct RangeReader {
    kept: Arc<KeptOpen>,
    ledger_id: String,
    /// The name of the replica that wrote last.
    replica: String,
    digests: Digests,
    series: FastMap<i64, RangeSeries>,
    runs: FastMap<i64, RangeRun>,
    /// The newest record that was given out, and its link.
    at: Option<(i64, Link)>,
    /// Records from here on are linked as they are today; `None` before that is known of one.
    linked_today_from: Option<i64>,
}

/// The connection, until the ledger must be made sound.
#[derive(Debug)]
struct KeptOpen(Mutex<Option<Reader>>);

impl HoldsFile for KeptOpen {
    fn let_go(&self) {
        // A page is read in milliseconds, unless the disk does not answer: then nothing can be done.
        self.0.lock().take();
    }
}

impl RangeReader {
    /// Opens an existing ledger for reading.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let reader = Reader::open(path)?;
        let (ledger_id, replica) = reader.connection.query_row(
            "SELECT ledger_id, coalesce((SELECT replica FROM runs WHERE source IS NULL ORDER BY run DESC LIMIT 1), '')
             FROM identity",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let kept = Arc::new(KeptOpen(Mutex::new(None)));
        let holder = Arc::downgrade(&kept);
        reader.is_kept_by(holder);
        *kept.0.lock() = Some(reader);
        Ok(Self {
            kept,
            ledger_id,
            replica,
            digests: Digests::default(),
            series: FastMap::default(),
            runs: FastMap::default(),
            at: None,
            linked_today_from: None,
        })
    }

    /// The records after `after`, at most `limit`; `None` when there are none yet. A range ends
    /// before a restore, and where records are linked otherwise.
    ///
    /// # Errors
    /// [`ReadError::CursorTooOld`] when the record after `after` was deleted,
    /// [`ReadError::CursorAhead`] when `after` is past the newest record: then it is the cursor of
    /// another ledger. After [`ReadError::Closed`] open another reader.
    pub fn next(&mut self, after: u64, limit: usize) -> Result<Option<Range>, ReadError> {
        let kept = self.kept.clone();
        let reader = kept.0.lock();
        let (page, newest) = reader.as_ref().ok_or(ReadError::Closed)?.page()?;
        let bounds = "SELECT first_kept, max(rolled_up, (SELECT coalesce(max(seq), 0) FROM raw)) FROM bounds";
        let (first_kept, last): (i64, i64) = page
            .prepare_cached(bounds)?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if signed(after) < first_kept - 1 {
            let first_kept = u64::try_from(first_kept).unwrap_or(0);
            return Err(ReadError::CursorTooOld { after, first_kept });
        }
        if signed(after) > last {
            let last = u64::try_from(last).unwrap_or(0);
            return Err(ReadError::CursorAhead { after, last });
        }
        let first: Option<i64> = page
            .prepare_cached("SELECT min(seq) FROM raw WHERE seq > ?1 AND seq <= ?2")?
            .query_row([signed(after), newest], |row| row.get(0))?;
        match first {
            Some(first) => self.range(&page, (after, first), newest, limit).map(Some),
            None => Ok(None),
        }
    }

    /// The records from `first` on, which is the first after `after`.
    fn range(
        &mut self,
        page: &Connection,
        (after, first): (u64, i64),
        newest: i64,
        limit: usize,
    ) -> Result<Range, ReadError> {
        let first_seq = u64::try_from(first).unwrap_or(0);
        let left_out = restores::left_after(page, first)?;
        if left_out.is_none() && first_seq != after + 1 {
            return Err(ReadError::Missing(after + 1));
        }
        let (version, same_until) = self.version(page, first)?;
        let before = left_out.map_or(first - 1, |left_out| left_out.last_seq);
        let link_before = match self.at {
            Some((at, link)) if at == before => link,
            _ => self.link_after(page, before)?,
        };
        let limit = signed(limit.max(1) as u64);
        let until = first.saturating_add(limit - 1).min(newest).min(same_until);
        let mut building = Building {
            range: Range {
                ledger_id: self.ledger_id.clone(),
                replica: self.replica.clone(),
                restore_count: restores::count_at(page, first_seq)?,
                first_seq,
                last_seq: first_seq,
                billed_seq: outbox(page)?.billed_seq,
                link_before,
                link_after: link_before,
                link_version: u8::try_from(version).unwrap_or(u8::MAX),
                restored: left_out.map(|left_out| left_out.before(first_seq)),
                runs: Vec::new(),
                series: Vec::new(),
                rows: Vec::with_capacity(usize::try_from(until - first + 1).unwrap_or(0)),
            },
            series: FastMap::default(),
            runs: FastMap::default(),
            bytes: 0,
        };
        let mut select = page.prepare_cached(chain::LINKED)?;
        let mut rows = select.query([first - 1, until])?;
        let mut expected = first;
        while let Some(row) = rows.next()? {
            let record = Linked::read(row)?;
            if record.seq != expected || building.bytes > MOST_BYTES {
                break;
            }
            expected += 1;
            self.add(page, &mut building, &record, version)?;
        }
        let mut range = building.range;
        range.last_seq = u64::try_from(expected - 1).unwrap_or(0);
        self.at = Some((expected - 1, range.link_after));
        Ok(range)
    }

    fn add(
        &mut self,
        page: &Connection,
        building: &mut Building,
        record: &Linked,
        version: i64,
    ) -> Result<(), ReadError> {
        let texts = self.digests.of(page, record, version)?;
        let missing = || ReadError::Missing(u64::try_from(record.seq).unwrap_or(0));
        let texts = texts.ok_or_else(missing)?;
        let range = &mut building.range;
        range.link_after = record.link(&range.link_after, &texts, version);
        let series = match building.series.get(&record.series) {
            Some(place) => *place,
            None => {
                let series = series_of(page, &mut self.series, record.series)?;
                building.bytes += series.bytes();
                let place = u32::try_from(range.series.len()).unwrap_or(u32::MAX);
                range.series.push(series.clone());
                building.series.insert(record.series, place);
                place
            }
        };
        let run = match building.runs.get(&record.run) {
            Some(place) => *place,
            None => {
                let run = run_of(page, &mut self.runs, record.run)?;
                building.bytes += run.replica.len();
                let place = u32::try_from(range.runs.len()).unwrap_or(u32::MAX);
                range.runs.push(run.clone());
                building.runs.insert(record.run, place);
                place
            }
        };
        building.bytes += ROW_BYTES;
        let status = record.status.map(u16::try_from).transpose();
        range.rows.push(RangeRow {
            id: record.id,
            series,
            run,
            admitted_at: record.admitted_at,
            start_ns: record.start_ns,
            status: status
                .map_err(|_| ReadError::Unknown(format!("status {:?}", record.status)))?,
            duration_us: record.duration_us,
            store_epoch: record.store.0,
            store_start_us: record.store.1,
        });
        Ok(())
    }

    /// How the record `seq` is linked, and up to where others are so at least. What is not linked
    /// yet will be linked as it is today.
    fn version(&mut self, page: &Connection, seq: i64) -> Result<(i64, i64), ReadError> {
        if self.linked_today_from.is_some_and(|from| from <= seq) {
            return Ok((LINK_VERSION, i64::MAX));
        }
        let step = page
            .prepare_cached(
                "SELECT version, last_seq FROM links WHERE last_seq >= ?1 ORDER BY last_seq LIMIT 1",
            )?
            .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match step {
            Some((version, last_seq)) if version != LINK_VERSION => Ok((version, last_seq)),
            _ => {
                self.linked_today_from = Some(seq);
                Ok((LINK_VERSION, i64::MAX))
            }
        }
    }

    /// The link after the record `seq`: that of its step of the roll-up, and on from there.
    fn link_after(&mut self, page: &Connection, seq: i64) -> Result<Link, ReadError> {
        let (from, mut link): (i64, Link) = page
            .prepare_cached(
                "SELECT last_seq, link FROM links WHERE last_seq <= ?1 ORDER BY last_seq DESC LIMIT 1",
            )?
            .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?
            .unwrap_or((0, chain::ORIGIN));
        if from == seq {
            return Ok(link);
        }
        let (version, _) = self.version(page, from + 1)?;
        let mut expected = from + 1;
        let mut select = page.prepare_cached(chain::LINKED)?;
        let mut rows = select.query([from, seq])?;
        while let Some(row) = rows.next()? {
            let record = Linked::read(row)?;
            let missing = ReadError::Missing(u64::try_from(expected).unwrap_or(0));
            let texts = self.digests.of(page, &record, version)?;
            let Some(texts) = texts.filter(|_| record.seq == expected) else {
                return Err(missing);
            };
            link = record.link(&link, &texts, version);
            expected += 1;
        }
        match expected == seq + 1 {
            true => Ok(link),
            false => Err(ReadError::Missing(u64::try_from(expected).unwrap_or(0))),
        }
    }
}

/// A range that records are added to, with the places of their series and runs in it.
struct Building {
    range: Range,
    series: FastMap<i64, u32>,
    runs: FastMap<i64, u32>,
    /// About how many bytes it has.
    bytes: usize,
}

fn series_of<'c>(
    page: &Connection,
    cache: &'c mut FastMap<i64, RangeSeries>,
    id: i64,
) -> Result<&'c RangeSeries, ReadError> {
    if !cache.contains_key(&id) {
        let series = page
            .prepare_cached(
                r#"SELECT account, "group", action, mode, outcome, reason, key, billable FROM series WHERE id = ?1"#,
            )?
            .query_row([id], |row| {
                Ok(RangeSeries {
                    account: row.get(0)?,
                    group: row.get(1)?,
                    action: row.get(2)?,
                    mode: row.get(3)?,
                    outcome: row.get(4)?,
                    reason: row.get(5)?,
                    key: row.get(6)?,
                    billable: row.get(7)?,
                })
            })?;
        if cache.len() >= TEXTS_CACHED {
            cache.clear();
        }
        cache.insert(id, series);
    }
    cache
        .get(&id)
        .ok_or_else(|| ReadError::Unknown(format!("series {id}")))
}

fn run_of<'c>(
    page: &Connection,
    cache: &'c mut FastMap<i64, RangeRun>,
    run: i64,
) -> Result<&'c RangeRun, ReadError> {
    if !cache.contains_key(&run) {
        let found = page
            .prepare_cached("SELECT run, replica, opened_at FROM runs WHERE run = ?1")?
            .query_row([run], |row| {
                Ok(RangeRun {
                    run: row.get(0)?,
                    replica: row.get(1)?,
                    opened_at: row.get(2)?,
                })
            })?;
        if cache.len() >= TEXTS_CACHED {
            cache.clear();
        }
        cache.insert(run, found);
    }
    cache
        .get(&run)
        .ok_or_else(|| ReadError::Unknown(format!("run {run}")))
}

#[cfg(test)]
mod tests;
