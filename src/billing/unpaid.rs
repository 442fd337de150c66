//! How old the unpaid part of an account's debits is, and what share of an order is not earned yet.
//!
//! Pure: no clock, no I/O.

use crate::model::Utc;
use rust_decimal::{Decimal, RoundingStrategy};

const DAY_US: i64 = 24 * 3_600_000_000;

/// The ages that debits are told in: their names, and the first day of each.
pub(crate) const AGES: [(&str, i64); 4] = [
    ("0-30 days", 0),
    ("31-60 days", 31),
    ("61-90 days", 61),
    ("over 90 days", 91),
];

/// What of the debits is not covered by `credit`, by age, in the order of [`AGES`]. The oldest
/// debit is covered first. A debit below zero is a credit, whenever it was made.
pub(crate) fn by_age(debits: &[(Utc, Decimal)], credit: Decimal, now: Utc) -> [Decimal; 4] {
    let back: Decimal = debits
        .iter()
        .map(|(_, due)| (-due).max(Decimal::ZERO))
        .sum();
    let mut left = credit + back;
    let mut charges: Vec<_> = debits
        .iter()
        .filter(|(_, due)| *due > Decimal::ZERO)
        .collect();
    charges.sort_by_key(|(at, _)| *at);
    let mut ages = [Decimal::ZERO; 4];
    for (at, due) in charges {
        // A balance that was below zero before the first debit adds to the oldest.
        let unpaid = (due - left).max(Decimal::ZERO);
        left = (left - due).max(Decimal::ZERO);
        let days = now.0.saturating_sub(at.0) / DAY_US;
        let age = AGES.iter().rposition(|(_, first)| days >= *first);
        ages[age.unwrap_or(0)] += unpaid;
    }
    ages
}

/// The share of what was `paid` that belongs to `left` of `size` calls, rounded half up to the fen.
pub(crate) fn share(paid: Decimal, left: u64, size: u64) -> Decimal {
    match Decimal::from(left).checked_div(Decimal::from(size)) {
        Some(part) if left < size => {
            (paid * part).round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero)
        }
        _ => paid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn money(fen: i64) -> Decimal {
        Decimal::new(fen, 2)
    }

    proptest! {
        /// Fen by fen: each credited fen covers one of the oldest debit that is not covered.
        #[test]
        fn what_is_unpaid_is_what_a_count_fen_by_fen_leaves(
            debits in prop::collection::vec((0_i64..200, -40_i64..60), 0..8),
            credit in 0_i64..200,
        ) {
            let now = Utc(200 * DAY_US);
            let dated: Vec<_> = debits.iter().map(|(age, fen)| (Utc(now.0 - age * DAY_US), money(*fen))).collect();
            let mut fens: Vec<i64> = debits.iter().filter(|(_, fen)| *fen > 0)
                .flat_map(|(age, fen)| std::iter::repeat_n(*age, usize::try_from(*fen).unwrap())).collect();
            fens.sort_unstable_by_key(|age| -age);
            let back: i64 = debits.iter().map(|(_, fen)| (-fen).max(0)).sum();
            let unpaid = fens.into_iter().skip(usize::try_from(credit + back).unwrap());
            let mut expected = [0; 4];
            for age in unpaid {
                let bucket = match age { 0..31 => 0, 31..61 => 1, 61..91 => 2, _ => 3 };
                expected[bucket] += 1;
            }
            prop_assert_eq!(by_age(&dated, money(credit), now), expected.map(money));
        }
    }

    #[test]
    fn the_unearned_share_is_rounded_once_half_up_and_never_more_than_was_paid() {
        let share = |paid, left, size| {
            let share = share(money(paid), left, size);
            format!("{share:.2}")
        };
        assert_eq!(share(8_800, 10_000, 10_000), "88.00");
        assert_eq!(share(8_800, 1, 10_000), "0.01");
        assert_eq!(share(8_800, 0, 10_000), "0.00");
        assert_eq!(share(1, 1, 2), "0.01");
        assert_eq!(share(1, 1, 0), "0.01");
    }
}
