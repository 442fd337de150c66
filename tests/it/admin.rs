//! Who may ask the admin listener.

use crate::harness::*;
use http::{Request, StatusCode};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_token_is_asked_for_everywhere_but_by_the_probes() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.admin.token = Some("let-me-in".into());
    })
    .await;
    let ask = async |path: &str, sent: Option<&str>| {
        let mut request = Request::get(path).header("host", "x");
        if let Some(sent) = sent {
            request = request.header("authorization", sent);
        }
        send(gate.admin, request.body(Default::default()).unwrap()).await
    };
    let paths = [
        "/",
        "/metrics",
        "/status",
        "/v1/accounts",
        "/v1/accounts/1250000001",
        "/v1/usage",
        "/v1/records",
    ];
    for path in paths {
        for wrong in [
            None,
            Some("Bearer "),
            Some("Bearer let-me-in "),
            Some("Bearer let-me"),
            Some("let-me-in"),
            Some("Basic let-me-in"),
        ] {
            let (status, headers, body) = ask(path, wrong).await;
            // A field's surrounding blanks are not part of it (RFC 9110 §5.5).
            if wrong == Some("Bearer let-me-in ") {
                assert_eq!(status, StatusCode::OK, "{path}");
                continue;
            }
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path} {wrong:?}");
            assert_eq!(headers["www-authenticate"], "Bearer");
            assert_eq!(headers["content-type"], "application/problem+json");
            assert!(!String::from_utf8_lossy(&body).contains("let-me-in"));
        }
        for right in ["Bearer let-me-in", "bearer let-me-in", "BEARER  let-me-in"] {
            let (status, ..) = ask(path, Some(right)).await;
            assert_eq!(status, StatusCode::OK, "{path} {right}");
        }
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(ask(path, None).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(ask("/nothing", None).await.0, StatusCode::NOT_FOUND);
    // Nobody without it keeps a connection, whatever is asked.
    for path in ["/livez", "/nothing", "/", "/metrics"] {
        for (sent, closes) in [(None, true), (Some("Bearer let-me-in"), false)] {
            let (_, headers, _) = ask(path, sent).await;
            let close = headers.get("connection").is_some_and(|it| it == "close");
            assert_eq!(close, closes, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_gets_nothing_from_an_admin_listener_without_a_token_and_changes_nothing() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let own = gate.admin.to_string();
    let ask = async |method: &str, path: &str, fields: &[(&str, &str)]| {
        let request = Request::builder().method(method).uri(path);
        let request = fields.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let request = request.body(Default::default()).unwrap();
        send(gate.admin, request).await
    };
    for page in [
        &[("host", "evil.example")][..],
        &[("host", own.as_str()), ("origin", "https://evil.example")],
        &[("host", own.as_str()), ("origin", "null")],
        &[("host", own.as_str()), ("sec-fetch-site", "cross-site")],
    ] {
        for (method, path) in [
            ("POST", "/v1/reload?force=true"),
            ("GET", "/status"),
            ("GET", "/metrics"),
            ("GET", "/v1/accounts"),
            ("GET", "/v1/records"),
        ] {
            let (status, headers, body) = ask(method, path, page).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path} {page:?}");
            assert_eq!(headers["content-type"], "application/problem+json");
            assert!(String::from_utf8_lossy(&body).contains("set admin.token"));
        }
        // Probes learn nothing, and an orchestrator names them as it likes.
        for path in ["/livez", "/readyz"] {
            assert_eq!(ask("GET", path, page).await.0, StatusCode::OK, "{path}");
        }
    }
    let port = gate.admin.port();
    for host in [own.clone(), format!("localhost:{port}"), "[::1]".to_owned()] {
        let (status, ..) = ask("GET", "/status", &[("host", &host)]).await;
        assert_eq!(status, StatusCode::OK, "{host}");
    }

    // With a token a page has to have it, and so the listener may have any name.
    let gate = Gate::start_with(upstream.address, |config| {
        config.settings.admin.token = Some("let-me-in".into());
    })
    .await;
    let request = Request::get("/status")
        .header("host", "gate.example")
        .header("authorization", "Bearer let-me-in")
        .body(Default::default());
    let (status, ..) = send(gate.admin, request.unwrap()).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_in_a_path_that_is_no_text_is_nobodys() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    for path in [
        "/v1/accounts/%ff",
        "/v1/statements/%ff",
        "/v1/accounts/a%20b",
    ] {
        let (status, headers, body) = get(gate.admin, path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(
            headers["content-type"], "application/problem+json",
            "{path}"
        );
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["detail"], "no such account", "{path}");
    }
}
