//! The status page at `/` of the admin listener, as a browser shows it and as its data are told.

use crate::harness::*;
use http::{Request, StatusCode};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs a scenario of tests/page/page.mjs to its end.
async fn in_browser(scenario: &'static str, house: &Sandbox, more: &[(&str, &str)]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let axe = root.join("target/node/page/node_modules/axe-core/axe.min.js");
    assert!(axe.exists(), "run `make test`, which makes {axe:?}");
    let mut command = Command::new("timeout");
    command.args(["240", "node"]);
    command.arg(root.join("tests/page/page.mjs")).arg(scenario);
    command.env("PUBLIC", house.public.to_string());
    command.env("ADMIN", house.admin.to_string());
    command.env("KEY", STUDIO_KEY).env("STOPPED", ARREARS_KEY);
    command.env("AXE", axe);
    command.envs(more.iter().copied());
    let ran = tokio::task::spawn_blocking(move || said(&mut command)).await;
    let ran = ran.unwrap();
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_shows_what_the_gate_does_to_everybody_and_asks_nobody_else() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let name = r#"'<script>document.title = "owned"</script><img src=x onerror=owned()>'"#;
    house.edit(
        "accounts.yaml",
        "name: Example Studio",
        &format!("name: {name}"),
    );
    let _process = house.start().await;
    // All at once: on a slow disk calls one after the other stay below the quota.
    let mut calls = tokio::task::JoinSet::new();
    for key in [ARREARS_KEY].into_iter().chain([STUDIO_KEY; 40]) {
        calls.spawn(send(house.public, segment(key)));
    }
    calls.join_all().await;
    at_rest(house.admin).await;
    // A reload with a mistake, and one that puts it right.
    for (from, to, expected) in [
        ("mode: qps", "mode: no-such-mode<b>", 422),
        ("mode: no-such-mode<b>", "mode: qps", 200),
    ] {
        house.edit("accounts.yaml", from, to);
        let reload = Request::post("/v1/reload").header("host", house.admin.to_string());
        let (status, ..) = send(house.admin, reload.body(Default::default()).unwrap()).await;
        assert_eq!(status.as_u16(), expected);
    }
    in_browser("open", &house, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_asks_for_the_admin_token_and_keeps_it_in_the_tab_alone() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let token = "let-me-in-0123456789";
    let listens = format!("admin: {{listen: {}", house.admin);
    let with_token = format!("{listens}, token: {token}");
    house.edit("tollgate.yaml", &listens, &with_token);
    let _process = house.start().await;
    in_browser("token", &house, &[("TOKEN", token)]).await;
}

/// A GET as a browser sends it that follows an address.
async fn opened(gate: &Gate, path: &str) -> (StatusCode, http::HeaderMap, String) {
    let request = Request::get(path)
        .header("host", gate.admin.to_string())
        .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let request = request.body(Default::default()).unwrap();
    let (status, headers, body) = send(gate.admin, request).await;
    let text = String::from_utf8_lossy(&body).into_owned();
    (status, headers, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_there_is_the_page_and_none_of_its_data() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.admin.token = Some("let-me-in".into());
    })
    .await;
    let (status, headers, page) = opened(&gate, "/").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"));
    let files = page
        .split(['"', '\''])
        .filter(|text| text.starts_with("/page/"));
    let files: Vec<&str> = files.collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let (status, headers, _) = opened(&gate, file).await;
        assert_eq!(status, StatusCode::OK, "{file}");
        assert_eq!(headers["content-security-policy"], policy, "{file}");
    }
    assert_eq!(
        opened(&gate, "/page/none.js").await.0,
        StatusCode::NOT_FOUND
    );
    for data in [
        "live",
        "now",
        "history",
        "accounts",
        "accounts/1250000001",
        "books?ids=1250000001",
        "news",
    ] {
        let (status, _, body) = opened(&gate, &format!("/v1/status/{data}")).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{data}");
        assert!(!body.contains("1250000001"), "{data}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_listen_are_bounded_and_leave_room_for_a_scraper() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let live = || {
        let request = Request::get("/v1/status/live").header("host", "127.0.0.1");
        request.body(Default::default()).unwrap()
    };
    let mut listening = Vec::new();
    for nth in 0..17 {
        let mut client = Client::connect(gate.admin).await.unwrap();
        let answer = client.head(live()).await.unwrap();
        let expected = if nth < 16 { 200 } else { 503 };
        assert_eq!(answer.status().as_u16(), expected, "{nth}");
        if nth < 16 {
            assert_eq!(answer.headers()["content-type"], "text/event-stream");
        }
        listening.push((client, answer));
    }
    // A page that is not told asks, and its answer frees its connection.
    for path in ["now", "history", "accounts", "news"] {
        let (status, headers, _) = get(gate.admin, &format!("/v1/status/{path}")).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(headers["connection"], "close", "{path}");
    }
    gate.metrics().await;
    // Who goes makes room for another.
    listening.truncate(3);
    let mut client = Client::connect(gate.admin).await.unwrap();
    let until = gate.clock.mono().plus(BOUND);
    while client.head(live()).await.unwrap().status() != StatusCode::OK {
        assert!(gate.clock.mono() < until, "never: a place");
        client = Client::connect(gate.admin).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_each_second_has_one_size_and_a_list_is_asked_for_by_the_page() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, |config| {
        let sample = config.accounts[0].clone();
        for nth in 0..2_000 {
            let mut account = sample.clone();
            account.id = tollgate::testing::model::AccountId::new(&format!("many{nth}")).unwrap();
            account.keys = Box::default();
            account.payments = Box::default();
            for service in &mut account.services {
                service.packs = Box::default();
            }
            config.accounts.push(account);
        }
    })
    .await;
    let (_, _, now) = get(gate.admin, "/v1/status/now").await;
    assert!(now.len() < 4_096, "{}", now.len());
    let json = async |path: &str| -> (StatusCode, Value, usize) {
        let (status, _, body) = get(gate.admin, path).await;
        (status, serde_json::from_slice(&body).unwrap(), body.len())
    };
    let (_, page, bytes) = json("/v1/status/accounts?search=many&sort=name").await;
    assert_eq!(
        (&page["accounts"], &page["found"]),
        (&2_004.into(), &2_000.into())
    );
    assert_eq!(page["rows"].as_array().unwrap().len(), 50);
    assert!(bytes < 64 * 1024, "{bytes}");
    for wrong in [
        "rows=101",
        "rows=0",
        "sort=price",
        "only=x",
        "offset=-1",
        "all=true",
    ] {
        let (status, problem, _) = json(&format!("/v1/status/accounts?{wrong}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(problem["detail"].as_str().unwrap().len() > 10, "{wrong}");
    }
    let ids: Vec<String> = (0..101).map(|nth| format!("many{nth}")).collect();
    let (status, ..) = json(&format!("/v1/status/books?ids={}", ids.join(","))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (_, books, _) = json(&format!("/v1/status/books?ids={}", ids[..2].join(","))).await;
    assert_eq!(books["accounts"]["many1"]["free_left"], 1_000);
}
