//! The way of a call: identify its account, admit it, forward it, count it once, answer it.
//!
//! Owns a request between the listener and the upstream; `call.rs` is the sentence. Must never
//! admit an unproven identity, forward without a permit, or answer an admitted call before its
//! record is durable.
//!
//! # Decided
//! - **No tower layer on the way of a call.** The upstream is one type with one method; a boxed
//!   service in front of it would have no second user. tower sheds load at the admin listener,
//!   where queries of the ledger can pile up.

mod body;
mod body_memory;
mod call;
mod context;
mod dialect;
mod forwarded;
mod forwarding;
mod operation;
mod own;
mod permit;
mod places;
mod refusal;
mod request;
mod state;

pub mod admission;
pub mod identity;
pub mod listener;
pub mod policy;
pub mod upstream;

pub use body::{ForwardBody, Relay, UPLOAD_BYTES_PER_SECOND, UPLOAD_GRACE};
pub use body_memory::SHARE as BODY_MEMORY_SHARE;
pub use context::{Client, RequestContext};
pub use dialect::Dialect;
pub use own::OwnRequest;
pub use places::{Place, Places};
pub use refusal::{REFUSALS, Refusal, RefusalRow, Retry, Sentence};
pub use state::{Proxy, Shared, counts};
