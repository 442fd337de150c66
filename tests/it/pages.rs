//! The commands that the pages print, run as they stand there.

use crate::harness::*;
use crate::names::{is_inside, run};
use http::StatusCode;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

/// The programs whose commands are looked for; a page that prints one of another is told so.
const PROGRAMS: [&str; 11] = [
    "tollgate",
    "curl",
    "make",
    "cargo",
    "systemctl",
    "kubectl",
    "docker",
    "python3",
    "pip",
    "npm",
    "nats",
];

/// Every page that a reader of the repository meets, save the history and the laws.
fn pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    for folder in ["", "config", "benches", "deploy", "deploy/examples/licence"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names = names.filter(|name| name.ends_with(".md") && name != "CHANGELOG.md");
        let path = |name: String| Path::new(folder).join(name).to_str().unwrap().to_owned();
        pages.extend(names.map(path));
    }
    pages.sort();
    assert!(pages.len() >= 18, "{pages:?}");
    pages
}

/// What a page has to say in place of a value, and the value.
const VALUES: [(&str, &str); 6] = [
    ("--account A ", "--account 1250000001 "),
    ("--month M", "--month 2026-11"),
    ("--to FILE", "--to copy.db"),
    ("/backup/", ""),
    ("new/tollgate.yaml", "config/tollgate.yaml"),
    ("/etc/tollgate/tollgate.yaml", "config/tollgate.yaml"),
];

/// Commands that are not run here, or all that begin so when there is a blank at the end; and what
/// checks them instead.
const ELSEWHERE: [(&str, &str); 31] = [
    ("make demo", "tests/it/demo.rs runs the demo"),
    ("make demo-replicas", "tests/it/demo.rs runs it"),
    ("make test", "it runs this"),
    ("make quick", "make test runs the same and more"),
    ("make torture", "it takes half an hour"),
    ("make fuzz", "make test runs a hundredth of it"),
    ("make fuzz ", "the same"),
    ("make deny", "tests/it/deny.rs runs what it runs"),
    ("make man", "tests/it/help.rs writes the pages"),
    (
        "make reference",
        "src/config/tests/reference.rs reads what it writes",
    ),
    ("make bench", "it needs two quiet cores"),
    ("make soak", "it takes an hour"),
    ("cargo ", "cargo builds and runs these tests"),
    (
        "make release",
        "tests/it/release.rs runs its script with tools that only note what they are asked for",
    ),
    ("make release ", "the same"),
    (
        "make dist",
        "tests/it/dist.rs makes it of the binary of the tests",
    ),
    (
        "systemctl ",
        "it needs systemd as process 1; tests/it/deploy.rs reads the units, tests/it/systemd.rs plays it",
    ),
    (
        "pip install ",
        "make test installs it, tests/it/events.rs and licences/examples.rs use it",
    ),
    (
        "npm install ",
        "make test installs it, and tests/it/events.rs uses it",
    ),
    (
        "python3 verify.py ",
        "tests/it/licences/examples.rs runs it with a grant",
    ),
    (
        "curl http://127.0.0.1:8080/.well-known/jwks.json ",
        "tests/it/licences/examples.rs: the answer goes into a file",
    ),
    (
        "curl http://127.0.0.1:8080/v1/licences/authorize ",
        "tests/it/licences/grants.rs: a key that signs has to be made first",
    ),
    (
        "nats kv ",
        "tests/it/outbox.rs reads the bucket: it takes a NATS",
    ),
    ("tollgate serve", "it is started here"),
    (
        "tollgate collect",
        "tests/it/collect starts it, with gates and NATS",
    ),
    ("tollgate collect ", "the same"),
    ("tollgate verify --digest", "the same as with a digest"),
    (
        "tollgate verify --checkpoint HEAD",
        "tests/it/bills.rs: a head has to be sealed first",
    ),
    (
        "tollgate verify --digest ",
        "tests/it/bills.rs: a month has to be settled first",
    ),
    (
        "tollgate explain ",
        "tests/it/decisions.rs: a call has to be refused first",
    ),
    (
        "tollgate restore --from ",
        "the ledger's restore tests: it takes a stopped gate",
    ),
];

/// Names of commands that a page explains without what they need.
const NAMES: [&str; 2] = [
    "tollgate backup",
    "tollgate serve --config config/tollgate.yaml",
];

/// The commands of a page, each in one line: those in code blocks, and those in backticks.
fn commands(page: &str) -> Vec<String> {
    let is_known = |text: &str| PROGRAMS.iter().any(|of| text.split(' ').next() == Some(of));
    let mut found = Vec::new();
    let (mut is_code, mut is_shell, mut begun) = (false, false, String::new());
    for line in page.lines() {
        let text = line.trim();
        if let Some(language) = text.strip_prefix("```") {
            is_code = !is_code;
            is_shell = ["sh", "shell", "bash"].contains(&language);
        } else if is_code || line.starts_with("    tollgate ") {
            let is_prompted = text.starts_with("$ ") || is_shell && begun.is_empty();
            let text = text.trim_start_matches("$ ");
            let is_told = is_known(text) || text.is_empty() || text.starts_with('#');
            assert!(!is_prompted || is_told, "{text}: of which program is this?");
            // What stands behind two blanks and a `#` is a comment.
            let text = text.split("  #").next().unwrap_or(text).trim();
            begun += text.trim_end_matches('\\');
            if !text.ends_with('\\') {
                found.push(std::mem::take(&mut begun));
            }
        }
    }
    let joined = page.replace("\n  ", " ").replace('\n', " ");
    let outside: Vec<&str> = joined.split("```").step_by(2).collect();
    let inline = outside
        .iter()
        .flat_map(|text| text.split('`').skip(1).step_by(2));
    found.extend(inline.map(str::to_owned));
    found.retain(|text| text.contains(' ') && is_known(text));
    found.sort();
    found.dedup();
    found
}

fn shell(command: &str, dir: &Path) -> Output {
    let binary = Path::new(env!("CARGO_BIN_EXE_tollgate"));
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    said(
        Command::new("sh")
            .args(["-c", command])
            .current_dir(dir)
            .env("PATH", path)
            .env("KEY", "demo-studio-key")
            .env_remove("TOLLGATE_CONFIG")
            .env_remove("TOLLGATE_LOG")
            .stdin(Stdio::null()),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_a_page_prints_does_what_the_page_says() {
    if !is_inside(&|| ()) {
        return;
    }
    run("ip", &["link", "set", "lo", "up"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config")).unwrap();
    for name in ["tollgate.yaml", "catalog.yaml", "accounts.yaml"] {
        let shipped = root.join("config").join(name);
        std::fs::copy(shipped, dir.path().join("config").join(name)).unwrap();
    }
    // Where the shipped configuration has its upstream.
    let answer = |_| async { json(StatusCode::OK, "{\"Response\":{\"RequestId\":\"r\"}}") };
    let _upstream = Upstream::scripted_at("127.0.0.1:8000", answer).await;
    let (public, admin) = ("127.0.0.1:8080", "127.0.0.1:9090");
    let serve = "tollgate serve --config config/tollgate.yaml";
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command
        .args(serve.split(' ').skip(1))
        .current_dir(dir.path())
        .env_remove("TOLLGATE_CONFIG")
        .stderr(Stdio::null());
    let _gate = Process::start_by(
        &mut command,
        public.parse().unwrap(),
        admin.parse().unwrap(),
    )
    .await;

    std::fs::create_dir(dir.path().join("config/secrets")).unwrap();
    let (mut ran, mut wrong) = (0, Vec::new());
    let mut idle: BTreeSet<&str> = ELSEWHERE.iter().map(|(begin, _)| *begin).collect();
    for page in pages() {
        let text = std::fs::read_to_string(root.join(&page)).unwrap();
        let commands = commands(&text);
        for command in commands {
            let is_named = |begin: &str| {
                command == begin || begin.ends_with(' ') && command.starts_with(begin)
            };
            let listed = ELSEWHERE.iter().find(|(begin, _)| is_named(begin));
            if let Some((begin, _)) = listed {
                idle.remove(begin);
            }
            if listed.is_some() || NAMES.contains(&&*command) {
                continue;
            }
            let mut line = command.clone() + " ";
            for (from, to) in VALUES {
                line = line.replace(from, to);
            }
            let said = shell(line.trim(), dir.path());
            let works = match command.starts_with("curl") {
                // With and without the head of the answer.
                true => {
                    said.code == Some(0)
                        && (said.out.starts_with("HTTP/1.1 200") || said.out.starts_with('{'))
                }
                // A refund answers "no" with 1.
                false => said.code == Some(0) || said.out.starts_with("no: R18"),
            };
            if !works {
                wrong.push(format!("{page}: {command}: {said:?}"));
            }
            ran += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ran >= 30, "{ran} commands were run");
    assert!(idle.is_empty(), "no page has these any more: {idle:?}");
}
