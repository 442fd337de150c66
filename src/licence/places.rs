//! The places of trials that several gates share: keys of a bucket at NATS that are created if they
//! are absent (R19).
//!
//! Owns the keys and what a value says. Must never give out a place whose key is not created.
//!
//! # Decided
//! - **The places of an account are tried in order from the first.** Whoever comes to a place that
//!   is taken reads by whom: so one app never has two, and of many at once for the last one a
//!   single one succeeds.

use crate::ledger::LicenceTrial;
use crate::ledger::TrialPlace;
use crate::model::{AccountId, Package, Utc};
use crate::nats::{KeyValues, Nats, NatsError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
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
    /// What stands there cannot be read.
    #[error("the value of {key} cannot be read: {why}")]
    Unreadable {
        /// The key.
        key: String,
        /// Why.
        why: String,
    },
}

/// The trials and revocations that all gates share.
pub(crate) struct SharedTrials {
    nats: Nats,
    replicas: usize,
    /// The bucket of the places as it was opened last: whoever has an app may look often.
    looked_in: Mutex<Option<KeyValues>>,
}

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
            looked_in: Mutex::new(None),
        }
    }

    async fn bucket(&self, name: &str) -> Result<KeyValues, TrialsAway> {
        Ok(self.nats.bucket(name, self.replicas).await?)
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
                true => wanted,
                false => surely_held(&bucket, account, place).await?,
            };
            seen.push(held.clone());
            if held.package == *package {
                return Ok((TrialPlace::Taken(held), seen));
            }
        }
        Ok((TrialPlace::Full, seen))
    }

    /// The places of the account from `place` on.
    pub(crate) async fn held_from(
        &self,
        account: &AccountId,
        place: u32,
        apps: u32,
    ) -> Result<Vec<LicenceTrial>, TrialsAway> {
        let opened = self.looked_in.lock().clone();
        let bucket = match opened {
            Some(bucket) => bucket,
            None => self.bucket(TRIALS).await?,
        };
        let mut found = Vec::new();
        for place in place..=apps {
            match held(&bucket, account, place).await {
                Ok(Some(trial)) => found.push(trial),
                Ok(None) => break,
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

    /// Says to all gates that the licences of an app that began before `at` are revoked.
    pub(crate) async fn revoke(
        &self,
        account: &AccountId,
        package: &Package,
        at: Utc,
        why: &str,
    ) -> Result<(), TrialsAway> {
        let written = WrittenRevocation {
            revoked_at_us: at.0,
            why: why.to_owned(),
        };
        // A number and a text can always be written to memory.
        let value = serde_json::to_vec(&written).unwrap_or_default();
        let bucket = self.bucket(REVOKED).await?;
        bucket.put(&format!("{account}.{package}"), value).await?;
        Ok(())
    }

    /// All that was revoked: account, app, when, why.
    pub(crate) async fn revoked(
        &self,
    ) -> Result<Vec<(AccountId, Package, Utc, String)>, TrialsAway> {
        let bucket = self.bucket(REVOKED).await?;
        let mut found = Vec::new();
        for key in bucket.keys().await? {
            let Some(value) = bucket.get(&key).await? else {
                continue;
            };
            let names = key.split_once('.');
            let names = names
                .and_then(|(account, app)| Some((AccountId::new(account)?, Package::new(app)?)));
            let (account, package) = names.ok_or_else(|| TrialsAway::Unreadable {
                key: key.clone(),
                why: "its key is no account and app".to_owned(),
            })?;
            let written: WrittenRevocation =
                serde_json::from_slice(&value.bytes).map_err(|why| TrialsAway::Unreadable {
                    key,
                    why: why.to_string(),
                })?;
            found.push((account, package, Utc(written.revoked_at_us), written.why));
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

/// Who holds a place that is taken. A server of a cluster may answer that is behind: it is asked
/// again, for to pass over the place could give the app a second one.
async fn surely_held(
    bucket: &KeyValues,
    account: &AccountId,
    place: u32,
) -> Result<LicenceTrial, TrialsAway> {
    for _ in 0..LOOKS {
        if let Some(held) = held(bucket, account, place).await? {
            return Ok(held);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(TrialsAway::Unreadable {
        key: key(account, place),
        why: "it is taken, and its value is not there yet".to_owned(),
    })
}

/// Who holds a place.
async fn held(
    bucket: &KeyValues,
    account: &AccountId,
    place: u32,
) -> Result<Option<LicenceTrial>, TrialsAway> {
    let key = key(account, place);
    let Some(value) = bucket.get(&key).await? else {
        return Ok(None);
    };
    let written: WrittenTrial =
        serde_json::from_slice(&value.bytes).map_err(|why| TrialsAway::Unreadable {
            key,
            why: why.to_string(),
        })?;
    Ok(Some(LicenceTrial {
        account: account.clone(),
        place,
        package: written.package,
        applied_at: Utc(written.applied_at_us),
    }))
}
