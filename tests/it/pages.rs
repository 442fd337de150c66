//! The commands that the pages print, run as they stand there.

use crate::harness::*;
use crate::names::{is_inside, run};
use http::StatusCode;
use std::path::Path;
use std::process::{Command, Stdio};

const PAGES: [&str; 11] = [
    "README.md",
    "README.zh-CN.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "config/README.md",
    "deploy/README.md",
    "deploy/BACKUP.md",
    "deploy/CUSTOMERS.md",
    "deploy/DISK.md",
    "deploy/ERRORS.md",
    "deploy/RUNBOOK.md",
];

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
const ELSEWHERE: [(&str, &str); 21] = [
    ("make demo", "tests/it/demo.rs runs the demo"),
    ("make demo ", "the same"),
    ("make demo-replicas", "tests/it/demo.rs runs it"),
    ("tollgate demo ", "the same"),
    ("make test", "it runs this"),
    ("make quick", "make test runs the same and more"),
    ("make torture", "it takes half an hour"),
    ("make fuzz", "make test runs a hundredth of it"),
    ("make fuzz ", "the same"),
    ("make man", "tests/it/help.rs writes the pages"),
    (
        "make reference",
        "src/config/tests/reference.rs reads what it writes",
    ),
    ("make bench", "it needs two quiet cores"),
    ("make soak", "it takes an hour"),
    ("cargo ", "cargo builds and runs these tests"),
    (
        "systemctl reload",
        "it needs systemd as process 1; tests/it/deploy.rs reads the unit",
    ),
    ("tollgate serve", "it is started here"),
    (
        "tollgate collect",
        "tests/it/collect starts it, with gates and NATS",
    ),
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
    let mut found = Vec::new();
    let (mut is_code, mut begun) = (false, String::new());
    for line in page.lines() {
        let text = line.trim();
        if text.starts_with("```") {
            is_code = !is_code;
        } else if is_code || line.starts_with("    tollgate ") {
            let text = text.trim_start_matches("$ ");
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
    let programs = ["tollgate ", "curl ", "make ", "cargo ", "systemctl "];
    found.retain(|text| programs.iter().any(|program| text.starts_with(program)));
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

    let (mut ran, mut wrong) = (0, Vec::new());
    for page in PAGES {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let commands = commands(&text);
        for command in commands {
            let is_named = |begin: &str| {
                command == begin || begin.ends_with(' ') && command.starts_with(begin)
            };
            if ELSEWHERE.iter().any(|(begin, _)| is_named(begin)) || NAMES.contains(&&*command) {
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
    assert!(ran >= 15, "{ran} commands were run");
}
