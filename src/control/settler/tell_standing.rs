//! The standing of an account: in arrears, resumed, or with a balance that runs low (R17).
//!
//! Owns when a change of it is told. The ledger says what was told last, so a restart tells nothing
//! again and forgets nothing.

use crate::billing::{SettleError, amount};
use crate::control::Settler;
use crate::control::settler::SettlerState;
use crate::control::settler::raise::{News, Now};
use crate::control::settler::standing::{Standing, ToldStandings, fell_below};
use crate::ledger::{Reader, Told};
use crate::model::{AccountId, EventType, Utc};
use crate::proxy::policy::Policy;
use rust_decimal::Decimal;
use serde_json::json;
use std::collections::HashMap;

impl Settler {
    /// Raises an event for each account whose standing has changed.
    pub(super) fn tell_standing(&self, state: &mut SettlerState) -> Result<(), SettleError> {
        let Some(events) = &self.events else {
            return Ok(());
        };
        let (policy, reader) = (self.shared.policy.load_full(), self.shared.ledger.reader()?);
        if state.told.is_none() {
            state.told = Some(ToldStandings {
                told: reader.told()?,
                seen: HashMap::new(),
            });
        }
        let changed: Vec<(AccountId, Standing)> = {
            let seen = state.told.as_ref().map(|told| &told.seen);
            let standings = state.standings.iter();
            standings
                .filter(|(id, standing)| seen.and_then(|seen| seen.get(*id)) != Some(*standing))
                .map(|(id, standing)| (id.clone(), *standing))
                .collect()
        };
        for (id, standing) in changed {
            let told = state.told.get_or_insert_default();
            let before = told.told.get(&id).copied().unwrap_or_default();
            let is_low = match events.balance_below {
                Some(threshold) if standing.balance < threshold => {
                    let changes = changes(&reader, &policy, &id, self.shared.paid_by())?;
                    fell_below(changes, threshold, before.low_at)
                }
                _ => false,
            };
            let after = self.tell_of(&reader, &policy, &id, standing, before, is_low)?;
            told.told.insert(id.clone(), after);
            told.seen.insert(id, standing);
        }
        Ok(())
    }

    fn tell_of(
        &self,
        reader: &Reader,
        policy: &Policy,
        id: &AccountId,
        standing: Standing,
        before: Told,
        is_low: bool,
    ) -> Result<Told, SettleError> {
        let now = Now {
            at: self.shared.clock.utc(),
            zone: &policy.catalog.time_zone,
        };
        let balance = standing.balance.to_string();
        let data = json!({
            "account": id,
            "name": policy.account(id).map(|account| &account.name),
            "balance": balance,
            "currency": policy.catalog.currency,
        });
        let mut after = before;
        // The balance names it too: after a restore, another turn is another event.
        let low = format!("balance.low/{}/{balance}", before.lows + 1);
        let turn = format!("standing/{}/{balance}", before.turns + 1);
        let mut news = Vec::new();
        // The balance runs low before it is gone.
        if is_low {
            (after.lows, after.low_at) = (before.lows + 1, Some(now.at));
            let below = self.events.as_ref().and_then(|events| events.balance_below);
            let mut data = data.clone();
            data["below"] = json!(below.map(|below| below.to_string()));
            news.push(News {
                r#type: EventType::BalanceLow,
                what: &low,
                account: id,
                data,
            });
        }
        if standing.in_arrears != before.in_arrears {
            (after.turns, after.in_arrears) = (before.turns + 1, standing.in_arrears);
            let r#type = match standing.in_arrears {
                true => EventType::AccountInArrears,
                false => EventType::AccountResumed,
            };
            news.push(News {
                r#type,
                what: &turn,
                account: id,
                data,
            });
        }
        self.raise(reader, now, news)?;
        Ok(after)
    }
}

/// What was paid in and adjusted by now, and what was debited, each with its instant.
fn changes(
    reader: &Reader,
    policy: &Policy,
    id: &AccountId,
    paid_by: Utc,
) -> Result<Vec<(Utc, Decimal)>, SettleError> {
    let account = policy.account(id);
    let payments = account.into_iter().flat_map(|account| &account.payments);
    let payments = payments.map(|payment| (payment.at, payment.amount));
    let adjusted = account.into_iter().flat_map(|account| &account.adjustments);
    let adjusted = adjusted.map(|adjustment| (adjustment.at, adjustment.amount));
    let mut changes: Vec<(Utc, Decimal)> = payments
        .chain(adjusted)
        .filter(|(at, _)| *at <= paid_by)
        .collect();
    for debit in reader.debits(Some(id))? {
        let month = reader.settlement(&debit.month)?;
        let at = month.and_then(|month| month.debited_at);
        changes.push((at.unwrap_or(paid_by), -amount(&debit)?));
    }
    Ok(changes)
}
