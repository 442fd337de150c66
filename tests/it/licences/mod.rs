//! Licences for client apps (R19): who gets a grant, that no trial is given twice, and that devices
//! verify grants offline.

mod durable;
mod examples;
mod grants;
mod revoking;
mod shared;
mod trials;

use crate::harness::*;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use sha2::Digest;
use std::net::SocketAddr;
use tollgate::testing::config;
use tollgate::testing::control;
use tollgate::testing::model::Clock;

/// The key that stands in the apps of 1250000001.
pub const APP_KEY: &str = "tl_the-key-in-the-app";
/// The app that 1250000001 bought a licence for.
pub const CAMERA: &str = "com.example.camera";
pub const SIGNING: &str = "  # signing_key: {file: secrets/licence.pem}   # `tollgate key new --licence FILE`; without it no grant is signed";
const ACCOUNT: &str = "    name: Example Studio\n";

/// The shipped files, with a signing key, a licence of [`CAMERA`] and a licence key of its account.
pub fn house(upstream: SocketAddr) -> Sandbox {
    let house = Sandbox::new(
        upstream,
        &[("trusted_proxies: []", "trusted_proxies: [127.0.0.1/32]")],
    );
    let made = new_key(&house, "licence.pem");
    assert!(made.contains("public_keys: ["), "{made}");
    house.edit(
        "catalog.yaml",
        SIGNING,
        "  signing_key: {file: licence.pem}",
    );
    let hash = hex::encode(sha2::Sha256::digest(APP_KEY));
    let bought = format!(
        "{ACCOUNT}    licences: [{{order: L-1, package: {CAMERA}, from: 2026-01-31T00:00:00+08:00, years: 10, paid: {{cash: \"100000\"}}}}]\n    \
         licence_keys: [{{sha256: {hash}}}]\n"
    );
    house.edit("accounts.yaml", ACCOUNT, &bought);
    house
}

/// `tollgate key new --licence FILE`; what it printed.
pub fn new_key(house: &Sandbox, name: &str) -> String {
    let path = house.file(name);
    let made = said(
        std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["key", "new", "--licence"])
            .arg(&path),
    );
    assert_eq!(made.code, Some(0), "{}", made.err);
    made.out
}

/// A gate of this process on the files of a house, with a clock that can be moved.
pub async fn gate(house: &Sandbox) -> Gate {
    let mut config = config::load(&house.settings).unwrap_or_else(|error| panic!("{error}"));
    config.settings.limits.connections = 500;
    let (clock, mover) = Clock::movable();
    let running = control::start(config, clock.clone(), Default::default())
        .await
        .unwrap();
    Gate {
        public: running.public.first_tcp().unwrap(),
        admin: running.admin,
        running: Some(running),
        clock,
        mover,
        dir: tempfile::tempdir().unwrap(),
    }
}

/// A request for a grant, from an address of its own for each device.
pub fn request(key: &str, package: &str, device: &str, more: Value) -> Request<Full<Bytes>> {
    let mut body = json!({"package": package, "device": device, "sdk": "1.2.3"});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let address = sha2::Sha256::digest(device);
    let mut request = plain("POST", "/v1/licences/authorize", key, &body.to_string());
    let from = format!("10.{}.{}.{}", address[0], address[1], address[2]);
    request
        .headers_mut()
        .insert("x-forwarded-for", from.parse().unwrap());
    request
}

pub async fn authorize(
    public: SocketAddr,
    key: &str,
    package: &str,
    device: &str,
    more: Value,
) -> (StatusCode, Value) {
    let (status, _, body) = send(public, request(key, package, device, more)).await;
    let body = serde_json::from_slice(&body);
    (status, body.unwrap_or_default())
}

pub fn trial() -> Value {
    json!({"apply": "trial"})
}

pub fn nothing() -> Value {
    json!({})
}

/// The reason of a refusal.
pub fn reason(answer: &(StatusCode, Value)) -> String {
    let kind = answer.1["type"].as_str().unwrap_or_default();
    kind.trim_start_matches("urn:tollgate:problem:").to_owned()
}
