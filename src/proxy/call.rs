//! The way of a call, from its head to the head of its answer.
//!
//! Owns the main function of the gate ([`Proxy::handle`]): identify, admit, forward, count, answer.
//! Its steps stand below it in the order in which they are called. The heads that go out (of the
//! call, and of its answer) are written in `forwarding.rs`; what is common to all requests, as
//! `check_head`, is in `request.rs`. Must never admit an unproven identity, forward without a
//! permit, or answer an admitted call before its record is durable (strict ledger).
//!
//! # Decided
//! - **TC3 bodies are read before the decision, API-key bodies stream after it.** A signature
//!   covers the body; a key does not. `UNSIGNED-PAYLOAD` streams too: nothing in its body is proven
//!   anyway.

use crate::http::h1::{Answer, RequestHead};
use crate::ledger::{Commit, Slot};
use crate::model::{Mono, Outcome, Timer};
use crate::proxy::admission::{Denied, Limiter, Now, Reservation, Started, StoreVerdict, Wish};
use crate::proxy::body::{Buffered, ForwardBody, Relay, Upload};
use crate::proxy::context::RequestContext;
use crate::proxy::dialect::Dialect;
use crate::proxy::forwarding::{check_connection, is_vetoed};
use crate::proxy::identity::api_key::{ApiKeyDigest, api_key};
use crate::proxy::identity::{CredentialFailure, tc3};
use crate::proxy::operation::{check_vendor_parameters, not_admitted, operation};
use crate::proxy::permit::{AdmittedCall, Permit};
use crate::proxy::policy::{KnownKey, Operation, Policy};
use crate::proxy::progress::UploadFailure;
use crate::proxy::refusal::Refusal;
use crate::proxy::state::Proxy;
use crate::proxy::upstream::{InFlight, Sending, UpstreamAnswer, UpstreamFailure, UpstreamRequest};
use crate::proxy::worker::Worker;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The credential that a call claims to have. Not proven yet.
pub(super) enum Claimant {
    ApiKey(ApiKeyDigest),
    Tc3 {
        claim: tc3::Claim,
        body_sha256: [u8; 32],
    },
}

/// A call with a slot in the ledger's queue and a start in the window, or the right to ask for one. It
/// is admitted when the start comes. If its client leaves before, the slot goes back to the queue and
/// the start is lost.
struct Reserved {
    call: AdmittedCall,
    place: WindowPlace,
    slot: Slot,
    /// Its place among the calls that its upstream may have at once.
    in_flight: InFlight,
}

/// The call's place in the window.
enum WindowPlace {
    /// It has one.
    Here(Reservation),
    /// The shared store gives it one, or not.
    AtStore(Wish),
}

impl Proxy {
    /// Identify, admit, forward, count, answer. The first failure is the answer, but an admitted call
    /// is counted in any case, and where that fails, this is what the client is told.
    pub(super) async fn handle(
        self: &Arc<Self>,
        context: &mut RequestContext<'_>,
        worker: &Arc<Worker>,
        head: &RequestHead,
        upload: &mut Option<Upload>,
    ) -> Result<Answer<Relay>, Refusal> {
        self.check_head(context.dialect, head, upload.as_ref())?;
        let (claimant, buffered) = self.identify(context, head, upload).await?;
        let Reserved {
            call,
            place,
            slot,
            in_flight,
        } = self.admit(context, claimant, head)?;
        let started = match place {
            WindowPlace::Here(reservation) => reservation.wait(&self.shared.clock).await,
            // After `admit`, which awaits nothing: one generation decided all of it (P5).
            WindowPlace::AtStore(wish) => Box::pin(self.ask_store(context, worker, wish)).await?,
        };
        context.admitted(&call, &started);
        // Admitted from here on: the permit writes the record however the call ends, also when this
        // future is dropped.
        let permit = Permit::new(self.clone(), call, started, slot);

        let body = match (buffered, upload.take()) {
            (Some(buffered), _) => ForwardBody::Buffered(buffered),
            (None, Some(upload)) => ForwardBody::Streamed(upload),
            // Not reached: each request has an upload, and `identify` gives it back. The permit would
            // write the record here too.
            (None, None) => return Err(Refusal::Upload(UploadFailure::Incomplete)),
        };
        let outgoing = UpstreamRequest::new(self.upstream_head(context, head, permit.call()), body);
        // Boxed, which keeps the future of the call small: it is moved whole, several times.
        let answered = Box::pin(self.forward(context, in_flight, worker.index, outgoing)).await;
        let answered_at = self.shared.clock.mono();

        // The answer may leave only when its record is durable (P3). Whether the client has gone is
        // read once, because the record and the answer must agree on it.
        let has_gone = context.client.has_gone.load(Ordering::Relaxed);
        let commit = self.count(context, permit, &answered, answered_at, has_gone);
        commit.await.map_err(|_| Refusal::NotDurable)?;
        // The time in tollgate itself: until the decision (with the body of a signed call), and
        // after the upstream's answer (with the commit).
        let own_time = context.decided_at.since(context.received.mono)
            + self.shared.clock.mono().since(answered_at);
        context.took_here(own_time);

        let answer = answered?;
        if has_gone {
            // Nobody gets this. The upstream's body is dropped unread, so that no metric takes it for
            // an answer that was cut.
            return Ok(Answer::own(answer.status, Vec::new()));
        }
        Ok(self.relay(context, answer))
    }

    /// Identify: reads which credential the call claims, an API key from the head or a TC3 signature
    /// with the hash of the whole body. `admit` proves it, by the policy of its instant.
    pub(super) async fn identify(
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
        check_connection(head, |name| claim.signs(name))?;
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
    ) -> Result<Reserved, Refusal> {
        let policy = self.shared.policy.load();
        context.decided_by(&policy);
        let key = self.prove(context, &policy, &claimant, head)?;
        let now = match claimant {
            // Nothing was awaited since it came: the instant at which it came is as good, and a
            // limiter that was swept meanwhile takes it as one of the sweep (P1).
            Claimant::ApiKey(_) => context.received,
            // The body may have taken its time.
            Claimant::Tc3 { .. } => context.received.later(&self.shared.clock),
        };
        context.proven(key, now.utc)?;
        let account = key.account();
        let operation = operation(&policy, head)?.clone();
        context.operation = Some(operation.clone());
        if context.dialect == Dialect::Vendor {
            check_vendor_parameters(&policy, &operation, &head.fields)?;
        }
        let limiter = policy
            .limiter(account, &operation, &self.shared.limiters)
            .ok_or(Refusal::NotOpened)?;
        context.limiter = Some(limiter.clone());
        context.decided_at = now.mono;
        let (place, slot, in_flight) = self.reserve(context, limiter, now, &operation)?;
        Ok(Reserved {
            call: AdmittedCall {
                id: context.id,
                account: account.clone(),
                key: key.usage(&self.shared.metrics).clone(),
                operation,
            },
            place,
            slot,
            in_flight,
        })
    }

    /// A place in the window, a slot in the ledger's queue and a place at the upstream.
    fn reserve(
        &self,
        context: &mut RequestContext<'_>,
        limiter: &Limiter,
        now: Now,
        operation: &Operation,
    ) -> Result<(WindowPlace, Slot, InFlight), Refusal> {
        let denied = |denied| not_admitted(denied, operation);
        // The other two first: they can be given back, a start in the window cannot.
        let slot = || -> Result<(Slot, InFlight), Refusal> {
            let in_flight = operation.upstream.enter().ok_or(Refusal::UpstreamBusy)?;
            let slot = self.shared.ledger.reserve();
            Ok((slot.map_err(|_| Refusal::LedgerTrouble)?, in_flight))
        };
        if let Some(windows) = &self.shared.windows {
            // By the store's clock, quotas begin and end at one instant for all replicas.
            let store = windows.now_utc(limiter, now.mono);
            let store = store.ok_or(Refusal::StoreAway)?;
            let wish = limiter.wish(now.mono, store).map_err(denied)?;
            let (slot, in_flight) = slot()?;
            return Ok((WindowPlace::AtStore(wish), slot, in_flight));
        }
        // A flood is throttled from one atomic, before it takes the window's lock or a slot.
        limiter.check_flood(now, self.max_delay).map_err(denied)?;
        let (slot, in_flight) = slot()?;
        let reservation = limiter.reserve(now, self.max_delay).map_err(denied)?;
        context.held_to(reservation.quota(), reservation.left());
        self.shared.metrics.admission_delay.observe(
            reservation.start().since(now.mono).as_secs_f64(),
            context.id,
        );
        Ok((WindowPlace::Here(reservation), slot, in_flight))
    }

    /// Asks the shared store for the start, and waits for it.
    async fn ask_store(
        &self,
        context: &mut RequestContext<'_>,
        worker: &Worker,
        wish: Wish,
    ) -> Result<Started, Refusal> {
        // Each is there: `admit` has wished for what they give.
        let (Some(windows), Some(way), Some(limiter), Some(operation)) = (
            &self.shared.windows,
            &worker.store,
            &context.limiter,
            &context.operation,
        ) else {
            return Err(Refusal::StoreAway);
        };
        match windows.ask(way, limiter, wish).await {
            StoreVerdict::Started(started, left) => {
                let delay = started.start.since(wish.now);
                let metrics = &self.shared.metrics;
                metrics
                    .admission_delay
                    .observe(delay.as_secs_f64(), context.id);
                context.held_to(wish.quota, left);
                Ok(started)
            }
            StoreVerdict::Throttled(retry_after) => {
                let Wish { quota, mode, .. } = wish;
                let denied = Denied::Throttled {
                    quota,
                    mode,
                    retry_after,
                };
                Err(not_admitted(denied, operation))
            }
            StoreVerdict::Away => Err(Refusal::StoreAway),
        }
    }

    /// The key that the call has, proven. Whether it holds is another question.
    pub(super) fn prove<'p>(
        &self,
        context: &RequestContext<'_>,
        policy: &'p Policy,
        claimant: &Claimant,
        head: &RequestHead,
    ) -> Result<&'p KnownKey, Refusal> {
        let unknown = |why| Refusal::Credential(why);
        match claimant {
            Claimant::ApiKey(digest) => policy
                .api_key(digest)
                .ok_or(unknown(CredentialFailure::UnknownKey)),
            Claimant::Tc3 { claim, body_sha256 } => {
                // Looked up again: the credential may have been revoked while the body arrived.
                let known = policy.tc3(claim.secret_id());
                let (known, secret) = known
                    .and_then(|known| Some((known, known.secret()?)))
                    .ok_or(unknown(CredentialFailure::UnknownId))?;
                claim
                    .verify(head, secret, body_sha256, &policy.catalog.host_aliases)
                    .map_err(Refusal::Credential)?;
                self.body_memory.proved(context.peer, claim.secret_id());
                let skew = claim.skew_seconds(self.shared.clock.utc().seconds());
                self.shared.metrics.client_clock_skew.observe(skew as f64);
                Ok(known)
            }
        }
    }

    /// Forward: the call is sent once. Another connection or another server is tried only while no
    /// byte of it was sent.
    async fn forward(
        &self,
        context: &RequestContext<'_>,
        in_flight: InFlight,
        worker: usize,
        outgoing: UpstreamRequest<ForwardBody>,
    ) -> Result<UpstreamAnswer, Refusal> {
        let mut sending = Sending::new(in_flight, worker);
        let response_timeout = sending.response_timeout();
        let attempt = sending.send(outgoing, || {
            context.client.is_forwarded.store(true, Ordering::Relaxed);
        });
        // The connection's timer, used again by each of its calls. No lock is held over the await.
        let mut timer = std::mem::take(&mut *context.client.timer.lock());
        let attempted = tokio::select! {
            // An answer that is there counts, also at the deadline.
            biased;
            attempted = attempt => Some(attempted),
            () = self.head_is_late(context, response_timeout, &mut timer) => None,
        };
        *context.client.timer.lock() = timer;
        match attempted {
            Some(Ok(answer)) => Ok(sending.held(answer)),
            Some(Err(failure)) => Err(self.upstream_refusal(context, failure)),
            // Where the client's deadline and this one end together, this may be the first to see it.
            None => Err(match context.progress.waits_for_client() {
                true => Refusal::Upload(UploadFailure::TooSlow),
                false => {
                    sending.is_late();
                    Refusal::UpstreamTimeout
                }
            }),
        }
    }

    /// Ends `response_timeout` after the upstream has the whole request, or `request_timeout` after
    /// the call came.
    async fn head_is_late(
        &self,
        context: &RequestContext<'_>,
        response_timeout: Duration,
        timer: &mut Timer,
    ) {
        let deadline = context.received.mono.plus(self.limits.request_timeout);
        loop {
            let now = self.shared.clock.mono();
            // While the body still comes, the upstream's time has not begun.
            let due = context
                .progress
                .whole_at()
                .unwrap_or(now)
                .max(context.decided_at)
                .plus(response_timeout)
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
            UpstreamFailure::Unreachable { .. } | UpstreamFailure::AllOut(_) => {
                Refusal::UpstreamUnreachable
            }
            UpstreamFailure::Cut(_) => Refusal::UpstreamCut,
            UpstreamFailure::Nonsense(_) => Refusal::UpstreamNonsense,
        }
    }

    /// Count: the permit becomes the call's one record, and the answer waits for its commit (P3). If
    /// the client leaves before the upstream has the whole call, this future is dropped, and the
    /// permit writes the record. Later the call goes on without its client, because the upstream's
    /// answer decides whether it is billed (R8).
    fn count(
        &self,
        context: &mut RequestContext<'_>,
        permit: Permit,
        answered: &Result<UpstreamAnswer, Refusal>,
        answered_at: Mono,
        has_gone: bool,
    ) -> Commit {
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
        let took = answered_at.since(permit.start());
        if let Ok(answer) = answered {
            answer.body.came_after(took, answered_at);
        }
        context.waited_for_upstream(outcome, took);
        permit.finish(outcome, status, vetoed, answered_at)
    }
}
