//! What of licences (R19) is different between two configurations.
//!
//! Must never show a private key: that another one signs is told by its absence or presence alone.

use crate::config::changed_orders::{discount, list, orders, paid, time};
use crate::config::{Account, Catalog, LicenceKey, LicenceOrder, LicenceTerms};
use jiff::tz::TimeZone;

/// The differences of the catalogues, a sentence each.
pub(in crate::config) fn catalog_licences(said: &mut Vec<String>, old: &Catalog, new: &Catalog) {
    let (old, new) = match (&old.licences, &new.licences) {
        (None, None) => return,
        (None, Some(_)) => return said.push("catalog: licences are sold from now".to_owned()),
        (Some(_), None) => return said.push("catalog: no licences are sold from now".to_owned()),
        (Some(old), Some(new)) => (old, new),
    };
    let mut compare = |what: &str, old: String, new: String| {
        if old != new {
            said.push(format!("catalog: {what} {old} → {new} from now"));
        }
    };
    let trial = |of: &LicenceTerms| format!("{} apps for {} days", of.trial_apps, of.trial_days);
    compare("the trial of licences", trial(old), trial(new));
    compare(
        "a licence for a year",
        old.year.to_string(),
        new.year.to_string(),
    );
    compare(
        "the time of a grant",
        format!("{:?}", old.grant),
        format!("{:?}", new.grant),
    );
    compare(
        "the issuer of grants",
        old.issuer.clone(),
        new.issuer.clone(),
    );
    let published = |of: &LicenceTerms| list(of.public_keys.iter().map(|key| key.text()));
    compare("the public keys of grants", published(old), published(new));
    let der = |of: &LicenceTerms| of.signing_key.as_ref().map(|key| key.der().to_vec());
    if der(old) != der(new) {
        said.push(match new.signing_key {
            Some(_) => "catalog: another key signs grants from now".to_owned(),
            None => "catalog: no key signs grants from now".to_owned(),
        });
    }
}

/// The differences of an account, a sentence each.
pub(in crate::config) fn account_licences(
    said: &mut Vec<String>,
    old: &Account,
    new: &Account,
    zone: &TimeZone,
) {
    let licence = |of: &LicenceOrder| {
        let (from, until) = (time(of.from, zone), time(of.until, zone));
        let (package, paid, discount) = (
            &of.package,
            paid(&of.paid),
            discount(of.discount.as_deref()),
        );
        format!("{package}, {from} to {until}, {paid}{discount}")
    };
    orders(
        said,
        &old.id,
        "licence",
        &old.licences,
        &new.licences,
        |of| &of.order,
        licence,
    );
    let key = |of: &LicenceKey| {
        let packages = match of.packages.is_empty() {
            true => "all packages".to_owned(),
            false => list(&of.packages),
        };
        let ends = of.expires.map(|at| format!(", expires {}", time(at, zone)));
        format!("{packages}{}", ends.unwrap_or_default())
    };
    let named = |keys: &[LicenceKey]| -> Vec<(String, String)> {
        let named = |of: &LicenceKey| (hex::encode(of.sha256), key(of));
        keys.iter().map(named).collect()
    };
    orders(
        said,
        &old.id,
        "licence key with SHA-256",
        &named(&old.licence_keys),
        &named(&new.licence_keys),
        |(sha256, _)| sha256,
        |(_, described)| described.clone(),
    );
}
