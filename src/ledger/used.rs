//! When each key of an account was last used, as far as the newest records tell.

use crate::ledger::error::ReadError;
use crate::ledger::read::Reader;
use crate::ledger::rows::signed;
use crate::model::{AccountId, KeyId, Utc};
use rusqlite::OptionalExtension;
use std::collections::BTreeMap;

/// By key, the second in which a call of it was last admitted.
pub(crate) type KeysUsed = BTreeMap<KeyId, Utc>;

const HOUR_US: i64 = 3_600_000_000;
/// So far back is looked, in hours: a look costs as much as that of a month's bill.
const BACK_HOURS: i64 = 31 * 24;

impl Reader {
    /// The last use of each key of the account in the 31 days before `now`, by the newest record
    /// that it has there. A key is left out when that record was deleted since.
    pub(crate) fn keys_used(&self, account: &AccountId, now: Utc) -> Result<KeysUsed, ReadError> {
        // Whole hours: they are counted without their records.
        let until = Utc((now.hour() + 1).saturating_mul(HOUR_US));
        let from = Utc(until.0 - BACK_HOURS * HOUR_US);
        let mut newest: BTreeMap<KeyId, u64> = BTreeMap::new();
        for line in self.usage(from, until, Some(account), 0..=u64::MAX)? {
            if !line.key.is_none() {
                let seq = newest.entry(line.key).or_default();
                *seq = line.last_seq.max(*seq);
            }
        }
        let mut select = self
            .connection
            .prepare_cached("SELECT admitted_at FROM raw WHERE seq = ?1")?;
        let mut used = KeysUsed::new();
        for (key, seq) in newest {
            let at: Option<i64> = select
                .query_row([signed(seq)], |row| row.get(0))
                .optional()?;
            if let Some(at) = at {
                used.insert(key, Utc(Utc(at).seconds().saturating_mul(1_000_000)));
            }
        }
        Ok(used)
    }
}
