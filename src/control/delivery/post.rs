//! The delivery: which events are tried now, and what becomes of each.
//!
//! Must never try two events of an account at a time.
//!
//! # Decided
//! - **An event that fails holds its own account and no other**: within an account the order
//!   matters, and one text that a receiver cannot read must not silence the rest. The status
//!   decides: one that may have been taken is sent again with the same id.

use crate::control::delivery::client::{NotDelivered, Webhook};
use crate::control::delivery::outbox::{NotTaken, Outbox, Unsent};
use crate::control::delivery::pace::{Failing, PACE, RetryPace};
use crate::metrics::{EventOutcome, Metrics};
use crate::model::{Clock, Mono};
use futures_util::StreamExt;
use futures_util::future::ready;
use futures_util::stream;
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Accounts that are served side by side (ours). A month of 100,000 statements goes out in minutes,
/// and a receiver is not run over.
const SIDE_BY_SIDE: usize = 8;
/// A list that takes longer than this to go through is read again, because a new event may have
/// joined it.
const LIST_AGE: Duration = Duration::from_secs(1);
/// A receiver that is down is in the log this often, however many events wait for it.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Delivers events for as long as it is polled; dropping it is safe at any time.
///
/// `raised` says that there is a new event; without it one is found within a minute.
///
/// An event is sent until the webhook takes it or the outbox gives it up, and again when the
/// process ends before it is marked: at least once. The later events of an account wait for the
/// earlier ones.
pub(crate) async fn deliver(
    webhook: Webhook,
    metrics: Arc<Metrics>,
    clock: Clock,
    raised: Arc<Notify>,
    outbox: Arc<impl Outbox>,
) {
    let post = Post {
        webhook,
        metrics,
        clock,
        pace: PACE,
    };
    post.run(raised, outbox).await;
}

pub(super) struct Post {
    pub(super) webhook: Webhook,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) pace: RetryPace,
}

/// What is known of the failures of this process.
#[derive(Default)]
struct Trouble {
    failing: Failing,
    /// When it was last in the log.
    told: Option<Mono>,
}

/// An attempt that is over.
struct Attempt {
    event: Unsent,
    answer: Result<(), NotDelivered>,
}

impl Post {
    pub(super) async fn run<O: Outbox>(&self, raised: Arc<Notify>, outbox: Arc<O>) {
        let mut trouble = Trouble::default();
        loop {
            let read = outbox.clone();
            let unsent = match blocking(move || read.unsent()).await {
                Ok(unsent) => unsent,
                Err(error) => {
                    tracing::warn!(%error, "the events to be sent cannot be read; tried again");
                    self.rest(self.pace.look, &raised).await;
                    continue;
                }
            };
            let pending = i64::try_from(unsent.len()).unwrap_or(i64::MAX);
            self.metrics.events_pending.set(pending);
            trouble.failing.keep(&unsent);
            let now = self.clock.mono();
            let due = trouble.failing.due(&unsent, now);
            if due.is_empty() {
                let pause = trouble.failing.pause(&unsent, now);
                let pause = pause.unwrap_or(self.pace.look).min(self.pace.look);
                self.rest(pause, &raised).await;
            }
            self.round(due, now, &mut trouble, &outbox).await;
        }
    }

    async fn rest(&self, pause: Duration, raised: &Notify) {
        self.webhook.rest();
        tokio::select! {
            () = self.clock.sleep(pause) => {}
            () = raised.notified() => {}
        }
    }

    /// Tries the events, which are of different accounts, some of them side by side.
    async fn round<O: Outbox>(
        &self,
        due: Vec<&Unsent>,
        now: Mono,
        trouble: &mut Trouble,
        outbox: &Arc<O>,
    ) {
        let due: Vec<_> = due
            .into_iter()
            .map(|event| (event.clone(), trouble.failing.was_taken(event)))
            .collect();
        let mut attempts = stream::iter(due)
            .take_while(|_| ready(self.clock.mono().since(now) <= LIST_AGE))
            .map(|(event, was_taken)| self.attempt(event, was_taken))
            .buffer_unordered(SIDE_BY_SIDE)
            .ready_chunks(SIDE_BY_SIDE);
        while let Some(attempts) = attempts.next().await {
            self.store(attempts, trouble, outbox).await;
        }
    }

    /// `was_taken`: only the mark is missing.
    async fn attempt(&self, event: Unsent, was_taken: bool) -> Attempt {
        let answer = match was_taken {
            true => Ok(()),
            false => {
                let answer = self.webhook.send(&event, self.clock.utc()).await;
                let outcome = match answer {
                    Ok(()) => EventOutcome::Delivered,
                    Err(_) => EventOutcome::Failed,
                };
                self.metrics.event(&event.r#type, outcome);
                answer
            }
        };
        Attempt { event, answer }
    }

    /// Stores what became of events, together: each time waits for the disk.
    async fn store<O: Outbox>(
        &self,
        attempts: Vec<Attempt>,
        trouble: &mut Trouble,
        outbox: &Arc<O>,
    ) {
        let (taken, failed): (Vec<_>, Vec<_>) =
            attempts.into_iter().partition(|a| a.answer.is_ok());
        if !taken.is_empty() {
            let ids: Vec<_> = taken.iter().map(|a| a.event.id.clone()).collect();
            let mark = outbox.clone();
            if let Err(cause) = blocking(move || mark.sent(&ids)).await {
                for Attempt { event, .. } in &taken {
                    let error = format!("it was taken, but this cannot be stored: {cause}");
                    self.failed(event, true, &error, trouble);
                }
            }
        }
        let not_taken: Vec<_> = failed
            .into_iter()
            .filter_map(|Attempt { event, answer }| {
                let error = answer.err()?.to_string();
                let failed = self.failed(&event, false, &error, trouble);
                Some(NotTaken { event, failed })
            })
            .collect();
        if not_taken.is_empty() {
            return;
        }
        let types: HashMap<_, _> = not_taken
            .iter()
            .map(|n| (n.event.id.clone(), n.event.r#type.clone()))
            .collect();
        let note = outbox.clone();
        match blocking(move || note.failed(&not_taken)).await {
            Ok(given_up) => {
                for r#type in given_up.iter().filter_map(|id| types.get(id)) {
                    self.metrics.event(r#type, EventOutcome::Passed);
                }
            }
            // It is noted at a later failure.
            Err(error) => tracing::debug!(error, "that events failed cannot be stored"),
        }
    }

    /// How often it failed in a row by now.
    fn failed(&self, event: &Unsent, taken: bool, error: &str, trouble: &mut Trouble) -> u32 {
        let now = self.clock.mono();
        let jitter = getrandom::u32().unwrap_or_default();
        let wait = |failed| self.pace.wait(failed, jitter);
        let failed = trouble.failing.failed(event, taken, wait, now);
        let (webhook, id) = (self.webhook.address(), event.id.as_str());
        let is_told = trouble.told.is_some_and(|at| now.since(at) < TELL_EVERY);
        if failed == 1 && !is_told {
            trouble.told = Some(now);
            tracing::warn!(%webhook, id, error, "an event is not delivered; tried again, and others that fail now too");
        } else {
            tracing::debug!(%webhook, id, error, failed, "an event is not delivered");
        }
        failed
    }
}

/// Runs what may block where it holds nobody up.
async fn blocking<T, E>(f: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, String>
where
    T: Send + 'static,
    E: Display + Send + 'static,
{
    match tokio::task::spawn_blocking(f).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panicked) => Err(panicked.to_string()),
    }
}
