//! TC3-HMAC-SHA256 (PROTOCOL §2): a call's head to a [`Claim`], a claim and the caller's secret to a proof.
//!
//! Owns the order of the checks (PROTOCOL §3, steps 2 to 4 in [`claim`], 6 in [`Claim::verify`]) and every reading of
//! the signed text that is let pass. Must never build the text anew from parsed parameters: bytes count as received.

use crate::http::Fields;
use crate::http::h1::RequestHead;
use crate::proxy::identity::CredentialFailure;
use crate::proxy::identity::failure::{MAX_CREDENTIAL_BYTES, authorization, refuse_repeated};
use arc_swap::ArcSwapOption;
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::fmt;

/// How far a timestamp may be from our clock, both ways, both ends included (PROTOCOL §2).
pub const WINDOW_SECONDS: u64 = 300;

/// The longest secret id that is looked up.
const MAX_SECRET_ID_BYTES: usize = 128;
/// The most headers that a signature may cover: each costs a lookup before the caller is known.
const MAX_SIGNED_HEADERS: usize = 64;
/// Digits of the longest timestamp that is read: those of `i64::MAX`.
const MAX_TIMESTAMP_BYTES: usize = 19;

const ALGORITHM: &str = "TC3-HMAC-SHA256";
const TERMINATOR: &str = "tc3_request";
const UNSIGNED_PAYLOAD: &[u8] = b"UNSIGNED-PAYLOAD";
const TIMESTAMP: &str = "x-tc-timestamp";

/// What a call says about itself, well formed and in time but not proven. It keeps nothing of the request alive.
pub struct Claim {
    secret_id: Box<str>,
    /// Of the timestamp and, being equal, of the scope.
    date: [u8; 10],
    day: i64,
    service: Box<str>,
    /// As sent: the text is what is signed.
    timestamp: Box<str>,
    timestamp_seconds: i64,
    /// Names joined by `;`, each present once in the request.
    signed_headers: Box<str>,
    signature: [u8; 32],
    unsigned_payload: bool,
}

impl fmt::Debug for Claim {
    /// Leaves out the signature: with it, who reads a log could repeat the call while it is in time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("secret_id", &self.secret_id)
            .field("service", &self.service)
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}

/// All that can be judged from the head, before the body is read (PROTOCOL §3, repeated headers and steps 2 to 4).
/// `services` are those accepted in the scope, `now_seconds` is Unix time.
///
/// # Errors
/// The first check that fails, in the order: repeated headers, shape of `Authorization`, token, timestamp, date, service.
pub fn claim(
    head: &RequestHead,
    now_seconds: i64,
    services: &[String],
) -> Result<Claim, CredentialFailure> {
    let headers = &head.fields;
    refuse_repeated(headers)?;
    let Some(authorization) = authorization(headers) else {
        return Err(if is_older_method(head) {
            CredentialFailure::OlderMethod
        } else {
            CredentialFailure::Missing
        });
    };
    if authorization == b"SKIP" {
        return Err(CredentialFailure::Skip);
    }
    let fields = CredentialFields::parse(authorization)?;
    check_signed_headers(fields.signed_headers, headers)?;
    if !header(headers, "x-tc-token").is_empty() {
        return Err(CredentialFailure::Token);
    }

    let (timestamp, timestamp_seconds) = timestamp(headers)?;
    if timestamp_seconds.abs_diff(now_seconds) > WINDOW_SECONDS {
        return Err(CredentialFailure::Expired {
            skew_seconds: timestamp_seconds.saturating_sub(now_seconds),
        });
    }
    let date = utc_date(timestamp_seconds)
        .filter(|date| date == fields.date.as_bytes())
        .ok_or(CredentialFailure::WrongDate)?;
    if !services.iter().any(|service| service == fields.service) {
        return Err(CredentialFailure::WrongService);
    }
    Ok(Claim {
        secret_id: fields.secret_id.into(),
        date,
        day: timestamp_seconds.div_euclid(86_400),
        service: fields.service.into(),
        timestamp: timestamp.into(),
        timestamp_seconds,
        signed_headers: fields.signed_headers.into(),
        signature: fields.signature,
        unsigned_payload: header(headers, "x-tc-content-sha256") == UNSIGNED_PAYLOAD,
    })
}

impl Claim {
    /// Whose secret the signature is to be proven with. 1 to 128 visible ASCII characters, case kept.
    pub fn secret_id(&self) -> &str {
        &self.secret_id
    }

    /// The client's clock minus ours in seconds: positive when the client is ahead.
    pub fn skew_seconds(&self, now_seconds: i64) -> i64 {
        self.timestamp_seconds.saturating_sub(now_seconds)
    }

    /// Whether the signature leaves the body out, so that [`verify`](Self::verify) need not wait for it.
    pub fn unsigned_payload(&self) -> bool {
        self.unsigned_payload
    }

    /// Whether the signature covers this field (lowercase name).
    pub fn signs(&self, name: &[u8]) -> bool {
        let mut names = self.signed_headers.split(';');
        names.any(|signed| signed.as_bytes() == name)
    }

    /// Proves the claim. `head` are those that [`claim`] judged; `body_sha256` is of the body as received after transfer
    /// decoding and is not looked at when the payload is unsigned.
    ///
    /// Let pass is any of the readings of PROTOCOL §2: header values as sent or lowercased, the Host as sent, without its
    /// port, or replaced by one of `host_aliases`. Each needs a valid HMAC of its own, so none weakens another.
    ///
    /// # Errors
    /// `BadSignature` when no reading fits.
    pub fn verify(
        &self,
        head: &RequestHead,
        secret: SigningSecret<'_>,
        body_sha256: &[u8; 32],
        host_aliases: &[String],
    ) -> Result<(), CredentialFailure> {
        let payload = if self.unsigned_payload {
            hex_text(&Sha256::digest(UNSIGNED_PAYLOAD).into())
        } else {
            hex_text(body_sha256)
        };
        let key = secret.key(self);
        let fits = |reading: ReadClaim<'_>| {
            let mut canonical = Sha256::new();
            self.canonical(head, reading, &payload, |piece| canonical.update(piece));
            let canonical = hex_text(&canonical.finalize().into());
            let mut mac = key.clone();
            self.to_sign(&canonical, |piece| mac.update(piece));
            mac.verify_slice(&self.signature).is_ok() // constant time
        };
        if self.readings(head, host_aliases).any(fits) {
            Ok(())
        } else {
            Err(CredentialFailure::BadSignature)
        }
    }

    /// The readings that differ, likeliest first: the SDKs sign what they send, Node without the port.
    fn readings<'a>(
        &'a self,
        head: &'a RequestHead,
        host_aliases: &'a [String],
    ) -> impl Iterator<Item = ReadClaim<'a>> {
        let sent = header(&head.fields, "host");
        let aliases = host_aliases.iter().map(String::as_bytes);
        std::iter::once(sent)
            .chain(without_port(sent))
            .chain(aliases.filter(move |alias| *alias != sent))
            .flat_map(move |host| {
                let as_sent = ReadClaim {
                    host,
                    lowercase: false,
                };
                let lowercased = ReadClaim {
                    host,
                    lowercase: true,
                };
                // Lazily, since a good signature seldom comes to the second reading.
                std::iter::once(as_sent).chain(
                    std::iter::once_with(move || {
                        self.signed_values(head, host)
                            .any(|(_, value)| value.iter().any(u8::is_ascii_uppercase))
                            .then_some(lowercased)
                    })
                    .flatten(),
                )
            })
    }

    /// Name and value of each signed header, Host as this reading has it.
    fn signed_values<'a>(
        &'a self,
        head: &'a RequestHead,
        host: &'a [u8],
    ) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.signed_headers.split(';').map(move |name| {
            let value = if name == "host" {
                host
            } else {
                header(&head.fields, name)
            };
            (name, value)
        })
    }

    /// The canonical request of PROTOCOL §2, piece by piece, so that a hash can take it without a copy.
    fn canonical(
        &self,
        head: &RequestHead,
        reading: ReadClaim<'_>,
        payload: &[u8; 64],
        mut put: impl FnMut(&[u8]),
    ) {
        put(head.method.as_str().as_bytes());
        put(b"\n");
        put(head.target.path().as_bytes());
        put(b"\n");
        put(head.target.query().unwrap_or_default().as_bytes());
        put(b"\n");
        for (name, value) in self.signed_values(head, reading.host) {
            put(name.as_bytes());
            put(b":");
            if reading.lowercase {
                put_lowercase(value, &mut put);
            } else {
                put(value);
            }
            put(b"\n");
        }
        put(b"\n");
        put(self.signed_headers.as_bytes());
        put(b"\n");
        put(payload);
    }

    /// The string to sign of PROTOCOL §2, piece by piece.
    fn to_sign(&self, canonical_sha256: &[u8; 64], mut put: impl FnMut(&[u8])) {
        put(ALGORITHM.as_bytes());
        put(b"\n");
        put(self.timestamp.as_bytes());
        put(b"\n");
        put(&self.date);
        put(b"/");
        put(self.service.as_bytes());
        put(b"/");
        put(TERMINATOR.as_bytes());
        put(b"\n");
        put(canonical_sha256);
    }
}

/// One way to read the signed header values.
#[derive(Clone, Copy)]
struct ReadClaim<'a> {
    host: &'a [u8],
    lowercase: bool,
}

/// A TC3 secret key as it was given to the customer, with what was derived of it. `Debug` shows nothing.
#[derive(Clone, Copy)]
pub struct SigningSecret<'a> {
    /// The key.
    pub secret_key: &'a SecretString,
    /// Belongs to this key alone.
    pub signing_keys: &'a SigningKeys,
}

/// The signing keys of one secret key: that of a (UTC day, service) is derived at its first use and kept while it can
/// be needed again. Empty until then: most of many customers do not call on a given day. `Debug` shows nothing.
#[derive(Default)]
pub struct SigningKeys(ArcSwapOption<Vec<SigningKey>>);

#[derive(Clone)]
struct SigningKey {
    day: i64,
    service: Box<str>,
    key: Hmac<Sha256>,
}

impl SigningSecret<'_> {
    fn key(&self, claim: &Claim) -> Hmac<Sha256> {
        let keys = self.signing_keys.0.load();
        let keys = keys.as_ref().map_or(&[][..], |keys| keys.as_slice());
        let known = keys
            .iter()
            .find(|key| key.day == claim.day && *key.service == *claim.service);
        if let Some(known) = known {
            return known.key.clone();
        }
        let key = keyed(self.derive(&claim.date, &claim.service).as_slice());
        // At midnight clocks disagree and two days are in use at once; a third never is. Services are those of the
        // catalogue. A key lost to another thread's store is derived again.
        let mut kept: Vec<SigningKey> = keys
            .iter()
            .filter(|old| old.day.abs_diff(claim.day) <= 1)
            .cloned()
            .collect();
        kept.push(SigningKey {
            day: claim.day,
            service: claim.service.clone(),
            key: key.clone(),
        });
        self.signing_keys.0.store(Some(kept.into()));
        key
    }

    fn derive(&self, date: &[u8; 10], service: &str) -> Zeroizing<[u8; 32]> {
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

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("an HMAC takes a key of any length")
}

fn hmac(mut key: Hmac<Sha256>, text: &[u8]) -> Zeroizing<[u8; 32]> {
    key.update(text);
    Zeroizing::new(key.finalize().into_bytes().into())
}

/// The SHA-256 of a body that is there.
pub fn body_sha256(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// Hashes a body while it arrives: a large one hashed at once would hold up its thread's other calls.
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

/// `Authorization` taken apart.
struct CredentialFields<'a> {
    secret_id: &'a str,
    date: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: [u8; 32],
}

impl<'a> CredentialFields<'a> {
    fn parse(authorization: &'a [u8]) -> Result<Self, CredentialFailure> {
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

/// The values of `Credential`, `SignedHeaders` and `Signature`. Exact and case-sensitive but for blanks after commas.
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

fn check_signed_headers(signed_headers: &str, headers: &Fields) -> Result<(), CredentialFailure> {
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

/// `X-TC-Timestamp` as sent and as Unix seconds.
fn timestamp(headers: &Fields) -> Result<(&str, i64), CredentialFailure> {
    let value = headers
        .get(TIMESTAMP)
        .ok_or(CredentialFailure::MissingHeader(TIMESTAMP))?;
    let digits = value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|text| digits && text.len() <= MAX_TIMESTAMP_BYTES)
        .and_then(|text| Some((text, text.parse().ok()?)))
        .ok_or(CredentialFailure::BadHeader(TIMESTAMP))
}

/// `YYYY-MM-DD` in UTC; `None` outside the years 0 to 9999.
fn utc_date(seconds: i64) -> Option<[u8; 10]> {
    let instant = jiff::Timestamp::from_second(seconds).ok()?;
    let date = jiff::tz::Offset::UTC.to_datetime(instant).date();
    let year = u16::try_from(date.year()).ok()?;
    let month = date.month().unsigned_abs();
    let day = date.day().unsigned_abs();
    let two = |n: u8| [b'0' + n / 10 % 10, b'0' + n % 10];
    let [y1, y2] = two((year / 100) as u8);
    let [y3, y4] = two((year % 100) as u8);
    let [m1, m2] = two(month);
    let [d1, d2] = two(day);
    Some([y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2])
}

/// Whether a call without another credential is signed by one of the vendor's older methods, HmacSHA1 (where
/// `SignatureMethod` may be absent) or HmacSHA256: their fields stand in the query or in a form, and for a form the head
/// must do, since a body is not worth reading only to refuse it.
pub fn is_older_method(head: &RequestHead) -> bool {
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

/// The host cut before `:port`; `None` when there is no port. An IPv6 literal keeps its brackets.
fn without_port(host: &[u8]) -> Option<&[u8]> {
    let colon = host.iter().rposition(|b| *b == b':')?;
    let (name, port) = (&host[..colon], &host[colon + 1..]);
    let digits = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
    let whole = name.ends_with(b"]") || (!name.is_empty() && !name.contains(&b':'));
    (digits && whole).then_some(name)
}

/// The header's value without the blanks around it; empty when absent.
fn header<'a>(headers: &'a Fields, name: &str) -> &'a [u8] {
    headers.get(name).unwrap_or_default()
}

fn put_lowercase(value: &[u8], mut put: impl FnMut(&[u8])) {
    let mut buffer = [0; 64];
    for chunk in value.chunks(buffer.len()) {
        let lowered = &mut buffer[..chunk.len()];
        lowered.copy_from_slice(chunk);
        lowered.make_ascii_lowercase();
        put(lowered);
    }
}

fn hex_text(bytes: &[u8; 32]) -> [u8; 64] {
    let mut text = [0; 64];
    hex::encode_to_slice(bytes, &mut text).expect("32 bytes are 64 digits");
    text
}

#[cfg(test)]
mod tests;
