//! What is different between two configurations, in the words of the contract.
//!
//! Owns the sentences that `check --against`, a dry run and a reload's report print. Pure. Must
//! never show a secret, and never leave out a difference that moves money or calls.

use crate::config::changed_licences::{account_licences, catalog_licences};
use crate::config::changed_orders::{discount, list, orders, paid, time};
use crate::config::{
    Account, Catalog, Charging, Config, Credential, DEFAULT_UPSTREAM, Group, Key, Pack, PackPrice,
    PerCall, QpsPrice, QpsPurchase, Service, Tier,
};
use crate::model::{Mode, Origin, TierBasis, Utc};
use jiff::tz::TimeZone;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;

/// Every difference from what was sold to what `new` sells as of `now`, a sentence each: first the
/// catalogue's, then by account. Empty when nothing is different.
pub(crate) fn changes<'c>(
    old_catalog: &Catalog,
    old_accounts: impl IntoIterator<Item = &'c Account>,
    new: &Config,
    now: Utc,
) -> Vec<String> {
    let mut said = Vec::new();
    catalog(&mut said, old_catalog, &new.catalog);
    let old_accounts: BTreeMap<&str, &Account> = old_accounts
        .into_iter()
        .map(|a| (a.id.as_str(), a))
        .collect();
    let new_accounts: BTreeMap<&str, &Account> =
        new.accounts.iter().map(|a| (a.id.as_str(), a)).collect();
    let both = Both {
        old: old_catalog,
        new: &new.catalog,
        now,
    };
    for (id, account) in &old_accounts {
        match new_accounts.get(id) {
            None => said.push(format!("{id} removed: its keys are unknown from now")),
            Some(later) => both.account(&mut said, account, later),
        }
    }
    for (id, account) in &new_accounts {
        if !old_accounts.contains_key(id) {
            let services: Vec<String> = account
                .services
                .iter()
                .map(|s| format!("{} ({})", s.group, s.mode))
                .collect();
            said.push(format!(
                "{id} added with {} key(s): {}",
                account.keys.len(),
                services.join(", ")
            ));
        }
    }
    said
}

fn catalog(said: &mut Vec<String>, old: &Catalog, new: &Catalog) {
    let mut compare = |what: &str, old: String, new: String| {
        if old != new {
            said.push(format!("catalog: {what} {old} → {new}"));
        }
    };
    let zone = |catalog: &Catalog| catalog.time_zone.iana_name().unwrap_or("UTC").to_owned();
    compare("time_zone", zone(old), zone(new));
    compare("currency", old.currency.clone(), new.currency.clone());
    compare("bill", old.bill.to_string(), new.bill.to_string());
    compare(
        "settle_day",
        old.settle_day.to_string(),
        new.settle_day.to_string(),
    );
    compare("services", list(&old.services), list(&new.services));
    compare("versions", list(&old.versions), list(&new.versions));
    compare(
        "host_aliases",
        list(&old.host_aliases),
        list(&new.host_aliases),
    );
    catalog_licences(said, old, new);
    for group in &old.groups {
        match new.groups.iter().find(|later| later.id == group.id) {
            None => said.push(format!("catalog {} removed", group.id)),
            Some(later) => catalog_group(said, group, later),
        }
    }
    for group in new
        .groups
        .iter()
        .filter(|later| old.groups.iter().all(|group| group.id != later.id))
    {
        said.push(format!("catalog {} added", group.id));
    }
}

fn catalog_group(said: &mut Vec<String>, old: &Group, new: &Group) {
    let id = &old.id;
    let mut compare = |what: &str, old: String, new: String| {
        if old != new {
            said.push(format!("catalog {id}: {what} {old} → {new} from now"));
        }
    };
    compare(
        "title",
        format!("{:?}", old.title),
        format!("{:?}", new.title),
    );
    compare(
        "title_en",
        format!("{:?}", old.title_en),
        format!("{:?}", new.title_en),
    );
    compare("regions", list(&old.regions), list(&new.regions));
    let actions = |group: &Group| {
        list(group.actions.iter().map(|spec| match &spec.route {
            Some(route) => format!("{} ({} {})", spec.action, route.method, route.path),
            None => spec.action.to_string(),
        }))
    };
    compare("actions", actions(old), actions(new));
    let upstreams = |group: &Group| {
        list(group.actions.iter().map(|spec| {
            let upstream = spec.upstream.as_deref().unwrap_or(DEFAULT_UPSTREAM);
            format!("{} to {upstream}", spec.action)
        }))
    };
    compare("upstreams", upstreams(old), upstreams(new));
    let cap = |charging: &Charging| match charging {
        Charging::Paid { per_call, .. } => format!("{} QPS", per_call.qps),
        Charging::Free { qps_per_action } => format!("{qps_per_action} QPS for each action"),
    };
    compare("cap", cap(&old.charging), cap(&new.charging));
    match (&old.charging, &new.charging) {
        (
            Charging::Paid {
                per_call: a,
                qps: p,
            },
            Charging::Paid {
                per_call: b,
                qps: q,
            },
        ) => {
            terms(&mut compare, a, b);
            let prices = |prices: &[QpsPrice]| {
                list(prices.iter().map(|p| {
                    format!(
                        "{} a month and {} a day from {} QPS",
                        p.month, p.day, p.from
                    )
                }))
            };
            compare("QPS prices", prices(p), prices(q));
        }
        (Charging::Free { .. }, Charging::Free { .. }) => {}
        (Charging::Paid { .. }, Charging::Free { .. }) => {
            said.push(format!("catalog {id}: is free from now"));
        }
        (Charging::Free { .. }, Charging::Paid { .. }) => {
            said.push(format!("catalog {id}: is paid from now"));
        }
    }
}

/// The terms of per-call mode.
fn terms(compare: &mut impl FnMut(&str, String, String), a: &PerCall, b: &PerCall) {
    compare(
        "free calls",
        a.free_calls.to_string(),
        b.free_calls.to_string(),
    );
    let basis = |basis| match basis {
        TierBasis::AllCalls => "all calls".to_owned(),
        TierBasis::PostpaidCalls => "post-paid calls".to_owned(),
    };
    compare("tier basis", basis(a.tier_basis), basis(b.tier_basis));
    let tiers = |tiers: &[Tier]| {
        list(
            tiers
                .iter()
                .map(|t| format!("{} from {} calls", t.price, t.from)),
        )
    };
    compare("price ladder", tiers(&a.tiers), tiers(&b.tiers));
    let packs = |packs: &[PackPrice]| {
        list(
            packs
                .iter()
                .map(|p| format!("{} calls at {}", p.calls, p.price)),
        )
    };
    compare("packs", packs(&a.packs), packs(&b.packs));
    compare(
        "validity of packs in months",
        a.pack_months.to_string(),
        b.pack_months.to_string(),
    );
    compare(
        "notice below",
        a.notice_below.to_string(),
        b.notice_below.to_string(),
    );
}

/// The two catalogues, and when.
struct Both<'c> {
    old: &'c Catalog,
    new: &'c Catalog,
    now: Utc,
}

impl Both<'_> {
    fn account(&self, said: &mut Vec<String>, old: &Account, new: &Account) {
        let id = &old.id;
        if old.name != new.name {
            said.push(format!("{id}: name {:?} → {:?}", old.name, new.name));
        }
        keys(said, old, new, &self.new.time_zone);
        if old.credit_limit != new.credit_limit {
            said.push(format!(
                "{id}: credit limit {} → {} from now",
                old.credit_limit, new.credit_limit
            ));
        }
        for service in &old.services {
            match new
                .services
                .iter()
                .find(|later| later.group == service.group)
            {
                None => said.push(format!("{id} {}: not opened from now", service.group)),
                Some(later) => {
                    self.service(said, &format!("{id} {}", service.group), service, later)
                }
            }
        }
        for service in &new.services {
            if old
                .services
                .iter()
                .all(|earlier| earlier.group != service.group)
            {
                let opened = time(service.opened, &self.new.time_zone);
                said.push(format!(
                    "{id} {}: opened at {opened} ({})",
                    service.group, service.mode
                ));
            }
        }
        orders(
            said,
            id,
            "payment",
            &old.payments,
            &new.payments,
            |p| &p.order,
            |p| format!("{} at {}", p.amount, time(p.at, &self.new.time_zone)),
        );
        orders(
            said,
            id,
            "adjustment",
            &old.adjustments,
            &new.adjustments,
            |a| &a.id,
            |a| {
                let at = time(a.at, &self.new.time_zone);
                format!("{} at {at} by {}: {}", a.amount, a.by, a.reason)
            },
        );
        account_licences(said, old, new, &self.new.time_zone);
    }

    fn service(&self, said: &mut Vec<String>, what: &str, old: &Service, new: &Service) {
        if old.opened != new.opened {
            let zone = &self.new.time_zone;
            said.push(format!(
                "{what}: opened {} → {}",
                time(old.opened, zone),
                time(new.opened, zone)
            ));
        }
        if old.mode != new.mode {
            said.push(format!("{what}: mode {} → {} from now", old.mode, new.mode));
        }
        let (before, after) = (
            quota(old, self.old, self.now),
            quota(new, self.new, self.now),
        );
        if before != after {
            said.push(format!("{what}: quota {before} → {after} from now"));
        }
        match (old.stopped, new.stopped) {
            (before, after) if before == after => {}
            (_, Some(stop)) => said.push(format!("{what}: stopped ({stop}) from now")),
            (_, None) => said.push(format!("{what}: resumed from now")),
        }
        let zone = &self.new.time_zone;
        let purchase = |p: &QpsPurchase| {
            let (from, until) = (time(p.from, zone), time(p.until, zone));
            let (qps, paid, discount) = (p.qps, paid(&p.paid), discount(p.discount.as_deref()));
            format!("{qps} QPS, {from} to {until}, {paid}{discount}")
        };
        orders(
            said,
            what,
            "purchase",
            &old.qps_purchases,
            &new.qps_purchases,
            |p| &p.order,
            purchase,
        );
        let pack = |p: &Pack| pack(p, zone);
        orders(
            said,
            what,
            "pack",
            &old.packs,
            &new.packs,
            |p| &p.order,
            pack,
        );
    }
}

fn keys(said: &mut Vec<String>, old: &Account, new: &Account, zone: &TimeZone) {
    let by_credential = |account: &'_ Account| -> BTreeMap<String, Key> {
        let named = |key: &Key| match &key.credential {
            Credential::Tc3 { secret_id, .. } => format!("key {secret_id}"),
            Credential::ApiKey { sha256 } => {
                format!("API key with SHA-256 {}", hex::encode(sha256))
            }
        };
        let keys = account.keys.iter();
        keys.map(|key| (named(key), key.clone())).collect()
    };
    let (id, before, after) = (&old.id, by_credential(old), by_credential(new));
    for (name, key) in &before {
        match after.get(name) {
            None => said.push(format!("{id}: {name} removed")),
            Some(later) => changed_key(said, &format!("{id}: {name}"), key, later, zone),
        }
    }
    for name in after.keys().filter(|name| !before.contains_key(*name)) {
        said.push(format!("{id}: {name} added"));
    }
}

fn changed_key(said: &mut Vec<String>, what: &str, old: &Key, new: &Key, zone: &TimeZone) {
    if let (Credential::Tc3 { secret_key: a, .. }, Credential::Tc3 { secret_key: b, .. }) =
        (&old.credential, &new.credential)
        && a.expose_secret() != b.expose_secret()
    {
        said.push(format!("{what} has another secret"));
    }
    if old.id != new.id {
        let (before, after) = (&old.id, &new.id);
        said.push(format!(
            "{what}: its calls count as {before} → {after} from now"
        ));
    }
    if old.expires != new.expires {
        let end = |key: &Key| key.expires.map_or("never".to_owned(), |at| time(at, zone));
        said.push(format!("{what}: expires {} → {}", end(old), end(new)));
    }
    if old.allowed_addresses != new.allowed_addresses {
        let from = |key: &Key| match key.allowed_addresses.is_empty() {
            true => "any".to_owned(),
            false => list(&key.allowed_addresses),
        };
        said.push(format!(
            "{what}: allowed addresses {} → {} from now",
            from(old),
            from(new)
        ));
    }
}

/// All that an order of packs has.
fn pack(p: &Pack, zone: &TimeZone) -> String {
    let (from, until) = (time(p.delivered, zone), time(p.expires, zone));
    let (count, calls, paid) = (p.count, p.calls, paid(&p.paid));
    let mut described = format!("{count} × {calls} calls, {from} to {until}, ");
    match p.origin {
        Origin::Bought => {}
        Origin::Gift => described.push_str("a gift, "),
        Origin::Promotion => described.push_str("from a promotion, "),
    }
    described.push_str(&paid);
    if !p.refundable {
        described.push_str(", not refundable");
    }
    if let Some(days) = p.refund_days {
        described.push_str(&format!(", refundable for {days} days"));
    }
    if let Some(at) = p.refunded {
        described.push_str(&format!(", refunded at {}", time(at, zone)));
    }
    if let Some(refused) = &p.refund_refused {
        let (at, by, reason) = (time(refused.at, zone), &refused.by, &refused.reason);
        described.push_str(&format!(", refund refused at {at} by {by}: {reason}"));
    }
    described.push_str(&discount(p.discount.as_deref()));
    described
}

/// The quota in force at `now` (R4–R6), of a service in good standing.
fn quota(service: &Service, catalog: &Catalog, now: Utc) -> u32 {
    let charging = catalog
        .groups
        .iter()
        .find(|group| group.id == service.group)
        .map(|group| &group.charging);
    match (charging, service.mode) {
        (None, _) => 0,
        (Some(Charging::Free { qps_per_action }), _) => *qps_per_action,
        (Some(Charging::Paid { .. }), Mode::Qps) => {
            let in_force = service
                .qps_purchases
                .iter()
                .filter(|p| p.from <= now && now < p.until);
            in_force.map(|p| p.qps).sum()
        }
        (Some(Charging::Paid { per_call, .. }), _) => per_call.qps,
    }
}
