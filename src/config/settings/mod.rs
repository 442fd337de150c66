//! `tollgate.yaml`: how this gate runs.
//!
//! Owns its keys: each is told once, in the table. Must never hold anything about what is sold or
//! to whom.

mod access_log;
mod access_log_rows;
mod addresses;
mod events;
mod listen;
mod listen_rows;
mod listens;
mod outbox;
mod outbox_rows;
mod read;
pub(in crate::config) mod restart;
mod section;
pub(in crate::config) mod setting;
mod store;
pub(in crate::config) mod table;
mod tls;
mod tls_rows;
mod types;
mod upstream_rows;
mod upstreams;

pub(in crate::config) use addresses::network;
pub use listens::{ListenAddress, Listens};
pub(in crate::config) use read::{Paths, read, read_admin};
pub use table::reference;
pub use types::{Endpoint, HealthSettings};

pub(crate) use types::{
    AccessLogSettings, AccessLogTo, AdminSettings, DEFAULT_UPSTREAM, EventSettings, LedgerSettings,
    Limits, LoggedCalls, OutboxCertificate, OutboxLogin, OutboxSettings, Settings, SigningKey,
    StoreSettings, StoreTopology, UpstreamSettings, WebhookUrl,
};
