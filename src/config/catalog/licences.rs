//! The terms of licences for client apps (R19), and the keys of their grants.
//!
//! Owns the form of a key in a file. Must never sign anything, nor put a private key into a
//! message.

use crate::config::reader::Item;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::VerifyingKey;
use rust_decimal::Decimal;
use secrecy::{ExposeSecret, SecretSlice};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// An account applies for the trials of so many apps at most, by the contract (R19).
const CONTRACT_APPS: u32 = 4;
/// What stands before the 32 bytes of an Ed25519 key in PKCS#8 (RFC 8410).
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// What a licence is, and how its grants are signed.
#[derive(Clone, Debug)]
pub struct LicenceTerms {
    /// A trial lasts so many days from its issue.
    pub trial_days: u32,
    /// An account applies for the trial of so many apps, ever.
    pub trial_apps: u32,
    /// For one app package for one year; above zero.
    pub year: Decimal,
    /// The longest that a grant holds: a device must come back within it.
    pub grant: Duration,
    /// Who grants: the claim `iss`.
    pub issuer: String,
    /// Signs grants; `None`: none are signed.
    pub signing_key: Option<LicenceSigningKey>,
    /// Published beside that of the signing key: the one that signs next, and the one that signed
    /// before.
    pub public_keys: Vec<LicencePublicKey>,
}

/// An Ed25519 key, as PKCS#8 in DER.
#[derive(Clone, Debug)]
pub struct LicenceSigningKey(SecretSlice<u8>);

/// The 32 bytes of an Ed25519 public key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LicencePublicKey(pub [u8; 32]);

impl LicenceSigningKey {
    /// The 32 bytes of the private key in their frame.
    pub(crate) fn of_seed(seed: &[u8; 32]) -> Self {
        Self([&PKCS8_HEAD[..], &seed[..]].concat().into())
    }

    /// The DER.
    pub(crate) fn der(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// As a file has it.
    pub(crate) fn pem(&self) -> String {
        let text = STANDARD.encode(self.der());
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    }

    fn of_pem(text: &str) -> Option<Self> {
        let body = text.trim().strip_prefix("-----BEGIN PRIVATE KEY-----")?;
        let body = body.strip_suffix("-----END PRIVATE KEY-----")?;
        let body: String = body.split_whitespace().collect();
        let der = STANDARD.decode(body).ok()?;
        let fits = der.len() == PKCS8_HEAD.len() + 32 && der.starts_with(&PKCS8_HEAD);
        fits.then(|| Self(der.into()))
    }
}

impl LicencePublicKey {
    /// As `x` of a JWK has it (RFC 8037).
    pub(crate) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The key that [`Self::text`] writes.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

pub(in crate::config) fn licences(item: Item<'_>) -> Option<LicenceTerms> {
    let mut fields = item.fields()?;
    let trial = fields.required("trial", "{days: 60, apps: 4}", |item| {
        let mut fields = item.fields()?;
        let days = fields.required("days", "60", |i| i.whole32(1..=3_660));
        let apps = fields.required("apps", "4", apps);
        fields.close();
        Some((days?, apps?))
    });
    let year = fields.required("year", "\"10000\"", Item::price);
    let grant = fields.or("grant", 7 * DAY, |i| i.duration(HOUR..=366 * DAY));
    let issuer = fields.or("issuer", "tollgate".to_owned(), |i| {
        i.line().map(str::to_owned)
    });
    let signing_key = fields.optional("signing_key", signing_key);
    let public_keys = fields.or("public_keys", Vec::new(), |item| item.each(public_key));
    fields.close();
    let (trial_days, trial_apps) = trial?;
    Some(LicenceTerms {
        trial_days,
        trial_apps,
        year: year?,
        grant: grant?,
        issuer: issuer?,
        signing_key: signing_key?,
        public_keys: public_keys?,
    })
}

fn apps(item: Item<'_>) -> Option<u32> {
    let apps = item.whole32(0..=1_000)?;
    if apps > CONTRACT_APPS {
        item.warn(format!(
            "{apps} apps are more than the {CONTRACT_APPS} of the contract (R19): lower it, unless your contract says so"
        ));
    }
    Some(apps)
}

fn signing_key(item: Item<'_>) -> Option<LicenceSigningKey> {
    let text = item.private_key()?;
    let key = LicenceSigningKey::of_pem(text.expose_secret());
    key.or_else(|| {
        item.refuse(
            "is no Ed25519 key in PKCS#8 (PEM): make one with `tollgate key new --licence FILE`",
        )
    })
}

fn public_key(item: Item<'_>) -> Option<LicencePublicKey> {
    let what =
        "the public key of a licence key, 43 characters as `tollgate key new --licence` prints it";
    let key = item.parsed(what, LicencePublicKey::of_text)?;
    match anybody_signs_for(&key) {
        false => Some(key),
        true => item.refuse(
            "is no key of Ed25519, or one of small order for which anybody can sign: take the line that `tollgate key new --licence` prints",
        ),
    }
}

/// Whether a signature may fit that no private key made.
fn anybody_signs_for(key: &LicencePublicKey) -> bool {
    VerifyingKey::from_bytes(&key.0).map_or(true, |point| point.is_weak())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_of_small_order_is_refused_in_each_of_its_spellings() {
        let of = |text: &str| LicencePublicKey(hex::decode(text).unwrap().try_into().unwrap());
        let eight = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
        let other = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
        let middle =
            |first: &str, byte: &str, last: &str| format!("{first}{}{last}", byte.repeat(30));
        let spellings = [
            middle("01", "00", "00"),
            middle("ec", "ff", "7f"),
            middle("00", "00", "00"),
            eight.to_owned(),
            other.to_owned(),
            // The same numbers as `p` and `p + 1`.
            middle("ed", "ff", "7f"),
            middle("ee", "ff", "7f"),
        ];
        for spelled in spellings {
            let key = of(&spelled);
            assert!(anybody_signs_for(&key), "{spelled}");
            let mut negative = key;
            negative.0[31] |= 0x80;
            assert!(anybody_signs_for(&negative), "{spelled}, negative");
        }
        // RFC 8032, test 1.
        let good = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert!(!anybody_signs_for(&of(good)));
    }

    #[test]
    fn a_key_that_is_written_is_read_and_any_other_text_is_none() {
        let key = LicenceSigningKey::of_seed(&[7; 32]);
        let pem = key.pem();
        let read = LicenceSigningKey::of_pem(&pem).unwrap();
        assert_eq!(read.der(), key.der());
        // Of openssl genpkey -algorithm ed25519; RFC 8410, section 10.3.
        let known = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        assert!(LicenceSigningKey::of_pem(known).is_some());
        let rsa = pem.replace("MC4CAQAwBQYDK2Vw", "MC4CAQAwBQYDK2Vx");
        let public = pem.replace("PRIVATE", "PUBLIC");
        for bad in ["", "MC4CAQAw", &rsa, &public, &pem[..pem.len() - 40]] {
            assert!(LicenceSigningKey::of_pem(bad).is_none(), "{bad}");
        }
        let public = LicencePublicKey([9; 32]);
        assert_eq!(LicencePublicKey::of_text(&public.text()), Some(public));
        assert_eq!(LicencePublicKey::of_text("AAAA"), None);
    }
}
