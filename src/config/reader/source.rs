//! One file, what was read for it and what was found wrong in it so far.
//!
//! Must never print a mistake: whoever loads the files tells them.

use crate::config::Mistake;
use crate::config::sources::Stamp;
use crate::config::yaml::{self, Node, Place, Places};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// A file that was read or looked for.
pub(in crate::config) struct SeenFile {
    pub path: PathBuf,
    /// How it looked just before.
    pub stamp: Option<Stamp>,
    /// Of its content; of nothing when it could not be read.
    pub sha256: [u8; 32],
}

impl SeenFile {
    pub(in crate::config) fn new(path: PathBuf, stamp: Option<Stamp>, bytes: &[u8]) -> Self {
        let sha256 = Sha256::digest(bytes).into();
        Self {
            path,
            stamp,
            sha256,
        }
    }
}

/// One file and what was found wrong in it so far.
pub(in crate::config) struct Source {
    path: PathBuf,
    /// The secret files that it names.
    pub read: RefCell<Vec<SeenFile>>,
    mistakes: RefCell<Vec<Mistake>>,
    pub warnings: RefCell<Vec<Mistake>>,
}

impl Source {
    pub(in crate::config) fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: RefCell::default(),
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    pub(in crate::config) fn parse(&self, bytes: &[u8], places: Places) -> Option<Node> {
        yaml::parse(&self.path, bytes, places)
            .map_err(|mistake| self.mistakes.borrow_mut().push(mistake))
            .ok()
    }

    pub(in crate::config) fn refuse(&self, at: Place, message: String) {
        let mistake = self.mistake(at, message);
        self.mistakes.borrow_mut().push(mistake);
    }

    pub(in crate::config) fn mistake(&self, at: Place, message: String) -> Mistake {
        Mistake {
            file: self.path.clone(),
            line: at.line,
            column: at.column,
            message,
        }
    }

    pub(in crate::config) fn path(&self) -> &Path {
        &self.path
    }

    /// A path written in this file, which is relative to the file's directory.
    pub(in crate::config) fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// The secret files that were read or looked for.
    pub(in crate::config) fn take_read(&self) -> Vec<SeenFile> {
        self.read.take()
    }

    /// Mistakes and warnings, in the order of the text.
    pub(in crate::config) fn findings(self) -> (Vec<Mistake>, Vec<Mistake>) {
        let sorted = |list: RefCell<Vec<Mistake>>| {
            let mut list = list.into_inner();
            list.sort_by_key(|m| (m.line, m.column));
            list
        };
        (sorted(self.mistakes), sorted(self.warnings))
    }
}
