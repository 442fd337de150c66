//! The charging of a group: caps, ladders, packs.

use crate::config::catalog::{Charging, MAX_QPS, PackPrice, PerCall, QpsPrice, Tier};
use crate::config::reader::{Fields, Item, point};
use crate::model::TierBasis;
use std::collections::HashMap;

/// No count of calls is above this; with prices below 10^9 no bill leaves `Decimal`.
const MAX_CALLS: u64 = 1_000_000_000_000;

pub(in crate::config) fn charging(item: Item<'_>, fields: &mut Fields<'_>) -> Option<Charging> {
    let (paid, free) = (fields.get("per_call"), fields.get("free"));
    let ladder = fields.get("qps");
    match (paid, ladder, free) {
        (None, None, Some(free)) => {
            let mut fields = free.fields()?;
            let qps_per_action =
                fields.required("qps_per_action", "20", |i| i.whole32(1..=MAX_QPS));
            fields.close();
            Some(Charging::Free {
                qps_per_action: qps_per_action?,
            })
        }
        (Some(paid), Some(ladder), None) => {
            let (per_call, qps) = (per_call(paid), qps_prices(ladder));
            Some(Charging::Paid {
                per_call: per_call?,
                qps: qps?,
            })
        }
        _ => item.refuse(
            "a group has either both `per_call` and `qps` (paid) or `free`: write what it costs",
        ),
    }
}

fn per_call(item: Item<'_>) -> Option<PerCall> {
    let mut fields = item.fields()?;
    let qps = fields.required("qps", "20", |i| i.whole32(1..=MAX_QPS));
    let free_calls = fields.required("free_calls", "1000", |i| i.whole(0..=MAX_CALLS));
    let tier_basis = fields.or("tier_basis", TierBasis::AllCalls, |i| {
        i.choice(&[
            ("all_calls", TierBasis::AllCalls),
            ("postpaid_calls", TierBasis::PostpaidCalls),
        ])
    });
    let tiers = fields.required("tiers", "[{from: 0, price: \"0.01\"}]", |item| {
        let tiers = item.each(|item| {
            let mut fields = item.fields()?;
            let from = fields.required("from", "0", |i| Some((i, i.whole(0..=MAX_CALLS)?)));
            let price = fields.required("price", "\"0.01\"", Item::price);
            fields.close();
            let (from_at, from) = from?;
            Some((
                from_at,
                Tier {
                    from,
                    price: price?,
                },
            ))
        })?;
        ladder(item, 0, tiers, |tier| tier.from)
    });
    let packs = fields.required("packs", "[{calls: 10000, price: \"88\"}]", |item| {
        let mut sizes = HashMap::new();
        item.each(|item| {
            let mut fields = item.fields()?;
            let calls = fields.required("calls", "10000", |item| {
                let calls = item.whole(1..=MAX_CALLS)?;
                match sizes.insert(calls, item.place()) {
                    Some(first) => item.refuse(format!(
                        "packs of {calls} have a price already, at {}: keep one",
                        point(item.source.path(), first)
                    )),
                    None => Some(calls),
                }
            });
            let price = fields.required("price", "\"88\"", Item::price);
            fields.close();
            Some(PackPrice {
                calls: calls?,
                price: price?,
            })
        })
    });
    let pack_months = fields.required("pack_months", "12", |i| i.whole32(1..=120));
    let notice_below = fields.required("notice_below", "15%", Item::percent);
    fields.close();
    Some(PerCall {
        qps: qps?,
        free_calls: free_calls?,
        tier_basis: tier_basis?,
        tiers: tiers?,
        packs: packs?,
        pack_months: pack_months?,
        notice_below: notice_below?,
    })
}

fn qps_prices(item: Item<'_>) -> Option<Vec<QpsPrice>> {
    let mut fields = item.fields()?;
    let prices = fields.required(
        "prices",
        "[{from: 1, month: \"880\", day: \"48\"}]",
        |item| {
            let prices = item.each(|item| {
                let mut fields = item.fields()?;
                let from = fields.required("from", "1", |i| Some((i, i.whole32(0..=MAX_QPS)?)));
                let month = fields.required("month", "\"880\"", Item::price);
                let day = fields.required("day", "\"48\"", Item::price);
                fields.close();
                let (from_at, from) = from?;
                let (month, day) = (month?, day?);
                Some((from_at, QpsPrice { from, month, day }))
            })?;
            ladder(item, 1, prices, |price| u64::from(price.from))
        },
    );
    fields.close();
    prices
}

/// Steps that begin at `start` and rise; each comes with the item that says where it begins.
fn ladder<T>(
    item: Item<'_>,
    start: u64,
    steps: Vec<(Item<'_>, T)>,
    from: impl Fn(&T) -> u64,
) -> Option<Vec<T>> {
    match steps.first() {
        None => return item.refuse(format!("is empty: give the step that begins at {start}")),
        Some((at, first)) if from(first) != start => {
            return at.refuse(format!(
                "the first step must begin at {start}, found {}",
                from(first)
            ));
        }
        Some(_) => {}
    }
    let falls = steps
        .windows(2)
        .find(|pair| from(&pair[1].1) <= from(&pair[0].1));
    if let Some([(_, before), (at, step)]) = falls {
        return at.refuse(format!(
            "steps must rise: {} follows {}; put them in order",
            from(step),
            from(before)
        ));
    }
    Some(steps.into_iter().map(|(_, step)| step).collect())
}
