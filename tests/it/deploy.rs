//! What stands in deploy/ is read by the programs that it is for.

use crate::harness::*;
use http::StatusCode;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tollgate::testing::ledger::{Ledger, LedgerOptions, Record};
use tollgate::testing::metrics::FAMILIES;
use tollgate::testing::model::{Clock, *};

pub fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(file)
}

/// Runs a Debian program; its absence is a failure with the remedy.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!("{program}: {error}; `make test` installs what the tests need")
        });
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_little_that_the_service_may_do() {
    let dir = tempfile::tempdir().unwrap();
    let unit = std::fs::read_to_string(deploy("tollgate.service")).unwrap();
    let unit = unit.replace("/usr/local/bin/tollgate", env!("CARGO_BIN_EXE_tollgate"));
    let path = dir.path().join("tollgate.service");
    std::fs::write(&path, unit).unwrap();
    let socket = dir.path().join("tollgate.socket");
    std::fs::copy(deploy("tollgate.socket"), &socket).unwrap();
    let (path, socket) = (path.to_str().unwrap(), socket.to_str().unwrap());
    let said = run("systemd-analyze", &["verify", path, socket]);
    let wrong = said.lines().filter(|line| line.contains("tollgate."));
    assert_eq!(wrong.count(), 0, "{said}");
    // 0 is nothing, 10 everything (100 here).
    run(
        "systemd-analyze",
        &[
            "security",
            "--offline=true",
            "--threshold=17",
            "--no-pager",
            path,
        ],
    );
}

#[test]
fn the_socket_of_systemd_is_the_listener_of_the_shipped_settings() {
    let socket = std::fs::read_to_string(deploy("tollgate.socket")).unwrap();
    let settings = deploy("../config/tollgate.yaml");
    let settings = std::fs::read_to_string(settings).unwrap();
    let settings: serde_yaml::Value = serde_yaml::from_str(&settings).unwrap();
    let listen = settings["listen"].as_str().unwrap();
    assert_eq!(in_the_unit(&socket, "ListenStream"), [listen]);
    assert_eq!(in_the_unit(&socket, "FileDescriptorName"), ["calls"]);
    assert_eq!(in_the_unit(&socket, "Accept"), ["no"]);
}

/// The values of a key in the unit, in their order.
fn in_the_unit<'u>(unit: &'u str, key: &str) -> Vec<&'u str> {
    let value = |line: &'u str| line.strip_prefix(key)?.strip_prefix('=');
    unit.lines().filter_map(value).collect()
}

#[test]
fn a_reload_by_systemd_checks_first_and_a_gate_that_fails_is_started_again_and_again() {
    let unit = std::fs::read_to_string(deploy("tollgate.service")).unwrap();
    assert_eq!(
        in_the_unit(&unit, "ExecReload"),
        ["/usr/local/bin/tollgate check", "/bin/kill -HUP $MAINPID"]
    );
    assert_eq!(in_the_unit(&unit, "StartLimitIntervalSec"), ["0"]);
    assert_eq!(in_the_unit(&unit, "Restart"), ["on-failure"]);
    // What the process says is believed of it alone, and not of a `check` beside it.
    assert_eq!(in_the_unit(&unit, "Type"), ["notify"]);
    assert!(in_the_unit(&unit, "NotifyAccess").is_empty());
    assert_eq!(in_the_unit(&unit, "WatchdogSec"), ["30s"]);
    let config = "TOLLGATE_CONFIG=/etc/tollgate/tollgate.yaml";
    assert_eq!(in_the_unit(&unit, "Environment"), [config]);
    let image = std::fs::read_to_string(deploy("Dockerfile")).unwrap();
    assert!(image.contains(&format!("ENV {config}")), "{image}");
    // The group whose key files it reads is the one that the recipe makes.
    let groups = in_the_unit(&unit, "SupplementaryGroups");
    assert_eq!(groups.len(), 1);
    assert!(unit.contains(&format!("groupadd --system {} ", groups[0])));
}

/// As the unit's user would find a key that root wrote for itself.
#[test]
fn a_key_file_that_may_not_be_read_is_told_with_the_user_who_may_not() {
    use std::os::unix::fs::PermissionsExt;
    let house = Sandbox::new(([127, 0, 0, 1], 9).into(), &[]);
    let key = house.file("studio.key");
    std::fs::write(&key, "a-secret\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o000)).unwrap();
    house.edit(
        "accounts.yaml",
        "secret_key: trial-secret-of-example-studio",
        "secret_key: {file: studio.key}",
    );
    check_may_not_read(&house, "studio.key", "accounts.yaml:");
}

#[test]
fn a_directory_of_accounts_that_may_not_be_listed_is_told_with_the_user_who_may_not() {
    use std::os::unix::fs::PermissionsExt;
    let accounts = ("accounts: accounts.yaml", "accounts: customers");
    let house = Sandbox::new(([127, 0, 0, 1], 9).into(), &[accounts]);
    let directory = house.file("customers");
    std::fs::create_dir(&directory).unwrap();
    let may_be_passed = std::fs::Permissions::from_mode(0o111);
    std::fs::set_permissions(&directory, may_be_passed).unwrap();
    check_may_not_read(&house, "customers", "tollgate.yaml:");
}

/// Says who may not read `file`, at a place in `named_in`.
fn check_may_not_read(house: &Sandbox, file: &str, named_in: &str) {
    // Root reads whatever it likes, unless it has to do without.
    let user = rustix::process::geteuid();
    let without = "-dac_override,-dac_read_search";
    let sets = ["bounding-set", "inh-caps"].map(|set| format!("--{set}={without}"));
    let wrapper = ["setpriv", &sets[0], &sets[1]];
    let wrapper = if user.is_root() { &wrapper[..] } else { &[] };
    let said = said(&mut house.command(wrapper, &["check"]));
    assert_eq!(said.code, Some(1), "{}", said.err);
    let told = format!(
        "{file} cannot be read: Permission denied (os error 13): tollgate runs as uid {}, gid ",
        user.as_raw()
    );
    assert!(said.err.contains(&told), "{}", said.err);
    assert!(said.err.contains(named_in), "{}", said.err);
}

#[test]
fn promtool_accepts_the_scrape_configuration_and_the_rules() {
    run(
        "promtool",
        &[
            "check",
            "config",
            deploy("prometheus.yml").to_str().unwrap(),
        ],
    );
    run(
        "promtool",
        &[
            "check",
            "rules",
            deploy("tollgate.rules.yml").to_str().unwrap(),
        ],
    );
}

/// The cases of billing.
const BILLING: [&str; 2] = ["/tollgate.rules.test.yml", "/settlement.rules.test.yml"];

/// The files with cases for the rules: each that is there.
fn cases() -> Vec<PathBuf> {
    let files = std::fs::read_dir(deploy("")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.to_str().unwrap().ends_with(".rules.test.yml"));
    files.sort();
    files
}

#[test]
fn the_rules_of_billing_fire_and_clear_when_the_contract_says() {
    let tests = BILLING.map(|file| deploy(file.trim_start_matches('/')));
    let [rules, settlement] = tests.each_ref().map(|path| path.to_str().unwrap());
    run("promtool", &["test", "rules", rules, settlement]);
}

#[test]
fn every_rule_fires_for_what_lasts_and_for_each_alert_there_is_a_case_in_which_it_does() {
    let cases = cases();
    assert!(cases.len() >= 6);
    let paths = cases.iter().map(|path| path.to_str().unwrap());
    // Those of billing have a test of their own.
    let others = paths.filter(|path| BILLING.iter().all(|own| !path.ends_with(own)));
    let others: Vec<&str> = others.collect();
    assert_eq!(others.len() + BILLING.len(), cases.len());
    run("promtool", &[&["test", "rules"], &others[..]].concat());
    let mut firing = BTreeSet::new();
    for path in &cases {
        let text = std::fs::read_to_string(path).unwrap();
        let file: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        for test in file["tests"].as_sequence().unwrap() {
            for case in test["alert_rule_test"].as_sequence().unwrap() {
                let fires = case["exp_alerts"].as_sequence();
                if fires.is_some_and(|alerts| !alerts.is_empty()) {
                    firing.insert(case["alertname"].as_str().unwrap().to_owned());
                }
            }
        }
    }
    let rules = std::fs::read_to_string(deploy("tollgate.rules.yml")).unwrap();
    let mut alerts = alerts(&rules);
    alerts.sort_unstable();
    assert_eq!(Vec::from_iter(firing), alerts);
}

/// The alerts that stand in rules.
pub fn alerts(rules: &str) -> Vec<&str> {
    let lines = rules.lines();
    let alerts = lines.filter_map(|line| line.split_once("- alert: "));
    alerts.map(|(_, alert)| alert).collect()
}

#[test]
fn the_runbook_has_a_section_for_each_alert_and_for_nothing_else() {
    let rules = std::fs::read_to_string(deploy("tollgate.rules.yml")).unwrap();
    let page = std::fs::read_to_string(deploy("RUNBOOK.md")).unwrap();
    let sections = page.lines().filter_map(|line| line.strip_prefix("## "));
    let mut sections: Vec<&str> = sections
        .filter(|name| name.starts_with("Tollgate"))
        .collect();
    let mut alerts = alerts(&rules);
    assert!(alerts.len() > 30);
    alerts.sort_unstable();
    sections.sort_unstable();
    assert_eq!(sections, alerts);
}

#[test]
fn amtool_accepts_the_ways_to_people_and_a_customers_notice_goes_to_the_customer() {
    let config = deploy("alertmanager.yml");
    let config = config.to_str().unwrap();
    run("amtool", &["check-config", config]);
    let flag = format!("--config.file={config}");
    let route = |labels: &[&str]| {
        let arguments = [&["config", "routes", "test", flag.as_str()], labels].concat();
        // A warning about its own flags may follow.
        let said = run("amtool", &arguments);
        said.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(
        route(&["alertname=TollgatePackLow", "audience=customer"]),
        "customers"
    );
    assert_eq!(route(&["alertname=TollgateSettlementLate"]), "operators");
}

#[test]
fn every_metric_in_the_rules_exists() {
    let mut rules = std::fs::read_to_string(deploy("tollgate.rules.yml")).unwrap();
    for file in cases() {
        rules += &std::fs::read_to_string(file).unwrap();
    }
    let named = rules
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|w| w.starts_with("tollgate_"));
    let mut count = 0;
    for name in named {
        let name = name.trim_end_matches("_bucket");
        assert!(FAMILIES.iter().any(|family| family.name == name), "{name}");
        count += 1;
    }
    assert!(count >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_scrapes_the_gate_and_its_figures_are_the_ledgers() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    for _ in 0..7 {
        assert_eq!(
            send(gate.public, segment(STUDIO_KEY)).await.0,
            StatusCode::OK
        );
    }
    gate.at_rest().await;

    let config = std::fs::read_to_string(deploy("prometheus.yml")).unwrap();
    let config = config
        .replace("127.0.0.1:9090", &gate.admin.to_string())
        .replace("scrape_interval: 15s", "scrape_interval: 1s")
        .replace("tollgate.rules.yml", "RULES");
    let rules = std::fs::read_to_string(deploy("tollgate.rules.yml")).unwrap();
    let prometheus = Prometheus::start(&config, &rules);

    let query =
        "sum(tollgate_records_total) == sum(tollgate_requests_total{decision=\"admitted\"})";
    let mut answer = String::new();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = format!("{:?}", prometheus.query(query).await);
        if answer.contains("\"7\"") {
            return;
        }
    }
    panic!("Prometheus never had the 7 calls: {answer}");
}

/// The page cannot promise what the next version of the schema does not keep.
#[test]
fn a_record_takes_as_many_bytes_as_the_page_about_the_disk_says() {
    const RECORDS: u32 = 50_000;
    let page = std::fs::read_to_string(deploy("DISK.md")).unwrap();
    let said: f64 = page
        .split_once("**A record takes ")
        .and_then(|(_, rest)| rest.split_once(" bytes.**"))
        .map(|(bytes, _)| bytes.parse().unwrap())
        .unwrap();

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let write = |records: u32| {
        let options = LedgerOptions {
            path: path.clone(),
            durability: Durability::Relaxed,
            replica: String::new(),
            create: true,
            pending_limit: 1_000_000,
            stall_after: Duration::from_secs(1 << 40),
        };
        let ledger = Ledger::open(options, Clock::default(), |_| ()).unwrap();
        // Some hours of a hundred accounts.
        let from = Clock::default().utc().0 - 10 * 3_600_000_000;
        for n in 0..records {
            let record = Record {
                id: RequestId(uuid::Uuid::now_v7()),
                account: AccountId::new(&format!("account-{}", n % 100)).unwrap(),
                key: KeyId::new("k").unwrap(),
                group: GroupId::new("portrait-segmentation").unwrap(),
                action: Action::new("SegmentPortraitPic").unwrap(),
                mode: Mode::PerCall,
                admitted_at: Utc(from + i64::from(n) * 500_000),
                start: Mono(u64::from(n) * 500_000_000),
                store_start: None,
                outcome: Outcome::Answered,
                status: Some(200),
                reason: Reason::Billable,
                duration: Duration::from_millis(30),
            };
            drop(ledger.reserve().unwrap().commit(record));
        }
        ledger.close(Duration::from_secs(60)).unwrap();
        std::fs::metadata(&path).unwrap().len()
    };
    let empty = write(0);
    let full = write(RECORDS);
    let took = (full - empty) as f64 / f64::from(RECORDS);
    assert!(
        (took - said).abs() < 4.0,
        "{took} bytes, and {said} are said"
    );
}
