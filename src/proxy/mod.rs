//! The way of a request, from its head to the head of its answer.
//!
//! Owns the sentence that joins identify, admit, forward, count and answer (`Proxy::handle`), and what
//! each of its failures means to the caller. Must never admit an unproven identity, forward without
//! a permit, or answer an admitted call before its record is durable.

mod body;
mod dialect;
mod forwarded;
mod memory;
mod permit;
mod places;
mod quota;
mod refusal;
mod state;

pub use body::{ForwardBody, Relay, UPLOAD_BYTES_PER_SECOND, UPLOAD_GRACE};
pub use dialect::Dialect;
pub use memory::SHARE as BODY_MEMORY_SHARE;
pub use places::{Place, Places};
pub use refusal::{REFUSALS, Refusal, RefusalRow, Retry, Sentence};
pub use state::Shared;

use crate::admission::{Denied, Limiter, Now, Reservation};
use crate::caller::{Answer, RequestBody};
use crate::clock::Timer;
use crate::config::{Limits, Settings};
use crate::identity::api_key::{ApiKeyDigest, api_key};
use crate::identity::holddown::{Held, HoldDown, Warnings};
use crate::identity::{Failure, must_stand_once, tc3};
use crate::metrics::Decision;
use crate::policy::{Account, Operation, Policy};
use crate::upstream::{self, ForwardHead, HopByHop, NotAnswered, Outgoing, Upstream, X_BILLABLE};
use crate::usage::Slot;
use crate::wire::{BadHead, Field, Fields, RequestHead, tokens};
use crate::words::{Bill, Mode, Mono, Outcome, QUOTA_PATH, RequestId, RequestIdText, Utc};
use body::{Buffered, Progress, Upload, UploadFailure};
use http::{Method, StatusCode};
use ipnet::IpNet;
use memory::BodyMemory;
use parking_lot::Mutex;
use permit::{Call, Permit};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long the answer to a failing credential is held back once its peer is held down.
const HOLD: Duration = Duration::from_secs(1);

/// The most fields of a request as the upstream gets it.
const FORWARDED_FIELDS: usize = 100;
/// Of these the gate adds so many: account, group, action, request id, the hops, where the body ends; and a `Host` that is
/// missing.
const ADDED_FIELDS: usize = 7;

const X_REQUEST_ID: &str = "x-request-id";
const X_TC_ACTION: &str = "x-tc-action";
const X_TC_TRACE_ID: &str = "x-tc-traceid";
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The way of a call and what it needs; all workers share it.
pub struct Proxy {
    shared: Arc<Shared>,
    /// The places of the connections.
    pub places: Arc<Places>,
    hold_down: HoldDown,
    bad_heads: Warnings,
    body_memory: Arc<BodyMemory>,
    quota_questions: Arc<tokio::sync::Semaphore>,
    limits: Limits,
    max_delay: Duration,
    response_timeout: Duration,
    upstream_host: String,
    trusted_proxies: Vec<IpNet>,
    abandoning: AtomicBool,
}

/// The other end of a connection: what its calls, one after another, have in common.
pub struct Client {
    address: IpAddr,
    /// The address, spelled.
    text: String,
    /// For the patience with the upstream.
    timer: Mutex<Timer>,
    /// The call that runs has a connection to the upstream.
    is_forwarded: AtomicBool,
    has_gone: AtomicBool,
    place: Place,
}

impl Client {
    /// Of a connection from `address` that has this place.
    pub fn new(address: IpAddr, place: Place) -> Self {
        Self {
            address,
            text: address.to_canonical().to_string(),
            timer: Mutex::default(),
            is_forwarded: AtomicBool::new(false),
            has_gone: AtomicBool::new(false),
            place,
        }
    }

    /// Its address, as the connection has it.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its connection's place.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Says that the client has hung up after its whole request had come. Whether the call goes on all the same:
    /// when the upstream has been asked, for then its answer says whether the work was done (R8).
    pub fn hung_up(&self) -> bool {
        self.has_gone.store(true, Ordering::Relaxed);
        self.is_forwarded.load(Ordering::Relaxed)
    }

    /// A call has proven a credential of the account, whose connection this is from now on.
    fn prove(&self, account: &Account) -> Result<(), Refusal> {
        match self.place.prove(&account.id) {
            true => Ok(()),
            false => Err(Refusal::AccountConnections),
        }
    }
}

/// Who calls, as far as the head tells.
enum Caller {
    ApiKey(ApiKeyDigest),
    Tc3 {
        claim: tc3::Claim,
        body_sha256: [u8; 32],
    },
}

/// A proven caller whom the window has let in and who waits for the start.
struct Admitted {
    account: Arc<Account>,
    operation: Arc<Operation>,
    reservation: Reservation,
    slot: Slot,
}

impl Proxy {
    /// A proxy of this state, with places and memory of its own.
    pub fn new(settings: &Settings, shared: Arc<Shared>) -> Self {
        let (clock, metrics) = (&shared.clock, &shared.metrics);
        Self {
            hold_down: HoldDown::new(clock.clone()),
            bad_heads: Warnings::new(clock.clone()),
            places: Places::new(settings.limits.connections, clock.clone(), metrics.clone()),
            body_memory: BodyMemory::new(settings.limits.body_memory),
            quota_questions: Arc::new(tokio::sync::Semaphore::new(quota::AT_ONCE)),
            limits: settings.limits.clone(),
            max_delay: settings.max_delay,
            response_timeout: settings.upstream.response_timeout,
            upstream_host: settings.upstream.endpoint.to_string(),
            trusted_proxies: settings.trusted_proxies.clone(),
            abandoning: AtomicBool::new(false),
            shared,
        }
    }

    /// What the whole process shares.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How long a client's connection may stay without a request.
    pub fn idle_timeout(&self) -> Duration {
        self.limits.idle_timeout
    }

    /// From now on calls that are dropped are the gate's fault: the drain's deadline has come.
    pub fn abandon(&self) {
        self.abandoning.store(true, Ordering::Release);
    }

    fn is_abandoning(&self) -> bool {
        self.abandoning.load(Ordering::Acquire)
    }

    /// A place for a connection from `address`, when there is one.
    pub async fn place(&self, address: IpAddr) -> Place {
        self.places.take(self.counted(address)).await
    }

    /// A place for a connection from `address`, if one is free now.
    pub fn free_place(&self, address: IpAddr) -> Option<Place> {
        self.places.try_take(self.counted(address))
    }

    /// Whose connections are counted together; `None` for a trusted proxy, behind which there are many.
    fn counted(&self, address: IpAddr) -> Option<IpAddr> {
        (!forwarded::is_trusted(&self.trusted_proxies, address)).then_some(address)
    }

    fn bill(&self) -> Bill {
        self.shared.policy.load().catalog.bill
    }

    /// Housekeeping, once a second or so: forgets what is past, publishes what is only sampled.
    pub fn sweep(&self) {
        self.shared
            .limiters
            .sweep(self.shared.clock.mono(), |key, limiter| {
                self.shared
                    .metrics
                    .retire_limiter(&key.account, &key.group, counts(limiter));
            });
        self.hold_down.sweep();
        self.bad_heads.sweep();
    }

    /// Bytes of request bodies held in memory now.
    pub fn body_memory_held(&self) -> u64 {
        self.body_memory.held()
    }

    /// What came on a connection is no request: counted, and told to the operator once a minute for each peer.
    pub fn head_refused(&self, client: &Client, bad: BadHead) {
        self.shared.metrics.head_refused(bad).inc();
        if self.bad_heads.is_due(client.address) {
            tracing::warn!(peer = %client.text, reason = bad.label(), "a head was refused: {}", bad.likely_cause());
        }
    }

    /// Answers one request. Never fails: what goes wrong is said in the caller's dialect.
    pub async fn answer(
        self: Arc<Self>,
        upstream: Arc<Upstream>,
        client: Arc<Client>,
        head: Box<RequestHead>,
        body: RequestBody,
    ) -> Answer<Relay> {
        let received = Now::read(&self.shared.clock);
        client.is_forwarded.store(false, Ordering::Relaxed);
        // In a block of its own, or the call's future would have room for the upload twice.
        let (mut upload, progress) = {
            let upload = Upload::new(
                body,
                self.limits.body_bytes,
                head.expects_continue,
                &self.shared.clock,
                received.mono,
                received.mono.plus(self.limits.request_timeout),
            );
            let progress = upload.progress().clone();
            (Some(upload), progress)
        };
        let mut context = RequestContext::new(&self, &client, &head, received, progress);
        let result = if head.target.path() == QUOTA_PATH {
            match self.check_head(context.dialect, &head, upload.as_ref()) {
                Ok(()) => Box::pin(self.quota(&mut context, &head)).await,
                Err(refusal) => Err(refusal),
            }
        } else {
            self.handle(&mut context, &upstream, &head, &mut upload)
                .await
        };
        let mut answer = self.conclude(&mut context, &mut upload, result).await;
        if context.dialect == Dialect::Vendor {
            let named = |field: &Field<'_>| field.name() == X_TC_TRACE_ID.as_bytes();
            if let Some(trace_id) = head.fields.iter().find(named) {
                answer.lines().field(trace_id);
            }
        }
        answer
    }

    /// What the caller gets: the answer, or the refusal in its dialect, when its time has come. Apart from
    /// [`answer`](Self::answer), so that what is awaited here takes the memory that [`handle`](Self::handle) had.
    async fn conclude(
        &self,
        context: &mut RequestContext<'_>,
        upload: &mut Option<Upload>,
        result: Result<Answer<Relay>, Refusal>,
    ) -> Answer<Relay> {
        let refusal = match result {
            Ok(answer) => return answer,
            Err(refusal) => refusal,
        };
        context.refused(&refusal);
        self.hold_if_guessing(context, &refusal).await;
        let keeps = match upload {
            Some(upload) => upload.drain().await,
            None => context.progress.whole_at().is_some(),
        };
        let dialect = match refusal {
            // No SDK says so, and to who does it is not a matter of the vendor's protocol.
            Refusal::ConnectionOption => Dialect::Plain,
            _ => context.dialect,
        };
        let mut answer = refusal.answer(dialect, &context.id_text);
        // A place beyond the account's part is for others.
        if !keeps || refusal == Refusal::AccountConnections {
            answer.close();
        }
        answer
    }

    /// The sentence: identify, admit, forward, count, answer. The first failure is the answer.
    async fn handle(
        self: &Arc<Self>,
        context: &mut RequestContext<'_>,
        upstream: &Arc<Upstream>,
        head: &RequestHead,
        upload: &mut Option<Upload>,
    ) -> Result<Answer<Relay>, Refusal> {
        self.check_head(context.dialect, head, upload.as_ref())?;
        let (caller, buffered) = self.identify(context, head, upload).await?;
        let Admitted {
            account,
            operation,
            reservation,
            slot,
        } = self.admit(context, caller, head)?;
        let started = reservation.wait(&self.shared.clock).await;
        context.admitted(&operation, started.mode);
        let call = Call {
            id: context.id,
            account,
            operation,
        };
        let permit = Permit::new(self.clone(), call, started, slot);

        let body = match (buffered, upload.take()) {
            (Some(buffered), _) => ForwardBody::Buffered(buffered),
            (None, Some(upload)) => ForwardBody::Streamed(upload),
            (None, None) => return Err(Refusal::Upload(UploadFailure::Incomplete)),
        };
        let outgoing = Outgoing::new(self.upstream_head(context, head, permit.call()), body);
        // On the heap, as what only some calls need: every future moves with all that it may ever hold.
        let answered = Box::pin(self.forward(context, upstream, outgoing)).await;
        let answered_at = self.shared.clock.mono();

        let has_gone = context.client.has_gone.load(Ordering::Relaxed);
        let (outcome, status, vetoed) = match &answered {
            Ok(answer) => (
                match has_gone {
                    true => Outcome::ClientClosed,
                    false => Outcome::Answered,
                },
                Some(answer.status.as_u16()),
                is_vetoed(context.id, &answer.fields),
            ),
            Err(Refusal::Upload(_) | Refusal::BodyTooLarge { .. }) => {
                (Outcome::ClientIncomplete, None, false)
            }
            Err(_) => (Outcome::UpstreamFailed, None, false),
        };
        self.shared
            .metrics
            .upstream(outcome)
            .observe(answered_at.since(permit.start()).as_secs_f64());
        if let Some(commit) = permit.settle(outcome, status, vetoed, answered_at) {
            commit.await.map_err(|_| Refusal::NotDurable)?;
        }
        let in_gate = context.decided_at.since(context.received.mono)
            + self.shared.clock.mono().since(answered_at);
        self.shared.metrics.overhead.observe(in_gate.as_secs_f64());
        let answer = answered?;
        if has_gone {
            // Its body is dropped here: what nobody gets was not cut. This reaches nobody either.
            return Ok(Answer::own(answer.status, Vec::new()));
        }
        Ok(self.relay(context, answer))
    }

    /// What can be said before anybody is identified: sizes (PROTOCOL §3, step 1).
    fn check_head(
        &self,
        dialect: Dialect,
        head: &RequestHead,
        upload: Option<&Upload>,
    ) -> Result<(), Refusal> {
        if head.bytes > self.limits.header_bytes {
            return Err(Refusal::HeadersTooLarge {
                limit: self.limits.header_bytes,
            });
        }
        if dialect == Dialect::Vendor && !matches!(head.method, Method::GET | Method::POST) {
            return Err(Refusal::Method {
                allowed: vec![Method::GET, Method::POST],
            });
        }
        if head.is_1_1 && !head.fields.contains("host") {
            return Err(Refusal::Credential(Failure::MissingHeader("host")));
        }
        check_connection(&head.fields, must_stand_once)?;
        check_count(&head.fields)?;
        if upload
            .and_then(Upload::declared)
            .is_some_and(|declared| declared > self.limits.body_bytes)
        {
            return Err(Refusal::BodyTooLarge {
                limit: self.limits.body_bytes,
            });
        }
        Ok(())
    }

    /// Identify, as far as it goes without the policy of the admission: an API key from the head, a
    /// TC3 signature with the hash of the whole body.
    async fn identify(
        &self,
        context: &RequestContext<'_>,
        head: &RequestHead,
        upload: &mut Option<Upload>,
    ) -> Result<(Caller, Option<Buffered>), Refusal> {
        if let Some(key) = api_key(&head.fields) {
            return Ok((Caller::ApiKey(key.map_err(Refusal::Credential)?), None));
        }
        let now = self.shared.clock.utc().seconds();
        let claim = {
            let policy = self.shared.policy.load();
            let claim =
                tc3::claim(head, now, &policy.catalog.services).map_err(Refusal::Credential)?;
            if policy.tc3(claim.secret_id()).is_none() {
                return Err(Refusal::Credential(Failure::UnknownId));
            }
            check_connection(&head.fields, |name| claim.signs(name))?;
            claim
        };
        if claim.unsigned_payload() {
            // The signature does not cover the body: nothing to wait for.
            return Ok((
                Caller::Tc3 {
                    claim,
                    body_sha256: [0; 32],
                },
                None,
            ));
        }
        if let Some(body) = upload.as_ref().and_then(Upload::came_whole) {
            let body_sha256 = tc3::body_sha256(body);
            return Ok((Caller::Tc3 { claim, body_sha256 }, None));
        }
        let incomplete = Refusal::Upload(UploadFailure::Incomplete);
        let bytes = upload
            .as_ref()
            .and_then(Upload::declared)
            .unwrap_or(self.limits.body_bytes);
        let lease = self
            .body_memory
            .reserve(context.peer, claim.secret_id(), bytes)
            .ok_or(Refusal::BodyMemory)?;
        let place = context.client.place();
        let upload_whole = upload.take().ok_or(incomplete)?.buffer(lease, place.sign());
        let (rest, read) = Box::pin(upload_whole).await;
        place.has_uploaded();
        *upload = Some(rest);
        let (buffered, body_sha256) = read.map_err(|failure| self.upload_refusal(failure))?;
        Ok((Caller::Tc3 { claim, body_sha256 }, Some(buffered)))
    }

    /// Admit, under the policy of this instant: what was stopped, cut or revoked while the body
    /// arrived is so for this call. Nothing is awaited here, so one generation decides all of it.
    fn admit(
        &self,
        context: &mut RequestContext<'_>,
        caller: Caller,
        head: &RequestHead,
    ) -> Result<Admitted, Refusal> {
        let policy = self.shared.policy.load();
        let account = match &caller {
            Caller::ApiKey(digest) => policy
                .api_key(digest)
                .ok_or(Refusal::Credential(Failure::UnknownKey))?
                .clone(),
            Caller::Tc3 { claim, body_sha256 } => {
                let known = policy
                    .tc3(claim.secret_id())
                    .ok_or(Refusal::Credential(Failure::UnknownId))?;
                claim
                    .verify(
                        head,
                        known.secret,
                        body_sha256,
                        &policy.catalog.host_aliases,
                    )
                    .map_err(Refusal::Credential)?;
                self.body_memory.proved(context.peer, claim.secret_id());
                let skew = claim.skew_seconds(self.shared.clock.utc().seconds());
                self.shared.metrics.client_clock_skew.observe(skew as f64);
                known.account.clone()
            }
        };
        context.account = Some(account.clone());
        context.client.prove(&account)?;
        let operation = operation(&policy, head)?.clone();
        context.operation = Some(operation.clone());
        if context.dialect == Dialect::Vendor {
            check_vendor_parameters(&policy, &operation, &head.fields)?;
        }
        let limiter = policy
            .limiter(&account, &operation, &self.shared.limiters)
            .ok_or(Refusal::NotOpened)?;
        context.limiter = Some(limiter.clone());
        let now = context.received.later(&self.shared.clock);
        context.decided_at = now.mono;
        limiter
            .check_flood(now, self.max_delay)
            .map_err(|denied| refusal(denied, &operation))?;
        // The place in the ledger first: who gets it but no start gives it back.
        let slot = self
            .shared
            .ledger
            .reserve()
            .map_err(|_| Refusal::LedgerTrouble)?;
        match limiter.reserve(now, self.max_delay) {
            Ok(reservation) => {
                self.shared
                    .metrics
                    .admission_delay
                    .observe(reservation.start().since(now.mono).as_secs_f64());
                Ok(Admitted {
                    account,
                    operation,
                    reservation,
                    slot,
                })
            }
            Err(denied) => Err(refusal(denied, &operation)),
        }
    }

    /// Forward: over one connection, once. Another connection only when nothing was sent.
    async fn forward(
        &self,
        context: &RequestContext<'_>,
        upstream: &Arc<Upstream>,
        mut outgoing: Outgoing<ForwardBody>,
    ) -> Result<upstream::Answer, Refusal> {
        let attempt = async {
            loop {
                let connection = upstream.connection().await?;
                context.client.is_forwarded.store(true, Ordering::Relaxed);
                match connection.send(outgoing).await {
                    Ok(answer) => return Ok(answer),
                    Err(NotAnswered::Unsent(back)) => outgoing = back,
                    Err(NotAnswered::Failed(failure)) => return Err(failure),
                }
            }
        };
        let mut timer = std::mem::take(&mut *context.client.timer.lock());
        let attempted = tokio::select! {
            biased;
            attempted = attempt => Some(attempted),
            () = self.head_is_late(context, &mut timer) => None,
        };
        *context.client.timer.lock() = timer;
        match attempted {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(failure)) => {
                let broke_off = context.progress.failure();
                if broke_off.is_none() {
                    tracing::warn!(request_id = %context.id, "{failure}");
                }
                Err(match failure {
                    upstream::Failure::Incomplete(_) => {
                        self.upload_refusal(broke_off.unwrap_or(UploadFailure::Incomplete))
                    }
                    upstream::Failure::Unreachable { .. } => Refusal::UpstreamUnreachable,
                    upstream::Failure::Cut(_) => Refusal::UpstreamCut,
                    upstream::Failure::Nonsense(_) => Refusal::UpstreamNonsense,
                })
            }
            // A client that is late at the same deadline may hear of it here first.
            None => Err(match context.progress.is_awaited() {
                true => Refusal::Upload(UploadFailure::TooSlow),
                false => Refusal::UpstreamTimeout,
            }),
        }
    }

    /// Ends when the upstream has had the whole request for `response_timeout`, or the call is over
    /// its `request_timeout`.
    async fn head_is_late(&self, context: &RequestContext<'_>, timer: &mut Timer) {
        let deadline = context.received.mono.plus(self.limits.request_timeout);
        loop {
            let now = self.shared.clock.mono();
            let due = context
                .progress
                .whole_at()
                .unwrap_or(now)
                .max(context.decided_at)
                .plus(self.response_timeout)
                .min(deadline);
            if due <= now {
                return;
            }
            timer.sleep(due.since(now)).await;
        }
    }

    /// The head as the upstream gets it: what ends at this hop is left out, and so are credentials that
    /// are secrets; the identity is set here and nowhere else.
    fn upstream_head(
        &self,
        context: &RequestContext<'_>,
        head: &RequestHead,
        call: &Call,
    ) -> ForwardHead {
        let fields = &head.fields;
        let mut forward = ForwardHead::new(head.method.clone(), &head.target);
        let hop = HopByHop::of(fields);
        for field in fields.iter() {
            if !hop.contains(field.name()) && !stays_here(field) {
                forward.field(field);
            }
        }
        // HTTP/1.0 may come without a Host; it leaves as HTTP/1.1, which must have one.
        if !fields.contains("host") {
            let named = head.target.authority();
            forward.text("host", named.unwrap_or(&self.upstream_host));
        }
        forward.text("x-tollgate-account", call.account.id.as_str());
        forward.text("x-tollgate-group", call.operation.group.as_str());
        forward.text("x-tollgate-action", call.operation.action.as_str());
        forward.text(X_REQUEST_ID, context.id_text);
        // What a trusted proxy said of the hops before, as it came, and the hop to us; from anybody else only the latter.
        match forwarded::is_trusted(&self.trusted_proxies, context.client.address) {
            true => forward.list(X_FORWARDED_FOR, fields, &context.client.text),
            false => forward.text(X_FORWARDED_FOR, &context.client.text),
        }
        forward
    }

    /// Answer: the upstream's words with our name on them.
    fn relay(&self, context: &RequestContext<'_>, answer: upstream::Answer) -> Answer<Relay> {
        let is_vendor = context.dialect == Dialect::Vendor;
        if is_vendor && answer.status != StatusCode::OK {
            // The SDKs lose whatever comes with another status (PROTOCOL §4).
            return dialect::vendor_failed(&context.id_text, answer.status);
        }
        let upstream::Answer {
            status,
            fields,
            body,
        } = answer;
        let cut = self.shared.metrics.answers_cut.clone();
        let relay = Relay::new(body, self.response_timeout, cut);
        // With a charset the SDKs take an error for a success (PROTOCOL §4).
        let is_ours = |name: &[u8]| {
            name == X_BILLABLE.as_bytes()
                || name == X_REQUEST_ID.as_bytes()
                || (is_vendor && (name == b"content-type" || name == X_TC_TRACE_ID.as_bytes()))
        };
        let mut answer = Answer::passing(status, &fields, |name| !is_ours(name), relay);
        answer.lines().text(X_REQUEST_ID, context.id_text);
        if is_vendor {
            answer.lines().fixed("content-type: application/json\r\n");
        }
        answer
    }

    /// Makes guessing slow: past the limit the answer to a failing credential is held back. A valid
    /// credential never waits, whoever else shares its address.
    async fn hold_if_guessing(&self, context: &RequestContext<'_>, refusal: &Refusal) {
        let Refusal::Credential(Failure::UnknownId | Failure::UnknownKey | Failure::BadSignature) =
            refusal
        else {
            return;
        };
        if let Held::Held { first } = self.hold_down.failed(context.peer) {
            if first {
                tracing::warn!(peer = %context.peer, reason = refusal.reason(), "failing credentials are held down");
            }
            self.shared.metrics.held_down.inc();
            Box::pin(self.shared.clock.sleep(HOLD)).await;
        }
    }

    fn upload_refusal(&self, failure: UploadFailure) -> Refusal {
        match failure {
            UploadFailure::TooLarge => Refusal::BodyTooLarge {
                limit: self.limits.body_bytes,
            },
            other => Refusal::Upload(other),
        }
    }
}

/// One request between its head and its decision. Whatever becomes of it, it is decided once (P4).
struct RequestContext<'p> {
    proxy: &'p Proxy,
    id: RequestId,
    id_text: RequestIdText,
    dialect: Dialect,
    /// Whose connection it is.
    client: &'p Client,
    /// Whose request it is: the same, or what a trusted proxy says.
    peer: IpAddr,
    received: Now,
    decided_at: Mono,
    decided: bool,
    progress: Arc<Progress>,
    account: Option<Arc<Account>>,
    operation: Option<Arc<Operation>>,
    limiter: Option<Arc<Limiter>>,
}

impl<'p> RequestContext<'p> {
    fn new(
        proxy: &'p Proxy,
        client: &'p Client,
        head: &RequestHead,
        received: Now,
        progress: Arc<Progress>,
    ) -> Self {
        // The gate's own endpoint is no call: nothing is decided about it, nothing counted.
        let is_call = head.target.path() != QUOTA_PATH;
        if is_call {
            proxy.shared.metrics.received.inc();
            proxy.shared.metrics.pending.inc();
        }
        let id = request_id(received.utc);
        Self {
            proxy,
            id,
            id_text: id.text(),
            dialect: Dialect::of(head),
            client,
            peer: forwarded::peer(client.address, &head.fields, &proxy.trusted_proxies),
            received,
            decided_at: received.mono,
            decided: !is_call,
            progress,
            account: None,
            operation: None,
            limiter: None,
        }
    }

    fn decide(&mut self) {
        self.decided = true;
        self.proxy.shared.metrics.pending.dec();
    }

    fn admitted(&mut self, operation: &Operation, mode: Mode) {
        operation.admitted(mode).inc();
        if let Some(limiter) = &self.limiter {
            limiter.counts.admitted.fetch_add(1, Ordering::Relaxed);
        }
        self.decide();
    }

    /// Counts the decision, unless the call was admitted: then it has its record and was only failed.
    fn refused(&mut self, refusal: &Refusal) {
        tracing::debug!(
            request_id = %self.id,
            peer = %self.peer,
            account = self.account.as_ref().map(|account| account.id.as_str()),
            action = self.operation.as_ref().map(|operation| operation.action.as_str()),
            reason = refusal.reason(),
            "{}", if self.decided { "failed" } else { "not admitted" },
        );
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
        self.decide();
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
    /// Hung up before it was decided, while its body arrived or while it waited for its start; or its connection gave way.
    fn drop(&mut self) {
        if !self.decided {
            let reason = match self.client.place.gave_way() {
                true => "gave_way",
                false => "client_closed",
            };
            self.count(None, Decision::Refused, reason);
            if let Some(limiter) = &self.limiter {
                limiter.counts.refused.fetch_add(1, Ordering::Relaxed);
            }
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

/// Which operation is called: by `X-TC-Action`, else by the route. When both speak they must agree,
/// or a free action's name would open a paid action's path.
fn operation<'p>(policy: &'p Policy, head: &RequestHead) -> Result<&'p Arc<Operation>, Refusal> {
    let path = head.target.path();
    let by_route = || {
        policy
            .by_route(&head.method, path)
            .map_err(|allowed| match allowed.is_empty() {
                true => Refusal::PathUnknown,
                false => Refusal::Method { allowed },
            })
    };
    match head.fields.get(X_TC_ACTION) {
        None if path == "/" => Err(Refusal::ActionMissing),
        None => by_route(),
        Some(name) => {
            let named = std::str::from_utf8(name)
                .ok()
                .and_then(|name| policy.by_action(name));
            let named = named.ok_or(Refusal::ActionUnknown)?;
            if path != "/" && by_route()?.action != named.action {
                return Err(Refusal::ActionMismatch);
            }
            Ok(named)
        }
    }
}

/// A field that was judged must reach the upstream as it was: if `Connection` took it away, the upstream would do what the
/// gate has not judged (RFC 9110 §7.6.1 has it that such fields are not named there).
fn check_connection(fields: &Fields, is_judged: impl Fn(&[u8]) -> bool) -> Result<(), Refusal> {
    let hop = HopByHop::of(fields);
    match hop
        .named()
        .any(|name| is_judged(&name.to_ascii_lowercase()))
    {
        true => Err(Refusal::ConnectionOption),
        false => Ok(()),
    }
}

/// Many servers take no more than [`FORWARDED_FIELDS`], and a call that the upstream would refuse is not worth its place in the
/// window.
fn check_count(fields: &Fields) -> Result<(), Refusal> {
    // Nearly every call ends here.
    if fields.count() + ADDED_FIELDS <= FORWARDED_FIELDS {
        return Ok(());
    }
    let hop = HopByHop::of(fields);
    let passes = |field: &Field<'_>| !hop.contains(field.name()) && !stays_here(*field);
    let has_host = usize::from(fields.contains("host"));
    match fields.iter().filter(passes).count() + ADDED_FIELDS - has_host <= FORWARDED_FIELDS {
        true => Ok(()),
        false => Err(Refusal::TooManyFields {
            limit: FORWARDED_FIELDS,
        }),
    }
}

/// Version and region, which only the vendor's dialect has (PROTOCOL §1).
fn check_vendor_parameters(
    policy: &Policy,
    operation: &Operation,
    fields: &Fields,
) -> Result<(), Refusal> {
    let text = |name: &str| {
        let value = fields.get(name)?;
        Some(std::str::from_utf8(value).unwrap_or("?"))
    };
    let version = text("x-tc-version").ok_or(Refusal::VersionMissing)?;
    if !policy.catalog.versions.iter().any(|known| known == version) {
        return Err(Refusal::VersionUnknown);
    }
    if operation.regions.is_empty() {
        return Ok(());
    }
    match text("x-tc-region") {
        None => Err(Refusal::RegionMissing),
        Some("") => Err(Refusal::RegionEmpty),
        Some(region) if operation.regions.iter().any(|known| known == region) => Ok(()),
        Some(_) => Err(Refusal::RegionUnsupported),
    }
}

fn refusal(denied: Denied, operation: &Operation) -> Refusal {
    let group = operation.group.clone();
    match denied {
        Denied::NotOpened => Refusal::NotOpened,
        Denied::Stopped(stop) => Refusal::Stopped(stop),
        Denied::NoQuota { begins_in } => Refusal::NoQuota { group, begins_in },
        Denied::Throttled {
            quota,
            mode,
            retry_after,
        } => Refusal::Throttled {
            group,
            quota,
            mode,
            retry_after,
        },
    }
}

/// What was for the gate, and what it says itself. A TC3 signature is no secret, and the upstream may
/// want to verify it; a bearer key is one.
fn stays_here(field: Field<'_>) -> bool {
    match field.name() {
        b"authorization" => !field.value().starts_with(b"TC3"),
        b"expect" | b"x-api-key" | b"x-forwarded-for" | b"x-request-id" => true,
        name => is_ours(name),
    }
}

/// What is neither letter, digit nor hyphen.
const ODD: [bool; 256] = {
    let mut odd = [true; 256];
    let mut byte = 0;
    while byte < 128 {
        odd[byte] = !(byte as u8).is_ascii_alphanumeric() && byte as u8 != b'-';
        byte += 1;
    }
    odd
};

/// Names that only the gate may use, and other spellings of those that it sets or has judged: an upstream that hands fields
/// on as variables (CGI, WSGI, PHP) makes one sign of whatever is no letter and no digit, and would obey either.
fn is_ours(name: &[u8]) -> bool {
    if name.starts_with(b"x-tollgate-") {
        return true;
    }
    let is_odd = |byte: &u8| ODD[usize::from(*byte)];
    name.iter().any(is_odd) && {
        let mut dashed = name.to_vec();
        for byte in dashed.iter_mut().filter(|byte| is_odd(byte)) {
            *byte = b'-';
        }
        dashed.starts_with(b"x-tollgate-")
            || matches!(
                &*dashed,
                b"x-request-id" | b"x-forwarded-for" | b"content-length" | b"transfer-encoding"
            )
            || must_stand_once(&dashed)
    }
}

/// Whether the upstream says that a call shall not be billed: any `false` does, whatever else is said. A word that
/// nobody can act on is logged, for somebody meant something by it.
fn is_vetoed(id: RequestId, fields: &Fields) -> bool {
    let mut is_vetoed = false;
    for word in fields.get_all(X_BILLABLE).flat_map(tokens) {
        if word.eq_ignore_ascii_case(b"false") {
            is_vetoed = true;
        } else if !word.eq_ignore_ascii_case(b"true") {
            let word = String::from_utf8_lossy(word);
            tracing::warn!(request_id = %id, ?word, "the upstream's x-tollgate-billable is neither true nor false");
        }
    }
    is_vetoed
}

/// A limiter's counts in the order of the metric's decisions.
pub fn counts(limiter: &Limiter) -> [u64; 3] {
    let counts = &limiter.counts;
    [&counts.admitted, &counts.throttled, &counts.refused]
        .map(|count: &AtomicU64| count.load(Ordering::Relaxed))
}
