//! The examples of deploy/examples/licence/ refuse what no grant is: in Rust, C and Python.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[allow(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "an example prints, and fails aloud"
)]
#[path = "../../../deploy/examples/licence/verify.rs"]
mod verify;

/// RFC 8037, appendix A.
const RFC_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const RFC_JWS: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/licence")
}

fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python")
}

/// The verdicts of the three examples on the same lines.
fn verdicts(dir: &Path, words: &[&str], lines: &[String]) -> [Vec<String>; 3] {
    let owned: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let text = lines.join("\n") + "\n";
    let run = |command: &mut Command| -> Vec<String> {
        let mut child = command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{command:?}");
        let out = String::from_utf8(ended.stdout).unwrap();
        out.lines().map(str::to_owned).collect()
    };
    let mut script = Command::new(python());
    [
        verify::verdicts(&owned, text.as_bytes()),
        run(&mut Command::new(dir.join("verify"))),
        run(script.arg(examples().join("verify.py"))),
    ]
}

/// The example in C, compiled into this directory.
fn compile(dir: &Path) {
    let made = Command::new("cc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror"])
        .arg(examples().join("verify.c"))
        .arg("-o")
        .arg(dir.join("verify"))
        .args(["-lrhonabwy", "-lyder", "-lorcania", "-ljansson"])
        .status()
        .unwrap();
    assert!(made.success(), "librhonabwy-dev: `make needs`");
}

#[test]
fn the_vectors_of_rfc_8037_pass_in_all_three_languages() {
    let dir = tempfile::tempdir().unwrap();
    compile(dir.path());
    let jwks = dir.path().join("jwks.json");
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": RFC_X}]});
    std::fs::write(&jwks, set.to_string()).unwrap();
    let said = verdicts(
        dir.path(),
        &["--jws", jwks.to_str().unwrap()],
        &[RFC_JWS.to_owned()],
    );
    let [mut rust, c, python] = said;
    // The first one shows the payload as it stands.
    rust[0] = String::from_utf8(URL_SAFE_NO_PAD.decode(&rust[0]).unwrap()).unwrap();
    for said in [rust, c, python] {
        assert_eq!(said, ["Example of Ed25519 signing"]);
    }
}

/// What a client of the format could be made to take, each with what it is.
fn forged(grant: &str, public: &str, other: &str) -> Vec<(String, String)> {
    let parts: Vec<&str> = grant.split('.').collect();
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let mut bad = vec![("nothing".to_owned(), "x".to_owned())];
    for at in 0..grant.len() {
        let byte = grant.as_bytes()[at];
        let swapped = if byte == b'A' { b'B' } else { b'A' };
        // The next letter of the alphabet changes the last bits alone.
        let next = if byte.is_ascii_digit() {
            (byte - b'0' + 1) % 10 + b'0'
        } else {
            byte ^ 1
        };
        for new in [swapped, next] {
            let mut bytes = grant.as_bytes().to_vec();
            bytes[at] = new;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if text != grant && !text.contains('\n') {
                bad.push((format!("byte {at} is {}", char::from(new)), text));
            }
        }
    }
    let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0]).unwrap()).unwrap();
    let kid = head["kid"].as_str().unwrap();
    for alg in ["none", "None", "nOnE"] {
        let head = part(&json!({"alg": alg, "typ": "JWT", "kid": kid}).to_string());
        bad.push((format!("alg {alg}"), format!("{head}.{}.", parts[1])));
        bad.push((
            format!("alg {alg}, signed"),
            format!("{head}.{}.{}", parts[1], parts[2]),
        ));
    }
    let head = part(&json!({"alg": "HS256", "typ": "JWT", "kid": kid}).to_string());
    for secret in [
        public.as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode(public).unwrap(),
    ] {
        let message = format!("{head}.{}", parts[1]);
        let mac = Hmac::<sha2::Sha256>::new_from_slice(&secret).unwrap();
        let mac = mac.chain_update(&message).finalize().into_bytes();
        bad.push((
            "HS256 with the public key".to_owned(),
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac)),
        ));
    }
    bad.push(("a retired or unknown key".to_owned(), other.to_owned()));
    bad
}

/// What the gate's own key signed, and no gate would give out; and texts that are not one grant.
fn signed_by_the_gate(house: &Sandbox, grant: &str) -> Vec<(String, String)> {
    let pem = std::fs::read_to_string(house.file("licence.pem")).unwrap();
    let der: String = pem.lines().filter(|line| !line.contains('-')).collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(der)
        .unwrap();
    let key = jsonwebtoken::EncodingKey::from_ed_der(&der);
    let part = |at: usize| {
        let part = grant.split('.').nth(at).unwrap();
        serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let sign = |head: Value, claims: Value| {
        let [head, claims] = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let text = format!("{head}.{claims}");
        let eddsa = jsonwebtoken::Algorithm::EdDSA;
        let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, eddsa).unwrap();
        format!("{text}.{signature}")
    };
    let with = |at: usize, name: &str, value: Value| {
        let mut parts = [part(0), part(1)];
        parts[at][name] = value;
        let [head, claims] = parts;
        (format!("{name} in part {at}"), sign(head, claims))
    };
    let text = |what: &str, text: String| (what.to_owned(), text);
    vec![
        with(0, "crit", json!(["exp"])),
        with(0, "b64", json!(false)),
        with(1, "iss", json!(["tollgate", "another"])),
        with(1, "nbf", json!(true)),
        with(1, "exp", json!("9999999999")),
        text("a carriage return", format!("{grant}\r")),
        text("a NUL behind it", format!("{grant}\0")),
        text("a NUL and more", format!("{grant}\0.x")),
        text("longer than a grant", "A".repeat(4_095) + grant),
        text("much longer", "A".repeat(100_000)),
        text("no ASCII", format!("{grant}é")),
    ]
}

/// Keys of other kinds, with the same id and without one, before those of the gate.
fn among_others(jwks: &Value) -> Value {
    let own = &jwks["keys"][0];
    let mut no_id = own.clone();
    no_id.as_object_mut().unwrap().remove("kid");
    json!({"keys": [
        {"kty": "AKP", "kid": "q", "alg": "ML-DSA-44", "pub": "AA"},
        {"kty": "RSA", "kid": own["kid"], "n": "AQAB", "e": "AQAB"},
        no_id,
        own,
    ]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_tampered_with_ended_or_of_another_is_refused_in_all_three_languages() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    let other_house = house_of(upstream.address);
    let (gate, other_gate) = (gate(&house).await, gate(&other_house).await);
    let (_, said) = authorize(gate.public, APP_KEY, CAMERA, "device-1", nothing()).await;
    let grant = said["grant"].as_str().unwrap().to_owned();
    let (_, said) = authorize(other_gate.public, APP_KEY, CAMERA, "device-1", nothing()).await;
    let other = said["grant"].as_str().unwrap().to_owned();
    let (_, _, jwks) = get(gate.public, "/.well-known/jwks.json").await;
    let set: Value = serde_json::from_slice(&jwks).unwrap();
    let public = set["keys"][0]["x"].as_str().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    compile(dir.path());
    let path = dir.path().join("jwks.json");
    std::fs::write(&path, &jwks).unwrap();
    let path = path.to_str().unwrap().to_owned();
    let claims: Value = serde_json::from_slice(
        &URL_SAFE_NO_PAD
            .decode(grant.split('.').nth(1).unwrap())
            .unwrap(),
    )
    .unwrap();
    let (begins, ends) = (
        claims["nbf"].as_i64().unwrap(),
        claims["exp"].as_i64().unwrap(),
    );
    let now = gate.clock.utc().seconds().to_string();
    let (last, end, first, before) = (
        (ends - 1).to_string(),
        ends.to_string(),
        begins.to_string(),
        (begins - 1).to_string(),
    );
    let valid = format!("valid until {ends}");

    let among = dir.path().join("among.json");
    std::fs::write(&among, among_others(&set).to_string()).unwrap();
    let odd = signed_by_the_gate(&house, &grant);
    let (dir, public, checked) = (dir, public, grant.clone());
    let done = tokio::task::spawn_blocking(move || {
        let on = |words: [&str; 4], lines: &[String]| {
            let words = [&[path.as_str()], &words[..]].concat();
            verdicts(dir.path(), &words, lines)
        };
        let grant = [checked.clone()];
        for time in [&now, &last, &first] {
            for said in on([CAMERA, "device-1", "tollgate", time], &grant) {
                assert_eq!(said, std::slice::from_ref(&valid), "{time}");
            }
        }
        for (words, why) in [
            ([CAMERA, "device-1", "tollgate", &end], "it has ended"),
            (
                [CAMERA, "device-1", "tollgate", &before],
                "it has not begun",
            ),
            (
                ["com.example.other", "device-1", "tollgate", &now],
                "another package",
            ),
            ([CAMERA, "device-2", "tollgate", &now], "another device"),
            ([CAMERA, "device-1", "somebody", &now], "ssuer"),
        ] {
            for said in on(words, &grant) {
                assert!(
                    said[0].starts_with("refused: ")
                        && said[0].to_lowercase().contains(&why.to_lowercase()),
                    "{words:?}: {said:?}"
                );
            }
        }
        let words = [
            among.to_str().unwrap(),
            CAMERA,
            "device-1",
            "tollgate",
            &now,
        ];
        for said in verdicts(dir.path(), &words, &grant) {
            assert_eq!(said, std::slice::from_ref(&valid), "keys of other kinds");
        }
        let mut forged = forged(&checked, &public, &other);
        forged.extend(odd);
        let lines: Vec<String> = forged.iter().map(|(_, line)| line.clone()).collect();
        for (language, said) in ["Rust", "C", "Python"]
            .iter()
            .zip(on([CAMERA, "device-1", "tollgate", &now], &lines))
        {
            assert_eq!(said.len(), lines.len(), "{language}");
            let taken = forged
                .iter()
                .zip(&said)
                .filter(|(_, said)| !said.starts_with("refused: "));
            let taken: Vec<_> = taken
                .map(|((what, _), said)| format!("{what}: {said}"))
                .collect();
            assert!(taken.is_empty(), "{language} takes {taken:#?}");
        }
        forged.len()
    });
    assert!(done.await.unwrap() > 500);
}

fn house_of(upstream: SocketAddr) -> Sandbox {
    house(upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_of_an_offline_sdk_works_only_while_its_grant_is_valid() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    let gate = gate(&house).await;
    let folder = tempfile::tempdir().unwrap();
    let sdk = async |words: Vec<String>| {
        let ran = tokio::task::spawn_blocking(move || {
            said(
                Command::new(python())
                    .arg(examples().join("offline_sdk.py"))
                    .args(words),
            )
        });
        let ran = ran.await.unwrap();
        (ran.code, ran.out.trim().to_owned())
    };
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let path = folder.path().to_str().unwrap();
    let work = ["segment", path, CAMERA, "device-1"];
    let (code, _) = sdk(words(&work)).await;
    assert_eq!(code, Some(1), "without a grant");
    let public = format!("http://{}", gate.public);
    let renewed = sdk(words(&[
        "renew", &public, path, CAMERA, "device-1", APP_KEY,
    ]))
    .await;
    assert_eq!(renewed, (Some(0), "renewed".to_owned()));
    // What answers is no gate, or one that refuses: what was kept holds on.
    let other = format!("http://{}", upstream.address);
    for (from, key, why) in [
        (&other, APP_KEY, "refused: "),
        (&public, "another-key", "refused by the gate: "),
    ] {
        let asked = words(&["renew", from, path, CAMERA, "device-1", key]);
        let (code, told) = sdk(asked).await;
        assert!(code == Some(1) && told.starts_with(why), "{told}");
        let worked = sdk(words(&work)).await;
        assert_eq!(worked, (Some(0), "erutcip".to_owned()), "{told}");
    }
    drop(gate);
    assert_eq!(
        sdk(words(&work)).await,
        (Some(0), "erutcip".to_owned()),
        "offline"
    );
    let in_a_week = (Clock::default().utc().seconds() + 7 * 86_400).to_string();
    let ended = sdk(words(&[&work[..], &[&in_a_week]].concat())).await;
    assert_eq!(ended, (Some(1), "refused: it has ended".to_owned()));
    let moved = sdk(words(&["segment", path, CAMERA, "device-2"])).await;
    assert_eq!(
        moved,
        (Some(1), "refused: it is for another device".to_owned())
    );
    for broken in [&b"\xff\xfe"[..], b"", b"[]"] {
        std::fs::write(folder.path().join("grant"), broken).unwrap();
        let (code, told) = sdk(words(&work)).await;
        assert!(code == Some(1) && told.starts_with("refused: "), "{told}");
    }
}
