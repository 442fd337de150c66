//! Forward: one call to one server of its upstream.
//!
//! An *upstream* has endpoints, as the settings name them; an *endpoint* has servers, one for each
//! address of its name. Owns the choice of the server, what is known of each, the pools of
//! connections, the bound of all of them, and the messages over them. Must never send anything twice that may have been read,
//! and never reuse a connection before both the request and its answer have ended.

mod answer;
mod attend;
mod balance;
mod exchange;
mod failure;
mod health;
mod link;
mod named;
mod pool;
mod pools;
mod resolved;
mod sending;
mod server;
mod total;
mod upstreams;

pub use upstreams::Upstreams;

pub(crate) use answer::{UpstreamAnswer, UpstreamBody};
pub(crate) use exchange::UpstreamRequest;
pub(crate) use failure::UpstreamFailure;
pub(crate) use named::{InFlight, Upstream};
pub(crate) use sending::Sending;
pub(crate) use total::CHECKS_AT_ONCE;
pub(crate) use upstreams::{ToldEndpoint, ToldServer, ToldUpstream};
