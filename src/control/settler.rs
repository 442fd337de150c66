//! What comes back to the gate from the bills. Days are sealed, months are settled, events are
//! raised, and an account whose balance is below zero is stopped (R14, R16, R17).
//!
//! Owns when these happen and in which order. Must never hold up a call, debit a month twice, or
//! change a statement that was fixed.
//!
//! Every step asks the ledger what was done before, and does what is missing. So a process that
//! ends in the midst of it loses nothing: the next tick, or the next process, goes on.
//!
//! A gate that is one of several replicas (`admission.store`) knows a part of the calls: it seals its
//! days, and does nothing else of the above (see `replica`).
//!
//! As long as the wall clock is not trusted (see `trust`) nothing is sealed, settled or deleted. A
//! stopped account stays so, a paying one goes on, and events are raised, save those of an end that
//! comes. A clock that is behind stops nobody for arrears: payments count up to the latest instant
//! that a trusted one has shown.
//!
//! # Decided
//! - **What is settled is not undone by anybody's mistake.** A wall clock is not believed before it
//!   has kept step with the monotonic one for an hour. (The kernel's NTP flag is not asked:
//!   sandboxes block the call, and many machines never set it.) A catalogue's `time_zone` cannot
//!   change once months were settled by it. A group with calls to charge but without prices is not
//!   fixed.

mod ending;
mod outbox;
mod packs;
mod pass;
mod raise;
mod replica;
mod sources;
mod standing;
mod statements;
mod tell_clock;
mod tell_gates;
mod tell_standing;
mod trust;

use crate::billing::books::{AccountRef, Books};
use crate::billing::{self, SettleError, balances, newest, told};
use crate::config::EventSettings;
use crate::control::settler::standing::{Standing, ToldStandings};
use crate::control::settler::tell_clock::{tell_ahead, tell_trust};
use crate::control::settler::trust::Trust;
use crate::control::standing::Standings;
use crate::ledger::{Entry, StoreError, Trouble};
use crate::metrics::PackFigures;
use crate::model::{AccountId, Mono, Month, Stop, Utc, run_low_priority};
use crate::proxy::Shared;
use crate::proxy::policy::Policy;
use parking_lot::Mutex;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The target of the log lines that are evidence: a sealed day's head, a settled month's digest.
/// A kept log holds the ledger to them, so they are written at every level.
pub(crate) const EVIDENCE: &str = "tollgate::evidence";
/// How often it is looked whether something is to be done at all.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// From the start of one pass over the accounts that called to the start of the next, at least.
const PASS_EVERY: Duration = Duration::from_secs(10);
/// A pass takes at most one part in so many of the time.
const PASS_SHARE: u32 = 20;
/// But it is not waited longer than this.
const PASS_AT_LATEST: Duration = Duration::from_secs(300);
/// How often what was seen of the clocks is kept.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// Names the machine's boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How often old records are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// The one who settles. There is one ledger, one writer and one of these.
pub(crate) struct Settler {
    shared: Arc<Shared>,
    /// Months are fixed and debited here. `false` of one of several replicas.
    settles: bool,
    /// What is told to the webhook; `None` without one.
    events: Option<EventSettings>,
    /// Tells the delivery of events that there is one.
    raised: Arc<Notify>,
    /// How long records are kept at least.
    retain: Duration,
    trust: Mutex<Trust>,
    /// The accounts whose entries a reload changed, until the next pass looks at them.
    entered: Mutex<BTreeSet<AccountId>>,
    /// The standing of the accounts, for the gates whose records are collected here.
    standings: watch::Sender<Arc<Standings>>,
    /// Days, months and events may come of this ledger now. Not in a collector that does not know yet
    /// whom it waits for, or while another one works.
    may_close: AtomicBool,
    state: Mutex<SettlerState>,
}

struct SettlerState {
    /// The sums that settlements have debited, by account.
    debits: HashMap<AccountId, Decimal>,
    /// The newest month that is in these sums.
    debited: Option<String>,
    /// More may have been debited since.
    debits_are_stale: bool,
    /// What late entries take back, of the accounts that it decides about (R17). Read anew with
    /// each generation, and when a month was fixed or debited.
    credits: HashMap<AccountId, Decimal>,
    /// The generation whose payments were last counted.
    generation: u64,
    /// When a payment that is entered already begins to count.
    next_payment: Utc,
    /// The next pass over days, months and events, by its time.
    next_pass: Mono,
    /// When a day can be sealed or a month be debited: no time to wait for a pass.
    next_seal: Utc,
    next_prune: Mono,
    next_keep: Mono,
    /// The month that waits because nothing but the clock says that it is over; for the log.
    waiting: Option<Month>,
    /// The month that waits for ledgers that have not passed its end; for the log.
    held_up: Option<Month>,
    /// The newest seq that the last pass saw; `None` before the first.
    seen: Option<u64>,
    /// Accounts that the last pass could not look at.
    unseen: BTreeSet<AccountId>,
    /// The rests of the packs of the accounts that called.
    packs: BTreeMap<AccountId, Vec<PackFigures>>,
    /// The accounts that were debited.
    standings: HashMap<AccountId, Standing>,
    /// What was told of these; `None` before it was read.
    told: Option<ToldStandings>,
    /// The settled month whose statements are told.
    told_month: Option<String>,
    /// The ids of the events of ends to come that need no other look.
    ends: HashSet<String>,
}

impl SettlerState {
    /// Before the first pass.
    fn new(debits: HashMap<AccountId, Decimal>, debited: Option<String>) -> Self {
        Self {
            debits,
            debited,
            debits_are_stale: false,
            credits: HashMap::new(),
            generation: 0,
            next_payment: Utc(i64::MAX),
            next_pass: Mono::default(),
            next_seal: Utc(i64::MAX),
            next_prune: Mono::default(),
            next_keep: Mono::default(),
            waiting: None,
            held_up: None,
            seen: None,
            unseen: BTreeSet::new(),
            packs: BTreeMap::new(),
            standings: HashMap::new(),
            told: None,
            told_month: None,
            ends: HashSet::new(),
        }
    }
}

impl Settler {
    /// Reads what was debited and stops who is in arrears: to be called before the first call is
    /// accepted.
    pub(crate) fn start(
        shared: Arc<Shared>,
        settles: bool,
        retain: Duration,
        events: Option<EventSettings>,
        raised: Arc<Notify>,
    ) -> Result<Self, SettleError> {
        let reader = shared.ledger.reader()?;
        let zone = &shared.policy.load().catalog.time_zone;
        billing::check_time_zone(&reader, zone)?;
        let both = shared.clock.both();
        let boot = std::fs::read_to_string(BOOT_ID).ok();
        let kept = reader.clock_watch()?;
        let told = [told(&reader, zone)?, kept.as_ref().map(trust::vouched)];
        told.into_iter().flatten().for_each(|at| shared.vouch(at));
        let trust = Trust::start(
            kept,
            boot.map(|boot| boot.trim().to_owned()),
            both,
            newest(&reader, zone)?,
        );
        tell_ahead(&reader, zone, both.1)?;
        shared
            .metrics
            .on_no_statement
            .set(gauge(billing::calls_on_none(&reader, zone, None)?));
        let debits = match settles {
            true => balances::debits(&reader)?,
            false => HashMap::new(),
        };
        let state = SettlerState::new(debits, balances::last_debited(&reader)?);
        let settler = Self {
            trust: Mutex::new(trust),
            state: Mutex::new(state),
            entered: Mutex::default(),
            standings: watch::Sender::default(),
            may_close: AtomicBool::new(true),
            shared,
            settles,
            retain,
            events,
            raised,
        };
        settler.look();
        if !settles {
            settler.tell_what_rests(&reader)?;
        }
        if !settler.trust.lock().is_trusted() {
            tell_trust(false);
        }
        settler.stop_for_arrears(&mut settler.state.lock());
        Ok(settler)
    }

    /// Has the next pass look at these accounts, whether or not they call: an order may be low from
    /// its entry.
    pub(crate) fn look_at(&self, accounts: impl IntoIterator<Item = AccountId>) {
        // A replica looks at no orders.
        if self.settles {
            self.entered.lock().extend(accounts);
        }
    }

    /// Whether days, months and events may come of this ledger from here on. Blocks.
    pub(in crate::control) fn let_close(&self, may_close: bool) {
        if self.may_close.swap(may_close, Ordering::SeqCst) != may_close {
            // The last pass may have been no more than a look.
            self.state.lock().next_pass = Mono::default();
            // Events that wait go out now.
            self.raised.notify_one();
        }
    }

    /// Whether days, months and events may come of this ledger now.
    pub(in crate::control) fn may_close(&self) -> bool {
        self.may_close.load(Ordering::SeqCst)
    }

    /// Whether the wall clock is trusted now.
    pub(in crate::control) fn clock_is_trusted(&self) -> bool {
        self.trust.lock().is_trusted()
    }

    /// Looks each second whether something is to be done, and does it. Runs until it is dropped, or
    /// until the ledger is closed.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut told = String::new();
        loop {
            self.shared.clock.sleep(LOOK_EVERY).await;
            if !self.has_work() {
                continue;
            }
            let settler = self.clone();
            let done =
                tokio::task::spawn_blocking(move || run_low_priority(|| settler.tick())).await;
            let failure = match done {
                Ok(Ok(())) => String::new(),
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panic.to_string(),
            };
            if !failure.is_empty() && self.shared.ledger.is_closed() {
                // The process ends: the next one goes on with what is missing.
                return;
            }
            if !failure.is_empty() {
                self.shared.metrics.settlement_failures.inc();
            }
            if !failure.is_empty() && failure != told {
                // Told once: it is tried in each pass.
                tracing::error!("settling: {failure}; trying again");
            }
            told = failure;
        }
    }

    fn has_work(&self) -> bool {
        self.look();
        let state = self.state.lock();
        let (clock, policy) = (&self.shared.clock, self.shared.policy.load());
        state.generation != policy.generation
            || clock.utc() >= state.next_payment
            || clock.mono() >= state.next_pass
            || clock.mono() >= state.next_keep
            || clock.utc() >= state.next_seal
    }

    /// Looks at both clocks and gives the wall clock's instant, by which the rest is judged.
    fn look(&self) -> Utc {
        let mut trust = self.trust.lock();
        let (both, trusted) = (self.shared.clock.both(), trust.is_trusted());
        if let Some(seconds) = trust.look(both) {
            tracing::warn!(
                seconds,
                "the wall clock was moved: nothing is sealed, settled or deleted before it has kept step with the monotonic clock for an hour"
            );
            // The limit to delete by was set by the clock that is doubted now.
            self.shared.ledger.prune(Utc(i64::MIN));
        } else if trust.is_trusted() != trusted {
            tell_trust(!trusted);
        }
        if trust.is_trusted() {
            self.shared.vouch(both.1);
        }
        let metrics = &self.shared.metrics;
        metrics.clock_trusted.set(i64::from(trust.is_trusted()));
        both.1
    }

    /// Keeps what was seen of the clocks for the next start.
    fn keep_clock(&self, state: &mut SettlerState) -> Result<(), SettleError> {
        let mono = self.shared.clock.mono();
        if mono < state.next_keep {
            return Ok(());
        }
        state.next_keep = mono.plus(KEEP_EVERY);
        let reader = self.shared.ledger.reader()?;
        let zone = &self.shared.policy.load().catalog.time_zone;
        let newest = newest(&reader, zone)?;
        let watch = self.trust.lock().keep(newest);
        Ok(self.shared.ledger.keep(vec![Entry::Clock(watch)])?)
    }

    /// Keeps what was seen of the clocks to the end, for the next start. To be called before the
    /// ledger is closed; blocks.
    pub(crate) fn end(&self) -> Result<(), SettleError> {
        self.look();
        let watch = self.trust.lock().keep(Utc(i64::MIN));
        Ok(self.shared.ledger.keep(vec![Entry::Clock(watch)])?)
    }

    /// Long work does not hold up a customer who has paid meanwhile, nor the end of the process.
    fn keep_up(&self, state: &mut SettlerState) -> Result<(), SettleError> {
        let ledger = &self.shared.ledger;
        if !ledger.healthy() {
            // Rows that are read now may not be on the disk, and a reader holds up its repair.
            let trouble = match ledger.is_closed() {
                true => Trouble::Closed,
                false => Trouble::Failing,
            };
            return Err(StoreError::Trouble(trouble).into());
        }
        let generation = self.shared.policy.load().generation;
        if state.generation != generation || self.shared.clock.utc() >= state.next_payment {
            self.stop_for_arrears(state);
        }
        Ok(())
    }

    fn tick(&self) -> Result<(), SettleError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        // First, and whatever becomes of the rest: a customer who has paid waits for it.
        self.stop_for_arrears(state);
        let told = match self.may_close() {
            true => self.tell_standing(state),
            false => Ok(()),
        };
        let kept = self.keep_clock(state).and(told);
        let began = self.shared.clock.mono();
        if began < state.next_pass && self.shared.clock.utc() < state.next_seal {
            return kept;
        }
        let done = self.pass(state).and(kept);
        // A settlement has debited accounts.
        let done = done.and(self.tell_standing(state));
        let ended = self.shared.clock.mono();
        let pause = (ended.since(began) * PASS_SHARE).clamp(PASS_EVERY, PASS_AT_LATEST);
        state.next_pass = began.plus(pause);
        done
    }

    /// Stops whose balance is below zero, lets go on whose is not any more (R17).
    fn stop_for_arrears(&self, state: &mut SettlerState) {
        let policy = self.shared.policy.load_full();
        if !self.settles {
            self.stop_as_heard(&policy);
            state.generation = policy.generation;
            return;
        }
        let paid_by = self.shared.paid_by();
        if state.generation != policy.generation {
            state.credits.clear();
        }
        let mut balances = Vec::new();
        let (mut stopped, mut next_payment) = (HashSet::new(), Utc(i64::MAX));
        let mut standings = HashMap::new();
        let adjusted = policy.accounts();
        let adjusted = adjusted.filter(|account| !account.adjustments.is_empty());
        let adjusted = adjusted.filter(|account| !state.debits.contains_key(&account.id));
        let adjusted = adjusted.map(|account| (account.id.clone(), Decimal::ZERO));
        let debits: Vec<_> = adjusted
            .chain(state.debits.iter().map(|(id, debit)| (id.clone(), *debit)))
            .collect();
        for (id, debited) in debits {
            let account = policy.account(&id).map(|account| &***account);
            let balance = balances::balance(account, debited, paid_by);
            let credits = || Ok::<_, Infallible>(self.credits(state, &policy, &id));
            let Ok(in_arrears) = balances::in_arrears(account, balance, credits);
            if in_arrears {
                stopped.insert(id.clone());
            }
            let payments = account.into_iter().flat_map(|account| &account.payments);
            let adjustments = account.into_iter().flat_map(|account| &account.adjustments);
            let begins = payments.map(|payment| payment.at);
            let later = begins.chain(adjustments.map(|adjustment| adjustment.at));
            let later = later.filter(|at| *at > paid_by);
            next_payment = later.fold(next_payment, Utc::min);
            let standing = Standing {
                balance,
                in_arrears,
            };
            standings.insert(id.clone(), standing);
            balances.push((id, balance.to_f64().unwrap_or(f64::NAN)));
        }
        let in_arrears = stopped.len() + stopped_by_files(&policy, &stopped);
        self.shared.metrics.set_balances(balances, in_arrears);
        self.shared.limiters.set_arrears(stopped);
        let is_told =
            state.standings == standings && self.standings.borrow().debited == state.debited;
        state.standings = standings;
        if !is_told {
            self.publish(state);
        }
        state.generation = policy.generation;
        state.next_payment = next_payment;
    }
}

impl Settler {
    /// Stops who is in arrears as the collector last said: nobody when it has said nothing.
    fn stop_as_heard(&self, policy: &Policy) {
        let heard = self.shared.stop_as_heard();
        let stopped = heard.as_ref().map(|heard| &heard.stopped);
        let none = HashSet::new();
        let stopped = stopped.unwrap_or(&none);
        let in_arrears = stopped.len() + stopped_by_files(policy, stopped);
        self.shared.metrics.set_balances(Vec::new(), in_arrears);
    }

    /// What late entries take back of the account's debts (R17). Nothing when it cannot be read.
    fn credits(&self, state: &mut SettlerState, policy: &Policy, id: &AccountId) -> Decimal {
        if let Some(known) = state.credits.get(id) {
            return *known;
        }
        let read = || {
            let reader = &self.shared.ledger.reader()?;
            let books = Books {
                catalog: &policy.catalog,
                reader,
                now: self.shared.clock.utc(),
            };
            let account = policy.account(id).map(|account| &***account);
            Ok::<_, SettleError>(books.credits(AccountRef { id, account })?)
        };
        match read() {
            Ok(credits) => {
                state.credits.insert(id.clone(), credits);
                credits
            }
            Err(error) => {
                tracing::warn!(account = %id, "what late entries take back of its debts is not known: {error}");
                Decimal::ZERO
            }
        }
    }
}

/// The accounts that the files stop for arrears, those in `others` left out.
fn stopped_by_files(policy: &Policy, others: &HashSet<AccountId>) -> usize {
    let by_the_files = policy.accounts().filter(|account| {
        let mut services = account.services.iter();
        services.any(|service| service.stopped == Some(Stop::Arrears))
            && !others.contains(&account.id)
    });
    by_the_files.count()
}

fn gauge(calls: u64) -> i64 {
    i64::try_from(calls).unwrap_or(i64::MAX)
}
