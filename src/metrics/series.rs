//! Which accounts have series of their own, and what the others have counted.
//!
//! Must never forget a count: a sum that falls looks like a restart.

use crate::model::{AccountId, GroupId, KeyId};
use std::collections::{HashMap, HashSet};

/// Which gates have series of their own. A gate that was given series keeps them while it exists,
/// because a counter that moved between `other` and its own name would seem to be reset.
#[derive(Default)]
pub(super) struct AccountSeries {
    pub(super) limit: usize,
    /// What each named account's sum over its gates exceeds its own series by: what it did among
    /// the others, less what gates counted that are gone since.
    pub(super) named: HashMap<(AccountId, GroupId), [i64; 3]>,
    /// The counts of gates that are gone, and of named gates up to their naming, by group. A group
    /// that is here has an `other` whose counts must not fall.
    pub(super) other: HashMap<GroupId, [i64; 3]>,
    /// The keys that have series of their own, at most `limit` too. They keep them while the process
    /// lives.
    pub(super) keys: HashSet<(AccountId, KeyId)>,
}

impl AccountSeries {
    /// At most `limit` accounts get series of their own.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }
}
