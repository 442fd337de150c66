//! The figures of each account: its calls and quota, its packs, its balance.
//!
//! Bounded by `metrics.accounts`; what is beyond it is counted under `other` or left out.

use crate::metrics::exemplars::Timed;
use crate::metrics::families::{Decision, IntCounter, Metrics};
use crate::metrics::openmetrics;
use crate::metrics::series::AccountSeries;
use crate::model::{AccountId, GroupId, KeyId, Outcome};
use prometheus::core::Collector;
use prometheus::proto::Metric;
use prometheus::{Encoder, TextEncoder};
use std::collections::{HashMap, HashSet};

/// The account label of everything beyond `metrics.accounts`.
const OTHER: &str = "other";

/// One account's figures in one group, as read from the limiters.
pub struct AccountFigures {
    /// The account.
    pub account: AccountId,
    /// The group.
    pub group: GroupId,
    /// Admitted, throttled, refused since the gate exists.
    pub counts: [u64; 3],
    /// The calls per second that are admitted now.
    pub quota: u32,
}

impl AccountFigures {
    /// Whose they are, and in which group.
    pub fn key(&self) -> (&AccountId, &GroupId) {
        (&self.account, &self.group)
    }
}

/// How much is left of one order of prepaid packs that is valid now.
#[derive(Clone, Debug)]
pub struct PackFigures {
    /// Whose.
    pub account: AccountId,
    /// For which group.
    pub group: GroupId,
    /// The order.
    pub order: String,
    /// Calls left of the pack of it that is in use; 0 when all of them are used up.
    pub left: u64,
    /// The size of one pack.
    pub size: u64,
}

/// A form of the exposition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exposition {
    /// Prometheus's own, version 0.0.4.
    Text,
    /// OpenMetrics 1.0, with exemplars.
    OpenMetrics,
}

impl Metrics {
    /// Takes the counts of a gate that ceases to exist, so that totals never fall.
    pub fn retire_limiter(&self, account: &AccountId, group: &GroupId, counts: [u64; 3]) {
        let mut series = self.accounts.lock();
        let counts = signed(counts);
        match series.named.get_mut(&(account.clone(), group.clone())) {
            Some(base) => add(base, counts.map(|count| -count)),
            None => add(series.other.entry(group.clone()).or_default(), counts),
        }
    }

    /// The counter of a key's calls; resolve it at the first call and keep it. The first
    /// `metrics.accounts` keys have series of their own.
    pub fn key_calls(&self, account: &AccountId, key: &KeyId) -> IntCounter {
        let mut series = self.accounts.lock();
        let named = (account.clone(), key.clone());
        let is_named = series.keys.contains(&named)
            || (series.keys.len() < series.limit && series.keys.insert(named));
        let labels = match is_named {
            true => [account.as_str(), key.as_str()],
            false => [OTHER, OTHER],
        };
        self.key_calls.0.with_label_values(&labels)
    }

    /// Replaces the figures of all packs. At most `metrics.accounts` series: the orders of one
    /// account in one group together or none of them, those first whose remaining calls are nearest
    /// to their end.
    pub fn set_packs(&self, packs: Vec<PackFigures>) {
        let limit = self.accounts.lock().limit;
        let mut holders: HashMap<(AccountId, GroupId), Vec<(String, f64)>> = HashMap::new();
        for pack in packs {
            // Both are far below 2^53, so that 1,500 of 10,000 is the 0.15 that an alert is written
            // with (R14).
            let ratio = pack.left as f64 / pack.size.max(1) as f64;
            let orders = holders.entry((pack.account, pack.group)).or_default();
            orders.push((pack.order, ratio));
        }
        // Of what is not used up: a customer who bought again must not take the place of one who
        // runs out.
        let nearest = |orders: &[(String, f64)]| {
            let left = orders.iter().map(|(_, ratio)| *ratio).filter(|r| *r > 0.0);
            left.min_by(f64::total_cmp).unwrap_or(0.0)
        };
        let mut holders: Vec<_> = holders.into_iter().collect();
        holders.sort_by(|(a, x), (b, y)| nearest(x).total_cmp(&nearest(y)).then_with(|| a.cmp(b)));
        let mut room = limit;
        self.pack_remaining_ratio.reset();
        for ((account, group), orders) in holders {
            let Some(left) = room.checked_sub(orders.len()) else {
                continue;
            };
            room = left;
            for (order, ratio) in orders {
                self.pack_remaining_ratio
                    .with_label_values(&[account.as_str(), group.as_str(), &order])
                    .set(ratio);
            }
        }
    }

    /// Replaces all balances. `in_arrears`: how many accounts are, those included that the files
    /// say it of. At most `metrics.accounts` series, the lowest first. Floats, because Prometheus
    /// knows nothing else: to be looked at, never to be computed with.
    pub fn set_balances(&self, mut balances: Vec<(AccountId, f64)>, in_arrears: usize) {
        self.accounts_in_arrears
            .set(i64::try_from(in_arrears).unwrap_or(i64::MAX));
        balances.sort_by(|(a, x), (b, y)| x.total_cmp(y).then_with(|| a.cmp(b)));
        balances.truncate(self.accounts.lock().limit);
        self.account_balance.reset();
        for (account, balance) in balances {
            self.account_balance
                .with_label_values(&[account.as_str()])
                .set(balance);
        }
    }

    /// The text exposition, with the accounts' figures as they were read just now.
    pub fn expose(&self, figures: Vec<AccountFigures>) -> Vec<u8> {
        self.expose_as(Exposition::Text, figures)
    }

    /// The exposition in one of its forms, with the accounts' figures as they were read just now.
    pub(crate) fn expose_as(&self, form: Exposition, mut figures: Vec<AccountFigures>) -> Vec<u8> {
        self.set_accounts(&mut figures);
        let mut families = self.registry.gather();
        families.extend(self.account_requests.0.collect());
        families.extend(self.key_calls.0.collect());
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        if form == Exposition::OpenMetrics {
            let timed = |name: &str, metric: &Metric| self.timed(name, metric);
            let text = openmetrics::write(&families, timed).expect("writing to memory");
            return text.into_bytes();
        }
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("writing to memory");
        text
    }

    /// The histogram of a metric, where it has exemplars.
    fn timed(&self, name: &str, metric: &Metric) -> Option<&Timed> {
        match name {
            "tollgate_admission_delay_seconds" => Some(&self.admission_delay),
            "tollgate_overhead_seconds" => Some(&self.overhead),
            "tollgate_upstream_seconds" => {
                let outcome = Outcome::parse(metric.get_label().first()?.value())?;
                Some(self.upstream(outcome))
            }
            _ => None,
        }
    }

    fn set_accounts(&self, figures: &mut [AccountFigures]) {
        let mut series = self.accounts.lock();
        let AccountSeries {
            limit,
            named,
            other,
            ..
        } = &mut *series;
        figures.sort_unstable_by_key(|f| std::cmp::Reverse(f.counts.iter().sum::<u64>()));
        self.account_requests.0.reset();
        self.quota_qps.reset();
        let listed: HashSet<_> = figures
            .iter()
            .map(|f| (f.account.clone(), f.group.clone()))
            .filter(|key| named.contains_key(key))
            .collect();
        named.retain(|key, base| {
            let stays = listed.contains(key);
            if !stays {
                add(
                    other.entry(key.1.clone()).or_default(),
                    base.map(|count| -count),
                );
            }
            stays
        });
        let mut left_out: HashMap<GroupId, [i64; 3]> = HashMap::new();
        for f in figures.iter() {
            let key = (f.account.clone(), f.group.clone());
            let counts = signed(f.counts);
            if !named.contains_key(&key) {
                if named.len() >= *limit {
                    add(left_out.entry(f.group.clone()).or_default(), counts);
                    continue;
                }
                // What it did among the others stays with the others.
                let before = other.get_mut(&f.group).map_or([0; 3], |other| {
                    add(other, counts);
                    counts
                });
                named.insert(key.clone(), before);
            }
            let base = named.get(&key).copied().unwrap_or_default();
            self.quota_qps
                .with_label_values(&[f.account.as_str(), f.group.as_str()])
                .set(f64::from(f.quota));
            let own = std::array::from_fn(|i| counts[i] - base[i]);
            self.count_account(f.account.as_str(), &f.group, own);
        }
        for group in left_out.keys() {
            other.entry(group.clone()).or_default();
        }
        for (group, gone) in other.iter() {
            let mut counts = left_out.get(group).copied().unwrap_or_default();
            add(&mut counts, *gone);
            self.count_account(OTHER, group, counts);
        }
    }

    fn count_account(&self, account: &str, group: &GroupId, counts: [i64; 3]) {
        for (decision, count) in Decision::ALL.into_iter().zip(counts) {
            self.account_requests
                .0
                .with_label_values(&[account, group.as_str(), decision.as_str()])
                .inc_by(count.unsigned_abs());
        }
    }
}

fn signed(counts: [u64; 3]) -> [i64; 3] {
    counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX))
}

fn add(sum: &mut [i64; 3], counts: [i64; 3]) {
    for (sum, count) in sum.iter_mut().zip(counts) {
        *sum += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(account: &str, admitted: u64) -> AccountFigures {
        AccountFigures {
            account: AccountId::new(account).unwrap(),
            group: GroupId::new("g").unwrap(),
            counts: [admitted, 0, 0],
            quota: 20,
        }
    }

    fn admitted(metrics: &Metrics, figures: Vec<AccountFigures>) -> HashMap<String, u64> {
        let text = String::from_utf8(metrics.expose(figures)).unwrap();
        text.lines()
            .filter(|line| {
                line.starts_with("tollgate_account_requests_total") && line.contains("\"admitted\"")
            })
            .map(|line| {
                let account = line.split('"').nth(1).unwrap().to_owned();
                (account, line.rsplit_once(' ').unwrap().1.parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn only_the_busiest_accounts_have_series_of_their_own() {
        let metrics = Metrics::new(2);
        let seen = admitted(
            &metrics,
            vec![
                figures("a", 1),
                figures("b", 5),
                figures("c", 3),
                figures("d", 1),
            ],
        );
        assert_eq!(
            seen,
            HashMap::from([("b".into(), 5), ("c".into(), 3), ("other".into(), 2)])
        );
    }

    #[test]
    fn the_first_keys_to_call_have_series_of_their_own_and_the_rest_is_one_sum() {
        let metrics = Metrics::new(2);
        let call = |account: &str, key: &str| {
            let (account, key) = (AccountId::new(account), KeyId::new(key));
            metrics.key_calls(&account.unwrap(), &key.unwrap()).inc();
        };
        for (account, key) in [("a", "x"), ("b", "x"), ("a", "y"), ("c", "z"), ("a", "x")] {
            call(account, key);
        }
        let mut seen = shown(&metrics, "key_calls_total");
        seen.sort();
        assert_eq!(
            seen,
            [
                r#"{account="a",key="x"} 2"#,
                r#"{account="b",key="x"} 1"#,
                r#"{account="other",key="other"} 2"#,
            ]
        );
    }

    #[test]
    fn no_counter_ever_falls_when_accounts_come_and_go() {
        let metrics = Metrics::new(1);
        let seen = admitted(&metrics, vec![figures("a", 5), figures("b", 3)]);
        assert_eq!(seen, HashMap::from([("a".into(), 5), ("other".into(), 3)]));
        // `a` goes, `b` takes its place: the sum is what it was, and `other` has not fallen.
        metrics.retire_limiter(
            &AccountId::new("a").unwrap(),
            &GroupId::new("g").unwrap(),
            [6, 0, 0],
        );
        let seen = admitted(&metrics, vec![figures("b", 4)]);
        assert_eq!(seen, HashMap::from([("b".into(), 0), ("other".into(), 10)]));
        let seen = admitted(&metrics, vec![figures("b", 7)]);
        assert_eq!(seen, HashMap::from([("b".into(), 3), ("other".into(), 10)]));
    }

    fn shown(metrics: &Metrics, family: &str) -> Vec<String> {
        let text = String::from_utf8(metrics.expose(Vec::new())).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.strip_prefix(&format!("tollgate_{family}")))
            .map(str::to_owned)
            .collect()
    }

    fn pack(account: &str, order: &str, left: u64, size: u64) -> PackFigures {
        PackFigures {
            account: AccountId::new(account).unwrap(),
            group: GroupId::new("g").unwrap(),
            order: order.to_owned(),
            left,
            size,
        }
    }

    #[test]
    fn the_packs_nearest_to_their_end_have_series_and_an_accounts_orders_stay_together() {
        let metrics = Metrics::new(4);
        metrics.set_packs(vec![
            pack("again", "A-1", 0, 10_000),
            pack("again", "A-2", 1_501, 10_000),
            pack("full", "F-1", 10_000, 10_000),
            pack("low", "L-1", 1_500, 10_000),
            pack("low", "L-2", 10_000, 10_000),
            pack("odd", "O-1", 1, 0),
            pack("out", "O-2", 0, 10_000),
            pack("third", "T-1", 1_500, 10_000),
        ]);
        assert_eq!(
            shown(&metrics, "pack_remaining_ratio"),
            [
                r#"{account="low",group="g",order="L-1"} 0.15"#,
                r#"{account="low",group="g",order="L-2"} 1"#,
                r#"{account="out",group="g",order="O-2"} 0"#,
                r#"{account="third",group="g",order="T-1"} 0.15"#,
            ]
        );
        metrics.set_packs(vec![pack("low", "L-1", 1_499, 10_000)]);
        assert_eq!(
            shown(&metrics, "pack_remaining_ratio"),
            [r#"{account="low",group="g",order="L-1"} 0.1499"#]
        );
    }

    #[test]
    fn an_account_whose_orders_do_not_all_fit_has_none_and_gives_its_place_to_the_next() {
        let metrics = Metrics::new(1);
        metrics.set_packs(vec![
            pack("a", "A-1", 0, 10),
            pack("a", "A-2", 9, 10),
            pack("b", "B-1", 5, 10),
        ]);
        assert_eq!(
            shown(&metrics, "pack_remaining_ratio"),
            [r#"{account="b",group="g",order="B-1"} 0.5"#]
        );
    }

    #[test]
    fn the_lowest_balances_have_series_and_all_that_are_in_arrears_are_counted() {
        let metrics = Metrics::new(2);
        let balances = |list: &[(&str, f64)], in_arrears| {
            let balances = list.iter().map(|(a, b)| (AccountId::new(a).unwrap(), *b));
            metrics.set_balances(balances.collect(), in_arrears);
        };
        let list = [
            ("a", 1.5),
            ("b", -0.01),
            ("c", 0.0),
            ("d", -3.0),
            ("e", -2.0),
        ];
        balances(&list, 3);
        assert_eq!(
            shown(&metrics, "account_balance"),
            [r#"{account="d"} -3"#, r#"{account="e"} -2"#]
        );
        assert_eq!(shown(&metrics, "accounts_in_arrears"), [" 3"]);
        balances(&[("c", 0.0)], 0);
        assert_eq!(shown(&metrics, "account_balance"), [r#"{account="c"} 0"#]);
        assert_eq!(shown(&metrics, "accounts_in_arrears"), [" 0"]);
    }
}
