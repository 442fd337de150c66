//! What a histogram has counted, as two looks at it tell quantiles.

/// The buckets of a histogram, each with all that are below it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Durations {
    bounds: &'static [f64],
    /// One more than there are bounds: the last one counts all.
    counts: Vec<u64>,
}

impl Durations {
    pub(super) fn new(bounds: &'static [f64], counts: Vec<u64>) -> Self {
        Self { bounds, counts }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.bounds = other.bounds;
        self.counts.resize(other.counts.len(), 0);
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
    }

    /// The duration in seconds below which this part of those since `before` are, as near as the
    /// buckets tell: within one they are taken to be spread evenly. `None` when there were none.
    pub(crate) fn quantile_since(&self, before: &Self, part: f64) -> Option<f64> {
        let earlier = before.counts.iter().copied().chain(std::iter::repeat(0));
        let since = self.counts.iter().zip(earlier);
        let since: Vec<u64> = since.map(|(now, then)| now.saturating_sub(then)).collect();
        let all = since.last().copied().filter(|all| *all > 0)?;
        let rank = part * all as f64;
        let nth = since.iter().position(|count| *count as f64 >= rank)?;
        // Beyond the last bound nothing is known but that.
        let Some(upper) = self.bounds.get(nth) else {
            return self.bounds.last().copied();
        };
        let (lower, below) = match nth.checked_sub(1) {
            Some(last) => (self.bounds[last], since[last]),
            None => (0.0, 0),
        };
        let within = (since[nth] - below).max(1) as f64;
        Some(lower + (upper - lower) * ((rank - below as f64) / within).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[0.001, 0.01, 0.1];

    #[test]
    fn a_quantile_is_of_what_came_between_two_looks_and_within_its_bucket() {
        let before = Durations::new(BOUNDS, vec![1_000, 1_000, 1_000, 1_000]);
        let now = Durations::new(BOUNDS, vec![1_050, 1_099, 1_099, 1_100]);
        let of = |part| now.quantile_since(&before, part).unwrap();
        assert!((of(0.5) - 0.001).abs() < 1e-9, "{}", of(0.5));
        assert!((of(0.25) - 0.0005).abs() < 1e-9, "{}", of(0.25));
        assert!(of(0.9) > 0.001 && of(0.9) < 0.01, "{}", of(0.9));
        assert_eq!(of(1.0), 0.1, "all that is known of what is beyond");
        assert_eq!(now.quantile_since(&now, 0.5), None);
        assert!(now.quantile_since(&Durations::default(), 0.5).is_some());
    }
}
