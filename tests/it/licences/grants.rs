//! Who gets a grant: formal licences, licence keys, keys that sign.

use super::*;
use std::collections::HashSet;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_formal_licence_is_for_a_thousand_devices_of_its_package_and_for_no_other() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    let gate = gate(&house).await;
    let mut client = Client::connect(gate.public).await.unwrap();
    let mut grants = HashSet::new();
    for n in 0..1_000 {
        let asked = request(APP_KEY, CAMERA, &format!("device-{n}"), nothing());
        let (status, _, body) = client.send(asked).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{n}: {body:?}");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["kind"], "formal");
        grants.insert(body["grant"].as_str().unwrap().to_owned());
    }
    assert_eq!(grants.len(), 1_000, "each device has a grant of its own");
    let again = authorize(gate.public, APP_KEY, CAMERA, "device-7", nothing()).await;
    assert!(
        grants.contains(again.1["grant"].as_str().unwrap()),
        "the same period, the same grant"
    );
    let other = authorize(
        gate.public,
        APP_KEY,
        "com.example.other",
        "device-7",
        nothing(),
    )
    .await;
    assert_eq!(
        (other.0, reason(&other)),
        (StatusCode::FORBIDDEN, "other_package".to_owned())
    );
    // Of the account that bought nothing.
    let none = authorize(gate.public, RETAIL_KEY, CAMERA, "device-7", nothing()).await;
    assert_eq!(
        (none.0, reason(&none)),
        (StatusCode::FORBIDDEN, "not_licensed".to_owned())
    );
    let seen = gate.metrics().await;
    assert_eq!(
        seen.sum("tollgate_licence_grants_total", &["kind=\"formal\""]),
        1_001
    );
    assert_eq!(
        seen.sum(
            "tollgate_licence_refusals_total",
            &["reason=\"not_licensed\""]
        ),
        1
    );
    // No quota is taken, and no record is made.
    assert_eq!(seen.sum("tollgate_requests_received_total", &[]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_given_out_in_both_dialects_and_by_a_key_of_the_account_too() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    let gate = gate(&house).await;
    let body = json!({"Package": CAMERA, "Device": "d", "Sdk": "1"}).to_string();
    let asked = signed(STUDIO_ID, STUDIO_SECRET, "AuthorizeLicence", &body);
    let (status, _, said) = send(gate.public, asked).await;
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(status, StatusCode::OK);
    let vendor = said["Response"]["Grant"]["grant"]
        .as_str()
        .unwrap_or_else(|| panic!("{said}"));
    let plain = authorize(gate.public, STUDIO_KEY, CAMERA, "d", nothing()).await;
    assert_eq!(plain.1["grant"], vendor);
    let body = json!({"Package": "com.example.b", "Device": "d", "Sdk": "1"}).to_string();
    let asked = signed(STUDIO_ID, STUDIO_SECRET, "AuthorizeLicence", &body);
    let (_, _, said) = send(gate.public, asked).await;
    let said: Value = serde_json::from_slice(&said).unwrap();
    let code = &said["Response"]["Error"]["Code"];
    assert_eq!(code, "UnauthorizedOperation.OtherPackage");
    for (body, part) in [
        ("{}", "missing"),
        (
            r#"{"package": "a b", "device": "d", "sdk": "1"}"#,
            "package",
        ),
        (r#"{"package": "a", "device": "a b", "sdk": "1"}"#, "device"),
        (
            r#"{"package": "a", "device": "d", "sdk": "1", "apply": "x"}"#,
            "apply",
        ),
        (r#"{"package": "a", "device": 7, "sdk": "1"}"#, "texts"),
    ] {
        let asked = plain_authorize(STUDIO_KEY, body);
        let (status, _, said) = send(gate.public, asked).await;
        let said = String::from_utf8(said.to_vec()).unwrap();
        assert!(
            status == StatusCode::BAD_REQUEST && said.contains(part),
            "{body}: {said}"
        );
    }
    let (status, head, _) = get(gate.public, "/v1/licences/authorize").await;
    assert_eq!(
        (status, &head["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap())
    );
}

fn plain_authorize(key: &str, body: &str) -> Request<Full<Bytes>> {
    plain("POST", "/v1/licences/authorize", key, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_licence_key_obtains_grants_and_nothing_else() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    let gate = gate(&house).await;
    for asked in [
        segment(APP_KEY),
        plain("GET", "/v1/quota", APP_KEY, ""),
        plain("GET", "/v1/licences", APP_KEY, ""),
    ] {
        let (status, ..) = send(gate.public, asked).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let applied = authorize(gate.public, APP_KEY, "com.example.new", "d", trial()).await;
    assert_eq!(reason(&applied), "trial_needs_account");
    let (_, _, own) = send(gate.public, plain("GET", "/v1/licences", STUDIO_KEY, "")).await;
    let own: Value = serde_json::from_slice(&own).unwrap();
    assert_eq!(own["trials"], json!({"apps": 4, "used": 0, "left": 4}));
    assert_eq!(upstream.seen.lock().len(), 0);
    // Whoever has the app asks as often as it likes: the account's own questions are not held up.
    let mut refused = 0;
    for _ in 0..60 {
        let (status, _) = authorize(gate.public, APP_KEY, CAMERA, "same", nothing()).await;
        refused += usize::from(status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(refused >= 10, "{refused}");
    gate.mover.advance(Duration::from_secs(2));
    let (status, ..) = send(gate.public, plain("GET", "/v1/licences", STUDIO_KEY, "")).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_arrears_or_revoked_gets_no_grant_and_another_account_sees_only_its_own() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    house.edit("accounts.yaml", "name: Example Arrears\n", "name: Example Arrears\n    licences: [{order: L-9, package: com.example.owed, from: 2026-01-31T00:00:00+08:00, years: 10, paid: {cash: \"100000\"}}]\n");
    let mut process = house.start().await;
    let asked = authorize(
        house.public,
        ARREARS_KEY,
        "com.example.owed",
        "d",
        nothing(),
    )
    .await;
    assert_eq!(
        (asked.0, reason(&asked)),
        (StatusCode::PAYMENT_REQUIRED, "arrears".to_owned())
    );

    assert_eq!(
        authorize(house.public, APP_KEY, CAMERA, "d", nothing())
            .await
            .0,
        StatusCode::OK
    );
    let applied = house_licence(&house, &["apply"], "com.example.tried", &[]);
    assert!(applied.contains("has a trial licence until"), "{applied}");
    let revoked = house_licence(&house, &["revoke"], CAMERA, &["--why", "stolen"]);
    assert!(revoked.contains("are revoked"), "{revoked}");
    let asked = authorize(house.public, APP_KEY, CAMERA, "d", nothing()).await;
    assert_eq!(
        (asked.0, reason(&asked)),
        (StatusCode::FORBIDDEN, "licence_revoked".to_owned())
    );

    // It is so after a kill, too.
    process.kill();
    let _process = house.start().await;
    let asked = authorize(house.public, APP_KEY, CAMERA, "d", nothing()).await;
    assert_eq!(reason(&asked), "licence_revoked");
    let listed = run_licence(&house, &["list"]);
    for part in [
        "1250000001: 1 of 4 trials used",
        CAMERA,
        "licence_revoked",
        "stolen",
        "com.example.tried trial",
        "L-9",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let (_, _, own) = send(house.public, plain("GET", "/v1/licences", RETAIL_KEY, "")).await;
    let own = String::from_utf8(own.to_vec()).unwrap();
    assert!(
        !own.contains("com.example") && own.contains("\"1250000002\""),
        "{own}"
    );
    let (_, _, own) = send(house.public, plain("GET", "/v1/licences", STUDIO_KEY, "")).await;
    let own: Value = serde_json::from_slice(&own).unwrap();
    assert_eq!(own["licences"][0]["state"], "licence_revoked");
    assert_eq!(own["licences"][1]["kind"], "trial");
}

fn house_licence(house: &Sandbox, command: &[&str], package: &str, more: &[&str]) -> String {
    let of = ["--account", "1250000001", "--package", package];
    run_licence(house, &[command, &of, more].concat())
}

fn run_licence(house: &Sandbox, args: &[&str]) -> String {
    let ran = said(
        std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .arg("licence")
            .args(args)
            .arg("--config")
            .arg(&house.settings),
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_without_a_gap_and_its_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    let first = house.file("licence.pem");
    assert_eq!(
        first.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = said(
        std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["key", "new", "--licence"])
            .arg(&first),
    );
    assert_eq!(again.code, Some(1), "no key is written over");
    let process = house.start().await;
    let jwks = async || {
        let (status, head, body) = get(house.public, "/.well-known/jwks.json").await;
        assert_eq!(
            (status, &head["cache-control"]),
            (StatusCode::OK, &"public, max-age=300".parse().unwrap())
        );
        let set: Value = serde_json::from_slice(&body).unwrap();
        let kids = set["keys"].as_array().unwrap().iter();
        kids.map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let kid = async || {
        let (_, said) = authorize(house.public, APP_KEY, CAMERA, "d", nothing()).await;
        let grant = said["grant"].as_str().unwrap().to_owned();
        let head = base64::Engine::decode(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD,
            grant.split('.').next().unwrap(),
        )
        .unwrap();
        serde_json::from_slice::<Value>(&head).unwrap()["kid"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let old = kid().await;
    assert_eq!(jwks().await, std::slice::from_ref(&old));
    // Published first, ..
    let made = new_key(&house, "next.pem");
    let public = |made: &str| {
        made.split("public_keys: [")
            .nth(1)
            .unwrap()
            .split(']')
            .next()
            .unwrap()
            .to_owned()
    };
    let next = public(&made);
    let signing = "signing_key: {file: licence.pem}";
    house.edit(
        "catalog.yaml",
        signing,
        &format!("{signing}\n  public_keys: [{next}]"),
    );
    let (status, said) = post_reload(process.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let both = jwks().await;
    assert_eq!((both.len(), &both[0]), (2, &old));
    assert_eq!(kid().await, old);
    // .. then it signs, and the old one is still there ..
    let key: Value = {
        let (_, _, body) = get(house.public, "/.well-known/jwks.json").await;
        serde_json::from_slice(&body).unwrap()
    };
    let before = key["keys"][0]["x"].as_str().unwrap().to_owned();
    house.edit("catalog.yaml", signing, "signing_key: {file: next.pem}");
    house.edit(
        "catalog.yaml",
        &format!("public_keys: [{next}]"),
        &format!("public_keys: [{before}]"),
    );
    post_reload(process.admin, "").await;
    let new = kid().await;
    assert_ne!(new, old);
    assert_eq!(jwks().await, [new.clone(), old]);
    // .. until its grants have ended.
    house.edit(
        "catalog.yaml",
        &format!("public_keys: [{before}]"),
        "public_keys: []",
    );
    post_reload(process.admin, "").await;
    assert_eq!(jwks().await, [new]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_stands_on_the_statement_and_grants_are_counted_by_package_and_day() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    let zone = jiff::tz::TimeZone::get("Asia/Shanghai").unwrap();
    let today = jiff::Timestamp::from_second(Clock::default().utc().seconds())
        .unwrap()
        .to_zoned_datetime(zone)
        .date();
    let order = format!(
        "[{{order: L-2, package: com.example.now, from: {today}T00:00:00+08:00, paid: {{cash: \"9000\", voucher: \"1000\"}}}}, "
    );
    house.edit(
        "accounts.yaml",
        "licences: [",
        &format!("licences: {order}"),
    );
    let mut process = house.start().await;
    for n in 0..3 {
        authorize(
            house.public,
            APP_KEY,
            "com.example.now",
            &format!("d{n}"),
            nothing(),
        )
        .await;
    }
    let (_, _, own) = send(house.public, plain("GET", "/v1/licences", STUDIO_KEY, "")).await;
    let own: Value = serde_json::from_slice(&own).unwrap();
    let line = json!({"day": today.to_string(), "package": "com.example.now", "kind": "formal", "grants": 3});
    assert_eq!(own["grants"], json!([line]));
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    let sql = rusqlite::Connection::open(house.ledger()).unwrap();
    let grants: i64 = sql
        .query_row("SELECT sum(grants) FROM licence_grants", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(grants, 3);
    let printed = house.run(&["statement", "--account", "1250000001", "--format", "json"]);
    // Another program comes to the same sums.
    let (statement, records) = (house.file("statement.json"), house.file("records.jsonl"));
    std::fs::write(&statement, &printed.out).unwrap();
    std::fs::write(&records, "").unwrap();
    let recount = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recount/recount.py");
    let mut python = std::process::Command::new("python3");
    let recounted = said(python.arg(recount).args([&statement, &records]));
    assert_eq!(recounted.code, Some(0), "{recounted:?}");
    let printed: Value =
        serde_json::from_str(&printed.out).unwrap_or_else(|_| panic!("{printed:?}"));
    let line = &printed["licences"][0];
    assert_eq!(
        (&line["order"], &line["kind"]),
        (&json!("L-2"), &json!("licence"))
    );
    assert_eq!(
        (&line["amount"], &line["funds"]["voucher"]),
        (&json!("10000.00"), &json!("1000.00"))
    );
    let table = house.run(&["statement", "--account", "1250000001"]).out;
    assert!(
        table.contains("licences for apps (R19)")
            && table.contains("licence of com.example.now until"),
        "{table}"
    );
    let csv = house
        .run(&["statement", "--account", "1250000001", "--format", "csv"])
        .out;
    assert!(csv.contains("paid,L-2"), "{csv}");
}
