//! A connection to one node that is kept open.
//!
//! Owns when it is opened again, the heartbeats on it, the library behind it, and what becomes of
//! a question on it. Must never repeat a question, nor wait for an answer longer than the budget.

use crate::model::{Host, Mono};
use crate::store::breaker::Breaker;
use crate::store::bucket::Bucket;
use crate::store::core::{Core, jitter, nonce};
use crate::store::dial::{GREETING, NoConnection, Wire, said};
use crate::store::fcall;
use crate::store::options::NodeAddress;
use crate::store::question::{Question, QuestionTerms, Said};
use crate::store::seek::Seek;
use crate::store::unanswered::Unanswered;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::Value;
use redis::aio::MultiplexedConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// A connection on which nothing was asked for so long has a heartbeat: the store's clock is
/// followed, and a node that is gone is missed before a call needs it.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// The same while the breaker is open.
const PROBE: Duration = Duration::from_millis(20);
/// A heartbeat without an answer for so long ends the connection: a new one passes a cut that was
/// healed sooner than the packets that the kernel repeats on the old one.
const SILENCE: Duration = Duration::from_millis(250);

/// A connection to one node that is kept open, until this is dropped.
pub(crate) struct Line {
    way: Arc<Way>,
    _task: JoinSet<()>,
}

/// What is shared by the questions and the task that keeps the connection open.
struct Way {
    core: Arc<Core>,
    node: NodeAddress,
    host: Host,
    place: u64,
    buckets: Mutex<Vec<Bucket>>,
    /// Whom the next heartbeat asks for.
    beat: AtomicUsize,
    open: Mutex<Option<Open>>,
    breaker: Mutex<Breaker>,
    /// When the last question was sent.
    sent: AtomicU64,
    /// What was seen last: 0 is an answer, else 1 + the index of an [`Unanswered`].
    state: AtomicUsize,
    /// The library is to be loaded.
    load: AtomicBool,
    /// The buckets are to be touched.
    touch: AtomicBool,
    /// The node is a standby.
    is_standby: AtomicBool,
    /// The task has something to do.
    wake: Notify,
    /// Who seeks the primary, when somebody does.
    seek: Option<Arc<Seek>>,
}

#[derive(Clone)]
struct Open {
    commands: MultiplexedConnection,
    nonce: Arc<str>,
}

/// Why a question failed, and the words for it.
struct Failure {
    reason: Unanswered,
    words: String,
}

impl Line {
    /// Begins to keep a connection open on this runtime. `seek` is asked for a look when the node
    /// turns out not to be the primary, or is gone; and before a new connection is used, since a
    /// primary that was frozen and woke does not know for a moment that there is another one.
    pub(crate) fn new(
        core: Arc<Core>,
        node: NodeAddress,
        buckets: Vec<Bucket>,
        seek: Option<Arc<Seek>>,
    ) -> Self {
        let way = Arc::new(Way {
            host: Host::new(node.host.clone(), node.port),
            place: core.board.enter(&node),
            node,
            buckets: Mutex::new(buckets),
            beat: AtomicUsize::new(0),
            open: Mutex::default(),
            breaker: Mutex::new(Breaker::new(core.options.max_delay)),
            sent: AtomicU64::new(0),
            state: AtomicUsize::new(usize::MAX),
            load: AtomicBool::new(false),
            touch: AtomicBool::new(false),
            is_standby: AtomicBool::new(false),
            wake: Notify::new(),
            seek,
            core,
        });
        let mut task = JoinSet::new();
        task.spawn(way.clone().run());
        Self { way, _task: task }
    }

    /// Where it leads.
    pub(crate) fn node(&self) -> &NodeAddress {
        &self.way.node
    }

    /// The buckets that the node has now. Those are touched.
    pub(crate) fn set_buckets(&self, buckets: Vec<Bucket>) {
        if *self.way.buckets.lock() != buckets {
            *self.way.buckets.lock() = buckets;
            self.way.touch.store(true, Ordering::Relaxed);
            self.way.wake.notify_one();
        }
    }

    /// Asks once.
    ///
    /// # Errors
    /// There is no answer that may be used.
    pub(crate) async fn ask(
        &self,
        bucket: Bucket,
        question: &Question,
        terms: QuestionTerms,
    ) -> Result<Said, Unanswered> {
        let way = &*self.way;
        let open = way.open.lock().clone().ok_or(Unanswered::Down)?;
        let sent = way.core.clock.mono();
        if way.breaker.lock().is_open(sent) {
            return Err(Unanswered::Down);
        }
        way.sent.store(sent.0, Ordering::Relaxed);
        let budget = way.core.options.budget;
        let result = timeout(budget, way.exchange(&open, bucket, question, terms)).await;
        let received = way.core.clock.mono();
        way.core.listener.asked(received.since(sent));
        let late = || Failure::from(Unanswered::Late);
        let result = result.unwrap_or_else(|_| Err(late()));
        let is_late = received.since(sent) > budget;
        let result = result.and_then(|said| if is_late { Err(late()) } else { Ok(said) });
        way.learn(sent, received, &result);
        result.map_err(|failure| failure.reason)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.way.core.board.leave(self.way.place);
    }
}

impl From<Unanswered> for Failure {
    fn from(reason: Unanswered) -> Self {
        Self {
            reason,
            words: reason.to_string(),
        }
    }
}

impl Way {
    /// Keeps the connection open for ever.
    async fn run(self: Arc<Self>) {
        loop {
            let began = self.core.clock.mono();
            let (why, pause) = match self.connect().await {
                Ok((mut wire, open)) => {
                    *self.open.lock() = Some(open.clone());
                    let why = self.keep(&mut wire, &open).await;
                    *self.open.lock() = None;
                    (why, jitter())
                }
                // A cut that is healed is passed sooner when the pause runs from the attempt's begin.
                Err(why) => {
                    let took = self.core.clock.mono().since(began);
                    (why, jitter().saturating_sub(took))
                }
            };
            self.state.store(usize::MAX, Ordering::Relaxed);
            self.core.board.tell(self.place, Some(why));
            self.want_look();
            sleep(pause).await;
        }
    }

    /// One attempt.
    async fn connect(&self) -> Result<(Wire, Open), String> {
        let core = &*self.core;
        let dialled = core.dialer.dial(&self.node, &self.host, &core.login).await;
        let wire = dialled.map_err(|e| e.to_string())?;
        let open = Open {
            commands: wire.commands(),
            nonce: nonce(&core.options.replica).into(),
        };
        self.is_standby.store(false, Ordering::Relaxed);
        *self.breaker.lock() = Breaker::new(core.options.max_delay);
        self.touch(&open).await?;
        if self.load.swap(false, Ordering::Relaxed) {
            self.load(&wire).await?;
            self.touch(&open).await?;
        }
        if let Some(seek) = &self.seek {
            // When another node is the primary, this one is not wanted any more and ends here.
            let looked = timeout(GREETING, seek.look()).await;
            looked.map_err(|_| "nobody says whether it is the primary".to_owned())?;
        }
        Ok((wire, open))
    }

    fn want_look(&self) {
        if let Some(seek) = &self.seek {
            seek.want();
        }
    }

    /// Until the connection ends, or must be ended. Says why.
    async fn keep(&self, wire: &mut Wire, open: &Open) -> String {
        loop {
            let now = self.core.clock.mono();
            let is_open = self.breaker.lock().is_open(now);
            let pause = if is_open { PROBE } else { HEARTBEAT };
            let woken = tokio::select! {
                () = wire.ended() => return Unanswered::Lost.to_string(),
                () = self.wake.notified() => true,
                () = sleep(pause) => false,
            };
            if self.is_standby.load(Ordering::Relaxed) {
                return Unanswered::NotPrimary.to_string();
            }
            let loads = self.load.swap(false, Ordering::Relaxed);
            if loads && let Err(why) = self.load(wire).await {
                return why;
            }
            let touches = self.touch.swap(false, Ordering::Relaxed);
            if (loads || touches)
                && let Err(why) = self.touch(open).await
            {
                return why;
            }
            let sent = Mono(self.sent.load(Ordering::Relaxed));
            let is_idle = self.core.clock.mono().since(sent) >= HEARTBEAT;
            if (woken || is_idle || is_open)
                && let Err(why) = self.heartbeat(open).await
            {
                return why;
            }
        }
    }

    /// Loads the library unless it is there. That the node cannot is told and tried again later.
    async fn load(&self, wire: &Wire) -> Result<(), String> {
        match wire.call_soon(&fcall::load()).await {
            Ok(_) => Ok(()),
            Err(NoConnection::Refused(why)) if fcall::is_loaded_already(&why) => Ok(()),
            Err(why) => Err(format!("the function library cannot be loaded: {why}")),
        }
    }

    /// Asks once for each bucket, so that a hold happens now and not at its first call.
    async fn touch(&self, open: &Open) -> Result<(), String> {
        let buckets = self.buckets.lock().clone();
        let all = join_all(buckets.into_iter().map(|bucket| self.beat(open, bucket)));
        match timeout(GREETING, all).await {
            Ok(results) => results.into_iter().collect(),
            Err(_) => Err(format!("no answer for {GREETING:?}")),
        }
    }

    async fn heartbeat(&self, open: &Open) -> Result<(), String> {
        let next = self.beat.fetch_add(1, Ordering::Relaxed);
        let bucket = {
            let buckets = self.buckets.lock();
            buckets.get(next % buckets.len().max(1)).copied()
        };
        let Some(bucket) = bucket else {
            return Ok(());
        };
        match timeout(SILENCE, self.beat(open, bucket)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer for {SILENCE:?}")),
        }
    }

    /// One heartbeat. An error ends the connection.
    async fn beat(&self, open: &Open, bucket: Bucket) -> Result<(), String> {
        let core = &*self.core;
        core.counters.count_heartbeat();
        core.board.look(self.place);
        let terms = core.listener.terms(bucket);
        let sent = core.clock.mono();
        let result = self
            .exchange(open, bucket, &fcall::heartbeat(), terms)
            .await;
        let received = core.clock.mono();
        let is_late = received.since(sent) > core.options.budget;
        self.learn(
            sent,
            received,
            &match &result {
                Ok(_) if is_late => Err(Unanswered::Late.into()),
                Ok(said) => Ok(said.clone()),
                Err(failure) => Err(Failure {
                    reason: failure.reason,
                    words: failure.words.clone(),
                }),
            },
        );
        match result {
            Ok(said) if !is_late => core.listener.heard(bucket, sent, received, &said),
            Err(Failure {
                reason: Unanswered::Lost | Unanswered::NotPrimary,
                words,
            }) => return Err(words),
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }

    async fn exchange(
        &self,
        open: &Open,
        bucket: Bucket,
        question: &Question,
        terms: QuestionTerms,
    ) -> Result<Said, Failure> {
        let hold = self.core.options.hold();
        let command = fcall::command(bucket, question, terms, &open.nonce, hold);
        let mut commands = open.commands.clone();
        let answer: Result<Value, _> = command.query_async(&mut commands).await;
        let value = answer.map_err(|error| Failure {
            reason: Unanswered::from(&error),
            words: said(&error),
        })?;
        Ok(fcall::read(value)?)
    }

    /// What a question taught of the node.
    fn learn(&self, sent: Mono, now: Mono, result: &Result<Said, Failure>) {
        let reason = result.as_ref().err().map(|failure| failure.reason);
        let wakes = match reason {
            Some(Unanswered::Late) => {
                let opened = self.breaker.lock().missed(sent, now);
                // One that was late says nothing of the node.
                if !opened {
                    return;
                }
                true
            }
            Some(Unanswered::NotLoaded) => !self.load.swap(true, Ordering::Relaxed),
            Some(Unanswered::NotPrimary) => !self.is_standby.swap(true, Ordering::Relaxed),
            _ => false,
        };
        if reason != Some(Unanswered::Late) && reason != Some(Unanswered::Lost) {
            self.breaker.lock().answered();
        }
        if matches!(
            reason,
            Some(Unanswered::NotPrimary | Unanswered::Moved | Unanswered::NoStandby)
        ) {
            self.want_look();
        }
        let state = reason.map_or(0, |reason| 1 + reason.index());
        let is_new = self.state.swap(state, Ordering::Relaxed) != state;
        if is_new {
            let words = result.as_ref().err().map(|failure| failure.words.clone());
            self.core.board.tell(self.place, words);
        }
        if wakes && is_new {
            self.wake.notify_one();
        }
    }
}
