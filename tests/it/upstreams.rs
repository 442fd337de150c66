//! Several upstreams, with several servers each: which one takes a call, and what becomes of calls when
//! one of them fails.

use crate::harness::*;
use crate::names::{cover, is_inside, run};
use http::StatusCode;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tollgate::testing::config::{Config, HealthSettings};
use tollgate::testing::model::{Clock, Outcome};

const SOON: Duration = Duration::from_millis(5);

/// The default upstream has these servers.
fn behind(backends: &[SocketAddr]) -> impl FnOnce(&mut Config) {
    let endpoints = backends.iter().map(|address| (*address).into()).collect();
    move |config| {
        config.settings.upstream.endpoints = endpoints;
        retail_unlimited(config);
    }
}

fn checked(config: &mut Config) {
    config.settings.upstream.health = Some(HealthSettings {
        path: "/healthz".to_owned(),
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(5),
        healthy_after: 2,
        unhealthy_after: 2,
    });
}

/// The state of a server, as `/status` tells it.
async fn state(admin: SocketAddr, server: SocketAddr) -> String {
    let (_, _, body) = get(admin, "/status").await;
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let upstreams = status["upstreams"].as_array().unwrap().iter();
    let endpoints = upstreams.flat_map(|upstream| upstream["endpoints"].as_array().unwrap());
    let mut servers = endpoints.flat_map(|endpoint| endpoint["servers"].as_array().unwrap());
    let found = servers.find(|one| one["address"] == server.to_string());
    let found = found.unwrap_or_else(|| panic!("{server} is not in {status}"));
    found["state"].as_str().unwrap().to_owned()
}

/// Waits until a server has one of these states.
async fn becomes(admin: SocketAddr, server: SocketAddr, wanted: &[&str]) {
    let comes = async {
        loop {
            let state = state(admin, server).await;
            if wanted.contains(&&*state) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let comes = tokio::time::timeout(BOUND, comes).await;
    assert!(comes.is_ok(), "{server} is never {wanted:?}");
}

/// Asserts that no call was at a server twice, and gives all of them.
fn each_once<'b>(backends: impl IntoIterator<Item = &'b Backend>) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    for backend in backends {
        for id in backend.calls.lock().iter() {
            *seen.entry(id.clone()).or_insert(0) += 1;
        }
    }
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "sent twice: {twice:?}");
    seen.into_keys().collect()
}

fn statuses(told: &[Told]) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for one in told {
        *statuses.entry(one.status.as_u16()).or_insert(0) += 1;
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_of_which_one_is_killed_under_load_no_call_is_lost_that_was_not_sent() {
    let (mut one, other) = (Backend::start(SOON).await, Backend::start(SOON).await);
    let gate = Gate::start_with(one.address, behind(&[one.address, other.address])).await;
    let calling = Calling::start(gate.public, 500, RETAIL_KEY);
    calling.more(400).await;
    assert!(one.count() > 100 && other.count() > 100, "both are called");
    let clock = Clock::default();
    let before = other.count();
    let killed = clock.mono();
    one.kill();
    becomes(gate.admin, one.address, &["ejected"]).await;
    println!("out after {:?}", clock.mono().since(killed));
    calling.more(400).await;
    assert!(other.count() >= before + 300, "the other one has all of it");

    let at_return = one.count();
    one.restart().await;
    becomes(gate.admin, one.address, &["slow_start", "usable"]).await;
    calling.more(400).await;
    let taken = one.count() - at_return;
    assert!(taken > 0, "it is called again");
    let told = calling.end().await;
    let sent = each_once([&one, &other]);
    for lost in told.iter().filter(|one| one.status != StatusCode::OK) {
        assert_eq!(lost.status, StatusCode::BAD_GATEWAY);
        assert!(
            lost.body.contains("upstream_cut"),
            "had not been sent: {lost:?}"
        );
    }
    let lost = told
        .iter()
        .filter(|one| one.status != StatusCode::OK)
        .count();
    assert!(
        lost <= 25,
        "no more than were there at once: {:?}",
        statuses(&told)
    );
    let answered = told.iter().filter(|one| one.status == StatusCode::OK);
    assert!(answered.map(|one| &one.id).all(|id| sent.contains(id)));
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_three_servers_loses_no_call() {
    let mut backends = Vec::new();
    for _ in 0..3 {
        backends.push(Backend::start(SOON).await);
    }
    let addresses: Vec<SocketAddr> = backends.iter().map(|one| one.address).collect();
    let gate = Gate::start_with(addresses[0], |config| {
        behind(&addresses)(config);
        checked(config);
    })
    .await;
    let calling = Calling::start(gate.public, 500, RETAIL_KEY);
    calling.more(200).await;
    for backend in &mut backends {
        // As a server does that is told to end: it says so before it stops.
        backend.turns_healthy(false);
        becomes(gate.admin, backend.address, &["unhealthy"]).await;
        backend.stop().await;
        calling.more(100).await;
        backend.restart().await;
        becomes(gate.admin, backend.address, &["slow_start", "usable"]).await;
        calling.more(100).await;
    }
    let told = calling.end().await;
    assert_eq!(statuses(&told).into_keys().collect::<Vec<_>>(), [200]);
    let sent = each_once(&backends);
    assert_eq!(sent.len(), told.len());
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_takes_a_server_out_and_brings_it_back() {
    let backend = Backend::start(Duration::ZERO).await;
    let gate = Gate::start_with(backend.address, |config| {
        behind(&[backend.address])(config);
        checked(config);
    })
    .await;
    let call = async || send(gate.public, segment(RETAIL_KEY)).await.0;
    assert_eq!(call().await, StatusCode::OK);
    backend.turns_healthy(false);
    becomes(gate.admin, backend.address, &["unhealthy"]).await;
    // It is the only one, and still runs: the gate believes the check.
    let at = backend.count();
    assert_eq!(call().await, StatusCode::BAD_GATEWAY);
    assert_eq!(backend.count(), at);
    let metrics = gate.metrics().await;
    let upstream = ["upstream=\"default\""];
    assert_eq!(metrics.sum("tollgate_upstream_up", &upstream), 0);
    assert_eq!(
        metrics.sum("tollgate_upstream_ejections_total", &upstream),
        1
    );
    backend.turns_healthy(true);
    becomes(gate.admin, backend.address, &["slow_start", "usable"]).await;
    assert_eq!(call().await, StatusCode::OK);
    assert_eq!(
        gate.metrics()
            .await
            .sum("tollgate_upstream_endpoint_up", &upstream),
        1
    );
    let records = gate.records();
    let outcomes: Vec<_> = records.iter().map(|r| (r.outcome, r.billable)).collect();
    let (answered, failed) = ((Outcome::Answered, true), (Outcome::UpstreamFailed, false));
    assert_eq!(outcomes, [answered, failed, answered]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_servers_are_out_calls_get_502_at_once_and_keep_their_place_in_the_window() {
    let down: Vec<SocketAddr> = (0..2)
        .map(|_| ([127, 0, 0, 1], free_port()).into())
        .collect();
    let gate = Gate::start_with(down[0], |config| {
        config.settings.upstream.endpoints = down.iter().map(|one| (*one).into()).collect();
    })
    .await;
    // In per-call mode, 20 a second.
    let mut told = BTreeMap::new();
    for _ in 0..3 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..10 {
            calls.spawn(try_send(gate.public, segment(STUDIO_KEY)));
        }
        while let Some(call) = calls.join_next().await {
            let (status, ..) = call.unwrap().unwrap();
            *told.entry(status.as_u16()).or_insert(0) += 1;
        }
    }
    assert_eq!(
        told,
        BTreeMap::from([(502, 20), (429, 10)]),
        "P1 counts starts"
    );
    let (status, _, body) = send(
        gate.public,
        signed(
            "AKIDEXAMPLERETAIL00000000000000000002",
            "trial-secret-of-example-retail",
            "SegmentPortraitPic",
            "{}",
        ),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(
        body.contains("\"Code\":\"FailedOperation.RpcFail\""),
        "{body}"
    );
    for address in &down {
        becomes(gate.admin, *address, &["ejected"]).await;
    }
    gate.at_rest().await.assert_conserved();
    let records = whole_ledger(&gate.ledger());
    assert_eq!(records.len(), 21);
    let failed = |r: &tollgate::testing::ledger::StoredRecord| {
        r.outcome == Outcome::UpstreamFailed && !r.billable
    };
    assert!(records.iter().all(failed));

    // Each is tried every second now, without a call.
    let _back = Backend::start_at(down[1], Duration::ZERO).await;
    becomes(gate.admin, down[1], &["slow_start", "usable"]).await;
    let (status, ..) = send(gate.public, segment(RETAIL_KEY)).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_beyond_what_the_upstream_may_have_at_once_is_refused_and_spends_nothing() {
    let backend = Backend::start(Duration::from_secs(1)).await;
    let gate = Gate::start_with(backend.address, |config| {
        config.settings.upstream.max_in_flight = Some(2);
    })
    .await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..2 {
        calls.spawn(try_send(gate.public, segment(STUDIO_KEY)));
    }
    eventually("both are there", || backend.count() == 2).await;
    for _ in 0..30 {
        let (status, headers, body) = send(gate.public, segment(STUDIO_KEY)).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(headers["retry-after"], "1");
        assert!(String::from_utf8_lossy(&body).contains("upstream_busy"));
    }
    let (_, _, body) = send(
        gate.public,
        signed(STUDIO_ID, STUDIO_SECRET, "SegmentPortraitPic", "{}"),
    )
    .await;
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(body.contains("\"Code\":\"ServiceUnavailable\""), "{body}");
    while let Some(call) = calls.join_next().await {
        assert_eq!(call.unwrap().unwrap().0, StatusCode::OK);
    }
    let (status, ..) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(
        status,
        StatusCode::OK,
        "there is a place again, and the window was not spent"
    );
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    let busy = ["reason=\"upstream_busy\"", "decision=\"refused\""];
    assert_eq!(metrics.sum("tollgate_requests_total", &busy), 31);
    assert_eq!(gate.records().len(), 3);
}

/// Writes the default upstream's endpoints into the settings of a sandbox.
fn write_endpoints(house: &Sandbox, from: &str, to: &[&Backend]) -> String {
    let urls: Vec<String> = to.iter().map(|one| one.url()).collect();
    let list = format!("endpoints: [{}]", urls.join(", "));
    house.edit("tollgate.yaml", from, &list);
    list
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_adds_and_removes_servers_under_load_and_loses_no_call() {
    let (one, two, three) = (
        Backend::start(SOON).await,
        Backend::start(SOON).await,
        Backend::start(SOON).await,
    );
    let house = Sandbox::new(one.address, &[]);
    house.edit(
        "accounts.yaml",
        "order: Q-1, qps: 10,",
        "order: Q-1, qps: 9000,",
    );
    let _process = house.start().await;
    let calling = Calling::start(house.public, 300, RETAIL_KEY);
    calling.more(100).await;
    assert!(one.count() > 0 && two.count() == 0);

    let only_one = format!("endpoints: [{}]", one.url());
    let both = write_endpoints(&house, &only_one, &[&one, &two]);
    let (status, said) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let changes = said["changes"].to_string();
    assert!(
        changes.contains(&format!("upstream default: endpoints [{}] → ", one.address)),
        "{said}"
    );
    assert_eq!(
        said["restart_pending"].as_array().unwrap().len(),
        0,
        "{said}"
    );
    calling.more(100).await;
    assert!(two.count() > 0, "the new one is called");

    let other = write_endpoints(&house, &both, &[&two, &three]);
    assert_eq!(post_reload(house.admin, "").await.0, StatusCode::OK);
    calling.more(60).await;
    let left = one.count();
    calling.more(100).await;
    assert_eq!(
        one.count(),
        left,
        "the one that was taken out is not called any more"
    );
    assert!(three.count() > 0);

    // A mistake changes nothing.
    house.edit("tollgate.yaml", &other, "endpoints: [ftp://nowhere]");
    assert_eq!(
        post_reload(house.admin, "").await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    // A name of its own, by which the group goes on to the same servers.
    house.edit("tollgate.yaml", "endpoints: [ftp://nowhere]", &only_one);
    house.edit(
        "tollgate.yaml",
        "\n# The other two files",
        &format!("\nupstreams: {{images: {{{other}}}}}\n# The other two files"),
    );
    house.edit(
        "catalog.yaml",
        "    title: 人像分割",
        "    upstream: images\n    title: 人像分割",
    );
    assert_eq!(post_reload(house.admin, "").await.0, StatusCode::OK);
    calling.more(150).await;
    assert_eq!(one.count(), left);
    let told = calling.end().await;
    assert_eq!(statuses(&told).into_keys().collect::<Vec<_>>(), [200]);
    assert_eq!(each_once([&one, &two, &three]).len(), told.len());
    at_rest(house.admin).await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_or_an_action_names_its_upstream() {
    let (default, images, custom) = (
        Backend::start(Duration::ZERO).await,
        Backend::start(Duration::ZERO).await,
        Backend::start(Duration::ZERO).await,
    );
    let house = Sandbox::new(default.address, &[]);
    let named = format!(
        "\nupstreams:\n  images: {{endpoints: [{}]}}\n  custom: {{endpoints: [{}], max_in_flight: 7}}\n",
        images.url(),
        custom.url()
    );
    house.edit(
        "tollgate.yaml",
        "\n# The other two files",
        &format!("{named}\n# The other two files"),
    );
    let said = house.run(&["check"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.err
            .contains("no group and no action of the catalogue names images"),
        "{said:?}"
    );
    house.edit(
        "catalog.yaml",
        "    title: 人像分割",
        "    upstream: images\n    title: 人像分割",
    );
    house.edit(
        "catalog.yaml",
        "segment-custom}",
        "segment-custom, upstream: custom}",
    );
    let said = house.run(&["check"]);
    assert!(said.err.is_empty(), "{said:?}");
    assert!(
        said.out
            .contains(&format!("upstream   custom: {}", custom.address)),
        "{said:?}"
    );
    let _process = house.start().await;
    let call = async |method: &str, path: &str| {
        let (status, ..) = send(house.public, plain(method, path, RETAIL_KEY, "{}")).await;
        assert_eq!(status, StatusCode::OK, "{path}");
    };
    call("POST", "/v1/portrait/segment").await;
    call("POST", "/v1/portrait/segment-custom").await;
    call("POST", "/v1/video/tasks").await;
    let counts = [&default, &images, &custom].map(Backend::count);
    assert_eq!(counts, [1, 1, 1]);
    house.edit("catalog.yaml", "upstream: custom", "upstream: costum");
    let said = house.run(&["check"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err
            .contains("there is no upstream \"costum\": did you mean \"custom\"?"),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_address_of_a_name_is_a_server_and_the_name_is_looked_up_beside_the_calls() {
    if !is_inside(&|| ()) {
        return;
    }
    run("ip", &["link", "set", "lo", "up"]);
    let dir = tempfile::tempdir().unwrap();
    let hosts = |addresses: &[u8]| {
        let lines = addresses
            .iter()
            .map(|last| format!("127.0.0.{last} upstream.test\n"));
        lines.collect::<String>()
    };
    cover("/etc/hosts", dir.path(), &hosts(&[2, 3]));
    cover("/etc/nsswitch.conf", dir.path(), "hosts: files\n");
    let port = free_port();
    let mut backends = Vec::new();
    for last in [2, 3, 4] {
        let address = ([127, 0, 0, last], port).into();
        backends.push(Backend::start_at(address, SOON).await);
    }
    let named = format!("http://upstream.test:{port}");
    let nowhere: SocketAddr = ([127, 0, 0, 1], 9).into();
    let house = Sandbox::new(nowhere, &[("http://127.0.0.1:9", &named)]);
    house.edit(
        "accounts.yaml",
        "order: Q-1, qps: 10,",
        "order: Q-1, qps: 9000,",
    );
    let _process = house.start().await;
    let calling = Calling::start(house.public, 200, RETAIL_KEY);
    calling.more(200).await;
    let counts = || [0, 1, 2].map(|nth: usize| backends[nth].count());
    assert!(
        counts()[0] > 20 && counts()[1] > 20 && counts()[2] == 0,
        "{:?}",
        counts()
    );
    // Another address takes the place of one.
    std::fs::write("/etc/hosts", hosts(&[3, 4])).unwrap();
    eventually("the new address is called", || counts()[2] > 0).await;
    calling.more(30).await;
    let [gone, ..] = counts();
    calling.more(60).await;
    assert_eq!(counts()[0], gone, "the old one is not");
    // A dead address is taken out, not the name.
    backends[2].kill();
    becomes(house.admin, backends[2].address, &["ejected"]).await;
    calling.more(60).await;
    // The name is gone: what was known stays.
    std::fs::write("/etc/hosts", "").unwrap();
    let log = "its name cannot be looked up";
    eventually("that is told", || house.log().contains(log)).await;
    calling.more(30).await;
    let told = calling.end().await;
    let lost = told.iter().filter(|one| one.status != StatusCode::OK);
    assert!(lost.clone().all(|one| one.body.contains("upstream_cut")));
    assert!(lost.count() <= 25, "{:?}", statuses(&told));
    each_once(&backends);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_costs_no_call() {
    let backend = Backend::start(Duration::ZERO).await;
    let dead: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let gate = Gate::start_with(backend.address, behind(&[dead, backend.address])).await;
    // Each has the same load, so that chance names the dead one within so many.
    for _ in 0..40 {
        let (status, ..) = send(gate.public, segment(RETAIL_KEY)).await;
        assert_eq!(status, StatusCode::OK);
    }
    becomes(gate.admin, dead, &["ejected"]).await;
    assert_eq!(backend.count(), 40);
}
