//! One request, from its head to the end of its answer: a call, or one for an endpoint of
//! tollgate's own ([`OwnRequest`](crate::proxy::OwnRequest)).
//!
//! Owns the frame around both: the checks before a credential is read, the form of a refusal, and
//! the delay of the answer to a guessed credential. The way of a call itself is in `call.rs`.

use crate::http::h1::{Answer, RequestBody, RequestHead};
use crate::proxy::admission::Now;
use crate::proxy::body::{Relay, Upload};
use crate::proxy::client::Client;
use crate::proxy::context::RequestContext;
use crate::proxy::decisions::DecisionRing;
use crate::proxy::dialect::Dialect;
use crate::proxy::forwarding::{check_connection, check_count};
use crate::proxy::identity::hold_down::HoldVerdict;
use crate::proxy::identity::{CredentialFailure, must_stand_once};
use crate::proxy::progress::{Progress, UploadFailure};
use crate::proxy::refusal::Refusal;
use crate::proxy::state::Proxy;
use crate::proxy::worker::Worker;
use http::Method;
use std::sync::Arc;
use std::time::Duration;

/// How long the answer to a failing credential is held back once its peer is held down.
const HOLD: Duration = Duration::from_secs(1);

impl Proxy {
    /// Answers one call. Never fails: a failure is told in the client's dialect.
    pub async fn answer(
        self: Arc<Self>,
        worker: Arc<Worker>,
        client: Arc<Client>,
        head: Box<RequestHead>,
        body: RequestBody,
    ) -> Answer<Relay> {
        let received = Now::read(&self.shared.clock);
        let (mut upload, progress) = self.upload(&head, body, received);
        let mut context = RequestContext::of_call(&self, &client, &head, received, progress);
        let result = self.handle(&mut context, &worker, &head, &mut upload).await;
        let mut answer = self
            .conclude(
                &mut context,
                &mut upload,
                (&worker.decisions, &head),
                result,
            )
            .await;
        context.tell_rate(&mut answer);
        context.echo(&head, &mut answer);
        context.log(&head, &mut answer);
        answer
    }

    /// The body of a request on its way in. Not inlined into an async function: the future would
    /// have room for it twice.
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

    /// Checks what needs no identity: the sizes and the shape of the head (PROTOCOL §3, step 1).
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
        if head.is_1_1 && !head.has_host {
            return Err(Refusal::Credential(CredentialFailure::MissingHeader(
                "host",
            )));
        }
        check_connection(head, must_stand_once)?;
        check_count(head)?;
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

    /// The refusal for a body that did not come whole.
    pub(super) fn upload_refusal(&self, failure: UploadFailure) -> Refusal {
        match failure {
            UploadFailure::TooLarge => Refusal::BodyTooLarge {
                limit: self.limits.body_bytes,
            },
            other => Refusal::Upload(other),
        }
    }

    /// The answer for the client: the result, or its refusal in the client's dialect. Awaited after
    /// [`handle`](Self::handle) has ended, so that both take the same memory of the future.
    pub(super) async fn conclude(
        &self,
        context: &mut RequestContext<'_>,
        upload: &mut Option<Upload>,
        kept: (&DecisionRing, &RequestHead),
        result: Result<Answer<Relay>, Refusal>,
    ) -> Answer<Relay> {
        let refusal = match result {
            Ok(answer) => return answer,
            Err(refusal) => refusal,
        };
        context.refused(&refusal, kept);
        // Another request may follow only when nothing of this one's body is left on the
        // connection.
        let keeps = match upload {
            Some(upload) => upload.drain().await,
            None => context.progress.whole_at().is_some(),
        };
        if context.client.is_stream {
            // What has come of it, and comes yet, is thrown away: nobody counts it as held.
            *upload = None;
        }
        self.hold_if_guessing(context, &refusal).await;
        let dialect = match refusal {
            // No SDK sends such a `Connection`, so its sender does not read the vendor's dialect.
            Refusal::ConnectionOption => Dialect::Plain,
            _ => context.dialect,
        };
        let mut answer = refusal.answer(dialect, &context.id_text);
        context.tell_throttle(&refusal, &mut answer);
        // The account has more than its part of the places: this one is for others. A stream of
        // HTTP/2 keeps nothing from anybody once it has ended.
        let gives_place = !keeps || refusal == Refusal::AccountConnections;
        if gives_place && !context.client.is_stream {
            answer.close();
        }
        answer
    }

    /// Makes guessing slow: past the limit the answer to a failing credential is held back. A valid
    /// credential never waits, also when it comes from the same address.
    async fn hold_if_guessing(&self, context: &RequestContext<'_>, refusal: &Refusal) {
        let Refusal::Credential(
            CredentialFailure::UnknownId
            | CredentialFailure::UnknownKey
            | CredentialFailure::BadSignature,
        ) = refusal
        else {
            return;
        };
        if let HoldVerdict::Held { first } = self.hold_down.failed(context.peer) {
            if first {
                tracing::warn!(peer = %context.peer, reason = refusal.reason(), "failing credentials are held down");
            }
            self.shared.metrics.held_down.inc();
            Box::pin(self.shared.clock.sleep(HOLD)).await;
        }
    }
}
