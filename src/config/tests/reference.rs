//! The table of settings, the reader and the page cannot drift apart.

use crate::config::settings::setting::{Bounds, Setting, Unwritten};
use crate::config::settings::table::{self, TABLE};
use crate::config::tests::files::{Files, TOLLGATE};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- The settings: written by `make reference` -->\n";
const END: &str = "<!-- The end of the settings -->\n";

#[test]
fn the_page_tells_every_setting_as_the_table_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/README.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the settings begin");
    let (_, after) = rest.split_once(END).expect("the settings end");
    let now = format!("{before}{BEGIN}{}{END}{after}", table::reference());
    if std::env::var_os("UPDATE_PAGES").is_some() {
        fs::write(&path, &now).unwrap();
        return;
    }
    assert!(
        page == now,
        "config/README.md does not tell the settings as src/config/settings/table.rs does: run `make reference`"
    );
}

fn parts(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

/// What is said of a good file in which `key` has `value` and nothing else of its section is
/// written but what is required.
fn said_of(key: &str, value: &str) -> Vec<String> {
    let (section, name) = parts(key);
    let files = Files::good();
    let is_sibling = |setting: &&Setting| parts(setting.key).0 == section && setting.key != key;
    let siblings = TABLE.iter().filter(is_sibling);
    let required = siblings.filter_map(|setting| match setting.unwritten {
        Unwritten::Refused(example) => Some(format!("{}: {example}", parts(setting.key).1)),
        _ => None,
    });
    // What makes sense only beside another key.
    let beside = match key {
        "admission.store.redis.ca" | "outbox.nats.ca" => Some("tls: true"),
        "admission.store.redis.username" | "outbox.nats.username" => Some("password: x"),
        "admission.store.redis.sentinel_username" => Some("sentinel: x, sentinel_password: x"),
        "outbox.nats.password" => Some("username: x"),
        "outbox.nats.certificate" => Some("tls: true, key: {file: any.pem}"),
        "outbox.nats.key" => Some("tls: true, certificate: any.pem"),
        key if key.contains(".sentinel_") => Some("sentinel: x"),
        _ => None,
    };
    let fields: Vec<String> = [format!("{name}: {value}")]
        .into_iter()
        .chain(required)
        .chain(beside.map(str::to_owned))
        .collect();
    // From the innermost section outwards.
    let nested = |inner: String, section: &str| format!("{section}: {{{inner}}}");
    let outwards = section.split('.').rev();
    let (top, line) = match section {
        "" => (name, fields[0].clone()),
        _ => (
            section.split('.').next().unwrap_or(section),
            outwards.fold(fields.join(", "), nested),
        ),
    };
    let is_other = |line: &&str| !line.starts_with(&format!("{top}:"));
    let mut lines: Vec<&str> = TOLLGATE.lines().filter(is_other).collect();
    lines.push(&line);
    files.write("tollgate.yaml", lines.join("\n"));
    files.write("any.pem", "-----BEGIN CERTIFICATE-----\n");
    let secrets = files.dir.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    fs::write(
        secrets.join("events.secret"),
        "whsec_czNjcjN0czNjcjN0czNjcjN0czNjcjN0czNjcjN0\n",
    )
    .unwrap();
    files.mistakes()
}

#[test]
fn the_reader_accepts_every_key_of_the_table_with_its_default() {
    for setting in TABLE {
        let value = match (setting.unwritten, &setting.bounds) {
            (Unwritten::Is(text) | Unwritten::Refused(text), _) => text.to_owned(),
            (Unwritten::Nothing, Bounds::Time(range)) => format!("{:?}", range.start()),
            (Unwritten::Nothing, Bounds::Text("a path")) => "any.pem".to_owned(),
            (Unwritten::Nothing, _) => match setting.key {
                "outbox.nats.credentials" | "outbox.nats.key" => "{file: any.pem}".to_owned(),
                "outbox.nats.nkey" => "SUx".to_owned(),
                _ => "\"100\"".to_owned(),
            },
        };
        assert_eq!(said_of(setting.key, &value), [""; 0], "{}", setting.key);
    }
}

#[test]
fn every_key_that_the_reader_accepts_is_in_the_table() {
    let in_table: BTreeSet<&str> = TABLE.iter().map(|setting| setting.key).collect();
    assert_eq!(in_table.len(), TABLE.len(), "a key stands in it twice");
    let sections: BTreeSet<&str> = TABLE.iter().map(|setting| parts(setting.key).0).collect();
    let mut accepted = BTreeSet::new();
    for section in &sections {
        let unknown = match *section {
            "" => "qqqqqqqq".to_owned(),
            section => format!("{section}.qqqqqqqq"),
        };
        let said = said_of(&unknown, "1").join("\n");
        let (_, keys) = said.split_once("the keys here are ").expect(&said);
        let keys = keys.lines().next().unwrap().split(", ");
        // A section is a key of the section around it.
        let named = keys.map(|key| match *section {
            "" => key.to_owned(),
            section => format!("{section}.{key}"),
        });
        let is_section = |named: &String| {
            let within = format!("{named}.");
            let mut all = sections.iter();
            all.any(|section| format!("{section}.").starts_with(&within))
        };
        accepted.extend(named.filter(|named| !is_section(named)));
    }
    let in_table: BTreeSet<String> = in_table.into_iter().map(str::to_owned).collect();
    assert_eq!(accepted, in_table);
}

#[test]
fn the_bounds_of_the_table_are_those_of_the_reader() {
    for Setting { key, bounds, .. } in TABLE {
        let (ends, beyond) = match bounds {
            Bounds::Time(range) => {
                let ms = |duration: &std::time::Duration| duration.as_millis();
                let (from, to) = (ms(range.start()), ms(range.end()));
                let below = from.checked_sub(1).map(|n| format!("{n}ms"));
                let above = Some(format!("{}ms", to + 1));
                ([format!("{from}ms"), format!("{to}ms")], [below, above])
            }
            Bounds::Size(range) => {
                let (from, to) = (range.start(), range.end());
                let below = from.checked_sub(1).map(|n| format!("{n}B"));
                let above = Some(format!("{}B", to + 1));
                ([format!("{from}B"), format!("{to}B")], [below, above])
            }
            Bounds::Count(range) => {
                let (from, to) = (range.start(), range.end());
                let below = from.checked_sub(1).map(|n| n.to_string());
                let above = Some((to + 1).to_string());
                ([from.to_string(), to.to_string()], [below, above])
            }
            Bounds::Text(_) => continue,
        };
        // What hangs together with another setting may still be refused.
        let is_refused = |value: &str| {
            let said = said_of(key, value);
            said.iter().any(|told| told.contains(": expected a "))
        };
        for value in ends {
            assert!(!is_refused(&value), "{key}: {value}");
        }
        for value in beyond.into_iter().flatten() {
            assert!(is_refused(&value), "{key}: {value}");
        }
    }
}
