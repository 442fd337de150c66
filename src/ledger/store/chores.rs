//! The SQL of what is done between two commits: the roll-up, the seals, the biller's entries,
//! pruning.
//!
//! Owns the order of what is written in each. Must never delete a record that is on no settled
//! statement and in no collected ledger.

use crate::ledger::bills::{self, Entry, Seal, StoreError};
use crate::ledger::chain::{self, Link};
use crate::ledger::job::Frozen;
use crate::ledger::rows::FastMap;
use crate::ledger::store::{PRUNE_STEP, Store};
use crate::ledger::{TrialPlace, licences};
use crate::model::{AccountId, Package, Utc};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use std::collections::BTreeMap;

impl Store {
    /// Rolls up the oldest records that are not rolled up yet, at most `step`. One transaction adds
    /// them to `hours`, links them to the chain, and notes how far it came. So `hours` and the tail
    /// together always give the recount of all records, and every record in `hours` is linked.
    pub(in crate::ledger) fn roll_up(&mut self, step: i64) -> Result<(), rusqlite::Error> {
        let until = (self.next_seq - 1).min(self.rolled_up + step);
        let known = match self.knows_tail() {
            true => usize::try_from(until - self.rolled_up).unwrap_or(0),
            false => 0,
        };
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut hours: FastMap<(i64, i64), (i64, i64, i64)> = FastMap::default();
        let tail = (self.rolled_up, self.link);
        let link = chain::extend(
            &transaction,
            &mut self.digests,
            tail,
            until,
            &self.unlinked[..known],
            |record| {
                hours
                    .entry((Utc(record.admitted_at).hour(), record.series))
                    .and_modify(|(calls, _, last)| (*calls, *last) = (*calls + 1, record.seq))
                    .or_insert((1, record.seq, record.seq));
            },
        )?;
        let mut ends: BTreeMap<i64, i64> = BTreeMap::new();
        for ((hour, _), (_, _, last)) in &hours {
            let end = ends.entry(*hour).or_insert(*last);
            *end = (*end).max(*last);
        }
        let mut hours: Vec<_> = hours.into_iter().collect();
        hours.sort_unstable_by_key(|(key, _)| *key);
        for ((hour, series), (calls, first, last)) in hours {
            // A row whose records are sealed stays as it is, and the next begins beside it.
            let grown = transaction
                .prepare_cached(
                    "UPDATE hours SET calls = calls + ?3, last_seq = ?4 WHERE hour = ?1 AND series = ?2
                     AND first_seq > ?5",
                )?
                .execute([hour, series, calls, last, self.frozen])?;
            if grown == 0 {
                transaction
                    .prepare_cached(
                        "INSERT INTO hours (hour, series, calls, first_seq, last_seq) VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute([hour, series, calls, first, last])?;
            }
        }
        for (hour, last) in ends {
            transaction
                .prepare_cached(
                    "INSERT INTO hour_ends VALUES (?1, ?2) ON CONFLICT (hour) DO UPDATE SET last_seq = excluded.last_seq",
                )?
                .execute([hour, last])?;
        }
        transaction
            .prepare_cached("UPDATE bounds SET rolled_up = ?1")?
            .execute([until])?;
        transaction.commit()?;
        debug_assert!(until < self.next_seq, "no more is rolled up than there is");
        (self.rolled_up, self.link) = (until, link);
        let linked = self.unlinked.partition_point(|record| record.seq <= until);
        self.unlinked.drain(..linked);
        Ok(())
    }

    /// Rolls up all that is committed for the seal of `day`, and freezes it: these rows of `hours`
    /// do not grow any more. Gives the seal when the day is sealed already.
    pub(in crate::ledger) fn freeze(&mut self, day: &str, step: i64) -> Result<Frozen, StoreError> {
        if let Some(seal) = bills::sealed(&self.connection, day)? {
            return Ok(Frozen::Sealed(seal));
        }
        if let Some(sealed) = bills::last_seal(&self.connection)?.map(|seal| seal.day)
            && *day < *sealed
        {
            let day = day.to_owned();
            return Err(StoreError::OutOfOrder { day, sealed });
        }
        while self.tail() > 0 {
            self.roll_up(step)?;
        }
        let last_seq = self.rolled_up;
        self.chore(|transaction| {
            transaction
                .execute("UPDATE bounds SET frozen = ?1", [last_seq])
                .map(drop)
        })?;
        self.frozen = last_seq;
        let after = self.connection.query_row(
            "SELECT coalesce(max(last_seq), 0) FROM days WHERE hours IS NOT NULL",
            [],
            |row| row.get(0),
        )?;
        Ok(Frozen::Rows { after, last_seq })
    }

    /// Seals `day` with the newest record that was frozen, `last_seq`, and the digest of the rows
    /// of `hours` that were.
    pub(in crate::ledger) fn seal(
        &mut self,
        day: &str,
        last_seq: i64,
        hours: Link,
    ) -> Result<Seal, StoreError> {
        if let Some(seal) = bills::sealed(&self.connection, day)? {
            return Ok(seal);
        }
        self.chore(|transaction| bills::insert_seal(transaction, day, last_seq, hours))?;
        let seal = bills::sealed(&self.connection, day)?;
        seal.ok_or_else(|| rusqlite::Error::QueryReturnedNoRows.into())
    }

    /// Writes `entries` in one transaction, those that do not stand there yet.
    pub(in crate::ledger) fn keep(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        self.chore(|transaction| {
            entries
                .iter()
                .try_for_each(|entry| bills::insert(transaction, entry))
        })
    }

    /// Gives an app its place among the trials of its account, or takes the next one.
    pub(in crate::ledger) fn apply(
        &mut self,
        account: &AccountId,
        package: &Package,
        apps: u32,
        now: Utc,
    ) -> Result<TrialPlace, StoreError> {
        self.chore(|transaction| licences::apply(transaction, (account, package), apps, now))
    }

    fn chore<T>(
        &mut self,
        write: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let written = write(&transaction)?;
        transaction.commit()?;
        self.files.still_there()?;
        Ok(written)
    }

    /// Deletes the oldest records in one small step, up to the first that was admitted at
    /// `keep_from` or later, and none that is neither on a settled month's statements nor collected
    /// elsewhere. `true` when there may be more to delete.
    ///
    /// A link is kept for each step of the roll-up, so whole steps go at a time. `first_kept`
    /// passes over all records of a step at once; the records before it are deleted bit by bit.
    pub(in crate::ledger) fn prune(&mut self, keep_from: Utc) -> Result<bool, rusqlite::Error> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut first_kept: i64 = transaction
            .prepare_cached("SELECT first_kept FROM bounds")?
            .query_row([], |row| row.get(0))?;
        let oldest: Option<i64> = transaction
            .prepare_cached("SELECT min(seq) FROM raw")?
            .query_row([], |row| row.get(0))?;
        let Some(oldest) = oldest else {
            return Ok(false);
        };
        let mut all_spent = true;
        while first_kept - oldest < PRUNE_STEP && all_spent {
            let step: Option<(i64, bool)> = transaction
                .prepare_cached(
                    "SELECT last_seq,
                            last_seq <= max((SELECT coalesce(max(through_seq), 0) FROM settlements WHERE settled_at IS NOT NULL),
                                            coalesce((SELECT collected_seq FROM outbox), 0))
                            AND NOT EXISTS (SELECT 1 FROM raw WHERE seq >= ?1 AND seq <= last_seq AND admitted_at >= ?2)
                     FROM links WHERE last_seq >= ?1 ORDER BY last_seq LIMIT 1",
                )?
                .query_row([first_kept, keep_from.0], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            match step {
                Some((last, true)) => first_kept = last + 1,
                Some((_, false)) => all_spent = false,
                // Nothing left of what is rolled up, and perhaps something of what is not yet.
                None => break,
            }
        }
        let until = first_kept.min(oldest + PRUNE_STEP);
        let more = until < first_kept || all_spent && until < self.next_seq;
        if until > oldest {
            transaction
                .prepare_cached("DELETE FROM raw WHERE seq < ?1")?
                .execute([until])?;
            transaction
                .prepare_cached("UPDATE bounds SET first_kept = ?1")?
                .execute([first_kept])?;
            transaction
                .prepare_cached("DELETE FROM links WHERE last_seq < ?1 - 1")?
                .execute([first_kept])?;
            transaction
                .prepare_cached("DELETE FROM collected WHERE first_seq < ?1 AND last_seq < ?1")?
                .execute([first_kept])?;
            transaction.commit()?;
        }
        Ok(more)
    }
}
