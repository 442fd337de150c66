//! TC3 against recorded requests of the vendor's SDKs, and against what code changes survived
//! before.

use super::*;
use crate::proxy::identity::tc3::hash::BodyHash;
use crate::proxy::identity::tc3::signing_key::{SigningKeys, hmac, keyed};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request};
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::Value;
use std::sync::LazyLock;

const NOW: i64 = 1_764_590_400;

// ---- The recorded vectors ----

/// 127 requests, many of them from the vendor's SDKs; `about` in the file explains the fields.
static VECTORS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../../../tests/tc3.json")).unwrap());

/// Well signed; what is wrong with them (version, action, region) is for others to refuse.
const REFUSED_ELSEWHERE: [&str; 8] = [
    "node-post-no-region",
    "neg-region-unsupported",
    "neg-video-region",
    "neg-unknown-action",
    "neg-action-missing",
    "neg-version-missing",
    "neg-version-other",
    "neg-region-empty",
];

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap()
}

fn vectors() -> impl Iterator<Item = &'static Value> {
    VECTORS["vectors"].as_array().unwrap().iter()
}

fn vector(id: &str) -> &'static Value {
    vectors().find(|v| v["id"] == id).unwrap()
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for digit in text.bytes().filter(|b| *b != b'=') {
        bits = bits << 6 | DIGITS.iter().position(|d| *d == digit).unwrap() as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

fn body(vector: &Value) -> Vec<u8> {
    let body = &vector["request"]["body"];
    let bytes = match text(body, "/kind") {
        "utf8" => text(body, "/data").as_bytes().to_vec(),
        "base64" => base64(text(body, "/data")),
        "concat" => body["parts"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|part| {
                let times = part.get("times").map_or(1, |n| n.as_u64().unwrap());
                text(part, "/utf8").repeat(times as usize).into_bytes()
            })
            .collect(),
        other => panic!("body kind {other}"),
    };
    assert_eq!(bytes.len() as u64, body["length"].as_u64().unwrap());
    assert_eq!(hex::encode(sha256(&bytes)), text(body, "/sha256"));
    bytes
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = BodyHash::new();
    bytes.chunks(8_191).for_each(|chunk| hash.update(chunk));
    hash.finish()
}

fn parts<'a>(
    method: &str,
    target: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Parts {
    let request = Request::builder().method(method).uri(target);
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        parts
            .headers
            .append(name, HeaderValue::from_bytes(value).unwrap());
    }
    parts
}

/// The same as it is read from the wire; `None` when HTTP itself cannot carry it.
fn read(parts: &Parts) -> Option<Box<RequestHead>> {
    let mut wire = format!("{} {} HTTP/1.1\r\n", parts.method, parts.uri).into_bytes();
    for (name, value) in &parts.headers {
        let line = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat();
        wire.extend_from_slice(&line);
    }
    wire.extend_from_slice(b"\r\n");
    crate::http::h1::request_head(&mut wire[..].into()).ok()?
}

fn head(vector: &Value) -> Parts {
    let request = &vector["request"];
    let headers = request["headers"].as_array().unwrap();
    let parts = parts(
        text(request, "/method"),
        text(request, "/target"),
        headers
            .iter()
            .map(|header| (text(header, "/0"), text(header, "/1").as_bytes())),
    );
    assert_eq!(parts.uri.path(), text(request, "/path"));
    assert_eq!(
        parts.uri.query().unwrap_or_default(),
        text(request, "/query")
    );
    parts
}

struct Secret(SecretString, SigningKeys);

impl Secret {
    fn new(secret_key: &str) -> Self {
        Self(secret_key.into(), SigningKeys::default())
    }

    fn signing(&self) -> SigningSecret<'_> {
        SigningSecret {
            secret_key: &self.0,
            signing_keys: &self.1,
        }
    }
}

fn secret_of(id: &str) -> Option<Secret> {
    let keys = VECTORS["keys"].as_array().unwrap();
    let key = keys.iter().find(|key| key["secret_id"] == id)?;
    Some(Secret::new(text(key, "/secret_key")))
}

/// As the gate will judge: the claim, the secret, the signature.
fn judge(vector: &Value, services: &[&str], aliases: &[&str]) -> Result<(), CredentialFailure> {
    let services: Vec<String> = services.iter().map(|s| s.to_string()).collect();
    let aliases: Vec<String> = aliases.iter().map(|s| s.to_string()).collect();
    let parts = head(vector);
    let parts = read(&parts).unwrap();
    let claim = claim(&parts, vector["now"].as_i64().unwrap(), &services)?;
    let secret = secret_of(claim.secret_id()).ok_or(CredentialFailure::UnknownId)?;
    claim.verify(&parts, secret.signing(), &sha256(&body(vector)), &aliases)
}

/// PROTOCOL §5.
fn code(failure: CredentialFailure) -> &'static str {
    match failure {
        CredentialFailure::Missing
        | CredentialFailure::Malformed(_)
        | CredentialFailure::Skip
        | CredentialFailure::WrongDate
        | CredentialFailure::WrongService
        | CredentialFailure::UnknownKey => "AuthFailure.InvalidAuthorization",
        CredentialFailure::OlderMethod | CredentialFailure::BadSignature => {
            "AuthFailure.SignatureFailure"
        }
        CredentialFailure::Token => "AuthFailure.TokenFailure",
        CredentialFailure::Expired { .. } => "AuthFailure.SignatureExpire",
        CredentialFailure::UnknownId => "AuthFailure.SecretIdNotFound",
        CredentialFailure::RepeatedHeader(name) if !name.starts_with("x-tc-") => {
            "AuthFailure.InvalidAuthorization"
        }
        CredentialFailure::RepeatedHeader(_) | CredentialFailure::BadHeader(_) => {
            "InvalidParameter"
        }
        CredentialFailure::MissingHeader(_) => "MissingParameter",
    }
}

#[test]
fn every_vector_is_accepted_or_refused_with_its_code() {
    let (mut accepted, mut refused, mut elsewhere) = (0, 0, 0);
    for vector in vectors() {
        let id = text(vector, "/id");
        let expect = &vector["expect"];
        let got = judge(vector, &["bda"], &[]);
        if text(expect, "/result") == "accept" {
            assert_eq!(got, Ok(()), "{id}");
            accepted += 1;
        } else if REFUSED_ELSEWHERE.contains(&id) {
            assert_eq!(got, Ok(()), "{id}");
            elsewhere += 1;
        } else {
            let code = code(got.expect_err(id));
            let also_ok = expect["also_ok"].as_array();
            let named = expect["code"] == code
                || also_ok.is_some_and(|codes| codes.iter().any(|c| c == code));
            assert!(named, "{id}: {code} is not among {expect}");
            refused += 1;
        }
    }
    assert_eq!((accepted, refused, elsewhere), (47, 72, 8));
}

#[test]
fn the_refusals_that_matter_have_the_very_code_of_the_vector() {
    // Beyond `also_ok`: these codes tell a customer what to repair.
    for (id, failure) in [
        ("neg-skip-sign", CredentialFailure::Skip),
        ("pol-v1-hmacsha1-post", CredentialFailure::OlderMethod),
        ("pol-v1-hmacsha256-get", CredentialFailure::OlderMethod),
        ("pol-session-token", CredentialFailure::Token),
        (
            "neg-clock-late-301",
            CredentialFailure::Expired { skew_seconds: -301 },
        ),
        (
            "neg-clock-early-301",
            CredentialFailure::Expired { skew_seconds: 301 },
        ),
        ("neg-unknown-secret-id", CredentialFailure::UnknownId),
        ("neg-secret-id-case", CredentialFailure::UnknownId),
        ("neg-scope-date-local", CredentialFailure::WrongDate),
        ("neg-scope-service", CredentialFailure::WrongService),
        ("node-ip-endpoint", CredentialFailure::WrongService),
        ("neg-auth-missing", CredentialFailure::Missing),
        ("neg-auth-empty", CredentialFailure::Missing),
        ("neg-dup-host", CredentialFailure::RepeatedHeader("host")),
        (
            "neg-dup-action",
            CredentialFailure::RepeatedHeader("x-tc-action"),
        ),
        (
            "neg-timestamp-missing",
            CredentialFailure::MissingHeader("x-tc-timestamp"),
        ),
        (
            "neg-timestamp-text",
            CredentialFailure::BadHeader("x-tc-timestamp"),
        ),
        (
            "neg-timestamp-leading-zero",
            CredentialFailure::BadSignature,
        ),
    ] {
        assert_eq!(judge(vector(id), &["bda"], &[]), Err(failure), "{id}");
    }
}

#[test]
fn a_configured_service_or_host_alias_lets_its_vector_pass() {
    let by_ip = vector("node-ip-endpoint");
    assert_eq!(judge(by_ip, &["bda", "127"], &[]), Ok(()));

    let gateway = vector("pol-gateway-host");
    let aliases = ["other.example", "bda.tencentcloudapi.com"];
    assert_eq!(judge(gateway, &["bda"], &aliases), Ok(()));
    assert_eq!(
        judge(gateway, &["bda"], &aliases[..1]),
        Err(CredentialFailure::BadSignature)
    );
}

#[test]
fn the_texts_and_keys_on_the_way_are_those_of_the_traces() {
    let mut traced = 0;
    let with_trace = vectors().filter(|v| v.get("trace").is_some());
    for vector in with_trace {
        let id = text(vector, "/id");
        let now = vector["now"].as_i64().unwrap();
        let parts = head(vector);
        let parts = read(&parts).unwrap();
        let claim = claim(&parts, now, &["bda".into(), "127".into()]).expect(id);
        check_trace(
            &parts,
            &claim,
            text(vector, "/secret_key"),
            &body(vector),
            &vector["trace"],
            id,
        );
        traced += 1;
    }
    assert_eq!(traced, 38);
}

#[test]
fn the_vendors_published_example_is_reproduced_and_verified() {
    let example = &VECTORS["algorithm_example"];
    let now = example["timestamp"].as_i64().unwrap();
    let timestamp = now.to_string();
    let headers = example["headers"].as_array().unwrap();
    let parts = parts(
        "POST",
        "/",
        headers
            .iter()
            .map(|header| (text(header, "/0"), text(header, "/1").as_bytes()))
            .chain([
                ("X-TC-Timestamp", timestamp.as_bytes()),
                ("Authorization", text(example, "/authorization").as_bytes()),
            ]),
    );
    let parts = read(&parts).unwrap();
    let claim = claim(&parts, now, &["cvm".into()]).unwrap();
    assert!(claim.signs(b"content-type") && claim.signs(b"host"));
    assert!(!claim.signs(b"x-tc-timestamp") && !claim.signs(b""));
    let body = text(example, "/body").as_bytes();
    let key = text(example, "/secret_key");
    check_trace(&parts, &claim, key, body, &example["trace"], "example");
    let secret = Secret::new(key);
    assert_eq!(
        claim.verify(&parts, secret.signing(), &sha256(body), &[]),
        Ok(())
    );
}

fn check_trace(
    parts: &RequestHead,
    claim: &Claim,
    key: &str,
    body: &[u8],
    trace: &Value,
    id: &str,
) {
    let payload = if claim.unsigned_payload() {
        sha256(b"UNSIGNED-PAYLOAD")
    } else {
        sha256(body)
    };
    assert_eq!(hex::encode(payload), text(trace, "/hashed_payload"), "{id}");

    let readings: Vec<String> = claim
        .readings(parts, &[])
        .map(|reading| {
            let mut bytes = Vec::new();
            claim.canonical(parts, reading, &hex_text(&payload), |piece| {
                bytes.extend(piece)
            });
            String::from_utf8(bytes).unwrap()
        })
        .collect();
    let canonical = text(trace, "/canonical_request");
    assert!(
        readings.iter().any(|r| r == canonical),
        "{id}: {readings:?}"
    );

    let mut to_sign = Vec::new();
    claim.to_sign(&hex_text(&sha256(canonical.as_bytes())), |piece| {
        to_sign.extend(piece)
    });
    assert_eq!(to_sign, text(trace, "/string_to_sign").as_bytes(), "{id}");

    let secret = Secret::new(key);
    let derived = secret.signing().derive(&claim.date, &claim.service);
    assert_eq!(
        hex::encode(derived.as_slice()),
        text(trace, "/signing_key_hex"),
        "{id}"
    );
    if let Some(signature) = trace.get("signature") {
        let signed = hmac(keyed(derived.as_slice()), &to_sign);
        assert_eq!(hex::encode(signed.as_slice()), *signature, "{id}");
    }
}

// ---- A signer of our own, straight from the published text ----

/// A request as a client would hold it, before and after it is signed.
#[derive(Clone, Debug)]
struct Call {
    method: String,
    path: String,
    query: String,
    content_type: String,
    host: String,
    action: String,
    timestamp: String,
    secret_id: String,
    date: String,
    service: String,
    signed_headers: String,
    signature: String,
    body: Vec<u8>,
}

const SECRET_KEY: &str = "fakeKeyOfTheProperties";

impl Call {
    fn plain() -> Self {
        Self {
            method: "POST".into(),
            path: "/".into(),
            query: String::new(),
            content_type: "application/json".into(),
            host: "bda.example".into(),
            action: "SegmentPortraitPic".into(),
            timestamp: NOW.to_string(),
            secret_id: "AKIDproperty".into(),
            date: "2025-12-01".into(),
            service: "bda".into(),
            signed_headers: "content-type;host;x-tc-action".into(),
            signature: String::new(),
            body: b"{}".to_vec(),
        }
        .signed()
    }

    /// HMAC-SHA256 as RFC 2104 defines it.
    fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
        let mut block = [0u8; 64];
        block[..key.len()].copy_from_slice(key);
        let inner = [&block.map(|b| b ^ 0x36)[..], text].concat();
        let outer = [&block.map(|b| b ^ 0x5c)[..], &Sha256::digest(inner)[..]].concat();
        Sha256::digest(outer).to_vec()
    }

    fn signed(mut self) -> Self {
        self.signature = self.sign(&self.host.clone(), |value| value.to_owned());
        self
    }

    fn sign(&self, host: &str, case: fn(&str) -> String) -> String {
        let values: String = self
            .signed_headers
            .split(';')
            .map(|name| {
                let value = match name {
                    "content-type" => &self.content_type,
                    "host" => host,
                    _ => &self.action,
                };
                format!("{name}:{}\n", case(value))
            })
            .collect();
        let canonical = format!(
            "{}\n{}\n{}\n{values}\n{}\n{}",
            self.method,
            self.path,
            self.query,
            self.signed_headers,
            hex::encode(Sha256::digest(&self.body)),
        );
        let to_sign = format!(
            "TC3-HMAC-SHA256\n{}\n{}/{}/tc3_request\n{}",
            self.timestamp,
            self.date,
            self.service,
            hex::encode(Sha256::digest(canonical)),
        );
        let key = Self::mac(format!("TC3{SECRET_KEY}").as_bytes(), self.date.as_bytes());
        let key = Self::mac(&Self::mac(&key, self.service.as_bytes()), b"tc3_request");
        hex::encode(Self::mac(&key, to_sign.as_bytes()))
    }

    fn authorization(&self) -> String {
        format!(
            "TC3-HMAC-SHA256 Credential={}/{}/{}/tc3_request, SignedHeaders={}, Signature={}",
            self.secret_id, self.date, self.service, self.signed_headers, self.signature
        )
    }

    /// `None` when HTTP itself cannot carry it.
    fn parts(&self) -> Option<Parts> {
        let target = if self.query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, self.query)
        };
        let request = Request::builder()
            .method(self.method.as_str())
            .uri(target)
            .header("content-type", &self.content_type)
            .header("host", &self.host)
            .header("x-tc-action", &self.action)
            .header("x-tc-timestamp", &self.timestamp)
            .header("authorization", self.authorization());
        Some(request.body(()).ok()?.into_parts().0)
    }

    fn judged(&self) -> Option<Result<(), CredentialFailure>> {
        let parts = read(&self.parts()?)?;
        let secret = Secret::new(SECRET_KEY);
        Some(
            claim(&parts, NOW, &["bda".into()])
                .and_then(|claim| claim.verify(&parts, secret.signing(), &sha256(&self.body), &[])),
        )
    }

    /// The field that a flip is tried on.
    fn field(&mut self, index: usize) -> &mut String {
        match index {
            0 => &mut self.method,
            1 => &mut self.path,
            2 => &mut self.query,
            3 => &mut self.timestamp,
            4 => &mut self.signature,
            5 => &mut self.date,
            6 => &mut self.service,
            7 => &mut self.signed_headers,
            8 => &mut self.content_type,
            9 => &mut self.host,
            _ => &mut self.action,
        }
    }
}

prop_compose! {
    fn calls()(
        method in "GET|POST|PUT|X-A",
        path in "/[a-z0-9/%._-]{0,20}",
        query in "([a-zA-Z0-9%=&+~.*-]{1,30})?",
        content_type in "[a-zA-Z][a-zA-Z0-9/;=.\" -]{0,80}[a-z]",
        host in "[a-zA-Z0-9.-]{1,30}[a-z](:[0-9]{1,5})?",
        action in "[a-zA-Z0-9]{1,30}",
        signed_headers in prop_oneof![Just("content-type;host"), Just("content-type;host;x-tc-action")],
        ahead in -300i64..=300,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) -> Call {
        Call {
            method, path, query, content_type, host, action, body,
            timestamp: (NOW + ahead).to_string(),
            signed_headers: signed_headers.into(),
            ..Call::plain()
        }
        .signed()
    }
}

const LOWERCASE: fn(&str) -> String = |value| value.to_ascii_lowercase();

proptest! {
    #[test]
    fn what_is_signed_in_any_reading_of_the_protocol_verifies(mut call in calls()) {
        prop_assert_eq!(call.judged(), Some(Ok(())), "as sent");
        let host = call.host.clone();
        call.signature = call.sign(&host, LOWERCASE);
        prop_assert_eq!(call.judged(), Some(Ok(())), "lowercased");
        let name = host.split(':').next().unwrap();
        call.signature = call.sign(name, str::to_owned);
        prop_assert_eq!(call.judged(), Some(Ok(())), "without the port");
        call.signature = call.sign(name, LOWERCASE);
        prop_assert_eq!(call.judged(), Some(Ok(())), "without the port, lowercased");
    }

    #[test]
    fn a_flipped_byte_in_anything_signed_fails(
        mut call in calls(),
        field in 0usize..11,
        at in any::<proptest::sample::Index>(),
        flip in 1u8..128,
    ) {
        let action_is_free = !call.signed_headers.contains("x-tc-action");
        let value = call.field(field);
        prop_assume!(!value.is_empty());
        let before = value.clone();
        let mut bytes = std::mem::take(value).into_bytes();
        bytes[at.index(before.len())] ^= flip;
        *value = String::from_utf8(bytes).unwrap();
        let after = value.clone();

        // A signed value sent in capitals may be signed in lowercase, and nothing else is forgiven.
        let lowercase_of_sent = field >= 8 && after.to_ascii_lowercase() == before;
        let unsigned = field == 10 && action_is_free;
        // `None`: HTTP cannot carry such a call.
        if let Some(got) = call.judged() {
            prop_assert_eq!(
                got.is_ok(),
                // One lowercase reading is of all values: another one's capitals spoil it.
                unsigned || (lowercase_of_sent && !call.other_capitals(field)),
                "{} -> {}: {:?}", before, after, got
            );
        }
    }

    #[test]
    fn a_flipped_byte_in_the_body_fails(
        mut call in calls(),
        at in any::<proptest::sample::Index>(),
        flip in 1u8..=255,
    ) {
        prop_assume!(!call.body.is_empty());
        let at = at.index(call.body.len());
        call.body[at] ^= flip;
        prop_assert_eq!(call.judged(), Some(Err(CredentialFailure::BadSignature)));
    }

    #[test]
    fn no_authorization_panics_and_none_but_the_real_one_is_believed(
        garbage in proptest::collection::vec(any::<u8>(), 0..12),
        at in any::<proptest::sample::Index>(),
        cut in 0usize..12,
    ) {
        let call = Call::plain();
        let real = call.authorization().into_bytes();
        let at = at.index(real.len());
        let end = (at + cut).min(real.len());
        let mut authorization = real.clone();
        authorization.splice(at..end, garbage);
        if let (Ok(value), Some(mut parts)) = (HeaderValue::from_bytes(&authorization), call.parts()) {
            parts.headers.insert("authorization", value);
            let parts = read(&parts).unwrap();
            let secret = Secret::new(SECRET_KEY);
            let judged = claim(&parts, NOW, &["bda".into()])
                .and_then(|claim| claim.verify(&parts, secret.signing(), &sha256(&call.body), &[]).map(|()| claim));
            if let Ok(claim) = judged {
                // The signature does not cover the secret id: the secret found under it decides
                // (and here is given). Blanks after commas and around the value are free.
                let bare = |text: &[u8]| {
                    let mut text = text.to_vec();
                    text.retain(|b| *b != b' ' && *b != b'\t');
                    String::from_utf8(text).unwrap()
                };
                let expected = bare(&real).replacen("AKIDproperty", claim.secret_id(), 1);
                prop_assert_eq!(bare(&authorization), expected);
            }
        }
    }

    #[test]
    fn no_head_at_all_panics(
        method in "[A-Z]{1,8}",
        target in proptest::sample::select(vec![
            "/", "/?", "/a", "*", "http://h", "http://h/a?b", "/?Signature=x",
        ]),
        headers in proptest::collection::vec(
            (
                proptest::sample::select(vec![
                    "authorization", "host", "content-type", "x-tc-timestamp", "x-tc-token", "x-tc-content-sha256", "x-api-key",
                ]),
                proptest::collection::vec(any::<u8>(), 0..40),
            ),
            0..8,
        ),
        now in any::<i64>(),
    ) {
        let headers = headers
            .iter()
            .filter(|(_, value)| HeaderValue::from_bytes(value).is_ok())
            .map(|(name, value)| (*name, value.as_slice()));
        let parts = parts(&method, target, headers);
        if let Some(head) = read(&parts) {
            prop_assert!(claim(&head, now, &["bda".into()]).is_err());
            let _ = crate::proxy::identity::api_key::api_key(&head.fields);
        }
    }

    #[test]
    fn no_timestamp_panics(timestamp in "[0-9]{0,21}", now in any::<i64>()) {
        let call = Call { timestamp, ..Call::plain() };
        if let Some(parts) = call.parts().and_then(|parts| read(&parts)) {
            let _ = claim(&parts, now, &["bda".into()]);
        }
    }
}

impl Call {
    /// Whether a signed value besides `field` holds a capital letter.
    fn other_capitals(&self, field: usize) -> bool {
        let action_is_signed = self.signed_headers.contains("x-tc-action");
        [(8, &self.content_type), (9, &self.host), (10, &self.action)]
            .into_iter()
            .filter(|(index, _)| *index != field && (*index != 10 || action_is_signed))
            .any(|(_, value)| value.bytes().any(|b| b.is_ascii_uppercase()))
    }
}

// ---- Single rules ----

fn claimed(change: impl FnOnce(&mut Parts)) -> Result<Claim, CredentialFailure> {
    let mut parts = Call::plain().parts().unwrap();
    change(&mut parts);
    let parts = read(&parts).unwrap();
    claim(&parts, NOW, &["bda".into()])
}

fn with_authorization(authorization: &str) -> Result<Claim, CredentialFailure> {
    let value = HeaderValue::from_str(authorization).unwrap();
    claimed(|parts| {
        parts.headers.insert("authorization", value);
    })
}

#[test]
fn a_claim_tells_its_secret_id_and_its_clock() {
    let claim = claimed(|_| ()).unwrap();
    assert_eq!(claim.secret_id(), "AKIDproperty");
    assert_eq!(claim.skew_seconds(NOW - 7), 7);
    assert_eq!(claim.skew_seconds(NOW + 7), -7);
    assert!(!claim.unsigned_payload());
}

#[test]
fn the_window_is_300_seconds_both_ways_with_both_ends() {
    let parts = Call::plain().parts().unwrap();
    for (now, ends) in [(NOW - 300, Ok(())), (NOW + 300, Ok(()))] {
        let parts = read(&parts).unwrap();
        assert_eq!(claim(&parts, now, &["bda".into()]).map(drop), ends);
    }
    for now in [NOW - 301, NOW + 301, i64::MIN, i64::MAX] {
        let parts = read(&parts).unwrap();
        let got = claim(&parts, now, &["bda".into()]).map(drop);
        assert!(
            matches!(got, Err(CredentialFailure::Expired { .. })),
            "{now}"
        );
    }
}

#[test]
fn only_the_exact_marker_makes_a_payload_unsigned() {
    for (marker, unsigned) in [
        ("UNSIGNED-PAYLOAD", true),
        (" UNSIGNED-PAYLOAD ", true),
        ("unsigned-payload", false),
        ("UNSIGNED-PAYLOAD;", false),
        ("", false),
    ] {
        let claim = claimed(|parts| {
            let value = HeaderValue::from_static(marker);
            parts.headers.insert("x-tc-content-sha256", value);
        });
        assert_eq!(claim.unwrap().unsigned_payload(), unsigned, "{marker:?}");
    }
}

#[test]
fn an_unsigned_payload_is_proven_without_its_body() {
    let vector = vector("py-unsigned-payload");
    let parts = head(vector);
    let parts = read(&parts).unwrap();
    let claim = claim(&parts, NOW, &["bda".into()]).unwrap();
    let secret = secret_of(claim.secret_id()).unwrap();
    assert!(claim.unsigned_payload());
    assert_eq!(
        claim.verify(&parts, secret.signing(), &[0; 32], &[]),
        Ok(())
    );
}

#[test]
fn a_blank_token_is_none_and_any_other_is_refused() {
    for (token, refused) in [("", false), (" ", false), ("t", true)] {
        let got = claimed(|parts| {
            let value = HeaderValue::from_static(token);
            parts.headers.insert("x-tc-token", value);
        });
        assert_eq!(
            got.err(),
            refused.then_some(CredentialFailure::Token),
            "{token:?}"
        );
    }
}

#[test]
fn sizes_are_bounded_before_anything_is_looked_up() {
    let call = Call::plain();
    let id_of = |length: usize| {
        with_authorization(
            &Call {
                secret_id: "A".repeat(length),
                ..call.clone()
            }
            .authorization(),
        )
    };
    assert!(id_of(128).is_ok());
    assert!(matches!(id_of(129), Err(CredentialFailure::Malformed(_))));
    assert!(matches!(id_of(0), Err(CredentialFailure::Malformed(_))));

    let padding = |length: usize| {
        let real = call.authorization();
        let blanks = " ".repeat(length - real.len());
        with_authorization(&real.replace(", Signature", &format!(",{blanks} Signature")))
    };
    assert!(padding(4096).is_ok());
    assert!(matches!(
        padding(4097),
        Err(CredentialFailure::Malformed(_))
    ));

    let signing = |extra: usize| {
        let mut parts = call.parts().unwrap();
        let mut names = String::from("content-type;host");
        for n in 0..extra {
            let name = format!("x-{n:03}");
            names.push_str(&format!(";{name}"));
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            parts.headers.insert(name, HeaderValue::from_static("v"));
        }
        let authorization = Call {
            signed_headers: names,
            ..call.clone()
        }
        .authorization();
        let value = HeaderValue::from_str(&authorization).unwrap();
        parts.headers.insert("authorization", value);
        let parts = read(&parts).unwrap();
        claim(&parts, NOW, &["bda".into()])
    };
    assert!(signing(62).is_ok());
    assert!(matches!(signing(63), Err(CredentialFailure::Malformed(_))));
}

#[test]
fn a_signed_header_that_repeats_is_refused() {
    let mut call = Call::plain();
    call.signed_headers = "content-type;host;x-other".into();
    let mut parts = call.parts().unwrap();
    let mut add = |value| {
        let value = HeaderValue::from_static(value);
        parts.headers.append("x-other", value);
        let parts = read(&parts).unwrap();
        claim(&parts, NOW, &["bda".into()]).map(drop)
    };
    assert_eq!(add("a"), Ok(()));
    assert!(matches!(add("b"), Err(CredentialFailure::Malformed(_))));
}

#[test]
fn signed_names_are_lowercase_ascending_and_named_once() {
    for (names, good) in [
        ("content-type;host;x-tc-action", true),
        ("content-type;host;x-tc-action;x-tc-timestamp", true),
        ("content-type;host;x-tc-timestamp;x-tc-action", false),
        ("content-type;host;x-tc-action;x-tc-action", false),
        ("content-type;host;X-TC-Action", false),
        ("content-type;host;x-tc-Action", false),
        ("content-type;host;", false),
        (";content-type;host", false),
        ("content-type;;host", false),
        ("content-type; host", false),
        ("content-type;x-tc-action", false),
        ("host;x-tc-action", false),
        ("", false),
    ] {
        let call = Call {
            signed_headers: names.into(),
            ..Call::plain()
        };
        let got = with_authorization(&call.authorization()).map(drop);
        let malformed = matches!(got, Err(CredentialFailure::Malformed(_)));
        assert_eq!((got.is_ok(), malformed), (good, !good), "{names}");
    }
}

#[test]
fn a_timestamp_is_digits_only() {
    for timestamp in [
        "+1764590400",
        "-1764590400",
        "1764590400.0",
        "1764590400 1",
        "00000000001764590400",
        "9223372036854775808",
        "",
    ] {
        let call = Call {
            timestamp: timestamp.into(),
            ..Call::plain()
        };
        let got = call.signed().judged();
        assert_eq!(
            got,
            Some(Err(CredentialFailure::BadHeader(TIMESTAMP))),
            "{timestamp}"
        );
    }
}

#[test]
fn blanks_are_free_after_commas_and_nowhere_else() {
    let real = Call::plain().authorization();
    for (from, to, good) in [
        (", ", ",", true),
        (", ", ",  \t", true),
        (", ", " ,", false),
        (" Credential", "  Credential", false),
        ("Credential=", "Credential= ", false),
        ("Credential", "credential", false),
        ("/bda/", "/ bda/", false),
        ("Signature=", "Signature= ", false),
        ("tc3_request", "tc3_request/x", false),
    ] {
        let got = with_authorization(&real.replace(from, to));
        assert_eq!(got.is_ok(), good, "{from:?} -> {to:?}");
    }
    assert!(with_authorization(&format!("{real},")).is_err());
    assert!(with_authorization(&format!("{real} ")).is_ok());
}

#[test]
fn an_older_method_is_known_by_its_query_or_its_form_and_only_without_authorization() {
    let form = ("content-type", &b"application/x-www-form-urlencoded"[..]);
    let json = ("content-type", &b"application/json"[..]);
    let charset = (
        "content-type",
        &b"Application/X-WWW-Form-Urlencoded ; charset=utf-8"[..],
    );
    let blank = ("authorization", &b""[..]);
    let skip = ("authorization", &b"SKIP"[..]);
    for (method, target, headers, failure) in [
        ("POST", "/", vec![form], CredentialFailure::OlderMethod),
        (
            "POST",
            "/",
            vec![charset, blank],
            CredentialFailure::OlderMethod,
        ),
        (
            "GET",
            "/?a=1&Signature=x",
            vec![],
            CredentialFailure::OlderMethod,
        ),
        (
            "GET",
            "/?SignatureMethod=HmacSHA256",
            vec![],
            CredentialFailure::OlderMethod,
        ),
        (
            "GET",
            "/?XSignature=x",
            vec![form],
            CredentialFailure::Missing,
        ),
        (
            "POST",
            "/v1/portrait/segment",
            vec![form],
            CredentialFailure::Missing,
        ),
        ("POST", "/", vec![json], CredentialFailure::Missing),
        ("POST", "/", vec![form, skip], CredentialFailure::Skip),
    ] {
        let parts = parts(method, target, headers.iter().copied());
        let parts = read(&parts).unwrap();
        let got = claim(&parts, NOW, &["bda".into()]).err();
        assert_eq!(got, Some(failure), "{method} {target} {headers:?}");
        let is_older = is_older_method(&parts);
        assert_eq!(
            is_older,
            failure == CredentialFailure::OlderMethod,
            "the dialect too"
        );
    }
    let key = ("x-api-key", &b"k"[..]);
    let with_key = parts("POST", "/?Signature=x", [form, key]);
    assert!(!is_older_method(&read(&with_key).unwrap()));
}

#[test]
fn only_a_port_is_cut_from_a_host() {
    for (host, name) in [
        ("bda.example:8443", Some("bda.example")),
        ("127.0.0.1:80", Some("127.0.0.1")),
        ("[::1]:8080", Some("[::1]")),
        ("[::1]", None),
        ("::1", None),
        ("bda.example", None),
        ("bda.example:", None),
        ("bda.example:a1", None),
        (":80", None),
        ("", None),
    ] {
        assert_eq!(
            without_port(host.as_bytes()),
            name.map(str::as_bytes),
            "{host:?}"
        );
    }
}

#[test]
fn readings_are_few_and_none_stands_twice() {
    let count = |host: &str, content_type: &str, aliases: &[&str]| {
        let call = Call {
            host: host.into(),
            content_type: content_type.into(),
            signed_headers: "content-type;host".into(),
            ..Call::plain()
        };
        let parts = call.parts().unwrap();
        let aliases: Vec<String> = aliases.iter().map(|a| a.to_string()).collect();
        let parts = read(&parts).unwrap();
        let claim = claim(&parts, NOW, &["bda".into()]).unwrap();
        claim.readings(&parts, &aliases).count()
    };
    assert_eq!(count("bda.example", "application/json", &[]), 1);
    assert_eq!(count("bda.example:1", "application/json", &[]), 2);
    assert_eq!(count("Bda.example:1", "application/json", &[]), 4);
    assert_eq!(
        count("bda.example:1", "multipart/form-data; boundary=B", &[]),
        4
    );
    assert_eq!(
        count("bda.example", "application/json", &["bda.example"]),
        1
    );
    assert_eq!(count("bda.example", "application/json", &["other"]), 2);
}

#[test]
fn values_that_are_not_utf8_are_signed_byte_for_byte() {
    let mut call = Call::plain();
    call.signed_headers = "content-type;host".into();
    let mut parts = call.parts().unwrap();
    let value = HeaderValue::from_bytes(b"text/\xff\xfe").unwrap();
    parts.headers.insert("content-type", value);
    let parts = read(&parts).unwrap();
    let claim = claim(&parts, NOW, &["bda".into()]).unwrap();
    let mut canonical = Vec::new();
    let reading = claim.readings(&parts, &[]).next().unwrap();
    claim.canonical(&parts, reading, &[b'0'; 64], |p| canonical.extend(p));
    assert!(canonical.starts_with(b"POST\n/\n\ncontent-type:text/\xff\xfe\nhost:"));
}

#[test]
fn a_target_counts_by_its_path_and_raw_query() {
    // The part of a target that the http crate holds. A fragment, which no client sends, is dropped
    // before it is judged, and equally from what is forwarded.
    for (target, path, query) in [
        ("/", "/", ""),
        ("/?", "/", ""),
        ("/??a", "/", "?a"),
        ("/a//b/../%2f?x=%2F&x=+", "/a//b/../%2f", "x=%2F&x=+"),
        ("http://bda.example", "/", ""),
        ("http://bda.example/a?b", "/a", "b"),
        ("/?a#b", "/", "a"),
    ] {
        let mut call = Call::plain();
        (call.path, call.query) = (path.into(), query.into());
        let signed = call.signed();
        let mut parts = signed.parts().unwrap();
        parts.uri = target.parse().unwrap();
        let secret = Secret::new(SECRET_KEY);
        let parts = read(&parts).unwrap();
        let claim = claim(&parts, NOW, &["bda".into()]).unwrap();
        let got = claim.verify(&parts, secret.signing(), &sha256(&signed.body), &[]);
        assert_eq!(got, Ok(()), "{target}");
    }
}

#[test]
fn signing_keys_of_two_days_are_kept_and_older_ones_go() {
    let secret = Secret::new(SECRET_KEY);
    let use_on = |day: i64, service: &str| {
        let noon = NOW + day * 86_400;
        let call = Call {
            timestamp: noon.to_string(),
            date: String::from_utf8(utc_date(noon).unwrap().into()).unwrap(),
            service: service.into(),
            ..Call::plain()
        }
        .signed();
        let parts = call.parts().unwrap();
        let parts = read(&parts).unwrap();
        let claim = claim(&parts, noon, &["bda".into(), "iai".into()]).unwrap();
        let hash = sha256(&call.body);
        assert_eq!(claim.verify(&parts, secret.signing(), &hash, &[]), Ok(()));
        secret.1.0.load().as_ref().map_or(0, |keys| keys.len())
    };
    assert_eq!(use_on(0, "bda"), 1);
    assert_eq!(use_on(0, "bda"), 1);
    assert_eq!(use_on(1, "bda"), 2);
    assert_eq!(use_on(0, "bda"), 2);
    assert_eq!(use_on(1, "iai"), 3);
    assert_eq!(use_on(2, "bda"), 3);
    for day in 3..30 {
        assert_eq!(use_on(day, "bda"), 2);
    }
}

#[test]
fn dates_are_of_utc_and_end_with_the_year_9999() {
    for (seconds, date) in [
        (0, Some("1970-01-01")),
        (-1, Some("1969-12-31")),
        (1_767_225_599, Some("2025-12-31")),
        (1_767_225_600, Some("2026-01-01")),
        (1_709_164_800, Some("2024-02-29")),
        (253_402_300_800, None),
        (i64::MIN, None),
    ] {
        let got = utc_date(seconds);
        assert_eq!(got.as_ref().map(|d| &d[..]), date.map(str::as_bytes));
    }
}

#[test]
fn nothing_that_is_printed_holds_a_secret_or_a_signature() {
    let secret = Secret::new("hunter2-hunter2");
    assert_eq!(format!("{:?}", secret.signing()), "SigningSecret(..)");
    let printed = format!("{:?}", claimed(|_| ()).unwrap());
    assert!(printed.contains("AKIDproperty"), "{printed}");
    assert!(!printed.contains("signature"), "{printed}");
    assert_eq!(format!("{:?}", BodyHash::new()), "BodyHash(..)");
}
