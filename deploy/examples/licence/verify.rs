//! Verifies grants offline, with jsonwebtoken (features = ["aws_lc_rs"]) and serde_json.
//!
//! `verify JWKS PACKAGE DEVICE ISSUER [NOW] < grants`: a grant a line; a verdict a line.
//! `verify --jws JWKS < signed`: the payload of what the first key of the set signed.
//!
//! JWKS is the file that the gate has at /.well-known/jwks.json. NOW is for tests: seconds since
//! 1970.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use std::io::BufRead;

/// The longest grant.
const LONGEST: usize = 4096;

/// The claims of a grant.
#[derive(Debug, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub device: String,
    pub nbf: u64,
    pub exp: u64,
}

/// The claims of a grant that holds at `now` for this app on this device.
///
/// # Errors
/// Why it does not.
pub fn verify(
    grant: &str,
    keys: &JwkSet,
    [package, device, issuer]: [&str; 3],
    now: u64,
) -> Result<Claims, String> {
    let told = |error: jsonwebtoken::errors::Error| error.to_string();
    if grant.len() > LONGEST {
        return Err("it is too long".to_owned());
    }
    let head = decode_header(grant).map_err(told)?;
    if head.crit.is_some() || head.extras.inner().contains_key("b64") {
        return Err("its header asks for what is not done here".to_owned());
    }
    let is_ed25519 = |key: &&Jwk| match &key.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) => pair.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    let has_id = |key: &&Jwk| head.kid.is_some() && key.common.key_id == head.kid;
    let key = keys.keys.iter().find(|key| is_ed25519(key) && has_id(key));
    let key = key.ok_or("no key of this id is known")?;
    let key = DecodingKey::from_jwk(key).map_err(told)?;
    // Never the algorithm that the grant names: `none`, or HS256 with the public key as its secret.
    let mut strict = Validation::new(Algorithm::EdDSA);
    strict.leeway = 0;
    strict.set_issuer(&[issuer]);
    strict.set_required_spec_claims(&["iss", "sub", "exp", "nbf"]);
    // The times are compared below, by the time that is given.
    (strict.validate_exp, strict.validate_nbf) = (false, false);
    let claims = decode::<Claims>(grant, &key, &strict).map_err(told)?.claims;
    // The library takes a list that has the issuer, too.
    if claims.iss != issuer {
        return Err("it is of another issuer".to_owned());
    }
    if now >= claims.exp {
        return Err("it has ended".to_owned());
    }
    if now < claims.nbf {
        return Err("it has not begun; is the clock right?".to_owned());
    }
    if claims.sub != package {
        return Err("it is for another package".to_owned());
    }
    if claims.device != device {
        return Err("it is for another device".to_owned());
    }
    Ok(claims)
}

/// The verdict on each grant, as `main` prints it.
pub fn verdicts(words: &[String], grants: impl BufRead) -> Vec<String> {
    // Not `lines`, which drops the `\r` before the end of a line too.
    let lines = grants.split(b'\n').map(|line| line.expect("a file"));
    let jwks = std::fs::read_to_string(&words[if words[0] == "--jws" { 1 } else { 0 }]);
    let keys: JwkSet = serde_json::from_str(&jwks.expect("a file")).expect("a set of keys");
    if words[0] == "--jws" {
        let key = DecodingKey::from_jwk(&keys.keys[0]).expect("an Ed25519 key");
        let payload = |line: Vec<u8>| {
            let line = String::from_utf8(line).expect("text");
            let (message, signature) = line.rsplit_once('.').expect("three parts");
            let verified =
                jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, Algorithm::EdDSA);
            assert!(verified.expect("a signature"), "the signature does not fit");
            message.rsplit_once('.').expect("three parts").1.to_owned()
        };
        return lines.map(payload).collect();
    }
    let now = words
        .get(4)
        .map_or_else(jsonwebtoken::get_current_timestamp, |now| {
            now.parse().expect("seconds since 1970")
        });
    let of = [words[1].as_str(), &words[2], &words[3]];
    let verdict = |line: Vec<u8>| {
        let grant = std::str::from_utf8(&line).map_err(|why| why.to_string());
        match grant.and_then(|grant| verify(grant, &keys, of, now)) {
            Ok(claims) => format!("valid until {}", claims.exp),
            Err(why) => format!("refused: {why}"),
        }
    };
    lines.map(verdict).collect()
}

#[allow(dead_code, reason = "the tests call `verdicts`")]
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    for verdict in verdicts(&words, std::io::stdin().lock()) {
        println!("{verdict}");
    }
}
