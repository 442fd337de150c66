//! What is told to the provider's systems: each event, and what became of it.
//!
//! Owns what is written of it, and how an id follows from what happened. Ids never change: a receiver knows by
//! them what it has seen. Must never raise an event a second time, nor forget one that was not sent.

use crate::model::{AccountId, Utc};
use rusqlite::{Connection, params};
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
