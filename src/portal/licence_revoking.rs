//! To revoke the licences of an app (R19), and to hear what other gates revoked.
//!
//! Owns the instant of a revocation. Must never say that an app is revoked whose licence goes on,
//! nor put an older instant in place of a newer one.
//!
//! # Decided
//! - **The instant is not before the issue of the trial that it revokes**: the clock of this gate may
//!   be behind that of the gate which issued it. An order that has not begun by this gate's clock is
//!   not revoked, and the answer says so.
//! - **Gates that share nothing but a store revoke each by itself.** The answer says so.

use crate::ledger::LicenceEntry;
use crate::model::{AccountId, Package, Utc};
use crate::portal::licence_desk::{LicenceDesk, TrialPlaces};
use crate::portal::licences::{lines, sold};
use crate::proxy::Refusal;
use crate::proxy::policy::{KnownAccount, Policy};
use serde_json::Value;
use std::sync::Arc;

/// A revocation that is durable.
pub(crate) struct Revoked {
    /// The licences of the app that began by then are revoked.
    pub at: Utc,
    /// The orders and the trial of the app, each with its state.
    pub licences: Vec<Value>,
    /// Whether the other gates hear it.
    pub is_heard: bool,
}

/// Why nothing is revoked.
pub(crate) enum NotRevoked {
    /// The account has no licence of the app.
    Unknown,
    /// What it has begins later.
    NotBegun,
    /// As a customer is told.
    Refused(Refusal),
}

impl From<Refusal> for NotRevoked {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Revokes the licences of an app that have begun.
///
/// # Errors
/// Nothing is revoked, or it is not known; to ask again is safe.
pub(crate) async fn revoke(
    desk: &Arc<LicenceDesk>,
    policy: &Policy,
    account: &KnownAccount,
    package: &Package,
    why: &str,
) -> Result<Revoked, NotRevoked> {
    let terms = sold(policy)?;
    desk.look(&account.id, terms.trial_apps).await?;
    let now = desk.shared.clock.utc();
    let trials = desk.known(&account.id, package).trials;
    let trial = trials.iter().find(|trial| trial.package == *package);
    let orders = || account.licences.iter().filter(|of| of.package == *package);
    let at = match trial {
        Some(trial) => trial.applied_at.max(now),
        None if orders().any(|order| order.from <= now) => now,
        None if orders().next().is_some() => return Err(NotRevoked::NotBegun),
        None => return Err(NotRevoked::Unknown),
    };
    let at = desk.revoke(&account.id, package, at, why).await?;
    let described = lines(desk, account, terms, &policy.catalog.time_zone, now);
    let of_app = |(of, line): (Package, Value)| (of == *package).then_some(line);
    Ok(Revoked {
        at,
        licences: described.into_iter().filter_map(of_app).collect(),
        is_heard: !matches!(desk.places, TrialPlaces::Nowhere),
    })
}

impl LicenceDesk {
    /// Revokes the licences of an app that began by `at`, at all gates that hear of it. It is
    /// durable when this returns. Gives the instant that stands, which another gate may have set
    /// later.
    ///
    /// # Errors
    /// It is not known whether it is revoked; to ask again is safe.
    async fn revoke(
        self: &Arc<Self>,
        account: &AccountId,
        package: &Package,
        at: Utc,
        why: &str,
    ) -> Result<Utc, Refusal> {
        let (account, package, why) = (account.clone(), package.clone(), why.to_owned());
        let desk = self.clone();
        self.to_its_end(async move {
            let mut stands = (at, why);
            if let TrialPlaces::Shared(shared) = &desk.places {
                let (at, why) = &stands;
                let said = shared.revoke(&account, &package, *at, why).await;
                stands = said.map_err(|error| desk.away(&error))?;
            }
            desk.keep_revoked(account, package, stands).await
        })
        .await
    }

    /// What is durable is in force here, also when nobody waits for it any more.
    async fn keep_revoked(
        self: &Arc<Self>,
        account: AccountId,
        package: Package,
        (at, why): (Utc, String),
    ) -> Result<Utc, Refusal> {
        let desk = self.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let entry = revocation(&account, &package, at, &why);
            let kept = desk.shared.ledger.keep_licences(vec![entry]);
            // Where it is shared the bucket has it.
            if kept.is_ok() || matches!(desk.places, TrialPlaces::Shared(_)) {
                desk.known.lock().revoke(&account, &package, at, &why);
                return Ok(());
            }
            kept
        });
        match kept.await {
            Ok(Ok(())) => Ok(at),
            Ok(Err(error)) => Err(self.away(&error)),
            Err(error) => Err(self.away(&error)),
        }
    }

    /// Hears what other gates revoked.
    pub(super) async fn hear_revoked(&self) {
        let TrialPlaces::Shared(shared) = &self.places else {
            return;
        };
        let heard = shared.revoked().await;
        let unreadable = i64::try_from(shared.unreadable()).unwrap_or(i64::MAX);
        self.shared.metrics.licence_unreadable.set(unreadable);
        let trouble = heard.as_ref().err().map(ToString::to_string);
        match (self.unheard.is_news(trouble.as_deref()), &trouble) {
            (true, Some(why)) => {
                tracing::warn!("what other gates revoke is not heard; what was heard holds: {why}");
            }
            (true, None) => tracing::info!("what other gates revoke is heard again"),
            (false, _) => {}
        }
        let mut new = Vec::new();
        for (account, package, at, why) in heard.unwrap_or_default() {
            if self.known.lock().revoke(&account, &package, at, &why) {
                new.push(revocation(&account, &package, at, &why));
            }
        }
        self.keep(new).await;
    }
}

fn revocation(account: &AccountId, package: &Package, at: Utc, why: &str) -> LicenceEntry {
    LicenceEntry::Revoked {
        account: account.clone(),
        package: package.clone(),
        at,
        why: why.to_owned(),
    }
}
