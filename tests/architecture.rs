//! The architecture: which room may know which, and that each foreign idea has one door.
//! Reads the sources as text, comments and unit tests left out.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The rooms from the ground up: each may know only those that stand lower, and not its neighbours.
const STOREYS: &[&[&str]] = &[
    &["model"],
    &["config", "http", "ledger", "metrics", "nats", "store"],
    &["billing", "licence", "proxy"],
    &["portal"],
    &["control"],
    &["cli"],
    &["main"],
];

/// Where a crate, or a part of one, may be named; everywhere when it is not listed.
const DOORS: &[(&str, &[&str])] = &[
    ("serde_yaml", &["config"]),
    ("bytesize", &["config"]),
    ("rust_decimal", &["config", "billing", "control/settler"]),
    ("prometheus", &["metrics"]),
    ("rusqlite", &["ledger"]),
    ("postcard", &["ledger/range"]),
    ("hyper::client", &["control/delivery"]),
    // The name of a setting, and of the server that the demo starts.
    ("redis", &["store", "config/settings", "cli/demo"]),
    (
        "tokio_rustls",
        &[
            "model/tls",
            "model/tls_client",
            "model/tls_server",
            "http/tls",
            "control/delivery",
            "store/dial",
        ],
    ),
    ("async_nats", &["nats"]),
    (
        "rustls_native_certs",
        &[
            "model/tls_client",
            "control/delivery",
            "store/dial",
            "nats/connection",
        ],
    ),
    ("httparse", &["http"]),
    ("hyper::server", &["cli/demo/sample"]),
    (
        "TcpListener",
        &[
            "proxy/sockets",
            "control/listeners",
            "control/start",
            "control/systemd/sockets",
            "control/admin/listener",
            "cli/demo/sample",
        ],
    ),
    ("axum", &["control/admin", "control/start"]),
    ("tower", &["control/admin"]),
    ("governor", &["proxy/identity/hold_down"]),
    ("dashmap", &["proxy/admission/limiters"]),
    ("subtle", &["control/admin"]),
    (
        "hmac",
        &["proxy/identity/tc3", "cli/demo/sample", "control/delivery"],
    ),
    ("jsonwebtoken", &["licence"]),
    ("ed25519_dalek", &["config/catalog"]),
    (
        "base64",
        &["config/settings", "config/catalog", "control/delivery"],
    ),
    (
        "socket2",
        &[
            "proxy/sockets",
            "http/sockets",
            "control/systemd/sockets",
            "control/unix_socket",
        ],
    ),
    ("listenfd", &["control/systemd/sockets"]),
    ("sd_notify", &["control/systemd"]),
    (
        "rustix",
        &[
            "model/clock",
            "config/load",
            "ledger",
            "http/splice",
            "http/sockets",
            "http/proxy_protocol",
            "http/tls",
            "model/background",
            "control/replica",
            "control/open_files",
            "control/unix_socket",
            "cli",
        ],
    ),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("anyhow", &["cli", "main"]),
    ("tracing_subscriber", &["cli"]),
    ("println", &[]),
    // The name of a source in a content security policy.
    ("unsafe", &["portal/form"]),
    ("todo", &[]),
    ("unimplemented", &[]),
    ("TODO", &[]),
    ("FIXME", &[]),
];

/// The commercial contract.
const CONTRACT: &str = "src/billing/CONTRACT.md";

/// The most lines of a file, unit tests left out; above it a reason is due.
const FILE_LINES: usize = 500;
const LONGER_FILES: &[(&str, &str)] = &[];

/// The most lines of a function; above it a reason is due.
const FUNCTION_LINES: usize = 70;
const LONGER_FUNCTIONS: &[(&str, &str)] = &[];

/// The most rooms, the tests and benches counted as one each, and the most floors.
const MOST_ROOMS: usize = 16;
const MOST_FLOORS: usize = 7;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_under(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source by its path without `src/` and `.rs`.
fn sources() -> BTreeMap<String, String> {
    let src = root().join("src");
    let mut files = Vec::new();
    files_under(&src, &mut files);
    assert!(files.len() > 20, "the sources are found");
    files
        .into_iter()
        .map(|file| {
            let name = file.strip_prefix(&src).unwrap().with_extension("");
            let text = std::fs::read_to_string(&file).unwrap();
            (name.to_str().unwrap().to_owned(), text)
        })
        .collect()
}

/// What is compiled into the binary: no unit tests, no comments.
fn code(text: &str) -> String {
    let tests = ["", "pub(super) "].map(|seen| format!("#[cfg(test)]\n{seen}mod tests {{"));
    let ends = tests.iter().filter_map(|tests| text.find(tests.as_str()));
    let text = &text[..ends.min().unwrap_or(text.len())];
    let without_comment = |line: &str| {
        let end = line.match_indices("//").map(|(at, _)| at);
        let end = end
            .into_iter()
            .find(|at| *at == 0 || line.as_bytes()[at - 1] != b':');
        line[..end.unwrap_or(line.len())].to_owned()
    };
    text.lines()
        .map(without_comment)
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_test(name: &str) -> bool {
    name.ends_with("/tests") || name.contains("/tests/")
}

fn room(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

fn storey(room: &str) -> Option<usize> {
    STOREYS.iter().position(|rooms| rooms.contains(&room))
}

/// The paths that `text` begins with, groups opened: `a::{b, c::d}` is `a/b` and `a/c/d`.
fn paths(text: &str) -> Vec<String> {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let (path, rest) = text.split_at(text.find(|c| !part(c)).unwrap_or(text.len()));
    let path = path.replace("::", "/");
    let Some(group) = rest.strip_prefix('{') else {
        return vec![path];
    };
    let items = top_level(group).into_iter().flat_map(paths);
    items.map(|item| format!("{path}{item}")).collect()
}

/// The paths that follow `by`.
fn paths_after(by: &str, text: &str) -> Vec<String> {
    let found = text.match_indices(by);
    let found = found.flat_map(|(at, _)| paths(&text[at + by.len()..]));
    found.collect()
}

/// The rooms that `code` names by `crate::` (`tollgate::` in main.rs), grouped paths included.
fn rooms_named(code: &str, by: &str) -> BTreeSet<String> {
    let paths = paths_after(by, code);
    paths.iter().map(|path| room(path).to_owned()).collect()
}

/// The items of `a::{b, c}, d}` up to the closing brace, groups within groups kept whole.
fn top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut begins, mut items) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                items.push(group[begins..at].trim());
                begins = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

/// Whether `text` holds `word` with no letter, digit or `_` around it.
fn names_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

#[test]
fn every_room_knows_only_rooms_that_stand_below_it() {
    let mut wrong = Vec::new();
    let sources = sources();
    for (name, text) in sources
        .iter()
        .filter(|(name, _)| !["lib", "testing"].contains(&name.as_str()))
    {
        let own = room(name);
        let Some(height) = storey(own) else {
            wrong.push(format!("src/{name}.rs: no storey is given to {own}"));
            continue;
        };
        let by = if own == "main" {
            "tollgate::"
        } else {
            "crate::"
        };
        let code = code(text);
        for named in rooms_named(&code, by) {
            let below = storey(&named).is_some_and(|named| named < height);
            if named != own && !below {
                wrong.push(format!("src/{name}.rs: {own} must not know {named}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The file that `path` leads to; a door leads to the file whose item it passes on.
fn file_of(sources: &BTreeMap<String, String>, path: &str) -> Option<String> {
    let mut file = path.to_owned();
    while !sources.contains_key(&file) {
        if let Some(door) = sources.get(&format!("{file}/mod")) {
            let item = format!("/{}", path[file.len()..].split('/').nth(1)?);
            let mut passed_on = paths_after("use ", &code(door)).into_iter();
            let behind = passed_on.find(|path| path.ends_with(&item))?;
            return file_of(sources, &format!("{file}/{behind}"));
        }
        file.truncate(file.rfind('/')?);
    }
    Some(file)
}

/// The other files of its room that a file names. To have a child is not to name it.
fn imports(sources: &BTreeMap<String, String>, name: &str) -> BTreeSet<String> {
    let text = code(&sources[name]);
    let of_children = paths_after("use ", &text).into_iter();
    let of_children = of_children.map(|path| format!("{name}/{path}"));
    let paths = paths_after("crate::", &text).into_iter().chain(of_children);
    let files = paths.filter_map(|path| file_of(sources, &path));
    let in_room = files.filter(|file| file != name && room(file) == room(name));
    in_room.collect()
}

#[test]
fn no_files_of_a_room_import_each_other_in_a_circle() {
    let sources = sources();
    let names = sources.keys().filter(|name| !is_test(name));
    let names = names.filter(|name| !name.ends_with("/mod")).cloned();
    let imports = |name: String| (name.clone(), imports(&sources, &name));
    let mut left: BTreeMap<String, BTreeSet<String>> = names.map(imports).collect();
    assert!(left.values().flatten().count() > 400, "imports are found");
    loop {
        let named: BTreeSet<String> = left.values().flatten().cloned().collect();
        let mut next = left.clone();
        next.retain(|name, to| {
            to.retain(|to| left.contains_key(to));
            named.contains(name) && !to.is_empty()
        });
        if next == left {
            break;
        }
        left = next;
    }
    assert!(left.is_empty(), "in circles or between them: {left:#?}");
}

#[test]
fn every_room_is_on_the_map() {
    let sources = sources();
    let rooms: BTreeSet<&str> = sources.keys().map(|name| room(name)).collect();
    let lib = code(&sources["lib"]);
    for room in rooms
        .iter()
        .filter(|room| !["lib", "main", "testing"].contains(room))
    {
        assert!(lib.contains(&format!("mod {room};")), "lib.rs: {room}");
    }
    for room in STOREYS.iter().flat_map(|rooms| rooms.iter()) {
        assert!(rooms.contains(room), "there is no room {room}");
    }
}

#[test]
fn every_foreign_idea_has_one_door() {
    let mut wrong = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| !is_test(name)) {
        let code = code(text);
        for (idea, doors) in DOORS {
            let is_door = doors
                .iter()
                .any(|door| name == door || name.starts_with(&format!("{door}/")));
            if !is_door && names_word(&code, idea) {
                wrong.push(format!("src/{name}.rs names {idea}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_dependency_is_used() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let sources: String = sources().values().map(|text| code(text)).collect();
    let section = manifest
        .split("\n[dependencies]\n")
        .nth(1)
        .and_then(|rest| rest.split("\n[").next())
        .unwrap();
    let named: Vec<String> = section
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")))
        .collect();
    assert!(named.len() > 20, "the dependencies are found");
    let unused: Vec<&String> = named
        .iter()
        .filter(|krate| !names_word(&sources, krate))
        .collect();
    assert!(unused.is_empty(), "{unused:?}");
}

#[test]
fn every_file_says_what_it_is_and_every_room_what_it_must_never_do() {
    for (name, text) in sources() {
        assert!(
            text.starts_with("//! "),
            "src/{name}.rs begins without a head"
        );
        let head: Vec<&str> = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        let is_room = !name.contains('/') || name.ends_with("/mod");
        let plain = ["lib", "main", "testing"].contains(&name.as_str());
        assert!(
            !is_room || plain || head.join(" ").contains("ust never"),
            "src/{name}.rs does not say what it must never do"
        );
    }
}

#[test]
fn no_file_is_longer_than_one_can_read_at_once_without_a_reason() {
    for (name, text) in sources().iter().filter(|(name, _)| !is_test(name)) {
        let lines = code(text).lines().count();
        let reason = LONGER_FILES.iter().find(|(longer, _)| longer == name);
        assert_eq!(
            lines > FILE_LINES,
            reason.is_some(),
            "src/{name}.rs has {lines} lines; the limit is {FILE_LINES}: {reason:?}"
        );
    }
}

/// The functions of rustfmt's text with the lines that each has, its head and its end counted.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut open: Option<(String, usize, usize)> = None;
    for (nth, line) in code.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if let Some((name, begins, at)) = &open {
            // A declaration ends with its line; a body with a brace where the function begins.
            if indent == *at && (line.trim() == "}" || line.ends_with(';')) {
                found.push((name.clone(), nth - begins + 1));
                open = None;
            }
            continue;
        }
        let words: Vec<&str> = line.split(['(', '<', ' ']).collect();
        if let Some(at) = words.iter().position(|word| *word == "fn")
            && !line.trim_start().starts_with("//")
            && !line.trim_end().ends_with([';', '}'])
            && let Some(name) = words.get(at + 1)
            && words[..at].iter().all(|word| {
                let word = word.trim();
                ["", "pub", "async", "const", "super)", "crate)", "in"].contains(&word)
                    || word.ends_with(')')
            })
        {
            open = Some(((*name).to_owned(), nth, indent));
        }
    }
    found
}

#[test]
fn no_function_is_longer_than_one_can_see_at_once_without_a_reason() {
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for (name, text) in sources().iter().filter(|(name, _)| !is_test(name)) {
        for (function, lines) in functions(&code(text)) {
            let place = format!("{name}::{function}");
            let reason = LONGER_FUNCTIONS.iter().any(|(longer, _)| *longer == place);
            if lines > FUNCTION_LINES && !reason {
                wrong.push(format!("src/{name}.rs: {function} has {lines} lines"));
            } else if lines > FUNCTION_LINES {
                seen.insert(place);
            }
        }
    }
    let listed = LONGER_FUNCTIONS.iter().map(|(name, _)| (*name).to_owned());
    let idle: Vec<String> = listed.filter(|name| !seen.contains(name)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(idle.is_empty(), "not longer any more: {idle:?}");
}

#[test]
fn there_are_few_rooms_on_few_floors() {
    let rooms = STOREYS.iter().flat_map(|rooms| rooms.iter()).count();
    // The root of the crate and the benches are the others.
    assert!(rooms + 2 <= MOST_ROOMS, "{rooms} rooms");
    assert!(STOREYS.len() <= MOST_FLOORS, "{} floors", STOREYS.len());
}

#[test]
fn a_mod_rs_is_a_door_and_nothing_else() {
    for (name, text) in sources() {
        if name != "lib" && !name.ends_with("/mod") {
            continue;
        }
        let mut in_use = false;
        for line in code(&text).lines().map(str::trim) {
            let begins = |what: &str| {
                let rest = line
                    .strip_prefix("pub")
                    .map(|rest| match rest.split_once(") ") {
                        Some((within, rest)) if within.starts_with('(') => rest,
                        _ => rest.trim_start(),
                    });
                rest.unwrap_or(line).starts_with(what)
            };
            in_use |= begins("use ");
            let is_door = in_use
                || line.is_empty()
                || line.starts_with("#[")
                || line.starts_with("#![")
                || (begins("mod ") && line.ends_with(';'));
            assert!(is_door, "src/{name}.rs is more than a door: {line}");
            in_use &= !line.ends_with(';');
        }
    }
}

#[test]
fn no_file_takes_anything_from_the_one_above_it() {
    for (name, text) in sources() {
        // Unit tests stand in their own file's module, and a file of them takes from that alone.
        let code = code(&text).replace("pub(super)", "");
        let allowed = if is_test(&name) { "use super::*;" } else { "" };
        let code = match allowed {
            "" => code,
            allowed => code.replace(allowed, ""),
        };
        assert!(
            !code.contains("super::"),
            "src/{name}.rs takes from `super`"
        );
    }
}

/// Every number that stands in `text` right after `mark`.
fn numbers_after(text: &str, mark: &str) -> BTreeSet<u32> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let ends_word = |at: usize| !text[..at].ends_with(part);
    let number = |at: usize| {
        let rest = &text[at + mark.len()..];
        let end = rest.find(|c: char| !c.is_ascii_digit());
        let digits = &rest[..end.unwrap_or(rest.len())];
        let goes_on = rest[digits.len()..].starts_with(part);
        digits.parse().ok().filter(|_| !goes_on)
    };
    let found = text.match_indices(mark).map(|(at, _)| at);
    found
        .filter(|at| ends_word(*at))
        .filter_map(number)
        .collect()
}

#[test]
fn whatever_a_comment_cites_stands_in_the_laws() {
    let page = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let (contract, protocol) = (page(CONTRACT), page("src/proxy/identity/PROTOCOL.md"));
    let architecture = page("ARCHITECTURE.md");
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches"] {
        files_under(&root().join(folder), &mut files);
    }
    let mut cited = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let is_own = file.ends_with("tests/architecture.rs");
        for (mark, law, entry) in [
            ("R", &contract, "**R"),
            ("P", &architecture, "- **P"),
            ("PROTOCOL §", &protocol, "## "),
        ] {
            for number in numbers_after(&text, mark).into_iter().filter(|_| !is_own) {
                let known = numbers_after(law, entry).contains(&number);
                // `P-1` and the like are orders; a promise or a rule that is not there is a slip.
                assert!(known, "{}: {mark}{number} is in no law", file.display());
                cited += 1;
            }
        }
        for gone in ["DESIGN", "PERFORMANCE", "HOUSE.md"] {
            assert!(
                is_own || !names_word(&text, gone),
                "{}: {gone} is in no law",
                file.display()
            );
        }
    }
    assert!(cited > 100, "the citations are found");
}

#[test]
fn every_rule_of_the_contract_names_a_test_that_proves_it_or_is_not_built() {
    let contract = std::fs::read_to_string(root().join(CONTRACT)).unwrap();
    let rules: Vec<&str> = contract.split("\n**R").skip(1).collect();
    assert_eq!(rules.len(), 19);
    for rule in rules {
        let proved = rule.lines().any(|line| line.starts_with("- `"));
        assert!(proved || rule.contains("*Not built.*"), "R{rule}");
    }
}

#[test]
fn every_test_that_a_page_names_exists() {
    let page = |name| std::fs::read_to_string(root().join(name)).unwrap();
    let pages = page("README.md") + &page("SECURITY.md") + &page(CONTRACT);
    let mut files = Vec::new();
    files_under(&root().join("src"), &mut files);
    files_under(&root().join("tests"), &mut files);
    let tests: String = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    // In backticks, and a sentence: that is a test's name.
    let named: Vec<&str> = pages
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|text| text.matches('_').count() >= 4)
        .filter(|text| {
            text.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
        .collect();
    assert!(named.len() >= 10, "the rule table names its tests");
    for name in named {
        assert!(tests.contains(&format!("fn {name}(")), "no test {name}");
    }
}

/// `cargo test` passes when its filter finds no test, so a test that was moved would not run any
/// more.
#[test]
fn every_filter_of_a_command_finds_a_test() {
    let page = |name| std::fs::read_to_string(root().join(name)).unwrap();
    let pages = page("Makefile") + &page("CONTRIBUTING.md");
    let lines = pages.lines().filter(|line| line.contains("cargo test"));
    let filters = lines.flat_map(|line| line.split([' ', '`', ',', '.']));
    let mut found = 0;
    for filter in filters.filter(|word| word.contains("::")) {
        let (module, name) = filter.rsplit_once("::").unwrap();
        let file = format!("{}.rs", module.replace("::", "/"));
        let folder = format!("tests/it/{}/mod.rs", module.replace("::", "/"));
        let places = [format!("src/{file}"), format!("tests/it/{file}"), folder];
        let text = places
            .iter()
            .find_map(|place| std::fs::read_to_string(root().join(place)).ok());
        let text = text.unwrap_or_else(|| panic!("{filter}: there is no module {module}"));
        let is_there = ["fn", "mod"]
            .iter()
            .any(|item| text.contains(&format!("{item} {name}")));
        assert!(is_there, "{filter} finds no test");
        found += 1;
    }
    assert!(found >= 4, "the filters are found");
}

#[test]
fn the_reading_of_the_sources_sees_what_it_should() {
    let text = "//! crate::head\nuse crate::proxy::Proxy; // crate::comment\nlet url = \"http://crate::text\";\n\
                use crate::{admin::{State, usage}, words};\n#[cfg(test)]\nmod tests {\n    use crate::server;\n}\n";
    let named: Vec<String> = rooms_named(&code(text), "crate::").into_iter().collect();
    assert_eq!(named, ["admin", "proxy", "text", "words"]);
    assert!(names_word("use tower::util;", "tower"));
    assert!(!names_word("use tower_http::x; a.tower_b", "tower"));
}
