//! The customer's own endpoints on the public listener. The customer's credential opens them.
//!
//! Owns which paths are answered here and not by the upstream, and what they say. Must never take
//! quota or make a record, show another account, or keep a worker waiting for the disk.

mod front;
mod quota;

pub(crate) use front::Portal;
