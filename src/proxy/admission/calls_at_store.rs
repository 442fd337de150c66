//! The calls of one limiter that wait for the shared store.
//!
//! Owns who waits, and whether a task asks for them. Must never ask itself, nor have two tasks ask.

use crate::model::{Mode, Mono};
use crate::proxy::admission::SECOND;
use crate::store::{Asks, Heard, NextAsk, NoAnswer, Told};
use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// What a call wants of the store: a start under the quota in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// When the call was decided here.
    pub now: Mono,
    /// The quota in force.
    pub quota: u32,
    /// How the account is charged.
    pub mode: Mode,
    /// The epoch of the store, as far as it is known.
    pub epoch: i64,
}

/// The calls of one limiter that wait for the store.
#[derive(Debug)]
pub(super) struct CallsAtStore {
    /// The limiter's name at the store.
    name: Box<str>,
    state: Mutex<Waiting>,
    /// A call came, or the terms changed.
    changed: Notify,
}

#[derive(Debug)]
struct Waiting {
    asks: Asks<oneshot::Sender<Told>>,
    /// A task asks for them.
    is_asked: bool,
    /// When a start was granted last, and how many would have fitted beside it.
    left: Option<(Mono, u32)>,
}

impl CallsAtStore {
    pub(super) fn new(name: Box<str>, max_delay: Duration) -> Self {
        Self {
            name,
            state: Mutex::new(Waiting {
                asks: Asks::new(max_delay),
                is_asked: false,
                left: None,
            }),
            changed: Notify::new(),
        }
    }

    /// What was refused under the terms before may start now.
    pub(super) fn terms_changed(&self) {
        self.state.lock().asks.terms_changed();
        self.changed.notify_one();
    }

    /// How many calls could start at `now` under `quota`, as far as this replica has heard.
    pub(super) fn left(&self, now: Mono, quota: u32) -> u32 {
        match self.state.lock().left {
            Some((at, left)) if now < at.plus(SECOND) => left.min(quota),
            _ => quota,
        }
    }

    /// Takes a call in. Whether a task must be made that asks.
    pub(super) fn arrive(&self, wish: Wish, call: oneshot::Sender<Told>) -> Result<bool, Told> {
        let mut state = self.state.lock();
        state.asks.in_epoch(wish.epoch);
        let arrived = state.asks.arrive(wish.now, wish.quota, call);
        arrived.map_err(|(_, told)| told)?;
        let must_ask = !std::mem::replace(&mut state.is_asked, true);
        drop(state);
        if !must_ask {
            self.changed.notify_one();
        }
        Ok(must_ask)
    }

    /// What comes next. The task ends when it is told that nobody waits.
    pub(super) fn next(&self, now: Mono) -> NextAsk {
        let mut state = self.state.lock();
        let (next, gone) = state.asks.next(now);
        if next == NextAsk::Idle {
            state.is_asked = false;
        }
        drop(state);
        tell(gone);
        next
    }

    /// The limiter's name at the store.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Ends when a call comes, or the terms change.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The task ends with its worker, perhaps in the midst of a question: the next call makes another.
    pub(super) fn nobody_asks(&self, now: Mono) {
        let mut state = self.state.lock();
        // Under one lock: a call that came between the two would wait for a task that is gone.
        state.is_asked = false;
        let told = state
            .asks
            .answered(now, Heard::AskAgain(NoAnswer::Unanswered));
        drop(state);
        tell(told);
    }

    /// The question in flight was answered, or not.
    pub(super) fn answered(&self, now: Mono, heard: Heard) {
        let mut state = self.state.lock();
        if let Heard::Grants { grants, left, .. } = &heard {
            let left = if grants.is_empty() { 0 } else { *left };
            state.left = Some((now, left));
        }
        let told = state.asks.answered(now, heard);
        drop(state);
        tell(told);
    }
}

/// A call that is gone keeps its start spent, as one does that hangs up while it waits for it.
fn tell(calls: Vec<(oneshot::Sender<Told>, Told)>) {
    for (call, told) in calls {
        let _ = call.send(told);
    }
}
