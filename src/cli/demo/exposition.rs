//! The gate's metrics as a scrape sees them.
//!
//! Owns the reading of the text exposition. Must never take a figure from the gate's own memory.

use std::collections::BTreeMap;

/// A service by its account and its group.
pub(super) type ServiceKey = [String; 2];

/// The ways in which a request is decided, in the order of the tables.
pub(super) const DECISIONS: [&str; 3] = ["admitted", "throttled", "refused"];

/// The samples of one scrape: the value of each series, by its name with labels.
#[derive(Clone, Default)]
pub(super) struct Samples(BTreeMap<String, u64>);

impl Samples {
    /// Reads the lines of an exposition; a line that is no sample is passed over.
    pub(super) fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse::<f64>().ok()? as u64))
        };
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(sample)
                .collect(),
        )
    }

    /// The value of one series; 0 when there is none.
    pub(super) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// The sum over all series of a family with labels.
    pub(super) fn sum(&self, family: &str) -> u64 {
        self.0
            .iter()
            .filter(|(name, _)| name.starts_with(&format!("{family}{{")))
            .map(|(_, value)| value)
            .sum()
    }

    /// The requests that were decided so: `admitted`, `throttled` or `refused`.
    pub(super) fn decided(&self, decision: &str) -> u64 {
        let label = format!("decision=\"{decision}\"");
        self.0
            .iter()
            .filter(|(name, _)| {
                name.starts_with("tollgate_requests_total{") && name.contains(&label)
            })
            .map(|(_, value)| value)
            .sum()
    }

    /// The requests of a service that were decided so.
    pub(super) fn of_service(&self, [account, group]: &ServiceKey, decision: &str) -> u64 {
        self.get(&format!(
            "tollgate_account_requests_total{{account=\"{account}\",decision=\"{decision}\",group=\"{group}\"}}"
        ))
    }

    /// The quota of a service, in calls per second.
    pub(super) fn quota(&self, [account, group]: &ServiceKey) -> usize {
        let quota = self.get(&format!(
            "tollgate_quota_qps{{account=\"{account}\",group=\"{group}\"}}"
        ));
        usize::try_from(quota).unwrap_or(usize::MAX)
    }

    /// The services with at least one call of an account that has series of its own.
    pub(super) fn called_services(&self) -> Vec<ServiceKey> {
        let mut services: Vec<ServiceKey> = self
            .0
            .iter()
            .filter(|(name, count)| {
                name.starts_with("tollgate_account_requests_total{") && **count > 0
            })
            .filter_map(|(name, _)| Some([label(name, "account")?, label(name, "group")?]))
            .collect();
        services.sort();
        services.dedup();
        services
    }

    /// The number of calls that were refused, by reason.
    fn refusals(&self) -> BTreeMap<String, u64> {
        let mut refusals = BTreeMap::new();
        for (name, count) in &self.0 {
            if name.starts_with("tollgate_requests_total{")
                && name.contains("decision=\"refused\"")
                && let Some(reason) = label(name, "reason")
            {
                *refusals.entry(reason).or_default() += count;
            }
        }
        refusals
    }

    /// No call is under way.
    pub(super) fn is_at_rest(&self) -> bool {
        self.get("tollgate_pending") == 0 && self.get("tollgate_in_flight") == 0
    }

    /// A line for each sum that does not add up (P4), when calls are at rest and the ledger has so
    /// many records.
    pub(super) fn not_conserved(&self, in_ledger: u64) -> Vec<String> {
        let received = self.get("tollgate_requests_received_total");
        let [admitted, throttled, refused] = DECISIONS.map(|decision| self.decided(decision));
        let recorded = self.sum("tollgate_records_total");
        let mut broken = Vec::new();
        if received != admitted + throttled + refused {
            broken.push(format!(
                "conservation: received {received}, admitted {admitted} + throttled {throttled} + refused {refused}"
            ));
        }
        if admitted != recorded || recorded != in_ledger {
            broken.push(format!(
                "count: admitted {admitted}, counted as recorded {recorded}, in the ledger {in_ledger}"
            ));
        }
        broken
    }
}

/// The refusals of one scrape or of several, by reason, in one line.
pub(super) fn why_refused<'s>(scrapes: impl IntoIterator<Item = &'s Samples>) -> String {
    let mut refusals: BTreeMap<String, u64> = BTreeMap::new();
    for (reason, count) in scrapes.into_iter().flat_map(Samples::refusals) {
        *refusals.entry(reason).or_default() += count;
    }
    let told = refusals.iter();
    let told: Vec<String> = told
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    told.join(", ")
}

fn label(name: &str, label: &str) -> Option<String> {
    let rest = name.split_once(&format!("{label}=\""))?.1;
    Some(rest.split_once('"')?.0.to_owned())
}
