//! The three YAML files -> typed values that hold nothing wrong; all mistakes at once.
//!
//! Owns the shape of `tollgate.yaml` ([`Settings`]), `catalog.yaml` ([`Catalog`]) and
//! `accounts.yaml` ([`Account`]), and the only use of `serde_yaml`. Must never decide anything
//! about a call, never keep state between two loads, and never show a secret.
//!
//! [`load()`] reads them. A file passes through two steps: text -> tree with places (`yaml`), tree ->
//! types (`reader`, `secret` and one module per file). A wrong value becomes a mistake and `None`,
//! and reading goes on: a check that needs a missing value is skipped, so that one slip makes one
//! mistake.
//!
//! # Decided
//! - **YAML is read into a tree with places first**: serde's derives stop at the first mistake,
//!   know no duplicate keys and lose the line.
//! - **Accounts are read in pieces when the file is written the usual way**: the parser holds every
//!   event of a document at once, twenty times the text. Whatever is found in a piece, the whole is
//!   read again to say it.

mod accounts;
mod catalog;
mod changed_licences;
mod changed_orders;
mod changed_upstreams;
mod changes;
mod load;
mod mistakes;
mod punctuation;
mod reader;
mod secret;
mod settings;
mod sources;
mod written;
mod yaml;

#[cfg(test)]
mod tests;

pub use accounts::{Account, Credential, Key, Service};
pub use load::{Config, load};
pub use mistakes::Mistakes;
pub use settings::{Endpoint, HealthSettings, ListenAddress, Listens, reference};

#[cfg(test)]
pub(crate) use accounts::{Adjustment, Payment};
pub(crate) use accounts::{LicenceKey, LicenceOrder};
pub(crate) use accounts::{MAX_DAYS, MAX_MONTHS, MAX_PACKS, Pack, Paid, QpsPurchase};
pub(crate) use catalog::{
    Catalog, Charging, Group, LicencePublicKey, LicenceSigningKey, LicenceTerms, MAX_QPS,
    PackPrice, PerCall, QpsPrice, Tier,
};
pub(crate) use changes::changes;
pub(crate) use load::{load_admin, load_watched};
pub(crate) use mistakes::{Mistake, told};
pub(crate) use settings::{
    AccessLogSettings, AccessLogTo, AdminSettings, DEFAULT_UPSTREAM, EventSettings, Limits,
    LoggedCalls, OutboxLogin, OutboxSettings, Settings, SigningKey, StoreSettings, StoreTopology,
    UpstreamSettings, WebhookUrl,
};
pub(crate) use sources::Sources;
pub(crate) use written::Written;
