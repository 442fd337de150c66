//! An account and an action as a call meets them: with what was resolved when the generation was
//! built.

use crate::config;
use crate::metrics::IntCounter;
use crate::model::{Action, GroupId, Mode};
use crate::proxy::admission::Limiter;
use crate::proxy::rate_lines::RateLines;
use crate::proxy::upstream::Upstream;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// One action with what a call to it needs.
pub struct Operation {
    /// Its limiter's place among the limiters that an account can have: the actions of a paid group
    /// share one.
    pub(super) scope: u32,
    /// Its group's place in the catalogue.
    pub(super) group_index: usize,
    /// The action that a call names.
    pub action: Action,
    /// The group of the action.
    pub group: GroupId,
    /// How answers tell the quota of the group.
    pub(crate) rate_lines: RateLines,
    /// The regions in which it may be called; empty: all.
    pub regions: Vec<String>,
    /// Where its calls go.
    pub(crate) upstream: Arc<Upstream>,
    pub(super) admitted: [IntCounter; Mode::ALL.len()],
    pub(super) throttled: [IntCounter; Mode::ALL.len()],
}

impl Operation {
    /// The counter of calls admitted in `mode`.
    pub fn admitted(&self, mode: Mode) -> &IntCounter {
        &self.admitted[mode as usize]
    }

    /// The counter of calls over the cap in `mode`.
    pub fn throttled(&self, mode: Mode) -> &IntCounter {
        &self.throttled[mode as usize]
    }
}

/// A customer as the files have it, with its limiters.
pub struct KnownAccount {
    sold: config::Account,
    entitlements: Box<[Entitlement]>,
}

impl Deref for KnownAccount {
    type Target = config::Account;

    fn deref(&self) -> &config::Account {
        &self.sold
    }
}

/// The right of an account to call operations of one scope. Its limiter is made at the first call,
/// for most of many accounts are idle.
pub(super) struct Entitlement {
    /// The scope, as in [`Operation::scope`].
    scope: u32,
    /// The place of the service that gives it, in the account's list.
    pub(super) service: u32,
    pub(super) limiter: OnceLock<Arc<Limiter>>,
}

impl KnownAccount {
    /// With no limiter yet.
    pub(super) fn new(sold: config::Account, operations: &[Arc<Operation>]) -> Self {
        let mut entitlements: Vec<Entitlement> = Vec::new();
        for (service, group) in (0..).zip(sold.services.iter().map(|service| &service.group)) {
            for scope in operations
                .iter()
                .filter(|o| o.group == *group)
                .map(|o| o.scope)
            {
                if entitlements.last().is_none_or(|last| last.scope != scope) {
                    entitlements.push(Entitlement {
                        scope,
                        service,
                        limiter: OnceLock::new(),
                    });
                }
            }
        }
        Self {
            entitlements: entitlements.into(),
            sold,
        }
    }

    pub(super) fn entitlement(&self, operation: &Operation) -> Option<&Entitlement> {
        self.entitlements
            .iter()
            .find(|entitlement| entitlement.scope == operation.scope)
    }
}
