//! P1 on recorded starts: at most the quota in any trailing second.
//!
//! Owns the windows of recent starts, apart from those of the gate. Must never take a start from
//! anywhere but a record.

use crate::cli::demo::exposition::{Samples, ServiceKey};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};

const SECOND_NS: u64 = 1_000_000_000;
/// Records come in the order of their ends, and those of several gates one gate after the other, a
/// second apart. So windows are kept by far longer than a second.
const KEPT_NS: u64 = 10 * SECOND_NS;

/// What the records say of the cap.
#[derive(Default)]
pub(super) struct CapCheck {
    /// The starts of the last seconds of each limiter, by account, group and action (empty in a
    /// paid group).
    windows: HashMap<[String; 3], VecDeque<u64>>,
    /// The most starts seen in any trailing second of a service's limiters.
    peaks: BTreeMap<ServiceKey, usize>,
    /// The starts in the worst second of each limiter that broke its cap, and the cap.
    over_the_cap: BTreeMap<[String; 3], (usize, usize)>,
}

impl CapCheck {
    /// Takes a record in that started at `start_ns` of one clock, while `metrics` named the quotas.
    pub(super) fn see(&mut self, record: &Value, start_ns: u64, metrics: &Samples) {
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        let service = [text("account"), text("group")];
        let action = if text("mode") == "free" {
            text("action")
        } else {
            String::new()
        };
        let quota = metrics.quota(&service);
        // A paid group has one limiter, a free one a limiter for each action (P1).
        let limiter = [service[0].clone(), service[1].clone(), action];
        let window = self.windows.entry(limiter.clone()).or_default();
        let place = window.partition_point(|earlier| *earlier <= start_ns);
        window.insert(place, start_ns);
        let newest = window.back().copied().unwrap_or(start_ns);
        while window
            .front()
            .is_some_and(|oldest| oldest + KEPT_NS < newest)
        {
            window.pop_front();
        }
        let ends_within = window
            .iter()
            .filter(|end| (start_ns..start_ns + SECOND_NS).contains(*end));
        let in_a_second = |end: &u64| {
            window
                .iter()
                .filter(|s| **s <= *end && **s + SECOND_NS > *end)
                .count()
        };
        let most = ends_within.map(in_a_second).max().unwrap_or(0);
        let peak = self.peaks.entry(service).or_default();
        *peak = most.max(*peak);
        if most > quota {
            let worst = self.over_the_cap.entry(limiter).or_default();
            *worst = (most, quota).max(*worst);
        }
    }

    /// The most starts in any trailing second of one limiter of the service.
    pub(super) fn peak(&self, service: &ServiceKey) -> usize {
        self.peaks.get(service).copied().unwrap_or(0)
    }

    /// A line for each limiter that broke its cap.
    pub(super) fn broken(&self) -> impl Iterator<Item = String> {
        self.over_the_cap.iter().map(|(limiter, (most, cap))| {
            // The action is empty in a paid group.
            let limiter = limiter.join(" ");
            let limiter = limiter.trim_end();
            format!("cap: {limiter}: {most} starts in one second, sold are {cap}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_start_too_many_in_any_trailing_second_is_seen_whatever_the_order_of_the_records() {
        let metrics = Samples::parse("tollgate_quota_qps{account=\"a\",group=\"g\"} 3\n");
        let seen = |starts_ms: &[u64]| {
            let mut cap = CapCheck::default();
            for (seq, ms) in starts_ms.iter().enumerate() {
                let record = serde_json::json!({
                    "seq": seq + 1, "account": "a", "group": "g", "mode": "qps",
                });
                cap.see(&record, ms * 1_000_000, &metrics);
            }
            cap.over_the_cap.into_values().next()
        };
        assert_eq!(seen(&[5_000, 5_400, 5_900, 6_000, 6_400]), None);
        assert_eq!(seen(&[5_000, 5_400, 5_900, 5_999]), Some((4, 3)));
        assert_eq!(seen(&[5_999, 5_400, 5_900, 6_500, 5_000]), Some((4, 3)));
        assert_eq!(seen(&[5_999, 5_400, 5_900, 6_500, 4_999]), None);
    }
}
