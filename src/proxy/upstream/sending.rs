//! A call on its way to a server of its upstream: the tries, and what they say of the servers.
//!
//! Must never send a call again of which a byte may have been read, nor try a server twice that
//! could not be reached.

use crate::http::h1::Body;
use crate::proxy::upstream::exchange::{NotAnswered, exchange};
use crate::proxy::upstream::health::Failure;
use crate::proxy::upstream::named::InFlight;
use crate::proxy::upstream::server::{Lease, Server};
use crate::proxy::upstream::{UpstreamAnswer, UpstreamFailure, UpstreamRequest};
use http::StatusCode;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A call on its way. Dropped, it says nothing of the server that had it.
pub(crate) struct Sending {
    in_flight: InFlight,
    worker: usize,
    /// The server that has it.
    lease: Option<Lease>,
    /// The servers that could not be reached.
    tried: Vec<Arc<Server>>,
}

impl Sending {
    /// From this worker.
    pub(crate) fn new(in_flight: InFlight, worker: usize) -> Self {
        Self {
            in_flight,
            worker,
            lease: None,
            tried: Vec::new(),
        }
    }

    /// Sends the call once, and waits for the head of its answer. Another connection, and then another
    /// server, is tried only while nothing of it was sent. `on_connection` is told before anything is.
    pub(crate) async fn send<B>(
        &mut self,
        mut request: UpstreamRequest<B>,
        on_connection: impl Fn(),
    ) -> Result<UpstreamAnswer, UpstreamFailure>
    where
        B: Body + Send + 'static,
    {
        let mut last = None;
        loop {
            self.lease = self.in_flight.upstream().lease(self.worker, &self.tried);
            let Some(lease) = &self.lease else {
                if last.is_none() && Box::pin(self.looked_up()).await? {
                    continue;
                }
                let all_out = || UpstreamFailure::AllOut(self.in_flight.upstream().name.clone());
                return Err(last.unwrap_or_else(all_out));
            };
            let (link, is_reused) = match lease.kept_link() {
                Some(link) => (link, true),
                None => {
                    let limit = self.in_flight.upstream().settings.connect_timeout;
                    match Box::pin(lease.dial(limit)).await {
                        Ok(link) => (link, false),
                        Err(failure) => {
                            self.pass_over();
                            last = Some(failure);
                            continue;
                        }
                    }
                }
            };
            on_connection();
            match exchange(link, request).await {
                Ok(answer) => {
                    self.judge(answer.status);
                    return Ok(answer);
                }
                Err(NotAnswered::Unsent(back, failure)) => {
                    request = back;
                    // A kept connection may be closed by its server at any moment; a new one may not.
                    if !is_reused {
                        self.pass_over();
                        last = Some(failure);
                    }
                }
                Err(NotAnswered::Failed {
                    failure,
                    is_whole,
                    untouched,
                }) => {
                    if let (Some(link), Some(lease)) = (untouched, &self.lease) {
                        lease.give_back(link, self.in_flight.keep());
                    }
                    // Of a call that had not gone whole the client may have a part in its end.
                    if is_whole || matches!(failure, UpstreamFailure::Nonsense(_)) {
                        self.fail(Failure::Failed);
                    }
                    return Err(failure);
                }
            }
        }
    }

    /// The head of the answer has not come in time, though the server had the call whole.
    pub(crate) fn is_late(&self) {
        self.fail(Failure::Failed);
    }

    /// Its answer, which is counted at its server and its upstream until it ends.
    pub(crate) fn held(self, mut answer: UpstreamAnswer) -> UpstreamAnswer {
        if let Some(lease) = self.lease {
            let is_first = self.tried.is_empty();
            answer.body.hold(lease, self.in_flight, is_first);
        }
        answer
    }

    /// How long the head of the answer may take.
    pub(crate) fn response_timeout(&self) -> Duration {
        self.in_flight.upstream().response_timeout()
    }

    /// Before the first look-up of a name has ended a call waits for it. Whether there is a server now
    /// that there was not.
    async fn looked_up(&self) -> Result<bool, UpstreamFailure> {
        let upstream = self.in_flight.upstream();
        if upstream.each_server(|servers| !servers.is_empty()) {
            return Ok(false);
        }
        let limit = upstream.settings.connect_timeout;
        let found = timeout(limit, upstream.look_up_first()).await;
        let found = found.unwrap_or_else(|_| {
            let why = format!("its name was not looked up within {limit:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        });
        found
            .map(|()| true)
            .map_err(|cause| UpstreamFailure::Unreachable {
                endpoint: upstream.host.clone(),
                cause,
            })
    }

    /// The server that has it cannot be reached.
    fn pass_over(&mut self) {
        self.fail(Failure::Unreachable);
        if let Some(lease) = self.lease.take() {
            self.tried.push(lease.server.clone());
        }
    }

    fn judge(&self, status: StatusCode) {
        match status {
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => self.fail(Failure::Failed),
            _ => {
                if let Some(lease) = &self.lease {
                    lease.server.succeeded();
                }
            }
        }
    }

    fn fail(&self, failure: Failure) {
        if let Some(lease) = &self.lease {
            self.in_flight.upstream().failed(&lease.server, failure);
        }
    }
}
