//! Which commit is built, and how: `TOLLGATE_COMMIT` for `--version`, `/status` and the metric `build_info`, and
//! `TOLLGATE_BUILD` for the first and the last of them.
//!
//! For the commit are asked, in this order: the variable of the same name, the repository's own files, what
//! `git archive` wrote into this file. git itself need not be installed. How it is built the compiler's flags say.
#![allow(
    clippy::print_stdout,
    reason = "it is how a build script talks to cargo"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// `git archive` puts the commit here (`.gitattributes`), and so do the archives that GitHub makes.
const ARCHIVED: &str = "$Format:%H$";
/// Hex digits that are shown.
const SHOWN: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TOLLGATE_COMMIT");
    let named = std::env::var("TOLLGATE_COMMIT").ok();
    let named = named.as_deref().and_then(short);
    let repository = named.is_none().then(|| Repository::at(Path::new(".")));
    let head = repository.flatten().and_then(|repository| {
        // A file that is not there would make every build a new one, so only those that are.
        for file in repository.watched() {
            println!("cargo::rerun-if-changed={}", file.display());
        }
        repository.head()
    });
    let commit = named.or(head).or_else(|| short(ARCHIVED));
    let commit = commit.as_deref().unwrap_or("unknown");
    println!("cargo::rustc-env=TOLLGATE_COMMIT={commit}");
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    println!("cargo::rustc-env=TOLLGATE_BUILD={}", kind(&flags));
}

/// How a binary is built with these flags, which cargo parts by the character 31.
pub fn kind(flags: &str) -> &'static str {
    let mut flags = flags.split('\x1f');
    match flags.any(|flag| flag.trim_start_matches("-C").starts_with("profile-use=")) {
        true => "profile-guided",
        false => "plain",
    }
}

/// The first digits of a commit's name; `None` when it is none.
pub fn short(name: &str) -> Option<String> {
    let name = name.trim();
    let is_hex = name.len() >= SHOWN && name.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| name[..SHOWN].to_ascii_lowercase())
}

/// The files of a git repository that say which commit is checked out.
pub struct Repository {
    /// Of this work tree.
    git: PathBuf,
    /// Of all work trees of the repository: where branches are.
    common: PathBuf,
}

impl Repository {
    /// `None` when `root` is not the root of a work tree.
    pub fn at(root: &Path) -> Option<Self> {
        let mut git = root.join(".git");
        // A work tree beside the first, or a submodule, has a file that says where.
        if let Ok(text) = fs::read_to_string(&git) {
            git = root.join(text.strip_prefix("gitdir: ")?.trim_end());
        }
        if !git.join("HEAD").is_file() {
            return None;
        }
        let common = match fs::read_to_string(git.join("commondir")) {
            Ok(path) => git.join(path.trim_end()),
            Err(_) => git.clone(),
        };
        Some(Self { git, common })
    }

    /// The commit, shortened.
    pub fn head(&self) -> Option<String> {
        let head = fs::read_to_string(self.git.join("HEAD")).ok()?;
        let Some(branch) = head.strip_prefix("ref: ") else {
            return short(&head);
        };
        let branch = branch.trim_end();
        if let Ok(commit) = fs::read_to_string(self.common.join(branch)) {
            return short(&commit);
        }
        let packed = fs::read_to_string(self.common.join("packed-refs")).ok()?;
        let mut lines = packed.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(_, name)| *name == branch)
            .and_then(|(commit, _)| short(commit))
    }

    /// Those of its files that are there and change with the commit. A first commit on a packed branch makes a file
    /// that is not watched yet; the log of this work tree's head tells of it.
    pub fn watched(&self) -> Vec<PathBuf> {
        let head = self.git.join("HEAD");
        let branch = fs::read_to_string(&head).unwrap_or_default();
        let branch = branch.strip_prefix("ref: ").map(|name| name.trim_end());
        let mut files = vec![head, self.git.join("logs/HEAD")];
        files.extend(branch.map(|name| self.common.join(name)));
        if files.iter().filter(|file| file.is_file()).count() < files.len() {
            files.push(self.common.join("packed-refs"));
        }
        files.retain(|file| file.is_file());
        files
    }
}
