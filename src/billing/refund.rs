//! Whether an order of packs is paid back, and by which routes (R18).

use crate::billing::{PackOrder, money};
use crate::model::{Fund, Origin, Stop, Utc};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rust_decimal::Decimal;

/// The days after that of delivery on which an order is paid back (R18).
const REFUND_DAYS: i64 = 7;

/// The answer to a refund that somebody asks for. That the provider may refuse suspected abuse all
/// the same is a decision of people, and no rule here (R18).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refund {
    /// It is paid back in full.
    Yes {
        /// Fund by fund, as it was paid: cash, income and gift balance only.
        back: Vec<(Fund, Decimal)>,
        /// Their sum.
        total: Decimal,
        /// The first instant that is too late.
        until: Utc,
    },
    /// It is not.
    No {
        /// Why.
        reason: NotRefundable,
    },
}

/// Why an order is not paid back: the first of these that holds, those that no waiting mends first
/// (ours).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NotRefundable {
    /// It is no order of packs.
    #[error("R18: the order is a QPS purchase, which is not paid back")]
    QpsPurchase,
    /// It was, already.
    #[error("R18: the order was paid back already")]
    Refunded,
    /// It was free, or the gift of a promotion.
    #[error("R18: only what was bought is paid back, and this order was not")]
    NotBought,
    /// `refundable: false` on the order.
    #[error("R18: the order is from a promotion whose own rule excludes refunds")]
    PromotionRule,
    /// Something of it was used.
    #[error("R18: {used} calls of the order are used, and only an unused one is paid back")]
    Used {
        /// The number of calls.
        used: u64,
    },
    /// The seventh day after delivery is over.
    #[error(
        "R18: the order could be paid back within {REFUND_DAYS} days of its delivery; they are over"
    )]
    TooLate {
        /// The first instant that was too late.
        until: Utc,
    },
    /// Some service of the account is stopped for a violation.
    #[error("R18: no pack of an account that is stopped for a violation is paid back")]
    Violation,
    /// The service is stopped.
    #[error("R18: nothing is paid back while the service is stopped ({0})")]
    Stopped(Stop),
}

impl NotRefundable {
    /// As in JSON.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::QpsPurchase => "qps_purchase",
            Self::Refunded => "refunded",
            Self::NotBought => "not_bought",
            Self::PromotionRule => "promotion_rule",
            Self::Used { .. } => "used",
            Self::TooLate { .. } => "too_late",
            Self::Violation => "violation",
            Self::Stopped(_) => "stopped",
        }
    }
}

/// Answers for `order`, of which `used` calls were ever used. `standing`: that of its service now.
/// `violation`: whether any service of the account is stopped for one. `refundable`: the order's
/// own flag. QPS purchases are never paid back (R18), so they do not come here.
pub(crate) fn refund(
    order: &PackOrder,
    used: u64,
    standing: Option<Stop>,
    violation: bool,
    refundable: bool,
    zone: &TimeZone,
    now: Utc,
) -> Refund {
    let until = refundable_until(order.delivered, zone);
    let reason = if order.refunded.is_some() {
        Some(NotRefundable::Refunded)
    } else if !bought(order) {
        Some(NotRefundable::NotBought)
    } else if !refundable {
        Some(NotRefundable::PromotionRule)
    } else if used > 0 {
        Some(NotRefundable::Used { used })
    } else if now >= until {
        Some(NotRefundable::TooLate { until })
    } else if violation {
        Some(NotRefundable::Violation)
    } else {
        standing.map(NotRefundable::Stopped)
    };
    match reason {
        Some(reason) => Refund::No { reason },
        None => {
            let back: Vec<(Fund, Decimal)> = paid_back(&order.paid).collect();
            Refund::Yes {
                total: sum(back.iter().map(|(_, amount)| *amount)),
                back,
                until,
            }
        }
    }
}

/// R18: what the funds that are paid back gave; deductions and vouchers are not.
pub(super) fn paid_back(paid: &[(Fund, Decimal)]) -> impl Iterator<Item = (Fund, Decimal)> {
    let back = paid.iter().filter(|(fund, _)| match fund {
        Fund::Cash | Fund::Income | Fund::Gift => true,
        Fund::Deduction | Fund::Voucher => false,
    });
    back.map(|(fund, amount)| (*fund, money(*amount)))
}

/// Never a panic; the files bound amounts far below where this would stop adding.
pub(super) fn sum(amounts: impl IntoIterator<Item = Decimal>) -> Decimal {
    let amounts = amounts.into_iter();
    money(amounts.fold(Decimal::ZERO, Decimal::saturating_add))
}

/// A promotion's pack that something was paid for was bought; one for nothing is its gift (R18).
fn bought(order: &PackOrder) -> bool {
    match order.origin {
        Origin::Bought => true,
        Origin::Promotion => order.paid.iter().any(|(_, amount)| !amount.is_zero()),
        Origin::Gift => false,
    }
}

/// The day of delivery is not counted, and the seventh after it counts to its end, local time
/// (R18).
fn refundable_until(delivered: Utc, zone: &TimeZone) -> Utc {
    let until = Timestamp::from_microsecond(delivered.0)
        .map(|delivered| delivered.to_zoned_datetime(zone.clone()).date())
        .and_then(|date| date.checked_add(Span::new().days(REFUND_DAYS + 1)))
        .and_then(|date| date.to_zoned_datetime(zone.clone()));
    match until {
        Ok(until) => Utc(until.timestamp().as_microsecond()),
        // No calendar reaches there; nothing that was delivered there can be asked about.
        Err(_) => delivered,
    }
}
