//! The shape of `catalog.yaml`: what is sold.
//!
//! Must hold no price, cap or size of its own (CONTRACT, head).

use crate::config::catalog::LicenceTerms;
use crate::model::{Action, Bill, GroupId, TierBasis};
use http::Method;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

/// No cap, quota or purchase is above this many calls per second.
pub(crate) const MAX_QPS: u32 = 1_000_000;
/// The whole of `catalog.yaml`.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The provider's zone: months, days and the ends of periods are told by it (R11, R15, R16).
    /// A whole number of hours from UTC at every start of a month from 2020 to 2100.
    pub time_zone: TimeZone,
    /// Three capital letters.
    pub currency: String,
    /// Services accepted in the scope of a TC3 signature; not empty.
    pub services: Vec<String>,
    /// Versions accepted in `X-TC-Version`; not empty.
    pub versions: Vec<String>,
    /// Host names that a client may have signed instead of the one it sends (PROTOCOL §2).
    pub host_aliases: Vec<String>,
    /// Which admitted calls are billable.
    pub bill: Bill,
    /// The day of the month at whose begin the month before is debited (R16); 1 to 28.
    pub settle_day: u8,
    /// In the order of the file; not empty. No action and no route occurs twice in all of them.
    pub groups: Vec<Group>,
    /// Licences for client apps (R19); `None`: none are sold.
    pub licences: Option<LicenceTerms>,
}

impl Catalog {
    /// Whether a group or an action names this upstream.
    pub(in crate::config) fn names(&self, upstream: &str) -> bool {
        let mut actions = self.groups.iter().flat_map(|group| &group.actions);
        actions.any(|spec| spec.upstream.as_deref() == Some(upstream))
    }
}

/// Actions that share one cap, one meter and one price ladder (R1, R2).
#[derive(Clone, Debug)]
pub struct Group {
    /// Its key.
    pub id: GroupId,
    /// Its name for people.
    pub title: String,
    /// The same in English; the title where none is written.
    pub title_en: String,
    /// Accepted values of `X-TC-Region`; empty: not asked for and not checked.
    pub regions: Vec<String>,
    /// Not empty.
    pub actions: Vec<ActionSpec>,
    /// The charging of its calls.
    pub charging: Charging,
}

/// One API operation and how it is reached.
#[derive(Clone, Debug)]
pub struct ActionSpec {
    /// As `X-TC-Action` spells it.
    pub action: Action,
    /// `None`: only by `X-TC-Action`.
    pub route: Option<Route>,
    /// The upstream that its calls go to, which the action names, or else its group; `None`: the
    /// default one.
    pub upstream: Option<String>,
}

/// How plain HTTP names an action.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Route {
    /// GET, POST, PUT, PATCH or DELETE.
    pub method: Method,
    /// Begins with `/` and has more; compared exactly.
    pub path: String,
}

/// What the calls of a group cost.
#[derive(Clone, Debug)]
pub enum Charging {
    /// By one of two modes, of the account's choice (R3).
    Paid {
        /// The terms of `mode: per_call`.
        per_call: PerCall,
        /// The price ladder of `mode: qps` (R15); ascending from 1.
        qps: Vec<QpsPrice>,
    },
    /// Nothing (R2).
    Free {
        /// The cap of each action; 1 to 1,000,000.
        qps_per_action: u32,
    },
}

/// The terms of per-call mode.
#[derive(Clone, Debug)]
pub struct PerCall {
    /// The group's cap (R4); 1 to 1,000,000.
    pub qps: u32,
    /// The monthly free pack (R10); may be zero.
    pub free_calls: u64,
    /// Which calls decide the tier (R13).
    pub tier_basis: TierBasis,
    /// The post-paid ladder (R13); ascending from 0.
    pub tiers: Vec<Tier>,
    /// The prepaid packs on sale (R11); sizes differ.
    pub packs: Vec<PackPrice>,
    /// Validity of a pack (R11); 1 to 120.
    pub pack_months: u32,
    /// The share of a pack below which a notice is raised (R14); between 0 and 1.
    pub notice_below: Decimal,
}

/// One tier of the post-paid ladder.
#[derive(Clone, Debug)]
pub struct Tier {
    /// The tier holds from this many calls a month on.
    pub from: u64,
    /// For one call; above zero.
    pub price: Decimal,
}

/// A prepaid pack on sale.
#[derive(Clone, Debug)]
pub struct PackPrice {
    /// Its size; above zero.
    pub calls: u64,
    /// For the whole pack; above zero.
    pub price: Decimal,
}

/// One step of the QPS price ladder: the whole purchase at the price of its own size (R15).
#[derive(Clone, Debug)]
pub struct QpsPrice {
    /// The step holds from this quota on.
    pub from: u32,
    /// For one QPS for one month; above zero.
    pub month: Decimal,
    /// For one QPS for one day; above zero.
    pub day: Decimal,
}
