//! What the settler of one of several replicas does: days are sealed, and old records deleted that
//! stand on a statement of before. The others stay: nobody else has them yet.
//!
//! Owns what is said of a ledger that was settled before. Must never fix, debit or raise anything,
//! nor stop anybody: this ledger has a part of the calls.

use crate::billing::books::{AccountRef, Books};
use crate::billing::{SettleError, balances};
use crate::control::Settler;
use crate::control::settler::SettlerState;
use crate::ledger::Reader;
use crate::model::{AccountId, Utc};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use std::convert::Infallible;

/// Accounts that are named in the log.
const NAMED: usize = 20;
/// Events that are counted.
const COUNTED: usize = 20_000;

impl Settler {
    pub(super) fn pass_of_a_replica(
        &self,
        reader: &Reader,
        zone: &TimeZone,
        state: &mut SettlerState,
        now: Utc,
    ) -> Result<(), SettleError> {
        let (is_trusted, may_delete) = {
            let trust = self.trust.lock();
            (trust.is_trusted(), trust.may_delete())
        };
        let mut done = self.show_ahead(reader, zone, now);
        if is_trusted {
            done = done.and(self.seal_days(reader, zone, now));
        }
        if may_delete {
            done = done.and(self.prune(reader, zone, state, now));
        }
        done
    }

    /// Says what will not go on in a ledger that settled months when its gate was alone. Nothing of
    /// them is changed.
    pub(super) fn tell_what_rests(&self, reader: &Reader) -> Result<(), SettleError> {
        let settlements = reader.settlements()?;
        let unsent = reader.unsent_events(COUNTED)?.len();
        if unsent > 0 {
            tracing::warn!(
                "{unsent} events of this ledger were not delivered, and are not: a replica posts none (`tollgate events --state unsent`, \
                 `--state failing`)"
            );
        }
        let Some(last) = settlements.last() else {
            return Ok(());
        };
        let begun = match last.settled_at {
            Some(_) => "",
            None => ", whose fixing was begun and does not go on",
        };
        tracing::warn!(
            "this ledger has fixed months, the last is {}{begun}: this gate settled them when it was alone. They stay as they are; \
             later calls come on no statement of this ledger. To read the statements use a copy of the configuration without \
             `admission.store`",
            last.month
        );
        let not_debited = settlements.iter().filter(|of| of.debited_at.is_none());
        let not_debited: Vec<&str> = not_debited.map(|of| &*of.month).collect();
        if !not_debited.is_empty() {
            tracing::warn!("not debited here any more: {}", not_debited.join(", "));
        }
        let owing = self.in_arrears(reader)?;
        if !owing.is_empty() {
            let named: Vec<&str> = owing.iter().take(NAMED).map(AccountId::as_str).collect();
            tracing::warn!(
                accounts = owing.len(),
                "in arrears by the months that this ledger has debited, and served again unless the accounts say `stopped: arrears`: \
                 {}{}",
                named.join(", "),
                if owing.len() > NAMED { ", .." } else { "" }
            );
        }
        Ok(())
    }

    /// Who would be stopped if this gate were alone (R17), by id.
    fn in_arrears(&self, reader: &Reader) -> Result<Vec<AccountId>, SettleError> {
        let policy = self.shared.policy.load_full();
        let books = Books {
            catalog: &policy.catalog,
            reader,
            now: self.shared.clock.utc(),
        };
        let mut owing = Vec::new();
        for (id, debited) in balances::debits(reader)? {
            let account = policy.account(&id).map(|account| &***account);
            let balance = balances::balance(account, debited, self.shared.paid_by());
            // It is only told: what cannot be read takes nothing back.
            let of = AccountRef { id: &id, account };
            let credits = || Ok::<_, Infallible>(books.credits(of).unwrap_or(Decimal::ZERO));
            let Ok(is_owing) = balances::in_arrears(account, balance, credits);
            if is_owing {
                owing.push(id);
            }
        }
        owing.sort();
        Ok(owing)
    }
}
