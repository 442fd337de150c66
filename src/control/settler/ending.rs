//! What ends soon: orders of packs with calls left (R11), and bought quota that nothing follows
//! (R6).
//!
//! Must never tell an end by a clock that is not trusted: a customer would be told twice, and
//! wrongly once.

use crate::billing::SettleError;
use crate::billing::books::Books;
use crate::config::{Account, Pack, QpsPurchase};
use crate::control::Settler;
use crate::control::settler::SettlerState;
use crate::control::settler::raise::{News, Now, id_of};
use crate::ledger::Reader;
use crate::model::{EventType, GroupId, Local, Mode, Utc};
use crate::proxy::policy::Policy;
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;

impl Settler {
    /// Raises an event for each order that ends soon and was not told yet.
    pub(super) fn tell_ends(
        &self,
        reader: &Reader,
        policy: &Policy,
        state: &mut SettlerState,
        now: Utc,
    ) -> Result<(), SettleError> {
        let Some(events) = &self.events else {
            return Ok(());
        };
        let books = Books {
            catalog: &policy.catalog,
            reader,
            now,
        };
        let (mut ends, mut failure) = (HashSet::new(), None);
        for account in policy.accounts() {
            self.keep_up(state)?;
            for service in &account.services {
                let group = &service.group;
                let packs = events.pack_expiring.into_iter().flat_map(|within| {
                    let packs = service.packs.iter();
                    packs.filter(move |pack| ends_soon(pack, now, within))
                });
                for pack in packs {
                    let what = format!("{}/expiring", pack.order);
                    let id = id_of(&account.id, &what);
                    let told = match state.ends.contains(&id) {
                        true => Ok(()),
                        false => self.tell_pack(&books, account, group, pack, &what),
                    };
                    match told {
                        Ok(()) => drop(ends.insert(id)),
                        Err(error) => drop(failure.get_or_insert(error)),
                    }
                }
                if service.mode != Mode::Qps {
                    continue;
                }
                for end in quota_ends(&service.qps_purchases, now, events.quota_ending) {
                    let what = format!("{}/ending", end.purchase.order);
                    let id = id_of(&account.id, &what);
                    if !state.ends.contains(&id) {
                        self.tell_quota(&books, account, group, &end, &what)?;
                    }
                    ends.insert(id);
                }
            }
        }
        state.ends = ends;
        failure.map_or(Ok(()), Err)
    }

    fn tell_pack(
        &self,
        books: &Books<'_>,
        account: &Account,
        group: &GroupId,
        pack: &Pack,
        what: &str,
    ) -> Result<(), SettleError> {
        let balances = books.balances(account.into(), self.shared.paid_by())?;
        let packs = balances.services.get(group).map(|service| &service.packs);
        let mut packs = packs.into_iter().flatten();
        let Some(of_order) = packs.find(|known| *known.order == *pack.order && known.left > 0)
        else {
            return Ok(());
        };
        let news = News {
            r#type: EventType::PackExpiring,
            what,
            account: &account.id,
            data: json!({
                "account": account.id,
                "name": account.name,
                "group": group,
                "order": pack.order,
                "left": of_order.left,
                "expires": of_order.expires,
            }),
        };
        self.raise(books.reader, now_of(books), [news])
    }

    fn tell_quota(
        &self,
        books: &Books<'_>,
        account: &Account,
        group: &GroupId,
        end: &QuotaEnd<'_>,
        what: &str,
    ) -> Result<(), SettleError> {
        let news = News {
            r#type: EventType::QuotaEnding,
            what,
            account: &account.id,
            data: json!({
                "account": account.id,
                "name": account.name,
                "group": group,
                "order": end.purchase.order,
                "qps": end.purchase.qps,
                "until": Local::new(end.purchase.until, &books.catalog.time_zone),
                "quota": end.before,
                "quota_after": end.after,
            }),
        };
        self.raise(books.reader, now_of(books), [news])
    }
}

fn now_of<'a>(books: &Books<'a>) -> Now<'a> {
    Now {
        at: books.now,
        zone: &books.catalog.time_zone,
    }
}

fn ends_soon(pack: &Pack, now: Utc, within: Duration) -> bool {
    let is_valid = pack.delivered <= now && pack.refunded.is_none_or(|at| now < at);
    is_valid && now < pack.expires && pack.expires <= now.plus(within)
}

/// The end of a purchase that lowers the quota.
struct QuotaEnd<'a> {
    purchase: &'a QpsPurchase,
    /// The quota just before the end.
    before: u64,
    /// The quota from the end on.
    after: u64,
}

/// The purchases in force whose end comes soon and lowers the quota.
fn quota_ends(
    purchases: &[QpsPurchase],
    now: Utc,
    within: Duration,
) -> impl Iterator<Item = QuotaEnd<'_>> {
    let soon = purchases.iter().filter(move |purchase| {
        purchase.from <= now && now < purchase.until && purchase.until <= now.plus(within)
    });
    let ends = soon.map(|purchase| {
        let end = purchase.until;
        let sum = |in_force: &dyn Fn(&QpsPurchase) -> bool| {
            let purchases = purchases.iter().filter(|purchase| in_force(purchase));
            purchases.map(|purchase| u64::from(purchase.qps)).sum()
        };
        QuotaEnd {
            purchase,
            before: sum(&|other| other.from < end && end <= other.until),
            after: sum(&|other| other.from <= end && end < other.until),
        }
    });
    ends.filter(|end| end.after < end.before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Period;
    use proptest::prelude::*;

    fn purchase(order: usize, qps: u32, from: i64, until: i64) -> QpsPurchase {
        QpsPurchase {
            order: format!("Q-{order}").into(),
            qps,
            from: Utc(from),
            until: Utc(until),
            period: Period::Months(1),
            paid: Default::default(),
            discount: None,
        }
    }

    proptest! {
        /// Against the quota of every instant.
        #[test]
        fn quota_ends_when_a_purchase_in_force_ends_soon_and_nothing_keeps_the_quota(
            bought in prop::collection::vec((1_u32..4, 0_i64..20, 1_i64..10), 0..6),
            now in 0_i64..25,
            within in 1_u64..8,
        ) {
            let purchases: Vec<_> = bought
                .iter()
                .enumerate()
                .map(|(n, (qps, from, length))| purchase(n, *qps, *from, from + length))
                .collect();
            let quota = |at: i64| -> u32 {
                let in_force = bought.iter().filter(|(_, from, length)| (*from..from + length).contains(&at));
                in_force.map(|(qps, ..)| qps).sum()
            };
            let expected: Vec<_> = bought
                .iter()
                .enumerate()
                .filter(|(_, (_, from, length))| {
                    let end = from + length;
                    (*from..end).contains(&now) && end - now <= within as i64 && quota(end) < quota(end - 1)
                })
                .map(|(n, (_, from, length))| (format!("Q-{n}"), quota(from + length - 1), quota(from + length)))
                .collect();
            let told: Vec<_> = quota_ends(&purchases, Utc(now), Duration::from_micros(within))
                .map(|end| (end.purchase.order.to_string(), end.before as u32, end.after as u32))
                .collect();
            prop_assert_eq!(told, expected);
        }
    }
}
