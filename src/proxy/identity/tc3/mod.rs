//! TC3-HMAC-SHA256, the vendor's signature (PROTOCOL §2).
//!
//! Must never build the signed text anew from parsed parameters: bytes count as received.

mod authorization;
mod claim;
mod hash;
mod signing_key;

pub use claim::claim;
pub use hash::BodyHash;

pub(crate) use authorization::is_older_method;
pub(crate) use claim::{Claim, WINDOW_SECONDS};
pub(crate) use hash::body_sha256;
pub(crate) use signing_key::{SigningKeys, SigningSecret};
