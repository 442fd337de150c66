//! One immutable generation of what was sold to whom: credentials -> account -> gate per action.
//!
//! Owns the lookups, all resolved when the generation is built, so that a call only follows
//! references. Must never be changed once built, nor held over an await (a call keeps its account).

use crate::admission::{Gate, GateKey, Gates, Now, Purchase, Quota, Terms};
use crate::config::{self, Catalog, Charging, Credential};
use crate::identity::{api_key::ApiKeyDigest, tc3::SigningSecret};
use crate::metrics::{Decision, IntCounter, Metrics};
use crate::words::{AccountId, Action, GroupId, Mode, Utc};
use http::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// A generation of the catalogue and the accounts.
pub struct Policy {
    /// 1 at start, one more at each change.
    pub generation: u64,
    /// The catalogue as loaded.
    pub catalog: Arc<Catalog>,
    operations: Vec<Arc<Operation>>,
    routes: Map<String, Vec<(Method, usize)>>,
    secrets: Map<Box<str>, Arc<Tc3Credential>>,
    api_keys: Map<[u8; 32], Arc<Account>>,
    accounts: Map<AccountId, Arc<Account>>,
    /// What to put in force when this generation is swapped in.
    terms: Vec<(Arc<Gate>, Terms)>,
}

/// One action with what a call to it needs.
pub struct Operation {
    /// Its place in [`Account::gate`].
    index: usize,
    /// The action.
    pub action: Action,
    /// Its group.
    pub group: GroupId,
    /// Where it may be called; empty: anywhere.
    pub regions: Vec<String>,
    admitted: [IntCounter; Mode::ALL.len()],
    throttled: [IntCounter; Mode::ALL.len()],
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

/// A customer, with its gates.
pub struct Account {
    /// The id.
    pub id: AccountId,
    /// The name, for people.
    pub name: String,
    gates: Box<[Option<Arc<Gate>>]>,
}

impl Account {
    /// The gate through which this account calls the operation; `None` when it never opened the
    /// service (R9).
    pub fn gate(&self, operation: &Operation) -> Option<&Arc<Gate>> {
        self.gates.get(operation.index)?.as_ref()
    }
}

/// A key pair and its owner.
pub struct Tc3Credential {
    /// What verifies.
    pub secret: SigningSecret,
    /// Whose it is.
    pub account: Arc<Account>,
}

impl Policy {
    /// Builds a generation: finds or makes the gate of every entitlement. Nothing is in force yet.
    pub fn build(
        generation: u64,
        catalog: Arc<Catalog>,
        accounts: &[config::Account],
        gates: &Gates,
        metrics: &Metrics,
    ) -> Self {
        let mut policy = Self {
            generation,
            operations: operations(&catalog, metrics),
            catalog,
            routes: Map::default(),
            secrets: Map::default(),
            api_keys: Map::default(),
            accounts: Map::default(),
            terms: Vec::new(),
        };
        let specs = policy
            .catalog
            .groups
            .iter()
            .flat_map(|group| &group.actions);
        for (index, spec) in specs.enumerate() {
            if let Some(route) = &spec.route {
                policy
                    .routes
                    .entry(route.path.clone())
                    .or_default()
                    .push((route.method.clone(), index));
            }
        }
        for account in accounts {
            policy.add(account, gates);
        }
        policy
    }

    fn add(&mut self, account: &config::Account, gates: &Gates) {
        let mut own = vec![None; self.operations.len()].into_boxed_slice();
        for service in &account.services {
            let Some(group) = self.catalog.groups.iter().find(|g| g.id == service.group) else {
                continue;
            };
            let terms = terms(service, &group.charging);
            let mut shared: Option<Arc<Gate>> = None;
            for operation in self.operations.iter().filter(|o| o.group == group.id) {
                let key = |action| GateKey {
                    account: account.id.clone(),
                    group: group.id.clone(),
                    action,
                };
                let gate = match (&group.charging, &shared) {
                    (Charging::Paid { .. }, Some(gate)) => gate.clone(),
                    (Charging::Paid { .. }, None) => gates.get_or_insert(key(None), &terms),
                    (Charging::Free { .. }, _) => {
                        gates.get_or_insert(key(Some(operation.action.clone())), &terms)
                    }
                };
                if shared
                    .as_ref()
                    .is_none_or(|known| !Arc::ptr_eq(known, &gate))
                {
                    self.terms.push((gate.clone(), terms.clone()));
                }
                own[operation.index] = Some(gate.clone());
                shared = Some(gate);
            }
        }
        let known = Arc::new(Account {
            id: account.id.clone(),
            name: account.name.clone(),
            gates: own,
        });
        for credential in &account.credentials {
            match credential {
                Credential::Tc3 {
                    secret_id,
                    secret_key,
                } => {
                    let secret = SigningSecret::new(secret_key);
                    let credential = Tc3Credential {
                        secret,
                        account: known.clone(),
                    };
                    self.secrets.insert(secret_id.clone(), Arc::new(credential));
                }
                Credential::ApiKey { sha256 } => {
                    self.api_keys.insert(*sha256, known.clone());
                }
            }
        }
        self.accounts.insert(known.id.clone(), known);
    }

    /// Puts this generation's terms in force in the gates. Call it as the generation is swapped in.
    pub fn put_in_force(&mut self) {
        for (gate, terms) in std::mem::take(&mut self.terms) {
            gate.set_terms(terms);
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
    pub fn tc3(&self, secret_id: &str) -> Option<&Arc<Tc3Credential>> {
        self.secrets.get(secret_id)
    }

    /// The account that has this API key.
    pub fn api_key(&self, digest: &ApiKeyDigest) -> Option<&Arc<Account>> {
        self.api_keys.get(&digest.0)
    }

    /// The account with this id.
    pub fn account(&self, id: &AccountId) -> Option<&Arc<Account>> {
        self.accounts.get(id)
    }

    /// Every account, in no order.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.values()
    }

    /// Every operation, in the catalogue's order.
    pub fn operations(&self) -> &[Arc<Operation>] {
        &self.operations
    }
}

impl Policy {
    /// What `account` may do at `now` and why, by group: what self-service and the admin listener show,
    /// read from the gates that decide. A free group has one entry for each action.
    pub fn describe(&self, account: &Account, now: Now) -> BTreeMap<&str, Vec<(Arc<Gate>, Value)>> {
        let mut services: BTreeMap<&str, Vec<(Arc<Gate>, Value)>> = BTreeMap::new();
        for operation in &self.operations {
            let Some(gate) = account.gate(operation) else {
                continue;
            };
            let gates = services.entry(operation.group.as_str()).or_default();
            if gates.iter().any(|(known, _)| Arc::ptr_eq(known, gate)) {
                // The actions of a paid group share one gate.
                continue;
            }
            let (terms, in_force, in_use) = gate.snapshot(now);
            let mut described = json!({
                "mode": terms.mode.as_str(),
                "opened": rfc3339(terms.opened),
                "stopped": terms.stopped.map(|stop| stop.as_str()),
                "quota_qps": in_force.qps,
                "because": because(&terms, now.utc),
                "in_use": in_use,
            });
            if terms.mode == Mode::Free {
                described["action"] = json!(operation.action.as_str());
            }
            if let Some(change) = terms.quota.next_change(now.utc) {
                described["next_change"] =
                    json!({"at": rfc3339(change.from), "quota_qps": change.qps});
            }
            gates.push((gate.clone(), described));
        }
        services
    }
}

/// Where a quota comes from.
fn because(terms: &Terms, now: Utc) -> Vec<Value> {
    match terms.mode {
        Mode::PerCall => vec![json!({"rule": "the group's cap in per-call mode, the same for every account"})],
        Mode::Free => vec![json!({"rule": "the free group's cap for each action"})],
        Mode::Qps => terms
            .quota
            .purchases_at(now)
            .map(|p| json!({"order": p.order, "qps": p.qps, "from": rfc3339(p.from), "until": rfc3339(p.until)}))
            .collect(),
    }
}

/// RFC 3339 in UTC; empty outside the years that it can write.
pub fn rfc3339(at: Utc) -> String {
    jiff::Timestamp::from_microsecond(at.0)
        .map(|at| at.to_string())
        .unwrap_or_default()
}

fn operations(catalog: &Catalog, metrics: &Metrics) -> Vec<Arc<Operation>> {
    let specs = catalog
        .groups
        .iter()
        .flat_map(|group| group.actions.iter().map(move |spec| (group, spec)));
    specs
        .enumerate()
        .map(|(index, (group, spec))| {
            // No series for modes that the group cannot be in; the slots are filled with one it can.
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
                index,
                action: spec.action.clone(),
                group: group.id.clone(),
                regions: group.regions.clone(),
                admitted: counters(Decision::Admitted, ""),
                throttled: counters(Decision::Throttled, "over_quota"),
            })
        })
        .collect()
}

/// What a service of an account means at its gate (R3-R6, R9).
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
