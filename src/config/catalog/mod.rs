//! `catalog.yaml`: what is sold. The contract as data.
//!
//! Owns the shape of the offer. Must never hold a price, cap or size of its own (CONTRACT, head).

mod charging;
mod licences;
mod read;
mod types;

pub(crate) use licences::{LicencePublicKey, LicenceSigningKey, LicenceTerms};
pub(in crate::config) use read::{Reading, read};
pub(crate) use types::{
    ActionSpec, Catalog, Charging, Group, MAX_QPS, PackPrice, PerCall, QpsPrice, Route, Tier,
};
