//! Counting the slots that are out, each in one of two colours.
//!
//! Owns one number, so that a slot costs one atomic step. Must never let a slot be counted in a
//! colour that is not the current one at that very step: who turns the colour and then waits for
//! the other one to come to zero has waited for every slot that was taken before.

use std::sync::atomic::{AtomicU64, Ordering};

/// The bits of each count.
const BITS: u32 = 31;

const MASK: u64 = (1 << BITS) - 1;

/// The bit that says which colour is current.
const CURRENT: u64 = 1 << (2 * BITS);

/// The most slots that can be out at once.
const MOST: usize = (MASK / 2) as usize;

/// One of the two colours. A slot keeps the one it was taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Colour {
    /// The colour that a ledger begins with.
    Even,
    /// The other.
    Odd,
}

impl Colour {
    /// In the order of their numbers.
    pub(super) const BOTH: [Self; 2] = [Self::Even, Self::Odd];

    fn other(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }

    fn one(self) -> u64 {
        match self {
            Self::Even => 1,
            Self::Odd => 1 << BITS,
        }
    }

    fn count(self, state: u64) -> usize {
        let count = match self {
            Self::Even => state,
            Self::Odd => state >> BITS,
        };
        (count & MASK) as usize
    }

    fn current(state: u64) -> Self {
        match state & CURRENT {
            0 => Self::Even,
            _ => Self::Odd,
        }
    }
}

/// The number of slots that are out, by colour, and the current colour.
#[derive(Default, Debug)]
pub(super) struct Pending(AtomicU64);

impl Pending {
    /// Takes a slot of the current colour; `None` when `limit` are out.
    pub(super) fn take(&self, limit: usize) -> Option<Colour> {
        let limit = limit.min(MOST);
        let taken = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| {
                let out = Colour::Even.count(state) + Colour::Odd.count(state);
                (out < limit).then(|| state + Colour::current(state).one())
            });
        taken.ok().map(Colour::current)
    }

    /// Gives one slot of this colour back.
    pub(super) fn give_back(&self, colour: Colour) {
        let before = self.0.fetch_sub(colour.one(), Ordering::SeqCst);
        debug_assert!(colour.count(before) >= 1, "it was out");
    }

    /// Gives the slots of these colours back.
    pub(super) fn give_all_back(&self, colours: &[Colour]) {
        let sum = colours.iter().map(|colour| colour.one()).sum();
        let before = self.0.fetch_sub(sum, Ordering::SeqCst);
        debug_assert!(
            Colour::Even.count(before) + Colour::Odd.count(before) >= colours.len(),
            "each record has a slot"
        );
    }

    /// The number of slots that are out.
    pub(super) fn count(&self) -> usize {
        let state = self.0.load(Ordering::SeqCst);
        Colour::Even.count(state) + Colour::Odd.count(state)
    }

    /// The colour that is not the current one.
    pub(super) fn next(&self) -> Colour {
        Colour::current(self.0.load(Ordering::SeqCst)).other()
    }

    /// Makes the other colour the current one.
    pub(super) fn turn(&self) {
        self.0.fetch_xor(CURRENT, Ordering::SeqCst);
    }

    /// Whether all slots are back that were taken before the last turn.
    pub(super) fn others_are_back(&self) -> bool {
        let state = self.0.load(Ordering::SeqCst);
        Colour::current(state).other().count(state) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_both_colours_share_one_limit() {
        let pending = Pending::default();
        assert_eq!(pending.take(2), Some(Colour::Even));
        pending.turn();
        assert_eq!(pending.take(2), Some(Colour::Odd));
        assert_eq!(pending.take(2), None);
        assert_eq!(pending.count(), 2);
        pending.give_back(Colour::Even);
        assert_eq!(pending.take(2), Some(Colour::Odd));
        pending.give_all_back(&[Colour::Odd, Colour::Odd]);
        assert_eq!(pending.count(), 0);
    }

    #[test]
    fn the_others_are_back_when_none_is_out_that_was_taken_before_the_turn() {
        let pending = Pending::default();
        let before = pending.take(9).unwrap();
        assert!(pending.others_are_back());
        pending.turn();
        let _after = pending.take(9).unwrap();
        assert!(!pending.others_are_back());
        pending.give_back(before);
        assert!(pending.others_are_back());
        // The one that was taken after the first turn was taken before the second.
        pending.turn();
        assert!(!pending.others_are_back());
    }
}
