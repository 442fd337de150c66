//! nginx with deploy/balancer.conf: whom it sends what.

use crate::deploy::deploy;
use crate::harness::*;
use std::process::{Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Answers each call with its own name.
async fn stub(name: &'static str) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 8192];
                let _ = stream.read(&mut head).await;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{name}",
                    name.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    port
}

/// Ends with the test.
struct Nginx(std::process::Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_balancer_sends_what_customers_ask_to_the_collector_and_all_else_to_the_gates() {
    let mut conf = std::fs::read_to_string(deploy("balancer.conf")).unwrap();
    for (server, name) in [
        ("gate-1", "gate"),
        ("gate-2", "gate"),
        ("gate-3", "gate"),
        ("collector", "collector"),
    ] {
        let written = format!("server {server}:8080;");
        assert_eq!(conf.matches(&written).count(), 1, "{conf}");
        let port = stub(name).await;
        conf = conf.replace(&written, &format!("server 127.0.0.1:{port};"));
    }
    let port = free_port();
    assert!(conf.contains("listen 80;"), "{conf}");
    let conf = conf.replace("listen 80;", &format!("listen 127.0.0.1:{port};"));
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let own: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
        .concat();
    let whole = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/log; events {{}}\n\
         http {{ access_log off;\n{own}{conf}}}"
    );
    let path = dir.path().join("nginx.conf");
    std::fs::write(&path, whole).unwrap();
    let child = Command::new("nginx")
        .args(["-c", path.to_str().unwrap()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("nginx: {error}; `make test` installs what the tests need"));
    let _nginx = Nginx(child);
    let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    eventually("nginx takes connections", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
    .await;
    for (path, action, expected) in [
        ("/v1/quota", None, "collector"),
        ("/v1/usage?month=2026-11&by=day", None, "collector"),
        ("/v1/statements", None, "collector"),
        ("/v1/statements/2026-11", None, "collector"),
        ("/v1/records?month=2026-11", None, "collector"),
        ("/", Some("DescribeQuota"), "collector"),
        ("/", Some("DescribeStatement"), "collector"),
        ("/", Some("DescribeStatements"), "collector"),
        ("/", Some("SegmentPortraitPic"), "gate"),
        ("/", Some("DescribeSegmentationTask"), "gate"),
        ("/", None, "gate"),
        ("/v1/quotas", None, "gate"),
        ("/v1/portrait/segment", None, "gate"),
    ] {
        let mut request = http::Request::post(path).header("host", "api.example");
        if let Some(action) = action {
            request = request.header("x-tc-action", action);
        }
        let request = request.body(Default::default()).unwrap();
        let (_, _, body) = try_send(([127, 0, 0, 1], port).into(), request)
            .await
            .unwrap_or_else(|_| panic!("{path}: no answer\n{}", log()));
        let body = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(body, expected, "{path} {action:?}\n{}", log());
    }
}
