//! The statements of a settled month, told to the provider's systems (R16).

use crate::billing::SettleError;
use crate::control::Settler;
use crate::control::settler::SettlerState;
use crate::control::settler::raise::{News, Now};
use crate::ledger::Reader;
use crate::model::EventType;
use crate::proxy::policy::Policy;
use serde_json::json;

/// Events that are written in one transaction.
const BATCH: usize = 500;

impl Settler {
    /// Raises an event for each statement of the newest settled month. Goes on where an earlier try
    /// ended, also one of an earlier process.
    pub(super) fn tell_statements(
        &self,
        reader: &Reader,
        policy: &Policy,
        state: &mut SettlerState,
    ) -> Result<(), SettleError> {
        let Some(settled) = reader.last_settled()? else {
            return Ok(());
        };
        let month = settled.month;
        if self.events.is_none() || state.told_month.as_ref() == Some(&month) {
            return Ok(());
        }
        let now = Now {
            at: self.shared.clock.utc(),
            zone: &policy.catalog.time_zone,
        };
        let digest = settled.digest.map(hex::encode);
        let what = format!("{month}/statement");
        let mut after = None;
        loop {
            self.keep_up(state)?;
            let page = reader.dues(&month, after.as_ref(), BATCH)?;
            let news = page.iter().map(|bill| News {
                r#type: EventType::StatementFixed,
                what: &what,
                account: &bill.account,
                data: json!({
                    "account": bill.account,
                    "name": policy.account(&bill.account).map(|account| &account.name),
                    "month": month,
                    "due": bill.due,
                    "currency": policy.catalog.currency,
                    "digest": digest,
                    "path": format!("/v1/statements/{month}"),
                }),
            });
            self.raise(reader, now, news)?;
            match page.into_iter().last() {
                Some(last) => after = Some(last.account),
                None => break,
            }
        }
        state.told_month = Some(month);
        Ok(())
    }
}
