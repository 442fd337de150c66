//! Where no secret may stand: log, access log, metrics, every page of the admin listener, answers,
//! explanations, the ledger, core dumps.

use crate::bills::seed;
use crate::events::raise;
use crate::harness::*;
use crate::tls::{TlsGate, certificate};
use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// One secret of each kind, none like anything else that a gate says.
const SECRETS: [(&str, &str); 9] = [
    ("the secret of a pair", "pairs3cr3tQm7vX2kLp9dR"),
    ("what it is changed to", "pairn3w3rTz5wB8nHc4jF"),
    ("an API key", "apik3yYg6uE1sMv8aKq"),
    ("a wrong API key", "wr0ngk3yJd2fNb7xWo5"),
    ("the admin token", "adm1nt0k3nVc4hZr8tIp"),
    ("a wrong admin token", "wr0ngt0k3nFl9mGs3yUe"),
    ("the path of the webhook", "h00kp4thDk5bOw1qXn7"),
    ("the store's password", "st0r3pwHu8iCj6vTa2e"),
    ("the password of NATS", "n4tspwRm3oPz9gLy5sB"),
];
/// The bytes of it sign events; as text it has a prefix.
const SIGNING: &str = "whsec_ZXYzbnRzMWduMW5nazN5QXE3d0UycjhUeTV1STE=";

fn secret(kind: &str) -> &'static str {
    SECRETS.iter().find(|(of, _)| *of == kind).unwrap().1
}

/// Every text of a secret that would give it away: as it is, coded, and eight bytes of it at its
/// start and end.
fn traces(secret: &str) -> Vec<String> {
    let (base64, hex) = (
        base64::engine::general_purpose::STANDARD.encode(secret),
        hex::encode(secret),
    );
    let ends = [&secret[..8], &secret[secret.len() - 8..]].map(str::to_owned);
    // The last characters of base64 depend on what follows.
    [secret.to_owned(), base64[..20].to_owned(), hex]
        .into_iter()
        .chain(ends)
        .collect()
}

fn assert_no_secret(whence: &str, said: &[u8]) {
    let signing = SIGNING.strip_prefix("whsec_").unwrap();
    let bytes = String::from_utf8(
        base64::engine::general_purpose::STANDARD
            .decode(signing)
            .unwrap(),
    )
    .unwrap();
    let kinds = SECRETS.iter().map(|(kind, secret)| (*kind, *secret));
    for (kind, secret) in kinds.chain([("a signing key", signing), ("its bytes", &bytes)]) {
        for trace in traces(secret) {
            assert!(
                !said
                    .windows(trace.len())
                    .any(|part| part == trace.as_bytes()),
                "{whence} has {kind}: {trace:?} in {}",
                String::from_utf8_lossy(said)
            );
        }
    }
}

/// Settings and accounts with a secret of each kind that a gate without a store and NATS has.
fn house(upstream: std::net::SocketAddr) -> Sandbox {
    let section = format!(
        "trusted_proxies: []\naccess_log: {{to: access.log}}\nevents: {{webhook: \
         \"http://127.0.0.1:9/{}\", secret: {SIGNING}, balance_below: \"1000000\"}}\n",
        secret("the path of the webhook")
    );
    let admin = format!(", token: {}}}\n", secret("the admin token"));
    let house = Sandbox::new(upstream, &[("trusted_proxies: []", &section)]);
    let listen = format!("admin: {{listen: {}}}\n", house.admin);
    let listen_with = listen.trim_end().trim_end_matches('}').to_owned() + &admin;
    house.edit("tollgate.yaml", &listen, &listen_with);
    house.edit(
        "accounts.yaml",
        "secret_key: trial-secret-of-example-studio",
        "secret_key: {file: studio.key}",
    );
    std::fs::write(house.file("studio.key"), secret("the secret of a pair")).unwrap();
    let hash = |key: &str| hex::encode(<sha2::Sha256 as sha2::Digest>::digest(key));
    house.edit(
        "accounts.yaml",
        &hash(STUDIO_KEY),
        &hash(secret("an API key")),
    );
    house
}

/// What the admin listener answers to this token.
async fn asked(house: &Sandbox, method: Method, path: &str, token: &str) -> (StatusCode, Bytes) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "127.0.0.1")
        .header("authorization", format!("Bearer {token}"))
        .body(Full::default())
        .unwrap();
    let (status, headers, body) = send(house.admin, request).await;
    assert_no_secret(path, format!("{headers:?}").as_bytes());
    (status, body)
}

/// Calls that are admitted, and calls that fail in every way that has to do with a credential. The
/// request ids of those that failed.
async fn calls(house: &Sandbox) -> Vec<String> {
    let (key, wrong) = (secret("an API key"), secret("a wrong API key"));
    let pair = |secret| signed(STUDIO_ID, secret, "SegmentPortraitPic", "{}");
    let with = |name: &'static str, value: String| {
        Request::post("/v1/portrait/segment")
            .header("host", "gate.test")
            .header(name, value)
            .body(Full::default())
            .unwrap()
    };
    let mut bad_length = segment(key);
    bad_length
        .headers_mut()
        .insert("x-tc-version", "2019".parse().unwrap());
    let calls = vec![
        segment(key),
        pair(secret("the secret of a pair")),
        segment(wrong),
        with("authorization", format!("Bearer {wrong}")),
        with("authorization", format!("Basic {wrong}")),
        with("authorization", format!("TC3-HMAC-SHA256 {wrong}")),
        pair(wrong),
        signed(wrong, key, "SegmentPortraitPic", "{}"),
        plain("GET", &format!("/v1/portrait/segment?key={key}"), key, ""),
        plain("POST", &format!("/nowhere/{wrong}"), key, ""),
        plain("GET", "/v1/quota?verbose=1", key, ""),
        plain("GET", "/v1/quota", key, ""),
        plain("GET", "/v1/records", key, ""),
        plain("GET", "/v1/decisions/nothing", wrong, ""),
        bad_length,
    ];
    let mut ids = Vec::new();
    for call in calls {
        let whence = format!("the answer to {} {}", call.method(), call.uri().path());
        let (status, headers, body) = send(house.public, call).await;
        assert_no_secret(&whence, &body);
        assert_no_secret(&whence, format!("{headers:?}").as_bytes());
        let said = String::from_utf8_lossy(&body);
        let id = headers.get("x-request-id").map(|id| id.to_str().unwrap());
        let id = id.map(str::to_owned).or_else(|| {
            let at = said.find("\"RequestId\":")?;
            said[at..].split('"').nth(3).map(str::to_owned)
        });
        if status != StatusCode::OK || said.contains("\"Error\"") {
            ids.extend(id);
        }
    }
    // No HTTP at all, with a key in it.
    let mut wire = Wire::connect(house.public).await;
    wire.write(format!("{key}\r\nX-Api-Key: {wrong}\r\n\r\n"))
        .await;
    if let Some(reply) = wire.try_reply().await {
        assert_no_secret("the answer to no HTTP", &reply.body);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_stands_in_anything_that_a_gate_says_or_writes_however_it_fails() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address);
    let checked = house.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    std::fs::create_dir_all(house.ledger().parent().unwrap()).unwrap();
    seed(&house.ledger(), []);
    raise(&house.ledger(), &[("1250000001", 1)]);
    let gate = house.start().await;
    let (token, wrong) = (secret("the admin token"), secret("a wrong admin token"));
    let ids = calls(&house).await;
    assert!(ids.len() >= 8, "{ids:?}");

    // A reload that takes a new secret, one that finds it odd, and files with mistakes beside it.
    let newer = secret("what it is changed to");
    std::fs::write(house.file("studio.key"), newer).unwrap();
    let reload = async || asked(&house, Method::POST, "/v1/reload", token).await;
    let (status, said) = reload().await;
    assert_eq!(status, StatusCode::OK);
    assert_no_secret("a reload", &said);
    std::fs::write(house.file("studio.key"), format!("{newer} {newer}")).unwrap();
    let (_, said) = reload().await;
    assert_no_secret("a reload that fails", &said);
    std::fs::write(house.file("studio.key"), newer).unwrap();
    let literal = format!("secret_key: {{{newer}}}, secret_key: [{newer}]");
    house.edit("accounts.yaml", "secret_key: {file: studio.key}", &literal);
    house.edit("tollgate.yaml", SIGNING, &format!("{SIGNING}x"));
    let (_, said) = reload().await;
    assert_no_secret("a reload of files with mistakes", &said);
    for command in ["check", "usage", "report"] {
        let said = house.run(&[command]);
        assert_ne!(said.code, Some(0), "{command}");
        assert_no_secret(command, (said.out + &said.err).as_bytes());
    }
    house.edit("tollgate.yaml", &format!("{SIGNING}x"), SIGNING);
    house.edit("accounts.yaml", &literal, "secret_key: {file: studio.key}");

    for path in [
        "/",
        "/metrics",
        "/status",
        "/livez",
        "/readyz",
        "/nothing",
        "/v1/usage",
        "/v1/records",
        "/v1/accounts",
        "/v1/accounts/1250000001",
        "/v1/accounts/1250000001?colour=red",
        "/v1/statements/1250000001",
        "/v1/licences",
        "/v1/sources",
        "/v1/status/now",
        "/v1/status/history",
        "/v1/status/accounts",
        "/v1/status/accounts/1250000001",
        "/v1/status/books",
        "/v1/status/news",
    ] {
        for token in [token, wrong] {
            let (_, said) = asked(&house, Method::GET, path, token).await;
            assert_no_secret(path, &said);
        }
    }
    for id in &ids {
        let path = format!("/v1/decisions/{id}");
        let (_, said) = asked(&house, Method::GET, &path, token).await;
        assert_no_secret(&path, &said);
        let said = house.run(&["explain", id]);
        assert_no_secret("explain", (said.out + &said.err).as_bytes());
    }
    for command in [
        &["check"][..],
        &["usage"],
        &["report"],
        &["events"],
        &["verify"],
        &["records"],
    ] {
        let said = house.run(command);
        assert_no_secret(command[0], (said.out + &said.err).as_bytes());
    }
    let log = || std::fs::read(house.dir.path().join("log")).unwrap();
    eventually("the webhook was tried", || {
        String::from_utf8_lossy(&log()).contains("an event is not delivered")
    })
    .await;
    gate.signal("TERM");
    let mut gate = gate;
    gate.ended().await;
    assert!(!log().is_empty());
    assert_no_secret("the log", &log());
    assert_no_secret(
        "the access log",
        &std::fs::read(house.file("access.log")).unwrap(),
    );
    for entry in std::fs::read_dir(house.dir.path().join("var")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            assert_no_secret(&path.display().to_string(), &std::fs::read(&path).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_store_or_of_nats_stands_in_what_a_gate_says_when_it_cannot_have_them() {
    let (store, nats) = (
        secret("the store's password"),
        secret("the password of NATS"),
    );
    let section = format!(
        "admission:\n  max_delay: 50ms\n  store: {{redis: {{nodes: [\"127.0.0.1:9\"], username: tollgate, password: {store}}}}}\n"
    );
    let outbox = format!(
        "outbox: {{nats: {{servers: [\"nats://127.0.0.1:9\"], username: tollgate, password: {nats}}}}}\n"
    );
    for (from, to) in [
        ("admission: {max_delay: 50ms}", section.as_str()),
        ("trusted_proxies: []", &outbox),
    ] {
        let house = Sandbox::new(([127, 0, 0, 1], 9).into(), &[(from, to)]);
        // It ends, or goes on and tries again: what it said by then is what counts.
        let log = house.dir.path().join("log");
        let mut command = house.command(&[], &["serve"]);
        command.stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        eventually("it has said why", || {
            child.try_wait().unwrap().is_some()
                || std::fs::read_to_string(&log).unwrap().lines().count() >= 3
        })
        .await;
        let _ = child.kill();
        child.wait().unwrap();
        let said = std::fs::read(&log).unwrap();
        assert!(!said.is_empty());
        assert_no_secret("the log", &said);
        let said = house.run(&["check"]);
        assert_no_secret("check", (said.out + &said.err).as_bytes());
        house.edit("tollgate.yaml", "username: tollgate", "user: tollgate");
        let said = house.run(&["check"]);
        assert_ne!(said.code, Some(0));
        assert_no_secret("check", (said.out + &said.err).as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_private_key_of_tls_stands_in_what_a_gate_says_when_it_cannot_use_it() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let key_file = gate.house.file("tls/gate.key");
    let key = std::fs::read_to_string(&key_file).unwrap();
    let lines: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(lines.len() >= 2, "a key in PEM");
    let keeps_it = |whence: &str, said: &str| {
        for line in &lines {
            let start = &line[..line.len().min(16)];
            assert!(!said.contains(start), "{whence} has the key: {said}");
        }
    };
    let mut wire = Wire::connect(gate.house.public).await;
    wire.write("GET / HTTP/1.1\r\n\r\n").await;
    wire.try_reply().await;
    let mut wire = Wire::connect(gate.house.public).await;
    wire.write(b"\x16\x03\x01\x00\x05\xff\xff\xff\xff\xff")
        .await;
    wire.try_reply().await;
    let other = gate.house.file("other");
    let (_, of_another) = certificate(&other, &[]);
    for broken in [
        key[..key.len() / 2].to_owned(),
        key.replace("PRIVATE KEY", "CERTIFICATE"),
        lines.join(""),
        std::fs::read_to_string(of_another).unwrap() + &key,
    ] {
        std::fs::write(&key_file, &broken).unwrap();
        let said = gate.house.run(&["check"]);
        keeps_it("check", &(said.out + &said.err));
        let (_, said) = post_reload(gate.house.admin, "").await;
        keeps_it("a reload", &said.to_string());
    }
    for path in ["/metrics", "/status"] {
        let (_, _, said) = get(gate.house.admin, path).await;
        keeps_it(path, &String::from_utf8_lossy(&said));
    }
    keeps_it("the log", &gate.house.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_crashes_leaves_no_core_dump_and_its_user_cannot_read_its_memory() {
    let house = Sandbox::new(([127, 0, 0, 1], 9).into(), &[]);
    // Root may read all: without its capabilities it is a user like others.
    let plain_user: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["setpriv", "--bounding-set=-all"],
        false => &["env"],
    };
    let mut gate = house
        .start_under(&[plain_user, &["prlimit", "--core=unlimited:unlimited"]].concat())
        .await;
    let of = |file: &str| format!("/proc/{}/{file}", gate.child.id());
    let limits = std::fs::read_to_string(of("limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = line.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{words:?}");
    // Its environment may have secrets; to read it takes the same right as to read its memory.
    let reads = |file: String| {
        let mut command = Command::new(plain_user[0]);
        command
            .args(&plain_user[1..])
            .args(["head", "-c", "1", &file]);
        said(&mut command).code == Some(0)
    };
    assert!(reads(of("limits")));
    assert!(!reads(of("environ")));
    gate.signal("ABRT");
    let status = gate.ended().await;
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped());
}
