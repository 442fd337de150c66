//! How a family comes from its row: one for each type that a row may have.
//!
//! Must never let a family be made that the registry does not have, save those that say why.

use crate::metrics::exemplars::Timed;
use crate::metrics::family::{Family, Kind};
use crate::model::Outcome;
use prometheus::core::Collector;
use prometheus::{
    Counter, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry,
};

/// How a family of one type comes from its row.
pub(super) trait Shape: Sized {
    const KIND: Kind;

    /// Made, and in the registry.
    fn made(family: &Family, registry: &Registry) -> Self;
}

/// One histogram for each outcome, resolved at the start.
pub(in crate::metrics) struct ByOutcome(pub(in crate::metrics) [Timed; Outcome::ALL.len()]);

/// Counters that are exposed beside the registry, which would sort all of their series at each
/// scrape.
pub(in crate::metrics) struct Unsorted(pub(in crate::metrics) IntCounterVec);

fn options(family: &Family) -> Opts {
    Opts::new(family.name, family.help)
}

fn histogram_options(family: &Family) -> HistogramOpts {
    HistogramOpts::new(family.name, family.help).buckets(family.buckets.to_vec())
}

fn valid<C>(made: prometheus::Result<C>) -> C {
    made.expect("a constant, valid description")
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = valid(made);
    registry
        .register(Box::new(metric.clone()))
        .expect("each family is registered once");
    metric
}

impl Shape for IntCounter {
    const KIND: Kind = Kind::Counter;

    fn made(family: &Family, registry: &Registry) -> Self {
        register(registry, Self::with_opts(options(family)))
    }
}

impl Shape for IntCounterVec {
    const KIND: Kind = Kind::Counter;

    fn made(family: &Family, registry: &Registry) -> Self {
        register(registry, Self::new(options(family), family.labels))
    }
}

impl Shape for Unsorted {
    const KIND: Kind = Kind::Counter;

    fn made(family: &Family, _: &Registry) -> Self {
        Self(valid(IntCounterVec::new(options(family), family.labels)))
    }
}

impl Shape for IntGauge {
    const KIND: Kind = Kind::Gauge;

    fn made(family: &Family, registry: &Registry) -> Self {
        register(registry, Self::with_opts(options(family)))
    }
}

impl Shape for GaugeVec {
    const KIND: Kind = Kind::Gauge;

    fn made(family: &Family, registry: &Registry) -> Self {
        register(registry, Self::new(options(family), family.labels))
    }
}

impl Shape for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn made(family: &Family, registry: &Registry) -> Self {
        register(registry, Self::with_opts(histogram_options(family)))
    }
}

impl Shape for Counter {
    const KIND: Kind = Kind::Counter;

    fn made(family: &Family, registry: &Registry) -> Self {
        register(registry, Self::with_opts(options(family)))
    }
}

impl Shape for Timed {
    const KIND: Kind = Kind::Histogram;

    fn made(family: &Family, registry: &Registry) -> Self {
        Self::new(Histogram::made(family, registry), family.buckets)
    }
}

impl Shape for ByOutcome {
    const KIND: Kind = Kind::Histogram;

    fn made(family: &Family, registry: &Registry) -> Self {
        let made = HistogramVec::new(histogram_options(family), family.labels);
        let histograms = register(registry, made);
        let of = |outcome: usize| {
            let histogram = histograms.with_label_values(&[Outcome::ALL[outcome].as_str()]);
            Timed::new(histogram, family.buckets)
        };
        Self(std::array::from_fn(of))
    }
}
