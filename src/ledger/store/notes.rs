//! The SQL of what is noted of one ledger's records in another.

use crate::ledger::job::Note;
use crate::ledger::part::has_own_calls;
use crate::ledger::rows::signed;
use crate::ledger::store::Store;
use crate::ledger::store::sources::{Watermarks, first_seen};
use crate::ledger::{CollectedBy, StoreError};
use crate::model::Utc;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

impl Store {
    /// Writes a note down; whether it says something new.
    pub(in crate::ledger) fn note(&mut self, note: &Note, now: Utc) -> Result<bool, StoreError> {
        if let Note::Collected { seq, .. } = note
            && signed(*seq) >= self.next_seq
        {
            return Err(StoreError::Ahead {
                seq: *seq,
                last: u64::try_from(self.next_seq - 1).unwrap_or(0),
            });
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = match note {
            Note::Sends => sends(&transaction)?,
            Note::SendsNot => transaction.execute("DELETE FROM outbox", [])? > 0,
            Note::Adopted { ledger_ids, at } => {
                if has_own_calls(&transaction)? {
                    return Err(StoreError::OwnCalls);
                }
                adopt(&transaction, ledger_ids, at.0)?
            }
            Note::Collected { seq, by } => collected(&transaction, signed(*seq), by)?,
            Note::Retired { ledger_id, why, at } => retire(&transaction, ledger_id, why, at.0)?,
            Note::Watermarks(watermarks) => {
                if has_own_calls(&transaction)? {
                    return Err(StoreError::OwnCalls);
                }
                for mark in watermarks {
                    first_seen(&transaction, &mark.ledger_id, &mark.replica, now.0)?;
                    let (source, begun, seq) = source(&transaction, &mark.ledger_id)?;
                    let Some(at) = mark.at else {
                        continue;
                    };
                    let mut marks = Watermarks::read(&transaction, source)?;
                    let needs_none = !begun && mark.seq <= mark.billed_seq;
                    marks.tell(at.0, if needs_none { 0 } else { signed(mark.seq) });
                    marks.come_to(seq);
                    marks.write(&transaction, source)?;
                    transaction
                        .prepare_cached("UPDATE sources SET replica = ?2 WHERE source = ?1")?
                        .execute(params![source, mark.replica])?;
                }
                !watermarks.is_empty()
            }
        };
        transaction.commit()?;
        self.files.still_there()?;
        Ok(changed)
    }
}

fn sends(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let changed = connection
        .prepare_cached(
            "INSERT INTO outbox (one, collected_seq, most_seq, ledger_id, restore_count) VALUES (1, 0, 0, '', 0)
             ON CONFLICT DO NOTHING",
        )?
        .execute([])?;
    Ok(changed > 0)
}

fn adopt(connection: &Connection, ledger_ids: &[String], at: i64) -> Result<bool, rusqlite::Error> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO adopted (ledger_id, adopted_at) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET adopted_at = max(adopted_at, excluded.adopted_at)",
    )?;
    let mut changed = 0;
    for ledger_id in ledger_ids {
        changed += insert.execute(params![ledger_id, at])?;
    }
    Ok(changed > 0)
}

/// A source, whether records of it were collected, and up to which seq.
fn source(connection: &Connection, ledger_id: &str) -> Result<(i64, bool, i64), rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT source, first_seq IS NOT NULL, seq FROM sources WHERE ledger_id = ?1",
        )?
        .query_row([ledger_id], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
}

fn collected(connection: &Connection, seq: i64, by: &CollectedBy) -> Result<bool, rusqlite::Error> {
    let changed = connection
        .prepare_cached(
            "INSERT INTO outbox (one, collected_seq, most_seq, ledger_id, restore_count) VALUES (1, ?1, ?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET collected_seq = excluded.collected_seq, most_seq = max(most_seq, excluded.most_seq),
                                       ledger_id = excluded.ledger_id, restore_count = excluded.restore_count
             WHERE excluded.collected_seq <> collected_seq OR excluded.ledger_id <> ledger_id
                OR excluded.restore_count <> restore_count",
        )?
        .execute(params![seq, by.ledger_id, signed(by.restore_count)])?;
    Ok(changed > 0)
}

fn retire(
    connection: &Connection,
    ledger_id: &str,
    why: &str,
    at: i64,
) -> Result<bool, rusqlite::Error> {
    let retired: Option<Option<i64>> = connection
        .prepare_cached("SELECT retired_at FROM sources WHERE ledger_id = ?1")?
        .query_row([ledger_id], |row| row.get(0))
        .optional()?;
    if retired != Some(None) {
        return Ok(false);
    }
    connection
        .prepare_cached(
            "UPDATE sources SET retired_at = ?2, retired_why = ?3 WHERE ledger_id = ?1",
        )?
        .execute(params![ledger_id, at, why])?;
    Ok(true)
}
