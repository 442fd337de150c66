//! TC3-HMAC-SHA256, the vendor's signature (PROTOCOL §2).
//!
//! Must never build the signed text anew from parsed parameters: bytes count as received.

mod authorization;
mod claim;
mod hash;
mod signing_key;

pub use authorization::is_older_method;
pub use claim::{Claim, WINDOW_SECONDS, claim};
pub use hash::{BodyHash, body_sha256};
pub use signing_key::{SigningKeys, SigningSecret};
