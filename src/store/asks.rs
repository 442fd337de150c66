//! The calls of one limiter on one replica that wait for the store. Pure.
//!
//! Owns when a question is asked, for how many calls, and what each of them gets. Must never have
//! two questions in flight, let more calls wait than its bound, or let one wait for ever.
//!
//! # Decided
//! - **Coalesce**: one question in flight; it carries the number of calls that wait, and those that
//!   come meanwhile join the next one. A flood then costs the store a question a round trip.
//! - **Calm**: after a question of which nothing was granted the next one waits 5, 10, 20, then
//!   25 ms, and the calls wait too. Another replica was faster, and a question a round trip would
//!   find the same again. A client that is alone never meets it.
//! - **A call that waited for the store and was over the cap is throttled; unavailable is what the
//!   store did not decide.**

use crate::model::Mono;
use crate::store::{Grant, Heard};
use std::collections::VecDeque;
use std::time::Duration;

/// The most calls of one question: many short scripts serve all limiters better than a long one.
const MOST_ASKED: usize = 64;

/// So many calls may wait for any quota. Above it as many as the quota: a client may send all its
/// calls of a second at once (P2).
const WAITING: u32 = 256;

/// Between questions of which nothing was granted.
const CALM_MS: [u64; 4] = [5, 10, 20, 25];

/// Between questions that were not answered. The first one asks again at once.
const AGAIN_MS: [u64; 5] = [0, 5, 10, 20, 40];

/// The calls that wait; `W` is a handle of one, by which it is told what it gets.
#[derive(Debug)]
pub(crate) struct Asks<W> {
    max_delay: Duration,
    /// The quota in force and the epoch of the store when the last call came.
    quota: u32,
    epoch: i64,
    waiting: VecDeque<(Mono, W)>,
    /// The question in flight.
    in_flight: Option<InFlight>,
    /// Calls before this instant are throttled without a question, under `quota`.
    not_before: Mono,
    /// Questions in a row of which nothing was granted, after how long the last one said that a
    /// start comes, and until when the next question waits for it.
    refusals: usize,
    retry_after: Duration,
    calm_until: Mono,
    /// The next question waits until this instant, for the store does not answer or holds.
    resume: Mono,
    /// Questions in a row that were not answered.
    misses: usize,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    n: usize,
    quota: u32,
}

/// What a call gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// It starts. The count is how many further calls could start beside it.
    Start(Grant, u32),
    /// It is over the cap; a client that calls alone and comes back after this time is admitted.
    Throttled(Duration),
    /// The store did not decide in time.
    Unavailable,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NextAsk {
    /// Ask now for so many starts under this quota; [`Asks::answered`] must follow.
    Ask {
        /// The number of calls.
        n: u16,
        /// The quota in force when the last of them came.
        quota: u32,
    },
    /// Come back at this instant, or after the next arrival.
    Wait(Mono),
    /// Nobody waits, or a question is in flight.
    Idle,
}

impl<W> Asks<W> {
    /// Of a limiter whose calls may wait for `max_delay`.
    pub(crate) fn new(max_delay: Duration) -> Self {
        Self {
            max_delay,
            quota: 0,
            epoch: 0,
            waiting: VecDeque::new(),
            in_flight: None,
            not_before: Mono(0),
            refusals: 0,
            retry_after: Duration::ZERO,
            calm_until: Mono(0),
            resume: Mono(0),
            misses: 0,
        }
    }

    /// A call that came at `now`, while `quota` was in force: it waits from now on, or is told at
    /// once. After it ask [`Asks::next`].
    pub(crate) fn arrive(&mut self, now: Mono, quota: u32, call: W) -> Result<(), (W, Told)> {
        if quota != self.quota {
            self.quota = quota;
            self.terms_changed();
        }
        if now < self.not_before {
            let left = self.not_before.since(now);
            return Err((call, Told::Throttled(left.saturating_add(self.max_delay))));
        }
        let bound = usize::try_from(quota.max(WAITING)).unwrap_or(usize::MAX);
        if self.waiting.len() >= bound {
            return Err((call, self.over()));
        }
        self.waiting.push_back((now, call));
        Ok(())
    }

    /// The store is in this epoch: what was refused in one before says nothing.
    pub(crate) fn in_epoch(&mut self, epoch: i64) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.terms_changed();
        }
    }

    /// The terms of the limiter are others: what was refused under those before may start now.
    pub(crate) fn terms_changed(&mut self) {
        self.not_before = Mono(0);
        self.calm_until = Mono(0);
        self.refusals = 0;
    }

    /// What comes next, and the calls that waited for too long with what they get.
    pub(crate) fn next(&mut self, now: Mono) -> (NextAsk, Vec<(W, Told)>) {
        if self.in_flight.is_some() {
            return (NextAsk::Idle, Vec::new());
        }
        let late = self
            .waiting
            .partition_point(|(came, _)| now.since(*came) > self.max_delay);
        let over = self.over();
        let gone = self.waiting.drain(..late).map(|(_, call)| (call, over));
        let gone = gone.collect();
        let Some((oldest, _)) = self.waiting.front() else {
            return (NextAsk::Idle, gone);
        };
        let resume = self.resume.max(self.calm_until);
        if now < resume {
            let gives_up = oldest.plus(self.max_delay).plus(Duration::from_nanos(1));
            return (NextAsk::Wait(resume.min(gives_up)), gone);
        }
        let n = self.waiting.len().min(MOST_ASKED);
        let quota = self.quota;
        self.in_flight = Some(InFlight { n, quota });
        let n = u16::try_from(n).unwrap_or(u16::MAX);
        (NextAsk::Ask { n, quota }, gone)
    }

    /// The question in flight was answered, or not: what the calls get, of which some may wait on.
    /// After it ask [`Asks::next`].
    pub(crate) fn answered(&mut self, now: Mono, heard: Heard) -> Vec<(W, Told)> {
        let Some(asked) = self.in_flight.take() else {
            return Vec::new();
        };
        match heard {
            Heard::Grants {
                grants,
                retry_after,
                not_before,
                left,
            } => {
                self.misses = 0;
                let granted = grants.len().min(asked.n).min(self.waiting.len());
                let starts = grants.into_iter().map(|grant| Told::Start(grant, left));
                let calls = self.waiting.drain(..granted).map(|(_, call)| call);
                let mut told: Vec<(W, Told)> = calls.zip(starts).collect();
                match (retry_after, not_before) {
                    (Some(retry_after), Some(not_before)) => {
                        let refused = self.refused(now, asked, granted, retry_after, not_before);
                        told.extend(refused);
                    }
                    _ => self.refusals = 0,
                }
                told
            }
            Heard::AskAgain(_) => {
                self.resume = now.plus(step(&AGAIN_MS, self.misses));
                self.misses += 1;
                self.refusals = 0;
                Vec::new()
            }
            Heard::Silent(silent) => {
                self.terms_changed();
                self.misses = 0;
                self.resume = silent.until;
                // The last milliseconds of a silence are waited for.
                let ends = silent.until;
                let too_early = |came: Mono| came.plus(self.max_delay) < ends;
                let gone = self.waiting.partition_point(|(came, _)| too_early(*came));
                let gone = self.waiting.drain(..gone);
                gone.map(|(_, call)| (call, Told::Unavailable)).collect()
            }
        }
    }

    /// The store decided that the start of the next call is too far away.
    fn refused(
        &mut self,
        now: Mono,
        asked: InFlight,
        granted: usize,
        retry_after: Duration,
        not_before: Mono,
    ) -> Vec<(W, Told)> {
        let mut refused = asked.n - granted;
        if asked.quota == self.quota {
            self.not_before = not_before;
            self.retry_after = retry_after;
            if now < not_before {
                refused = self.waiting.len();
            }
            self.refusals = match granted {
                0 => self.refusals + 1,
                _ => 0,
            };
            if let Some(nth) = self.refusals.checked_sub(1) {
                self.calm_until = now.max(not_before).plus(step(&CALM_MS, nth));
            }
        }
        let refused = self.waiting.drain(..refused.min(self.waiting.len()));
        refused
            .map(|(_, call)| (call, Told::Throttled(retry_after)))
            .collect()
    }

    /// What a call gets that cannot wait on.
    fn over(&self) -> Told {
        match self.refusals {
            0 => Told::Unavailable,
            _ => Told::Throttled(self.retry_after),
        }
    }
}

/// The nth pause, the last one for ever.
fn step(pauses_ms: &[u64], nth: usize) -> Duration {
    let pause_ms = pauses_ms.get(nth).or(pauses_ms.last());
    Duration::from_millis(pause_ms.copied().unwrap_or_default())
}
