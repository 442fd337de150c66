//! The last hour of the whole gate, in steps of five seconds, and the rates of the last second.
//!
//! Pure: whoever samples says when. Owns the bound: one point a step, an hour of them. Must never be
//! asked for more often than once a second by whoever samples.

use crate::metrics::Glance;
use crate::model::{Mono, Utc};
use serde::Serialize;
use std::collections::VecDeque;
use std::time::Duration;

/// From one point to the next.
pub(super) const STEP: Duration = Duration::from_secs(5);
/// An hour.
const POINTS: usize = 720;
/// Quantiles are of the last minute.
const LOOKS: usize = 12;
/// Before so much time has passed nothing is said of how a ledger grows.
const GROWS_SEEN: Duration = Duration::from_secs(300);

/// What is sampled.
#[derive(Clone, Default)]
pub(super) struct Sample {
    /// By the monotonic clock.
    pub(super) mono: Mono,
    /// By the wall clock.
    pub(super) utc: Utc,
    /// The counts of calls.
    pub(super) glance: Glance,
    /// The size of the ledger.
    pub(super) ledger_bytes: u64,
}

/// One step of the hour: calls per second, and seconds; `None` where no call was.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Point {
    /// Its end, in Unix time.
    pub(super) at: i64,
    /// Admitted, throttled, refused a second.
    pub(super) rates: [f32; 3],
    /// The time in the gate: half of the calls took less, and 99 of 100.
    pub(super) overhead: [Option<f32>; 2],
    /// The upstream's time, as well.
    pub(super) upstream: [Option<f32>; 2],
}

/// The hour.
#[derive(Default)]
pub(super) struct History {
    points: VecDeque<Point>,
    /// How many points there were: it numbers them.
    count: u64,
    last: Option<Sample>,
    /// Samples a step apart, the newest at the end.
    looks: VecDeque<Sample>,
    /// Per second, between the last two samples.
    rates: [f32; 3],
    /// When the ledger had which size: from an hour ago on.
    sizes: VecDeque<(Mono, u64)>,
}

impl History {
    /// Takes a sample in.
    pub(super) fn take(&mut self, sample: Sample) {
        if let Some(last) = &self.last {
            self.rates = rates(last, &sample);
        }
        let is_due = match self.looks.back() {
            None => true,
            Some(look) => sample.mono.since(look.mono) >= STEP,
        };
        if is_due {
            if let Some(look) = self.looks.back() {
                self.points.push_back(point(look, &sample));
                self.count += 1;
            }
            keep(&mut self.looks, sample.clone(), LOOKS + 1);
            keep(
                &mut self.sizes,
                (sample.mono, sample.ledger_bytes),
                POINTS + 1,
            );
            while self.points.len() > POINTS {
                self.points.pop_front();
            }
        }
        self.last = Some(sample);
    }

    /// The points, the oldest first.
    pub(super) fn points(&self) -> Vec<Point> {
        self.points.iter().copied().collect()
    }

    /// The newest point and its number.
    pub(super) fn newest(&self) -> Option<(u64, Point)> {
        Some((self.count, *self.points.back()?))
    }

    /// Admitted, throttled and refused a second, just now.
    pub(super) fn rates(&self) -> [f32; 3] {
        self.rates
    }

    /// Of the last minute: the time in the gate and the upstream's.
    pub(super) fn minute(&self) -> [[Option<f32>; 2]; 2] {
        let (Some(first), Some(last)) = (self.looks.front(), &self.last) else {
            return [[None; 2]; 2];
        };
        let point = point(first, last);
        [point.overhead, point.upstream]
    }

    /// In how many days so many bytes are written, as the ledger grew in the last hour. `None` when it
    /// did not grow, or was not watched for long.
    pub(super) fn days_until(&self, bytes: u64) -> Option<f64> {
        let ((begun, before), (now, after)) = (self.sizes.front()?, self.sizes.back()?);
        let watched = now.since(*begun);
        let grown = after.checked_sub(*before).filter(|grown| *grown > 0)?;
        (watched >= GROWS_SEEN).then(|| {
            let a_day = grown as f64 / watched.as_secs_f64() * 86_400.0;
            bytes as f64 / a_day
        })
    }
}

fn keep<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    list.push_back(item);
    while list.len() > most {
        list.pop_front();
    }
}

fn rates(before: &Sample, now: &Sample) -> [f32; 3] {
    let seconds = now.mono.since(before.mono).as_secs_f64().max(0.001);
    std::array::from_fn(|nth| {
        let calls = now.glance.decided[nth].saturating_sub(before.glance.decided[nth]);
        (calls as f64 / seconds) as f32
    })
}

fn point(before: &Sample, now: &Sample) -> Point {
    let quantiles = |of: fn(&Glance) -> &crate::metrics::Durations| {
        let (then, now) = (of(&before.glance), of(&now.glance));
        [0.5, 0.99].map(|part| now.quantile_since(then, part).map(|s| s as f32))
    };
    Point {
        at: now.utc.seconds(),
        rates: rates(before, now),
        overhead: quantiles(|glance| &glance.overhead),
        upstream: quantiles(|glance| &glance.upstream),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::model::RequestId;

    fn sample(second: u64, decided: [u64; 3]) -> Sample {
        Sample {
            mono: Mono::default().plus(Duration::from_secs(second)),
            utc: Utc::default().plus(Duration::from_secs(second)),
            glance: Glance {
                decided,
                ..Glance::default()
            },
            ledger_bytes: 1_000 * second,
        }
    }

    #[test]
    fn the_hour_has_a_point_each_five_seconds_and_no_more_than_an_hour_of_them() {
        let mut history = History::default();
        assert!(history.newest().is_none() && history.points().is_empty());
        for second in 0..=4_000 {
            history.take(sample(second, [second * 20, second * 2, second / 5]));
        }
        let points = history.points();
        assert_eq!(points.len(), 720);
        assert_eq!(points[0].at, 4_000 - 719 * 5);
        for point in &points {
            assert_eq!(point.rates, [20.0, 2.0, 0.2]);
            assert_eq!(point.overhead, [None; 2]);
        }
        let (number, newest) = history.newest().unwrap();
        assert_eq!((number, newest.at), (800, 4_000));
        assert_eq!(history.rates(), [20.0, 2.0, 1.0]);
        assert_eq!(history.looks.len(), 13);
    }

    #[test]
    fn what_happened_in_the_last_second_is_seen_before_its_step_is_over() {
        let mut history = History::default();
        history.take(sample(0, [0; 3]));
        history.take(sample(1, [0, 7, 0]));
        assert_eq!(history.rates(), [0.0, 7.0, 0.0]);
        assert!(history.newest().is_none());
        history.take(sample(2, [0, 7, 0]));
        assert_eq!(history.rates(), [0.0; 3]);
    }

    #[test]
    fn quantiles_are_of_the_last_minute_alone() {
        let (metrics, mut history) = (Metrics::new(1), History::default());
        let at = |second: u64, history: &mut History| {
            let glance = metrics.glance();
            history.take(Sample {
                glance,
                ..sample(second, [0; 3])
            });
        };
        let id = RequestId(uuid::Uuid::from_u128(7 << 76));
        at(0, &mut history);
        metrics.overhead.observe(0.04, id);
        at(5, &mut history);
        let [[half, most], upstream] = history.minute();
        assert!(half.is_some_and(|s| s > 0.025 && s <= 0.05), "{half:?}");
        assert!(most >= half && upstream == [None; 2]);
        for step in 2..=14 {
            at(step * 5, &mut history);
        }
        assert_eq!(history.minute(), [[None; 2]; 2]);
    }

    #[test]
    fn the_days_that_a_disk_lasts_follow_from_how_the_ledger_grew() {
        let mut history = History::default();
        for second in 0..300 {
            history.take(sample(second, [0; 3]));
        }
        assert_eq!(history.days_until(1), None, "not watched for long");
        for second in 300..=600 {
            history.take(sample(second, [0; 3]));
        }
        let days = history.days_until(86_400 * 1_000 * 3).unwrap();
        assert!((days - 3.0).abs() < 0.01, "{days}");
        let mut still = History::default();
        for second in 0..=600 {
            still.take(Sample {
                ledger_bytes: 5,
                ..sample(second, [0; 3])
            });
        }
        assert_eq!(still.days_until(1), None);
    }
}
