//! What is kept of one refusal: of a fixed size, without a text that would have to be made.
//!
//! Must never hold a secret, nor anything that keeps an older generation in memory.

use crate::http::TraceParent;
use crate::model::{Mode, Utc};
use crate::proxy::refusal::RefusalRow;
use std::net::IpAddr;
use std::time::Duration;

/// A name of at most `N` bytes; empty when there is none.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Name<const N: usize> {
    length: u8,
    bytes: [u8; N],
}

impl<const N: usize> Name<N> {
    /// Cut off where it is longer, which no id is: the types of the ids see to that.
    pub(in crate::proxy) fn of(name: Option<&str>) -> Self {
        let mut bytes = [0; N];
        let name = name.unwrap_or_default().as_bytes();
        let length = name.len().min(N);
        bytes[..length].copy_from_slice(&name[..length]);
        Self {
            length: u8::try_from(length).unwrap_or(u8::MAX),
            bytes,
        }
    }

    /// `None` when it is empty.
    pub(super) fn text(&self) -> Option<&str> {
        let bytes = self.bytes.get(..usize::from(self.length))?;
        std::str::from_utf8(bytes)
            .ok()
            .filter(|text| !text.is_empty())
    }
}

/// How a call ended that was answered here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Over its cap.
    Throttled,
    /// Not let in for another reason.
    Refused,
    /// Let in, and then no answer of the upstream was given to the client.
    Failed,
}

impl Verdict {
    /// As it is written.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// The cap that a call was over.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Throttle {
    /// In calls per second; 0 when nothing was bought.
    pub quota: u32,
    /// How the account was charged.
    pub mode: Mode,
    /// After how long the next call could start; `None` when it was not known.
    pub retry_after: Option<Duration>,
}

/// One refusal.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct TurnedAwayCall {
    /// When it was decided.
    pub at: Utc,
    /// The generation of the policy that decided; 0 when it was not asked.
    pub generation: u64,
    /// The address that sent it.
    pub peer: IpAddr,
    /// The account, if it was proven.
    pub account: Name<32>,
    /// Its key.
    pub key: Name<32>,
    /// What was called, if that is known.
    pub group: Name<64>,
    /// The action of it.
    pub action: Name<64>,
    /// How it ended.
    pub verdict: Verdict,
    /// Why.
    pub row: &'static RefusalRow,
    /// The cap, of a throttle.
    pub throttle: Option<Throttle>,
    /// The trace that it belonged to.
    pub trace: Option<TraceParent>,
}
