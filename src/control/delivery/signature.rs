//! The signature of an event, as the Standard Webhooks specification says.
//!
//! Must never show a key.

use crate::config::SigningKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;

/// The keys that sign: one, or two during a rotation.
pub(super) struct Signer(Vec<SigningKey>);

impl Signer {
    pub(super) fn new(keys: Vec<SigningKey>) -> Self {
        Self(keys)
    }

    /// The value of `webhook-signature` for an attempt at that second: a signature by each key,
    /// with a space between.
    pub(super) fn sign(&self, id: &str, seconds: i64, body: &str) -> String {
        let signed = format!("{id}.{seconds}.{body}");
        let signatures: Vec<String> = self
            .0
            .iter()
            .map(|key| {
                let mac = Hmac::<Sha256>::new_from_slice(key.expose_secret());
                let mac = mac.expect("HMAC takes a key of any length");
                let mac = mac.chain_update(signed.as_bytes());
                format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
            })
            .collect();
        signatures.join(" ")
    }
}
