//! Calls whose starts a shared store decides, when many replicas hold one quota.
//!
//! Owns the task that asks for the calls of a limiter ([`SharedWindows::ask`]), and what is known
//! of the clocks of the store. Must never start a call that the store did not grant, nor let one
//! wait for ever: what is not decided in time is refused.
//!
//! # Decided
//! - **One task asks for the calls of a limiter**, not each call for itself: a client that hangs up
//!   takes no question of others with it. It runs while calls wait, on the worker of the first one.

use crate::metrics::Metrics;
use crate::model::{Clock, Mono, Utc};
use crate::proxy::admission::{Limiter, Started, Wish};
use crate::store::{
    BadCertificates, Bucket, Heard, Link, LinkHandle, NextAsk, NoAnswer, Question, QuestionTerms,
    Said, Silence, Silent, StoreClock, StoreListener, StoreNow, StoreOptions, StoreStatus, Told,
    Unanswered,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How much longer than `max_delay` and the budget a call waits for its answer: for the scheduler.
const GRACE: Duration = Duration::from_millis(50);

/// How much longer than its hold a store is waited for at the start, and how often it is looked.
const OPENS_AT_LATEST: Duration = Duration::from_secs(5);
const OPENS_LOOK: Duration = Duration::from_millis(20);

/// What the store said of a call.
#[derive(Debug)]
pub(crate) enum StoreVerdict {
    /// The start has come; so many further calls could start with it.
    Started(Started, u32),
    /// It is over the cap; a client that calls alone and comes back after this time is admitted.
    Throttled(Duration),
    /// The store did not decide in time.
    Away,
}

/// The windows of the store, as this replica sees them.
pub(crate) struct SharedWindows {
    link: Link,
    clocks: Arc<StoreClocks>,
    clock: Clock,
    max_delay: Duration,
    /// The longest that a call waits to be told.
    patience: Duration,
    /// How long a store that does not know its past grants nothing.
    hold: Duration,
}

/// The clock of each bucket of the store, which heartbeats keep known while nobody calls.
struct StoreClocks {
    clock: Clock,
    metrics: Arc<Metrics>,
    buckets: Box<[Mutex<StoreClock>]>,
}

impl StoreClocks {
    /// Of the store's buckets, of which nothing is known yet.
    fn new(clock: Clock, metrics: Arc<Metrics>, options: &StoreOptions) -> Self {
        let (budget, max_delay, hold) = (options.budget, options.max_delay, options.hold());
        // A counter that is there from the start shows its first step.
        for why in Silence::ALL {
            metrics.store_hold(why.label());
        }
        let bucket = |_| Mutex::new(StoreClock::new(budget, max_delay, hold));
        Self {
            clock,
            metrics,
            buckets: (0..options.buckets()).map(bucket).collect(),
        }
    }

    /// What the slowest clock of the store's nodes has reached; `None` when one is not known.
    fn reached(&self) -> Option<Utc> {
        let each = self.buckets.iter().map(|bucket| bucket.lock().reached());
        each.reduce(|one, other| Some(one?.min(other?))).flatten()
    }

    fn of(&self, bucket: Bucket) -> Option<&Mutex<StoreClock>> {
        self.buckets.get(usize::from(bucket.number()))
    }

    fn ask(&self, bucket: Bucket, now: Mono) -> Result<QuestionTerms, Heard> {
        match self.of(bucket) {
            Some(clock) => clock.lock().ask(now).map_err(Heard::Silent),
            None => Err(Heard::AskAgain(NoAnswer::Unanswered)),
        }
    }

    fn take(&self, bucket: Bucket, sent: Mono, received: Mono, said: &Said) -> Heard {
        let heard = match self.of(bucket) {
            Some(clock) => clock.lock().heard(sent, received, said),
            None => Heard::AskAgain(NoAnswer::Unanswered),
        };
        match &heard {
            Heard::Silent(Silent { why, .. }) => self.metrics.store_hold(why.label()).inc(),
            Heard::AskAgain(NoAnswer::LateAnswer | NoAnswer::LateQuestion) => {
                self.metrics.store_late.inc();
            }
            Heard::AskAgain(_) | Heard::Grants { .. } => {}
        }
        heard
    }
}

impl StoreListener for StoreClocks {
    fn asked(&self, took: Duration) {
        self.metrics.store_calls.inc();
        self.metrics.store_seconds.observe(took.as_secs_f64());
    }

    fn terms(&self, bucket: Bucket) -> QuestionTerms {
        let none = QuestionTerms {
            epoch: 0,
            deadline: Utc(0),
        };
        let now = self.clock.mono();
        self.of(bucket)
            .map_or(none, |clock| clock.lock().touch(now))
    }

    fn heard(&self, bucket: Bucket, sent: Mono, received: Mono, said: &Said) {
        self.take(bucket, sent, received, said);
    }
}

impl SharedWindows {
    /// The way to the store of these options. Opens nothing yet.
    ///
    /// # Errors
    /// No certificate can be trusted.
    pub(crate) fn new(
        options: StoreOptions,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BadCertificates> {
        let clocks = Arc::new(StoreClocks::new(clock.clone(), metrics, &options));
        let max_delay = options.max_delay;
        let patience = max_delay + options.budget + GRACE;
        let hold = options.hold();
        let link = Link::new(options, clock.clone(), clocks.clone())?;
        Ok(Self {
            link,
            clocks,
            clock,
            max_delay,
            patience,
            hold,
        })
    }

    /// The connections of the runtime that runs this.
    pub(crate) fn on_this_runtime(&self) -> LinkHandle {
        self.link.on_this_runtime()
    }

    /// Waits until the store may grant starts at this replica, which it does not before its hold is
    /// over; not for ever, since a store that is away is no reason not to serve. Whether it may.
    pub(crate) async fn opened(&self) -> bool {
        // Its heartbeats make the store known.
        let _connections = self.on_this_runtime();
        let deadline = self.clock.mono().plus(self.hold + OPENS_AT_LATEST);
        loop {
            let now = self.clock.mono();
            let may_ask = |bucket: &Mutex<StoreClock>| bucket.lock().ask(now).is_ok();
            match self.clocks.buckets.iter().all(may_ask) {
                true => return true,
                false if now >= deadline => return false,
                false => self.clock.sleep(OPENS_LOOK).await,
            }
        }
    }

    /// An instant that the store's clock has reached: calls that are asked for from now on start after
    /// it. `None` while that is not known.
    pub(crate) fn reached(&self) -> Option<Utc> {
        self.clocks.reached()
    }

    /// Whether the store answers.
    pub(crate) fn status(&self) -> StoreStatus {
        self.link.status()
    }

    /// The instant `now` on the clock of the store's machine, by which quotas are in force for all
    /// replicas alike; `None` while it is not known.
    pub(crate) fn now_utc(&self, limiter: &Limiter, now: Mono) -> Option<StoreNow> {
        let calls = limiter.at_store()?;
        let bucket = self.link.bucket_of(calls.name());
        self.clocks.of(bucket)?.lock().now_utc(now)
    }

    /// Asks the store for a start, and waits for it.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        way: &Arc<LinkHandle>,
        limiter: &Arc<Limiter>,
        wish: Wish,
    ) -> StoreVerdict {
        let (call, told) = oneshot::channel();
        let Some(calls) = limiter.at_store() else {
            return StoreVerdict::Away;
        };
        let told = match calls.arrive(wish, call) {
            Err(told) => told,
            Ok(must_ask) => {
                if must_ask {
                    let asking = Asking {
                        windows: self.clone(),
                        limiter: limiter.clone(),
                        has_ended: false,
                    };
                    tokio::spawn(asking.run(way.clone()));
                }
                // The task may end with its worker: then nobody tells.
                let told = timeout(self.patience, told).await;
                told.ok().and_then(Result::ok).unwrap_or(Told::Unavailable)
            }
        };
        match told {
            Told::Start(grant, left) => {
                self.clock.sleep_until(grant.release).await;
                let started = Started {
                    start: grant.release,
                    at: grant.admitted_at,
                    mode: wish.mode,
                    store_start: Some(grant.start),
                };
                StoreVerdict::Started(started, left)
            }
            Told::Throttled(retry_after) => StoreVerdict::Throttled(retry_after),
            Told::Unavailable => StoreVerdict::Away,
        }
    }
}

/// The task that asks for the calls of one limiter.
struct Asking {
    windows: Arc<SharedWindows>,
    limiter: Arc<Limiter>,
    /// It was told that nobody waits: another task may ask by now.
    has_ended: bool,
}

impl Asking {
    /// Asks while calls wait.
    async fn run(mut self, way: Arc<LinkHandle>) {
        let limiter = self.limiter.clone();
        let Some(calls) = limiter.at_store() else {
            return;
        };
        let clock = self.windows.clock.clone();
        let bucket = self.windows.link.bucket_of(calls.name());
        loop {
            match calls.next(clock.mono()) {
                NextAsk::Idle => {
                    self.has_ended = true;
                    return;
                }
                NextAsk::Wait(until) => tokio::select! {
                    () = clock.sleep_until(until) => {}
                    () = calls.changed() => {}
                },
                NextAsk::Ask { n, quota } => {
                    let question = Question {
                        limiter: calls.name().into(),
                        quota,
                        n,
                        max_delay: self.windows.max_delay,
                    };
                    let heard = self.asked(&way, bucket, &question).await;
                    calls.answered(clock.mono(), heard);
                }
            }
        }
    }

    async fn asked(&self, way: &LinkHandle, bucket: Bucket, question: &Question) -> Heard {
        let (clock, clocks) = (&self.windows.clock, &self.windows.clocks);
        let sent = clock.mono();
        let terms = match clocks.ask(bucket, sent) {
            Ok(terms) => terms,
            Err(silent) => return silent,
        };
        match way.ask(bucket, question, terms).await {
            Ok(said) => clocks.take(bucket, sent, clock.mono(), &said),
            Err(why) => {
                if why == Unanswered::Late {
                    clocks.metrics.store_late.inc();
                }
                Heard::AskAgain(NoAnswer::Unanswered)
            }
        }
    }
}

impl Drop for Asking {
    /// Its worker ends, perhaps in the midst of a question: the next call makes another task.
    fn drop(&mut self) {
        if let Some(calls) = self.limiter.at_store()
            && !self.has_ended
        {
            calls.nobody_asks(self.windows.clock.mono());
        }
    }
}
