//! The container image, by reading and by doing: what its builder copies suffices to build, and the
//! program runs as it does there. No Docker is needed.

use crate::deploy::deploy;
use crate::harness::*;
use crate::names::{is_inside, run};
use http::StatusCode;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The instructions of the Dockerfile, continued lines joined: each word with its rest.
fn instructions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(deploy("Dockerfile")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.trim().is_empty());
    let parts = lines.map(|line| line.split_once(' ').unwrap());
    parts
        .map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()))
        .collect()
}

/// What is copied from the repository.
fn copied() -> Vec<String> {
    let of = instructions()
        .into_iter()
        .filter(|(word, _)| word == "COPY");
    let of = of.filter(|(_, rest)| !rest.starts_with("--from="));
    let sources = of.flat_map(|(_, rest)| {
        let mut words: Vec<String> = rest.split(' ').map(str::to_owned).collect();
        words.pop();
        words
    });
    sources.collect()
}

fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
        return;
    }
    for entry in std::fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        copy(&from.join(&name), &to.join(&name));
    }
}

fn sources_under(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources_under(&path, found),
            false if path.extension().is_some_and(|it| it == "rs") => found.push(path),
            false => {}
        }
    }
}

#[test]
fn what_the_builder_copies_is_all_that_cargo_and_the_compiler_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    for name in copied() {
        copy(&root.join(&name), &dir.path().join(&name));
    }
    let read = said(
        Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--locked",
                "--offline",
                "--no-deps",
                "--format-version=1",
            ])
            .current_dir(dir.path())
            .stdin(Stdio::null()),
    );
    assert_eq!(read.code, Some(0), "{}", read.err);
    let read: serde_json::Value = serde_json::from_str(&read.out).unwrap();
    for target in read["packages"][0]["targets"].as_array().unwrap() {
        let path = Path::new(target["src_path"].as_str().unwrap());
        assert!(path.starts_with(dir.path()) && path.is_file(), "{target}");
    }
    let (mut sources, mut included) = (Vec::new(), 0);
    sources_under(&dir.path().join("src"), &mut sources);
    for source in sources {
        let text = std::fs::read_to_string(&source).unwrap();
        for mark in [
            "include_str!(\"",
            "include_bytes!(\"",
            "include!(\"",
            "#[path = \"",
        ] {
            for (at, _) in text.match_indices(mark) {
                let name = text[at + mark.len()..].split('"').next().unwrap();
                let file = source.parent().unwrap().join(name);
                assert!(
                    file.is_file(),
                    "{} reads {name}, which is not copied",
                    source.display()
                );
                included += 1;
            }
        }
    }
    assert!(included >= 8, "{included}");
}

#[test]
fn the_builder_is_sent_what_it_copies_and_nothing_else() {
    let ignored = std::fs::read_to_string(deploy("Dockerfile.dockerignore")).unwrap();
    let mut lines = ignored.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"));
    let sent: BTreeSet<&str> = lines.filter_map(|line| line.strip_prefix('!')).collect();
    let copied = copied();
    assert_eq!(sent, copied.iter().map(String::as_str).collect());
}

#[test]
fn the_image_runs_as_nobody_in_particular_and_asks_itself_how_it_is() {
    let all = instructions();
    let of = |word: &str| -> Vec<&str> {
        let those = all.iter().filter(|(it, _)| it == word);
        those.map(|(_, rest)| rest.as_str()).collect()
    };
    let from = of("FROM");
    let [build, image] = &from[..] else {
        panic!("two stages: {from:?}");
    };
    // The C library of the one is that of the other.
    let build = build.strip_suffix(" AS build").unwrap();
    let (_, debian) = build.rsplit_once('-').unwrap();
    assert_eq!(*image, format!("debian:{debian}-slim"));
    let manifest = std::fs::read_to_string("Cargo.toml").unwrap();
    let version = build.trim_start_matches("rust:").split('-').next().unwrap();
    assert!(
        manifest.contains(&format!("rust-version = \"{version}\"")),
        "{build}"
    );

    assert_eq!(of("USER"), ["10001:10001"]);
    assert_eq!(of("WORKDIR").last(), of("VOLUME").first());
    let words = |json: &str| -> Vec<String> { serde_json::from_str(json).unwrap() };
    let [entry] = &of("ENTRYPOINT")[..] else {
        panic!("one program");
    };
    let program = words(entry);
    assert_eq!(of("CMD"), ["[\"serve\"]"]);
    let binary = format!("--from=build /src/target/shipped/tollgate {}", program[0]);
    assert!(of("COPY").contains(&binary.as_str()));
    // Else a signal would go to a shell, and there would be no drain.
    assert_eq!(program.len(), 1);
    let [health] = &of("HEALTHCHECK")[..] else {
        panic!("one check");
    };
    let (_, check) = health.split_once(" CMD ").unwrap();
    assert_eq!(words(check), [&program[0], "probe"]);
}

/// As `docker run --read-only`: there is no place to write but the volume.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_read_only_root_the_gate_serves_and_its_ledger_is_read() {
    if !is_inside(&|| ()) {
        return;
    }
    run("ip", &["link", "set", "lo", "up"]);
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let volume = house.dir.path().to_str().unwrap().to_owned();
    run("mount", &["--make-rprivate", "/"]);
    run("mount", &["--bind", &volume, &volume]);
    let mounted = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let read_only = |at: &str| {
        Command::new("mount")
            .args(["-o", "remount,bind,ro", at])
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    assert!(read_only("/"));
    for at in mounted.lines().filter_map(|line| line.split(' ').nth(1)) {
        if ["/tmp", "/var", "/var/tmp", "/run", "/dev/shm"].contains(&at) {
            assert!(read_only(at), "{at}");
        }
    }
    for place in ["/tmp/x", "/var/tmp/x"] {
        assert!(std::fs::write(place, "x").is_err(), "{place}");
    }
    let mut command = house.command(&[], &["serve"]);
    command.current_dir(&volume).stderr(Stdio::null());
    let mut gate = Process::start_by(&mut command, house.public, house.admin).await;
    for _ in 0..3 {
        assert_eq!(
            send(house.public, segment(STUDIO_KEY)).await.0,
            StatusCode::OK
        );
    }
    let copy = format!("{volume}/copy.db");
    for arguments in [
        &["usage"][..],
        &["statement"],
        &["verify"],
        &["backup", "--to", &copy],
        &["probe"],
    ] {
        let said = said(house.command(&[], arguments).current_dir(&volume));
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.err);
    }
    gate.signal("TERM");
    assert_eq!(gate.ended().await.code(), Some(0));
}
