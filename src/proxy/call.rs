//! The way of a call, from its head to the head of its answer.
//!
//! Owns the sentence that joins identify, admit, forward, count and answer ([`Proxy::handle`]), and what each of its failures
//! means to the client. Must never admit an unproven identity, forward without a permit, or answer an admitted call before
//! its record is durable.

use crate::http::h1::{Answer, RequestBody, RequestHead};
use crate::ledger::Slot;
use crate::model::{Outcome, Timer};
use crate::proxy::admission::{Now, Reservation};
use crate::proxy::body::{Buffered, ForwardBody, Progress, Relay, Upload, UploadFailure};
use crate::proxy::context::{Client, RequestContext};
use crate::proxy::dialect::Dialect;
use crate::proxy::forwarding::{check_connection, check_count, is_vetoed};
use crate::proxy::identity::api_key::{ApiKeyDigest, api_key};
use crate::proxy::identity::hold_down::HoldVerdict;
use crate::proxy::identity::{CredentialFailure, must_stand_once, tc3};
use crate::proxy::operation::{check_vendor_parameters, operation, refusal};
use crate::proxy::permit::{AdmittedCall, Permit};
use crate::proxy::policy::{KnownAccount, Operation};
use crate::proxy::refusal::Refusal;
use crate::proxy::state::Proxy;
use crate::proxy::upstream::{self, NotAnswered, Upstream, UpstreamRequest};
use http::Method;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long the answer to a failing credential is held back once its peer is held down.
const HOLD: Duration = Duration::from_secs(1);

/// Who calls, as far as the head tells.
enum Claimant {
    ApiKey(ApiKeyDigest),
    Tc3 {
        claim: tc3::Claim,
        body_sha256: [u8; 32],
    },
}

/// A proven caller whom the window has let in and who waits for the start.
struct Admitted {
    account: Arc<KnownAccount>,
    operation: Arc<Operation>,
    reservation: Reservation,
    slot: Slot,
}

impl Proxy {
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
        let (mut upload, progress) = self.upload(&head, body, received);
        let mut context = RequestContext::of_call(&self, &client, &head, received, progress);
        let result = self
            .handle(&mut context, &upstream, &head, &mut upload)
            .await;
        let mut answer = self.conclude(&mut context, &mut upload, result).await;
        context.echo(&head, &mut answer);
        answer
    }

    /// The body of a request on its way in. Apart from who awaits, or the call's future would have room for it twice.
    pub(super) fn upload(
        &self,
        head: &RequestHead,
        body: RequestBody,
        received: Now,
    ) -> (Option<Upload>, Arc<Progress>) {
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
    }

    /// What the client gets: the answer, or the refusal in its dialect, when its time has come. Apart from
    /// [`answer`](Self::answer), so that what is awaited here takes the memory that [`handle`](Self::handle) had.
    pub(super) async fn conclude(
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
        let call = AdmittedCall {
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
        let outgoing = UpstreamRequest::new(self.upstream_head(context, head, permit.call()), body);
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
        if let Some(commit) = permit.finish(outcome, status, vetoed, answered_at) {
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
    pub(super) fn check_head(
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
            return Err(Refusal::Credential(CredentialFailure::MissingHeader(
                "host",
            )));
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
    ) -> Result<(Claimant, Option<Buffered>), Refusal> {
        if let Some(key) = api_key(&head.fields) {
            return Ok((Claimant::ApiKey(key.map_err(Refusal::Credential)?), None));
        }
        let now = self.shared.clock.utc().seconds();
        let claim = {
            let policy = self.shared.policy.load();
            let claim =
                tc3::claim(head, now, &policy.catalog.services).map_err(Refusal::Credential)?;
            if policy.tc3(claim.secret_id()).is_none() {
                return Err(Refusal::Credential(CredentialFailure::UnknownId));
            }
            check_connection(&head.fields, |name| claim.signs(name))?;
            claim
        };
        if claim.unsigned_payload() {
            // The signature does not cover the body: nothing to wait for.
            return Ok((
                Claimant::Tc3 {
                    claim,
                    body_sha256: [0; 32],
                },
                None,
            ));
        }
        if let Some(body) = upload.as_ref().and_then(Upload::came_whole) {
            let body_sha256 = tc3::body_sha256(body);
            return Ok((Claimant::Tc3 { claim, body_sha256 }, None));
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
        Ok((Claimant::Tc3 { claim, body_sha256 }, Some(buffered)))
    }

    /// Admit, under the policy of this instant: what was stopped, cut or revoked while the body
    /// arrived is so for this call. Nothing is awaited here, so one generation decides all of it.
    fn admit(
        &self,
        context: &mut RequestContext<'_>,
        caller: Claimant,
        head: &RequestHead,
    ) -> Result<Admitted, Refusal> {
        let policy = self.shared.policy.load();
        let account = match &caller {
            Claimant::ApiKey(digest) => policy
                .api_key(digest)
                .ok_or(Refusal::Credential(CredentialFailure::UnknownKey))?
                .clone(),
            Claimant::Tc3 { claim, body_sha256 } => {
                let known = policy
                    .tc3(claim.secret_id())
                    .ok_or(Refusal::Credential(CredentialFailure::UnknownId))?;
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
        context.proven(&account)?;
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
        mut outgoing: UpstreamRequest<ForwardBody>,
    ) -> Result<upstream::UpstreamAnswer, Refusal> {
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
                    upstream::UpstreamFailure::Incomplete(_) => {
                        self.upload_refusal(broke_off.unwrap_or(UploadFailure::Incomplete))
                    }
                    upstream::UpstreamFailure::Unreachable { .. } => Refusal::UpstreamUnreachable,
                    upstream::UpstreamFailure::Cut(_) => Refusal::UpstreamCut,
                    upstream::UpstreamFailure::Nonsense(_) => Refusal::UpstreamNonsense,
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

    /// Makes guessing slow: past the limit the answer to a failing credential is held back. A valid
    /// credential never waits, whoever else shares its address.
    async fn hold_if_guessing(&self, context: &RequestContext<'_>, refusal: &Refusal) {
        let Refusal::Credential(
            CredentialFailure::UnknownId
            | CredentialFailure::UnknownKey
            | CredentialFailure::BadSignature,
        ) = refusal
        else {
            return;
        };
        if let HoldVerdict::HoldVerdict { first } = self.hold_down.failed(context.peer) {
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
