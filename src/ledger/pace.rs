//! How often the writer writes.
//!
//! Owns the waits that tests shorten or stretch, and how a busy ledger is told from one at rest.
//! Must never wait itself.
//!
//! # Decided
//! - **Under load a commit waits for 64 records or 2 ms.** It starts at once when fewer than 4,000
//!   come in a second. More than half of a commit is the sync, whatever is in it, so the calls that
//!   share one pay for it (`benches/README.md`).

use crate::model::Mono;
use std::time::Duration;

/// The waits and steps that tests shorten or stretch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How often a ledger in trouble is tried again.
    pub(super) probe: Duration,
    /// From the start of a commit to the start of the next when nobody waits for it (relaxed): what
    /// a crash may lose.
    pub(super) gather: Duration,
    /// The number of records that are rolled up at a time. Under load, so many are waited for.
    pub(super) roll_up: i64,
}

impl Pace {
    pub(super) const REAL: Self = Self {
        probe: Duration::from_secs(1),
        gather: Duration::from_millis(100),
        // Some two milliseconds in which no call is recorded. At 1,000 active accounts a shorter
        // step writes as many rows of `hours` for fewer records.
        roll_up: 4_096,
    };
}

/// The longest time from the start of a commit to the start of the next, under load. A commit of
/// any size costs some 150 us of CPU, most of it the sync (benches/README.md). Shared by so many
/// calls it is a few us a call.
pub(super) const GROUP_INTERVAL: Duration = Duration::from_millis(2);

/// So many records are not kept waiting for more.
pub(super) const GROUP_RECORDS: usize = 64;

/// After so long without a commit the records are rolled up and the WAL is copied into the file.
pub(super) const REST: Duration = Duration::from_secs(1);

/// Pages of 4 KiB in the WAL after which it is copied into the file under load.
pub(super) const CHECKPOINT_PAGES: usize = 1000;

/// From one step of pruning to the next.
pub(super) const PRUNE_INTERVAL: Duration = Duration::from_millis(50);

/// How soon after a failed step of pruning or of the roll-up the next is tried.
pub(super) const CHORE_PAUSE: Duration = Duration::from_secs(1);

/// Steps of the roll-up between two commits.
pub(super) const ROLL_UPS_A_COMMIT: usize = 4;

/// So long the calls of a failed commit wait until it is noted that they are told an error.
pub(super) const NOTED_WITHIN: Duration = Duration::from_millis(250);

/// How soon a ledger at rest asks again for a copy of the WAL when one is under way.
pub(super) const COPY_ASKED_AGAIN: Duration = Duration::from_millis(50);

/// How often a closing ledger looks whether the last slot is back, and one in trouble whether the
/// checkpointer is.
pub(super) const POLL: Duration = Duration::from_millis(2);

/// The next move of the writer's thread after a step.
#[derive(Debug)]
pub(super) enum NextCommit {
    /// The next step at once.
    Step,
    /// The next step when `until` has come, when so many records are queued, or when something else
    /// is asked for.
    Wait { until: Option<Mono>, wake_at: usize },
    /// The ledger was closed. With the number of calls that are not in it.
    Ended(usize),
}

/// Below so many records a second a commit starts at once: there would be few to share it.
const LOADED_PER_SECOND: u128 = 4_000;

/// The number of records that came, and the time that it took: the last few commits count most.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Load {
    records: u128,
    nanos: u128,
}

impl Load {
    /// Takes in a commit of so many records and the time from the start of the one before to its
    /// own.
    pub(super) fn commit(&mut self, records: usize, since_last: Duration) {
        // In 1,024ths, so that a lone record does not decay to nothing.
        self.records = self.records * 7 / 8 + records as u128 * 1_024;
        self.nanos = self.nanos * 7 / 8 + since_last.as_nanos() * 1_024;
    }

    pub(super) fn is_heavy(self) -> bool {
        self.records * 1_000_000_000 >= self.nanos * LOADED_PER_SECOND && self.nanos > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(commits: &[(usize, u64)]) -> Load {
        let mut load = Load::default();
        for (records, micros) in commits {
            load.commit(*records, Duration::from_micros(*micros));
        }
        load
    }

    #[test]
    fn a_ledger_gathers_records_when_many_come_and_not_when_few_do() {
        assert!(!after(&[]).is_heavy());
        assert!(!after(&[(1, 0)]).is_heavy());
        assert!(!after(&[(1, 500); 1_000]).is_heavy());
        assert!(after(&[(1, 200); 1_000]).is_heavy());
        assert!(after(&[(64, 2_000); 10]).is_heavy());
        // A rest ends it, and so does a slower pace soon.
        assert!(!after(&[(64, 2_000), (64, 2_000), (1, 1_000_000)]).is_heavy());
        let slower: Vec<_> = [(64, 2_000); 50]
            .into_iter()
            .chain([(1, 1_000); 40])
            .collect();
        assert!(!after(&slower).is_heavy());
    }
}
