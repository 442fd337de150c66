//! The packs of the accounts that called: what is shown of them, and that one runs low or out
//! (R14).
//!
//! Owns when a pack is looked at.

use crate::billing::SettleError;
use crate::billing::balances::Balances;
use crate::billing::books::Books;
use crate::config::Account;
use crate::control::Settler;
use crate::control::settler::SettlerState;
use crate::control::settler::raise::{News, Now};
use crate::ledger::{Reader, Seal};
use crate::metrics::PackFigures;
use crate::model::{AccountId, EventType, Month, Threshold, Utc};
use crate::proxy::policy::Policy;
use serde_json::json;
use std::collections::BTreeSet;

impl Settler {
    /// Looks at the packs of the accounts that called since the last pass or whose entries were
    /// changed since, and raises each event that is due and was not yet.
    pub(super) fn look_at_packs(
        &self,
        reader: &Reader,
        policy: &Policy,
        state: &mut SettlerState,
        last_seal: Option<Seal>,
        now: Utc,
    ) -> Result<(), SettleError> {
        let mut called = self.to_look_at(reader, policy, state, last_seal, now)?;
        let mut failure = None;
        let books = Books {
            catalog: &policy.catalog,
            reader,
            now,
        };
        while let Some(id) = called.pop_first() {
            if let Err(error) = self.keep_up(state) {
                state.unseen.insert(id);
                state.unseen.append(&mut called);
                return Err(error);
            }
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
                self.tell_thresholds(&books, account, &balances)?;
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

    /// The accounts that called since the last pass, those that it could not look at, and those
    /// whose entries a reload changed.
    fn to_look_at(
        &self,
        reader: &Reader,
        policy: &Policy,
        state: &mut SettlerState,
        last_seal: Option<Seal>,
        now: Utc,
    ) -> Result<BTreeSet<AccountId>, SettleError> {
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
        called.append(&mut self.entered.lock());
        Ok(called)
    }

    fn tell_thresholds(
        &self,
        books: &Books<'_>,
        account: &Account,
        balances: &Balances,
    ) -> Result<(), SettleError> {
        let now = Now {
            at: books.now,
            zone: &books.catalog.time_zone,
        };
        for (group, service) in &balances.services {
            let news = service.notices.iter().map(|notice| {
                let r#type = match notice.threshold {
                    Threshold::Low => EventType::PackLow,
                    Threshold::Exhausted => EventType::PackExhausted,
                };
                let data = json!({
                    "account": account.id,
                    "name": account.name,
                    "group": group,
                    "order": notice.order,
                    "pack": notice.pack,
                    "calls": notice.calls,
                    "left": notice.left,
                });
                (notice, r#type, data)
            });
            let news: Vec<_> = news.collect();
            let news = news.iter().map(|(notice, r#type, data)| News {
                r#type: *r#type,
                what: notice.what(),
                account: &account.id,
                data: data.clone(),
            });
            self.raise(books.reader, now, news)?;
        }
        Ok(())
    }
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
