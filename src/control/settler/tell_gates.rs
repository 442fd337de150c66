//! The standing of the accounts, as the gates are told of it whose records are collected here.
//!
//! Must never name a month whose debits are not in the balances.

use crate::control::settler::standing::Standing;
use crate::control::settler::{Settler, SettlerState};
use crate::control::standing::{AccountStanding, Standings};
use crate::model::AccountId;
use std::sync::Arc;
use tokio::sync::watch;

impl Settler {
    pub(super) fn publish(&self, state: &SettlerState) {
        let of = |(account, standing): (&AccountId, &Standing)| AccountStanding {
            account: account.clone(),
            balance: standing.balance.to_string().into(),
            in_arrears: standing.in_arrears,
        };
        self.standings.send_replace(Arc::new(Standings {
            accounts: state.standings.iter().map(of).collect(),
            debited: state.debited.clone(),
        }));
    }

    /// The standing of the accounts that have a debit or an adjustment, now and at each change.
    pub(in crate::control) fn standings(&self) -> watch::Receiver<Arc<Standings>> {
        self.standings.subscribe()
    }
}
