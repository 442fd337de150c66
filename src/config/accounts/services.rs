//! What an account opened and bought in a group -> [`Service`], with the ends of what it bought.

use crate::config::accounts::taken::{Taken, order};
use crate::config::accounts::{
    MAX_DAYS, MAX_MONTHS, MAX_PACKS, MAX_REFUND_DAYS, Pack, Paid, QpsPurchase, RefundRefused,
    Service,
};
use crate::config::catalog::{self, Charging, MAX_QPS, PerCall};
use crate::config::reader::{Entry, Fields, Item, all, nearest, quoted};
use crate::model::{Fund, GroupId, Mode, Origin, Period, Stop, Utc};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rust_decimal::Decimal;

/// What the catalogue says of a group, as far as it is sound.
#[derive(Clone, Copy)]
enum Offer<'c> {
    Paid(&'c PerCall),
    Free,
    /// It was reported there.
    Unsound,
}

pub(in crate::config) fn service(
    entry: Entry<'_>,
    catalog: &catalog::Reading,
    taken: &mut Taken,
) -> Option<Service> {
    let item = entry.value;
    let (group, offer) = offered(entry, catalog);

    let mut fields = item.fields()?;
    forbid(&mut fields, offer);
    let opened = fields.required("opened", "2026-11-01T00:00:00+08:00", Item::instant);
    let mode = fields.or("mode", Mode::PerCall, |i| {
        i.choice(&[("per_call", Mode::PerCall), ("qps", Mode::Qps)])
    });
    let packs = fields.or("packs", Vec::new(), |item| {
        item.each(|item| pack(item, offer, catalog.time_zone.as_ref(), taken))
    });
    let purchases_at = fields.get("qps_purchases");
    let qps_purchases = fields.or("qps_purchases", Vec::new(), |item| {
        item.each(|item| qps_purchase(item, catalog.time_zone.as_ref(), taken))
    });
    let stopped = fields.optional("stopped", |item| {
        let spellings: Vec<_> = Stop::ALL.iter().map(|s| (s.as_str(), *s)).collect();
        item.choice(&spellings)
    });
    fields.close();

    let qps_purchases = qps_purchases?;
    if let (Some(item), Some(at)) = (purchases_at, over_the_most(&qps_purchases)) {
        let at =
            Timestamp::from_microsecond(at.0).map_or_else(|_| String::new(), |t| t.to_string());
        item.refuse::<()>(format!(
            "more than {MAX_QPS} in force at {at}: remove or shorten a purchase"
        ))?;
    }
    Some(Service {
        // The catalogue's own text: every account that opened the group shares it.
        group: group?,
        opened: opened?,
        mode: if let Offer::Free = offer {
            Mode::Free
        } else {
            mode?
        },
        packs: packs?.into(),
        qps_purchases: qps_purchases.into(),
        stopped: stopped?,
    })
}

/// The group that an entry names, and what the catalogue says of it. One that is not there is
/// refused.
fn offered<'c>(entry: Entry<'_>, catalog: &'c catalog::Reading) -> (Option<GroupId>, Offer<'c>) {
    let Some(groups) = &catalog.groups else {
        return (None, Offer::Unsound);
    };
    let Some((id, charging)) = groups.iter().find(|(id, _)| id.as_str() == entry.key) else {
        let ids = || groups.iter().map(|(id, _)| id.as_str());
        let remedy = nearest(entry.key, ids()).map_or_else(
            || {
                let sold: Vec<_> = ids().collect();
                format!("the catalogue sells {}", sold.join(", "))
            },
            |near| format!("did you mean {near:?}?"),
        );
        let message = format!("unknown group {}: {remedy}", quoted(entry.key));
        entry.value.source.refuse(entry.at, message);
        return (None, Offer::Unsound);
    };
    let offer = match charging {
        Some(Charging::Paid { per_call, .. }) => Offer::Paid(per_call),
        Some(Charging::Free { .. }) => Offer::Free,
        None => Offer::Unsound,
    };
    (Some(id.clone()), offer)
}

/// Refuses what people write here and is not an account's to say.
fn forbid(fields: &mut Fields<'_>, offer: Offer<'_>) {
    for key in [
        "qps",
        "per_call",
        "cap",
        "quota",
        "limit",
        "rate",
        "qps_per_action",
        "per_call_qps",
    ] {
        fields.forbid(key, cap_refusal(offer));
    }
    if let Offer::Free = offer {
        for key in ["packs", "qps_purchases"] {
            fields.forbid(key, "a free group sells nothing: remove it");
        }
        fields.forbid("mode", "a free group has no mode: remove it");
    }
}

fn cap_refusal(offer: Offer<'_>) -> &'static str {
    match offer {
        Offer::Free => {
            "the cap of a free group is the same for every account and stands in the catalogue: remove it"
        }
        Offer::Paid(_) | Offer::Unsound => {
            "the per-call cap is the same for every account and not adjustable: for a higher rate write `mode: qps` and buy quota in `qps_purchases`"
        }
    }
}

fn pack(
    item: Item<'_>,
    offer: Offer<'_>,
    zone: Option<&TimeZone>,
    taken: &mut Taken,
) -> Option<Pack> {
    let terms = if let Offer::Paid(terms) = offer {
        Some(terms)
    } else {
        None
    };
    let mut fields = item.fields()?;
    let order = fields.required("order", "P-1", |i| order(i, taken));
    let calls = fields.required("calls", "10000", |item| {
        let calls = item.whole(1..=u64::MAX)?;
        match terms {
            Some(terms) if !terms.packs.iter().any(|p| p.calls == calls) => {
                let sizes: Vec<_> = terms.packs.iter().map(|p| p.calls.to_string()).collect();
                item.refuse(format!(
                    "no pack of {calls} is sold: the catalogue has {}",
                    sizes.join(", ")
                ))
            }
            _ => Some(calls),
        }
    });
    let count = fields.or("count", 1, |i| i.whole32(1..=MAX_PACKS));
    let delivered_at = fields.get("delivered");
    let delivered = fields.required("delivered", "2026-11-02T10:00:00+08:00", Item::instant);
    let origin = fields.or("origin", Origin::Bought, |i| {
        i.choice(
            &Origin::ALL
                .iter()
                .map(|o| (o.as_str(), *o))
                .collect::<Vec<_>>(),
        )
    });
    let paid = match origin {
        Some(Origin::Bought) => fields.required("paid", "{cash: \"88\"}", paid),
        _ => fields.or("paid", Paid::default(), paid),
    };
    let refund = refund(&mut fields, delivered);
    let discount = fields.optional("discount", discount);
    fields.close();
    let refund = refund?;
    let (delivered, zone, terms) = (delivered?, zone?, terms?);
    Some(Pack {
        order: order?,
        calls: calls?,
        count: count?,
        delivered,
        expires: end(
            delivered,
            Span::new().months(terms.pack_months),
            zone,
            delivered_at?,
        )?,
        paid: paid?,
        origin: origin?,
        refundable: refund.refundable,
        refund_days: refund.days,
        refund_refused: refund.refused.map(Box::new),
        refunded: refund.refunded,
        discount: discount?,
    })
}

/// What an order says of its refund (R18).
struct RefundFields {
    refundable: bool,
    days: Option<u16>,
    refused: Option<RefundRefused>,
    refunded: Option<Utc>,
}

fn refund(fields: &mut Fields<'_>, delivered: Option<Utc>) -> Option<RefundFields> {
    let refundable = fields.or("refundable", true, Item::flag);
    let days = fields.optional("refund_days", |i| {
        let days = i.whole32(1..=MAX_REFUND_DAYS)?;
        u16::try_from(days).ok()
    });
    let refused_at = fields.get("refund_refused");
    let refused = fields.optional("refund_refused", refund_refused);
    let refunded_at = fields.get("refunded");
    let refunded = fields.optional("refunded", Item::instant);
    if let (Some(item), Some(_)) = (refused_at, refunded_at) {
        item.refuse::<()>(
            "an order is either `refunded` or its refund refused: remove one of the two",
        )?;
    }
    if let (Some(at), Some(delivered), Some(Some(refunded))) = (refunded_at, delivered, refunded)
        && refunded < delivered
    {
        at.refuse::<()>("is before `delivered`: correct one of the two")?;
    }
    Some(RefundFields {
        refundable: refundable?,
        days: days?,
        refused: refused?,
        refunded: refunded?,
    })
}

/// The provider's decision not to pay an order back (R18).
fn refund_refused(item: Item<'_>) -> Option<RefundRefused> {
    let mut fields = item.fields()?;
    let reason = fields.required("reason", "ordered and returned five times", Item::line);
    let by = fields.required("by", "Li Wei", Item::line);
    let at = fields.required("at", "2026-11-03T10:00:00+08:00", Item::instant);
    fields.close();
    Some(RefundRefused {
        reason: reason?.into(),
        by: by?.into(),
        at: at?,
    })
}

/// Why an order was not paid at its list price.
pub(super) fn discount(item: Item<'_>) -> Option<Box<str>> {
    let mut fields = item.fields()?;
    let reason = fields.required("reason", "the price of before 2026-11-01", Item::line);
    fields.close();
    Some(reason?.into())
}

fn qps_purchase(item: Item<'_>, zone: Option<&TimeZone>, taken: &mut Taken) -> Option<QpsPurchase> {
    let mut fields = item.fields()?;
    let order = fields.required("order", "Q-1", |i| order(i, taken));
    let qps = fields.required("qps", "10", |i| i.whole32(1..=MAX_QPS));
    let from_at = fields.get("from");
    let from = fields.required("from", "2026-11-01T00:00:00+08:00", Item::instant);
    let period = period(item, &mut fields);
    let paid = fields.required("paid", "{cash: \"7800\"}", paid);
    let discount = fields.optional("discount", discount);
    fields.close();
    let (from, period) = (from?, period?);
    let span = match period {
        Period::Months(months) => Span::new().months(months),
        Period::Days(days) => Span::new().days(days),
    };
    Some(QpsPurchase {
        order: order?,
        qps: qps?,
        from,
        until: end(from, span, zone?, from_at?)?,
        period,
        paid: paid?,
        discount: discount?,
    })
}

/// `months: 1` or `days: 3`.
fn period(item: Item<'_>, fields: &mut Fields<'_>) -> Option<Period> {
    let months = fields.optional("months", |i| i.whole32(1..=MAX_MONTHS));
    let days = fields.optional("days", |i| i.whole32(1..=MAX_DAYS));
    match (months?, days?) {
        (Some(months), None) => Some(Period::Months(months)),
        (None, Some(days)) => Some(Period::Days(days)),
        _ => item.refuse("a purchase runs for either `months` or `days`: give one of the two"),
    }
}

/// The same local clock time after whole months or days, clamped to the month's end (R11, R15).
pub(super) fn end(from: Utc, span: Span, zone: &TimeZone, item: Item<'_>) -> Option<Utc> {
    let end = Timestamp::from_microsecond(from.0)
        .and_then(|from| from.to_zoned_datetime(zone.clone()).checked_add(span))
        .map(|end| Utc(end.timestamp().as_microsecond()));
    match end {
        Ok(end) if end > from => Some(end),
        _ => item.refuse("its period does not end after it begins: correct the date"),
    }
}

pub(super) fn paid(item: Item<'_>) -> Option<Paid> {
    let mut fields = item.fields()?;
    let amounts = all(Fund::ALL.iter().map(|fund| {
        let amount = fields.or(fund.as_str(), Decimal::ZERO, Item::amount)?;
        Some((*fund, amount))
    }));
    fields.close();
    let paid = amounts?.into_iter().filter(|(_, amount)| !amount.is_zero());
    Some(Paid(paid.collect()))
}

/// The first instant at which more than [`MAX_QPS`] is in force.
fn over_the_most(purchases: &[QpsPurchase]) -> Option<Utc> {
    let mut changes: Vec<(Utc, i64)> = purchases
        .iter()
        .flat_map(|p| [(p.from, i64::from(p.qps)), (p.until, -i64::from(p.qps))])
        .collect();
    // At one instant ends come before beginnings: an end is excluded.
    changes.sort_unstable();
    let mut in_force = 0;
    changes
        .into_iter()
        .find(|(_, change)| {
            in_force += change;
            in_force > i64::from(MAX_QPS)
        })
        .map(|(at, _)| at)
}
