//! `Authorization` of a TC3 call, taken apart, and the mark of the older methods.
//!
//! Owns the shape of the field (PROTOCOL §2). Nothing here is proven.

use crate::http::Fields;
use crate::http::h1::RequestHead;
use crate::proxy::identity::CredentialFailure;
use crate::proxy::identity::failure::{MAX_CREDENTIAL_BYTES, authorization};
use http::Method;

/// The longest secret id that is looked up.
const MAX_SECRET_ID_BYTES: usize = 128;
/// The most headers that a signature may cover: each costs a lookup before the account is known.
const MAX_SIGNED_HEADERS: usize = 64;

pub(super) const ALGORITHM: &str = "TC3-HMAC-SHA256";
pub(super) const TERMINATOR: &str = "tc3_request";

/// `Authorization` taken apart.
pub(super) struct CredentialFields<'a> {
    pub(super) secret_id: &'a str,
    pub(super) date: &'a str,
    pub(super) service: &'a str,
    pub(super) signed_headers: &'a str,
    pub(super) signature: [u8; 32],
}

impl<'a> CredentialFields<'a> {
    pub(super) fn parse(authorization: &'a [u8]) -> Result<Self, CredentialFailure> {
        if authorization.len() > MAX_CREDENTIAL_BYTES {
            return Err(CredentialFailure::Malformed("Authorization is too long"));
        }
        let fields = std::str::from_utf8(authorization).ok().and_then(split);
        let Some([credential, signed_headers, digits]) = fields else {
            return Err(CredentialFailure::Malformed(
                match authorization.starts_with(b"TC3") {
                    true => {
                        "Authorization must read TC3-HMAC-SHA256 Credential=ID/DATE/SERVICE/tc3_request, SignedHeaders=NAMES, Signature=DIGITS"
                    }
                    false => {
                        "send a key as X-Api-Key: KEY or as Authorization: Bearer KEY; anything else in Authorization must be a TC3-HMAC-SHA256 signature"
                    }
                },
            ));
        };

        let mut scope = credential.split('/');
        let (Some(secret_id), Some(date), Some(service), Some(TERMINATOR), None) = (
            scope.next(),
            scope.next(),
            scope.next(),
            scope.next(),
            scope.next(),
        ) else {
            return Err(CredentialFailure::Malformed(
                "Credential must be ID/DATE/SERVICE/tc3_request",
            ));
        };
        let visible = secret_id.bytes().all(|b| b.is_ascii_graphic());
        if !visible || !(1..=MAX_SECRET_ID_BYTES).contains(&secret_id.len()) {
            return Err(CredentialFailure::Malformed("the secret id is malformed"));
        }

        let mut signature = [0; 32];
        if digits.bytes().any(|b| b.is_ascii_uppercase())
            || hex::decode_to_slice(digits, &mut signature).is_err()
        {
            return Err(CredentialFailure::Malformed(
                "Signature must be 64 lowercase hexadecimal digits",
            ));
        }
        Ok(Self {
            secret_id,
            date,
            service,
            signed_headers,
            signature,
        })
    }
}

/// The values of `Credential`, `SignedHeaders` and `Signature`. Exact and case-sensitive but for
/// blanks after commas.
fn split(authorization: &str) -> Option<[&str; 3]> {
    const BLANKS: [char; 2] = [' ', '\t'];
    let rest = authorization.strip_prefix(ALGORITHM)?;
    let rest = rest.strip_prefix(" Credential=")?;
    let (credential, rest) = rest.split_once(',')?;
    let rest = rest.trim_start_matches(BLANKS);
    let rest = rest.strip_prefix("SignedHeaders=")?;
    let (signed_headers, rest) = rest.split_once(',')?;
    let rest = rest.trim_start_matches(BLANKS);
    let signature = rest.strip_prefix("Signature=")?;
    Some([credential, signed_headers, signature])
}

/// Checks that `content-type` and `host` are signed, and that each signed header stands once.
pub(super) fn check_signed_headers(
    signed_headers: &str,
    headers: &Fields,
) -> Result<(), CredentialFailure> {
    let mut count = 0;
    let mut required = 0;
    let mut previous = "";
    for name in signed_headers.split(';') {
        count += 1;
        if count > MAX_SIGNED_HEADERS {
            return Err(CredentialFailure::Malformed(
                "SignedHeaders names too many headers",
            ));
        }
        // Lookups ignore case, so that it has to be asked for.
        if name.bytes().any(|b| b.is_ascii_uppercase()) || name <= previous {
            return Err(CredentialFailure::Malformed(
                "SignedHeaders must be lowercase, ascending and without repetition",
            ));
        }
        let mut values = headers.get_all(name);
        if values.next().is_none() || values.next().is_some() {
            return Err(CredentialFailure::Malformed(
                "each header named in SignedHeaders must stand in the request, once",
            ));
        }
        required += usize::from(name == "content-type" || name == "host");
        previous = name;
    }
    if required != 2 {
        return Err(CredentialFailure::Malformed(
            "SignedHeaders must name content-type and host",
        ));
    }
    Ok(())
}

/// Whether a call without another credential is signed by one of the vendor's older methods. These
/// are HmacSHA1 (where `SignatureMethod` may be absent) and HmacSHA256; their fields stand in the
/// query or in a form. A form is recognised by its head, since a body is not worth reading only to
/// refuse it.
pub(crate) fn is_older_method(head: &RequestHead) -> bool {
    if authorization(&head.fields).is_some() || head.fields.contains("x-api-key") {
        return false;
    }
    let query = head.target.query().unwrap_or_default();
    let in_query = query
        .split('&')
        .any(|field| field.starts_with("SignatureMethod=") || field.starts_with("Signature="));
    let media_type = header(&head.fields, "content-type")
        .split(|b| *b == b';')
        .next()
        .unwrap_or_default();
    let form = media_type
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
    in_query || (form && head.method == Method::POST && head.target.path() == "/")
}

/// The header's value without the blanks around it; empty when absent.
pub(super) fn header<'a>(headers: &'a Fields, name: &str) -> &'a [u8] {
    headers.get(name).unwrap_or_default()
}
