//! The keys of grants: the one that signs, and those that are published.
//!
//! Must never publish anything of a private key.

use crate::config::{LicencePublicKey, LicenceSigningKey, LicenceTerms};
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, OctetKeyPairParameters, OctetKeyPairType,
    PublicKeyUse, ThumbprintHash,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use serde_json::json;

/// The keys of the catalogue in force.
pub(crate) struct LicenceKeys {
    signing: Option<SignerOfGrants>,
    jwks: String,
}

struct SignerOfGrants {
    key: EncodingKey,
    kid: String,
}

impl LicenceKeys {
    /// Those of the catalogue. The signing key is published first.
    pub(crate) fn new(terms: &LicenceTerms) -> Result<Self, String> {
        let mut published: Vec<Jwk> = Vec::new();
        let signing = match &terms.signing_key {
            Some(key) => {
                let key = EncodingKey::from_ed_der(key.der());
                let jwk = public(Jwk::from_encoding_key(&key, Algorithm::EdDSA))?;
                let kid = jwk.common.key_id.clone().unwrap_or_default();
                published.push(jwk);
                Some(SignerOfGrants { key, kid })
            }
            None => None,
        };
        for key in &terms.public_keys {
            let jwk = jwk_of(key)?;
            if !published.contains(&jwk) {
                published.push(jwk);
            }
        }
        let jwks = json!({ "keys": published }).to_string();
        Ok(Self { signing, jwks })
    }

    /// The set of the public keys (RFC 7517).
    pub(crate) fn jwks(&self) -> &str {
        &self.jwks
    }

    /// Signs claims, as a JWT (RFC 7519). `None`: no key signs.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Option<Result<String, String>> {
        let SignerOfGrants { key, kid } = self.signing.as_ref()?;
        let header = Header {
            kid: Some(kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        let signed = jsonwebtoken::encode(&header, claims, key);
        Some(signed.map_err(|error| error.to_string()))
    }

    /// Whether a key signs.
    pub(crate) fn signs(&self) -> bool {
        self.signing.is_some()
    }
}

/// A key of this seed: what its file holds, its public part and its id.
pub(crate) fn fresh_key(seed: &[u8; 32]) -> Result<(String, String, String), String> {
    let made = LicenceSigningKey::of_seed(seed);
    let key = EncodingKey::from_ed_der(made.der());
    let jwk = public(Jwk::from_encoding_key(&key, Algorithm::EdDSA))?;
    let AlgorithmParameters::OctetKeyPair(pair) = &jwk.algorithm else {
        return Err("the key has no public part".to_owned());
    };
    let kid = jwk.common.key_id.clone().unwrap_or_default();
    Ok((made.pem(), pair.x.clone(), kid))
}

fn jwk_of(key: &LicencePublicKey) -> Result<Jwk, String> {
    public(Ok(Jwk {
        common: jsonwebtoken::jwk::CommonParameters {
            key_algorithm: Some(jsonwebtoken::jwk::KeyAlgorithm::EdDSA),
            ..Default::default()
        },
        algorithm: AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters {
            key_type: OctetKeyPairType::OctetKeyPair,
            curve: EllipticCurve::Ed25519,
            x: key.text(),
        }),
    }))
}

/// As it is published: with its id and its use.
fn public(made: jsonwebtoken::errors::Result<Jwk>) -> Result<Jwk, String> {
    let told = |error: jsonwebtoken::errors::Error| error.to_string();
    let mut jwk = made.map_err(told)?;
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).map_err(told)?);
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok(jwk)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use rust_decimal::Decimal;
    use std::time::Duration;

    /// The terms with the key of this seed, and these public ones.
    pub(in crate::licence) fn terms(seed: Option<[u8; 32]>, also: &[[u8; 32]]) -> LicenceTerms {
        LicenceTerms {
            trial_days: 60,
            trial_apps: 4,
            year: Decimal::from(10_000),
            grant: Duration::from_secs(7 * 86_400),
            issuer: "tollgate".to_owned(),
            signing_key: seed.map(|seed| LicenceSigningKey::of_seed(&seed)),
            public_keys: also.iter().map(|key| LicencePublicKey(*key)).collect(),
        }
    }

    fn bytes(text: &str) -> [u8; 32] {
        URL_SAFE_NO_PAD.decode(text).unwrap().try_into().unwrap()
    }

    /// RFC 8037, appendix A: the key, its thumbprint, and a signature.
    #[test]
    fn the_vectors_of_rfc_8037_pass() {
        let d = bytes("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let kid = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
        let (_, public, thumbprint) = fresh_key(&d).unwrap();
        assert_eq!((public.as_str(), thumbprint.as_str()), (x, kid));
        let key = EncodingKey::from_ed_der(LicenceSigningKey::of_seed(&d).der());
        let text = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signed = jsonwebtoken::crypto::sign(text.as_bytes(), &key, Algorithm::EdDSA);
        assert_eq!(
            signed.unwrap(),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
    }

    #[test]
    fn the_set_has_the_signing_key_first_each_key_once_and_no_private_part() {
        let signing = [7; 32];
        let (_, own, kid) = fresh_key(&signing).unwrap();
        let next = bytes(&fresh_key(&[8; 32]).unwrap().1);
        let keys = LicenceKeys::new(&terms(Some(signing), &[next, bytes(&own)])).unwrap();
        let set: serde_json::Value = serde_json::from_str(keys.jwks()).unwrap();
        let published = set["keys"].as_array().unwrap();
        assert_eq!(published.len(), 2);
        let first = &published[0];
        assert_eq!((&first["kid"], &first["x"]), (&json!(kid), &json!(own)));
        for key in published {
            assert_eq!(
                (&key["kty"], &key["crv"]),
                (&json!("OKP"), &json!("Ed25519"))
            );
            assert_eq!((&key["alg"], &key["use"]), (&json!("EdDSA"), &json!("sig")));
            assert!(key.get("d").is_none());
        }
        assert!(keys.signs());
        let none = LicenceKeys::new(&terms(None, &[next])).unwrap();
        assert!(!none.signs() && none.sign(&json!({})).is_none());
    }
}
