//! TC3-HMAC-SHA256 (PROTOCOL §2): a call's head to a [`Claim`], a claim and the account's secret to
//! a proof.
//!
//! Owns the order of the checks (PROTOCOL §3): steps 2 to 4 in [`claim`], 6 in [`Claim::verify`].
//! Owns also the readings of the signed text that are accepted. Must never build the text anew from
//! parsed parameters: bytes count as received.

use crate::http::Fields;
use crate::http::h1::RequestHead;
use crate::proxy::identity::CredentialFailure;
use crate::proxy::identity::failure::{authorization, refuse_repeated};
use crate::proxy::identity::tc3::authorization::{
    ALGORITHM, CredentialFields, TERMINATOR, check_signed_headers, header, is_older_method,
};
use crate::proxy::identity::tc3::hash::hex_text;
use crate::proxy::identity::tc3::signing_key::SigningSecret;
use hmac::Mac;
use sha2::{Digest, Sha256};
use std::fmt;

/// How far a timestamp may be from our clock, both ways, both ends included (PROTOCOL §2).
pub(crate) const WINDOW_SECONDS: u64 = 300;

/// Digits of the longest timestamp that is read: those of `i64::MAX`.
const MAX_TIMESTAMP_BYTES: usize = 19;

const UNSIGNED_PAYLOAD: &[u8] = b"UNSIGNED-PAYLOAD";
const TIMESTAMP: &str = "x-tc-timestamp";

/// The identity that a call claims: well formed and in time, but not proven. It holds no memory of
/// the request.
pub struct Claim {
    secret_id: Box<str>,
    /// The UTC date of the timestamp, `YYYY-MM-DD`. The scope has the same.
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
    /// Leaves out the signature: with it a reader of the log could repeat the call while it is in
    /// time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("secret_id", &self.secret_id)
            .field("service", &self.service)
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}

/// All that can be judged from the head, before the body is read (PROTOCOL §3, repeated headers and
/// steps 2 to 4). `services` are those accepted in the scope, `now_seconds` is Unix time.
///
/// # Errors
/// The first check that fails, in the order: repeated headers, shape of `Authorization`, token,
/// timestamp, date, service.
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
    /// The id of the secret that proves the signature. 1 to 128 visible ASCII characters, in the
    /// case in which they came.
    pub fn secret_id(&self) -> &str {
        &self.secret_id
    }

    /// The client's clock minus ours in seconds: positive when the client is ahead.
    pub fn skew_seconds(&self, now_seconds: i64) -> i64 {
        self.timestamp_seconds.saturating_sub(now_seconds)
    }

    /// Whether the signature leaves the body out, so that [`verify`](Self::verify) need not wait
    /// for it.
    pub fn unsigned_payload(&self) -> bool {
        self.unsigned_payload
    }

    /// Whether the signature covers this field (lowercase name).
    pub fn signs(&self, name: &[u8]) -> bool {
        let mut names = self.signed_headers.split(';');
        names.any(|signed| signed.as_bytes() == name)
    }

    /// Proves the claim. `head` are those that [`claim`] judged; `body_sha256` is of the body as
    /// received after transfer decoding and is not looked at when the payload is unsigned.
    ///
    /// Let pass is any of the readings of PROTOCOL §2: header values as sent or lowercased, the
    /// Host as sent, without its port, or replaced by one of `host_aliases`. Each needs a valid
    /// HMAC of its own, so none weakens another.
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
        let key = secret.key(self.day, &self.date, &self.service);
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

    /// The readings that differ, likeliest first: the SDKs sign what they send, Node without the
    /// port.
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

    /// The canonical request of PROTOCOL §2, piece by piece, so that a hash can take it without a
    /// copy.
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

/// The host cut before `:port`; `None` when there is no port. An IPv6 literal keeps its brackets.
fn without_port(host: &[u8]) -> Option<&[u8]> {
    let colon = host.iter().rposition(|b| *b == b':')?;
    let (name, port) = (&host[..colon], &host[colon + 1..]);
    let digits = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
    let whole = name.ends_with(b"]") || (!name.is_empty() && !name.contains(&b':'));
    (digits && whole).then_some(name)
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

#[cfg(test)]
mod tests;
