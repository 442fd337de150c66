//! One immutable generation of what was sold to whom: credentials -> account -> limiter per action.
//!
//! Owns the accounts, held here and nowhere else, and the lookups. All are resolved when the
//! generation is built, so that a call only follows references; a limiter is found at the first
//! call that needs it. Must never be changed otherwise, nor held over an await (a call keeps its
//! account).

use crate::config::{self, Catalog, Charging, Key};
use crate::metrics::{Decision, Metrics};
use crate::model::{AccountId, GroupId, Mode, Utc};
use crate::proxy::admission::{Limiter, LimiterKey, Limiters, Purchase, Quota, Terms};
use crate::proxy::identity::api_key::ApiKeyDigest;
use crate::proxy::policy::account::{Entitlement, KnownAccount, Operation};
use crate::proxy::policy::keys::{Keys, KnownKey};
use crate::proxy::policy::licence_keys::{KnownLicenceKey, LicenceKeyTable};
use crate::proxy::rate_lines::RateLines;
use crate::proxy::upstream::Upstreams;
use foldhash::fast::RandomState;
use http::Method;
use std::collections::HashMap;
use std::sync::Arc;

/// A generation of the catalogue and the accounts.
pub struct Policy {
    /// 1 at start, one more at each change.
    pub generation: u64,
    /// The digest of the files that it was read from; empty when it was read from none.
    pub digest: String,
    /// The catalogue as loaded.
    pub catalog: Arc<Catalog>,
    /// Where calls go.
    pub upstreams: Upstreams,
    operations: Vec<Arc<Operation>>,
    routes: HashMap<String, Vec<(Method, usize)>, RandomState>,
    keys: Keys,
    licence_keys: LicenceKeyTable,
    /// Sorted by id.
    accounts: Box<[Arc<KnownAccount>]>,
}

impl Policy {
    /// Builds a generation. Nothing is in force yet.
    pub fn build(
        generation: u64,
        catalog: Arc<Catalog>,
        accounts: Vec<config::Account>,
        upstreams: Upstreams,
        metrics: &Metrics,
    ) -> Self {
        let mut routes: HashMap<String, Vec<_>, RandomState> = HashMap::default();
        let specs = catalog.groups.iter().flat_map(|group| &group.actions);
        for (index, spec) in specs.enumerate() {
            if let Some(route) = &spec.route {
                routes
                    .entry(route.path.clone())
                    .or_default()
                    .push((route.method.clone(), index));
            }
        }
        let operations = operations(&catalog, &upstreams, metrics);
        let mut accounts: Box<[_]> = accounts
            .into_iter()
            .map(|sold| Arc::new(KnownAccount::new(sold, &operations)))
            .collect();
        accounts.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Self {
            generation,
            digest: String::new(),
            catalog,
            upstreams,
            operations,
            routes,
            keys: Keys::of(&accounts),
            licence_keys: LicenceKeyTable::of(&accounts),
            accounts,
        }
    }

    /// Puts this generation's terms in force in the limiters that there are. Call it as the
    /// generation is swapped in. A limiter that a call of an older generation makes after this gets
    /// them at its next call.
    pub fn apply(&self, limiters: &Limiters) {
        limiters.each(|key, limiter| {
            let operation = self.operations.iter().find(|operation| {
                key.group == operation.group
                    && key.action.is_none() == self.is_paid(operation)
                    && key.action.as_ref().is_none_or(|a| *a == operation.action)
            });
            let Some((account, operation)) = self.account(&key.account).zip(operation) else {
                return;
            };
            if let Some(entitlement) = account.entitlement(operation)
                && let Some(terms) = self.terms(account, operation, entitlement)
            {
                let known = entitlement.limiter.get_or_init(|| limiter.clone());
                known.set_terms(self.generation, terms);
            }
        });
    }

    /// The limiter through which this account calls the operation; `None` when it never opened the
    /// service (R9). Both must be of this generation.
    pub fn limiter<'a>(
        &self,
        account: &'a KnownAccount,
        operation: &Operation,
        limiters: &Limiters,
    ) -> Option<&'a Arc<Limiter>> {
        let entitlement = account.entitlement(operation)?;
        if let Some(limiter) = entitlement.limiter.get() {
            return Some(limiter);
        }
        let terms = self.terms(account, operation, entitlement)?;
        let key = self.limiter_key(account, operation);
        let make = || limiters.get_or_insert(key, self.generation, terms);
        Some(entitlement.limiter.get_or_init(make))
    }

    pub(super) fn limiter_key(&self, account: &KnownAccount, operation: &Operation) -> LimiterKey {
        LimiterKey {
            account: account.id.clone(),
            group: operation.group.clone(),
            action: (!self.is_paid(operation)).then(|| operation.action.clone()),
        }
    }

    fn is_paid(&self, operation: &Operation) -> bool {
        let group = self.catalog.groups.get(operation.group_index);
        group.is_some_and(|group| matches!(group.charging, Charging::Paid { .. }))
    }

    pub(super) fn terms(
        &self,
        account: &KnownAccount,
        of: &Operation,
        given: &Entitlement,
    ) -> Option<Terms> {
        let service = account.services.get(given.service as usize)?;
        let group = self.catalog.groups.get(of.group_index)?;
        Some(terms(service, &group.charging))
    }

    /// Calls `visit` for what was not called since this generation is in force: with account, group
    /// and the calls per second that are admitted at `now`. What is of one account and group
    /// follows one another.
    pub fn each_idle(
        &self,
        now: Utc,
        limiters: &Limiters,
        mut visit: impl FnMut(&AccountId, &GroupId, u32),
    ) {
        for account in &self.accounts {
            for operations in self.operations.chunk_by(|a, b| a.scope == b.scope) {
                let operation = &operations[0];
                if let Some(entitlement) = account.entitlement(operation)
                    && entitlement.limiter.get().is_none()
                    && let Some(terms) = self.terms(account, operation, entitlement)
                {
                    let is_paid = self.is_paid(operation);
                    let admits = match is_paid && limiters.is_in_arrears(&account.id) {
                        true => 0,
                        false => terms.admits(now),
                    };
                    visit(&account.id, &operation.group, admits);
                }
            }
        }
    }

    /// The operation that `X-TC-Action` names.
    pub fn by_action(&self, action: &str) -> Option<&Arc<Operation>> {
        // An `Action` owns its text, so a lookup would allocate; there are a handful.
        self.operations
            .iter()
            .find(|operation| operation.action.as_str() == action)
    }

    /// The operation whose route is this method and path; `Err` with the methods of the path when
    /// only the method differs.
    pub fn by_route(&self, method: &Method, path: &str) -> Result<&Arc<Operation>, Vec<Method>> {
        let methods = self.routes.get(path).ok_or_else(Vec::new)?;
        match methods.iter().find(|(known, _)| known == method) {
            Some((_, index)) => Ok(&self.operations[*index]),
            None => Err(methods.iter().map(|(method, _)| method.clone()).collect()),
        }
    }

    /// The key pair with this secret id.
    pub fn tc3(&self, secret_id: &str) -> Option<&KnownKey> {
        self.keys.by_secret_id(secret_id)
    }

    /// The API key with this digest.
    pub fn api_key(&self, digest: &ApiKeyDigest) -> Option<&KnownKey> {
        self.keys.by_digest(digest)
    }

    /// The licence key with this digest.
    pub(crate) fn licence_key(&self, digest: &ApiKeyDigest) -> Option<KnownLicenceKey> {
        self.licence_keys.find(&digest.0)
    }

    /// The key as a call finds it.
    pub(super) fn known_key(&self, key: &Key) -> Option<&KnownKey> {
        self.keys.by_key(key)
    }

    /// Takes over what was seen of the keys under the generation before. Call it before the
    /// generation is swapped in. A call that is still decided by the one before may count a first
    /// use that is not taken over.
    pub fn inherit(&self, before: &Self) {
        self.keys.inherit(&before.keys);
    }

    /// The keys that expire soon, and that no other key follows.
    pub fn expiring(&self, now: Utc) -> usize {
        let keys = self.accounts.iter().flat_map(|account| {
            let keys = account.keys.iter();
            keys.filter(|key| key.expires_soon(now) && !account.is_followed(key))
        });
        keys.count()
    }

    /// The account with this id.
    pub fn account(&self, id: &AccountId) -> Option<&Arc<KnownAccount>> {
        let found = self.accounts.binary_search_by(|account| account.id.cmp(id));
        self.accounts.get(found.ok()?)
    }

    /// Every account, by id.
    pub fn accounts(&self) -> std::slice::Iter<'_, Arc<KnownAccount>> {
        self.accounts.iter()
    }

    /// Every operation, in the catalogue's order.
    pub fn operations(&self) -> &[Arc<Operation>] {
        &self.operations
    }
}

fn operations(catalog: &Catalog, upstreams: &Upstreams, metrics: &Metrics) -> Vec<Arc<Operation>> {
    let specs = catalog
        .groups
        .iter()
        .enumerate()
        .flat_map(|(index, group)| group.actions.iter().map(move |spec| (index, group, spec)));
    let mut scopes = 0;
    let mut before = None;
    specs
        .map(|(group_index, group, spec)| {
            let free = matches!(group.charging, Charging::Free { .. });
            if free || before.replace(group_index) != Some(group_index) {
                scopes += 1;
            }
            // No series for modes that the group cannot be in; the slots are filled with one it
            // can.
            let (always, never) = match group.charging {
                Charging::Free { .. } => (Mode::Free, &[Mode::PerCall, Mode::Qps][..]),
                Charging::Paid { .. } => (Mode::PerCall, &[Mode::Free][..]),
            };
            let counters = |decision, reason| {
                std::array::from_fn(|mode| {
                    let mode = if never.contains(&Mode::ALL[mode]) {
                        always
                    } else {
                        Mode::ALL[mode]
                    };
                    metrics.requests(group.id.as_str(), Some(mode), decision, reason)
                })
            };
            Arc::new(Operation {
                scope: scopes,
                group_index,
                action: spec.action.clone(),
                group: group.id.clone(),
                rate_lines: RateLines::of(&group.id),
                regions: group.regions.clone(),
                upstream: upstreams.of(spec.upstream.as_deref()).clone(),
                admitted: counters(Decision::Admitted, ""),
                throttled: counters(Decision::Throttled, "over_quota"),
            })
        })
        .collect()
}

/// The terms at the limiter of an account's service (R3-R6, R9).
fn terms(service: &config::Service, charging: &Charging) -> Terms {
    let quota = match (charging, service.mode) {
        (Charging::Free { qps_per_action }, _) => Quota::Fixed(*qps_per_action),
        (Charging::Paid { .. }, Mode::Qps) => Quota::Purchased(
            service
                .qps_purchases
                .iter()
                .map(|purchase| Purchase {
                    order: purchase.order.clone(),
                    qps: purchase.qps,
                    from: purchase.from,
                    until: purchase.until,
                })
                .collect(),
        ),
        (Charging::Paid { per_call, .. }, _) => Quota::Fixed(per_call.qps),
    };
    Terms {
        opened: service.opened,
        stopped: service.stopped,
        mode: service.mode,
        quota,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Clock;
    use crate::proxy::admission::Now;
    use std::path::Path;
    use std::time::Duration;

    const STUDIO: &str = "1250000001";

    /// The shipped files, with `per_call` calls a second in per-call mode.
    fn policy(generation: u64, per_call: u32) -> Policy {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.yaml");
        let config = config::load(&path).unwrap();
        let mut catalog = config.catalog;
        for group in &mut catalog.groups {
            if let Charging::Paid { per_call: cap, .. } = &mut group.charging {
                cap.qps = per_call;
            }
        }
        let metrics = Metrics::new(10);
        let upstreams = Upstreams::new(&config.settings, 1, &Clock::default());
        let (catalog, accounts) = (Arc::new(catalog), config.accounts);
        Policy::build(generation, catalog, accounts, upstreams, &metrics)
    }

    fn limiter(policy: &Policy, action: &str, limiters: &Limiters) -> Option<Arc<Limiter>> {
        let account = policy.account(&AccountId::new(STUDIO).unwrap()).unwrap();
        let operation = policy.by_action(action).unwrap();
        policy.limiter(account, operation, limiters).cloned()
    }

    /// The number of calls that are admitted, of many at one instant.
    fn admitted(limiter: &Limiter) -> usize {
        let now = Now::read(&Clock::default());
        let calls = (0..100).filter(|_| limiter.reserve(now, Duration::ZERO).is_ok());
        calls.count()
    }

    #[test]
    fn the_actions_of_a_paid_group_share_a_gate_and_a_free_action_has_its_own() {
        let (policy, limiters) = (policy(1, 5), Limiters::default());
        let of = |action| limiter(&policy, action, &limiters).unwrap();
        let (a, b) = (of("SegmentPortraitPic"), of("SegmentCustomizedPortraitPic"));
        assert!(Arc::ptr_eq(&a, &b));
        let video = AccountId::new("1250000004").unwrap();
        let of_video = |action| {
            let account = policy.account(&video).unwrap();
            let operation = policy.by_action(action).unwrap();
            policy
                .limiter(account, operation, &limiters)
                .unwrap()
                .clone()
        };
        let (c, d) = (
            of_video("CreateSegmentationTask"),
            of_video("DescribeSegmentationTask"),
        );
        assert!(!Arc::ptr_eq(&c, &d));
        assert_eq!(limiters.len(), 3);
    }

    #[test]
    fn a_reload_keeps_every_window_and_changes_every_quota() {
        let (old, new, limiters) = (policy(1, 5), policy(2, 7), Limiters::default());
        let before = limiter(&old, "SegmentPortraitPic", &limiters).unwrap();
        assert_eq!(admitted(&before), 5);
        new.apply(&limiters);
        // A call may still hold the old generation.
        assert_eq!(admitted(&before), 2);
        let known = Arc::as_ptr(&before);
        drop((old, before));
        let a_minute_later = Clock::default().mono().plus(Duration::from_secs(60));
        limiters.sweep(a_minute_later, |_, _| {
            panic!("its account stays, called again or not")
        });
        let after = limiter(&new, "SegmentPortraitPic", &limiters).unwrap();
        assert_eq!(Arc::as_ptr(&after), known);
    }

    #[test]
    fn a_gate_that_a_late_call_made_with_the_old_policy_gets_the_new_terms() {
        let (old, new, limiters) = (policy(1, 7), policy(2, 5), Limiters::default());
        new.apply(&limiters);
        let late = limiter(&old, "SegmentPortraitPic", &limiters).unwrap();
        let after = limiter(&new, "SegmentPortraitPic", &limiters).unwrap();
        assert!(Arc::ptr_eq(&late, &after));
        assert_eq!(admitted(&after), 5);
        let later_still = limiter(&policy(1, 7), "SegmentPortraitPic", &limiters).unwrap();
        assert_eq!(admitted(&later_still), 0);
    }
}
