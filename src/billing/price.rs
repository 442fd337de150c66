//! The prices of packs and of QPS when they are ordered (R11, R15).

use crate::billing::money;
use crate::billing::refund::sum;
use crate::config::{Account, Catalog, Charging, Paid, PerCall, QpsPrice, Service};
use crate::model::{Origin, Period};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// The goods of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goods {
    /// Prepaid packs (R11).
    Packs {
        /// The size of one.
        calls: u64,
        /// The number of packs.
        count: u32,
    },
    /// Quota for a period (R15).
    Qps {
        /// The quota in calls per second.
        qps: u32,
        /// The time for which it is bought.
        period: Period,
    },
}

/// The price of an order, and how it was computed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Quote {
    /// The goods that are ordered.
    pub goods: Goods,
    /// The price of one pack, or of one QPS for one month or day.
    pub unit_price: Decimal,
    /// Exact: what is paid when it is ordered.
    pub amount: Decimal,
    /// The computation in a line, with its rule.
    pub how: String,
}

/// Why there is no price.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NotSold {
    /// The catalogue has no pack of this size.
    #[error("no pack of {calls} calls is sold: the catalogue has {}", listed(.sizes))]
    Size {
        /// The size that was asked for, in calls.
        calls: u64,
        /// The sizes that are sold, in calls.
        sizes: Vec<u64>,
    },
    /// The ladder begins above this quota, or none at all was asked for.
    #[error("{0} QPS are not sold: ask for more")]
    Quota(u32),
    /// No pack, month or day at all.
    #[error("an order is of at least one pack, or for at least one month or day")]
    Nothing,
    /// Past what can be computed exactly.
    #[error("no order is that large")]
    TooLarge,
}

fn listed(sizes: &[u64]) -> String {
    let sizes: Vec<String> = sizes.iter().map(u64::to_string).collect();
    sizes.join(", ")
}

/// R11: a pack has one price, whatever the number of them.
pub(crate) fn pack_price(
    packs_on_sale: &[(u64, Decimal)],
    calls: u64,
    count: u32,
) -> Result<Quote, NotSold> {
    let Some((_, unit_price)) = packs_on_sale.iter().find(|(size, _)| *size == calls) else {
        return Err(NotSold::Size {
            calls,
            sizes: packs_on_sale.iter().map(|(size, _)| *size).collect(),
        });
    };
    if count == 0 {
        return Err(NotSold::Nothing);
    }
    let (unit_price, amount) = exact(*unit_price, u64::from(count))?;
    Ok(Quote {
        goods: Goods::Packs { calls, count },
        unit_price,
        amount,
        how: format!("R11: {count} x {unit_price} for a pack of {calls} calls = {amount}"),
    })
}

/// R15: the whole purchase at the price of its own size. `ladder`: `(from, for a month, for a day)`
/// of one QPS, ascending.
pub(crate) fn qps_price(
    ladder: &[(u32, Decimal, Decimal)],
    qps: u32,
    period: Period,
) -> Result<Quote, NotSold> {
    let step = ladder.iter().rposition(|(from, ..)| *from <= qps);
    let Some((step, (from, month, day))) = step.and_then(|at| Some((at, ladder.get(at)?))) else {
        return Err(NotSold::Quota(qps));
    };
    if qps == 0 {
        return Err(NotSold::Quota(qps));
    }
    let (unit_price, many) = match period {
        Period::Months(n) => (*month, n),
        Period::Days(n) => (*day, n),
    };
    if many == 0 {
        return Err(NotSold::Nothing);
    }
    let (unit_price, amount) = exact(unit_price, u64::from(qps) * u64::from(many))?;
    let sizes = match ladder.get(step + 1) {
        Some((next, ..)) => format!("from {from} and below {next} QPS"),
        None => format!("from {from} QPS on"),
    };
    Ok(Quote {
        goods: Goods::Qps { qps, period },
        unit_price,
        amount,
        how: format!("R15: {qps} QPS x {period} x {unit_price}, the price {sizes}, = {amount}"),
    })
}

/// The price of one and of so many.
fn exact(unit_price: Decimal, many: u64) -> Result<(Decimal, Decimal), NotSold> {
    let amount = unit_price.checked_mul(Decimal::from(many));
    let amount = amount.ok_or(NotSold::TooLarge)?;
    Ok((money(unit_price), money(amount)))
}

/// What a pack or a purchase of quota costs by the catalogue (R11, R15).
pub(crate) fn list_price(
    per_call: &PerCall,
    qps: &[QpsPrice],
    goods: Goods,
) -> Result<Quote, NotSold> {
    match goods {
        Goods::Packs { calls, count } => {
            let on_sale: Vec<_> = per_call.packs.iter().map(|p| (p.calls, p.price)).collect();
            pack_price(&on_sale, calls, count)
        }
        Goods::Qps { qps: quota, period } => {
            let ladder: Vec<_> = qps.iter().map(|q| (q.from, q.month, q.day)).collect();
            qps_price(&ladder, quota, period)
        }
    }
}

/// A sentence for each order of the account that was bought for something else than the price list
/// says, and that gives no reason for it (R11, R15).
pub(crate) fn off_the_list(catalog: &Catalog, account: &Account) -> Vec<String> {
    let mut said = licences_off_the_list(catalog, account);
    for service in &account.services {
        let group = catalog.groups.iter().find(|g| g.id == service.group);
        let Some(Charging::Paid { per_call, qps }) = group.map(|group| &group.charging) else {
            continue;
        };
        for (order, paid, goods) in bought(service) {
            let paid = sum(paid.funds().map(|(_, amount)| amount));
            let listed = list_price(per_call, qps, goods);
            if let Ok(Quote { amount, .. }) = listed
                && amount != paid
            {
                said.push(format!(
                    "{} {}: order {order} was paid with {paid}, and by the price list it costs {amount}: correct `paid`, or \
                     write why at the order, as in `discount: {{reason: the price of before}}`",
                    account.id, service.group
                ));
            }
        }
    }
    said
}

/// The same of licences (R19): a year of an app has one price.
fn licences_off_the_list(catalog: &Catalog, account: &Account) -> Vec<String> {
    let year = catalog.licences.as_ref().map(|terms| terms.year);
    let orders = account.licences.iter().filter(|of| of.discount.is_none());
    let differ = orders.filter_map(|of| {
        let paid = sum(of.paid.funds().map(|(_, amount)| amount));
        let (_, listed) = exact(year?, u64::from(of.years)).ok()?;
        (listed != paid).then(|| {
            format!(
                "{}: licence {} was paid with {paid}, and by the price list it costs {listed}: correct `paid`, or write why \
                 at the order, as in `discount: {{reason: the price of before}}`",
                account.id, of.order
            )
        })
    });
    differ.collect()
}

/// The orders that were bought and have no discount.
fn bought(service: &Service) -> impl Iterator<Item = (&str, &Paid, Goods)> {
    let packs = service.packs.iter();
    let packs = packs.filter(|pack| pack.origin == Origin::Bought && pack.discount.is_none());
    let packs = packs.map(|pack| {
        let (calls, count) = (pack.calls, pack.count);
        (&*pack.order, &pack.paid, Goods::Packs { calls, count })
    });
    let purchases = service.qps_purchases.iter();
    let purchases = purchases.filter(|purchase| purchase.discount.is_none());
    let purchases = purchases.map(|purchase| {
        let (qps, period) = (purchase.qps, purchase.period);
        (&*purchase.order, &purchase.paid, Goods::Qps { qps, period })
    });
    packs.chain(purchases)
}
