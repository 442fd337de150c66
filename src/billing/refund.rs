//! Whether an order of packs is paid back, and by which routes (R18).

use crate::billing::{PackOrder, money};
use crate::model::{Fund, Origin, Stop, Utc};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rust_decimal::Decimal;

/// The days after that of delivery on which an order is paid back, unless it says otherwise (R18).
const REFUND_DAYS: u16 = 7;

/// The answer to a refund that somebody asks for. That the provider may refuse suspected abuse all
/// the same is a decision of people, which stands on the order (R18).
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
        /// The days after that of delivery: the order's own, or those of the contract.
        days: u16,
    },
    /// It is not.
    No {
        /// Why.
        reason: NotRefundable,
    },
}

/// Why an order is not paid back: the first of these that holds, those that no waiting mends first
/// (ours).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NotRefundable {
    /// It is no order of packs.
    #[error("R18: the order is a QPS purchase, which is not paid back")]
    QpsPurchase,
    /// It was, already.
    #[error("R18: the order was paid back already")]
    Refunded,
    /// It will be: `refunded` is entered, and lies ahead.
    #[error("R18: the order is entered to be paid back already: `refunded` lies ahead")]
    RefundAhead,
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
    /// The provider has decided so: `refund_refused` on the order.
    #[error("R18: the provider has refused it ({by}): {reason}")]
    Refused {
        /// Why.
        reason: String,
        /// Who decided it.
        by: String,
    },
    /// The last day on which it is paid back is over.
    #[error("R18: the order could be paid back within {days} days of its delivery; they are over")]
    TooLate {
        /// The first instant that was too late.
        until: Utc,
        /// The number of days.
        days: u16,
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
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::QpsPurchase => "qps_purchase",
            Self::Refunded => "refunded",
            Self::RefundAhead => "refund_ahead",
            Self::NotBought => "not_bought",
            Self::PromotionRule => "promotion_rule",
            Self::Used { .. } => "used",
            Self::Refused { .. } => "refused",
            Self::TooLate { .. } => "too_late",
            Self::Violation => "violation",
            Self::Stopped(_) => "stopped",
        }
    }
}

/// What an order says of its own refund (R18).
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct RefundRule<'r> {
    /// `refundable: false`: its promotion excludes refunds.
    pub excluded: bool,
    /// `refund_days`: the days of its promotion.
    pub days: Option<u16>,
    /// `refund_refused`: the reason, and who decided it.
    pub refused: Option<(&'r str, &'r str)>,
}

/// How the service of an order stands now (R18).
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Standing {
    /// Why it is stopped.
    pub stopped: Option<Stop>,
    /// Whether any service of the account is stopped for a violation.
    pub violation: bool,
}

/// Answers for `order`, of which `used` calls were ever used. QPS purchases are never paid back
/// (R18), so they do not come here.
pub(crate) fn refund(
    order: &PackOrder,
    used: u64,
    standing: Standing,
    rule: RefundRule<'_>,
    zone: &TimeZone,
    now: Utc,
) -> Refund {
    let days = rule.days.unwrap_or(REFUND_DAYS);
    let until = refundable_until(order.delivered, days, zone);
    // A refund of a used order does not count (R18), wherever it was written.
    let refunded = order.refunded.filter(|_| used == 0);
    let reason = if let Some(at) = refunded {
        Some(match at <= now {
            true => NotRefundable::Refunded,
            false => NotRefundable::RefundAhead,
        })
    } else if !bought(order) {
        Some(NotRefundable::NotBought)
    } else if rule.excluded {
        Some(NotRefundable::PromotionRule)
    } else if used > 0 {
        Some(NotRefundable::Used { used })
    } else if let Some((reason, by)) = rule.refused {
        let (reason, by) = (reason.to_owned(), by.to_owned());
        Some(NotRefundable::Refused { reason, by })
    } else if now >= until {
        Some(NotRefundable::TooLate { until, days })
    } else if standing.violation {
        Some(NotRefundable::Violation)
    } else {
        standing.stopped.map(NotRefundable::Stopped)
    };
    match reason {
        Some(reason) => Refund::No { reason },
        None => {
            let back: Vec<(Fund, Decimal)> = paid_back(&order.paid).collect();
            Refund::Yes {
                total: sum(back.iter().map(|(_, amount)| *amount)),
                back,
                until,
                days,
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

/// The day of delivery is not counted, and the last of the days after it counts to its end, local
/// time (R18).
fn refundable_until(delivered: Utc, days: u16, zone: &TimeZone) -> Utc {
    let until = Timestamp::from_microsecond(delivered.0)
        .map(|delivered| delivered.to_zoned_datetime(zone.clone()).date())
        .and_then(|date| date.checked_add(Span::new().days(i64::from(days) + 1)))
        .and_then(|date| date.to_zoned_datetime(zone.clone()));
    match until {
        Ok(until) => Utc(until.timestamp().as_microsecond()),
        // No calendar reaches there; nothing that was delivered there can be asked about.
        Err(_) => delivered,
    }
}
