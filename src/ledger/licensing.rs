//! What the gate asks of a ledger about licences (R19).
//!
//! Must never answer before what was asked is durable.

use crate::ledger::error::ReadError;
use crate::ledger::handle::Ledger;
use crate::ledger::job::Job;
use crate::ledger::read::Reader;
use crate::ledger::rows::{unsigned, word};
use crate::ledger::{Entry, LicenceDay, LicenceEntry, LicenceTrial, StoreError, TrialPlace};
use crate::model::{AccountId, LicenceKind, Package, Utc};
use rusqlite::params;

impl Ledger {
    /// Gives an app its place among the trials of its account, or takes the next one, of at most
    /// `apps`. It is durable when this returns. Blocks: not for the way of a call.
    ///
    /// # Errors
    /// It is not known whether a place was taken; to ask again is safe.
    pub fn apply_for_trial(
        &self,
        account: &AccountId,
        package: &Package,
        apps: u32,
        now: Utc,
    ) -> Result<TrialPlace, StoreError> {
        let of = (account.clone(), package.clone());
        self.ask(|reply| Job::Apply {
            of,
            apps,
            at: now,
            reply,
        })
    }

    /// Writes entries about licences, which are durable when it returns. Blocks.
    ///
    /// # Errors
    /// None of them is known to be written.
    pub fn keep_licences(&self, entries: Vec<LicenceEntry>) -> Result<(), StoreError> {
        self.keep(entries.into_iter().map(Entry::Licence).collect())
    }
}

impl Reader {
    /// Every application, by account and place.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn licence_trials(&self) -> Result<Vec<LicenceTrial>, ReadError> {
        self.list(
            "SELECT account, place, package, applied_at FROM licence_trials ORDER BY account, place",
            &[],
            |row| {
                Ok(LicenceTrial {
                    account: word(row, 0, AccountId::new)?,
                    place: row.get(1)?,
                    package: word(row, 2, Package::new)?,
                    applied_at: Utc(row.get(3)?),
                })
            },
        )
    }

    /// What was revoked: account, app, when, why.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn licence_revocations(&self) -> Result<Vec<(AccountId, Package, Utc, String)>, ReadError> {
        self.list(
            "SELECT account, package, revoked_at, why FROM licence_revocations ORDER BY account, package",
            &[],
            |row| {
                Ok((
                    word(row, 0, AccountId::new)?,
                    word(row, 1, Package::new)?,
                    Utc(row.get(2)?),
                    row.get(3)?,
                ))
            },
        )
    }

    /// The grants of an account on `from` and later days.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn licence_days(
        &self,
        account: &AccountId,
        from: &str,
    ) -> Result<Vec<LicenceDay>, ReadError> {
        self.list(
            "SELECT day, package, kind, grants FROM licence_grants WHERE account = ?1 AND day >= ?2
             ORDER BY day, package, kind",
            params![account.as_str(), from],
            |row| {
                Ok(LicenceDay {
                    day: row.get(0)?,
                    account: account.clone(),
                    package: word(row, 1, Package::new)?,
                    kind: word(row, 2, LicenceKind::parse)?,
                    grants: unsigned(row, 3)?,
                })
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::handle::tests::Bench;

    fn account(name: &str) -> AccountId {
        AccountId::new(name).unwrap()
    }

    fn package(n: u8) -> Package {
        Package::new(&format!("com.example.app{n}")).unwrap()
    }

    #[test]
    fn four_apps_take_a_place_and_no_fifth_whatever_became_of_the_others() {
        let bench = Bench::new();
        let mut store = bench.store();
        let mut apply = |name: &str, n: u8, at| {
            store
                .apply(&account(name), &package(n), 4, Utc(at))
                .unwrap()
        };
        for n in 1..=4 {
            let TrialPlace::Taken(trial) = apply("a", n, i64::from(n)) else {
                panic!("{n} has a place");
            };
            assert_eq!((trial.place, trial.applied_at), (n.into(), Utc(n.into())));
        }
        assert_eq!(apply("a", 5, 5), TrialPlace::Full);
        // Long after the others have ended.
        assert_eq!(apply("a", 5, i64::MAX), TrialPlace::Full);
        let TrialPlace::Taken(again) = apply("a", 2, 99) else {
            panic!("an app that has a place keeps it");
        };
        assert_eq!((again.place, again.applied_at), (2, Utc(2)));
        assert!(matches!(apply("b", 5, 5), TrialPlace::Taken(_)));
        let read = bench.reader().licence_trials().unwrap();
        assert_eq!(read.len(), 5);
    }

    #[test]
    fn grants_add_up_by_day_and_the_newest_revocation_counts() {
        let bench = Bench::new();
        let mut store = bench.store();
        let day = |day: &str, grants| {
            LicenceEntry::Grants(LicenceDay {
                day: day.to_owned(),
                account: account("a"),
                package: package(1),
                kind: LicenceKind::Formal,
                grants,
            })
        };
        let revoked = |at, why: &str| LicenceEntry::Revoked {
            account: account("a"),
            package: package(1),
            at: Utc(at),
            why: why.to_owned(),
        };
        let entries = [
            day("2026-11-24", 2),
            day("2026-11-24", 3),
            day("2026-11-23", 1),
            revoked(7, "second"),
            revoked(5, "first"),
        ];
        store.keep(&entries.map(Entry::Licence)).unwrap();
        let reader = bench.reader();
        let days = reader.licence_days(&account("a"), "2026-11-24").unwrap();
        assert_eq!(days.iter().map(|of| of.grants).collect::<Vec<_>>(), [5]);
        assert_eq!(reader.licence_days(&account("b"), "").unwrap(), []);
        let (.., at, why) = reader.licence_revocations().unwrap().remove(0);
        assert_eq!((at, why.as_str()), (Utc(7), "second"));
    }
}
