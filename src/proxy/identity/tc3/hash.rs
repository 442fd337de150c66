//! The hash of a body, which a signature covers.

use sha2::{Digest, Sha256};
use std::fmt;

/// The SHA-256 of a body that is there.
pub(crate) fn body_sha256(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// Hashes a body while it arrives: a large one hashed at once would hold up its thread's other
/// calls.
#[derive(Clone, Default)]
pub struct BodyHash(Sha256);

impl BodyHash {
    /// Of the body so far: nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes, after transfer decoding.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The SHA-256 of all that was taken.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodyHash(..)")
    }
}

/// The lowercase hexadecimal digits of a hash.
pub(super) fn hex_text(bytes: &[u8; 32]) -> [u8; 64] {
    let mut text = [0; 64];
    hex::encode_to_slice(bytes, &mut text).expect("32 bytes are 64 digits");
    text
}
