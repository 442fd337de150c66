//! Exemplars: for each bucket of a histogram of calls, the request id of one that fell into it.
//!
//! Must never hold a call up: a bucket that another worker writes to is passed over.

use crate::metrics::durations::Durations;
use crate::model::RequestId;
use parking_lot::Mutex;
use prometheus::Histogram;
use prometheus::core::Metric;
use std::sync::atomic::{AtomicU64, Ordering};

/// An exemplar that is so old gives way to a new one. Workers then seldom write to the same place.
const KEPT_MS: u64 = 1_000;

/// A histogram of durations of calls, with an exemplar in each bucket.
pub(crate) struct Timed {
    histogram: Histogram,
    bounds: &'static [f64],
    /// One more than there are bounds.
    buckets: Box<[Bucket]>,
}

#[derive(Default)]
struct Bucket {
    /// When the call of the exemplar came, in milliseconds of Unix time; 0 before the first.
    at_ms: AtomicU64,
    last: Mutex<Option<Exemplar>>,
}

/// A call that fell into a bucket.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Exemplar {
    /// Its name.
    pub id: RequestId,
    /// In seconds.
    pub value: f64,
    /// When it came, in milliseconds of Unix time.
    pub at_ms: u64,
}

impl Timed {
    pub(super) fn new(histogram: Histogram, bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| Bucket::default()).collect();
        Self {
            histogram,
            bounds,
            buckets,
        }
    }

    /// Counts a duration of a call, in seconds.
    pub(crate) fn observe(&self, seconds: f64, id: RequestId) {
        self.histogram.observe(seconds);
        let nth = self.bounds.partition_point(|bound| *bound < seconds);
        let Some(bucket) = self.buckets.get(nth) else {
            return;
        };
        let at_ms = id.at_ms();
        if at_ms < bucket.at_ms.load(Ordering::Relaxed).saturating_add(KEPT_MS) {
            return;
        }
        if let Some(mut last) = bucket.last.try_lock() {
            bucket.at_ms.store(at_ms, Ordering::Relaxed);
            *last = Some(Exemplar {
                id,
                value: seconds,
                at_ms,
            });
        }
    }

    /// What was counted so far.
    pub(super) fn durations(&self) -> Durations {
        let metric = self.histogram.metric();
        let of = metric.get_histogram();
        let buckets = of.get_bucket().iter().take(self.bounds.len());
        let counts = buckets.map(|bucket| bucket.cumulative_count());
        let counts = counts.chain([of.get_sample_count()]).collect();
        Durations::new(self.bounds, counts)
    }

    /// That of the nth bucket.
    pub(super) fn exemplar(&self, nth: usize) -> Option<Exemplar> {
        *self.buckets.get(nth)?.last.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::HistogramOpts;

    /// The id of a call that came at this millisecond.
    fn id(at_ms: u128, tail: u128) -> RequestId {
        RequestId(uuid::Uuid::from_u128(at_ms << 80 | 7 << 76 | tail))
    }

    #[test]
    fn each_bucket_has_a_call_that_fell_into_it_and_a_newer_one_after_a_second() {
        let bounds = &[0.1, 1.0];
        let options = HistogramOpts::new("a", "b").buckets(bounds.to_vec());
        let timed = Timed::new(Histogram::with_opts(options).unwrap(), bounds);
        assert_eq!(timed.exemplar(0), None);
        for (seconds, at_ms, tail) in [
            (0.1, 5_000, 1),
            (0.05, 5_999, 2),
            (0.5, 5_000, 3),
            (2.0, 5_000, 4),
            (0.2, 6_000, 5),
        ] {
            timed.observe(seconds, id(at_ms, tail));
        }
        let kept = |nth| {
            timed
                .exemplar(nth)
                .map(|kept| (kept.id, kept.value, kept.at_ms))
        };
        assert_eq!(kept(0), Some((id(5_000, 1), 0.1, 5_000)));
        assert_eq!(kept(1), Some((id(6_000, 5), 0.2, 6_000)));
        assert_eq!(kept(2), Some((id(5_000, 4), 2.0, 5_000)));
    }
}
