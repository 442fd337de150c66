//! The SQL that takes other ledgers' records into this one.
//!
//! Owns the one transaction in which records and the cursors of their sources are written. Must
//! never write one without the other.

use crate::ledger::chain::Link;
use crate::ledger::part::has_own_calls;
use crate::ledger::range::{Range, RangeRow, RangeSeries};
use crate::ledger::rows::signed;
use crate::ledger::source_chain::SourceLinks;
use crate::ledger::store::fit::{Fit, fit};
use crate::ledger::store::series::{SeriesCache, SeriesKey};
use crate::ledger::store::sources::{SourceCache, SourceState, Watermarks, first_seen};
use crate::ledger::store::{INSERT_RAW, Store};
use crate::ledger::{Collected, StoreError};
use crate::model::{AccountId, Action, GroupId, KeyId, Mode, Outcome, Reason, RequestId, Utc};
use rusqlite::{Connection, TransactionBehavior, params};

/// The result of [`Store::collect`].
#[derive(Debug)]
pub(in crate::ledger) struct CollectedNow {
    pub(in crate::ledger) ranges: Vec<Collected>,
    /// The records that were taken, by outcome.
    pub(in crate::ledger) records: [u64; Outcome::ALL.len()],
    /// The newest record that was taken.
    pub(in crate::ledger) last: Option<(i64, RequestId)>,
}

impl Store {
    /// Takes what is new of `ranges`, in one transaction with the cursors of their ledgers. An error
    /// when it went into a file that is not at its path any more; then the caches are of no use.
    pub(in crate::ledger) fn collect(
        &mut self,
        ranges: &[Range],
        now: Utc,
    ) -> Result<CollectedNow, StoreError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        if has_own_calls(&transaction)? {
            return Err(StoreError::OwnCalls);
        }
        let mut taking = Taking {
            connection: &transaction,
            series: &mut self.series,
            sources: &mut self.sources,
            links: &mut self.source_links,
            now,
            next_seq: self.next_seq,
            records: Default::default(),
            last: None,
            touched: Vec::new(),
        };
        let mut collected = Vec::with_capacity(ranges.len());
        for range in ranges {
            collected.push(taking.range(range)?);
        }
        taking.write_cursors()?;
        let (next_seq, records, last) = (taking.next_seq, taking.records, taking.last);
        transaction.commit()?;
        self.files.still_there()?;
        self.next_seq = next_seq;
        Ok(CollectedNow {
            ranges: collected,
            records,
            last,
        })
    }
}

/// A transaction that takes ranges.
struct Taking<'t> {
    connection: &'t Connection,
    series: &'t mut SeriesCache,
    sources: &'t mut SourceCache,
    links: &'t mut SourceLinks,
    now: Utc,
    next_seq: i64,
    records: [u64; Outcome::ALL.len()],
    last: Option<(i64, RequestId)>,
    /// The sources of which records were taken, and the replica that sent the newest.
    touched: Vec<(String, String)>,
}

impl Taking<'_> {
    fn range(&mut self, range: &Range) -> Result<Collected, rusqlite::Error> {
        let ledger_id = range.ledger_id.clone();
        let state = self.sources.get(self.connection, &ledger_id)?;
        let have = state.as_ref().map_or(0, |state| state.seq);
        let fit = fit(self.connection, self.links, state.as_deref(), range)?;
        let broken = |why| Collected::Broken {
            ledger_id: ledger_id.clone(),
            have: u64::try_from(have).unwrap_or(0),
            why,
        };
        let taken = |seq, records| Collected::Taken {
            ledger_id: ledger_id.clone(),
            seq,
            records,
        };
        Ok(match fit {
            Fit::Repeat => taken(u64::try_from(have).unwrap_or(0), 0),
            Fit::Gap(have) => Collected::Gap { ledger_id, have },
            Fit::Broken(why) => broken(why),
            Fit::Take {
                skipped,
                link_before,
                left_after,
            } => match range.series.iter().map(Words::of).collect() {
                Err(why) => broken(why),
                Ok(words) => {
                    let words: Vec<Words> = words;
                    self.take(range, &words, skipped, (link_before, left_after))?;
                    taken(range.last_seq, (range.rows.len() - skipped) as u64)
                }
            },
        })
    }

    /// Writes the records of `range` after the first `skipped`, and how far its ledger has come.
    fn take(
        &mut self,
        range: &Range,
        words: &[Words],
        skipped: usize,
        (link_before, left_after): (Link, Option<i64>),
    ) -> Result<(), rusqlite::Error> {
        let ledger_id = &range.ledger_id;
        if self.sources.get(self.connection, ledger_id)?.is_none() {
            first_seen(self.connection, ledger_id, &range.replica, self.now.0)?;
        }
        let state = self.sources.get(self.connection, ledger_id)?;
        let state = state.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let rows = range.rows.get(skipped..).unwrap_or_default();
        let mut places = Places::new(self.connection, self.series, state, range, words);
        let mut insert = self.connection.prepare_cached(INSERT_RAW)?;
        let first_seq = self.next_seq;
        for row in rows {
            let (series, outcome, run) = places.of(row)?;
            insert.execute(params![
                self.next_seq,
                row.id,
                series,
                row.admitted_at,
                row.start_ns,
                run,
                row.status,
                row.duration_us,
                row.store_epoch,
                row.store_start_us
            ])?;
            self.records[outcome as usize] += 1;
            self.next_seq += 1;
        }
        let id = rows.last().map(|row| uuid::Uuid::from_bytes(row.id));
        self.last = id
            .map(|id| (self.next_seq - 1, RequestId(id)))
            .or(self.last);
        let source_first = signed(range.first_seq).saturating_add(signed(skipped as u64));
        self.connection
            .prepare_cached(
                "INSERT INTO collected (first_seq, last_seq, source, source_first, source_last, restore_count, left_after,
                                        link_before, link, version)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                first_seq,
                self.next_seq - 1,
                state.source,
                source_first,
                signed(range.last_seq),
                signed(range.restore_count),
                left_after,
                link_before,
                range.link_after,
                range.link_version
            ])?;
        state.restore_count = signed(range.restore_count);
        state.first_seq.get_or_insert(source_first);
        (state.seq, state.link) = (signed(range.last_seq), range.link_after);
        self.touch(range);
        Ok(())
    }

    fn touch(&mut self, range: &Range) {
        let ledger_id = &range.ledger_id;
        match self.touched.iter_mut().find(|(id, _)| id == ledger_id) {
            Some((_, replica)) => replica.clone_from(&range.replica),
            None => {
                let touched = (ledger_id.clone(), range.replica.clone());
                self.touched.push(touched);
            }
        }
    }

    /// Notes how far the sources have come of which records were taken.
    fn write_cursors(&mut self) -> Result<(), rusqlite::Error> {
        for (ledger_id, replica) in &self.touched {
            let Some(state) = self.sources.get(self.connection, ledger_id)? else {
                continue;
            };
            self.connection
                .prepare_cached(
                    "UPDATE sources SET restore_count = ?2, first_seq = ?3, seq = ?4, link = ?5, replica = ?6
                     WHERE source = ?1",
                )?
                .execute(params![
                    state.source,
                    state.restore_count,
                    state.first_seq,
                    state.seq,
                    state.link,
                    replica
                ])?;
            let mut marks = Watermarks::read(self.connection, state.source)?;
            marks.come_to(state.seq);
            marks.write(self.connection, state.source)?;
        }
        Ok(())
    }
}

/// The words of a series, each known to this program: what is unknown could not be read again.
struct Words {
    account: AccountId,
    group: GroupId,
    action: Action,
    mode: Mode,
    outcome: Outcome,
    reason: Reason,
    key: KeyId,
}

impl Words {
    fn of(series: &RangeSeries) -> Result<Self, String> {
        fn word<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, String> {
            parse(text).ok_or_else(|| {
                format!(
                    "it says {text:?}, which this tollgate does not understand: bring the collector to the version of the gates"
                )
            })
        }
        let words = Self {
            account: word(&series.account, AccountId::new)?,
            group: word(&series.group, GroupId::new)?,
            action: word(&series.action, Action::new)?,
            mode: word(&series.mode, Mode::parse)?,
            outcome: word(&series.outcome, Outcome::parse)?,
            reason: word(&series.reason, Reason::parse)?,
            key: word(&series.key, KeyId::new)?,
        };
        match series.billable == (words.reason == Reason::Billable) {
            true => Ok(words),
            false => Err(format!(
                "it says billable = {} and the reason {:?}, which cannot both be",
                series.billable, series.reason
            )),
        }
    }

    fn key(&self) -> SeriesKey<'_> {
        SeriesKey {
            account: &self.account,
            group: &self.group,
            action: &self.action,
            mode: self.mode,
            outcome: self.outcome,
            reason: self.reason,
            key: &self.key,
        }
    }
}

/// The series and runs here of those of a range. Each is looked up when a record needs it.
struct Places<'p> {
    connection: &'p Connection,
    cache: &'p mut SeriesCache,
    state: &'p mut SourceState,
    range: &'p Range,
    words: &'p [Words],
    series: Vec<Option<i64>>,
    runs: Vec<Option<i64>>,
}

impl<'p> Places<'p> {
    fn new(
        connection: &'p Connection,
        cache: &'p mut SeriesCache,
        state: &'p mut SourceState,
        range: &'p Range,
        words: &'p [Words],
    ) -> Self {
        Self {
            connection,
            cache,
            state,
            range,
            words,
            series: vec![None; words.len()],
            runs: vec![None; range.runs.len()],
        }
    }

    /// The series here, the outcome, and the run here.
    fn of(&mut self, row: &RangeRow) -> Result<(i64, Outcome, i64), rusqlite::Error> {
        // A range that was read has only rows that name a series and a run of it.
        let missing = || rusqlite::Error::QueryReturnedNoRows;
        let (series, run) = (row.series as usize, row.run as usize);
        let words = self.words.get(series).ok_or_else(missing)?;
        let known = self.series.get_mut(series).ok_or_else(missing)?;
        let series = match known {
            Some(here) => *here,
            None => *known.insert(self.cache.id(self.connection, &words.key())?),
        };
        let known = self.runs.get_mut(run).ok_or_else(missing)?;
        let run = match (&known, self.range.runs.get(run)) {
            (Some(here), _) => *here,
            (None, Some(run)) => *known.insert(self.state.run(self.connection, run)?),
            (None, None) => return Err(missing()),
        };
        Ok((series, words.outcome, run))
    }
}
