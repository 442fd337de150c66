//! The places of trials that several gates share: keys of a bucket at NATS that are created if they
//! are absent (R19).
//!
//! Owns the keys and what a value says. Must never give out a place whose key is not created.
//!
//! # Decided
//! - **The places of an account are tried in order from the first.** Whoever comes to a place that
//!   is taken reads by whom: so one app never has two, and of many at once for the last one a
//!   single one succeeds.
//! - **A value that cannot be read is passed over**, told, and counted. Its place stays taken. One
//!   bad value must not keep an account from its other places, nor a gate from any revocation.
//! - **A place that was deleted by hand is free again.** Whoever did it wanted that.

use crate::ledger::LicenceTrial;
use crate::ledger::TrialPlace;
use crate::model::{AccountId, Package, Utc};
use crate::nats::{KeyValues, Nats, NatsError};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

/// How often, and after which pause, a place is looked at whose value is not there yet.
const LOOKS: usize = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The bucket of the places.
const TRIALS: &str = "tollgate_licence_trials";
/// The bucket of what was revoked.
const REVOKED: &str = "tollgate_licence_revoked";

/// Why the bucket says nothing now.
#[derive(thiserror::Error, Debug)]
pub(crate) enum TrialsAway {
    /// NATS does not answer.
    #[error("{0}")]
    Nats(#[from] NatsError),
    /// The servers do not agree yet on what stands there.
    #[error("what stands at {0} is not settled yet")]
    Unsettled(String),
}

/// The trials and revocations that all gates share.
pub(crate) struct SharedTrials {
    nats: Nats,
    replicas: usize,
    /// The bucket of the places as it was opened last: whoever has an app may look often.
    looked_in: Mutex<Option<KeyValues>>,
    /// The revision of each value that cannot be read, by bucket and key: each is told once.
    unreadable: Mutex<HashMap<(&'static str, String), u64>>,
}

/// What stands at a place.
enum Place {
    /// Nobody took it, or somebody deleted who had. With its revision, 0 before its first value.
    Free(u64),
    /// This one has it.
    Held(LicenceTrial),
    /// It is taken by whom nobody can say.
    Unreadable,
}

/// What was revoked: account, app, when, why.
pub(crate) type Revocation = (AccountId, Package, Utc, String);

#[derive(Serialize, Deserialize)]
struct WrittenTrial {
    package: Package,
    /// Microseconds since the Unix epoch.
    applied_at_us: i64,
}

/// What was revoked, as the bucket has it.
#[derive(Serialize, Deserialize)]
struct WrittenRevocation {
    revoked_at_us: i64,
    why: String,
}

impl SharedTrials {
    /// Over this connection; the buckets are kept by so many servers.
    pub(crate) fn new(nats: Nats, replicas: usize) -> Self {
        Self {
            nats,
            replicas,
            looked_in: Mutex::default(),
            unreadable: Mutex::default(),
        }
    }

    async fn bucket(&self, name: &str) -> Result<KeyValues, TrialsAway> {
        Ok(self.nats.only_bucket(name, self.replicas).await?)
    }

    /// How many values could not be read when they were looked at last.
    pub(crate) fn unreadable(&self) -> usize {
        self.unreadable.lock().len()
    }

    fn pass_over(&self, bucket: &'static str, key: &str, revision: u64, why: &str) {
        let of = (bucket, key.to_owned());
        let before = self.unreadable.lock().insert(of, revision);
        if before != Some(revision) {
            tracing::warn!(
                bucket,
                key,
                revision,
                "a value cannot be read, and is passed over until it is put right: {why}"
            );
        }
    }

    /// Gives the app its place, or takes the next one of at most `apps`. `known`: the places that
    /// this gate knows already. Second: places that others hold, for this gate to remember.
    pub(crate) async fn apply(
        &self,
        (account, package): (&AccountId, &Package),
        known: &[LicenceTrial],
        apps: u32,
        now: Utc,
    ) -> Result<(TrialPlace, Vec<LicenceTrial>), TrialsAway> {
        let bucket = self.bucket(TRIALS).await?;
        let mut seen = Vec::new();
        for place in 1..=apps {
            let kept = known.iter().find(|trial| trial.place == place);
            // A place that is known here is put back where the bucket has lost it.
            let wanted = kept.cloned().unwrap_or_else(|| LicenceTrial {
                account: account.clone(),
                place,
                package: package.clone(),
                applied_at: now,
            });
            let key = key(account, place);
            let held = match bucket.create(&key, encoded(&wanted)).await? {
                true => Some(wanted),
                false => self.surely_held(&bucket, wanted).await?.or(kept.cloned()),
            };
            let Some(held) = held else { continue };
            seen.push(held.clone());
            if held.package == *package {
                return Ok((TrialPlace::Taken(held), seen));
            }
        }
        Ok((TrialPlace::Full, seen))
    }

    /// Who holds a place that had a value, or `wanted` if that was deleted. `None`: it cannot be
    /// read by whom. A server of a cluster may answer that is behind: it is asked again, for to pass
    /// over the place could give the app a second one.
    async fn surely_held(
        &self,
        bucket: &KeyValues,
        wanted: LicenceTrial,
    ) -> Result<Option<LicenceTrial>, TrialsAway> {
        let (account, place) = (&wanted.account, wanted.place);
        for _ in 0..LOOKS {
            match self.place(bucket, account, place).await? {
                Place::Held(held) => return Ok(Some(held)),
                Place::Unreadable => return Ok(None),
                Place::Free(0) => {}
                Place::Free(deleted) => {
                    let (key, value) = (key(account, place), encoded(&wanted));
                    if bucket.replace(&key, deleted, value).await?.is_some() {
                        return Ok(Some(wanted));
                    }
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(TrialsAway::Unsettled(key(account, place)))
    }

    /// The places of the account that are not among those `known`.
    pub(crate) async fn held_beside(
        &self,
        account: &AccountId,
        known: &[LicenceTrial],
        apps: u32,
    ) -> Result<Vec<LicenceTrial>, TrialsAway> {
        let opened = self.looked_in.lock().clone();
        let bucket = match opened {
            Some(bucket) => bucket,
            None => self.bucket(TRIALS).await?,
        };
        let mut found = Vec::new();
        let is_known = |place: &u32| known.iter().any(|trial| trial.place == *place);
        for place in (1..=apps).filter(|place| !is_known(place)) {
            match self.place(&bucket, account, place).await {
                Ok(Place::Held(trial)) => found.push(trial),
                // They are taken in order.
                Ok(Place::Free(0)) => break,
                Ok(Place::Free(_) | Place::Unreadable) => {}
                Err(error) => {
                    // It may have been deleted: the next one opens it again.
                    *self.looked_in.lock() = None;
                    return Err(error);
                }
            }
        }
        *self.looked_in.lock() = Some(bucket);
        Ok(found)
    }

    async fn place(
        &self,
        bucket: &KeyValues,
        account: &AccountId,
        place: u32,
    ) -> Result<Place, TrialsAway> {
        let key = key(account, place);
        let (revision, value) = bucket.last(&key).await?;
        let read = value.map(|bytes| trial(&bytes));
        Ok(match read {
            Some(Err(why)) => {
                self.pass_over(TRIALS, &key, revision, &why);
                Place::Unreadable
            }
            readable => {
                self.unreadable.lock().remove(&(TRIALS, key));
                match readable {
                    Some(Ok((package, applied_at))) => Place::Held(LicenceTrial {
                        account: account.clone(),
                        place,
                        package,
                        applied_at,
                    }),
                    _ => Place::Free(revision),
                }
            }
        })
    }

    /// Says to all gates that the licences of an app that began before `at` are revoked. The newest
    /// instant stands: this one, or that of a gate whose clock is ahead, which is given back.
    pub(crate) async fn revoke(
        &self,
        account: &AccountId,
        package: &Package,
        at: Utc,
        why: &str,
    ) -> Result<(Utc, String), TrialsAway> {
        let written = WrittenRevocation {
            revoked_at_us: at.0,
            why: why.to_owned(),
        };
        // A number and a text can always be written to memory.
        let value = serde_json::to_vec(&written).unwrap_or_default();
        let bucket = self.bucket(REVOKED).await?;
        let key = format!("{account}.{package}");
        for _ in 0..LOOKS {
            let (revision, stands) = bucket.last(&key).await?;
            let stands = stands.and_then(|bytes| revoked(&bytes).ok());
            if let Some(newer) = stands.filter(|(stands, _)| *stands >= at) {
                return Ok(newer);
            }
            let replaced = bucket.replace(&key, revision, value.clone()).await?;
            if replaced.is_some() {
                return Ok((at, why.to_owned()));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(TrialsAway::Unsettled(key))
    }

    /// All that was revoked and can be read.
    pub(crate) async fn revoked(&self) -> Result<Vec<Revocation>, TrialsAway> {
        let bucket = self.bucket(REVOKED).await?;
        let all = bucket.all().await?;
        let is_there = |key: &String| all.iter().any(|(there, _)| there == key);
        let mut unreadable = self.unreadable.lock();
        unreadable.retain(|(of, key), _| *of != REVOKED || is_there(key));
        drop(unreadable);
        let mut found = Vec::new();
        for (key, value) in all {
            let names = key.split_once('.');
            let names = names
                .and_then(|(account, app)| Some((AccountId::new(account)?, Package::new(app)?)));
            let named = names.ok_or_else(|| "its key is no account and app".to_owned());
            let read = named.and_then(|named| Ok((named, revoked(&value.bytes)?)));
            match read {
                Ok(((account, package), (at, why))) => {
                    self.unreadable.lock().remove(&(REVOKED, key));
                    found.push((account, package, at, why));
                }
                Err(why) => self.pass_over(REVOKED, &key, value.revision, &why),
            }
        }
        Ok(found)
    }
}

fn key(account: &AccountId, place: u32) -> String {
    format!("trial.{account}.{place}")
}

fn encoded(trial: &LicenceTrial) -> Vec<u8> {
    let written = WrittenTrial {
        package: trial.package.clone(),
        applied_at_us: trial.applied_at.0,
    };
    // A number and a text can always be written to memory.
    serde_json::to_vec(&written).unwrap_or_default()
}

fn trial(bytes: &[u8]) -> Result<(Package, Utc), String> {
    let written: WrittenTrial = serde_json::from_slice(bytes).map_err(|why| why.to_string())?;
    Ok((written.package, instant(written.applied_at_us)?))
}

fn revoked(bytes: &[u8]) -> Result<(Utc, String), String> {
    let written: WrittenRevocation =
        serde_json::from_slice(bytes).map_err(|why| why.to_string())?;
    Ok((instant(written.revoked_at_us)?, written.why))
}

/// An instant since 1970 that the calendar has.
fn instant(us: i64) -> Result<Utc, String> {
    match us >= 0 && Timestamp::from_microsecond(us).is_ok() {
        true => Ok(Utc(us)),
        false => Err(format!("{us} microseconds are no instant of the calendar")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_an_instant_that_no_calendar_has_cannot_be_read() {
        let trial_at =
            |us: i64| trial(format!(r#"{{"package":"a","applied_at_us":{us}}}"#).as_bytes());
        let revoked_at =
            |us: i64| revoked(format!(r#"{{"why":"x","revoked_at_us":{us}}}"#).as_bytes());
        for us in [i64::MAX, i64::MIN, -1] {
            assert!(trial_at(us).is_err() && revoked_at(us).is_err(), "{us}");
        }
        let us = 1_800_000_000_000_000;
        assert_eq!(trial_at(us).unwrap().1, Utc(us));
        assert_eq!(revoked_at(us).unwrap().0, Utc(us));
    }
}
