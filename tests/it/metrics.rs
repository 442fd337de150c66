//! The figures for Prometheus, in both of their forms.

use crate::deploy::deploy;
use crate::harness::*;
use http::{HeaderMap, Request, StatusCode};
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

async fn page(admin: SocketAddr, accept: &str) -> (HeaderMap, String) {
    let request = Request::get("/metrics").header("host", admin.to_string());
    let request = request.header("accept", accept).body(Default::default());
    let (status, headers, body) = send(admin, request.unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    (headers, String::from_utf8(body.to_vec()).unwrap())
}

/// The values by their series, without exemplars, and without what time changes.
fn series(page: &str) -> BTreeMap<&str, &str> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.filter(|line| !line.starts_with("process_"));
    let lines = lines.map(|line| line.split(" # ").next().unwrap());
    lines.map(|line| line.rsplit_once(' ').unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn openmetrics_has_the_same_series_and_the_request_ids_of_calls() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    for _ in 0..30 {
        send(gate.public, segment(STUDIO_KEY)).await;
    }
    gate.at_rest().await;
    let (headers, text) = page(gate.admin, "text/plain").await;
    assert_eq!(
        headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let (headers, open) = page(gate.admin, "application/openmetrics-text;version=1.0.0").await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(headers["content-type"], kind);
    assert!(open.ends_with("\n# EOF\n") && !text.contains(" # ") && !text.contains("# EOF"));
    let unlike = |name: &&str| name.starts_with("tollgate_ledger_");
    let [text, of_open] = [&text, &open].map(|page| {
        let mut series = series(page);
        // Its thread writes by itself. And OpenMetrics has no sum where values are negative.
        series.retain(|name, _| {
            let has_no_sum = name.starts_with("tollgate_client_clock_skew_seconds_")
                && !name.contains("_bucket");
            !unlike(name) && !has_no_sum
        });
        series
    });
    assert!(text.len() > 100);
    assert_eq!(text, of_open);
    assert!(!open.contains("tollgate_client_clock_skew_seconds_sum"));
    assert!(open.contains("# TYPE tollgate_requests counter\n"));
    assert!(open.contains("# TYPE tollgate_overhead_seconds histogram\n"));

    let ids: HashSet<String> = gate.records().iter().map(|r| r.id.to_string()).collect();
    for family in [
        "overhead_seconds",
        "upstream_seconds",
        "admission_delay_seconds",
    ] {
        let lines = open
            .lines()
            .filter(|line| line.starts_with(&format!("tollgate_{family}_bucket")));
        let exemplars: Vec<&str> = lines
            .filter_map(|line| line.split_once("# {request_id=\""))
            .map(|(_, rest)| rest.split('"').next().unwrap())
            .collect();
        assert!(!exemplars.is_empty(), "{family}");
        for id in exemplars {
            assert!(ids.contains(id), "{family}: {id} is no record");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_and_the_limits_have_figures() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let first = gate.metrics().await;
    let figure = |name: &str| first.sum(name, &[]);
    assert_eq!(figure("tollgate_connections_limit"), 500);
    assert_eq!(figure("tollgate_body_memory_limit_bytes"), 512 << 20);
    assert!(figure("tollgate_ledger_pending_limit") > 500);
    for name in ["process_open_fds", "process_max_fds", "process_threads"] {
        assert!(figure(name) > 3, "{name}");
    }
    assert!(figure("process_open_fds") <= figure("process_max_fds"));
    assert!(figure("process_resident_memory_bytes") > 1 << 20);
    assert!(figure("process_virtual_memory_bytes") >= figure("process_resident_memory_bytes"));
    let now = u64::try_from(gate.clock.utc().seconds()).unwrap();
    assert!((now - 600..=now).contains(&figure("process_start_time_seconds")));
}

/// Ends with the test, however that ends.
struct Prometheus(std::process::Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_takes_the_exemplars() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    send(gate.public, segment(STUDIO_KEY)).await;
    gate.at_rest().await;
    let id = gate.records()[0].id.to_string();
    let config = std::fs::read_to_string(deploy("prometheus.yml")).unwrap();
    let config = config
        .replace("127.0.0.1:9090", &gate.admin.to_string())
        .replace("scrape_interval: 15s", "scrape_interval: 1s")
        .replace(
            "tollgate.rules.yml",
            deploy("tollgate.rules.yml").to_str().unwrap(),
        );
    let dir = gate.dir.path();
    std::fs::write(dir.join("prometheus.yml"), config).unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let prometheus = std::process::Command::new("prometheus")
        .arg(format!(
            "--config.file={}",
            dir.join("prometheus.yml").display()
        ))
        .arg(format!(
            "--storage.tsdb.path={}",
            dir.join("tsdb").display()
        ))
        .arg(format!("--web.listen-address={address}"))
        .arg("--enable-feature=exemplar-storage")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _prometheus = Prometheus(prometheus);
    let query =
        "/api/v1/query_exemplars?query=tollgate_overhead_seconds_bucket&start=0&end=9999999999";
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let request = Request::get(query).header("host", address.to_string());
        let request = request.body(Default::default()).unwrap();
        if let Ok((StatusCode::OK, _, body)) = try_send(address, request).await
            && String::from_utf8_lossy(&body).contains(&id)
        {
            return;
        }
    }
    panic!("Prometheus never had the exemplar");
}
