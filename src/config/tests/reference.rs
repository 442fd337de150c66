//! The table of settings, the reader and the page cannot drift apart.

use crate::config::settings::setting::SECRET;
use crate::config::settings::setting::{Bounds, Setting, Unwritten};
use crate::config::settings::table::{self, TABLE};
use crate::config::tests::files::{Files, TOLLGATE};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;

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

/// The sections around another one with the required key that they have beside it.
const AROUND: &[(&str, &str)] = &[
    ("upstream.health", "endpoints: [http://127.0.0.1:8000]"),
    ("upstream.tls", "endpoints: [https://127.0.0.1:8000]"),
];

/// A certificate and its key, which nobody else may read.
fn write_pem(files: &Files) {
    static PEM: LazyLock<String> = LazyLock::new(|| {
        let made = rcgen::generate_simple_self_signed(["api.example".to_owned()]).unwrap();
        format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem())
    });
    files.write("any.pem", &*PEM);
    let path = files.dir.path().join("any.pem");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
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
        "upstream.tls.certificate" => Some("ca: any.pem, key: {file: any.pem}"),
        "upstream.tls.key" => Some("ca: any.pem, certificate: any.pem"),
        "upstream.tls.server_name" => Some("ca: any.pem"),
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
    let around = AROUND.iter().find(|(inner, _)| *inner == section);
    let mut outwards: Vec<&str> = section.split('.').rev().collect();
    let mut fields = fields;
    if let Some((_, required)) = around {
        let inner = nested(fields.join(", "), outwards.remove(0));
        fields = vec![inner, (*required).to_owned()];
    }
    let (top, line) = match section {
        "" => (name, fields[0].clone()),
        _ => (
            section.split('.').next().unwrap_or(section),
            outwards.into_iter().fold(fields.join(", "), nested),
        ),
    };
    let is_other = |line: &&str| !line.starts_with(&format!("{top}:"));
    let mut lines: Vec<&str> = TOLLGATE.lines().filter(is_other).collect();
    lines.push(&line);
    files.write("tollgate.yaml", lines.join("\n"));
    write_pem(&files);
    for pair in ["gate", "admin"] {
        let names = vec!["gate.test".to_owned()];
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(names).unwrap();
        let beside = |ending: &str| {
            files
                .dir
                .path()
                .join("tls")
                .join(format!("{pair}.{ending}"))
        };
        fs::create_dir_all(files.dir.path().join("tls")).unwrap();
        fs::write(beside("pem"), cert.pem()).unwrap();
        fs::write(beside("key"), signing_key.serialize_pem()).unwrap();
        let only_mine = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(beside("key"), only_mine).unwrap();
    }
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
                "outbox.nats.credentials" | "outbox.nats.key" | "upstream.tls.key" => {
                    "{file: any.pem}".to_owned()
                }
                "outbox.nats.nkey" => "SUx".to_owned(),
                "health_path" => "/healthz".to_owned(),
                "upstream.max_in_flight" => "100".to_owned(),
                "upstream.tls.server_name" => "api.example".to_owned(),
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

/// The sections that are no choice.
const REQUIRED_SECTIONS: [&str; 2] = ["upstream", "ledger"];

/// What a value may be, as JSON Schema says it. A bound of a duration or a size stands in the
/// description: a schema cannot compare them.
fn schema_of(setting: &Setting) -> Value {
    let text = json!({"type": "string", "minLength": 1});
    let like = |pattern: &str| json!({"type": "string", "pattern": pattern});
    let from = |key: &str| json!({"type": "object", "additionalProperties": false, "properties": {key: &text}, "required": [key]});
    let mut of = match &setting.bounds {
        Bounds::Time(_) => json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"}),
        Bounds::Size(_) => json!({"type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$"}),
        Bounds::Count(range) => {
            json!({"type": "integer", "minimum": range.start(), "maximum": range.end()})
        }
        Bounds::Text("`true`, `false`") => json!({"type": "boolean"}),
        Bounds::Text("0 to 1") => json!({"type": "number", "minimum": 0, "maximum": 1}),
        Bounds::Text("`{file: PATH}` or `{env: NAME}`") => {
            json!({"anyOf": [from("file"), from("env")]})
        }
        bounds if bounds.to_string() == SECRET.to_string() => {
            json!({"anyOf": [&text, from("file"), from("env")]})
        }
        Bounds::Text("IP:PORT") => like(":[0-9]+$"),
        Bounds::Text(paths) if paths.contains("`unix:/PATH`") => {
            let one = like("^unix:/|:[0-9]+$");
            json!({"anyOf": [&one, {"type": "array", "minItems": 1, "maxItems": 16, "items": one}]})
        }
        Bounds::Text("a path that begins with `/`") => like("^/."),
        // Filled in when the section is known.
        Bounds::Text("a map of names, each with the keys of `upstream`") => {
            json!({"type": "object"})
        }
        Bounds::Text(list) if list.starts_with("a list of ") => {
            let one = match *list {
                url if url.contains("`http://") => like("^https?://"),
                "a list of HOST:PORT" => like(":[0-9]+$"),
                pairs if pairs.contains("{cert: FILE, key:") => {
                    let key = json!({"anyOf": [from("file"), from("env")]});
                    json!({"type": "object", "additionalProperties": false, "properties": {"cert": &text, "key": key}, "required": ["cert", "key"]})
                }
                network if network.contains("networks") => like("/"),
                _ => text,
            };
            // What is required is not empty either.
            let least = i32::from(matches!(setting.unwritten, Unwritten::Refused(_)));
            json!({"type": "array", "items": one, "minItems": least})
        }
        Bounds::Text(list) if list.contains("; a list of two ") => {
            let one = json!({"anyOf": [&text, from("file"), from("env")]});
            json!({"anyOf": [&text, from("file"), from("env"), {"type": "array", "minItems": 1, "maxItems": 2, "items": one}]})
        }
        Bounds::Text(amount) if amount.starts_with("an amount above zero") => {
            like("^(?=.*[1-9])[0-9]+(\\.[0-9]{1,6})?$")
        }
        Bounds::Text(choice) => {
            let word = |one: &'static str| one.strip_prefix('`')?.strip_suffix('`');
            let words: Option<Vec<_>> = choice.split(", ").map(word).collect();
            match words {
                Some(words) => json!({"enum": words}),
                None => text,
            }
        }
    };
    // `auto`, of a count.
    if let (Bounds::Count(_), Unwritten::Is(word)) = (&setting.bounds, setting.unwritten)
        && word.parse::<u32>().is_err()
    {
        of = json!({"anyOf": [of, {"const": word}]});
    }
    let default = match setting.unwritten {
        Unwritten::Is(text) => format!(" Default: {text}."),
        Unwritten::Refused(_) | Unwritten::Nothing => String::new(),
    };
    let values = format!("{} Values: {}.{default}", setting.does, setting.bounds);
    of["description"] = values.replace('`', "").into();
    of
}

fn section(title: &str) -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": {}, "required": [], "title": title})
}

fn schema_of_the_settings() -> Value {
    let mut schema = section("tollgate.yaml of tollgate: how it runs");
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["description"] =
        "For editors. `tollgate check` decides: it also sees what hangs together.".into();
    for setting in TABLE {
        let mut at = &mut schema;
        let (path, name) = parts(setting.key);
        for part in path.split('.').filter(|part| !part.is_empty()) {
            // `redis` is all that a store may be, and `nats` all that an outbox may be.
            if REQUIRED_SECTIONS.contains(&part) || ["redis", "nats"].contains(&part) {
                require(at, part);
            }
            let properties = &mut at["properties"];
            if properties[part].is_null() {
                properties[part] = section(part);
            }
            at = &mut properties[part];
        }
        at["properties"][name] = schema_of(setting);
        if let Unwritten::Refused(_) = setting.unwritten {
            require(at, name);
        }
    }
    let mut of_one = schema["properties"]["upstream"].clone();
    of_one["title"] = "an upstream that groups and actions name".into();
    schema["properties"]["upstreams"]["additionalProperties"] = of_one;
    schema
}

fn require(section: &mut Value, name: &str) {
    let required = section["required"].as_array_mut().unwrap();
    if !required.iter().any(|there| there == name) {
        required.push(name.into());
    }
}

#[test]
fn the_schema_for_editors_is_that_of_the_table_of_settings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schema/settings.json");
    let now = serde_json::to_string_pretty(&schema_of_the_settings()).unwrap() + "\n";
    if std::env::var_os("UPDATE_PAGES").is_some() {
        fs::write(&path, &now).unwrap();
        return;
    }
    assert!(
        fs::read_to_string(&path).is_ok_and(|there| there == now),
        "config/schema/settings.json is not what src/config/settings/table.rs says: run `make reference`"
    );
}
