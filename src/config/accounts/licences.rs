//! An account's `licences` and `licence_keys` (R19).
//!
//! Owns the ends of what was bought. Must never say whether an app is licensed: that is decided
//! against an instant, elsewhere.

use crate::config::accounts::services::{discount, end, paid};
use crate::config::accounts::taken::{OF_NOTHING, Taken, is_of_nothing, order, take};
use crate::config::accounts::{LicenceKey, LicenceOrder};
use crate::config::catalog;
use crate::config::reader::Item;
use crate::model::Package;
use jiff::Span;

/// A licence is bought for at most so many years.
const MAX_YEARS: u32 = 10;
/// A licence key has at most so many packages.
const MAX_PACKAGES: usize = 64;
/// An account has at most so many orders of licences: a request looks at each of them.
const MAX_ORDERS: usize = 1_000;

pub(in crate::config) fn orders(
    item: Item<'_>,
    catalog: &catalog::Reading,
    taken: &mut Taken,
) -> Option<Vec<LicenceOrder>> {
    if !catalog.sells_licences {
        return item
            .refuse("the catalogue sells no licences: write `licences` there, or remove this");
    }
    let orders = item.each(|item| licence(item, catalog, taken))?;
    match orders.len() {
        0..=MAX_ORDERS => Some(orders),
        _ => item.refuse(format!(
            "has more than {MAX_ORDERS} orders: remove those that have ended"
        )),
    }
}

fn licence(item: Item<'_>, catalog: &catalog::Reading, taken: &mut Taken) -> Option<LicenceOrder> {
    let mut fields = item.fields()?;
    let order = fields.required("order", "L-1", |i| order(i, taken));
    let package = fields.required("package", "com.example.camera", package);
    let from_at = fields.get("from");
    let from = fields.required("from", "2026-11-01T00:00:00+08:00", Item::instant);
    let years = fields.or("years", 1, |i| i.whole32(1..=MAX_YEARS));
    let paid = fields.required("paid", "{cash: \"10000\"}", paid);
    let discount = fields.optional("discount", discount);
    fields.close();
    let (from, years, zone) = (from?, years?, catalog.time_zone.as_ref()?);
    Some(LicenceOrder {
        order: order?,
        package: package?,
        from,
        until: end(from, Span::new().years(years), zone, from_at?)?,
        years,
        paid: paid?,
        discount: discount?,
    })
}

fn package(item: Item<'_>) -> Option<Package> {
    let what = "the package name of an app, such as com.example.camera: up to 128 letters, digits, _ and - in parts between dots";
    item.parsed(what, Package::new)
}

pub(in crate::config) fn keys(item: Item<'_>, taken: &mut Taken) -> Option<Vec<LicenceKey>> {
    item.each(|item| {
        let mut fields = item.fields()?;
        let sha256 = fields.required("sha256", "HEX", |item| sha256(item, taken));
        let packages = fields.or("packages", Vec::new(), |item| {
            let packages = item.each(package)?;
            match packages.len() {
                0 => item
                    .refuse("is empty: name a package, or remove the list for all of the account"),
                1..=MAX_PACKAGES => Some(packages),
                _ => item.refuse(format!(
                    "has more than {MAX_PACKAGES} packages: make another key"
                )),
            }
        });
        let expires = fields.optional("expires", Item::instant);
        fields.close();
        Some(LicenceKey {
            sha256: sha256?,
            packages: packages?.into(),
            expires: expires?,
        })
    })
}

/// In the same table as the keys of calls: no text is both.
fn sha256(item: Item<'_>, taken: &mut Taken) -> Option<[u8; 32]> {
    let text = item.text()?;
    let mut sha256 = [0; 32];
    let is_upper = text.bytes().any(|b| b.is_ascii_uppercase());
    if is_upper || hex::decode_to_slice(text, &mut sha256).is_err() {
        return item.refuse(
            "expected the SHA-256 of the licence key as 64 lowercase hex digits, not the key itself",
        );
    }
    if is_of_nothing(&sha256) {
        return item.refuse(OF_NOTHING);
    }
    let Taken {
        files, api_keys, ..
    } = &mut *taken;
    let remedy = "a credential names one account; issue another";
    take(
        api_keys,
        files,
        sha256,
        item,
        item.place(),
        "this key",
        remedy,
    )?;
    Some(sha256)
}
