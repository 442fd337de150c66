//! A pass: days are sealed, months that are due are settled, old records deleted, events raised.

use crate::billing::books::{Books, BooksError};
use crate::billing::{
    self, Fixed, SettleError, balances, closing_day, debit_from, due, furthest, keep_from,
    last_day_over, next_seal, settle_month, to_debit, unsettled,
};
use crate::control::settler::tell_clock::seconds_ahead;
use crate::control::settler::{EVIDENCE, PRUNE_EVERY, Settler, SettlerState};
use crate::ledger::{Entry, Reader, Seal};
use crate::model::{Local, Month, Utc};
use crate::proxy::policy::Policy;
use jiff::tz::TimeZone;

impl Settler {
    pub(super) fn pass(&self, state: &mut SettlerState) -> Result<(), SettleError> {
        let policy = self.shared.policy.load_full();
        let reader = self.shared.ledger.reader()?;
        let now = self.look();
        let zone = &policy.catalog.time_zone;
        state.next_seal = next_seal(now, zone);
        if !self.settles {
            return self.pass_of_a_replica(&reader, zone, state, now);
        }
        let last_seal = reader.last_day()?;
        let shown = self.show(&reader, zone, now);
        if !self.may_close() {
            return shown;
        }
        let (is_trusted, may_delete) = {
            let trust = self.trust.lock();
            (trust.is_trusted(), trust.may_delete())
        };
        // Of a month that an earlier process has settled.
        let told = self.tell_statements(&reader, &policy, state);
        let mut settled = Ok(());
        if is_trusted {
            settled = match self.over_by(&reader, zone, state, now) {
                Ok(Some(over_by)) => self
                    .seal_days(&reader, zone, over_by)
                    .and_then(|()| self.settle_due(&reader, &policy, state, (now, over_by))),
                other => other.map(drop),
            };
            // Months that are settled are debited, whatever hinders the next one.
            settled = settled.and(self.debit_due(&reader, &policy, state, now));
        }
        if may_delete {
            settled = settled.and(self.prune(&reader, zone, state, now));
        }
        // Whatever hinders a settlement is no reason not to tell a customer that a pack runs out.
        let raised = self.look_at_packs(&reader, &policy, state, last_seal, now);
        let ends = match is_trusted {
            true => self.tell_ends(&reader, &policy, state, now),
            false => Ok(()),
        };
        shown.and(told).and(settled).and(raised).and(ends)
    }

    /// Shows how far months are settled, and how far the ledger is ahead of the clock.
    fn show(&self, reader: &Reader, zone: &TimeZone, now: Utc) -> Result<(), SettleError> {
        let metrics = &self.shared.metrics;
        let unsettled = unsettled(reader, zone)?.unwrap_or_else(|| Month::of(now, zone));
        let (settled_until, _) = unsettled.bounds(zone);
        metrics.settlement_last_month.set(settled_until.seconds());
        self.show_ahead(reader, zone, now)
    }

    pub(super) fn show_ahead(
        &self,
        reader: &Reader,
        zone: &TimeZone,
        now: Utc,
    ) -> Result<(), SettleError> {
        let furthest = furthest(reader, zone)?.map_or(0, |(_, at)| seconds_ahead(at, now));
        self.shared.metrics.ledger_ahead.set(furthest.max(0));
        Ok(())
    }

    fn settle_due(
        &self,
        reader: &Reader,
        policy: &Policy,
        state: &mut SettlerState,
        (now, over_by): (Utc, Utc),
    ) -> Result<(), SettleError> {
        let zone = &policy.catalog.time_zone;
        if let Some(begun) = reader.last_settlement()?
            && begun.settled_at.is_none()
        {
            billing::check_settlement(reader, zone, &begun)?;
        }
        let mut settled = Ok(());
        while settled.is_ok()
            && let Some(month) = due(reader, zone, over_by)?
        {
            let (_, end) = month.bounds(zone);
            let is_begun = reader.settlement(&month.to_string())?.is_some();
            if !is_begun && reader.month_seal(&month.to_string())?.is_some() {
                return Err(BooksError::Month(format!(
                    "{month} was settled before, and its settlement is not in the ledger any more: put a backup back \
                     (`tollgate restore`)"
                ))
                .into());
            }
            if !is_begun && !self.trust.lock().may_fix(end) {
                if state.waiting.replace(month) != Some(month) {
                    tracing::warn!(
                        month = month.to_string(),
                        "not settled yet: the ledger knows of nothing after its end, and one such month is settled in 24 hours in which the clock is trusted"
                    );
                }
                break;
            }
            state.waiting = None;
            state.credits.clear();
            settled = self
                .settle(reader, policy, state, month, now)
                .and_then(|()| self.tell_statements(reader, policy, state));
        }
        settled
    }

    /// Debits the months whose `settle_day` has begun (R16), and stops who is in arrears by it
    /// (R17).
    fn debit_due(
        &self,
        reader: &Reader,
        policy: &Policy,
        state: &mut SettlerState,
        now: Utc,
    ) -> Result<(), SettleError> {
        let catalog = &policy.catalog;
        let (day, zone) = (catalog.settle_day, &catalog.time_zone);
        for (month, from) in to_debit(reader, day, zone)? {
            if from > now {
                continue;
            }
            state.debits_are_stale = true;
            state.credits.clear();
            let month = month.to_string();
            self.shared.ledger.keep(vec![Entry::Debited {
                month: month.clone(),
                at: now,
            }])?;
            tracing::info!(month, "debited the month");
        }
        if state.debits_are_stale {
            state.debits = balances::debits(reader)?;
            state.debited = balances::last_debited(reader)?;
            state.debits_are_stale = false;
            self.stop_for_arrears(state);
        }
        let next = to_debit(reader, day, zone)?
            .into_iter()
            .map(|(_, from)| from);
        state.next_seal = next.fold(next_seal(now, zone), Utc::min);
        Ok(())
    }

    pub(super) fn prune(
        &self,
        reader: &Reader,
        zone: &TimeZone,
        state: &mut SettlerState,
        now: Utc,
    ) -> Result<(), SettleError> {
        let started = self.shared.clock.mono();
        if started >= state.next_prune {
            state.next_prune = started.plus(PRUNE_EVERY);
            // A gate that settles no month keeps what is neither collected nor billed (the ledger's own
            // rule), and of the rest the months that may be disputed.
            let unsettled = match self.settles {
                true => unsettled(reader, zone)?,
                false => None,
            };
            let unsettled = unsettled.unwrap_or_else(|| Month::of(now, zone));
            let keep_from = keep_from(now, self.retain, unsettled, zone);
            self.shared.ledger.prune(keep_from);
        }
        Ok(())
    }

    /// Seals the day before `over_by`, when it has been over for long enough. Days on which the gate did not run
    /// have no seal of their own: the next one covers them.
    pub(super) fn seal_days(
        &self,
        reader: &Reader,
        zone: &TimeZone,
        over_by: Utc,
    ) -> Result<(), SettleError> {
        let day = last_day_over(over_by, zone);
        let sealed = reader.last_day()?;
        if reader.last_seq()? == 0 || sealed.is_some_and(|sealed| sealed.day >= day.to_string()) {
            return Ok(());
        }
        let Seal {
            day,
            first_seq,
            last_seq,
            head,
        } = self.shared.ledger.seal(&day.to_string())?;
        // Published: a kept log can hold the ledger to it (`tollgate verify
        // --checkpoint`).
        tracing::info!(
            target: EVIDENCE,
            day,
            first_seq,
            last_seq,
            head = hex::encode(head),
            "sealed the day"
        );
        Ok(())
    }

    /// Fixes the statements of the month (R16). Goes on where an earlier try ended.
    fn settle(
        &self,
        reader: &Reader,
        policy: &Policy,
        state: &mut SettlerState,
        month: Month,
        now: Utc,
    ) -> Result<(), SettleError> {
        let ledger = &self.shared.ledger;
        let catalog = &policy.catalog;
        let text = month.to_string();
        let (through_seq, head, fixed_at) = match reader.settlement(&text)? {
            Some(begun) => (begun.through_seq, begun.head, begun.fixed_at),
            None => {
                let Seal { last_seq, head, .. } =
                    closing_day(reader, month, &catalog.time_zone, now)?;
                // In one transaction: a start that finds the month fixed knows whether the clock
                // alone said so.
                let (_, end) = month.bounds(&catalog.time_zone);
                let watch = self.trust.lock().fixing(end);
                let fixed = Entry::Settlement {
                    month: text.clone(),
                    through_seq: last_seq,
                    head,
                    fixed_at: now,
                };
                ledger.keep(vec![fixed, Entry::Clock(watch.clone())])?;
                self.trust.lock().fixed(&watch);
                (last_seq, head, now)
            }
        };
        let books = Books {
            catalog,
            reader,
            now,
        };
        let fixed = Fixed {
            at: Local::new(fixed_at, &catalog.time_zone),
            through_seq,
            head: hex::encode(head),
        };
        let accounts = policy.accounts().map(|account| &***account);
        let settled = settle_month(ledger, &books, accounts, month, &fixed, || {
            self.keep_up(state)
        })?;
        if debit_from(month, catalog.settle_day, &catalog.time_zone) < now {
            tracing::warn!(
                month = text,
                "settled after its settle_day began (R16), so it is debited late: the gate was not running"
            );
        }
        tracing::info!(
            target: EVIDENCE,
            month = text,
            statements = settled.statements,
            due = %billing::money(settled.due),
            through_seq,
            head = fixed.head,
            digest = hex::encode(settled.digest),
            seal = hex::encode(settled.seal),
            "settled the month"
        );
        Ok(())
    }
}
