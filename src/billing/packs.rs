//! Packs: when they cover, which is used first, what is left (R10-R12).
//!
//! One place for what is left of a pack: the statement, the metrics, the admin side and the
//! account's own page all ask here.
//!
//! # Decided
//! - **What is left of a pack is computed from the month's counts each time it is asked for**, by
//!   the function that makes the statement. A balance that is kept would be a second truth; an
//!   account's month is some thousand look-ups.

use crate::billing::PackOrder;
use crate::model::Utc;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How an order of packs stands at an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackState {
    /// It covers calls.
    Valid,
    /// It is not delivered yet.
    NotYet,
    /// All of it is used.
    Exhausted,
    /// The order has expired. The calls that were left are void (R11).
    Expired,
    /// It was paid back (R18).
    Refunded,
}

impl PackState {
    /// As in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::NotYet => "not_yet",
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::Refunded => "refunded",
        }
    }
}

impl fmt::Display for PackState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PackOrder {
    /// The calls of all its packs.
    pub fn granted(&self) -> u64 {
        self.calls.saturating_mul(u64::from(self.count))
    }

    /// It covers nothing from here on: expiry (R11), or the refund before it (R18).
    pub fn ends(&self) -> Utc {
        self.refunded
            .map_or(self.expires, |refunded| refunded.min(self.expires))
    }

    /// R11: a pack covers calls that are admitted in its validity, end excluded.
    pub fn covers(&self, at: Utc) -> bool {
        self.delivered <= at && at < self.ends()
    }

    /// How it stands at `at`, when `left` of it is left. A used up order stays `exhausted` after
    /// its end: nothing of it went void.
    pub fn state(&self, left: u64, at: Utc) -> PackState {
        if self
            .refunded
            .is_some_and(|refunded| refunded <= at && refunded <= self.expires)
        {
            PackState::Refunded
        } else if at < self.delivered {
            PackState::NotYet
        } else if left == 0 {
            PackState::Exhausted
        } else if self.expires <= at {
            PackState::Expired
        } else {
            PackState::Valid
        }
    }
}

/// The instants strictly inside `(from, until)` at which a pack begins or ends to cover calls:
/// between two of them, and only there, a count tells which packs paid. Ascending, each once.
pub(crate) fn boundaries(packs: &[PackOrder], from: Utc, until: Utc) -> Vec<Utc> {
    let mut instants: Vec<Utc> = packs
        .iter()
        .flat_map(|pack| [pack.delivered, pack.ends()])
        .filter(|at| from < *at && *at < until)
        .collect();
    instants.sort_unstable();
    instants.dedup();
    instants
}

/// The calls that are left in the pack in use of an order, and the size of that pack. The packs of
/// an order are used one after the other, so each notice is about a pack's own size (R14). `(0,
/// size)` when all are used.
pub(crate) fn pack_in_use(calls: u64, count: u32, used: u64) -> (u64, u64) {
    let left = calls.saturating_mul(u64::from(count)).saturating_sub(used);
    match left {
        0 => (0, calls),
        left => ((left - 1) % calls.max(1) + 1, calls),
    }
}

/// A month's per-call-mode calls on their way through free pack, packs and post-paid (R12).
pub(super) struct PackWalk<'a> {
    packs: &'a [PackOrder],
    /// Places in `packs`, in the order of use.
    order: Vec<usize>,
    /// Of the month's free pack.
    pub free_left: u64,
    /// By place in `packs`.
    pub left: Vec<u64>,
    /// The number of calls that neither covered.
    pub postpaid: u64,
}

impl<'a> PackWalk<'a> {
    /// R10: the free pack is whole in every month. It needs no word about stops and qps mode: in
    /// neither is a per-call-mode call admitted, so what is left waits by itself.
    pub(super) fn new(free_calls: u64, packs: &'a [PackOrder]) -> Self {
        let mut order: Vec<usize> = (0..packs.len()).collect();
        // R12: soonest expiry, then order of delivery; a stable sort leaves ties as in the file
        // (ours). A refund does not make a pack sooner: when the call came nobody knew of it.
        order.sort_by_key(|&place| packs.get(place).map(|pack| (pack.expires, pack.delivered)));
        Self {
            packs,
            order,
            free_left: free_calls,
            left: packs
                .iter()
                .map(|pack| pack.granted().saturating_sub(pack.used_before))
                .collect(),
            postpaid: 0,
        }
    }

    /// `calls` that were admitted at `at`, or from then on until the next [`boundaries`].
    pub(super) fn take(&mut self, at: Utc, mut calls: u64) {
        let mut draw = |left: &mut u64| {
            let drawn = calls.min(*left);
            *left -= drawn;
            calls -= drawn;
        };
        draw(&mut self.free_left);
        for &place in &self.order {
            if let (Some(pack), Some(left)) = (self.packs.get(place), self.left.get_mut(place))
                && pack.covers(at)
            {
                draw(left);
            }
        }
        self.postpaid = self.postpaid.saturating_add(calls);
    }

    /// The orders in the order of use, each with its place.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (usize, &'a PackOrder)> {
        let packs = self.packs;
        self.order
            .iter()
            .filter_map(move |&place| Some((place, packs.get(place)?)))
    }
}
