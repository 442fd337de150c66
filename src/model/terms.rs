//! The small shared types: the terms of the contract, and what the rooms tell each other.
//!
//! Owns the names. Imports nothing of ours and does nothing: no clock, no I/O, no policy.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// A text that names something, cheap to clone.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                parsed(deserializer, Self::new)
            }
        }
    };
}

name! {
    /// An account. Text that matches `[0-9A-Za-z_-]{1,32}`: `007` and `7` are two customers.
    AccountId
}
name! {
    /// Actions that share one cap, one meter and one price ladder (R1, R2).
    GroupId
}
name! {
    /// One credential of an account. It outlives a rotation of the secret, and is no secret itself:
    /// it stands in records, bills and metrics. Empty in records from before keys had ids.
    KeyId
}
name! {
    /// One API operation, as `X-TC-Action` spells it.
    Action
}

impl AccountId {
    /// `None` unless the text matches `[0-9A-Za-z_-]{1,32}`.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        fits.then(|| Self(text.into()))
    }
}

impl Default for KeyId {
    /// The id that calls have from before keys had ids.
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl KeyId {
    /// Whether it is the id that calls have from before keys had ids.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// `None` unless the text matches `[0-9A-Za-z_.-]{0,32}`.
    pub fn new(text: &str) -> Option<Self> {
        let fits = text.len() <= 32
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        fits.then(|| Self(text.into()))
    }
}

impl GroupId {
    /// `None` unless the text matches `[0-9a-z-]{1,64}`: it is a metric label and a key in YAML.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        fits.then(|| Self(text.into()))
    }
}

impl Action {
    /// `None` unless the text matches `[0-9A-Za-z_]{1,64}`.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        fits.then(|| Self(text.into()))
    }
}

/// An enum whose variants each have one spelling, in YAML, metrics, JSON and the ledger alike.
macro_rules! spelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum $name {
            $($(#[$vdoc])* $variant),+
        }

        impl $name {
            /// Every variant, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The one spelling.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }

            /// The variant so spelled.
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                parsed(deserializer, Self::parse)
            }
        }
    };
}

/// Reads a text that only some texts are.
fn parsed<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| serde::de::Error::custom(format!("what is {text:?}?")))
}

spelled! {
    /// How an account is charged in a group (R3); `Free` in a group that costs nothing (R2).
    Mode {
        /// Charged by the call; the group's cap is fixed (R4).
        PerCall = "per_call",
        /// Charged by the quota bought; calls inside it cost nothing (R5).
        Qps = "qps",
        /// Not charged; a cap per action (R2).
        Free = "free",
    }
}

spelled! {
    /// How an admitted call ended. Settled at the upstream's response head.
    Outcome {
        /// The upstream answered, with whatever status.
        Answered = "answered",
        /// No answer could be had from the upstream. Never billed.
        UpstreamFailed = "upstream_failed",
        /// The client did not finish sending its request. Never billed.
        ClientIncomplete = "client_incomplete",
        /// The client hung up after its request had been sent whole, and the upstream answered.
        /// Billed as that answer is (R8).
        ClientClosed = "client_closed",
        /// tollgate itself could not finish the call. Never billed.
        GateFailed = "gate_failed",
    }
}

spelled! {
    /// Why a record is not billable; `Billable` when it is.
    Reason {
        /// It is billable.
        Billable = "",
        /// The group is free (R2).
        Free = "free",
        /// The upstream gave no answer.
        UpstreamFailed = "upstream_failed",
        /// The upstream answered with a status of 500 or above.
        ServerError = "server_error",
        /// The upstream answered with 408, 421, 425 or 429: it did not do the work and wants to be
        /// asked again (R8).
        NotServed = "not_served",
        /// The upstream said `x-tollgate-billable: false`.
        Vetoed = "vetoed",
        /// The client did not finish sending.
        ClientIncomplete = "client_incomplete",
        /// tollgate could not finish the call.
        GateFailed = "gate_failed",
    }
}

spelled! {
    /// Why an opened service admits nothing (R9).
    Stop {
        /// The balance is below zero (R17).
        Arrears = "arrears",
        /// The account broke the terms of use.
        Violation = "violation",
    }
}

spelled! {
    /// The rule that says which admitted calls are billable.
    Bill {
        /// Those that were served: answered with a status below 500 other than 408, 421, 425 and
        /// 429, and not vetoed, whether or not the client was still there (R8).
        Served = "served",
        /// All but those that tollgate itself failed.
        Admitted = "admitted",
    }
}

spelled! {
    /// Whether an answer waits until its record is durable.
    Durability {
        /// The record is on disk before the first byte of the answer (P3).
        Strict = "strict",
        /// Records reach the disk within 100 ms of the answer; a crash may lose them.
        Relaxed = "relaxed",
    }
}

spelled! {
    /// How an account came by a pack (R18).
    Origin {
        /// The account paid for it.
        Bought = "bought",
        /// The account got it for nothing.
        Gift = "gift",
        /// On the terms of a promotion.
        Promotion = "promotion",
    }
}

spelled! {
    /// The state of a prepaid pack at which a notice is raised (R14).
    Threshold {
        /// Less of it is left than the catalogue's `notice_below`.
        Low = "low",
        /// Nothing of it is left.
        Exhausted = "exhausted",
    }
}

spelled! {
    /// What an event tells to the provider's systems.
    EventType {
        /// A month is settled, and the statement of this account does not change any more (R16).
        StatementFixed = "statement.fixed",
        /// The balance fell so low that the paid services stopped (R17).
        AccountInArrears = "account.in_arrears",
        /// A payment brought the paid services back (R17).
        AccountResumed = "account.resumed",
        /// The balance fell below `events.balance_below`.
        BalanceLow = "balance.low",
        /// Less of a pack is left than the catalogue's `notice_below` (R14).
        PackLow = "pack.low",
        /// Nothing of a pack is left (R14).
        PackExhausted = "pack.exhausted",
        /// An order with calls left ends within `events.pack_expiring` (R11).
        PackExpiring = "pack.expiring",
        /// A purchase of QPS ends within `events.quota_ending`, and the quota with it (R6).
        QuotaEnding = "quota.ending",
    }
}

spelled! {
    /// The calls in per-call mode that are counted to find the tier of a month (R13).
    TierBasis {
        /// All billable ones, whatever paid for them.
        AllCalls = "all_calls",
        /// Those that are neither in the free pack nor in a prepaid one.
        PostpaidCalls = "postpaid_calls",
    }
}

spelled! {
    /// A fund that an order can be paid from (R18).
    Fund {
        /// Paid back in a refund.
        Cash = "cash",
        /// Paid back in a refund.
        Income = "income",
        /// Paid back in a refund.
        Gift = "gift",
        /// Not paid back.
        Deduction = "deduction",
        /// Not paid back.
        Voucher = "voucher",
    }
}

/// The version and the commit of this program, and how it was built, as `--version` prints them.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("TOLLGATE_COMMIT"),
    ", ",
    env!("TOLLGATE_BUILD"),
    ")"
);
/// The commit that it was built from: 12 hex digits, or `unknown` (`build.rs`).
pub(crate) const COMMIT: &str = env!("TOLLGATE_COMMIT");
/// How it was built: `profile-guided`, or `plain` (`build.rs`).
pub(crate) const BUILD: &str = env!("TOLLGATE_BUILD");

/// Names one call, in the answer, in the record and towards the upstream. A UUIDv7: sorted by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestId(pub uuid::Uuid);

impl RequestId {
    /// The id that is so spelled: 36 characters, in capitals or not.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let id = (text.len() == 36).then(|| uuid::Uuid::try_parse(text).ok());
        id.flatten().map(Self)
    }

    /// When its call came, in milliseconds of Unix time: an id of version 7 begins with that.
    pub(crate) fn at_ms(self) -> u64 {
        u64::try_from(self.0.as_u128() >> 80).unwrap_or(0)
    }

    /// The spelling with hyphens that every surface uses, without an allocation.
    pub fn text(self) -> RequestIdText {
        let mut buffer = [0; 36];
        self.0.hyphenated().encode_lower(&mut buffer);
        RequestIdText(buffer)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

/// [`RequestId`] spelled out.
#[derive(Clone, Copy)]
pub struct RequestIdText([u8; 36]);

impl RequestIdText {
    /// 36 ASCII characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl AsRef<[u8]> for RequestIdText {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// How long quota is bought for. Calendar months or days (R15).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Period {
    /// At the price of a month.
    Months(u32),
    /// At the price of a day.
    Days(u32),
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Months(1) => write!(f, "1 month"),
            Self::Months(n) => write!(f, "{n} months"),
            Self::Days(1) => write!(f, "1 day"),
            Self::Days(n) => write!(f, "{n} days"),
        }
    }
}
