//! `Authorization: Bearer KEY` and `X-Api-Key: KEY`: from the head to the key's digest.
//!
//! Owns where a key may stand and how it is digested. Must never hold or print a key.

use crate::http::Fields;
use crate::proxy::identity::CredentialFailure;
use crate::proxy::identity::failure::{MAX_CREDENTIAL_BYTES, authorization, refuse_repeated};
use sha2::{Digest, Sha256};
use std::fmt;

/// The SHA-256 of an API key. Only this is configured, held and looked up.
///
/// A table keyed by it may compare in ordinary time: the time tells at most how a guess's digest
/// resembles a stored one. A digest cannot be steered towards a wanted value, nor turned back into
/// a random key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiKeyDigest(pub [u8; 32]);

impl ApiKeyDigest {
    /// The digest of `key`, byte for byte.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

impl fmt::Debug for ApiKeyDigest {
    /// Shows nothing: a digest is as good as the key to an attacker with a short list of keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyDigest(..)")
    }
}

/// The API key of a call. `None` when it carries none, which leaves the call to
/// [`crate::proxy::identity::tc3::claim`].
///
/// # Errors
/// `Malformed` for an empty or overlong key, for two different keys, and for a key beside another
/// credential, since either could pay; `RepeatedHeader` as in PROTOCOL §2.
pub fn api_key(fields: &Fields) -> Option<Result<ApiKeyDigest, CredentialFailure>> {
    let authorization = authorization(fields);
    let bearer = authorization.and_then(bearer);
    let named = fields.get("x-api-key");
    if bearer.is_none() && named.is_none() {
        return None;
    }
    Some(single_key(fields, authorization, bearer, named))
}

fn single_key(
    fields: &Fields,
    authorization: Option<&[u8]>,
    bearer: Option<&[u8]>,
    named: Option<&[u8]>,
) -> Result<ApiKeyDigest, CredentialFailure> {
    refuse_repeated(fields)?;
    let key = match (bearer, named) {
        (Some(bearer), Some(named)) if bearer != named => {
            return Err(CredentialFailure::Malformed("two different API keys"));
        }
        (None, Some(_)) if authorization.is_some() => {
            return Err(CredentialFailure::Malformed(
                "an API key beside another credential",
            ));
        }
        (Some(key), _) | (None, Some(key)) => key,
        (None, None) => return Err(CredentialFailure::Missing),
    };
    if key.is_empty() {
        return Err(CredentialFailure::Malformed("the API key is empty"));
    }
    if key.len() > MAX_CREDENTIAL_BYTES {
        return Err(CredentialFailure::Malformed("the API key is too long"));
    }
    Ok(ApiKeyDigest::of(key))
}

/// The text after the scheme `Bearer`, in any case (RFC 9110 §11.1); empty when nothing does.
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = authorization.split_at_checked(6)?;
    let ends = matches!(rest.first(), None | Some(b' ' | b'\t'));
    (ends && scheme.eq_ignore_ascii_case(b"bearer")).then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::identity::failure::tests::fields;

    fn read(
        pairs: &[(&'static str, &'static str)],
    ) -> Option<Result<ApiKeyDigest, CredentialFailure>> {
        let pairs: Vec<(&str, &[u8])> = pairs
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()))
            .collect();
        api_key(&fields(&pairs))
    }

    fn malformed(answer: Option<Result<ApiKeyDigest, CredentialFailure>>) -> bool {
        matches!(answer, Some(Err(CredentialFailure::Malformed(_))))
    }

    #[test]
    fn a_key_is_found_in_either_place_or_in_both_when_equal() {
        let key = Some(Ok(ApiKeyDigest::of(b"k-1")));
        assert_eq!(read(&[("authorization", "Bearer k-1")]), key);
        assert_eq!(read(&[("authorization", "bearer  k-1 ")]), key);
        assert_eq!(read(&[("x-api-key", "k-1")]), key);
        assert_eq!(
            read(&[("x-api-key", " k-1"), ("authorization", "Bearer k-1")]),
            key
        );
    }

    #[test]
    fn a_digest_is_the_sha256_that_sha256sum_prints() {
        let test = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(hex::encode(ApiKeyDigest::of(b"test").0), test);
    }

    #[test]
    fn a_call_without_a_key_is_left_to_the_signature() {
        assert_eq!(read(&[]), None);
        for other in [
            "TC3-HMAC-SHA256 Credential=a",
            "SKIP",
            "Bearerx",
            "",
            "Basic eA==",
        ] {
            assert_eq!(read(&[("authorization", other)]), None, "{other}");
        }
    }

    #[test]
    fn an_empty_key_is_malformed() {
        assert!(malformed(read(&[("x-api-key", "")])));
        assert!(malformed(read(&[("x-api-key", " ")])));
        assert!(malformed(read(&[("authorization", "Bearer")])));
        assert!(malformed(read(&[("authorization", "Bearer  ")])));
    }

    #[test]
    fn two_credentials_that_differ_are_malformed() {
        assert!(malformed(read(&[
            ("x-api-key", "k-1"),
            ("authorization", "Bearer k-2")
        ])));
        for other in ["TC3-HMAC-SHA256 Credential=a", "SKIP", "Basic eA=="] {
            assert!(
                malformed(read(&[("x-api-key", "k-1"), ("authorization", other)])),
                "{other}"
            );
        }
    }

    #[test]
    fn a_repeated_key_or_action_is_refused() {
        assert_eq!(
            read(&[("x-api-key", "k-1"), ("x-api-key", "k-1")]),
            Some(Err(CredentialFailure::RepeatedHeader("x-api-key")))
        );
        assert_eq!(
            read(&[
                ("x-api-key", "k-1"),
                ("x-tc-action", "Free"),
                ("x-tc-action", "Paid")
            ]),
            Some(Err(CredentialFailure::RepeatedHeader("x-tc-action")))
        );
    }

    #[test]
    fn an_overlong_key_is_malformed_and_an_odd_one_is_not() {
        let odd = fields(&[("x-api-key", &[0xff; 4096])]);
        assert!(matches!(api_key(&odd), Some(Ok(_))));
        let overlong = fields(&[("x-api-key", &[0xff; 4097])]);
        assert!(malformed(api_key(&overlong)));
    }

    #[test]
    fn a_digest_shows_nothing() {
        assert_eq!(
            format!("{:?}", ApiKeyDigest::of(b"k-1")),
            "ApiKeyDigest(..)"
        );
    }
}
