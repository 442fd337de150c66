//! A connection to one node that is kept open.
//!
//! Owns when it is opened again, the heartbeats on it, the library behind it, and what becomes of
//! a question on it. Must never repeat a question, nor wait for an answer longer than the budget.

use crate::model::{Host, Mono};
use crate::store::breaker::Breaker;
use crate::store::bucket::Bucket;
use crate::store::call_faults::{By, CallFaults};
use crate::store::check_error::NodeFault;
use crate::store::core::{Core, jitter, nonce};
use crate::store::dial::{GREETING, NoConnection, Wire};
use crate::store::failure::{Failure, Fault};
use crate::store::fcall;
use crate::store::fitness;
use crate::store::options::{NodeAddress, Topology};
use crate::store::question::{BadReply, Question, QuestionTerms, Said};
use crate::store::seek::Seek;
use crate::store::unanswered::Unanswered;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::Value;
use redis::aio::MultiplexedConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
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
/// Not sooner after the last look at its fitness, whatever the answers say.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

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
    faults: Mutex<CallFaults>,
    /// The number of the next question.
    number: AtomicI64,
    /// An answer belonged to another question: the connection is of no use any more.
    is_astray: AtomicBool,
    /// The epoch is another one, so the library may be too.
    look: AtomicBool,
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
            faults: Mutex::default(),
            number: AtomicI64::new(1),
            is_astray: AtomicBool::new(false),
            look: AtomicBool::new(false),
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
        way.learn(sent, received, By::Calls(&question.limiter), &result);
        result.map_err(|failure| failure.reason)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.way.core.board.leave(self.way.place);
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
        self.is_astray.store(false, Ordering::Relaxed);
        *self.breaker.lock() = Breaker::new(core.options.max_delay);
        self.look(&wire).await?;
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

    /// Looks whether the node is fit still. What makes it unfit makes it away, and is its trouble.
    async fn look(&self, wire: &Wire) -> Result<(), String> {
        self.look.store(false, Ordering::Relaxed);
        let is_fenced = !matches!(self.core.options.topology, Topology::Single);
        match fitness::look(wire, is_fenced).await {
            Ok(_) => Ok(()),
            Err(NodeFault::Broken(why)) => Err(why.to_string()),
            Err(fault) => Err(format!("it {fault}")),
        }
    }

    fn want_look(&self) {
        if let Some(seek) = &self.seek {
            seek.want();
        }
    }

    /// Until the connection ends, or must be ended. Says why.
    async fn keep(&self, wire: &mut Wire, open: &Open) -> String {
        let mut looked = self.core.clock.mono();
        loop {
            let now = self.core.clock.mono();
            let pause = match self.look.load(Ordering::Relaxed) {
                true => BETWEEN_LOOKS,
                false => fitness::LOOK,
            };
            if now.since(looked) >= pause {
                looked = now;
                if let Err(why) = self.look(wire).await {
                    return why;
                }
            }
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
            if self.is_astray.load(Ordering::Relaxed) {
                return BadReply::OtherQuestion.to_string();
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
            // Somebody was faster: another gate, it may be hoped.
            Err(NoConnection::Refused(why)) if fcall::is_loaded_already(&why) => {
                self.look(wire).await
            }
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
        let result = match result {
            Ok(_) if is_late => Err(Unanswered::Late.into()),
            result => result,
        };
        self.learn(sent, received, By::Heartbeat, &result);
        match result {
            Ok(said) => {
                if let Some(at) = said.on_machine() {
                    core.board.compare_clocks(self.place, at);
                }
                core.listener.heard(bucket, sent, received, &said);
                Ok(())
            }
            Err(
                Failure {
                    fault: Fault::Connection,
                    words,
                    ..
                }
                | Failure {
                    reason: Unanswered::Lost | Unanswered::NotPrimary,
                    words,
                    ..
                },
            ) => Err(words),
            Err(_) => Ok(()),
        }
    }

    async fn exchange(
        &self,
        open: &Open,
        bucket: Bucket,
        question: &Question,
        terms: QuestionTerms,
    ) -> Result<Said, Failure> {
        let hold = self.core.options.hold();
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let command = fcall::command(bucket, question, terms, &open.nonce, hold, number);
        let mut commands = open.commands.clone();
        let answer: Result<Value, _> = command.query_async(&mut commands).await;
        let value = answer.map_err(|error| Failure::from(&error))?;
        let said = fcall::read(value, question, number).inspect_err(|bad| {
            if *bad == BadReply::OtherQuestion {
                self.end(open);
            }
        })?;
        if said.epoch().is_some_and(|epoch| epoch != terms.epoch) {
            self.look.store(true, Ordering::Relaxed);
        }
        Ok(said)
    }

    /// No question is asked on this connection any more.
    fn end(&self, connection: &Open) {
        let mut open = self.open.lock();
        let is_open = |open: &Open| Arc::ptr_eq(&open.nonce, &connection.nonce);
        if open.as_ref().is_some_and(is_open) {
            *open = None;
            self.is_astray.store(true, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }

    /// What a question taught of the node.
    fn learn(&self, sent: Mono, now: Mono, by: By<'_>, result: &Result<Said, Failure>) {
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
        if !self.faults.lock().is_news(now, &self.node, by, result) {
            return;
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
