//! Notices: raised when a pack runs low or out, handed to their delivery, and marked when
//! they are sent (R14).
//!
//! Owns when a pack is looked at. Must never raise the same notice twice.

use crate::billing::SettleError;
use crate::billing::balances::Balances;
use crate::billing::books::Books;
use crate::config::Account;
use crate::control::Settler;
use crate::control::delivery::Unsent;
use crate::control::settler::SettlerState;
use crate::ledger::{Entry, EventEntry, Reader, Seal, event_id};
use crate::metrics::PackFigures;
use crate::model::{AccountId, Local, Month, Threshold, Utc};
use crate::proxy::Shared;
use crate::proxy::policy::Policy;
use serde_json::json;
use std::collections::BTreeSet;

/// Notices that are handed on at a time.
const UNSENT: usize = 20_000;

impl Settler {
    /// Looks at the packs of the accounts that called since the last pass, and writes down each
    /// notice that is due and was not yet (R14). Its delivery reads it from the ledger.
    pub(super) fn raise_notices(
        &self,
        reader: &Reader,
        policy: &Policy,
        state: &mut SettlerState,
        last_seal: Option<Seal>,
        now: Utc,
    ) -> Result<(), SettleError> {
        let last = reader.last_seq()?;
        let called = match state.seen {
            Some(seen) => reader.accounts_since(seen, last)?,
            // Calls that an earlier process did not come to see are of this month, or came after
            // the last seal.
            None => {
                let zone = &policy.catalog.time_zone;
                let (from, until) = Month::of(now, zone).bounds(zone);
                let mut called = reader.called(from, until, 0..=last)?;
                let sealed = last_seal.map_or(last, |seal| seal.last_seq);
                called.extend(reader.accounts_since(sealed, last)?);
                called
            }
        };
        state.seen = Some(last);
        let mut called: BTreeSet<AccountId> = called.into_iter().collect();
        called.append(&mut state.unseen);
        let mut failure = None;
        let books = Books {
            catalog: &policy.catalog,
            reader,
            now,
        };
        for id in called {
            self.keep_up(state)?;
            let Some(account) = policy.account(&id) else {
                state.packs.remove(&id);
                continue;
            };
            if account
                .services
                .iter()
                .all(|service| service.packs.is_empty())
            {
                continue;
            }
            let told = books
                .balances((&***account).into(), self.shared.paid_by())
                .map_err(SettleError::from);
            let told = told.and_then(|balances| {
                self.write_down(&books, account, &balances)?;
                Ok(balances)
            });
            match told {
                Ok(balances) => drop(state.packs.insert(id, figures(account, &balances))),
                Err(error) => {
                    // It is looked at again in the next pass, and holds up nobody else.
                    failure.get_or_insert(error);
                    state.unseen.insert(id);
                }
            }
        }
        // Packs that ended since, by their time or by an edit, are not shown any more.
        state.packs.retain(|id, packs| {
            packs.retain(|pack| is_valid(policy, id, &pack.order, now));
            !packs.is_empty()
        });
        let shown = state.packs.values().flatten().cloned().collect();
        self.shared.metrics.set_packs(shown);
        failure.map_or(Ok(()), Err)
    }

    fn write_down(
        &self,
        books: &Books<'_>,
        account: &Account,
        balances: &Balances,
    ) -> Result<(), SettleError> {
        let (now, zone) = (books.now, &books.catalog.time_zone);
        let mut raised = Vec::new();
        for (group, service) in &balances.services {
            for notice in &service.notices {
                let event = event_id(&notice.id);
                if books.reader.event_known(&event)? {
                    continue;
                }
                tracing::info!(notice = notice.id, left = notice.left, "raised a notice");
                let r#type = match notice.threshold {
                    Threshold::Low => "pack.low",
                    Threshold::Exhausted => "pack.exhausted",
                };
                let data = json!({
                    "id": notice.id,
                    "account": account.id,
                    "name": account.name,
                    "group": group,
                    "order": notice.order,
                    "pack": notice.pack,
                    "threshold": notice.threshold,
                    "calls": notice.calls,
                    "left": notice.left,
                    "raised_at": Local::new(now, zone),
                });
                let timestamp = Local::new(now, zone);
                let body = json!({"type": r#type, "timestamp": timestamp, "data": data});
                raised.push(Entry::Event(EventEntry::Raised {
                    id: event,
                    account: account.id.clone(),
                    r#type: r#type.to_owned(),
                    raised_at: now,
                    body: body.to_string(),
                }));
            }
        }
        if !raised.is_empty() {
            self.shared.ledger.keep(raised)?;
            self.raised.notify_one();
        }
        Ok(())
    }
}

/// The oldest notices that are not marked as sent (R14).
pub(crate) fn unsent(shared: &Shared) -> Result<Vec<Unsent>, SettleError> {
    let reader = shared.ledger.reader()?;
    let stored = reader.unsent_events(UNSENT)?;
    let threshold = |event: &str| event.rsplit('.').next().and_then(Threshold::parse);
    Ok(stored
        .into_iter()
        .map(|notice| Unsent {
            threshold: threshold(&notice.r#type).unwrap_or(Threshold::Low),
            id: notice.id,
            account: notice.account,
            body: notice.body,
        })
        .collect())
}

/// Marks a notice as sent.
pub(crate) fn sent(shared: &Shared, id: &str) -> Result<(), SettleError> {
    let at = shared.clock.utc();
    let id = id.to_owned();
    Ok(shared
        .ledger
        .keep(vec![Entry::Event(EventEntry::Sent { id, at })])?)
}

fn is_valid(policy: &Policy, id: &AccountId, order: &str, now: Utc) -> bool {
    let services = policy.account(id).map(|account| &account.services);
    let mut packs = services
        .into_iter()
        .flatten()
        .flat_map(|service| &service.packs);
    packs.any(|pack| {
        *pack.order == *order && now < pack.expires && pack.refunded.is_none_or(|at| now < at)
    })
}

/// The packs of an account that the metric shows. An order that is used up is shown
/// while it is the last: once another one covers the calls, nobody needs to be told.
fn figures(account: &Account, balances: &Balances) -> Vec<PackFigures> {
    let mut shown = Vec::new();
    for (group, service) in &balances.services {
        let any_left = service.packs.iter().any(|pack| pack.left > 0);
        for pack in service
            .packs
            .iter()
            .filter(|pack| pack.left > 0 || !any_left)
        {
            let figures = PackFigures {
                account: account.id.clone(),
                group: group.clone(),
                order: pack.order.clone(),
                left: pack.left_in_use,
                size: pack.calls,
            };
            shown.push(figures);
        }
    }
    shown
}
