//! A request for an endpoint of the gate's own. It is no call: it takes no quota and is not
//! counted.
//!
//! Owns that it is checked, proven, refused and held back as a call is.

use crate::http::h1::{Answer, RequestBody, RequestHead};
use crate::model::Endpoint;
use crate::proxy::admission::Now;
use crate::proxy::body::{Buffered, Relay, Upload};
use crate::proxy::client::Client;
use crate::proxy::context::RequestContext;
use crate::proxy::dialect::Dialect;
use crate::proxy::identity::api_key::api_key;
use crate::proxy::operation::check_version;
use crate::proxy::policy::{KeyBar, KnownAccount, KnownLicenceKey, ProvenKey};
use crate::proxy::refusal::Refusal;
use crate::proxy::state::Proxy;
use crate::proxy::worker::Worker;
use bytes::Bytes;
use std::sync::Arc;

/// The most bytes of the body of a question.
const BODY_BYTES: u64 = 16 * 1024;

/// The endpoint that a request is for, as its head says it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The part of the path that names a month or a call.
    pub part: Option<Box<str>>,
    /// It is named by `X-TC-Action`, so the answer stands in the vendor's envelope.
    pub is_action: bool,
}

impl Asked {
    /// The own endpoint that this request is for. `None`: it is a call.
    pub(crate) fn of(head: &RequestHead) -> Option<Self> {
        let path = head.target.path();
        if let Some((endpoint, part)) = Endpoint::of_path(path) {
            return Some(Self {
                endpoint,
                part: part.map(Into::into),
                is_action: false,
            });
        }
        if path != "/" {
            return None;
        }
        let name = head.fields.get(crate::http::names::X_TC_ACTION)?;
        Some(Self {
            endpoint: Endpoint::of_action(name)?,
            part: None,
            is_action: true,
        })
    }
}

/// Who asks for a grant (R19).
pub(crate) enum LicenceClaimant {
    /// Somebody who has an app of the account.
    Key(KnownLicenceKey),
    /// The account.
    Account(ProvenKey),
}

impl LicenceClaimant {
    /// The account whose licences are asked.
    pub(crate) fn account(&self) -> &Arc<KnownAccount> {
        match self {
            Self::Key(key) => &key.account,
            Self::Account(key) => key.account(),
        }
    }
}

/// A request for an own endpoint, until it is answered.
pub(crate) struct OwnRequest<'p> {
    /// Its id, its dialect, its peer.
    pub context: RequestContext<'p>,
    proxy: &'p Arc<Proxy>,
    worker: &'p Worker,
    head: &'p RequestHead,
    upload: Option<Upload>,
    /// The body, where its credential's signature covers it.
    buffered: Option<Buffered>,
}

impl<'p> OwnRequest<'p> {
    /// Begins with its head.
    pub(crate) fn new(
        proxy: &'p Arc<Proxy>,
        (worker, client): (&'p Worker, &'p Client),
        head: &'p RequestHead,
        body: RequestBody,
    ) -> Self {
        let received = Now::read(&proxy.shared.clock);
        let (upload, progress) = proxy.upload(head, body, received);
        Self {
            context: RequestContext::of_own(proxy, client, head, received, progress),
            proxy,
            worker,
            head,
            upload,
            buffered: None,
        }
    }

    /// Checks what needs no identity.
    ///
    /// # Errors
    /// The refusal, when a size or a field is wrong.
    pub(crate) fn check(&self, asked: &Asked) -> Result<(), Refusal> {
        // An own path takes its own methods in both dialects.
        let dialect = match asked.is_action {
            true => self.context.dialect,
            false => Dialect::Plain,
        };
        let upload = self.upload.as_ref();
        self.proxy.check_head(dialect, self.head, upload)?;
        match upload.and_then(Upload::declared) {
            Some(declared) if declared > BODY_BYTES => {
                Err(Refusal::BodyTooLarge { limit: BODY_BYTES })
            }
            _ => Ok(()),
        }
    }

    /// The key that the request has, proven as a call's is.
    ///
    /// # Errors
    /// The refusal, when the credential is not accepted, or the version of an action is not served.
    pub(crate) async fn prove(&mut self, asked: &Asked) -> Result<ProvenKey, Refusal> {
        let identified = self
            .proxy
            .identify(&self.context, self.head, &mut self.upload);
        let (claimant, buffered) = Box::pin(identified).await?;
        self.buffered = buffered;
        let policy = self.proxy.shared.policy.load();
        self.context.decided_by(&policy);
        let key = self
            .proxy
            .prove(&self.context, &policy, &claimant, self.head)?;
        self.context.proven(key, self.proxy.shared.clock.utc())?;
        if asked.is_action {
            check_version(&policy, &self.head.fields)?;
        }
        Ok(ProvenKey::of(key, self.context.peer))
    }

    /// Who asks for a grant: a licence key, which is public and proves nothing more, or a key of
    /// the account.
    ///
    /// # Errors
    /// As [`Self::prove`].
    pub(crate) async fn prove_licence(
        &mut self,
        asked: &Asked,
    ) -> Result<LicenceClaimant, Refusal> {
        let policy = self.proxy.shared.policy.load_full();
        let digest = api_key(&self.head.fields).and_then(Result::ok);
        let Some(key) = digest.and_then(|digest| policy.licence_key(&digest)) else {
            return Ok(LicenceClaimant::Account(self.prove(asked).await?));
        };
        if key.is_expired(self.proxy.shared.clock.utc()) {
            return Err(Refusal::Key(KeyBar::Expired));
        }
        if asked.is_action {
            check_version(&policy, &self.head.fields)?;
        }
        // The connection stays nobody's: who has the app could take the account's part of them.
        Ok(LicenceClaimant::Key(key))
    }

    /// Its body, read whole.
    ///
    /// # Errors
    /// The refusal, when the body is too large or does not come.
    pub(crate) async fn body(&mut self) -> Result<Bytes, Refusal> {
        let too_large = Refusal::BodyTooLarge { limit: BODY_BYTES };
        let body = match (self.buffered.take(), &mut self.upload) {
            (Some(buffered), _) => Ok(buffered.whole(BODY_BYTES)),
            (None, Some(upload)) => Box::pin(upload.whole(BODY_BYTES)).await,
            (None, None) => Ok(Some(Bytes::new())),
        };
        let body = body.map_err(|failure| self.proxy.upload_refusal(failure))?;
        body.ok_or(too_large)
    }

    /// The answer for the client. It is held back when a credential was guessed.
    pub(crate) async fn answer(mut self, result: Result<Answer<Relay>, Refusal>) -> Answer<Relay> {
        let (context, upload) = (&mut self.context, &mut self.upload);
        let mut answer = self
            .proxy
            .conclude(context, upload, (&self.worker.decisions, self.head), result)
            .await;
        context.tell_rate(&mut answer);
        context.echo(self.head, &mut answer);
        answer
    }
}
