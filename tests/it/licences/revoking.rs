//! Revocations: what is revoked, who hears of it, and what bad values in a bucket do.

use super::*;
use crate::collect::fleet::{ALONE, outbox};
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

const REVOKED: &str = "tollgate_licence_revoked";
const TRIALS: &str = "tollgate_licence_trials";

/// Puts a value, or deletes the key, as the server's tools do.
fn put(nats: &NatsServer, bucket: &str, key: &str, value: Option<&str>) {
    let socket = std::net::TcpStream::connect(("127.0.0.1", nats.port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
    let mut ask = "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB answer 1\r\n".to_owned();
    ask += &match value {
        Some(value) => format!(
            "PUB $KV.{bucket}.{key} answer {}\r\n{value}\r\n",
            value.len()
        ),
        None => {
            let head = "NATS/1.0\r\nKV-Operation: DEL\r\n\r\n";
            let bytes = head.len();
            format!("HPUB $KV.{bucket}.{key} answer {bytes} {bytes}\r\n{head}\r\n")
        }
    };
    (&socket).write_all(ask.as_bytes()).unwrap();
    lines.find(|line| line.as_ref().unwrap().starts_with("MSG answer"));
    let said = lines.next().unwrap().unwrap();
    assert!(said.contains("\"seq\""), "{said}");
}

/// Revokes at this gate.
async fn revoke(house: &Sandbox, account: &str, package: &str) -> (StatusCode, Value) {
    let path = format!("/v1/licences/revoke?account={account}&package={package}&why=stolen");
    let asked = Request::post(path)
        .header("host", house.admin.to_string())
        .body(Full::default())
        .unwrap();
    let (status, _, body) = send(house.admin, asked).await;
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// Waits until this is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    for _ in 0..300 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}");
}

fn us_from_now(seconds: i64) -> i64 {
    Clock::default().utc().0 + seconds * 1_000_000
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_read_keeps_no_gate_from_the_others() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let mut nats = NatsServer::debian(&[]);
    nats.ready().await;
    let gate = async |name: &str| {
        let house = house(upstream.address);
        house.edit("tollgate.yaml", ALONE, &outbox(nats.port, name));
        house.edit("tollgate.yaml", "workers: auto", "workers: 1");
        let process = house.start().await;
        (house, process)
    };
    let ((first, _one), (second, _two)) = (gate("gate-1").await, gate("gate-2").await);
    let ask = async |key: &str, package: &str, more: Value| {
        let asked = authorize(second.public, key, package, "d", more).await;
        (asked.0, reason(&asked))
    };
    let granted = (StatusCode::OK, String::new());
    let revoked = (StatusCode::FORBIDDEN, "licence_revoked".to_owned());
    until("the gates have their bucket", async || {
        ask(RETAIL_KEY, "com.example.a", trial()).await == granted
    })
    .await;

    // What is not read of one account is passed over.
    put(&nats, REVOKED, "1250000002.com.example.x", Some("garbage"));
    put(&nats, TRIALS, "trial.1250000004.1", Some("garbage"));
    let far = format!(
        r#"{{"package":"com.example.far","applied_at_us":{}}}"#,
        i64::MAX
    );
    put(&nats, TRIALS, "trial.1250000004.2", Some(&far));
    assert_eq!(ask(VIDEO_KEY, "com.example.v", trial()).await, granted);
    let taken = authorize(first.public, VIDEO_KEY, "com.example.v", "d", nothing()).await;
    assert_eq!(taken.0, StatusCode::OK, "{}", taken.1);
    // A place that was deleted by hand is free.
    put(&nats, TRIALS, "trial.1250000001.1", Some("garbage"));
    put(&nats, TRIALS, "trial.1250000001.1", None);
    assert_eq!(ask(STUDIO_KEY, "com.example.s", trial()).await, granted);

    // Of a gate whose clock is ahead: what is revoked here is revoked.
    let ahead = us_from_now(60);
    let skew = format!(r#"{{"package":"com.example.skew","applied_at_us":{ahead}}}"#);
    put(&nats, TRIALS, "trial.1250000002.2", Some(&skew));
    assert_eq!(
        ask(RETAIL_KEY, "com.example.skew", nothing()).await,
        granted
    );
    let (status, said) = revoke(&second, "1250000002", "com.example.skew").await;
    assert_eq!(status, StatusCode::OK, "{said}");
    assert_eq!(said["licences"][0]["state"], "licence_revoked");
    assert_eq!(
        ask(RETAIL_KEY, "com.example.skew", nothing()).await,
        revoked
    );

    // An instant that is newer stands, and the answer tells it.
    let newer = us_from_now(3_600);
    let newer = format!(r#"{{"revoked_at_us":{newer},"why":"by another gate"}}"#);
    put(
        &nats,
        REVOKED,
        &format!("1250000001.{CAMERA}"),
        Some(&newer),
    );
    let (status, said) = revoke(&first, "1250000001", CAMERA).await;
    assert_eq!(
        (status, &said["heard_by"]),
        (StatusCode::OK, &json!("all_gates"))
    );
    let at: jiff::Timestamp = said["at"].as_str().unwrap().parse().unwrap();
    assert!(at.as_microsecond() > us_from_now(1_800), "{said}");
    until("the other gate hears it", async || {
        ask(APP_KEY, CAMERA, nothing()).await == revoked
    })
    .await;

    // Told once.
    nats.kill();
    until("it is told that nothing is heard", async || {
        second
            .log()
            .contains("what other gates revoke is not heard")
    })
    .await;
    nats.restart();
    nats.ready().await;
    until("it is told that it is heard again", async || {
        second
            .log()
            .contains("what other gates revoke is heard again")
    })
    .await;
    let log = second.log();
    let told = log
        .lines()
        .filter(|line| line.contains("a value cannot be read"));
    assert_eq!(told.count(), 3, "{log}");
    let (_, _, seen) = get(second.admin, "/metrics").await;
    let seen = String::from_utf8(seen.to_vec()).unwrap();
    assert!(
        seen.contains("tollgate_licence_unreadable_values 3\n"),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_never_had_a_licence_is_not_revoked_and_no_key_no_trial() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address);
    let later = "from: 2026-01-31T00:00:00+08:00, years: 10, paid: {cash: \"100000\"}}";
    house.edit(
        "accounts.yaml",
        later,
        &format!("{later}, {{order: L-2, package: com.example.later, from: 2090-01-31T00:00:00+08:00, paid: {{cash: \"10000\"}}}}"),
    );
    let process = house.start().await;
    let never = revoke(&house, "1250000001", "com.example.never").await;
    let said = never.1["detail"].as_str().unwrap();
    assert_eq!(never.0, StatusCode::NOT_FOUND);
    assert!(
        said.starts_with("no licence of com.example.never is known"),
        "{said}"
    );
    let later = revoke(&house, "1250000001", "com.example.later").await;
    assert_eq!(later.0, StatusCode::CONFLICT, "{}", later.1);
    let asked = authorize(house.public, APP_KEY, "com.example.later", "d", nothing()).await;
    assert_eq!(reason(&asked), "licence_not_begun");

    house.edit("catalog.yaml", "  signing_key: {file: licence.pem}", "");
    let (status, said) = post_reload(process.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let apply = "/v1/licences/apply?account=1250000002&package=com.example.none";
    let asked = Request::post(apply)
        .header("host", house.admin.to_string())
        .body(Full::default())
        .unwrap();
    let (status, ..) = send(house.admin, asked).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (_, _, own) = send(house.public, plain("GET", "/v1/licences", RETAIL_KEY, "")).await;
    let own: Value = serde_json::from_slice(&own).unwrap();
    assert_eq!(own["trials"]["used"], 0, "{own}");
}
