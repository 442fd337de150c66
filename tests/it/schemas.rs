//! The schemas by which editors complete and check the three files: they never refuse what the program
//! accepts, and see what is wrong by its shape.

use crate::deploy_many::{documents, object};
use serde_yaml::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A file by the name that it has beside `tollgate.yaml`, and its text.
type Written = (String, String);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is wrong with each, by its schema.
fn validated(files: &[Written]) -> Vec<Option<String>> {
    let schema = |name: &str| {
        let of = name
            .trim_end_matches(".yaml")
            .replace("tollgate", "settings");
        root().join(format!("config/schema/{of}.json"))
    };
    let asked: Vec<_> = files
        .iter()
        .map(|(name, text)| (schema(name), text))
        .collect();
    let mut python = Command::new(root().join("target/venv/bin/python"))
        .arg(root().join("tests/deploy/validate.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{error}; `make test` installs what the tests need"));
    let asked = serde_json::to_vec(&asked).unwrap();
    let mut stdin = python.stdin.take().unwrap();
    stdin.write_all(&asked).unwrap();
    drop(stdin);
    let said = python.wait_with_output().unwrap();
    assert!(said.status.success());
    serde_json::from_slice(&said.stdout).unwrap()
}

/// The good files of the tests of the configuration, from their source.
fn good() -> BTreeMap<String, String> {
    let source = root().join("src/config/tests/files.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let constants = ["TOLLGATE", "CATALOG", "ACCOUNTS"];
    let text = |name: &str| {
        let (_, rest) = source
            .split_once(&format!("const {name}: &str = r#\""))
            .unwrap();
        rest.split_once("\"#;").unwrap().0.to_owned()
    };
    let file = |name: &str| format!("{}.yaml", name.to_lowercase());
    constants
        .iter()
        .map(|name| (file(name), text(name)))
        .collect()
}

/// A case of the pages of bad files: what is written, and what the program says of it.
struct Case {
    page: String,
    file: Written,
    said: Vec<String>,
}

fn cases() -> Vec<Case> {
    let (good, mut found) = (good(), Vec::new());
    let mut pages: Vec<_> = std::fs::read_dir(root().join("src/config/tests/bad"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.sort();
    for path in pages {
        let page = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let list: Value = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for case in list.as_sequence().unwrap() {
            let said = match &case["said"] {
                Value::Sequence(lines) => lines
                    .iter()
                    .map(|it| it.as_str().unwrap().to_owned())
                    .collect(),
                one => vec![one.as_str().unwrap().to_owned()],
            };
            let files = case
                .as_mapping()
                .unwrap()
                .iter()
                .filter_map(|(name, written)| {
                    let name = name.as_str().unwrap();
                    let before = good.get(name)?;
                    let text = match written {
                        Value::Mapping(changes) => {
                            changes.iter().fold(before.clone(), |text, (from, to)| {
                                text.replace(from.as_str().unwrap(), to.as_str().unwrap())
                            })
                        }
                        whole => whole.as_str()?.to_owned(),
                    };
                    Some((name.to_owned(), text))
                });
            for file in files {
                let own = |line: &&String| line.starts_with(&format!("{}:", file.0));
                let said = said.iter().filter(own).cloned().collect();
                found.push(Case {
                    page: page.clone(),
                    file,
                    said,
                });
            }
        }
    }
    assert!(found.len() > 200, "{}", found.len());
    found
}

#[test]
fn what_the_program_accepts_no_schema_refuses() {
    let mut accepted: Vec<Written> = good().into_iter().collect();
    for name in ["tollgate.yaml", "catalog.yaml", "accounts.yaml"] {
        let text = std::fs::read_to_string(root().join("config").join(name)).unwrap();
        let of = name
            .trim_end_matches(".yaml")
            .replace("tollgate", "settings");
        // By which an editor finds it.
        let line = format!("\n# yaml-language-server: $schema=schema/{of}.json\n");
        assert!(text.contains(&line), "{name}");
        accepted.push((name.to_owned(), text));
    }
    let gate = documents("kubernetes/gate.yaml");
    let gate = &object(&gate, "ConfigMap", "tollgate")["data"]["tollgate.yaml"];
    let compose = &documents("compose.yaml")[0]["configs"]["tollgate"]["content"];
    for settings in [gate, compose] {
        accepted.push((
            "tollgate.yaml".to_owned(),
            settings.as_str().unwrap().to_owned(),
        ));
    }
    let cases = cases().into_iter().filter(|case| case.said.is_empty());
    accepted.extend(cases.map(|case| case.file));
    // What the comments of the shipped files show.
    accepted.push(("tollgate.yaml".to_owned(), EVERY_SECTION.to_owned()));
    accepted.push(("accounts.yaml".to_owned(), EVERY_KEY.to_owned()));
    assert!(accepted.len() > 12);
    for (file, wrong) in accepted.iter().zip(validated(&accepted)) {
        assert_eq!(wrong, None, "{}: {}", file.0, file.1);
    }
}

const EVERY_SECTION: &str = "\
listen: 0.0.0.0:8080
behind_tls: true
workers: auto
admin: {listen: 0.0.0.0:9090, token: {file: secrets/admin.token}}
upstream: {endpoints: [http://127.0.0.1:8000], max_age: 10m, max_in_flight: 10, slow_start: 5s}
upstreams: {videos: {endpoints: [https://v.example:8443], tls: {ca: ca.pem, certificate: c.pem, key: {file: k}}, health: {path: /healthz, interval: 1s}}}
catalog: catalog.yaml
accounts: accounts.yaml
ledger: {path: ledger.db, durability: relaxed}
admission: {max_delay: 50ms, store: {redis: {nodes: [store.example:6379], tls: true, username: tollgate, password: {env: P}, budget: 5ms}}}
outbox: {nats: {servers: [nats://nats.example:4222], credentials: {file: nats.creds}, max_bytes: 10GiB, replicas: 3}}
replica: gate-1
metrics: {accounts: 1000}
events: {webhook: https://billing.example/events, secret: [{file: old}, {file: new}], balance_below: \"100\", pack_expiring: 30d}
access_log: {to: stdout, of: refused, sample: 0.01}
trusted_proxies: [10.0.0.0/8]
limits: {connections: 4000, header_bytes: 32KiB}
";

const EVERY_KEY: &str = "\
accounts:
  a_1:
    name: One
    credit_limit: \"100\"
    keys: [{secret_id: A, secret_key: {file: x}, name: main, expires: 2027-01-01T00:00:00+08:00, allowed_addresses: [10.0.0.0/8]}]
    adjustments: [{id: A-1, at: 2026-11-15T10:00:00+08:00, amount: \"-5\", reason: counted twice, by: Li Wei}]
    licences: [{order: L-1, package: com.example.camera, from: 2026-11-01T00:00:00Z, paid: {cash: \"10000\"}}]
    licence_keys: [{sha256: 57b552b937c96bc4f2ad78e065bd94c66b7bd1cfe138efe9c313f3de74d3575a, packages: [com.example.camera]}]
    services:
      g:
        opened: 2026-01-01T00:00:00.5+08:00
        packs:
          - {order: P-1, calls: 1, count: 3, delivered: 2026-11-02T10:00:00Z, origin: gift, refundable: false}
          - {order: P-2, calls: 1, delivered: 2026-11-02T10:00:00Z, paid: {}, refunded: 2026-11-03T10:00:00Z, discount: {reason: r}}
";

/// Of each page of bad files: how many the schemas refuse, and how many there are. The others are wrong
/// by what stands elsewhere: another key, another file, the catalogue.
#[test]
fn what_is_wrong_by_its_shape_the_schemas_refuse() {
    let mut cases = cases();
    cases.retain(|case| !case.said.is_empty());
    let files: Vec<Written> = cases.iter().map(|case| case.file.clone()).collect();
    let wrong = validated(&files);
    let mut seen: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut passed = Vec::new();
    for (case, wrong) in cases.iter().zip(&wrong) {
        let counts = seen.entry(&case.page).or_default();
        counts.1 += 1;
        match wrong {
            Some(_) => counts.0 += 1,
            None => passed.push(format!("{}: {:?}", case.page, case.said)),
        }
    }
    let told = format!("{seen:?}\n{}", passed.join("\n"));
    for page in BY_SHAPE {
        let (refused, all) = seen.get(page).unwrap_or_else(|| panic!("{page}: {told}"));
        assert_eq!(refused, all, "{page}: {told}");
    }
    let refused = wrong.iter().filter(|wrong| wrong.is_some()).count();
    assert!(
        refused * 100 >= wrong.len() * LEAST_PERCENT,
        "{refused} of {}: {told}",
        wrong.len()
    );
}

/// The pages that the schemas refuse as a whole.
const BY_SHAPE: [&str; 5] = [
    "credentials",
    "ids",
    "shapes",
    "the_cap_of_a_mode",
    "unknown_keys",
];
/// Of all cases together.
const LEAST_PERCENT: usize = 50;
