//! Good files with one change each, and exactly what is said about it.

use crate::config::*;
use crate::words::{Durability, Mode, Origin, Stop, Utc};
use secrecy::ExposeSecret;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const TOLLGATE: &str = r#"listen: 127.0.0.1:8080
upstream: {endpoints: [http://127.0.0.1:8000]}
catalog: catalog.yaml
accounts: accounts.yaml
ledger: {path: ledger.db}
"#;

const CATALOG: &str = r#"time_zone: Asia/Shanghai
currency: CNY
services: [bda]
versions: ["2020-03-24"]
groups:
  portrait:
    title: 人像分割
    regions: [ap-beijing]
    actions:
      Segment: {route: POST /v1/segment}
      Custom: {}
    per_call:
      qps: 20
      free_calls: 1000
      tiers: [{from: 0, price: "0.01"}, {from: 100, price: "0.009"}]
      packs: [{calls: 10000, price: "88"}, {calls: 20000, price: "170"}]
      pack_months: 12
      notice_below: 15%
    qps: {prices: [{from: 1, month: "880", day: "48"}, {from: 10, month: "780", day: "40"}]}
  video:
    title: Video
    actions: {Create: {}}
    free: {qps_per_action: 20}
"#;

const ACCOUNTS: &str = r#"accounts:
  "1":
    name: One
    keys:
      - {secret_id: AKID1, secret_key: hush}
      - {api_key_sha256: 00000000000000000000000000000000000000000000000000000000000000aa}
    payments: [{order: T-1, at: 2026-11-01T00:00:00+08:00, amount: "500"}]
    services:
      portrait:
        opened: 2026-11-01T00:00:00+08:00
        mode: qps
        packs: [{order: P-1, calls: 10000, count: 2, delivered: 2024-02-29T10:00:00+08:00, paid: {cash: "176"}}]
        qps_purchases:
          - {order: Q-1, qps: 10, from: 2026-01-31T12:30:00+08:00, months: 1, paid: {cash: "7800"}}
          - {order: Q-2, qps: 20, from: 2026-01-31T12:30:00+08:00, days: 3, paid: {}}
      video:
        opened: 2026-11-01T00:00:00+08:00
  "2": {name: Two, services: {portrait: {opened: 2026-11-01T00:00:00Z, stopped: arrears}}}
"#;

/// Three files in a directory of their own, and perhaps secrets beside them.
struct Files {
    dir: TempDir,
}

impl Files {
    fn good() -> Self {
        let files = Self {
            dir: TempDir::new().unwrap(),
        };
        files.write("tollgate.yaml", TOLLGATE);
        files.write("catalog.yaml", CATALOG);
        files.write("accounts.yaml", ACCOUNTS);
        files
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// Replaces the one place where `from` stands.
    fn change(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.dir.path().join(name)).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from:?} in {name}");
        self.write(name, text.replace(from, to));
    }

    fn load(&self) -> Result<Config, Mistakes> {
        load(&self.dir.path().join("tollgate.yaml"))
    }

    fn shown(&self, mistakes: &[Mistake]) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        mistakes
            .iter()
            .map(|m| m.to_string().replace(&dir, ""))
            .collect()
    }

    /// Every mistake, without the directory.
    fn mistakes(&self) -> Vec<String> {
        match self.load() {
            Ok(_) => Vec::new(),
            Err(mistakes) => self.shown(&mistakes.0),
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.shown(&self.load().unwrap().warnings)
    }
}

/// `table` holds cases: a line `from => to`, where `\n` is a new line, and below it the mistakes
/// that the good file with that change gives, all of them, each without `file:`.
#[track_caller]
fn refuses(file: &str, table: &str) {
    let mut cases: Vec<(&str, Vec<String>)> = Vec::new();
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match cases.last_mut() {
            Some((_, expected)) if !line.contains(" =>") => expected.push(format!("{file}:{line}")),
            _ => cases.push((line, Vec::new())),
        }
    }
    let mut wrong = Vec::new();
    for (case, expected) in cases {
        let (from, to) = case.split_once(" =>").unwrap();
        let files = Files::good();
        let change = |text: &str| text.replace("\\n", "\n");
        files.change(file, &change(from), &change(to.trim_start()));
        let said = files.mistakes();
        if said != expected {
            wrong.push(format!(
                "{case}\n  said     {said:#?}\n  expected {expected:#?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn utc(text: &str) -> Utc {
    Utc(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

#[test]
fn the_shipped_files_are_right_and_hold_the_contract() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.yaml");
    let config = load(&shipped).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(config.warnings, []);
    let Charging::Paid { per_call, qps } = &config.catalog.groups[0].charging else {
        panic!("the portrait group is paid");
    };
    assert_eq!(per_call.qps, 20);
    assert_eq!(per_call.free_calls, 1000);
    assert_eq!(per_call.notice_below.to_string(), "0.15");
    let tiers: Vec<_> = per_call
        .tiers
        .iter()
        .map(|t| (t.from, t.price.to_string()))
        .collect();
    let expected = [
        (0, "0.01"),
        (10_000, "0.009"),
        (100_000, "0.008"),
        (1_000_000, "0.007"),
    ];
    assert_eq!(
        tiers,
        expected.map(|(from, price)| (from, price.to_owned()))
    );
    let packs: Vec<_> = per_call
        .packs
        .iter()
        .map(|p| (p.calls, p.price.to_string()))
        .collect();
    let expected = [
        (10_000, "88"),
        (100_000, "860"),
        (1_000_000, "7300"),
        (10_000_000, "63000"),
    ];
    assert_eq!(
        packs,
        expected.map(|(calls, price)| (calls, price.to_owned()))
    );
    let ladder: Vec<_> = qps
        .iter()
        .map(|p| format!("{} {} {}", p.from, p.month, p.day))
        .collect();
    assert_eq!(ladder, ["1 880 48", "10 780 40", "50 700 35", "100 630 30"]);
    assert!(matches!(
        config.catalog.groups[1].charging,
        Charging::Free { qps_per_action: 20 }
    ));
    assert_eq!(config.catalog.settle_day, 3);

    let ids: Vec<_> = config.accounts.iter().map(|a| a.id.as_str()).collect();
    assert_eq!(
        ids,
        ["1250000001", "1250000002", "1250000003", "1250000004"]
    );
    let keys = [
        "demo-studio-key",
        "demo-retail-key",
        "demo-arrears-key",
        "demo-video-key",
    ];
    for (account, key) in config.accounts.iter().zip(keys) {
        use sha2::Digest;
        let digest: [u8; 32] = sha2::Sha256::digest(key).into();
        let held = |c: &Credential| matches!(c, Credential::ApiKey { sha256 } if *sha256 == digest);
        assert!(account.credentials.iter().any(held), "{key}");
    }
    let now = utc("2026-11-24T00:00:00Z");
    let in_force = config.accounts[1].services[0].qps_purchases.iter();
    let in_force = in_force
        .filter(|p| p.from <= now && now < p.until)
        .map(|p| p.qps);
    assert_eq!(in_force.sum::<u32>(), 30);
    assert_eq!(config.accounts[2].services[0].stopped, Some(Stop::Arrears));
}

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
        "tollgate.yaml",
        r#"listen: 0.0.0.0:443
behind_tls: true
workers: 4
admin: {listen: "[::]:9090", token: {file: admin.token}}
upstream: {endpoints: ["http://[::1]:8000/"], connect_timeout: 250ms, response_timeout: 2m, idle_timeout: 800ms, max_age: 10m}
catalog: catalog.yaml
accounts: accounts.yaml
ledger: {path: ../l.db, durability: relaxed, retain_records: 40d, stall_after: 500ms}
admission: {max_delay: 200ms}
metrics: {accounts: 5}
notices: {webhook: "https://[::1]/hooks/a?key=b", token: {file: admin.token}}
limits: {connections: 7, idle_timeout: 11m, drain_notice: 0s, header_bytes: 8KiB, body_bytes: 1MiB, body_memory: 8MiB, request_timeout: 3m, drain: 1h}
trusted_proxies: [10.0.0.0/8, "fd00::/8", "::ffff:192.168.0.0/112"]
"#,
    );
    let settings = files.load().unwrap().settings;
    assert_eq!(settings.listen, "0.0.0.0:443".parse().unwrap());
    assert!(settings.behind_tls);
    assert_eq!(settings.workers.map(|n| n.get()), Some(4));
    assert_eq!(settings.admin.token.unwrap().expose_secret(), "hush");
    assert_eq!(settings.upstream.endpoint.to_string(), "[::1]:8000");
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
    let notices = settings.notices.unwrap();
    let webhook = notices.webhook;
    assert_eq!(
        (webhook.tls, webhook.host.as_str(), webhook.port),
        (true, "::1", 443)
    );
    assert_eq!(webhook.path, "/hooks/a?key=b");
    assert_eq!(notices.token.unwrap().expose_secret(), "hush");
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
fn the_mode_is_per_call_unless_written_and_free_in_a_free_group() {
    let accounts = Files::good().load().unwrap().accounts;
    let modes: Vec<_> = accounts
        .iter()
        .flat_map(|a| &a.services)
        .map(|s| s.mode)
        .collect();
    assert_eq!(modes, [Mode::Qps, Mode::Free, Mode::PerCall]);
}

#[test]
fn periods_end_at_the_same_local_time_clamped_to_the_months_end() {
    let accounts = Files::good().load().unwrap().accounts;
    let service = &accounts[0].services[0];
    let ends: Vec<_> = service.qps_purchases.iter().map(|p| p.until).collect();
    assert_eq!(
        ends,
        [
            utc("2026-02-28T12:30:00+08:00"),
            utc("2026-02-03T12:30:00+08:00")
        ]
    );
    assert_eq!(service.packs[0].expires, utc("2025-02-28T10:00:00+08:00"));
}

#[test]
fn a_period_keeps_its_clock_time_over_a_change_of_the_clocks_and_counts_in_the_catalogues_zone() {
    let files = Files::good();
    files.change("catalog.yaml", "Asia/Shanghai", "Europe/Berlin");
    // In Berlin it is still the 28th of February, 23:30, with the clocks on winter time.
    files.change(
        "accounts.yaml",
        "from: 2026-01-31T12:30:00+08:00, months: 1",
        "from: 2026-03-01T06:30:00+08:00, months: 1",
    );
    let accounts = files.load().unwrap().accounts;
    assert_eq!(
        accounts[0].services[0].qps_purchases[0].until,
        utc("2026-03-28T23:30:00+01:00")
    );
    files.change(
        "accounts.yaml",
        "from: 2026-03-01T06:30:00+08:00, months: 1",
        "from: 2026-03-28T12:00:00+01:00, days: 1",
    );
    let accounts = files.load().unwrap().accounts;
    assert_eq!(
        accounts[0].services[0].qps_purchases[0].until,
        utc("2026-03-29T12:00:00+02:00")
    );
}

#[test]
fn the_mistakes_of_all_files_come_at_once_and_in_order() {
    let files = Files::good();
    files.change(
        "tollgate.yaml",
        "listen: 127.0.0.1:8080\n",
        "lisen: 127.0.0.1:8080\n",
    );
    files.change("tollgate.yaml", "ledger: {path: ledger.db}", "ledger: {}");
    files.change("catalog.yaml", "qps: 20\n", "qps: 0\n");
    files.change("catalog.yaml", "title: Video", "titel: Video");
    files.change("accounts.yaml", "order: P-1", "order: T-1");
    files.change("accounts.yaml", "  \"2\":", "  2:");
    let expected = [
        "tollgate.yaml:1:1: missing key \"listen\": add it, such as `listen: 127.0.0.1:8080`",
        "tollgate.yaml:1:1: unknown key \"lisen\": did you mean \"listen\"?",
        "tollgate.yaml:5:1: ledger: missing key \"path\": add it, such as `path: ../var/ledger.db`",
        "catalog.yaml:13:12: qps: expected a whole number from 1 to 1000000, found 0",
        "catalog.yaml:20:3: video: missing key \"title\": add it, such as `title: 人像分割`",
        "catalog.yaml:21:5: unknown key \"titel\": did you mean \"title\"?",
        "accounts.yaml:12:25: order: order \"T-1\" is in use already, at accounts.yaml:7:24: an order is entered once; correct one of the two",
        "accounts.yaml:18:3: YAML reads the key 2 as a number: write it in quotes",
    ];
    assert_eq!(files.mistakes(), expected);
    let shown = files.load().unwrap_err().to_string();
    assert_eq!(shown.lines().count(), expected.len());
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    refuses(
        "tollgate.yaml",
        r#"
        listen: 127.0.0.1:8080\n => listen: 127.0.0.1:8080\nworkres: 2\n
            2:1: unknown key "workres": did you mean "workers"?
        {path: ledger.db} => {path: ledger.db, xyz: 1}
            5:27: unknown key "xyz": remove it; the keys here are path, durability, retain_records, stall_after, when_missing
        ledger: {path => admission: {store: {}}\nledger: {path
            5:13: unknown key "store": remove it; the keys here are max_delay
        ledger: {path => <<: {a: 1}\nledger: {path
            5:1: merge keys (`<<`) are not supported: write the keys out
        "#,
    );
    refuses(
        "catalog.yaml",
        r#"
        currency: CNY\n => currency: CNY\nsettleday: 3\n
            3:1: unknown key "settleday": did you mean "settle_day"?
        Custom: {} => Custom: {rout: POST /x}
            11:16: unknown key "rout": did you mean "route"?
        "#,
    );
    refuses(
        "accounts.yaml",
        r#"
        name: One\n => name: One\n    paymets: []\n
            4:5: unknown key "paymets": did you mean "payments"?
        "#,
    );
}

#[test]
fn duplicate_keys_are_refused_with_both_places() {
    refuses(
        "tollgate.yaml",
        r#"
        catalog: catalog.yaml\n => catalog: catalog.yaml\nlisten: 127.0.0.1:1\n
            4:1: duplicate key "listen": first given at tollgate.yaml:1:1; keep one
        "#,
    );
    refuses(
        "accounts.yaml",
        r#"
        "2": => "1":
            18:3: duplicate key "1": first given at accounts.yaml:2:3; keep one
        count: 2, => count: 2, count: 3,
            12:54: duplicate key "count": first given at accounts.yaml:12:44; keep one
        "#,
    );
}

#[test]
fn duplicate_credentials_and_orders_are_refused_with_both_places() {
    refuses(
        "accounts.yaml",
        r#"
        {name: Two, => {name: Two, keys: [{secret_id: AKID1, secret_key: other}],
            18:39: secret_id: this secret id is in use already, at accounts.yaml:5:21: a credential names one account; issue another
        {name: Two, => {name: Two, keys: [{api_key_sha256: 00000000000000000000000000000000000000000000000000000000000000aa}],
            18:44: api_key_sha256: this API key is in use already, at accounts.yaml:6:26: a credential names one account; issue another
        order: Q-2 => order: Q-1
            15:21: order: order "Q-1" is in use already, at accounts.yaml:14:21: an order is entered once; correct one of the two
        "#,
    );
}

#[test]
fn a_per_call_cap_in_an_account_is_refused_with_the_way_to_a_higher_rate() {
    refuses(
        "accounts.yaml",
        r#"
        mode: qps => qps: 50
            11:9: qps: the per-call cap is the same for every account and not adjustable: for a higher rate write `mode: qps` and buy quota in `qps_purchases`
        mode: qps => per_call: {qps: 50}
            11:9: per_call: the per-call cap is the same for every account and not adjustable: for a higher rate write `mode: qps` and buy quota in `qps_purchases`
        mode: qps => cap: 50
            11:9: cap: the per-call cap is the same for every account and not adjustable: for a higher rate write `mode: qps` and buy quota in `qps_purchases`
        video:\n => video:\n        qps_per_action: 50\n
            17:9: qps_per_action: the cap of a free group is the same for every account and stands in the catalogue: remove it
        "#,
    );
}

#[test]
fn a_free_group_has_no_mode_and_sells_nothing() {
    refuses(
        "accounts.yaml",
        r#"
        video:\n => video:\n        mode: per_call\n
            17:9: mode: a free group has no mode: remove it
        video:\n => video:\n        packs: []\n
            17:9: packs: a free group sells nothing: remove it
        video:\n => video:\n        qps_purchases: []\n
            17:9: qps_purchases: a free group sells nothing: remove it
        "#,
    );
}

#[test]
fn every_number_has_its_bounds() {
    refuses(
        "tollgate.yaml",
        r#"
        ledger: {path => workers: 0\nledger: {path
            5:10: workers: expected a whole number from 1 to 1024, found 0
        ledger: {path => limits: {connections: 0}\nledger: {path
            5:23: connections: expected a whole number from 1 to 1000000, found 0
        ledger: {path => limits: {connections: 1.5}\nledger: {path
            5:23: connections: expected a whole number from 1 to 1000000, found 1.5
        ledger: {path => metrics: {accounts: -1}\nledger: {path
            5:21: accounts: expected a whole number from 1 to 100000, found -1
        ledger: {path => metrics: {accounts: "10"}\nledger: {path
            5:21: accounts: expected a whole number from 1 to 100000: remove the quotes and leading zeros
        ledger: {path => limits: {header_bytes: 4KiB}\nledger: {path
            5:24: header_bytes: expected a size from 8.0 KiB to 128.0 KiB, found "4KiB"
        ledger: {path => limits: {body_bytes: 0B}\nledger: {path
            5:22: body_bytes: expected a size from 1 B to 1.0 GiB, found "0B"
        "#,
    );
    refuses(
        "catalog.yaml",
        r#"
        qps: 20\n => qps: 1000001\n
            13:12: qps: expected a whole number from 1 to 1000000, found 1000001
        pack_months: 12 => pack_months: 0
            17:20: pack_months: expected a whole number from 1 to 120, found 0
        {qps_per_action: 20} => {qps_per_action: 0}
            23:28: qps_per_action: expected a whole number from 1 to 1000000, found 0
        currency: CNY\n => currency: CNY\nsettle_day: 29\n
            3:13: settle_day: expected a whole number from 1 to 28, found 29
        calls: 20000 => calls: 0
            16:52: calls: expected a whole number from 1 to 1000000000000, found 0
        "#,
    );
    refuses(
        "accounts.yaml",
        r#"
        qps: 10, => qps: 0,
            14:31: qps: expected a whole number from 1 to 1000000, found 0
        qps: 10, => qps: 1000000,
            13:9: qps_purchases: more than 1000000 in force at 2026-01-31T04:30:00Z: remove or shorten a purchase
        months: 1 => months: 0
            14:76: months: expected a whole number from 1 to 120, found 0
        days: 3 => days: -3
            15:74: days: expected a whole number from 1 to 3660, found -3
        count: 2 => count: 0
            12:51: count: expected a whole number from 1 to 10000, found 0
        "#,
    );
}

#[test]
fn what_only_some_versions_of_yaml_read_as_written_is_refused() {
    refuses(
        "accounts.yaml",
        r#"
        qps: 10, => qps: 0x3E8,
            14:31: qps: expected a whole number from 1 to 1000000, found 0x3E8: write decimal digits alone
        qps: 10, => qps: 0b11,
            14:31: qps: expected a whole number from 1 to 1000000, found 0b11: write decimal digits alone
        qps: 10, => qps: 0o12,
            14:31: qps: expected a whole number from 1 to 1000000, found 0o12: write decimal digits alone
        qps: 10, => qps: +5,
            14:31: qps: expected a whole number from 1 to 1000000, found +5: write decimal digits alone
        qps: 10, => qps: 0100,
            14:31: qps: expected a whole number from 1 to 1000000, found 0100: write decimal digits alone
        qps: 10, => qps: !!int 10,
            14:31: qps: expected a whole number from 1 to 1000000, found a YAML tag
        mode: qps => mode: !!str qps
            11:15: mode: expected text, found a YAML tag: remove the tag
        secret_key: hush => secret_key: !!binary aHVzaA==
            5:40: secret_key: expected text, found a YAML tag: remove the tag
        "1": => 01:
            2:3: YAML reads the key 01 as a number: write it in quotes
        secret_id: AKID1 => secret_id: 0123
            5:21: secret_id: YAML reads this as a number: write it in quotes
        order: P-1, => order: 007,
            12:25: order: YAML reads this as a number: write it in quotes
        "#,
    );
    let files = Files::good();
    files.change("accounts.yaml", "secret_id: AKID1", "secret_id: \"0123\"");
    files.change("accounts.yaml", "order: P-1,", "order: '007',");
    assert_eq!(files.mistakes(), [""; 0]);
}

#[test]
fn money_is_quoted_text_above_zero() {
    refuses(
        "catalog.yaml",
        r#"
        "0.01" => 0.01
            15:32: price: an amount is text, so that no digit is lost: write it in quotes, "0.01"
        "0.01" => "-1"
            15:32: price: expected an amount such as "0.01", at most 1000000000 and 6 decimals, found "-1"
        "0.01" => "1e3"
            15:32: price: expected an amount such as "0.01", at most 1000000000 and 6 decimals, found "1e3"
        "0.01" => "0.0000001"
            15:32: price: expected an amount such as "0.01", at most 1000000000 and 6 decimals, found "0.0000001"
        "0.01" => "0.00"
            15:32: price: must be more than zero
        month: "880" => month: "0"
            19:37: month: must be more than zero
        15% => 0.15
            18:21: notice_below: 0.15 has no percent sign: write 15%
        15% => 15
            18:21: notice_below: 15 has no percent sign: write 15%
        15% => 150%
            18:21: notice_below: expected a percentage between 0% and 100%, such as 15%, found "150%"
        "#,
    );
    refuses(
        "accounts.yaml",
        r#"
        amount: "500" => amount: 500
            7:68: amount: an amount is text, so that no digit is lost: write it in quotes, "500"
        amount: "500" => amount: "0"
            7:68: amount: must be more than zero
        paid: {} => paid: {gold: "1"}
            15:84: unknown key "gold": remove it; the keys here are cash, income, gift, deduction, voucher
        , paid: {} =>
            15:14: qps_purchases: missing key "paid": add it, such as `paid: {cash: "7800"}`
        "#,
    );
}

#[test]
fn durations_and_sizes_need_a_unit_and_a_bound() {
    refuses(
        "tollgate.yaml",
        r#"
        ledger: {path => admission: {max_delay: 50}\nledger: {path
            5:24: max_delay: 50 has no unit: write 50ms, 50s, 50m, 50h or 50d
        ledger: {path => admission: {max_delay: 201ms}\nledger: {path
            5:24: max_delay: expected a duration from 0ms to 200ms, found "201ms"
        ledger: {path => admission: {max_delay: -5ms}\nledger: {path
            5:24: max_delay: expected a duration such as 50ms, 60s, 5m, 2h or 100d, found "-5ms"
        ledger: {path => limits: {drain: 99999999999999999999s}\nledger: {path
            5:17: drain: expected a duration such as 50ms, 60s, 5m, 2h or 100d, found "99999999999999999999s"
        ledger: {path => limits: {drain: 9999999999999999999d}\nledger: {path
            5:17: drain: expected a duration from 0ms to 1h, found "9999999999999999999d"
        ledger: {path => limits: {request_timeout: 1 hour}\nledger: {path
            5:27: request_timeout: expected a duration such as 50ms, 60s, 5m, 2h or 100d, found "1 hour"
        {path: ledger.db} => {path: ledger.db, retain_records: 1h}
            5:43: retain_records: expected a duration from 1d to 36500d, found "1h"
        {path: ledger.db} => {path: ledger.db, stall_after: 90s}
            5:40: stall_after: expected a duration from 100ms to 1m, found "90s"
        8000]} => 8000], connect_timeout: 0s}
            2:65: connect_timeout: expected a duration from 1ms to 1h, found "0s"
        ledger: {path => limits: {body_bytes: 1024}\nledger: {path
            5:22: body_bytes: 1024 has no unit: write 1024B, 1024KiB or 1024MiB
        ledger: {path => limits: {body_bytes: many}\nledger: {path
            5:22: body_bytes: expected a size such as 32KiB or 10MiB, found "many"
        "#,
    );
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    refuses(
        "tollgate.yaml",
        r#"
        ledger: {path => limits: {body_memory: 79MiB}\nledger: {path
            5:23: body_memory: no peer and no credential holds more than 1/8 of body_memory, so the largest body would never fit: write at least 80.0 MiB, or lower body_bytes
        8000]} => 8000], response_timeout: 60s}
            2:66: response_timeout: response_timeout (60s) must be shorter than limits.request_timeout (60s), so that a slow upstream is answered for: shorten it
        ledger: {path => limits: {request_timeout: 50s}\nledger: {path
            2:1: upstream: response_timeout (50s) must be shorter than limits.request_timeout (50s), so that a slow upstream is answered for: shorten it
        "#,
    );
}

#[test]
fn a_short_drain_is_a_warning() {
    let files = Files::good();
    files.change(
        "tollgate.yaml",
        "ledger: {path",
        "limits: {drain: 30s}\nledger: {path",
    );
    assert_eq!(
        files.warnings(),
        [
            "tollgate.yaml:5:17: drain: drain (30s) is shorter than request_timeout (60s): a stopping gate may cut calls off"
        ]
    );
}

#[test]
fn a_listener_open_to_other_machines_needs_its_protection() {
    refuses(
        "tollgate.yaml",
        r#"
        listen: 127.0.0.1:8080 => listen: 0.0.0.0:8080
            1:9: listen: 0.0.0.0:8080 takes keys in clear text from other machines: listen on 127.0.0.1, or write `behind_tls: true` when TLS ends in front of this gate
        listen: 127.0.0.1:8080 => listen: localhost
            1:9: listen: expected IP:PORT, such as 127.0.0.1:8080, found "localhost"
        listen: 127.0.0.1:8080 => listen: 127.0.0.1:9090
            1:9: listen: the public listener has 127.0.0.1:9090 too: give the admin listener a port of its own
        ledger: {path => admin: {listen: 10.0.0.1:9090}\nledger: {path
            5:17: listen: 10.0.0.1:9090 is open to other machines: listen on 127.0.0.1, or add `token: {file: PATH}`
        ledger: {path => behind_tls: yes\nledger: {path
            5:13: behind_tls: expected true or false, found "yes"
        "#,
    );
}

#[test]
fn the_upstream_is_one_plain_endpoint_without_a_path() {
    refuses(
        "tollgate.yaml",
        r#"
        http://127.0.0.1:8000 => http://a:1, http://b:1
            2:12: endpoints: 2 endpoints: balancing is not built yet; name one
        [http://127.0.0.1:8000] => []
            2:12: endpoints: is empty: name one, such as http://127.0.0.1:8000
        http://127.0.0.1:8000 => https://a:1
            2:24: endpoints: "https://a:1": TLS to the upstream is not built yet; expected http://HOST:PORT, such as http://127.0.0.1:8000
        http://127.0.0.1:8000 => http://a:1/api
            2:24: endpoints: "http://a:1/api": a call keeps its own path; leave out what follows HOST:PORT
        http://127.0.0.1:8000 => http://a:1/?x
            2:24: endpoints: "http://a:1/?x": a call keeps its own path; leave out what follows HOST:PORT
        http://127.0.0.1:8000 => 127.0.0.1:8000
            2:24: endpoints: expected http://HOST:PORT, such as http://127.0.0.1:8000, found "127.0.0.1:8000"
        http://127.0.0.1:8000 => http://u:p@a:1
            2:24: endpoints: expected http://HOST:PORT, such as http://127.0.0.1:8000, found "http://u:p@a:1"
        http://127.0.0.1:8000 => http://a:0
            2:24: endpoints: expected http://HOST:PORT, such as http://127.0.0.1:8000, found "http://a:0"
        http://127.0.0.1:8000 => http://a:99999
            2:24: endpoints: expected http://HOST:PORT, such as http://127.0.0.1:8000, found "http://a:99999"
        [http://127.0.0.1:8000] => http://127.0.0.1:8000
            2:23: endpoints: expected a list in [ ], found "http://127.0.0.1:8000"
        "#,
    );
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
    ] {
        assert_eq!(
            refused(listeners, endpoint),
            count,
            "{listeners} and {endpoint}"
        );
    }
}

#[test]
fn notices_go_to_an_address_whose_path_is_never_shown() {
    for (url, tls, authority, path) in [
        ("http://a", false, "a", "/"),
        ("http://a:80/", false, "a", "/"),
        ("http://a:443/x", false, "a:443", "/x"),
        ("https://a:443/x", true, "a", "/x"),
        ("https://a:80/x", true, "a:80", "/x"),
        ("https://a?key=s3cr3t", true, "a", "/?key=s3cr3t"),
        ("https://a/s3cr3t/?k=s3cr3t", true, "a", "/s3cr3t/?k=s3cr3t"),
        ("http://[fd00::1]:8/x", false, "[fd00::1]:8", "/x"),
    ] {
        let files = Files::good();
        let notices = format!("notices: {{webhook: \"{url}\"}}\nledger:");
        files.change("tollgate.yaml", "ledger:", &notices);
        let settings = files.load().unwrap().settings;
        let webhook = settings.notices.clone().unwrap().webhook;
        assert_eq!(
            (webhook.tls, webhook.authority().as_str(), &*webhook.path),
            (tls, authority, path)
        );
        assert!(!format!("{settings:?} {webhook}").contains("s3cr3t"));
    }
    assert!(Files::good().load().unwrap().settings.notices.is_none());
    refuses(
        "tollgate.yaml",
        r#"
        ledger: => notices: {}\nledger:
            5:1: notices: missing key "webhook": add it, such as `webhook: https://127.0.0.1:8443/notices`
        ledger: => notices: {webhook: ftp://a/s3cr3t}\nledger:
            5:20: webhook: is not an address to post to: write http://HOST:PORT/PATH or https://HOST:PORT/PATH
        ledger: => notices: {webhook: a:80/s3cr3t}\nledger:
            5:20: webhook: is not an address to post to: write http://HOST:PORT/PATH or https://HOST:PORT/PATH
        ledger: => notices: {webhook: /s3cr3t}\nledger:
            5:20: webhook: is not an address to post to: write http://HOST:PORT/PATH or https://HOST:PORT/PATH
        ledger: => notices: {webhook: https://a:0/s3cr3t}\nledger:
            5:20: webhook: is not an address to post to: write http://HOST:PORT/PATH or https://HOST:PORT/PATH
        ledger: => notices: {webhook: https://a:99999/s3cr3t}\nledger:
            5:20: webhook: is not an address to post to: write http://HOST:PORT/PATH or https://HOST:PORT/PATH
        ledger: => notices: {webhook: https:///s3cr3t}\nledger:
            5:20: webhook: is not an address to post to: write http://HOST:PORT/PATH or https://HOST:PORT/PATH
        ledger: => notices: {webhook: "https://a/s3 cr3t"}\nledger:
            5:20: webhook: is not an address to post to: write http://HOST:PORT/PATH or https://HOST:PORT/PATH
        ledger: => notices: {webhook: https://u:s3cr3t@a/}\nledger:
            5:20: webhook: holds a name or a password: leave out what stands before @, and give the receiver's secret as `token: {file: PATH}`
        ledger: => notices: {webhook: https://a/s3cr3t#b}\nledger:
            5:20: webhook: holds a fragment, which is never sent: leave out # and what follows
        ledger: => notices: {webhook: https://a/, token: s3cr3t-é}\nledger:
            5:39: token: a header cannot carry it: use visible ASCII characters without spaces
        ledger: => notices: {webhook: https://a/, token: {file: none}}\nledger:
            5:46: token: none cannot be read: No such file or directory (os error 2)
        ledger: => notices: {webhook: https://a/, tokens: x}\nledger:
            5:32: unknown key "tokens": did you mean "token"?
        "#,
    );
}

#[test]
fn a_token_of_the_webhook_in_clear_text_is_a_warning() {
    for (url, warned) in [
        ("http://127.0.0.1:80/s3cr3t", false),
        ("http://[::1]:80/s3cr3t", false),
        ("http://localhost/s3cr3t", false),
        ("https://relay.example/s3cr3t", false),
        ("http://relay.example/s3cr3t", true),
    ] {
        let files = Files::good();
        let notices = format!("notices: {{webhook: \"{url}\", token: s3cr3t}}\nledger:");
        files.change("tollgate.yaml", "ledger:", &notices);
        let said = files.warnings();
        let expected = "token: http://relay.example gets the token in clear text: use https, or a relay on this machine";
        assert_eq!(said.len(), usize::from(warned), "{url}: {said:?}");
        assert!(said.iter().all(|w| w.ends_with(expected)), "{said:?}");
    }
}

#[test]
fn trusted_proxies_are_networks() {
    refuses(
        "tollgate.yaml",
        r#"
        ledger: {path => trusted_proxies: [10.0.0.1]\nledger: {path
            5:19: trusted_proxies: 10.0.0.1 has no prefix length: write 10.0.0.1/32
        ledger: {path => trusted_proxies: [lan]\nledger: {path
            5:19: trusted_proxies: expected a network such as 10.0.0.0/8, found "lan"
        ledger: {path => trusted_proxies: ["::ffff:10.0.0.0/8"]\nledger: {path
            5:19: trusted_proxies: ::ffff:10.0.0.0/8 is no network of IPv4 addresses: write 10.0.0.0/8
        "#,
    );
}

#[test]
fn missing_files_are_mistakes_of_the_lines_that_name_them() {
    let files = Files::good();
    files.change(
        "tollgate.yaml",
        "catalog: catalog.yaml",
        "catalog: nowhere.yaml",
    );
    files.change("tollgate.yaml", "accounts: accounts.yaml\n", "");
    assert_eq!(
        files.mistakes(),
        [
            "tollgate.yaml:1:1: missing key \"accounts\": add it, such as `accounts: accounts.yaml`",
            "tollgate.yaml:3:10: catalog: nowhere.yaml cannot be read: No such file or directory (os error 2)",
        ]
    );
    assert_eq!(
        load(Path::new("no/tollgate.yaml")).unwrap_err().to_string(),
        "no/tollgate.yaml:1:1: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let files = Files::good();
    files.write("catalog.yaml", vec![b'#'; 1 + (1 << 20)]);
    assert_eq!(
        files.mistakes(),
        ["tollgate.yaml:3:10: catalog: catalog.yaml cannot be read: it is larger than 1 MiB"]
    );
}

#[test]
fn an_empty_or_shapeless_file_is_a_mistake() {
    for (text, line) in [
        ("", "1:1"),
        ("[1]\n", "1:2"),
        ("word\n", "1:1"),
        ("\n# nothing\n", "3:1"),
    ] {
        let files = Files::good();
        files.write("accounts.yaml", text);
        let expected = format!(
            "accounts.yaml:{line}: the file is empty, or not a map of keys: see the shipped example"
        );
        assert_eq!(files.mistakes(), [expected]);
    }
    refuses(
        "accounts.yaml",
        r#"
        name: One => name: ~
            3:11: name: is empty: give a value or remove the key
        name: One => name: 7
            3:11: name: YAML reads this as a number: write it in quotes
        name: One => name: true
            3:11: name: YAML reads this as true or false: write it in quotes
        name: One => name: [a]
            3:5: name: expected text, found a list
        name: One => name: !x One
            3:11: name: expected text, found a YAML tag: remove the tag
        name: One => [1]: One
            2:3: 1: missing key "name": add it, such as `name: Example Studio`
            3:6: a key must be text
        "#,
    );
    refuses(
        "catalog.yaml",
        r#"
        Custom: {} => Custom:
            11:14: Custom: expected a map of keys, found nothing
        "#,
    );
}

/// In each case ⌖ stands before what is wrong, and is not part of the file.
#[test]
fn a_tab_punctuation_of_another_keyboard_and_an_unclosed_quote_are_said_where_they_stand() {
    const TAB: &str = "a tab stands here, and YAML indents by spaces alone: put spaces instead";
    const UNCLOSED: &str =
        "the quotation mark that opens here is not closed in its line: close it behind the value";
    const COLON: &str = "： (U+FF1A) is not the : of YAML: type :";
    const COMMA: &str = "， (U+FF0C) is not the , of YAML: type ,";
    let mut wrong = Vec::new();
    for (from, to, said) in [
        ("    name: One", "⌖\tname: One", TAB),
        ("    name: One", "  ⌖\t  name: One", TAB),
        ("    keys:", "⌖\tkeys:", TAB),
        ("      - {secret_id", "⌖\t- {secret_id", TAB),
        (
            "      - {secret_id",
            "      -⌖\tsecret_id: x\n      - {secret_id",
            TAB,
        ),
        ("    name: One", "    name⌖： One", COLON),
        ("    name: One", "    name⌖：One # a comment", COLON),
        ("mode: qps", "mode⌖： qps", COLON),
        ("mode: qps", "mode⌖： qps\n\n        # a comment", COLON),
        ("      video:", "      video⌖：", COLON),
        ("order: P-1, ", "order: P-1⌖， ", COMMA),
        ("order: P-1, ", "order: \"P-1\"⌖， ", COMMA),
        (
            "packs: [{",
            "packs: ⌖［{",
            "［ (U+FF3B) is not the [ of YAML: type [",
        ),
        (
            "    name: One",
            "⌖\u{3000}   name: One",
            "U+3000 is no space to YAML: type a space",
        ),
        ("name: One", "name: ⌖\"One", UNCLOSED),
        ("name: One", "name: ⌖'One", UNCLOSED),
        ("name: One", "name: ⌖\"One\\\"", UNCLOSED),
        ("secret_id: AKID1", "secret_id: ⌖\"AKID1", UNCLOSED),
        ("cash: \"176\"", "cash: ⌖\"176", UNCLOSED),
        ("name: Two", "name: ⌖\"Two", UNCLOSED),
        (
            "accounts:",
            "# don't say \"no\naccounts:\n  x: {name: 'it''s: \"x'}\n  y: {name: ⌖'Y}",
            UNCLOSED,
        ),
        (
            "name: One",
            "name: |\n      it's: \"text\n    note⌖： x",
            COLON,
        ),
    ] {
        let text = ACCOUNTS.replacen(from, to, 1);
        let (before, _) = text.split_once('⌖').unwrap();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let expected = format!("accounts.yaml:{line}:{column}: not valid YAML: {said}");
        for ends in ["\n", "\r\n"] {
            let files = Files::good();
            files.write("accounts.yaml", text.replace('⌖', "").replace('\n', ends));
            let found = files.mistakes();
            if found != [expected.as_str()] {
                wrong.push(format!(
                    "{to:?}\n  said     {found:#?}\n  expected {expected}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_character_that_cannot_be_seen_is_named_with_its_line() {
    const BOM: &str =
        "a byte-order mark, U+FEFF, stands here, as where two files were joined: take it out";
    const ZERO: &str = "U+200B cannot be seen: take it out";
    for (from, to, said) in [
        // What `cat` makes of two files, the second of an editor that puts a mark first.
        ("accounts:", "accounts: {}\n\u{feff}accounts:", BOM),
        ("accounts:", "\u{200b}accounts:", ZERO),
        ("  \"2\":", "\u{feff}  \"2\":", BOM),
        ("    name: One", "    \u{200b}name: One", ZERO),
        ("    name: One", "   \u{200b} name: One", ZERO),
        ("    keys:", "\u{200b}    keys:", ZERO),
        ("    name: One", "    name:\u{200b} One", ZERO),
        ("name: One", "name: \u{200b}\"One\": x", ZERO),
        (
            "\"2\":",
            "\"2\u{2060}\":",
            "U+2060 cannot be seen: take it out",
        ),
        ("\"2\":", "\"2\"\u{200b}:", ZERO),
    ] {
        let files = Files::good();
        files.change("accounts.yaml", from, to);
        let text = ACCOUNTS.replacen(from, to, 1);
        let (before, _) = text
            .split_once(['\u{feff}', '\u{200b}', '\u{2060}'])
            .unwrap();
        let line = before.matches('\n').count() + 1;
        let found = files.mistakes();
        let place = format!("accounts.yaml:{line}:");
        assert!(
            found
                .iter()
                .any(|told| told.starts_with(&place) && told.contains(said)),
            "{to:?}: {found:#?}"
        );
    }
}

#[test]
fn punctuation_of_another_keyboard_in_a_value_is_said_beside_it() {
    refuses(
        "accounts.yaml",
        r#"
        "1": => “1”:
            2:3: "“1”" (“ (U+201C) is not the " of YAML: type ") is not an account id: use 1 to 32 of 0-9, A-Z, a-z, _ and -
        mode: qps => mode: ‘qps’
            11:15: mode: expected per_call or qps, found "‘qps’" (‘ (U+2018) is not the ' of YAML: type ')
        days: 3 => days: ３
            15:74: days: expected a whole number from 1 to 3660, found "３" (３ (U+FF13) is not the 3 of YAML: type 3)
        "#,
    );
    refuses(
        "catalog.yaml",
        r#"
        [ap-beijing] => [ap-beijing，ap-shanghai]
            8:15: regions: expected 1 to 255 letters, digits or any of . : - _ [ ], found "ap-beijing，ap-shanghai" (， (U+FF0C) is not the , of YAML: type ,)
        Custom: {} => Custom: {route： POST /v1/custom}
            11:16: unknown key "route： POST /v1/custom" (： (U+FF1A) is not the : of YAML: type :): remove it; the keys here are route
        notice_below: 15% => notice_below: 15％
            18:21: notice_below: expected a percentage between 0% and 100%, such as 15%, found "15％" (％ (U+FF05) is not the % of YAML: type %)
        "#,
    );
}

#[test]
fn ids_outside_their_patterns_are_refused() {
    refuses(
        "accounts.yaml",
        r#"
        "2": => "a b":
            18:3: "a b" is not an account id: use 1 to 32 of 0-9, A-Z, a-z, _ and -
        secret_id: AKID1 => secret_id: "AKID 1"
            5:21: secret_id: is not a secret id: use 1 to 128 of 0-9, A-Z, a-z, _ and -
        order: T-1 => order: T 1
            7:24: order: expected an order id of 1 to 64 of 0-9, A-Z, a-z, . _ and -, found "T 1"
        "#,
    );
    refuses(
        "catalog.yaml",
        r#"
        Create: {} => Cre-ate: {}
            22:15: "Cre-ate" is not an action: use 1 to 64 of 0-9, A-Z, a-z and _
        services: [bda] => services: [a/b]
            3:12: services: expected 1 to 255 letters, digits or any of . : - _ [ ], found "a/b"
        services: [bda] => services: []
            3:1: services: is empty: no signed call could ever be accepted
        currency: CNY => currency: yuan
            2:11: currency: expected a currency of three capital letters, such as CNY, found "yuan"
        "#,
    );
    let files = Files::good();
    files.change("catalog.yaml", "  video:", "  Video:");
    assert_eq!(
        files.mistakes(),
        [
            "catalog.yaml:20:3: \"Video\" is not a group id: use 1 to 64 of a-z, 0-9 and -",
            "accounts.yaml:16:7: unknown group \"video\": the catalogue sells portrait",
        ]
    );
}

#[test]
fn a_service_names_a_group_of_the_catalogue() {
    refuses(
        "accounts.yaml",
        r#"
        video:\n => vidoe:\n
            16:7: unknown group "vidoe": did you mean "video"?
        portrait:\n => potrait:\n
            9:7: unknown group "potrait": did you mean "portrait"?
        "#,
    );
}

#[test]
fn a_mistake_in_the_catalogue_makes_no_second_one_in_the_accounts() {
    refuses(
        "catalog.yaml",
        r#"
        time_zone: Asia/Shanghai => time_zone: Asia/Shanghigh
            1:12: time_zone: expected the name of a time zone, such as Asia/Shanghai, found "Asia/Shanghigh"
        free_calls: 1000 => free_calls: x
            14:19: free_calls: expected a whole number from 0 to 1000000000000, found "x"
        groups:\n => groups: [\n
            7:10: not valid YAML: did not find expected ',' or ']', while parsing a flow sequence at line 5 column 9; check indentation, brackets and quotes here
        "#,
    );
}

#[test]
fn instants_need_an_offset_and_a_likely_year() {
    refuses(
        "accounts.yaml",
        r#"
        at: 2026-11-01T00:00:00+08:00 => at: 2026-11-01T00:00:00
            7:33: at: "2026-11-01T00:00:00" has no offset: write an instant such as 2026-11-01T00:00:00+08:00
        at: 2026-11-01T00:00:00+08:00 => at: yesterday
            7:33: at: expected an instant such as 2026-11-01T00:00:00+08:00, found "yesterday"
        at: 2026-11-01T00:00:00+08:00 => at: 2026-11-31T00:00:00+08:00
            7:33: at: expected an instant such as 2026-11-01T00:00:00+08:00, found "2026-11-31T00:00:00+08:00"
        at: 2026-11-01T00:00:00+08:00 => at: 0206-11-01T00:00:00+08:00
            7:33: at: expected an instant in the years 2000 to 2100, found "0206-11-01T00:00:00+08:00"
        "#,
    );
}

#[test]
fn a_purchase_has_one_period_that_ends_after_it_begins() {
    refuses(
        "accounts.yaml",
        r#"
        days: 3 => days: 3, months: 1
            15:14: qps_purchases: a purchase runs for either `months` or `days`: give one of the two
        , days: 3 =>
            15:14: qps_purchases: a purchase runs for either `months` or `days`: give one of the two
        count: 2 => refunded: 2024-02-29T09:59:59+08:00
            12:54: refunded: is before `delivered`: correct one of the two
        "#,
    );
}

#[test]
fn purchases_that_follow_each_other_do_not_add_up() {
    let files = Files::good();
    files.change("accounts.yaml", "qps: 10,", "qps: 900000,");
    files.change(
        "accounts.yaml",
        "qps: 20, from: 2026-01-31T12:30:00+08:00",
        "qps: 900000, from: 2026-02-28T12:30:00+08:00",
    );
    assert_eq!(files.mistakes(), [""; 0]);
}

#[test]
fn a_pack_has_a_size_on_sale() {
    refuses(
        "accounts.yaml",
        r#"
        calls: 10000 => calls: 12345
            12:37: calls: no pack of 12345 is sold: the catalogue has 10000, 20000
        count: 2 => origin: stolen
            12:52: origin: expected bought or gift or promotion, found "stolen"
        , paid: {cash: "176"} =>
            12:18: packs: missing key "paid": add it, such as `paid: {cash: "88"}`
        "#,
    );
    let files = Files::good();
    files.change(
        "accounts.yaml",
        "count: 2",
        "origin: promotion, refundable: false",
    );
    files.change("accounts.yaml", ", paid: {cash: \"176\"}", "");
    let pack = files.load().unwrap().accounts[0].services[0].packs[0].clone();
    assert_eq!(
        (pack.origin, pack.refundable, pack.count),
        (Origin::Promotion, false, 1)
    );
    assert_eq!(pack.paid, Paid::default());
}

#[test]
fn ladders_begin_where_they_must_and_rise() {
    refuses(
        "catalog.yaml",
        r#"
        {from: 0, price => {from: 1, price
            15:22: from: the first step must begin at 0, found 1
        {from: 100, price => {from: 0, price
            15:48: from: steps must rise: 0 follows 0; put them in order
        tiers: [{from: 0, price: "0.01"}, {from: 100, price: "0.009"}] => tiers: []
            15:7: tiers: is empty: give the step that begins at 0
        {from: 1, month => {from: 2, month
            19:27: from: the first step must begin at 1, found 2
        {from: 10, month => {from: 1, month
            19:63: from: steps must rise: 1 follows 1; put them in order
        calls: 20000 => calls: 10000
            16:52: calls: packs of 10000 have a price already, at catalog.yaml:16:23: keep one
        "#,
    );
}

#[test]
fn actions_and_routes_lead_to_one_place_each() {
    refuses(
        "catalog.yaml",
        r#"
        Create: {} => Segment: {}
            22:15: Segment is an action of another group already, at catalog.yaml:10:7: an action belongs to one group
        Custom: {} => Custom: {route: POST /v1/segment}
            11:23: route: POST /v1/segment leads to another action already, at catalog.yaml:10:24: give each action a route of its own
        Custom: {} => Custom: {route: POST /}
            11:23: route: `/` belongs to calls that name their action in X-TC-Action: give a longer path
        Custom: {} => Custom: {route: POST v1}
            11:23: route: expected METHOD /path, such as POST /v1/tasks, with GET, POST, PUT, PATCH or DELETE, found "POST v1"
        Custom: {} => Custom: {route: post /v1}
            11:23: route: expected METHOD /path, such as POST /v1/tasks, with GET, POST, PUT, PATCH or DELETE, found "post /v1"
        Custom: {} => Custom: {route: GET /v1?x=1}
            11:23: route: expected METHOD /path, such as POST /v1/tasks, with GET, POST, PUT, PATCH or DELETE, found "GET /v1?x=1"
        {Create: {}} => {}
            22:5: actions: is empty: a group needs an action
        free: {qps_per_action: 20}\n =>
            20:3: video: a group has either both `per_call` and `qps` (paid) or `free`: write what it costs
        "#,
    );
}

#[test]
fn a_zone_whose_months_begin_off_the_hour_is_refused() {
    refuses(
        "catalog.yaml",
        r#"
        Asia/Shanghai => Asia/Kolkata
            1:12: time_zone: the month of 2020-01-01 does not begin on a whole hour of UTC there, and calls are rolled up by the hour: take a zone with whole-hour offsets
        "#,
    );
}

#[test]
fn a_credential_is_one_of_two_kinds_and_whole() {
    refuses(
        "accounts.yaml",
        r#"
        , secret_key: hush =>
            5:10: keys: a key is either {secret_id, secret_key} or {api_key_sha256}: give one of the two, whole
        , secret_key: hush => , secret_key: hush, api_key_sha256: a
            5:10: keys: a key is either {secret_id, secret_key} or {api_key_sha256}: give one of the two, whole
        api_key_sha256: 00000000000000000000000000000000000000000000000000000000000000aa => api_key_sha256: my-plain-key
            6:26: api_key_sha256: expected the SHA-256 of the key as 64 lowercase hex digits, not the key itself
        api_key_sha256: 00000000000000000000000000000000000000000000000000000000000000aa => api_key_sha256: 00000000000000000000000000000000000000000000000000000000000000AA
            6:26: api_key_sha256: expected the SHA-256 of the key as 64 lowercase hex digits, not the key itself
        "#,
    );
}

#[test]
fn secrets_come_from_files_and_the_environment() {
    let files = Files::good();
    let key = |files: &Files| match &files.load().unwrap().accounts[0].credentials[0] {
        Credential::Tc3 { secret_key, .. } => secret_key.expose_secret().to_owned(),
        Credential::ApiKey { .. } => String::new(),
    };
    files.change(
        "accounts.yaml",
        "secret_key: hush",
        "secret_key: {file: one.key}",
    );
    for content in ["from-a-file", "from-a-file\n", "from-a-file\r\n"] {
        files.write("one.key", content);
        assert_eq!(key(&files), "from-a-file");
    }
    files.change("accounts.yaml", "{file: one.key}", "{env: CARGO_PKG_NAME}");
    assert_eq!(key(&files), "tollgate");
    let inline = "{secret_id: AKID1, secret_key: {env: CARGO_PKG_NAME}}";
    let block = "secret_id: AKID1\n        secret_key: |\n          in-a-block";
    files.change("accounts.yaml", inline, block);
    assert_eq!(key(&files), "in-a-block");
}

#[test]
fn a_secret_that_is_likely_longer_than_its_owners_is_refused_with_its_place() {
    let key = "s3cr3t-s3cr3t";
    for (content, odd) in [
        (
            format!("\u{feff}{key}\n"),
            "begins with a byte-order mark: save it as UTF-8 without one",
        ),
        (
            format!("{key} \n"),
            "has a blank as character 14: take it out",
        ),
        (
            format!(" {key}\n"),
            "has a blank as character 1: take it out",
        ),
        (
            format!("{key}\t\n"),
            "has a blank as character 14: take it out",
        ),
        (
            format!("{key}\u{a0}\n"),
            "has a blank as character 14: take it out",
        ),
        (
            format!("export KEY={key}\n"),
            "has a blank as character 7: take it out",
        ),
        (
            format!("{key}\n\n"),
            "has more than one line or newline: leave one line",
        ),
        (
            format!("{key}\r\n\r\n"),
            "has more than one line or newline: leave one line",
        ),
        (
            format!("{key}\n{key}\n"),
            "has more than one line or newline: leave one line",
        ),
        (
            format!("\"{key}\"\n"),
            "begins or ends with a quotation mark: take the marks off",
        ),
        (
            format!("‘{key}’"),
            "begins or ends with a quotation mark: take the marks off",
        ),
        (
            format!("{key}\0"),
            "has a character that cannot be seen, U+0000 as character 14: take it out",
        ),
        (
            "s3\u{200b}cr3t".to_owned(),
            "has a character that cannot be seen, U+200B as character 3: take it out",
        ),
    ] {
        let files = Files::good();
        files.change(
            "accounts.yaml",
            "secret_key: hush",
            "secret_key: {file: one.key}",
        );
        files.write("one.key", &content);
        let place = "accounts.yaml:5:47: secret_key:";
        assert_eq!(files.mistakes(), [format!("{place} one.key {odd}")]);
    }
    // Format characters, fillers, variants: all that shows nothing.
    for c in "\u{ad}\u{61c}\u{115f}\u{180e}\u{200b}\u{200f}\u{202a}\u{202e}\u{2061}\u{2066}\u{2069}\u{3164}\u{fe0f}\u{feff}\u{ffa0}\u{e0020}"
        .chars()
    {
        let files = Files::good();
        let to = format!("secret_key: \"hu{c}sh\"");
        files.change("accounts.yaml", "secret_key: hush", &to);
        let odd = format!("has a character that cannot be seen, U+{:04X} as character 3", u32::from(c));
        assert_eq!(files.mistakes().len(), 1, "{odd}");
        assert!(files.mistakes()[0].contains(&odd), "{:?}", files.mistakes());
    }
    // The same of a text in the file, and of the administrator's token.
    refuses(
        "accounts.yaml",
        r#"
        secret_key: hush => secret_key: "hush "
            5:40: secret_key: the text has a blank as character 5: take it out
        "#,
    );
    refuses(
        "tollgate.yaml",
        r#"
        ledger: => admin: {token: "'hush'"}\nledger:
            5:16: token: the text begins or ends with a quotation mark: take the marks off
        "#,
    );
}

#[test]
fn a_byte_order_mark_at_the_front_of_a_file_changes_nothing() {
    let fronts = ["", "# exported\n", "---\n", "\n", "\r\n"];
    for (name, text) in [
        ("tollgate.yaml", TOLLGATE),
        ("catalog.yaml", CATALOG),
        ("accounts.yaml", ACCOUNTS),
    ] {
        for front in fronts {
            let files = Files::good();
            files.write(name, format!("\u{feff}{front}{text}"));
            assert_eq!(files.mistakes(), [""; 0], "{name} after {front:?}");
        }
    }
    // With something to say, the file is read with places.
    let files = Files::good();
    let said = |front: &str, text: &str| {
        files.write("accounts.yaml", format!("{front}{text}"));
        files.mistakes()
    };
    for text in [
        ACCOUNTS.replace("mode: qps", "mode: qqs"),
        ACCOUNTS.replace("accounts:", "account:"),
        ACCOUNTS.replace("name: One", "name: [One"),
    ] {
        let plain = said("", &text);
        assert!(!plain.is_empty(), "{text}");
        assert_eq!(said("\u{feff}", &text), plain);
    }
    use std::os::unix::fs::PermissionsExt;
    files.write("one.key", "hush");
    let key = files.dir.path().join("one.key");
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
    let text = ACCOUNTS.replace("secret_key: hush", "secret_key: {file: one.key}");
    files.write("accounts.yaml", format!("\u{feff}{text}"));
    assert_eq!(files.warnings().len(), 1);
}

#[test]
fn secrets_that_cannot_be_had_are_mistakes() {
    let large = "x".repeat(4097);
    for (written, content, said) in [
        (
            "{file: one.key}",
            None,
            "one.key cannot be read: No such file or directory (os error 2)",
        ),
        ("{file: .}", None, ". is not a file"),
        ("{file: one.key}", Some("\n"), "one.key is empty"),
        (
            "{file: one.key}",
            Some(large.as_str()),
            "one.key is larger than 4096 bytes: it cannot be a key",
        ),
        (
            "{env: TOLLGATE_TEST_UNSET}",
            None,
            "the environment variable \"TOLLGATE_TEST_UNSET\" is not set, or not text",
        ),
    ] {
        let files = Files::good();
        files.change(
            "accounts.yaml",
            "secret_key: hush",
            &format!("secret_key: {written}"),
        );
        if let Some(content) = content {
            files.write("one.key", content);
        }
        let column = if written.starts_with("{env") { 46 } else { 47 };
        assert_eq!(
            files.mistakes(),
            [format!("accounts.yaml:5:{column}: secret_key: {said}")]
        );
    }
    refuses(
        "accounts.yaml",
        r#"
        secret_key: hush => secret_key: ""
            5:40: secret_key: is empty: give a value or remove the key
        secret_key: hush => secret_key: {file: a, env: B}
            5:28: secret_key: give the text itself, {file: PATH} or {env: NAME}
        "#,
    );
}

#[test]
fn a_key_file_that_everybody_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::good();
    files.change(
        "accounts.yaml",
        "secret_key: hush",
        "secret_key: {file: one.key}",
    );
    files.write("one.key", "hush");
    let mode = |mode| {
        let path = files.dir.path().join("one.key");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o640);
    assert_eq!(files.warnings(), [""; 0]);
    mode(0o644);
    assert_eq!(
        files.warnings(),
        [
            "accounts.yaml:5:47: secret_key: one.key is open to every user of this machine (mode 644): chmod o= one.key"
        ]
    );
}

#[test]
fn no_secret_is_ever_shown() {
    let files = Files::good();
    files.change("accounts.yaml", "hush", "s3cr3t-s3cr3t");
    files.change(
        "tollgate.yaml",
        "ledger:",
        "admin: {token: s3cr3t-s3cr3t}\nnotices: {webhook: https://a/s3cr3t, token: s3cr3t}\nledger:",
    );
    assert!(!format!("{:?}", files.load().unwrap()).contains("s3cr3t"));
    for wrong in [
        "secret_key: {s3cr3t-s3cr3t}",
        "secret_key: {{ s3cr3t }}",
        "secret_key: {s3cr3t: 1, s3cr3t: 2}",
        "secret_key: [s3cr3t]",
        "secret_key: !!int s3cr3t",
        "secret_key: !s3cr3t s3cr3t",
        "secret_key: k}, {api_key_sha256: s3cr3t",
        "secret_key: k}, {secret_key: k, secret_id: s3cr3t=",
        "secret_key: \"s3cr3t",
    ] {
        let files = Files::good();
        files.change("accounts.yaml", "secret_key: hush", wrong);
        let said = files.mistakes().join("\n");
        assert!(
            !said.is_empty() && !said.contains("s3cr3t"),
            "{wrong}: {said}"
        );
    }
    for number in ["3141592653", "3.141592653"] {
        let files = Files::good();
        files.change(
            "accounts.yaml",
            "secret_key: hush",
            &format!("secret_key: {number}"),
        );
        assert!(!files.mistakes().join("").contains("141592653"));
    }
}

/// Cuts, and single bytes changed, at seeded places of the shipped files.
#[test]
fn a_damaged_file_is_refused_or_read_but_never_a_panic() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files = Files::good();
    let names = ["tollgate.yaml", "catalog.yaml", "accounts.yaml"];
    let good = names.map(|name| fs::read(shipped.join(name)).unwrap());
    let mut state = 1_u64;
    let mut random = |below: usize| {
        // Knuth's MMIX generator; the high bits are the good ones.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for (name, text) in names.iter().zip(&good) {
        for (name, text) in names.iter().zip(&good) {
            files.write(name, text);
        }
        for round in 0..250 {
            let mut text = text.clone();
            let at = random(text.len());
            if round % 5 == 0 {
                text.truncate(at);
            } else {
                let odd = b"\0\t\n \"#&*!|>-:,[]{}0\xff";
                text[at] = odd[random(odd.len())];
            }
            files.write(name, &text);
            if let Err(mistakes) = files.load() {
                assert!(!mistakes.0.is_empty());
                assert!(
                    mistakes
                        .0
                        .iter()
                        .all(|m| m.line > 0 && m.column > 0 && !m.message.contains('\n'))
                );
            }
        }
    }
}

// What is different between two configurations.

/// The shipped files, and an account with every key that they leave out.
struct Shipped {
    files: Files,
    texts: [(&'static str, String); 2],
}

const EVERY_KEY: &str = r#"
  "every-key":
    name: Every Key
    keys: [{secret_id: AKIDEVERY, secret_key: hush-hush-hush}]
    services:
      portrait-segmentation:
        opened: 2026-01-01T00:00:00+08:00
        mode: qps
        stopped: violation
        packs:
          - {order: P-9, calls: 100000, count: 3, delivered: 2026-11-02T10:00:00+08:00, origin: promotion, refundable: false, refunded: 2026-11-03T10:00:00+08:00, paid: {cash: "1", income: "2", gift: "3", deduction: "4", voucher: "5"}}
        qps_purchases:
          - {order: Q-9, qps: 10, from: 2026-01-01T00:00:00+08:00, days: 3660, paid: {income: "1", gift: "2", deduction: "3"}}
"#;

impl Shipped {
    fn new() -> Self {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let files = Files::good();
        let read = |name: &str| fs::read_to_string(shipped.join(name)).unwrap();
        files.write("tollgate.yaml", read("tollgate.yaml"));
        let catalog = read("catalog.yaml").replace("host_aliases: []", "host_aliases: [a.test]");
        let accounts = read("accounts.yaml") + EVERY_KEY;
        let texts = [("catalog.yaml", catalog), ("accounts.yaml", accounts)];
        for (name, text) in &texts {
            files.write(name, text);
        }
        Self { files, texts }
    }

    /// The sentences about one change; `None` when the changed file is refused.
    fn changes(&self, name: &str, text: &str) -> Option<Vec<String>> {
        let old = self.files.load().unwrap_or_else(|e| panic!("{e}"));
        self.files.write(name, text);
        let new = self.files.load();
        let (_, original) = self.texts.iter().find(|(n, _)| *n == name).unwrap();
        self.files.write(name, original);
        Some(changes(
            &old.catalog,
            &old.accounts,
            &new.ok()?,
            utc("2026-11-24T00:00:00+08:00"),
        ))
    }

    fn said(&self, name: &str, from: &str, to: &str) -> Vec<String> {
        let (_, text) = self.texts.iter().find(|(n, _)| *n == name).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from:?} in {name}");
        let said = self.changes(name, &text.replace(from, to));
        said.unwrap_or_else(|| panic!("{from:?} -> {to:?} is refused"))
    }
}

#[test]
fn a_difference_is_told_in_the_words_of_the_contract() {
    let shipped = Shipped::new();
    let studio = "AKIDEXAMPLESTUDIO00000000000000000001";
    let second_pair = format!("secret_id: {studio}, secret_key: trial-secret-of-example-studio");
    for (name, from, to, expected) in [
        (
            "accounts.yaml",
            "mode: per_call",
            "mode: qps",
            vec![
                "1250000001 portrait-segmentation: mode per_call → qps from now",
                "1250000001 portrait-segmentation: quota 20 → 0 from now",
            ],
        ),
        (
            "accounts.yaml",
            "order: Q-1, qps: 10,",
            "order: Q-1, qps: 15,",
            vec![
                "1250000002 portrait-segmentation: quota 30 → 35 from now",
                "1250000002 portrait-segmentation: purchase Q-1 changed \
                 (10 QPS, 2026-01-01T00:00:00+08:00 to 2031-01-01T00:00:00+08:00, paid 468000 cash → \
                 15 QPS, 2026-01-01T00:00:00+08:00 to 2031-01-01T00:00:00+08:00, paid 468000 cash)",
            ],
        ),
        (
            // Begins tomorrow: nothing changes now, and the order is told.
            "accounts.yaml",
            "          - {order: Q-2,",
            "          - {order: Q-3, qps: 5, from: 2026-11-25T00:00:00+08:00, days: 1, paid: {cash: \"240\"}}\n          - {order: Q-2,",
            vec![
                "1250000002 portrait-segmentation: purchase Q-3 added \
                 (5 QPS, 2026-11-25T00:00:00+08:00 to 2026-11-26T00:00:00+08:00, paid 240 cash)",
            ],
        ),
        (
            "accounts.yaml",
            &format!("      - {{{second_pair}}}\n"),
            "",
            vec!["1250000001: key AKIDEXAMPLESTUDIO00000000000000000001 removed"],
        ),
        (
            "accounts.yaml",
            "trial-secret-of-example-studio",
            "trial-secret-of-nobody",
            vec!["1250000001: key AKIDEXAMPLESTUDIO00000000000000000001 has another secret"],
        ),
        (
            "accounts.yaml",
            "      - {api_key_sha256: bb4ae60a",
            "      - {secret_id: AKIDNEW, secret_key: hush-hush-hush-2}\n      - {api_key_sha256: bb4ae60a",
            vec!["1250000002: key AKIDNEW added"],
        ),
        (
            "accounts.yaml",
            "api_key_sha256: bb4ae60a4",
            "api_key_sha256: aa4ae60a4",
            vec![
                "1250000002: API key with SHA-256 bb4ae60a403b0ef5ec15a0b6dbd1bf60e70b113d7992343d12c68409c8cd3a18 removed",
                "1250000002: API key with SHA-256 aa4ae60a403b0ef5ec15a0b6dbd1bf60e70b113d7992343d12c68409c8cd3a18 added",
            ],
        ),
        (
            "accounts.yaml",
            "stopped: arrears               # or violation",
            "stopped: violation",
            vec!["1250000003 portrait-segmentation: stopped (violation) from now"],
        ),
        (
            "accounts.yaml",
            "        stopped: arrears               # or violation\n",
            "",
            vec!["1250000003 portrait-segmentation: resumed from now"],
        ),
        (
            "accounts.yaml",
            "\"1250000004\":",
            "\"1250000005\":",
            vec![
                "1250000004 removed: its keys are unknown from now",
                "1250000005 added with 1 key(s): video-segmentation (free)",
            ],
        ),
        (
            "accounts.yaml",
            "at: 2026-11-01T00:00:00+08:00, amount: \"500\"",
            "at: 2026-11-02T00:00:00+08:00, amount: \"500\"",
            vec![
                "1250000001: payment T-1 changed \
                 (500 at 2026-11-01T00:00:00+08:00 → 500 at 2026-11-02T00:00:00+08:00)",
            ],
        ),
        (
            "accounts.yaml",
            "refundable: false",
            "refundable: true",
            vec![
                "every-key portrait-segmentation: pack P-9 changed \
                 (3 × 100000 calls, 2026-11-02T10:00:00+08:00 to 2027-11-02T10:00:00+08:00, from a promotion, \
                 paid 1 cash + 2 income + 3 gift + 4 deduction + 5 voucher, not refundable, \
                 refunded at 2026-11-03T10:00:00+08:00 → \
                 3 × 100000 calls, 2026-11-02T10:00:00+08:00 to 2027-11-02T10:00:00+08:00, from a promotion, \
                 paid 1 cash + 2 income + 3 gift + 4 deduction + 5 voucher, \
                 refunded at 2026-11-03T10:00:00+08:00)",
            ],
        ),
        (
            "catalog.yaml",
            "free: {qps_per_action: 20}",
            "free: {qps_per_action: 30}",
            vec![
                "catalog video-segmentation: cap 20 QPS for each action → 30 QPS for each action from now",
                "1250000001 video-segmentation: quota 20 → 30 from now",
                "1250000002 video-segmentation: quota 20 → 30 from now",
                "1250000004 video-segmentation: quota 20 → 30 from now",
            ],
        ),
        (
            "catalog.yaml",
            "tier_basis: all_calls",
            "tier_basis: postpaid_calls",
            vec!["catalog portrait-segmentation: tier basis all calls → post-paid calls from now"],
        ),
        (
            "catalog.yaml",
            "{from: 10, month: \"780\", day: \"40\"}",
            "{from: 10, month: \"780\", day: \"39\"}",
            vec![
                "catalog portrait-segmentation: QPS prices \
                 [880 a month and 48 a day from 1 QPS, 780 a month and 40 a day from 10 QPS, \
                 700 a month and 35 a day from 50 QPS, 630 a month and 30 a day from 100 QPS] → \
                 [880 a month and 48 a day from 1 QPS, 780 a month and 39 a day from 10 QPS, \
                 700 a month and 35 a day from 50 QPS, 630 a month and 30 a day from 100 QPS] from now",
            ],
        ),
        (
            "catalog.yaml",
            "SegmentPortraitPic: {route: POST /v1/portrait/segment}",
            "SegmentPortraitPic: {}",
            vec![
                "catalog portrait-segmentation: actions \
                 [SegmentPortraitPic (POST /v1/portrait/segment), \
                 SegmentCustomizedPortraitPic (POST /v1/portrait/segment-custom)] → \
                 [SegmentPortraitPic, \
                 SegmentCustomizedPortraitPic (POST /v1/portrait/segment-custom)] from now",
            ],
        ),
        (
            "catalog.yaml",
            "bill: served ",
            "bill: admitted ",
            vec!["catalog: bill served → admitted"],
        ),
        (
            "catalog.yaml",
            "settle_day: 3",
            "settle_day: 5",
            vec!["catalog: settle_day 3 → 5"],
        ),
    ] {
        assert_eq!(shipped.said(name, from, to), expected, "{from} -> {to}");
    }
}

/// Where the values stand in a file: each scalar that is no key and no comment.
fn values(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let code = line.find(" #").map_or(line, |at| &line[..at]);
        let code = if line.starts_with('#') { "" } else { code };
        let mut at = 0;
        for token in code.split_inclusive(|c: char| " ,{}[]\n\"".contains(c)) {
            let end = at
                + token
                    .trim_end_matches(|c: char| " ,{}[]\n\"".contains(c))
                    .len();
            let value = &code[at..end];
            // A quoted key keeps its colon outside: `"1250000001":`.
            let is_key = value.ends_with(':') || code[end..].starts_with("\":");
            if !value.is_empty() && !is_key && value != "-" && value != ":" {
                found.push(start + at..start + end);
            }
            at += token.len();
        }
        start += line.len();
    }
    found
}

/// Other values that could stand there; some of them are refused.
fn others(value: &str) -> Vec<String> {
    let swaps = [
        ("per_call", "qps"),
        ("arrears", "violation"),
        ("all_calls", "postpaid_calls"),
        ("served", "admitted"),
        ("true", "false"),
        ("promotion", "gift"),
        ("Asia/Shanghai", "Asia/Tokyo"),
        ("CNY", "USD"),
        ("POST", "PUT"),
        ("01T00:00:00+08:00", "02T00:00:00+08:00"),
        ("T10:00:00", "T11:00:00"),
        ("15%", "16%"),
        ("10000", "100000"),
        ("100000", "10000"),
        ("000000000001", "000000000009"),
        ("3a1", "3a2"),
    ];
    let mut others = Vec::new();
    for (a, b) in swaps {
        for (from, to) in [(a, b), (b, a)] {
            if value.contains(from) {
                others.push(value.replace(from, to));
            }
        }
    }
    if let Ok(number) = value.parse::<u64>() {
        others.extend([number + 1, number + 2, number.saturating_sub(1)].map(|n| n.to_string()));
    }
    let last = value.chars().last().unwrap_or('x');
    others.push(format!("{}{last}", value));
    others.push(format!("{value}x"));
    if value.len() == 64 {
        others.push(format!("{}0", &value[..63]));
        others.push(format!("{}1", &value[..63]));
    }
    others.retain(|other| other != value);
    others
}

#[test]
fn no_value_of_catalogue_and_accounts_changes_silently() {
    let shipped = Shipped::new();
    let mut refused = Vec::new();
    let mut tried = 0;
    for (name, text) in &shipped.texts {
        for at in values(text) {
            let value = &text[at.clone()];
            let said = others(value).into_iter().find_map(|other| {
                let changed = format!("{}{other}{}", &text[..at.start], &text[at.end..]);
                shipped.changes(name, &changed).map(|said| (other, said))
            });
            let line = text[..at.start].lines().count();
            let Some((other, said)) = said else {
                refused.push(format!("{name}:{line} {value}"));
                continue;
            };
            tried += 1;
            let place = format!("{name}:{line}: {value} -> {other}");
            assert!(!said.is_empty(), "{place} changes silently");
            for sentence in &said {
                let told = sentence.split_once(" → ").map(|(before, after)| {
                    (
                        before.rsplit_once('(').map_or("", |(_, b)| b),
                        after.trim_end_matches(')'),
                    )
                });
                assert!(
                    told.is_none_or(|(before, after)| before != after),
                    "{place}: {sentence}: what is different?"
                );
                for secret in ["trial-secret", "hush"] {
                    assert!(!sentence.contains(secret), "{place}: a secret is shown");
                }
            }
        }
    }
    // The ladders begin where they must, and these sizes of packs were bought.
    let fixed: Vec<_> = refused
        .iter()
        .map(|place| place.rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(fixed, ["0", "10000", "100000", "1"], "{refused:?}");
    assert!(tried > 90, "only {tried} values were tried");
}

#[test]
fn what_was_removed_or_added_as_a_whole_is_told_too() {
    let shipped = Shipped::new();
    let (_, text) = &shipped.texts[1];
    let (head, _) = text.split_once("\"every-key\"").unwrap();
    let head = head.trim_end().to_owned() + "\n";
    let removed = shipped.changes("accounts.yaml", &head).unwrap();
    assert_eq!(
        removed,
        ["every-key removed: its keys are unknown from now"]
    );
    for line in text.lines().filter(|line| {
        ["- {order: ", "payments:", "stopped:"]
            .iter()
            .any(|start| line.trim_start().starts_with(start))
    }) {
        let without = text.replace(&format!("{line}\n"), "");
        if let Some(said) = shipped.changes("accounts.yaml", &without) {
            assert!(!said.is_empty(), "without {line} nothing is said");
        }
    }
    let services = "      video-segmentation:\n        opened: 2026-01-01T00:00:00+08:00\n";
    let (before, after) = text.rsplit_once(services).unwrap();
    let said = shipped
        .changes("accounts.yaml", &format!("{before}      {{}}\n{after}"))
        .unwrap();
    assert_eq!(said, ["1250000004 video-segmentation: not opened from now"]);
}

// A directory of accounts.

#[test]
fn the_accounts_of_a_directory_are_merged_by_name_and_its_other_files_left_alone() {
    let files = Files::good();
    files.change("tollgate.yaml", "accounts.yaml", "accounts.d");
    fs::create_dir(files.dir.path().join("accounts.d")).unwrap();
    let (one, two) = ACCOUNTS.split_once("  \"2\"").unwrap();
    files.write("accounts.d/20.yaml", format!("accounts:\n  \"2\"{two}"));
    files.write("accounts.d/10.yaml", one);
    files.write("accounts.d/.hidden.yaml", "not: read");
    files.write("accounts.d/readme.txt", "not: read");
    files.write("accounts.d/10.yaml~", "not: read");
    assert_eq!(files.warnings(), [""; 0]);
    let config = files.load().unwrap_or_else(|e| panic!("{e}"));
    let ids: Vec<_> = config.accounts.iter().map(|a| a.id.as_str()).collect();
    assert_eq!(ids, ["1", "2"]);
    let single = Files::good().load().unwrap();
    assert_eq!(
        changes(&single.catalog, &single.accounts, &config, Utc(0)),
        [""; 0]
    );
}

#[test]
fn what_looks_like_a_file_of_accounts_and_is_not_read_is_named() {
    let files = Files::good();
    files.change("tollgate.yaml", "accounts.yaml", "accounts.d");
    fs::create_dir(files.dir.path().join("accounts.d")).unwrap();
    files.write("accounts.d/b.yml", "not: read");
    assert_eq!(
        files.mistakes(),
        [
            "tollgate.yaml:4:11: accounts: accounts.d holds no *.yaml file; accounts.d/b.yml is passed over, because only *.yaml files are read: rename it to accounts.d/b.yaml"
        ]
    );
    files.write("accounts.d/a.yaml", ACCOUNTS);
    files.write("accounts.d/c.YAML", "not: read");
    for directory in ["sub", "sub.yaml", ".git"] {
        fs::create_dir(files.dir.path().join("accounts.d").join(directory)).unwrap();
    }
    assert_eq!(
        files.warnings(),
        [
            "tollgate.yaml:4:11: accounts: accounts.d/b.yml is passed over, because only *.yaml files are read: rename it to accounts.d/b.yaml",
            "tollgate.yaml:4:11: accounts: accounts.d/c.YAML is passed over, because only *.yaml files are read: rename it to accounts.d/c.yaml",
            "tollgate.yaml:4:11: accounts: accounts.d/sub is passed over, because it is a directory: move its files up",
            "tollgate.yaml:4:11: accounts: accounts.d/sub.yaml is passed over, because it is a directory: move its files up",
        ]
    );
    // One that comes later is told as well.
    let sources = files.load().unwrap().written.sources;
    files.write("accounts.d/d.yml", "not: read");
    assert_ne!(sources.again(), sources);
}

#[test]
fn what_two_files_of_a_directory_both_have_is_refused_with_both_places() {
    let files = Files::good();
    files.change("tollgate.yaml", "accounts.yaml", "accounts.d");
    fs::create_dir(files.dir.path().join("accounts.d")).unwrap();
    files.write("accounts.d/a.yaml", ACCOUNTS);
    files.write(
        "accounts.d/b.yaml",
        r#"accounts:
  "3": {name: Three, keys: [{secret_id: AKID1, secret_key: other}]}
  "4": {name: Four, payments: [{order: P-1, at: 2026-11-01T00:00:00+08:00, amount: "1"}]}
  "1": {name: One again}
"#,
    );
    assert_eq!(
        files.mistakes(),
        [
            "accounts.d/b.yaml:2:41: secret_id: this secret id is in use already, at accounts.d/a.yaml:5:21: a credential names one account; issue another",
            "accounts.d/b.yaml:3:40: order: order \"P-1\" is in use already, at accounts.d/a.yaml:12:25: an order is entered once; correct one of the two",
            "accounts.d/b.yaml:4:3: 1: account \"1\" is in use already, at accounts.d/a.yaml:2:3: an account stands in one file; merge the two",
        ]
    );
    for file in ["a.yaml", "b.yaml"] {
        fs::remove_file(files.dir.path().join("accounts.d").join(file)).unwrap();
    }
    assert_eq!(
        files.mistakes(),
        ["tollgate.yaml:4:11: accounts: accounts.d holds no *.yaml file: put one there"]
    );
}

#[test]
fn every_setting_that_changed_is_named_and_no_token_is_shown() {
    let shipped = Shipped::new();
    let path = shipped.files.dir.path().join("tollgate.yaml");
    let notices = "notices: {webhook: http://relay/s3cr3t, token: s3cr3t}\n";
    let text = fs::read_to_string(&path).unwrap() + notices;
    fs::write(&path, &text).unwrap();
    let old = shipped.files.load().unwrap();
    for (key, from, to) in [
        ("listen", "listen: 127.0.0.1:8080", "listen: 127.0.0.1:8081"),
        ("behind_tls", "behind_tls: false", "behind_tls: true"),
        ("workers", "workers: auto", "workers: 3"),
        ("admin.listen", "127.0.0.1:9090}\n\n", "127.0.0.1:9091}\n\n"),
        (
            "admin.token",
            "127.0.0.1:9090}\n\n",
            "127.0.0.1:9090, token: s3cr3t}\n\n",
        ),
        ("upstream.endpoints", "127.0.0.1:8000", "127.0.0.1:8001"),
        (
            "upstream.connect_timeout",
            "connect_timeout: 1s",
            "connect_timeout: 2s",
        ),
        (
            "upstream.response_timeout",
            "response_timeout: 50s",
            "response_timeout: 51s",
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
            "max_delay: 50ms}",
            "max_delay: 51ms}",
        ),
        ("metrics.accounts", "accounts: 1000", "accounts: 1001"),
        ("notices.webhook", "http://relay", "https://relay"),
        ("notices.webhook", "/s3cr3t,", "/s3cr3t?2,"),
        ("notices.webhook", notices, ""),
        ("notices.token", "token: s3cr3t", "token: another"),
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
            "upstream.idle_timeout",
            "idle_timeout: 30s",
            "idle_timeout: 4s",
        ),
        ("upstream.max_age", "# max_age: 10m", "max_age: 10m"),
        (
            "trusted_proxies",
            "trusted_proxies: []",
            "trusted_proxies: [10.0.0.0/8]",
        ),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        fs::write(&path, text.replace(from, to)).unwrap();
        let new = shipped
            .files
            .load()
            .unwrap_or_else(|e| panic!("{key}: {e}"));
        let changed = old.written.changed_settings(&new.written);
        let keys: Vec<_> = changed.iter().map(|(key, ..)| *key).collect();
        if to.is_empty() {
            assert_eq!(keys, ["notices.webhook", "notices.token"]);
            continue;
        }
        assert_eq!(keys, [key]);
        let (_, before, after) = &changed[0];
        assert!(before != after && !format!("{before}{after}").contains("s3cr3t"));
        let top = key.split('.').next().unwrap();
        let mistake = new.written.mistake_at(key, String::new());
        let line = text.lines().nth(mistake.line as usize - 1).unwrap();
        assert!(line.starts_with(top), "{key} is placed at {line:?}");
    }
}
