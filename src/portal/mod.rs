//! The customer's own endpoints on the public listener, with the customer's own credential.
//!
//! Owns which paths are the gate's own, and what they say. Must never take quota or make a record,
//! show another account, or keep a worker waiting for the disk.

mod front;
mod quota;

pub use front::Portal;
