//! A permit: an admitted call on its way, which becomes exactly one record however it ends.
//!
//! Owns the tie between a start and its record. Must never be dropped without one: where the call's
//! future is dropped, the guard here writes the record.

use crate::ledger::{Commit, Record, Slot, billable};
use crate::model::{Mono, Outcome, RequestId};
use crate::proxy::Proxy;
use crate::proxy::admission::Started;
use crate::proxy::policy::{KeyUsage, KnownAccount, Operation};
use std::sync::Arc;

/// The facts of a call that its record holds, but for its end.
pub(super) struct AdmittedCall {
    /// Its request id.
    pub id: RequestId,
    /// The account that pays.
    pub account: Arc<KnownAccount>,
    /// The key that proved it.
    pub key: Arc<KeyUsage>,
    /// The operation that it calls.
    pub operation: Arc<Operation>,
}

/// The right to be forwarded. It is made when the start has come and the ledger has a slot for the
/// record.
pub(super) struct Permit {
    proxy: Arc<Proxy>,
    call: AdmittedCall,
    started: Started,
    slot: Option<Slot>,
}

impl Permit {
    /// The start has come: from here on the call is admitted.
    pub(super) fn new(proxy: Arc<Proxy>, call: AdmittedCall, started: Started, slot: Slot) -> Self {
        proxy.shared.metrics.in_flight.inc();
        Self {
            proxy,
            call,
            started,
            slot: Some(slot),
        }
    }

    /// When it started.
    pub(super) fn start(&self) -> Mono {
        self.started.start
    }

    /// The facts that the record will hold.
    pub(super) fn call(&self) -> &AdmittedCall {
        &self.call
    }

    /// Writes the record. `status` is the upstream's; `vetoed` when the upstream said that the call
    /// is not billable.
    pub(super) fn finish(
        mut self,
        outcome: Outcome,
        status: Option<u16>,
        vetoed: bool,
        now: Mono,
    ) -> Commit {
        let commit = self.write(outcome, status, vetoed, now);
        // Only a finished permit has no slot, and this consumed it. No record, no answer (P3).
        commit.unwrap_or_else(Commit::failed)
    }

    fn write(
        &mut self,
        outcome: Outcome,
        status: Option<u16>,
        vetoed: bool,
        now: Mono,
    ) -> Option<Commit> {
        let slot = self.slot.take()?;
        let Started {
            start,
            at,
            mode,
            store_start,
        } = self.started;
        let reason = billable(self.proxy.bill(), mode, outcome, status, vetoed);
        Some(slot.commit(Record {
            id: self.call.id,
            account: self.call.account.id.clone(),
            key: self.call.key.id().clone(),
            group: self.call.operation.group.clone(),
            action: self.call.operation.action.clone(),
            mode,
            admitted_at: at,
            start,
            store_start,
            outcome,
            status,
            reason,
            duration: now.since(start),
        }))
    }
}

impl Drop for Permit {
    /// The call's future was dropped: its client hung up before its whole request was with the
    /// upstream, or the drain's deadline came.
    fn drop(&mut self) {
        let outcome = match self.proxy.is_abandoning() {
            true => Outcome::GateFailed,
            false => Outcome::ClientIncomplete,
        };
        let now = self.proxy.shared.clock.mono();
        // Nothing waits for the commit; the record is written all the same.
        drop(self.write(outcome, None, false, now));
    }
}
