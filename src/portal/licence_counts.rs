//! Grants that were given out and that the ledger has not been told of yet (R19).
//!
//! Owns their sums by day and app. Bounded by what is licensed: an app that nobody licensed gets no
//! grant. A crash loses what was not told.

use crate::ledger::LicenceDay;
use crate::model::{AccountId, LicenceKind, Package, Utc};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use std::collections::HashMap;

type Kind = (String, AccountId, Package, LicenceKind);

/// The sums.
#[derive(Default)]
pub(super) struct LicenceCounts(Mutex<HashMap<Kind, u64>>);

/// The day of the provider's zone that an instant lies in, as in `2026-11-24`.
pub(super) fn day(at: Utc, zone: &TimeZone) -> String {
    let at = Timestamp::from_microsecond(at.0).unwrap_or_default();
    at.to_zoned_datetime(zone.clone()).date().to_string()
}

impl LicenceCounts {
    pub(super) fn add(
        &self,
        account: &AccountId,
        package: &Package,
        kind: LicenceKind,
        now: Utc,
        zone: &TimeZone,
    ) {
        let key = (day(now, zone), account.clone(), package.clone(), kind);
        *self.0.lock().entry(key).or_default() += 1;
    }

    /// All that was counted since this was asked before.
    pub(super) fn take(&self) -> Vec<LicenceDay> {
        let counted = std::mem::take(&mut *self.0.lock());
        counted.into_iter().map(line).collect()
    }

    /// Of one account, without taking it.
    pub(super) fn of(&self, account: &AccountId) -> Vec<LicenceDay> {
        let counted = self.0.lock();
        let own = counted.iter().filter(|((_, of, ..), _)| of == account);
        own.map(|(key, grants)| line((key.clone(), *grants)))
            .collect()
    }

    /// What could not be told is told the next time.
    pub(super) fn put_back(&self, days: Vec<LicenceDay>) {
        let mut counted = self.0.lock();
        for of in days {
            let key = (of.day, of.account, of.package, of.kind);
            *counted.entry(key).or_default() += of.grants;
        }
    }
}

fn line(((day, account, package, kind), grants): (Kind, u64)) -> LicenceDay {
    LicenceDay {
        day,
        account,
        package,
        kind,
        grants,
    }
}
