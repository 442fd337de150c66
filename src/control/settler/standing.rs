//! The standing of an account that was debited, and when a change of it is told (R17).
//!
//! Pure. Must never tell the same change twice.

use crate::ledger::Told;
use crate::model::{AccountId, Utc};
use rust_decimal::Decimal;
use std::collections::HashMap;

/// What is known of an account that was debited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    /// Payments less debits.
    pub balance: Decimal,
    /// Whether that stopped its paid services.
    pub in_arrears: bool,
}

/// What was told of accounts, and which standing it was told by.
#[derive(Default)]
pub(super) struct ToldStandings {
    pub told: HashMap<AccountId, Told>,
    pub seen: HashMap<AccountId, Standing>,
}

/// Whether a balance that changed like this was at the threshold or above at some instant after
/// `since`, and is below it now. It begins with zero. `since`: when it was last told to be low.
pub(super) fn fell_below(
    mut changes: Vec<(Utc, Decimal)>,
    threshold: Decimal,
    since: Option<Utc>,
) -> bool {
    changes.sort_by_key(|(at, _)| *at);
    let (mut balance, mut was_there) = (Decimal::ZERO, false);
    for at_once in changes.chunk_by(|a, b| a.0 == b.0) {
        let at = at_once[0].0;
        // It was so until now.
        was_there |= balance >= threshold && since.is_none_or(|since| at > since);
        balance += at_once.iter().map(|(_, amount)| amount).sum::<Decimal>();
    }
    was_there && balance < threshold
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a balance that is looked at before and after every instant.
        #[test]
        fn a_balance_is_low_once_until_it_was_there_again(
            changes in prop::collection::vec((0_i64..12, -9_i64..10), 0..12),
            threshold in 1_i64..9,
            since in prop::option::of(0_i64..12),
        ) {
            let balance = |until: i64| changes.iter().filter(|(at, _)| *at <= until).map(|(_, n)| n).sum::<i64>();
            // The balance between two instants is the one after the former.
            let was_there = (-1..12).any(|at| {
                let ends = changes.iter().map(|(at, _)| *at).filter(|next| *next > at).min();
                balance(at) >= threshold && ends.is_some_and(|ends| since.is_none_or(|since| ends > since))
            });
            let exact = changes.iter().map(|(at, n)| (Utc(*at), Decimal::from(*n))).collect();
            prop_assert_eq!(
                fell_below(exact, threshold.into(), since.map(Utc)),
                was_there && balance(12) < threshold
            );
        }
    }
}
