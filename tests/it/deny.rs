//! What `make deny` checks of the crates, and that it sees a crate which breaks a rule.

use crate::harness::{Output, said};
use std::path::Path;
use std::process::Command;

/// What it says with the rules changed so, and these advisories.
fn checked(changes: &[(&str, &str)], advisories: &Path) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut rules = std::fs::read_to_string(root.join("deny.toml")).unwrap();
    for (from, to) in changes {
        assert_eq!(rules.matches(from).count(), 1, "{from}");
        rules = rules.replace(from, to);
    }
    let dir = tempfile::tempdir().unwrap();
    let changed = dir.path().join("deny.toml");
    std::fs::write(&changed, rules).unwrap();
    let mut command = Command::new(root.join("tests/deny.py"));
    command.arg("--rules").arg(changed);
    command.arg("--advisories").arg(advisories);
    said(command.env("CARGO", env!("CARGO")))
}

/// An advisory about a crate that is built, fixed in these versions.
fn advisory(folder: &Path, patched: &str) {
    let of = folder.join("crates/itoa");
    std::fs::create_dir_all(&of).unwrap();
    let page = format!(
        "```toml\n[advisory]\nid = \"RUSTSEC-2026-9999\"\npackage = \"itoa\"\n[versions]\npatched = [{patched}]\n```\n# A fault\n"
    );
    std::fs::write(of.join("RUSTSEC-2026-9999.md"), page).unwrap();
}

#[test]
fn every_crate_has_an_allowed_licence_and_source_and_none_is_banned() {
    // A clone that `make deny` made is read too.
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/advisory-db");
    let found = checked(&[], &known);
    assert_eq!(found.code, Some(0), "{}{}", found.out, found.err);
    assert!(found.out.contains("as deny.toml has them"), "{}", found.out);
}

#[test]
fn a_crate_that_breaks_a_rule_is_named_with_the_rule() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("none");
    let cases = [
        ("\"ISC\",", "", "licence: rustls-webpki"),
        (
            "\"ISC\",",
            "\"ISC\", \"GPL-3.0\",",
            "allows GPL-3.0, which no",
        ),
        ("crate = \"ring\"", "crate = \"rustls\"", "ban: rustls "),
        (
            "https://github.com/rust-lang",
            "https://example.com",
            "source: ",
        ),
    ];
    for (from, to, named) in cases {
        let found = checked(&[(from, to)], &nowhere);
        assert_eq!(found.code, Some(1), "{from}: {}", found.err);
        assert!(found.out.contains(named), "{named}: {}", found.out);
        assert!(found.out.contains("skipped: advisories"), "{}", found.out);
    }
}

#[test]
fn an_advisory_about_a_version_that_is_built_is_named_unless_it_is_ignored_or_fixed() {
    let dir = tempfile::tempdir().unwrap();
    let ignored = ("ignore = []", "ignore = [\"RUSTSEC-2026-9999\"]");
    for (patched, changes, code, named) in [
        ("\">= 99\"", vec![], 1, "advisory: itoa"),
        ("", vec![], 1, "RUSTSEC-2026-9999"),
        ("\"^1.0\"", vec![], 0, "advisories: as deny.toml"),
        ("\">= 99\"", vec![ignored], 0, "advisories: as deny.toml"),
        ("\"^1.0\"", vec![ignored], 1, "which concerns nothing"),
    ] {
        advisory(dir.path(), patched);
        let found = checked(&changes, dir.path());
        assert_eq!(found.code, Some(code), "{patched}: {}", found.out);
        assert!(found.out.contains(named), "{named}: {}", found.out);
    }
}
