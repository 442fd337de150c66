//! What is written down about one admitted call, and whether it is billable.
//!
//! Pure. Must never know where records are kept.

use crate::model::{
    AccountId, Action, Bill, GroupId, KeyId, Mode, Mono, Outcome, Reason, RequestId, StoreStart,
    Utc,
};
use std::time::Duration;

/// One admitted call, settled. Throttled and refused calls never become one (R7, R9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The `X-Request-Id` that the client and the upstream also get.
    pub id: RequestId,
    /// The account that called.
    pub account: AccountId,
    /// The credential that proved it.
    pub key: KeyId,
    /// The group of the action. Its actions share a cap and a meter.
    pub group: GroupId,
    /// The action that was called.
    pub action: Action,
    /// The mode in force at the admission (R3).
    pub mode: Mode,
    /// The wall clock at the start.
    pub admitted_at: Utc,
    /// The start on the monotonic clock, to which the cap applies (P1).
    pub start: Mono,
    /// The start on the clock of the shared store that decided it; `None` when this machine did.
    pub store_start: Option<StoreStart>,
    /// How the call ended.
    pub outcome: Outcome,
    /// The upstream's status, also when the client had gone by then; `None` when it gave no answer.
    pub status: Option<u16>,
    /// Why it is not billable, or [`Reason::Billable`], from [`billable`]. There is no flag beside
    /// it, so the two cannot disagree.
    pub reason: Reason,
    /// The time from the start to the end of the call.
    pub duration: Duration,
}

impl Record {
    /// Whether the biller may count this call.
    pub fn billable(&self) -> bool {
        self.reason == Reason::Billable
    }

    /// The same call when tollgate could not count it in time: nothing of it is billed, and the
    /// status is gone because the client never got that answer.
    pub(crate) fn into_gate_failed(self) -> Self {
        Self {
            outcome: Outcome::GateFailed,
            status: None,
            reason: Reason::GateFailed,
            ..self
        }
    }
}

/// Whether a call is billable, and if not, why (R8). `vetoed`: the upstream said
/// `x-tollgate-billable: false`.
///
/// A call that tollgate itself failed is never billed, nor is one of a free group (R2). `bill:
/// admitted` bills all the rest. `bill: served` bills an answer below 500 that was not vetoed, also
/// when the client hung up after its request had been sent whole, because the work was done (R8).
/// By 408, 421, 425 and 429 the upstream says that it did no work and wants to be asked again. In
/// qps mode `Billable` means that the call was inside what the quota paid for; what a call costs is
/// the biller's affair (R5).
pub(crate) fn billable(
    bill: Bill,
    mode: Mode,
    outcome: Outcome,
    status: Option<u16>,
    vetoed: bool,
) -> Reason {
    match (bill, outcome) {
        (_, Outcome::GateFailed) => Reason::GateFailed,
        _ if mode == Mode::Free => Reason::Free,
        (Bill::Admitted, _) => Reason::Billable,
        (Bill::Served, Outcome::UpstreamFailed) => Reason::UpstreamFailed,
        (Bill::Served, Outcome::ClientIncomplete) => Reason::ClientIncomplete,
        (Bill::Served, Outcome::Answered | Outcome::ClientClosed) => match status {
            // Nothing is billed that cannot be shown to have been served.
            None => Reason::UpstreamFailed,
            Some(status) if status >= 500 => Reason::ServerError,
            Some(408 | 421 | 425 | 429) => Reason::NotServed,
            Some(_) if vetoed => Reason::Vetoed,
            Some(_) => Reason::Billable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUSES: [Option<u16>; 11] = [
        None,
        Some(200),
        Some(302),
        Some(404),
        Some(408),
        Some(421),
        Some(425),
        Some(429),
        Some(499),
        Some(500),
        Some(503),
    ];

    /// R8 written out once more as a table, row by row, first match wins.
    fn by_the_book(
        bill: Bill,
        mode: Mode,
        outcome: Outcome,
        status: Option<u16>,
        vetoed: bool,
    ) -> Reason {
        let below_500 = !matches!(status, Some(500 | 503));
        let wants_a_retry = matches!(status, Some(408 | 421 | 425 | 429));
        let table = [
            (outcome == Outcome::GateFailed, Reason::GateFailed),
            (mode == Mode::Free, Reason::Free),
            (bill == Bill::Admitted, Reason::Billable),
            (
                outcome == Outcome::ClientIncomplete,
                Reason::ClientIncomplete,
            ),
            (outcome == Outcome::UpstreamFailed, Reason::UpstreamFailed),
            (status.is_none(), Reason::UpstreamFailed),
            (!below_500, Reason::ServerError),
            (wants_a_retry, Reason::NotServed),
            (vetoed, Reason::Vetoed),
            (true, Reason::Billable),
        ];
        table
            .into_iter()
            .find(|(holds, _)| *holds)
            .expect("the last row always holds")
            .1
    }

    #[test]
    fn every_combination_is_billed_as_the_design_says() {
        let mut combinations = 0;
        for &bill in Bill::ALL {
            for &mode in Mode::ALL {
                for &outcome in Outcome::ALL {
                    for status in STATUSES {
                        for vetoed in [false, true] {
                            assert_eq!(
                                billable(bill, mode, outcome, status, vetoed),
                                by_the_book(bill, mode, outcome, status, vetoed),
                                "{bill} {mode} {outcome} {status:?} vetoed={vetoed}"
                            );
                            combinations += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(combinations, 2 * 3 * 5 * 11 * 2);
    }

    #[test]
    fn an_answer_is_billed_unless_it_is_a_server_error_asks_for_a_retry_or_is_vetoed() {
        let served = |status, vetoed| {
            billable(
                Bill::Served,
                Mode::PerCall,
                Outcome::Answered,
                status,
                vetoed,
            )
        };
        assert_eq!(served(Some(200), false), Reason::Billable);
        assert_eq!(served(Some(499), false), Reason::Billable);
        assert_eq!(served(Some(429), false), Reason::NotServed);
        assert_eq!(served(Some(500), false), Reason::ServerError);
        assert_eq!(served(Some(200), true), Reason::Vetoed);
        assert_eq!(served(Some(500), true), Reason::ServerError);
        assert_eq!(served(None, false), Reason::UpstreamFailed);
    }

    #[test]
    fn a_client_that_hangs_up_pays_only_for_what_was_sent_whole_and_served() {
        let hung_up = |outcome, status, vetoed| {
            billable(Bill::Served, Mode::PerCall, outcome, status, vetoed)
        };
        let closed = Outcome::ClientClosed;
        assert_eq!(hung_up(closed, Some(200), false), Reason::Billable);
        assert_eq!(hung_up(closed, Some(500), false), Reason::ServerError);
        assert_eq!(hung_up(closed, Some(200), true), Reason::Vetoed);
        assert_eq!(hung_up(closed, None, false), Reason::UpstreamFailed);
        let incomplete = hung_up(Outcome::ClientIncomplete, None, false);
        assert_eq!(incomplete, Reason::ClientIncomplete);
    }

    #[test]
    fn what_the_gate_failed_and_what_is_free_is_never_billed_under_either_rule() {
        for &bill in Bill::ALL {
            for &mode in Mode::ALL {
                let failed = billable(bill, mode, Outcome::GateFailed, Some(200), false);
                assert_eq!(failed, Reason::GateFailed);
            }
            for &outcome in Outcome::ALL {
                let free = billable(bill, Mode::Free, outcome, Some(200), false);
                assert_ne!(free, Reason::Billable);
            }
        }
    }
}
