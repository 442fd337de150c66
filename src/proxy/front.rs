//! Who answers the requests of a listener, and until when.
//!
//! Owns the phases of the end of the process. Must never know how a request came.

use crate::http::h1::{self, RequestBody, RequestHead};
use crate::proxy::worker::Worker;
use crate::proxy::{Client, Proxy, Relay};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// A connection that has not begun when the drain does has so long for it.
const AT_THE_DRAIN: Duration = Duration::from_secs(1);

/// How far the process is on its way out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    /// Accepting and answering.
    Serve,
    /// The listener empties its backlog and closes; calls finish and say `Connection: close`.
    Drain,
    /// Calls that still run are dropped.
    Abandon,
}

/// An answer that is being made. On the heap from the start: handed on by value, the future would
/// be copied several times.
pub(crate) type BoxedAnswer = Pin<Box<dyn Future<Output = h1::Answer<Relay>> + Send>>;

/// Answers the requests of a listener: calls alone, or also the portal's endpoints.
pub(crate) trait Front: Send + Sync {
    /// The proxy whose places the connections take.
    fn proxy(&self) -> &Arc<Proxy>;

    /// Answers a request of this client, with a connection of `worker` if it is a call.
    fn answer(
        &self,
        worker: &Arc<Worker>,
        client: &Arc<Client>,
        head: Box<RequestHead>,
        body: RequestBody,
    ) -> BoxedAnswer;
}

impl Front for Arc<Proxy> {
    fn proxy(&self) -> &Arc<Proxy> {
        self
    }

    fn answer(
        &self,
        worker: &Arc<Worker>,
        client: &Arc<Client>,
        head: Box<RequestHead>,
        body: RequestBody,
    ) -> BoxedAnswer {
        let (worker, client) = (worker.clone(), client.clone());
        Box::pin(Proxy::answer(self.clone(), worker, client, head, body))
    }
}

/// Waits for the phase. When its sender is dropped, the process ends: every phase is reached.
pub(super) async fn reached(phase: &mut watch::Receiver<Phase>, at_least: Phase) {
    let _ = phase.wait_for(|phase| *phase >= at_least).await;
}

/// Whether the phase has been reached, without waiting.
pub(super) fn has_reached(phase: &watch::Receiver<Phase>, at_least: Phase) -> bool {
    match phase.has_changed() {
        Ok(changed) => changed && *phase.borrow() >= at_least,
        Err(_) => true,
    }
}

/// Waits for what a connection begins with; `None` when it takes too long, or when a second of the
/// drain is over before: nobody waits for an answer yet.
pub(super) async fn begun<T>(
    begins: impl Future<Output = T>,
    within: Duration,
    mut phase: watch::Receiver<Phase>,
) -> Option<T> {
    let drained = async {
        reached(&mut phase, Phase::Drain).await;
        tokio::time::sleep(AT_THE_DRAIN).await;
    };
    tokio::select! {
        begun = timeout(within, begins) => begun.ok(),
        () = drained => None,
    }
}

/// Waits until an export is answered; `None` when the drain comes before: its client goes on by its
/// cursor elsewhere. One that reads slowly would hold up the end for as long as calls may take.
pub(super) async fn until_drain<T>(
    answered: impl Future<Output = T>,
    mut phase: watch::Receiver<Phase>,
) -> Option<T> {
    tokio::select! {
        answered = answered => Some(answered),
        () = reached(&mut phase, Phase::Drain) => None,
    }
}
