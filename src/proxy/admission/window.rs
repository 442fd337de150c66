//! The rule: at most Q starts in any trailing second, exactly.
//!
//! Owns the start times of one limiter. Must never forget a start that can still fall into a second
//! that ends at a later start, whatever the quota is or was.
//!
//! # Decided
//! - **Starts are trimmed by the age of the newest start**, never by the caller's `now` and never
//!   by the quota. A thread that read its clock early decides late, and a quota that was cut may be
//!   raised again.

use crate::model::Mono;
use std::collections::VecDeque;
use std::time::Duration;

/// The length of the window (R4, R5: queries per *second*).
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The starts of the last second, sorted, those that are still to come included. 8 bytes a start.
#[derive(Default, Debug)]
pub(crate) struct Window {
    starts: VecDeque<Mono>,
    /// No later start falls before this instant: starts up to a second older were forgotten.
    floor: Mono,
}

/// The verdict on an arrival.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The call may leave at this instant; the window holds it now.
    Admit(Mono),
    /// Over the cap; a client that calls alone and comes back after this time is admitted. Nothing
    /// changed.
    Throttle(Duration),
    /// The quota is 0. Nothing changed.
    Never,
}

impl Window {
    /// A window whose predecessor may have had starts up to a second before `floor`, which nobody
    /// knows any more. No start of its own falls before `floor`.
    pub(crate) fn after(floor: Mono) -> Self {
        Self {
            floor,
            ..Self::default()
        }
    }

    /// Decides an arrival at `now` under `quota`: its start is the first instant at which the
    /// trailing second `(start − 1 s, start]` holds at most `quota` starts with it. It is not
    /// before `now` and not before an earlier start. Admitted when that is at most `max_delay`
    /// away. O(1).
    pub(crate) fn decide(&mut self, quota: u32, now: Mono, max_delay: Duration) -> Verdict {
        let Some(opens) = self.opens(quota) else {
            return Verdict::Never;
        };
        let start = opens.max(now);
        let wait = start.since(now);
        if wait > max_delay {
            return Verdict::Throttle(wait);
        }
        // Trimmed by age only, and measured from the start just pushed. Every later start is at or
        // after it, so what is a second older can no longer share a second with any of them.
        // (Measured from `now` it could: a thread that read its clock before another one decides
        // after it.)
        while self
            .starts
            .front()
            .is_some_and(|oldest| oldest.plus(SECOND) <= start)
        {
            self.starts.pop_front();
        }
        self.starts.push_back(start);
        Verdict::Admit(start)
    }

    /// The first instant at which the next call can start under `quota`; `None` when it is 0.
    pub(crate) fn opens(&self, quota: u32) -> Option<Mono> {
        let newest = self.starts.back().copied().unwrap_or(self.floor);
        let nth_newest = self
            .starts
            .len()
            .checked_sub(usize::try_from(quota).unwrap_or(usize::MAX));
        match nth_newest {
            _ if quota == 0 => None,
            Some(index) => Some(newest.max(self.starts[index].plus(SECOND))),
            None => Some(newest),
        }
    }

    /// The number of further starts that would fit beside the newest one. Right after a start was
    /// admitted, when older ones were trimmed.
    pub(crate) fn left(&self, quota: u32) -> u32 {
        quota.saturating_sub(u32::try_from(self.starts.len()).unwrap_or(u32::MAX))
    }

    /// Whether no start is younger than a second at `now`: the window may be forgotten.
    pub(crate) fn is_past(&self, now: Mono) -> bool {
        self.starts
            .back()
            .is_none_or(|newest| newest.plus(SECOND) < now)
    }

    /// The number of starts that lie in `(now − 1 s, now]` or are still to come.
    pub(crate) fn in_use(&self, now: Mono) -> usize {
        let older = self
            .starts
            .partition_point(|start| start.plus(SECOND) <= now);
        self.starts.len() - older
    }

    /// Gives back the memory of a window that is past at `now`.
    pub(crate) fn shrink(&mut self, now: Mono) {
        if self.is_past(now) && self.starts.capacity() > 0 {
            self.starts = VecDeque::new();
            // A thread that read its clock before `now` may still decide after this.
            self.floor = now;
        }
    }
}

#[cfg(test)]
mod tests;
