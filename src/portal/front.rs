//! The public listener's front: a request is for an endpoint of the portal, or it is a call.

use crate::http::h1::{Answer, RequestBody, RequestHead};
use crate::model::QUOTA_PATH;
use crate::proxy::listener::{BoxedAnswer, Front};
use crate::proxy::upstream::Upstream;
use crate::proxy::{Client, OwnRequest, Proxy, Relay};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The most questions at once. Others are refused and may come again, so that they cannot crowd out
/// the ledger.
const AT_ONCE: usize = 8;

/// Answers the requests of the public listener: the customer's own endpoints, and calls.
#[derive(Clone)]
pub(crate) struct Portal {
    pub(super) proxy: Arc<Proxy>,
    /// One permit for each question that reads the ledger now.
    pub(super) questions: Arc<Semaphore>,
}

impl Portal {
    /// A portal in front of this proxy.
    pub(crate) fn new(proxy: Arc<Proxy>) -> Self {
        Self {
            proxy,
            questions: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    async fn own(
        self,
        client: Arc<Client>,
        head: Box<RequestHead>,
        body: RequestBody,
    ) -> Answer<Relay> {
        let mut request = OwnRequest::new(&self.proxy, &client, &head, body);
        let result = match request.check() {
            Ok(()) => self.quota(&mut request.context, &head).await,
            Err(refusal) => Err(refusal),
        };
        request.answer(result).await
    }
}

impl Front for Portal {
    fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    fn answer(
        &self,
        upstream: &Arc<Upstream>,
        client: &Arc<Client>,
        head: Box<RequestHead>,
        body: RequestBody,
    ) -> BoxedAnswer {
        match head.target.path() {
            QUOTA_PATH => Box::pin(self.clone().own(client.clone(), head, body)),
            _ => Front::answer(&self.proxy, upstream, client, head, body),
        }
    }
}
