//! Which files a configuration came from, and whether they changed since.
//!
//! Owns the look at a file without reading it. Must never read one: a watcher looks twice a second.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files that a load read or looked for and the directories that it listed, as they looked just
/// before. Two that are equal: nothing was written, replaced, added or removed in between.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Sources {
    files: Vec<(PathBuf, Option<Stamp>)>,
    directories: Vec<(PathBuf, Listing)>,
}

/// Device, inode, size, and the times of the last change of content and of the file itself. The
/// last one nobody can set, so a file that is written in place and dated back is seen too.
pub(in crate::config) type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Sources {
    pub(in crate::config) fn add_file(&mut self, path: PathBuf, stamp: Option<Stamp>) {
        self.files.push((path, stamp));
    }

    /// Lists a directory, and remembers it.
    pub(in crate::config) fn add_directory(&mut self, path: &Path) -> io::Result<Listing> {
        let listing = Listing::of(path)?;
        self.directories.push((path.to_owned(), listing.clone()));
        Ok(listing)
    }

    /// How the same files and directories look now.
    pub fn again(&self) -> Self {
        let files = self
            .files
            .iter()
            .map(|(path, _)| (path.clone(), stamp(path)))
            .collect();
        let list = |(path, _): &(PathBuf, _)| (path.clone(), Listing::of(path).unwrap_or_default());
        Self {
            files,
            directories: self.directories.iter().map(list).collect(),
        }
    }
}

/// Looks at a file, through symbolic links, so that a swapped link is a change. `None` when there
/// is nothing to look at.
pub(in crate::config) fn stamp(path: &Path) -> Option<Stamp> {
    let m = std::fs::metadata(path).ok()?;
    Some((
        m.dev(),
        m.ino(),
        m.size(),
        (m.mtime(), m.mtime_nsec()),
        (m.ctime(), m.ctime_nsec()),
    ))
}

/// What a directory holds, each by name. Hidden entries are left out: a Kubernetes volume keeps its
/// older versions there.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(in crate::config) struct Listing {
    /// `*.yaml`: what is read.
    pub files: Vec<PathBuf>,
    /// What somebody may believe to be read: other spellings of the ending, and directories.
    pub passed_over: Vec<PassedOver>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::config) enum PassedOver {
    File(PathBuf),
    Directory(PathBuf),
}

impl fmt::Display for PassedOver {
    /// A sentence with the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(
                f,
                "{} is passed over, because only *.yaml files are read: rename it to {}",
                path.display(),
                path.with_extension("yaml").display()
            ),
            Self::Directory(path) => write!(
                f,
                "{} is passed over, because it is a directory: move its files up",
                path.display()
            ),
        }
    }
}

impl Listing {
    fn of(directory: &Path) -> io::Result<Self> {
        let mut listing = Self::default();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let ending = path.extension().unwrap_or_default();
            let looks_like_yaml =
                ending.eq_ignore_ascii_case("yaml") || ending.eq_ignore_ascii_case("yml");
            if path.is_dir() {
                listing.passed_over.push(PassedOver::Directory(path));
            } else if ending == "yaml" {
                listing.files.push(path);
            } else if looks_like_yaml {
                listing.passed_over.push(PassedOver::File(path));
            }
        }
        listing.files.sort();
        listing.passed_over.sort();
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn watched(directory: &Path, files: &[&str]) -> Sources {
        let mut sources = Sources::default();
        for file in files {
            let path = directory.join(file);
            let seen = stamp(&path);
            sources.add_file(path, seen);
        }
        sources
    }

    #[test]
    fn what_nobody_touched_looks_the_same() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), "a").unwrap();
        let sources = watched(dir.path(), &["a.yaml", "absent.yaml"]);
        assert_eq!(sources.again(), sources);
    }

    #[test]
    fn a_write_that_keeps_size_and_date_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "a").unwrap();
        let sources = watched(dir.path(), &["a.yaml"]);
        let dated = fs::metadata(&path).unwrap().modified().unwrap();
        // The clock of the file system ticks every few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, "b").unwrap();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(dated)
            .unwrap();
        assert_ne!(sources.again(), sources);
    }

    #[test]
    fn a_swapped_link_a_new_file_and_a_removed_one_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("a.yaml"), "same").unwrap();
        }
        let link = dir.path().join("data");
        std::os::unix::fs::symlink("v1", &link).unwrap();
        let sources = watched(&link, &["a.yaml"]);
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("v2", &link).unwrap();
        assert_ne!(sources.again(), sources);

        let mut listed = Sources::default();
        let listing = listed.add_directory(&dir.path().join("v1")).unwrap();
        assert_eq!(listing.files.len(), 1);
        fs::write(dir.path().join("v1/.hidden.yaml"), "").unwrap();
        assert_eq!(listed.again(), listed);
        fs::write(dir.path().join("v1/b.yaml"), "").unwrap();
        assert_ne!(listed.again(), listed);
        fs::remove_file(dir.path().join("v1/b.yaml")).unwrap();
        assert_eq!(listed.again(), listed);
        fs::remove_file(dir.path().join("v1/a.yaml")).unwrap();
        assert_ne!(listed.again(), listed);
    }
}
