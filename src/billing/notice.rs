//! The notices that tell an account that a pack runs out (R14).

use crate::model::{AccountId, Threshold};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// A notice that an account gets once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// `ACCOUNT/ORDER/PACK/low` or `.../exhausted`: the same whenever it is computed, so that
    /// nobody is told twice. Order ids are unique over all accounts and hold no `/`.
    pub id: String,
    /// The order.
    pub order: String,
    /// The number of the pack in the order, from 1 on.
    pub pack: u32,
    /// The pack's size.
    pub calls: u64,
    /// The threshold that was crossed.
    pub threshold: Threshold,
    /// The number of calls that are left in this pack.
    pub left: u64,
}

impl Notice {
    /// The id after the account.
    pub(crate) fn what(&self) -> &str {
        self.id.split_once('/').map_or(&self.id, |(_, what)| what)
    }
}

/// All thresholds that the packs of one order of `count` packs of `calls` have crossed when `used`
/// of it are used, oldest first. Packs of an order are used one after the other. Expiry raises
/// none.
pub(crate) fn notices(
    account: &AccountId,
    order: &str,
    calls: u64,
    count: u32,
    used: u64,
    notice_below: Decimal,
) -> Vec<Notice> {
    let mut notices = Vec::new();
    let mut used = used;
    for pack in 1..=count {
        if used == 0 || calls == 0 {
            break;
        }
        let left = calls.saturating_sub(used);
        used = used.saturating_sub(calls);
        let mut raise = |threshold| {
            notices.push(Notice {
                id: format!("{account}/{order}/{pack}/{threshold}"),
                order: order.to_owned(),
                pack,
                calls,
                threshold,
                left,
            });
        };
        // R14: under the share, not at it: 1,499 of 10,000 yes, 1,500 no.
        if left == 0 || Decimal::from(left) < crate::billing::ladder::times(notice_below, calls) {
            raise(Threshold::Low);
        }
        if left == 0 {
            raise(Threshold::Exhausted);
        }
    }
    notices
}
