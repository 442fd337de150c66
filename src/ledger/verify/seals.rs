//! The seals, compared with the rows that they stand for.
//!
//! Owns which rows must have a seal. Must never take a seal for proof of itself: only one that was
//! published elsewhere is.

use crate::ledger::bills::sealed_debits;
use crate::ledger::chain::Link;
use crate::ledger::read::Reader;
use crate::ledger::seal::{self, Before};
use crate::ledger::verify::days::{SealedDay, sealed_days};
use crate::ledger::verify::finding::{Mismatch, misfit};
use crate::ledger::verify::walk::ChainWalk;
use rusqlite::{Connection, OptionalExtension};
use std::collections::HashSet;

impl Reader {
    /// Each sealed day has the rows of the roll-up that it had when it was sealed, also those of
    /// deleted records.
    pub(super) fn sealed_rows_are_unchanged(&self) -> Result<(), Mismatch> {
        let mut after = 0;
        for day in sealed_days(&self.connection)? {
            let Some(sealed) = day.hours else { continue };
            if seal::hours(&self.connection, after, day.last_seq)?[..] != sealed {
                let why = format!(
                    "the rows of hours that begin with records {} to {}, or their series, are not those that were sealed",
                    after + 1,
                    day.last_seq
                );
                return misfit("days", day.day, why);
            }
            after = day.last_seq;
        }
        Ok(())
    }
}

impl ChainWalk {
    /// Every seal must follow from the one before, and from what it stands for.
    pub(super) fn seals_follow(&mut self, page: &Connection) -> Result<(), Mismatch> {
        let days = sealed_days(page)?;
        let sealed = self.seal_again(page, &days)?;
        nothing_is_unsealed(page, &sealed)?;
        settlements_have_heads_of_days(page, &days)?;
        debits_are_as_sealed(page)?;
        restores_are_counted(page)
    }

    /// Computes every seal again, in order. Gives the names of what is sealed.
    fn seal_again(
        &mut self,
        page: &Connection,
        days: &[SealedDay],
    ) -> Result<HashSet<String>, Mismatch> {
        let floor: i64 = page.query_row("SELECT floor FROM bounds", [], |row| row.get(0))?;
        let mut before = Before::first(page)?;
        let mut sealed = HashSet::new();
        // The newest record that the seals so far stand for.
        let mut through = 0;
        let mut select = page.prepare("SELECT what, head FROM seals ORDER BY place")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (what, head): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let (kind, key) = what.split_once(' ').unwrap_or((&what, ""));
            let expected = match kind {
                "day" => {
                    let day = days.iter().find(|day| day.day == key);
                    through = day.map_or(through, |day| day.last_seq);
                    // Only the last that schema 3 sealed is of its kind, and it comes first.
                    day.filter(|day| day.link.is_some() || sealed.is_empty())
                        .and_then(|day| day.seal(floor, &before))
                }
                "month" => {
                    readable(seal::SealedMonth::read(page, key))?.map(|month| month.seal(&before))
                }
                _ => sealed_restore(page, key)?.map(|restore| restore.seal(&before)),
            };
            let Some(expected) = expected else {
                let why = "it was sealed, and it is not there as it was";
                return misfit(table(kind), key, why);
            };
            if head != expected {
                let why = "it is not what was sealed, or something sealed before it is not";
                return misfit(table(kind), key, why);
            }
            self.compare_checkpoint(&what, expected, through);
            before = before.then(expected);
            sealed.insert(what);
        }
        Ok(sealed)
    }

    /// Looks whether the checkpoint is the seal of `what`, which stands for the records up to
    /// `through`.
    fn compare_checkpoint(&mut self, what: &str, head: Link, through: i64) {
        if self.checkpoint == Some(head) {
            // A seal of deleted records alone proves nothing of those that are kept.
            match through >= self.first - 1 {
                true => self.checkpoint_seen = true,
                false => self.checkpoint_of_deleted = Some(what.to_owned()),
            }
        }
    }
}

fn sealed_restore(
    page: &Connection,
    count: &str,
) -> Result<Option<seal::Restore>, rusqlite::Error> {
    let sql = format!("{} WHERE restore_count = ?1", seal::RESTORES);
    let mut select = page.prepare_cached(&sql)?;
    readable(select.query_row([count], seal::Restore::read).optional())
}

/// All that was finished must have a seal: nobody may take one away.
fn nothing_is_unsealed(page: &Connection, sealed: &HashSet<String>) -> Result<(), Mismatch> {
    let must_be_sealed: Vec<String> = page
        .prepare(
            "SELECT 'day ' || day FROM days WHERE hours IS NOT NULL
             UNION ALL SELECT 'month ' || month FROM settlements WHERE settled_at IS NOT NULL
             UNION ALL SELECT 'restore ' || restore_count FROM restores",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    match must_be_sealed.iter().find(|what| !sealed.contains(*what)) {
        None => Ok(()),
        Some(what) => {
            let (kind, key) = what.split_once(' ').unwrap_or((what, ""));
            misfit(table(kind), key, "it was never sealed")
        }
    }
}

/// A settlement has the head of a day that ends with its newest record, where such a day is sealed.
fn settlements_have_heads_of_days(page: &Connection, days: &[SealedDay]) -> Result<(), Mismatch> {
    let mut select = page.prepare("SELECT month, through_seq, head FROM settlements")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (month, through_seq): (String, i64) = (row.get(0)?, row.get(1)?);
        let head: Vec<u8> = row.get(2)?;
        // Days without records end with the same one.
        let mut its_days = days
            .iter()
            .filter(|day| day.link.is_some() && day.last_seq == through_seq)
            .peekable();
        let is_its_day = |day: &SealedDay| day.head == head || day.link.as_ref() == Some(&head);
        if its_days.peek().is_some() && !its_days.any(is_its_day) {
            let why =
                format!("its head is not that of the day that ends with record {through_seq}");
            return misfit("settlements", month, why);
        }
    }
    Ok(())
}

/// Each debit that a day was sealed with is the one that its month has.
fn debits_are_as_sealed(page: &Connection) -> Result<(), Mismatch> {
    for (day, debit) in sealed_debits(page)? {
        let found: Option<Option<i64>> = page
            .prepare_cached("SELECT debited_at FROM settlements WHERE month = ?1")?
            .query_row([&debit.month], |row| row.get(0))
            .optional()?;
        let found = match found.flatten() {
            Some(at) if at.to_string() == debit.at => continue,
            Some(at) => at.to_string(),
            None => "never".to_owned(),
        };
        let why = format!(
            "debited_at is {found}, and it was {} when the day {day} was sealed",
            debit.at
        );
        return misfit("settlements", debit.month, why);
    }
    Ok(())
}

fn restores_are_counted(page: &Connection) -> Result<(), Mismatch> {
    let (counted, newest): (i64, i64) = page.query_row(
        "SELECT restore_count, (SELECT coalesce(max(restore_count), 0) FROM restores) FROM identity",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    match counted == newest {
        true => Ok(()),
        false => {
            let why = format!("it counts {counted} restores, and there are {newest}");
            misfit("identity", "restore_count", why)
        }
    }
}

/// The table of what is sealed under such a name.
fn table(kind: &str) -> &'static str {
    match kind {
        "day" => "days",
        "month" => "settlements",
        _ => "restores",
    }
}

/// A row whose values are of other types than were ever written is as good as none.
fn readable<T>(read: Result<Option<T>, rusqlite::Error>) -> Result<Option<T>, rusqlite::Error> {
    match read {
        Err(
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..),
        ) => Ok(None),
        other => other,
    }
}
