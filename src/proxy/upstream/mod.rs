//! Forward: one call over one connection to the upstream.
//!
//! Owns the pool of connections and the messages over them. Must never send anything twice that may
//! have been read, and never reuse a connection before both the request and its answer have ended.

mod answer;
mod dialer;
mod exchange;
mod failure;
mod pool;

pub(crate) use answer::{UpstreamAnswer, UpstreamBody};
pub(crate) use dialer::Dialer;
pub(crate) use exchange::{NotAnswered, UpstreamRequest};
pub(crate) use failure::UpstreamFailure;
pub(crate) use pool::{Keep, Upstream};
