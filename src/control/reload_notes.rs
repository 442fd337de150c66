//! What came of the last reloads, for whoever looks at the status page.
//!
//! Owns the bound: the last ten, with twenty lines each.

use crate::model::Utc;
use parking_lot::Mutex;
use std::collections::VecDeque;

const KEPT: usize = 10;
const LINES: usize = 20;
/// The most characters of a line.
const CHARACTERS: usize = 400;

/// One reload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ReloadNote {
    /// When it ended.
    pub at: Utc,
    /// `reloaded`, `unchanged` or `refused`.
    pub outcome: &'static str,
    /// The generation that it made.
    pub generation: Option<u64>,
    /// Its mistakes, or its warnings and changes: the first of them.
    pub lines: Vec<String>,
    /// How many lines there were.
    pub all_lines: usize,
}

impl ReloadNote {
    /// With the first of these lines.
    pub(super) fn new(
        at: Utc,
        outcome: &'static str,
        generation: Option<u64>,
        lines: impl Iterator<Item = String>,
    ) -> Self {
        let (mut kept, mut all_lines) = (Vec::new(), 0);
        for line in lines {
            all_lines += 1;
            if kept.len() < LINES {
                kept.push(line.chars().take(CHARACTERS).collect());
            }
        }
        Self {
            at,
            outcome,
            generation,
            lines: kept,
            all_lines,
        }
    }
}

/// The last reloads.
#[derive(Default)]
pub(crate) struct ReloadNotes(Mutex<(u64, VecDeque<ReloadNote>)>);

impl ReloadNotes {
    pub(super) fn take(&self, note: ReloadNote) {
        let (count, notes) = &mut *self.0.lock();
        *count += 1;
        notes.push_front(note);
        notes.truncate(KEPT);
    }

    /// How many there were since the start of the process.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().0
    }

    /// The last ones, newest first.
    pub(crate) fn last(&self) -> Vec<ReloadNote> {
        self.0.lock().1.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ten_reloads_are_kept_with_the_first_of_their_lines() {
        let notes = ReloadNotes::default();
        for n in 0..25 {
            let lines = (0..n).map(|line| format!("{line}: {}", "x".repeat(1_000)));
            notes.take(ReloadNote::new(Utc(n), "refused", None, lines));
        }
        let last = notes.last();
        assert_eq!((notes.count(), last.len()), (25, 10));
        assert_eq!((last[0].at, last[9].at), (Utc(24), Utc(15)));
        assert_eq!((last[0].lines.len(), last[0].all_lines), (20, 24));
        assert!(last[0].lines.iter().all(|line| line.len() == 400));
    }
}
