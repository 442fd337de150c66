//! How `tollgate.yaml` is read. What it refuses stands in `bad/`.

use crate::config::tests::files::Files;
use crate::config::{Listens, load};
use crate::model::Durability;
use secrecy::ExposeSecret;
use std::path::Path;

#[test]
fn the_shipped_settings_are_the_defaults_but_for_fewer_connections_and_a_ledger_that_is_created() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.yaml");
    let shipped = load(&shipped).unwrap().settings;
    let mut default = Files::good().load().unwrap().settings;
    default.ledger.path.clone_from(&shipped.ledger.path);
    assert_eq!(
        (default.limits.connections, shipped.limits.connections),
        (10_000, 4_000)
    );
    default.limits.connections = 4_000;
    assert_eq!(
        (default.ledger.create, shipped.ledger.create),
        (false, true)
    );
    default.ledger.create = true;
    default.limits.connections_adapt = false;
    assert_eq!(format!("{default:?}"), format!("{shipped:?}"));
}

#[test]
fn a_good_file_is_read_as_it_is_written() {
    let files = Files::good();
    files.write("admin.token", "hush\n");
    files.write(
        "events.secret",
        "whsec_czNjcjN0czNjcjN0czNjcjN0czNjcjN0czNjcjN0\n",
    );
    files.write(
        "tollgate.yaml",
        r#"listen: [0.0.0.0:443, "[::]:443", "unix:/run/tollgate/calls.sock", "[::ffff:127.0.0.1]:80"]
behind_tls: true
workers: 4
admin: {listen: "[::]:9090", token: {file: admin.token}}
upstream: {endpoints: ["http://[::1]:8000/"], connect_timeout: 250ms, response_timeout: 2m, idle_timeout: 800ms, max_age: 10m}
catalog: catalog.yaml
accounts: accounts.yaml
ledger: {path: ../l.db, durability: relaxed, retain_records: 40d, stall_after: 500ms}
admission: {max_delay: 200ms}
metrics: {accounts: 5}
events: {webhook: "https://[::1]/hooks/a?key=b", secret: [{file: events.secret}, whsec_YW5vdGhlYW5vdGhlYW5vdGhlYW5vdGhlYW5vdGhl], balance_below: "99.5", pack_expiring: 30d, quota_ending: 3d}
limits: {connections: 7, idle_timeout: 11m, drain_notice: 0s, header_bytes: 8KiB, body_bytes: 1MiB, body_memory: 8MiB, request_timeout: 3m, drain: 1h}
trusted_proxies: [10.0.0.0/8, "fd00::/8", "::ffff:192.168.0.0/112"]
proxy_protocol: true
health_path: /healthz
"#,
    );
    let settings = files.load().unwrap().settings;
    let listens = "0.0.0.0:443, [::]:443, unix:/run/tollgate/calls.sock";
    assert!(settings.proxy_protocol);
    assert_eq!(settings.health_path.as_deref(), Some("/healthz"));
    assert_eq!(
        settings.listen.to_string(),
        format!("{listens}, 127.0.0.1:80")
    );
    let any = "[::]:443".parse().unwrap();
    assert!(!settings.listen.is_dual(any), "0.0.0.0 is there for IPv4");
    assert!(Listens::from(any).is_dual(any));
    assert!(settings.behind_tls);
    assert_eq!(settings.workers.map(|n| n.get()), Some(4));
    assert_eq!(settings.admin.token.unwrap().expose_secret(), "hush");
    assert_eq!(settings.upstream.endpoints[0].to_string(), "[::1]:8000");
    assert_eq!(settings.upstream.connect_timeout.as_millis(), 250);
    assert_eq!(settings.upstream.response_timeout.as_secs(), 120);
    assert_eq!(settings.upstream.idle_timeout.as_millis(), 800);
    assert_eq!(
        settings.upstream.max_age.map(|age| age.as_secs()),
        Some(600)
    );
    assert_eq!(settings.ledger.path, files.dir.path().join("../l.db"));
    assert_eq!(settings.ledger.durability, Durability::Relaxed);
    assert_eq!(settings.ledger.retain_records.as_secs(), 40 * 86_400);
    assert_eq!(settings.ledger.stall_after.as_millis(), 500);
    assert_eq!(settings.max_delay.as_millis(), 200);
    assert_eq!(settings.metric_accounts, 5);
    let events = settings.events.unwrap();
    let webhook = events.webhook;
    assert_eq!(
        (webhook.tls, webhook.host.as_str(), webhook.port),
        (true, "::1", 443)
    );
    assert_eq!(webhook.path, "/hooks/a?key=b");
    let keys = events.secrets.iter().map(|key| key.expose_secret());
    let keys: Vec<&[u8]> = keys.collect();
    assert_eq!(keys, [b"s3cr3t".repeat(5), b"anothe".repeat(5)]);
    let balance_below = events.balance_below.map(|amount| amount.to_string());
    assert_eq!(balance_below.as_deref(), Some("99.5"));
    let days = |days: u64| std::time::Duration::from_secs(days * 86_400);
    assert_eq!(events.pack_expiring, Some(days(30)));
    assert_eq!(events.quota_ending, days(3));
    assert_eq!(settings.limits.connections, 7);
    assert!(!settings.limits.connections_adapt);
    assert_eq!(settings.limits.idle_timeout.as_secs(), 660);
    assert!(settings.limits.drain_notice.is_zero());
    assert_eq!(settings.limits.header_bytes, 8192);
    assert_eq!(settings.limits.body_memory, 8 << 20);
    assert_eq!(settings.limits.drain.as_secs(), 3600);
    let proxies: Vec<String> = settings
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(proxies, ["10.0.0.0/8", "fd00::/8", "192.168.0.0/16"]);
}

#[test]
fn an_upstream_that_is_one_of_the_gates_own_listeners_is_refused() {
    let refused = |listeners: &str, endpoint: &str| {
        let files = Files::good();
        files.change("tollgate.yaml", "listen: 127.0.0.1:8080", listeners);
        let endpoint = format!("\"{endpoint}\"");
        files.change("tollgate.yaml", "http://127.0.0.1:8000", &endpoint);
        let said = files.mistakes();
        for mistake in &said {
            assert!(mistake.contains("would come back to it"), "{mistake}");
        }
        said.len()
    };
    const LOOPBACK: &str = "listen: 127.0.0.1:8080";
    const ANY: &str = "behind_tls: true\nlisten: 0.0.0.0:8080";
    const ANY_6: &str = "behind_tls: true\nlisten: '[::]:8080'";
    const TWO: &str = "listen: ['127.0.0.1:8080', '127.0.0.2:8081', 'unix:/a']";
    for (listeners, endpoint, count) in [
        (LOOPBACK, "http://127.0.0.1:8080", 1),
        (LOOPBACK, "http://127.0.0.1:9090", 1),
        (LOOPBACK, "http://localhost:8080", 1),
        (LOOPBACK, "http://LOCALHOST.:8080", 1),
        (LOOPBACK, "http://0.0.0.0:8080", 1),
        (LOOPBACK, "http://[::ffff:127.0.0.1]:8080", 1),
        // As the system's resolver reads them.
        (LOOPBACK, "http://127.1:8080", 1),
        (LOOPBACK, "http://127.0.1:8080", 1),
        (LOOPBACK, "http://2130706433:8080", 1),
        (LOOPBACK, "http://0x7f.1:8080", 1),
        (LOOPBACK, "http://0X7F000001:8080", 1),
        (LOOPBACK, "http://0177.0.0.01:8080", 1),
        (LOOPBACK, "http://0:8080", 1),
        (LOOPBACK, "http://127.2:8080", 0),
        (LOOPBACK, "http://127.0.256:8080", 0),
        (LOOPBACK, "http://4294967296:8080", 0),
        (LOOPBACK, "http://127.0.0.0.1:8080", 0),
        (LOOPBACK, "http://127.0.0.1.0:8080", 0),
        (LOOPBACK, "http://127.0.0x:8080", 0),
        (LOOPBACK, "http://127.0.0.1:8081", 0),
        (LOOPBACK, "http://127.0.0.2:8080", 0),
        (LOOPBACK, "http://[::1]:8080", 0),
        (LOOPBACK, "http://model.test:8080", 0),
        (ANY, "http://127.0.0.2:8080", 1),
        (ANY, "http://192.0.2.1:8080", 0),
        (ANY_6, "http://[::1]:8080", 1),
        (ANY_6, "http://127.0.0.1:8080", 1),
        (TWO, "http://127.0.0.2:8081", 1),
        (TWO, "http://127.0.0.2:8080", 0),
    ] {
        assert_eq!(
            refused(listeners, endpoint),
            count,
            "{listeners} and {endpoint}"
        );
    }
}

#[test]
fn events_go_over_https_or_to_this_machine_and_the_path_is_never_shown() {
    for (url, tls, authority, path) in [
        ("http://127.0.0.1", false, "127.0.0.1", "/"),
        ("http://127.0.0.9:80/", false, "127.0.0.9", "/"),
        ("http://localhost:443/x", false, "localhost:443", "/x"),
        ("http://[::1]:8/x", false, "[::1]:8", "/x"),
        ("https://a:443/x", true, "a", "/x"),
        ("https://a:80/x", true, "a:80", "/x"),
        ("https://a?key=s3cr3t", true, "a", "/?key=s3cr3t"),
        ("https://a/s3cr3t/?k=s3cr3t", true, "a", "/s3cr3t/?k=s3cr3t"),
    ] {
        let files = Files::good();
        let events = format!(
            "events: {{webhook: \"{url}\", secret: whsec_czNjcjN0czNjcjN0czNjcjN0czNjcjN0czNjcjN0}}\nledger:"
        );
        files.change("tollgate.yaml", "ledger:", &events);
        let settings = files.load().unwrap().settings;
        let events = settings.events.clone().unwrap();
        let webhook = events.webhook;
        assert_eq!(
            (webhook.tls, webhook.authority().as_str(), &*webhook.path),
            (tls, authority, path)
        );
        assert!(events.balance_below.is_none() && events.pack_expiring.is_none());
        assert_eq!(events.quota_ending.as_secs(), 7 * 86_400);
        assert!(!format!("{settings:?} {webhook}").contains("s3cr3t"));
        assert!(!format!("{settings:?}").contains("czNj"));
    }
    assert!(Files::good().load().unwrap().settings.events.is_none());
}
