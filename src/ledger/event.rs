//! What is told to the provider's systems: each event, and what became of it.
//!
//! Owns the table, and how an id follows from what happened. Ids never change: a receiver knows by
//! them what it has seen. Must never raise an event a second time, nor forget one that was not sent.

use crate::ledger::error::ReadError;
use crate::ledger::read::Reader;
use crate::ledger::rows::{signed, word};
use crate::model::{AccountId, Utc};
use rusqlite::{Connection, Row, params};
use sha2::{Digest, Sha256};

/// The id of the event that `what` names, as in `1250000001/P-1/1/low`. The same event has the same
/// id whenever it is computed. It fits in a header, and has no full stop, which parts the signed
/// text.
pub(crate) fn event_id(what: &str) -> String {
    let digest = Sha256::digest(what);
    format!("evt_{}", hex::encode(&digest[..16]))
}

/// An entry about an event. A second one of the same kind changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventEntry {
    /// Something happened that is told (R14, R16).
    Raised {
        /// The id of the event, from [`event_id`].
        id: String,
        /// The account that it is about.
        account: AccountId,
        /// What happened, as in `pack.low`.
        r#type: String,
        /// The instant at which it was found.
        raised_at: Utc,
        /// The body that is delivered, in JSON.
        body: String,
    },
    /// It was delivered.
    Sent {
        /// The id of the event.
        id: String,
        /// The instant of the delivery.
        at: Utc,
    },
    /// It was not taken. Its first failure counts.
    Failed {
        /// The id of the event.
        id: String,
        /// The instant of the attempt.
        at: Utc,
    },
    /// It failed for too long and is passed over, so that later ones of its account go on.
    Passed {
        /// The id of the event.
        id: String,
        /// The instant at which it was given up.
        at: Utc,
    },
}

/// Writes an entry, unless it stands there already.
pub(super) fn insert(connection: &Connection, entry: &EventEntry) -> Result<(), rusqlite::Error> {
    let execute = |sql, values: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(sql)?.execute(values).map(drop)
    };
    match entry {
        EventEntry::Raised {
            id,
            account,
            r#type,
            raised_at,
            body,
        } => execute(
            "INSERT INTO events (id, account, type, raised_at, body) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
            params![id, account.as_str(), r#type, raised_at.0, body],
        ),
        EventEntry::Sent { id, at } => execute(
            "UPDATE events SET sent_at = ?2 WHERE id = ?1 AND sent_at IS NULL",
            params![id, at.0],
        ),
        EventEntry::Failed { id, at } => execute(
            "UPDATE events SET failing_since = ?2 WHERE id = ?1 AND failing_since IS NULL",
            params![id, at.0],
        ),
        EventEntry::Passed { id, at } => execute(
            "UPDATE events SET passed_at = ?2 WHERE id = ?1 AND sent_at IS NULL AND passed_at IS NULL",
            params![id, at.0],
        ),
    }
}

/// An event as it was raised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredEvent {
    /// The id of the event.
    pub id: String,
    /// The account that it is about.
    pub account: AccountId,
    /// What happened, as in `pack.low`.
    pub r#type: String,
    /// The instant at which it was found.
    pub raised_at: Utc,
    /// The body that is delivered, in JSON.
    pub body: String,
    /// The instant of its first failed attempt. `None` before one.
    pub failing_since: Option<Utc>,
    /// The instant of the delivery. `None` until then.
    pub sent_at: Option<Utc>,
    /// The instant at which it was given up. `None` until then.
    pub passed_at: Option<Utc>,
}

const EVENTS: &str =
    "SELECT id, account, type, raised_at, body, failing_since, sent_at, passed_at FROM events";

fn event(row: &Row<'_>) -> Result<StoredEvent, ReadError> {
    let at = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Utc));
    Ok(StoredEvent {
        id: row.get(0)?,
        account: word(row, 1, AccountId::new)?,
        r#type: row.get(2)?,
        raised_at: Utc(row.get(3)?),
        body: row.get(4)?,
        failing_since: at(5)?,
        sent_at: at(6)?,
        passed_at: at(7)?,
    })
}

impl Reader {
    /// Whether that event was raised, delivered or not.
    pub fn event_known(&self, id: &str) -> Result<bool, ReadError> {
        let sql = "SELECT 1 FROM events WHERE id = ?1";
        Ok(self.one(sql, params![id], |_| Ok(()))?.is_some())
    }

    /// At most `limit` events that were neither delivered nor passed over, in the order in which
    /// they were raised.
    pub fn unsent_events(&self, limit: usize) -> Result<Vec<StoredEvent>, ReadError> {
        let sql =
            format!("{EVENTS} WHERE sent_at IS NULL AND passed_at IS NULL ORDER BY place LIMIT ?1");
        self.list(&sql, params![signed(limit as u64)], event)
    }
}
