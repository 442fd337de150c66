//! Every metric family, in one struct.
//!
//! Owns names, labels and their bounds. The only door to prometheus. Must never decide anything, and
//! never make a series from something that a client chose.

use crate::http::h1::BadHead;
use crate::model::{AccountId, COMMIT, GroupId, Mode, Outcome, Threshold};
/// A counter that was resolved once and is kept where it counts.
pub use prometheus::IntCounter;
use prometheus::core::Collector;
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};
use std::collections::{HashMap, HashSet};

/// What the gate said of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Let in.
    Admitted,
    /// Over the cap.
    Throttled,
    /// Not known, not entitled or malformed.
    Refused,
}

impl Decision {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
        }
    }
}

/// The families (prefix `tollgate_`). Counters that the way of a call touches are plain atomics.
pub struct Metrics {
    registry: Registry,
    /// Heads parsed on the public listener.
    pub received: IntCounter,
    requests: IntCounterVec,
    heads_refused: [IntCounter; BadHead::ALL.len()],
    records: IntCounterVec,
    /// Answers that broke off after their head.
    pub answers_cut: IntCounter,
    /// Calls received and not yet decided.
    pub pending: IntGauge,
    /// Admitted calls whose record is not yet committed.
    pub in_flight: IntGauge,
    /// Open connections on the public listener.
    pub connections: IntGauge,
    /// Connections that were closed to make room for others.
    pub connections_gave_way: IntCounter,
    /// Bytes of request bodies reserved in memory.
    pub body_memory_bytes: IntGauge,
    /// How long admitted calls waited for their start.
    pub admission_delay: Histogram,
    upstream: [Histogram; Outcome::ALL.len()],
    /// Time in the gate: upstream and admission delay excluded.
    pub overhead: Histogram,
    /// One group commit.
    pub ledger_commit: Histogram,
    /// Records handed over or promised and not yet committed.
    pub ledger_pending: IntGauge,
    /// Size of the ledger file.
    pub ledger_bytes: IntGauge,
    /// Size of its write-ahead log.
    pub ledger_wal_bytes: IntGauge,
    /// Free bytes on its file system.
    pub ledger_free_bytes: IntGauge,
    /// 1 while records can be committed.
    pub ledger_healthy: IntGauge,
    /// When the first process opened the ledger.
    pub ledger_created: IntGauge,
    /// 1 when the last attempt to connect to the upstream worked; 0 before the first.
    pub upstream_up: IntGauge,
    /// Client clock minus ours, at TC3 calls with a valid signature.
    pub client_clock_skew: Histogram,
    /// Failing calls held down.
    pub held_down: IntCounter,
    /// Log lines that nobody took in time.
    pub log_lines_dropped: IntCounter,
    /// The generation in force.
    pub config_generation: IntGauge,
    /// 1 when the last reload took effect.
    pub config_last_reload_success: IntGauge,
    /// Reloads refused.
    pub config_reload_failures: IntCounter,
    /// 1 while the files hold settings that only a restart puts in force.
    pub config_restart_pending: IntGauge,
    /// Notices that the webhook has not taken yet.
    pub notices_pending: IntGauge,
    /// Months that could not be settled when it was tried.
    pub settlement_failures: IntCounter,
    /// The end of the last month that is settled whole, in seconds since the epoch; the beginning of the
    /// first month with calls before any is; 0 while there is nothing to settle.
    pub settlement_last_month: IntGauge,
    /// 1 while the wall clock is trusted, so that days are sealed and months settled.
    pub clock_trusted: IntGauge,
    /// By how many seconds the newest record, the newest sealed day's end or the newest fixed month's end lies after now; 0
    /// when none does.
    pub ledger_ahead: IntGauge,
    /// Calls that are on no statement and come on none.
    pub on_no_statement: IntGauge,
    /// Accounts that are in arrears, by their balance or by the files, those without a series of their own
    /// included.
    accounts_in_arrears: IntGauge,
    notices: IntCounterVec,
    pack_remaining_ratio: GaugeVec,
    account_balance: GaugeVec,
    account_requests: IntCounterVec,
    quota_qps: GaugeVec,
    accounts: parking_lot::Mutex<AccountSeries>,
}

/// Which gates have series of their own. A gate that was given series keeps them while it exists,
/// because a counter that moved between `other` and its own name would seem to be reset.
#[derive(Default)]
struct AccountSeries {
    limit: usize,
    /// What each named account's sum over its gates exceeds its own series by: what it did among the
    /// others, less what gates counted that are gone since.
    named: HashMap<(AccountId, GroupId), [i64; 3]>,
    /// The counts of gates that are gone, and of named gates up to their naming, by group. A group
    /// that is here has an `other` whose counts must not fall.
    other: HashMap<GroupId, [i64; 3]>,
}

/// One account's figures in one group, as the caller read them from the gates.
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

const DECISIONS: [Decision; 3] = [Decision::Admitted, Decision::Throttled, Decision::Refused];
/// The account label of everything beyond `metrics.accounts`.
const OTHER: &str = "other";
const DELIVERED: &str = "delivered";
const FAILED: &str = "failed";

/// From 50 µs (a throttle) to a minute (the longest call).
const SECONDS: &[f64] = &[
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0, 30.0, 60.0,
];
const SKEW_SECONDS: &[f64] = &[
    -240.0, -120.0, -60.0, -10.0, -2.0, 0.0, 2.0, 10.0, 60.0, 120.0, 240.0,
];

impl Metrics {
    /// `account_limit`: how many accounts get series of their own (`metrics.accounts`).
    pub fn new(account_limit: usize) -> Self {
        let registry = Registry::new();
        let r = &registry;
        let info = gauge_vec(
            r,
            "build_info",
            "1, with the version and the commit that it was built from.",
            &["version", "commit"],
        );
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), COMMIT])
            .set(1.0);
        let upstream = register(
            r,
            HistogramVec::new(
                HistogramOpts::new(
                    "tollgate_upstream_seconds",
                    "From the start to the upstream's response head, or to giving up.",
                )
                .buckets(SECONDS.to_vec()),
                &["outcome"],
            ),
        );
        // Each from the start: a series that begins at 1 has not risen, for Prometheus.
        let heads_refused = counter_vec(
            r,
            "heads_refused_total",
            "What came on the public listener and is no request, by why.",
            &["reason"],
        );
        let metrics = Self {
            received: register(
                r,
                IntCounter::new(
                    "tollgate_requests_received_total",
                    "Heads parsed on the public listener.",
                ),
            ),
            requests: counter_vec(
                r,
                "requests_total",
                "Decided calls. received = admitted + throttled + refused + pending.",
                &["group", "mode", "decision", "reason"],
            ),
            heads_refused: BadHead::ALL.map(|bad| heads_refused.with_label_values(&[bad.label()])),
            records: counter_vec(
                r,
                "records_total",
                "Records committed to the ledger.",
                &["outcome"],
            ),
            answers_cut: counter(
                r,
                "answers_cut_total",
                "Answers that broke off after their head.",
            ),
            pending: gauge(r, "pending", "Calls received and not yet decided."),
            in_flight: gauge(
                r,
                "in_flight",
                "Admitted calls whose record is not yet committed.",
            ),
            connections: gauge(r, "connections", "Open connections on the public listener."),
            connections_gave_way: counter(
                r,
                "connections_gave_way_total",
                "Connections without a proven credential that were closed to make room for others.",
            ),
            body_memory_bytes: gauge(
                r,
                "body_memory_bytes",
                "Bytes reserved for request bodies in memory.",
            ),
            admission_delay: histogram(
                r,
                "admission_delay_seconds",
                "Wait of admitted calls for their start.",
                SECONDS,
            ),
            upstream: std::array::from_fn(|outcome| {
                upstream.with_label_values(&[Outcome::ALL[outcome].as_str()])
            }),
            overhead: histogram(
                r,
                "overhead_seconds",
                "Time of an admitted call in the gate; upstream and admission delay excluded.",
                SECONDS,
            ),
            ledger_commit: histogram(
                r,
                "ledger_commit_seconds",
                "Duration of one group commit.",
                SECONDS,
            ),
            ledger_pending: gauge(
                r,
                "ledger_pending",
                "Records promised or handed over and not yet committed.",
            ),
            ledger_bytes: gauge(r, "ledger_bytes", "Size of the ledger file."),
            ledger_wal_bytes: gauge(
                r,
                "ledger_wal_bytes",
                "Size of the ledger's write-ahead log.",
            ),
            ledger_free_bytes: gauge(
                r,
                "ledger_free_bytes",
                "Free bytes on the ledger's file system.",
            ),
            ledger_healthy: gauge(r, "ledger_healthy", "1 while records can be committed."),
            ledger_created: gauge(
                r,
                "ledger_created_timestamp_seconds",
                "When the ledger was created.",
            ),
            upstream_up: gauge(
                r,
                "upstream_up",
                "1 when the last attempt to connect to the upstream worked; 0 before the first.",
            ),
            client_clock_skew: histogram(
                r,
                "client_clock_skew_seconds",
                "Client clock minus ours, of verified TC3 calls.",
                SKEW_SECONDS,
            ),
            held_down: counter(
                r,
                "held_down_total",
                "Answers to failing credentials that were held back.",
            ),
            log_lines_dropped: counter(
                r,
                "log_lines_dropped_total",
                "Log lines that were dropped because their reader did not take them.",
            ),
            config_generation: gauge(r, "config_generation", "The policy generation in force."),
            config_last_reload_success: gauge(
                r,
                "config_last_reload_success",
                "1 when the last reload took effect.",
            ),
            config_reload_failures: counter(r, "config_reload_failures_total", "Reloads refused."),
            config_restart_pending: gauge(
                r,
                "config_restart_pending",
                "1 while the files hold settings that only a restart puts in force.",
            ),
            notices_pending: gauge(
                r,
                "notices_pending",
                "Notices that the webhook has not taken yet.",
            ),
            settlement_failures: counter(
                r,
                "settlement_failures_total",
                "Months that could not be settled when it was tried.",
            ),
            settlement_last_month: gauge(
                r,
                "settlement_last_month_timestamp_seconds",
                "End of the last month that is settled whole.",
            ),
            clock_trusted: gauge(
                r,
                "clock_trusted",
                "1 while the wall clock is trusted: days are sealed and months settled.",
            ),
            ledger_ahead: gauge(
                r,
                "ledger_ahead_seconds",
                "How far the ledger's newest record, sealed day or fixed month lies in the future.",
            ),
            on_no_statement: gauge(
                r,
                "calls_on_no_statement",
                "Calls that are on no statement and come on none.",
            ),
            accounts_in_arrears: gauge(
                r,
                "accounts_in_arrears",
                "Accounts in arrears: their balance is below zero, or the files say so.",
            ),
            notices: counter_vec(
                r,
                "notices_total",
                "Attempts to deliver notices to the webhook.",
                &["threshold", "outcome"],
            ),
            pack_remaining_ratio: gauge_vec(
                r,
                "pack_remaining_ratio",
                "What is left of the pack in use, by valid order; 0 when all of its packs are used up.",
                &["account", "group", "order"],
            ),
            account_balance: gauge_vec(
                r,
                "account_balance",
                "Payments less what settlements debited; the lowest by name.",
                &["account"],
            ),
            account_requests: IntCounterVec::new(
                Opts::new(
                    "tollgate_account_requests_total",
                    "Calls by account; the busiest by name.",
                ),
                &["account", "group", "decision"],
            )
            .expect("a constant, valid description"),
            quota_qps: gauge_vec(
                r,
                "quota_qps",
                "Calls per second that are admitted now: the quota in force; 0 while stopped or not opened.",
                &["account", "group"],
            ),
            accounts: parking_lot::Mutex::new(AccountSeries {
                limit: account_limit,
                ..AccountSeries::default()
            }),
            registry,
        };
        metrics.config_last_reload_success.set(1);
        for outcome in Outcome::ALL {
            metrics.records.with_label_values(&[outcome.as_str()]);
        }
        // A series that begins at 1 has not risen, for Prometheus.
        for threshold in Threshold::ALL {
            for outcome in [DELIVERED, FAILED] {
                metrics
                    .notices
                    .with_label_values(&[threshold.as_str(), outcome]);
            }
        }
        metrics
    }

    /// The counter of one decision; resolve it where the labels are known and keep it.
    pub fn requests(
        &self,
        group: &str,
        mode: Option<Mode>,
        decision: Decision,
        reason: &str,
    ) -> IntCounter {
        self.requests.with_label_values(&[
            group,
            mode.map_or("", Mode::as_str),
            decision.as_str(),
            reason,
        ])
    }

    /// The counter of heads that were not read for one reason.
    pub fn head_refused(&self, bad: BadHead) -> &IntCounter {
        &self.heads_refused[bad as usize]
    }

    /// Sending to the upstream's response head, of calls with one outcome.
    pub fn upstream(&self, outcome: Outcome) -> &Histogram {
        &self.upstream[outcome as usize]
    }

    /// The counter of committed records with one outcome.
    pub fn records(&self, outcome: Outcome) -> IntCounter {
        self.records.with_label_values(&[outcome.as_str()])
    }

    /// Takes the counts of a gate that ceases to exist, so that totals never fall.
    pub fn retire_limiter(&self, account: &AccountId, group: &GroupId, counts: [u64; 3]) {
        let mut series = self.accounts.lock();
        let counts = signed(counts);
        match series.named.get_mut(&(account.clone(), group.clone())) {
            Some(base) => add(base, counts.map(|count| -count)),
            None => add(series.other.entry(group.clone()).or_default(), counts),
        }
    }

    /// Counts one attempt to deliver a notice.
    pub fn notice(&self, threshold: Threshold, delivered: bool) {
        let outcome = if delivered { DELIVERED } else { FAILED };
        self.notices
            .with_label_values(&[threshold.as_str(), outcome])
            .inc();
    }

    /// Replaces the figures of all packs. At most `metrics.accounts` series: the orders of one account in one
    /// group together or none of them, those first whose remaining calls are nearest to their end.
    pub fn set_packs(&self, packs: Vec<PackFigures>) {
        let limit = self.accounts.lock().limit;
        let mut holders: HashMap<(AccountId, GroupId), Vec<(String, f64)>> = HashMap::new();
        for pack in packs {
            // Both are far below 2^53, so that 1,500 of 10,000 is the 0.15 that an alert is written with (R14).
            let ratio = pack.left as f64 / pack.size.max(1) as f64;
            let orders = holders.entry((pack.account, pack.group)).or_default();
            orders.push((pack.order, ratio));
        }
        // Of what is not used up: a customer who bought again must not take the place of one who runs out.
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

    /// Replaces all balances. `in_arrears`: how many accounts are, those included that the files say it of. At
    /// most `metrics.accounts` series, the lowest first. Floats, because Prometheus knows nothing else: to be
    /// looked at, never to be computed with.
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

    /// The text exposition, with the accounts' figures as the caller read them just now.
    pub fn expose(&self, mut figures: Vec<AccountFigures>) -> Vec<u8> {
        self.set_accounts(&mut figures);
        let mut families = self.registry.gather();
        families.extend(self.account_requests.collect());
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("writing to memory");
        text
    }

    fn set_accounts(&self, figures: &mut [AccountFigures]) {
        let mut series = self.accounts.lock();
        let AccountSeries {
            limit,
            named,
            other,
        } = &mut *series;
        figures.sort_unstable_by_key(|f| std::cmp::Reverse(f.counts.iter().sum::<u64>()));
        self.account_requests.reset();
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
        for (decision, count) in DECISIONS.into_iter().zip(counts) {
            self.account_requests
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

fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = made.expect("a constant, valid description");
    registry
        .register(Box::new(metric.clone()))
        .expect("each family is registered once");
    metric
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(format!("tollgate_{name}"), help))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(format!("tollgate_{name}"), help))
}

fn counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(
        registry,
        IntCounterVec::new(Opts::new(format!("tollgate_{name}"), help), labels),
    )
}

fn gauge_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    register(
        registry,
        GaugeVec::new(Opts::new(format!("tollgate_{name}"), help), labels),
    )
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(format!("tollgate_{name}"), help).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(options))
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

    #[test]
    fn attempts_to_deliver_are_there_before_the_first() {
        let metrics = Metrics::new(1);
        assert_eq!(shown(&metrics, "notices_total").len(), 4);
        metrics.notice(Threshold::Low, false);
        assert!(
            shown(&metrics, "notices_total")
                .contains(&r#"{outcome="failed",threshold="low"} 1"#.to_owned())
        );
    }
}
