//! The ids of series: a record names what it has in common with others by one number.
//!
//! Owns the cache of these ids. Must never give an id that the file does not have: after an error it
//! is dropped with its store.

use crate::ledger::Record;
use crate::model::{AccountId, Action, GroupId, KeyId, Mode, Outcome, Reason};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use rusqlite::{Connection, params};
use std::hash::BuildHasher;

/// The most ids that are kept. All accounts in all groups fit; it is a bound, not a size.
const CACHED: usize = 1 << 17;

/// What the records of a series have in common.
#[derive(Debug)]
struct Series {
    account: AccountId,
    group: GroupId,
    action: Action,
    mode: Mode,
    outcome: Outcome,
    reason: Reason,
    key: KeyId,
    id: i64,
}

/// The series of a record that somebody else owns.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeriesKey<'r> {
    pub(super) account: &'r AccountId,
    pub(super) group: &'r GroupId,
    pub(super) action: &'r Action,
    pub(super) mode: Mode,
    pub(super) outcome: Outcome,
    pub(super) reason: Reason,
    pub(super) key: &'r KeyId,
}

impl<'r> SeriesKey<'r> {
    pub(super) fn of(record: &'r Record) -> Self {
        Self {
            account: &record.account,
            group: &record.group,
            action: &record.action,
            mode: record.mode,
            outcome: record.outcome,
            reason: record.reason,
            key: &record.key,
        }
    }
}

impl Series {
    fn of(record: &SeriesKey<'_>, id: i64) -> Self {
        Self {
            account: record.account.clone(),
            group: record.group.clone(),
            action: record.action.clone(),
            mode: record.mode,
            outcome: record.outcome,
            reason: record.reason,
            key: record.key.clone(),
            id,
        }
    }

    fn has(&self, record: &SeriesKey<'_>) -> bool {
        self.account == *record.account
            && self.action == *record.action
            && self.group == *record.group
            && self.key == *record.key
            && (self.mode, self.outcome, self.reason)
                == (record.mode, record.outcome, record.reason)
    }

    fn hash(&self, hasher: &RandomState) -> u64 {
        hash(hasher, &self.account, &self.action, self.outcome)
    }
}

/// Of enough to tell most series apart.
fn hash(hasher: &RandomState, account: &AccountId, action: &Action, outcome: Outcome) -> u64 {
    hasher.hash_one((account, action, outcome))
}

/// The ids of the series that records lately had. A look-up copies nothing: each record needs one.
#[derive(Debug, Default)]
pub(super) struct SeriesCache {
    table: HashTable<Series>,
    hasher: RandomState,
}

impl SeriesCache {
    /// The id of the record's series, from the cache or the table, new when it never occurred.
    pub(super) fn id(
        &mut self,
        connection: &Connection,
        record: &SeriesKey<'_>,
    ) -> Result<i64, rusqlite::Error> {
        let hash = hash(&self.hasher, record.account, record.action, record.outcome);
        if let Some(series) = self.table.find(hash, |series| series.has(record)) {
            return Ok(series.id);
        }
        let id = read_or_insert(connection, record)?;
        if self.table.len() >= CACHED {
            self.table.clear();
        }
        let hasher = &self.hasher;
        self.table
            .insert_unique(hash, Series::of(record, id), |series| series.hash(hasher));
        Ok(id)
    }
}

fn read_or_insert(connection: &Connection, record: &SeriesKey<'_>) -> Result<i64, rusqlite::Error> {
    let texts = params![
        record.account.as_str(),
        record.group.as_str(),
        record.action.as_str(),
        record.mode.as_str(),
        record.outcome.as_str(),
        record.reason.as_str(),
        record.key.as_str(),
        record.reason == Reason::Billable,
    ];
    connection
        .prepare_cached(
            r#"INSERT INTO series (account, "group", action, mode, outcome, reason, key, billable)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING"#,
        )?
        .execute(texts)?;
    connection
        .prepare_cached(
            r#"SELECT id FROM series WHERE account = ?1 AND "group" = ?2 AND action = ?3 AND mode = ?4
               AND outcome = ?5 AND reason = ?6 AND key = ?7"#,
        )?
        .query_row(&texts[..7], |row| row.get(0))
}
