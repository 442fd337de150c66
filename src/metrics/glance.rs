//! A look at the figures that the status page draws: the decided calls, and where their time goes.
//!
//! Must never ask a gauge that only a scrape sets.

use crate::metrics::durations::Durations;
use crate::metrics::families::{Decision, Metrics};
use crate::model::Outcome;
use prometheus::core::Collector;

/// The figures at one instant. They only rise.
#[derive(Clone, Default, Debug)]
pub(crate) struct Glance {
    /// Admitted, throttled, refused.
    pub decided: [u64; Decision::ALL.len()],
    /// The time of admitted calls in the gate.
    pub overhead: Durations,
    /// From the start to the head of the upstream's answer, or to giving up.
    pub upstream: Durations,
}

impl Metrics {
    /// A look at the figures of now.
    pub(crate) fn glance(&self) -> Glance {
        let mut glance = Glance {
            overhead: self.overhead.durations(),
            ..Glance::default()
        };
        for outcome in Outcome::ALL.iter().copied() {
            glance.upstream.add(&self.upstream(outcome).durations());
        }
        for family in self.requests.collect() {
            for metric in family.get_metric() {
                let labels = metric.get_label();
                let decision = labels.iter().find(|label| label.name() == "decision");
                let nth = Decision::ALL
                    .iter()
                    .position(|known| decision.is_some_and(|d| d.value() == known.as_str()));
                if let Some(sum) = nth.and_then(|nth| glance.decided.get_mut(nth)) {
                    // A count far below 2^53.
                    *sum += metric.get_counter().get_value() as u64;
                }
            }
        }
        glance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mode, RequestId};

    #[test]
    fn a_glance_has_the_decided_calls_and_the_durations_of_all_outcomes() {
        let metrics = Metrics::new(1);
        for (mode, decision, reason) in [
            (Some(Mode::Qps), Decision::Admitted, ""),
            (Some(Mode::PerCall), Decision::Admitted, ""),
            (Some(Mode::Qps), Decision::Throttled, "over_quota"),
            (None, Decision::Refused, "no_credential"),
        ] {
            metrics.requests("g", mode, decision, reason).inc();
        }
        let before = metrics.glance();
        assert_eq!(before.decided, [2, 1, 1]);
        let id = RequestId(uuid::Uuid::from_u128(7 << 76));
        metrics.overhead.observe(0.000_2, id);
        for outcome in [Outcome::Answered, Outcome::UpstreamFailed] {
            metrics.upstream(outcome).observe(0.3, id);
        }
        let now = metrics.glance();
        let overhead = now.overhead.quantile_since(&before.overhead, 0.5).unwrap();
        assert!(overhead > 0.000_1 && overhead <= 0.000_25, "{overhead}");
        let upstream = now.upstream.quantile_since(&before.upstream, 0.99).unwrap();
        assert!(upstream > 0.25 && upstream <= 0.5, "{upstream}");
    }
}
