//! The tables of the biller: sealed days, settlements, statements and notices.
//!
//! Owns their tables, and the SQL that writes and reads them. Must never change what was fixed:
//! each is written once, and writing it again changes nothing. (The watch over the clocks is no
//! bill, and is replaced.)
//!
//! # Decided
//! - **Statements have a digest of their own**, logged when a month is settled. The chain proves
//!   the calls. Only this proves what prices and orders the statements were computed with.

use crate::ledger::chain::Link;
use crate::ledger::event::{self, EventEntry};
use crate::ledger::licences::{self, LicenceEntry};
use crate::ledger::rows::{signed, unsigned};
use crate::ledger::seal::{self, Before};
use crate::ledger::watch::{self, ClockWatch};
use crate::ledger::{LedgerError, Trouble};
use crate::model::{AccountId, GroupId, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashSet;

/// A day's place in the chain. Days follow each other without a gap of seqs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seal {
    /// The day, as in `2026-11-24`.
    pub day: String,
    /// The seq of the first record after the day that was sealed before. One past `last_seq` when
    /// there is no such record.
    pub first_seq: u64,
    /// The seq of the newest record when the day was sealed.
    pub last_seq: u64,
    /// The SHA-256 that seals the day. Any change of a record up to `last_seq` gives another one. A
    /// day that schema 3 sealed has the link after `last_seq` instead.
    pub head: [u8; 32],
}

/// An entry that the biller writes. A second entry for the same thing changes nothing, except
/// [`Entry::Clock`] and [`Entry::TurnedAway`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A month is fixed: its statements are computed from the records up to `through_seq`.
    Settlement {
        /// `2026-11`.
        month: String,
        /// The seq of the newest record that the statements count.
        through_seq: u64,
        /// The seal of the day that ends with that record.
        head: [u8; 32],
        /// The instant at which the month was fixed.
        fixed_at: Utc,
    },
    /// The statement of an account for a month. It never changes.
    Statement {
        /// `2026-11`.
        month: String,
        /// The account of the statement.
        account: AccountId,
        /// The sum to debit, a decimal number.
        due: String,
        /// The inputs of the computation, in JSON.
        inputs: String,
        /// The statement, in JSON.
        statement: String,
    },
    /// A month is settled: every statement of it is stored.
    Settled {
        /// `2026-11`.
        month: String,
        /// The instant at which the last statement was stored.
        at: Utc,
        /// The SHA-256 over the statements, as
        /// [`Reader::statements_digest`](crate::ledger::Reader::statements_digest) gives it.
        digest: [u8; 32],
    },
    /// A month was debited (R16). Its day's seal will have it.
    Debited {
        /// `2026-11`.
        month: String,
        /// The instant of the debit.
        at: Utc,
    },
    /// What is told to the provider's systems, and what became of it.
    Event(EventEntry),
    /// Calls that were throttled or refused. They are added to those of the same hour, account,
    /// group and reason; no bill reads them.
    TurnedAway {
        /// The account, which was proven.
        account: AccountId,
        /// The begin of the hour, in hours since the Unix epoch.
        hour: i64,
        /// The group. `None` where none was found yet.
        group: Option<GroupId>,
        /// `throttled`, or the label of the refusal.
        reason: String,
        /// The number of calls.
        calls: u64,
    },
    /// What is kept of licences (R19).
    Licence(LicenceEntry),
    /// The newest state of the clocks. It replaces the one before.
    Clock(ClockWatch),
}

/// Why the ledger cannot say that something was written. To ask again is safe: nothing is written
/// twice.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The ledger is in trouble or closed.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// A later day is sealed already, and the ranges of days would not follow each other any more.
    #[error("{day} cannot be sealed: {sealed}, a later day, is sealed already")]
    OutOfOrder {
        /// The day that was to be sealed.
        day: String,
        /// The newest day that is sealed.
        sealed: String,
    },
    /// Records of other ledgers were to be collected in one that has some of its own.
    #[error(
        "this ledger has recorded calls of its own, and others cannot be collected in it: name a new file in `ledger: {{path: ..}}` \
         of the collector"
    )]
    OwnCalls,
    /// More is said to be collected than there is.
    #[error(
        "records up to {seq} of this ledger are said to be collected, and it ends with {last}: another one has the same id, or an \
         older copy of it was put in its place. Stop the gate and put the newest copy back with `tollgate restore`"
    )]
    Ahead {
        /// The seq that is said.
        seq: u64,
        /// The newest.
        last: u64,
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

/// Seals `day` behind the newest one: `last_seq` is the newest record that was frozen, and `hours`
/// the digest of the rows that were.
pub(super) fn insert_seal(
    connection: &Connection,
    day: &str,
    last_seq: i64,
    hours: Link,
) -> Result<(), rusqlite::Error> {
    // There is no row when another day was frozen meanwhile: then `hours` is not the digest of this
    // one.
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
                debits: None,
            })
        })?;
    let sealed = seal::Day {
        debits: unsealed_debits(connection)?,
        ..sealed
    };
    let head = sealed.seal(&Before::newest(connection)?);
    connection
        .prepare_cached(
            "INSERT INTO days (day, first_seq, last_seq, head, link, first_kept, hours, debits)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            day,
            sealed.first_seq,
            last_seq,
            head,
            sealed.link,
            sealed.first_kept,
            hours,
            sealed.debits
        ])?;
    seal::add(connection, &seal::of_day(day), &head)
}

/// The debits that no sealed day has yet, as a day is sealed with them.
fn unsealed_debits(connection: &Connection) -> Result<Option<String>, rusqlite::Error> {
    let sealed: HashSet<String> = sealed_debits(connection)?
        .into_iter()
        .map(|(_, debit)| debit.month)
        .collect();
    let debits: Vec<String> = connection
        .prepare(
            "SELECT month, debited_at FROM settlements WHERE debited_at IS NOT NULL ORDER BY month",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .filter(|row: &Result<(String, i64), _>| {
            row.as_ref()
                .map_or(true, |(month, _)| !sealed.contains(month))
        })
        .map(|row| row.map(|(month, at)| format!("{month} {at}")))
        .collect::<Result<_, _>>()?;
    Ok((!debits.is_empty()).then(|| debits.join(",")))
}

/// A debit as it was sealed.
pub(super) struct SealedDebit {
    pub(super) month: String,
    /// The instant, as it was written.
    pub(super) at: String,
}

/// The debits that days were sealed with, each with its day, in order.
pub(super) fn sealed_debits(
    connection: &Connection,
) -> Result<Vec<(String, SealedDebit)>, rusqlite::Error> {
    let mut found = Vec::new();
    let mut select =
        connection.prepare("SELECT day, debits FROM days WHERE debits IS NOT NULL ORDER BY day")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (day, debits): (String, String) = (row.get(0)?, row.get(1)?);
        for debit in debits.split(',') {
            let (month, at) = debit.rsplit_once(' ').unwrap_or((debit, ""));
            let (month, at) = (month.to_owned(), at.to_owned());
            found.push((day.clone(), SealedDebit { month, at }));
        }
    }
    Ok(found)
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
                    "UPDATE settlements SET settled_at = ?2, digest = ?3
                     WHERE month = ?1 AND settled_at IS NULL",
                )?
                .execute(params![month, at.0, digest])?;
            match settled {
                // It was settled before, and sealed in the same transaction.
                0 => Ok(()),
                _ => seal_month(connection, month),
            }
        }
        Entry::Debited { month, at } => execute(
            "UPDATE settlements SET debited_at = ?2
             WHERE month = ?1 AND settled_at IS NOT NULL AND debited_at IS NULL",
            params![month, at.0],
        ),
        Entry::Clock(seen) => watch::replace(connection, seen),
        Entry::Event(entry) => event::insert(connection, entry),
        Entry::Licence(entry) => licences::insert(connection, entry),
        Entry::TurnedAway {
            account,
            hour,
            group,
            reason,
            calls,
        } => execute(
            r#"INSERT INTO turned_away (account, hour, "group", reason, calls) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT DO UPDATE SET calls = calls + excluded.calls"#,
            params![
                account.as_str(),
                hour,
                group.as_ref().map_or("", GroupId::as_str),
                reason,
                signed(*calls)
            ],
        ),
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
