//! What comes back to the gate from the bills: days are sealed, months are settled, an account whose balance is below
//! zero is stopped, and notices are raised (R14, R16, R17).
//!
//! Owns when these happen and in which order. Must never hold up a call, debit a month twice, or change a statement
//! that was fixed.
//!
//! Every step asks the ledger what was done before and does what is missing, so that a process that ends in the
//! midst of it loses nothing: the next tick, or the next process, goes on.

use crate::background::behind_the_calls;
use crate::billing::{self, Calls, Fixed, Inputs, Local};
use crate::books::{self, Balances, Books, BooksError, Sold};
use crate::config::Account;
use crate::metrics::PackFigures;
use crate::notify::Unsent;
use crate::policy::Policy;
use crate::proxy::Proxy;
use crate::usage::{Entry, LedgerError, Month, ReadError, Reader, Seal, StoreError, Trouble};
use crate::words::{AccountId, Mode, Mono, Reason, Threshold, Utc};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long after its end a day is sealed, and so a month can be settled: calls that began in it have been recorded
/// by then (R16; the contract's earliest is an hour).
const GRACE_US: i64 = 3_600_000_000;
/// How often it is looked whether something is to be done at all.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// From the start of one pass over the accounts that called to the start of the next, at least.
const PASS_EVERY: Duration = Duration::from_secs(10);
/// A pass takes at most one part in so many of the time.
const PASS_SHARE: u32 = 20;
/// But it is not waited longer than this.
const PASS_AT_LATEST: Duration = Duration::from_secs(300);
/// A wall clock that went so much further than the monotonic one was moved.
const MOVED: Duration = Duration::from_secs(60);
/// How often old records are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
/// Statements that are written in one transaction.
const BATCH: usize = 100;
/// Notices that are handed on at a time.
const UNSENT: usize = 20_000;

/// Why a step could not be done. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The books cannot tell.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The ledger cannot be opened for reading.
    #[error(transparent)]
    Open(#[from] LedgerError),
    /// The ledger cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Days are sealed before months are settled.
    #[error("the last day of {0} is not sealed")]
    Unsealed(Month),
    /// Some accounts of the month could not be settled; the others were.
    #[error("{failed} statements of {month} could not be fixed, the first of them: {why}")]
    Statements {
        /// The month.
        month: Month,
        /// How many.
        failed: usize,
        /// Of the first.
        why: BooksError,
    },
}

/// The one who settles. There is one ledger, one writer and one of these.
pub struct Settler {
    proxy: Arc<Proxy>,
    /// Tells whoever delivers notices that there is one.
    raised: Arc<Notify>,
    /// How long records are kept at least.
    retain: Duration,
    state: Mutex<State>,
}

struct State {
    /// What the settlements have debited.
    debits: HashMap<AccountId, Decimal>,
    /// More may have been debited since.
    debits_are_stale: bool,
    /// Both clocks at the last pass, and until when the wall clock is not believed because it was moved.
    clocks: (Mono, Utc),
    doubtful_until: Mono,
    /// The generation whose payments were last counted.
    generation: u64,
    /// When a payment that is entered already begins to count.
    next_payment: Utc,
    /// The next pass over days, months and notices, by its time.
    next_pass: Mono,
    /// The end of a day, which is no time to wait for a pass: until when none was sealed.
    next_seal: Utc,
    next_prune: Mono,
    /// The newest seq that the last pass saw; `None` before the first.
    seen: Option<u64>,
    /// Accounts that the last pass could not look at.
    unseen: BTreeSet<AccountId>,
    /// What is left of the packs of the accounts that called.
    packs: BTreeMap<AccountId, Vec<PackFigures>>,
}

impl Settler {
    /// Reads what was debited and stops who is in arrears: to be called before the first call is accepted.
    pub fn start(
        proxy: Arc<Proxy>,
        retain: Duration,
        raised: Arc<Notify>,
    ) -> Result<Self, SettleError> {
        let reader = Reader::open(proxy.ledger.path())?;
        books::check_time_zone(&reader, &proxy.policy.load().catalog.time_zone)?;
        let settler = Self {
            state: Mutex::new(State {
                debits: books::debits(&reader)?,
                debits_are_stale: false,
                clocks: (proxy.clock.mono(), proxy.clock.utc()),
                doubtful_until: Mono::default(),
                generation: 0,
                next_payment: Utc(i64::MAX),
                next_pass: Mono::default(),
                next_seal: Utc(i64::MAX),
                next_prune: Mono::default(),
                seen: None,
                unseen: BTreeSet::new(),
                packs: BTreeMap::new(),
            }),
            proxy,
            retain,
            raised,
        };
        settler.stop_for_arrears(&mut settler.state.lock());
        Ok(settler)
    }

    /// Looks each second whether something is to be done, and does it. Runs until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut told = String::new();
        loop {
            self.proxy.clock.sleep(LOOK_EVERY).await;
            if !self.has_work() {
                continue;
            }
            let settler = self.clone();
            let done =
                tokio::task::spawn_blocking(move || behind_the_calls(|| settler.tick())).await;
            let failure = match done {
                Ok(Ok(())) => String::new(),
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panic.to_string(),
            };
            if !failure.is_empty() {
                self.proxy.metrics.settlement_failures.inc();
            }
            if !failure.is_empty() && failure != told {
                // Told once: it is tried in each pass.
                tracing::error!("settling: {failure}; trying again");
            }
            told = failure;
        }
    }

    fn has_work(&self) -> bool {
        let state = self.state.lock();
        let (clock, policy) = (&self.proxy.clock, self.proxy.policy.load());
        state.generation != policy.generation
            || clock.utc() >= state.next_payment
            || clock.mono() >= state.next_pass
            || clock.utc() >= state.next_seal
    }

    /// Long work does not hold up a customer who has paid meanwhile, nor the end of the process.
    fn keep_up(&self, state: &mut State) -> Result<(), SettleError> {
        if self.proxy.ledger.is_closed() {
            return Err(StoreError::Trouble(Trouble::Closed).into());
        }
        let generation = self.proxy.policy.load().generation;
        if state.generation != generation || self.proxy.clock.utc() >= state.next_payment {
            self.stop_for_arrears(state);
        }
        Ok(())
    }

    fn tick(&self) -> Result<(), SettleError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        // First, and whatever becomes of the rest: a customer who has paid waits for it.
        self.stop_for_arrears(state);
        let began = self.proxy.clock.mono();
        if began < state.next_pass && self.proxy.clock.utc() < state.next_seal {
            return Ok(());
        }
        let done = self.pass(state);
        let ended = self.proxy.clock.mono();
        let pause = (ended.since(began) * PASS_SHARE).clamp(PASS_EVERY, PASS_AT_LATEST);
        state.next_pass = began.plus(pause);
        done
    }

    fn pass(&self, state: &mut State) -> Result<(), SettleError> {
        let policy = self.proxy.policy.load_full();
        let reader = Reader::open(self.proxy.ledger.path())?;
        let now = self.proxy.clock.utc();
        let zone = &policy.catalog.time_zone;
        state.next_seal = next_seal(now, zone);
        let last_seal = reader.last_day()?;
        let mut settled = Ok(());
        if self.believes(state, now) {
            settled = self
                .seal_days(&reader, zone, now)
                .and_then(|()| self.settle_due(&reader, &policy, state, now));
            settled = settled.and(self.prune(&reader, zone, state, now));
        }
        // Whatever hinders a settlement is no reason not to tell a customer that a pack runs out.
        let raised = self.raise_notices(&reader, &policy, state, last_seal, now);
        settled.and(raised)
    }

    /// What is settled stays so: a wall clock that was moved is not believed before it has gone on for an hour.
    fn believes(&self, state: &mut State, now: Utc) -> bool {
        let mono = self.proxy.clock.mono();
        let (last_mono, last_utc) = std::mem::replace(&mut state.clocks, (mono, now));
        if now.since(last_utc) > mono.since(last_mono) + MOVED {
            tracing::warn!(
                "the wall clock was moved forward: nothing is sealed, settled or deleted for an hour"
            );
            state.doubtful_until = mono.plus(Duration::from_secs(3_600));
        }
        mono >= state.doubtful_until
    }

    fn settle_due(
        &self,
        reader: &Reader,
        policy: &Policy,
        state: &mut State,
        now: Utc,
    ) -> Result<(), SettleError> {
        let zone = &policy.catalog.time_zone;
        let mut settled = Ok(());
        while settled.is_ok()
            && let Some(month) = due(reader, zone, now)?
        {
            state.debits_are_stale = true;
            settled = self.settle(reader, policy, state, month, now);
        }
        if state.debits_are_stale {
            state.debits = books::debits(reader)?;
            state.debits_are_stale = false;
            self.stop_for_arrears(state);
        }
        settled
    }

    fn prune(
        &self,
        reader: &Reader,
        zone: &TimeZone,
        state: &mut State,
        now: Utc,
    ) -> Result<(), SettleError> {
        let unsettled = unsettled(reader, zone)?.unwrap_or_else(|| Month::of(now, zone));
        let (settled_until, _) = unsettled.bounds(zone);
        self.proxy
            .metrics
            .settlement_last_month
            .set(settled_until.seconds());
        let started = self.proxy.clock.mono();
        if started >= state.next_prune {
            state.next_prune = started.plus(PRUNE_EVERY);
            let keep_from = keep_from(now, self.retain, unsettled, zone);
            self.proxy.ledger.prune(keep_from);
        }
        Ok(())
    }

    /// Seals yesterday, when it has been over for long enough. Days on which the gate did not run have no seal of their
    /// own: the next one covers them.
    fn seal_days(&self, reader: &Reader, zone: &TimeZone, now: Utc) -> Result<(), SettleError> {
        let day = last_day_over(now, zone);
        let sealed = reader.last_day()?;
        if reader.last_seq()? == 0 || sealed.is_some_and(|sealed| sealed.day >= day.to_string()) {
            return Ok(());
        }
        let Seal {
            day,
            first_seq,
            last_seq,
            head,
        } = self.proxy.ledger.seal(&day.to_string())?;
        // Published: whoever keeps the log can hold the ledger to it (`tollgate verify --checkpoint`).
        tracing::info!(
            day,
            first_seq,
            last_seq,
            head = hex::encode(head),
            "sealed the day"
        );
        Ok(())
    }

    /// Fixes the statements of the month and debits them (R16). Goes on where an earlier try ended.
    fn settle(
        &self,
        reader: &Reader,
        policy: &Policy,
        state: &mut State,
        month: Month,
        now: Utc,
    ) -> Result<(), SettleError> {
        let ledger = &self.proxy.ledger;
        let catalog = &policy.catalog;
        let text = month.to_string();
        let (through_seq, head) = match reader.settlement(&text)? {
            Some(begun) => (begun.through_seq, begun.head),
            None => {
                let last_day = last_day(month, &catalog.time_zone).to_string();
                let seal = reader.first_day_from(&last_day)?;
                let Seal { last_seq, head, .. } = seal.ok_or(SettleError::Unsealed(month))?;
                ledger.keep(vec![Entry::Settlement {
                    month: text.clone(),
                    through_seq: last_seq,
                    head,
                    fixed_at: now,
                }])?;
                (last_seq, head)
            }
        };
        let books = Books {
            catalog,
            reader,
            now,
        };
        let fixed = Fixed {
            at: Local::new(now, &catalog.time_zone),
            through_seq,
            head: hex::encode(head),
        };
        let (mut failed, mut first_failure) = (0, None);
        let (mut count, mut due) = (0_u64, Decimal::ZERO);
        let mut entries = Vec::new();
        for id in books.on_the_books(policy.accounts().map(|a| &***a), month)? {
            let account = policy.account(&id);
            if account.is_none() {
                tracing::warn!(account = %id, month = text, "has calls and is not in the files any more: they are priced without its orders");
            }
            let sold = Sold {
                id: &id,
                account: account.map(|account| &***account),
            };
            self.keep_up(state)?;
            if reader.stored_statement(&text, &id)?.is_some() {
                continue;
            }
            match books.inputs(sold, month).and_then(priced) {
                Ok(inputs) => {
                    let mut statement = billing::statement(&inputs);
                    statement.fixed = Some(fixed.clone());
                    count += 1;
                    due += statement.due;
                    entries.push(Entry::Statement {
                        month: text.clone(),
                        account: id,
                        due: statement.due.to_string(),
                        inputs: json!(inputs).to_string(),
                        statement: json!(statement).to_string(),
                    });
                }
                Err(error) => {
                    failed += 1;
                    first_failure.get_or_insert(error);
                }
            }
            if entries.len() >= BATCH {
                ledger.keep(std::mem::take(&mut entries))?;
            }
        }
        ledger.keep(entries)?;
        if let Some(why) = first_failure {
            return Err(SettleError::Statements { month, failed, why });
        }
        ledger.keep(vec![Entry::Settled {
            month: text.clone(),
            at: now,
        }])?;
        let digest = books::digest(reader, month)?;
        let (_, end) = month.bounds(&catalog.time_zone);
        let settle_by = i64::from(catalog.settle_day) * 24 * 3_600_000_000;
        if now.0.saturating_sub(end.0) > settle_by {
            tracing::warn!(
                month = text,
                "settled after the catalogue's settle_day (R16): the gate was not running"
            );
        }
        tracing::info!(
            month = text,
            statements = count,
            due = %due,
            through_seq,
            head = fixed.head,
            digest = hex::encode(digest),
            "settled the month"
        );
        Ok(())
    }

    /// Stops whose balance is below zero, lets go on whose is not any more (R17).
    fn stop_for_arrears(&self, state: &mut State) {
        let policy = self.proxy.policy.load_full();
        let now = self.proxy.clock.utc();
        let mut balances = Vec::new();
        let (mut stopped, mut next_payment) = (HashSet::new(), Utc(i64::MAX));
        for (id, debited) in &state.debits {
            let Some(account) = policy.account(id) else {
                continue;
            };
            let balance = books::balance(account, *debited, now);
            if billing::in_arrears(balance) {
                stopped.insert(id.clone());
            }
            let later = account.payments.iter().map(|payment| payment.at);
            next_payment = later.filter(|at| *at > now).fold(next_payment, Utc::min);
            balances.push((id.clone(), balance.to_f64().unwrap_or(f64::NAN)));
        }
        self.proxy.metrics.set_balances(balances);
        self.proxy.gates.set_arrears(stopped);
        state.generation = policy.generation;
        state.next_payment = next_payment;
    }

    /// Looks at the packs of the accounts that called since the last pass, and writes down each notice that is due
    /// and was not yet (R14). Whoever delivers it reads it from the ledger.
    fn raise_notices(
        &self,
        reader: &Reader,
        policy: &Policy,
        state: &mut State,
        last_seal: Option<Seal>,
        now: Utc,
    ) -> Result<(), SettleError> {
        let last = reader.last_seq()?;
        let called = match state.seen {
            Some(seen) => reader.accounts_since(seen, last)?,
            // What an earlier process did not come to see was called in this month, or since the last seal.
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
            let told = books.balances(account).map_err(SettleError::from);
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
        // What ended since, by its time or by an edit, is not shown any more.
        state.packs.retain(|id, packs| {
            packs.retain(|pack| is_valid(policy, id, &pack.order, now));
            !packs.is_empty()
        });
        let shown = state.packs.values().flatten().cloned().collect();
        self.proxy.metrics.set_packs(shown);
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
                if books.reader.notice_known(&notice.id)? {
                    continue;
                }
                tracing::info!(notice = notice.id, left = notice.left, "raised a notice");
                let body = json!({
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
                raised.push(Entry::Notice {
                    id: notice.id.clone(),
                    account: account.id.clone(),
                    order: notice.order.clone(),
                    raised_at: now,
                    body: body.to_string(),
                });
            }
        }
        if !raised.is_empty() {
            self.proxy.ledger.keep(raised)?;
            self.raised.notify_one();
        }
        Ok(())
    }
}

/// A statement that leaves out what is to be charged must not be fixed.
fn priced(inputs: Inputs) -> Result<Inputs, BooksError> {
    let unpriced = inputs.groups.iter().find(|group| {
        let counted = group.intervals.iter().flat_map(|interval| &interval.calls);
        let mut calls = counted.chain(&group.late);
        let is_charged =
            |calls: &Calls| calls.mode == Mode::PerCall && calls.reason == Reason::Billable;
        group.terms.is_none() && calls.any(is_charged)
    });
    match unpriced {
        None => Ok(inputs),
        Some(group) => Err(BooksError::Misfit {
            why: format!(
                "{} is not in the catalogue, or free there, and has calls that are charged: put its terms back until the \
                 month is settled",
                group.group
            ),
            account: inputs.account,
            month: inputs.month,
        }),
    }
}

/// The oldest notices that are not marked as sent (R14).
pub fn unsent(proxy: &Proxy) -> Result<Vec<Unsent>, SettleError> {
    let reader = Reader::open(proxy.ledger.path())?;
    let stored = reader.unsent_notices(UNSENT)?;
    // Its id ends with the threshold.
    let threshold = |id: &str| id.rsplit('/').next().and_then(Threshold::parse);
    Ok(stored
        .into_iter()
        .map(|notice| Unsent {
            threshold: threshold(&notice.id).unwrap_or(Threshold::Low),
            id: notice.id,
            account: notice.account,
            body: notice.body,
        })
        .collect())
}

/// Marks a notice as sent.
pub fn sent(proxy: &Proxy, id: &str) -> Result<(), SettleError> {
    let at = proxy.clock.utc();
    let id = id.to_owned();
    Ok(proxy.ledger.keep(vec![Entry::NoticeSent { id, at }])?)
}

/// The oldest month that is not settled; `None` before the first call.
fn unsettled(reader: &Reader, zone: &TimeZone) -> Result<Option<Month>, SettleError> {
    Ok(match reader.last_settled()? {
        Some(settled) => Month::parse(&settled.month).ok().map(Month::next),
        None => reader.first_admitted()?.map(|first| Month::of(first, zone)),
    })
}

/// The oldest month that is not settled, when it has been over for long enough.
fn due(reader: &Reader, zone: &TimeZone, now: Utc) -> Result<Option<Month>, SettleError> {
    let is_over = |month: &Month| month.bounds(zone).1.0.saturating_add(GRACE_US) <= now.0;
    Ok(unsettled(reader, zone)?.filter(is_over))
}

/// The first instant whose records must stay: within `retain`, and never in the running month, in the one
/// before, which may be disputed (R16), or in one that is not settled.
fn keep_from(now: Utc, retain: Duration, unsettled: Month, zone: &TimeZone) -> Utc {
    let retained = now
        .0
        .saturating_sub(i64::try_from(retain.as_micros()).unwrap_or(i64::MAX));
    let stays = Month::of(now, zone).previous().min(unsettled);
    let (stays, _) = stays.bounds(zone);
    Utc(retained).min(stays)
}

/// When the running day can be sealed.
fn next_seal(now: Utc, zone: &TimeZone) -> Utc {
    let next = last_day_over(now, zone).checked_add(jiff::Span::new().days(2));
    let midnight = next.and_then(|day| day.to_zoned_datetime(zone.clone()));
    midnight.map_or(Utc(i64::MAX), |midnight| {
        Utc(midnight.timestamp().as_microsecond() + GRACE_US)
    })
}

/// The newest day that has been over for long enough.
fn last_day_over(now: Utc, zone: &TimeZone) -> Date {
    let then = Utc(now.0.saturating_sub(GRACE_US));
    let today = local_date(then, zone);
    today.yesterday().unwrap_or(today)
}

/// The day on which a month ends.
fn last_day(month: Month, zone: &TimeZone) -> Date {
    let (_, until) = month.bounds(zone);
    local_date(Utc(until.0 - 1), zone)
}

fn local_date(at: Utc, zone: &TimeZone) -> Date {
    let at = jiff::Timestamp::from_microsecond(at.0).unwrap_or_default();
    at.to_zoned_datetime(zone.clone()).date()
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

/// What the metric shows of an account's packs, and until when. An order that is used up is shown while it is the last:
/// once another one covers the calls, nobody needs to be told.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Utc {
        Utc(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn records_of_an_unsettled_month_stay_however_short_they_are_retained() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let month = |text| Month::parse(text).unwrap();
        let day = Duration::from_secs(86_400);
        // The 1st in Shanghai, still the 30th in UTC: November's predecessor in Shanghai is October.
        let now = utc("2026-10-31T16:00:00Z");
        let settled = month("2026-11");
        assert_eq!(
            keep_from(now, day, settled, &zone),
            utc("2026-09-30T16:00:00Z")
        );
        let long = keep_from(now, 100 * day, settled, &zone);
        assert_eq!(long, utc("2026-07-23T16:00:00Z"));
        let late = keep_from(now, day, month("2026-08"), &zone);
        assert_eq!(late, utc("2026-07-31T16:00:00Z"));
    }

    #[test]
    fn a_day_is_sealed_an_hour_after_its_end_by_the_providers_clock() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let last = |now| last_day_over(utc(now), &zone).to_string();
        assert_eq!(last("2026-11-30T16:59:59Z"), "2026-11-29");
        assert_eq!(last("2026-11-30T17:00:00Z"), "2026-11-30");
        for now in ["2026-11-30T16:59:59Z", "2026-11-30T08:00:00Z"] {
            assert_eq!(next_seal(utc(now), &zone), utc("2026-11-30T17:00:00Z"));
        }
        assert_eq!(
            next_seal(utc("2026-11-30T17:00:00Z"), &zone),
            utc("2026-12-01T17:00:00Z")
        );
        let november = Month::parse("2026-11").unwrap();
        assert_eq!(last_day(november, &zone).to_string(), "2026-11-30");
    }
}
