//! What waits for a restart.

use crate::config::settings::table::TABLE;
use crate::config::tests::files::Shipped;
use std::collections::BTreeSet;
use std::fs;

const EVENTS: &str = "events: {webhook: \"https://relay/s3cr3t\", secret: whsec_czNjcjN0czNjcjN0czNjcjN0czNjcjN0czNjcjN0, balance_below: \"100\", pack_expiring: 30d, quota_ending: 5d}\n";

const SENTINEL: &str =
    "sentinel: cap, sentinel_username: a, sentinel_password: s3cr3t-1, cluster: false";

/// The section `admission` with a store.
fn with_store() -> String {
    format!(
        "admission: {{max_delay: 50ms, store: {{redis: {{nodes: [store-1:6379], {SENTINEL}, tls: true, username: u, \
         password: s3cr3t-3, database: 0, budget: 5ms}}}}}}\nreplica: gate-1"
    )
}

/// The section `outbox`, with one way to say who we are.
fn with_outbox(login: &str) -> String {
    format!(
        "outbox: {{nats: {{servers: [\"nats://nats-1:4222\"], {login}, tls: true, stream: RECORDS, max_bytes: 9GiB, replicas: 3}}}}\n"
    )
}

/// A key, and what is changed for it in the shipped file with [`EVENTS`] or a store.
const CHANGES: &[(&str, &str, &str)] = &[
    ("listen", "listen: 127.0.0.1:8080", "listen: 127.0.0.1:8081"),
    ("behind_tls", "behind_tls: false", "behind_tls: true"),
    ("workers", "workers: auto", "workers: 3"),
    ("admin.listen", "127.0.0.1:9090}\n\n", "127.0.0.1:9091}\n\n"),
    (
        "admin.token",
        "127.0.0.1:9090}\n\n",
        "127.0.0.1:9090, token: s3cr3t}\n\n",
    ),
    ("ledger.path", "ledger.db", "other.db"),
    (
        "ledger.durability",
        "durability: strict",
        "durability: relaxed",
    ),
    ("ledger.retain_records", "100d", "101d"),
    ("ledger.stall_after", "stall_after: 2s", "stall_after: 3s"),
    (
        "admission.max_delay",
        "max_delay: 50ms,",
        "max_delay: 51ms,",
    ),
    (
        "admission.store.redis.nodes",
        "store-1:6379]",
        "store-2:6379]",
    ),
    (
        "admission.store.redis.sentinel",
        "sentinel: cap,",
        "sentinel: tg,",
    ),
    (
        "admission.store.redis.sentinel_username",
        "sentinel_username: a,",
        "sentinel_username: b,",
    ),
    (
        "admission.store.redis.sentinel_password",
        "s3cr3t-1",
        "s3cr3t-2",
    ),
    ("admission.store.redis.cluster", SENTINEL, "cluster: true"),
    (
        "admission.store.redis.tls",
        "tls: true, username",
        "tls: false, username",
    ),
    (
        "admission.store.redis.ca",
        "tls: true, username",
        "tls: true, ca: store.pem, username",
    ),
    (
        "admission.store.redis.username",
        " username: u,",
        " username: v,",
    ),
    ("admission.store.redis.password", "s3cr3t-3", "s3cr3t-4"),
    (
        "admission.store.redis.database",
        "database: 0",
        "database: 1",
    ),
    ("admission.store.redis.budget", "budget: 5ms", "budget: 6ms"),
    ("replica", "\nreplica: gate-1\n", "\nreplica: gate-2\n"),
    ("access_log.to", "to: calls.log", "to: stdout"),
    ("access_log.of", "of: both", "of: refused"),
    ("access_log.sample", "sample: 0.5}", "sample: 1}"),
    ("metrics.accounts", "accounts: 1000", "accounts: 1001"),
    ("events.webhook", "https://relay", "https://other"),
    ("events.webhook", "/s3cr3t\"", "/s3cr3t?2\""),
    ("events.webhook", EVENTS, ""),
    ("events.secret", "czNjcjN0,", "czNjcjN1,"),
    ("events.balance_below", "\"100\",", "\"50\","),
    ("events.pack_expiring", "30d,", "31d,"),
    ("events.quota_ending", "5d}", "6d}"),
    (
        "limits.connections",
        "connections: 4000",
        "connections: 4001",
    ),
    ("limits.header_bytes", "32KiB", "33KiB"),
    ("limits.body_bytes", "10MiB", "11MiB"),
    ("limits.body_memory", "512MiB", "513MiB"),
    (
        "limits.request_timeout",
        "request_timeout: 60s",
        "request_timeout: 59s",
    ),
    ("limits.drain", "drain: 60s", "drain: 61s"),
    (
        "limits.idle_timeout",
        "idle_timeout: 75s",
        "idle_timeout: 650s",
    ),
    (
        "limits.drain_notice",
        "drain_notice: 1s",
        "drain_notice: 15s",
    ),
    (
        "trusted_proxies",
        "trusted_proxies: []",
        "trusted_proxies: [10.0.0.0/8]",
    ),
    (
        "proxy_protocol",
        "proxy_protocol: false",
        "proxy_protocol: true",
    ),
    (
        "health_path",
        "\nhealth_path: /healthz",
        "\nhealth_path: /health",
    ),
    ("outbox.nats.servers", "nats-1:4222", "nats-2:4222"),
    ("outbox.nats.username", "username: n,", "username: m,"),
    ("outbox.nats.password", "s3cr3t-7", "s3cr3t-8"),
    ("outbox.nats.credentials", "nats-1.creds", "nats-2.creds"),
    ("outbox.nats.nkey", "SUs3cr3t-1", "SUs3cr3t-2"),
    ("outbox.nats.tls", "tls: true, stream", "tls: false, stream"),
    (
        "outbox.nats.ca",
        "tls: true, stream",
        "tls: true, ca: store.pem, stream",
    ),
    (
        "outbox.nats.certificate",
        "certificate: gate-1.pem",
        "certificate: gate-2.pem",
    ),
    (
        "outbox.nats.key",
        "key: {file: nats-1",
        "key: {file: nats-2",
    ),
    ("outbox.nats.stream", "stream: RECORDS", "stream: OTHERS"),
    (
        "outbox.nats.max_bytes",
        "max_bytes: 9GiB",
        "max_bytes: 8GiB",
    ),
    ("outbox.nats.replicas", "replicas: 3}}", "replicas: 5}}"),
    (
        "ledger.when_missing",
        "when_missing: create",
        "when_missing: refuse",
    ),
];

#[test]
fn every_setting_that_changed_is_named_and_no_token_is_shown() {
    let shipped = Shipped::new();
    let path = shipped.files.dir.path().join("tollgate.yaml");
    let text = fs::read_to_string(&path).unwrap();
    // One of several replicas has no events.
    let shared = text.replace("admission: {max_delay: 50ms}", &with_store());
    let logged = format!("{text}access_log: {{to: calls.log, of: both, sample: 0.5}}\n");
    let proxied = text.replace("trusted_proxies: []", "trusted_proxies: [10.0.0.0/8]");
    let proxied = format!("{proxied}health_path: /healthz\n");
    let outbox = |login: &str| format!("{text}{}", with_outbox(login));
    let by_user = outbox("username: n, password: s3cr3t-7");
    let by_file = outbox("credentials: {file: nats-1.creds}");
    let by_certificate = outbox("certificate: gate-1.pem, key: {file: nats-1.creds}");
    let by_key = outbox("nkey: SUs3cr3t-1");
    let alone = format!("{text}{EVENTS}");
    let certificate = "-----BEGIN CERTIFICATE-----\n";
    shipped.files.write("store.pem", certificate);
    shipped.files.write("gate-1.pem", certificate);
    let renewed = format!("{certificate}again\n");
    shipped.files.write("gate-2.pem", &renewed);
    shipped
        .files
        .write("nats-1.creds", "-----BEGIN\ns3cr3t-1\n");
    shipped
        .files
        .write("nats-2.creds", "-----BEGIN\ns3cr3t-2\n");
    for (key, from, to) in CHANGES {
        let text = match *key {
            key if key.starts_with("events") => &alone,
            key if key.starts_with("access_log") => &logged,
            "outbox.nats.credentials" => &by_file,
            "outbox.nats.certificate" | "outbox.nats.key" => &by_certificate,
            "outbox.nats.nkey" => &by_key,
            key if key.starts_with("outbox") => &by_user,
            "proxy_protocol" | "health_path" => &proxied,
            _ => &shared,
        };
        fs::write(&path, text).unwrap();
        let old = shipped.files.load().unwrap();
        assert_eq!(text.matches(*from).count(), 1, "{from}");
        fs::write(&path, text.replace(*from, to)).unwrap();
        let new = shipped
            .files
            .load()
            .unwrap_or_else(|e| panic!("{key}: {e}"));
        let changed = old.written.changed_settings(&new.written);
        let keys: Vec<_> = changed.iter().map(|(key, ..)| *key).collect();
        if to.is_empty() {
            let section = [
                "webhook",
                "secret",
                "balance_below",
                "pack_expiring",
                "quota_ending",
            ];
            assert_eq!(keys, section.map(|key| format!("events.{key}")));
            continue;
        }
        if *key == "admission.store.redis.cluster" {
            // A Cluster has no sentinels.
            let gone = [
                "sentinel",
                "sentinel_username",
                "sentinel_password",
                "cluster",
            ];
            assert_eq!(keys, gone.map(|key| format!("admission.store.redis.{key}")));
            continue;
        }
        assert_eq!(keys, [*key]);
        let (_, before, after) = &changed[0];
        assert!(before != after && !format!("{before}{after}").contains("s3cr3t"));
        let top = key.split('.').next().unwrap();
        let mistake = new.written.mistake_at(key, String::new());
        let line = text.lines().nth(mistake.line as usize - 1).unwrap();
        assert!(line.starts_with(top), "{key} is placed at {line:?}");
    }
}

#[test]
fn whatever_waits_for_a_restart_was_changed_above() {
    let changed: BTreeSet<&str> = CHANGES.iter().map(|(key, ..)| *key).collect();
    let waits = TABLE.iter().filter(|s| s.change.needs_restart());
    assert_eq!(changed, waits.map(|s| s.key).collect());
}

#[test]
fn another_catalogue_and_other_accounts_wait_for_no_restart() {
    let shipped = Shipped::new();
    let old = shipped.files.load().unwrap();
    for (name, text) in &shipped.texts {
        let another = format!("another-{name}");
        shipped.files.write(&another, text);
        shipped.files.change(
            "tollgate.yaml",
            &format!(": {name}"),
            &format!(": {another}"),
        );
    }
    let new = shipped.files.load().unwrap();
    assert_eq!(old.written.changed_settings(&new.written), []);
    assert_ne!(old.written.sources, new.written.sources);
}
