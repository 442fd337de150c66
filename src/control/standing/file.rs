//! The file beside a gate's ledger that has what the collector said last: a gate that starts while
//! the collector cannot be heard stops whom it stopped before.
//!
//! Must never leave half a file in the place of a whole one.

use crate::control::standing::message::PartAccounts;
use crate::control::standing::{Assembly, StandingError, StandingMessage};
use crate::model::Stop;
use crate::proxy::CollectedStanding;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The file, by its path.
#[derive(Clone, Debug)]
pub(in crate::control) struct StandingFile {
    path: PathBuf,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::control) enum StandingFileError {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error(transparent)]
    Standing(#[from] StandingError),
}

impl StandingFile {
    /// The one of this ledger.
    pub(in crate::control) fn beside(ledger: &Path) -> Self {
        Self {
            path: suffixed(ledger, "-standing"),
        }
    }

    /// Where it is.
    pub(in crate::control) fn path(&self) -> &Path {
        &self.path
    }

    /// What it has; `None` when there is no such file.
    pub(in crate::control) fn read(&self) -> Result<Option<CollectedStanding>, StandingFileError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // It is written as the one value of a small standing is.
        let mut assembly = Assembly::default();
        assembly.take_head(&bytes)?;
        Ok(assembly.whole())
    }

    /// Puts `standing` into it, durable when this returns. Blocks.
    pub(in crate::control) fn write(&self, standing: &CollectedStanding) -> io::Result<()> {
        let mut accounts = PartAccounts::default();
        for account in &standing.stopped {
            accounts.stop(account, Stop::Arrears);
        }
        let balances = standing.balances.iter();
        accounts.balances = balances
            .map(|(id, balance)| (id.clone(), balance.clone()))
            .collect();
        let CollectedStanding {
            generation, as_of, ..
        } = *standing;
        let value = StandingMessage::new(generation, as_of, Vec::new(), accounts);
        let value = value.of(standing.books.clone()).encode();
        let new = suffixed(&self.path, ".new");
        let mut file = File::create(&new)?;
        file.write_all(&value)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AccountId, Utc};
    use crate::proxy::CollectedBooks;

    #[test]
    fn what_was_said_last_is_read_again_and_a_file_that_is_none_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = StandingFile::beside(&dir.path().join("ledger.db"));
        assert!(file.path().ends_with("ledger.db-standing"));
        assert!(file.read().unwrap().is_none());
        let id = |n: u32| AccountId::new(&n.to_string()).unwrap();
        let mut said = CollectedStanding {
            generation: 7,
            as_of: Utc(1_795_000_000_000_000),
            books: CollectedBooks {
                collected_in: "00112233445566778899aabbccddeeff".to_owned(),
                replaces: vec!["ffeeddccbbaa99887766554433221100".to_owned()],
                adopted_at: 7,
                held: [AccountId::new("1").unwrap()].into(),
                debited: Some("2026-10".to_owned()),
            },
            stopped: [id(1), id(2)].into(),
            balances: [
                (id(1), "-0.01".into()),
                (id(2), "-27.00".into()),
                (id(3), "5".into()),
            ]
            .into(),
        };
        for _ in 0..2 {
            file.write(&said).unwrap();
            assert_eq!(file.read().unwrap().unwrap(), said);
            said.stopped.clear();
        }
        let names = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 1, "nothing else is left");
        fs::write(file.path(), b"{\"format\":1").unwrap();
        assert!(file.read().is_err());
    }
}
