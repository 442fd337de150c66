//! Reading events back.
//!
//! Owns the SQL that reads them.

use crate::ledger::error::ReadError;
use crate::ledger::read::Reader;
use crate::ledger::rows::{signed, word};
use crate::model::{AccountId, Utc};
use rusqlite::{Row, params};

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
