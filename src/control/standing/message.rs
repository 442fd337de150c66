//! The messages that tell the standing: values of a key-value bucket.
//!
//! Owns their form. Must never make a value that a server of NATS refuses for its size.
//!
//! The accounts are divided among 1, 2, 4 .. parts, each in a value of its own, so that one that
//! changes does not make all be sent again. The head is the first part, and says of each other one
//! in which generation it was written last; it is written after them. The other values have the
//! number of parts in their names: those of another number are not read.

use crate::model::{AccountId, Stop, Utc};
use crate::proxy::CollectedBooks;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The bucket.
pub(in crate::control) const STANDING: &str = "tollgate_standing";
/// The key of the head.
pub(in crate::control) const HEAD: &str = "standing";
/// The format that this program writes and reads.
const FORMAT: u8 = 1;
/// The bytes of the accounts of a part, on average, at which the parts are doubled: a value may have
/// 1 MiB by default.
const PART_BYTES: usize = 256 * 1024;
/// The most parts: enough for tens of millions of accounts.
const MOST_PARTS: u32 = 4_096;

/// The standing of an account that has a debit or an adjustment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::control) struct AccountStanding {
    pub account: AccountId,
    /// Payments and manual adjustments less debits.
    pub balance: Box<str>,
    /// Whether that stopped its paid services.
    pub in_arrears: bool,
}

/// The standing of all accounts by the books of the collected ledger.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::control) struct Standings {
    /// Those that have a debit or an adjustment.
    pub accounts: Vec<AccountStanding>,
    /// The newest month whose debits are in these balances.
    pub debited: Option<String>,
}

/// Why a value cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::control) enum StandingError {
    /// It is of another version of tollgate.
    #[error(
        "it has format {0}, and this tollgate reads format {FORMAT}: bring gates and collector to one version"
    )]
    Format(u64),
    /// It is something else, or damaged.
    #[error("{0}")]
    Malformed(String),
}

/// A part of the accounts, as its value says it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::control) struct StandingMessage {
    format: u8,
    /// It rises each time that the part is written.
    pub generation: u64,
    /// Microseconds since the Unix epoch.
    pub as_of: i64,
    /// Of the head: by which ledger.
    #[serde(default)]
    pub books: CollectedBooks,
    /// Of the head: the generation of each other part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<u64>,
    #[serde(flatten)]
    pub accounts: PartAccounts,
}

/// The accounts of a part.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub(in crate::control) struct PartAccounts {
    pub stopped: Vec<StoppedAccount>,
    pub balances: BTreeMap<AccountId, Box<str>>,
}

/// An account whose paid services are stopped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(in crate::control) struct StoppedAccount {
    pub account: AccountId,
    pub why: Box<str>,
}

impl PartAccounts {
    pub(super) fn stop(&mut self, account: &AccountId, why: Stop) {
        self.stopped.push(StoppedAccount {
            account: account.clone(),
            why: why.as_str().into(),
        });
    }
}

impl StandingMessage {
    pub(in crate::control) fn new(
        generation: u64,
        as_of: Utc,
        others: Vec<u64>,
        accounts: PartAccounts,
    ) -> Self {
        Self {
            format: FORMAT,
            generation,
            as_of: as_of.0,
            books: CollectedBooks::default(),
            others,
            accounts,
        }
    }

    /// As the head of these books.
    pub(in crate::control) fn of(self, books: CollectedBooks) -> Self {
        Self { books, ..self }
    }

    /// The bytes of the value.
    pub(in crate::control) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the bytes of a value.
    pub(in crate::control) fn decode(bytes: &[u8]) -> Result<Self, StandingError> {
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let malformed = |error: serde_json::Error| StandingError::Malformed(error.to_string());
        // Before the rest, which another format may tell otherwise.
        let Format { format } = serde_json::from_slice(bytes).map_err(malformed)?;
        if format != u64::from(FORMAT) {
            return Err(StandingError::Format(format));
        }
        serde_json::from_slice(bytes).map_err(malformed)
    }
}

/// The key of the nth of so many parts beside the head.
pub(super) fn key(nth: usize, others: usize) -> String {
    format!("{HEAD}.{}.{}", others + 1, nth + 1)
}

/// The accounts in parts, by key, the head last.
pub(in crate::control) fn messages(standings: &[AccountStanding]) -> Vec<(String, PartAccounts)> {
    let bytes: usize = standings.iter().map(bytes_of).sum();
    let needed = u32::try_from(bytes.div_ceil(PART_BYTES)).unwrap_or(MOST_PARTS);
    let parts = needed.max(1).next_power_of_two().min(MOST_PARTS);
    let mut of_parts = vec![PartAccounts::default(); parts as usize];
    for standing in standings {
        let part = &mut of_parts[part_of(&standing.account, parts)];
        if standing.in_arrears {
            part.stop(&standing.account, Stop::Arrears);
        }
        let balance = standing.balance.clone();
        part.balances.insert(standing.account.clone(), balance);
    }
    // The head says that the others are there.
    of_parts.rotate_left(1);
    let others = of_parts.len() - 1;
    let told = of_parts.into_iter().enumerate().map(|(nth, mut accounts)| {
        accounts.stopped.sort_unstable();
        let key = if nth == others {
            HEAD.to_owned()
        } else {
            key(nth, others)
        };
        (key, accounts)
    });
    told.collect()
}

/// About so many bytes tell it.
fn bytes_of(standing: &AccountStanding) -> usize {
    let named = standing.account.as_str().len();
    let stopped = if standing.in_arrears { named + 40 } else { 0 };
    named + standing.balance.len() + 6 + stopped
}

/// FNV-1a: stable, so that an account stays in its part.
fn part_of(account: &AccountId, parts: u32) -> usize {
    let hash = account
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
    (hash % parts) as usize
}
