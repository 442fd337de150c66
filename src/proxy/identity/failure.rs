//! Why a credential was not accepted, and which fields must stand once.

use crate::http::Fields;
use crate::proxy::identity::tc3;

/// Why a credential was not accepted (PROTOCOL §5). Its `Display` is a sentence for the client. It
/// holds nothing that the client did not send, and no secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CredentialFailure {
    /// No credential at all.
    #[error("the Authorization header is missing")]
    Missing,
    /// The credential cannot be read; the text says what is wrong with it.
    #[error("the credential is malformed: {0}")]
    Malformed(&'static str),
    /// The SDKs' option to send `SKIP` in place of a signature.
    #[error("the call is not signed: switch SkipSign off")]
    Skip,
    /// HmacSHA1 or HmacSHA256, the vendor's older methods. Recognised from the head, never
    /// verified.
    #[error("HmacSHA1 and HmacSHA256 are not accepted: sign with TC3-HMAC-SHA256")]
    OlderMethod,
    /// `X-TC-Token`: a temporary key, of which none is issued here.
    #[error("temporary keys are not accepted: leave out X-TC-Token")]
    Token,
    /// The timestamp is further than [`tc3::WINDOW_SECONDS`] from our clock.
    #[error(
        "X-TC-Timestamp is {skew_seconds} s from the server's clock, at most {} s are allowed",
        tc3::WINDOW_SECONDS
    )]
    Expired {
        /// The client's clock minus ours: positive when the client is ahead.
        skew_seconds: i64,
    },
    /// The scope's date is not the UTC date of the timestamp.
    #[error("the credential's date is not the UTC date of X-TC-Timestamp")]
    WrongDate,
    /// The scope's service is not one of those served here.
    #[error(
        "the credential's service is not served here: call a host name that begins with the service's name"
    )]
    WrongService,
    /// No account has this secret id. Returned by the look-up in the policy, not by this folder.
    #[error("the secret id is unknown")]
    UnknownId,
    /// No account has this API key. Returned by the look-up in the policy, not by this folder.
    #[error("the API key is unknown")]
    UnknownKey,
    /// The signature does not fit this request under this secret.
    #[error("the signature does not match the request")]
    BadSignature,
    /// A header that decides about identity or action stands more than once. Lowercase name.
    #[error("the header {0} is repeated")]
    RepeatedHeader(&'static str),
    /// A header that a signed call needs is absent. Lowercase name.
    #[error("the header {0} is missing")]
    MissingHeader(&'static str),
    /// A header that a signed call needs cannot be read. Lowercase name.
    #[error("the header {0} is malformed")]
    BadHeader(&'static str),
}

impl CredentialFailure {
    /// The variant's one spelling in metrics and logs. Stable: dashboards depend on it.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::Skip => "skip",
            Self::OlderMethod => "older_method",
            Self::Token => "token",
            Self::Expired { .. } => "expired",
            Self::WrongDate => "wrong_date",
            Self::WrongService => "wrong_service",
            Self::UnknownId => "unknown_id",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::RepeatedHeader(_) => "repeated_header",
            Self::MissingHeader(_) => "missing_header",
            Self::BadHeader(_) => "bad_header",
        }
    }
}

/// A longer credential is refused unread.
pub(super) const MAX_CREDENTIAL_BYTES: usize = 4096;

/// Headers that must stand once: of two values the gate could judge one and the upstream obey the
/// other (PROTOCOL §2).
const SINGLE: &[&str] = &[
    "authorization",
    "content-type",
    "host",
    "x-api-key",
    "x-tc-action",
    "x-tc-content-sha256",
    "x-tc-language",
    "x-tc-region",
    "x-tc-requestclient",
    "x-tc-timestamp",
    "x-tc-token",
    "x-tc-traceid",
    "x-tc-version",
];

/// Whether a second value of this header (lowercase name) could speak against the one that was
/// judged.
pub(crate) fn must_stand_once(name: &[u8]) -> bool {
    SINGLE.iter().any(|single| single.as_bytes() == name)
}

pub(super) fn refuse_repeated(fields: &Fields) -> Result<(), CredentialFailure> {
    // Nothing repeats: nearly every call ends here.
    if !fields.has_repeated() {
        return Ok(());
    }
    match SINGLE
        .iter()
        .find(|name| fields.get_all(name).nth(1).is_some())
    {
        Some(name) => Err(CredentialFailure::RepeatedHeader(name)),
        None => Ok(()),
    }
}

/// The `Authorization` value; `None` when absent or blank.
pub(super) fn authorization(fields: &Fields) -> Option<&[u8]> {
    fields
        .get("authorization")
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The fields of a request that has these.
    pub(in crate::proxy::identity) fn fields(pairs: &[(&str, &[u8])]) -> Fields {
        let mut head = b"POST / HTTP/1.1\r\n".to_vec();
        for (name, value) in pairs {
            head.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        head.extend_from_slice(b"\r\n");
        let head = crate::http::h1::request_head(&mut head[..].into());
        head.unwrap().unwrap().fields
    }

    #[test]
    fn every_header_that_must_stand_once_is_refused_twice_even_with_equal_values() {
        for name in SINGLE {
            assert_eq!(refuse_repeated(&fields(&[(name, b"v")])), Ok(()));
            let twice = fields(&[(name, b"v"), ("x-other", b"v"), (name, b"v")]);
            assert_eq!(
                refuse_repeated(&twice),
                Err(CredentialFailure::RepeatedHeader(name))
            );
            let upper = name.to_ascii_uppercase();
            let spelled_twice = fields(&[(&upper, b"v"), (name, b"v")]);
            assert_eq!(
                refuse_repeated(&spelled_twice),
                Err(CredentialFailure::RepeatedHeader(name))
            );
        }
    }

    #[test]
    fn another_header_may_repeat() {
        let fields = fields(&[("accept", b"a"), ("accept", b"b")]);
        assert_eq!(refuse_repeated(&fields), Ok(()));
    }
}
