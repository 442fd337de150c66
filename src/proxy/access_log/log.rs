//! The way of entries from the workers to the thread that writes them.
//!
//! Owns the bound of the queue, and the thread. Must never make a worker wait.
//!
//! # Decided
//! - **The thread looks for entries again and again** instead of waiting for one: to wake a thread
//!   costs a call more than all else of its line.

use crate::config::{AccessLogSettings, LoggedCalls};
use crate::metrics::IntCounter;
use crate::model::{Clock, RequestId};
use crate::proxy::access_log::entry::{AccessEntry, Spelling};
use crate::proxy::access_log::output::Output;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// Entries that wait for the thread at once.
const WAITING: usize = 16_384;
/// How often it looks for entries.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes that are written at once.
const BUFFER: usize = 64 * 1024;

/// What the thread is told.
enum Order {
    /// Open the file again.
    Reopen,
    /// Write what there is, and end.
    Close(Sender<()>),
}

/// The access log of the process.
pub(crate) struct AccessLog {
    of: LoggedCalls,
    /// Of 2^32 calls so many.
    sample: u64,
    entries: SyncSender<Box<AccessEntry>>,
    orders: Mutex<Sender<Order>>,
    dropped: IntCounter,
    clock: Clock,
}

impl AccessLog {
    /// Opens it, and starts the thread.
    ///
    /// # Errors
    /// When the file cannot be opened, or the system gives no thread.
    pub(crate) fn start(
        settings: &AccessLogSettings,
        clock: Clock,
        dropped: IntCounter,
    ) -> io::Result<Arc<Self>> {
        let output = Output::open(&settings.to, dropped.clone())?;
        let (entries, waiting) = sync_channel(WAITING);
        let (orders, ordered) = channel();
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(output, &waiting, &ordered))?;
        Ok(Arc::new(Self {
            of: settings.of,
            sample: (settings.sample * 4_294_967_296.0) as u64,
            entries,
            orders: Mutex::new(orders),
            dropped,
            clock,
        }))
    }

    /// Whether the call of this id has a line, if it is of the kind that has.
    pub(in crate::proxy) fn takes(&self, id: RequestId) -> bool {
        // The end of an id is random.
        let [.., a, b, c, d] = *id.0.as_bytes();
        u64::from(u32::from_be_bytes([a, b, c, d])) < self.sample
    }

    /// Takes an entry whose answer has ended, if it is of the kind that has a line.
    pub(super) fn hand_over(&self, mut entry: Box<AccessEntry>) {
        let is_wanted = match self.of {
            LoggedCalls::Both => true,
            LoggedCalls::Admitted => entry.decision == "admitted",
            LoggedCalls::Refused => entry.decision != "admitted",
        };
        if is_wanted {
            entry.took = self.clock.mono().since(entry.received.0);
            if self.entries.try_send(entry).is_err() {
                self.dropped.inc();
            }
        }
    }

    /// Opens the file again, which may have been moved away.
    pub(crate) fn reopen(&self) {
        let _ = self.orders.lock().send(Order::Reopen);
    }

    /// Writes what there is and ends the thread; waits for that at most so long. Blocks.
    pub(crate) fn close(&self, patience: Duration) {
        let (ended, end) = channel();
        let _ = self.orders.lock().send(Order::Close(ended));
        if end.recv_timeout(patience).is_err() {
            tracing::warn!("the access log was not written to its end");
        }
    }
}

/// The thread: writes what comes, until it is told to end or nobody is left to tell.
fn write(mut output: Output, waiting: &Receiver<Box<AccessEntry>>, orders: &Receiver<Order>) {
    let mut lines = Vec::with_capacity(BUFFER + 1024);
    let mut spelling = Spelling::default();
    loop {
        let order = orders.recv_timeout(LOOK);
        while let Ok(entry) = waiting.try_recv() {
            entry.write(&mut spelling, &mut lines);
            if lines.len() >= BUFFER {
                output.write(&mut lines);
            }
        }
        output.write(&mut lines);
        match order {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Order::Reopen) => output.reopen(),
            Ok(Order::Close(ended)) => {
                let _ = ended.send(());
                return;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
