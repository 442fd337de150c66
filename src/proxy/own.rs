//! A request for an endpoint of the gate's own. It is no call: it takes no quota and is not
//! counted.
//!
//! Owns that it is checked, refused and held back as a call is.

use crate::http::h1::{Answer, RequestBody, RequestHead};
use crate::proxy::admission::Now;
use crate::proxy::body::{Relay, Upload};
use crate::proxy::client::Client;
use crate::proxy::context::RequestContext;
use crate::proxy::refusal::Refusal;
use crate::proxy::state::Proxy;

/// A request for an own endpoint, until it is answered.
pub(crate) struct OwnRequest<'p> {
    /// Its id, its dialect, its peer.
    pub context: RequestContext<'p>,
    proxy: &'p Proxy,
    head: &'p RequestHead,
    upload: Option<Upload>,
}

impl<'p> OwnRequest<'p> {
    /// Begins with its head.
    pub(crate) fn new(
        proxy: &'p Proxy,
        client: &'p Client,
        head: &'p RequestHead,
        body: RequestBody,
    ) -> Self {
        let received = Now::read(&proxy.shared.clock);
        let (upload, progress) = proxy.upload(head, body, received);
        Self {
            context: RequestContext::of_own(proxy, client, head, received, progress),
            proxy,
            head,
            upload,
        }
    }

    /// Checks what needs no identity.
    ///
    /// # Errors
    /// The refusal, when a size or a field is wrong.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let upload = self.upload.as_ref();
        self.proxy
            .check_head(self.context.dialect, self.head, upload)
    }

    /// The answer for the client. It is held back when a credential was guessed.
    pub(crate) async fn answer(mut self, result: Result<Answer<Relay>, Refusal>) -> Answer<Relay> {
        let (context, upload) = (&mut self.context, &mut self.upload);
        let mut answer = self.proxy.conclude(context, upload, result).await;
        context.echo(self.head, &mut answer);
        answer
    }
}
