//! nginx and HAProxy in front of the gate, with the PROXY protocol.

use super::*;

/// A load balancer, which ends with the test.
struct Balancer(std::process::Child);

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn started(command: &mut Command, port: u16) -> Balancer {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let balancer = Balancer(child);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("it listens", || std::net::TcpStream::connect(at).is_ok()).await;
    balancer
}

async fn haproxy(dir: &Path, sends: &str, to: &str) -> (Balancer, u16) {
    let port = free_port();
    let file = dir.join("haproxy.cfg");
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen calls\n  bind 127.0.0.1:{port}\n  server gate {to} {sends}\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("haproxy");
    command.args(["-q", "-db", "-f"]).arg(&file);
    (started(&mut command, port).await, port)
}

async fn nginx(dir: &Path, to: &str) -> (Balancer, u16) {
    let port = free_port();
    let at = dir.display();
    let text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nmaster_process off;\npid {at}/nginx.pid;\n\
         error_log {at}/nginx.log;\nevents {{}}\nstream {{\n  server {{ listen 127.0.0.1:{port}; proxy_pass {to}; proxy_protocol on; }}\n}}\n"
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("nginx");
    command
        .arg("-c")
        .arg(&file)
        .arg("-p")
        .arg(dir)
        .stderr(Stdio::null());
    (started(&mut command, port).await, port)
}

/// The clients of a balancer are told apart: for the upstream, and among the places.
async fn tells_clients_apart(gate: &Gate, upstream: &Upstream, port: u16) {
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    for n in [1, 2] {
        let mut wire = Wire::connect_from([127, 0, 9, n], at).await;
        let reply = wire
            .exchange(call("X-Forwarded-For: 198.51.100.1\r\n"))
            .await;
        assert_eq!(reply.status, 200);
        assert_eq!(told(upstream), format!("127.0.9.{n}"));
        assert_eq!(wire.exchange(call("")).await.status, 200);
    }
    let before = gave_way(gate).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(Wire::connect_from([127, 0, 9, 3], at).await);
    }
    // An eighth of 16 places.
    eventually_async("the others give way", async || {
        gave_way(gate).await == before + 3
    })
    .await;
}

async fn gave_way(gate: &Gate) -> u64 {
    let samples = gate.metrics().await;
    samples.sum("tollgate_connections_gave_way_total", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_nginx_and_haproxy_with_the_proxy_protocol_each_client_is_itself() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calls.sock");
    let gate = gate_on(&upstream, &[ListenAddress::Unix(path.clone())], |config| {
        config.settings.proxy_protocol = true;
        config.settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.settings.limits.connections = 16;
    })
    .await;
    let tcp = gate.public.to_string();
    for sends in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id",
    ] {
        let (_haproxy, port) = haproxy(dir.path(), sends, &tcp).await;
        tells_clients_apart(&gate, &upstream, port).await;
    }
    let (_haproxy, port) = haproxy(
        dir.path(),
        "send-proxy-v2",
        &format!("unix@{}", path.display()),
    )
    .await;
    tells_clients_apart(&gate, &upstream, port).await;
    for to in [tcp, format!("unix:{}", path.display())] {
        let (_nginx, port) = nginx(dir.path(), &to).await;
        tells_clients_apart(&gate, &upstream, port).await;
    }
    // The checks of HAProxy, which come as the proxy itself, are no failure.
    let checked = "check inter 100ms send-proxy-v2";
    let (_haproxy, port) = haproxy(dir.path(), checked, &gate.public.to_string()).await;
    tells_clients_apart(&gate, &upstream, port).await;
    let samples = gate.metrics().await;
    assert_eq!(samples.sum("tollgate_heads_refused_total", &[]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_begins_after_the_header_with_http_1_and_2() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let dir = tempfile::tempdir().unwrap();
    let edits = [
        ("trusted_proxies: []", "trusted_proxies: [127.0.0.1/32]"),
        (
            "proxy_protocol: false",
            "proxy_protocol: true\nhealth_path: /healthz",
        ),
    ];
    let gate = crate::tls::TlsGate::start_with(&upstream, &edits).await;
    let to = gate.house.public.to_string();
    let (_haproxy, port) = haproxy(dir.path(), "send-proxy-v2", &to).await;
    let key = format!("X-Api-Key: {RETAIL_KEY}");
    for (version, spoken) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for (path, more) in [
            ("/v1/portrait/segment", &["-H", &key, "-d", "{}"][..]),
            ("/healthz", &[]),
        ] {
            let url = format!("https://localhost:{port}{path}");
            let asked = ["-4", version, "--interface", "127.0.9.1", "-o", "/dev/null"];
            let shown = ["-w", "%{http_code} %{http_version}", &url];
            let said = gate.curl(&[&asked[..], more, &shown].concat());
            assert_eq!(said.out, format!("200 {spoken}"), "{path}: {}", said.err);
        }
        assert_eq!(told(&upstream), "127.0.9.1");
    }
}
