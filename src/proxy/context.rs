//! One request between its head and its decision.
//!
//! Owns that each call is decided once and counted so (P4). Must never decide anything itself.
//!
//! # Decided
//! - **A call that hangs up before it is decided counts as refused** (`client_closed`): every
//!   received call has one decision, and P4 closes.

use crate::http::h1::{Answer, RequestHead};
use crate::http::names::X_TC_TRACE_ID;
use crate::http::{Field, Trace};
use crate::metrics::Decision;
use crate::model::{Mode, Mono, Outcome, RequestId, RequestIdText, Utc};
use crate::proxy::access_log::{AccessEntry, LogEntry};
use crate::proxy::admission::{Limiter, Now, SECOND, Started};
use crate::proxy::client::Client;
use crate::proxy::decisions::{DecisionRing, Name, Throttle, TurnedAwayCall, Verdict};
use crate::proxy::dialect::Dialect;
use crate::proxy::permit::AdmittedCall;
use crate::proxy::policy::{KnownAccount, KnownKey, Operation, Policy};
use crate::proxy::progress::Progress;
use crate::proxy::rate_lines::{OWN_ENDPOINTS, RateLines};
use crate::proxy::refusal::Refusal;
use crate::proxy::state::Proxy;
use crate::proxy::turned_away::TurnedAwayKind;
use crate::proxy::{Relay, forwarded};
use http::Method;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// One request between its head and its decision. It is decided exactly once, however it ends (P4).
pub(crate) struct RequestContext<'p> {
    pub(super) proxy: &'p Proxy,
    pub(super) id: RequestId,
    pub(super) id_text: RequestIdText,
    pub(super) dialect: Dialect,
    /// The client whose connection it came on.
    pub(super) client: &'p Client,
    /// The address that sent it: the client's, or the one that a trusted proxy names.
    pub(super) peer: IpAddr,
    pub(super) received: Now,
    pub(super) decided_at: Mono,
    pub(super) decided: bool,
    pub(super) progress: Arc<Progress>,
    pub(super) account: Option<Arc<KnownAccount>>,
    /// The place of the proven key in the account's list.
    key: u32,
    /// The generation that decided; 0 before.
    generation: u32,
    pub(super) operation: Option<Arc<Operation>>,
    pub(super) limiter: Option<Arc<Limiter>>,
    pub(super) rate: Rate,
    /// Its line in the access log, until its answer takes it.
    access: Option<Box<AccessEntry>>,
}

/// What the answer tells of the quota.
#[derive(Clone, Copy)]
pub(super) enum Rate {
    /// What the limiter says when the answer is made.
    Unknown,
    /// The quota by which the request was admitted, and how many more could start with it.
    Left(u32, u32),
    /// The answer has it.
    Told,
}

impl<'p> RequestContext<'p> {
    /// The context of a call, which is counted as received now.
    pub(super) fn of_call(
        proxy: &'p Proxy,
        client: &'p Client,
        head: &RequestHead,
        received: Now,
        progress: Arc<Progress>,
    ) -> Self {
        proxy.shared.metrics.received.inc();
        proxy.shared.metrics.pending.inc();
        let mut context = Self::of_own(proxy, client, head, received, progress);
        context.decided = false;
        context.begin_line(head);
        context
    }

    /// The context of a request for an own endpoint. It is not counted, so it is decided from the
    /// start.
    pub(super) fn of_own(
        proxy: &'p Proxy,
        client: &'p Client,
        head: &RequestHead,
        received: Now,
        progress: Arc<Progress>,
    ) -> Self {
        let id = request_id(received.utc);
        Self {
            proxy,
            id,
            id_text: id.text(),
            dialect: Dialect::of(head),
            client,
            peer: match client.is_trusted {
                true => forwarded::peer(client.address, &head.fields, &proxy.trusted_proxies),
                false => client.address,
            },
            received,
            decided_at: received.mono,
            decided: true,
            progress,
            account: None,
            key: 0,
            generation: 0,
            operation: None,
            limiter: None,
            rate: Rate::Unknown,
            access: None,
        }
    }

    /// Begins its line in the access log, if it has one.
    fn begin_line(&mut self, head: &RequestHead) {
        let log = self.proxy.access_log.as_ref();
        if log.is_some_and(|log| log.takes(self.id)) {
            self.access = Some(Box::new(AccessEntry {
                id: self.id,
                received: (self.received.mono, self.received.utc),
                peer: self.peer,
                account: None,
                key: 0,
                operation: None,
                decision: Decision::Refused.as_str(),
                reason: "",
                status: None,
                progress: self.progress.clone(),
                bytes_out: 0,
                upstream: None,
                overhead: None,
                trace: Trace::of(&head.fields).parent(),
                took: Duration::ZERO,
            }));
        }
    }

    /// Its line in the access log, with all that is known of it; `None` when it has none, or had it
    /// already.
    fn take_line(&mut self) -> Option<LogEntry> {
        let mut entry = self.access.take()?;
        let log = self.proxy.access_log.clone()?;
        entry.account.clone_from(&self.account);
        entry.key = self.key;
        entry.operation.clone_from(&self.operation);
        Some(LogEntry::new(log, entry))
    }

    /// Gives its line in the access log to its answer, with whose end it is written.
    pub(super) fn log(&mut self, head: &RequestHead, answer: &mut Answer<Relay>) {
        let Some(mut line) = self.take_line() else {
            return;
        };
        match self.client.has_gone.load(Ordering::Relaxed) {
            true => line.not_answered("client_closed"),
            false => line.answered(answer.status()),
        }
        match answer.body_mut() {
            Err(Relay::Upstream(relayed)) => relayed.log = Some(line),
            Ok(bytes) if head.method != Method::HEAD => line.passed(bytes),
            Ok(_) | Err(Relay::Own(_)) => {}
        }
    }

    /// The upstream took so long, from the start to the head of its answer or to giving up.
    pub(super) fn waited_for_upstream(&mut self, outcome: Outcome, took: Duration) {
        let metrics = &self.proxy.shared.metrics;
        metrics
            .upstream(outcome)
            .observe(took.as_secs_f64(), self.id);
        if let Some(access) = &mut self.access {
            access.upstream = Some(took);
        }
    }

    /// The gate itself took so long for the call.
    pub(super) fn took_here(&mut self, took: Duration) {
        self.proxy
            .shared
            .metrics
            .overhead
            .observe(took.as_secs_f64(), self.id);
        if let Some(access) = &mut self.access {
            access.overhead = Some(took);
        }
    }

    /// The generation that decides about it.
    pub(super) fn decided_by(&mut self, policy: &Policy) {
        self.generation = u32::try_from(policy.generation).unwrap_or(u32::MAX);
    }

    /// A key of an account is proven, and judged at `now`. When it holds, the connection belongs to
    /// the account from now on.
    ///
    /// # Errors
    /// When the key does not hold, or the account has its part of the connections already.
    pub(crate) fn proven(&mut self, key: &KnownKey, now: Utc) -> Result<(), Refusal> {
        let account = key.account();
        self.account = Some(account.clone());
        self.key = key.index();
        key.check(now, self.peer).map_err(Refusal::Key)?;
        match self.client.prove(&account.id) {
            true => Ok(()),
            false => Err(Refusal::AccountConnections),
        }
    }

    /// The address that sent it: the client's, or the one that a trusted proxy names.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The name of the request, as its answer says it.
    pub(crate) fn id_text(&self) -> RequestIdText {
        self.id_text
    }

    /// The client's own name for the request goes back to it, which only the vendor's protocol has.
    pub(super) fn echo(&self, head: &RequestHead, answer: &mut Answer<Relay>) {
        if self.dialect == Dialect::Vendor {
            let named = |field: &Field<'_>| field.name() == X_TC_TRACE_ID.as_bytes();
            if let Some(trace_id) = head.fields.iter().find(named) {
                answer.lines().field(trace_id);
            }
        }
    }

    /// The request was admitted by this quota, with so many left.
    pub(crate) fn held_to(&mut self, quota: u32, left: u32) {
        self.rate = Rate::Left(quota, left);
    }

    /// Tells an identified client of the plain dialect its quota and what is left of it, so that it
    /// can slow down before it is throttled.
    pub(super) fn tell_rate(&self, answer: &mut Answer<Relay>) {
        if self.dialect == Dialect::Vendor || self.account.is_none() {
            return;
        }
        let (quota, left) = match (self.rate, &self.limiter, &self.operation) {
            (Rate::Left(quota, left), ..) => (quota, left),
            (Rate::Unknown, Some(limiter), _) => limiter.left(self.received),
            // The service was never opened.
            (Rate::Unknown, None, Some(_)) => (0, 0),
            // It is told already, or no group is known yet.
            (Rate::Told, ..) | (Rate::Unknown, None, None) => return,
        };
        let reset = (quota > 0).then_some(SECOND);
        self.rate_lines()
            .write(answer.lines(), (quota, left), reset);
    }

    /// Tells the quota of a throttle, and after how long there is more of it.
    pub(super) fn tell_throttle(&mut self, refusal: &Refusal, answer: &mut Answer<Relay>) {
        let (quota, reset) = match refusal {
            Refusal::Throttled {
                quota, retry_after, ..
            } => (*quota, Some(*retry_after)),
            Refusal::NoQuota { begins_in, .. } => (0, *begins_in),
            _ => return,
        };
        self.rate = Rate::Told;
        if self.dialect == Dialect::Plain {
            self.rate_lines().write(answer.lines(), (quota, 0), reset);
        }
    }

    fn rate_lines(&self) -> &RateLines {
        match &self.operation {
            Some(operation) => &operation.rate_lines,
            None => &OWN_ENDPOINTS,
        }
    }

    pub(super) fn decide(&mut self) {
        self.decided = true;
        self.proxy.shared.metrics.pending.dec();
    }

    pub(super) fn admitted(&mut self, call: &AdmittedCall, started: &Started) {
        if let Some(access) = &mut self.access {
            access.decision = Decision::Admitted.as_str();
        }
        call.operation.admitted(started.mode).inc();
        call.key.admitted(started.at);
        if let Some(limiter) = &self.limiter {
            limiter.counts.admitted.fetch_add(1, Ordering::Relaxed);
        }
        self.decide();
    }

    /// Counts the decision, unless the call was admitted: then it has its record and was only
    /// failed.
    pub(super) fn refused(
        &mut self,
        refusal: &Refusal,
        (ring, head): (&DecisionRing, &RequestHead),
    ) {
        tracing::debug!(
            request_id = %self.id,
            peer = %self.peer,
            account = self.account.as_ref().map(|account| account.id.as_str()),
            action = self.operation.as_ref().map(|operation| operation.action.as_str()),
            reason = refusal.reason(),
            "{}", if self.decided { "failed" } else { "not admitted" },
        );
        if let Some(access) = &mut self.access {
            access.reason = refusal.reason();
            if refusal.is_throttle() {
                access.decision = Decision::Throttled.as_str();
            }
        }
        ring.keep(self.id, &self.turned_away_call(refusal, head));
        if self.decided {
            return;
        }
        match refusal {
            Refusal::Throttled { mode, .. } => {
                if let Some(operation) = &self.operation {
                    operation.throttled(*mode).inc();
                }
            }
            Refusal::NoQuota { .. } => {
                self.count(Some(Mode::Qps), Decision::Throttled, refusal.reason())
            }
            _ => self.count(None, Decision::Refused, refusal.reason()),
        }
        if let Some(limiter) = &self.limiter {
            let count = if refusal.is_throttle() {
                &limiter.counts.throttled
            } else {
                &limiter.counts.refused
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        if !refusal.is_throttle() {
            self.turned_away(refusal.reason());
        }
        self.decide();
    }

    /// What is kept of the call, so that it can be explained by its id.
    fn turned_away_call(&self, refusal: &Refusal, head: &RequestHead) -> TurnedAwayCall {
        let row = refusal.row();
        let throttle = match refusal {
            Refusal::Throttled {
                quota,
                mode,
                retry_after,
                ..
            } => Some(Throttle {
                quota: *quota,
                mode: *mode,
                retry_after: Some(*retry_after),
            }),
            Refusal::NoQuota { begins_in, .. } => Some(Throttle {
                quota: 0,
                mode: Mode::Qps,
                retry_after: *begins_in,
            }),
            _ => None,
        };
        let operation = self.operation.as_deref();
        TurnedAwayCall {
            at: self
                .received
                .utc
                .plus(self.decided_at.since(self.received.mono)),
            generation: self.generation.into(),
            peer: self.peer,
            account: Name::of(self.account.as_ref().map(|account| account.id.as_str())),
            key: Name::of(self.key_id()),
            group: Name::of(operation.map(|operation| operation.group.as_str())),
            action: Name::of(operation.map(|operation| operation.action.as_str())),
            verdict: match (row.is_throttle, self.decided && operation.is_some()) {
                (true, _) => Verdict::Throttled,
                (false, true) => Verdict::Failed,
                (false, false) => Verdict::Refused,
            },
            row,
            throttle,
            trace: Trace::of(&head.fields).parent(),
        }
    }

    /// The id of the proven key.
    fn key_id(&self) -> Option<&str> {
        let keys = self.account.as_ref().map(|account| &account.keys);
        keys?.get(self.key as usize).map(|key| key.id.as_str())
    }

    /// Counts a refused call for its account, if that was proven.
    fn turned_away(&self, reason: &'static str) {
        if let Some(account) = &self.account {
            let operation = self.operation.as_ref();
            let kind = TurnedAwayKind {
                account: account.id.clone(),
                group: operation.map(|operation| operation.group.clone()),
                reason,
            };
            self.proxy.shared.turned_away.add(kind, 1);
        }
    }

    fn count(&self, mode: Option<Mode>, decision: Decision, reason: &str) {
        let group = self
            .operation
            .as_ref()
            .map_or("", |operation| operation.group.as_str());
        self.proxy
            .shared
            .metrics
            .requests(group, mode, decision, reason)
            .inc();
    }
}

impl Drop for RequestContext<'_> {
    /// Hung up before it was decided, while its body arrived or while it waited for its start; or
    /// its connection gave way.
    fn drop(&mut self) {
        if self.decided && self.access.is_none() {
            return;
        }
        let reason = match self.client.place.gave_way() {
            true => "gave_way",
            false => "client_closed",
        };
        if let Some(access) = &mut self.access {
            access.reason = reason;
        }
        drop(self.take_line());
        if !self.decided {
            self.count(None, Decision::Refused, reason);
            if let Some(limiter) = &self.limiter {
                limiter.counts.refused.fetch_add(1, Ordering::Relaxed);
            }
            self.turned_away(reason);
            self.decide();
        }
    }
}

/// A name of its own for a call: UUIDs of version 7 sort by time.
fn request_id(now: Utc) -> RequestId {
    let (seconds, micros) = (now.0.div_euclid(1_000_000), now.0.rem_euclid(1_000_000));
    let at = uuid::Timestamp::from_unix(
        uuid::NoContext,
        u64::try_from(seconds).unwrap_or(0),
        u32::try_from(micros * 1_000).unwrap_or(0),
    );
    RequestId(uuid::Uuid::new_v7(at))
}
