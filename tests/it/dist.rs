//! What `make dist` writes, made of the binary of the tests: unpacked, read as whoever installs it would,
//! and made twice.

use crate::harness::{Output, said};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn done(command: &mut Command) -> Output {
    let said = said(command.stdin(Stdio::null()));
    assert_eq!(said.code, Some(0), "{command:?}: {}{}", said.out, said.err);
    said
}

/// Makes it in `out`, from another directory, time zone and mask than the next time.
fn make(out: &Path, nth: usize) -> String {
    let (mask, zone) = [("022", "UTC"), ("077", "Asia/Shanghai")][nth];
    let script =
        format!("umask {mask}; exec python3 \"$0\" --level 1 --binary \"$1\" --out \"$2\"");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .arg(root().join("deploy/dist.py"))
        .arg(BINARY)
        .arg(out)
        .current_dir([root(), Path::new("/")][nth])
        .env("CARGO", env!("CARGO"))
        .env("SOURCE_DATE_EPOCH", "1796000000")
        .env("TZ", zone);
    done(&mut command).out
}

fn files_under(directory: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_under(&path, found),
            false => drop(found.insert(path)),
        }
    }
}

/// What the program says of its version, whoever packed it.
fn version_of(binary: &Path) -> String {
    done(Command::new(binary).arg("--version")).out
}

#[test]
fn what_is_shipped_is_the_same_each_time_and_is_what_its_lists_say() {
    let dir = tempfile::tempdir().unwrap();
    let outs = ["one", "two"].map(|name| dir.path().join(name));
    let second = outs[1].clone();
    let other = std::thread::spawn(move || make(&second, 1));
    let sums = make(&outs[0], 0);
    assert_eq!(sums, other.join().unwrap());
    let out = &outs[0];
    assert_eq!(sums.lines().count(), 3, "{sums}");
    done(
        Command::new("sha256sum")
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(out),
    );
    let version = env!("CARGO_PKG_VERSION");
    check_package(out, &out.join(format!("tollgate_{version}_amd64.deb")));
    let name = format!("tollgate-{version}-linux-amd64");
    done(
        Command::new("tar")
            .arg("xzf")
            .arg(format!("{name}.tar.gz"))
            .current_dir(out),
    );
    let unpacked = out.join(name);
    assert_eq!(
        version_of(&unpacked.join("tollgate")),
        version_of(Path::new(BINARY))
    );
    let listed = std::fs::read_to_string(unpacked.join("sbom.cdx.json")).unwrap();
    let beside = std::fs::read_to_string(out.join(format!("tollgate-{version}.cdx.json"))).unwrap();
    assert_eq!(listed, beside);
    check_list(&serde_json::from_str(&listed).unwrap());
    for file in [
        "config/accounts.yaml",
        "deploy/tollgate.service",
        "man/tollgate-serve.1",
        "LICENSE",
    ] {
        assert!(unpacked.join(file).is_file(), "{file}");
    }
    assert!(!unpacked.join("config/secrets").exists());
}

/// What lintian would look at, and that the service finds what it needs.
fn check_package(out: &Path, package: &Path) {
    let (files, control) = (out.join("files"), out.join("control"));
    for (flag, to) in [("--extract", &files), ("--control", &control)] {
        done(Command::new("dpkg-deb").arg(flag).arg(package).arg(to));
    }
    assert_eq!(
        version_of(&files.join("usr/bin/tollgate")),
        version_of(Path::new(BINARY))
    );
    let read = |name: &str| std::fs::read_to_string(control.join(name)).unwrap();
    done(
        Command::new("md5sum")
            .args(["--check", "--strict"])
            .arg(control.join("md5sums"))
            .current_dir(&files),
    );
    let mut all = BTreeSet::new();
    files_under(&files, &mut all);
    let all: BTreeSet<String> = all
        .iter()
        .map(|path| format!("/{}", path.strip_prefix(&files).unwrap().display()))
        .collect();
    assert_eq!(read("md5sums").lines().count(), all.len());
    let own = |path: &&String| path.starts_with("/etc/");
    let settings: BTreeSet<String> = all.iter().filter(own).cloned().collect();
    let conffiles = read("conffiles")
        .lines()
        .map(str::to_owned)
        .collect::<BTreeSet<_>>();
    assert_eq!(conffiles, settings);
    // What was bought and what it costs is no file of the package: an upgrade must not change it.
    assert_eq!(settings.len(), 1);
    assert!(read("postinst").contains("[ -e \"/etc/tollgate/$file\" ] || cp"));
    for line in done(Command::new("dpkg-deb").arg("--contents").arg(package))
        .out
        .lines()
    {
        let (mode, rest) = line.split_once(' ').unwrap();
        assert!(rest.starts_with("root/root "), "{line}");
        // Nobody but root writes to it, and nothing gives rights.
        let bits = mode.as_bytes();
        assert!(
            bits[5] != b'w' && bits[8] != b'w' && !mode.contains('s'),
            "{line}"
        );
    }
    let told = read("control");
    for line in [
        "Package: tollgate\n",
        "Architecture: amd64\n",
        "Depends: libc6 (>= 2.",
    ] {
        assert!(told.contains(line), "{told}");
    }
    for script in ["postinst", "prerm", "postrm"] {
        done(Command::new("sh").arg("-n").arg(control.join(script)));
        assert!(read(script).starts_with("#!/bin/sh\nset -e\n"), "{script}");
    }
    let unit = files.join("usr/lib/systemd/system/tollgate.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    assert!(
        unit.contains("\nExecStart=/usr/bin/tollgate serve\n"),
        "{unit}"
    );
    assert!(!unit.contains("\nExecStart=/usr/local"), "{unit}");
    check_installed(&files, &all);
}

/// The settings pass the check as they are installed, and no account is served that everybody knows.
fn check_installed(files: &Path, all: &BTreeSet<String>) {
    let (config, etc) = (
        files.join("etc/tollgate/tollgate.yaml"),
        files.join("etc/tollgate"),
    );
    for file in ["catalog.yaml", "accounts.yaml"] {
        // As the package's script does.
        std::fs::copy(
            files.join("usr/share/tollgate/first").join(file),
            etc.join(file),
        )
        .unwrap();
    }
    let checked = done(
        Command::new(BINARY)
            .args(["check", "--config"])
            .arg(&config),
    );
    assert!(
        checked.out.contains("/var/lib/tollgate/ledger.db"),
        "{}",
        checked.out
    );
    assert!(
        checked.out.contains("accounts: 0 with 0 key(s)"),
        "{}",
        checked.out
    );
    for file in ["tollgate", "catalog", "accounts"] {
        let text =
            std::fs::read_to_string(files.join(format!("etc/tollgate/{file}.yaml"))).unwrap();
        let (_, schema) = text.split_once("$schema=").unwrap();
        let schema = schema.lines().next().unwrap();
        assert!(all.contains(schema), "{file}: {schema}");
    }
    for file in [
        "/usr/lib/systemd/system/tollgate.socket",
        "/usr/lib/sysusers.d/tollgate.conf",
        "/usr/share/man/man1/tollgate-probe.1.gz",
        "/usr/share/bash-completion/completions/tollgate",
        "/usr/share/zsh/vendor-completions/_tollgate",
        "/usr/share/fish/vendor_completions.d/tollgate.fish",
        "/usr/share/doc/tollgate/copyright",
        "/usr/share/doc/tollgate/changelog.gz",
        "/usr/share/doc/tollgate/RUNBOOK.md",
    ] {
        assert!(all.contains(file), "{file}");
    }
}

/// The crates whose sources the binary names, in the places of panics: they are in it.
fn crates_in_the_binary() -> BTreeSet<String> {
    let pattern = "/registry/src/[^/]+/[A-Za-z0-9_.+-]+/src/";
    let mut grep = Command::new("grep");
    let found = done(grep.args(["-aoE", pattern, BINARY]).env("LC_ALL", "C")).out;
    // INDEX/NAME-VERSION/src/
    let crates = found.lines().filter_map(|line| line.rsplit('/').nth(2));
    crates.map(str::to_owned).collect()
}

fn check_list(list: &Value) {
    assert_eq!(list["bomFormat"], "CycloneDX");
    assert_eq!(list["specVersion"], "1.6");
    assert!(
        list["serialNumber"]
            .as_str()
            .unwrap()
            .starts_with("urn:uuid:")
    );
    assert_eq!(list["metadata"]["component"]["name"], "tollgate");
    let components = list["components"].as_array().unwrap();
    let text = |of: &Value, key: &str| of[key].as_str().unwrap().to_owned();
    let listed: BTreeSet<String> = components
        .iter()
        .map(|it| format!("{}-{}", text(it, "name"), text(it, "version")))
        .collect();
    assert_eq!(listed.len(), components.len());
    for component in components {
        assert_eq!(
            text(&component["hashes"][0], "content").len(),
            64,
            "{component}"
        );
        assert!(
            !text(&component["licenses"][0], "expression").contains('/'),
            "{component}"
        );
    }
    let inside = crates_in_the_binary();
    assert!(inside.len() > 60, "{inside:?}");
    let missing: Vec<&String> = inside.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "in the binary and not in the list: {missing:?}"
    );
    // Nothing that is used by tests alone.
    for name in ["proptest", "criterion", "tempfile", "mlua"] {
        assert!(!components.iter().any(|it| it["name"] == name), "{name}");
    }
    let refs: BTreeSet<&str> = components
        .iter()
        .chain([&list["metadata"]["component"]])
        .map(|it| it["bom-ref"].as_str().unwrap())
        .collect();
    let graph = list["dependencies"].as_array().unwrap();
    assert_eq!(graph.len(), refs.len());
    let ends = graph
        .iter()
        .flat_map(|it| it["dependsOn"].as_array().unwrap());
    assert!(
        ends.into_iter()
            .all(|end| refs.contains(end.as_str().unwrap()))
    );
}
