//! What systemd is told of the process: that it starts, is ready, reloads, lives, ends.
//!
//! Owns these messages. Must never make the process wait: when systemd does not read, a message is
//! dropped.

use crate::control::reload::Outcome;
use sd_notify::NotifyState;
use std::env;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Messages that wait for systemd to read them.
const WAITING: usize = 16;
/// How often systemd is asked for more time while the process starts, and for how much: a ledger of
/// an older schema may take minutes.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
const EXTEND_BY: Duration = Duration::from_secs(60);

/// The way to systemd; it leads nowhere where `NOTIFY_SOCKET` is not set.
#[derive(Clone)]
pub(crate) struct Systemd(Option<SyncSender<Message>>);

struct Message {
    states: Vec<NotifyState<'static>>,
    /// A line for `systemctl status`.
    status: Option<String>,
}

impl Systemd {
    /// As the environment says.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn find() -> io::Result<Self> {
        if env::var_os("NOTIFY_SOCKET").is_none_or(|path| path.is_empty()) {
            return Ok(Self(None));
        }
        let (send, sent) = sync_channel(WAITING);
        // A thread of its own, because a full socket of systemd would hold up whoever writes to it.
        std::thread::Builder::new()
            .name("systemd".to_owned())
            .spawn(move || tell_all(&sent))?;
        Ok(Self(Some(send)))
    }

    /// Asks for more time as long as it is polled: the start is slow, and the process lives.
    pub(crate) async fn starting(self) {
        loop {
            let more = vec![extended(EXTEND_BY)];
            self.send(more, Some("starting".to_owned()));
            tokio::time::sleep(EXTEND_EVERY).await;
        }
    }

    /// Calls are taken.
    pub(crate) fn ready(&self, status: String) {
        self.send(vec![NotifyState::Ready], Some(status));
    }

    /// The files are read again.
    pub(crate) fn reloading(&self) {
        // systemd compares the instant with that of its own wish.
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now().ok());
        self.send(states, None);
    }

    /// What came of it; the process is ready as before.
    pub(crate) fn reloaded(&self, outcome: Option<&Outcome>) {
        let status = match outcome {
            Some(Outcome::Reloaded { generation, .. }) => {
                format!("generation {generation} of the files is in force")
            }
            Some(Outcome::Refused(mistakes)) => format!(
                "reload refused, {} mistake(s) in the files: see the log",
                mistakes.0.len()
            ),
            Some(Outcome::Unchanged | Outcome::Planned { .. }) => {
                "reload: nothing is different".to_owned()
            }
            None => "a reload failed: see the log".to_owned(),
        };
        self.send(vec![NotifyState::Ready], Some(status));
    }

    /// The process lives.
    pub(super) fn lives(&self) {
        self.send(vec![NotifyState::Watchdog], None);
    }

    /// Part of the process hangs.
    pub(super) fn hangs(&self, what: String) {
        self.send(Vec::new(), Some(what));
    }

    /// The drain begins, and ends within this time.
    pub(crate) fn stopping(&self, within: Duration) {
        let status = format!("draining: it ends within {} s", within.as_secs());
        self.send(vec![NotifyState::Stopping, extended(within)], Some(status));
    }

    fn send(&self, states: Vec<NotifyState<'static>>, status: Option<String>) {
        if let Some(to) = &self.0 {
            // Full: systemd does not read. It learns of the next one.
            let _ = to.try_send(Message { states, status });
        }
    }
}

fn extended(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}

/// Until the process ends.
fn tell_all(sent: &Receiver<Message>) {
    let mut is_told = false;
    for Message { mut states, status } in sent {
        let status = status.as_deref().map(NotifyState::Status);
        states.extend(status);
        if let Err(error) = sd_notify::notify(&states)
            && !is_told
        {
            tracing::warn!(%error, "systemd cannot be told how the process is (NOTIFY_SOCKET)");
            is_told = true;
        }
    }
}
