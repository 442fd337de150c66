//! How an event is written down: its id, its body, once.
//!
//! Must never raise the same event twice, nor any without a webhook to tell it to: who connects one
//! later is not told of a year at once.

use crate::billing::SettleError;
use crate::control::Settler;
use crate::ledger::{Entry, EventEntry, Reader, event_id};
use crate::model::{AccountId, EventType, Local, Utc};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// Something that happened and is to be told.
pub(super) struct News<'a> {
    pub r#type: EventType,
    /// What happened, which names it for ever: after the account, as in `P-1/1/low`.
    pub what: &'a str,
    pub account: &'a AccountId,
    /// What is told of it, as an object.
    pub data: Value,
}

/// When something is written down, and how that is told.
#[derive(Clone, Copy)]
pub(super) struct Now<'a> {
    pub at: Utc,
    pub zone: &'a TimeZone,
}

/// The name of what happened to an account, of which its event has its id.
pub(super) fn id_of(account: &AccountId, what: &str) -> String {
    event_id(&format!("{account}/{what}"))
}

impl Settler {
    /// Writes down what the ledger does not have yet, in this order, and wakes the delivery.
    pub(super) fn raise<'a>(
        &self,
        reader: &Reader,
        now: Now<'_>,
        news: impl IntoIterator<Item = News<'a>>,
    ) -> Result<(), SettleError> {
        if self.events.is_none() {
            return Ok(());
        }
        let mut entries = Vec::new();
        for News {
            r#type,
            what,
            account,
            data,
        } in news
        {
            let id = id_of(account, what);
            if reader.event_known(&id)? {
                continue;
            }
            match r#type {
                // A month has one for each account.
                EventType::StatementFixed => {
                    tracing::debug!(%account, r#type = r#type.as_str(), what, id, "raised an event");
                }
                _ => {
                    tracing::info!(%account, r#type = r#type.as_str(), what, id, "raised an event")
                }
            }
            let timestamp = Local::new(now.at, now.zone);
            let body = json!({"type": r#type, "timestamp": timestamp, "data": data});
            entries.push(Entry::Event(EventEntry::Raised {
                id,
                account: account.clone(),
                r#type: r#type.as_str().to_owned(),
                raised_at: now.at,
                body: body.to_string(),
            }));
        }
        if !entries.is_empty() {
            self.shared.ledger.keep(entries)?;
            self.raised.notify_one();
        }
        Ok(())
    }
}
