//! Reading a ledger, also while another process writes it, and copying it.
//!
//! Owns the SQL that reads. Must never write to a ledger, nor hold a transaction open for longer than one
//! page: a reader that stays keeps the WAL from being copied back.

use super::schema::{self, Kind};
use super::verify::Misfit;
use super::{LedgerError, io_error, suffixed};
use crate::words::{AccountId, Action, GroupId, Mode, Mono, Outcome, Reason, RequestId, Utc};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, Row, params};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// The longest span of hours, some more than a year, in which one account is looked up hour by hour.
const LOOKED_UP_HOURS: i64 = 24 * 400;

/// How long a read waits while the file is being created or recovered by another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// One record as the ledger has it. Its JSON has the names and the order of DESIGN §6; times are
/// numbers: `admitted_at` in microseconds since the Unix epoch, `start_ns`, `duration_us`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StoredRecord {
    /// Its place in the ledger: 1, 2, 3 .., never reused.
    pub seq: u64,
    /// The `X-Request-Id` of the call.
    #[serde(serialize_with = "text")]
    pub id: RequestId,
    /// Who called.
    #[serde(serialize_with = "text")]
    pub account: AccountId,
    /// What was called: the group.
    #[serde(serialize_with = "text")]
    pub group: GroupId,
    /// What was called: the operation.
    #[serde(serialize_with = "text")]
    pub action: Action,
    /// The mode in force at the admission (R3).
    #[serde(serialize_with = "text")]
    pub mode: Mode,
    /// The wall clock at the start.
    #[serde(serialize_with = "micros")]
    pub admitted_at: Utc,
    /// The start on the monotonic clock of the machine (P1).
    #[serde(rename = "start_ns", serialize_with = "nanos")]
    pub start: Mono,
    /// Which start of the process it belongs to.
    pub run: u64,
    /// How the call ended.
    #[serde(serialize_with = "text")]
    pub outcome: Outcome,
    /// The upstream's status.
    pub status: Option<u16>,
    /// Whether the biller may count it.
    pub billable: bool,
    /// Why not; empty when billable.
    #[serde(serialize_with = "text")]
    pub reason: Reason,
    /// From the start to the settlement, in whole microseconds.
    pub duration_us: u64,
    /// Which replica wrote it.
    pub replica: String,
}

/// Calls that are alike in all that a bill asks, in the hours asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct UsageLine {
    /// Who called.
    #[serde(serialize_with = "text")]
    pub account: AccountId,
    /// What was called: the group.
    #[serde(serialize_with = "text")]
    pub group: GroupId,
    /// What was called: the operation.
    #[serde(serialize_with = "text")]
    pub action: Action,
    /// The mode in force at the admission (R3).
    #[serde(serialize_with = "text")]
    pub mode: Mode,
    /// How the calls ended.
    #[serde(serialize_with = "text")]
    pub outcome: Outcome,
    /// Whether the biller may count them.
    pub billable: bool,
    /// Why not; empty when billable.
    #[serde(serialize_with = "text")]
    pub reason: Reason,
    /// How many.
    pub calls: u64,
    /// The seq of the first of them.
    pub first_seq: u64,
    /// The seq of the last of them.
    pub last_seq: u64,
}

fn text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn micros<S: Serializer>(at: &Utc, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(at.0)
}

fn nanos<S: Serializer>(at: &Mono, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.0)
}

/// Why a page cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Records after the cursor have been deleted: going on from here would skip them silently.
    #[error(
        "records from {} on were asked for, but those before {first_kept} have been deleted: go on after {} if that gap is known",
        after + 1,
        first_kept - 1
    )]
    CursorTooOld {
        /// The cursor.
        after: u64,
        /// The oldest seq that has not been deleted.
        first_kept: u64,
    },
    /// The cursor is past the newest record: it comes from another ledger, or this one was put back to an
    /// older state, and its new records would be taken for known ones.
    #[error("the cursor {after} is past the newest record {last}: it belongs to another ledger")]
    CursorAhead {
        /// The cursor.
        after: u64,
        /// The newest seq; 0 when there is none.
        last: u64,
    },
    /// Parts of an hour, or of what was recorded in one, are counted from its records, and they have been deleted.
    #[error("records from {first} on are needed, but those before {first_kept} have been deleted")]
    Pruned {
        /// The first that is needed.
        first: u64,
        /// The oldest seq that has not been deleted.
        first_kept: u64,
    },
    /// A row is not what the rows before it, or the records, make it.
    #[error("{0}")]
    Misfit(Misfit),
    /// The ledger holds a word that this program does not know.
    #[error("the ledger holds something that this tollgate does not understand: {0}")]
    Unknown(String),
    /// SQLite refused.
    #[error("the ledger cannot be read: {0}")]
    Sql(#[from] rusqlite::Error),
}

/// A read-only connection.
#[derive(Debug)]
pub struct Reader(pub(super) Connection);

impl Reader {
    /// Opens an existing ledger. Creates nothing.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(LedgerError::NotALedger),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LedgerError::Missing(path.to_owned()));
            }
            Err(error) => return Err(io_error(path)(error)),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        match schema::identify(&connection)? {
            Kind::Ledger => Ok(Self(connection)),
            Kind::Older => Err(LedgerError::NotMigrated {
                found: schema::BEFORE,
            }),
            Kind::Empty => Err(LedgerError::NotALedger),
        }
    }

    /// At most `limit` records with a seq above `after`, in order. Fewer: there are no more as yet.
    pub fn records(&self, after: u64, limit: usize) -> Result<Vec<StoredRecord>, ReadError> {
        let page = self.0.unchecked_transaction()?;
        let first_kept = first_kept(&page)?;
        if after.saturating_add(1) < first_kept {
            return Err(ReadError::CursorTooOld { after, first_kept });
        }
        let last = last_seq(&page)?;
        if after > last {
            return Err(ReadError::CursorAhead { after, last });
        }
        let mut select =
            page.prepare_cached(&format!("{RECORDS} WHERE seq > ?1 ORDER BY seq LIMIT ?2"))?;
        let mut rows = select.query(params![signed(after), signed(limit as u64)])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            records.push(stored_record(row)?);
        }
        Ok(records)
    }

    /// At most `limit` records of one account that were admitted in `[from, until)`, both on the hour, and have a seq
    /// above `after`, in order. Fewer: there are no more.
    pub fn records_of(
        &self,
        account: &AccountId,
        from: Utc,
        until: Utc,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, ReadError> {
        let page = self.0.unchecked_transaction()?;
        let bounds: (Option<i64>, Option<i64>) = page
            .prepare_cached(
                "SELECT min(first_seq), max(last_seq) FROM rollup WHERE account = ?1 AND hour >= ?2 AND hour < ?3",
            )?
            .query_row(
                params![account.as_str(), from.hour(), until.hour()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
        let (Some(first), Some(last)) = bounds else {
            return Ok(Vec::new());
        };
        let (first, first_kept) = (u64::try_from(first).unwrap_or(0), first_kept(&page)?);
        if first < first_kept {
            return Err(ReadError::Pruned { first, first_kept });
        }
        let mut select = page.prepare_cached(&format!(
            "{RECORDS} WHERE seq > ?1 AND seq <= ?2 AND account = ?3 AND admitted_at >= ?4 AND admitted_at < ?5
             ORDER BY seq LIMIT ?6"
        ))?;
        let after = signed(after.max(first.saturating_sub(1)));
        let mut rows = select.query(params![
            after,
            last,
            account.as_str(),
            from.0,
            until.0,
            signed(limit as u64)
        ])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            records.push(stored_record(row)?);
        }
        Ok(records)
    }

    /// The calls admitted in [`from`, `until`) whose seq is in `seqs`, summed up by all that a bill asks, of one account or
    /// all. In order of account, group, action, mode, outcome, reason. Whole hours also of records that were deleted since;
    /// the parts of hours, and of hours that were recorded only in part by then, are counted from the records.
    pub fn usage(
        &self,
        from: Utc,
        until: Utc,
        account: Option<&AccountId>,
        seqs: RangeInclusive<u64>,
    ) -> Result<Vec<UsageLine>, ReadError> {
        let read = self.0.unchecked_transaction()?;
        let asked = Asked {
            from,
            until,
            first: signed(*seqs.start()),
            last: signed(*seqs.end()),
        };
        let on_the_hour = [from, until]
            .iter()
            .all(|at| at.hour().saturating_mul(HOUR_US) == at.0);
        if on_the_hour && *seqs.start() <= 1 && *seqs.end() >= last_seq(&read)? {
            return self.whole_hours(&asked, account);
        }
        let mut sums: BTreeMap<i64, Counted> = BTreeMap::new();
        let mut select = read.prepare_cached(&format!(
            "{} SELECT id, hour, calls, first_seq, last_seq FROM counted",
            asked.counted(account.is_some())
        ))?;
        let mut rows = select.query(asked.params(account))?;
        while let Some(row) = rows.next()? {
            let counted = Counted {
                calls: row.get(2)?,
                first: row.get(3)?,
                last: row.get(4)?,
            };
            let (series, hour): (i64, i64) = (row.get(0)?, row.get(1)?);
            let Some(counted) = asked.part_of(&read, series, hour, counted)? else {
                continue;
            };
            let sum = sums.entry(series).or_insert(Counted {
                calls: 0,
                ..counted
            });
            sum.calls += counted.calls;
            sum.first = sum.first.min(counted.first);
            sum.last = sum.last.max(counted.last);
        }
        let mut words = read.prepare_cached(
            r#"SELECT account, "group", action, mode, outcome, billable, reason, ?2, ?3, ?4 FROM series WHERE id = ?1"#,
        )?;
        let mut lines = Vec::new();
        for (series, sum) in sums {
            let mut rows = words.query([series, sum.calls, sum.first, sum.last])?;
            if let Some(row) = rows.next()? {
                lines.push(usage_line(row)?);
            }
        }
        lines.sort_by(|a, b| {
            let key = |l: &UsageLine| {
                (
                    l.account.clone(),
                    l.group.clone(),
                    l.action.clone(),
                    l.mode.as_str(),
                    l.outcome.as_str(),
                    l.reason.as_str(),
                )
            };
            key(a).cmp(&key(b))
        });
        Ok(lines)
    }

    fn whole_hours(
        &self,
        asked: &Asked,
        account: Option<&AccountId>,
    ) -> Result<Vec<UsageLine>, ReadError> {
        let mut select = self.0.prepare_cached(&format!(
            r#"{} SELECT account, "group", action, mode, outcome, billable, reason, sum(calls), min(first_seq), max(last_seq)
               FROM counted GROUP BY account, "group", action, mode, outcome, billable, reason
               ORDER BY account, "group", action, mode, outcome, reason"#,
            asked.counted(account.is_some())
        ))?;
        let mut rows = select.query(asked.params(account))?;
        let mut lines = Vec::new();
        while let Some(row) = rows.next()? {
            lines.push(usage_line(row)?);
        }
        Ok(lines)
    }

    /// The newest seq that was ever given; 0 before the first.
    pub fn last_seq(&self) -> Result<u64, ReadError> {
        last_seq(&self.0)
    }

    /// The oldest seq that has not been deleted: the first cursor that can be used is one below it. One past
    /// [`Reader::last_seq`] when nothing is kept.
    pub fn first_kept_seq(&self) -> Result<u64, ReadError> {
        first_kept(&self.0)
    }
}

const HOUR_US: i64 = 3_600_000_000;

const RECORDS: &str = r#"SELECT seq, id, account, "group", action, mode, admitted_at, start_ns, run, outcome, status,
                                billable, reason, duration_us, replica FROM records"#;

/// A row of [`RECORDS`].
fn stored_record(row: &Row<'_>) -> Result<StoredRecord, ReadError> {
    Ok(StoredRecord {
        seq: unsigned(row, 0)?,
        id: word(row, 1, |text| {
            uuid::Uuid::try_parse(text).ok().map(RequestId)
        })?,
        account: word(row, 2, AccountId::new)?,
        group: word(row, 3, GroupId::new)?,
        action: word(row, 4, Action::new)?,
        mode: word(row, 5, Mode::parse)?,
        admitted_at: Utc(row.get(6)?),
        start: Mono(unsigned(row, 7)?),
        run: unsigned(row, 8)?,
        outcome: word(row, 9, Outcome::parse)?,
        status: row.get(10)?,
        billable: row.get(11)?,
        reason: word(row, 12, Reason::parse)?,
        duration_us: unsigned(row, 13)?,
        replica: row.get(14)?,
    })
}

fn usage_line(row: &Row<'_>) -> Result<UsageLine, ReadError> {
    Ok(UsageLine {
        account: word(row, 0, AccountId::new)?,
        group: word(row, 1, GroupId::new)?,
        action: word(row, 2, Action::new)?,
        mode: word(row, 3, Mode::parse)?,
        outcome: word(row, 4, Outcome::parse)?,
        billable: row.get(5)?,
        reason: word(row, 6, Reason::parse)?,
        calls: unsigned(row, 7)?,
        first_seq: unsigned(row, 8)?,
        last_seq: unsigned(row, 9)?,
    })
}

/// Which calls are asked for.
struct Asked {
    from: Utc,
    until: Utc,
    first: i64,
    last: i64,
}

/// Some calls of a series.
#[derive(Clone, Copy)]
struct Counted {
    calls: i64,
    first: i64,
    last: i64,
}

impl Asked {
    /// The hours that are asked for, whole or in part.
    fn hours(&self) -> (i64, i64) {
        let until = self.until.0.saturating_add(HOUR_US - 1);
        (self.from.hour(), Utc(until).hour())
    }

    /// `counted`: the rows of `hours` and of the tail in these hours, with their series.
    fn counted(&self, of_one: bool) -> &'static str {
        let (from, until) = self.hours();
        if of_one && until.saturating_sub(from) <= LOOKED_UP_HOURS {
            // The hours are the key's first part: one account's few series are looked up hour by hour,
            // where a scan would read everybody's month.
            "WITH RECURSIVE span(hour) AS
                 (SELECT ?1 WHERE ?1 < ?2 UNION ALL SELECT hour + 1 FROM span WHERE hour + 1 < ?2),
             counted AS
                 (SELECT series.*, hours.hour, calls, first_seq, last_seq FROM series CROSS JOIN span
                  CROSS JOIN hours ON hours.hour = span.hour AND hours.series = series.id
                  WHERE account = ?3
                  UNION ALL
                  SELECT series.*, hour, calls, first_seq, last_seq FROM tail CROSS JOIN series ON series.id = tail.series
                  WHERE account = ?3 AND hour >= ?1 AND hour < ?2)"
        } else {
            "WITH counted AS
                 (SELECT series.*, hour, calls, first_seq, last_seq FROM hours CROSS JOIN series ON series.id = hours.series
                  WHERE hour >= ?1 AND hour < ?2 AND (?3 IS NULL OR account = ?3)
                  UNION ALL
                  SELECT series.*, hour, calls, first_seq, last_seq FROM tail CROSS JOIN series ON series.id = tail.series
                  WHERE hour >= ?1 AND hour < ?2 AND (?3 IS NULL OR account = ?3))"
        }
    }

    fn params<'a>(&self, account: Option<&'a AccountId>) -> (i64, i64, Option<&'a str>) {
        let (from, until) = self.hours();
        (from, until, account.map(AccountId::as_str))
    }

    /// What of a row's calls is asked for: all, nothing, or what its records say.
    fn part_of(
        &self,
        read: &Connection,
        series: i64,
        hour: i64,
        row: Counted,
    ) -> Result<Option<Counted>, ReadError> {
        let (begin, end) = (hour * HOUR_US, (hour + 1) * HOUR_US);
        let (first, last) = (self.first.max(row.first), self.last.min(row.last));
        if first > last {
            return Ok(None);
        }
        let whole_hour = self.from.0 <= begin && end <= self.until.0;
        if whole_hour && (first, last) == (row.first, row.last) {
            return Ok(Some(row));
        }
        let (needed, first_kept) = (unsigned_or_zero(first), first_kept(read)?);
        if needed < first_kept {
            return Err(ReadError::Pruned {
                first: needed,
                first_kept,
            });
        }
        let part = read
            .prepare_cached(
                "SELECT count(*), min(seq), max(seq) FROM raw
                 WHERE seq BETWEEN ?1 AND ?2 AND series = ?3 AND admitted_at >= ?4 AND admitted_at < ?5",
            )?
            .query_row(
                [
                    first,
                    last,
                    series,
                    self.from.0.max(begin),
                    self.until.0.min(end),
                ],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )?;
        Ok(match part {
            (calls, Some(first), Some(last)) => Some(Counted { calls, first, last }),
            _ => None,
        })
    }
}

fn unsigned_or_zero(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn last_seq(connection: &Connection) -> Result<u64, ReadError> {
    Ok(u64::try_from(super::store::last_seq(connection)?).unwrap_or(0))
}

pub(super) fn first_kept(connection: &Connection) -> Result<u64, ReadError> {
    Ok(connection.query_row("SELECT first_kept FROM bounds", [], |row| unsigned(row, 0))?)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

pub(super) fn word<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, ReadError> {
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(rusqlite::Error::from)?;
    parse(text).ok_or_else(|| ReadError::Unknown(text.to_owned()))
}

/// Copies the ledger `from` to the new file `to`, also while it is written: one consistent state, checked, in a
/// single file. `to` appears when it is complete or not at all; an existing file is never overwritten.
pub fn backup(from: &Path, to: &Path) -> Result<(), LedgerError> {
    let source = Reader::open(from)?;
    if to.symlink_metadata().is_ok() {
        return Err(LedgerError::Exists(to.to_owned()));
    }
    let partial = suffixed(to, ".partial");
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&partial)
    {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(LedgerError::Exists(partial));
        }
        Err(error) => return Err(io_error(&partial)(error)),
    }
    copy_whole(&source.0, &partial, to)
}

/// The file of `source` as it is, migrated or not.
pub(super) fn copy_to(source: &Connection, to: &Path) -> Result<(), LedgerError> {
    let partial = suffixed(to, ".partial");
    // What an earlier try left is of no use.
    let _ = fs::remove_file(&partial);
    copy_whole(source, &partial, to)
}

fn copy_whole(source: &Connection, partial: &Path, to: &Path) -> Result<(), LedgerError> {
    let copied = copy(source, partial).and_then(|()| {
        match renameat_with(CWD, partial, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => Err(LedgerError::Exists(to.to_owned())),
            Err(error) => Err(io_error(to)(error.into())),
        }
    });
    if copied.is_err() {
        // What is left of a failed copy must not be taken for a backup; the error says more than this one could.
        let _ = fs::remove_file(partial);
    }
    copied
}

fn copy(source: &Connection, partial: &Path) -> Result<(), LedgerError> {
    let mut copy = Connection::open(partial)?;
    {
        // All pages in one step, in one read transaction: with smaller ones, each commit of the writer
        // makes the copy begin anew, and under load it would never end.
        let backup = Backup::new(source, &mut copy)?;
        match backup.step(-1)? {
            StepResult::Done => {}
            _ => {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                    None,
                )
                .into());
            }
        }
    }
    // A ledger is in WAL mode; a copy of its own must be whole in one file, also on a read-only disk.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    let verdict: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(LedgerError::Damaged(verdict));
    }
    copy.close().map_err(|(_, error)| error)?;
    let synced = fs::File::open(partial).and_then(|file| file.sync_all());
    synced.map_err(io_error(partial))
}
