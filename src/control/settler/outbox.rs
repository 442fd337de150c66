//! The ledger as the delivery's keeper of events.
//!
//! Owns when an event that is never taken is given up. Must never do so by a clock that jumped.

use crate::billing::SettleError;
use crate::control::Settler;
use crate::control::delivery::{NotTaken, Outbox, Unsent};
use crate::ledger::{Entry, EventEntry};
use crate::model::AccountId;
use std::time::Duration;

/// Events that are handed on at a time.
const UNSENT: usize = 20_000;
/// An event that failed for so long is given up (ours): it holds the later ones of its account.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// But not before this process has tried it so often. A gate that was down for a week has not
/// failed for one.
const TRIES: u32 = 10;

impl Outbox for Settler {
    type Error = SettleError;

    fn unsent(&self) -> Result<Vec<Unsent>, SettleError> {
        if !self.may_close() {
            // Another process has this ledger's newer state, and sends them.
            return Ok(Vec::new());
        }
        let reader = self.shared.ledger.reader()?;
        let stored = reader.unsent_events(UNSENT)?;
        Ok(stored
            .into_iter()
            .map(|event| Unsent {
                id: event.id,
                account: event.account,
                r#type: event.r#type,
                body: event.body,
                failing_since: event.failing_since,
            })
            .collect())
    }

    fn sent(&self, ids: &[String]) -> Result<(), SettleError> {
        let at = self.shared.clock.utc();
        let mark = |id: &String| Entry::Event(EventEntry::Sent { id: id.clone(), at });
        Ok(self.shared.ledger.keep(ids.iter().map(mark).collect())?)
    }

    fn failed(&self, events: &[NotTaken]) -> Result<Vec<String>, SettleError> {
        self.look();
        let trust = self.trust.lock().clone();
        // When it began to fail, and how long ago that is, is told by a trusted clock alone.
        if !trust.is_trusted() {
            return Ok(Vec::new());
        }
        let at = trust.now();
        let (mut entries, mut given_up) = (Vec::new(), Vec::new());
        for NotTaken { event, failed } in events {
            let id = event.id.clone();
            match event.failing_since {
                None => entries.push(Entry::Event(EventEntry::Failed { id, at })),
                Some(since) if *failed >= TRIES && trust.proven_since(since) >= PATIENCE => {
                    given_up.push(id.clone());
                    entries.push(Entry::Event(EventEntry::Passed { id, at }));
                }
                Some(_) => {}
            }
        }
        if !entries.is_empty() {
            self.shared.ledger.keep(entries)?;
        }
        let is_given_up = |event: &&NotTaken| given_up.contains(&event.event.id);
        for NotTaken { event, .. } in events.iter().filter(is_given_up) {
            tell_given_up(&event.account, &event.r#type, &event.id);
        }
        Ok(given_up)
    }
}

fn tell_given_up(account: &AccountId, r#type: &str, id: &str) {
    tracing::error!(
        %account,
        r#type,
        id,
        "an event was not taken for seven days and is passed over: later ones of its account go on (`tollgate events --state passed`)"
    );
}
