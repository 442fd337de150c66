//! The outbox of a gate that runs.
//!
//! Owns its end: what is left is sent, as far as that takes no long time.

use crate::control::outbox::collected::hear_collected;
use crate::control::outbox::gate::GateOutbox;
use crate::control::outbox::sender::RecordSender;
use crate::control::outbox::watermarks::{say, say_watermarks};
use crate::control::standing::Follower;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinHandle};

/// How often it is looked at the end whether the last records are durable.
const LOOK: Duration = Duration::from_millis(10);

impl GateOutbox {
    /// Works until it is dropped.
    pub(in crate::control) async fn run(self: Arc<Self>) {
        let mut sender = RecordSender::new(&self);
        tokio::join!(sender.run(), hear_collected(&self), say_watermarks(&self));
    }

    /// Sends what is left, and says up to when the ledger is whole. To be called when no call runs
    /// any more, after [`Self::run`] was dropped. Takes at most so long.
    pub(in crate::control) async fn finish(&self, patience: Duration) {
        let finished = tokio::time::timeout(patience, async {
            // Each call has its record, and it is durable.
            while self.shared.ledger.pending() > 0 {
                tokio::time::sleep(LOOK).await;
            }
            let mut sender = RecordSender::new(self);
            let sent = sender.send_all().await.is_ok();
            let sent = sent || sender.send_all().await.is_ok();
            // The first one begins a turn, the second one tells what it found.
            let mut bucket = None;
            let mut said = say(self, &mut bucket).await;
            said = said.and(say(self, &mut bucket).await);
            sent && said.is_ok()
        });
        match finished.await {
            Ok(true) => tracing::info!("all records were sent"),
            _ => tracing::warn!(
                "not all records could be sent at the end: they are sent when the gate is started again"
            ),
        }
    }
}

/// An outbox that works.
pub(in crate::control) struct Sending {
    outbox: Arc<GateOutbox>,
    work: AbortHandle,
}

impl Sending {
    /// To be called before the first call: see [`Follower::hear_first`].
    pub(in crate::control) async fn hear_first(outbox: Option<&GateOutbox>) {
        if let Some(outbox) = outbox {
            follower(outbox).hear_first().await;
        }
    }

    /// Begins, and hears who is stopped. What runs is added to `tasks`.
    pub(in crate::control) fn start(
        outbox: Arc<GateOutbox>,
        tasks: &mut Vec<JoinHandle<()>>,
    ) -> Self {
        tasks.push(tokio::spawn(follower(&outbox).run()));
        let work = tokio::spawn(outbox.clone().run());
        let sending = Self {
            outbox,
            work: work.abort_handle(),
        };
        tasks.push(work);
        sending
    }

    /// See [`GateOutbox::finish`].
    pub(in crate::control) async fn finish(self, patience: Duration) {
        self.work.abort();
        self.outbox.finish(patience).await;
    }
}

fn follower(outbox: &GateOutbox) -> Follower {
    Follower {
        shared: outbox.shared.clone(),
        nats: outbox.nats.clone(),
        replicas: outbox.stream.replicas,
        known: outbox.known.clone(),
    }
}
