//! `accounts.yaml`: who bought what.
//!
//! Owns the shape of an account and the ends of what it bought. Must never say what a purchase is
//! worth now: that is decided against an instant, elsewhere.

mod keys;
mod licences;
mod read;
mod services;
mod taken;
mod types;

pub(in crate::config) use read::read;
pub(in crate::config) use taken::Taken;
pub use types::{Account, Credential, Key, Service};

pub(crate) use types::{
    Adjustment, LicenceKey, LicenceOrder, MAX_DAYS, MAX_MONTHS, MAX_PACKS, MAX_REFUND_DAYS, Pack,
    Paid, Payment, QpsPurchase, RefundRefused,
};
