//! How far the body of a call has come, and why it came no further.
//!
//! Must never say that a body is whole that is not.

use crate::model::Mono;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// Why a client's body did not arrive whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum UploadFailure {
    /// The client hung up, or its framing is broken.
    #[error("the request body did not arrive whole")]
    Incomplete,
    /// More bytes than `limits.body_bytes`.
    #[error("the request body is over the limit")]
    TooLarge,
    /// Slower than the minimum rate, or not done by the request's deadline.
    #[error("the request body arrived too slowly")]
    TooSlow,
}

/// How far a client's body has come. Shared between its reader and the call's context.
#[derive(Default, Debug)]
pub(crate) struct Progress {
    end: AtomicU8,
    whole_at: AtomicU64,
    awaited: AtomicBool,
    received: AtomicU64,
}

const FLOWING: u8 = 0;
const WHOLE: u8 = 1;

impl Progress {
    pub(super) fn end(&self, failure: Option<UploadFailure>, now: Mono) {
        let end = match failure {
            None => WHOLE,
            Some(UploadFailure::Incomplete) => 2,
            Some(UploadFailure::TooLarge) => 3,
            Some(UploadFailure::TooSlow) => 4,
        };
        self.whole_at.store(now.0, Ordering::Relaxed);
        let _ = self
            .end
            .compare_exchange(FLOWING, end, Ordering::Release, Ordering::Relaxed);
    }

    /// When the last byte arrived; `None` while it has not.
    pub(crate) fn whole_at(&self) -> Option<Mono> {
        (self.end.load(Ordering::Acquire) == WHOLE)
            .then(|| Mono(self.whole_at.load(Ordering::Relaxed)))
    }

    /// So many bytes have come.
    pub(super) fn has_received(&self, bytes: u64) {
        self.received.store(bytes, Ordering::Relaxed);
    }

    /// The bytes that have come.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Notes whether the call waits for bytes of the client.
    pub(super) fn awaits(&self, awaits: bool) {
        self.awaited.store(awaits, Ordering::Relaxed);
    }

    /// Whether the call waits for bytes of the client, and not for the upstream to take them.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) && self.end.load(Ordering::Acquire) == FLOWING
    }

    /// Why the body broke off, if it did.
    pub(crate) fn failure(&self) -> Option<UploadFailure> {
        match self.end.load(Ordering::Acquire) {
            2 => Some(UploadFailure::Incomplete),
            3 => Some(UploadFailure::TooLarge),
            4 => Some(UploadFailure::TooSlow),
            _ => None,
        }
    }
}
