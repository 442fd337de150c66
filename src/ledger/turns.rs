//! What a ledger can say of its own records: all that was admitted before an instant is durable.
//!
//! Owns the turns of the two colours that slots have. Must never be asked on the way of a call.
//!
//! A slot comes back when its record is durable or when it left none. At a turn the time is read
//! first, and no call that takes its slot after the turn is dated before that instant. So what was
//! admitted before it has a slot of the colour that ends there. When the last of these is back, the
//! newest durable record is read, and all of theirs are at or before it.

use crate::ledger::queue::LedgerShared;
use crate::model::Utc;
use std::sync::atomic::Ordering;

#[derive(Default, Debug)]
pub(super) struct Turns {
    /// When the colour was turned, as long as slots of the other one may be out.
    turned_at: Option<Utc>,
    /// The newest that was found.
    found: Option<(Utc, u64)>,
}

impl Turns {
    /// Looks whether the slots from before the last turn are back, and turns again when they are.
    pub(super) fn look(
        &mut self,
        shared: &LedgerShared,
        now: impl FnOnce() -> Utc,
    ) -> Option<(Utc, u64)> {
        self.find(shared);
        if self.turned_at.is_none() {
            let turned_at = now();
            self.turned_at = Some(turned_at);
            // No slot of that colour is out.
            let since = &shared.current_since_us[shared.pending.next() as usize];
            since.store(turned_at.0, Ordering::SeqCst);
            shared.pending.turn();
            // Where no call is in flight.
            self.find(shared);
        }
        self.found
    }

    fn find(&mut self, shared: &LedgerShared) {
        let Some(turned_at) = self.turned_at.filter(|_| shared.pending.others_are_back()) else {
            return;
        };
        self.turned_at = None;
        match self.found {
            // The clock was set back: calls are admitted before what was found.
            Some((before, _)) if turned_at < before => self.found = None,
            Some((before, _)) if turned_at == before => {}
            _ => self.found = Some((turned_at, shared.last_record())),
        }
    }
}

#[cfg(test)]
mod tests;
