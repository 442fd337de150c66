//! The way of a call: identify its account, admit it, forward it, count it once, answer it.
//!
//! Owns a request between the listener and the upstream; `call.rs` is the sentence. Must never
//! admit an unproven identity, forward without a permit, or answer an admitted call before its
//! record is durable.
//!
//! # Decided
//! - **No tower layer on the way of a call.** The upstream is one type with one method; a boxed
//!   service in front of it would have no second user. The admin listener has tower, which sheds
//!   load where queries of the ledger can pile up.

mod access_log;
mod arrival;
mod body;
mod body_memory;
mod call;
mod client;
mod connection;
mod context;
mod decisions;
mod dialect;
mod forwarded;
mod forwarding;
mod handshakes;
mod licence;
mod operation;
mod own;
mod permit;
mod places;
mod progress;
mod question;
mod rate_lines;
mod refusal;
mod request;
mod retry;
mod sentence;
mod standing;
mod state;
mod streams;
mod turned_away;
mod worker;

pub(crate) mod admission;
pub(crate) mod front;
pub(crate) mod identity;
pub(crate) mod listener;
pub(crate) mod policy;
pub(crate) mod sockets;
pub(crate) mod upstream;

pub use body::{UPLOAD_BYTES_PER_SECOND, UPLOAD_GRACE};
pub use refusal::REFUSALS;
pub use retry::Retry;

pub(crate) use access_log::AccessLog;
pub(crate) use body::{OwnBody, Relay};
pub(crate) use client::Client;
pub(crate) use handshakes::Handshakes;
pub(crate) use licence::LicenceRefusal;
pub(crate) use own::{Asked, LicenceClaimant, OwnRequest};
pub(crate) use places::Place;
pub(crate) use question::{BadQuestion, CursorText};
pub(crate) use refusal::Refusal;
pub(crate) use standing::{CollectedBooks, CollectedStanding};
pub(crate) use state::{Proxy, Shared, counts};
pub(crate) use turned_away::THROTTLED;
pub(crate) use worker::Worker;
