//! The small shared types: the terms of the contract, time, and names.
//!
//! Owns what a word means in code. Must never import a room of ours, nor know of a policy, a file
//! or a socket: only the clock asks the system, for the time, and the look-up, for addresses.

mod background;
mod clock;
mod endpoint;
mod licence;
mod local;
mod lookup;
mod month;
mod network;
mod replica;
mod terms;
mod time;
mod tls;
mod tls_client;
mod tls_server;

pub use clock::{Clock, Mover};
pub use month::Month;
pub use terms::{
    AccountId, Action, Bill, Durability, EventType, Fund, GroupId, KeyId, Mode, Origin, Outcome,
    Reason, RequestId, Stop, Threshold, VERSION,
};
pub use time::{Mono, Utc};

pub(crate) use background::{run_low_priority, run_when_idle};
pub(crate) use clock::Timer;
pub(crate) use endpoint::Endpoint;
pub(crate) use licence::{LicenceKind, Package};
pub(crate) use local::Local;
pub(crate) use lookup::Host;
pub(crate) use network::{is_in, network};
pub(crate) use replica::{BILLS_ELSEWHERE, ONE_NATS_SERVER, ONE_REPLICAS_PART, PART_WITHOUT_STORE};
pub(crate) use terms::{BUILD, COMMIT, Period, RequestIdText, TierBasis};
pub use time::StoreStart;
pub(crate) use time::{LONGEST_BUDGET, LONGEST_DELAY};
pub(crate) use tls::{tls_config, tls_config_of, tls_connector};
pub(crate) use tls_client::{BadClientTls, ClientTls, certificate_name};
pub(crate) use tls_server::{BadCertificate, ServerCertificate, ServerTls};
