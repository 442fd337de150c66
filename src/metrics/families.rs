//! The table of metric families. Each family is told once, in one row: the struct, the registry and
//! the reference in `deploy/README.md` are made from it.

use crate::metrics::exemplars::Timed;
use crate::metrics::family::Family;
use crate::metrics::series::AccountSeries;
use crate::metrics::shapes::{ByOutcome, Shape, Unsorted};
use crate::model::{BUILD, COMMIT, EventType, LicenceKind, Mode, Outcome, Utc};
use parking_lot::Mutex;
/// A counter that was resolved once and is kept where it counts.
pub(crate) use prometheus::IntCounter;
use prometheus::{Counter, GaugeVec, Histogram, IntCounterVec, IntGauge, Registry};

/// The decision about a call.
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
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Admitted, Self::Throttled, Self::Refused];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
        }
    }
}

/// From 50 µs (a throttle) to a minute (the longest call).
const SECONDS: &[f64] = &[
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0, 30.0, 60.0,
];
const SKEW_SECONDS: &[f64] = &[
    -240.0, -120.0, -60.0, -10.0, -2.0, 0.0, 2.0, 10.0, 60.0, 120.0, 240.0,
];
/// What became of an event that was to be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventOutcome {
    /// An attempt: it was taken.
    Delivered,
    /// An attempt: it was not taken, or this is not known.
    Failed,
    /// It failed for too long, and is not tried any more.
    Passed,
}

impl EventOutcome {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Delivered, Self::Failed, Self::Passed];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Passed => "passed",
        }
    }
}

/// Makes [`FAMILIES`] and [`Metrics`] from the rows.
macro_rules! families {
    ($($section:literal { $(
        $visibility:vis $field:ident: $shape:ty = $($plain:ident)? $name:literal [$($label:literal),*] $(in $buckets:ident)?, $help:literal;
    )+ })+) => {
        /// Every family, in the order of the reference.
        pub const FAMILIES: &[Family] = &[$($(
            families!(@row $section, $shape, [$($plain)? $name], [$($label),*], [$($buckets)?], $help)
        ),+),+];

        /// The families. Counters that the way of a call touches are plain atomics.
        pub struct Metrics {
            $($(#[doc = $help] $visibility $field: $shape,)+)+
            pub(in crate::metrics) registry: Registry,
            pub(in crate::metrics) accounts: Mutex<AccountSeries>,
        }

        impl Metrics {
            fn registered(registry: Registry, accounts: AccountSeries) -> Self {
                Self {
                    $($($field: Shape::made(
                        &families!(@row $section, $shape, [$($plain)? $name], [$($label),*], [$($buckets)?], $help),
                        &registry,
                    ),)+)+
                    registry,
                    accounts: Mutex::new(accounts),
                }
            }
        }
    };
    (@row $section:literal, $shape:ty, $name:tt, [$($label:literal),*], [$($buckets:ident)?], $help:literal) => {
        Family {
            section: $section,
            name: families!(@name $name),
            kind: <$shape as Shape>::KIND,
            help: $help,
            labels: &[$($label),*],
            buckets: families!(@buckets $($buckets)?),
        }
    };
    (@name [plain $name:literal]) => { $name };
    (@name [$name:literal]) => { concat!("tollgate_", $name) };
    (@buckets) => { &[] };
    (@buckets $buckets:ident) => { $buckets };
}

families! {
    "Calls" {
        pub received: IntCounter = "requests_received_total" [],
            "Heads parsed on the public listener.";
        pub(in crate::metrics) requests: IntCounterVec = "requests_total" ["group", "mode", "decision", "reason"],
            "Decided calls. received = admitted + throttled + refused + pending.";
        pub pending: IntGauge = "pending" [],
            "Calls received and not yet decided.";
        pub in_flight: IntGauge = "in_flight" [],
            "Admitted calls whose record is not yet committed. admitted = recorded + in flight.";
        records: IntCounterVec = "records_total" ["outcome"],
            "Records committed to the ledger.";
        pub answers_cut: IntCounter = "answers_cut_total" [],
            "Answers that broke off after their head.";
        heads_refused: IntCounterVec = "heads_refused_total" ["reason"],
            "What came on the public listener and is no request, by why.";
        tls_handshakes: IntCounterVec = "tls_handshakes_total" ["result"],
            "Connections on which TLS was agreed on (`done`) or not (`failed`).";
        tls_certificate_ends: GaugeVec = "tls_certificate_expires_timestamp_seconds" ["listener"],
            "The Unix time at which the first certificate of the listener (`calls`, `admin`) ends.";
        pub held_down: IntCounter = "held_down_total" [],
            "Answers to failing credentials that were held back. It rises when somebody guesses.";
    }
    "Accounts" {
        pub(in crate::metrics) account_requests: Unsorted = "account_requests_total" ["account", "group", "decision"],
            "Calls by account; the busiest by name.";
        pub(in crate::metrics) key_calls: Unsorted = "key_calls_total" ["account", "key"],
            "Admitted calls by account and key, throttled and refused ones excluded; the first keys to call by name.";
        pub keys_expiring: IntGauge = "keys_expiring" [],
            "Keys that expire within 14 days and have no successor of the same name.";
        pub(in crate::metrics) quota_qps: GaugeVec = "quota_qps" ["account", "group"],
            "Calls per second that are admitted now: the quota in force; 0 while stopped or not opened.";
        pub(in crate::metrics) pack_remaining_ratio: GaugeVec = "pack_remaining_ratio" ["account", "group", "order"],
            "What is left of the pack in use, by valid order; 0 when all of its packs are used up.";
        pub(in crate::metrics) account_balance: GaugeVec = "account_balance" ["account"],
            "Payments and manual adjustments less what settlements debited; the lowest by name.";
        pub accounts_in_arrears: IntGauge = "accounts_in_arrears" [],
            "Accounts in arrears, those without a series of their own included: their balance is below zero by more than their credit limit, or the files say so.";
    }
    "Where time goes" {
        pub(crate) admission_delay: Timed = "admission_delay_seconds" [] in SECONDS,
            "Wait of admitted calls for their start.";
        upstream: ByOutcome = "upstream_seconds" ["outcome"] in SECONDS,
            "From the start to the upstream's response head, or to giving up.";
        pub(crate) overhead: Timed = "overhead_seconds" [] in SECONDS,
            "Time of an admitted call in the gate; upstream and admission delay excluded.";
        pub ledger_commit: Histogram = "ledger_commit_seconds" [] in SECONDS,
            "Duration of one group commit.";
        pub client_clock_skew: Histogram = "client_clock_skew_seconds" [] in SKEW_SECONDS,
            "Client clock minus ours, of verified TC3 calls. Beyond 300 s either way a call is refused.";
    }
    "Connections, memory and the upstream" {
        pub connections: IntGauge = "connections" [],
            "Open connections on the public listener.";
        pub connections_gave_way: IntCounter = "connections_gave_way_total" [],
            "Connections without a proven credential that were closed to make room for others.";
        pub connections_limit: IntGauge = "connections_limit" [],
            "The most of them: limits.connections, or fewer where the system allows fewer open files.";
        pub body_memory_limit: IntGauge = "body_memory_limit_bytes" [],
            "The most of tollgate_body_memory_bytes: limits.body_memory.";
        pub body_memory_bytes: IntGauge = "body_memory_bytes" [],
            "Bytes reserved for request bodies in memory.";
        pub(in crate::metrics) upstream_up: GaugeVec = "upstream_up" ["upstream"],
            "1 when the last attempt to connect to a server of the upstream worked that is not out; 0 before the first. While it is 0 the gate dials every 5 s.";
        pub(in crate::metrics) upstream_endpoint_up: GaugeVec = "upstream_endpoint_up" ["upstream", "endpoint"],
            "1 when that holds for a server of this endpoint.";
        pub(in crate::metrics) upstream_endpoint_in_flight: GaugeVec = "upstream_endpoint_in_flight" ["upstream", "endpoint"],
            "Calls that are at the endpoint, until their answers have ended.";
        pub(in crate::metrics) upstream_ejections: IntCounterVec = "upstream_ejections_total" ["upstream", "endpoint"],
            "Times that a server of the endpoint was taken out, by its calls or by its checks.";
    }
    "The shared store" {
        store_up: GaugeVec = "store_up" ["node"],
            "1 while each connection to the node answers; no series without a store.";
        store_clock_ahead: GaugeVec = "store_clock_ahead_seconds" ["node"],
            "How far the clock of the node is ahead of this machine's, negative when it is behind.";
        pub store_seconds: Histogram = "store_seconds" [] in SECONDS,
            "From sending a question of calls to its answer, or to giving up.";
        pub store_calls: IntCounter = "store_calls_total" [],
            "Questions sent for calls; one is for all calls of a limiter that wait.";
        pub store_late: IntCounter = "store_late_total" [],
            "Questions or answers that came too late, so that nothing started on them.";
        store_holds: IntCounterVec = "store_holds_total" ["reason"],
            "Answers, those to heartbeats included, after which nothing may start for a while, by why.";
    }
    "The ledger" {
        pub ledger_healthy: IntGauge = "ledger_healthy" [],
            "1 while records can be committed.";
        pub ledger_pending: IntGauge = "ledger_pending" [],
            "Records promised or handed over and not yet committed.";
        pub ledger_pending_limit: IntGauge = "ledger_pending_limit" [],
            "The most of tollgate_ledger_pending; above it calls are refused.";
        pub ledger_bytes: IntGauge = "ledger_bytes" [],
            "Size of the ledger file.";
        pub ledger_wal_bytes: IntGauge = "ledger_wal_bytes" [],
            "Size of the ledger's write-ahead log.";
        pub ledger_free_bytes: IntGauge = "ledger_free_bytes" [],
            "Free bytes on the ledger's file system.";
        pub ledger_created: IntGauge = "ledger_created_timestamp_seconds" [],
            "When the ledger was created. A recent time tells of a ledger that is not the old one.";
    }
    "The collector and the standing" {
        pub(in crate::metrics) collector_up: GaugeVec = "collector_up" ["to"],
            "1 while `tollgate collect` has a connection to NATS; no series of a gate.";
        pub collector_records: IntCounter = "collector_records_total" [],
            "Records of gates that were taken into the collected ledger.";
        pub collector_gaps: IntCounter = "collector_gaps_total" [],
            "Times that records were missing on the way, and a gate was to send them again.";
        pub(in crate::metrics) collector_broken: GaugeVec = "collector_broken_ledgers" ["to"],
            "Ledgers whose records are not taken: the log says why; no series of a gate.";
        pub(in crate::metrics) collector_lag_records: GaugeVec = "collector_lag_records" ["ledger", "replica"],
            "Records that a ledger has told of and that are not collected; ledgers that were given up left out.";
        pub(in crate::metrics) collector_lag_seconds: GaugeVec = "collector_lag_seconds" ["ledger", "replica"],
            "Age of the instant before which every call of the ledger is collected; of the ledger's first message while none is known. Days and months wait for it.";
        pub(in crate::metrics) standing_current: GaugeVec = "standing_current" ["from"],
            "1 while the gate hears who is stopped from the collector; 0 while it goes by what it heard last. No series without an outbox.";
    }
    "The outbox" {
        outbox_up: GaugeVec = "outbox_up" ["stream"],
            "1 while records are sent to the collector; no series without an outbox.";
        pub outbox_lag_records: IntGauge = "outbox_lag_records" [],
            "Durable records that NATS has not acknowledged yet.";
        pub outbox_lag_seconds: IntGauge = "outbox_lag_seconds" [],
            "How long the oldest of these may have waited; 0 when there is none.";
        pub outbox_uncollected_records: IntGauge = "outbox_uncollected_records" [],
            "Durable records that the collector does not have yet.";
    }
    "Statements, settlement and events" {
        pub clock_trusted: IntGauge = "clock_trusted" [],
            "1 while the wall clock is trusted: days are sealed and months settled.";
        pub ledger_ahead: IntGauge = "ledger_ahead_seconds" [],
            "How far the ledger's newest record, sealed day or fixed month lies in the future; 0 when none does.";
        pub settlement_last_month: IntGauge = "settlement_last_month_timestamp_seconds" [],
            "End of the last month that is settled whole. Before any is: the beginning of the first month with calls, or 0.";
        pub settlement_failures: IntCounter = "settlement_failures_total" [],
            "Months that could not be settled when it was tried.";
        pub on_no_statement: IntGauge = "calls_on_no_statement" [],
            "Calls that are on no statement and come on none.";
        pub events_pending: IntGauge = "events_pending" [],
            "Events that the webhook has not taken yet; at most 20,000 are counted.";
        events: IntCounterVec = "events_total" ["type", "outcome"],
            "Attempts to deliver events to the webhook: `delivered` or `failed`; and events that were given up: `passed`.";
    }
    "Licences for apps" {
        pub(in crate::metrics) licence_grants: IntCounterVec = "licence_grants_total" ["kind"],
            "Grants that were given out to devices, by the kind of the licence.";
        pub(in crate::metrics) licence_refusals: IntCounterVec = "licence_refusals_total" ["reason"],
            "Requests for grants and trials that were refused.";
        pub licence_trials: IntCounter = "licence_trials_total" [],
            "Applications for a trial that were accepted.";
        pub licence_unreadable: IntGauge = "licence_unreadable_values" [],
            "Values in the buckets of licences that this gate cannot read and passes over.";
    }
    "The gate itself" {
        pub config_generation: IntGauge = "config_generation" [],
            "The policy generation in force. Each replica counts its own.";
        config_digest: GaugeVec = "config_digest_info" ["digest"],
            "1, with the digest of catalogue, accounts and their secret files in force. Replicas that serve the same have the same.";
        pub config_last_reload_success: IntGauge = "config_last_reload_success" [],
            "1 when the last reload took effect.";
        pub config_reload_failures: IntCounter = "config_reload_failures_total" [],
            "Reloads refused.";
        pub config_restart_pending: IntGauge = "config_restart_pending" [],
            "1 while the files hold settings that only a restart puts in force.";
        pub log_lines_dropped: IntCounter = "log_lines_dropped_total" [],
            "Log lines that were dropped because their reader did not take them.";
        pub access_log_dropped: IntCounter = "access_log_dropped_total" [],
            "Lines of the access log that were lost, because its file was slow, full or gone.";
        build_info: GaugeVec = "build_info" ["version", "commit", "build"],
            "1, with the version, the commit that it was built from, and how: `profile-guided` or `plain`.";
    }
    "The process" {
        pub process_cpu_seconds: Counter = plain "process_cpu_seconds_total" [],
            "Time that the process had a processor, in seconds.";
        pub process_resident_bytes: IntGauge = plain "process_resident_memory_bytes" [],
            "Memory of the process that is in RAM.";
        pub process_virtual_bytes: IntGauge = plain "process_virtual_memory_bytes" [],
            "Addresses that the process has asked for.";
        pub process_open_fds: IntGauge = plain "process_open_fds" [],
            "Open files, connections among them.";
        pub process_max_fds: IntGauge = plain "process_max_fds" [],
            "The most open files.";
        pub process_threads: IntGauge = plain "process_threads" [],
            "Threads.";
        pub process_start_time: IntGauge = plain "process_start_time_seconds" [],
            "When the process started, in Unix time.";
    }
}

impl Metrics {
    /// `account_limit`: how many accounts get series of their own (`metrics.accounts`).
    pub fn new(account_limit: usize) -> Self {
        let metrics = Self::registered(Registry::new(), AccountSeries::new(account_limit));
        let build = [env!("CARGO_PKG_VERSION"), COMMIT, BUILD];
        metrics.build_info.with_label_values(&build).set(1.0);
        metrics.config_last_reload_success.set(1);
        // Each from the start: a series that begins at 1 has not risen, for Prometheus.
        for outcome in Outcome::ALL {
            metrics.records.with_label_values(&[outcome.as_str()]);
        }
        for kind in LicenceKind::ALL {
            metrics.licence_grants(kind);
        }
        for r#type in EventType::ALL {
            for outcome in EventOutcome::ALL {
                let labels = [r#type.as_str(), outcome.as_str()];
                metrics.events.with_label_values(&labels);
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

    /// Shows the digest of the files in force, and that of no others. To be called by one thread at a
    /// time.
    pub fn set_config_digest(&self, digest: &str) {
        self.config_digest.reset();
        self.config_digest.with_label_values(&[digest]).set(1.0);
    }

    /// The counter of handshakes that were `done` or `failed`.
    pub(crate) fn tls_handshake(&self, result: &'static str) -> IntCounter {
        self.tls_handshakes.with_label_values(&[result])
    }

    /// Shows when the first certificate of a listener ends.
    pub(crate) fn set_certificate_ends(&self, listener: &'static str, ends: Utc) {
        let seconds = ends.0 as f64 / 1e6;
        let shown = self.tls_certificate_ends.with_label_values(&[listener]);
        shown.set(seconds);
    }

    /// The counter of heads that were not read for one reason.
    pub fn head_refused(&self, reason: &'static str) -> IntCounter {
        self.heads_refused.with_label_values(&[reason])
    }

    /// Sending to the upstream's response head, of calls with one outcome.
    pub(crate) fn upstream(&self, outcome: Outcome) -> &Timed {
        &self.upstream.0[outcome as usize]
    }

    /// The counter of committed records with one outcome.
    pub fn records(&self, outcome: Outcome) -> IntCounter {
        self.records.with_label_values(&[outcome.as_str()])
    }

    /// The counter of answers of the store after which nothing starts for one reason.
    pub fn store_hold(&self, reason: &'static str) -> IntCounter {
        self.store_holds.with_label_values(&[reason])
    }

    /// Replaces what is known of the nodes of the store: whether each answers, and how far its clock
    /// is ahead.
    pub fn set_store_nodes(&self, nodes: impl Iterator<Item = (String, bool, Option<f64>)>) {
        self.store_up.reset();
        self.store_clock_ahead.reset();
        for (node, up, ahead) in nodes {
            let gauge = self.store_up.with_label_values(&[&node]);
            gauge.set(f64::from(u8::from(up)));
            if let Some(ahead) = ahead {
                let gauge = self.store_clock_ahead.with_label_values(&[&node]);
                gauge.set(ahead);
            }
        }
    }

    /// Whether records are sent by this stream.
    pub fn set_outbox_up(&self, stream: &str, is_up: bool) {
        let gauge = self.outbox_up.with_label_values(&[stream]);
        gauge.set(f64::from(u8::from(is_up)));
    }

    /// Counts an attempt to deliver an event of the type, or that it was given up.
    pub fn event(&self, r#type: &str, outcome: EventOutcome) {
        let labels = [r#type, outcome.as_str()];
        self.events.with_label_values(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::EndpointFigures;
    use crate::metrics::SourceFigures;
    use crate::metrics::family::Kind;

    #[test]
    fn every_family_that_is_exposed_is_of_the_table_with_its_kind_and_help() {
        let metrics = Metrics::new(1);
        // Their reasons are those of other rooms.
        metrics.head_refused("tls");
        metrics.tls_handshake("done");
        metrics.set_certificate_ends("calls", Utc(1));
        metrics.store_hold("held");
        metrics.licence_refused("trial_limit");
        metrics.set_store_nodes([("store:6379".to_owned(), true, Some(-0.5))].into_iter());
        let source = SourceFigures {
            ledger: "0".repeat(32),
            replica: "gate-1".to_owned(),
            lag_records: 3,
            lag_seconds: 1.5,
        };
        metrics.set_sources(vec![source], 0);
        metrics.set_collector_up(true);
        metrics.set_standing_current(true);
        metrics.set_outbox_up("TOLLGATE_RECORDS", true);
        metrics.set_config_digest("0123456789abcdef");
        let endpoint = EndpointFigures {
            endpoint: "upstream:8000".to_owned(),
            is_up: true,
            in_flight: 2,
            ejections: 1,
        };
        metrics.set_upstreams([("default", true, vec![endpoint])].into_iter());
        let text = String::from_utf8(metrics.expose(Vec::new())).unwrap();
        let mut exposed = 0;
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let family = FAMILIES.iter().find(|family| family.name == name).unwrap();
            assert_eq!(kind, family.kind.as_str(), "{name}");
            assert!(text.contains(&format!("# HELP {name} {}\n", family.help)));
            exposed += 1;
        }
        // The others have no series before the first account or decision.
        let accounts = FAMILIES
            .iter()
            .filter(|f| f.labels.contains(&"group") || f.labels.contains(&"key"));
        assert_eq!(exposed, FAMILIES.len() - accounts.count() - 1);
    }

    #[test]
    fn every_row_fits_into_a_table_and_only_histograms_have_buckets() {
        for family in FAMILIES {
            assert!(family.help.ends_with('.'), "{}", family.name);
            assert!(!family.help.contains(['|', '\n']), "{}", family.name);
            let is_histogram = family.kind == Kind::Histogram;
            assert_eq!(is_histogram, !family.buckets.is_empty(), "{}", family.name);
            let is_total = family.name.ends_with("_total");
            assert_eq!(is_total, family.kind == Kind::Counter, "{}", family.name);
        }
    }

    #[test]
    fn attempts_to_deliver_are_there_before_the_first() {
        let metrics = Metrics::new(1);
        let shown = || {
            let text = String::from_utf8(metrics.expose(Vec::new())).unwrap();
            let lines = text
                .lines()
                .filter_map(|line| line.strip_prefix("tollgate_events_total"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            shown().len(),
            EventType::ALL.len() * EventOutcome::ALL.len()
        );
        metrics.event("pack.low", EventOutcome::Failed);
        assert!(shown().contains(&r#"{outcome="failed",type="pack.low"} 1"#.to_owned()));
    }
}
