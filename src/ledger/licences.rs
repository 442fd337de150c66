//! What is kept of licences (R19): the places of trials, what was revoked, and grants by day.
//!
//! Owns their SQL. Must never give an account more places than it is told, or one app two of them.
//! No device stands here: the same grant can be made again.

use crate::ledger::rows::signed;
use crate::model::{AccountId, LicenceKind, Package, Utc};
use rusqlite::{Connection, OptionalExtension, params};

/// An application for the trial of an app.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LicenceTrial {
    /// The account that applied.
    pub account: AccountId,
    /// 1, 2, 3 ..: the place that it took of the account's.
    pub place: u32,
    /// The app.
    pub package: Package,
    /// When it was accepted.
    pub applied_at: Utc,
}

/// The grants of an app on a day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LicenceDay {
    /// The day, as in `2026-11-24`.
    pub day: String,
    /// The account that has the licence.
    pub account: AccountId,
    /// The app.
    pub package: Package,
    /// The kind of the licence.
    pub kind: LicenceKind,
    /// The number of grants that were given out.
    pub grants: u64,
}

/// An entry about licences.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LicenceEntry {
    /// A place was taken where all gates take them. One that is here already stays as it is.
    Trial(LicenceTrial),
    /// The licences of an app that began before were revoked. The newest instant counts.
    Revoked {
        /// The account.
        account: AccountId,
        /// The app.
        package: Package,
        /// When.
        at: Utc,
        /// Why, for whoever asks later.
        why: String,
    },
    /// Grants that were given out. They are added to those of the same day.
    Grants(LicenceDay),
}

/// What became of an application.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrialPlace {
    /// The app has a place: this one, or one from before.
    Taken(LicenceTrial),
    /// All places are taken by other apps.
    Full,
}

pub(super) fn insert(connection: &Connection, entry: &LicenceEntry) -> Result<(), rusqlite::Error> {
    let execute = |sql, values: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(sql)?.execute(values).map(drop)
    };
    match entry {
        LicenceEntry::Trial(trial) => execute(
            "INSERT INTO licence_trials (account, place, package, applied_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
            params![
                trial.account.as_str(),
                trial.place,
                trial.package.as_str(),
                trial.applied_at.0
            ],
        ),
        LicenceEntry::Revoked {
            account,
            package,
            at,
            why,
        } => execute(
            "INSERT INTO licence_revocations (account, package, revoked_at, why) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET revoked_at = excluded.revoked_at, why = excluded.why
             WHERE excluded.revoked_at > revoked_at",
            params![account.as_str(), package.as_str(), at.0, why],
        ),
        LicenceEntry::Grants(of) => execute(
            "INSERT INTO licence_grants (account, day, package, kind, grants) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET grants = grants + excluded.grants",
            params![
                of.account.as_str(),
                of.day,
                of.package.as_str(),
                of.kind.as_str(),
                signed(of.grants)
            ],
        ),
    }
}

/// Gives the app its place, or takes the next one, of at most `apps`.
pub(super) fn apply(
    connection: &Connection,
    (account, package): (&AccountId, &Package),
    apps: u32,
    now: Utc,
) -> Result<TrialPlace, rusqlite::Error> {
    let found = connection
        .prepare_cached(
            "SELECT place, applied_at FROM licence_trials WHERE account = ?1 AND package = ?2",
        )?
        .query_row([account.as_str(), package.as_str()], |row| {
            Ok((row.get(0)?, Utc(row.get(1)?)))
        })
        .optional()?;
    let (place, applied_at) = match found {
        Some(found) => found,
        None => {
            let last: u32 = connection
                .prepare_cached(
                    "SELECT coalesce(max(place), 0) FROM licence_trials WHERE account = ?1",
                )?
                .query_row([account.as_str()], |row| row.get(0))?;
            if last >= apps {
                return Ok(TrialPlace::Full);
            }
            (last + 1, now)
        }
    };
    let trial = LicenceTrial {
        account: account.clone(),
        place,
        package: package.clone(),
        applied_at,
    };
    insert(connection, &LicenceEntry::Trial(trial.clone()))?;
    Ok(TrialPlace::Taken(trial))
}
