//! The post-paid ladder: which tier a month reached, and what its calls cost (R13).

use crate::billing::PriceTerms;
use crate::model::TierBasis;
use rust_decimal::{Decimal, RoundingStrategy};

/// The price of a month's post-paid calls.
pub(super) struct Price {
    /// The calls that decided the tier.
    pub tier_calls: u64,
    /// The number of calls at which that tier begins.
    pub tier_from: u64,
    /// The price of one call.
    pub unit_price: Decimal,
    /// The amount, rounded once.
    pub amount: Decimal,
}

/// R13, *tier reached*: all post-paid calls at the unit price of the one tier that the month's
/// calls reach.
pub(super) fn price(terms: &PriceTerms, billable: u64, postpaid: u64) -> Price {
    let tier_calls = match terms.tier_basis {
        TierBasis::AllCalls => billable,
        TierBasis::PostpaidCalls => postpaid,
    };
    let reached = terms.tiers.iter().rfind(|(from, _)| *from <= tier_calls);
    // A catalogue's ladder begins at 0, so that there always is one.
    let (tier_from, unit_price) = reached.copied().unwrap_or((0, Decimal::ZERO));
    Price {
        tier_calls,
        tier_from,
        unit_price,
        amount: rounded(times(unit_price, postpaid)),
    }
}

/// Exact within the catalogue's bounds; beyond them the largest amount there is, never a panic.
pub(super) fn times(price: Decimal, calls: u64) -> Decimal {
    price
        .checked_mul(Decimal::from(calls))
        .unwrap_or(Decimal::MAX)
}

/// To the fen, half up, always with two decimals (R13, ours). Amounts due are never negative.
pub(super) fn rounded(exact: Decimal) -> Decimal {
    let mut amount = exact.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero);
    amount.rescale(2);
    amount
}
