//! What the biller keeps in the ledger: sealed days, settlements, statements, notices.
//!
//! Owns their tables, and the SQL that writes and reads them. Must never change what was fixed: each is written once,
//! and writing it again changes nothing. (The watch over the clocks is no bill, and is replaced.)

use crate::ledger::chain::Link;
use crate::ledger::read::{signed, unsigned};
use crate::ledger::seal::{self, Before};
use crate::ledger::watch::{self, ClockWatch};
use crate::ledger::{LedgerError, Trouble};
use crate::model::{AccountId, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A day's place in the chain. Days follow each other without a gap of seqs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seal {
    /// As it was sealed: `2026-11-24`.
    pub day: String,
    /// The first record since the day sealed before; one past `last_seq` when there was none.
    pub first_seq: u64,
    /// The newest record when it was sealed.
    pub last_seq: u64,
    /// Its seal: who has it can tell whether anything up to there was changed. Of a day that schema 3 sealed, the link after
    /// `last_seq`.
    pub head: [u8; 32],
}

/// What the biller writes down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// The month's statements are to be computed from the records up to here.
    Settlement {
        /// `2026-11`.
        month: String,
        /// The newest record that they count.
        through_seq: u64,
        /// The seal of the day that ends with it.
        head: [u8; 32],
        /// When that was decided.
        fixed_at: Utc,
    },
    /// An account's statement of the month, for ever.
    Statement {
        /// `2026-11`.
        month: String,
        /// Whose.
        account: AccountId,
        /// The sum to debit, a decimal number.
        due: String,
        /// What it was computed from, in JSON.
        inputs: String,
        /// The statement, in JSON.
        statement: String,
    },
    /// Every statement of the month is stored.
    Settled {
        /// `2026-11`.
        month: String,
        /// Since when.
        at: Utc,
        /// Over its statements: [`Reader::statements_digest`].
        digest: [u8; 32],
    },
    /// A notice that is due (R14).
    Notice {
        /// The same whenever it is raised again.
        id: String,
        /// Whose pack it is about.
        account: AccountId,
        /// The order of the pack.
        order: String,
        /// When it was found to be due.
        raised_at: Utc,
        /// What is delivered, in JSON.
        body: String,
    },
    /// A notice was delivered.
    NoticeSent {
        /// Which.
        id: String,
        /// When.
        at: Utc,
    },
    /// What was seen of the clocks, instead of what was seen before.
    Clock(ClockWatch),
}

/// Why nothing was written. Whoever asked may ask again: what was written all the same is not written twice.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The ledger is in trouble or closed.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// A later day is sealed already, and the ranges of days would not follow each other any more.
    #[error("{day} cannot be sealed: {sealed}, a later day, is sealed already")]
    OutOfOrder {
        /// The day asked for.
        day: String,
        /// The newest that is sealed.
        sealed: String,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Ledger(error.into())
    }
}

pub(super) const SEALS: &str = "SELECT day, first_seq, last_seq, head FROM days";

pub(super) fn seal_of_row(row: &Row<'_>) -> Result<Seal, rusqlite::Error> {
    Ok(Seal {
        day: row.get(0)?,
        first_seq: unsigned(row, 1)?,
        last_seq: unsigned(row, 2)?,
        head: row.get(3)?,
    })
}

/// The seal of that day.
pub(super) fn sealed(connection: &Connection, day: &str) -> Result<Option<Seal>, rusqlite::Error> {
    connection
        .query_row(&format!("{SEALS} WHERE day = ?1"), [day], seal_of_row)
        .optional()
}

/// The seal of the newest day.
pub(super) fn last_seal(connection: &Connection) -> Result<Option<Seal>, rusqlite::Error> {
    connection
        .query_row(
            &format!("{SEALS} ORDER BY day DESC LIMIT 1"),
            [],
            seal_of_row,
        )
        .optional()
}

/// Seals `day` behind the newest one: `last_seq` is the newest record that was frozen, and `hours` the digest of the rows
/// that were.
pub(super) fn insert_seal(
    connection: &Connection,
    day: &str,
    last_seq: i64,
    hours: Link,
) -> Result<(), rusqlite::Error> {
    let sealed = connection
        .prepare_cached(
            "SELECT (SELECT coalesce(max(last_seq), 0) + 1 FROM days), link, first_kept, floor
             FROM bounds CROSS JOIN links ON links.last_seq = ?1 WHERE frozen = ?1",
        )?
        .query_row([last_seq], |row| {
            Ok(seal::Day {
                day: day.to_owned(),
                first_seq: row.get(0)?,
                last_seq,
                link: row.get(1)?,
                hours,
                first_kept: row.get(2)?,
                floor: row.get(3)?,
            })
        })?;
    let head = sealed.seal(&Before::newest(connection)?);
    connection
        .prepare_cached(
            "INSERT INTO days (day, first_seq, last_seq, head, link, first_kept, hours)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            day,
            sealed.first_seq,
            last_seq,
            head,
            sealed.link,
            sealed.first_kept,
            hours
        ])?;
    seal::add(connection, &seal::of_day(day), &head)
}

/// Writes an entry, unless it stands there already.
pub(super) fn insert(connection: &Connection, entry: &Entry) -> Result<(), rusqlite::Error> {
    let execute = |sql, values: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(sql)?.execute(values).map(drop)
    };
    match entry {
        Entry::Settlement {
            month,
            through_seq,
            head,
            fixed_at,
        } => execute(
            "INSERT INTO settlements (month, through_seq, head, fixed_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
            params![month, signed(*through_seq), head, fixed_at.0],
        ),
        Entry::Statement {
            month,
            account,
            due,
            inputs,
            statement,
        } => execute(
            "INSERT INTO statements (month, account, due, inputs, statement) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
            params![month, account.as_str(), due, inputs, statement],
        ),
        Entry::Settled { month, at, digest } => {
            let settled = connection
                .prepare_cached(
                    "UPDATE settlements SET settled_at = ?2, digest = ?3 WHERE month = ?1 AND settled_at IS NULL",
                )?
                .execute(params![month, at.0, digest])?;
            match settled {
                0 => Ok(()),
                _ => seal_month(connection, month),
            }
        }
        Entry::Notice {
            id,
            account,
            order,
            raised_at,
            body,
        } => execute(
            r#"INSERT INTO notices (id, account, "order", raised_at, body) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT DO NOTHING"#,
            params![id, account.as_str(), order, raised_at.0, body],
        ),
        Entry::NoticeSent { id, at } => execute(
            "UPDATE notices SET sent_at = ?2 WHERE id = ?1 AND sent_at IS NULL",
            params![id, at.0],
        ),
        Entry::Clock(seen) => watch::replace(connection, seen),
    }
}

/// Seals a month that was settled.
pub(super) fn seal_month(connection: &Connection, month: &str) -> Result<(), rusqlite::Error> {
    if let Some(settled) = seal::SealedMonth::read(connection, month)? {
        let head = settled.seal(&Before::newest(connection)?);
        seal::add(connection, &seal::of_month(month), &head)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
