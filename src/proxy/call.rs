//! The way of a call, from its head to the head of its answer.
//!
//! Owns the sentence: identify, admit, forward, count, answer ([`Proxy::handle`]). Its steps stand
//! below it in the order in which they are called; what passes through is written in
//! `forwarding.rs`, and what is common to all requests in `request.rs`. Must never admit an unproven identity, forward
//! without a permit, or answer an admitted call before its record is durable.
//!
//! # Decided
//! - **TC3 bodies are read before the decision, API-key bodies stream after it.** A signature
//!   covers the body; a key does not. `UNSIGNED-PAYLOAD` streams too: nothing in its body is proven
//!   anyway.

use crate::http::h1::{Answer, RequestHead};
use crate::ledger::{Commit, Slot};
use crate::model::{Mono, Outcome, Timer};
use crate::proxy::admission::Reservation;
use crate::proxy::body::{Buffered, ForwardBody, Relay, Upload, UploadFailure};
use crate::proxy::context::RequestContext;
use crate::proxy::dialect::Dialect;
use crate::proxy::forwarding::{check_connection, is_vetoed};
use crate::proxy::identity::api_key::{ApiKeyDigest, api_key};
use crate::proxy::identity::{CredentialFailure, tc3};
use crate::proxy::operation::{check_vendor_parameters, operation, refusal};
use crate::proxy::permit::{AdmittedCall, Permit};
use crate::proxy::policy::{KnownAccount, Policy};
use crate::proxy::refusal::Refusal;
use crate::proxy::state::Proxy;
use crate::proxy::upstream::{
    NotAnswered, Upstream, UpstreamAnswer, UpstreamFailure, UpstreamRequest,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The credential that a call claims to have. Not proven yet.
enum Claimant {
    ApiKey(ApiKeyDigest),
    Tc3 {
        claim: tc3::Claim,
        body_sha256: [u8; 32],
    },
}

/// A call with a start in the window and a slot in the ledger's queue. It waits for its start, and
/// gives the slot back if its client leaves until then; the start is used up.
struct Admitted {
    call: AdmittedCall,
    reservation: Reservation,
    slot: Slot,
}

impl Proxy {
    /// The sentence: identify, admit, forward, count, answer. The first failure is the answer.
    pub(super) async fn handle(
        self: &Arc<Self>,
        context: &mut RequestContext<'_>,
        upstream: &Arc<Upstream>,
        head: &RequestHead,
        upload: &mut Option<Upload>,
    ) -> Result<Answer<Relay>, Refusal> {
        self.check_head(context.dialect, head, upload.as_ref())?;
        let (claimant, buffered) = self.identify(context, head, upload).await?;
        let Admitted {
            call,
            reservation,
            slot,
        } = self.admit(context, claimant, head)?;
        let started = reservation.wait(&self.shared.clock).await;
        context.admitted(&call.operation, started.mode);
        // Admitted from here on: the permit writes the record however the call ends, also when this
        // future is dropped.
        let permit = Permit::new(self.clone(), call, started, slot);

        let body = match (buffered, upload.take()) {
            (Some(buffered), _) => ForwardBody::Buffered(buffered),
            (None, Some(upload)) => ForwardBody::Streamed(upload),
            // Not reached: `identify` takes the upload only when it gives the buffered body. The
            // permit would write the record here too.
            (None, None) => return Err(Refusal::Upload(UploadFailure::Incomplete)),
        };
        let outgoing = UpstreamRequest::new(self.upstream_head(context, head, permit.call()), body);
        // Boxed, which keeps the future of the call small: it is moved whole, several times.
        let answered = Box::pin(self.forward(context, upstream, outgoing)).await;
        let answered_at = self.shared.clock.mono();

        // The answer may leave only when its record is durable (P3). Whether the client has gone is
        // read once, for the record and the answer must agree on it.
        let has_gone = context.client.has_gone.load(Ordering::Relaxed);
        if let Some(commit) = self.count(context, permit, &answered, answered_at, has_gone) {
            commit.await.map_err(|_| Refusal::NotDurable)?;
        }
        // The time in tollgate itself: before the decision, and after the upstream's answer.
        let own_time = context.decided_at.since(context.received.mono)
            + self.shared.clock.mono().since(answered_at);
        self.shared.metrics.overhead.observe(own_time.as_secs_f64());

        let answer = answered?;
        if has_gone {
            // Nobody gets this. The upstream's body is dropped here, so it does not count as cut.
            return Ok(Answer::own(answer.status, Vec::new()));
        }
        Ok(self.relay(context, answer))
    }

    /// Identify: reads which credential the call claims, an API key from the head or a TC3 signature
    /// with the hash of the whole body. `admit` proves it, by the policy of its instant.
    async fn identify(
        &self,
        context: &RequestContext<'_>,
        head: &RequestHead,
        upload: &mut Option<Upload>,
    ) -> Result<(Claimant, Option<Buffered>), Refusal> {
        if let Some(key) = api_key(&head.fields) {
            return Ok((Claimant::ApiKey(key.map_err(Refusal::Credential)?), None));
        }
        let claim = self.tc3_claim(head)?;
        if claim.unsigned_payload() {
            // The signature does not cover the body: nothing to wait for.
            let body_sha256 = [0; 32];
            return Ok((Claimant::Tc3 { claim, body_sha256 }, None));
        }
        if let Some(body) = upload.as_ref().and_then(Upload::came_whole) {
            let body_sha256 = tc3::body_sha256(body);
            return Ok((Claimant::Tc3 { claim, body_sha256 }, None));
        }
        let incomplete = Refusal::Upload(UploadFailure::Incomplete);
        // Without a length the largest body is expected.
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

    /// The TC3 signature that the head claims. A secret id that nobody has is refused at once,
    /// before its body takes memory.
    fn tc3_claim(&self, head: &RequestHead) -> Result<tc3::Claim, Refusal> {
        let now = self.shared.clock.utc().seconds();
        let policy = self.shared.policy.load();
        let claim = tc3::claim(head, now, &policy.catalog.services).map_err(Refusal::Credential)?;
        if policy.tc3(claim.secret_id()).is_none() {
            return Err(Refusal::Credential(CredentialFailure::UnknownId));
        }
        check_connection(&head.fields, |name| claim.signs(name))?;
        Ok(claim)
    }

    /// Admit, under the policy of this instant: a stop, a smaller quota or a revoked credential
    /// that came while the body arrived applies to this call. Nothing is awaited here, so one
    /// generation decides all of it.
    fn admit(
        &self,
        context: &mut RequestContext<'_>,
        claimant: Claimant,
        head: &RequestHead,
    ) -> Result<Admitted, Refusal> {
        let policy = self.shared.policy.load();
        let account = self.prove(context, &policy, &claimant, head)?;
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
        // Read after the limiter was found: with an older `now` the limiter might have forgotten a
        // start that is less than a second old by it (P1).
        let now = context.received.later(&self.shared.clock);
        context.decided_at = now.mono;
        // A flood is throttled from one atomic, before it takes the window's lock or a slot.
        limiter
            .check_flood(now, self.max_delay)
            .map_err(|denied| refusal(denied, &operation))?;
        // The ledger's slot first: a slot can be given back, a start in the window cannot.
        let slot = self
            .shared
            .ledger
            .reserve()
            .map_err(|_| Refusal::LedgerTrouble)?;
        let reservation = limiter
            .reserve(now, self.max_delay)
            .map_err(|denied| refusal(denied, &operation))?;
        self.shared
            .metrics
            .admission_delay
            .observe(reservation.start().since(now.mono).as_secs_f64());
        Ok(Admitted {
            call: AdmittedCall {
                id: context.id,
                account,
                operation,
            },
            reservation,
            slot,
        })
    }

    /// The account whose credential the call has, proven.
    fn prove(
        &self,
        context: &RequestContext<'_>,
        policy: &Policy,
        claimant: &Claimant,
        head: &RequestHead,
    ) -> Result<Arc<KnownAccount>, Refusal> {
        match claimant {
            Claimant::ApiKey(digest) => policy
                .api_key(digest)
                .cloned()
                .ok_or(Refusal::Credential(CredentialFailure::UnknownKey)),
            Claimant::Tc3 { claim, body_sha256 } => {
                // Looked up again: the credential may have been revoked while the body arrived.
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
                Ok(known.account.clone())
            }
        }
    }

    /// Forward: over one connection, once. Another connection only when nothing was sent.
    async fn forward(
        &self,
        context: &RequestContext<'_>,
        upstream: &Arc<Upstream>,
        mut outgoing: UpstreamRequest<ForwardBody>,
    ) -> Result<UpstreamAnswer, Refusal> {
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
        // The connection's timer, used again by each of its calls. No lock is held over the await.
        let mut timer = std::mem::take(&mut *context.client.timer.lock());
        let attempted = tokio::select! {
            // An answer that is there counts, also at the deadline.
            biased;
            attempted = attempt => Some(attempted),
            () = self.head_is_late(context, &mut timer) => None,
        };
        *context.client.timer.lock() = timer;
        match attempted {
            Some(attempted) => attempted.map_err(|failure| self.upstream_refusal(context, failure)),
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
            // While the body still comes, the upstream's time has not begun.
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

    /// The refusal for a call that the upstream did not answer. The operator hears of it, unless
    /// the client's body broke off.
    fn upstream_refusal(&self, context: &RequestContext<'_>, failure: UpstreamFailure) -> Refusal {
        let broke_off = context.progress.failure();
        if broke_off.is_none() {
            tracing::warn!(request_id = %context.id, "{failure}");
        }
        match failure {
            UpstreamFailure::Incomplete(_) => {
                self.upload_refusal(broke_off.unwrap_or(UploadFailure::Incomplete))
            }
            UpstreamFailure::Unreachable { .. } => Refusal::UpstreamUnreachable,
            UpstreamFailure::Cut(_) => Refusal::UpstreamCut,
            UpstreamFailure::Nonsense(_) => Refusal::UpstreamNonsense,
        }
    }

    /// Count: the permit becomes the call's one record. The answer waits for its commit (P3); there
    /// is none when the permit has written the record already. A client that leaves before the
    /// upstream was asked drops the future, and the permit counts it. Later the call goes on to the
    /// upstream's answer, for that says whether the work was done (R8).
    fn count(
        &self,
        context: &RequestContext<'_>,
        permit: Permit,
        answered: &Result<UpstreamAnswer, Refusal>,
        answered_at: Mono,
        has_gone: bool,
    ) -> Option<Commit> {
        let (outcome, status, vetoed) = match answered {
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
        permit.finish(outcome, status, vetoed, answered_at)
    }
}
