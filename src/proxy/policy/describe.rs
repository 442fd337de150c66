//! The description of an account's quotas and their reasons, for its customer and the operators.
//!
//! Owns this one description. It reads the limiters that decide, and takes no quota.

use crate::ledger::KeysUsed;
use crate::model::{AccountId, GroupId, Local, Mode, Stop, Utc};
use crate::proxy::admission::{Limiter, Limiters, Now, Terms};
use crate::proxy::policy::{KnownAccount, KnownKey, Operation, Policy};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A limiter, when a call has made one, and its description.
pub(crate) type Described = (Option<Arc<Limiter>>, Value);

/// A quota and its reasons.
pub(crate) struct Why {
    /// How the account is charged.
    pub mode: Mode,
    /// In calls per second; 0 while nothing is admitted.
    pub quota: u32,
    /// When it changes, if that is known.
    pub until: Option<Utc>,
    /// Its reasons, as [`Policy::describe`] has them.
    pub because: Vec<Value>,
}

impl Policy {
    /// The quota that an account had for an action at an instant, by what this generation says of
    /// that instant. `stopped`: why it was stopped then, if it was.
    pub(crate) fn why(
        &self,
        account: &AccountId,
        group: &GroupId,
        action: &str,
        at: Utc,
        stopped: Option<Stop>,
    ) -> Option<Why> {
        let account = self.account(account)?;
        let operation = self.by_action(action).filter(|of| of.group == *group)?;
        let terms = self.terms(account, operation, account.entitlement(operation)?)?;
        let terms = Terms { stopped, ..terms };
        let until = terms.quota.at(at).until;
        Some(Why {
            mode: terms.mode,
            quota: terms.admits(at),
            until: (until != Utc(i64::MAX)).then_some(until),
            because: because(&terms, at, &self.catalog.time_zone),
        })
    }

    /// The quotas of `account` at `now` and their reasons, by group, as the portal and the admin
    /// listener show them. They are read from the limiters that decide. A free group has one entry
    /// for each action. Makes no limiter: one that no call has made yet is described as it would be
    /// made.
    pub fn describe(
        &self,
        account: &KnownAccount,
        limiters: &Limiters,
        now: Now,
    ) -> BTreeMap<&str, Vec<Described>> {
        let mut services: BTreeMap<&str, Vec<Described>> = BTreeMap::new();
        // The actions of a paid group share one limiter.
        for operations in self.operations().chunk_by(|a, b| a.scope == b.scope) {
            let operation = &operations[0];
            let Some(entitlement) = account.entitlement(operation) else {
                continue;
            };
            let Some(mut terms) = self.terms(account, operation, entitlement) else {
                continue;
            };
            let key = self.limiter_key(account, operation);
            let limiter = entitlement.limiter.get().cloned();
            let limiter = limiter.or_else(|| {
                let made_before = limiters.get(&key)?;
                made_before.set_terms(self.generation, terms.clone());
                Some(made_before)
            });
            let mut in_use = 0;
            match &limiter {
                Some(limiter) => (terms, in_use) = limiter.snapshot(now),
                None if key.action.is_none() && limiters.is_in_arrears(&account.id) => {
                    terms.stopped = terms.stopped.or(Some(Stop::Arrears));
                }
                None => {}
            }
            let described = self.describe_limiter(operation, &terms, in_use, now.utc);
            let of_group = services.entry(operation.group.as_str()).or_default();
            of_group.push((limiter, described));
        }
        services
    }

    /// The keys of `account`: until when each holds, and when a call of it was last admitted.
    /// `recorded` is what the ledger tells; it knows two keys of one id as one, so of these only
    /// what was seen since the start of the process is told.
    pub fn describe_keys(&self, account: &KnownAccount, recorded: &KeysUsed) -> Vec<Value> {
        let zone = &self.catalog.time_zone;
        let local = |at: Utc| Local::new(at, zone);
        let described = account.keys.iter().map(|key| {
            let alone = account
                .keys
                .iter()
                .filter(|other| other.id == key.id)
                .count()
                == 1;
            let recorded = recorded.get(&key.id).copied().filter(|_| alone);
            let seen = self.known_key(key).and_then(KnownKey::last_used);
            json!({
                "key": key.id,
                "expires": key.expires.map(local),
                "last_used": seen.max(recorded).map(local),
            })
        });
        described.collect()
    }

    fn describe_limiter(
        &self,
        operation: &Operation,
        terms: &Terms,
        in_use: usize,
        now: Utc,
    ) -> Value {
        let zone = &self.catalog.time_zone;
        let mut described = json!({
            "mode": terms.mode.as_str(),
            "opened": Local::new(terms.opened, zone),
            "stopped": terms.stopped.map(|stop| stop.as_str()),
            "quota_qps": terms.admits(now),
            "because": because(terms, now, zone),
            "since": since(terms, now).map(|at| Local::new(at, zone)),
            "to_do": to_do(terms, now),
            "in_use": in_use,
        });
        if terms.mode == Mode::Free {
            described["action"] = json!(operation.action.as_str());
        }
        // A stop ends when somebody ends it, and nothing changes before.
        let change = match terms.stopped {
            Some(_) => None,
            None if now < terms.opened => Some((terms.opened, terms.quota.at(terms.opened).qps)),
            None => terms
                .quota
                .next_change(now)
                .map(|next| (next.from, next.qps)),
        };
        if let Some((at, qps)) = change {
            described["next_change"] = json!({"at": Local::new(at, zone), "quota_qps": qps});
        }
        described
    }
}

/// Since when the quota is the one in force. `None` while it is withheld: the files do not say since
/// when.
fn since(terms: &Terms, now: Utc) -> Option<Utc> {
    let is_withheld = terms.stopped.is_some() || now < terms.opened;
    (!is_withheld).then(|| terms.opened.max(terms.quota.at(now).from))
}

/// The way to more calls per second.
fn to_do(terms: &Terms, now: Utc) -> &'static str {
    match (terms.stopped, terms.mode) {
        (Some(Stop::Arrears), _) => "pay what is owed: the service resumes by itself",
        (Some(Stop::Violation), _) => "ask the provider",
        (None, _) if now < terms.opened => "wait until the service is opened",
        (None, Mode::PerCall) => "to call faster, change to QPS billing and buy quota",
        (None, Mode::Free) => "nothing: the cap is the same for every account",
        (None, Mode::Qps) if terms.admits(now) == 0 => {
            "buy quota, or change to billing by the call"
        }
        (None, Mode::Qps) => "to call faster, buy more quota: what is in force at once adds up",
    }
}

/// The reasons of a quota: first the one that withholds it, then the quota without that.
fn because(terms: &Terms, now: Utc, zone: &TimeZone) -> Vec<Value> {
    let withheld = match terms.stopped {
        Some(Stop::Arrears) => {
            Some("the account is in arrears: nothing is admitted until they are paid")
        }
        Some(Stop::Violation) => {
            Some("the service is stopped for a violation: nothing is admitted")
        }
        None if now < terms.opened => {
            Some("the service is not opened yet: nothing is admitted before")
        }
        None => None,
    };
    let mut because: Vec<Value> = withheld
        .into_iter()
        .map(|rule| json!({"rule": rule}))
        .collect();
    match terms.mode {
        Mode::PerCall => because.push(json!({"rule": "the group's cap in per-call mode, the same for every account"})),
        Mode::Free => because.push(json!({"rule": "the free group's cap for each action"})),
        Mode::Qps => because.extend(terms
            .quota
            .purchases_at(now)
            .map(|p| json!({"order": p.order, "qps": p.qps, "from": Local::new(p.from, zone), "until": Local::new(p.until, zone)}))),
    }
    because
}
