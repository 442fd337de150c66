//! Which files are read, and that all their mistakes come at once.

use crate::config::tests::files::{ACCOUNTS, CATALOG, Files, TOLLGATE};
use crate::config::{changes, load};
use crate::model::Utc;
use std::fs;
use std::path::Path;

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
fn settings_that_are_not_there_are_a_mistake_of_their_first_line() {
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
fn the_digest_of_what_is_sold_is_that_of_its_bytes_wherever_they_lie() {
    let digest = |files: &Files| files.load().unwrap().written.sold_digest;
    let with_a_secret_file = || {
        let files = Files::good();
        let named = "secret_key: {file: one.key}";
        files.change("accounts.yaml", "secret_key: hush", named);
        files.write("one.key", "hush");
        files
    };
    let (here, there) = (with_a_secret_file(), with_a_secret_file());
    let first = digest(&here);
    assert_eq!(first.len(), 16);
    assert!(first.chars().all(|c| c.is_ascii_hexdigit()), "{first}");
    assert_eq!(digest(&there), first, "of equal files in another directory");
    // How a replica runs is its own.
    there.change("tollgate.yaml", "127.0.0.1:8080", "127.0.0.1:8081");
    there.change(
        "tollgate.yaml",
        "ledger:",
        "admin: {token: {file: token}}\nledger:",
    );
    there.write("token", "other");
    assert_eq!(digest(&there), first);
    // Also when they are read again, with places, to tell a warning.
    there.write("one.key", "hush");
    assert_eq!(digest(&there), first);
    for (name, from, to) in [
        ("catalog.yaml", "title: Video", "title: Videos"),
        ("accounts.yaml", "name: Two", "name: Three"),
        ("accounts.yaml", "name: One", "name: One  # the first"),
        ("one.key", "hush", "hushed"),
    ] {
        let files = with_a_secret_file();
        files.change(name, from, to);
        assert_ne!(digest(&files), first, "{name}: {to}");
    }
    // A directory of accounts has the digest of its files by name, not by the names.
    let split = |directory: &str, names: [&str; 2]| {
        let files = Files::good();
        let line = format!("accounts: {directory}");
        files.change("tollgate.yaml", "accounts: accounts.yaml", &line);
        let two = ACCOUNTS.find("  \"2\":").unwrap();
        files.write(&format!("{directory}/{}", names[0]), &ACCOUNTS[..two]);
        let second = format!("accounts:\n{}", &ACCOUNTS[two..]);
        files.write(&format!("{directory}/{}", names[1]), second);
        digest(&files)
    };
    assert_eq!(
        split("a", ["1.yaml", "2.yaml"]),
        split("b", ["x.yaml", "y.yaml"])
    );
    assert_ne!(
        split("a", ["1.yaml", "2.yaml"]),
        split("a", ["2.yaml", "1.yaml"])
    );
}
