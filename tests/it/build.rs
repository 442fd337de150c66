//! Which commit a build names, from the files of a repository, and how it says that it was built. `build.rs` is compiled into this
//! test.

#[path = "../../build.rs"]
#[allow(dead_code, reason = "its main is for cargo")]
mod script;

use crate::harness::*;
use script::{Repository, kind, short};
use std::fs;
use std::path::Path;
use std::process::Command;

const ONE: &str = "1111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222";

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn head(root: &Path) -> Option<String> {
    Repository::at(root)?.head()
}

fn watched(root: &Path) -> Vec<String> {
    let files = Repository::at(root).unwrap().watched();
    assert!(
        files.iter().all(|file| file.is_file()),
        "else every build is a new one"
    );
    let names = files
        .iter()
        .map(|file| file.strip_prefix(root).unwrap_or(file));
    names.map(|name| name.display().to_string()).collect()
}

#[test]
fn the_commit_is_found_in_a_clone_a_work_tree_and_without_a_loose_branch() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    assert_eq!(head(root), None, "an archive");
    write(&root.join(".git/HEAD"), "ref: refs/heads/a/b\n");
    assert_eq!(head(root), None, "before the first commit");
    write(
        &root.join(".git/packed-refs"),
        &format!("# pack-refs with: peeled\n{TWO} refs/heads/a\n{ONE} refs/heads/a/b\n"),
    );
    assert_eq!(head(root).as_deref(), Some(&ONE[..12]));
    assert_eq!(watched(root), [".git/HEAD", ".git/packed-refs"]);
    write(&root.join(".git/refs/heads/a/b"), &format!("{TWO}\n"));
    write(&root.join(".git/logs/HEAD"), "");
    assert_eq!(head(root).as_deref(), Some(&TWO[..12]), "newer than packed");
    assert_eq!(
        watched(root),
        [".git/HEAD", ".git/logs/HEAD", ".git/refs/heads/a/b"]
    );
    write(&root.join(".git/HEAD"), &format!("{ONE}\n"));
    assert_eq!(head(root).as_deref(), Some(&ONE[..12]), "detached");

    // A work tree beside it has a head of its own and shares the branches.
    let tree = tempfile::tempdir().unwrap();
    let own = root.join(".git/worktrees/t");
    write(&own.join("HEAD"), "ref: refs/heads/a/b\n");
    write(&own.join("commondir"), "../..\n");
    write(
        &tree.path().join(".git"),
        &format!("gitdir: {}\n", own.display()),
    );
    assert_eq!(head(tree.path()).as_deref(), Some(&TWO[..12]));
}

#[test]
fn only_the_name_of_a_commit_is_taken_for_one() {
    assert_eq!(short("ABCDEF0123456789\n").as_deref(), Some("abcdef012345"));
    for none in ["", "unknown", "$Format:%H$", "abcdef", "v0.1.0-rc1-gabcdef"] {
        assert_eq!(short(none), None, "{none}");
    }
}

#[test]
fn only_a_build_that_uses_a_profile_says_that_it_is_guided_by_one() {
    for flags in [
        "-Cprofile-use=/x/a.profdata",
        "-Copt-level=3\x1f-C\x1fprofile-use=/x",
    ] {
        assert_eq!(kind(flags), "profile-guided", "{flags}");
    }
    for flags in [
        "",
        "-Cprofile-generate=/x",
        "-Clink-arg=profile-use=/x",
        "-Ctarget-cpu=native",
    ] {
        assert_eq!(kind(flags), "plain", "{flags}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_status_and_metric_name_the_same_commit() {
    let (commit, build) = (env!("TOLLGATE_COMMIT"), env!("TOLLGATE_BUILD"));
    let version = said(Command::new(env!("CARGO_BIN_EXE_tollgate")).arg("--version"));
    assert_eq!(
        version.out,
        format!(
            "tollgate {} ({commit}, {build})\n",
            env!("CARGO_PKG_VERSION")
        )
    );
    let gate = Gate::start(([127, 0, 0, 1], 9).into()).await;
    let labels = [
        &*format!("commit=\"{commit}\""),
        &format!("build=\"{build}\""),
        "version=\"0.",
    ];
    let samples = gate.metrics().await;
    assert_eq!(samples.sum("tollgate_build_info", &labels), 1);
    let status = get(gate.admin, "/status").await.2;
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["commit"], commit);
    let text = get(gate.admin, "/metrics").await.2;
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(
        text.contains("# TYPE tollgate_log_lines_dropped_total counter"),
        "{text}"
    );
}
