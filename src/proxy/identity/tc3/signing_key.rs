//! The signing keys of a secret key (PROTOCOL §2): one for each UTC day and service.
//!
//! Owns how a key is derived, and how long a derived key is held. Must never show a key.

use crate::proxy::identity::tc3::authorization::TERMINATOR;
use arc_swap::ArcSwapOption;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use std::fmt;

/// A TC3 secret key as it was given to the customer, with what was derived of it. `Debug` shows
/// nothing.
#[derive(Clone, Copy)]
pub struct SigningSecret<'a> {
    /// The key, as the settings have it.
    pub secret_key: &'a SecretString,
    /// Belongs to this key alone.
    pub signing_keys: &'a SigningKeys,
}

/// The signing keys of one secret key: that of a (UTC day, service) is derived at its first use and
/// kept while it can be needed again. Empty until then: most of many customers do not call on a
/// given day. `Debug` shows nothing.
#[derive(Default)]
pub struct SigningKeys(pub(super) ArcSwapOption<Vec<SigningKey>>);

#[derive(Clone)]
pub(super) struct SigningKey {
    day: i64,
    service: Box<str>,
    key: Hmac<Sha256>,
}

impl SigningSecret<'_> {
    /// The key of a UTC day, which is `date` as text, and of a service.
    pub(super) fn key(&self, day: i64, date: &[u8; 10], service: &str) -> Hmac<Sha256> {
        let keys = self.signing_keys.0.load();
        let keys = keys.as_ref().map_or(&[][..], |keys| keys.as_slice());
        let known = keys
            .iter()
            .find(|key| key.day == day && *key.service == *service);
        if let Some(known) = known {
            return known.key.clone();
        }
        let key = keyed(self.derive(date, service).as_slice());
        // At midnight clocks disagree and two days are in use at once; a third never is. Services
        // are those of the catalogue. A key lost to another thread's store is derived again.
        let mut kept: Vec<SigningKey> = keys
            .iter()
            .filter(|old| old.day.abs_diff(day) <= 1)
            .cloned()
            .collect();
        kept.push(SigningKey {
            day,
            service: service.into(),
            key: key.clone(),
        });
        self.signing_keys.0.store(Some(kept.into()));
        key
    }

    pub(super) fn derive(&self, date: &[u8; 10], service: &str) -> Zeroizing<[u8; 32]> {
        let secret_key = self.secret_key.expose_secret();
        let mut root = Zeroizing::new(Vec::with_capacity("TC3".len() + secret_key.len()));
        root.extend_from_slice(b"TC3");
        root.extend_from_slice(secret_key.as_bytes());
        let of_date = hmac(keyed(&root), date);
        let of_service = hmac(keyed(of_date.as_slice()), service.as_bytes());
        hmac(keyed(of_service.as_slice()), TERMINATOR.as_bytes())
    }
}

impl fmt::Debug for SigningSecret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(..)")
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKeys(..)")
    }
}

pub(super) fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("an HMAC takes a key of any length")
}

pub(super) fn hmac(mut key: Hmac<Sha256>, text: &[u8]) -> Zeroizing<[u8; 32]> {
    key.update(text);
    Zeroizing::new(key.finalize().into_bytes().into())
}
