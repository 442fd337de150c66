//! Forward: one call over one connection to the upstream.
//!
//! Owns the pool of connections and what is said over them. Must never send anything twice that may
//! have been read, and never reuse a connection before both the request and its answer have ended.

mod dialer;
mod pool;

pub use dialer::Dialer;
pub use pool::{
    Keep, NotAnswered, Upstream, UpstreamAnswer, UpstreamBody, UpstreamConnection, UpstreamFailure,
    UpstreamRequest,
};
